//! The same work in Portcullis, HAProxy and Envoy, beside a bare Pingora and an nginx that check nothing: verify a token,
//! check its scope, tell the app who it is, forward.
//!
//! `make bench-peers` measures all, keeps the record in `docs/performance` and writes `docs/performance.md` and its
//! chart from it. `cargo bench --bench peers -- WORDS` measures a part (`all` is all) and only prints it: names of algorithms
//! (`RS256`), of tokens (`one`, `pool`, `first`), of gateways (`portcullis`, `haproxy`, …), `gate` for Portcullis and
//! the bare Pingora, `reload` for the reloads; `rounds=N`, `requests=N`. `-- alone RS256 first` keeps Portcullis alone
//! busy and prints its process id, for a profiler; `-- report` writes page and chart from the records that are there.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench ends at the first surprise, and says on the terminal what it does"
)]

#[path = "../../tests/prove/gate.rs"]
#[expect(dead_code, reason = "shared with the proofs")]
mod gate;
#[path = "../../tests/support/machine.rs"]
mod machine;
#[path = "../../tests/support/peers/mod.rs"]
#[expect(dead_code, reason = "nginx checks nothing here, and needs nobody to ask")]
mod peers;
#[path = "../../tests/support/servers.rs"]
mod servers;

mod bare;
mod client;
mod gates;
mod reload;
mod report;
mod tokens;

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis::token::algorithm::Algorithm;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use client::Upstream;
use gates::{Kind, Running};
use tokens::{Issuer, Request};

const ALGORITHMS: [Algorithm; 3] = [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256];
/// Tokens of the realistic pool.
const POOL: usize = 200;
/// Requests a second where latency is measured.
const RATE: u32 = 2000;
/// How long one slice of that takes, and how many there are.
const SLICE: (Duration, usize) = (Duration::from_millis(1500), 2);

/// Which tokens come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tokens {
    /// The same one, again and again.
    One,
    /// Those of 200 users in turn.
    Pool,
    /// Each for the first time.
    First,
}

impl Tokens {
    const ALL: [Self; 3] = [Self::One, Self::Pool, Self::First];

    const fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Pool => "pool",
            Self::First => "first",
        }
    }
}

/// What is measured.
struct Plan {
    algorithms: Vec<Algorithm>,
    tokens: Vec<Tokens>,
    kinds: Vec<Kind>,
    reload: bool,
    rounds: usize,
    requests: usize,
    latency: bool,
    record: bool,
}

impl Plan {
    fn of(words: &[String]) -> Self {
        // `make bench` asks for nothing in particular.
        let usual = ["gate".to_owned(), "one".to_owned()];
        let words = if words.is_empty() { &usual[..] } else { words };
        let has = |name: &str| words.iter().any(|word| word == name);
        let number = |name: &str| words.iter().find_map(|word| word.strip_prefix(name)?.parse().ok());
        fn chosen<T>(all: impl IntoIterator<Item = T>, is: impl Fn(&T) -> bool) -> Option<Vec<T>> {
            let chosen: Vec<T> = all.into_iter().filter(is).collect();
            (!chosen.is_empty()).then_some(chosen)
        }
        let record = has("record");
        let gate = if has("gate") { vec![Kind::Bare, Kind::Portcullis] } else { Kind::ALL.to_vec() };
        let kinds = chosen(Kind::ALL, |kind| has(kind.name())).unwrap_or(gate);
        Self {
            algorithms: chosen(ALGORITHMS, |algorithm| has(algorithm.as_str())).unwrap_or_else(|| ALGORITHMS.to_vec()),
            tokens: chosen(Tokens::ALL, |tokens| has(tokens.name())).unwrap_or_else(|| Tokens::ALL.to_vec()),
            kinds: kinds.into_iter().filter(|kind| kind.is_here()).collect(),
            reload: record || has("reload"),
            rounds: number("rounds=").unwrap_or(if record { 9 } else { 3 }),
            requests: number("requests=").unwrap_or(4000),
            latency: record || has("latency"),
            record,
        }
    }
}

fn main() {
    portcullis::server::crypto::install();
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    if let [word, listen, upstream] = words.as_slice()
        && word == "bare"
    {
        let (listen, upstream) = (listen.parse().unwrap(), upstream.parse().unwrap());
        // Ends with the bench, whichever way that ends.
        std::thread::spawn(|| {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            std::process::exit(0);
        });
        return runtime(1).block_on(bare::serve(listen, upstream));
    }
    if words.first().is_some_and(|word| word == "report") {
        return report::write();
    }
    let plan = Plan::of(&words);
    if words.first().is_some_and(|word| word == "alone") {
        return alone(&plan);
    }
    if plan.record {
        let missing: Vec<_> = Kind::ALL.iter().filter(|kind| !kind.is_here()).map(|kind| kind.name()).collect();
        assert!(missing.is_empty(), "not installed: {missing:?} (tests/setup-peers.sh)");
    }
    let began = Instant::now();
    let mut bench = Bench::new();
    for &algorithm in &plan.algorithms {
        bench.measure(&plan, algorithm);
    }
    let reload = plan.reload.then(|| reload::measure(&bench.upstream()));
    if let Some(reload) = &reload {
        println!("reload: {reload}");
    }
    if plan.record {
        let versions: Map<String, Value> =
            peers::Program::ALL.iter().map(|one| (one.name().to_owned(), json!(one.version()))).collect();
        let file = report::keep(&json!({
            "date": machine::date(),
            "commit": machine::commit(),
            "machine": machine::describe(),
            "versions": versions,
            "seconds": began.elapsed().as_secs(),
            "connections": client::CONNECTIONS,
            "rounds": plan.rounds,
            "requests_a_round": plan.requests,
            "pool": POOL,
            "rate": RATE,
            "cells": bench.cells,
            "memory": bench.memory,
            "reload": reload,
        }));
        println!("kept as {}", file.display());
        report::write();
    }
}

/// What all gateways share, and what came out.
struct Bench {
    up: (Runtime, Arc<Upstream>, std::net::SocketAddr),
    load: Runtime,
    cells: Vec<Value>,
    memory: Map<String, Value>,
}

impl Bench {
    fn new() -> Self {
        let runtime_up = runtime(1);
        let upstream = Arc::new(Upstream::default());
        let address = runtime_up.block_on(Arc::clone(&upstream).start());
        Self { up: (runtime_up, upstream, address), load: runtime(1), cells: Vec::new(), memory: Map::new() }
    }

    fn upstream(&self) -> std::net::SocketAddr {
        self.up.2
    }

    /// All cells of one algorithm.
    fn measure(&mut self, plan: &Plan, algorithm: Algorithm) {
        let issuer = Issuer::new(algorithm);
        let gates: Vec<Running> = plan.kinds.iter().map(|kind| kind.start(&issuer, self.up.2)).collect();
        for gate in &gates {
            gate.check(&issuer, &self.up.1);
        }
        let idle: Vec<f64> = gates.iter().map(Running::memory).collect();
        let pool = issuer.requests(0, POOL);
        for &tokens in &plan.tokens {
            let slice = (SLICE.0.as_secs_f64() * f64::from(RATE)) as usize;
            let slices = if plan.latency { SLICE.1 } else { 0 };
            let whole = (plan.rounds + 1) * plan.requests + slices * slice;
            let all: Vec<Request> = match tokens {
                Tokens::One => vec![Arc::clone(&pool[0]); whole],
                Tokens::Pool => pool.iter().cycle().take(whole).cloned().collect(),
                Tokens::First => issuer.requests(POOL, whole),
            };
            let mut costs = vec![Vec::new(); gates.len()];
            for (round, part) in all.chunks(plan.requests).take(plan.rounds + 1).enumerate() {
                let part = Arc::new(part.to_vec());
                for at in 0..gates.len() {
                    let at = (at + round) % gates.len(); // none always comes after the same one
                    let before = gates[at].processor_time();
                    self.load.block_on(client::all(gates[at].address, Arc::clone(&part)));
                    if round > 0 {
                        costs[at].push((gates[at].processor_time() - before) / part.len() as f64);
                    } // the first round warms up
                }
            }
            let mut times = vec![Vec::new(); gates.len()];
            for part in all[(plan.rounds + 1) * plan.requests..].chunks(slice) {
                for (gate, times) in gates.iter().zip(&mut times) {
                    times.extend(client::steadily(gate.address, part, RATE));
                }
            }
            let mut cell = json!({ "algorithm": issuer.name(), "tokens": tokens.name() });
            let bare = gates.iter().position(|gate| gate.kind == Kind::Bare).map(|at| median(&costs[at]));
            println!("{} {}", issuer.name(), tokens.name());
            for (at, gate) in gates.iter().enumerate() {
                let name = gate.kind.name();
                let cost = median(&costs[at]);
                let ratio = bare.map(|bare| cost / bare);
                let (p50, p99) =
                    (client::percentile(times[at].iter(), 0.5), client::percentile(times[at].iter(), 0.99));
                let spread = |part: f64| {
                    let mut sorted = costs[at].clone();
                    sorted.sort_by(f64::total_cmp);
                    sorted[((sorted.len() - 1) as f64 * part) as usize]
                };
                println!(
                    "  {name:<18} {cost:6.1} us ({:.1} to {:.1})  {:4.2} x bare  p50 {p50:5.0} us  p99 {p99:6.0} us",
                    spread(0.0),
                    spread(1.0),
                    ratio.unwrap_or(f64::NAN),
                );
                let mut values = json!({ "cpu_us": round(cost, 1), "lowest": round(spread(0.0), 1), "highest": round(spread(1.0), 1) });
                if let Some(ratio) = ratio {
                    values["ratio"] = round(ratio, 2);
                }
                if plan.latency {
                    values["p50_us"] = round(p50, 0);
                    values["p99_us"] = round(p99, 0);
                }
                cell[name] = values;
            }
            self.cells.push(cell);
        }
        for (gate, idle) in gates.iter().zip(idle) {
            let loaded = gate.memory();
            println!("  {:<18} {idle:5.1} MiB idle, {loaded:5.1} MiB after the load", gate.kind.name());
            // Of the algorithms the one that takes most.
            let before = self.memory.get(gate.kind.name()).map_or(0.0, |one| one["loaded_mib"].as_f64().unwrap());
            if loaded > before {
                self.memory.insert(
                    gate.kind.name().to_owned(),
                    json!({ "idle_mib": round(idle, 1), "loaded_mib": round(loaded, 1) }),
                );
            }
        }
    }
}

/// Keeps Portcullis busy, and prints what a request cost; for a profiler that looks at its process.
fn alone(plan: &Plan) {
    let bench = Bench::new();
    let (algorithm, tokens) = (plan.algorithms[0], plan.tokens[0]);
    let kind = if plan.kinds.len() == 1 { plan.kinds[0] } else { Kind::Portcullis };
    let issuer = Issuer::new(algorithm);
    let gate = kind.start(&issuer, bench.upstream());
    gate.check(&issuer, &bench.up.1);
    println!("{} {} {}: process {}", kind.name(), issuer.name(), tokens.name(), gate.pid());
    for round in 0..=plan.rounds {
        let all = match tokens {
            Tokens::First => issuer.requests(1 + round * plan.requests, plan.requests),
            Tokens::Pool => issuer.requests(0, POOL).iter().cycle().take(plan.requests).cloned().collect(),
            Tokens::One => vec![issuer.requests(0, 1)[0].clone(); plan.requests],
        };
        let before = gate.processor_time();
        bench.load.block_on(client::all(gate.address, Arc::new(all)));
        println!("{:.1} us a request", (gate.processor_time() - before) / plan.requests as f64);
    }
}

fn runtime(workers: usize) -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build().unwrap()
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn round(value: f64, digits: i32) -> Value {
    let scale = 10f64.powi(digits);
    let rounded = (value * scale).round() / scale;
    if digits == 0 { json!(rounded as i64) } else { json!(rounded) }
}
