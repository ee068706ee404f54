//! OpenID Connect: codes and refresh tokens become tokens; where browsers are sent. Tokens are introspected (RFC 7662).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderName, Method};
use serde_json::{Map, Value};

use crate::fetch::{Fetched, Fetcher};
use crate::policy::set::{Introspection, OidcClient};
use crate::secret::Secret;

use super::answer::{self, FORM, busy, code, object, request, text, unclear};
use super::discovery::{self, Discovery};
use super::error::ProviderError;
use super::url::{form, with_query};
use super::{Pkce, Tokens};

/// The longest answer of a token endpoint, in bytes.
const MOST_TOKENS: usize = 256 * 1024;
/// The longest answer about a token, in bytes.
const MOST_CLAIMS: usize = 64 * 1024;

/// Speaks OpenID Connect and token introspection.
#[derive(Clone)]
pub struct Oidc {
    fetcher: Option<Fetcher>,
}

/// A login that a browser is sent away for.
#[derive(Clone, Copy, Debug)]
pub struct Authorization<'a> {
    /// Where the browser comes back to, exactly.
    pub redirect_uri: &'a str,
    /// What must come back with it.
    pub state: &'a str,
    /// What must be in the ID token.
    pub nonce: &'a str,
    /// The challenge of [`Pkce`].
    pub challenge: &'a str,
}

impl Oidc {
    /// A client that asks through this fetcher. Without one nobody can be reached.
    pub fn new(fetcher: impl Into<Option<Fetcher>>) -> Self {
        Self { fetcher: fetcher.into() }
    }

    /// The discovery document of an issuer (OpenID Connect Discovery §4).
    pub async fn discover(&self, issuer: &str) -> Result<Discovery, ProviderError> {
        let fetched = answer::fetcher(&self.fetcher)?.get(&Discovery::url(issuer), discovery::MOST).await?;
        match fetched.status.as_u16() {
            200 => Discovery::parse(issuer, &fetched.body),
            status => Err(ProviderError::Unavailable(format!("the discovery document: status {status}").into())),
        }
    }

    /// Where a browser is sent to sign in (OpenID Connect Core §3.1.2.1).
    pub fn authorize_url(
        discovery: &Discovery,
        client: &OidcClient,
        login: &Authorization<'_>,
    ) -> Result<String, ProviderError> {
        let missing = "the discovery document names no `authorization_endpoint`";
        let endpoint = discovery.authorization_endpoint.as_deref();
        let endpoint = endpoint.ok_or_else(|| ProviderError::Misconfigured(missing.into()))?;
        let parameters = [
            ("response_type", "code"),
            ("client_id", &*client.client_id),
            ("redirect_uri", login.redirect_uri),
            ("scope", &client.scopes.join(" ")),
            ("state", login.state),
            ("nonce", login.nonce),
            ("code_challenge", login.challenge),
            ("code_challenge_method", "S256"),
        ];
        Ok(with_query(endpoint, &parameters))
    }

    /// Redeems a code. It is sent once, however that ends.
    pub async fn exchange(
        &self,
        discovery: &Discovery,
        client: &OidcClient,
        code: &str,
        pkce: &Pkce,
        redirect_uri: &str,
    ) -> Result<Tokens, ProviderError> {
        let parameters = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri),
            ("code_verifier", pkce.verifier.expose()),
        ];
        self.token(discovery, client, &parameters).await
    }

    /// Goes on with a refresh token. It is sent once; what follows it is in the answer, where it is replaced.
    pub async fn refresh(
        &self,
        discovery: &Discovery,
        client: &OidcClient,
        refresh_token: &str,
    ) -> Result<Tokens, ProviderError> {
        let parameters = [("grant_type", "refresh_token"), ("refresh_token", refresh_token)];
        self.token(discovery, client, &parameters).await
    }

    /// Where a browser is sent to sign out at the provider too (OpenID Connect RP-Initiated Logout); `None` where the
    /// provider has no such place.
    pub fn end_session_url(
        discovery: &Discovery,
        client: &OidcClient,
        id_token: Option<&str>,
        redirect_uri: &str,
    ) -> Option<String> {
        let mut parameters = vec![("client_id", &*client.client_id), ("post_logout_redirect_uri", redirect_uri)];
        parameters.extend(id_token.map(|token| ("id_token_hint", token)));
        Some(with_query(discovery.end_session_endpoint.as_deref()?, &parameters))
    }

    async fn token(
        &self,
        discovery: &Discovery,
        client: &OidcClient,
        parameters: &[(&str, &str)],
    ) -> Result<Tokens, ProviderError> {
        let missing = "the discovery document names no `token_endpoint`";
        let endpoint = discovery.token_endpoint.as_deref();
        let endpoint = endpoint.ok_or_else(|| ProviderError::Misconfigured(missing.into()))?;
        let mut parameters = parameters.to_vec();
        let mut headers = Vec::new();
        let authorization = match &client.client_secret {
            Some(secret) if !discovery.secret_in_body => Some(basic(&client.client_id, secret)),
            secret => {
                parameters.push(("client_id", &client.client_id));
                parameters.extend(secret.iter().map(|secret| ("client_secret", secret.expose().as_str())));
                None
            }
        };
        headers.extend(authorization.iter().map(|value| (AUTHORIZATION, value.expose().as_str())));
        let fetched = self.post(endpoint, &headers, &parameters, MOST_TOKENS).await?;
        Tokens::parse(&fetched.body)
    }

    /// What an issuer says about a token (RFC 7662): its claims, or nothing where it is worth nothing.
    pub async fn introspect(
        &self,
        issuer: &Introspection,
        token: &str,
    ) -> Result<Option<Map<String, Value>>, ProviderError> {
        let authorization = basic(&issuer.client_id, &issuer.client_secret);
        let headers = [(AUTHORIZATION, authorization.expose().as_str())];
        let parameters = [("token", token), ("token_type_hint", "access_token")];
        let fetched = match self.post(&issuer.url, &headers, &parameters, MOST_CLAIMS).await {
            // A token of a kind that is not asked about there (RFC 7009 §2.2.1): it is worth nothing, and nobody is away.
            Err(ProviderError::Refused { status: 400, code, .. }) if *code == *"unsupported_token_type" => {
                return Ok(None);
            }
            answered => answered?,
        };
        introspected(&fetched.body)
    }

    /// Sends a form and takes a good answer.
    async fn post(
        &self,
        url: &str,
        headers: &[(HeaderName, &str)],
        parameters: &[(&str, &str)],
        most: usize,
    ) -> Result<Fetched, ProviderError> {
        let request = request(Method::POST, url, headers, Some((FORM, form(parameters))))?;
        let fetched = answer::fetcher(&self.fetcher)?.send(request, most).await?;
        if fetched.status.as_u16() == 200 { Ok(fetched) } else { Err(refusal(&fetched)) }
    }
}

/// Reads the body of a good answer about a token (RFC 7662 §2.2): its claims, or nothing where it is worth nothing.
pub fn introspected(body: &[u8]) -> Result<Option<Map<String, Value>>, ProviderError> {
    let claims = object(body)?;
    match claims.get("active") {
        Some(Value::Bool(true)) => Ok(Some(claims)),
        Some(Value::Bool(false)) => Ok(None),
        _ => Err(unclear("`active` is neither true nor false")),
    }
}

/// `client_secret_basic`: both are encoded like a form first (RFC 6749 §2.3.1).
fn basic(client_id: &str, secret: &Secret<String>) -> Secret<String> {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = zeroize::Zeroizing::new(format!("{}:{}", encode(client_id), encode(secret.expose())));
    Secret::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())))
}

/// What a refusal means (RFC 6749 §5.2). Only a code that speaks about what was presented is one.
fn refusal(fetched: &Fetched) -> ProviderError {
    let status = fetched.status.as_u16();
    match status {
        409 | 429 => return busy(&fetched.headers),
        400..=499 => {}
        _ => return answer::status(status),
    }
    let body = object(&fetched.body).unwrap_or_default();
    let code = code(body.get("error"));
    let unknown = |why: &str| ProviderError::Misconfigured(format!("it does not accept the gateway: {why}").into());
    match code.as_deref() {
        Some(
            code @ ("invalid_client"
            | "unauthorized_client"
            | "unsupported_grant_type"
            | "invalid_scope"
            | "invalid_target"),
        ) => unknown(code),
        Some("temporarily_unavailable" | "server_error") => answer::status(status),
        Some("slow_down") => busy(&fetched.headers),
        Some(code) => {
            ProviderError::Refused { status, code: code.into(), description: text(body.get("error_description")) }
        }
        None if status == 401 => unknown("status 401"),
        None => answer::status(status),
    }
}

impl fmt::Debug for Oidc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Oidc").finish_non_exhaustive()
    }
}
