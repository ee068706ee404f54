//! One accepted connection, as Pingora reads and writes it.
//!
//! Pingora limits each *read* of a request head and nothing else: a client that sends a byte a minute keeps a
//! connection (and up to 1 MiB of head) for as long as it likes. [`Guarded`] gives the whole head one
//! deadline and one size, answers 408, 414 or 431 itself when they are passed, and gathers small writes, so
//! that head and body of an answer leave in one segment. A body may not be waited for without end either, however it
//! drips (in Pingora each byte of a chunk's size line has a time of its own), and HTTP/2 has its budget of frames.
//!
//! Until a head is complete, nothing but its bytes is kept for a connection: idle and slow ones are cheap.
//!
//! It also keeps each request line as it came: Pingora *repairs* one that does not parse (`GET /a b HTTP/1.1`
//! becomes `/a%20b`), and what it shows afterwards as received is the repaired text.

use std::fmt;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::frames::Frames;

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

/// A body that was waited for as long as [`Limits::body`] needs this many bytes a second on average (RUDY: a byte every few seconds, for ever).
pub(super) const RATE: u64 = 128;
/// How much of a head is read at once.
const HEAD: usize = 4096;

/// Between two requests: nothing was received yet, the keep-alive time limits the wait.
const WAITING: u8 = 0;
/// Within a request head: one deadline for all of it.
const READING: u8 = 1;
/// The head is complete and a body follows, which may not be waited for too long.
const BODY: u8 = 2;
/// The request is complete, or was upgraded to something else: other limits apply.
const OPEN: u8 = 3;

/// A connection with a deadline for request heads and a write buffer.
pub(crate) struct Guarded {
    inner: Stream,
    limits: Limits,
    /// What is read; who handles a request sees the connection through a shared reference and moves it on.
    phase: AtomicU8,
    /// HTTP/2: its frames, and none of what follows.
    frames: Option<Box<Frames>>,
    started: Instant,
    read: usize,
    timer: Option<Pin<Box<Sleep>>>,
    /// The request line with its line end, as far as it came.
    line: Vec<u8>,
    /// Lines of the head so far.
    lines: usize,
    /// Whether the line that is being received is empty so far.
    blank: bool,
    /// Whether the empty line after the head came.
    complete: bool,
    /// How long a body was waited for, since when it is waited for again, and its bytes.
    waited: Duration,
    waits: Option<Instant>,
    received: u64,
    out: Vec<u8>,
    written: usize,
}

/// How long and how large a request may be before it is decided, and how slowly its body may come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The time for a whole head, from its first byte (for the first one: from the accept).
    pub(crate) deadline: Duration,
    /// Its size in bytes.
    pub(crate) bytes: usize,
    /// How long a body may be waited for in all, however little comes.
    pub(crate) body: Duration,
}

impl Guarded {
    /// For a connection that was just accepted: the first head's deadline begins now.
    pub(crate) fn new(inner: Stream, limits: Limits) -> Self {
        let started = Instant::now();
        let is_http2 = inner.selected_alpn_proto() == Some(ALPN::H2);
        Self {
            inner,
            limits,
            phase: AtomicU8::new(READING),
            frames: is_http2.then(|| Box::new(Frames::new(started, limits.deadline))),
            started,
            read: 0,
            timer: None,
            line: Vec::new(),
            lines: 0,
            blank: true,
            complete: false,
            waited: Duration::ZERO,
            waits: None,
            received: 0,
            out: Vec::new(),
            written: 0,
        }
    }

    /// Whether the client speaks HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.frames.is_some()
    }

    /// The next request is about to be read.
    pub(crate) fn next(&mut self) {
        self.phase.store(WAITING, Ordering::Release);
    }

    /// The request head was taken, a body may follow.
    pub(crate) fn head_done(&self, has_body: bool) {
        self.phase.store(if has_body { BODY } else { OPEN }, Ordering::Release);
    }

    /// The request was received to its end.
    pub(crate) fn body_done(&self) {
        self.phase.store(OPEN, Ordering::Release);
    }

    /// The request line as it came, without its line end.
    pub(crate) fn request_line(&self) -> &[u8] {
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        line.strip_suffix(b"\r").unwrap_or(line)
    }

    /// Waits for a request and reads its head, so that nothing larger than this is kept for a connection that is idle
    /// or slow. Empty at the end of the connection. What cannot become a head is given away as it is: who parses it
    /// says what is wrong.
    pub(crate) async fn read_head(&mut self, keep_alive: Duration) -> io::Result<BytesMut> {
        let mut head = BytesMut::new();
        if self.phase.load(Ordering::Acquire) == WAITING {
            match timeout(keep_alive, self.read_some(&mut head)).await {
                Ok(read) => read?,
                Err(_) => return Ok(head),
            };
        } else {
            self.read_some(&mut head).await?;
        }
        while !head.is_empty() && !self.complete && self.may_become_a_head() {
            if self.read_some(&mut head).await? == 0 {
                break;
            }
        }
        Ok(head)
    }

    /// Reads what is there into a buffer that exists only when there is something.
    async fn read_some(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        poll_fn(|cx| {
            into.reserve(HEAD);
            let read = pin!(self.read_buf(into)).poll(cx);
            if read.is_pending() && into.is_empty() {
                // An idle connection keeps no buffers.
                *into = BytesMut::new();
                if self.written == self.out.len() {
                    (self.out, self.written) = (Vec::new(), 0);
                }
            }
            read
        })
        .await
    }

    /// A line that is complete says the protocol; one that is not begins with a method.
    fn may_become_a_head(&self) -> bool {
        match self.line.first() {
            None => true,
            Some(_) if self.line.ends_with(b"\n") => {
                self.request_line().rsplit(|byte| *byte == b' ').next().is_some_and(|last| last.starts_with(b"HTTP/1."))
            }
            Some(first) => first.is_ascii_graphic() || *first == b'\r',
        }
    }

    /// Keeps the request line (empty lines before it do not count, RFC 9112 §2.2) and counts lines until the head
    /// ends. Whether there are too many.
    fn look_at(&mut self, received: &[u8]) -> bool {
        for piece in received.split_inclusive(|byte| *byte == b'\n') {
            if self.complete {
                break; // a body follows
            }
            let has_line = self.line.ends_with(b"\n");
            let content = piece.strip_suffix(b"\n").unwrap_or(piece);
            self.blank &= content.is_empty() || content == b"\r";
            if !has_line {
                self.line.extend_from_slice(piece);
                if matches!(self.line.as_slice(), b"\r\n" | b"\n") {
                    self.line.clear();
                }
            }
            if piece.ends_with(b"\n") {
                self.complete = has_line && self.blank;
                self.lines = self.lines.saturating_add(1);
                self.blank = true;
            }
        }
        self.lines > LINES
    }

    fn refuse(&mut self, cx: &mut Context<'_>, answer: &[u8]) -> Poll<io::Result<()>> {
        // Best effort: who does not read this either is closed on.
        if !self.is_http2() && Pin::new(&mut self.inner).poll_write(cx, answer).is_ready() {
            let _ = Pin::new(&mut self.inner).poll_flush(cx);
        }
        Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut)))
    }

    /// Ready at this time.
    fn poll_until(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
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

    /// HTTP/2: what came is looked at frame by frame.
    fn poll_frames(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        let Some(frames) = &mut self.frames else { return read };
        match read {
            Poll::Ready(result) => {
                let received = buf.filled().get(before..).unwrap_or_default();
                if frames.are_too_many(received) {
                    tracing::debug!("an HTTP/2 client sends frames that ask for nothing, closed");
                    return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
                }
                Poll::Ready(result)
            }
            Poll::Pending => match frames.deadline() {
                None => {
                    self.timer = None;
                    Poll::Pending
                }
                Some(deadline) => {
                    ready!(self.poll_until(cx, deadline));
                    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
                }
            },
        }
    }

    /// HTTP/1: a body that is waited for.
    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if read.is_ready() {
            let received = buf.filled().len().saturating_sub(before);
            self.received = self.received.saturating_add(received as u64);
            self.waited = self.waited.saturating_add(self.waits.take().map_or(Duration::ZERO, |since| since.elapsed()));
            return read;
        }
        let since = *self.waits.get_or_insert_with(Instant::now);
        let may_wait = self.limits.body.max(Duration::from_secs(self.received.checked_div(RATE).unwrap_or(0)));
        ready!(self.poll_until(cx, since + may_wait.saturating_sub(self.waited)));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Guarded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.frames.is_some() {
            return this.poll_frames(cx, buf);
        }
        let phase = this.phase.load(Ordering::Acquire);
        match phase {
            BODY => return this.poll_body(cx, buf),
            OPEN => {
                this.timer = None;
                return Pin::new(&mut this.inner).poll_read(cx, buf);
            }
            _ => {}
        }
        if phase == READING && this.read >= this.limits.bytes {
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
                    (this.lines, this.blank, this.complete) = (0, true, false);
                    (this.waited, this.waits, this.received) = (Duration::ZERO, None, 0);
                    this.phase.store(READING, Ordering::Release);
                }
                this.read = this.read.saturating_add(received);
                if this.look_at(buf.filled().get(before..).unwrap_or_default()) {
                    return this.refuse(cx, TOO_LARGE);
                }
                Poll::Ready(result)
            }
            Poll::Pending if phase == READING => {
                let deadline = this.started + this.limits.deadline;
                ready!(this.poll_until(cx, deadline));
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
        if let Some(frames) = &mut this.frames {
            frames.answered(data.len());
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
        f.debug_struct("Guarded").field("limits", &self.limits).finish_non_exhaustive()
    }
}

#[async_trait]
impl Shutdown for Guarded {
    async fn shutdown(&mut self) {
        // Also for who does not read: the rest of an answer is not waited for without end.
        let end = async {
            let _ = AsyncWriteExt::flush(self).await;
            Shutdown::shutdown(self.inner.as_mut()).await;
        };
        if timeout(LINGER, end).await.is_err() {
            return;
        }
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
