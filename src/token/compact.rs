//! A token taken apart: compact JWS, once and strictly.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;
use smallvec::SmallVec;

use crate::identity::claims::Strict;

use super::algorithm::Algorithm;
use super::error::{Malformed, TokenError};

/// The longest token that is looked at.
pub const MAX_TOKEN_LEN: usize = 8 * 1024;

/// More members than any header has; it keeps the search for duplicates short.
const MAX_HEADER_MEMBERS: usize = 32;

/// A token taken apart. Its signature is **not** verified.
///
/// ```text
/// token     := base64url(header) "." base64url(payload) "." base64url(signature)
/// base64url := [A-Za-z0-9_-]*   ; no padding, unused bits zero
/// ```
#[derive(Clone, Debug)]
pub struct Compact<'t> {
    /// `header.payload` as it was sent: what the signature covers.
    signed: &'t str,
    payload: &'t str,
    /// Larger ones are of RSA, beside which an allocation is nothing.
    signature: SmallVec<[u8; 64]>,
    header: Header,
}

/// The members of a header that have a meaning here.
#[derive(Clone, Debug)]
pub struct Header {
    /// `alg`.
    pub algorithm: Algorithm,
    /// `kid`.
    pub kid: Option<Box<str>>,
    /// `typ`.
    pub typ: Option<Box<str>>,
}

impl<'t> Compact<'t> {
    /// Takes a token apart. Size and bytes are checked before anything is decoded.
    pub fn parse(token: &'t str) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN_LEN {
            return Err(TokenError::TooLarge);
        }
        // RFC 7515 §2: nothing else may stand in a token. Parsers that skip such bytes let two spellings of one
        // token pass, and a cache or a deny list sees two tokens.
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() | matches!(byte, b'-' | b'_' | b'.');
        // To the end even where one is wrong: without a way out in between, many bytes are looked at at a time.
        if !token.bytes().fold(true, |all, byte| all & allowed(byte)) {
            return Err(Malformed::Alphabet.into());
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Malformed::Parts)?;
        let (header, payload) = signed.split_once('.').ok_or(Malformed::Parts)?;
        if payload.contains('.') || header.is_empty() || signature.is_empty() {
            return Err(Malformed::Parts.into());
        }
        let header = Header::parse(&decode::<256>(header)?)?;
        Ok(Self { signed, payload, signature: decode(signature)?, header })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The bytes that the signature covers.
    pub fn signed(&self) -> &'t [u8] {
        self.signed.as_bytes()
    }

    /// The signature.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// The payload, decoded. It is not JSON yet, nor verified.
    pub fn payload(&self) -> Result<SmallVec<[u8; 512]>, TokenError> {
        decode(self.payload)
    }
}

fn decode<const N: usize>(part: &str) -> Result<SmallVec<[u8; N]>, TokenError>
where
    [u8; N]: smallvec::Array<Item = u8>,
{
    let mut bytes = SmallVec::from_elem(0, part.len().div_ceil(4) * 3);
    let length = URL_SAFE_NO_PAD.decode_slice(part, &mut bytes).map_err(|_| Malformed::Base64)?;
    bytes.truncate(length);
    Ok(bytes)
}

impl Header {
    fn parse(json: &[u8]) -> Result<Self, TokenError> {
        let text = std::str::from_utf8(json).map_err(|_| Malformed::Header)?;
        let members: Members<'_> = serde_json::from_str(text).map_err(|_| Malformed::Header)?;
        if let Some(member) = members.forbidden {
            return Err(TokenError::ForbiddenHeader(member));
        }
        let algorithm = members.algorithm.ok_or(Malformed::Header)?;
        Ok(Self {
            algorithm: algorithm.parse().map_err(|_| TokenError::UnsupportedAlgorithm)?,
            kid: members.kid.map(|kid| kid.into()),
            typ: members.typ.map(|typ| typ.into()),
        })
    }
}

/// The header as it stands in the token. Members that carry or name keys (`jwk`, `jku`, `x5c`, `x5u`, …) are read
/// over: a token does not choose who vouches for it.
#[derive(Default)]
struct Members<'h> {
    algorithm: Option<Cow<'h, str>>,
    kid: Option<Cow<'h, str>>,
    typ: Option<Cow<'h, str>>,
    forbidden: Option<&'static str>,
}

impl<'de: 'h, 'h> Deserialize<'de> for Members<'h> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JOSE header")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut seen: SmallVec<[Cow<'de, str>; 8]> = SmallVec::new();
        let mut members = Members::default();
        while let Some(Text(name)) = map.next_key()? {
            if seen.contains(&name) || seen.len() == MAX_HEADER_MEMBERS {
                return Err(A::Error::custom("duplicate or too many members"));
            }
            match name.as_ref() {
                "alg" => members.algorithm = Some(map.next_value::<Text<'de>>()?.0),
                "kid" => members.kid = Some(map.next_value::<Text<'de>>()?.0),
                "typ" => members.typ = Some(map.next_value::<Text<'de>>()?.0),
                "cty" => {
                    // A token in a token: what is checked here would not be what is used there.
                    let Text(content) = map.next_value()?;
                    if without_application(&content).eq_ignore_ascii_case("jwt") {
                        members.forbidden = Some("cty");
                    }
                }
                "crit" | "b64" | "zip" => {
                    // No extension is supported, so whatever `crit` lists is not understood (RFC 7515 §4.1.11).
                    map.next_value::<Strict>()?;
                    members.forbidden = Some(match name.as_ref() {
                        "crit" => "crit",
                        "b64" => "b64",
                        _ => "zip",
                    });
                }
                _ => {
                    map.next_value::<Strict>()?;
                }
            }
            seen.push(name);
        }
        Ok(members)
    }
}

/// A string, borrowed where it has no escapes.
struct Text<'h>(Cow<'h, str>);

impl<'de: 'h, 'h> Deserialize<'de> for Text<'h> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(TextVisitor)
    }
}

/// A media type without the prefix that RFC 7515 §4.1.9 allows to omit.
pub(super) fn without_application(typ: &str) -> &str {
    match typ.split_at_checked("application/".len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case("application/") => rest,
        _ => typ,
    }
}

/// The `iss` that an unverified payload claims, for choosing among the configured issuers and nothing else.
pub(super) fn unverified_issuer(payload: &[u8]) -> Result<Option<Box<str>>, TokenError> {
    #[derive(serde::Deserialize)]
    struct Peek {
        iss: Option<Value>,
    }

    let peek: Peek = serde_json::from_slice(payload)
        .map_err(|_| Malformed::Claims(crate::identity::claims::ClaimsError::NotJson))?;
    match peek.iss {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(issuer)) => Ok(Some(issuer.into())),
        Some(_) => Err(TokenError::ClaimWrongType("iss")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(text: &str) -> String {
        URL_SAFE_NO_PAD.encode(text)
    }

    fn header(json: &str) -> Result<Algorithm, TokenError> {
        let token = format!("{}.{}.AAAA", encode(json), encode("{}"));
        Compact::parse(&token).map(|compact| compact.header().algorithm)
    }

    #[test]
    fn a_header_says_what_it_is_for_and_nothing_that_changes_it() {
        const HEADER: Result<Algorithm, TokenError> = Err(TokenError::Malformed(Malformed::Header));
        let forbidden = |member| Err(TokenError::ForbiddenHeader(member));
        for (json, expected) in [
            (r#"{"alg":"HS256"}"#, Ok(Algorithm::HS256)),
            (r#"{"alg":"Ed25519"}"#, Ok(Algorithm::EdDSA)),
            (r#"{"\u0061lg":"HS256"}"#, Ok(Algorithm::HS256)),
            // G01
            (r#"{"alg":"none"}"#, Err(TokenError::UnsupportedAlgorithm)),
            (r#"{"alg":"None"}"#, Err(TokenError::UnsupportedAlgorithm)),
            (r#"{"alg":"NONE"}"#, Err(TokenError::UnsupportedAlgorithm)),
            (r#"{"alg":"nOnE"}"#, Err(TokenError::UnsupportedAlgorithm)),
            (r#"{"alg":""}"#, Err(TokenError::UnsupportedAlgorithm)),
            (r#"{"alg":"HS256 "}"#, Err(TokenError::UnsupportedAlgorithm)),
            (r#"{"typ":"JWT"}"#, HEADER),
            (r#"{"alg":256}"#, HEADER),
            (r#"{"alg":["HS256"]}"#, HEADER),
            (r#"{"alg":null}"#, HEADER),
            // G05: keys in the token are neither used nor an error.
            (r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AA"},"jku":"https://x/","x5c":["AA"]}"#, Ok(Algorithm::HS256)),
            // G06
            (r#"{"alg":"HS256","kid":"../../dev/null"}"#, Ok(Algorithm::HS256)),
            (r#"{"alg":"HS256","kid":1}"#, HEADER),
            (r#"{"alg":"HS256","kid":null}"#, HEADER),
            (r#"{"alg":"HS256","kid":["a"]}"#, HEADER),
            // G07
            (r#"{"alg":"HS256","crit":["bork"]}"#, forbidden("crit")),
            (r#"{"alg":"HS256","crit":[]}"#, forbidden("crit")),
            (r#"{"alg":"HS256","crit":["exp"]}"#, forbidden("crit")),
            (r#"{"alg":"HS256","crit":"exp"}"#, forbidden("crit")),
            (r#"{"alg":"HS256","b64":false}"#, forbidden("b64")),
            (r#"{"alg":"HS256","b64":false,"crit":["b64"]}"#, forbidden("crit")),
            (r#"{"alg":"HS256","zip":"DEF"}"#, forbidden("zip")),
            (r#"{"alg":"HS256","cty":"JWT"}"#, forbidden("cty")),
            (r#"{"alg":"HS256","cty":"Application/jwt"}"#, forbidden("cty")),
            (r#"{"alg":"HS256","cty":"json"}"#, Ok(Algorithm::HS256)),
            // G13
            (r#"{"alg":"HS256","alg":"HS256"}"#, HEADER),
            (r#"{"alg":"HS256","\u0061lg":"none"}"#, HEADER),
            (r#"{"alg":"HS256","x":1,"x":1}"#, HEADER),
            (r#"{"alg":"HS256","jwk":{"a":1,"a":2}}"#, HEADER),
            (r#"["HS256"]"#, HEADER),
            (r#"{"alg":"HS256"} "#, Ok(Algorithm::HS256)),
            (r#"{"alg":"HS256"}x"#, HEADER),
            ("\u{feff}{\"alg\":\"HS256\"}", HEADER),
        ] {
            assert_eq!(header(json), expected, "{json}");
        }
        let many: String = (0..40).map(|n| format!(r#","m{n}":0"#)).collect();
        assert_eq!(header(&format!(r#"{{"alg":"HS256"{many}}}"#)), HEADER);
    }

    #[test]
    fn a_token_is_three_parts_of_strict_base64url() {
        let (head, body) = (encode(r#"{"alg":"HS256"}"#), encode("{}"));
        let malformed = |malformed| Some(TokenError::Malformed(malformed));
        for (token, expected) in [
            (format!("{head}.{body}.AAAA"), None),
            (format!("{head}..AAAA"), None),
            // G14
            (format!("{head}.{body}.AAA="), malformed(Malformed::Alphabet)),
            (format!("{head}.{body}.A+AA"), malformed(Malformed::Alphabet)),
            (format!("{head}.{body}.A/AA"), malformed(Malformed::Alphabet)),
            (format!(" {head}.{body}.AAAA"), malformed(Malformed::Alphabet)),
            (format!("{head}.{body}.AAAA\n"), malformed(Malformed::Alphabet)),
            (format!("{head}.{body}?.AAAA"), malformed(Malformed::Alphabet)),
            (format!("{head}.{body}.AAAé"), malformed(Malformed::Alphabet)),
            (format!("{head}.{body}.AAB"), malformed(Malformed::Base64)),
            (format!("{head}.{body}.A"), malformed(Malformed::Base64)),
            (format!("{head}A.{body}.AAAA"), malformed(Malformed::Base64)),
            // G15
            (String::new(), malformed(Malformed::Parts)),
            ("abc".into(), malformed(Malformed::Parts)),
            (format!("{head}.{body}"), malformed(Malformed::Parts)),
            (format!("{head}.{body}."), malformed(Malformed::Parts)),
            (format!(".{body}.AAAA"), malformed(Malformed::Parts)),
            (format!(".{head}.{body}.AAAA"), malformed(Malformed::Parts)),
            (format!("{head}.{body}.AAAA."), malformed(Malformed::Parts)),
            (format!("{head}.{body}.AAAA.AAAA"), malformed(Malformed::Parts)),
            // G16
            (format!("{head}.AAAA.AAAA.AAAA.AAAA"), malformed(Malformed::Parts)),
            (r#"{"payload":"e30","signatures":[]}"#.into(), malformed(Malformed::Alphabet)),
            // G15, G18
            (".".repeat(8192), malformed(Malformed::Parts)),
            (".".repeat(1_000_000), Some(TokenError::TooLarge)),
        ] {
            let shown: String = token.chars().take(60).collect();
            assert_eq!(Compact::parse(&token).err(), expected, "{shown}");
        }
    }

    #[test]
    fn eight_kibibytes_are_read_and_one_byte_more_is_not() {
        let token = |length: usize| {
            let mut token = format!("{}.", encode(r#"{"alg":"HS256"}"#));
            token.push_str(&"A".repeat(length - token.len() - 5));
            token + ".AAAA"
        };
        assert_eq!(Compact::parse(&token(8192)).err(), None);
        assert_eq!(Compact::parse(&token(8193)).err(), Some(TokenError::TooLarge));
    }

    #[test]
    fn an_unverified_issuer_is_a_string_or_absent() {
        let peek = |json: &str| unverified_issuer(json.as_bytes());
        assert_eq!(peek(r#"{"sub":"a","iss":"https:\/\/a","x":{"iss":"b"}}"#), Ok(Some("https://a".into())));
        assert_eq!(peek(r#"{"iss":null}"#), Ok(None));
        assert_eq!(peek("{}"), Ok(None));
        assert_eq!(peek(r#"{"iss":["a"]}"#), Err(TokenError::ClaimWrongType("iss")));
        assert!(peek(r#"{"iss":"a","iss":"b"}"#).is_err());
        assert!(peek("foo").is_err());
    }
}
