//! The head of a request as it came in, borrowed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, Version, header};

/// What is known about a request before anything judged it: made by the proxy from a session, or by a fixture.
#[derive(Clone, Copy)]
pub struct RequestHead<'r> {
    /// The method, case as received.
    pub method: &'r str,
    /// The request target as on the wire.
    pub target: &'r [u8],
    /// HTTP/1: request line and header lines as received, which show what a lenient parser folded or dropped.
    pub raw: Option<&'r [u8]>,
    /// The protocol version.
    pub version: Version,
    /// HTTP/2: `:authority`.
    pub authority: Option<&'r str>,
    /// The header fields.
    pub headers: &'r HeaderMap,
    /// Whether the connection to us is encrypted.
    pub secure: bool,
    /// The address at the other end of the connection.
    pub peer: IpAddr,
    /// The server name of the TLS handshake.
    pub server_name: Option<&'r str>,
}

impl<'r> RequestHead<'r> {
    /// An HTTP/1.1 request over plain TCP from `127.0.0.1`; the setters change that.
    pub fn new(method: &'r str, target: &'r (impl AsRef<[u8]> + ?Sized), headers: &'r HeaderMap) -> Self {
        Self {
            method,
            target: target.as_ref(),
            raw: None,
            version: Version::HTTP_11,
            authority: None,
            headers,
            secure: false,
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            server_name: None,
        }
    }

    /// Sets the head as received.
    #[must_use]
    pub fn raw(mut self, raw: &'r [u8]) -> Self {
        self.raw = Some(raw);
        self
    }

    /// Sets the protocol version.
    #[must_use]
    pub fn version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// Sets `:authority`.
    #[must_use]
    pub fn authority(mut self, authority: &'r str) -> Self {
        self.authority = Some(authority);
        self
    }

    /// Sets whether the connection is encrypted.
    #[must_use]
    pub fn secure(mut self, secure: bool) -> Self {
        self.secure = secure;
        self
    }

    /// Sets the address of the peer.
    #[must_use]
    pub fn peer(mut self, peer: IpAddr) -> Self {
        self.peer = peer;
        self
    }

    /// Sets the server name of the TLS handshake.
    #[must_use]
    pub fn server_name(mut self, server_name: &'r str) -> Self {
        self.server_name = Some(server_name);
        self
    }

    /// The one value of a header.
    pub fn header(&self, name: &str) -> Lookup<&'r str> {
        let headers: &'r HeaderMap = self.headers;
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Lookup::Missing,
            (Some(value), None) => std::str::from_utf8(value.as_bytes()).map_or(Lookup::Unclear, Lookup::One),
            (Some(_), Some(_)) => Lookup::Unclear,
        }
    }

    /// All values of a header that are text, in the order received.
    pub fn header_values(&self, name: &str) -> impl DoubleEndedIterator<Item = &'r str> + use<'r> {
        let headers: &'r HeaderMap = self.headers;
        headers.get_all(name).iter().filter_map(|value| std::str::from_utf8(value.as_bytes()).ok())
    }

    /// Whether a header is there, whatever its value.
    pub fn has_header(&self, name: &str) -> bool {
        self.headers.contains_key(name)
    }

    /// The query as received, if it is text.
    pub fn query(&self) -> Option<&'r str> {
        let target: &'r [u8] = self.target;
        let at = target.iter().position(|byte| *byte == b'?')?;
        std::str::from_utf8(target.get(at.saturating_add(1)..)?).ok()
    }

    /// A navigation of a browser: somebody wants to see a page.
    pub fn is_navigation(&self) -> bool {
        if !matches!(self.method, "GET" | "HEAD") || self.has_header(header::UPGRADE.as_str()) {
            return false;
        }
        match self.header("sec-fetch-mode") {
            Lookup::One(mode) => mode == "navigate",
            Lookup::Unclear => false,
            Lookup::Missing => {
                let accepts = |value: &str| value.split(',').any(|range| accepts_html(range.trim_ascii()));
                !self.has_header("x-requested-with") && self.header_values(header::ACCEPT.as_str()).any(accepts)
            }
        }
    }

    /// A CORS preflight: `OPTIONS` with `Origin` and `Access-Control-Request-Method`.
    pub fn is_preflight(&self) -> bool {
        self.method == "OPTIONS"
            && self.headers.contains_key(header::ORIGIN)
            && self.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    }
}

/// Whether a media range is `text/html` or XHTML by name, and wanted: `*/*` is what programs send.
fn accepts_html(range: &str) -> bool {
    let mut parts = range.split(';').map(str::trim_ascii);
    let kind = parts.next().unwrap_or_default();
    let refused = |parameter: &str| {
        let weight = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
        weight.is_some_and(|weight| weight.bytes().all(|byte| matches!(byte, b'0' | b'.')))
    };
    let html = kind.eq_ignore_ascii_case("text/html") || kind.eq_ignore_ascii_case("application/xhtml+xml");
    html && !parts.any(refused)
}

/// Shows no header and no query: both may hold credentials.
impl fmt::Debug for RequestHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.target.split(|byte| *byte == b'?').next().unwrap_or_default();
        f.debug_struct("RequestHead")
            .field("method", &self.method)
            .field("path", &path.escape_ascii().to_string())
            .field("version", &self.version)
            .field("secure", &self.secure)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// A look-up of something that a request may say once, several times or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<T> {
    /// It is not there.
    Missing,
    /// It is there once.
    One(T),
    /// It is there several times, or is not text: nothing can be said about its value.
    Unclear,
}

impl<T> Lookup<T> {
    /// The value, if there is exactly one.
    pub fn one(self) -> Option<T> {
        match self {
            Self::One(value) => Some(value),
            Self::Missing | Self::Unclear => None,
        }
    }
}

/// The parts of a request line as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::request) struct RequestLine<'r> {
    pub method: &'r [u8],
    pub target: &'r [u8],
}

/// Splits a raw head into its request line and what follows it. `None` if the line is not
/// `method SP target SP version CRLF`. Empty lines before it are skipped (RFC 9112 §2.2).
pub(in crate::request) fn split_request_line(raw: &[u8]) -> Option<(RequestLine<'_>, &[u8])> {
    let mut rest = raw;
    while let Some(after) = rest.strip_prefix(b"\r\n") {
        rest = after;
    }
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let (line, rest) = rest.split_at_checked(end)?;
    let (line, rest) = (line.strip_suffix(b"\r")?, rest.strip_prefix(b"\n")?);
    let mut parts = line.split(|byte| *byte == b' ');
    let (method, target, version) = (parts.next()?, parts.next()?, parts.next()?);
    let clean = parts.next().is_none()
        && matches!(version, b"HTTP/1.0" | b"HTTP/1.1")
        && !method.is_empty()
        && !target.is_empty()
        && !line.contains(&b'\r');
    clean.then_some((RequestLine { method, target }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_neither_query_nor_headers() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer canary-4711".parse().unwrap());
        let head = RequestHead::new("GET", "/a?token=canary-4711", &headers);
        assert!(!format!("{head:?}").contains("canary"));
    }

    #[test]
    fn a_navigation_is_told_from_what_programs_ask() {
        let html = "text/html,application/xhtml+xml,*/*;q=0.8";
        for (method, fields, expected) in [
            ("GET", &[("sec-fetch-mode", "navigate")][..], true),
            ("HEAD", &[("sec-fetch-mode", "navigate")], true),
            ("GET", &[("sec-fetch-mode", "navigate"), ("x-requested-with", "XMLHttpRequest")], true),
            ("POST", &[("sec-fetch-mode", "navigate"), ("accept", html)], false),
            ("GET", &[("sec-fetch-mode", "cors"), ("accept", html)], false),
            ("GET", &[("sec-fetch-mode", "no-cors"), ("accept", html)], false),
            ("GET", &[("sec-fetch-mode", "navigate"), ("sec-fetch-mode", "navigate")], false),
            ("GET", &[("sec-fetch-mode", "websocket"), ("upgrade", "websocket")], false),
            ("GET", &[("accept", html)], true),
            ("GET", &[("accept", "Application/XHTML+xml")], true),
            ("GET", &[("accept", "application/json"), ("accept", "text/html")], true),
            ("GET", &[("accept", "text/html;q=0")], false),
            ("GET", &[("accept", "text/html; q=0.0")], false),
            ("GET", &[("accept", "text/html; q=0.1")], true),
            ("GET", &[("accept", html), ("x-requested-with", "XMLHttpRequest")], false),
            ("GET", &[("accept", "*/*")], false),
            ("GET", &[("accept", "application/json, text/plain, */*")], false),
            ("GET", &[("accept", "text/html"), ("upgrade", "websocket")], false),
            ("GET", &[], false),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, value.parse().unwrap());
            }
            assert_eq!(RequestHead::new(method, "/", &headers).is_navigation(), expected, "{method} {fields:?}");
        }
    }

    #[test]
    fn several_values_of_a_header_are_unclear() {
        let mut headers = HeaderMap::new();
        headers.append("x-role", "user".parse().unwrap());
        let one = headers.clone();
        assert_eq!(RequestHead::new("GET", "/", &one).header("X-Role"), Lookup::One("user"));
        headers.append("x-role", "user".parse().unwrap());
        let head = RequestHead::new("GET", "/", &headers);
        assert_eq!(head.header("x-role"), Lookup::Unclear);
        assert_eq!(head.header("x-other"), Lookup::Missing);
        assert_eq!(head.header_values("x-role").count(), 2);
    }

    #[test]
    fn a_request_line_has_two_spaces_and_one_line_end() {
        let line = |raw: &'static str| split_request_line(raw.as_bytes()).map(|(line, _)| line.target);
        assert_eq!(line("GET /a HTTP/1.1\r\n\r\n"), Some(&b"/a"[..]));
        assert_eq!(line("\r\n\r\nGET /a HTTP/1.0\r\n\r\n"), Some(&b"/a"[..]));
        for raw in [
            "GET  /a HTTP/1.1\r\n\r\n",
            "GET /a b HTTP/1.1\r\n\r\n",
            "GET /a HTTP/1.1\n\n",
            "\nGET /a HTTP/1.1\r\n\r\n",
            "GET /a\r HTTP/1.1\r\n",
            "GET /a HTTP/2.0\r\n\r\n",
            " GET /a HTTP/1.1\r\n",
            "GET /a",
            "",
        ] {
            assert_eq!(line(raw), None, "{raw:?}");
        }
    }
}
