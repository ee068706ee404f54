//! From a refusal to the answer: the one place where status, fields and body are chosen.

use std::time::Duration;

use http::header::{ALLOW, CACHE_CONTROL, LOCATION, RETRY_AFTER, VARY, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::id::DecisionId;
use super::limit::Limited;
use super::{cors, edge};
use crate::decision::{Denial, Reason};
use crate::policy::set::{App, OnUnauthenticated, PolicySet, Route};
use crate::request::head::RequestHead;
use crate::request::target::Target;
use crate::response::{Challenge, DECISION_HEADER, Problem, Response};

/// The realm of a challenge where no app was found.
const REALM: &str = "portcullis";

/// What a parameter of a query may hold as it is: unreserved characters.
const PARAMETER: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The longest place to come back to, in bytes.
const LONGEST: usize = 2048;

/// The answer to a refused request.
pub(super) fn respond(
    denial: &Denial,
    limited: Option<Limited>,
    policy: &PolicySet,
    id: &DecisionId,
    head: &RequestHead<'_>,
    resource_metadata: Option<&str>,
) -> Response {
    let app = denial.app.and_then(|app| policy.app(app));
    let problem = Problem {
        status: denial.status(),
        code: denial.reason.code(),
        detail: &denial.detail,
        decision_id: id.as_str(),
    };
    let fastapi = app.map_or_else(
        || !policy.apps.is_empty() && policy.apps.iter().all(|app| app.errors_fastapi),
        |app| app.errors_fastapi,
    );
    let route = denial.route.and_then(|route| policy.route(route));
    if let Some(redirect) = route.zip(app).and_then(|(route, app)| redirect(denial, route, app, id, head)) {
        return redirect;
    }
    let like_supabase = || edge::refusal(route?.edge?, denial, id.as_str(), head);
    let mut response = if let Some(response) = like_supabase() {
        response
    } else if route.is_some_and(|route| route.login || route.own().is_some()) {
        problem.respond_like_oauth()
    } else if fastapi {
        Problem { detail: fastapi_detail(denial), ..problem }.respond_like_fastapi()
    } else {
        problem.respond()
    };
    let mut set = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers.insert(name, value);
        }
    };
    match denial.reason {
        Reason::RateLimited => {
            let wait = seconds(denial.retry_after.unwrap_or_default()).to_string();
            set(RETRY_AFTER, wait.clone());
            if let Some(limited) = limited {
                set(HeaderName::from_static("ratelimit-limit"), limited.count.to_string());
                set(HeaderName::from_static("ratelimit-remaining"), "0".to_owned());
                set(HeaderName::from_static("ratelimit-reset"), wait);
            }
        }
        Reason::Unavailable => set(RETRY_AFTER, seconds(denial.retry_after.unwrap_or_default()).to_string()),
        Reason::MethodNotAllowed => {
            let methods: Vec<&str> = denial.allow.iter().map(http::Method::as_str).collect();
            set(ALLOW, methods.join(", "));
        }
        Reason::InvalidRequest
        | Reason::Unauthenticated
        | Reason::InvalidToken
        | Reason::InsufficientUserAuthentication
        | Reason::InsufficientScope
        | Reason::InvalidTarget
        | Reason::AccessDenied
        | Reason::NotFound
        | Reason::RequestTimeout
        | Reason::ContentTooLarge
        | Reason::UriTooLong
        | Reason::ExpectationFailed
        | Reason::MisdirectedRequest
        | Reason::RequestHeaderFieldsTooLarge
        | Reason::InternalServerError
        | Reason::NotImplemented
        | Reason::BadGateway
        | Reason::GatewayTimeout => {}
    }
    if let Some(challenge) = challenge(denial, app.map_or(REALM, |app| &app.realm)) {
        let challenge = match resource_metadata {
            Some(url) => challenge.parameter("resource_metadata", url), // RFC 9728 §5.1
            None => challenge,
        };
        response.headers.insert(WWW_AUTHENTICATE, challenge.to_value());
    }
    if let Some(cors) = app.and_then(|app| app.cors.as_ref())
        && let Some(origin) = cors::allowed_origin(cors, head)
    {
        cors::mark(cors, origin, |name, value| {
            response.headers.insert(name, value);
        });
    }
    response
}

/// The texts of FastAPI's own security tools, which clients written against them look for.
fn fastapi_detail(denial: &Denial) -> &str {
    match denial.reason {
        Reason::Unauthenticated => "Not authenticated",
        Reason::InvalidToken => "Could not validate credentials",
        Reason::InsufficientScope | Reason::AccessDenied => "Not enough permissions",
        _ => &denial.detail,
    }
}

/// The challenge that goes with a refusal (RFC 6750 §3, RFC 9470 §3).
fn challenge(denial: &Denial, realm: &str) -> Option<Challenge> {
    let bearer = Challenge::bearer(realm);
    match denial.reason {
        // Nothing was presented, so there is no error to name.
        Reason::Unauthenticated => Some(bearer),
        Reason::InvalidToken => Some(bearer.error("invalid_token").description(&denial.detail)),
        // A message with two readings is no matter of credentials, two credentials are; these have a route.
        Reason::InvalidRequest => denial.route.map(|_| bearer.error("invalid_request").description(&denial.detail)),
        Reason::InsufficientUserAuthentication => {
            let error = bearer.error("insufficient_user_authentication").description(&denial.detail);
            Some(error.parameter("acr_values", "aal2"))
        }
        Reason::InsufficientScope => {
            Some(bearer.error("insufficient_scope").scope(denial.scopes.iter().map(AsRef::as_ref)))
        }
        Reason::InvalidTarget
        | Reason::AccessDenied
        | Reason::NotFound
        | Reason::MethodNotAllowed
        | Reason::RateLimited
        | Reason::Unavailable
        | Reason::RequestTimeout
        | Reason::ContentTooLarge
        | Reason::UriTooLong
        | Reason::ExpectationFailed
        | Reason::MisdirectedRequest
        | Reason::RequestHeaderFieldsTooLarge
        | Reason::InternalServerError
        | Reason::NotImplemented
        | Reason::BadGateway
        | Reason::GatewayTimeout => None,
    }
}

/// Whole seconds, rounded up: a client that comes back then finds room.
pub(super) fn seconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis().div_ceil(1000).max(1)).unwrap_or(u64::MAX)
}

/// Where a browser is sent that wants to see a page and is nobody (`on_unauthenticated: redirect`). Programs get the
/// refusal: they could do nothing with a page.
fn redirect(denial: &Denial, route: &Route, app: &App, id: &DecisionId, head: &RequestHead<'_>) -> Option<Response> {
    if !matches!(denial.reason, Reason::Unauthenticated | Reason::InvalidToken) || !head.is_navigation() {
        return None;
    }
    let target = Target::parse(head).ok()?;
    let back = || utf8_percent_encode(way_back(&target), PARAMETER).to_string();
    let location = match &route.on_unauthenticated {
        OnUnauthenticated::Challenge => return None,
        OnUnauthenticated::Login => format!("{}?return_to={}", app.login.as_ref()?.paths.login.as_deref()?, back()),
        OnUnauthenticated::To(page) => page.replace("{path}", &back()),
    };
    // A page that itself asks for a login would lead to itself for ever.
    if location.split(['?', '#']).next() == Some(target.path()) {
        return None;
    }
    let response = Response::new(303)
        .with(LOCATION, HeaderValue::try_from(location).ok()?)
        .with(CACHE_CONTROL, HeaderValue::from_static("no-store"))
        .with(VARY, HeaderValue::from_static("accept, authorization, cookie, sec-fetch-mode, x-requested-with"));
    Some(response.with(DECISION_HEADER, HeaderValue::from_str(id.as_str()).ok()?))
}

/// Path and query of the same origin. What a browser would read as another origin leads to `/`.
fn way_back(target: &Target) -> &str {
    let ways = [target.forwarded(), target.path()];
    let is_ours = |way: &&str| way.len() <= LONGEST && !way.starts_with("//") && !way.contains('\\');
    ways.into_iter().find(is_ours).unwrap_or("/")
}
