//! The accept loop, one per listening socket.
//!
//! Ours and not Pingora's: its own loop has no place for a deadline over a request head, retries a taken
//! port for half a minute and then panics, and keeps idle connections through the whole grace period. The
//! socket comes bound from `server/sockets.rs`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ServerApp};
use pingora::listeners::tls::Acceptor;
use pingora::protocols::http::ServerSession;
use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::{GetSocketDigest, SocketDigest, Stream};
use pingora::server::ShutdownWatch;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::stream::{Guarded, Limits};

/// The time without a request after which a connection is closed, in seconds.
pub(super) const KEEP_ALIVE: u64 = 60;

/// What an accepted connection may do before its first request is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// The time for a whole request head, from its first byte (for the first one: from the accept).
    pub head_deadline: Duration,
    /// The size of a request head, in bytes, at which reading stops; `request` has the limits of its parts.
    pub head_bytes: usize,
    /// How long a request's body may be waited for in all; one that then came on average with less than 128 bytes a
    /// second ends.
    pub body: Duration,
    /// The time without a request after which a connection is closed.
    pub keep_alive: Duration,
    /// The time for a TLS handshake.
    pub handshake: Duration,
    /// Open connections at one time; more wait in the kernel's queue.
    pub connections: usize,
    /// Open connections of one address (IPv6: of one /64) at one time; more are closed at once.
    pub per_address: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            head_deadline: Duration::from_secs(10),
            head_bytes: 128 * 1024,
            body: Duration::from_secs(30),
            keep_alive: Duration::from_secs(KEEP_ALIVE),
            handshake: Duration::from_secs(10),
            connections: 65_536,
            per_address: 10_000, // a proxy before us is one address
        }
    }
}

impl ConnectionLimits {
    fn head(&self) -> Limits {
        Limits { deadline: self.head_deadline, bytes: self.head_bytes, body: self.body }
    }
}

/// When a listener ends: not yet, or now with this much time for what is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Serving.
    Not,
    /// Accept nothing more, end idle connections at once, cut the rest off after this time.
    Within(Duration),
}

/// A bound socket and how connections on it are handled.
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) tls: Option<Arc<Acceptor>>,
    pub(crate) limits: ConnectionLimits,
}

impl Listener {
    /// Accepts and serves until `stop`, then returns when the last connection has ended or was cut off.
    pub(crate) async fn serve<A>(self, app: Arc<A>, mut stop: tokio::sync::watch::Receiver<Stop>)
    where
        A: HttpServerApp + Send + Sync + 'static,
    {
        let Self { socket, tls, limits } = self;
        let (closing, shutdown) = tokio::sync::watch::channel(false);
        let room = Arc::new(Semaphore::new(limits.connections));
        let crowd = Arc::new(Crowd::default());
        let mut connections = JoinSet::new();
        let grace = loop {
            if let Stop::Within(grace) = *stop.borrow_and_update() {
                break grace;
            }
            let accepted = tokio::select! {
                accepted = accept(&socket, &room) => accepted,
                Some(ended) = connections.join_next() => {
                    report(ended);
                    continue;
                }
                changed = stop.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => break Duration::ZERO, // who could stop us is gone
                },
            };
            let Some((stream, address, permit)) = accepted else { continue };
            let Some(place) = crowd.enter(address.ip(), limits.per_address) else { continue };
            let (app, tls, shutdown) = (app.clone(), tls.clone(), shutdown.clone());
            connections.spawn(async move {
                connection(stream, address, tls.as_deref(), limits, app, shutdown).await;
                drop((place, permit));
            });
        };
        drop(socket);
        let _ = closing.send(true);
        app.http_cleanup().await; // idle keep-alive connections end here
        let mut deadline = Instant::now() + grace;
        loop {
            tokio::select! {
                ended = connections.join_next() => match ended {
                    Some(ended) => report(ended),
                    None => break,
                },
                () = sleep_until(deadline) => {
                    connections.shutdown().await;
                    break;
                }
                Ok(()) = stop.changed() => {
                    if let Stop::Within(grace) = *stop.borrow_and_update() {
                        deadline = deadline.min(Instant::now() + grace); // asked twice
                    }
                }
            }
        }
    }
}

/// How many connections each address has.
#[derive(Default)]
struct Crowd(Mutex<HashMap<u128, usize>>);

/// A connection's place in the [`Crowd`].
struct Place(Arc<Crowd>, u128);

impl Crowd {
    /// `None` if the address has `most` already.
    fn enter(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<Place> {
        let key = match address.to_canonical() {
            IpAddr::V4(address) => u128::from(u32::from(address)),
            IpAddr::V6(address) => u128::from(address) >> 64 << 64,
        };
        let mut counts = self.0.lock();
        let count = counts.entry(key).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place(Arc::clone(self), key))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.0.0.lock();
        if let Entry::Occupied(mut entry) = counts.entry(self.1) {
            if *entry.get() > 1 {
                *entry.get_mut() -= 1;
            } else {
                entry.remove();
            }
        }
    }
}

async fn accept(
    socket: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = room.clone().acquire_owned().await.ok()?;
    match socket.accept().await {
        Ok((stream, address)) => Some((stream, address, permit)),
        Err(error) => {
            // Out of descriptors or memory: accept would fail at once again. A connection that was reset
            // before it was accepted ends here too, and the pause does not hurt.
            tracing::warn!(%error, "connection not accepted");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

async fn connection<A>(
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<&Acceptor>,
    limits: ConnectionLimits,
    app: Arc<A>,
    shutdown: ShutdownWatch,
) where
    A: HttpServerApp + Send + Sync + 'static,
{
    let _ = stream.set_nodelay(true);
    let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
    let _ = digest.peer_addr.set(Some(PeerAddr::Inet(address)));
    let mut stream = L4Stream::from(stream);
    stream.set_socket_digest(digest);
    let stream: Stream = match tls {
        None => Box::new(stream),
        // Boxed: its state is not part of what an idle connection keeps.
        Some(acceptor) => match timeout(limits.handshake, Box::pin(acceptor.tls_handshake(stream))).await {
            Ok(Ok(stream)) => Box::new(stream),
            Ok(Err(error)) => {
                tracing::debug!(client.ip = %address.ip(), %error, "tls handshake failed");
                return;
            }
            Err(_) => return,
        },
    };
    let guarded = Box::new(Guarded::new(stream, limits.head()));
    if guarded.is_http2() {
        app.process_new(guarded, &shutdown).await;
    } else {
        http1(guarded, limits, &app, shutdown).await;
    }
}

/// Requests of one HTTP/1 connection, one after the other.
///
/// Pingora's loop creates a session, with all its buffers and the state of a whole request, and then waits for the
/// request; here a connection without one is little more than its socket.
async fn http1<A>(mut guarded: Box<Guarded>, limits: ConnectionLimits, app: &Arc<A>, mut shutdown: ShutdownWatch)
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let mut settings: Option<HttpPersistentSettings> = None;
    loop {
        let head = tokio::select! {
            biased;
            head = guarded.read_head(limits.keep_alive) => head,
            _ = shutdown.wait_for(|closing| *closing) => return,
        };
        let Some(head) = head.ok().filter(|head| !head.is_empty()) else { return };
        let mut session = ServerSession::new_http1(guarded);
        match settings {
            Some(settings) => settings.apply_to_session(&mut session),
            None => {
                session.set_keepalive((!*shutdown.borrow()).then_some(KEEP_ALIVE));
                let most = app.server_options().and_then(|options| options.keepalive_request_limit);
                session.set_keepalive_reuses_remaining(most);
            }
        }
        session.set_pipelined_prefix(head);
        let Some(reused) = app.process_new_http(session, &shutdown).await else { return };
        let (stream, next) = reused.consume();
        let Ok(mut same) = stream.into_any().downcast::<Guarded>() else { return };
        same.next();
        (guarded, settings) = (same, next);
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a connection's task panicked"); // the panic hook printed where
    }
}
