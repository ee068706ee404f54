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

/// Somebody who is logged in and asks again and again, on a connection and a thread of their own: what they wait for is
/// the gateway, not the clients that flood it.
struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Probe {
    fn start(gateway: SocketAddr, token: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, token) = (Arc::clone(&stop), token.to_owned());
        let thread = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(gateway).unwrap();
            stream.set_nodelay(true).unwrap();
            let request = format!("GET /items HTTP/1.1\r\nHost: {gateway}\r\nAuthorization: Bearer {token}\r\n\r\n");
            let mut times = Vec::new();
            while !stopped.load(Ordering::SeqCst) {
                let began = Instant::now();
                stream.write_all(request.as_bytes()).unwrap();
                let mut answer = Vec::new();
                let mut part = [0; 4096];
                while !answer.ends_with(b"\r\n\r\nok") {
                    let read = stream.read(&mut part).unwrap();
                    assert!(read > 0, "the connection ended");
                    answer.extend_from_slice(&part[..read]);
                }
                assert!(answer.starts_with(b"HTTP/1.1 200"));
                times.push(began.elapsed());
                std::thread::sleep(Duration::from_millis(1));
            }
            times
        });
        Self { stop, thread }
    }

    fn stop(self) -> Vec<Duration> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }

    fn for_a(self, time: Duration) -> Vec<Duration> {
        std::thread::sleep(time);
        self.stop()
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
    let mut before = Probe::start(node.address, &access).for_a(Duration::from_millis(500));
    let probe = Probe::start(node.address, &access);

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
    let (mut passed, mut shed) = (0, Vec::new());
    for login in logins {
        match login.await.unwrap() {
            (200, _) => passed += 1,
            (503, time) => shed.push(time),
            (status, _) => panic!("a login was answered {status}"),
        }
    }
    let (mut during, peak) = (probe.stop(), node.peak_memory());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let bound = quiet + cores as u64 * 19 * 1024 + 64 * 1024;
    println!(
        "500 parallel logins in {} ms: {passed} passed, {} shed (median {} ms after all came at once); memory {} → {} MiB; \
         {} other requests beside them, median {} → {} µs, p99 {} → {} µs ({:.1}×)",
        began.elapsed().as_millis(),
        shed.len(),
        percentile(&mut shed, 50).as_millis(),
        quiet / 1024,
        peak / 1024,
        during.len(),
        percentile(&mut before, 50).as_micros(),
        percentile(&mut during, 50).as_micros(),
        percentile(&mut before, 99).as_micros(),
        percentile(&mut during, 99).as_micros(),
        percentile(&mut during, 99).as_secs_f64() / percentile(&mut before, 99).as_secs_f64(),
    );
    assert_eq!(passed + shed.len(), 500);
    assert!(passed > 0 && !shed.is_empty(), "{passed} passed, {} shed", shed.len());
    assert!(during.len() > 20, "other requests went on: {}", during.len());
    assert!(peak < bound, "{peak} KiB of at most {bound}");
}
