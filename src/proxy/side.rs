//! Any [`Endpoint`] on a listener of its own: the admin listener, the demo's sample API.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Method, Request};
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use tokio::time::timeout;

use super::listen::KEEP_ALIVE;
use super::respond;
use super::stream::Guarded;
use crate::endpoint::{Endpoint, PeerAddr};
use crate::response::{Problem, Response};

/// The time for a whole request body.
const BODY: Duration = Duration::from_secs(10);

/// Serves one [`Endpoint`].
#[derive(Debug)]
pub(crate) struct Side {
    endpoint: Arc<dyn Endpoint>,
}

impl Side {
    pub(crate) fn new(endpoint: Arc<dyn Endpoint>) -> Self {
        Self { endpoint }
    }

    async fn answer(&self, session: &mut ServerSession) -> Response {
        let body = match timeout(BODY, read(session, self.endpoint.max_body())).await {
            Ok(Ok(body)) => body,
            Ok(Err(response)) => return response,
            Err(_) => return refuse(408, "request_timeout", "the request body did not arrive in time"),
        };
        let head = session.req_header();
        let mut request = Request::new(body);
        request.method_mut().clone_from(&head.method);
        request.uri_mut().clone_from(&head.uri);
        request.headers_mut().clone_from(&head.headers);
        *request.version_mut() = head.version;
        if let Some(address) = peer(session) {
            request.extensions_mut().insert(PeerAddr(address));
        }
        self.endpoint.answer(request).await
    }
}

#[async_trait]
impl HttpServerApp for Side {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let mut closing = shutdown.clone();
        let read = tokio::select! {
            biased;
            read = session.read_request() => read,
            _ = closing.wait_for(|closing| *closing) => return None,
        };
        match read {
            Ok(true) => {}
            Ok(false) => return None,
            Err(_) => {
                let response = refuse(400, "invalid_request", "the request is malformed");
                session.set_keepalive(None);
                let _ = respond::write(&mut session, response, false).await;
                session.shutdown().await;
                return None;
            }
        }
        head_done(&session);
        if *shutdown.borrow() {
            session.set_keepalive(None);
        } else if session.get_keepalive() == Some(0) {
            session.set_keepalive(Some(KEEP_ALIVE)); // 0 is without end
        }
        session.set_write_timeout(Some(Duration::from_secs(30)));
        let response = self.answer(&mut session).await;
        let head_only = session.req_header().method == Method::HEAD;
        respond::write(&mut session, response, head_only).await.ok()?;
        let settings = HttpPersistentSettings::for_session(&session);
        let reusable = session.finish().await.ok().flatten()?;
        Some(ReusedHttpStream::from_reusable_stream(reusable, settings))
    }
}

async fn read(session: &mut ServerSession, max: usize) -> Result<Bytes, Response> {
    let too_large = || refuse(413, "content_too_large", "the request body is too large");
    let mut body = BytesMut::new();
    loop {
        match session.read_request_body().await {
            Ok(Some(chunk)) if body.len().saturating_add(chunk.len()) > max => return Err(too_large()),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body.freeze()),
            Err(_) => return Err(refuse(400, "invalid_request", "the request body is malformed")),
        }
    }
}

fn refuse(status: u16, code: &str, detail: &str) -> Response {
    Problem { status, code, detail, decision_id: "" }.respond()
}

/// Tells the connection that a request's head is complete, which ends its deadline, and whether a body follows.
pub(crate) fn head_done(session: &ServerSession) {
    if let Some(guarded) = guarded(session) {
        let fields = &session.req_header().headers;
        guarded.head_done(fields.contains_key(CONTENT_LENGTH) || fields.contains_key(TRANSFER_ENCODING));
    }
}

/// Tells the connection that a request was received to its end.
pub(crate) fn body_done(session: &ServerSession) {
    if let Some(guarded) = guarded(session) {
        guarded.body_done();
    }
}

/// The connection under an HTTP/1 session.
pub(crate) fn guarded(session: &ServerSession) -> Option<&Guarded> {
    session.stream().and_then(|stream| (**stream).as_any().downcast_ref())
}

/// Who is connected.
pub(crate) fn peer(session: &ServerSession) -> Option<SocketAddr> {
    session.client_addr().and_then(|address| address.as_inet()).copied()
}
