//! From a token as it was sent to a [`VerifiedToken`].
//!
//! A [`Verifier`] holds the [`IssuerRules`] of a policy. Given a token and the time it says who vouches for it and what
//! it claims, or one [`TokenError`]. Everything that can be prepared was prepared when keys were loaded.
//!
//! What a kind of issuer demands beyond the standard (Supabase's `db_roles`, say) is not checked here, nor whether a
//! token was revoked, nor what its holder may do.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::identity::claims::{ClaimMapping, Claims, Strict, seconds};
use crate::identity::{Identity, IssuerName, Transport};

use super::algorithm::{Algorithm, AlgorithmSet};
use super::compact::{Compact, unverified_issuer, without_application};
use super::error::{Malformed, TokenError};
use super::key::{KeySet, Kid};

/// How far clocks may be apart, unless the policy says otherwise.
pub const DEFAULT_LEEWAY: Duration = Duration::from_secs(30);

/// What an issuer in a policy demands of its tokens. Whatever lowers security has `Danger` in its name.
#[derive(Clone, Debug)]
pub struct IssuerRules {
    /// The issuer's name in the policy.
    pub name: IssuerName,
    /// The `iss` of its tokens.
    pub issuer: ExpectedIssuer,
    /// The `aud` of its tokens.
    pub audience: ExpectedAudience,
    /// Whether its tokens must end.
    pub expiry: Expiry,
    /// The algorithms it signs with.
    pub algorithms: AlgorithmSet,
    /// Its keys, and nobody else's.
    pub keys: IssuerKeys,
    /// How far its clock and ours may be apart.
    pub leeway: Duration,
    /// The most that `exp` − `iat` may be.
    pub max_token_age: Option<Duration>,
    /// The `typ` its tokens must have; without it, `JWT`, `at+jwt` or none.
    pub required_typ: Option<Box<str>>,
    /// Where its claims stand.
    pub mapping: ClaimMapping,
}

/// The `iss` that tokens must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedIssuer {
    /// Whoever signs with the key (`issuer: any`).
    DangerAny,
    /// Exactly this, byte by byte: no slash or letter case is forgiven.
    Exact(Box<str>),
}

/// The `aud` that tokens must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedAudience {
    /// Tokens for any service are taken (`audience: none`).
    DangerAny,
    /// At least one of these.
    OneOf(Vec<Box<str>>),
    /// The same; and a token without `aud` must have one of these as `client_id`: access tokens of Amazon Cognito.
    ClientOneOf(Vec<Box<str>>),
}

/// Whether `exp` must be there. Where it is there, it counts in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    /// Tokens may be valid forever (`expiry: none`).
    DangerOptional,
    /// As it should be.
    #[default]
    Required,
}

/// The keys of an issuer, as far as they are known.
#[derive(Clone, Debug)]
pub enum IssuerKeys {
    /// Loaded, or fetched.
    Known(Arc<KeySet>),
    /// Not fetched yet, or not to be had: its tokens can neither be accepted nor refused.
    Unavailable,
}

/// Verifies tokens of all issuers of a policy. Immutable: new keys make a new one.
#[derive(Clone, Debug, Default)]
pub struct Verifier {
    // INVARIANT: no two exact issuers are equal, and at most one accepts any; `new` establishes it.
    issuers: Vec<Arc<IssuerRules>>,
}

/// Two issuers between which no token could choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AmbiguousIssuers(pub IssuerName, pub IssuerName);

/// A token whose signature and claims were checked, or whose issuer was asked. Only [`Verifier`] makes one.
#[derive(Clone, Debug)]
pub struct VerifiedToken {
    rules: Arc<IssuerRules>,
    claims: Claims,
    times: Times,
    kid: Option<Kid>,
    algorithm: Option<Algorithm>,
}

/// The times that a token states.
#[derive(Clone, Copy, Debug)]
struct Times {
    expires: Option<Timestamp>,
    not_before: Option<Timestamp>,
    issued: Option<Timestamp>,
}

// === impl IssuerRules ===

impl IssuerRules {
    /// The strictest rules: `exp` required, 30 s leeway, the standard mapping, all algorithms of the keys.
    pub fn new(name: IssuerName, issuer: ExpectedIssuer, audience: ExpectedAudience, keys: KeySet) -> Self {
        Self {
            name,
            issuer,
            audience,
            expiry: Expiry::Required,
            algorithms: keys.algorithms(),
            keys: IssuerKeys::Known(Arc::new(keys)),
            leeway: DEFAULT_LEEWAY,
            max_token_age: None,
            required_typ: None,
            mapping: ClaimMapping::standard(),
        }
    }

    fn is_from(&self, issuer: Option<&str>) -> bool {
        matches!(&self.issuer, ExpectedIssuer::Exact(exact) if Some(exact.as_ref()) == issuer)
    }

    /// RFC 8725 §3.11: tokens of one kind must not pass for another.
    fn check_typ(&self, typ: Option<&str>) -> Result<(), TokenError> {
        let is = |expected: &str| {
            let expected = without_application(expected);
            typ.is_some_and(|typ| without_application(typ).eq_ignore_ascii_case(expected))
        };
        let fits = match &self.required_typ {
            Some(required) => is(required),
            None => typ.is_none() || is("JWT") || is("at+jwt"),
        };
        if fits { Ok(()) } else { Err(TokenError::WrongType) }
    }

    /// Checks the claims of a token whose signature is good, and returns its times.
    fn check_claims(&self, claims: &Claims, now: Timestamp) -> Result<Times, TokenError> {
        self.check_issuer(claims)?;
        self.check_audience(claims)?;
        let (expires, issued) = (time(claims, "exp")?, time(claims, "iat")?);
        self.check_end(expires, now)?; // before the type of `nbf`: what has ended is over, whatever else it says
        let times = Times { expires, not_before: time(claims, "nbf")?, issued };
        self.check_times(&times, now)?;
        Ok(times)
    }

    fn check_end(&self, expires: Option<Timestamp>, now: Timestamp) -> Result<(), TokenError> {
        match expires {
            // RFC 7519 §4.1.4: the current time must be before it.
            Some(expires) if now >= expires.plus(self.leeway) => Err(TokenError::Expired),
            None if self.expiry == Expiry::Required => Err(TokenError::MissingClaim("exp")),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether a token with these times is good now. Of what was verified, this alone changes as time passes.
    fn check_times(&self, times: &Times, now: Timestamp) -> Result<(), TokenError> {
        self.check_end(times.expires, now)?;
        if times.not_before.is_some_and(|not_before| not_before > now.plus(self.leeway)) {
            return Err(TokenError::NotYetValid);
        }
        if times.issued.is_some_and(|issued| issued > now.plus(self.leeway)) {
            return Err(TokenError::IssuedInFuture);
        }
        if let Some(most) = self.max_token_age {
            let issued = times.issued.ok_or(TokenError::MissingClaim("iat"))?;
            if times.expires.unwrap_or(now).since(issued) > most {
                return Err(TokenError::TooLongLived);
            }
        }
        Ok(())
    }

    fn check_issuer(&self, claims: &Claims) -> Result<(), TokenError> {
        let issuer = match claims.get("iss") {
            None => None,
            Some(Value::String(issuer)) => Some(issuer.as_str()),
            Some(_) => return Err(TokenError::ClaimWrongType("iss")),
        };
        match (&self.issuer, issuer) {
            (ExpectedIssuer::DangerAny, _) => Ok(()),
            (ExpectedIssuer::Exact(_), None) => Err(TokenError::MissingClaim("iss")),
            (ExpectedIssuer::Exact(exact), Some(issuer)) if exact.as_ref() == issuer => Ok(()),
            (ExpectedIssuer::Exact(_), Some(_)) => Err(TokenError::WrongIssuer),
        }
    }

    fn check_audience(&self, claims: &Claims) -> Result<(), TokenError> {
        let (ours, or_client) = match &self.audience {
            ExpectedAudience::DangerAny => return Ok(()),
            ExpectedAudience::OneOf(ours) => (ours, false),
            ExpectedAudience::ClientOneOf(ours) => (ours, true),
        };
        let is_ours = |audience: &str| ours.iter().any(|own| own.as_ref() == audience);
        let found = match claims.get("aud") {
            None if or_client => match claims.get("client_id") {
                None => return Err(TokenError::MissingClaim("aud")),
                Some(client) => is_ours(client.as_str().ok_or(TokenError::ClaimWrongType("client_id"))?),
            },
            None => return Err(TokenError::MissingClaim("aud")),
            Some(Value::String(audience)) => is_ours(audience),
            Some(Value::Array(audiences)) => {
                let mut found = false;
                for audience in audiences {
                    found |= is_ours(audience.as_str().ok_or(TokenError::ClaimWrongType("aud"))?);
                }
                found
            }
            Some(_) => return Err(TokenError::ClaimWrongType("aud")),
        };
        if found { Ok(()) } else { Err(TokenError::WrongAudience) }
    }
}

/// A time claim. One of a wrong type is not the same as none (CVE-2026-25537: a string skipped the check).
fn time(claims: &Claims, name: &'static str) -> Result<Option<Timestamp>, TokenError> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => seconds(value).map(Some).ok_or(TokenError::ClaimWrongType(name)),
    }
}

/// Endpoints of introspection know refresh tokens, too: only what is an access token, or does not say, is one. One that
/// is bound to a key (`cnf`) is no bearer token.
fn check_kind(claims: &Map<String, Value>) -> Result<(), TokenError> {
    let is_one_of = |name: &str, words: &[&str]| match claims.get(name) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => words.iter().any(|word| text.eq_ignore_ascii_case(word)),
        Some(_) => false,
    };
    let fits = is_one_of("token_type", &["bearer", "access_token"])
        && is_one_of("token_use", &["access_token", "access"])
        && is_one_of("typ", &["bearer", "jwt", "at+jwt", "application/at+jwt"])
        && claims.get("cnf").is_none_or(Value::is_null);
    if fits { Ok(()) } else { Err(TokenError::WrongType) }
}

// === impl Verifier ===

impl Verifier {
    /// A verifier of these issuers, between which every token can choose.
    pub fn new(issuers: Vec<IssuerRules>) -> Result<Self, AmbiguousIssuers> {
        for (at, first) in issuers.iter().enumerate() {
            if let Some(second) = issuers.iter().skip(at + 1).find(|second| second.issuer == first.issuer) {
                return Err(AmbiguousIssuers(first.name.clone(), second.name.clone()));
            }
        }
        Ok(Self { issuers: issuers.into_iter().map(Arc::new).collect() })
    }

    /// The rules of each issuer, in the policy's order.
    pub fn issuers(&self) -> impl Iterator<Item = &IssuerRules> {
        self.issuers.iter().map(AsRef::as_ref)
    }

    /// How far an issuer's clock may differ from ours.
    pub fn leeway(&self, issuer: &IssuerName) -> Duration {
        self.issuers().find(|rules| rules.name == *issuer).map_or(DEFAULT_LEEWAY, |rules| rules.leeway)
    }

    /// The same verifier with other keys for one issuer, when they were fetched anew.
    pub fn with_keys(&self, issuer: &IssuerName, keys: IssuerKeys) -> Self {
        let replaced = |rules: &Arc<IssuerRules>| {
            if rules.name == *issuer {
                Arc::new(IssuerRules { keys: keys.clone(), ..IssuerRules::clone(rules) })
            } else {
                Arc::clone(rules)
            }
        };
        Self { issuers: self.issuers.iter().map(replaced).collect() }
    }

    /// The same verifier with what an issuer publishes put beside the keys that the policy has for it. `None`: it is
    /// not known what it publishes. `algorithms` are those its published keys may be for.
    pub fn with_published(
        &self,
        issuer: &IssuerName,
        published: Option<&Arc<KeySet>>,
        algorithms: AlgorithmSet,
    ) -> Self {
        let completed = |rules: &Arc<IssuerRules>| {
            if rules.name != *issuer {
                return Arc::clone(rules);
            }
            let keys = match (&rules.keys, published) {
                (IssuerKeys::Known(own), Some(published)) => IssuerKeys::Known(Arc::new(own.with_published(published))),
                (IssuerKeys::Unavailable, Some(published)) => IssuerKeys::Known(Arc::clone(published)),
                (own, None) => own.clone(),
            };
            let algorithms = rules.algorithms.or(algorithms);
            Arc::new(IssuerRules { keys, algorithms, ..IssuerRules::clone(rules) })
        };
        Self { issuers: self.issuers.iter().map(completed).collect() }
    }

    /// Verifies a token as it was sent.
    ///
    /// Cheap checks come first and claims last: nothing in the payload but `iss`, which only chooses among the
    /// configured issuers, is looked at before the signature is good.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<VerifiedToken, TokenError> {
        let token = Compact::parse(token)?;
        let payload = token.payload()?;
        let rules = self.choose(&payload)?;
        let header = token.header();
        rules.check_typ(header.typ.as_deref())?;
        if !rules.algorithms.contains(header.algorithm) {
            return Err(rules.foreign_or(TokenError::UnsupportedAlgorithm, &payload));
        }
        let IssuerKeys::Known(keys) = &rules.keys else { return Err(TokenError::KeysUnavailable) };
        let key = keys.verify(&token, rules.algorithms).map_err(|error| rules.foreign_or(error, &payload))?;
        let claims = Claims::parse(&payload).map_err(Malformed::Claims)?;
        let times = rules.check_claims(&claims, now)?;
        Ok(VerifiedToken {
            rules: Arc::clone(rules),
            claims,
            times,
            kid: key.kid().cloned(),
            algorithm: Some(header.algorithm),
        })
    }

    /// Verifies the ID token of a browser's session: by the rules of its issuer, but for the client that the gateway is
    /// there (OpenID Connect Core §3.1.3.7), whatever audience access tokens must have.
    pub fn verify_id_token(
        &self,
        issuer: &IssuerName,
        client_id: &str,
        token: &str,
        now: Timestamp,
    ) -> Result<VerifiedToken, TokenError> {
        let rules = self.issuers().find(|rules| rules.name == *issuer).ok_or(TokenError::WrongIssuer)?;
        let audience = ExpectedAudience::OneOf(vec![client_id.into()]);
        let rules = IssuerRules { audience, required_typ: None, ..rules.clone() };
        Self { issuers: vec![Arc::new(rules)] }.verify(token, now)
    }

    /// Verifies one of the two old keys of a Supabase project, which are tokens: of them only signature and end are asked,
    /// since they name neither an audience nor anybody, and not the issuer of users' tokens. No other token passes.
    pub fn verify_project_key(
        &self,
        issuer: &IssuerName,
        token: &str,
        now: Timestamp,
    ) -> Result<VerifiedToken, TokenError> {
        let rules = self.issuers().find(|rules| rules.name == *issuer).ok_or(TokenError::WrongIssuer)?;
        let rules = IssuerRules {
            issuer: ExpectedIssuer::DangerAny,
            audience: ExpectedAudience::DangerAny,
            max_token_age: None,
            ..rules.clone()
        };
        let verified = Self { issuers: vec![Arc::new(rules)] }.verify(token, now)?;
        match verified.claims.get("role").and_then(Value::as_str) {
            Some("anon" | "service_role") => Ok(verified),
            _ => Err(TokenError::WrongIssuer),
        }
    }

    /// Which issuer and key a token names, before anything in it is believed: only to look for the key.
    pub fn named(&self, token: &str) -> Option<(IssuerName, Option<Kid>)> {
        let token = Compact::parse(token).ok()?;
        let rules = self.choose(&token.payload().ok()?).ok()?;
        Some((rules.name.clone(), token.header().kid.as_deref().map(Kid::new)))
    }

    /// What an issuer says about an opaque token that it was asked about (RFC 7662): by its rules, but for `iss`, which
    /// may be left out. The connection to the issuer stands for its signature.
    pub fn introspected(
        &self,
        issuer: &IssuerName,
        claims: &Map<String, Value>,
        now: Timestamp,
    ) -> Result<VerifiedToken, TokenError> {
        let rules = self.issuers.iter().find(|rules| rules.name == *issuer).ok_or(TokenError::WrongIssuer)?;
        if claims.get("active") != Some(&Value::Bool(true)) {
            return Err(TokenError::BadSignature);
        }
        check_kind(claims)?;
        let claims = Claims::new(claims.clone());
        let times = match claims.get("iss") {
            None => IssuerRules { issuer: ExpectedIssuer::DangerAny, ..IssuerRules::clone(rules) }
                .check_claims(&claims, now)?,
            Some(_) => rules.check_claims(&claims, now)?,
        };
        Ok(VerifiedToken { rules: Arc::clone(rules), claims, times, kid: None, algorithm: None })
    }

    /// What a token says that its issuer has vouched for just now, and which issuer that is. It is not verified again, so
    /// nobody may be let in by it: it is for ending what it names.
    pub fn vouched(&self, token: &str) -> Option<(IssuerName, Map<String, Value>)> {
        let payload = Compact::parse(token).ok()?.payload().ok()?;
        let claims = Strict::object(&payload).ok()?;
        let rules = self.choose(&payload).ok()?;
        let is_named = match &rules.issuer {
            ExpectedIssuer::DangerAny => true,
            ExpectedIssuer::Exact(exact) => claims.get("iss").and_then(Value::as_str) == Some(exact),
        };
        is_named.then(|| (rules.name.clone(), claims))
    }

    fn choose(&self, payload: &[u8]) -> Result<&Arc<IssuerRules>, TokenError> {
        // The one issuer there is need not be chosen; its `iss` is compared with the other claims.
        if let [only] = self.issuers.as_slice()
            && let IssuerKeys::Known(_) = only.keys
        {
            return Ok(only);
        }
        let issuer = unverified_issuer(payload)?;
        let any = |rules: &&Arc<IssuerRules>| rules.issuer == ExpectedIssuer::DangerAny;
        let exact = self.issuers.iter().find(|rules| rules.is_from(issuer.as_deref()));
        exact.or_else(|| self.issuers.iter().find(any)).ok_or(TokenError::WrongIssuer)
    }
}

impl IssuerRules {
    /// That a token is from another issuer explains better than a bad signature why it is refused.
    fn foreign_or(&self, error: TokenError, payload: &[u8]) -> TokenError {
        match (&self.issuer, unverified_issuer(payload)) {
            (ExpectedIssuer::Exact(_), Ok(Some(issuer))) if !self.is_from(Some(&issuer)) => TokenError::WrongIssuer,
            _ => error,
        }
    }
}

impl fmt::Display for AmbiguousIssuers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "issuers `{}` and `{}` accept the same tokens", self.0, self.1)
    }
}

impl std::error::Error for AmbiguousIssuers {}

// === impl VerifiedToken ===

impl VerifiedToken {
    /// The issuer in the policy that vouches for the token.
    pub fn issuer(&self) -> &IssuerName {
        &self.rules.name
    }

    /// The claims.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// When the token ends, leeway not included.
    pub fn expires(&self) -> Option<Timestamp> {
        self.times.expires
    }

    /// Checks again what changes as time passes: `exp`, `nbf`, `iat` and the age, with the issuer's leeway.
    pub fn check_times(&self, now: Timestamp) -> Result<(), TokenError> {
        self.rules.check_times(&self.times, now)
    }

    /// The name of the key that signed, if it has one.
    pub fn kid(&self) -> Option<&Kid> {
        self.kid.as_ref()
    }

    /// The algorithm of the signature; none where the issuer was asked.
    pub fn algorithm(&self) -> Option<Algorithm> {
        self.algorithm
    }

    /// The identity that the token states, by the mapping of its issuer.
    pub fn identity(&self, transport: Transport) -> Identity {
        self.rules.mapping.identity(self.claims.clone(), self.rules.name.clone(), transport, self.times.expires)
    }
}

#[cfg(test)]
mod tests;
