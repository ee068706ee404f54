//! Logging in, going on, and ending: the gateway's own OAuth endpoints.
//!
//! In: a parsed form, who asks from where, and the compiled login of the app. Out: a whole response in the form of RFC
//! 6749, 7009 or 7662. Users, sessions and counts are in `store`; hashing is in `password`; keys come from `issuer`.
//! It does not read bodies from connections, and does not decide who may call: that is `pipeline`'s and the policy's.
//!
//! [`local`](Login::token) logs in and [`refresh`] goes on; `revoke`, `logout` and `introspect` are the endpoints of their
//! names; `supabase` asks a project of theirs; [`metadata`] describes them all; [`upstream`] watches over the login of an
//! app that keeps its own. Before any
//! password is looked at there is a ticket of [`throttle`].

pub mod error;
pub mod form;
mod grant;
pub mod hasher;
mod introspect;
mod local;
mod logout;
pub mod metadata;
pub mod refresh;
mod revoke;
mod supabase;
pub mod throttle;
pub mod upstream;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use crate::clock::{Clock, Timestamp};
use crate::identity::Caller;
use crate::issuer::Snapshot;
use crate::live::Live;
use crate::policy::set::{self, App, Issuer, LocalIssuer, OwnEndpoint, PolicySet, Via};
use crate::provider::Supabase;
use crate::random::Random;
use crate::request::forwarded::ClientAddr;
use crate::response::{DECISION_HEADER, Response};
use crate::store::revoked::RevokedList;
use crate::store::{EndedBy, Revocation, Revoked, Session, StoreError, Stores};
use crate::telemetry::audit::{Audit, AuditEvent, Event, Outcome, Reason};

use self::error::{OAuthError, uncached};
use self::form::Form;
use self::hasher::Hasher;
use self::throttle::Throttle;

/// What logging in needs.
#[derive(Debug)]
pub struct Parts {
    /// Users, sessions, revocations and counts.
    pub stores: Arc<Stores>,
    /// What requests are checked against.
    pub revoked: Arc<RevokedList>,
    /// Where passwords are hashed.
    pub hasher: Hasher,
    /// The keys.
    pub issuers: Arc<Live<Snapshot>>,
    /// What asks Supabase projects.
    pub supabase: Supabase,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Random bytes, for ids, tokens and salts.
    pub random: Arc<dyn Random>,
    /// Where what happens is written down.
    pub audit: Arc<Audit>,
}

/// The endpoints of logins.
#[derive(Debug)]
pub struct Login {
    parts: Arc<Parts>,
    throttle: Throttle,
}

/// Who asks an endpoint, of which app, and when.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// The policy in force.
    pub policy: &'a PolicySet,
    /// The app.
    pub app: &'a App,
    /// Its login.
    pub login: &'a set::Login,
    /// From where.
    pub client: ClientAddr,
    /// With what, as the client says; empty if it does not.
    pub user_agent: &'a str,
    /// As whom.
    pub caller: &'a Caller,
    /// The id of the request's decision.
    pub decision_id: &'a str,
    /// When.
    pub now: Timestamp,
}

/// The issuer whose tokens a login gives out.
#[derive(Clone, Copy)]
struct Ours<'a> {
    issuer: &'a Issuer,
    local: &'a LocalIssuer,
    /// How far clocks may be apart.
    leeway: Duration,
}

impl Login {
    /// The endpoints, with everything they need.
    pub fn new(parts: Parts) -> Self {
        let throttle = Throttle::new(&*parts.random);
        Self { parts: Arc::new(parts), throttle }
    }

    /// `POST /token` (RFC 6749 §4.3, §6).
    pub async fn token(&self, asking: &Asking<'_>, form: Form) -> Response {
        let event = if form.get("grant_type") == Some("refresh_token") { Event::Refresh } else { Event::Login };
        if self.parts.audit.is_blocked() {
            self.audit(&asking.event(event, Outcome::Failure).because(Reason::StoreUnavailable));
            return asking.refuse(&OAuthError::unavailable());
        }
        let asked = match form.get("grant_type") {
            // FastAPI's form may leave it out.
            None if form.get("username").is_some() && form.get("password").is_some() => Some("password"),
            asked => asked,
        };
        let granted = match (asking.login.via, asked) {
            (Via::Local, Some("password")) => self.password(asking, &form).await,
            (Via::Local, Some("refresh_token")) => self.refresh(asking, &form).await,
            (Via::Supabase, Some("password")) => self.supabase_password(asking, &form).await,
            (Via::Supabase, Some("refresh_token")) => self.supabase_refresh(asking, &form).await,
            _ => {
                self.audit(&asking.event(event, Outcome::Failure).because(Reason::UnsupportedGrant));
                Err(OAuthError::UnsupportedGrantType)
            }
        };
        granted.unwrap_or_else(|error| asking.refuse(&error))
    }

    /// Notes that a form was refused before it reached one of the endpoints: it could not be read, or came too often.
    pub fn refused(&self, asking: &Asking<'_>, asked: OwnEndpoint, error: &OAuthError) -> Response {
        let event = match asked {
            OwnEndpoint::Revoke => Event::Revoke,
            OwnEndpoint::Introspect => Event::Introspect,
            OwnEndpoint::Logout => Event::Logout,
            _ => Event::Login,
        };
        let reason = match error {
            OAuthError::RateLimited(_) => Reason::RateLimited,
            OAuthError::Unavailable(_) => Reason::StoreUnavailable,
            _ => Reason::InvalidRequest,
        };
        self.audit(&asking.event(event, Outcome::Failure).because(reason));
        asking.refuse(error)
    }

    fn audit(&self, event: &AuditEvent<'_>) {
        self.parts.audit.record(event);
    }
}

impl Parts {
    /// Revokes: durably first, then here, and only then anybody is told. Here also if a store fails, since refusing is
    /// the safe side.
    async fn revoke(&self, revocations: &[Revocation], now: Timestamp) -> Result<(), StoreError> {
        let mut result = Ok(());
        for store in &self.stores.revocations {
            if let Err(error) = store.add(revocations, now).await {
                result = Err(error);
            }
        }
        self.revoked.add(revocations);
        result
    }

    /// Ends a session, and with it all its tokens. Again if it has ended already: the first time may have got only
    /// half way.
    async fn end_session(
        &self,
        session: &Session,
        by: EndedBy,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.stores.sessions.end(&session.id, by, now).await?;
        let revoked = Revoked::Session(session.id.clone());
        self.revoke(&[Revocation { issuer: session.issuer.clone(), revoked, until }], now).await
    }
}

/// Does something to the end, also if the client goes away meanwhile: half of a logout is none.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::Unavailable("the work was stopped".to_owned())),
    }
}

impl<'a> Asking<'a> {
    /// The issuer of this login's tokens. Only a login that is not `local` has none.
    fn ours(&self) -> Result<Ours<'a>, OAuthError> {
        let issuer = self.login.issuer.as_ref().and_then(|name| self.policy.issuer(name));
        let Some((issuer, local)) = issuer.and_then(|issuer| Some((issuer, issuer.local.as_ref()?))) else {
            return Err(OAuthError::unavailable());
        };
        Ok(Ours { issuer, local, leeway: self.policy.verifier.leeway(&issuer.name) })
    }

    /// The answer to a refused request.
    pub fn refuse(&self, error: &OAuthError) -> Response {
        self.marked(error.respond(self.app.errors_fastapi))
    }

    /// The same answer with the decision's id.
    fn marked(&self, response: Response) -> Response {
        match HeaderValue::from_str(self.decision_id) {
            Ok(id) if !self.decision_id.is_empty() => response.with(DECISION_HEADER, id),
            _ => response,
        }
    }

    /// An answer that nobody keeps.
    fn answer(&self, response: Response) -> Response {
        uncached(response)
    }

    fn event(&self, event: Event, outcome: Outcome) -> AuditEvent<'a> {
        AuditEvent {
            decision_id: Some(self.decision_id).filter(|id| !id.is_empty()),
            app: Some(&self.app.name),
            issuer: self.login.issuer.as_ref().map(crate::identity::IssuerName::as_str),
            address: Some(self.client.ip()),
            user_agent: Some(self.user_agent).filter(|text| !text.is_empty()),
            ..AuditEvent::new(self.now, event, outcome)
        }
    }
}

impl Ours<'_> {
    /// When the last access token that exists at `now` will have expired everywhere.
    fn last_token_ends(&self, now: Timestamp) -> Timestamp {
        now.plus(self.local.expires).plus(self.leeway).plus(MARGIN)
    }
}

/// For tokens that are on their way while their session ends.
const MARGIN: Duration = Duration::from_secs(60);

impl fmt::Debug for Ours<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ours").field("issuer", &self.issuer.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
