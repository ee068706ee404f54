//! The shape of HTTP endpoints of our own: a whole request in, a whole response out.
//!
//! What implements [`Endpoint`] knows nothing of the server under it (`proxy/side.rs` serves it), and can be
//! called directly in a test. It deliberately does not stream and does not decide who may call: that is the
//! listener's address and the endpoint's own check.

use std::fmt;
use std::net::SocketAddr;

use async_trait::async_trait;
use bytes::Bytes;
use http::Request;

use crate::response::Response;

/// Who is connected, in the extensions of each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// Something that answers whole requests.
#[async_trait]
pub trait Endpoint: Send + Sync + fmt::Debug {
    /// The answer. `HEAD` is answered like `GET`; the server leaves the body out.
    async fn answer(&self, request: Request<Bytes>) -> Response;

    /// The largest request body, in bytes; a larger one is answered with 413 before `answer` is called.
    fn max_body(&self) -> usize {
        64 * 1024
    }
}
