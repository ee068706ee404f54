//! The five outcomes of a failed login (J01, R15): the same bytes, in the same time.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use portcullis::config::{Config, DecisionSink, Log};
use portcullis::identity::account::AccountName;
use portcullis::issuer::Issuers;
use portcullis::live::Live;
use portcullis::pipeline::Services;
use portcullis::random::SeededRandom;
use portcullis::request::forwarded::{ClientAddr, TrustedProxies};
use portcullis::secret::Secret;
use portcullis::server::services::Outside;
use portcullis::server::{Gateway, Listening, Parts, SystemClock, SystemRandom};
use portcullis::store::memory::Memory;
use portcullis::store::revoked::RevokedList;
use portcullis::store::{Stores, User, Users};
use portcullis::telemetry::audit::Audit;
use portcullis::telemetry::decision_log::DecisionLog;
use portcullis::telemetry::metrics::Metrics;

use super::{Endpoints, later, random_below, statistics};

pub const OUTCOMES: [&str; 5] = ["unknown", "wrong", "disabled", "locked", "passwordless"];

/// One failure locks an account for the address it came from.
const POLICY: &str = "
version: 1
app: items
upstream: http://127.0.0.1:9
login: { via: local, limit: none, lockout: { after: 1, within: 1h, for: 1h } }
scopes: { items: Everything on items }
routes:
  GET /items: { scope: items }
";
const RIGHT: &str = "a-long-walk-in-the-rain";
const LOCKED_OUT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// An attempt, which is the first of its account and address but where it is to meet a lock.
struct Attempt {
    outcome: usize,
    client: Ipv4Addr,
    form: String,
}

impl Attempt {
    fn new(outcome: usize, number: usize) -> Self {
        let number = number * OUTCOMES.len() + outcome;
        let [_, a, b, c] = (number as u32).to_be_bytes();
        let name = match OUTCOMES.get(outcome).copied().unwrap_or_default() {
            "unknown" => format!("nobody-{number:05}"),
            name => format!("{name:-<12}"),
        };
        let (client, password) = match OUTCOMES.get(outcome).copied().unwrap_or_default() {
            "wrong" => (Ipv4Addr::new(10, a, b, c), "a-long-walk-in-the-snow"),
            "locked" => (LOCKED_OUT, RIGHT),
            _ => (Ipv4Addr::new(10, a, b, c), RIGHT),
        };
        Self { outcome, client, form: form(&name, password) }
    }

    /// The failure after which the account is locked.
    fn that_locks() -> Self {
        Self { client: LOCKED_OUT, form: form(&format!("{:-<12}", "locked"), "a-long-walk-in-the-fog"), outcome: 3 }
    }
}

fn form(name: &str, password: &str) -> String {
    format!("grant_type=password&username={name}&password={password}")
}

/// Users that meet the outcomes of their names.
async fn stores() -> Arc<Stores> {
    let memory = Arc::new(Memory::new());
    let hash = portcullis::password::hash(RIGHT.as_bytes(), [7; 16]).expect("a hash");
    let user = |outcome: &&str| {
        let name = format!("{outcome:-<12}");
        User {
            id: format!("0198a6f0-0000-7000-8000-{name}"),
            account: AccountName::parse(&name).expect("a name"),
            name,
            email: None,
            hash: (*outcome != "passwordless").then(|| Secret::new(hash.expose().clone())),
            roles: Vec::new(),
            scopes: vec!["items".to_owned()],
            tenant: None,
            disabled: *outcome == "disabled",
            created: later(),
            updated: later(),
        }
    };
    let users: Vec<User> = OUTCOMES.iter().filter(|outcome| **outcome != "unknown").map(user).collect();
    memory.add(&users).await.expect("users");
    Arc::new(Stores { users: memory, ..Stores::memory() })
}

/// An audit log as `serve` keeps it, in a file that goes away.
fn audit(folder: &tempfile::TempDir) -> Arc<Audit> {
    let decisions = DecisionSink::File { path: folder.path().join("audit.log"), size: 1 << 30, keep: 0 };
    let settings = Log { decisions, ..Config::default().log };
    let log = DecisionLog::start(&settings, &SystemRandom).expect("a log");
    Arc::new(Audit::new(Arc::new(log), Arc::new(Metrics::new())))
}

/// Through the endpoint itself.
pub fn compare(rounds: usize) {
    statistics::check_itself();
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = super::runtime();
    let endpoints = runtime
        .block_on(async { Endpoints::over(stores().await, POLICY, audit(&folder), Arc::new(SystemRandom)).await });
    let ask = |attempt: Attempt| {
        let answer = runtime.block_on(endpoints.token(ClientAddr::new(attempt.client.into()), attempt.form));
        format!("{} {:?} {:?}", answer.status, answer.headers, answer.body).into_bytes()
    };
    measure("in memory", rounds, ask);
}

/// Through a gateway and the network, with addresses that a trusted proxy tells.
pub fn compare_over_http(rounds: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = super::runtime();
    let stores = runtime.block_on(stores());
    let endpoints =
        runtime.block_on(Endpoints::over(Arc::clone(&stores), POLICY, audit(&folder), Arc::new(SystemRandom)));
    let outside = Outside::without_store(Arc::new(SystemClock), Arc::new(SystemRandom));
    let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
    let issuers = Issuers::new(Some(Arc::clone(&stores.keys)), clock, random);
    runtime.block_on(issuers.refresh(&endpoints.policy)).expect("keys");
    let services = Services {
        keys: issuers.live(),
        issuers: Arc::new(issuers),
        has_store: true,
        revoked: Arc::new(RevokedList::default()),
        login: Arc::new(endpoints.login),
        ..Services::without_store(&outside)
    };
    let parts = Parts {
        listeners: vec![Listening { address: SocketAddr::from(([127, 0, 0, 1], 0)), certificate: None }],
        trusted_proxies: TrustedProxies::parse(["127.0.0.0/8"]).expect("a network"),
        services: Arc::new(Live::new(services)),
        ..Parts::new(Arc::new(Live::shared(endpoints.policy)))
    };
    let gateway = Gateway::build(parts).expect("a gateway");
    let address = *gateway.addresses().first().expect("an address");
    runtime.spawn(gateway.run());
    std::thread::sleep(std::time::Duration::from_millis(300));
    let ask = |Attempt { client, form, .. }: Attempt| {
        let request = format!(
            "POST /token HTTP/1.1\r\nHost: api.test\r\nUser-Agent: bench/1\r\nX-Forwarded-For: {client}\r\n\
             Content-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{form}",
            super::URLENCODED,
            form.len(),
        );
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.write_all(request.as_bytes()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let own = |line: &&str| {
            let line = line.to_ascii_lowercase();
            !line.starts_with("date:") && !line.starts_with("x-portcullis-decision:")
        };
        answer.split_inclusive("\r\n").filter(own).collect::<String>().into_bytes()
    };
    measure("over HTTP", rounds, ask);
}

fn measure(how: &str, rounds: usize, mut ask: impl FnMut(Attempt) -> Vec<u8>) {
    let expected = ask(Attempt::that_locks());
    let text = String::from_utf8_lossy(&expected);
    assert!(text.contains("400") && text.contains("invalid_grant"), "{text}");
    let mut times: [Vec<f64>; 5] = Default::default();
    let mut others = 0;
    // The first rounds warm up.
    let warming = 5;
    for round in 0..rounds + warming {
        let mut left: Vec<usize> = (0..OUTCOMES.len()).collect();
        while !left.is_empty() {
            let attempt = Attempt::new(left.swap_remove(random_below(left.len())), round);
            let outcome = attempt.outcome;
            let began = Instant::now();
            let answer = ask(attempt);
            let spent = began.elapsed().as_secs_f64() * 1e6;
            others += usize::from(answer != expected);
            if let Some(times) = times.get_mut(outcome).filter(|_| round >= warming) {
                times.push(spent);
            }
        }
    }
    let overall = statistics::median(&times.concat());
    println!("five outcomes of a failed login, {how}, {rounds} of each in random order:");
    println!("  {others} of {} answers are not the same bytes ({} of them)", 5 * (rounds + warming), expected.len());
    let mut worst = 0_f64;
    for (outcome, times) in OUTCOMES.iter().zip(&times) {
        let median = statistics::median(times);
        worst = worst.max((median / overall - 1.0).abs());
        println!("  {outcome:<13} median {median:>7.0} us, {:.4} of the overall median", median / overall);
    }
    let mut pairs = Vec::new();
    for (at, a) in times.iter().enumerate() {
        for (other, b) in times.iter().enumerate().skip(at + 1) {
            pairs.push((statistics::kolmogorov_smirnov(a, b), at, other));
        }
    }
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    println!("  medians within {:.2} % (aim: 2 %)", worst * 100.0);
    print!("  Kolmogorov-Smirnov, p of the ten pairs (aim: > 0.01; one run in ten or so has less by chance):");
    for (p, a, b) in pairs {
        print!(" {p:.3}");
        if p < 0.05 {
            print!(" ({}, {})", OUTCOMES.get(a).unwrap_or(&""), OUTCOMES.get(b).unwrap_or(&""));
        }
    }
    println!();
}

/// One outcome alone, so often: what is counted by instructions.
pub fn only(outcome: &str, logins: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let outcome = OUTCOMES.iter().position(|name| *name == outcome).expect("an outcome");
    runtime.block_on(async {
        // Not the system's randomness: gathering it takes another number of instructions each time.
        let random = Arc::new(SeededRandom::new(1));
        let endpoints = Endpoints::over(stores().await, POLICY, Arc::new(Audit::none()), random).await;
        let attempts = (0..logins).map(|number| Attempt::new(outcome, number));
        for Attempt { client, form, .. } in std::iter::once(Attempt::that_locks()).chain(attempts) {
            assert_eq!(endpoints.token(ClientAddr::new(client.into()), form).await.status, 400);
        }
    });
}
