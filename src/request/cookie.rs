//! Cookies: finding one by its exact name, and removing some without touching the others.

use http::header::{COOKIE, HeaderMap, HeaderValue};

refusals! {
    /// Why the cookies of a request are refused.
    CookieError {
        /// A `Cookie` header that is not text.
        NotText: BAD_REQUEST, "cookie_not_text", "a cookie contains bytes that are not text";
        /// One name with several values: a sub-domain or a network attacker may have added one (cookie tossing).
        Several: BAD_REQUEST, "cookie_repeated", "a cookie was sent with several different values";
    }
}

/// The value of a cookie. Names are exact; the same value twice is one. HTTP/2 may send one field for each cookie.
pub fn find<'r>(headers: &'r HeaderMap, name: &str) -> Result<Option<&'r str>, CookieError> {
    let mut found = None;
    for field in headers.get_all(COOKIE) {
        for pair in field.as_bytes().split(|byte| *byte == b';') {
            let Some(value) = value_of(pair, name) else { continue };
            let value = std::str::from_utf8(value).map_err(|_| CookieError::NotText)?;
            if found.replace(value).is_some_and(|earlier| earlier != value) {
                return Err(CookieError::Several);
            }
        }
    }
    Ok(found)
}

/// The one `Cookie` header to forward: all fields joined as RFC 9113 §8.2.3 says, without the cookies named. The
/// bytes of the others stay as they were. `None` if nothing is left.
pub fn without(headers: &HeaderMap, names: &[&str]) -> Option<HeaderValue> {
    let is_named = |pair: &[u8]| names.iter().any(|name| value_of(pair, name).is_some());
    let mut fields = headers.get_all(COOKIE).iter();
    if let (Some(only), None) = (fields.next(), fields.next())
        && !only.as_bytes().split(|byte| *byte == b';').any(is_named)
    {
        return Some(only.clone());
    }
    let mut joined: Vec<u8> = Vec::new();
    for field in headers.get_all(COOKIE) {
        let mut first = true;
        for pair in field.as_bytes().split(|byte| *byte == b';').filter(|pair| !is_named(pair)) {
            // A separator between fields is ours; within a field a pair brings its own space.
            if joined.is_empty() {
                joined.extend_from_slice(pair.trim_ascii_start());
            } else if first {
                joined.extend_from_slice(b"; ");
                joined.extend_from_slice(pair.trim_ascii_start());
            } else {
                joined.push(b';');
                joined.extend_from_slice(pair);
            }
            first = false;
        }
    }
    if joined.is_empty() { None } else { HeaderValue::from_bytes(&joined).ok() }
}

/// The value, if this pair is the cookie `name`.
fn value_of<'p>(pair: &'p [u8], name: &str) -> Option<&'p [u8]> {
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    let (key, value) = pair.split_at_checked(equals)?;
    (key.trim_ascii() == name.as_bytes()).then(|| value.strip_prefix(b"=").unwrap_or(value).trim_ascii())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cookies(fields: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(COOKIE, HeaderValue::from_static(field));
        }
        headers
    }

    #[test]
    fn a_cookie_is_found_by_its_exact_name() {
        for (fields, expected) in [
            (&["a=1; __Host-session=x; b=2"][..], Ok(Some("x"))),
            (&["a=1", "__Host-session=x", "b=2"], Ok(Some("x"))),
            (&["__Host-session=x=y=="], Ok(Some("x=y=="))),
            (&["__Host-session=x;a=1"], Ok(Some("x"))),
            (&["__Host-session="], Ok(Some(""))),
            (&["__Host-session=x; __Host-session=x"], Ok(Some("x"))),
            (&["__Host-session=\"x\""], Ok(Some("\"x\""))),
            (&["__host-session=x"], Ok(None)),
            (&["my__Host-session=x; __Host-session2=x"], Ok(None)),
            (&["__Host-session"], Ok(None)),
            (&["a=__Host-session=x"], Ok(None)),
            (&[], Ok(None)),
            (&["__Host-session=x; __Host-session=y"], Err(CookieError::Several)),
            (&["__Host-session=x", "a=1; __Host-session=y"], Err(CookieError::Several)),
            (&["__Host-session=x; __Host-session="], Err(CookieError::Several)),
        ] {
            assert_eq!(find(&cookies(fields), "__Host-session"), expected, "{fields:?}");
        }
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_bytes(b"s=\xff").unwrap());
        assert_eq!(find(&headers, "s"), Err(CookieError::NotText));
        assert_eq!(find(&headers, "t"), Ok(None));
    }

    #[test]
    fn removing_a_cookie_leaves_the_others_as_they_were() {
        for (fields, expected) in [
            (&["a=1; s=x; b=2"][..], Some("a=1; b=2")),
            (&["s=x; a=1;b=\"2\" ;  c"], Some("a=1;b=\"2\" ;  c")),
            (&["a=1;  b=2"], Some("a=1;  b=2")),
            (&["a=1; s=x"], Some("a=1")),
            (&["s=x"], None),
            (&["s=x; s=y"], None),
            (&["a=1", "b=2", "c=3"], Some("a=1; b=2; c=3")),
            (&["a=1", "s=x", "c=3"], Some("a=1; c=3")),
            (&["S=x; ss=y"], Some("S=x; ss=y")),
            (&[], None),
        ] {
            let left = without(&cookies(fields), &["s"]);
            assert_eq!(left.as_ref().map(|value| value.to_str().unwrap()), expected, "{fields:?}");
        }
    }

    proptest! {
        #[test]
        fn a_removed_cookie_is_gone_and_others_are_still_found(text in "[ abs=;\"]{0,30}") {
            let mut headers = HeaderMap::new();
            headers.append(COOKIE, HeaderValue::from_str(&text).unwrap());
            let mut left = HeaderMap::new();
            if let Some(value) = without(&headers, &["s"]) {
                left.append(COOKIE, value);
            }
            prop_assert_eq!(find(&left, "s"), Ok(None));
            prop_assert_eq!(find(&left, "a"), find(&headers, "a"));
        }
    }
}
