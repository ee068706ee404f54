//! Small documents from other servers: key sets, discovery documents, the answers of a health check.
//!
//! In: a request and a limit in bytes. Out: status, headers and a body that fits the limit, or a [`FetchError`] that says
//! in words what is wrong, an expired certificate above all. Everything has a time limit.
//!
//! What a server says does not lead anywhere else: redirects are handed back and not followed, nothing is sent a second
//! time, no proxy of the environment is asked, and nothing is decompressed. Nothing is cached or interpreted here.

mod error;

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{DATE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};

use crate::clock::Timestamp;

pub use self::error::FetchError;

/// How long a connection may take to come up.
const CONNECT: Duration = Duration::from_secs(2);
/// How long the whole exchange may take.
const TOTAL: Duration = Duration::from_secs(5);

/// Whom a [`Fetcher`] trusts, and how long it waits.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a connection may take to come up.
    pub connect: Duration,
    /// How long the whole exchange may take, the body included.
    pub total: Duration,
    /// Certificates (PEM) of authorities that are trusted instead of the system's.
    pub ca: Option<Vec<u8>>,
    /// Certificates are not verified: only for a look at what an upstream that is configured so answers.
    pub danger_insecure: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { connect: CONNECT, total: TOTAL, ca: None, danger_insecure: false }
    }
}

/// Fetches. Cheap to clone; connections are kept for a while.
#[derive(Clone, Debug)]
pub struct Fetcher(reqwest::Client);

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The status; a redirect is one like any other.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// How long it took.
    pub took: Duration,
}

impl Fetcher {
    /// A fetcher. The process's TLS provider must be installed.
    pub fn new(options: &Options) -> Result<Self, FetchError> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(FetchError::Unusable("no TLS provider is installed".to_owned()));
        }
        let mut builder = reqwest::Client::builder()
            .connect_timeout(options.connect)
            .timeout(options.total)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .pool_idle_timeout(Duration::from_secs(30))
            .tls_danger_accept_invalid_certs(options.danger_insecure);
        if let Some(pem) = &options.ca {
            let certificates = reqwest::Certificate::from_pem_bundle(pem)
                .map_err(|_| FetchError::Unusable("the CA certificates are not PEM".to_owned()))?;
            builder = builder.tls_certs_only(certificates);
        }
        builder.build().map(Self).map_err(|error| FetchError::Unusable(error::deepest(&error)))
    }

    /// Asks for a document of at most `most` bytes.
    pub async fn get(&self, url: &str, most: usize) -> Result<Fetched, FetchError> {
        let request = Request::builder().method(Method::GET).uri(url).body(Bytes::new());
        self.send(request.map_err(|_| FetchError::Url)?, most).await
    }

    /// Sends a request and takes an answer of at most `most` bytes.
    pub async fn send(&self, request: Request<Bytes>, most: usize) -> Result<Fetched, FetchError> {
        let started = Instant::now();
        let mut request = reqwest::Request::try_from(request).map_err(|_| FetchError::Url)?;
        let agent = HeaderValue::from_static(concat!("portcullis/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().entry(USER_AGENT).or_insert(agent);
        let mut response = self.0.execute(request).await.map_err(|error| FetchError::of(&error))?;
        let limit = u64::try_from(most).unwrap_or(u64::MAX);
        if response.content_length().is_some_and(|length| length > limit) {
            return Err(FetchError::TooLarge(most));
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| FetchError::of(&error))? {
            if body.len().saturating_add(chunk.len()) > most {
                return Err(FetchError::TooLarge(most));
            }
            body.extend_from_slice(&chunk);
        }
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        Ok(Fetched { status, headers, body: body.freeze(), took: started.elapsed() })
    }
}

impl Fetched {
    /// The server's clock (`Date`), where it says one.
    pub fn date(&self) -> Option<Timestamp> {
        let text = self.headers.get(DATE)?.to_str().ok()?;
        let date = jiff::fmt::rfc2822::parse(text).ok()?;
        Some(Timestamp::from_millis(date.timestamp().as_millisecond()))
    }
}

#[cfg(test)]
impl Fetcher {
    /// One with little patience, for tests.
    pub(crate) fn impatient() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Self::new(&Options { total: Duration::from_millis(600), ..Options::default() }).unwrap()
    }
}

#[cfg(test)]
mod tests;
