//! `make prove`: what is promised, measured. One figure of `figures()` is one promise.
//!
//! Without arguments each figure runs at its smoke size, as `make test` does: counts and bytes are judged there, time
//! and memory are not. `--full` runs the full size (`--smoke` the small one), judges all of it, and records a dated JSON
//! under `docs/proof`, from which `docs/proof.md` and the table of the README are written. Names of figures select;
//! `table` only writes the tables; `--against=HOST:PORT` sends the attacks to another gateway (tests/attacks/README.md).
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stdout,
    reason = "a proof ends at the first surprise, and says on the terminal what it does"
)]

#[path = "../support/h2raw.rs"]
mod h2raw;
#[path = "../support/machine.rs"]
mod machine;
#[path = "../support/peers/mod.rs"]
mod peers;
#[path = "../support/relay.rs"]
mod relay;
#[path = "../support/servers.rs"]
mod servers;

#[path = "../../fuzz/src/lib.rs"]
mod fuzz_targets;
#[path = "../browser/gateway.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod browser;
#[path = "../it/client.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod client;
#[path = "../support/outcomes.rs"]
mod failures;
#[path = "../support/frames.rs"]
mod frames;
#[path = "../support/idp.rs"]
mod idp;
#[path = "../login/node.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod node;
#[path = "../browser/provider.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod provider;
#[path = "../support/statistics.rs"]
mod statistics;
#[path = "../it/upstream.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod upstream;

mod attacks;
mod closure;
mod crash;
mod crowd;
mod dice;
mod fail_closed;
mod fuzz;
mod gate;
mod good;
mod h2;
mod idle;
mod jwks;
mod login;
mod reload;
mod run;
mod slow;
mod table;
mod tokens;

use std::process::ExitCode;

use run::{Figure, Run, Size};

/// What is promised, in the order of `docs/proof.md`.
fn figures() -> Vec<Figure> {
    vec![
        Figure {
            id: "R1",
            name: "attacks",
            promise: "no attack of the corpus gets past it: every class of public bypass of 2019 to 2026, in over 2,500 cases",
            run: attacks::run,
        },
        Figure {
            id: "R2",
            name: "closure",
            promise: "however a common upstream reads a forwarded path, the caller may have that path too: 10^8 readings",
            run: closure::run,
        },
        Figure {
            id: "R4",
            name: "tokens",
            promise: "no forged token is accepted: over 12,000 forgeries, over 1,000 for each of 12 algorithms, and 10^7 \
                      tokens with bits flipped",
            run: tokens::run,
        },
        Figure {
            id: "R3",
            name: "fuzz",
            promise: "no input crashes, stalls or misleads any of the 25 parsers of network or policy bytes, each fuzzed",
            run: fuzz::run,
        },
        Figure {
            id: "R6",
            name: "reload",
            promise: "1,000 reloads under load, half of them hostile (broken, huge, unreadable, half written): no request fails, none is decided by two policies, good ones are live within 1 s and bad ones change nothing",
            run: reload::run,
        },
        Figure {
            id: "R7",
            name: "fail-closed",
            promise: "whatever a gateway needs is away, stalls, is slow or lies: nobody passes who must not, people whom \
                      it does not concern notice nothing, and 2 s after its return all is well",
            run: fail_closed::run,
        },
        Figure {
            id: "R8, R9",
            name: "crash",
            promise: "gateway, Redis and PostgreSQL killed 1,000 times under load: nobody locked out, no session split, \
                      no logout lost; a logout holds at once, on other gateways within a second",
            run: crash::run,
        },
        Figure {
            id: "R10, R14, R15",
            name: "login",
            promise: "200 requests of an expired session are one refresh; 1,000 logins at once leave memory bounded and \
                      others served; five kinds of failed login are one answer in one time",
            run: login::run,
        },
        Figure {
            id: "R13",
            name: "jwks",
            promise: "a million tokens with unknown keys in a minute: the issuer asked at most three times, no good \
                      request fails, a key that is really new known within 35 s",
            run: jwks::run,
        },
        Figure {
            id: "R11",
            name: "slow",
            promise: "10,000 slow clients and 1,000 slow readers at once: each is ended at its deadline, in under 256 MiB, and others get their answers within twice the usual time",
            run: slow::run,
        },
        Figure {
            id: "R12",
            name: "h2",
            promise: "thirty-two kinds of HTTP/2 abuse, a million streams opened and reset among them: attackers are ended, in under 64 MiB, and others get their answers within twice the usual time",
            run: h2::run,
        },
        Figure {
            id: "idle",
            name: "idle",
            promise: "started in under 100 ms; under 40 MiB when idle, under 10 KiB for each idle connection",
            run: idle::run,
        },
    ]
}

fn main() -> ExitCode {
    portcullis::server::crypto::install();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let size = if arguments.iter().any(|argument| argument == "--full") { Size::Full } else { Size::Smoke };
    let names: Vec<&str> = arguments.iter().map(String::as_str).filter(|name| !name.starts_with("--")).collect();
    if arguments.iter().any(|argument| argument.starts_with("--against")) {
        return attacks::against(&arguments);
    }
    if arguments.iter().any(|argument| argument == "--peers") {
        return attacks::against_peers();
    }
    if names == ["table"] {
        table::write();
        return ExitCode::SUCCESS;
    }
    let all = figures();
    let chosen: Vec<&Figure> = all.iter().filter(|figure| names.is_empty() || names.contains(&figure.name)).collect();
    if chosen.is_empty() {
        // Without a size, it is the name of a test in another binary.
        let sized = arguments.iter().any(|argument| argument == "--full" || argument == "--smoke");
        println!("prove: no figure {}", names.join(", "));
        return if sized { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let mut failed = Vec::new();
    for figure in chosen {
        println!("==> {} {} ({})", figure.id, figure.name, size.name());
        let run = Run::of_figure(figure, size);
        if !run.finish() {
            failed.push(figure.name);
        }
    }
    match size {
        Size::Full => table::write(),
        Size::Smoke if names.is_empty() && !table::is_current() => failed.push("table (`make prove-table` writes it)"),
        Size::Smoke => {}
    }
    if failed.is_empty() {
        println!("prove: all hold");
        return ExitCode::SUCCESS;
    }
    println!("prove: FAILED: {}", failed.join(", "));
    ExitCode::FAILURE
}
