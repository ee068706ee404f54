//! The head that goes upstream, written on a fresh copy of the client's for each attempt.
//!
//! It runs after Pingora removed hop-by-hop and nominated fields, so that `Connection: X-Auth-User` removes
//! nothing of ours, and it takes nothing out of the context: a second attempt must send the same.

use std::sync::LazyLock;

use http::header::{AUTHORIZATION, COOKIE, HOST, VIA};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use pingora::http::RequestHeader;
use pingora::{Error, ErrorType, OrErr, Result};
use smallvec::SmallVec;

use super::context::Passing;
use crate::browser;
use crate::decision::Permit;
use crate::pipeline::{Authorization, RenewedCookie, edge};
use crate::policy::set::Strip;
use crate::request::{cookie, forwarded, method};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What proxies say about where a request came from and what it asked for, in every spelling.
static FORWARDED: LazyLock<Strip> =
    LazyLock::new(|| Strip::new(forwarded::REMOVED.iter().copied(), &["x-forwarded-", "x-original-"]));
/// What makes some frameworks run another method than the one that was decided on, in every spelling.
static OVERRIDES: LazyLock<Strip> = LazyLock::new(|| Strip::new(method::OVERRIDE_HEADERS, &[]));

/// Makes the client's head into the one that goes upstream. Names that HTTP does not know go out in lower case:
/// keeping each client's spelling would cost a second map of all names.
pub(super) fn write(
    request: &mut RequestHeader,
    permit: &Permit,
    passing: &Passing,
    request_id: &str,
    version: Version,
) -> Result<()> {
    let forward = &passing.forward;
    let as_it_is = request.raw_path() == forward.target.as_bytes() && request.uri.authority().is_none();
    let mut parts: Parts = std::mem::replace(request, RequestHeader::build_no_case(Method::GET, b"/", Some(0))?).into();
    // The bytes forwarded are the bytes that were matched.
    if !as_it_is {
        parts.uri = Uri::try_from(&*forward.target).or_err(ErrorType::InternalError, "the target is no URI")?;
    }
    edit(&mut parts.headers, permit, passing, request_id, version);
    *request = parts.into();
    if request.raw_path() != forward.target.as_bytes() {
        return Error::e_explain(ErrorType::InternalError, "other bytes would be forwarded than were decided on");
    }
    Ok(())
}

fn edit(headers: &mut HeaderMap, permit: &Permit, passing: &Passing, request_id: &str, version: Version) {
    let forward = &passing.forward;
    let enforce = permit.app().enforce_method_override;
    // With `enforce` the names that were authorised stay, and no other spelling of them.
    let authorised = |name: &HeaderName| enforce && method::OVERRIDE_HEADERS.contains(&name.as_str());
    let edge = permit.route().edge;
    let dropped = |name: &HeaderName| {
        FORWARDED.contains(name.as_str())
            || (OVERRIDES.contains(name.as_str()) && !authorised(name))
            || edge.is_some_and(|edge| edge::is_dropped(edge, name.as_str()))
    };
    let names: SmallVec<[HeaderName; 8]> = headers.keys().filter(|name| dropped(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
    for (name, value) in &forward.origin {
        headers.insert(name.clone(), value.clone());
    }
    forward.edits.apply(headers);
    for (name, value) in &forward.fields {
        headers.insert(name.clone(), value.clone());
    }
    if headers.get(HOST) != Some(&forward.host) {
        headers.insert(HOST, forward.host.clone());
    }
    match &forward.authorization {
        Authorization::Keep => {}
        Authorization::Remove => drop(headers.remove(AUTHORIZATION)),
        Authorization::Set(value) => drop(headers.insert(AUTHORIZATION, value.clone())),
    }
    cookies(headers, permit, forward.cookies.as_ref());
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.append(VIA, HeaderValue::from_static(via(version)));
}

/// One `Cookie` field (RFC 9113 §8.2.3), without the gateway's own and, where tokens are not forwarded, without
/// those that hold tokens, in all their pieces. The others stay byte for byte.
fn cookies(headers: &mut HeaderMap, permit: &Permit, renewed: Option<&RenewedCookie>) {
    if !headers.contains_key(COOKIE) {
        return;
    }
    let forwards = permit.app().forward_token;
    let holds_token = |key: &[u8]| {
        let mut names = permit.policy().issuers.iter().flat_map(|issuer| &issuer.cookies);
        names.any(|name| cookie::is_piece(key, name))
    };
    let removed = |key: &[u8]| {
        browser::is_own_cookie(permit.policy(), key)
            || (!forwards && holds_token(key))
            || renewed.is_some_and(|(name, _)| cookie::is_piece(key, name))
    };
    let mut value = cookie::without(headers, removed);
    if let Some((_, pieces)) = renewed.filter(|_| forwards) {
        let old = value.as_ref().map(|value| value.as_bytes().to_vec());
        let new = pieces.iter().map(|(name, value)| format!("{name}={value}").into_bytes());
        let joined = old.into_iter().chain(new).collect::<Vec<_>>().join(&b"; "[..]);
        value = HeaderValue::from_bytes(&joined).ok().filter(|value| !value.is_empty());
    }
    match value {
        Some(value) => headers.insert(COOKIE, value),
        None => headers.remove(COOKIE),
    };
}

/// Which version a message came in, and who passed it on (RFC 9110 §7.6.3).
pub(super) fn via(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2 portcullis",
        Version::HTTP_10 => "1.0 portcullis",
        _ => "1.1 portcullis",
    }
}
