//! What deciding costs as a policy grows, and what a check and a reload of 10,000 routes cost.
//!
//! `cargo bench --bench policy` prints the table. Decision times are medians over rounds in which the sizes take
//! turns, so that their ratio does not depend on the machine's mood.

#![expect(clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a bench ends at the first surprise")]

#[path = "support/routes.rs"]
mod routes;
#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis::clock::Timestamp;
use portcullis::identity::claims::{ClaimMapping, Claims};
use portcullis::identity::{Caller, IssuerName, Transport};
use portcullis::policy::references::References;
use portcullis::policy::set::{PolicySet, Revision};

const ROUNDS: usize = 15;
const DECISIONS: u32 = 20_000;

fn reader() -> Caller {
    let claims = serde_json::json!({"sub": "u1", "scope": "items:read profile", "aud": "items", "iss": "portcullis"});
    let claims = Claims::new(claims.as_object().cloned().expect("an object"));
    Caller::Known(Arc::new(ClaimMapping::local().identity(claims, IssuerName::new("local"), Transport::Bearer, None)))
}

/// Nanoseconds of one decision: the target parsed, the route found, the caller judged.
fn decisions(policy: &Arc<PolicySet>, target: &str, caller: &Caller) -> f64 {
    let now = Timestamp::from_seconds(1_900_000_000);
    let start = Instant::now();
    for _ in 0..DECISIONS {
        black_box(support::decide(policy, "GET", black_box(target), caller.clone(), now).expect("allowed"));
    }
    start.elapsed().as_nanos() as f64 / f64::from(DECISIONS)
}

fn main() {
    let mut out = std::io::stdout();
    let sizes = [10, 1_000, 10_000];
    let policies = sizes.map(|size| support::policy(&routes::policy_text(size)));
    let caller = reader();
    let mut rounds: Vec<[f64; 3]> = (0..ROUNDS)
        .map(|_| {
            let mut round = [0.0; 3];
            for ((size, policy), time) in sizes.iter().zip(&policies).zip(&mut round) {
                let app = size.div_ceil(100) - 1;
                *time = decisions(policy, &format!("/v1/app{app}/r0/42"), &caller);
            }
            round
        })
        .collect();
    writeln!(out, "decision: target parsed, route found, scope checked; a caller is cloned in each").expect("stdout");
    for (at, size) in sizes.iter().enumerate() {
        rounds.sort_by(|a, b| a[at].total_cmp(&b[at]));
        let time = rounds[ROUNDS / 2][at];
        rounds.sort_by(|a, b| (a[at] / a[0]).total_cmp(&(b[at] / b[0])));
        let ratio = rounds[ROUNDS / 2][at] / rounds[ROUNDS / 2][0];
        writeln!(out, "  {size:>6} routes {time:>7.0} ns   ratio to 10 routes {ratio:.2}").expect("stdout");
    }

    let text = routes::policy_text(10_000);
    let mut times: Vec<[Duration; 3]> = (0..5)
        .map(|_| {
            let start = Instant::now();
            let mut sources = portcullis::diagnostic::Sources::default();
            sources.add("policies/large.yaml", &text);
            let (document, found) = portcullis::policy::read(&sources);
            assert!(found.is_empty(), "{found:?}");
            let read = start.elapsed();
            let (checked, found) =
                portcullis::policy::check(document, &sources, &portcullis::policy::Options::default());
            let checked = checked.unwrap_or_else(|| panic!("{found:?}"));
            let check = start.elapsed();
            let set =
                portcullis::policy::compile::compile(&checked, &sources, &References::none(), Revision::default());
            black_box(set.expect("compiles"));
            [read, check, start.elapsed()]
        })
        .collect();
    times.sort_by_key(|time| time[2]);
    let [read, check, all] = times[2];
    writeln!(
        out,
        "check and reload of 10,000 routes ({} KiB)\n  read {read:.0?}   check {check:.0?} (with reading)   ready to swap {all:.0?}",
        text.len() / 1024
    )
    .expect("stdout");
}
