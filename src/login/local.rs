//! Logging in with a password to an account that the gateway keeps.
//!
//! Unknown, wrong, disabled, locked and without a password are one answer and one amount of work: each looks for the
//! user and checks the password against a hash, their own or the dummy that stands for it.

use std::time::Duration;

use zeroize::Zeroizing;

use crate::identity::account::AccountName;
use crate::password::Verdict;
use crate::response::Response;
use crate::secret::Secret;
use crate::store::{EndedBy, Session, StoreError, User};
use crate::telemetry::audit::{Account, AuditEvent, Event, Outcome, Reason};

use super::error::OAuthError;
use super::form::Form;
use super::hasher::Checked;
use super::refresh::RefreshToken;
use super::throttle::{Attempting, Ticket};
use super::{Asking, Login, grant};

/// The realm of the accounts that the gateway keeps: one for all apps.
const REALM: &str = "local";
/// The wait that is proposed when all places to hash are taken.
const BUSY: Duration = Duration::from_secs(1);

impl Login {
    /// `grant_type=password`.
    pub(super) async fn password(&self, asking: &Asking<'_>, form: &Form) -> Result<Response, OAuthError> {
        let failed = |reason| asking.event(Event::Login, Outcome::Failure).because(reason);
        let refused = |error, event: AuditEvent<'_>| {
            self.audit(&event);
            error
        };
        let parts = &self.parts;
        let ours = asking.ours()?;
        let bad_request = |what| refused(OAuthError::InvalidRequest(what), failed(Reason::InvalidRequest));
        let name = form.account().ok_or_else(|| bad_request("username is missing"))?;
        let password = form.get("password").ok_or_else(|| bad_request("password is missing"))?;
        if crate::password::check_length(password.as_bytes()).is_err() {
            return Err(bad_request("The password is too long"));
        }
        let requested = form.scopes().map_err(|error| refused(error, failed(Reason::InvalidScope)))?;
        let keys = parts.issuers.snapshot();
        let signer = keys
            .signer(&ours.issuer.name)
            .ok_or_else(|| refused(OAuthError::unavailable(), failed(Reason::KeysUnavailable)))?;

        // A name that is no account's name is treated like one that nobody has.
        let account = name.ok();
        let asked = account.as_ref().map(Account::Asked);
        let failed = |reason| AuditEvent { account: asked, ..failed(reason) };
        if parts.hasher.is_full() {
            return Err(refused(OAuthError::Unavailable(BUSY), failed(Reason::Busy)));
        }
        let down = |_: StoreError| refused(OAuthError::unavailable(), failed(Reason::StoreUnavailable));
        let attempting = Attempting {
            realm: REALM,
            account: account.as_ref(),
            client: asking.client,
            password: Some(password.as_bytes()),
        };
        let attempts = &*parts.stores.attempts;
        let lockout = asking.login.lockout.as_ref();
        let ticket = self.throttle.begin(attempts, &attempting, lockout, asking.now).await.map_err(down)?;
        let user = match self.user(account.as_ref()).await {
            Ok(user) => user,
            Err(error) => {
                self.throttle.forgive(attempts, ticket, asking.now).await;
                return Err(down(error));
            }
        };
        let stored = user.as_ref().and_then(|user| user.hash.as_ref());
        let Some((ticket, Checked { verdict, unreadable })) = self.check(asking, ticket, stored, password).await else {
            return Err(refused(OAuthError::Unavailable(BUSY), failed(Reason::Busy)));
        };

        let is_locked = ticket.locked().is_some();
        let reason = match &user {
            _ if is_locked => Some(Reason::Locked),
            None => Some(Reason::UnknownAccount),
            Some(_) if unreadable.is_some() => Some(Reason::UnreadableHash),
            Some(user) if user.hash.is_none() => Some(Reason::NoPassword),
            Some(_) if verdict == Verdict::NoMatch => Some(Reason::WrongPassword),
            Some(user) if user.disabled => Some(Reason::Disabled),
            Some(_) => None,
        };
        let known = |event: AuditEvent<'_>| match &user {
            None => self.audit(&event),
            Some(user) => self.audit(&AuditEvent {
                subject: Some(&user.id),
                account: Some(Account::Known(&user.account)),
                ..event
            }),
        };
        if ticket.is_new_lock() {
            known(AuditEvent { event: Event::Lockout, ..failed(Reason::Locked) });
        }
        let (Some(user), None) = (&user, reason) else {
            known(failed(reason.unwrap_or(Reason::UnknownAccount)));
            return Err(OAuthError::BadCredentials);
        };
        self.throttle.clear(attempts, ticket).await;

        let allowed = grant::allowed(user, asking.policy);
        let defaults = asking.login.default_scopes.as_deref();
        let (hierarchy, strict) = (ours.issuer.hierarchy, asking.login.strict_scopes);
        let scopes = grant::granted(&requested, &allowed, defaults, hierarchy, strict)
            .inspect_err(|_| known(failed(Reason::InvalidScope)))?;
        let session = Session {
            id: grant::id(asking.now, &*parts.random),
            user: user.id.clone(),
            issuer: ours.issuer.name.to_string(),
            app: asking.app.name.to_string(),
            scopes,
            started: asking.now,
            expires: asking.now.plus(ours.local.refresh_expires),
            used: asking.now,
            address: Some(asking.client.ip()),
            user_agent: grant::shortened(asking.user_agent),
            ended: None,
        };
        let access = grant::mint(asking, ours, signer, user, &session, &session.scopes, &*parts.random)
            .inspect_err(|_| known(failed(Reason::InvalidScope)))?;
        let token = RefreshToken::generate(&*parts.random);
        parts.stores.sessions.start(&session, &token.hash()).await.map_err(down)?;
        // Whoever was disabled or got a new password while this one was checked has had their sessions ended, but not
        // yet this one.
        if !self.still_good(user, password).await.map_err(down)? {
            self.end(ours, &session, EndedBy::User, asking.now).await.map_err(down)?;
            known(failed(Reason::Disabled));
            return Err(OAuthError::BadCredentials);
        }
        if verdict == Verdict::MatchOutdated {
            self.upgrade(asking, ours.local.upgrade, user, password).await;
        }
        known(AuditEvent { session: Some(&session.id), ..asking.event(Event::Login, Outcome::Success) });
        Ok(asking.answer(grant::answer(&access, &token)))
    }

    async fn user(&self, account: Option<&AccountName>) -> Result<Option<User>, StoreError> {
        match account {
            Some(account) => self.parts.stores.users.by_account(account).await,
            None => Ok(None),
        }
    }

    /// Whether a user may still log in with a password that was good a moment ago.
    async fn still_good(&self, before: &User, password: &str) -> Result<bool, StoreError> {
        let Some(now) = self.parts.stores.users.by_id(&before.id).await? else { return Ok(false) };
        if now.disabled {
            return Ok(false);
        }
        if now.hash.as_ref().map(Secret::expose) == before.hash.as_ref().map(Secret::expose) {
            return Ok(true);
        }
        // Another password, or the same one that a parallel login hashed anew.
        let checked = self.parts.hasher.check(now.hash.as_ref(), bytes(password)).await;
        Ok(checked.is_ok_and(|checked| checked.verdict != Verdict::NoMatch))
    }

    /// Checks a password. There is no checking without a ticket; `None` if all places to do so are taken, and then the
    /// attempt does not count.
    async fn check(
        &self,
        asking: &Asking<'_>,
        ticket: Ticket,
        stored: Option<&Secret<String>>,
        password: &str,
    ) -> Option<(Ticket, Checked)> {
        match self.parts.hasher.check(stored, bytes(password)).await {
            Ok(checked) => Some((ticket, checked)),
            Err(_) => {
                self.throttle.forgive(&*self.parts.stores.attempts, ticket, asking.now).await;
                None
            }
        }
    }

    /// Replaces an outdated hash, if nobody set another meanwhile. What fails here is tried again at the next login.
    async fn upgrade(&self, asking: &Asking<'_>, replace: bool, user: &User, password: &str) {
        let Some(old) = &user.hash else { return };
        if !replace {
            tracing::info!(subject = %user.id, kind = %crate::password::kind(old.expose()), "a password hash is outdated");
            return;
        }
        let Ok(new) = self.parts.hasher.hash(bytes(password)).await else { return };
        let replaced = self.parts.stores.users.replace_hash(&user.id, old.expose(), new.expose(), asking.now).await;
        if replaced == Ok(true) {
            self.audit(&AuditEvent {
                subject: Some(&user.id),
                account: Some(Account::Known(&user.account)),
                ..asking.event(Event::UserChange, Outcome::Success).because(Reason::HashUpgraded)
            });
        }
    }
}

fn bytes(password: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(password.as_bytes().to_vec())
}
