//! Who may use the admin listener.
//!
//! A web page that a developer visits can send requests to loopback: across sites (the browser says so in
//! `Origin` or `Sec-Fetch-Site`), or by DNS rebinding, where its own name resolves to 127.0.0.1 (the `Host` is
//! that name). Both are refused.

use http::HeaderMap;
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use subtle::ConstantTimeEq as _;

use super::{Admin, Refusal, Resource};

pub(super) fn check(admin: &Admin, resource: Resource, headers: &HeaderMap) -> Result<(), Refusal> {
    if matches!(resource, Resource::Live | Resource::Ready) {
        return Ok(());
    }
    let loopback = admin.address.ip().is_loopback();
    if loopback && !headers.get(HOST).is_some_and(|host| is_own(host.as_bytes())) {
        return Err(Refusal::Origin("the host is not this machine"));
    }
    if is_cross_site(headers) {
        return Err(Refusal::Origin("the request comes from another site"));
    }
    if matches!(resource, Resource::Metrics) {
        return Ok(());
    }
    match &admin.token {
        Some(token) if !is_bearer(headers, token.expose()) => Err(Refusal::Token),
        None if !loopback => Err(Refusal::Origin("set `admin.token` to use this beyond loopback")),
        _ => Ok(()),
    }
}

/// `localhost`, or an address: names other than that may belong to anybody.
fn is_own(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inside, port)) => return inside.parse::<std::net::Ipv6Addr>().is_ok() && is_port(port),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::Ipv4Addr>().is_ok()
}

fn is_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_cross_site(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site")
        && site != "same-origin"
        && site != "none"
    {
        return true;
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let (Ok(origin), Some(Ok(host))) = (origin.to_str(), headers.get(HOST).map(|host| host.to_str())) else {
        return true;
    };
    origin.split_once("://").is_none_or(|(_, authority)| !authority.eq_ignore_ascii_case(host))
}

fn is_bearer(headers: &HeaderMap, token: &str) -> bool {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let Some((scheme, credential)) = value.to_str().ok().and_then(|value| value.split_once(' ')) else { return false };
    scheme.eq_ignore_ascii_case("bearer") && bool::from(credential.as_bytes().ct_eq(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_this_machine() {
        for (host, own) in [
            ("127.0.0.1:9901", true),
            ("localhost", true),
            ("LOCALHOST:9901", true),
            ("[::1]:9901", true),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example:9901", false),
            ("[::1]evil", false),
            ("", false),
        ] {
            assert_eq!(is_own(host.as_bytes()), own, "{host}");
        }
    }
}
