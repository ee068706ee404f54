//! Finding a session, and having its tokens replaced ahead of their end.
//!
//! Tokens are replaced once, whoever asks: in this process all requests of a session wait for one flight, and among
//! gateways one holds the lease while the others wait for what it stores. A flight is a task of its own, which a browser
//! that goes away does not end: the provider has given out new tokens then, and the old ones may be worth nothing.
//!
//! Only a provider that says no ends a session. While none answers, a token goes on to its end, and then the answer is
//! that nothing can be said; the session stays. Whoever loses a race reads what the winner stored.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::identity::IssuerName;
use crate::policy::set::{BrowserLogin, PolicySet};
use crate::provider::{ProviderError, Tokens};
use crate::store::{BrowserSession, CookieHash, StoreError};
use crate::telemetry::audit::{AuditEvent, Event, Outcome, Reason};

use super::kept::Kept;
use super::seal::OpenError;
use super::{Browser, Inner, LiveSession, SessionFound, hash_of};

/// The least time between two replacements of the tokens of a session, and after a failure.
const PAUSE: Duration = Duration::from_secs(5);
/// The longest pause that a provider may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long a lease lasts: longer than asking a provider may take.
const LEASE: Duration = Duration::from_secs(20);
/// After so long no further attempt is begun.
const LAST_ATTEMPT: Duration = Duration::from_secs(6);
/// How many attempts are made before a pause.
const ATTEMPTS: u32 = 3;
/// The wait before the second attempt; it doubles.
const BACK_OFF: Duration = Duration::from_millis(200);
/// How often a session is looked at that another gateway works on.
const LOOK: Duration = Duration::from_millis(50);
/// How long a request waits.
const WAIT: Duration = Duration::from_secs(12);
/// A token that is good for so long is used while it is being replaced.
const STILL_GOOD: Duration = Duration::from_secs(10);
/// How long new tokens are held that cannot be stored.
const HOLD: Duration = Duration::from_secs(120);
/// How precisely it is known when a session was used last; more so where it may not rest long.
const TOUCH: Duration = Duration::from_secs(60);

/// What came of replacing tokens.
#[derive(Clone, Debug)]
enum Landed {
    /// These are the newest.
    Tokens(Arc<Kept>),
    /// The session has ended.
    Gone,
    /// There are no new ones now.
    Failed,
}

/// Replacements under way in this process.
#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<CookieHash, watch::Receiver<Option<Landed>>>>);

impl fmt::Debug for Flights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").field("under_way", &self.0.lock().len()).finish()
    }
}

/// Removes a flight, however it ends.
struct Landing(Arc<Inner>, CookieHash);

impl Drop for Landing {
    fn drop(&mut self) {
        self.0.flights.0.lock().remove(&self.1);
    }
}

impl Browser {
    /// What a session's cookie leads to.
    pub async fn find(&self, policy: &Arc<PolicySet>, login: &Arc<BrowserLogin>, cookie: &str) -> SessionFound {
        let inner = &self.inner;
        let Some(hash) = hash_of(cookie) else { return SessionFound::Gone };
        let (row, kept) = match inner.read(login, &hash).await {
            Ok(Some(found)) => found,
            Ok(None) => return SessionFound::Gone,
            Err(_) => return SessionFound::Unavailable,
        };
        let now = inner.parts.clock.now();
        if now.since(row.used) >= TOUCH.min(login.idle / 4) {
            let inner = Arc::clone(inner);
            tokio::spawn(async move { inner.parts.stores.browser.touch(&hash, now).await });
        }
        let (issuer, user) = (IssuerName::new(row.issuer.as_str()), Box::<str>::from(row.user.as_str()));
        let live = |kept: &Kept| {
            SessionFound::Live(LiveSession {
                issuer: issuer.clone(),
                user: user.clone(),
                token: kept.speaks().clone(),
                client_id: kept.client.clone(),
                access: kept.access.clone(),
                set_cookie: Vec::new(),
            })
        };
        let left = kept.ends.since(now);
        if left >= login.refresh_margin {
            return live(&kept);
        }
        if kept.refresh.is_none() && left.is_zero() {
            inner.end(&row, Reason::SessionOver).await;
            return SessionFound::Gone;
        }
        if kept.refresh.is_none() || row.is_paused(now) && !left.is_zero() {
            return live(&kept);
        }
        let mut flight = inner.fly(policy, login, row);
        if left >= STILL_GOOD {
            return live(&kept); // a slow provider holds up nobody whose token is good
        }
        let landed = tokio::time::timeout(WAIT, flight.wait_for(Option::is_some)).await;
        match landed.ok().and_then(|landed| landed.ok()?.clone()) {
            Some(Landed::Tokens(kept)) => live(&kept),
            Some(Landed::Gone) => SessionFound::Gone,
            Some(Landed::Failed) | None if !left.is_zero() => live(&kept),
            Some(Landed::Failed) | None => SessionFound::Unavailable,
        }
    }
}

impl Inner {
    /// A session that lives, with its tokens.
    pub(super) async fn read(
        &self,
        login: &BrowserLogin,
        hash: &CookieHash,
    ) -> Result<Option<(BrowserSession, Kept)>, StoreError> {
        let Some(row) = self.parts.stores.browser.get(hash).await? else { return Ok(None) };
        let now = self.parts.clock.now();
        if now >= row.expires || now.since(row.used) >= login.idle {
            self.end(&row, Reason::SessionOver).await;
            return Ok(None);
        }
        // Begun by another app of the host, or before the policy said so; there it may go on.
        if now.since(row.started) >= login.expires {
            return Ok(None);
        }
        match self.sealer.open(&login.keys, &row.hash.0, &row.sealed).await {
            Ok(text) => match Kept::read(&text) {
                Some(kept) => Ok(Some((row, kept))),
                None => Err(StoreError::Corrupt("the tokens of a session".to_owned())),
            },
            Err(OpenError::Store(error)) => Err(error),
            Err(OpenError::UnknownKey | OpenError::Broken) => {
                tracing::warn!(session = row.id, "the tokens of a session cannot be opened: its sealing key is gone");
                Ok(None)
            }
        }
    }

    /// Ends a session, and says so once.
    pub(super) async fn end(&self, row: &BrowserSession, reason: Reason) {
        if self.parts.stores.browser.end(&row.hash).await == Ok(true) {
            self.audit(&self.event(row, Event::SessionEnd, Outcome::Success).because(reason));
        }
    }

    fn event<'e>(&self, row: &'e BrowserSession, event: Event, outcome: Outcome) -> AuditEvent<'e> {
        AuditEvent {
            app: Some(&row.app),
            issuer: Some(&row.issuer),
            subject: Some(&row.user),
            session: Some(&row.id),
            ..AuditEvent::new(self.parts.clock.now(), event, outcome)
        }
    }

    /// The flight that replaces the tokens of a session: the one under way, or a new one.
    fn fly(
        self: &Arc<Self>,
        policy: &Arc<PolicySet>,
        login: &Arc<BrowserLogin>,
        row: BrowserSession,
    ) -> watch::Receiver<Option<Landed>> {
        let mut flights = self.flights.0.lock();
        if let Some(flight) = flights.get(&row.hash) {
            return flight.clone();
        }
        let (sender, flight) = watch::channel(None);
        flights.insert(row.hash, flight.clone());
        let (inner, policy, login) = (Arc::clone(self), Arc::clone(policy), Arc::clone(login));
        tokio::spawn(async move {
            let landing = Landing(Arc::clone(&inner), row.hash);
            let landed = inner.replace(&policy, &login, &row).await;
            // Whoever comes from now on reads what is stored.
            drop(landing);
            sender.send_replace(Some(landed));
        });
        flight
    }

    /// Replaces the tokens of a session, or waits for who does.
    async fn replace(&self, policy: &PolicySet, login: &BrowserLogin, asked: &BrowserSession) -> Landed {
        let (store, began) = (&self.parts.stores.browser, Instant::now());
        while began.elapsed() < WAIT {
            let (row, kept) = match self.read(login, &asked.hash).await {
                Ok(Some(found)) => found,
                Ok(None) => return Landed::Gone,
                Err(_) => return Landed::Failed,
            };
            let now = self.parts.clock.now();
            let left = kept.ends.since(now);
            if row.version != asked.version || left >= login.refresh_margin {
                return Landed::Tokens(Arc::new(kept)); // somebody else was faster
            }
            if row.is_paused(now) {
                return Landed::Failed; // it was tried a moment ago
            }
            if row.is_leased(now) {
                if left >= STILL_GOOD {
                    return Landed::Tokens(Arc::new(kept));
                }
                tokio::time::sleep(LOOK).await;
                continue;
            }
            match store.claim(&row.hash, row.version, now.plus(LEASE), now).await {
                Ok(true) => return self.replace_claimed(policy, login, &row, &kept).await,
                Ok(false) => {}
                Err(_) => return Landed::Failed,
            }
        }
        Landed::Failed
    }

    /// Asks the provider, as the one who holds the lease.
    async fn replace_claimed(
        &self,
        policy: &PolicySet,
        login: &BrowserLogin,
        row: &BrowserSession,
        kept: &Kept,
    ) -> Landed {
        let store = &self.parts.stores.browser;
        let answer = self.ask(policy, row, kept).await;
        let failed = |reason| self.audit(&self.event(row, Event::Refresh, Outcome::Failure).because(reason));
        match answer {
            Ok(tokens) => self.keep(policy, login, row, kept, tokens).await,
            Err(error) if says_no(&error) => {
                // A no to a token that somebody else has replaced meanwhile says nothing.
                match self.read(login, &row.hash).await {
                    Ok(Some((newer, kept))) if newer.version != row.version => return Landed::Tokens(Arc::new(kept)),
                    Err(_) => return Landed::Failed,
                    Ok(_) => {}
                }
                let ProviderError::Refused { code, .. } = &error else { return Landed::Failed };
                let reused = **code == *"refresh_token_already_used";
                tracing::info!(session = row.id, issuer = row.issuer, %error, "a provider ended a session");
                if reused {
                    self.audit(&self.event(row, Event::Reuse, Outcome::Failure).because(Reason::Reused));
                }
                failed(if reused { Reason::Reused } else { Reason::ProviderRefused });
                self.end(row, Reason::ProviderRefused).await;
                Landed::Gone
            }
            Err(error) => {
                tracing::warn!(session = row.id, issuer = row.issuer, %error, "the tokens of a session were not replaced");
                failed(Reason::ProviderUnavailable);
                let pause = match error {
                    ProviderError::Busy(Some(wait)) => wait.clamp(PAUSE, LONGEST_PAUSE),
                    _ => PAUSE,
                };
                // Where this fails, the lease ends by itself.
                let _ = store.release(&row.hash, row.version, self.parts.clock.now().plus(pause)).await;
                Landed::Failed
            }
        }
    }

    /// Asks the provider for the next tokens; again, while it says nothing about the token and asking again does no harm.
    async fn ask(&self, policy: &PolicySet, row: &BrowserSession, kept: &Kept) -> Result<Tokens, ProviderError> {
        let gone = || ProviderError::Misconfigured("the policy has no such issuer any more".into());
        let issuer = policy.issuers.iter().find(|issuer| issuer.name.as_str() == row.issuer).ok_or_else(gone)?;
        let refresh = kept.refresh.as_ref().ok_or_else(gone)?.expose();
        let (began, mut wait, mut attempt) = (Instant::now(), BACK_OFF, 0);
        loop {
            let (answer, repeatable) = match (&issuer.supabase, &issuer.oidc) {
                // The parent of the newest token is taken, too: an answer that was lost is given again.
                (Some(project), _) => {
                    let session = self.parts.supabase.refresh(project, row.address, refresh).await;
                    (session.map(|session| session.tokens), true)
                }
                (None, Some(client)) => {
                    let discovery = self.discovery(&client.issuer).await?;
                    // A token whose successor was lost on the way is a used one.
                    (self.parts.oidc.refresh(&discovery, client, refresh).await, false)
                }
                (None, None) => return Err(gone()),
            };
            match &answer {
                Err(ProviderError::Busy(asked)) if asked.is_none_or(|asked| asked <= wait) => {}
                Err(ProviderError::Unavailable(_)) if repeatable => {}
                _ => return answer,
            }
            attempt += 1;
            if attempt >= ATTEMPTS || began.elapsed() + wait >= LAST_ATTEMPT {
                return answer;
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
    }

    /// Stores new tokens before anybody sees them.
    async fn keep(
        &self,
        policy: &PolicySet,
        login: &BrowserLogin,
        row: &BrowserSession,
        old: &Kept,
        tokens: Tokens,
    ) -> Landed {
        let store = &self.parts.stores.browser;
        let kept = self.next(policy, row, old, tokens);
        let Some(kept) = kept else {
            tracing::error!(session = row.id, issuer = row.issuer, "a provider gave out the tokens of another user");
            self.audit(&self.event(row, Event::Refresh, Outcome::Failure).because(Reason::ProviderRefused));
            self.end(row, Reason::ProviderRefused).await;
            return Landed::Gone;
        };
        let (began, mut wait) = (Instant::now(), BACK_OFF);
        loop {
            let stored = async {
                let sealed = self.sealer.seal(&login.keys, &row.hash.0, &kept.write()).await?;
                let from = self.parts.clock.now().plus(PAUSE);
                store.replace(&row.hash, row.version, &sealed, from).await
            };
            match stored.await {
                Ok(true) => {
                    self.audit(&self.event(row, Event::Refresh, Outcome::Success));
                    return Landed::Tokens(Arc::new(kept));
                }
                Ok(false) => {
                    return match self.read(login, &row.hash).await {
                        Ok(Some((_, newer))) => Landed::Tokens(Arc::new(newer)),
                        Ok(None) => {
                            // It ended meanwhile: so do the tokens that came too late.
                            self.revoke_at_provider(policy, &row.issuer, &kept).await;
                            Landed::Gone
                        }
                        Err(_) => Landed::Failed,
                    };
                }
                // The old ones may be worth nothing any more: these must not be lost.
                Err(error) if began.elapsed() < HOLD => {
                    tracing::warn!(session = row.id, %error, "new tokens of a session cannot be stored yet");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_secs(2));
                }
                Err(error) => {
                    tracing::error!(session = row.id, %error, "new tokens of a session could not be stored");
                    self.audit(&self.event(row, Event::Refresh, Outcome::Failure).because(Reason::StoreUnavailable));
                    return Landed::Failed;
                }
            }
        }
    }

    /// What is kept after a replacement; `None` if the new tokens speak for somebody else.
    fn next(&self, policy: &PolicySet, row: &BrowserSession, old: &Kept, tokens: Tokens) -> Option<Kept> {
        let now = self.parts.clock.now();
        let Tokens { access, refresh, id, expires_in, .. } = tokens;
        // Where the ID token speaks and none comes with a replacement, there is no going on after its end.
        let goes_on = old.client.is_none() || id.is_some();
        let mut kept = Kept {
            access,
            refresh: refresh.or_else(|| old.refresh.clone()).filter(|_| goes_on),
            id: id.or_else(|| old.id.clone()),
            client: old.client.clone(),
            ends: now,
        };
        let verifier = self.parts.issuers.live().snapshot().verifier(policy);
        let issuer = IssuerName::new(row.issuer.as_str());
        let verified = match &kept.client {
            Some(client) => verifier.verify_id_token(&issuer, client, kept.speaks().expose(), now),
            None => verifier.verify(kept.speaks().expose(), now),
        };
        // A key may be new, and is looked for when the token is used; then the provider's word is all there is.
        let verified = verified.ok();
        let subject = verified.as_ref().map(|verified| super::sign_in::subject(verified.claims()));
        if subject.is_some_and(|subject| subject != row.user) {
            return None;
        }
        let stated = expires_in.map(|life| now.plus(life));
        kept.ends = super::sign_in::ends(verified.as_ref(), stated, now);
        Some(kept)
    }
}

/// Whether a provider says that a session is over. Whatever else it says is about something else: a wrong API key or a
/// proxy in between ends nobody's session.
fn says_no(error: &ProviderError) -> bool {
    match error {
        // The words of a status (`Bad Request`) are no code: a proxy or a server in between did not like the request.
        ProviderError::Refused { status: 400, code, .. } => {
            !code.bytes().any(|byte| byte == b' ' || byte.is_ascii_uppercase())
        }
        ProviderError::Refused { code, .. } => {
            matches!(&**code, "invalid_grant" | "session_not_found" | "user_banned" | "user_not_found")
        }
        ProviderError::Busy(_) | ProviderError::Unavailable(_) | ProviderError::Misconfigured(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_no_about_the_session_ends_it() {
        let refused = |status, code: &str| ProviderError::Refused { status, code: code.into(), description: "".into() };
        for (error, ends) in [
            (refused(400, "refresh_token_not_found"), true),
            (refused(400, "refresh_token_already_used"), true),
            (refused(400, "session_expired"), true),
            (refused(400, "invalid_grant"), true),
            (refused(403, "session_not_found"), true),
            (refused(401, "invalid_grant"), true),
            (refused(400, "Bad Request"), false),
            (refused(400, "BadRequest"), false),
            (refused(401, "no_authorization"), false),
            (refused(403, "forbidden"), false),
            (refused(404, ""), false),
            (refused(422, "unexpected"), false),
            (ProviderError::Busy(None), false),
            (ProviderError::Unavailable("".into()), false),
            (ProviderError::Misconfigured("".into()), false),
        ] {
            assert_eq!(says_no(&error), ends, "{error:?}");
        }
    }
}
