//! The request's body on its way: counted, and not slower than a person can type.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::context::{Context, Passing};
use super::stream::RATE;
use crate::decision::{Denial, Reason};

/// The largest form that a login reads …
const MOST: usize = 16 * 1024;
/// … and the time in which it must have come.
const WHOLE: Duration = Duration::from_secs(10);

/// A body over HTTP/2 may come slowly for this long, and then needs [`RATE`].
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads a whole body that we answer ourselves, or must understand before it is forwarded (then it is kept, and
/// forwarded as it came).
pub(super) async fn whole(session: &mut Session) -> Result<Bytes, Denial> {
    let session = session.as_downstream_mut();
    session.enable_retry_buffering();
    let expects = session.req_header().headers.contains_key(http::header::EXPECT);
    if expects && session.req_header().version == http::Version::HTTP_11 {
        let _ = session.write_continue_response().await;
    }
    let mut body = BytesMut::new();
    let read = async {
        loop {
            match session.read_request_body().await {
                Ok(Some(chunk)) if body.len().saturating_add(chunk.len()) > MOST => {
                    return Err(Denial::new(Reason::ContentTooLarge, "the body is longer than 16 KiB"));
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => return Ok(()),
                Err(_) => return Err(Denial::new(Reason::InvalidRequest, "the request body is malformed")),
            }
        }
    };
    match tokio::time::timeout(WHOLE, read).await {
        Ok(read) => read.map(|()| body.freeze()),
        Err(_) => Err(Denial::new(Reason::RequestTimeout, "the request body did not arrive in time")),
    }
}

/// Judges one piece of a body.
pub(super) fn count(session: &mut Session, body: Option<&Bytes>, end: bool, context: &mut Context) -> Result<()> {
    let Some(passing) = context.passing_mut() else { return Ok(()) };
    passing.received = passing.received.saturating_add(body.map_or(0, |body| body.len() as u64));
    if session.was_upgraded() {
        return open_until(session, passing);
    }
    let limit = passing.permit().and_then(|permit| permit.route().max_body);
    if limit.is_some_and(|limit| passing.received > limit) {
        let denial = Denial::new(Reason::ContentTooLarge, "the body is longer than this resource admits");
        context.failure = Some(denial.because("content_too_large"));
        return Err(Error::explain(ErrorType::HTTPStatus(413), "request body over the limit").into_down());
    }
    let elapsed = passing.started.elapsed();
    // HTTP/1: the connection counts what it waits, which also sees what never becomes a piece.
    let slow = session.is_http2() && elapsed > PATIENCE && passing.received < elapsed.as_secs().saturating_mul(RATE);
    if slow && !end {
        context.failure = Some(Denial::new(Reason::RequestTimeout, "the request body came too slowly"));
        return Err(Error::explain(ErrorType::HTTPStatus(408), "request body too slow").into_down());
    }
    Ok(())
}

/// Ends a WebSocket whose time is over; otherwise no read may wait past that time.
pub(super) fn open_until(session: &mut Session, passing: &Passing) -> Result<()> {
    let Some(closes) = passing.closes else { return Ok(()) };
    let left = closes.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Error::explain(ErrorType::ReadTimedout, "the socket's time is over").into_down());
    }
    session.set_read_timeout(Some(left));
    Ok(())
}
