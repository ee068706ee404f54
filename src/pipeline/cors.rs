//! Cross-origin requests of browsers (Fetch standard): preflights are answered here, answers are marked.
//!
//! Origins are compared byte for byte. `null` never matches, a suffix or another scheme neither, and `*`
//! never goes together with credentials.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ORIGIN, VARY,
};
use http::{HeaderName, HeaderValue};

use crate::policy::set::Cors;
use crate::request::head::RequestHead;
use crate::response::Response;

/// The fields of ours: an upstream's own are removed where the app has `cors`.
pub const OURS: [HeaderName; 3] =
    [ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_EXPOSE_HEADERS];

/// The fields of preflights, which a part of Supabase also sets on ordinary answers.
pub const OF_PREFLIGHTS: [HeaderName; 4] = [
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
    HeaderName::from_static("access-control-allow-private-network"),
];

/// The origin that a request names, if the app lets it read answers.
pub fn allowed_origin<'r>(cors: &Cors, head: &RequestHead<'r>) -> Option<&'r str> {
    let origin = head.header(ORIGIN.as_str()).one()?;
    let listed = cors.origins.iter().any(|allowed| **allowed == *origin);
    (origin != "null" && (listed || cors.any_origin)).then_some(origin)
}

/// Answers a preflight. `allow` has the methods of the requested path.
pub fn preflight<'m>(cors: &Cors, head: &RequestHead<'_>, allow: impl IntoIterator<Item = &'m str>) -> Response {
    let mut response = Response::new(204).with(VARY, HeaderValue::from_static("origin, access-control-request-method"));
    let Some(origin) = allowed_origin(cors, head) else { return response };
    mark(cors, origin, |name, value| {
        if name != VARY && name != ACCESS_CONTROL_EXPOSE_HEADERS {
            response.headers.insert(name, value);
        }
    });
    let methods = if cors.methods.is_empty() { join(allow) } else { join(cors.methods.iter().map(AsRef::as_ref)) };
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_METHODS, methods),
        (ACCESS_CONTROL_ALLOW_HEADERS, join(cors.headers.iter().map(AsRef::as_ref))),
        (ACCESS_CONTROL_MAX_AGE, cors.max_age.as_secs().to_string()),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers.insert(name, value);
        }
    }
    response
}

/// The fields that let `origin` read an answer. Call it only with an [`allowed_origin`].
pub fn mark(cors: &Cors, origin: &str, mut set: impl FnMut(HeaderName, HeaderValue)) {
    let any = cors.any_origin && !cors.credentials;
    let Ok(value) = HeaderValue::from_str(if any { "*" } else { origin }) else { return };
    set(ACCESS_CONTROL_ALLOW_ORIGIN, value);
    if !any {
        set(VARY, HeaderValue::from_static("origin"));
    }
    if cors.credentials {
        set(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    if !cors.expose.is_empty()
        && let Ok(value) = HeaderValue::from_str(&join(cors.expose.iter().map(AsRef::as_ref)))
    {
        set(ACCESS_CONTROL_EXPOSE_HEADERS, value);
    }
}

fn join<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let mut joined = String::new();
    for word in words {
        if !joined.is_empty() {
            joined.push_str(", ");
        }
        joined.push_str(word);
    }
    joined
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderMap;

    use super::*;

    fn cors(origins: &[&str], credentials: bool) -> Cors {
        Cors {
            any_origin: origins.contains(&"*"),
            origins: origins.iter().map(|origin| (*origin).into()).collect(),
            methods: Vec::new(),
            headers: vec!["authorization".into(), "content-type".into()],
            expose: vec!["x-total".into()],
            credentials,
            max_age: Duration::from_secs(600),
        }
    }

    /// B11
    #[test]
    fn only_a_listed_origin_is_answered_and_byte_for_byte() {
        let check = |cors: &Cors, origin: &str| {
            let headers = HeaderMap::from_iter([(ORIGIN, HeaderValue::from_str(origin).unwrap())]);
            allowed_origin(cors, &RequestHead::new("GET", "/", &headers)).is_some()
        };
        let listed = cors(&["https://good.example"], true);
        assert!(check(&listed, "https://good.example"));
        for origin in [
            "null",
            "http://good.example",
            "https://good.example.evil.com",
            "https://evilgood.example",
            "https://good.example:8443",
            "https://GOOD.example",
            "https://good.example/",
            "",
        ] {
            assert!(!check(&listed, origin), "{origin}");
        }
        assert!(check(&cors(&["*"], false), "https://any.example"));
        assert!(!check(&cors(&["*"], false), "null"));
        assert!(!check(&cors(&["null"], false), "null"));
    }

    #[test]
    fn a_preflight_names_methods_headers_and_age() {
        let headers = HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static("https://good.example"))]);
        let head = RequestHead::new("OPTIONS", "/", &headers);
        let response = preflight(&cors(&["https://good.example"], true), &head, ["GET", "HEAD"]);
        assert_eq!(response.status, 204);
        assert_eq!(response.headers[ACCESS_CONTROL_ALLOW_ORIGIN], "https://good.example");
        assert_eq!(response.headers[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        assert_eq!(response.headers[ACCESS_CONTROL_ALLOW_METHODS], "GET, HEAD");
        assert_eq!(response.headers[ACCESS_CONTROL_ALLOW_HEADERS], "authorization, content-type");
        assert_eq!(response.headers[ACCESS_CONTROL_MAX_AGE], "600");
        let foreign = preflight(&cors(&["https://other.example"], true), &head, ["GET"]);
        assert!(!foreign.headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
    }
}
