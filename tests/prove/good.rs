//! A good client beside an attack: asks at a steady rate and says how long answers take.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// What a good client saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Answers with the expected status.
    pub good: u64,
    /// Other statuses and broken connections, the first few in words.
    pub bad: Vec<String>,
    /// How long each answer took, sorted.
    pub times: Vec<Duration>,
}

impl Seen {
    /// The time under which this part (0 to 1) of the answers came, in milliseconds.
    pub fn percentile(&self, part: f64) -> f64 {
        let at = ((self.times.len() as f64 * part) as usize).min(self.times.len().saturating_sub(1));
        self.times.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }
}

/// A good client at work.
pub struct Good {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Seen>,
}

impl Good {
    /// Sends `request` (whole bytes, no body in the answer's way: it is read by `Content-Length`) every `pause` on one
    /// kept connection, and expects `status`. A connection that ended between two requests is opened anew.
    pub fn start(address: SocketAddr, request: String, status: u16, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut seen = Seen::default();
            let mut connection = None;
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                match ask(&mut connection, address, &request).await {
                    Ok(answer) if answer == status => {
                        seen.good += 1;
                        seen.times.push(began.elapsed());
                    }
                    Ok(other) => seen.bad.push(format!("status {other}")),
                    Err(error) => {
                        connection = None;
                        seen.bad.push(error);
                    }
                }
                tokio::time::sleep(pause.saturating_sub(began.elapsed())).await;
            }
            seen.times.sort_unstable();
            seen
        });
        Self { stop, task }
    }

    /// Ends it.
    pub async fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

async fn ask(connection: &mut Option<TcpStream>, address: SocketAddr, request: &str) -> Result<u16, String> {
    let patience = Duration::from_secs(30);
    let asking = async {
        let fresh = connection.is_none();
        if fresh {
            let stream = TcpStream::connect(address).await.map_err(|error| format!("connect: {error}"))?;
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            *connection = Some(stream);
        }
        let stream = connection.as_mut().ok_or("no connection")?;
        stream.write_all(request.as_bytes()).await.map_err(|error| format!("write: {error}"))?;
        let mut received = Vec::new();
        loop {
            if stream.read_buf(&mut received).await.map_err(|error| format!("read: {error}"))? == 0 {
                return Err(format!("closed after {} bytes", received.len()));
            }
            let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&received[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
            if received.len() < end + 4 + length.unwrap_or(0usize) {
                continue;
            }
            let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("no status")?;
            if head.contains("connection: close") {
                *connection = None;
            }
            return Ok(status);
        }
    };
    tokio::time::timeout(patience, asking).await.map_err(|_| "no answer in 30 s".to_owned())?
}

/// A runtime for a figure.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}
