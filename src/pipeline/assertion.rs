//! `X-Auth-Assertion`: what the app is told about the caller, signed, for apps that can be reached around the gateway.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::DecisionId;
use crate::clock::Timestamp;
use crate::decision::{Denial, Permit, Reason};
use crate::identity::{Caller, Fact, Identity};
use crate::issuer::Snapshot;
use crate::policy::set::Assertion;

/// The header. Its name is removed from every request, whether an app asks for assertions or not.
const HEADER: HeaderName = HeaderName::from_static("x-auth-assertion");
/// The `typ` of its JOSE header, so that it is never taken for another kind of token (RFC 8725 §3.11).
const TYPE: &str = "assertion+jwt";
/// So many seconds an assertion is valid at least, if its own lifetime is not shorter.
const MOMENTS: i64 = 30;
/// The `iss`, where the gateway does not know its public URL. A name that clients send is none.
const ISSUER: &str = "portcullis";

/// A statement about the caller of a permitted request, where the app asks for one and somebody is known. 503 while
/// there is no key to sign it with.
///
/// ```text
/// { "iss": public_url, "aud": audience, "iat", "exp", "jti": the decision's id, "issuer": who vouches for the caller,
///   "sub", "email", "tenant", "sid", "roles": […], "scope": "a b", "permissions": […] }     (absent means absent)
/// ```
pub(super) fn assertion(
    permit: &Permit,
    keys: &Snapshot,
    public_url: Option<&str>,
    id: &DecisionId,
    now: Timestamp,
) -> Result<Option<(HeaderName, HeaderValue)>, Denial> {
    let (Some(assertion), Caller::Known(identity)) = (&permit.app().assertion, permit.caller()) else {
        return Ok(None);
    };
    let unavailable = |cause: &'static str| {
        let denial = Denial::new(Reason::Unavailable, "the gateway cannot vouch for the caller now");
        let mut denial = denial.retry_after(Duration::from_secs(1)).because(cause);
        (denial.route, denial.app) = (Some(permit.route().id), Some(permit.route().app));
        denial.caller = permit.caller().clone();
        denial
    };
    let signer = keys.assertion().ok_or_else(|| unavailable("no_assertion_key"))?;
    let claims = claims(identity, assertion, public_url.unwrap_or(ISSUER), id.as_str(), now);
    let token = signer.minter.mint(&claims, signer.kid.as_ref(), Some(TYPE));
    let token = token.map_err(|_| unavailable("assertion_not_signed"))?;
    let value = HeaderValue::try_from(token).map_err(|_| unavailable("assertion_not_signed"))?;
    Ok(Some((HEADER, value)))
}

fn claims(identity: &Identity, assertion: &Assertion, iss: &str, id: &str, now: Timestamp) -> Map<String, Value> {
    let iat = now.as_seconds();
    let lifetime = i64::try_from(assertion.expires.as_secs()).unwrap_or(i64::MAX);
    let exp = iat.saturating_add(lifetime);
    // Not longer than the token itself; one that is accepted in its last moments still reaches the app.
    let token = identity.expires.map_or(exp, |expires| expires.as_seconds().max(iat.saturating_add(MOMENTS)));
    let exp = exp.min(token);
    let mut claims = Map::new();
    claims.insert("iss".to_owned(), iss.into());
    claims.insert("aud".to_owned(), (&*assertion.audience).into());
    claims.insert("iat".to_owned(), iat.into());
    claims.insert("exp".to_owned(), exp.into());
    claims.insert("jti".to_owned(), id.into());
    claims.insert("issuer".to_owned(), identity.issuer.as_str().into());
    let texts =
        [("sub", &identity.id), ("email", &identity.email), ("tenant", &identity.tenant), ("sid", &identity.session)];
    for (name, fact) in texts {
        if let Fact::Known(text) = fact {
            claims.insert(name.to_owned(), (&**text).into());
        }
    }
    for (name, fact) in [("roles", &identity.roles), ("permissions", &identity.permissions)] {
        if let Fact::Known(names) = fact
            && !names.is_empty()
        {
            claims.insert(name.to_owned(), names.iter().map(|name| Value::from(&**name)).collect());
        }
    }
    if let Fact::Known(scopes) = &identity.scopes {
        let scopes: Vec<&str> = scopes.iter().collect();
        if !scopes.is_empty() {
            claims.insert("scope".to_owned(), scopes.join(" ").into());
        }
    }
    claims
}
