//! The cookie in which `@supabase/ssr` keeps a session: reading its access token, and writing it anew.
//!
//! ```text
//! value   = "base64-" base64url( json )        no padding; the default
//!         / encodeURIComponent( json )         cookieEncoding: "raw"
//! json    = { "access_token", "refresh_token", "token_type", "expires_in", "expires_at", "user"?, … }
//! ```
//! A value that is longer than 3180 characters is cut into pieces (`request::cookie::find_in_pieces` joins them). It is
//! written by scripts in the browser, so anything may stand there: what cannot be read is no credential.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Deserialize;

use crate::secret::Secret;

/// What an encoded session begins with.
const PREFIX: &str = "base64-";
/// The longest value of one cookie, in characters as they are sent.
const LONGEST: usize = 3180;
/// How long a browser keeps it: 400 days, the most that browsers allow.
const MAX_AGE: u32 = 400 * 24 * 60 * 60;

/// What `encodeURIComponent` leaves as it is.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// What the library reads: no padding, and nothing said about bits that are left over.
const BASE64URL: GeneralPurpose =
    GeneralPurpose::new(&alphabet::URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

/// How a session is written into its cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `base64-` and base64url.
    Base64Url,
    /// The JSON itself, percent-encoded.
    Raw,
}

/// A session as it stands in its cookie. Nothing of it was verified.
#[derive(Clone)]
pub struct SsrSession {
    /// How it was written.
    pub encoding: Encoding,
    /// The whole of it, as JSON.
    pub json: Secret<String>,
    /// The access token.
    pub access: Secret<String>,
}

/// Shows no token.
impl fmt::Debug for SsrSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SsrSession").field("encoding", &self.encoding).finish_non_exhaustive()
    }
}

/// What the value of a cookie turned out to be.
#[derive(Clone, Debug)]
pub enum Held<'r> {
    /// A token and nothing else.
    Token(Cow<'r, str>),
    /// A session.
    Session(SsrSession),
    /// Half-written or mutilated: no credential.
    Nothing,
}

impl<'r> Held<'r> {
    /// Reads the value of a cookie that may hold a session or a bare token.
    pub fn read(value: Cow<'r, str>) -> Self {
        let (encoding, json) = if let Some(encoded) = value.strip_prefix(PREFIX) {
            let json = BASE64URL.decode(unescaped(encoded).trim_end_matches('=')).ok();
            (Encoding::Base64Url, json.and_then(|json| String::from_utf8(json).ok()))
        } else if value.starts_with('{') || value.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("%7b")) {
            (Encoding::Raw, Some(unescaped(&value).into_owned()))
        } else {
            return Self::Token(value);
        };
        match json.map(Secret::new).and_then(|json| Some((access_token(json.expose())?, json))) {
            Some((access, json)) => Self::Session(SsrSession { encoding, json, access }),
            None => Self::Nothing,
        }
    }
}

/// The access token of a session.
fn access_token(json: &str) -> Option<Secret<String>> {
    #[derive(Deserialize)]
    struct Session<'j> {
        #[serde(borrow)]
        access_token: Cow<'j, str>,
    }
    // serde would read an array into it, too.
    let session: Session<'_> = json.trim_ascii_start().starts_with('{').then(|| serde_json::from_str(json).ok())??;
    Some(session.access_token.into_owned()).filter(|token| !token.is_empty()).map(Secret::new)
}

/// Percent-encoded characters decoded; a text that does not become UTF-8 stays as it is.
fn unescaped(text: &str) -> Cow<'_, str> {
    if text.contains('%') { percent_decode_str(text).decode_utf8().unwrap_or(Cow::Borrowed(text)) } else { text.into() }
}

/// The cookies that hold a session: names, and values as they are sent.
pub fn cookies(name: &str, json: &str, encoding: Encoding) -> Vec<(String, String)> {
    let value = match encoding {
        Encoding::Base64Url => format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json)),
        Encoding::Raw => utf8_percent_encode(json, COMPONENT).to_string(),
    };
    if value.len() <= LONGEST {
        return vec![(name.to_owned(), value)];
    }
    let mut pieces = Vec::new();
    let mut rest = value.as_str();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at_checked(boundary(rest)).unwrap_or((rest, ""));
        pieces.push((format!("{name}.{}", pieces.len()), piece.to_owned()));
        rest = after;
    }
    pieces
}

/// Where a value is cut: neither within an escaped byte nor within the bytes of one character.
fn boundary(value: &str) -> usize {
    let bytes = value.as_bytes();
    if bytes.len() <= LONGEST {
        return bytes.len();
    }
    let escaped = |at: usize| match bytes.get(at..at.saturating_add(3))? {
        [b'%', high, low] => Some(hex(*high)? << 4 | hex(*low)?),
        _ => None,
    };
    let mut end = LONGEST;
    // `%`, `%X`: the escape began before the cut.
    end -= [1, 2].into_iter().find(|back| bytes.get(end.saturating_sub(*back)) == Some(&b'%')).unwrap_or(0);
    // What follows is the middle of a character: it goes with its beginning.
    while end > 3 && escaped(end).is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000) {
        end -= 3;
    }
    end
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// `Set-Cookie` as the library writes it.
pub fn set_cookie(name: &str, value: &str) -> String {
    format!("{name}={value}; Max-Age={MAX_AGE}; Path=/; SameSite=Lax")
}

/// `Set-Cookie` that removes a cookie, as the library writes it.
pub fn removal(name: &str) -> String {
    format!("{name}=; Max-Age=0; Path=/; SameSite=Lax")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(value: &str) -> Held<'_> {
        Held::read(Cow::Borrowed(value))
    }

    /// The cookie of `supabase-and-oauth.md` G.
    const COOKIE: &str = "base64-eyJhY2Nlc3NfdG9rZW4iOiJhLmIuYyIsInRva2VuX3R5cGUiOiJiZWFyZXIiLCJleHBpcmVzX2luIjozNjAwLCJleHBpcmVzX2F0Ijo0MTAyNDQ0ODAwLCJyZWZyZXNoX3Rva2VuIjoiYWJjZGVmZ2hpamtsIiwidXNlciI6eyJpZCI6IjdiMWQ5YTUyLTZmMWUtNGMzYS05ZDJiLTBhNGY1ZTZjN2Q4MSIsIm5hbWUiOiJab8OrIn19";

    #[test]
    fn a_session_is_read_in_both_encodings_and_anything_else_is_a_token_or_nothing() {
        let Held::Session(session) = read(COOKIE) else { panic!("{:?}", read(COOKIE)) };
        assert_eq!((session.access.expose().as_str(), session.encoding), ("a.b.c", Encoding::Base64Url));
        assert!(session.json.expose().contains("\"name\":\"Zoë\""));
        let json = session.json.expose().as_str();
        let [(_, raw)] = &cookies("s", json, Encoding::Raw)[..] else { panic!("one piece") };
        let encoded = |json: &str| format!("base64-{}", URL_SAFE_NO_PAD.encode(json));
        for (value, expected) in [
            (raw.clone(), Some("a.b.c")),
            (json.to_owned(), Some("a.b.c")),
            (raw.replacen("%7B", "%7b", 1), Some("a.b.c")),
            (format!("{COOKIE}=="), Some("a.b.c")),
            (COOKIE.replace('-', "%2D").replacen("%2D", "-", 1), Some("a.b.c")),
            (COOKIE.get(..90).unwrap().to_owned(), None),
            (COOKIE.replacen("eyJ", "e*J", 1), None),
            ("base64-".to_owned(), None),
            ("{".to_owned(), None),
            ("%7B%".to_owned(), None),
            (encoded("{}"), None),
            (encoded(r#"{"access_token":null}"#), None),
            (encoded(r#"{"access_token":""}"#), None),
            (encoded(r#"{"access_token":["a.b.c"]}"#), None),
            (encoded(r#"{"access_token":"a","access_token":"b"}"#), None),
            (encoded(r#"["a.b.c"]"#), None),
            (format!("base64-{}", URL_SAFE_NO_PAD.encode(b"{\"access_token\":\"\xff\"}")), None),
            (encoded(&format!("{}1{}", "[".repeat(5000), "]".repeat(5000))), None),
        ] {
            let got = match read(&value) {
                Held::Session(session) => Some(session.access.expose().clone()),
                Held::Nothing => None,
                Held::Token(token) => panic!("{value} is no token: {token}"),
            };
            assert_eq!(got.as_deref(), expected, "{value}");
        }
        assert!(matches!(read("a.b.c"), Held::Token(Cow::Borrowed("a.b.c"))));
        assert!(!format!("{:?}", read(COOKIE)).contains("a.b.c"));
    }

    /// Lengths of the pieces, and the first 16 digits of the SHA-256 of what `createChunks` of `@supabase/ssr` 0.12.7
    /// made of `{"access_token":"a.b.c","user":{"name":"…"}}`, joined as a `Cookie` field.
    #[test]
    fn a_session_is_cut_where_the_library_cuts_it() {
        for (name, count, encoding, lengths, hash) in [
            ("Zoë", 700, Encoding::Base64Url, &[3180, 618][..], "304d29a4b1ac263e"),
            ("Zoë", 700, Encoding::Raw, &[3176, 2503], "472cd5e03c6d1878"),
            ("日本語", 400, Encoding::Base64Url, &[3180, 1685], "24ab43670382cdc9"),
            ("日本語", 400, Encoding::Raw, &[3175, 3177, 3177, 1350], "778a782fa89f9229"),
            ("a😀", 600, Encoding::Base64Url, &[3180, 885], "9c313458610aee5f"),
            ("a😀", 600, Encoding::Raw, &[3178, 3172, 1529], "ee17dd1575009963"),
            ("x", 1, Encoding::Base64Url, &[66], "5adfdc15d6bd758d"),
            ("x", 1, Encoding::Raw, &[80], "6a4ee5a9fa702aa5"),
            ("é%\"", 900, Encoding::Base64Url, &[3180, 2885], "d6ce4b65c0cc58db"),
            ("é%\"", 900, Encoding::Raw, &[3175, 3180, 3180, 3180, 864], "9894ed7e86c88e37"),
        ] {
            let json = serde_json::json!({ "access_token": "a.b.c", "user": { "name": name.repeat(count) } });
            let pieces = cookies("s", &json.to_string(), encoding);
            assert_eq!(pieces.iter().map(|(_, value)| value.len()).collect::<Vec<_>>(), lengths, "{name} {encoding:?}");
            let field: Vec<String> = pieces.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, field.join("; ").as_bytes());
            let digits: String = digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(digits, hash, "{name} {encoding:?}");
        }
    }

    #[test]
    fn cookies_are_set_and_removed_with_the_attributes_of_the_library() {
        assert_eq!(set_cookie("s.0", "x"), "s.0=x; Max-Age=34560000; Path=/; SameSite=Lax");
        assert_eq!(removal("s.1"), "s.1=; Max-Age=0; Path=/; SameSite=Lax");
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_again(name in "\\PC{0,2500}", raw: bool) {
            let json = serde_json::json!({ "access_token": "a.b.c", "user": name }).to_string();
            let encoding = if raw { Encoding::Raw } else { Encoding::Base64Url };
            let pieces = cookies("s", &json, encoding);
            for (_, piece) in &pieces {
                prop_assert!(piece.len() <= LONGEST);
                prop_assert!(percent_decode_str(piece).decode_utf8().is_ok());
            }
            let joined: String = pieces.into_iter().map(|(_, value)| value).collect();
            let Held::Session(session) = read(&joined) else { panic!("{joined}") };
            prop_assert_eq!((session.json.expose(), session.encoding), (&json, encoding));
        }

        #[test]
        fn anything_is_read_without_panic(value in "(base64-|\\{|%7B)?\\PC{0,60}") {
            let _ = read(&value);
        }
    }
}
