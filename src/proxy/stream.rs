//! One accepted connection, as Pingora reads and writes it.
//!
//! Pingora limits each *read* of a request head and nothing else: a client that sends a byte a minute keeps a
//! connection (and up to 1 MiB of head) for as long as it likes. [`Guarded`] gives the whole head one
//! deadline and one size, answers 408, 414 or 431 itself when they are passed, and gathers small writes, so
//! that head and body of an answer leave in one segment.
//!
//! It also keeps each request line as it came: Pingora *repairs* one that does not parse (`GET /a b HTTP/1.1`
//! becomes `/a%20b`), and what it shows afterwards as received is the repaired text.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

/// How much is gathered before it is written.
const GATHERED: usize = 8 * 1024;

/// How long, and how many reads, a closed connection is still read from.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_READS: usize = 4096;

/// A request line that is longer has a target that is too long.
const LINE: usize = 16 * 1024;
/// So many lines are not read to their end; Pingora would answer 400 from its 256th field on.
const LINES: usize = 200;

const TIMED_OUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\nCache-Control: no-store\r\n\r\n";
const TOO_LONG: &[u8] =
    b"HTTP/1.1 414 URI Too Long\r\nContent-Length: 0\r\nConnection: close\r\nCache-Control: no-store\r\n\r\n";
const TOO_LARGE: &[u8] = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\nCache-Control: no-store\r\n\r\n";

/// Where a connection stands, shared between the stream and who reads requests from it.
#[derive(Debug)]
pub(crate) struct Head {
    phase: AtomicU8,
    first: AtomicBool,
    deadline: Duration,
    max_bytes: usize,
}

/// Between two requests: nothing was received yet, the keep-alive time limits the wait.
const WAITING: u8 = 0;
/// Within a request head: one deadline for all of it.
const READING: u8 = 1;
/// The head is complete, or the connection speaks HTTP/2: other limits apply.
const OPEN: u8 = 2;

impl Head {
    /// For a connection that was just accepted: the first head's deadline begins now.
    pub(crate) fn new(deadline: Duration, max_bytes: usize) -> Arc<Self> {
        Arc::new(Self { phase: AtomicU8::new(READING), first: AtomicBool::new(true), deadline, max_bytes })
    }

    /// The next request is about to be read.
    pub(crate) fn begin(&self) {
        if !self.first.swap(false, Ordering::Relaxed) {
            self.phase.store(WAITING, Ordering::Release);
        }
    }

    /// The head is complete.
    pub(crate) fn done(&self) {
        self.phase.store(OPEN, Ordering::Release);
    }
}

/// A connection with a deadline for request heads and a write buffer.
pub(crate) struct Guarded {
    inner: Stream,
    head: Arc<Head>,
    started: Instant,
    read: usize,
    timer: Option<Pin<Box<Sleep>>>,
    /// The request line with its line end, as far as it came.
    line: Vec<u8>,
    /// Lines of the head so far.
    lines: usize,
    /// Whether the last byte ended a line.
    at_line_start: bool,
    out: Vec<u8>,
    written: usize,
}

impl Guarded {
    pub(crate) fn new(inner: Stream, head: Arc<Head>) -> Self {
        let (line, out) = (Vec::new(), Vec::new());
        let started = Instant::now();
        Self { inner, head, started, read: 0, timer: None, line, lines: 0, at_line_start: true, out, written: 0 }
    }

    /// The request head is complete, body and answer follow.
    pub(crate) fn head_done(&self) {
        self.head.done();
    }

    /// The request line as it came, without its line end.
    pub(crate) fn request_line(&self) -> &[u8] {
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        line.strip_suffix(b"\r").unwrap_or(line)
    }

    /// Keeps the request line (empty lines before it do not count, RFC 9112 §2.2) and counts lines until the head
    /// ends. Whether there are too many.
    fn look_at(&mut self, received: &[u8]) -> bool {
        for piece in received.split_inclusive(|byte| *byte == b'\n') {
            let has_line = self.line.ends_with(b"\n");
            if has_line && self.at_line_start && matches!(piece, b"\r\n" | b"\n") {
                break; // a body follows
            }
            if !has_line {
                self.line.extend_from_slice(piece);
                if matches!(self.line.as_slice(), b"\r\n" | b"\n") {
                    self.line.clear();
                }
            }
            self.at_line_start = piece.ends_with(b"\n");
            self.lines = self.lines.saturating_add(usize::from(self.at_line_start));
        }
        self.lines > LINES
    }

    fn refuse(&mut self, cx: &mut Context<'_>, answer: &[u8]) -> Poll<io::Result<()>> {
        // Best effort: who does not read this either is closed on.
        if self.inner.selected_alpn_proto() != Some(ALPN::H2)
            && Pin::new(&mut self.inner).poll_write(cx, answer).is_ready()
        {
            let _ = Pin::new(&mut self.inner).poll_flush(cx);
        }
        Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut)))
    }

    fn poll_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.out.get(self.written..)
            && !rest.is_empty()
        {
            let n = ready!(Pin::new(&mut self.inner).poll_write(cx, rest))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n;
        }
        self.out.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Guarded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let phase = this.head.phase.load(Ordering::Acquire);
        if phase == OPEN {
            this.timer = None;
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        }
        if phase == READING && this.read >= this.head.max_bytes {
            return this.refuse(cx, TOO_LARGE);
        }
        if phase == READING && this.line.len() > LINE && !this.line.ends_with(b"\n") {
            return this.refuse(cx, TOO_LONG);
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.inner).poll_read(cx, buf) {
            Poll::Ready(result) => {
                let received = buf.filled().len().saturating_sub(before);
                if phase == WAITING && received > 0 {
                    this.started = Instant::now();
                    this.read = 0;
                    this.timer = None;
                    this.line.clear();
                    (this.lines, this.at_line_start) = (0, true);
                    this.head.phase.store(READING, Ordering::Release);
                }
                this.read = this.read.saturating_add(received);
                if this.look_at(buf.filled().get(before..).unwrap_or_default()) {
                    return this.refuse(cx, TOO_LARGE);
                }
                Poll::Ready(result)
            }
            Poll::Pending if phase == READING => {
                let deadline = this.started + this.head.deadline;
                let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
                ready!(timer.as_mut().poll(cx));
                this.refuse(cx, TIMED_OUT)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.out.len().saturating_add(data.len()) > GATHERED {
            ready!(this.poll_gathered(cx))?;
        }
        if data.len() >= GATHERED {
            return Pin::new(&mut this.inner).poll_write(cx, data);
        }
        this.out.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_gathered(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_gathered(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").field("head", &self.head).finish_non_exhaustive()
    }
}

#[async_trait]
impl Shutdown for Guarded {
    async fn shutdown(&mut self) {
        let _ = AsyncWriteExt::flush(self).await;
        Shutdown::shutdown(self.inner.as_mut()).await;
        // A socket that is closed with unread bytes is reset, and the reset may overtake the answer: a client
        // that still sends its 10 MB would see no 413 (RFC 9112 §9.6, lingering close).
        let mut sink = [0; 4096];
        let linger = async {
            for _ in 0..LINGER_READS {
                if !matches!(self.inner.read(&mut sink).await, Ok(n) if n > 0) {
                    break;
                }
            }
        };
        let _ = timeout(LINGER, linger).await;
    }
}

impl UniqueID for Guarded {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for Guarded {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.inner.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl GetTimingDigest for Guarded {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }
}

impl GetProxyDigest for Guarded {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }
}

impl GetSocketDigest for Guarded {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }
}

impl Peek for Guarded {}
