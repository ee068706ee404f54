//! Composition: what the other parts are, put together and run.

pub mod crypto;
mod shutdown;
mod sockets;
mod system;

pub use sockets::{BindError, Socket};
pub use system::{SystemClock, SystemRandom};
