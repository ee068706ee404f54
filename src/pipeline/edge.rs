//! What is particular about routes that lead to Supabase (`preset: supabase-edge`; `supabase-and-oauth.md` A2, A6).
//!
//! Clients of Supabase must not notice the gateway: its refusals have the shape that they read, and nothing transient
//! looks to them like the end of a session. The key of the project is checked where it is the only credential, and who
//! asks is told to the project where the policy gives a key for that.

use std::borrow::Cow;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use subtle::ConstantTimeEq as _;

use super::{About, Pipeline, RETRY, Verdict};
use crate::decision::{Denial, Permit, Reason, Routed};
use crate::identity::{Caller, Identity};
use crate::policy::set::{Destination, Edge, PolicySet, Route, SupabaseProject};
use crate::provider::supabase::NOBODY;
use crate::request::forwarded::ClientAddr;
use crate::request::head::{Lookup, RequestHead};
use crate::request::target::{Target, query_values};
use crate::response::{Problem, Response, SUPABASE_VERSION, SUPABASE_VERSIONED};
use crate::telemetry::audit::{self, AuditEvent, Event};

const API_KEY: HeaderName = HeaderName::from_static("apikey");
const REALTIME_KEY: HeaderName = HeaderName::from_static("x-api-key");
const CLIENT: HeaderName = HeaderName::from_static("sb-forwarded-for");

/// Who asks, where a key of the project would be a browser's.
const AGENT: &str = concat!("portcullis/", env!("CARGO_PKG_VERSION"));

/// What the keys begin with that may do everything.
const SECRET_KEY: &str = "sb_secret_";

/// So many keys of one request are written down, beside its bearer: whoever sends more is known by then.
const MOST_NOTICED: usize = 4;

/// Parts of Supabase Auth that the project's secret key must never come with.
const ADMINISTRATION: [&str; 3] = ["admin", "invite", "scim"];

/// Whether Supabase Auth answers there.
pub fn is_auth(edge: Edge) -> bool {
    match edge {
        Edge::Auth | Edge::Token | Edge::Logout => true,
        Edge::Rest | Edge::Storage | Edge::Functions | Edge::Realtime => false,
    }
}

/// Whether a query asks for the next tokens of a session. Then 429 and 409 are the end of it to `supabase-js`.
fn asks_for_refresh(query: Option<&str>) -> bool {
    let mut grants = query_values(query.unwrap_or_default(), "grant_type");
    grants.any(|grant| grant.as_deref() == Some("refresh_token"))
}

/// Whether a permitted request is a refresh that Supabase Auth answers.
pub fn is_refresh(permit: &Permit) -> bool {
    permit.route().edge == Some(Edge::Token) && asks_for_refresh(permit.target().query())
}

/// The project that a route leads to: the only one there is, or the one at this URL.
fn project<'p>(policy: &'p PolicySet, route: &Route) -> Option<&'p SupabaseProject> {
    let mut projects = policy.issuers.iter().filter_map(|issuer| issuer.supabase.as_deref());
    let (first, second) = (projects.next()?, projects.next());
    if second.is_none() {
        return Some(first);
    }
    let Destination::Upstream(upstream) = route.destination else { return None };
    let url = policy.upstream(upstream)?.url.trim_end_matches('/');
    policy.issuers.iter().filter_map(|issuer| issuer.supabase.as_deref()).find(|project| *project.url == *url)
}

// === What a request must have ===

/// A socket of Realtime needs the project's key: users show their tokens inside it, where nobody looks before Realtime.
/// Elsewhere no token of a user passes for a key: beside the same bearer it would make of that no credential (A1.4 a),
/// which goes on unverified to a part that believes it; and Realtime believes it alone.
pub(super) fn check_key(routed: &Routed, head: &RequestHead<'_>) -> Result<(), Denial> {
    let route = routed.route();
    let refuse = |cause: &'static str| Denial::new(Reason::InvalidToken, "Invalid API key").because(cause);
    if route.edge != Some(Edge::Realtime) || !route.websocket {
        let of_user = |key: Option<Cow<'_, str>>| key.is_some_and(|key| may_be_of_user(&key));
        let is_wrong =
            route.edge.is_some() && routed.needs_credential() && keys(routed.target(), head.headers).any(of_user);
        return if is_wrong { Err(refuse("api_key_of_user")) } else { Ok(()) };
    }
    let project = project(routed.policy(), route).and_then(|project| project.key.as_ref());
    let Some(key) = project else { return Err(refuse("api_key_not_in_policy")) };
    let mut missing = true;
    for sent in keys(routed.target(), head.headers) {
        let is_it = sent.is_some_and(|sent| bool::from(sent.as_bytes().ct_eq(key.expose().as_bytes())));
        if !is_it {
            return Err(refuse("api_key_wrong"));
        }
        missing = false;
    }
    if missing { Err(refuse("api_key_missing")) } else { Ok(()) }
}

/// All keys that a request shows, in its query and in its header.
fn keys<'t>(target: &'t Target, headers: &'t HeaderMap) -> impl Iterator<Item = Option<Cow<'t, str>>> {
    let in_header = headers.get_all(API_KEY).into_iter().map(|value| value.to_str().ok().map(Cow::Borrowed));
    target.query_values("apikey").chain(in_header)
}

// === How it goes on ===

/// `Host` for a part of Supabase: a hosted project, and Realtime anywhere, know themselves by their own name.
pub(super) fn host(permit: &Permit) -> Option<HeaderValue> {
    permit.route().edge?;
    let Destination::Upstream(upstream) = permit.destination() else { return None };
    let upstream = permit.policy().upstream(upstream)?;
    let default = if upstream.tls { 443 } else { 80 };
    if upstream.port == default {
        HeaderValue::try_from(upstream.host.as_str()).ok()
    } else {
        HeaderValue::try_from(format!("{}:{}", upstream.host, upstream.port)).ok()
    }
}

/// Fields that a part of Supabase gets.
pub(super) fn fields(permit: &Permit, head: &RequestHead<'_>, client: ClientAddr) -> Vec<(HeaderName, HeaderValue)> {
    let mut fields = Vec::new();
    let Some(edge) = permit.route().edge else { return fields };
    let mut set = |name: HeaderName, text: &str, secret: bool| {
        if let Ok(mut value) = HeaderValue::from_str(text) {
            value.set_sensitive(secret);
            fields.push((name, value));
        }
    };
    let project = project(permit.policy(), permit.route());
    if edge == Edge::Realtime
        && permit.route().websocket
        && let Some(key) = project.and_then(|project| project.key.as_ref())
    {
        set(REALTIME_KEY, key.expose(), true); // the one that was checked, and no other
    }
    if is_auth(edge)
        && let Some(key) = project.and_then(|project| project.forward_client_ip.as_ref())
        // Without a bearer the secret key itself would say who asks.
        && let Lookup::One(authorization) = head.header(AUTHORIZATION.as_str())
        && let Some(bearer) = bearer(authorization)
        && !permit.target().segments().any(|segment| ADMINISTRATION.contains(&&*segment.decoded()))
    {
        set(CLIENT, &client.to_string(), false);
        set(API_KEY, key.expose(), true);
        // A project refuses its secret key from what looks like a browser.
        set(USER_AGENT, AGENT, false);
        // A key of the newer kind says who asks no more than none does: in its place an edge puts the rights of the `apikey`.
        if bearer.starts_with("sb_") {
            set(AUTHORIZATION, NOBODY, false);
        }
    }
    fields
}

/// The token of an `Authorization` header, however it is spaced.
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.trim().split_once([' ', '\t'])?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

/// Whether a client may not send this field to a part of Supabase: `X-JWT-AUD` chooses the audience of a token,
/// `X-Api-Key` stands before the key that was checked, and `Sb-Api-Key` is an edge's word to functions.
pub fn is_dropped(edge: Edge, name: &str) -> bool {
    let is = |dropped: &str| {
        name.len() == dropped.len()
            && name.bytes().zip(dropped.bytes()).all(|(byte, expected)| match byte {
                b'_' | b'.' => expected == b'-',
                byte => byte.eq_ignore_ascii_case(&expected),
            })
    };
    is("x-jwt-aud")
        || (edge == Edge::Realtime && is(REALTIME_KEY.as_str()))
        || (edge == Edge::Functions && is("sb-api-key"))
}

// === What the client is told ===

/// A refusal in the shape of the part that the client thinks it talks to; `None` where the usual one is fine.
pub(super) fn refusal(edge: Edge, denial: &Denial, id: &str, head: &RequestHead<'_>) -> Option<Response> {
    let problem = |status, code, detail| Problem { status, code, detail, decision_id: id };
    match edge {
        Edge::Auth | Edge::Token | Edge::Logout => {
            let refresh = edge == Edge::Token && asks_for_refresh(head.query());
            let (status, code, detail) = like_auth(denial, refresh);
            let mut response = problem(status, code, detail).respond_like_supabase(knows_newer_errors(head));
            if matches!(status, 429 | 503) {
                let wait = denial.retry_after.unwrap_or(RETRY);
                response.headers.insert(RETRY_AFTER, super::outcome::seconds(wait).into());
            }
            Some(response)
        }
        // As the edge of Supabase says it.
        Edge::Realtime => Some(problem(denial.status(), denial.reason.code(), &denial.detail).respond_with_message()),
        Edge::Rest | Edge::Storage | Edge::Functions => None,
    }
}

/// Status, code and words of Supabase Auth for a refusal of ours.
fn like_auth(denial: &Denial, refresh: bool) -> (u16, &'static str, &str) {
    let detail = &*denial.detail;
    match denial.reason {
        Reason::RateLimited => {
            let status = if refresh { 503 } else { 429 };
            (status, "over_request_rate_limit", "Request rate limit reached")
        }
        Reason::Unavailable | Reason::BadGateway => (503, "unexpected_failure", detail),
        // A client that was too slow may try again, too.
        Reason::GatewayTimeout | Reason::RequestTimeout => (504, "request_timeout", detail),
        Reason::InternalServerError | Reason::NotImplemented => (500, "unexpected_failure", detail),
        Reason::ContentTooLarge => (413, "request_entity_too_large", detail),
        Reason::AccessDenied | Reason::InsufficientScope => (403, "not_admin", "User not allowed"),
        Reason::Unauthenticated => (401, "no_authorization", "This endpoint requires a valid Bearer token"),
        Reason::InvalidToken => (401, "bad_jwt", detail),
        Reason::InsufficientUserAuthentication => (401, "insufficient_aal", detail),
        Reason::InvalidTarget
        | Reason::InvalidRequest
        | Reason::NotFound
        | Reason::MethodNotAllowed
        | Reason::UriTooLong
        | Reason::ExpectationFailed
        | Reason::MisdirectedRequest
        | Reason::RequestHeaderFieldsTooLarge => (denial.status(), "validation_failed", detail),
    }
}

/// Whether a request names a version (a date) since which errors have codes in words.
fn knows_newer_errors(head: &RequestHead<'_>) -> bool {
    let is_date = |text: &str| {
        text.len() == 10
            && text.bytes().enumerate().all(|(at, byte)| match at {
                4 | 7 => byte == b'-',
                _ => byte.is_ascii_digit(),
            })
    };
    head.header(SUPABASE_VERSION.as_str()).one().is_some_and(|text| is_date(text) && text >= SUPABASE_VERSIONED)
}

// === Keys that may do everything ===

impl Pipeline {
    /// A key that may do everything has come from outside (A1.4 f): whoever holds it holds the project.
    pub(super) fn notice_secret_keys(&self, about: &About, head: &RequestHead<'_>, denial: Option<&Denial>) {
        let policy = about.policy();
        if policy.issuers.iter().all(|issuer| issuer.db_roles.is_none()) {
            return;
        }
        let (route, caller) = match &about.verdict {
            Verdict::Permitted(permit) => (Some(permit.route()), permit.caller()),
            Verdict::Refused(denial) => (denial.route.and_then(|route| policy.route(route)), &denial.caller),
            Verdict::Preflight => return,
        };
        let edge = route.and_then(|route| route.edge);
        let bearer = head.header(AUTHORIZATION.as_str()).one().and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start())
        });
        let public = edge.and_then(|_| project(policy, route?)?.key.as_ref());
        let is_public = |key: &str| public.is_some_and(|public| public.expose() == key);
        // What was verified is known; what was not is looked into where keys are expected.
        let of_project =
            |identity: &Identity| policy.issuer(&identity.issuer).is_some_and(|issuer| issuer.db_roles.is_some());
        let known = denial.is_some_and(|denial| denial.cause.as_deref() == Some("service_role_not_allowed"))
            || matches!(caller, Caller::Known(who) if of_project(who) && is_service_role(who.claims.get("role")));
        let is_secret = |key: &str| {
            key.starts_with(SECRET_KEY) || (edge.is_some() && !is_public(key) && is_service_role(role(key).as_ref()))
        };
        let in_query =
            head.query().filter(|_| edge.is_some()).into_iter().flat_map(|query| query_values(query, "apikey"));
        let shown = head.header_values(API_KEY.as_str()).map(Cow::Borrowed).chain(in_query.flatten());
        let mut found: Vec<Cow<'_, str>> = shown.filter(|key| is_secret(key)).take(MOST_NOTICED).collect();
        found.extend(bearer.filter(|key| known || is_secret(key)).map(Cow::Borrowed));
        found.dedup();
        for key in found {
            let outcome = if denial.is_some() { audit::Outcome::Failure } else { audit::Outcome::Success };
            about.active.services.audit.record(&AuditEvent {
                decision_id: Some(about.id.as_str()),
                app: route.and_then(|route| policy.app(route.app)).map(|app| &*app.name),
                key: Some(&named(&key)),
                address: Some(about.client.ip()),
                user_agent: head.header(USER_AGENT.as_str()).one(),
                ..AuditEvent::new(about.at, Event::SecretKey, outcome)
            });
        }
    }
}

fn is_service_role(role: Option<&Value>) -> bool {
    role.and_then(Value::as_str) == Some("service_role")
}

/// The role that a token names, unverified.
fn role(token: &str) -> Option<Value> {
    Some(claims(token)?.get_mut("role")?.take())
}

/// Whether a key is a token, and not one of the two old keys, which name nobody. One that cannot be read may be: users
/// choose a part of what their tokens say, as nested as they like.
fn may_be_of_user(key: &str) -> bool {
    key.contains('.') && claims(key).is_none_or(|claims| claims.get("sub").is_some())
}

/// What a token claims, unverified.
fn claims(token: &str) -> Option<Value> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

/// How a key is told from others without being shown: what its kind begins with, six characters of it at most, and the
/// first half of its SHA-256.
fn named(key: &str) -> String {
    let hash = digest::digest(&digest::SHA256, key.as_bytes());
    let hash: String = hash.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let begins: String = match key.strip_prefix(SECRET_KEY) {
        Some(random) => SECRET_KEY.chars().chain(random.chars().take(6)).collect(),
        None => "service_role ".to_owned(),
    };
    format!("{begins}… sha256:{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_key_is_named_without_being_shown() {
        let key = "sb_secret_AbCdEfGhIjKlMnOpQrStUv_12345678";
        let named = named(key);
        assert!(named.starts_with("sb_secret_AbCdEf… sha256:") && !named.contains("GhIj"), "{named}");
        assert!(super::named("a.b.c").starts_with("service_role … sha256:"));
    }

    #[test]
    fn a_version_of_errors_is_a_date() {
        for (version, newer) in [
            ("2024-01-01", true),
            ("2026-07-31", true),
            ("2023-12-31", false),
            ("2024-1-1", false),
            ("20240101", false),
            ("latest", false),
            ("9999", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(SUPABASE_VERSION, HeaderValue::from_static(version));
            assert_eq!(knows_newer_errors(&RequestHead::new("GET", "/", &headers)), newer, "{version}");
        }
    }

    #[test]
    fn dropped_fields_are_dropped_in_every_spelling() {
        for (name, edge, dropped) in [
            ("x-jwt-aud", Edge::Auth, true),
            ("x_jwt_aud", Edge::Rest, true),
            ("x.jwt-aud", Edge::Token, true),
            ("x-jwt-audience", Edge::Auth, false),
            ("x-api-key", Edge::Realtime, true),
            ("x_api_key", Edge::Realtime, true),
            ("x-api-key", Edge::Functions, false),
            ("apikey", Edge::Realtime, false),
            ("Sb_Api-Key", Edge::Functions, true),
            ("sb-api-key", Edge::Rest, false),
        ] {
            assert_eq!(is_dropped(edge, name), dropped, "{name}");
        }
    }
}
