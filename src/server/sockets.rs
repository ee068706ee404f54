//! Binding the listening sockets, before anything else starts.
//!
//! A port that is taken is an error of the start with the address in it, and port 0 (tests) gives its real
//! address. Pingora would retry for half a minute and then panic in a task.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Connections that wait to be accepted; the system may have a lower limit.
const QUEUE: i32 = 4096;

/// A bound, listening socket.
#[derive(Debug)]
pub struct Socket {
    listener: TcpListener,
    address: SocketAddr,
}

impl Socket {
    /// Binds `address` and listens.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let refused = |cause| BindError { address, cause };
        let listener = TcpListener::bind(address).map_err(refused)?;
        // The standard library's queue holds 128: with more at once, the next ones would be kept waiting for a second.
        rustix::net::listen(&listener, QUEUE).map_err(|error| refused(error.into()))?;
        listener.set_nonblocking(true).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Self { listener, address })
    }

    /// The real address, also where port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Hands the socket to the running runtime.
    pub(crate) fn into_tokio(self) -> io::Result<tokio::net::TcpListener> {
        tokio::net::TcpListener::from_std(self.listener)
    }
}

/// An address that cannot be listened on.
#[derive(Debug)]
pub struct BindError {
    /// The address that was asked for.
    pub address: SocketAddr,
    /// What the system said.
    pub cause: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, cause } = self;
        match cause.kind() {
            io::ErrorKind::AddrInUse => write!(f, "cannot listen on {address}: the port is in use by another program"),
            io::ErrorKind::PermissionDenied => {
                write!(f, "cannot listen on {address}: not permitted (ports below 1024 need the right to bind them)")
            }
            _ => write!(f, "cannot listen on {address}: {cause}"),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_an_error_that_names_the_address() {
        let first = Socket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let error = Socket::bind(first.address()).unwrap_err().to_string();
        assert_eq!(error, format!("cannot listen on {}: the port is in use by another program", first.address()));
    }
}
