//! Refusals of the token endpoint in the form of RFC 6749 §5.2.

use std::fmt;
use std::time::Duration;

use http::header::{CACHE_CONTROL, PRAGMA, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue};
use serde::Serialize;

use crate::response::Response;
use crate::store::StoreError;

/// What is said of every login that failed, whatever the reason: who asks learns neither which accounts exist nor which
/// are locked or disabled.
pub const BAD_CREDENTIALS: &str = "Incorrect username or password";

/// Why a token endpoint refuses. Texts are constants: nothing that the client sent is repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OAuthError {
    /// `invalid_grant` of a login: unknown, wrong, disabled, locked and without a password are one answer.
    BadCredentials,
    /// `invalid_grant` of a refresh token that is unknown, used, over, or whose user is gone.
    InvalidGrant,
    /// `invalid_grant` of a login that a provider refused, for a reason that may be said.
    Refused(&'static str),
    /// 400 `invalid_grant`: the password is right, and the address or number must be confirmed first.
    NotConfirmed(&'static str),
    /// `invalid_request`: what about it is wrong.
    InvalidRequest(&'static str),
    /// `invalid_scope`: malformed, more than was granted, or nothing is left.
    InvalidScope(&'static str),
    /// Too often: how long to wait.
    RateLimited(Duration),
    /// The body is too long.
    TooLarge,
    /// It cannot be decided now: a store, a key or a place to hash is not to be had. Never a "no".
    Unavailable(Duration),
    /// `unsupported_grant_type`.
    UnsupportedGrantType,
    /// `unsupported_token_type` (RFC 7009 §2.2.1): a valid token that this endpoint cannot end.
    UnsupportedTokenType,
}

/// The wait that is proposed when a store or key is not to be had.
const AGAIN: Duration = Duration::from_secs(5);

impl OAuthError {
    /// A store or key is not to be had.
    pub const fn unavailable() -> Self {
        Self::Unavailable(AGAIN)
    }

    /// The code of the specification, never renamed.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadCredentials | Self::InvalidGrant | Self::Refused(_) | Self::NotConfirmed(_) => "invalid_grant",
            Self::InvalidRequest(_) | Self::TooLarge => "invalid_request",
            Self::InvalidScope(_) => "invalid_scope",
            Self::RateLimited(_) | Self::Unavailable(_) => "temporarily_unavailable",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::UnsupportedTokenType => "unsupported_token_type",
        }
    }

    /// One sentence for people, in the characters that RFC 6749 §5.2 allows.
    pub fn description(&self) -> &'static str {
        match self {
            Self::BadCredentials => BAD_CREDENTIALS,
            Self::InvalidGrant => "The refresh token is not valid",
            Self::InvalidRequest(what) | Self::InvalidScope(what) | Self::Refused(what) | Self::NotConfirmed(what) => {
                what
            }
            Self::RateLimited(_) => "Too many attempts, try again later",
            Self::TooLarge => "The body is too long",
            Self::Unavailable(_) => "The service is not available at the moment, try again later",
            Self::UnsupportedGrantType => "The grant type is not supported",
            Self::UnsupportedTokenType => "This token cannot be revoked here",
        }
    }

    /// The status. With `errors: fastapi` a bad password is 401, as in FastAPI's tutorial; otherwise 400, which every
    /// client reads (oauth4webapi hides the body of a 401 that has a challenge).
    pub fn status(&self, like_fastapi: bool) -> u16 {
        match self {
            Self::BadCredentials | Self::Refused(_) | Self::NotConfirmed(_) if like_fastapi => 401,
            Self::RateLimited(_) => 429,
            Self::TooLarge => 413,
            Self::Unavailable(_) => 503,
            Self::BadCredentials
            | Self::InvalidGrant
            | Self::Refused(_)
            | Self::NotConfirmed(_)
            | Self::InvalidRequest(_)
            | Self::InvalidScope(_)
            | Self::UnsupportedGrantType
            | Self::UnsupportedTokenType => 400,
        }
    }

    /// The answer. `detail` repeats the description for front ends written against FastAPI.
    pub fn respond(&self, like_fastapi: bool) -> Response {
        #[derive(Serialize)]
        struct Body {
            error: &'static str,
            error_description: &'static str,
            detail: &'static str,
        }
        let detail = self.description();
        let status = self.status(like_fastapi);
        let mut response =
            uncached(Response::json(status, &Body { error: self.code(), error_description: detail, detail }));
        if status == 401 {
            // Never `Basic`: browsers would show their own dialog.
            response.headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Self::RateLimited(wait) | Self::Unavailable(wait) = self {
            // Whole seconds, rounded up: a client that comes back then finds room.
            let seconds = wait.as_millis().div_ceil(1000).max(1).to_string();
            if let Ok(value) = HeaderValue::try_from(seconds) {
                response.headers.insert(RETRY_AFTER, value);
            }
        }
        response
    }
}

/// The same answer, to be kept by nobody (RFC 6749 §5.1).
pub fn uncached(mut response: Response) -> Response {
    let mut set = |name: HeaderName, value| drop(response.headers.insert(name, HeaderValue::from_static(value)));
    set(CACHE_CONTROL, "no-store");
    set(PRAGMA, "no-cache");
    response
}

impl From<StoreError> for OAuthError {
    /// A store that fails never says "no".
    fn from(_: StoreError) -> Self {
        Self::unavailable()
    }
}

impl fmt::Display for OAuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code(), self.description())
    }
}

impl std::error::Error for OAuthError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_status_code_and_fields() {
        let wait = Duration::from_millis(1500);
        for (error, status, code, retry) in [
            (OAuthError::BadCredentials, 400, "invalid_grant", None),
            (OAuthError::InvalidGrant, 400, "invalid_grant", None),
            (OAuthError::Refused("x"), 400, "invalid_grant", None),
            (OAuthError::InvalidRequest("x"), 400, "invalid_request", None),
            (OAuthError::InvalidScope("x"), 400, "invalid_scope", None),
            (OAuthError::RateLimited(wait), 429, "temporarily_unavailable", Some("2")),
            (OAuthError::TooLarge, 413, "invalid_request", None),
            (OAuthError::Unavailable(Duration::ZERO), 503, "temporarily_unavailable", Some("1")),
            (OAuthError::UnsupportedGrantType, 400, "unsupported_grant_type", None),
            (OAuthError::UnsupportedTokenType, 400, "unsupported_token_type", None),
        ] {
            let response = error.respond(false);
            let field = |name: HeaderName| response.headers.get(name).and_then(|value| value.to_str().ok());
            assert_eq!(response.status, status, "{error}");
            assert_eq!(field(RETRY_AFTER), retry, "{error}");
            assert_eq!((field(CACHE_CONTROL), field(PRAGMA)), (Some("no-store"), Some("no-cache")));
            assert_eq!(field(http::header::CONTENT_TYPE), Some("application/json"));
            assert_eq!(field(WWW_AUTHENTICATE), None);
            let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
            assert_eq!(body["error"], code);
            assert_eq!(body["error_description"], body["detail"]);
            assert!(error.description().bytes().all(|byte| matches!(byte, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e)));
        }
    }

    #[test]
    fn fastapi_clients_see_a_bad_password_as_401_with_the_same_body() {
        let (usual, fastapi) = (OAuthError::BadCredentials.respond(false), OAuthError::BadCredentials.respond(true));
        assert_eq!((usual.status, fastapi.status), (400, 401));
        assert_eq!(fastapi.headers[WWW_AUTHENTICATE], "Bearer");
        assert_eq!(usual.body, fastapi.body);
        assert_eq!(
            usual.body,
            r#"{"error":"invalid_grant","error_description":"Incorrect username or password","detail":"Incorrect username or password"}"#
        );
        assert_eq!(OAuthError::InvalidGrant.respond(true).status, 400);
    }
}
