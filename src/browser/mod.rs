//! Sessions of browsers: signing in through a provider, a cookie that no script can read, going on, and signing out.
//!
//! In: the compiled login of an app, a cookie's value or a form, and the time. Out: the tokens that speak for a session,
//! or a whole response. Tokens stay here, sealed in the store; what the browser holds is a random id. What is spoken
//! with providers is in `provider`; whether a token is good says `token`; what a request may do, the policy.
//!
//! [`refresh`](Browser::find) finds a session and has its tokens replaced ahead of their end; [`sign_in`](Browser::page)
//! has the pages and the way through a provider and back (`flow`), `logout` the end. [`return_to`] says where a login
//! may lead. Passwords are looked at by `login`, which has the throttle; what it got is handed to
//! [`Browser::signed_in`].

mod flow;
mod kept;
mod logout;
mod page;
mod query;
mod refresh;
pub mod return_to;
mod seal;
mod sign_in;

use std::sync::Arc;

use aws_lc_rs::digest;
use http::{HeaderMap, HeaderValue};

use crate::clock::{Clock, Timestamp};
use crate::identity::IssuerName;
use crate::issuer::Issuers;
use crate::policy::set::{self, App, BrowserLogin, PolicySet};
use crate::provider::{Oidc, Supabase};
use crate::random::Random;
use crate::request::forwarded::ClientAddr;
use crate::secret::Secret;
use crate::store::revoked::RevokedList;
use crate::store::{CookieHash, Stores};
use crate::telemetry::audit::{Audit, AuditEvent, Event, Outcome};
use crate::token::verify::Verifier;

pub use self::kept::Kept;
pub use self::query::{Query, Unclear};
pub use self::seal::Key as SealingKey;
pub use self::sign_in::{Failure, Posted};

/// What the cookie of a session leads to.
#[derive(Clone, Debug)]
pub enum SessionFound {
    /// A live session.
    Live(LiveSession),
    /// None: unknown, ended, or expired. Its cookie stays as it is: another tab may just have got the next one, and an
    /// answer that removes it would remove that.
    Gone,
    /// It cannot be told now.
    Unavailable,
}

/// A live session, refreshed where that was due.
#[derive(Clone, Debug)]
pub struct LiveSession {
    /// The issuer of its tokens.
    pub issuer: IssuerName,
    /// Who signed in; tokens that speak of another are of nobody.
    pub user: Box<str>,
    /// The token that speaks for the user; verified for each request like any other.
    pub token: Secret<String>,
    /// Where that is the ID token, since the provider's access tokens say nothing: the client it must be for.
    pub client_id: Option<Box<str>>,
    /// What the app gets as `Authorization`: the access token.
    pub access: Secret<String>,
    /// Cookies to set on the answer.
    pub set_cookie: Vec<HeaderValue>,
}

/// What sessions of browsers need.
#[derive(Debug)]
pub struct Parts {
    /// Sessions, sealing keys and revocations.
    pub stores: Arc<Stores>,
    /// What requests are checked against.
    pub revoked: Arc<RevokedList>,
    /// The keys of issuers.
    pub issuers: Arc<Issuers>,
    /// Speaks with Supabase Auth.
    pub supabase: Supabase,
    /// Speaks with OpenID providers.
    pub oidc: Oidc,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Random bytes.
    pub random: Arc<dyn Random>,
    /// Where what happens is written down.
    pub audit: Arc<Audit>,
}

/// Sessions of browsers, and the pages of their logins.
#[derive(Debug)]
pub struct Browser {
    inner: Arc<Inner>,
}

/// What also those need who work on after the request has ended.
#[derive(Debug)]
struct Inner {
    parts: Parts,
    sealer: seal::Sealer,
    flights: refresh::Flights,
    discovered: sign_in::Discovered,
}

/// A request to one of the endpoints.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'a> {
    /// The policy in force.
    pub policy: &'a Arc<PolicySet>,
    /// What tokens are verified with.
    pub verifier: &'a Verifier,
    /// The app.
    pub app: &'a App,
    /// Its login.
    pub login: &'a set::Login,
    /// Its browser sessions.
    pub browser: &'a Arc<BrowserLogin>,
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// The query.
    pub query: Option<&'a str>,
    /// How browsers reach the gateway: `https://app.example`.
    pub origin: &'a str,
    /// How this one did.
    pub reached_at: &'a str,
    /// From where.
    pub client: ClientAddr,
    /// With what, as the client says.
    pub user_agent: &'a str,
    /// The id of the request's decision.
    pub decision_id: &'a str,
    /// When.
    pub now: Timestamp,
}

impl Browser {
    /// Sessions over these parts.
    pub fn new(parts: Parts) -> Self {
        let (keys, clock) = (Arc::clone(&parts.stores.keys), Arc::clone(&parts.clock));
        let sealer = seal::Sealer::new(keys, clock, Arc::clone(&parts.random));
        let (flights, discovered) = (refresh::Flights::default(), sign_in::Discovered::default());
        Self { inner: Arc::new(Inner { parts, sealer, flights, discovered }) }
    }
}

impl Inner {
    fn audit(&self, event: &AuditEvent<'_>) {
        self.parts.audit.record(event);
    }
}

impl<'a> Visit<'a> {
    fn event(&self, event: Event, outcome: Outcome) -> AuditEvent<'a> {
        AuditEvent {
            decision_id: Some(self.decision_id).filter(|id| !id.is_empty()),
            app: Some(&self.app.name),
            address: Some(self.client.ip()),
            user_agent: Some(self.user_agent).filter(|text| !text.is_empty()),
            ..AuditEvent::new(self.now, event, outcome)
        }
    }

    /// Whether the request comes from a page of this origin: a form elsewhere must not sign anybody in or out.
    fn is_same_origin(&self) -> bool {
        let one = |name: &str| {
            let mut values = self.headers.get_all(name).iter();
            match (values.next(), values.next()) {
                (None, _) => Ok(None),
                (Some(value), None) => value.to_str().map(Some).map_err(drop),
                _ => Err(()),
            }
        };
        match (one("origin"), one("sec-fetch-site")) {
            (Ok(Some(origin)), _) => {
                origin.eq_ignore_ascii_case(self.origin) || origin.eq_ignore_ascii_case(self.reached_at)
            }
            // Browsers send `Origin` with every POST; those that do not at least say this.
            (Ok(None), Ok(Some(site))) => site == "same-origin",
            _ => false,
        }
    }
}

/// Whether two origins are names of the machine itself for the same port: `localhost` and `127.0.0.1`. Browsers keep cookies
/// of the one from the other, and providers lead back to the one that is configured.
fn is_other_name(one: &str, other: &str) -> bool {
    let port = |origin: &str| {
        let rest = origin.strip_prefix("http://")?;
        let name = ["localhost", "127.0.0.1", "[::1]"].into_iter().find(|name| rest.starts_with(name))?;
        rest.get(name.len()..).filter(|port| port.is_empty() || port.starts_with(':')).map(str::to_owned)
    };
    one != other && port(one).is_some_and(|found| port(other) == Some(found))
}

/// Whether a cookie of this name is the gateway's own: that of a session, of any app of the policy, or of a login under
/// way. None goes upstream, and none comes from there, in whatever case: some browsers take `__host-` for `__Host-`.
pub fn is_own_cookie(policy: &PolicySet, name: &[u8]) -> bool {
    let is = |own: &str| name.eq_ignore_ascii_case(own.as_bytes());
    let begins = |own: &str| name.get(..own.len()).is_some_and(|start| start.eq_ignore_ascii_case(own.as_bytes()));
    let mut logins = policy.apps.iter().filter_map(|app| app.login.as_ref()?.browser.as_ref());
    is(SESSION_COOKIE) || begins(flow::FLOW_COOKIES) || logins.any(|login| is(&login.cookie))
}

/// The usual name of a session's cookie; it is ours also where no app has sessions (yet).
const SESSION_COOKIE: &str = "__Host-session";

/// The longest cookie that is looked up; ours have 43 characters.
const MOST_COOKIE: usize = 128;

/// What is stored of a cookie; `None` where it cannot be one of ours.
fn hash_of(cookie: &str) -> Option<CookieHash> {
    let hash = digest::digest(&digest::SHA256, cookie.as_bytes());
    (cookie.len() <= MOST_COOKIE).then(|| hash.as_ref().first_chunk().copied().map(CookieHash))?
}

#[cfg(test)]
mod tests {
    use super::is_other_name;

    #[test]
    fn names_of_this_machine_are_told_from_others() {
        for (one, other, expected) in [
            ("http://127.0.0.1:8080", "http://localhost:8080", true),
            ("http://localhost", "http://[::1]", true),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080", false),
            // A development server that passes on under another port.
            ("http://localhost:3000", "http://127.0.0.1:8080", false),
            ("https://localhost:8080", "http://localhost:8080", false),
            ("http://app.example:8080", "http://localhost:8080", false),
            ("http://localhost.example:8080", "http://127.0.0.1:8080", false),
            ("http://127.0.0.1:8080", "", false),
        ] {
            assert_eq!(is_other_name(one, other), expected, "{one} {other}");
            assert_eq!(is_other_name(other, one), expected, "{other} {one}");
        }
    }
}
