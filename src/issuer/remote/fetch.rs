//! One fetch: from where an issuer's keys are to keys that may be used.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::{HeaderMap, StatusCode};

use crate::fetch::{FetchError, Fetched, Fetcher};
use crate::policy::issuer::{KeysAt, RemoteKeys};
use crate::provider::{Discovery, ProviderError};
use crate::token::jwks::{Jwks, KeyProblem, Origin};
use crate::token::key::{KeyError, KeySet};

/// The longest key set, in bytes.
const MOST: usize = 1024 * 1024;
/// The longest discovery document, in bytes.
const MOST_DISCOVERY: usize = 256 * 1024;
/// More usable keys than any issuer has.
const MOST_KEYS: usize = 64;

/// What was fetched.
#[derive(Debug)]
pub(super) struct Got {
    /// `None`: the issuer says that it publishes none.
    pub(super) keys: Option<Arc<KeySet>>,
    /// What they were read from.
    pub(super) body: Bytes,
    /// Keys that are not used.
    pub(super) ignored: Vec<KeyProblem>,
    /// How long the set may be used, if its server says so.
    pub(super) max_age: Option<Duration>,
}

/// Why no keys came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing came from there that could be keys: why.
    Unreachable(String),
    /// What came are no keys to use: why.
    Unusable(String),
}

impl Failure {
    /// Its name in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Unusable(_) => "unusable",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) | Self::Unusable(why) => f.write_str(why),
        }
    }
}

/// Fetches an issuer's keys. `discovery` is the document that is known; it is read again where `anew` says so, and kept
/// where no other can be had.
pub(super) async fn keys(
    fetcher: &Fetcher,
    settings: &RemoteKeys,
    discovery: &mut Option<Arc<Discovery>>,
    anew: bool,
) -> Result<Got, Failure> {
    let url: Box<str> = match &settings.at {
        KeysAt::Url(url) => url.clone(),
        KeysAt::Discovery(issuer) => {
            if anew || discovery.is_none() {
                match discover(fetcher, issuer).await {
                    Ok(found) => *discovery = Some(Arc::new(found)),
                    Err(Failure::Unreachable(_)) if discovery.is_some() => {}
                    Err(failure) => return Err(failure),
                }
            }
            let Some(discovery) = discovery else { return Err(Failure::Unusable("nothing was discovered".to_owned())) };
            discovery.keys().map_err(|error| Failure::Unusable(error.to_string()))?.into()
        }
    };
    let fetched = document(fetcher, &url, MOST).await?;
    let max_age = max_age(&fetched.headers);
    let unusable = |why: String| Failure::Unusable(format!("{url}: {why}"));
    match Jwks::parse(&fetched.body, Origin::Published, settings.algorithms) {
        Ok(Jwks { keys, .. }) if keys.iter().count() > MOST_KEYS => {
            Err(unusable(format!("more than {MOST_KEYS} usable keys")))
        }
        Ok(Jwks { keys, ignored }) => Ok(Got { keys: Some(Arc::new(keys)), body: fetched.body, ignored, max_age }),
        Err(problems) => match problems.as_slice() {
            [KeyProblem { error: KeyError::NoUsableKey, .. }] if settings.may_be_empty => {
                Ok(Got { keys: None, body: fetched.body, ignored: Vec::new(), max_age })
            }
            problems => {
                let problems: Vec<String> = problems.iter().take(3).map(ToString::to_string).collect();
                Err(unusable(problems.join("; ")))
            }
        },
    }
}

async fn discover(fetcher: &Fetcher, issuer: &str) -> Result<Discovery, Failure> {
    let url = Discovery::url(issuer);
    let fetched = document(fetcher, &url, MOST_DISCOVERY).await?;
    Discovery::parse(issuer, &fetched.body).map_err(|error| match error {
        ProviderError::Unavailable(why) => Failure::Unreachable(format!("{url}: {why}")),
        error => Failure::Unusable(format!("{url}: {error}")),
    })
}

async fn document(fetcher: &Fetcher, url: &str, most: usize) -> Result<Fetched, Failure> {
    match fetcher.get(url, most).await {
        Ok(fetched) if fetched.status == StatusCode::OK => Ok(fetched),
        Ok(Fetched { status, .. }) => {
            let redirect = if status.is_redirection() { ", and redirects are not followed" } else { "" };
            Err(Failure::Unreachable(format!("{url}: the answer is {}{redirect}", status.as_u16())))
        }
        Err(error @ FetchError::TooLarge(_)) => Err(Failure::Unusable(format!("{url}: {error}"))),
        Err(error) => Err(Failure::Unreachable(format!("{url}: {error}"))),
    }
}

/// How long an answer may be used (RFC 9111 §5.2.2): `None` where nothing readable is said.
pub fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let directives = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut shortest: Option<Duration> = None;
    for directive in directives.flat_map(|text| text.split(',')) {
        let directive = directive.trim().to_ascii_lowercase();
        let seconds = match directive.split_once('=') {
            Some(("max-age", seconds)) => seconds.trim_matches('"').parse().ok().map(Duration::from_secs),
            None if matches!(directive.as_str(), "no-store" | "no-cache") => Some(Duration::ZERO),
            _ => None,
        };
        shortest = [shortest, seconds].into_iter().flatten().min();
    }
    shortest
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn how_long_an_answer_may_be_used() {
        for (lines, expected) in [
            (&[][..], None),
            (&["public, max-age=600"], Some(600)),
            (&["MAX-AGE=\"60\""], Some(60)),
            (&["max-age=600", "no-cache"], Some(0)),
            (&["max-age=60, max-age=600"], Some(60)),
            (&["no-store"], Some(0)),
            (&["max-age=-1"], None),
            (&["max-age=99999999999999999999"], None),
            (&["s-maxage=60, x=max-age"], None),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(CACHE_CONTROL, HeaderValue::from_static(line));
            }
            assert_eq!(max_age(&headers), expected.map(Duration::from_secs), "{lines:?}");
        }
    }
}
