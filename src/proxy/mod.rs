//! Pingora: phases, peers, TLS, listeners; and any [`Endpoint`](crate::endpoint::Endpoint) on a listener of
//! its own (`side`).
//!
//! In: connections. Out: requests to upstreams, each with a permit of `decision`. Nothing is decided here,
//! and nothing but the bytes that were decided on goes upstream. Pingora's types stay in this folder and in
//! `server`.

mod listen;
mod respond;
mod side;
mod stream;

pub use listen::{ConnectionLimits, Stop};
