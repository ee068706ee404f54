//! Cookies: finding one by its exact name, whole or in pieces, and removing some without touching the others.

use std::borrow::Cow;

use http::header::{COOKIE, HeaderMap, HeaderValue};
use smallvec::SmallVec;

/// The most bytes that the pieces of one cookie may have together …
const MOST: usize = 64 * 1024;
/// … and the most pieces.
const PIECES: usize = 20;

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

/// The value of a cookie that is cut into pieces where it is long, as `@supabase/ssr` does: `name` itself, unless it is
/// empty; else `name.0`, `name.1`, … up to the first gap, joined. More than 20 pieces or 64 KiB count as nothing.
pub fn find_in_pieces<'r>(headers: &'r HeaderMap, name: &str) -> Result<Option<Cow<'r, str>>, CookieError> {
    let mut whole: Option<&str> = None;
    let mut pieces: SmallVec<[Option<&str>; 4]> = SmallVec::new();
    let (mut several, mut too_many) = (false, false);
    for field in headers.get_all(COOKIE) {
        for pair in field.as_bytes().split(|byte| *byte == b';') {
            let Some((key, value)) = split(pair) else { continue };
            let Some(piece) = Piece::of(key, name) else { continue };
            let value = std::str::from_utf8(value).map_err(|_| CookieError::NotText)?;
            match piece {
                Piece::Whole => {
                    if whole.replace(value).is_some_and(|earlier| earlier != value) {
                        return Err(CookieError::Several);
                    }
                }
                Piece::Number(number) if number >= PIECES => too_many = true,
                Piece::Number(number) => {
                    if pieces.len() <= number {
                        pieces.resize(number + 1, None);
                    }
                    if let Some(place) = pieces.get_mut(number) {
                        several |= place.replace(value).is_some_and(|earlier| earlier != value);
                    }
                }
            }
        }
    }
    if let Some(whole) = whole.filter(|whole| !whole.is_empty()) {
        return Ok(Some(Cow::Borrowed(whole)).filter(|value| value.len() <= MOST));
    }
    if several {
        return Err(CookieError::Several);
    }
    let joined = || pieces.iter().map_while(|piece| piece.filter(|piece| !piece.is_empty()));
    let length: usize = joined().map(str::len).sum();
    if length == 0 || length > MOST || (too_many && joined().count() == PIECES) {
        return Ok(None);
    }
    let mut text = String::with_capacity(length);
    text.extend(joined());
    Ok(Some(Cow::Owned(text)))
}

/// The names of all pieces of a cookie that a request has, once each.
pub fn pieces(headers: &HeaderMap, name: &str) -> Vec<String> {
    let mut names = Vec::new();
    for field in headers.get_all(COOKIE) {
        for (key, _) in field.as_bytes().split(|byte| *byte == b';').filter_map(split) {
            if let (Some(_), Ok(key)) = (Piece::of(key, name), std::str::from_utf8(key))
                && !names.iter().any(|known| known == key)
            {
                names.push(key.to_owned());
            }
        }
    }
    names
}

/// A piece of a cookie, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Whole,
    Number(usize),
}

impl Piece {
    /// ```text
    /// piece = name [ "." number ]        number = "0" / ( %x31-39 *DIGIT )
    /// ```
    fn of(key: &[u8], name: &str) -> Option<Self> {
        let rest = key.strip_prefix(name.as_bytes())?;
        let digits = match rest {
            [] => return Some(Self::Whole),
            [b'.', digits @ ..] if digits.iter().all(u8::is_ascii_digit) => digits,
            _ => return None,
        };
        match digits {
            [] | [b'0', _, ..] => None,
            digits => {
                let add = |number: usize, digit: &u8| number * 10 + usize::from(digit - b'0');
                Some(Self::Number(digits.iter().fold(0, |number, digit| add(number.min(PIECES * 10), digit))))
            }
        }
    }
}

/// Whether a cookie of this name is `name`, or a piece of it.
pub fn is_piece(key: &[u8], name: &str) -> bool {
    Piece::of(key, name).is_some()
}

/// The one `Cookie` header to forward: all fields joined as RFC 9113 §8.2.3 says, without the cookies whose names are to
/// be removed. The bytes of the others stay as they were. `None` if nothing is left.
pub fn without(headers: &HeaderMap, removed: impl Fn(&[u8]) -> bool) -> Option<HeaderValue> {
    let is_named = |pair: &[u8]| split(pair).is_some_and(|(key, _)| removed(key));
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
    split(pair).filter(|(key, _)| *key == name.as_bytes()).map(|(_, value)| value)
}

/// Name and value of a pair.
fn split(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    let (key, value) = pair.split_at_checked(equals)?;
    Some((key.trim_ascii(), value.strip_prefix(b"=").unwrap_or(value).trim_ascii()))
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
            let left = without(&cookies(fields), |name| name == b"s");
            assert_eq!(left.as_ref().map(|value| value.to_str().unwrap()), expected, "{fields:?}");
        }
    }

    #[test]
    fn a_cookie_in_pieces_is_joined_up_to_the_first_gap() {
        let many = |count: usize, size: usize| {
            let field: Vec<String> = (0..count).map(|number| format!("s.{number}={}", "x".repeat(size))).collect();
            let mut headers = HeaderMap::new();
            headers.append(COOKIE, HeaderValue::try_from(field.join("; ")).unwrap());
            find_in_pieces(&headers, "s").map(|found| found.map(|value| value.len()))
        };
        for (fields, expected) in [
            (&["a=1; s=x"][..], Ok(Some("x"))),
            (&["s.0=a; s.1=b; s.2=c"], Ok(Some("abc"))),
            (&["s.2=c; b=2", "s.0=a", "s.1=b"], Ok(Some("abc"))),
            (&["s=x; s.0=a; s.1=b"], Ok(Some("x"))),
            (&["s=; s.0=a; s.1=b"], Ok(Some("ab"))),
            (&["s.0=a; s.2=c"], Ok(Some("a"))),
            (&["s.0=a; s.1=; s.2=c"], Ok(Some("a"))),
            (&["s.1=b; s.2=c"], Ok(None)),
            (&["s.0=a; s.01=b; s.=c; s.x=d; s.1x=e; S.1=f; ss.1=g"], Ok(Some("a"))),
            (&["s="], Ok(None)),
            (&[], Ok(None)),
            (&["s.0=a; s.0=a; s.1=b"], Ok(Some("ab"))),
            (&["s.0=a; s.0=b"], Err(CookieError::Several)),
            (&["s=x; s=y"], Err(CookieError::Several)),
            (&["s=x; s.0=a; s.0=b"], Ok(Some("x"))),
            (&["s.0=a; s.99999999999999999999999999=b"], Ok(Some("a"))),
        ] {
            let headers = cookies(fields);
            assert_eq!(find_in_pieces(&headers, "s"), expected.map(|value| value.map(Cow::Borrowed)), "{fields:?}");
        }
        assert_eq!(many(20, 3180), Ok(Some(20 * 3180)));
        assert_eq!(many(21, 1), Ok(None), "more pieces than are read");
        assert_eq!(many(20, 3300), Ok(None), "more bytes than are read");
        let found = pieces(&cookies(&["a=1; s.1=b; s=; s.0=x; s-code-verifier=y; s.1=b"]), "s");
        assert_eq!(found, ["s.1", "s", "s.0"]);
        let left = without(&cookies(&["a=1; s.1=b; s=; s.0=x; s-code-verifier=y"]), |name| is_piece(name, "s"));
        assert_eq!(left.unwrap(), "a=1; s-code-verifier=y");
    }

    proptest! {
        #[test]
        fn a_removed_cookie_is_gone_and_others_are_still_found(text in "[ abs=;\"]{0,30}") {
            let mut headers = HeaderMap::new();
            headers.append(COOKIE, HeaderValue::from_str(&text).unwrap());
            let mut left = HeaderMap::new();
            if let Some(value) = without(&headers, |name| name == b"s") {
                left.append(COOKIE, value);
            }
            prop_assert_eq!(find(&left, "s"), Ok(None));
            prop_assert_eq!(find(&left, "a"), find(&headers, "a"));
        }
    }
}
