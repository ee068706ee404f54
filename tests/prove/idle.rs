//! What a gateway costs that has nothing to do: the time until its first answer, its memory, and what an idle
//! connection adds.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::gate::Site;
use crate::run::Run;

const POLICY: &str = "version: 1
upstream: http://127.0.0.1:9
identity: { tests: { preset: jwt, secret: env:SECRET, issuer: https://issuer.test, audience: api } }
routes:
  GET /items: { scope: items:read }
";

pub fn run(run: &mut Run) {
    let site = Site::new(POLICY).env("SECRET", "a-secret-of-the-proof-with-more-than-32-bytes");
    let connections = run.of(100, 10_000);
    let mut starts = Vec::new();
    for _ in 0..run.of(1, 20) {
        let began = Instant::now();
        let gate = site.start();
        assert_eq!(status(&mut TcpStream::connect(gate.address).unwrap()), "401");
        starts.push(began.elapsed().as_secs_f64() * 1e3);
    }
    starts.sort_by(f64::total_cmp);
    let start = starts[starts.len() / 2];

    let gate = site.start();
    assert_eq!(status(&mut TcpStream::connect(gate.address).unwrap()), "401");
    std::thread::sleep(Duration::from_millis(run.of(100, 2000)));
    let idle = gate.memory();
    let mut open = Vec::new();
    for number in 0..connections {
        run.progress("connections", number, connections);
        let mut stream = TcpStream::connect(gate.address).unwrap();
        assert_eq!(status(&mut stream), "401");
        open.push(stream);
    }
    let each = gate.memory().saturating_sub(idle) as f64 / connections as f64;
    assert_eq!(status(&mut open[0]), "401"); // the first one is still served

    run.count("idle connections", connections);
    run.measure("start to first answer, ms, median", round(start));
    run.measure("start to first answer, ms, slowest", round(starts[starts.len() - 1]));
    run.measure("memory when idle, MiB", round(idle as f64 / 1024.0));
    run.measure("memory of an idle connection, KiB", round(each));
    run.judge(start < 100.0, || format!("the first answer took {start:.0} ms"));
    run.judge(idle < 40 * 1024, || format!("{idle} KiB when idle"));
    run.judge(each < 10.0, || format!("{each:.1} KiB for an idle connection"));
    run.result(format!(
        "first answer after {start:.0} ms; {:.1} MiB when idle; {each:.1} KiB for each of {connections} idle connections",
        idle as f64 / 1024.0
    ));
}

/// Sends a request without a token on a kept connection; the status of the answer.
fn status(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET /items HTTP/1.1\r\nHost: api.test\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "closed after {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if body.len() >= length.unwrap_or(0) {
            return head.split(' ').nth(1).unwrap().to_owned();
        }
    }
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
