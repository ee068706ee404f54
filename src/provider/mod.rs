//! What is spoken with identity providers: Supabase Auth, OpenID Connect, token introspection.
//!
//! In: what a policy says about a provider, and what a user brought (a password, a code, a refresh token). Out: tokens as
//! they were given, unverified, or a [`ProviderError`] that tells a refusal from an outage. Nothing is kept here, and
//! nothing is believed: tokens are verified by `token` with the keys of `issuer`, sessions are kept by `browser`.
//!
//! Nothing is asked twice: a code or a refresh token that is sent again is a reuse. No redirect is followed, and an answer
//! has a limit in time and size (`fetch`).

mod answer;
mod discovery;
mod error;
mod oidc;
mod pkce;
pub mod supabase;
mod url;

use std::time::Duration;

use crate::secret::Secret;

pub use self::discovery::Discovery;
pub use self::error::ProviderError;
pub use self::oidc::{Authorization, Oidc, introspected};
pub use self::pkce::Pkce;
pub use self::supabase::Supabase;

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

#[cfg(test)]
pub(crate) mod tests;
