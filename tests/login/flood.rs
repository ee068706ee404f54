//! More logins than the machine can hash.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::node::{POLICY, Site, client, login, post};

fn percentile(times: &mut [Duration], of: usize) -> Duration {
    times.sort_unstable();
    times.get((times.len() * of / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// Somebody who asks the same again and again, on a connection and a thread of their own: what they wait for is the
/// gateway, not the clients that flood it.
struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(u16, Duration)>>,
}

impl Probe {
    /// Calls a route with a token.
    fn calls(gateway: SocketAddr, token: &str) -> Self {
        Self::start(gateway, format!("GET /items HTTP/1.1\r\nHost: {gateway}\r\nAuthorization: Bearer {token}\r\n\r\n"))
    }

    /// Logs in.
    fn logs_in(gateway: SocketAddr) -> Self {
        let form = format!("username=ada&password={}", super::node::PASSWORD.replace(' ', "+"));
        let kind = "application/x-www-form-urlencoded";
        let length = form.len();
        Self::start(
            gateway,
            format!(
                "POST /token HTTP/1.1\r\nHost: {gateway}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{form}"
            ),
        )
    }

    fn start(gateway: SocketAddr, request: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(gateway).unwrap();
            stream.set_nodelay(true).unwrap();
            let mut times = Vec::new();
            while !stopped.load(Ordering::SeqCst) {
                let began = Instant::now();
                stream.write_all(request.as_bytes()).unwrap();
                let status = read_answer(&mut stream);
                times.push((status, began.elapsed()));
                std::thread::sleep(Duration::from_millis(1));
            }
            times
        });
        Self { stop, thread }
    }

    /// How long each answer with this status took.
    fn stop(self, status: u16) -> Vec<Duration> {
        self.stop.store(true, Ordering::SeqCst);
        let times = self.thread.join().unwrap();
        times.into_iter().filter(|(answered, _)| *answered == status).map(|(_, time)| time).collect()
    }
}

/// Reads one answer with a `Content-Length` to its end: its status.
fn read_answer(stream: &mut TcpStream) -> u16 {
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut part).unwrap();
        assert!(read > 0, "the connection ended");
        answer.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).unwrap();
        if body.len() >= length.trim().parse().unwrap() {
            return head.split(' ').nth(1).unwrap().parse().unwrap();
        }
    }
}

/// J04, R14: hashing is bounded, what is over it is refused quickly, and other requests go on.
#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_parallel_logins_leave_memory_bounded_and_other_requests_answered() {
    let _alone = super::ALONE.lock().await;
    let site = Site::new(POLICY, &[]);
    site.user("ada");
    let node = site.node();
    let client = client();
    let access = login(&client, &node, "ada").await.text("access_token");
    let quiet = node.memory();
    let calls = Probe::calls(node.address, &access);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut before = calls.stop(200);
    let calls = Probe::calls(node.address, &access);

    let began = Instant::now();
    let logins: Vec<_> = (0..500)
        .map(|_| {
            let (client, url) = (client.clone(), node.url("/token"));
            tokio::spawn(async move {
                let began = Instant::now();
                let form = [("username", "ada"), ("password", super::node::PASSWORD)];
                let answer = post(&client, &url, &form).await.unwrap();
                (answer.status, began.elapsed())
            })
        })
        .collect();
    let one_more = Probe::logs_in(node.address);
    let (mut passed, mut shed) = (0, Vec::new());
    for login in logins {
        match login.await.unwrap() {
            (200, _) => passed += 1,
            (503, time) => shed.push(time),
            (status, _) => panic!("a login was answered {status}"),
        }
    }
    let (mut during, mut refused) = (calls.stop(200), one_more.stop(503));
    let peak = node.peak_memory();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let bound = quiet + cores as u64 * 19 * 1024 + 64 * 1024;
    println!(
        "500 parallel logins in {} ms: {passed} passed, {} shed ({} ms median, with the clients' own waiting; one more \
         client was refused {} times in {} µs median, {} µs p90); memory {} → {} MiB; {} other requests beside them, \
         p99 {} → {} µs ({:.1}×)",
        began.elapsed().as_millis(),
        shed.len(),
        percentile(&mut shed, 50).as_millis(),
        refused.len(),
        percentile(&mut refused, 50).as_micros(),
        percentile(&mut refused, 90).as_micros(),
        quiet / 1024,
        peak / 1024,
        during.len(),
        percentile(&mut before, 99).as_micros(),
        percentile(&mut during, 99).as_micros(),
        percentile(&mut during, 99).as_secs_f64() / percentile(&mut before, 99).as_secs_f64(),
    );
    assert_eq!(passed + shed.len(), 500);
    assert!(passed > 0 && !during.is_empty(), "{passed} logins passed, {} other requests", during.len());
    // With many cores there may be nothing to shed.
    assert!(cores > 4 || !shed.is_empty(), "nothing was shed");
    assert!(peak < bound, "{peak} KiB of at most {bound}");
}
