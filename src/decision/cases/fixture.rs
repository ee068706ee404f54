//! Test identities.

use std::fmt;

use crate::clock::Timestamp;
use crate::diagnostic::Spanned;
use crate::identity::claims::{Claims, Kinds};
use crate::identity::scope::ScopeSet;
use crate::identity::{Fact, Identity, Kind, Transport};
use crate::policy::document::Fixture;
use crate::policy::set::{Issuer, PolicySet};

/// Why a test identity is no identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FixtureError {
    /// The set has several issuers, and the identity names none.
    IssuerNotStated,
    /// The set has no such issuer.
    UnknownIssuer(String),
    /// There is no such kind.
    UnknownKind(String),
}

impl fmt::Display for FixtureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IssuerNotStated => f.write_str("the set has several issuers: say `issuer`"),
            Self::UnknownIssuer(name) => write!(f, "unknown issuer `{name}`"),
            Self::UnknownKind(kind) => write!(f, "unknown kind `{kind}`: user, anonymous, service or client"),
        }
    }
}

impl std::error::Error for FixtureError {}

/// The identity that a fixture states: its claims through the issuer's mapping, then what it states itself.
pub fn identity(policy: &PolicySet, fixture: &Fixture, now: Timestamp) -> Result<Identity, FixtureError> {
    let issuer = issuer(policy, fixture)?;
    let claims = Claims::new(fixture.claims.clone());
    let mut identity = issuer.mapping.identity(claims, issuer.name.clone(), Transport::Bearer, None);
    let text = |fact: &mut Fact<Box<str>>, stated: &Option<Spanned<String>>| {
        if let Some(stated) = stated {
            *fact = Fact::Known(stated.value.as_str().into());
        }
    };
    text(&mut identity.id, &fixture.id);
    text(&mut identity.email, &fixture.email);
    text(&mut identity.name, &fixture.name);
    text(&mut identity.tenant, &fixture.tenant);
    let names = |stated: &[Spanned<String>]| stated.iter().map(|name| name.value.as_str().into()).collect::<Vec<_>>();
    if let Some(roles) = &fixture.roles {
        let mut roles: Vec<Box<str>> = names(roles);
        // No token can carry them either.
        roles.retain(|role| !role.starts_with("portcullis:"));
        identity.roles = Fact::Known(roles);
    }
    if let Some(scopes) = &fixture.scopes {
        // One name may hold several, as in a token.
        let scopes = scopes.iter().flat_map(|scope| scope.value.split(' ')).filter(|scope| !scope.is_empty());
        identity.scopes = Fact::Known(ScopeSet::new(scopes));
    }
    if let Some(permissions) = &fixture.permissions {
        identity.permissions = Fact::Known(names(permissions));
    }
    if let Some(kind) = &fixture.kind {
        identity.kind = kind_of(&kind.value)?;
        identity.counts_as_authenticated = counts(identity.kind, issuer);
    }
    if let Some(age) = fixture.auth_age {
        identity.auth_time = Fact::Known(now.minus(age));
    }
    identity.mfa = fixture.mfa;
    Ok(identity)
}

fn issuer<'p>(policy: &'p PolicySet, fixture: &Fixture) -> Result<&'p Issuer, FixtureError> {
    match (&fixture.issuer, &policy.issuers[..]) {
        (Some(name), issuers) => issuers
            .iter()
            .find(|issuer| issuer.name.as_str() == name.value)
            .ok_or_else(|| FixtureError::UnknownIssuer(name.value.clone())),
        (None, [only]) => Ok(only),
        (None, _) => Err(FixtureError::IssuerNotStated),
    }
}

fn kind_of(word: &str) -> Result<Kind, FixtureError> {
    [Kind::User, Kind::Anonymous, Kind::Service, Kind::Client]
        .into_iter()
        .find(|kind| kind.as_str() == word)
        .ok_or_else(|| FixtureError::UnknownKind(word.to_owned()))
}

fn counts(kind: Kind, issuer: &Issuer) -> bool {
    match (kind, issuer.mapping.kinds) {
        (Kind::User, _) => true,
        (Kind::Anonymous, Kinds::Supabase { anonymous, .. }) => anonymous,
        (Kind::Service, Kinds::Supabase { service, .. }) => service,
        (Kind::Client, Kinds::Supabase { clients, .. }) => clients,
        (Kind::Anonymous | Kind::Service | Kind::Client, Kinds::AllUsers) => false,
    }
}
