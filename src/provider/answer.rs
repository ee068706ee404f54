//! What answers of providers have in common: JSON read strictly, tokens, and how long to wait.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use serde_json::{Map, Value};

use crate::fetch::Fetcher;
use crate::identity::claims::Strict;
use crate::secret::Secret;

use super::Tokens;
use super::error::ProviderError;

/// The longest token that is taken, in bytes.
const MOST_TOKEN: usize = 16 * 1024;
/// The longest wait that a provider may ask for.
const MOST_WAIT: Duration = Duration::from_secs(3600);
/// So much of a code or text of a provider is kept.
const MOST_TEXT: usize = 200;

pub(super) const JSON: &str = "application/json";
pub(super) const FORM: &str = "application/x-www-form-urlencoded";

/// A request; a header that cannot be sent is an error of the configuration.
pub(super) fn request(
    method: Method,
    url: &str,
    headers: &[(HeaderName, &str)],
    body: Option<(&str, String)>,
) -> Result<Request<Bytes>, ProviderError> {
    let mut request = Request::builder().method(method).uri(url).header(ACCEPT, JSON);
    for (name, value) in headers {
        let wrong = |_| ProviderError::Misconfigured(format!("`{name}` cannot be sent: not plain text").into());
        let mut value = HeaderValue::from_str(value).map_err(wrong)?;
        value.set_sensitive(*name == AUTHORIZATION || name.as_str() == "apikey");
        request = request.header(name, value);
    }
    let body = match body {
        None => Bytes::new(),
        Some((content_type, body)) => {
            request = request.header(CONTENT_TYPE, content_type);
            Bytes::from(body)
        }
    };
    request.body(body).map_err(|_| ProviderError::Misconfigured("not a URL that can be asked".into()))
}

/// A JSON object with each name once.
pub(super) fn object(body: &[u8]) -> Result<Map<String, Value>, ProviderError> {
    Strict::object(body).map_err(|error| unclear(&error.to_string()))
}

/// What cannot be understood is an outage: it says nothing about the user.
pub(super) fn unclear(why: &str) -> ProviderError {
    ProviderError::Unavailable(format!("the answer cannot be understood: {why}").into())
}

/// What stands in an answer about a status that is no answer.
pub(super) fn status(status: u16) -> ProviderError {
    ProviderError::Unavailable(format!("status {status}").into())
}

/// How long a provider wants to be left alone.
pub(super) fn busy(headers: &HeaderMap) -> ProviderError {
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    ProviderError::Busy(seconds.map(|seconds| Duration::from_secs(seconds).min(MOST_WAIT)))
}

/// A text of an answer as it may be logged: short, and without control characters.
pub(super) fn text(value: Option<&Value>) -> Box<str> {
    let text = value.and_then(Value::as_str).unwrap_or_default();
    text.chars().filter(|char| !char.is_control()).take(MOST_TEXT).collect::<String>().into()
}

/// A code of an answer: nothing but what codes are made of.
pub(super) fn code(value: Option<&Value>) -> Option<Box<str>> {
    let text = value?.as_str()?;
    let is_code = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b' ' | b'.');
    let fits = !text.is_empty() && text.len() <= 64 && text.bytes().all(is_code);
    fits.then(|| text.into())
}

/// The tokens of an answer (RFC 6749 §5.1). What is null is not there.
pub(super) fn tokens(answer: &Map<String, Value>) -> Result<Tokens, ProviderError> {
    let token = |name: &str| match answer.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) if is_token(text) => Ok(Some(Secret::new(text.clone()))),
        Some(_) => Err(unclear(&format!("`{name}` is no token"))),
    };
    match answer.get("token_type") {
        None | Some(Value::Null) => {}
        Some(Value::String(kind)) if kind.eq_ignore_ascii_case("bearer") => {}
        Some(_) => return Err(unclear("the token is no bearer token")),
    }
    let expires_in = match answer.get("expires_in") {
        None | Some(Value::Null) => None,
        // Some send it as text.
        Some(Value::String(text)) => text.parse().ok(),
        Some(value) => value.as_f64(),
    };
    let expires_in = expires_in.filter(|seconds: &f64| seconds.is_finite() && *seconds > 0.0);
    Ok(Tokens {
        access: token("access_token")?.ok_or_else(|| unclear("there is no access token"))?,
        refresh: token("refresh_token")?,
        id: token("id_token")?,
        // A century is as good as forever.
        expires_in: expires_in.map(|seconds| Duration::from_secs(seconds.min(3.2e9) as u64)),
        scope: answer.get("scope").and_then(Value::as_str).map(str::to_owned),
    })
}

impl Tokens {
    /// Reads the body of a token endpoint's good answer.
    pub fn parse(body: &[u8]) -> Result<Self, ProviderError> {
        tokens(&object(body)?)
    }
}

/// Visible ASCII: it must fit into a header, a form and a cookie.
fn is_token(text: &str) -> bool {
    text.len() <= MOST_TOKEN && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What asks; none where the system cannot have one.
pub(super) fn fetcher(fetcher: &Option<Fetcher>) -> Result<&Fetcher, ProviderError> {
    fetcher.as_ref().ok_or_else(|| ProviderError::Unavailable("nothing can be fetched from other servers".into()))
}
