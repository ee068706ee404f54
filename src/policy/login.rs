//! How people log in to an app, as it runs: the endpoints, their settings, and what the gateway's own issuer signs with.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method};

use crate::identity::IssuerName;
use crate::secret::Secret;
use crate::token::algorithm::Algorithm;
use crate::token::mint::Minter;

use super::document::Lockout;
use super::set::LimitUse;

/// The gateway's own endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the endpoint of its name; policy-language 11 has their meaning")]
pub enum OwnEndpoint {
    Token,
    Login,
    Provider,
    Callback,
    Logout,
    Revoke,
    Introspect,
    AuthorizationServer,
    ProtectedResource,
    Jwks,
}

impl OwnEndpoint {
    /// The word that policies use; `token` for the login path.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Login => "login",
            Self::Provider => "login provider",
            Self::Callback => "callback",
            Self::Logout => "logout",
            Self::Revoke => "revoke",
            Self::Introspect => "introspect",
            Self::AuthorizationServer => "authorization server metadata",
            Self::ProtectedResource => "protected resource metadata",
            Self::Jwks => "jwks",
        }
    }

    /// The methods that it answers, `HEAD` aside.
    pub fn methods(self) -> &'static [Method] {
        match self {
            Self::Token | Self::Logout | Self::Revoke | Self::Introspect => &[Method::POST],
            Self::Login => &[Method::GET, Method::POST],
            Self::Provider | Self::Callback | Self::AuthorizationServer | Self::ProtectedResource | Self::Jwks => {
                &[Method::GET]
            }
        }
    }
}

/// How people log in to an app (policy-language 11).
#[derive(Clone, Debug)]
pub struct Login {
    /// Who checks passwords.
    pub via: Via,
    /// The issuer of the tokens that it gives out, where there is one.
    pub issuer: Option<IssuerName>,
    /// The paths of the endpoints that are on, as clients see them (the app's base included).
    pub paths: LoginPaths,
    /// Limits by `account`, which is known when the form is read; the others are the route's.
    pub account_limits: Vec<LimitUse>,
    /// `lockout`; `None` is `lockout: none`.
    pub lockout: Option<Lockout>,
    /// `scope_mode: strict`: all scopes that are asked for, or none.
    pub strict_scopes: bool,
    /// `default_scopes`: what is given where nothing is asked for; `None` is all that may be given.
    pub default_scopes: Option<Vec<Box<str>>>,
    /// `via: upstream`: the path at the app, where it is another.
    pub to: Option<Box<str>>,
    /// `via: upstream`: the field of the form or JSON body that names the account.
    pub account_field: Box<str>,
    /// `via: upstream`: statuses that count as a failed login.
    pub failures: Vec<u16>,
    /// Browser sessions, where there are any (`via: supabase` and `oidc`, unless `session: none`).
    pub browser: Option<Arc<BrowserLogin>>,
}

impl Login {
    /// Whether browsers sign in at this issuer.
    pub fn signs_in_at(&self, issuer: &IssuerName) -> bool {
        let links = self.browser.iter().flat_map(|browser| &browser.providers);
        self.issuer.iter().chain(links.map(|link| &link.issuer)).any(|known| known == issuer)
    }
}

/// Browser sessions of an app.
#[derive(Clone, Debug)]
pub struct BrowserLogin {
    /// `session.cookie`.
    pub cookie: Box<str>,
    /// `session.idle`: how long a session lives that nobody uses.
    pub idle: Duration,
    /// `session.expires`: how long it lives at most, from the login.
    pub expires: Duration,
    /// `session.refresh_margin`: how long before it ends an access token is replaced.
    pub refresh_margin: Duration,
    /// `session.keys`: what seals, first; the others only open. Empty: the gateway makes, keeps and rotates them.
    pub keys: Vec<Secret<Vec<u8>>>,
    /// Where people may sign in: the providers of a Supabase project, or OpenID providers.
    pub providers: Vec<ProviderLink>,
    /// Whether there are passwords: a form to sign in and up (`via: supabase`).
    pub passwords: bool,
    /// Where a login ends that names no place of its own.
    pub return_to: Box<str>,
}

impl BrowserLogin {
    /// `Set-Cookie` that removes the session's cookie.
    pub fn clearing(&self) -> HeaderValue {
        let text = format!("{}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax", self.cookie);
        // Names of cookies are tokens: the policy is read so.
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("__Host-session=; Path=/; Max-Age=0; Secure"))
    }
}

/// A provider on the sign-in page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderLink {
    /// The last segment of its path, `/login/<name>`; Supabase's name of the provider, or the issuer's in the policy.
    pub name: Box<str>,
    /// The issuer of the tokens that a login through it gives.
    pub issuer: IssuerName,
}

/// What an unauthenticated request of a browser gets (`on_unauthenticated`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OnUnauthenticated {
    /// 401, like everybody else.
    #[default]
    Challenge,
    /// The app's sign-in page, which leads back.
    Login,
    /// A page of the app; `{path}` stands for where the browser wanted to go, encoded.
    To(Box<str>),
}

/// `via`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the way of its name; policy-language 11 has their meaning")]
pub enum Via {
    Local,
    Upstream,
    Supabase,
    Oidc,
}

/// Where the endpoints of a login are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the path of the endpoint of its name")]
pub struct LoginPaths {
    pub token: Option<Box<str>>,
    pub login: Option<Box<str>>,
    pub callback: Option<Box<str>>,
    pub logout: Option<Box<str>>,
    pub revoke: Option<Box<str>>,
    pub introspect: Option<Box<str>>,
}

/// What an issuer with preset `local` has beside the rest: it also signs.
#[derive(Clone, Debug)]
pub struct LocalIssuer {
    /// What signs; `None` where the keys are `managed` or not resolved.
    pub signer: Option<Arc<Minter>>,
    /// `signing_key: managed`: the algorithm of the keys that the gateway makes and keeps.
    pub managed: Option<Algorithm>,
    /// The `iss` of its tokens.
    pub iss: Box<str>,
    /// The `aud` of its tokens, where `audience` is stated; else it is the app's name.
    pub audience: Vec<Box<str>>,
    /// `expires`: how long an access token is valid.
    pub expires: Duration,
    /// `refresh_expires`: how long a session lasts, from the login.
    pub refresh_expires: Duration,
    /// `reuse_window`.
    pub reuse_window: Duration,
    /// Whether outdated hashes are replaced at login (`upgrade: true`), or only reported (`log`).
    pub upgrade: bool,
}
