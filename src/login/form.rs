//! What a client sends to the token endpoint and its siblings.
//!
//! ```text
//! body := application/x-www-form-urlencoded | multipart/form-data | application/json (an object of strings; an extension)
//! ```
//!
//! Anything with two readings is refused: a field sent twice, broken escapes, text that is not UTF-8, NUL. A field sent
//! without a value counts as not sent (RFC 6749 §3.1). Fields of no meaning are ignored, client credentials among them:
//! there is no registry of clients, and Swagger UI, requests-oauthlib and Authlib all send empty or made-up ones.

use std::fmt;

use bytes::Bytes;
use multer::Multipart;
use zeroize::{Zeroize as _, Zeroizing};

use crate::identity::account::{AccountError, AccountName};
use crate::identity::claims::Strict;

use super::error::OAuthError;

/// The longest body, in bytes.
pub const MAX_BODY: usize = 16 * 1024;
/// The most fields.
const MAX_FIELDS: usize = 32;

/// Fields that may not stand in the query, where they would be logged.
const NEVER_IN_QUERY: &[&str] = &[
    "grant_type",
    "username",
    "password",
    "scope",
    "refresh_token",
    "token",
    "token_type_hint",
    "client_id",
    "client_secret",
    "client_assertion",
    "code",
    "all",
];

/// The fields of a form; their memory is cleared when it is dropped.
#[derive(Default)]
pub struct Form {
    // INVARIANT: no name twice.
    fields: Vec<(String, Zeroizing<String>)>,
}

impl Form {
    /// Reads a body. `content_type` is `None` where the request has none, or several.
    pub async fn parse(content_type: Option<&str>, query: Option<&str>, body: Bytes) -> Result<Self, OAuthError> {
        let parsed = match body.len() > MAX_BODY {
            true => Err(OAuthError::TooLarge),
            false => match query.is_some_and(holds_fields) {
                true => Err(OAuthError::InvalidRequest("Parameters belong into the body, not into the query")),
                false => Self::parse_body(content_type, &body).await,
            },
        };
        // Whoever holds this buffer besides is the connection, which overwrites it with the next request.
        if let Ok(mut body) = body.try_into_mut() {
            body.as_mut().zeroize();
        }
        parsed
    }

    /// Reads a body that goes on to somebody else: what cannot be read clearly has no fields.
    pub async fn peek(content_type: Option<&str>, body: &Bytes) -> Self {
        if body.len() > MAX_BODY {
            return Self::default();
        }
        Self::parse_body(content_type, body).await.unwrap_or_default()
    }

    async fn parse_body(content_type: Option<&str>, body: &Bytes) -> Result<Self, OAuthError> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        let content_type = content_type.unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media_type.as_str() {
            "application/x-www-form-urlencoded" => Self::urlencoded(body),
            "multipart/form-data" => Self::multipart(content_type, body).await,
            "application/json" => Self::json(body),
            _ => Err(OAuthError::InvalidRequest("The content type is not supported")),
        }
    }

    fn urlencoded(body: &[u8]) -> Result<Self, OAuthError> {
        let body = std::str::from_utf8(body).map_err(|_| NOT_TEXT)?;
        let mut form = Self::default();
        for pair in body.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            form.push(decode(name)?.as_str().to_owned(), decode(value)?)?;
        }
        Ok(form)
    }

    async fn multipart(content_type: &str, body: &Bytes) -> Result<Self, OAuthError> {
        const BROKEN: OAuthError = OAuthError::InvalidRequest("The multipart body is malformed");
        let boundary = multer::parse_boundary(content_type).map_err(|_| BROKEN)?;
        let mut parts = Multipart::with_reader(std::io::Cursor::new(body.clone()), boundary);
        let mut form = Self::default();
        while let Some(part) = parts.next_field().await.map_err(|_| BROKEN)? {
            let name = part.name().ok_or(BROKEN)?.to_owned();
            let is_file = part.file_name().is_some();
            let bytes = part.bytes().await.map_err(|_| BROKEN)?;
            let value = std::str::from_utf8(&bytes).map(|text| Zeroizing::new(text.to_owned()));
            match value {
                Ok(value) if !is_file => form.push(name, value)?,
                _ if is_field(&name) => return Err(NOT_TEXT),
                _ => form.push(name, Zeroizing::default())?,
            }
        }
        Ok(form)
    }

    fn json(body: &[u8]) -> Result<Self, OAuthError> {
        let object = Strict::object(body)
            .map_err(|_| OAuthError::InvalidRequest("The body is not a JSON object in which each name stands once"))?;
        let mut form = Self::default();
        for (name, value) in object {
            let value = match value {
                serde_json::Value::String(text) => Zeroizing::new(text),
                serde_json::Value::Bool(value) => Zeroizing::new(value.to_string()),
                serde_json::Value::Null => Zeroizing::default(),
                _ if is_field(&name) => return Err(OAuthError::InvalidRequest("A member is not a string")),
                _ => Zeroizing::default(),
            };
            form.push(name, value)?;
        }
        Ok(form)
    }

    fn push(&mut self, name: String, value: Zeroizing<String>) -> Result<(), OAuthError> {
        if self.fields.iter().any(|(other, _)| *other == name) {
            return Err(OAuthError::InvalidRequest("A parameter is there twice"));
        }
        if name.contains('\0') || value.contains('\0') {
            return Err(NOT_TEXT);
        }
        if self.fields.len() >= MAX_FIELDS {
            return Err(OAuthError::InvalidRequest("There are too many parameters"));
        }
        self.fields.push((name, value));
        Ok(())
    }

    /// A field that was sent with a value.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.fields.iter().find(|(other, value)| other == name && !value.is_empty())?;
        Some(value)
    }

    /// The account that `username` names; `None` if there is none.
    pub fn account(&self) -> Option<Result<AccountName, AccountError>> {
        self.account_in("username")
    }

    /// The account that a field names.
    pub fn account_in(&self, field: &str) -> Option<Result<AccountName, AccountError>> {
        self.get(field).map(AccountName::parse)
    }

    /// Whether a field says yes.
    pub fn is_true(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    /// The scopes that are asked for, each once; RFC 6749 §3.3 has the characters.
    pub fn scopes(&self) -> Result<Vec<&str>, OAuthError> {
        let mut scopes = Vec::new();
        for scope in self.get("scope").unwrap_or_default().split(' ').filter(|scope| !scope.is_empty()) {
            if !scope.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e)) {
                return Err(OAuthError::InvalidScope("A scope has a character that no scope may have"));
            }
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
        if scopes.len() > MAX_SCOPES {
            return Err(OAuthError::InvalidScope("There are too many scopes"));
        }
        Ok(scopes)
    }
}

/// The most scopes that may be asked for at once; a token with more would be refused everywhere.
const MAX_SCOPES: usize = 128;

const NOT_TEXT: OAuthError = OAuthError::InvalidRequest("A parameter is not text in UTF-8");

/// Decodes one name or value; unlike browsers it refuses broken escapes, which two programs read in two ways.
fn decode(text: &str) -> Result<Zeroizing<String>, OAuthError> {
    const BROKEN: OAuthError = OAuthError::InvalidRequest("A parameter has a broken escape");
    let mut decoded = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut bytes = text.bytes();
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let (high, low) = (digit(bytes.next()).ok_or(BROKEN)?, digit(bytes.next()).ok_or(BROKEN)?);
                high << 4 | low
            }
            byte => byte,
        });
    }
    match String::from_utf8(std::mem::take(&mut *decoded)) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) => {
            error.into_bytes().zeroize();
            Err(NOT_TEXT)
        }
    }
}

fn is_field(name: &str) -> bool {
    NEVER_IN_QUERY.contains(&name)
}

/// Whether a query holds fields of the form, in any spelling.
fn holds_fields(query: &str) -> bool {
    form_urlencoded::parse(query.as_bytes()).any(|(name, _)| is_field(&name.to_ascii_lowercase()))
}

/// Shows names alone.
impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.fields.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URLENCODED: &str = "application/x-www-form-urlencoded";

    async fn parse(content_type: &str, body: &str) -> Result<Form, OAuthError> {
        Form::parse(Some(content_type), None, Bytes::copy_from_slice(body.as_bytes())).await
    }

    fn part(name: &str, value: &str) -> String {
        format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    }

    #[tokio::test]
    async fn three_forms_say_the_same() {
        let multipart = format!("{}{}--XX--\r\n", part("username", "ada"), part("password", "p w+ü"));
        for (content_type, body) in [
            (URLENCODED, "username=ada&password=p+w%2B%c3%BC"),
            ("Application/X-WWW-Form-Urlencoded; charset=UTF-8", "&username=ada&&password=p%20w%2B%C3%BC&"),
            (URLENCODED, "username=ada&password=p w%2Bü"),
            ("application/json", r#"{"username": "ada", "password": "p w+ü", "client_id": null, "x": [1]}"#),
            ("multipart/form-data; boundary=XX", &multipart),
            ("multipart/form-data; boundary=\"XX\"", &multipart),
        ] {
            let form = parse(content_type, body).await.unwrap();
            assert_eq!((form.get("username"), form.get("password")), (Some("ada"), Some("p w+ü")), "{body}");
            assert_eq!(form.account().unwrap().unwrap().as_str(), "ada");
        }
    }

    #[tokio::test]
    async fn what_has_two_readings_is_refused() {
        let file = "--XX\r\nContent-Disposition: form-data; name=\"password\"; filename=\"p\"\r\n\r\nx\r\n--XX--\r\n";
        let twice = format!("{}{}--XX--\r\n", part("username", "a"), part("username", "b"));
        let many: String = (0..40).map(|number| format!("f{number}=1&")).collect();
        for (content_type, body) in [
            (URLENCODED, "username=a&username=b"),
            (URLENCODED, "username=a&user%6eame=a"),
            (URLENCODED, "x=1&x=2"),
            (URLENCODED, "username=%zz"),
            (URLENCODED, "username=%4"),
            (URLENCODED, "username=%"),
            (URLENCODED, "username=%ff"),
            (URLENCODED, "username=a%00"),
            (URLENCODED, &many),
            ("application/json", r#"{"username": "a", "username": "b"}"#),
            ("application/json", r#"{"username": "a", "user\u006eame": "b"}"#),
            ("application/json", r#"["username"]"#),
            ("application/json", r#"{"username": 1}"#),
            ("application/json", r#"{"scope": ["a"]}"#),
            ("application/json", "{"),
            ("multipart/form-data", "username=a"),
            ("multipart/form-data; boundary=XX", "username=a"),
            ("multipart/form-data; boundary=XX", &part("username", "cut off")),
            ("multipart/form-data; boundary=XX", &twice),
            ("multipart/form-data; boundary=XX", file),
            ("text/plain", "username=a"),
            ("", "username=a"),
            ("application/xml", "<a/>"),
        ] {
            let error = parse(content_type, body).await.expect_err(body);
            assert_eq!(error.code(), "invalid_request", "{body}");
        }
        for bytes in [&b"username=\xff"[..], b"\xff\xfe"] {
            assert!(Form::parse(Some(URLENCODED), None, Bytes::from_static(bytes)).await.is_err());
        }
        assert!(Form::parse(None, None, Bytes::from_static(b"username=a")).await.is_err());
    }

    #[tokio::test]
    async fn parameters_in_the_query_are_refused() {
        for (query, refused) in [
            ("username=a", true),
            ("x=1&PassWord=a", true),
            ("user%6Eame=a", true),
            ("grant_type=password", true),
            ("token", true),
            ("x=1", false),
            ("", false),
        ] {
            let form = Form::parse(Some(URLENCODED), Some(query), Bytes::from_static(b"username=a")).await;
            assert_eq!(form.is_err(), refused, "{query}");
        }
    }

    #[tokio::test]
    async fn a_body_of_more_than_16_kib_is_too_large() {
        let body = |length| Bytes::from(format!("x={}", "a".repeat(length - 2)));
        assert!(Form::parse(Some(URLENCODED), None, body(MAX_BODY)).await.is_ok());
        let error = Form::parse(Some(URLENCODED), None, body(MAX_BODY + 1)).await.unwrap_err();
        assert_eq!(error, OAuthError::TooLarge);
    }

    #[tokio::test]
    async fn a_field_without_a_value_is_not_there() {
        let form = parse(URLENCODED, "scope=&username&all=true").await.unwrap();
        assert_eq!((form.get("scope"), form.get("username"), form.is_true("all")), (None, None, true));
        assert!(form.scopes().unwrap().is_empty());
        assert!(parse("application/json", r#"{"all": true}"#).await.unwrap().is_true("all"));
        assert!(Form::parse(None, None, Bytes::new()).await.is_ok());
        assert!(Form::parse(None, Some("all=true"), Bytes::new()).await.is_err(), "it is not ignored either");
    }

    #[tokio::test]
    async fn scopes_are_split_at_spaces_and_have_no_blanks_or_quotes() {
        let scopes = async |text: &str| parse(URLENCODED, text).await.unwrap().scopes().map(|list| list.join(","));
        assert_eq!(scopes("scope=a++b:c+a").await.unwrap(), "a,b:c");
        for bad in ["scope=a%09b", "scope=a%22", "scope=%5C", "scope=%C3%BC", "scope=a%0Ab"] {
            assert_eq!(scopes(bad).await.unwrap_err().code(), "invalid_scope", "{bad}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_clearly_is_peeked_at_as_empty() {
        let peek = async |body: &'static str| Form::peek(Some(URLENCODED), &Bytes::from_static(body.as_bytes())).await;
        assert_eq!(peek("email=a").await.get("email"), Some("a"));
        assert_eq!(peek("email=a&email=b").await.get("email"), None);
    }

    #[tokio::test]
    async fn debug_shows_no_values() {
        let form = parse(URLENCODED, "password=canary").await.unwrap();
        assert!(!format!("{form:?}").contains("canary"));
    }
}
