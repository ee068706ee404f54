//! What an authorised request costs beside bare Pingora, in CPU time of the proxy's process per request.
//!
//! One run starts an upstream, a bare Pingora proxy (no filter but the peer) and `portcullis serve`, each in a
//! process of its own built with the same profile, and sends the same requests to both proxies in turn over
//! kept-alive connections. CPU time is user and system time of the proxy's process from `/proc`, so the client
//! and the upstream, which share the cores, do not count. Only the ratio means something: it is the median of
//! the ratios of neighbouring rounds.
//!
//! `cargo bench --bench request` prints the table.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a bench ends at the first surprise")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::prelude::{HttpPeer, ProxyHttp, Session};

const ROUNDS: usize = 9;
const REQUESTS: usize = 20_000;
const CONNECTIONS: usize = 8;
const SECRET: &str = "benchmark-secret-of-more-than-thirty-two-bytes";

fn main() {
    let role = std::env::args().nth(1).unwrap_or_default();
    match role.as_str() {
        "upstream" => upstream(),
        "bare" => bare(&std::env::args().nth(2).expect("upstream address")),
        _ => compare(),
    }
}

/// Answers every request with the same small body, keeping connections open.
fn upstream() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    announce(listener.local_addr().expect("bound"));
    for stream in listener.incoming() {
        let mut stream = stream.expect("accepted");
        std::thread::spawn(move || {
            let mut buffer = [0_u8; 8192];
            let mut filled = 0;
            loop {
                let Ok(read @ 1..) = stream.read(&mut buffer[filled..]) else { return };
                filled += read;
                if buffer[..filled].ends_with(b"\r\n\r\n") {
                    filled = 0;
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"items\":[1]}";
                    if stream.write_all(answer).is_err() {
                        return;
                    }
                }
            }
        });
    }
}

/// The proxy to compare with: Pingora without a single filter.
fn bare(upstream: &str) {
    struct Bare(SocketAddr);

    #[async_trait]
    impl ProxyHttp for Bare {
        type CTX = ();

        fn new_ctx(&self) -> Self::CTX {}

        async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora::Result<Box<HttpPeer>> {
            Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
        }
    }

    let address = TcpListener::bind("127.0.0.1:0").and_then(|probe| probe.local_addr()).expect("a loopback port");
    let folder = std::env::temp_dir();
    let configuration = pingora::server::configuration::ServerConf {
        threads: 2,
        pid_file: folder.join("bare.pid").display().to_string(),
        upgrade_sock: folder.join("bare.sock").display().to_string(),
        ..Default::default()
    };
    let mut server = pingora::server::Server::new_with_opt_and_conf(None, configuration);
    server.bootstrap();
    let proxy = Bare(upstream.parse().expect("an address"));
    let mut service = pingora::proxy::http_proxy_service(&server.configuration, proxy);
    service.add_tcp(&address.to_string());
    server.add_service(service);
    announce(address);
    server.run_forever();
}

fn announce(address: SocketAddr) {
    let mut out = std::io::stdout();
    writeln!(out, "{address}").expect("stdout");
    out.flush().expect("stdout");
}

/// A process of the bench, killed when the bench ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Process {
    fn role(arguments: &[&str]) -> (Self, SocketAddr) {
        let mut child = Command::new(std::env::current_exe().expect("this bench"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("an address");
        (Self(child), line.trim().parse().expect("an address"))
    }

    /// User and system time so far.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).expect("/proc");
        let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
        Duration::from_millis(ticks * 10) // USER_HZ is 100 on every Linux platform that Rust supports
    }
}

/// `portcullis serve` in front of the upstream, in a folder of its own.
fn gateway(folder: &std::path::Path, upstream: SocketAddr) -> (Process, SocketAddr) {
    std::fs::create_dir_all(folder.join("policies")).expect("a folder");
    std::fs::write(
        folder.join("policies/items.yaml"),
        format!(
            "version: 1\nupstream: http://{upstream}\nidentity:\n  local: {{ preset: local, secret: env:SECRET_KEY, audience: items }}\n\
             routes:\n  GET /items: {{ scope: items:read }}\n"
        ),
    )
    .expect("a policy");
    let free = || TcpListener::bind("127.0.0.1:0").and_then(|probe| probe.local_addr()).expect("a port");
    let (address, admin) = (free(), free());
    let child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .arg("serve")
        .current_dir(folder)
        .env("PORTCULLIS_LISTEN", address.to_string())
        .env("PORTCULLIS_ADMIN__LISTEN", admin.to_string())
        .env("PORTCULLIS_LOG__DECISIONS", "none")
        .env("SECRET_KEY", SECRET)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("portcullis serve");
    (Process(child), address)
}

fn token() -> String {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let signed = format!(
        "{}.{}",
        engine.encode(r#"{"alg":"HS256","typ":"JWT"}"#),
        engine.encode(
            r#"{"sub":"u1","email":"u1@example.com","scope":"items:read items:write","aud":"items","iss":"portcullis","iat":1767225600,"exp":4102444800}"#
        )
    );
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
    let tag = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", engine.encode(tag.as_ref()))
}

/// Sends `REQUESTS` requests over kept-alive connections; every answer must be 200.
fn load(address: SocketAddr, token: &str) {
    let request = format!(
        "GET /items HTTP/1.1\r\nHost: {address}\r\nAccept: application/json\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let mut stream = TcpStream::connect(address).expect("connected");
                stream.set_nodelay(true).expect("nodelay");
                let mut buffer = [0_u8; 8192];
                for _ in 0..REQUESTS / CONNECTIONS {
                    stream.write_all(request.as_bytes()).expect("sent");
                    let mut filled = 0;
                    while !buffer[..filled].ends_with(b"{\"items\":[1]}") {
                        let read = stream.read(&mut buffer[filled..]).expect("answered");
                        assert!(read > 0, "closed after {}", String::from_utf8_lossy(&buffer[..filled]));
                        filled += read;
                    }
                    assert!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..filled]));
                }
            });
        }
    });
}

fn wait_for(address: SocketAddr) {
    let end = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < end, "nothing listens on {address}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn compare() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_upstream, upstream) = Process::role(&["upstream"]);
    let (bare, bare_address) = Process::role(&["bare", &upstream.to_string()]);
    let (gateway, gateway_address) = gateway(folder.path(), upstream);
    let token = token();
    for address in [bare_address, gateway_address] {
        wait_for(address);
        load(address, &token); // warm-up
    }
    let per_request = |process: &Process, address| {
        let before = process.cpu();
        load(address, &token);
        (process.cpu() - before).as_secs_f64() * 1e6 / REQUESTS as f64
    };
    let mut rounds: Vec<(f64, f64)> =
        (0..ROUNDS).map(|_| (per_request(&bare, bare_address), per_request(&gateway, gateway_address))).collect();
    rounds.sort_by(|a, b| (a.1 / a.0).total_cmp(&(b.1 / b.0)));
    let median = rounds[ROUNDS / 2];
    writeln!(
        std::io::stdout(),
        "request: authorised HS256, scope check, identity headers, forwarded; CPU of the proxy's process per request\n\
         \x20 bare Pingora {:.1} µs, portcullis {:.1} µs, ratio {:.2} (median of {ROUNDS} rounds of {REQUESTS}; {:.2} to {:.2})",
        median.0,
        median.1,
        median.1 / median.0,
        rounds[0].1 / rounds[0].0,
        rounds[ROUNDS - 1].1 / rounds[ROUNDS - 1].0,
    )
    .expect("stdout");
}
