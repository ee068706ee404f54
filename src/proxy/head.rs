//! From Pingora's session to a borrowed [`RequestHead`].

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use pingora::protocols::http::ServerSession;

use super::side;
use super::tls::ServerName;
use crate::request::head::RequestHead;

/// The head of an HTTP/1 request as received; `None` for HTTP/2.
pub(super) fn raw(session: &ServerSession) -> Option<Bytes> {
    let raw = session.as_http1()?.get_headers_raw_bytes();
    let line = side::guarded(session).map_or(&[][..], |guarded| guarded.request_line());
    let shown = skip_empty_lines(&raw);
    let same = shown.strip_prefix(line).is_some_and(|rest| rest.starts_with(b"\r\n") || rest.starts_with(b"\n"));
    if same && !line.is_empty() {
        return Some(raw);
    }
    // Pingora repaired the line: what follows is refused by whoever compares it with the parsed target.
    let rest = shown.iter().position(|byte| *byte == b'\n').and_then(|end| shown.get(end..)).unwrap_or_default();
    Some([line, b"\r", rest].concat().into())
}

fn skip_empty_lines(mut raw: &[u8]) -> &[u8] {
    while let Some(rest) = raw.strip_prefix(b"\r\n").or_else(|| raw.strip_prefix(b"\n")) {
        raw = rest;
    }
    raw
}

/// The request of a session. `raw` comes from [`raw`], and outlives what is borrowed here.
pub(super) fn of<'s>(session: &'s ServerSession, raw: Option<&'s Bytes>) -> RequestHead<'s> {
    let request = session.req_header();
    let tls = session.digest().and_then(|digest| digest.ssl_digest.as_deref());
    RequestHead {
        method: request.method.as_str(),
        target: request.raw_path(),
        raw: raw.map(AsRef::as_ref),
        version: request.version,
        authority: request.uri.authority().filter(|_| session.is_http2()).map(|authority| authority.as_str()),
        headers: &request.headers,
        secure: tls.is_some(),
        peer: side::peer(session).map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip()),
        server_name: tls.and_then(|tls| tls.extension.get::<ServerName>()).map(|name| name.0.as_str()),
    }
}
