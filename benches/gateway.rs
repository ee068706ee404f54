//! What a request costs the gateway, beside a bare Pingora proxy that decides nothing.
//!
//! `cargo bench --bench gateway` prints processor time per request: of the proxy, and of a gateway for each algorithm
//! with one token for each connection (warm) and with tokens that come once (first sight). They are measured in turns on
//! the threads that serve them (`/proc/self/task`), so that client and upstream, which share the machine, do not count.

#![expect(clippy::expect_used, reason = "a bench ends at the first surprise")]

#[path = "peers/bare.rs"]
mod bare;

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis::live::Live;
use portcullis::policy;
use portcullis::policy::references::References;
use portcullis::policy::set::{PolicySet, Revision};
use portcullis::secret::Secret;
use portcullis::server::{Gateway, Parts};
use portcullis::token::algorithm::Algorithm;
use portcullis::token::mint::Minter;
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

const SECRET: &str = "a-secret-of-the-bench-with-more-than-32-bytes";
const CONNECTIONS: usize = 16;
const ROUNDS: usize = 9;

fn main() {
    portcullis::server::crypto::install();
    let upstream = runtime("up");
    let upstream_address = upstream.block_on(serve_upstream());

    let bare = runtime("bare");
    let bare_address = free_address();
    bare.spawn(bare::serve(bare_address, upstream_address));

    let signers = [Signer::hs256(), Signer::rs256(), Signer::es256()];
    let mut gates = Vec::new();
    for signer in &signers {
        let runtime = runtime(signer.name);
        let policy = Arc::new(Live::new(compile(upstream_address, signer)));
        let gateway = Gateway::build(Parts::new(policy)).expect("a gateway");
        let address = *gateway.addresses().first().expect("an address");
        runtime.spawn(gateway.run());
        gates.push((runtime, address));
    }
    std::thread::sleep(Duration::from_millis(300));

    let load = runtime("load");
    // `-- requests=50` for a run under an instrumenting tool.
    let requests =
        std::env::args().find_map(|argument| argument.strip_prefix("requests=")?.parse().ok()).unwrap_or(1500);
    let warm: Vec<Vec<Arc<str>>> =
        signers.iter().map(|signer| (0..CONNECTIONS).map(|n| request(&signer.token(n))).collect()).collect();
    let mut costs = vec![Vec::new(); 1 + 2 * signers.len()];
    let mut number = CONNECTIONS;
    for round in 0..=ROUNDS {
        let mut of_round = Vec::new();
        let mut measure = |name: &str, address, heads: Vec<Vec<Arc<str>>>, times: usize| {
            let total = heads.iter().map(Vec::len).sum::<usize>() * times;
            let before = processor_time(name);
            load.block_on(run(address, heads, times));
            let spent = processor_time(name).saturating_sub(before);
            of_round.push(spent.as_secs_f64() * 1e6 / total as f64);
        };
        let one = |heads: &[Arc<str>]| heads.iter().map(|head| vec![Arc::clone(head)]).collect::<Vec<_>>();
        if let Some(first) = warm.first() {
            measure("bare", bare_address, one(first), requests);
        }
        for ((signer, (_, address)), heads) in signers.iter().zip(&gates).zip(&warm) {
            measure(signer.name, *address, one(heads), requests);
            // Tokens that nobody has seen, made before they are counted.
            let each = requests.min(100);
            let fresh = (0..CONNECTIONS).map(|_| {
                (0..each)
                    .map(|_| {
                        number += 1;
                        request(&signer.token(number))
                    })
                    .collect()
            });
            measure(signer.name, *address, fresh.collect(), 1);
        }
        if round > 0 {
            costs.iter_mut().zip(of_round).for_each(|(costs, cost)| costs.push(cost)); // the first round warms up
        }
    }
    let decide = decide_alone(upstream_address);
    let mut costs = costs.into_iter().map(median);
    let bare = costs.next().unwrap_or(f64::NAN);
    let mut out = std::io::stdout();
    let _ = writeln!(out, "processor time per request: bare Pingora {bare:.1} us; the decision alone {decide:.1} us");
    for signer in &signers {
        for seen in ["warm", "first sight"] {
            let cost = costs.next().unwrap_or(f64::NAN);
            let _ = writeln!(out, "  {} {seen}: {cost:.1} us, ratio {:.2}", signer.name, cost / bare);
        }
    }
    std::process::exit(0);
}

/// What the decision alone takes, in microseconds.
fn decide_alone(upstream: SocketAddr) -> f64 {
    use portcullis::pipeline::{Pipeline, Settings};
    let Parts { policy, clock, random, trusted_proxies, country_header, decisions, metrics, services, .. } =
        Parts::new(Arc::new(Live::new(compile(upstream, &Signer::hs256()))));
    let pipeline = Pipeline::new(
        policy,
        Settings { clock, random, trusted_proxies, country_header, decisions, metrics, services },
    );
    let fields = [
        ("host", "api.test"),
        ("user-agent", "bench/1"),
        ("accept", "application/json"),
        ("accept-encoding", "gzip"),
        ("x-trace", "0123456789abcdef"),
        ("authorization", &*format!("Bearer {}", Signer::hs256().token(0))),
    ]
    .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_str(value).expect("a value")));
    let headers = http::HeaderMap::from_iter(fields.clone());
    let mut raw = String::from("GET /v1/items/4711?page=2 HTTP/1.1\r\n");
    for (name, value) in &fields {
        raw.push_str(&format!("{name}: {}\r\n", value.to_str().expect("text")));
    }
    raw.push_str("\r\n");
    let head =
        portcullis::request::head::RequestHead::new("GET", "/v1/items/4711?page=2", &headers).raw(raw.as_bytes());
    let times = (0..ROUNDS).map(|_| {
        let began = std::time::Instant::now();
        for _ in 0..20_000 {
            std::hint::black_box(pipeline.decide(std::hint::black_box(&head)));
        }
        began.elapsed().as_secs_f64() * 1e6 / 20_000.0
    });
    median(times.collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn runtime(name: &str) -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name(name)
        .enable_all()
        .build()
        .expect("a runtime")
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
}

/// The time that the threads of one runtime spent on a processor, as the scheduler counts it.
fn processor_time(name: &str) -> Duration {
    let mut nanoseconds = 0;
    for task in std::fs::read_dir("/proc/self/task").expect("/proc").flatten() {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        if read("comm").trim() == name {
            let spent = read("schedstat").split_whitespace().next().and_then(|spent| spent.parse::<u64>().ok());
            nanoseconds += spent.expect("a kernel with CONFIG_SCHED_INFO");
        }
    }
    Duration::from_nanos(nanoseconds)
}

async fn serve_upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(async move {
                let mut buffer = vec![0; 16 * 1024];
                while matches!(stream.read(&mut buffer).await, Ok(n) if n > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 27\r\n\r\n{\"id\":4711,\"name\":\"a gate\"}";
                    if stream.write_all(answer).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

/// Sends the heads of each connection one after the other, `times` over.
async fn run(address: SocketAddr, heads: Vec<Vec<Arc<str>>>, times: usize) {
    let mut connections = tokio::task::JoinSet::new();
    for heads in heads {
        connections.spawn(async move {
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            stream.set_nodelay(true).expect("nodelay");
            let mut buffer = vec![0; 16 * 1024];
            for request in std::iter::repeat_n(&heads, times).flatten() {
                stream.write_all(request.as_bytes()).await.expect("a request");
                let mut received = Vec::new();
                while !received.ends_with(b"}") {
                    let n = stream.read(&mut buffer).await.expect("an answer");
                    assert!(n > 0, "closed after {}", String::from_utf8_lossy(&received));
                    received.extend_from_slice(buffer.get(..n).unwrap_or_default());
                }
                assert!(received.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&received));
            }
        });
    }
    while let Some(ended) = connections.join_next().await {
        ended.expect("a client");
    }
}

fn request(token: &str) -> Arc<str> {
    format!(
        "GET /v1/items/4711?page=2 HTTP/1.1\r\nHost: api.test\r\nUser-Agent: bench/1\r\nAccept: application/json\r\nAccept-Encoding: gzip\r\nX-Trace: 0123456789abcdef\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
    .into()
}

/// Who signs tokens, and how a policy names the key.
struct Signer {
    name: &'static str,
    minter: Minter,
    setting: &'static str,
    key: String,
}

impl Signer {
    fn hs256() -> Self {
        let minter = Minter::from_secret(SECRET.as_bytes(), Algorithm::HS256).expect("a minter");
        Self { name: "HS256", minter, setting: "secret", key: SECRET.to_owned() }
    }

    fn rs256() -> Self {
        let pem = KeyPair::generate_for(&PKCS_RSA_SHA256).expect("a key pair").serialize_pem();
        Self::of_pair("RS256", Minter::from_pem(&pem, Some(Algorithm::RS256)).expect("a minter"))
    }

    fn es256() -> Self {
        Self::of_pair("ES256", Minter::generate(Algorithm::ES256, &[7; 32]).expect("a minter").0)
    }

    fn of_pair(name: &'static str, minter: Minter) -> Self {
        let key = minter.verifying_key().to_jwk().expect("a public key");
        Self { name, minter, setting: "jwks_file", key: serde_json::Value::Object(key).to_string() }
    }

    /// A token of some 430 bytes and its signature; each number is a token of its own.
    fn token(&self, number: usize) -> String {
        let claims = serde_json::json!({
            "iss": "https://issuer.test", "aud": "api", "sub": "0193530c-7e21-7c44-9d0e-3f1a5b2c8d90",
            "iat": 1_700_000_000, "exp": 4_000_000_000_u64, "scope": "items:read items:write profile",
            "roles": ["reader"], "email": "ada@example.com", "jti": number.to_string(),
        });
        self.minter.mint(claims.as_object().expect("an object"), None, Some("JWT")).expect("a token")
    }
}

fn compile(upstream: SocketAddr, signer: &Signer) -> PolicySet {
    let text = format!(
        "version: 1\nupstream: http://{upstream}\nidentity:\n  bench: {{ preset: jwt, {}: env:KEY, issuer: https://issuer.test, audience: api }}\nroles: {{ reader: {{}} }}\nroutes:\n  GET /v1/items/{{id:int}}: {{ scope: items:read }}\n  GET /v1/items: {{ scope: items:read }}\n  GET /v1/public/**: public\n",
        signer.setting
    );
    let (sources, document, _) = policy::read_bytes(&[("bench.yaml".to_owned(), text.into_bytes())]);
    let (checked, _) = policy::check(document, &sources, &policy::Options::default());
    let checked = checked.expect("a set without errors");
    let references = References::none().with_env("KEY", Secret::new(signer.key.clone()));
    let candidate = policy::compile::compile(&checked, &sources, &references, Revision::of(&sources)).expect("a set");
    let set = Arc::clone(candidate.policy());
    drop(candidate);
    Arc::try_unwrap(set).expect("the only one")
}
