//! Who the client is when proxies stand before us, and what the upstream is told about it.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::BytesMut;
use http::header::{FORWARDED, HeaderName, HeaderValue};
use ipnet::{IpNet, Ipv4Net};
use smallvec::SmallVec;

use super::head::{Lookup, RequestHead};
use super::host::{Host, default_port};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Headers by which proxies tell where a request came from and what it asked for. All are removed from every
/// request; those of [`Origin::headers`] are written anew.
pub const REMOVED: &[&str] = &[
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-protocol",
    "x-forwarded-scheme",
    "x-forwarded-ssl",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-path",
    "x-forwarded-uri",
    "x-forwarded-method",
    "x-forwarded-server",
    "x-forwarded-by",
    "x-forwarded-user",
    "x-forwarded-groups",
    "x-forwarded-email",
    "x-forwarded-preferred-username",
    "x-forwarded-access-token",
    "x-forwarded-client-cert",
    "x-forwarded-tls-client-cert",
    "x-forwarded-tls-client-cert-info",
    "x-forwarded",
    "forwarded-for",
    "front-end-https",
    "proxy", // CGI makes it HTTP_PROXY, which HTTP clients obey (httpoxy, CVE-2016-5385)
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-forwarded-for",
    "x-original-host",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
    "x-script-name",
    "x-url-scheme",
    "client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "fastly-client-ip",
    "sb-forwarded-for",
];

/// An address of a client in its one form: IPv4 inside IPv6 is IPv4, and a zone is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientAddr(IpAddr);

impl ClientAddr {
    /// Brings an address into its one form.
    pub fn new(address: IpAddr) -> Self {
        Self(address.to_canonical())
    }

    /// The address.
    pub fn ip(self) -> IpAddr {
        self.0
    }

    /// Reads one entry of `X-Forwarded-For`: an address, perhaps with a port, brackets or a zone. Nothing else is
    /// an address: not `unknown`, not quotes, not leading zeros.
    pub fn parse(entry: &str) -> Option<Self> {
        let entry = entry.trim_matches([' ', '\t']);
        if let Some(rest) = entry.strip_prefix('[') {
            let (address, rest) = rest.split_once(']')?;
            return rest.strip_prefix(':').map_or(rest.is_empty(), is_port).then(|| parse_v6(address))?;
        }
        if let Ok(address) = entry.parse::<Ipv4Addr>() {
            return Some(Self::new(address.into()));
        }
        if let Some((address, port)) = entry.split_once(':').filter(|(_, port)| is_port(port)) {
            if let Ok(address) = address.parse::<Ipv4Addr>() {
                return Some(Self::new(address.into()));
            }
            // `1:2` is neither; IPv6 has more colons and is read below.
            if !address.is_empty() && !port.contains(':') {
                return None;
            }
        }
        parse_v6(entry)
    }
}

impl fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn parse_v6(text: &str) -> Option<ClientAddr> {
    let address = text.split_once('%').map_or(text, |(address, _zone)| address);
    address.parse::<Ipv6Addr>().ok().map(|address| ClientAddr::new(address.into()))
}

fn is_port(text: &str) -> bool {
    (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Why a list of trusted proxies is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustedProxiesError {
    /// A network that holds every address: whoever connects could then claim to be anyone.
    Everyone(String),
    /// Neither an address nor a CIDR.
    Invalid(String),
}

impl fmt::Display for TrustedProxiesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everyone(text) => write!(f, "`{text}` trusts every address"),
            Self::Invalid(text) => write!(f, "`{text}` is neither an address nor a network"),
        }
    }
}

impl std::error::Error for TrustedProxiesError {}

/// The peers whose `X-Forwarded-*` headers are believed. By default none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Whether nobody is believed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// From addresses and CIDRs.
    pub fn parse<'a>(networks: impl IntoIterator<Item = &'a str>) -> Result<Self, TrustedProxiesError> {
        networks.into_iter().map(parse_network).collect::<Result<_, _>>().map(Self)
    }

    /// Whether an address is one of theirs.
    pub fn contains(&self, address: ClientAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address.0))
    }
}

fn parse_network(text: &str) -> Result<IpNet, TrustedProxiesError> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let network = network.map_err(|_| TrustedProxiesError::Invalid(text.to_owned()))?;
    // Client addresses are canonical, so networks of mapped addresses must be, too.
    let network = match network {
        IpNet::V6(v6) => match (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
            (Some(v4), Some(prefix)) => Ipv4Net::new(v4, prefix).map_or(network, IpNet::from),
            _ => network,
        },
        IpNet::V4(_) => network,
    };
    if network.prefix_len() == 0 {
        return Err(TrustedProxiesError::Everyone(text.to_owned()));
    }
    Ok(network)
}

/// Where a request came from, as far as it can be believed.
#[derive(Clone, Debug)]
pub struct Origin<'r> {
    /// The client, then each trusted proxy up to the peer.
    chain: SmallVec<[ClientAddr; 2]>,
    client: ClientAddr,
    secure: bool,
    host: Host<'r>,
}

impl<'r> Origin<'r> {
    /// Believes `X-Forwarded-For`, `-Proto` and `-Host` if the peer is trusted, else the connection alone.
    ///
    /// The client is the first address from the right that is not a trusted proxy's. What is not an address ends
    /// the search: whatever stands left of it was written by nobody we know.
    pub fn of(head: &RequestHead<'r>, host: &Host<'r>, trusted: &TrustedProxies) -> Self {
        let peer = ClientAddr::new(head.peer);
        let mut origin =
            Self { chain: SmallVec::from_slice(&[peer]), client: peer, secure: head.secure, host: host.clone() };
        if !trusted.contains(peer) {
            return origin;
        }
        for entry in forwarded_for(head).map_while(|entry| entry.and_then(ClientAddr::parse)) {
            origin.chain.push(entry);
            origin.client = entry;
            if !trusted.contains(entry) {
                break;
            }
        }
        origin.chain.reverse();
        if let Lookup::One(scheme) = head.header(PROTO.as_str()) {
            origin.secure = match scheme {
                "https" | "wss" => true,
                "http" | "ws" => false,
                _ => head.secure,
            };
        }
        if let Some(host) = head.header(HOST.as_str()).one().and_then(|host| Host::parse(host).ok()) {
            origin.host = host;
        }
        origin
    }

    /// The client's address.
    pub fn client(&self) -> ClientAddr {
        self.client
    }

    /// Whether the client's own connection is encrypted.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// The host that the client asked for. Routing does not use it: an app is chosen by the request's own host.
    pub fn host(&self) -> &Host<'r> {
        &self.host
    }

    /// The headers that tell the upstream. `X-Forwarded-For` begins with the client: frameworks that read the
    /// leftmost address and those that read the rightmost untrusted one find the same.
    pub fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let host = self.host.authority();
        let port = self.host.port().unwrap_or_else(|| default_port(self.secure));
        // All values are slices of one text.
        let mut text = BytesMut::with_capacity(2 * host.len() + 128);
        let client = value(&mut text, format_args!("{}", self.client));
        let chain = match self.chain.as_slice() {
            [_] => client.clone(),
            chain => {
                let chain = chain.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                value(&mut text, format_args!("{chain}"))
            }
        };
        let forwarded = {
            // RFC 7239 §6: with colons it is quoted.
            let (open, close) = if self.client.ip().is_ipv6() { ("\"[", "]\"") } else { ("", "") };
            text.extend_from_slice(b"for=");
            text.extend_from_slice(open.as_bytes());
            text.extend_from_slice(client.as_ref().map_or(b"", HeaderValue::as_bytes));
            text.extend_from_slice(close.as_bytes());
            // INVARIANT: Host::parse admits neither quotes nor backslashes, so this is a quoted-string.
            text.extend_from_slice(b";host=\"");
            text.extend_from_slice(host.as_bytes());
            text.extend_from_slice(b"\";proto=");
            value(&mut text, format_args!("{}", self.scheme()))
        };
        let mut headers = Vec::with_capacity(6);
        headers.extend(chain.map(|chain| (FOR, chain)));
        headers.push((PROTO, HeaderValue::from_static(self.scheme())));
        headers.extend(value(&mut text, format_args!("{host}")).map(|host| (HOST, host)));
        headers.push((PORT, HeaderValue::from(port)));
        headers.extend(client.map(|client| (REAL_IP, client)));
        headers.extend(forwarded.map(|forwarded| (FORWARDED, forwarded)));
        headers
    }
}

/// Ends a value with `end` and splits it off. INVARIANT: addresses and hosts are visible ASCII, so there is one.
fn value(text: &mut BytesMut, end: fmt::Arguments<'_>) -> Option<HeaderValue> {
    text.write_fmt(end).ok()?;
    HeaderValue::from_maybe_shared(text.split().freeze()).ok()
}

/// The entries of `X-Forwarded-For` from the right; `None` for a line that is not text.
fn forwarded_for<'r>(head: &RequestHead<'r>) -> impl Iterator<Item = Option<&'r str>> {
    let headers = head.headers;
    headers.get_all(FOR).iter().rev().flat_map(|value| {
        let text = std::str::from_utf8(value.as_bytes()).ok();
        let entries = text.map(|text| text.rsplit(',').map(Some));
        let unreadable = text.is_none().then_some(None);
        entries.into_iter().flatten().chain(unreadable)
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use proptest::prelude::*;

    use super::*;

    fn trusted() -> TrustedProxies {
        TrustedProxies::parse(["10.0.0.0/8", "2001:db8::/32", "192.0.2.1"]).unwrap()
    }

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn client(peer: &str, forwarded_for: &[&'static str]) -> String {
        let fields: Vec<_> = forwarded_for.iter().map(|value| ("x-forwarded-for", *value)).collect();
        let headers = headers(&fields);
        let head = RequestHead::new("GET", "/", &headers).peer(peer.parse().unwrap());
        Origin::of(&head, &Host::parse("a.example").unwrap(), &trusted()).client().to_string()
    }

    #[test]
    fn the_client_is_the_first_untrusted_address_from_the_right() {
        for (peer, forwarded_for, expected) in [
            ("198.51.100.7", &["203.0.113.9"][..], "198.51.100.7"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("::ffff:10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["::ffff:203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["1.1.1.1,203.0.113.9 ,10.1.1.1,\t192.0.2.1"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9", "10.1.1.1"], "203.0.113.9"),
            ("10.0.0.1", &["10.2.2.2, 10.1.1.1"], "10.2.2.2"),
            ("10.0.0.1", &["203.0.113.9:4711"], "203.0.113.9"),
            ("10.0.0.1", &["[2001:db9::1]:4711"], "2001:db9::1"),
            ("10.0.0.1", &["2001:db9::1"], "2001:db9::1"),
            ("10.0.0.1", &["fe80::1%eth0"], "fe80::1"),
            ("10.0.0.1", &["203.0.113.9, [2001:db8::1%25eth0]"], "203.0.113.9"),
            // What is no address ends the search at the last proxy that is known.
            ("10.0.0.1", &["203.0.113.9, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9, _hidden, 10.1.1.1"], "10.1.1.1"),
            ("10.0.0.1", &["\"203.0.113.9, 10.1.1.1\""], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9, "], "10.0.0.1"),
            ("10.0.0.1", &["010.0.0.1"], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9:x"], "10.0.0.1"),
        ] {
            assert_eq!(client(peer, forwarded_for), expected, "{peer} {forwarded_for:?}");
        }
    }

    fn told(peer: &str, secure: bool, fields: &[(&'static str, &'static str)]) -> Vec<String> {
        let headers = headers(fields);
        let head = RequestHead::new("GET", "/", &headers).peer(peer.parse().unwrap()).secure(secure);
        let origin = Origin::of(&head, &Host::parse("api.example:8080").unwrap(), &trusted());
        origin.headers().into_iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    #[test]
    fn an_untrusted_peer_cannot_tell_the_upstream_anything() {
        let claims = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.example"),
            ("forwarded", "for=1.1.1.1"),
        ];
        assert_eq!(
            told("203.0.113.9", false, &claims),
            [
                "x-forwarded-for: 203.0.113.9",
                "x-forwarded-proto: http",
                "x-forwarded-host: api.example:8080",
                "x-forwarded-port: 8080",
                "x-real-ip: 203.0.113.9",
                "forwarded: for=203.0.113.9;host=\"api.example:8080\";proto=http",
            ]
        );
    }

    #[test]
    fn a_trusted_peer_tells_scheme_host_and_the_believed_part_of_the_chain() {
        let claims = [
            ("x-forwarded-for", "1.1.1.1, 2001:db9::1, 10.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop.example"),
        ];
        assert_eq!(
            told("10.0.0.1", false, &claims),
            [
                "x-forwarded-for: 2001:db9::1, 10.1.1.1, 10.0.0.1",
                "x-forwarded-proto: https",
                "x-forwarded-host: shop.example",
                "x-forwarded-port: 443",
                "x-real-ip: 2001:db9::1",
                "forwarded: for=\"[2001:db9::1]\";host=\"shop.example\";proto=https",
            ]
        );
        let unclear = [("x-forwarded-proto", "http"), ("x-forwarded-proto", "http"), ("x-forwarded-host", "a;b")];
        let told = told("10.0.0.1", true, &unclear);
        assert!(told.contains(&"x-forwarded-proto: https".to_owned()), "{told:?}");
        assert!(told.contains(&"x-forwarded-host: api.example:8080".to_owned()), "{told:?}");
    }

    #[test]
    fn no_list_trusts_everyone() {
        for text in ["0.0.0.0/0", "::/0", "::ffff:0:0/96", "10.0.0.0/0"] {
            let error = TrustedProxies::parse([text]);
            assert_eq!(error, Err(TrustedProxiesError::Everyone(text.to_owned())));
        }
        assert!(matches!(TrustedProxies::parse(["10.0.0.0/33"]), Err(TrustedProxiesError::Invalid(_))));
        let mapped = TrustedProxies::parse(["::ffff:10.0.0.0/104"]).unwrap();
        assert!(mapped.contains(ClientAddr::new("10.1.2.3".parse().unwrap())));
        assert!(!TrustedProxies::default().contains(ClientAddr::new("127.0.0.1".parse().unwrap())));
    }

    proptest! {
        #[test]
        fn any_claim_is_read_without_panic(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut headers = HeaderMap::new();
                headers.append(FOR, value.clone());
                headers.append(PROTO, value.clone());
                headers.append(HOST, value);
                let head = RequestHead::new("GET", "/", &headers).peer("10.0.0.1".parse().unwrap());
                let origin = Origin::of(&head, &Host::parse("a").unwrap(), &trusted());
                prop_assert_eq!(origin.headers().len(), 6);
            }
        }
    }
}
