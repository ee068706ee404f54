//! URLs that a provider names: read strictly, and never made to lead elsewhere.

use http::Uri;

/// A URL of another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    uri: Uri,
    is_https: bool,
}

impl Url {
    /// Reads an absolute `https` or `http` URL without user information and fragment.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let plain = |byte: u8| matches!(byte, 0x21..=0x7e) && !br##""#<>\^`{|}"##.contains(&byte);
        if text.len() > 2048 || !text.bytes().all(plain) {
            return None;
        }
        let uri: Uri = text.parse().ok()?;
        let is_https = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority()?.as_str();
        let empty = uri.host().is_none_or(str::is_empty);
        (!empty && !authority.contains('@')).then_some(Self { uri, is_https })
    }

    /// Whether the connection is encrypted.
    pub(super) fn is_https(&self) -> bool {
        self.is_https
    }

    fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }

    /// Whether both are on one host: the port may be another, the name may not.
    pub(super) fn is_on_host_of(&self, other: &Self) -> bool {
        self.host().eq_ignore_ascii_case(other.host())
    }

    /// Whether the host is a public name at the usual port: no address, nothing of an inner network.
    pub(super) fn is_public_name(&self) -> bool {
        let host = self.host().trim_end_matches('.').to_ascii_lowercase();
        let labels: Vec<&str> = host.split('.').collect();
        let last = labels.last().copied().unwrap_or_default();
        let inner = ["local", "localhost", "internal", "lan", "home", "corp", "intranet", "localdomain", "arpa"];
        let is_name = labels.len() > 1
            && labels.iter().all(|label| !label.is_empty())
            && last.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-')
            || last.starts_with("xn--");
        is_name && !inner.contains(&last) && matches!(self.uri.port_u16(), None | Some(443))
    }
}

/// A URL with parameters added to its query.
pub(super) fn with_query(url: &str, parameters: &[(&str, &str)]) -> String {
    let joint = match url.split_once('?') {
        None => "?",
        Some((_, query)) if query.is_empty() || query.ends_with('&') => "",
        Some(_) => "&",
    };
    format!("{url}{joint}{}", form(parameters))
}

/// Parameters in the form of `application/x-www-form-urlencoded`.
pub(super) fn form(parameters: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_web_addresses_are_urls() {
        for good in ["https://a.example", "http://127.0.0.1:9/x?y=z", "https://[::1]/", "HTTPS://A.example/%20"] {
            assert!(Url::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "a.example",
            "/path",
            "file:///etc/passwd",
            "ftp://a.example/",
            "javascript:alert(1)",
            "https://",
            "https:///x",
            "https://user@a.example/",
            "https://a.example@b.example/",
            "https://a.example/#fragment",
            "https://a.example/\\b",
            "https://a.example/ b",
            "https://a.example/\n",
            "https://ä.example/",
        ] {
            assert!(Url::parse(bad).is_none(), "{bad}");
        }
        assert!(Url::parse(&format!("https://a.example/{}", "x".repeat(2048))).is_none());
    }

    #[test]
    fn public_names_are_told_from_addresses_and_inner_names() {
        for (url, expected) in [
            ("https://oauth2.googleapis.com/token", true),
            ("https://oauth2.googleapis.com:443/token", true),
            ("https://a.xn--p1ai/", true),
            ("https://oauth2.googleapis.com:8443/token", false),
            ("https://169.254.169.254/latest", false),
            ("https://2852039166/", false),
            ("https://0x7f.1/", false),
            ("https://[::1]/", false),
            ("https://localhost/", false),
            ("https://metadata.google.internal/", false),
            ("https://printer.local/", false),
            ("https://redis/", false),
            ("https://a..example/", false),
        ] {
            assert_eq!(Url::parse(url).is_some_and(|url| url.is_public_name()), expected, "{url}");
        }
    }

    #[test]
    fn parameters_are_added_to_whatever_query_there_is() {
        for (url, expected) in [
            ("https://a/x", "https://a/x?b=c+d%26"),
            ("https://a/x?", "https://a/x?b=c+d%26"),
            ("https://a/x?p=q", "https://a/x?p=q&b=c+d%26"),
        ] {
            assert_eq!(with_query(url, &[("b", "c d&")]), expected);
        }
    }
}
