//! Connections for upgrades, and a race that they lose without us.
//!
//! Pingora 0.9.1 (`proxy_h1.rs::proxy_handle_upstream`) waits for the answer and for the end of the request's
//! (empty) body in one `select!`. Should the 101 be there first, which happens whenever the machine is busy, the
//! body's end that comes after it is taken for the end of the *tunnel*, and the socket is closed as soon as it
//! was opened. [`Patient`] makes connections whose first reads after a write come a moment later: by then the
//! body's end, which is already queued, has been taken.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora::connectors::l4::Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::{Error, ErrorType, OrErr, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How many turns of its task a read waits after a write.
const TURNS: u8 = 2;

/// Connects to upstreams for upgrades.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patient {
    /// The time to connect.
    pub(super) patience: Duration,
}

#[async_trait]
impl Connect for Patient {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let Some(address) = address.as_inet() else {
            return Error::e_explain(ErrorType::ConnectError, "not an internet address");
        };
        let stream = match timeout(self.patience, TcpStream::connect(address)).await {
            Ok(connected) => connected.or_err(ErrorType::ConnectError, "upstream not connected")?,
            Err(_) => return Error::e_explain(ErrorType::ConnectTimedout, "upstream not connected in time"),
        };
        stream.set_nodelay(true).or_err(ErrorType::SocketError, "nodelay")?;
        Ok(VirtualSocketStream::new(Box::new(Later { stream, turns: 0 })).into())
    }
}

/// A stream whose reads come a little later than its writes.
#[derive(Debug)]
struct Later {
    stream: TcpStream,
    turns: u8,
}

impl VirtualSocket for Later {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.stream.set_nodelay(true),
            _ => Ok(()), // none other is configured
        }
    }
}

impl AsyncRead for Later {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.turns > 0 {
            self.turns -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Later {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.turns = TURNS;
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
