//! Tokens by the million whose keys nobody has (R13, H01, H02): the issuer is hardly asked, nobody else notices, and a key
//! that is really new is soon known.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis::clock::Clock as _;
use portcullis::server::SystemClock;
use portcullis::token::algorithm::Algorithm;
use portcullis::token::key::Kid;
use portcullis::token::mint::Minter;
use serde_json::{Value, json};

use crate::good::{self, Good};
use crate::idp::{Idp, KEYS};
use crate::node::{Site, client, get};
use crate::run::Run;

/// How long the storm lasts at full size.
const STORM: Duration = Duration::from_secs(60);
/// Connections of each of the two threads that ask.
const CONNECTIONS: usize = 32;

pub fn run(run: &mut Run) {
    let (old, new) = (Pair::new("a", 1), Pair::new("b", 2));
    let idp = Idp::start(vec![old.jwk()]);
    let site = Site::new(&policy(&idp), &[]);
    let node = site.node();
    let (good, next) = (old.token(&idp.issuer()), new.token(&idp.issuer()));
    let storm = Arc::new(Storm {
        address: node.address,
        tokens: run.of(10_000, 1_000_000),
        time: run.of(Duration::ZERO, STORM),
        rest: good.split_once('.').unwrap().1.to_owned(),
        taken: AtomicU64::new(0),
        answered: AtomicU64::new(0),
        wrong: Mutex::default(),
    });
    let runtime = good::runtime();
    let asking = runtime.block_on(async {
        let client = client();
        assert_eq!(get(&client, &node.url("/items"), &good).await.unwrap(), 200);
        let request = format!("GET /items HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {good}\r\n\r\n");
        let quiet = Good::start(node.address, request.clone(), 200, Duration::from_millis(5));
        tokio::time::sleep(Duration::from_millis(run.of(300, 3000))).await;
        (quiet.stop().await, Good::start(node.address, request, 200, Duration::from_millis(5)))
    });
    let (quiet, asking) = asking;

    // Who asks how often, by the clock.
    let began = Instant::now();
    let ended = Arc::new(AtomicBool::new(false));
    let hits = {
        let (idp, ended) = (idp.clone(), Arc::clone(&ended));
        std::thread::spawn(move || {
            let (mut fetches, mut known) = (Vec::new(), idp.hits(KEYS));
            while !ended.load(Ordering::SeqCst) {
                let now = idp.hits(KEYS);
                fetches.extend((known..now).map(|_| began.elapsed()));
                known = now;
                std::thread::sleep(Duration::from_millis(20));
            }
            fetches
        })
    };
    let threads = [(); 2].map(|()| {
        let storm = Arc::clone(&storm);
        std::thread::spawn(move || storm.ask())
    });
    // In the middle of it the issuer begins to use another key.
    let mut usable = None;
    if run.is_full() {
        let pause = Duration::from_millis(200);
        let rotate = |after: Duration| began.elapsed() > after;
        let mut published = None;
        while threads.iter().any(|thread| !thread.is_finished()) || (usable.is_none() && !rotate(STORM * 2)) {
            run.progress("unknown keys", storm.answered.load(Ordering::Relaxed), storm.tokens);
            if rotate(STORM / 4) && published.is_none() {
                idp.publish(vec![old.jwk(), new.jwk()]);
                published = Some(Instant::now());
            }
            if let Some(published) = published.filter(|_| usable.is_none()) {
                let status = runtime.block_on(async { get(&client(), &node.url("/items"), &next).await.unwrap() });
                usable = (status == 200).then(|| published.elapsed());
            }
            std::thread::sleep(pause);
        }
    }
    for thread in threads {
        if thread.join().is_err() {
            run.fail("who asked gave up");
        }
    }
    let spent = began.elapsed();
    let during = runtime.block_on(asking.stop());
    ended.store(true, Ordering::SeqCst);
    let fetches = hits.join().unwrap();

    let most = fetches.iter().map(|from| in_a_minute(&fetches, *from)).max().unwrap_or(0);
    let answered = storm.answered.load(Ordering::SeqCst);
    run.count("tokens with unknown keys", answered);
    run.count("asked of the issuer", fetches.len() as u64);
    run.count("asked of the issuer in the worst minute", most as u64);
    run.count("good requests beside them", during.good);
    run.count("good requests that failed", during.bad.len() as u64);
    run.measure("seconds", (spent.as_secs_f64() * 10.0).round() / 10.0);
    run.measure("unknown keys per second", (answered as f64 / spent.as_secs_f64()).round());
    run.measure("good p99 before, ms", (quiet.percentile(0.99) * 100.0).round() / 100.0);
    run.measure("good p99 during, ms", (during.percentile(0.99) * 100.0).round() / 100.0);
    run.measure("memory after, MiB", node.memory() / 1024);
    run.check(answered == storm.tokens, || format!("{answered} of {} answered", storm.tokens));
    for wrong in storm.wrong.lock().unwrap().iter() {
        run.fail(wrong.clone());
    }
    run.check(most <= 3, || format!("{most} fetches in a minute"));
    run.check(during.bad.is_empty(), || format!("good requests failed: {:?}", &during.bad[..during.bad.len().min(5)]));
    run.check(during.good > 20, || format!("{} good requests", during.good));
    let mut rotation = String::new();
    if run.is_full() {
        let seconds = usable.map_or(f64::NAN, |time| (time.as_secs_f64() * 10.0).round() / 10.0);
        run.measure("a new key is known after, s", seconds);
        run.check(usable.is_some_and(|time| time <= Duration::from_secs(35)), || format!("a new key after {usable:?}"));
        rotation = format!("; a new key known after {seconds:.0} s");
    }
    run.result(format!(
        "{answered} unknown keys in {:.0} s: the issuer asked {most} times in the worst minute, {} good requests beside \
         them, {} failed{rotation}",
        spent.as_secs_f64(),
        during.good,
        during.bad.len()
    ));
}

fn in_a_minute(fetches: &[Duration], from: Duration) -> usize {
    fetches.iter().filter(|at| (from..from + Duration::from_secs(60)).contains(*at)).count()
}

fn policy(idp: &Idp) -> String {
    let (issuer, url) = (idp.issuer(), idp.keys_url());
    format!(
        "version: 1\nupstream: env:APP\nidentity:\n  company: {{ preset: jwt, jwks_url: '{url}', issuer: '{issuer}', \
         audience: api, algorithms: [ES256] }}\nroutes:\n  GET /items: authenticated\n"
    )
}

/// A key pair of an issuer.
struct Pair {
    minter: Minter,
    kid: &'static str,
}

impl Pair {
    fn new(kid: &'static str, seed: u8) -> Self {
        Self { minter: Minter::generate(Algorithm::ES256, &[seed; 32]).unwrap().0, kid }
    }

    /// What is published of it.
    fn jwk(&self) -> Value {
        Value::Object(self.minter.verifying_key().named(Kid::new(self.kid)).to_jwk().unwrap())
    }

    fn token(&self, issuer: &str) -> String {
        let now = SystemClock.now().as_seconds();
        let claims = json!({ "iss": issuer, "aud": "api", "sub": "ada", "iat": now, "exp": now + 3600 });
        self.minter.mint(claims.as_object().unwrap(), Some(&Kid::new(self.kid)), None).unwrap()
    }
}

/// What asks with tokens whose keys nobody has.
struct Storm {
    address: SocketAddr,
    tokens: u64,
    /// Over how long they are spread.
    time: Duration,
    /// A token without its header.
    rest: String,
    taken: AtomicU64,
    answered: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

impl Storm {
    fn ask(&self) {
        let mut streams: Vec<TcpStream> = (0..CONNECTIONS).map(|_| self.connect()).collect();
        let began = Instant::now();
        let mut buffer = Vec::new();
        loop {
            let mut asked = 0;
            for stream in &mut streams {
                let number = self.taken.fetch_add(1, Ordering::Relaxed);
                if number >= self.tokens {
                    break;
                }
                let due = self.time.mul_f64(number as f64 / self.tokens as f64);
                std::thread::sleep(due.saturating_sub(began.elapsed()));
                let header = json!({ "alg": "ES256", "typ": "JWT", "kid": format!("made-up-{number}") }).to_string();
                let (header, rest) = (URL_SAFE_NO_PAD.encode(header), &self.rest);
                let request =
                    format!("GET /items HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {header}.{rest}\r\n\r\n");
                stream.write_all(request.as_bytes()).unwrap();
                asked += 1;
            }
            for stream in streams.iter_mut().take(asked) {
                let (status, closes) = read(stream, &mut buffer);
                if status != "401" {
                    self.wrong.lock().unwrap().push(format!("an unknown key was answered {status}"));
                }
                self.answered.fetch_add(1, Ordering::Relaxed);
                if closes {
                    *stream = self.connect();
                }
            }
            if asked < CONNECTIONS {
                return;
            }
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }
}

/// Reads one answer: its status, and whether the connection ends with it.
fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> (String, bool) {
    buffer.clear();
    let mut part = [0; 4096];
    loop {
        let read = stream.read(&mut part).unwrap();
        assert!(read > 0, "closed after {}", String::from_utf8_lossy(buffer));
        buffer.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(buffer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if body.len() >= length.unwrap_or(0) {
            return (head.split(' ').nth(1).unwrap().to_owned(), head.contains("connection: close"));
        }
    }
}
