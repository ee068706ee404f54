//! New tokens for sessions in cookies of `@supabase/ssr` (`on_expired: refresh_and_set_cookie`).
//!
//! A refresh token is good for one refresh. So all requests that bring the same one get what the first of them got: they
//! wait for it, and for a while after it they find it. It goes on to its end whoever goes away meanwhile.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::Refreshed;
use crate::clock::Timestamp;
use crate::identity::IssuerName;
use crate::policy::set::SupabaseProject;
use crate::provider::supabase::Session;
use crate::provider::{ProviderError, Supabase};
use crate::secret::Secret;
use crate::telemetry::audit::{Audit, AuditEvent, Event, Outcome, Reason};

/// How long a request waits for another's refresh.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long an answer is given again; so long a server takes the same token for a repetition.
const KEPT: Duration = Duration::from_secs(10);
/// How long the project is left alone after a failure.
const FAILED: Duration = Duration::from_secs(1);
/// How many refreshes are known at a time.
const MOST: usize = 10_000;

/// A refresh token of a project, hashed.
type Key = [u8; 32];

/// The refreshes under way, and those just done.
#[derive(Clone, Debug, Default)]
pub(super) struct Refreshes {
    known: Arc<Mutex<HashMap<Key, Flight>>>,
}

#[derive(Debug)]
struct Flight {
    result: watch::Receiver<Option<Refreshed>>,
    until: Instant,
}

/// What a refresh is made of.
#[derive(Clone, Debug)]
pub(super) struct Refresh {
    pub(super) supabase: Supabase,
    pub(super) project: Arc<SupabaseProject>,
    pub(super) issuer: IssuerName,
    /// The client's address.
    pub(super) client: IpAddr,
    pub(super) audit: Arc<Audit>,
    pub(super) now: Timestamp,
}

impl Refreshes {
    /// The session that follows this one, whoever asked first.
    pub(super) async fn refresh(&self, with: Refresh, session: &Secret<String>) -> Refreshed {
        let Ok(Value::Object(old)) = serde_json::from_str(session.expose()) else { return Refreshed::Over };
        let token = old.get("refresh_token").and_then(Value::as_str).filter(|token| !token.is_empty());
        let Some(token) = token.map(|token| Secret::new(token.to_owned())) else { return Refreshed::Over };
        let key = key(&with.project.url, token.expose());
        let Some(mut result) = self.join(key, with, token, old.contains_key("user")) else {
            return Refreshed::Unavailable;
        };
        let waited = tokio::time::timeout(PATIENCE, result.wait_for(Option::is_some)).await;
        match waited {
            Ok(Ok(result)) => result.clone().unwrap_or(Refreshed::Unavailable),
            Ok(Err(_)) | Err(_) => Refreshed::Unavailable,
        }
    }

    /// Joins the refresh with this token, or begins it; `None` where there are too many.
    fn join(
        &self,
        key: Key,
        with: Refresh,
        token: Secret<String>,
        with_user: bool,
    ) -> Option<watch::Receiver<Option<Refreshed>>> {
        let now = Instant::now();
        let mut known = self.known.lock();
        if let Some(flight) = known.get(&key).filter(|flight| flight.until > now) {
            return Some(flight.result.clone());
        }
        if known.len() >= MOST {
            known.retain(|_, flight| flight.until > now);
        }
        if known.len() >= MOST {
            return None;
        }
        let (done, result) = watch::channel(None);
        known.insert(key, Flight { result: result.clone(), until: now + 2 * PATIENCE });
        drop(known);
        let all = Arc::clone(&self.known);
        tokio::spawn(async move {
            let refreshed = with.run(&token, with_user).await;
            let kept = if matches!(refreshed, Refreshed::Unavailable) { FAILED } else { KEPT };
            let _ = done.send(Some(refreshed));
            let until = Instant::now() + kept;
            if let Some(flight) = all.lock().get_mut(&key) {
                flight.until = until;
            }
            // Tokens are not kept longer than they are of use.
            tokio::time::sleep(kept).await;
            all.lock().retain(|_, flight| flight.until > Instant::now());
        });
        Some(result)
    }
}

impl Refresh {
    async fn run(&self, token: &Secret<String>, with_user: bool) -> Refreshed {
        let answer = self.supabase.refresh(&self.project, Some(self.client), token.expose()).await;
        let (event, outcome, reason, refreshed) = match answer {
            Ok(session) => match next(&session, token, with_user, self.now) {
                Some(json) => {
                    let new = Refreshed::New { token: session.tokens.access, session: json };
                    (Event::Refresh, Outcome::Success, None, new)
                }
                None => (Event::Refresh, Outcome::Failure, None, Refreshed::Unavailable),
            },
            Err(ProviderError::Refused { code, .. }) if &*code == "refresh_token_already_used" => {
                (Event::Reuse, Outcome::Failure, Some(Reason::Reused), Refreshed::Over)
            }
            Err(ProviderError::Refused { .. }) => {
                (Event::Refresh, Outcome::Failure, Some(Reason::SessionOver), Refreshed::Over)
            }
            Err(error) => {
                tracing::warn!(issuer = self.issuer.as_str(), %error, "a session in a cookie cannot be refreshed");
                (Event::Refresh, Outcome::Failure, Some(Reason::UpstreamUnavailable), Refreshed::Unavailable)
            }
        };
        self.audit.record(&AuditEvent {
            reason,
            issuer: Some(self.issuer.as_str()),
            address: Some(self.client),
            ..AuditEvent::new(self.now, event, outcome)
        });
        refreshed
    }
}

/// The session as the library would keep it: what the project said, and when it ends. Without the user where the cookie
/// was without (`tokens-only`).
fn next(session: &Session, old: &Secret<String>, with_user: bool, now: Timestamp) -> Option<Secret<String>> {
    let mut json: Map<String, Value> = serde_json::from_str(session.json.expose()).ok()?;
    if !with_user {
        json.remove("user");
    }
    if !json.get("expires_at").is_some_and(Value::is_number)
        && let Some(life) = session.tokens.expires_in
    {
        let seconds = i64::try_from(life.as_secs()).unwrap_or(i64::MAX);
        json.insert("expires_at".to_owned(), now.as_seconds().saturating_add(seconds).into());
    }
    if session.tokens.refresh.is_none() {
        json.insert("refresh_token".to_owned(), old.expose().as_str().into());
    }
    serde_json::to_string(&json).ok().map(Secret::new)
}

fn key(project: &str, token: &str) -> Key {
    let mut hash = digest::Context::new(&digest::SHA256);
    for part in [project, "\0", token] {
        hash.update(part.as_bytes());
    }
    let mut key = Key::default();
    for (byte, hashed) in key.iter_mut().zip(hash.finish().as_ref()) {
        *byte = *hashed;
    }
    key
}
