//! Why a request is refused.

use std::borrow::Cow;
use std::time::Duration;

use http::{Method, StatusCode};

use crate::identity::Caller;
use crate::identity::credential::CredentialError;
use crate::policy::document::AppId;
use crate::policy::formula::{Masks, Truth};
use crate::policy::set::{GuardId, RouteId};
use crate::request::RequestError;

/// The public reason of a refusal: one name, documented and never renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The request target is not canonical, or of a form that the app does not allow.
    InvalidTarget,
    /// Two credentials, a malformed `Authorization`, or a message with two readings.
    InvalidRequest,
    /// No credential, where one is needed.
    Unauthenticated,
    /// A credential that does not hold: expired, forged, for another audience, revoked.
    InvalidToken,
    /// A second factor, or a more recent authentication, is needed (RFC 9470).
    InsufficientUserAuthentication,
    /// Only scopes are missing (RFC 6750).
    InsufficientScope,
    /// Everything else that the policy refuses.
    AccessDenied,
    /// No route.
    NotFound,
    /// A path without this method.
    MethodNotAllowed,
    /// Too many requests.
    RateLimited,
    /// It cannot be decided now: keys or a store cannot be reached.
    Unavailable,
    /// The client was too slow.
    RequestTimeout,
    /// The body is too long.
    ContentTooLarge,
    /// The target is too long.
    UriTooLong,
    /// An `Expect` that is not `100-continue`.
    ExpectationFailed,
    /// The connection is for another host.
    MisdirectedRequest,
    /// Too many or too long header fields.
    RequestHeaderFieldsTooLarge,
    /// Our fault.
    InternalServerError,
    /// Not implemented by this build.
    NotImplemented,
    /// The upstream does not answer, or answers nonsense.
    BadGateway,
    /// The upstream is too slow.
    GatewayTimeout,
}

impl Reason {
    /// The code that clients and logs see.
    pub fn code(self) -> &'static str {
        match self {
            Self::InvalidTarget => "invalid_target",
            Self::InvalidRequest => "invalid_request",
            Self::Unauthenticated => "unauthenticated",
            Self::InvalidToken => "invalid_token",
            Self::InsufficientUserAuthentication => "insufficient_user_authentication",
            Self::InsufficientScope => "insufficient_scope",
            Self::AccessDenied => "access_denied",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
            Self::RequestTimeout => "request_timeout",
            Self::ContentTooLarge => "content_too_large",
            Self::UriTooLong => "uri_too_long",
            Self::ExpectationFailed => "expectation_failed",
            Self::MisdirectedRequest => "misdirected_request",
            Self::RequestHeaderFieldsTooLarge => "request_header_fields_too_large",
            Self::InternalServerError => "internal_server_error",
            Self::NotImplemented => "not_implemented",
            Self::BadGateway => "bad_gateway",
            Self::GatewayTimeout => "gateway_timeout",
        }
    }

    /// The status that goes with it. A set with `unmatched: 403` answers [`Reason::AccessDenied`] where there is
    /// no route.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidTarget | Self::InvalidRequest => 400,
            Self::Unauthenticated | Self::InvalidToken | Self::InsufficientUserAuthentication => 401,
            Self::InsufficientScope | Self::AccessDenied => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::ContentTooLarge => 413,
            Self::UriTooLong => 414,
            Self::ExpectationFailed => 417,
            Self::MisdirectedRequest => 421,
            Self::RateLimited => 429,
            Self::RequestHeaderFieldsTooLarge => 431,
            Self::InternalServerError => 500,
            Self::NotImplemented => 501,
            Self::BadGateway => 502,
            Self::Unavailable => 503,
            Self::GatewayTimeout => 504,
        }
    }

    /// Whether the answer carries `WWW-Authenticate`.
    pub fn is_challenge(self) -> bool {
        self.status() == 401 || matches!(self, Self::InsufficientScope)
    }
}

/// A refusal: what the client is told, and what the log keeps.
#[derive(Clone, Debug)]
pub struct Denial {
    /// The public reason.
    pub reason: Reason,
    /// What the client is told; names no rule and no condition.
    pub detail: Cow<'static, str>,
    /// For the log alone: e.g. the stable name of what was wrong with a target or a token.
    pub cause: Option<String>,
    /// `insufficient_scope`: the scopes that are missing.
    pub scopes: Vec<Box<str>>,
    /// 405: the methods of the path.
    pub allow: Vec<Method>,
    /// 429 and 503: when to come back.
    pub retry_after: Option<Duration>,
    /// The route, if one was chosen.
    pub route: Option<RouteId>,
    /// The app, if it is known.
    pub app: Option<AppId>,
    /// What the leaves said, if they were evaluated.
    pub masks: Option<Masks>,
    /// What decided, for log and tests: `guard tenant-isolation`, `scope items:write`,
    /// `unknown:path.id == user.id`.
    pub failed: Vec<String>,
    /// What guards in shadow mode said.
    pub shadow: Vec<(GuardId, Truth)>,
    /// Who asked, as far as it is known.
    pub caller: Caller,
}

impl Denial {
    /// A refusal without further data.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            cause: None,
            scopes: Vec::new(),
            allow: Vec::new(),
            retry_after: None,
            route: None,
            app: None,
            masks: None,
            failed: Vec::new(),
            shadow: Vec::new(),
            caller: Caller::Anonymous,
        }
    }

    /// Adds the cause, which only the log keeps.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Adds when to come back.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The status to answer with.
    pub fn status(&self) -> u16 {
        self.reason.status()
    }
}

impl From<RequestError> for Denial {
    fn from(error: RequestError) -> Self {
        let reason = match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Reason::ContentTooLarge,
            StatusCode::URI_TOO_LONG => Reason::UriTooLong,
            StatusCode::EXPECTATION_FAILED => Reason::ExpectationFailed,
            StatusCode::MISDIRECTED_REQUEST => Reason::MisdirectedRequest,
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Reason::RequestHeaderFieldsTooLarge,
            StatusCode::NOT_IMPLEMENTED => Reason::NotImplemented,
            StatusCode::REQUEST_TIMEOUT => Reason::RequestTimeout,
            _ => match error {
                RequestError::Target(_) => Reason::InvalidTarget,
                RequestError::Cookie(_) | RequestError::Framing(_) | RequestError::Host(_) => Reason::InvalidRequest,
            },
        };
        Self::new(reason, error.detail()).because(error.name())
    }
}

impl From<CredentialError> for Denial {
    fn from(error: CredentialError) -> Self {
        Self::new(Reason::InvalidRequest, error.detail()).because(error.name())
    }
}
