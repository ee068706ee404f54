//! What the gateway answers itself: a [`Response`], its [`Problem`] body (RFC 9457) and the [`Challenge`]
//! of a 401 (RFC 6750, RFC 9110 §11.6.1).
//!
//! Values only. Which refusal becomes which answer is `pipeline/outcome.rs`; how an answer is written to a
//! connection is `proxy/respond.rs`.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, PRAGMA};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

/// The header that carries the decision's id on every refusal, so that a gateway's 403 can be told from the
/// app's.
pub const DECISION_HEADER: HeaderName = HeaderName::from_static("x-portcullis-decision");

/// The header in which clients of Supabase say which form of errors they know …
pub const SUPABASE_VERSION: HeaderName = HeaderName::from_static("x-supabase-api-version");
/// … and the first version (a date) of the newer form.
pub const SUPABASE_VERSIONED: &str = "2024-01-01";

/// A complete answer. `Content-Length` is added when it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// All fields but those that frame the message.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Response {
    /// An answer without fields or body.
    pub fn new(status: u16) -> Self {
        Self { status, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// An answer of plain text (UTF-8).
    pub fn text(status: u16, body: impl Into<Bytes>) -> Self {
        Self::new(status).with(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")).body(body)
    }

    /// An answer of JSON. A value that cannot be written as JSON is answered as 500 without a body.
    pub fn json(status: u16, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::new(status).with(CONTENT_TYPE, HeaderValue::from_static("application/json")).body(body),
            Err(_) => Self::new(500),
        }
    }

    /// The same answer with one more field.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// The same answer with this body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}

/// A refusal for machines and people (RFC 9457). It never names rules or conditions: those are in the log
/// under the decision's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem<'a> {
    /// The status code, repeated in the body.
    pub status: u16,
    /// The stable code, such as `access_denied`.
    pub code: &'a str,
    /// One sentence for people.
    pub detail: &'a str,
    /// The decision's id, or the empty string where nothing was decided.
    pub decision_id: &'a str,
}

impl Problem<'_> {
    /// As `application/problem+json`.
    pub fn respond(&self) -> Response {
        #[derive(Serialize)]
        struct Body<'a> {
            r#type: &'static str,
            title: &'a str,
            status: u16,
            #[serde(skip_serializing_if = "str::is_empty")]
            detail: &'a str,
            code: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            decision_id: &'a str,
        }
        let body = Body {
            r#type: "about:blank", // so the title is the status phrase (RFC 9457 §4.2.1)
            title: title(self.status),
            status: self.status,
            detail: self.detail,
            code: self.code,
            decision_id: self.decision_id,
        };
        self.finish(Response::json(self.status, &body), "application/problem+json")
    }

    /// As FastAPI's `HTTPException` does: `{"detail": "…"}`, for clients written against it.
    pub fn respond_like_fastapi(&self) -> Response {
        #[derive(Serialize)]
        struct Body<'a> {
            detail: &'a str,
        }
        let detail = if self.detail.is_empty() { title(self.status) } else { self.detail };
        self.finish(Response::json(self.status, &Body { detail }), "application/json")
    }

    /// As RFC 6749 §5.2 has it, for the endpoints of a login; `detail` is for front ends written against FastAPI.
    pub fn respond_like_oauth(&self) -> Response {
        #[derive(Serialize)]
        struct Body<'a> {
            error: &'a str,
            error_description: &'a str,
            detail: &'a str,
        }
        let error = match self.status {
            429 | 503 => "temporarily_unavailable",
            408 | 413 => "invalid_request",
            _ => self.code,
        };
        let detail = if self.detail.is_empty() { title(self.status) } else { self.detail };
        let body = Body { error, error_description: detail, detail };
        let mut response = self.finish(Response::json(self.status, &body), "application/json");
        response.headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
        response
    }

    /// As Supabase Auth does (`status` and `code` are its own): in its newer form where the request has a version of it
    /// that knows one.
    pub fn respond_like_supabase(&self, newer: bool) -> Response {
        #[derive(Serialize)]
        struct Older<'a> {
            code: u16,
            error_code: &'a str,
            msg: &'a str,
        }
        #[derive(Serialize)]
        struct Newer<'a> {
            code: &'a str,
            message: &'a str,
        }
        let response = if newer {
            Response::json(self.status, &Newer { code: self.code, message: self.detail })
                .with(SUPABASE_VERSION, HeaderValue::from_static(SUPABASE_VERSIONED))
        } else {
            Response::json(self.status, &Older { code: self.status, error_code: self.code, msg: self.detail })
        };
        let mut response = self.finish(response, "application/json");
        if let Ok(code) = HeaderValue::from_str(self.code) {
            response.headers.insert(HeaderName::from_static("x-sb-error-code"), code);
        }
        response
    }

    /// As gateways of APIs do: `{"message": "…"}`.
    pub fn respond_with_message(&self) -> Response {
        #[derive(Serialize)]
        struct Body<'a> {
            message: &'a str,
        }
        let message = if self.detail.is_empty() { title(self.status) } else { self.detail };
        self.finish(Response::json(self.status, &Body { message }), "application/json")
    }

    fn finish(&self, mut response: Response, media_type: &'static str) -> Response {
        response.headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        response.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if !self.decision_id.is_empty()
            && let Ok(id) = HeaderValue::from_str(self.decision_id)
        {
            response.headers.insert(DECISION_HEADER, id);
        }
        response
    }
}

/// The phrase of a status code (RFC 9110 §15), or the empty string.
pub fn title(status: u16) -> &'static str {
    StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("")
}

/// A `WWW-Authenticate: Bearer …` challenge.
///
/// ```text
/// challenge = "Bearer" SP param *( "," SP param )     param = name "=" quoted-string
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge(String);

impl Challenge {
    /// A challenge for `realm`, without an error: nothing was presented (RFC 6750 §3.1).
    pub fn bearer(realm: &str) -> Self {
        let mut challenge = Self(String::from("Bearer"));
        challenge.push(" realm", realm, |_| true);
        challenge
    }

    /// With the error code.
    #[must_use]
    pub fn error(mut self, code: &str) -> Self {
        self.push(", error", code, described);
        self
    }

    /// With a sentence for people; characters that RFC 6750 §3 does not allow there are left out.
    #[must_use]
    pub fn description(mut self, text: &str) -> Self {
        if !text.is_empty() {
            self.push(", error_description", text, described);
        }
        self
    }

    /// With the scopes that would be enough.
    #[must_use]
    pub fn scope<'a>(mut self, scopes: impl IntoIterator<Item = &'a str>) -> Self {
        let mut joined = String::new();
        for scope in scopes {
            if !joined.is_empty() {
                joined.push(' ');
            }
            joined.push_str(scope);
        }
        if !joined.is_empty() {
            self.push(", scope", &joined, described);
        }
        self
    }

    /// With any other parameter, such as `acr_values` or `max_age` (RFC 9470).
    #[must_use]
    pub fn parameter(mut self, name: &'static str, value: &str) -> Self {
        self.0.push_str(", ");
        self.push(name, value, |_| true);
        self
    }

    /// As a field value.
    pub fn to_value(&self) -> HeaderValue {
        // INVARIANT: only printable ASCII was pushed, so the fallback is never taken.
        HeaderValue::from_str(&self.0).unwrap_or(HeaderValue::from_static("Bearer"))
    }

    /// Adds `name="value"` as a quoted-string (RFC 9110 §5.6.4): printable ASCII only, `"` and `\` escaped.
    fn push(&mut self, name: &str, value: &str, allowed: fn(char) -> bool) {
        self.0.push_str(name);
        self.0.push_str("=\"");
        for character in value.chars().filter(|c| matches!(c, ' '..='~') && allowed(*c)) {
            if matches!(character, '"' | '\\') {
                self.0.push('\\');
            }
            self.0.push(character);
        }
        self.0.push('"');
    }
}

/// The characters of `error`, `error_description` and `scope` (RFC 6750 §3): %x20-21 / %x23-5B / %x5D-7E.
fn described(character: char) -> bool {
    !matches!(character, '"' | '\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_quoted_and_never_leaves_its_line() {
        let check = |challenge: Challenge, expect: &str| assert_eq!(challenge.to_value(), expect);
        check(Challenge::bearer("portcullis"), r#"Bearer realm="portcullis""#);
        check(Challenge::bearer("a\"b\\c\r\nX: y\u{e9}"), r#"Bearer realm="a\"b\\cX: y""#);
        check(
            Challenge::bearer("r").error("invalid_token").description("token has \"expired\"\n"),
            r#"Bearer realm="r", error="invalid_token", error_description="token has expired""#,
        );
        check(
            Challenge::bearer("r").error("insufficient_scope").scope(["items:write", "items:read"]),
            r#"Bearer realm="r", error="insufficient_scope", scope="items:write items:read""#,
        );
        check(Challenge::bearer("r").parameter("acr_values", "aal2"), r#"Bearer realm="r", acr_values="aal2""#);
    }

    #[test]
    fn a_problem_has_the_fields_of_rfc_9457_and_the_decision_id() {
        let problem = Problem { status: 403, code: "access_denied", detail: "not allowed", decision_id: "0193" };
        let response = problem.respond();
        assert_eq!(response.status, 403);
        assert_eq!(response.headers[CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers[&DECISION_HEADER], "0193");
        assert_eq!(
            std::str::from_utf8(&response.body).unwrap(),
            r#"{"type":"about:blank","title":"Forbidden","status":403,"detail":"not allowed","code":"access_denied","decision_id":"0193"}"#
        );
        let response = problem.respond_like_fastapi();
        assert_eq!(std::str::from_utf8(&response.body).unwrap(), r#"{"detail":"not allowed"}"#);
    }
}
