//! The entries of `identity`, as they are written (10).

use std::time::Duration;

use crate::diagnostic::{Span, Spanned};
use crate::policy::template::Template;

use super::{Condition, Source};

/// An entry of `identity` (10).
#[derive(Clone, Debug)]
pub struct Issuer {
    /// `preset`.
    pub preset: Spanned<Preset>,
    /// The whole entry.
    pub span: Span,
    /// `secret`, `jwt_secret`: the first signs, all verify.
    pub secrets: Vec<Spanned<Source>>,
    /// `public_key`: PEM text or `file:`.
    pub public_key: Option<Spanned<Source>>,
    /// `signing_key`: `file:` or `managed`.
    pub signing_key: Option<Spanned<Source>>,
    /// `jwks_file`.
    pub jwks_file: Option<Spanned<Source>>,
    /// `jwks_url`.
    pub jwks_url: Option<Spanned<Source>>,
    /// `url` (Supabase, Keycloak, …).
    pub url: Option<Spanned<Source>>,
    /// `issuer`.
    pub issuer: Option<Spanned<Waivable<String>>>,
    /// `audience`; a list means any of them.
    pub audience: Option<Spanned<Waivable<Vec<String>>>>,
    /// `expiry: none`.
    pub expiry_waived: Option<Span>,
    /// `algorithm` or `algorithms`.
    pub algorithms: Vec<Spanned<String>>,
    /// `leeway`.
    pub leeway: Option<Spanned<Duration>>,
    /// `max_token_age`.
    pub max_token_age: Option<Spanned<Duration>>,
    /// `required_typ`.
    pub required_typ: Option<Spanned<String>>,
    /// `hierarchy`.
    pub hierarchy: Option<Spanned<crate::identity::scope::Hierarchy>>,
    /// `expires` (local).
    pub expires: Option<Spanned<Duration>>,
    /// Cookies of `from`, in order; `bearer` is always looked at unless `from` leaves it out.
    pub cookies: Vec<Spanned<String>>,
    /// `from` is stated and does not name `bearer`.
    pub no_bearer: bool,
    /// `claims`: fact → claim paths.
    pub claims: Vec<(Spanned<String>, Vec<Spanned<String>>)>,
    /// `types`: claim → `string number bool list`.
    pub types: Vec<(Spanned<String>, Spanned<String>)>,
    /// `mfa`: a condition on `token.*`.
    pub mfa: Option<Condition>,
    /// `db_roles` (Supabase).
    pub db_roles: Vec<Spanned<String>>,
    /// `anonymous_users: allow` (Supabase).
    pub allow_anonymous_users: Option<Span>,
    /// `service_role: allow` (Supabase).
    pub allow_service_role: Option<Span>,
    /// `oauth_clients: allow` (Supabase).
    pub allow_oauth_clients: Option<Span>,
    /// `introspection`.
    pub introspection: Option<Spanned<Introspection>>,
    /// `session_check` (Supabase).
    pub session_check: Option<Spanned<SessionCheck>>,
    /// `forward_client_ip` (Supabase).
    pub forward_client_ip: Option<Spanned<ForwardClientIp>>,
    /// `login_scopes`; empty is the default.
    pub login_scopes: Vec<Spanned<String>>,
    /// `key` (Supabase), `client_id`, `client_secret`, `tenant`, `domain`, `project` and the like: key → value.
    pub other: Vec<(Spanned<String>, Spanned<Source>)>,
}

/// `introspection` of an issuer. What is missing is reported by `check`.
#[derive(Clone, Debug, Default)]
pub struct Introspection {
    /// `url`.
    pub url: Option<Spanned<Source>>,
    /// `client_id`.
    pub client_id: Option<Spanned<Source>>,
    /// `client_secret`.
    pub client_secret: Option<Spanned<Source>>,
    /// `cache`.
    pub cache: Option<Spanned<Duration>>,
}

/// `session_check` of an issuer.
#[derive(Clone, Debug, Default)]
pub struct SessionCheck {
    /// `paths`.
    pub paths: Vec<Template>,
    /// `cache`.
    pub cache: Option<Spanned<Duration>>,
    /// `on_error: allow`.
    pub allow_on_error: bool,
}

/// `forward_client_ip` of an issuer.
#[derive(Clone, Debug, Default)]
pub struct ForwardClientIp {
    /// `secret_key`.
    pub secret_key: Option<Spanned<Source>>,
}

impl Issuer {
    /// An entry that says nothing but its preset.
    pub fn empty(preset: Spanned<Preset>, span: Span) -> Self {
        Self {
            preset,
            span,
            secrets: Vec::new(),
            public_key: None,
            signing_key: None,
            jwks_file: None,
            jwks_url: None,
            url: None,
            issuer: None,
            audience: None,
            expiry_waived: None,
            algorithms: Vec::new(),
            leeway: None,
            max_token_age: None,
            required_typ: None,
            hierarchy: None,
            expires: None,
            cookies: Vec::new(),
            no_bearer: false,
            claims: Vec::new(),
            types: Vec::new(),
            mfa: None,
            db_roles: Vec::new(),
            allow_anonymous_users: None,
            allow_service_role: None,
            allow_oauth_clients: None,
            introspection: None,
            session_check: None,
            forward_client_ip: None,
            login_scopes: Vec::new(),
            other: Vec::new(),
        }
    }

    /// One of the keys in [`Self::other`].
    pub fn other(&self, key: &str) -> Option<&Spanned<Source>> {
        self.other.iter().find(|(name, _)| name.value == key).map(|(_, value)| value)
    }
}

/// A check that the policy may waive in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waivable<T> {
    /// The check is made with this value.
    Required(T),
    /// `any` or `none`: it is not made.
    Waived,
}

/// Presets of issuers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the preset of its name; policy-language 10.1 has their keys")]
pub enum Preset {
    Local,
    Supabase,
    Oidc,
    Auth0,
    Keycloak,
    Entra,
    Cognito,
    Clerk,
    Firebase,
    Google,
    Okta,
    Jwt,
}

impl Preset {
    /// Whether it is an OpenID provider, whose keys are fetched and through which browsers may sign in.
    pub fn is_provider(self) -> bool {
        !matches!(self, Self::Local | Self::Supabase | Self::Jwt)
    }

    /// All presets with the word that policies use.
    pub const ALL: &'static [(Self, &'static str)] = &[
        (Self::Local, "local"),
        (Self::Supabase, "supabase"),
        (Self::Oidc, "oidc"),
        (Self::Auth0, "auth0"),
        (Self::Keycloak, "keycloak"),
        (Self::Entra, "entra"),
        (Self::Cognito, "cognito"),
        (Self::Clerk, "clerk"),
        (Self::Firebase, "firebase"),
        (Self::Google, "google"),
        (Self::Okta, "okta"),
        (Self::Jwt, "jwt"),
    ];
}
