//! Small grammars: durations, sizes, names, hosts, URLs, header names. Pure functions over texts.

use std::time::Duration;

/// `90s`, `10m`, `2h`, `30d`.
pub fn duration(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let digits = text.strip_suffix(unit)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    // A century is more than anybody means, and far from any overflow.
    let total = number(digits)?.checked_mul(seconds)?;
    (total <= 100 * 366 * 86_400).then(|| Duration::from_secs(total))
}

/// `10MiB`, `64KiB`, `10MB`, `512B`; in bytes.
pub fn size(text: &str) -> Option<u64> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at_checked(at)?;
    let factor = match unit {
        "B" => 1,
        "KB" | "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number(digits)?.checked_mul(factor)
}

/// Digits alone: no sign, no blanks.
pub fn number(digits: &str) -> Option<u64> {
    let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| digits.parse().ok()).flatten()
}

/// `[A-Za-z][A-Za-z0-9_.:-]{0,63}`.
pub fn is_name(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte))
}

/// 1–128 printable characters.
pub fn is_role_name(text: &str) -> bool {
    let count = text.chars().count();
    (1..=128).contains(&count) && text.trim() == text && !text.chars().any(char::is_control)
}

/// An RFC 6749 scope token without an empty part between colons.
pub fn is_scope_name(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
        && text.len() <= 256
        && text.split(':').all(|part| !part.is_empty())
}

/// An environment variable's name.
pub fn is_variable_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A `token` of RFC 9110.
pub fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 256
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Whether an app may answer on this host: a name, an address, or `*.suffix`.
pub fn is_host(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    if let Some(address) = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        return name == text && address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let Ok(ascii) = idna::domain_to_ascii(name) else { return false };
    !ascii.is_empty()
        && ascii.len() <= 253
        && ascii.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        })
}

/// Whether what is fetched from a URL cannot be changed on the way: `https`, or `http` on the machine itself.
pub fn is_private(url: &str) -> bool {
    let local = ["http://localhost", "http://127.0.0.1", "http://[::1]"];
    let is_local =
        |prefix: &str| url.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']));
    url.starts_with("https://") || local.into_iter().any(is_local)
}

/// What is wrong with a URL of `http` or `https` with nothing but scheme, host and port (and a path, where
/// one is `allowed`).
pub fn url_fault(text: &str, path_allowed: bool) -> Option<&'static str> {
    let Ok(uri) = text.parse::<http::Uri>() else { return Some("not a URL") };
    let Some(authority) = uri.authority() else { return Some("begins with `http://` or `https://`") };
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Some("begins with `http://` or `https://`");
    }
    if authority.as_str().contains('@') {
        return Some("holds a user name or password");
    }
    if authority.host().is_empty() || !is_host(authority.host()) || authority.host().starts_with('*') {
        return Some("bad host");
    }
    let behind_host = authority.as_str().strip_prefix(authority.host()).unwrap_or("");
    if behind_host.strip_prefix(':').is_some_and(|port| number(port).is_none_or(|port| !(1..=65_535).contains(&port))) {
        return Some("bad port");
    }
    let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
    (!path_allowed && !bare).then_some("has a path")
}

/// What is wrong with a CORS origin.
pub fn origin_fault(text: &str) -> Option<&'static str> {
    if text == "*" {
        return None;
    }
    if text == "null" {
        return Some("`null` is the origin of sandboxed pages of anybody");
    }
    if text.contains('*') {
        return Some("`*` stands alone");
    }
    if let Some(fault) = url_fault(text, false) {
        return Some(fault);
    }
    let lower = !text.chars().any(|c| c.is_ascii_uppercase());
    if text.ends_with('/') {
        return Some("browsers send no slash at the end");
    }
    if !lower {
        return Some("browsers send lower case");
    }
    None
}

/// The methods of a route that need no registration elsewhere.
pub const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// The other registered methods (IANA), which must be named. `CONNECT`, `TRACE` and `PRI` are never served.
pub const OTHER_METHODS: &[&str] = &[
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "COPY",
    "LABEL",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "ORDERPATCH",
    "PROPFIND",
    "PROPPATCH",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
];

#[cfg(test)]
mod tests {
    use super::{duration, is_host, is_name, is_role_name, is_scope_name, origin_fault, size, url_fault};

    #[test]
    fn durations_and_sizes_have_one_unit() {
        for (text, seconds) in [
            ("90s", Some(90)),
            ("10m", Some(600)),
            ("2h", Some(7200)),
            ("30d", Some(2_592_000)),
            ("0s", Some(0)),
            ("10", None),
            ("s", None),
            ("-1s", None),
            ("1.5h", None),
            ("1h30m", None),
            ("10 m", None),
            ("10M", None),
            ("99999999999999999999d", None),
            ("9999999d", None),
            ("", None),
            ("٣s", None),
        ] {
            assert_eq!(duration(text).map(|d| d.as_secs()), seconds, "{text}");
        }
        for (text, bytes) in [
            ("10MiB", Some(10_485_760)),
            ("10MB", Some(10_000_000)),
            ("64KiB", Some(65_536)),
            ("0B", Some(0)),
            ("10", None),
            ("MiB", None),
            ("10mib", None),
            ("10 MiB", None),
            ("99999999999GiB", None),
            ("", None),
        ] {
            assert_eq!(size(text), bytes, "{text}");
        }
    }

    #[test]
    fn names_follow_their_grammars() {
        assert!(is_name("a.b:c-d_1") && !is_name("1a") && !is_name("") && !is_name("a b") && !is_name(&"a".repeat(65)));
        assert!(is_role_name("former admin") && is_role_name("a/b") && !is_role_name(" a") && !is_role_name("a\nb"));
        assert!(is_scope_name("items:read") && is_scope_name("a.b/c") && is_scope_name("https://x/y"));
        assert!(!is_scope_name("items:") && !is_scope_name(":a") && !is_scope_name("a::b") && !is_scope_name("a b"));
        assert!(!is_scope_name("") && !is_scope_name("a\"b") && !is_scope_name("ä"));
    }

    #[test]
    fn hosts_urls_and_origins_are_checked() {
        for good in ["api.example.com", "*.example.com", "localhost", "127.0.0.1", "bücher.example", "a_b", "[::1]"] {
            assert!(is_host(good), "{good}");
        }
        for bad in ["", "*", "a.*.b", "http://a", "a:80", "a/b", "-a", "a..b", "*.", "a b", "`a`", "a\nb", "*.[::1]"] {
            assert!(!is_host(bad), "{bad:?}");
        }
        for (url, fault) in [
            ("http://localhost:8000", None),
            ("https://a.example", None),
            ("https://a.example/", None),
            ("http://[::1]:80", None),
            ("https://a/b", Some("has a path")),
            ("a.example", Some("begins with `http://` or `https://`")),
            ("ftp://a", Some("begins with `http://` or `https://`")),
            ("http://u:p@a", Some("holds a user name or password")),
            ("http://a:99999", Some("bad port")),
            ("http://", Some("not a URL")),
            ("http://a?b", Some("has a path")),
        ] {
            assert_eq!(url_fault(url, false), fault, "{url}");
        }
        assert_eq!(url_fault("https://a/b", true), None);
        for (origin, good) in [
            ("https://app.example", true),
            ("http://localhost:3000", true),
            ("*", true),
            ("null", false),
            ("https://app.example/", false),
            ("https://*.example", false),
            ("app.example", false),
            ("https://App.example", false),
        ] {
            assert_eq!(origin_fault(origin).is_none(), good, "{origin}");
        }
    }
}
