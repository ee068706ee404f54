//! Who asks.
//!
//! One credential or none goes in ([`credential`]); out comes a [`Caller`]: anonymous, or an [`Identity`]
//! whose facts were read from verified claims through the mapping of its issuer ([`claims`]). Scopes and
//! their hierarchy are in [`scope`], names of accounts in [`account`], the cookie of Supabase's clients in [`ssr`].
//!
//! This part does not verify anything (that is `token`) and does not know which roles or permissions a policy
//! defines (that is `decision`).

pub mod account;
pub mod claims;
pub mod credential;
pub mod scope;
pub mod ssr;

use std::fmt;
use std::sync::Arc;

use crate::clock::Timestamp;

use self::claims::Claims;
use self::scope::ScopeSet;

/// The name of an issuer in the `identity` block of a policy; not its `iss`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IssuerName(Arc<str>);

impl IssuerName {
    /// Wraps the name as it stands in the policy.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name as it stands in the policy.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IssuerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who sends a request, as far as it is known.
#[derive(Clone, Debug)]
pub enum Caller {
    /// No credential was sent, or none was looked at.
    Anonymous,
    /// A credential was sent and verified.
    Known(Arc<Identity>),
}

/// A fact read from a claim. A wrong type is not the same as missing: no comparison with it holds, and a list
/// that should have been there is not an empty one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fact<T> {
    /// The claim is absent or null.
    #[default]
    Missing,
    /// The claim has a type that this fact cannot be read from.
    WrongType,
    /// The claim's value.
    Known(T),
}

impl<T> Fact<T> {
    /// The value, if it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Missing | Self::WrongType => None,
        }
    }
}

/// What kind of caller holds the token (`user.kind`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A person who signed in.
    #[default]
    User,
    /// A person who did not say who they are (Supabase `is_anonymous`).
    Anonymous,
    /// A service key that bypasses row level security (Supabase `service_role`).
    Service,
    /// An OAuth client that acts for a user.
    Client,
}

impl Kind {
    /// The word that policies use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Anonymous => "anonymous",
            Self::Service => "service",
            Self::Client => "client",
        }
    }
}

/// How the credential came (`X-Auth-Method`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// `Authorization: Bearer`.
    Bearer,
    /// A cookie that holds a token.
    Cookie,
    /// A session that the gateway keeps for a browser.
    Session,
}

impl Transport {
    /// The word sent upstream.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::Cookie => "cookie",
            Self::Session => "session",
        }
    }
}

/// A caller whose token was verified: the mapped facts and the claims they came from.
///
/// Outside tests and `explain --identity`, identities are made only from a verified token.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The issuer in the policy that vouches for this identity.
    pub issuer: IssuerName,
    /// What kind of caller this is.
    pub kind: Kind,
    /// Whether the issuer lets this kind count as `authenticated` (10.2 of the language).
    pub counts_as_authenticated: bool,
    /// `user.id`, usually the claim `sub`.
    pub id: Fact<Box<str>>,
    /// `user.email`.
    pub email: Fact<Box<str>>,
    /// `user.name`.
    pub name: Fact<Box<str>>,
    /// `user.tenant`.
    pub tenant: Fact<Box<str>>,
    /// `user.session`.
    pub session: Fact<Box<str>>,
    /// Roles as the token names them, before inclusion; `portcullis:…` are dropped. Missing is the empty list.
    pub roles: Fact<Vec<Box<str>>>,
    /// Scopes as the token names them. Missing is the empty set.
    pub scopes: Fact<ScopeSet>,
    /// Permissions as the token names them, wildcards allowed. Missing is the empty list.
    pub permissions: Fact<Vec<Box<str>>>,
    /// When the user authenticated, for `max_age` and `user.auth_age`.
    pub auth_time: Fact<Timestamp>,
    /// Stated by a fixture; `None` means that the issuer's `mfa` condition on the claims decides.
    pub mfa: Option<bool>,
    /// When the token ends; `None` where the policy waives `exp`, and for fixtures.
    pub expires: Option<Timestamp>,
    /// How the credential came.
    pub transport: Transport,
    /// The verified claims, for `token.*`.
    pub claims: Claims,
}
