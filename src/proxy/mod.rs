//! Pingora: phases, peers, TLS, listeners; and any [`Endpoint`](crate::endpoint::Endpoint) on a listener of
//! its own (`side`).
//!
//! In: connections. Out: requests to upstreams, each with a permit of `decision`. Nothing is decided here,
//! and nothing but the bytes that were decided on goes upstream. Pingora's types stay in this folder and in
//! `server`.

mod body;
mod context;
mod failure;
mod fields;
mod frames;
mod head;
mod listen;
mod openapi;
mod peer;
mod respond;
mod response;
mod service;
mod side;
mod stream;
mod tls;
mod upstream;
mod websocket;

pub use listen::{ConnectionLimits, Stop};
pub use peer::Addresses;
pub use service::Gate;
pub use tls::{Certificate, TlsError};

pub(crate) use listen::Listener;
pub(crate) use side::Side;
