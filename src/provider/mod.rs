//! What is spoken with identity providers: Supabase Auth, OpenID Connect, token introspection.
//!
//! In: what a policy says about a provider, and what a user brought (a password, a code, a refresh token). Out: tokens as
//! they were given, unverified, or a [`ProviderError`] that tells a refusal from an outage. Nothing is kept here, and
//! nothing is believed: tokens are verified by `token` with the keys of `issuer`, sessions are kept by `browser`.
//!
//! Nothing is asked twice: a code or a refresh token that is sent again is a reuse. No redirect is followed, and an answer
//! has a limit in time and size (`fetch`).

mod discovery;
mod error;
mod url;

use std::fmt;
use std::time::Duration;

use crate::fetch::Fetcher;
use crate::secret::Secret;

pub use self::discovery::Discovery;
pub use self::error::ProviderError;

/// Tokens that a provider gave out.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// The access token.
    pub access: Secret<String>,
    /// What gets the next ones.
    pub refresh: Option<Secret<String>>,
    /// The ID token (OpenID Connect).
    pub id: Option<Secret<String>>,
    /// For how long the access token is good, as the provider says.
    pub expires_in: Option<Duration>,
    /// The scopes that were granted, where they are stated.
    pub scope: Option<String>,
}

/// Speaks OpenID Connect and token introspection.
#[derive(Clone)]
pub struct Oidc {
    fetcher: Fetcher,
}

impl Oidc {
    /// A client that asks through this fetcher.
    pub fn new(fetcher: Fetcher) -> Self {
        Self { fetcher }
    }

    /// The discovery document of an issuer (OpenID Connect Discovery §4).
    pub async fn discover(&self, issuer: &str) -> Result<Discovery, ProviderError> {
        let fetched = self.fetcher.get(&Discovery::url(issuer), discovery::MOST).await?;
        match fetched.status.as_u16() {
            200 => Discovery::parse(issuer, &fetched.body),
            status => Err(ProviderError::Unavailable(format!("the discovery document: status {status}").into())),
        }
    }
}

impl fmt::Debug for Oidc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Oidc").finish_non_exhaustive()
    }
}
