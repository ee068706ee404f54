//! What revocation costs: a lookup in a long list, its memory, and how much it adds to a decision (K07).

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue};
use portcullis::live::Live;
use portcullis::pipeline::{Outcome, Pipeline, Services, Settings};
use portcullis::request::head::RequestHead;
use portcullis::server::services::Outside;
use portcullis::server::{Parts, SystemClock, SystemRandom};
use portcullis::store::revoked::RevokedList;
use portcullis::store::{Revocation, Revoked};
use portcullis::token::algorithm::Algorithm;
use portcullis::token::mint::Minter;

use super::{SECRET, compile, later, random_below, statistics};

const ENTRIES: usize = 1_000_000;
const ISSUER: &str = "https://issuer.test";
const POLICY: &str = "
version: 1
upstream: http://127.0.0.1:9
identity: { bench: { preset: jwt, secret: env:SECRET_KEY, issuer: https://issuer.test, audience: api } }
routes:
  GET /v1/items/{id:int}: { scope: items:read }
";

fn id(number: usize) -> String {
    format!("0198a6f0-{:04x}-7000-8000-{number:012x}", number % 65_521)
}

/// A list with so many revoked tokens of each of these issuers' names.
fn list(issuer: &str) -> RevokedList {
    let list = RevokedList::default();
    let until = later();
    let revocation = |number| Revocation { issuer: issuer.to_owned(), revoked: Revoked::Token(id(number)), until };
    for first in (0..ENTRIES).step_by(1000) {
        list.add(&(first..first + 1000).map(revocation).collect::<Vec<_>>());
    }
    assert_eq!(list.len(), ENTRIES);
    list
}

pub fn lookups() {
    let before = resident();
    let list = list(ISSUER);
    let memory = (resident() - before) as f64 / ENTRIES as f64;
    let texts = |first: usize| (0..100_000).map(|_| id(first + random_below(ENTRIES))).collect::<Vec<_>>();
    let (session, subject) = (id(2 * ENTRIES), id(3 * ENTRIES));
    let time = |tokens: &[String], expected: usize| {
        let began = Instant::now();
        let found = tokens
            .iter()
            .filter(|jti| list.is_revoked(ISSUER, Some(jti), Some(&session), Some(&subject), Some(1)))
            .count();
        assert_eq!(found, expected);
        began.elapsed().as_nanos() as f64 / tokens.len() as f64
    };
    let (live, revoked) = (texts(ENTRIES), texts(0));
    let nanoseconds = |tokens: &[String], expected| {
        let times: Vec<f64> = (0..9).map(|_| time(tokens, expected)).collect();
        statistics::median(&times)
    };
    println!(
        "list of 10^6 revoked tokens: {:.0} ns to find that a token is not revoked (by id, session and subject), \
         {:.0} ns that it is; {memory:.0} bytes of memory per entry",
        nanoseconds(&live, 0),
        nanoseconds(&revoked, revoked.len()),
    );
}

/// The same decision with an empty list and with a long one, in turns.
pub fn requests() {
    let pipelines = [RevokedList::default(), list(ISSUER)].map(|revoked| {
        let parts = Parts::new(Arc::new(Live::new(compile(POLICY))));
        let outside = Outside::without_store(Arc::new(SystemClock), Arc::new(SystemRandom));
        let services = Services { revoked: Arc::new(revoked), ..Services::without_store(&outside) };
        let settings = Settings {
            clock: parts.clock,
            random: parts.random,
            trusted_proxies: parts.trusted_proxies,
            country_header: parts.country_header,
            decisions: parts.decisions,
            metrics: parts.metrics,
            services: Arc::new(Live::new(services)),
        };
        Pipeline::new(parts.policy, settings)
    });
    let bearers: Vec<HeaderMap> = (0..5_000).map(|number| headers(&token(number))).collect();
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..31 {
        for (pipeline, times) in pipelines.iter().zip(&mut times) {
            let began = Instant::now();
            for headers in &bearers {
                let decided = pipeline.decide(black_box(&RequestHead::new("GET", "/v1/items/4711?page=2", headers)));
                assert!(matches!(black_box(decided).outcome, Outcome::Forward(_)));
            }
            if round > 0 {
                times.push(began.elapsed().as_secs_f64() * 1e6 / bearers.len() as f64);
            }
        }
    }
    let [empty, long] = times.map(|times| statistics::median(&times));
    println!(
        "a decision with a token: {empty:.2} us with an empty list, {long:.2} us with 10^6 entries, ratio {:.3}",
        long / empty
    );
}

fn headers(token: &str) -> HeaderMap {
    [("host", "api.test"), ("user-agent", "bench/1"), ("accept", "*/*"), ("authorization", &format!("Bearer {token}"))]
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value")))
        .into_iter()
        .collect()
}

fn token(number: usize) -> String {
    let claims = serde_json::json!({
        "iss": ISSUER, "aud": "api", "sub": id(3 * ENTRIES + number), "iat": 1_700_000_000, "exp": 4_000_000_000_u64,
        "jti": id(ENTRIES + number), "sid": id(2 * ENTRIES + number), "scope": "items:read items:write profile",
    });
    let minter = Minter::from_secret(SECRET.as_bytes(), Algorithm::HS256).expect("a minter");
    minter.mint(claims.as_object().expect("an object"), None, Some("JWT")).expect("a token")
}

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.split_whitespace().next().and_then(|kibibytes| kibibytes.parse::<u64>().ok()).expect("a number") * 1024
}
