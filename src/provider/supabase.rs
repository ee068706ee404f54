//! Supabase Auth: JSON in, JSON out, in both of its forms of errors.

use std::fmt;
use std::net::IpAddr;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, Method};
use serde_json::{Map, Value, json};

use crate::fetch::{Fetched, Fetcher};
use crate::policy::set::SupabaseProject;
use crate::secret::Secret;

use super::answer::{self, JSON, busy, code, object, request, text, unclear};
use super::error::ProviderError;
use super::url::with_query;
use super::{Pkce, Tokens};

/// The longest answer, in bytes: a user may have much metadata.
const MOST: usize = 1024 * 1024;

const KEY: HeaderName = HeaderName::from_static("apikey");
const VERSION: HeaderName = HeaderName::from_static("x-supabase-api-version");
const CLIENT: HeaderName = HeaderName::from_static("x-forwarded-for");
const CLIENT_BY_KEY: HeaderName = HeaderName::from_static("sb-forwarded-for");
const ERROR_CODE: &str = "x-sb-error-code";

/// Since this version errors have a code in words.
const API_VERSION: &str = "2024-01-01";

/// A bearer that is nobody's, and no key: no edge puts another in its place.
pub const NOBODY: &str = "Bearer anonymous";

/// Speaks with Supabase Auth.
#[derive(Clone)]
pub struct Supabase {
    fetcher: Option<Fetcher>,
}

/// A session as Supabase Auth gave it out.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its tokens.
    pub tokens: Tokens,
    /// The user.
    pub user: Map<String, Value>,
    /// All of it, as it came.
    pub json: Secret<String>,
}

/// What a sign-up led to.
#[derive(Clone, Debug)]
pub enum SignedUp {
    /// The user is signed in.
    Session(Box<Session>),
    /// The user must confirm the address first. It is said so to everybody, also where there is an account already.
    Confirm,
}

/// What Supabase Auth says about the session of an access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It lives, and is of the user with this id.
    Live(Box<str>),
    /// It has ended, for this reason.
    Ended(Box<str>),
}

/// What a user is called by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account<'a> {
    /// An address with `@`.
    Email(&'a str),
    /// Digits (E.164), without the plus sign.
    Phone(&'a str),
}

impl<'a> Account<'a> {
    /// What a name is; `None` where nobody can have it.
    pub fn parse(name: &'a str) -> Option<Self> {
        if name.contains('@') {
            return Some(Self::Email(name));
        }
        let digits = name.strip_prefix('+').unwrap_or(name);
        let is_number = (7..=15).contains(&digits.len())
            && !digits.starts_with('0')
            && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then_some(Self::Phone(digits))
    }
}

impl Session {
    /// Reads the body of a good answer that begins or renews a session.
    pub fn parse(body: &[u8]) -> Result<Self, ProviderError> {
        session(body, object(body)?)
    }
}

impl Supabase {
    /// A client that asks through this fetcher. Without one nobody can be reached.
    pub fn new(fetcher: impl Into<Option<Fetcher>>) -> Self {
        Self { fetcher: fetcher.into() }
    }

    /// Signs in with a password. `from` is the user's own address, for the project's limits.
    pub async fn password(
        &self,
        project: &SupabaseProject,
        from: Option<IpAddr>,
        account: Account<'_>,
        password: &str,
    ) -> Result<Session, ProviderError> {
        let body = match account {
            Account::Email(email) => json!({ "email": email, "password": password }),
            Account::Phone(phone) => json!({ "phone": phone, "password": password }),
        };
        self.session(project, from, "token?grant_type=password", &body).await
    }

    /// Goes on with a refresh token. It is sent once; the answer has the next one.
    pub async fn refresh(
        &self,
        project: &SupabaseProject,
        from: Option<IpAddr>,
        refresh_token: &str,
    ) -> Result<Session, ProviderError> {
        self.session(project, from, "token?grant_type=refresh_token", &json!({ "refresh_token": refresh_token })).await
    }

    /// Redeems a code that a browser came back with. It is sent once.
    pub async fn pkce(
        &self,
        project: &SupabaseProject,
        from: Option<IpAddr>,
        code: &str,
        pkce: &Pkce,
    ) -> Result<Session, ProviderError> {
        let body = json!({ "auth_code": code, "code_verifier": pkce.verifier.expose() });
        self.session(project, from, "token?grant_type=pkce", &body).await
    }

    /// Signs up. With `redirect_to` a confirmation by mail leads there, with a code for the challenge.
    pub async fn sign_up(
        &self,
        project: &SupabaseProject,
        from: Option<IpAddr>,
        (email, password): (&str, &str),
        redirect_to: Option<(&str, &Pkce)>,
    ) -> Result<SignedUp, ProviderError> {
        let mut body = json!({ "email": email, "password": password });
        let mut path = "signup".to_owned();
        if let Some((redirect_to, pkce)) = redirect_to {
            path = with_query(&path, &[("redirect_to", redirect_to)]);
            if let Some(body) = body.as_object_mut() {
                body.insert("code_challenge".to_owned(), json!(pkce.challenge));
                body.insert("code_challenge_method".to_owned(), json!("s256"));
            }
        }
        let fetched = self.post(project, from, &path, None, Some(&body)).await?;
        let answer = object(&fetched.body)?;
        if answer.contains_key("access_token") {
            return Ok(SignedUp::Session(Box::new(session(&fetched.body, answer)?)));
        }
        match answer.get("id").or_else(|| answer.get("user")?.get("id")) {
            Some(Value::String(_)) => Ok(SignedUp::Confirm),
            _ => Err(unclear("neither a session nor a user")),
        }
    }

    /// Ends sessions: `local` is the one of the token, `others` all but that, `global` all of the user.
    pub async fn logout(&self, project: &SupabaseProject, access: &str, scope: &str) -> Result<(), ProviderError> {
        let path = with_query("logout", &[("scope", scope)]);
        self.post(project, None, &path, Some(access), None).await.map(drop)
    }

    /// Whether the session of an access token still lives.
    pub async fn user(&self, project: &SupabaseProject, access: &str) -> Result<Liveness, ProviderError> {
        let fetched = self.send(project, None, Method::GET, "user", Some(access), None).await?;
        if fetched.status.as_u16() != 200 {
            let error = refusal(&fetched);
            return match error {
                ProviderError::Refused { status: 403, code, .. } if has_ended(&code) => Ok(Liveness::Ended(code)),
                error => Err(error),
            };
        }
        match object(&fetched.body)?.get("id") {
            Some(Value::String(id)) if !id.is_empty() => Ok(Liveness::Live(id.as_str().into())),
            _ => Err(unclear("the user has no id")),
        }
    }

    /// Where a browser is sent to sign in with a provider of the project.
    pub fn authorize_url(
        project: &SupabaseProject,
        provider: &str,
        redirect_to: &str,
        challenge: &str,
        scopes: Option<&str>,
    ) -> String {
        let mut parameters = vec![("provider", provider), ("redirect_to", redirect_to)];
        parameters.extend(scopes.map(|scopes| ("scopes", scopes)));
        parameters.extend([("code_challenge", challenge), ("code_challenge_method", "s256")]);
        with_query(&url(project, "authorize"), &parameters)
    }

    async fn session(
        &self,
        project: &SupabaseProject,
        from: Option<IpAddr>,
        path: &str,
        body: &Value,
    ) -> Result<Session, ProviderError> {
        let fetched = self.post(project, from, path, None, Some(body)).await?;
        Session::parse(&fetched.body)
    }

    /// Sends JSON and takes a good answer.
    async fn post(
        &self,
        project: &SupabaseProject,
        from: Option<IpAddr>,
        path: &str,
        bearer: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Fetched, ProviderError> {
        let fetched = self.send(project, from, Method::POST, path, bearer, body).await?;
        if fetched.status.is_success() { Ok(fetched) } else { Err(refusal(&fetched)) }
    }

    async fn send(
        &self,
        project: &SupabaseProject,
        from: Option<IpAddr>,
        method: Method,
        path: &str,
        bearer: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Fetched, ProviderError> {
        let address = from.map(|address| address.to_canonical().to_string());
        let mut headers = vec![(VERSION, API_VERSION)];
        let mut key = project.key.as_ref();
        if let Some(address) = &address {
            headers.push((CLIENT, address));
            // Believed by a hosted project with a secret key alone.
            if let Some(secret) = &project.forward_client_ip {
                headers.push((CLIENT_BY_KEY, address));
                key = Some(secret);
            }
        }
        headers.extend(key.map(|key| (KEY, key.expose().as_str())));
        let bearer = bearer.map(|token| zeroize::Zeroizing::new(format!("Bearer {token}")));
        // Without one, an edge puts the rights of the key in its place; with those of the secret key no captcha is asked for.
        let lent = address.is_some() && project.forward_client_ip.is_some();
        let bearer = bearer.as_ref().map(|bearer| bearer.as_str()).or_else(|| lent.then_some(NOBODY));
        headers.extend(bearer.map(|bearer| (AUTHORIZATION, bearer)));
        let body = body.map(|body| (JSON, body.to_string()));
        let request = request(method, &url(project, path), &headers, body)?;
        Ok(answer::fetcher(&self.fetcher)?.send(request, MOST).await?)
    }
}

fn url(project: &SupabaseProject, path: &str) -> String {
    format!("{}/auth/v1/{path}", project.url)
}

fn session(body: &[u8], answer: Map<String, Value>) -> Result<Session, ProviderError> {
    let tokens = answer::tokens(&answer)?;
    let json = String::from_utf8(body.to_vec()).map_err(|_| unclear("not text"))?;
    let mut answer = answer;
    let user = match answer.remove("user") {
        Some(Value::Object(user)) => user,
        _ => Map::new(),
    };
    Ok(Session { tokens, user, json: Secret::new(json) })
}

/// Codes that say for certain that a session is over.
fn has_ended(code: &str) -> bool {
    matches!(code, "session_not_found" | "session_expired" | "user_banned" | "user_not_found" | "bad_jwt")
}

/// Codes that say nothing about the user, whatever their status: something behind the server was slow or broken.
fn is_outage(code: &str) -> bool {
    matches!(code, "unexpected_failure" | "request_timeout" | "service_unavailable") || code.starts_with("hook_")
}

/// What a refusal means. One without a code is none: something before Supabase Auth answered.
fn refusal(fetched: &Fetched) -> ProviderError {
    let status = fetched.status.as_u16();
    match status {
        409 | 429 => return busy(&fetched.headers),
        400..=499 => {}
        _ => return answer::status(status),
    }
    let body = object(&fetched.body).unwrap_or_default();
    match error_code(&fetched.headers, &body) {
        Some(code) if is_outage(&code) => ProviderError::Unavailable(format!("status {status} ({code})").into()),
        Some(code) => {
            let words = ["msg", "message", "error_description"].iter().find_map(|name| body.get(*name));
            ProviderError::Refused { status, code, description: text(words) }
        }
        None if status == 401 => ProviderError::Misconfigured("the project does not accept the key".into()),
        None if status == 404 => ProviderError::Misconfigured("there is no Supabase Auth at this URL".into()),
        None => answer::status(status),
    }
}

/// The code of a refusal: in a member of its own, as `code`, as `error` (OAuth), or in a header. Very old servers have
/// only a text.
fn error_code(headers: &HeaderMap, body: &Map<String, Value>) -> Option<Box<str>> {
    let in_header = || {
        let value = headers.get(ERROR_CODE)?.to_str().ok()?;
        code(Some(&Value::String(value.to_owned())))
    };
    let old = || (body.get("code")?.is_number() && body.get("msg")?.is_string()).then(|| "unknown".into());
    code(body.get("error_code"))
        .or_else(|| code(body.get("code")))
        .or_else(|| code(body.get("error")))
        .or_else(in_header)
        .or_else(old)
}

impl fmt::Debug for Supabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supabase").finish_non_exhaustive()
    }
}
