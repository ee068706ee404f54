//! Who may sign tokens, as it runs: what is admitted, where keys come from, and whom to ask.

use std::sync::Arc;
use std::time::Duration;

use crate::identity::IssuerName;
use crate::identity::claims::{ClaimMapping, Claims};
use crate::identity::scope::Hierarchy;
use crate::secret::Secret;
use crate::token::algorithm::AlgorithmSet;

use super::document::Preset;
use super::login::LocalIssuer;
use super::set::{Comparison, Place};
use super::template::{Kind, Segment};

/// Who may sign tokens.
#[derive(Debug)]
pub struct Issuer {
    /// The name in the policy.
    pub name: IssuerName,
    /// Where it stands.
    pub place: Place,
    /// Its preset.
    pub preset: Preset,
    /// How its scopes imply each other.
    pub hierarchy: Hierarchy,
    /// Where facts come from.
    pub mapping: ClaimMapping,
    /// When a token counts as multi-factor: all must hold.
    pub mfa: Vec<Comparison>,
    /// Whether `Authorization: Bearer` is looked at.
    pub bearer: bool,
    /// Cookies that may hold a token.
    pub cookies: Vec<Box<str>>,
    /// Supabase: the values of `role` that count as somebody who signed in; `None` for other issuers.
    pub db_roles: Option<Vec<Box<str>>>,
    /// Supabase: `service_role: allow`.
    pub allow_service_role: bool,
    /// What the gateway signs with, where the issuer is its own (preset `local`).
    pub local: Option<LocalIssuer>,
    /// Where keys are fetched, where not all of them are in the policy.
    pub remote: Option<Arc<RemoteKeys>>,
    /// Whom to ask about opaque tokens.
    pub introspection: Option<Arc<Introspection>>,
    /// The project, with preset `supabase` and a `url`.
    pub supabase: Option<Arc<SupabaseProject>>,
    /// What the gateway is at an OpenID provider, where browsers may sign in through it.
    pub oidc: Option<Arc<OidcClient>>,
}

/// What a verified token counts as, apart from what its identity may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// As an identity.
    Accepted,
    /// As no credential: the public key of a Supabase project, which clients send when nobody is signed in.
    NoCredential,
    /// As a bad credential, for this reason.
    Refused(&'static str),
}

impl Issuer {
    /// What a token of this issuer counts as: a signature alone is not a login. Supabase's `anon` and
    /// `service_role` keys are validly signed tokens.
    pub fn admit(&self, claims: &Claims) -> Admission {
        let Some(db_roles) = &self.db_roles else { return Admission::Accepted };
        let text = |name: &str| claims.get(name).and_then(serde_json::Value::as_str);
        match text("role") {
            Some("anon") => return Admission::NoCredential,
            Some("service_role") if self.allow_service_role => return Admission::Accepted,
            Some("service_role") => return Admission::Refused("service_role_not_allowed"),
            Some(role) if db_roles.iter().any(|allowed| **allowed == *role) => {}
            _ => return Admission::Refused("role_not_allowed"),
        }
        if !text("sub").is_some_and(|id| super::specificity::kind_matches(Kind::Uuid, id)) {
            return Admission::Refused("sub_is_not_a_uuid");
        }
        if text("session_id").is_none_or(str::is_empty) {
            return Admission::Refused("session_id_missing");
        }
        Admission::Accepted
    }
}

/// Keys that come over the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteKeys {
    /// Where they are.
    pub at: KeysAt,
    /// The algorithms that the policy allows: also for keys that name none. Empty: each key's own.
    pub algorithms: AlgorithmSet,
    /// `refresh`: how old a set may become; it is renewed ahead of that.
    pub refresh: Duration,
    /// `cool_down`: the least time between two fetches for a `kid` that is not known.
    pub cool_down: Duration,
    /// `max_stale`: how long a set goes on while no other can be fetched.
    pub max_stale: Duration,
    /// An empty set is an answer: a Supabase project that still signs with its secret.
    pub may_be_empty: bool,
}

/// Where a key set is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysAt {
    /// There.
    Url(Box<str>),
    /// Where the discovery document of this issuer says (OpenID Connect Discovery §4), on the issuer's own host.
    Discovery(Box<str>),
}

/// Whom to ask about tokens that say nothing themselves (RFC 7662).
#[derive(Clone, Debug)]
pub struct Introspection {
    /// The endpoint.
    pub url: Box<str>,
    /// As whom.
    pub client_id: Box<str>,
    /// With which secret (`client_secret_basic`).
    pub client_secret: Secret<String>,
    /// How long an answer is used again, at most until the token ends.
    pub cache: Duration,
}

/// A Supabase project, hosted or not.
#[derive(Clone, Debug)]
pub struct SupabaseProject {
    /// Its URL, without a slash at the end.
    pub url: Box<str>,
    /// The publishable or anon key, for the gateway's own calls.
    pub key: Option<Secret<String>>,
    /// What becomes of a cookie of `@supabase/ssr` whose token has expired.
    pub on_expired: OnExpired,
    /// Paths on which the project is asked whether the session still lives.
    pub session_check: Option<SessionCheck>,
    /// The secret key with which the client's address is passed on (`Sb-Forwarded-For`).
    pub forward_client_ip: Option<Secret<String>>,
}

/// `on_expired`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExpired {
    /// It counts as no credential: the browser's own client refreshes it.
    #[default]
    Unauthenticated,
    /// The gateway refreshes it and sets the cookie anew.
    RefreshAndSetCookie,
}

/// `session_check`.
#[derive(Clone, Debug)]
pub struct SessionCheck {
    /// On these paths.
    pub paths: Vec<Vec<Segment>>,
    /// How long a yes is used again.
    pub cache: Duration,
    /// `on_error: allow`: where the project does not answer, the token's signature is enough.
    pub allow_on_error: bool,
}

/// The gateway as a client of an OpenID provider.
#[derive(Clone, Debug)]
pub struct OidcClient {
    /// The issuer, whose discovery document names the endpoints.
    pub issuer: Box<str>,
    /// As whom.
    pub client_id: Box<str>,
    /// With which secret; a public client has none, and PKCE alone.
    pub client_secret: Option<Secret<String>>,
    /// `login_scopes`: what is asked for.
    pub scopes: Vec<Box<str>>,
}
