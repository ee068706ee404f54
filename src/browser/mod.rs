//! Sessions of browsers: signing in through a provider, a cookie that no script can read, going on, and signing out.
//!
//! In: the compiled login of an app, a cookie's value or a form, and the time. Out: the tokens that speak for a session,
//! or a whole response. Tokens stay here, sealed in the store; what the browser holds is a random id. What is spoken
//! with providers is in `provider`; whether a token is good says `token`; what a request may do, the policy.

use http::HeaderValue;

use crate::identity::IssuerName;
use crate::secret::Secret;

/// What the cookie of a session leads to.
#[derive(Clone, Debug)]
pub enum SessionFound {
    /// A live session.
    Live(LiveSession),
    /// None: unknown, ended, or expired. The cookie is cleared.
    Gone,
    /// It cannot be told now.
    Unavailable,
}

/// A live session, refreshed where that was due.
#[derive(Clone, Debug)]
pub struct LiveSession {
    /// The issuer of its tokens.
    pub issuer: IssuerName,
    /// The token that speaks for the user; verified for each request like any other.
    pub token: Secret<String>,
    /// Where that is the ID token, since the provider's access tokens say nothing: the client it must be for.
    pub client_id: Option<Box<str>>,
    /// What the app gets as `Authorization`: the access token.
    pub access: Secret<String>,
    /// Cookies to set on the answer.
    pub set_cookie: Vec<HeaderValue>,
}
