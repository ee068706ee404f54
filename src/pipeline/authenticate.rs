//! Who asks: one credential, or none, verified with the keys of its own issuer.

use http::{HeaderMap, header};
use smallvec::SmallVec;

use super::{Authorization, RETRY};
use crate::clock::Timestamp;
use crate::decision::Routed;
use crate::decision::{Denial, Reason};
use crate::identity::claims::Claims;
use crate::identity::credential::Credential;
use crate::identity::{Caller, Transport};
use crate::policy::set::{Admission, App, Issuer, PolicySet};
use crate::request::RequestError;
use crate::request::cookie;
use crate::request::forwarded::Origin;
use crate::request::head::{Lookup, RequestHead};
use crate::store::revoked::RevokedList;
use crate::token::error::TokenError;
use crate::token::verify::Verifier;

/// A caller and the credential that said so.
#[derive(Debug)]
pub(super) struct Authenticated<'r> {
    pub(super) caller: Caller,
    pub(super) token: Option<&'r str>,
    transport: Option<Transport>,
}

impl Authenticated<'_> {
    const NOBODY: Self = Self { caller: Caller::Anonymous, token: None, transport: None };

    /// What becomes of `Authorization`: where the caller plays a part, only what was validated is forwarded.
    pub(super) fn authorization(&self, routed: &Routed) -> Authorization {
        let validated = self.transport == Some(Transport::Bearer) || !routed.needs_credential();
        if routed.app().forward_token && validated { Authorization::Keep } else { Authorization::Remove }
    }
}

/// What tokens are checked with.
#[derive(Clone, Copy, Debug)]
pub(super) struct With<'a> {
    pub(super) verifier: &'a Verifier,
    pub(super) revoked: &'a RevokedList,
    /// Whether the store is open that would know.
    pub(super) knows_revocations: bool,
}

/// The caller of a request. Nobody is a caller too: whether that is enough, `authorize` says.
pub(super) fn authenticate<'r>(
    with: With<'_>,
    routed: &Routed,
    head: &RequestHead<'r>,
    origin: &Origin<'_>,
    now: Timestamp,
) -> Result<Authenticated<'r>, Denial> {
    if !routed.needs_credential() {
        return Ok(Authenticated::NOBODY);
    }
    let policy = routed.policy();
    let cookies = cookies(policy, head.headers)?;
    let Some(credential) = Credential::single(head.headers, cookies)? else { return Ok(Authenticated::NOBODY) };
    if credential.is_ignored() {
        return Ok(Authenticated::NOBODY);
    }
    let (token, transport) = (credential.token(), credential.transport());
    let verified = with.verifier.verify(token, now).map_err(refused)?;
    let refuse = |cause: &'static str| {
        Err(Denial::new(Reason::InvalidToken, TokenError::BadSignature.description()).because(cause))
    };
    let Some(issuer) = policy.issuer(verified.issuer()) else { return refuse("issuer_unknown") };
    match issuer.admit(verified.claims()) {
        Admission::Accepted => {}
        Admission::NoCredential => return Ok(Authenticated::NOBODY),
        Admission::Refused(cause) => return refuse(cause),
    }
    check_revoked(with, issuer, verified.claims(), routed.app())?;
    let may_come_so = match transport {
        Transport::Bearer => issuer.bearer,
        Transport::Cookie => {
            issuer.cookies.iter().any(|name| cookie::find(head.headers, name).ok().flatten() == Some(token))
        }
    };
    if !may_come_so {
        return refuse("token_wrong_transport");
    }
    if transport == Transport::Cookie {
        check_origin(routed.app(), head, origin)?;
    }
    Ok(Authenticated {
        caller: Caller::Known(Box::new(verified.identity(transport))),
        token: Some(token),
        transport: Some(transport),
    })
}

/// Whether a token was revoked. Of the gateway's own tokens, nothing is known while the list cannot be kept up to
/// date (`on_store_error`); others are revoked somewhere else.
fn check_revoked(with: With<'_>, issuer: &Issuer, claims: &Claims, app: &App) -> Result<(), Denial> {
    let text = |name: &str| claims.get(name).and_then(serde_json::Value::as_str);
    let session = text("sid").or_else(|| text("session_id"));
    let issued = claims.get("iat").and_then(serde_json::Value::as_f64).map(|seconds| seconds as i64);
    if with.revoked.is_revoked(issuer.name.as_str(), text("jti"), session, text("sub"), issued) {
        return Err(Denial::new(Reason::InvalidToken, TokenError::BadSignature.description()).because("token_revoked"));
    }
    if issuer.local.is_some() && !app.allow_on_store_error && !(with.knows_revocations && with.revoked.is_current()) {
        let denial = Denial::new(Reason::Unavailable, "the token cannot be verified now");
        return Err(denial.because("revocations_unknown").retry_after(RETRY));
    }
    Ok(())
}

fn cookies<'r>(policy: &PolicySet, headers: &'r HeaderMap) -> Result<SmallVec<[&'r str; 2]>, Denial> {
    let mut found = SmallVec::new();
    if headers.contains_key(header::COOKIE) {
        for name in policy.issuers.iter().flat_map(|issuer| &issuer.cookies) {
            found.extend(cookie::find(headers, name).map_err(RequestError::from)?);
        }
    }
    Ok(found)
}

fn refused(error: TokenError) -> Denial {
    let (reason, detail) = match error {
        TokenError::KeysUnavailable => (Reason::Unavailable, "the token cannot be verified now"),
        _ => (Reason::InvalidToken, error.description()),
    };
    let denial = Denial::new(reason, detail).because(format!("{}: {error}", error.name()));
    if reason == Reason::Unavailable { denial.retry_after(RETRY) } else { denial }
}

/// A cookie comes with every request that any page makes a browser send. So writes and upgrades need an origin
/// that is the app's own or listed (ASVS 3.5.1, RFC 6455 §10.2).
fn check_origin(app: &App, head: &RequestHead<'_>, origin: &Origin<'_>) -> Result<(), Denial> {
    let reads = matches!(head.method, "GET" | "HEAD" | "OPTIONS") && !head.has_header(header::UPGRADE.as_str());
    let same_site = || head.header("sec-fetch-site").one() == Some("same-origin");
    let allowed = match head.header(header::ORIGIN.as_str()) {
        _ if reads => true,
        Lookup::One(value) => may_act(app, value, origin),
        Lookup::Missing => same_site(),
        Lookup::Unclear => false,
    };
    if allowed { Ok(()) } else { Err(cross_origin()) }
}

/// No preflight comes before a WebSocket: where the app says which origins it knows, others may not open one.
pub(super) fn check_websocket(routed: &Routed, head: &RequestHead<'_>, origin: &Origin<'_>) -> Result<(), Denial> {
    if !routed.route().websocket || routed.app().cors.is_none() || !head.has_header(header::UPGRADE.as_str()) {
        return Ok(());
    }
    match head.header(header::ORIGIN.as_str()) {
        Lookup::Missing => Ok(()), // no browser
        Lookup::One(value) if may_act(routed.app(), value, origin) => Ok(()),
        Lookup::One(_) | Lookup::Unclear => Err(cross_origin()),
    }
}

/// Whether an origin is the app's own, or one that it lets act with credentials.
fn may_act(app: &App, value: &str, origin: &Origin<'_>) -> bool {
    let rest = value.strip_prefix(origin.scheme()).and_then(|rest| rest.strip_prefix("://"));
    let own = rest.is_some_and(|host| host.eq_ignore_ascii_case(origin.host().authority()));
    let listed = || {
        app.cors.as_ref().is_some_and(|cors| cors.credentials && cors.origins.iter().any(|listed| **listed == *value))
    };
    value != "null" && (own || listed())
}

fn cross_origin() -> Denial {
    Denial::new(Reason::AccessDenied, "the request comes from another origin").because("cross_origin")
}
