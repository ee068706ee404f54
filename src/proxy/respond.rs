//! Writing an answer of our own to a connection, keep-alive kept.
//!
//! Pingora's `respond_error` adds `Server: Pingora` and closes, which is expensive for a client whose token
//! expired. Here the connection stays open wherever the next request's first byte is certain.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;

use crate::response::Response;

/// A request body that nobody reads is thrown away up to this size; with a larger one (or an unknown one) the
/// connection is closed, so that it can never be read as a request (CVE-2025-4366).
const DISCARDED: u64 = 64 * 1024;

/// Writes the whole answer. `head_only` leaves the body out and keeps its `Content-Length` (HEAD).
pub(crate) async fn write(session: &mut ServerSession, response: Response, head_only: bool) -> Result<()> {
    discard_small_body(session);
    let Response { status, headers, body } = response;
    let mut header = ResponseHeader::build(status, Some(headers.len().saturating_add(3)))?;
    for (name, value) in &headers {
        header.append_header(name.clone(), value.clone())?;
    }
    if status >= 200 && status != 204 && status != 304 {
        header.insert_header(CONTENT_LENGTH, body.len())?;
    }
    session.write_response_header(Box::new(header)).await?;
    let body = if head_only { Bytes::new() } else { body };
    if body.is_empty() { session.finish_body().await } else { session.write_response_body(body, true).await }
}

/// Lets the connection live when the request's body is short enough to be thrown away.
fn discard_small_body(session: &mut ServerSession) {
    let request = session.req_header();
    let length = request.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    // Who asked for `100 Continue` may rightly never send the body.
    let small = length.is_some_and(|length| length <= DISCARDED) && !request.headers.contains_key(EXPECT);
    if small {
        session.set_close_on_response_before_downstream_finish(false);
        session.set_total_drain_timeout(Some(Duration::from_secs(2)));
    }
}
