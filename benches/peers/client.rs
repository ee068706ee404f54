//! The client and the upstream that all gateways share.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::tokens::Request;

/// Connections of the client, kept open.
pub const CONNECTIONS: usize = 16;

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 27\r\n\r\n{\"id\":4711,\"name\":\"a gate\"}";

/// The app behind every gateway. While it is asked to, it keeps what it receives.
#[derive(Default)]
pub struct Upstream {
    keeps: AtomicBool,
    kept: Mutex<Vec<String>>,
}

impl Upstream {
    /// Starts it in the current runtime.
    pub async fn start(self: Arc<Self>) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let upstream = Arc::clone(&self);
                tokio::spawn(async move {
                    let mut head = Vec::with_capacity(16 * 1024);
                    while stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {
                        if !head.ends_with(b"\r\n\r\n") {
                            continue;
                        }
                        if upstream.keeps.load(Ordering::Relaxed) {
                            upstream.kept.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
                        }
                        head.clear();
                        if stream.write_all(ANSWER).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        address
    }

    /// What it receives while this runs.
    pub fn keep(&self, run: impl FnOnce()) -> Vec<String> {
        self.keeps.store(true, Ordering::Relaxed);
        run();
        self.keeps.store(false, Ordering::Relaxed);
        std::mem::take(&mut self.kept.lock().unwrap())
    }
}

/// One request on a connection of its own; the status of the answer.
pub fn ask(address: SocketAddr, request: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(read) if read > 0 => answer.extend_from_slice(&buffer[..read]),
            _ => return 0,
        }
    }
    let text = String::from_utf8_lossy(&answer);
    text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// All requests as fast as they are answered.
pub async fn all(address: SocketAddr, requests: Arc<Vec<Request>>) {
    let next = Arc::new(AtomicUsize::new(0));
    let mut connections = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (requests, next) = (Arc::clone(&requests), Arc::clone(&next));
        connections.spawn(async move {
            let mut stream = connect(address).await;
            let mut received = Vec::with_capacity(16 * 1024);
            while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut tries = 0;
                loop {
                    received.clear();
                    let sent = stream.write_all(request).await.is_ok();
                    while sent && !received.ends_with(b"}") {
                        if !stream.read_buf(&mut received).await.is_ok_and(|read| read > 0) {
                            break;
                        }
                    }
                    if received.ends_with(b"}") {
                        break;
                    }
                    // A gateway ends a connection after so many requests.
                    tries += 1;
                    assert!(received.is_empty() && tries < 3, "closed after {}", String::from_utf8_lossy(&received));
                    stream = connect(address).await;
                }
                assert!(received.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&received));
            }
        });
    }
    while let Some(ended) = connections.join_next().await {
        ended.unwrap();
    }
}

async fn connect(address: SocketAddr) -> tokio::net::TcpStream {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// An answer: when it came, and how long it took.
pub type Timed = (Instant, Duration);

/// The requests at so many a second, whether or not answers come. An answer that comes late delays no request of
/// another connection, and the time in which its own connection's next request had to wait counts.
pub fn steadily(address: SocketAddr, requests: &[Request], per_second: u32) -> Vec<Timed> {
    let pause = Duration::from_secs(1) / per_second;
    let began = Instant::now() + Duration::from_millis(20);
    std::thread::scope(|scope| {
        let connections: Vec<_> = (0..CONNECTIONS)
            .map(|connection| {
                scope.spawn(move || {
                    let open = || {
                        let stream = TcpStream::connect(address).unwrap();
                        stream.set_nodelay(true).unwrap();
                        stream
                    };
                    let mut stream = open();
                    let mut times = Vec::with_capacity(requests.len() / CONNECTIONS + 1);
                    let mut buffer = vec![0; 16 * 1024];
                    for number in (connection..requests.len()).step_by(CONNECTIONS) {
                        let due = began + pause * u32::try_from(number).unwrap();
                        let early = due.saturating_duration_since(Instant::now());
                        std::thread::sleep(early);
                        let since = if early.is_zero() { due } else { Instant::now() };
                        loop {
                            let mut received = 0;
                            let sent = stream.write_all(&requests[number]).is_ok();
                            while sent && !buffer[..received].ends_with(b"}") {
                                match stream.read(&mut buffer[received..]) {
                                    Ok(read) if read > 0 => received += read,
                                    _ => break,
                                }
                            }
                            if buffer[..received].ends_with(b"}") {
                                break;
                            }
                            assert!(received == 0, "closed after {}", String::from_utf8_lossy(&buffer[..received]));
                            stream = open();
                        }
                        assert!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer));
                        let now = Instant::now();
                        times.push((now, now - since));
                    }
                    times
                })
            })
            .collect();
        connections.into_iter().flat_map(|connection| connection.join().unwrap()).collect()
    })
}

/// The time in which this part (0 to 1) of the answers came, in microseconds.
pub fn percentile<'t>(times: impl Iterator<Item = &'t Timed>, part: f64) -> f64 {
    let mut times: Vec<Duration> = times.map(|(_, took)| *took).collect();
    times.sort_unstable();
    let at = ((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1));
    times.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}
