//! Routes with `openapi: rewrite`: the upstream's document is read as a whole, and answered with our security in it.
//!
//! Pingora sends a head before it has seen the body, and ours depends on the body (length, entity tag, 304). So these
//! requests do not take its way: the document is fetched here, on a connection of its own.
//!
//! - The upstream is asked with GET, for identity encoding, without conditions and ranges, whatever the client said.
//! - A 200 of JSON that is an OpenAPI document of version 3 is rewritten. Its length and a strong entity tag are
//!   computed anew, `If-None-Match` is answered here, fields about the original bytes are removed.
//! - Other statuses, other content, and JSON that is no such document (Swagger 2.0) go to the client as they are.
//! - An answer of more than [`LIMIT`] bytes, JSON that cannot be read and a compressed document are 502: what would be
//!   passed on as it is would show what the policy hides.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_RANGES, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, EXPECT, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use parking_lot::Mutex;
use pingora::connectors::http::Connector;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::client::HttpSession;
use pingora::{Error, ErrorType, OkOrErr as _, Result};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::context::Passing;
use super::peer::{self, Addresses};
use super::{failure, response, upstream};
use crate::decision::{Denial, Permit, Reason};
use crate::openapi::{RewriteError, View, rewrite};
use crate::policy::document::AppId;
use crate::policy::set::{PolicySet, Revision};
use crate::request::host::Host;
use crate::response::Response;

/// The longest answer that is read.
const LIMIT: usize = 8 << 20;
/// So many answers are read at once.
const READING: usize = 16;
/// So many documents are rewritten at once.
const REWRITING: usize = 2;
/// So many rewritten documents are kept, unless they are longer than [`KEPT_LENGTH`].
const KEPT: usize = 32;
/// See [`KEPT`].
const KEPT_LENGTH: usize = 1 << 20;
/// So many addresses are tried.
const ATTEMPTS: usize = 3;
/// So many informational answers may come before the final one.
const INFORMATIONAL: usize = 8;

/// Fields about the connection, and about a body that is not sent.
const NOT_FORWARDED: [HeaderName; 17] = [
    ACCEPT,
    ACCEPT_ENCODING,
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    RANGE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Fields about the connection, in an answer.
const NOT_PASSED_ON: [HeaderName; 5] = [CONNECTION, CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// Fields about bytes that are no longer those.
const ABOUT_BYTES: [HeaderName; 9] = [
    ACCEPT_RANGES,
    CONTENT_ENCODING,
    CONTENT_RANGE,
    ETAG,
    LAST_MODIFIED,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("repr-digest"),
];

/// Fetches and rewrites documents, and remembers what it rewrote last.
pub(super) struct Documents {
    connector: Connector,
    reading: Semaphore,
    rewriting: Semaphore,
    kept: Mutex<HashMap<Original, Rewritten>>,
}

/// What a rewritten document was made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Original {
    digest: [u8; 32],
    revision: Revision,
    app: AppId,
    host: String,
}

/// A document to be answered.
#[derive(Clone, Debug)]
struct Rewritten {
    body: Bytes,
    etag: HeaderValue,
}

impl Default for Documents {
    fn default() -> Self {
        Self {
            connector: Connector::new(None),
            reading: Semaphore::new(READING),
            rewriting: Semaphore::new(REWRITING),
            kept: Mutex::default(),
        }
    }
}

impl fmt::Debug for Documents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Documents").finish_non_exhaustive()
    }
}

impl Documents {
    /// The answer to a permitted request with this head.
    pub(super) async fn answer(
        &self,
        asked: &RequestHeader,
        addresses: &Addresses,
        permit: &Permit,
        passing: &Passing,
    ) -> Result<Response, Denial> {
        let answer = timeout(permit.route().timeout, async {
            let _turn = self.reading.acquire().await.map_err(|_| failed("the gateway is stopping"))?;
            self.fetch(asked, addresses, permit, passing).await
        });
        let (mut head, body) = answer.await.map_err(|_| {
            Denial::new(Reason::GatewayTimeout, "the service behind the gateway did not answer in time")
        })??;

        for name in &NOT_PASSED_ON {
            head.remove_header(name);
        }
        if head.status.as_u16() == 200 && is_json(&head.headers) {
            if let Some(coding) = encoding(&head.headers) {
                return Err(nonsense(format!("the document is encoded ({coding}), although `identity` was asked for")));
            }
            if let Some(rewritten) = self.rewritten(permit, passing, &body).await? {
                return Ok(respond(head, rewritten, asked, passing));
            }
        }
        response::edit(&mut head, passing);
        Ok(Response { status: head.status.as_u16(), headers: head.headers.clone(), body })
    }

    /// The document that stands for `body`; `None` if it stays as it is.
    async fn rewritten(&self, permit: &Permit, passing: &Passing, body: &Bytes) -> Result<Option<Rewritten>, Denial> {
        let host = passing.forward.host.to_str().ok().and_then(|host| Host::parse(host).ok());
        let mut original = Original {
            digest: [0; 32],
            revision: permit.policy().revision,
            app: permit.route().app,
            host: host.map_or_else(String::new, |host| host.as_str().to_owned()),
        };
        original.digest.copy_from_slice(digest::digest(&digest::SHA256, body).as_ref());
        if let Some(rewritten) = self.kept.lock().get(&original) {
            return Ok(Some(rewritten.clone()));
        }
        let _turn = self.rewriting.acquire().await.map_err(|_| failed("the gateway is stopping"))?;
        let (policy, body, about) = (Arc::clone(permit.policy()), body.clone(), original.clone());
        let rewriting = tokio::task::spawn_blocking(move || rewritten(&policy, about.app, &about.host, &body));
        let Some(rewritten) = rewriting.await.map_err(|_| failed("rewriting the document failed"))?? else {
            tracing::warn!(
                decision.id = passing.id(),
                route = &*permit.route().key,
                "this is no OpenAPI document of version 3, and is passed on as it is"
            );
            return Ok(None);
        };
        if rewritten.body.len() <= KEPT_LENGTH {
            let mut kept = self.kept.lock();
            if kept.len() >= KEPT {
                kept.clear();
            }
            kept.insert(original, rewritten.clone());
        }
        Ok(Some(rewritten))
    }

    /// Connects to the first of the upstream's addresses that can be reached.
    async fn connect(&self, addresses: &Addresses, permit: &Permit, passing: &Passing) -> Result<HttpSession, Denial> {
        let mut attempt = 0;
        loop {
            let (peer, count) = peer::of(addresses, permit, passing, attempt, None).await?;
            attempt += 1;
            match self.connector.get_http_session(&peer).await {
                Ok((session, _)) => return Ok(session),
                Err(error) if attempt >= count.min(ATTEMPTS) => return Err(denial(&error.into_up())),
                Err(_) => {}
            }
        }
    }

    /// Asks the upstream.
    async fn fetch(
        &self,
        asked: &RequestHeader,
        addresses: &Addresses,
        permit: &Permit,
        passing: &Passing,
    ) -> Result<(ResponseHeader, Bytes), Denial> {
        let request = request(asked, permit, passing).map_err(|error| denial(&error))?;
        let mut session = self.connect(addresses, permit, passing).await?;
        session.set_read_timeout(Some(permit.route().timeout));
        session.set_write_timeout(Some(permit.route().timeout));
        let answer = async {
            session.write_request_header(Box::new(request)).await?;
            session.finish_request_body().await?;
            let mut head = None;
            for _ in 0..INFORMATIONAL {
                session.read_response_header().await?;
                head = session.response_header().cloned().filter(|head| !head.status.is_informational());
                if head.is_some() {
                    break;
                }
            }
            let head = head.or_err(ErrorType::InvalidHTTPHeader, "no final answer")?;
            let mut body = BytesMut::new();
            while let Some(piece) = session.read_response_body().await? {
                if body.len().saturating_add(piece.len()) > LIMIT {
                    return Ok(None);
                }
                body.extend_from_slice(&piece);
            }
            Ok(Some((head, body.freeze())))
        };
        let answer = answer.await;
        // One connection for each document: a pooled one may be closed by the time it is used.
        session.shutdown().await;
        answer
            .map_err(|error: Box<Error>| denial(&error.into_up()))?
            .ok_or_else(|| nonsense(format!("the answer has more than {LIMIT} bytes")))
    }
}

/// The head that goes upstream.
fn request(asked: &RequestHeader, permit: &Permit, passing: &Passing) -> Result<RequestHeader> {
    let mut request = asked.clone();
    let nominated: Vec<HeaderName> = asked
        .headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    for name in nominated.iter().chain(&NOT_FORWARDED) {
        request.remove_header(name);
    }
    request.set_method(Method::GET);
    upstream::write(&mut request, permit, passing, passing.id(), asked.version)?;
    request.set_version(Version::HTTP_11);
    request.insert_header(ACCEPT, "application/json")?;
    request.insert_header(ACCEPT_ENCODING, "identity")?;
    request.insert_header(CONNECTION, "close")?;
    Ok(request)
}

/// `None` if the document is none that is rewritten.
fn rewritten(policy: &PolicySet, app: AppId, host: &str, body: &[u8]) -> Result<Option<Rewritten>, Denial> {
    // The error says where, and may quote nothing but single characters.
    let document =
        serde_json::from_slice(body).map_err(|error| nonsense(format!("the document is no JSON: {error}")))?;
    let document = match rewrite(document, View { policy, app, host }) {
        Ok(document) => document,
        Err(RewriteError::NotOpenApi) => return Ok(None),
        Err(error @ RewriteError::TooLarge) => {
            return Err(nonsense(format!("the document cannot be rewritten: {error}")));
        }
    };
    let body = serde_json::to_vec(&document).map_err(|_| failed("the document cannot be written"))?;
    let mut etag = String::from("\"");
    for byte in digest::digest(&digest::SHA256, &body).as_ref().iter().take(16) {
        etag.push_str(&format!("{byte:02x}"));
    }
    etag.push('"');
    let etag = HeaderValue::try_from(etag).map_err(|_| failed("the entity tag cannot be written"))?;
    Ok(Some(Rewritten { body: body.into(), etag }))
}

/// The answer, or 304 to a client that has it.
fn respond(mut head: ResponseHeader, rewritten: Rewritten, asked: &RequestHeader, passing: &Passing) -> Response {
    for name in &ABOUT_BYTES {
        head.remove_header(name);
    }
    let is_known = matches(&asked.headers, &rewritten.etag);
    let _ = head.insert_header(ETAG, rewritten.etag);
    response::edit(&mut head, passing);
    let mut headers = head.headers.clone();
    if is_known {
        headers.remove(CONTENT_TYPE);
        return Response { status: 304, headers, body: Bytes::new() };
    }
    Response { status: 200, headers, body: rewritten.body }
}

/// Whether `If-None-Match` names this entity tag, or any (RFC 9110 §13.1.2: weakly compared).
fn matches(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    headers.get_all(IF_NONE_MATCH).iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii)
            .any(|given| given == b"*" || given.strip_prefix(b"W/").unwrap_or(given) == etag.as_bytes())
    })
}

/// `application/json` and `application/….+json`, whatever their parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type.strip_prefix("application/").is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

/// A content coding that is in force.
fn encoding(headers: &HeaderMap) -> Option<String> {
    let codings = headers.get_all(CONTENT_ENCODING).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    codings.map(|coding| coding.trim().to_ascii_lowercase()).find(|coding| !coding.is_empty() && coding != "identity")
}

fn denial(error: &Error) -> Denial {
    failure::denial(error).unwrap_or_else(|| failed("the gateway failed on this request"))
}

/// What the upstream answered cannot be served.
fn nonsense(cause: String) -> Denial {
    Denial::new(Reason::BadGateway, "the service behind the gateway does not answer with a usable document")
        .because(cause)
}

/// Our own fault.
fn failed(cause: &'static str) -> Denial {
    Denial::new(Reason::InternalServerError, "the gateway failed on this request").because(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(HeaderName, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn entity_tags_are_compared_weakly_and_in_lists() {
        let etag = HeaderValue::from_static("\"abc\"");
        for (value, expected) in [
            ("\"abc\"", true),
            ("W/\"abc\"", true),
            ("\"x\", \"abc\"", true),
            ("*", true),
            ("abc", false),
            ("\"ab\"", false),
            ("", false),
        ] {
            assert_eq!(matches(&headers(&[(IF_NONE_MATCH, value)]), &etag), expected, "{value}");
        }
        assert!(!matches(&HeaderMap::new(), &etag));
    }

    #[test]
    fn json_is_told_by_its_media_type() {
        for (value, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/vnd.oai.openapi+json;version=3.1", true),
            ("text/json", false),
            ("application/jsonp", false),
            ("text/html", false),
        ] {
            assert_eq!(is_json(&headers(&[(CONTENT_TYPE, value)])), expected, "{value}");
        }
    }
}
