//! The upstream's answer on its way to the client.

use http::header::{CACHE_CONTROL, EXPIRES, PRAGMA, RETRY_AFTER, SET_COOKIE, VARY, VIA};
use http::{HeaderName, HeaderValue, Version};
use pingora::http::ResponseHeader;

use super::context::Passing;
use super::fields::OfResponse;
use super::upstream::via;
use crate::browser;
use crate::decision::Permit;
use crate::decision::headers::Fields;
use crate::identity::{Caller, Transport};
use crate::pipeline::{cors, edge};
use crate::policy::set::Edge;

/// Fields that are about one connection (RFC 9110 §7.6.1). `Connection` and `Upgrade` are Pingora's: a WebSocket
/// needs them.
const HOP_BY_HOP: [HeaderName; 2] =
    [HeaderName::from_static("keep-alive"), HeaderName::from_static("proxy-connection")];

/// Edits the head of an answer.
pub(super) fn edit(response: &mut ResponseHeader, passing: &Passing) {
    if response.status.is_informational() && response.status != http::StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    remove_own_cookies(response, passing);
    if let Some(permit) = passing.permit() {
        as_supabase_clients_need(response, permit);
    }
    let mut fields = OfResponse(response);
    for name in &HOP_BY_HOP {
        fields.remove(name);
    }
    if let Some(cors) = passing.permit().and_then(|permit| permit.app().cors.as_ref()) {
        for name in &cors::OURS {
            fields.remove(name);
        }
        let vary = HeaderValue::from_static("origin");
        if let Some(origin) = &passing.forward.cors_origin {
            cors::mark(cors, origin, |name, value| {
                if name != VARY {
                    fields.set(name, value);
                }
            });
        }
        // Also without an origin: a cache must not give this answer to one.
        let _ = fields.0.append_header(VARY, vary);
    }
    if passing.forward.login {
        // What a login answers is kept by nobody (RFC 6749 §5.1), whatever the app says.
        fields.set(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        fields.set(PRAGMA, HeaderValue::from_static("no-cache"));
    }
    passing.forward.edits.apply_to_response(&mut fields);
    if passing.permit().is_some_and(is_by_cookie) && !fields.0.headers.contains_key(CACHE_CONTROL) {
        fields.set(CACHE_CONTROL, HeaderValue::from_static("private"));
    }
    if !passing.forward.set_cookie.is_empty() {
        fields.set(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    }
    if passing.forward.cookies.is_some() {
        // As `@supabase/ssr` says it.
        let never = "private, no-cache, no-store, must-revalidate, max-age=0";
        fields.set(CACHE_CONTROL, HeaderValue::from_static(never));
        fields.set(EXPIRES, HeaderValue::from_static("0"));
        fields.set(PRAGMA, HeaderValue::from_static("no-cache"));
    }
    for cookie in &passing.forward.set_cookie {
        let _ = fields.0.append_header(SET_COOKIE, cookie.clone());
    }
    let _ = response.append_header(VIA, HeaderValue::from_static(via(Version::HTTP_11)));
}

/// Whether a cookie said who asks. Caches on the way know by `Authorization` that an answer is for one alone (RFC 9111 §3.5);
/// of a cookie they must be told.
fn is_by_cookie(permit: &Permit) -> bool {
    let Caller::Known(identity) = permit.caller() else { return false };
    matches!(identity.transport, Transport::Cookie | Transport::Session)
}

/// What the clients of Supabase take for the end of a session, and what nobody may keep. Everything else stays as it is:
/// statuses, places to go to, bodies.
fn as_supabase_clients_need(response: &mut ResponseHeader, permit: &Permit) {
    let Some(edge) = permit.route().edge else { return };
    if permit.app().cors.is_some() {
        for name in &cors::OF_PREFLIGHTS {
            response.remove_header(name);
        }
    }
    if !edge::is_auth(edge) {
        return;
    }
    if matches!(response.status.as_u16(), 409 | 429) && edge::is_refresh(permit) {
        // On the refresh grant `supabase-js` ends the session at anything but an outage.
        let _ = response.set_status(503);
        let _ = response.set_reason_phrase(None);
        if !response.headers.contains_key(RETRY_AFTER) {
            let _ = response.insert_header(RETRY_AFTER, "5");
        }
    }
    // Answers hold tokens and users, and Supabase Auth says nothing about keeping them.
    if edge == Edge::Token || !response.headers.contains_key(CACHE_CONTROL) {
        let _ = response.insert_header(CACHE_CONTROL, "no-store");
    }
}

/// No upstream may set the gateway's own cookies.
fn remove_own_cookies(response: &mut ResponseHeader, passing: &Passing) {
    if !response.headers.contains_key(SET_COOKIE) {
        return;
    }
    let Some(permit) = passing.permit() else { return };
    let is_ours = |value: &HeaderValue| {
        // Browsers give back a cookie without a name as its value alone: `=name=value` comes back as `name=value`.
        let start = value.as_bytes().iter().position(|byte| !byte.is_ascii_whitespace() && *byte != b'=');
        let pair = value.as_bytes().get(start.unwrap_or_default()..).unwrap_or_default();
        let name = pair.split(|byte| matches!(byte, b'=' | b';')).next().unwrap_or_default();
        browser::is_own_cookie(permit.policy(), name.trim_ascii())
    };
    if !response.headers.get_all(SET_COOKIE).iter().any(is_ours) {
        return;
    }
    let others: Vec<HeaderValue> =
        response.headers.get_all(SET_COOKIE).iter().filter(|value| !is_ours(value)).cloned().collect();
    response.remove_header(&SET_COOKIE);
    for cookie in others {
        let _ = response.append_header(SET_COOKIE, cookie);
    }
}
