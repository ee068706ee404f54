//! More logins than the machine can hash, again and again, while somebody who is logged in asks for something.
//!
//! The clients of the flood keep to the last core, and connect and write their requests before it begins, so that it is
//! the gateway that is measured.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::round;
use crate::good;
use crate::node::{Node, PASSWORD, POLICY, Site, client, login};
use crate::run::Run;

/// How many log in at once.
const PARALLEL: usize = 1000;

/// Somebody who is logged in and asks again and again, on a connection and a thread of their own.
struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Probe {
    fn start(gateway: SocketAddr, token: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let request = format!("GET /items HTTP/1.1\r\nHost: {gateway}\r\nAuthorization: Bearer {token}\r\n\r\n");
        let thread = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(gateway).unwrap();
            stream.set_nodelay(true).unwrap();
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

    /// The times of its answers, sorted.
    fn stop(self) -> Vec<Duration> {
        self.stop.store(true, Ordering::SeqCst);
        let mut times = self.thread.join().unwrap();
        times.sort_unstable();
        times
    }
}

fn at(times: &[Duration], part: f64) -> f64 {
    let at = ((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1));
    times.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

pub fn run(run: &mut Run) -> String {
    let waves: usize = run.of(1, 20);
    let site = Site::new(POLICY, &[]);
    site.user("ada");
    let node = site.node();
    let access = good::runtime().block_on(async { login(&client(), &node, "ada").await.text("access_token") });
    let base = node.memory();
    let probe = Probe::start(node.address, &access);
    std::thread::sleep(Duration::from_millis(run.of(300, 10_000)));
    let quiet = probe.stop();

    // How many hashes are computed at once, as the kernel's list of threads tells.
    let (ended, hashing) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let watch = {
        let (ended, hashing, pid) = (Arc::clone(&ended), Arc::clone(&hashing), node.pid());
        std::thread::spawn(move || {
            // A thread that has computed its hash goes away soon; whoever is seen twice computes.
            let mut seen = BTreeSet::new();
            while !ended.load(Ordering::SeqCst) {
                let now = threads(pid, "portcullis-hash");
                hashing.fetch_max(now.intersection(&seen).count(), Ordering::SeqCst);
                seen = now;
                std::thread::sleep(Duration::from_millis(8));
            }
        })
    };
    let probe = Probe::start(node.address, &access);
    let (mut passed, mut shed, mut wrong) = (0, Vec::new(), Vec::new());
    let flood = flood(&node, waves, run);
    for (status, retry_after, time) in flood {
        match status {
            200 => passed += 1,
            503 if retry_after => shed.push(time),
            other => wrong.push(other),
        }
    }
    let during = probe.stop();
    ended.store(true, Ordering::SeqCst);
    watch.join().unwrap();
    shed.sort_unstable();
    let (peak, cores) = (node.peak_memory(), std::thread::available_parallelism().map_or(1, usize::from));
    let hashing = hashing.load(Ordering::SeqCst);
    let more = peak.saturating_sub(base) as f64 / 1024.0;
    let bound = cores as f64 * 19.0 + 32.0;
    let slower = at(&during, 0.99) / at(&quiet, 0.99);

    run.count("parallel logins in a wave", PARALLEL as u64);
    run.count("waves", waves as u64);
    run.count("logins that passed", passed);
    run.count("logins shed with 503 and Retry-After", shed.len() as u64);
    run.count("most hashes at a time", hashing as u64);
    run.measure("shed after, ms, median", round(at(&shed, 0.5)));
    run.measure("shed after, ms, p99", round(at(&shed, 0.99)));
    run.measure("memory added at most, MiB", round(more));
    run.measure("memory allowed, MiB", bound);
    run.measure("JWT request, quiet, ms, median", round(at(&quiet, 0.5)));
    run.measure("JWT request, quiet, ms, p99", round(at(&quiet, 0.99)));
    run.measure("JWT request beside the flood, ms, median", round(at(&during, 0.5)));
    run.measure("JWT request beside the flood, ms, p99", round(at(&during, 0.99)));
    run.measure("JWT request, p99 beside the flood by p99 when quiet", round(slower));
    run.check(wrong.is_empty(), || format!("logins were answered {:?}", &wrong[..wrong.len().min(5)]));
    run.check(passed > 0 && !shed.is_empty(), || format!("{passed} passed, {} shed", shed.len()));
    run.judge(hashing <= cores, || format!("{hashing} hashes at a time on {cores} cores"));
    run.check(during.len() > 20, || format!("only {} requests beside the flood", during.len()));
    run.judge(more < bound, || format!("{more:.0} MiB more, {bound:.0} allowed"));
    run.judge(slower < 2.0, || format!("p99 of JWT requests {slower:.1} times that of a quiet gateway"));
    run.judge(at(&shed, 0.5) < 10.0, || format!("shed after {:.0} ms", at(&shed, 0.5)));
    format!(
        "1,000 logins at once, {waves} times: {hashing} hashes at a time, {more:.0} MiB more, the excess shed after {:.0} ms, \
         other requests' p99 {slower:.1} times that of a quiet gateway",
        at(&shed, 0.5)
    )
}

/// Threads of a process by name.
fn threads(pid: u32, name: &str) -> BTreeSet<PathBuf> {
    let all = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let named = |path: &PathBuf| std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name);
    all.map(|task| task.path()).filter(named).collect()
}

/// Waves of logins: status, whether it says when to try again, and the time from the request to the answer.
fn flood(node: &Node, waves: usize, run: &Run) -> Vec<(u16, bool, Duration)> {
    let address = node.address;
    let form = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("grant_type", "password"), ("username", "ada"), ("password", PASSWORD)])
        .finish();
    let request: Arc<str> = format!(
        "POST /token HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{form}",
        form.len()
    )
    .into();
    let (found, waiting) = std::sync::mpsc::channel();
    let clients = std::thread::spawn(move || {
        keep_to_the_last_core();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for _ in 0..waves {
                let mut connections = Vec::new();
                for _ in 0..PARALLEL {
                    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
                    stream.set_nodelay(true).unwrap();
                    connections.push(stream);
                }
                let mut logins = tokio::task::JoinSet::new();
                for mut stream in connections {
                    let request = Arc::clone(&request);
                    logins.spawn(async move {
                        let began = Instant::now();
                        stream.write_all(request.as_bytes()).await.unwrap();
                        let mut answer = Vec::new();
                        stream.read_to_end(&mut answer).await.unwrap();
                        let time = began.elapsed();
                        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
                        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
                        (status, text.contains("\r\nretry-after: "), time)
                    });
                }
                let _ = found.send(logins.join_all().await);
            }
        });
    });
    let mut all = Vec::new();
    while let Ok(wave) = waiting.recv() {
        all.extend(wave);
        run.progress("logins", all.len() as u64, (waves * PARALLEL) as u64);
    }
    clients.join().unwrap();
    all
}

/// This thread, and no other of this process.
fn keep_to_the_last_core() {
    let last = std::thread::available_parallelism().map_or(1, usize::from) - 1;
    let Ok(thread) = std::fs::read_link("/proc/thread-self") else { return };
    let thread = thread.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let _ = Command::new("taskset").args(["-pc", &last.to_string(), &thread]).output();
}
