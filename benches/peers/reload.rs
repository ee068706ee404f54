//! What a reload of 10,000 routes costs: how long until it counts, and what requests in between feel of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use portcullis::token::algorithm::Algorithm;
use serde_json::{Value, json};

use crate::client::{self, Timed};
use crate::gates::site;
use crate::tokens::Issuer;

const ROUTES: usize = 10_000;
const RELOADS: usize = 5;
const RATE: u32 = 1000;
/// A reload and the quiet after it.
const TURN: Duration = Duration::from_secs(2);

/// Times five reloads under load, and a quiet run as long.
pub fn measure(upstream: &SocketAddr) -> Value {
    let issuer = Issuer::new(Algorithm::HS256);
    let site = site(&issuer, *upstream, false, &routes(0));
    let policy = std::fs::read_to_string(site.path().join("policies/policy.yaml")).unwrap();
    let head = policy.split_once("routes:\n").unwrap().0;
    let gate = site.start();
    let address = gate.address;
    let requests = issuer.requests(0, 200);
    let length = (TURN.as_secs_f64() * RELOADS as f64 * f64::from(RATE)) as usize;
    let requests: Vec<_> = requests.iter().cycle().take(length).cloned().collect();
    client::steadily(address, &requests[..length / 5], RATE); // warms up
    let quiet = client::steadily(address, &requests, RATE);
    let mut reloads: Vec<(Instant, Instant)> = Vec::new();
    let mut busy = Vec::new();
    std::thread::scope(|scope| {
        let load = scope.spawn(|| client::steadily(address, &requests, RATE));
        for generation in 1..=RELOADS {
            std::thread::sleep(TURN / 4);
            let text = format!("{head}routes:\n{}", routes(generation));
            let began = Instant::now();
            site.write("policies/policy.yaml", text);
            let probe = format!("GET /generation/{generation} HTTP/1.1\r\nHost: api.test\r\n\r\n");
            while client::ask(address, probe.as_bytes()) != 200 {
                assert!(began.elapsed() < Duration::from_secs(30), "no reload: {}", gate.log());
                std::thread::sleep(Duration::from_millis(5));
            }
            let live = Instant::now();
            reloads.push((began, live));
            std::thread::sleep((TURN * 3 / 4).saturating_sub(live - began));
        }
        busy = load.join().unwrap();
    });
    let during: Vec<&Timed> =
        busy.iter().filter(|(at, _)| reloads.iter().any(|(began, live)| began <= at && at <= live)).collect();
    let mut took: Vec<f64> = reloads.iter().map(|(began, live)| (*live - *began).as_secs_f64() * 1e3).collect();
    took.sort_by(f64::total_cmp);
    // "took":"12.3ms" in the gateway's own words: reading, checking, compiling.
    let log = gate.log();
    let own = log.lines().filter(|line| line.contains("policy reload")).filter_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        line["took"].as_str()?.strip_suffix("ms")?.parse::<f64>().ok()
    });
    let mut own: Vec<f64> = own.collect();
    own.sort_by(f64::total_cmp);
    let whole = |value: f64| value.round() as i64;
    json!({
        "routes": ROUTES,
        "reloads": RELOADS,
        "rate": RATE,
        "until_live_ms_median": whole(took[took.len() / 2]),
        "until_live_ms_slowest": whole(took[took.len() - 1]),
        "own_ms_median": own.get(own.len() / 2).map(|ms| whole(*ms)),
        "quiet_p50_us": whole(client::percentile(quiet.iter(), 0.5)),
        "quiet_p99_us": whole(client::percentile(quiet.iter(), 0.99)),
        "with_reloads_p99_us": whole(client::percentile(busy.iter(), 0.99)),
        "while_reloading_p50_us": whole(client::percentile(during.iter().copied(), 0.5)),
        "while_reloading_p99_us": whole(client::percentile(during.iter().copied(), 0.99)),
        "answers_while_reloading": during.len(),
    })
}

fn routes(generation: usize) -> String {
    let mut text =
        format!("  GET /v1/items/{{id:int}}: {{ scope: items:read }}\n  GET /generation/{generation}: public\n");
    for number in 2..ROUTES {
        text.push_str(&format!("  GET /v1/part{}/thing{number}/{{id}}: {{ scope: items:read }}\n", number % 97));
    }
    text
}
