//! The effective host of a request.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use http::header;

use super::head::RequestHead;

refusals! {
    /// Why the host of a request is refused.
    HostError {
        /// Neither a name nor an address: `a..b`, `legit.com;for=10.0.0.1`, a name that is not punycode.
        InvalidName: BAD_REQUEST, "host_invalid", "the host is neither a name nor an address";
        /// A port that is not a number from 1 to 65535.
        InvalidPort: BAD_REQUEST, "host_port_invalid", "the port of the host is not a number from 1 to 65535";
        /// `Host` and `:authority` name different hosts.
        Mismatch: BAD_REQUEST, "host_mismatch", "`Host` and `:authority` differ";
        /// No `Host` header and no `:authority`.
        Missing: BAD_REQUEST, "host_missing", "the request has no host";
        /// The TLS handshake named another host: a connection that is reused for a host it was not opened for.
        Misdirected: MISDIRECTED_REQUEST, "host_misdirected", "the host is not the one that the connection was opened for";
        /// More than one `Host` header.
        Several: BAD_REQUEST, "host_repeated", "the request has several `Host` headers";
        /// `user@host`.
        Userinfo: BAD_REQUEST, "host_userinfo", "the host contains `@`";
    }
}

/// A host: lower-cased, without its port and the dot of the root. Internationalised names are in punycode.
///
/// ```text
/// host    = ( name / IPv4 / "[" IPv6 "]" ) [ ":" port ]
/// name    = label *( "." label ) [ "." ]           label = 1*63( ALPHA / DIGIT / "-" / "_" )
/// ```
/// Narrower than a URI's reg-name: no percent-encoding, no `;` or `,`, which other headers would take apart.
#[derive(Clone, Debug)]
pub struct Host<'r> {
    name: Cow<'r, str>,
    port: Option<u16>,
    authority: &'r str,
}

impl<'r> Host<'r> {
    /// The host of a request: `:authority`, else `Host`; if there are both they must agree.
    pub fn of(head: &RequestHead<'r>) -> Result<Self, HostError> {
        let mut values = head.headers.get_all(header::HOST).iter();
        let (header, second) = (values.next(), values.next());
        if second.is_some() {
            return Err(HostError::Several);
        }
        let header = match header {
            Some(value) => {
                Some(Self::parse(std::str::from_utf8(value.as_bytes()).map_err(|_| HostError::InvalidName)?)?)
            }
            None => None,
        };
        let authority = head.authority.map(Self::parse).transpose()?;
        match (authority, header) {
            (Some(authority), Some(header)) if !authority.agrees_with(&header, head.secure) => Err(HostError::Mismatch),
            (Some(host), _) | (None, Some(host)) => Ok(host),
            (None, None) => Err(HostError::Missing),
        }
    }

    /// Reads a host with or without a port.
    pub fn parse(authority: &'r str) -> Result<Self, HostError> {
        if authority.contains('@') {
            return Err(HostError::Userinfo);
        }
        if let Some(rest) = authority.strip_prefix('[') {
            let (address, rest) = rest.split_once(']').ok_or(HostError::InvalidName)?;
            let address: Ipv6Addr = address.parse().map_err(|_| HostError::InvalidName)?;
            let port = match rest.strip_prefix(':') {
                Some(port) => Some(parse_port(port)?),
                None if rest.is_empty() => None,
                None => return Err(HostError::InvalidName),
            };
            return Ok(Self { name: Cow::Owned(format!("[{address}]")), port, authority });
        }
        let (name, port) = match authority.split_once(':') {
            Some((name, port)) => (name, Some(parse_port(port)?)),
            None => (authority, None),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        if !is_name(name) {
            return Err(HostError::InvalidName);
        }
        let upper = name.bytes().any(|byte| byte.is_ascii_uppercase());
        let name = if upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) };
        Ok(Self { name, port, authority })
    }

    /// The name or address in canonical form, for matching; IPv6 in brackets.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The port, if one was written.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Host and port as received, for forwarding.
    pub fn authority(&self) -> &'r str {
        self.authority
    }

    /// Whether both are the same host and port, the scheme's port counting where none is written.
    pub fn agrees_with(&self, other: &Host<'_>, secure: bool) -> bool {
        let default = default_port(secure);
        self.name == other.name && self.port.unwrap_or(default) == other.port.unwrap_or(default)
    }
}

/// Strict binding of a request to its TLS connection (RFC 9110 §7.4): a handshake that named a host serves that
/// host only. Without a server name, as with addresses, nothing is bound.
pub fn check_server_name(head: &RequestHead<'_>, host: &Host<'_>) -> Result<(), HostError> {
    let Some(server_name) = head.server_name.filter(|_| head.secure) else { return Ok(()) };
    let server_name = server_name.strip_suffix('.').unwrap_or(server_name);
    if server_name.eq_ignore_ascii_case(host.as_str()) { Ok(()) } else { Err(HostError::Misdirected) }
}

/// The port that a scheme implies.
pub fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

fn parse_port(port: &str) -> Result<u16, HostError> {
    let digits = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = if digits { port.parse().unwrap_or(0) } else { 0 };
    if port == 0 { Err(HostError::InvalidPort) } else { Ok(port) }
}

fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    // A name that ends in a number is an address, and `127.1` or `0177.0.0.1` are not written as one.
    let ends_in_number = name.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    name.len() <= 253 && name.split('.').all(is_label) && (!ends_in_number || name.parse::<Ipv4Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Version};
    use proptest::prelude::*;

    use super::*;

    fn host(values: &[&str], authority: Option<&str>) -> Result<(String, Option<u16>), HostError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::HOST, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let mut head = RequestHead::new("GET", "/", &headers);
        if let Some(authority) = authority {
            head = head.authority(authority).version(Version::HTTP_2).secure(true);
        }
        Host::of(&head).map(|host| (host.as_str().to_owned(), host.port()))
    }

    #[test]
    fn a_host_has_one_spelling() {
        for (text, name, port) in [
            ("admin.example.com", "admin.example.com", None),
            ("ADMIN.Example.COM", "admin.example.com", None),
            ("admin.example.com.", "admin.example.com", None),
            ("admin.example.com:443", "admin.example.com", Some(443)),
            ("admin.example.com.:8443", "admin.example.com", Some(8443)),
            ("XN--BCHER-KVA.example", "xn--bcher-kva.example", None),
            ("127.0.0.1:8080", "127.0.0.1", Some(8080)),
            ("[::1]:8080", "[::1]", Some(8080)),
            ("[0:0::0:1]", "[::1]", None),
            ("items_api", "items_api", None),
            ("localhost", "localhost", None),
        ] {
            assert_eq!(host(&[text], None), Ok((name.to_owned(), port)), "{text}");
        }
    }

    #[test]
    fn hosts_outside_the_grammar_are_refused() {
        use HostError as E;
        for (text, error) in [
            ("", E::InvalidName),
            (".", E::InvalidName),
            ("a..b", E::InvalidName),
            (".a", E::InvalidName),
            ("a..", E::InvalidName),
            ("legit.com;for=10.0.0.1;proto=https", E::InvalidName),
            ("a,b", E::InvalidName),
            ("a b", E::InvalidName),
            ("a/b", E::InvalidName),
            ("a%2eb", E::InvalidName),
            ("bücher.example", E::InvalidName),
            ("127.1", E::InvalidName),
            ("0177.0.0.1", E::InvalidName),
            ("1.2.3.4.5", E::InvalidName),
            ("[::1", E::InvalidName),
            ("[::1]x", E::InvalidName),
            ("[fe80::1%25eth0]", E::InvalidName),
            ("::1", E::InvalidPort),
            ("a:", E::InvalidPort),
            ("a:0", E::InvalidPort),
            ("a:65536", E::InvalidPort),
            ("a:+80", E::InvalidPort),
            ("a:80:80", E::InvalidPort),
            ("good@evil", E::Userinfo),
        ] {
            assert_eq!(host(&[text], None), Err(error), "{text}");
            assert_eq!(error.status(), 400);
        }
    }

    #[test]
    fn a_request_has_exactly_one_host() {
        assert_eq!(host(&[], None), Err(HostError::Missing));
        assert_eq!(host(&["a", "a"], None), Err(HostError::Several));
        assert_eq!(host(&["a", "b"], None), Err(HostError::Several));
        assert_eq!(host(&[], Some("a")), Ok(("a".to_owned(), None)));
        assert_eq!(host(&["A:443"], Some("a")), Ok(("a".to_owned(), None)));
        assert_eq!(host(&["b"], Some("a")), Err(HostError::Mismatch));
        assert_eq!(host(&["a:80"], Some("a")), Err(HostError::Mismatch));
    }

    #[test]
    fn a_connection_serves_the_host_it_was_opened_for() {
        let headers = HeaderMap::new();
        let head = RequestHead::new("GET", "/", &headers).secure(true);
        let a = Host::parse("A.example:443").unwrap();
        assert_eq!(check_server_name(&head, &a), Ok(()));
        assert_eq!(check_server_name(&head.server_name("a.example"), &a), Ok(()));
        assert_eq!(check_server_name(&head.server_name("b.example"), &a), Err(HostError::Misdirected));
        assert_eq!(HostError::Misdirected.status(), 421);
    }

    proptest! {
        #[test]
        fn any_text_is_a_canonical_host_or_refused(text in "\\PC{0,20}|[a-zA-Z0-9.:\\[\\]@;%-]{0,20}") {
            if let Ok(host) = Host::parse(&text) {
                let again = Host::parse(host.as_str()).unwrap();
                prop_assert_eq!(again.as_str(), host.as_str());
                prop_assert!(!host.as_str().contains(|c: char| c.is_ascii_uppercase() || ";, \"@".contains(c)));
            }
        }
    }
}
