//! 200 reloads under load, half of them of broken files: no request fails, and every decision belongs to one of
//! the two good policies as a whole.
//!
//! Each good policy writes its letter into a header for the upstream, into a header of the answer, and into the
//! only path that it serves and the other does not. A request that saw parts of both would show two letters.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failure here is a failed test"
)]
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use portcullis::token::algorithm::Algorithm;
use portcullis::token::mint::Minter;

const RELOADS: usize = 200;
const SECRET: &str = "a-secret-of-more-than-thirty-two-bytes-for-this-test";

fn policy(upstream: SocketAddr, letter: &str) -> String {
    format!(
        "version: 1
app: items
upstream: http://{upstream}
identity: {{ local: {{ preset: local, secret: env:SECRET_KEY }} }}
routes:
  GET /both: {{ access: authenticated, headers: {{ X-Letter: '\"{letter}\"' }}, response_headers: {{ X-Policy: '\"{letter}\"' }} }}
  GET /only-{letter}: {{ access: authenticated, headers: {{ X-Letter: '\"{letter}\"' }} }}
identities: {{ someone: {{ id: u1 }} }}
tests:
  letters:
    GET /both: {{ anonymous: 401, someone: allow }}
    GET /only-{letter}: {{ someone: allow }}
"
    )
}

/// What somebody writes over a policy by mistake.
fn broken(upstream: SocketAddr, number: usize) -> Vec<u8> {
    let good = policy(upstream, "a");
    match number % 6 {
        0 => good.as_bytes()[..good.len() / 2].to_vec(),
        1 => Vec::new(),
        2 => good.replace("authenticated", "authentcated").into_bytes(),
        3 => good.replace("someone: allow", "someone: 403").into_bytes(), // its own tests fail
        4 => good.replace("env:SECRET_KEY", "env:NOT_SET").into_bytes(),
        _ => b"\xff\xfe not text".to_vec(),
    }
}

/// Answers with the letter it is told.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while let Some(head) = head(&mut reader) {
                    let letter = field(&head, "x-letter").unwrap_or_default();
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{letter}", letter.len());
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// The lines of a message's head; none at the end of the connection.
fn head(reader: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            return Some(lines);
        }
        lines.push(line.trim_end().to_owned());
    }
}

fn field(head: &[String], name: &str) -> Option<String> {
    let mut fields = head.iter().filter_map(|line| line.split_once(": "));
    fields.find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
}

/// A kept-alive connection to the gateway.
struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    token: String,
}

impl Client {
    fn connect(address: SocketAddr, token: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Self { stream, reader, token: token.to_owned() }
    }

    /// Status, the letter of the answer's header, the body.
    fn get(&mut self, path: &str) -> (u16, Option<String>, String) {
        let token = &self.token;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x.example\r\nAuthorization: Bearer {token}\r\n\r\n");
        self.stream.write_all(request.as_bytes()).unwrap();
        let head = head(&mut self.reader).expect("an answer");
        let status = head[0].split(' ').nth(1).unwrap().parse().unwrap();
        let mut body = vec![0; field(&head, "content-length").unwrap().parse().unwrap()];
        self.reader.read_exact(&mut body).unwrap();
        (status, field(&head, "x-policy"), String::from_utf8(body).unwrap())
    }

    /// One round of requests; each must have been decided by one policy.
    fn check(&mut self) {
        let (status, policy, letter) = self.get("/both");
        assert_eq!((status, policy.as_deref()), (200, Some(letter.as_str())), "one request, two policies");
        for own in ["a", "b"] {
            match self.get(&format!("/only-{own}")) {
                (200, _, letter) => assert_eq!(letter, own, "decided by one policy, forwarded by the other"),
                (404, _, _) => {}
                other => panic!("neither policy says {other:?}"),
            }
        }
    }
}

/// Asks the admin listener for a reload and waits for its end; the status of the answer.
fn reload(admin: SocketAddr) -> u16 {
    let mut stream = TcpStream::connect(admin).unwrap();
    write!(stream, "POST /-/reload HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn two_hundred_reloads_under_load_fail_no_request_and_mix_no_policies() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policies/items.yaml");
    std::fs::create_dir(folder.path().join("policies")).unwrap();
    let upstream = upstream();
    std::fs::write(&file, policy(upstream, "a")).unwrap();
    let (gateway, admin) = (free(), free());
    let mut process = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["serve", "--listen", &gateway.to_string(), "--admin-listen", &admin.to_string()])
        .current_dir(folder.path())
        .env("SECRET_KEY", SECRET)
        .env("PORTCULLIS_LOG__DECISIONS", "none")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(gateway).is_err() || TcpStream::connect(admin).is_err() {
        assert!(Instant::now() < end && process.try_wait().unwrap().is_none(), "the gateway did not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    let claims = serde_json::json!({"sub": "u1", "iss": "portcullis", "aud": "items", "exp": 4_102_444_800_u64});
    let minter = Minter::from_secret(SECRET.as_bytes(), Algorithm::HS256).unwrap();
    let token = minter.mint(claims.as_object().unwrap(), None, None).unwrap();

    let (done, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (mut applied, mut rejected) = (0, 0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = Client::connect(gateway, &token);
                while !done.load(Ordering::Relaxed) {
                    client.check();
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut client = Client::connect(gateway, &token);
        let mut letter = "a";
        for number in 0..RELOADS {
            if number % 2 == 0 {
                letter = if letter == "a" { "b" } else { "a" };
                std::fs::write(&file, policy(upstream, letter)).unwrap();
                assert_eq!(reload(admin), 200, "reload {number}");
                applied += 1;
            } else {
                std::fs::write(&file, broken(upstream, number / 2)).unwrap();
                assert_ne!(reload(admin), 200, "reload {number} of a broken file");
                rejected += 1;
            }
            // What starts after a reload is decided by the set that was good last.
            assert_eq!(client.get("/both").2, letter, "after reload {number}");
        }
        done.store(true, Ordering::Relaxed);
    });
    process.kill().unwrap();
    process.wait().unwrap();
    let rounds = rounds.into_inner();
    assert!(rounds > RELOADS, "only {rounds} rounds of requests ran beside the reloads");
    println!(
        "{applied} reloads applied, {rejected} rejected, {} requests beside them, none failed or mixed",
        rounds * 3
    );
}
