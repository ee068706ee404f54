//! How many instructions the steps of a request take, as callgrind counts them: the same on every run, however busy the
//! machine is.
//!
//! `cargo bench --bench instructions` runs this program under `valgrind --tool=callgrind`, once for each step, counts
//! what happens within `measured`, and prints a table beside `baseline.json`. `-- baseline` writes that file anew. Counts
//! depend on compiler and processor features; the baseline says what it was made with.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench ends at the first surprise, and shows a table"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use portcullis::clock::Timestamp;
use portcullis::decision::facts::Environment;
use portcullis::decision::{Decision, Presented, Question, decide, route};
use portcullis::identity::{IssuerName, Transport};
use portcullis::policy::set::PolicySet;
use portcullis::request::Asked;
use portcullis::request::cookie;
use portcullis::request::forwarded::ClientAddr;
use portcullis::request::head::RequestHead;
use portcullis::request::target::Target;
use portcullis::token::algorithm::Algorithm;
use portcullis::token::key::KeySet;
use portcullis::token::mint::Minter;
use portcullis::token::verify::{ExpectedAudience, ExpectedIssuer, IssuerRules, Verifier};

#[path = "../support/routes.rs"]
mod routes;
#[expect(dead_code, reason = "of what tests share, policies alone are used")]
#[path = "../../tests/support/mod.rs"]
mod support;

/// How often a step is repeated while it is counted.
const TIMES: u32 = 10;
const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const RSA: &str = include_str!("../../fuzz/corpus/pem/rsa-private");
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions/baseline.json");

/// The steps, each of which prepares what it needs and then counts.
const STEPS: &[(&str, fn())] = &[
    ("verify HS256", || verify(Algorithm::HS256)),
    ("verify RS256", || verify(Algorithm::RS256)),
    ("verify ES256", || verify(Algorithm::ES256)),
    ("verify EdDSA", || verify(Algorithm::EdDSA)),
    ("parse a target", parse_target),
    ("find a cookie", find_cookie),
    ("match among 10 routes", || match_among(10)),
    ("match among 1,000 routes", || match_among(1_000)),
    ("match among 10,000 routes", || match_among(10_000)),
    ("decide, public", || decided("/v1/app0/r0/about", Presented::Nothing)),
    ("decide, identity known", || decided("/v1/app0/r3/4711", reader())),
    ("edit headers", edit_headers),
    ("load 1,000 routes", load),
];

fn main() {
    portcullis::server::crypto::install();
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(name) = arguments.iter().find_map(|argument| argument.strip_prefix("step=")) {
        let (_, step) = STEPS.iter().find(|(known, _)| *known == name).expect("a step");
        return step();
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("SKIPPED: instruction counts (there is no valgrind)");
        return;
    }
    let counts: BTreeMap<String, u64> = STEPS.iter().map(|(name, _)| ((*name).to_owned(), count(name))).collect();
    if arguments.iter().any(|argument| argument == "baseline") {
        let text = serde_json::to_string_pretty(&counts).expect("JSON");
        std::fs::write(BASELINE, text + "\n").expect("the baseline is written");
    }
    let baseline = std::fs::read_to_string(BASELINE).unwrap_or_else(|_| "{}".to_owned());
    let baseline: BTreeMap<String, u64> = serde_json::from_str(&baseline).expect("a baseline");
    println!("{:<28} {:>14} {:>14} {:>9}", "instructions", "now", "baseline", "change");
    for (name, _) in STEPS {
        let now = counts.get(*name).copied().unwrap_or(0);
        match baseline.get(*name).filter(|before| **before > 0) {
            Some(before) => {
                let change = (now as f64 / *before as f64 - 1.0) * 100.0;
                println!("{name:<28} {now:>14} {before:>14} {change:>+8.1}%");
            }
            None => println!("{name:<28} {now:>14} {:>14}", "none"),
        }
    }
}

/// The instructions of a step, once.
fn count(name: &str) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*measured*"])
        .arg(std::env::current_exe().expect("this program"))
        .arg(format!("step={name}"))
        .output()
        .expect("valgrind runs");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}");
    let (_, collected) = printed.split_once("Collected :").expect("a count");
    let collected: u64 = collected.split_whitespace().next().and_then(|count| count.parse().ok()).expect("a number");
    collected / u64::from(TIMES)
}

/// What callgrind counts: everything within this function, by its name.
#[inline(never)]
fn measured(step: &mut dyn FnMut()) {
    for _ in 0..TIMES {
        step();
    }
}

fn counted(mut step: impl FnMut()) {
    step(); // what is prepared at the first use is not counted
    measured(&mut step);
}

fn verify(algorithm: Algorithm) {
    let minter = match algorithm {
        Algorithm::HS256 => Minter::from_secret(b"a secret of the bench, which has more than 32 bytes", algorithm),
        Algorithm::RS256 => Minter::from_pem(RSA, Some(algorithm)),
        _ => Minter::generate(algorithm, &[7; 32]).map(|(minter, _)| minter),
    };
    let minter = minter.expect("a minter");
    let (issuer, audience) = ("https://issuer.test", "items");
    let claims = serde_json::json!({
        "iss": issuer, "aud": audience, "sub": "0193530c-7e21-7c44-9d0e-3f1a5b2c8d90", "iat": 1_700_000_000,
        "exp": 4_000_000_000_u64, "scope": "items:read items:write profile", "roles": ["reader"], "email": "ada@example.com",
    });
    let token = minter.mint(claims.as_object().expect("an object"), None, Some("JWT")).expect("a token");
    let (issuer, audience) = (ExpectedIssuer::Exact(issuer.into()), ExpectedAudience::OneOf(vec![audience.into()]));
    let keys = KeySet::from(minter.verifying_key());
    let rules = IssuerRules::new(IssuerName::new("bench"), issuer, audience, keys);
    let verifier = Verifier::new(vec![rules]).expect("one issuer");
    counted(|| drop(black_box(verifier.verify(black_box(&token), NOW).expect("a good token"))));
}

fn headers() -> HeaderMap {
    let fields = [
        ("host", "api.test"),
        ("user-agent", "bench/1"),
        ("accept", "application/json"),
        ("accept-encoding", "gzip"),
        ("x-trace", "0123456789abcdef"),
        ("cookie", "theme=dark; session=0123456789abcdef0123456789abcdef; lang=en"),
    ];
    fields.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).into_iter().collect()
}

fn parse_target() {
    let headers = headers();
    let head = RequestHead::new("GET", "/v1/items/4711/parts/%C3%A4?page=2&sort=name", &headers);
    counted(|| drop(black_box(Target::parse(black_box(&head)).expect("a target"))));
}

fn find_cookie() {
    let headers = headers();
    counted(|| {
        black_box(cookie::find(black_box(&headers), "session").expect("a cookie"));
    });
}

fn match_among(routes: usize) {
    let policy = support::policy(&routes::policy_text(routes));
    let headers = headers();
    let head = RequestHead::new("GET", "/v1/app0/r0/4711/parts/7", &headers);
    let asked = Asked::parse(&head).expect("a request");
    let mut targets: Vec<Target> = (0..=TIMES).map(|_| asked.target.clone()).collect();
    counted(|| {
        let target = targets.pop().expect("one for each");
        drop(black_box(route(&policy, target, &asked.host, &head).expect("a route")));
    });
}

fn reader() -> Presented {
    let claims = serde_json::json!({ "sub": "u1", "scope": "items:read profile", "aud": "items", "iss": "portcullis" });
    let claims = portcullis::identity::claims::Claims::new(claims.as_object().cloned().expect("an object"));
    let mapping = portcullis::identity::claims::ClaimMapping::local();
    Presented::Identity(std::sync::Arc::new(mapping.identity(
        claims,
        IssuerName::new("local"),
        Transport::Bearer,
        None,
    )))
}

fn question<'q>(policy: &'q Arc<PolicySet>, head: &'q RequestHead<'q>, presented: Presented) -> Question<'q> {
    let client = ClientAddr::new(head.peer);
    Question { policy, head, client, country: None, presented, now: NOW, environment: Environment::Resolved }
}

/// From the head to the header edits, the credential looked at before.
fn decided(target: &str, presented: Presented) {
    let policy = support::policy(&routes::policy_text(1_000));
    let headers = headers();
    let head = RequestHead::new("GET", target, &headers);
    let question = question(&policy, &head, presented);
    counted(|| {
        let decision = black_box(decide(black_box(&question)));
        assert!(matches!(decision, Decision::Allow(_)));
    });
}

fn edit_headers() {
    let policy = support::policy(&routes::policy_text(1_000));
    let headers = headers();
    let head = RequestHead::new("GET", "/v1/app0/r3/4711", &headers);
    let Decision::Allow(allowed) = decide(&question(&policy, &head, reader())) else { return };
    let mut all: Vec<HeaderMap> = (0..=TIMES).map(|_| headers.clone()).collect();
    counted(|| allowed.1.apply(black_box(all.last_mut().expect("headers"))));
    all.clear();
}

fn load() {
    let text = routes::policy_text(1_000);
    counted(|| drop(black_box(support::policy(black_box(&text)))));
}
