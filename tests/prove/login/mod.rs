//! Logging in: one refresh for all who wait (R10, K01), a flood that others hardly notice (R14, J04), and failures that
//! nobody can tell apart (R15, J01).

mod flight;
mod flood;
mod outcomes;

use crate::run::Run;

pub fn run(run: &mut Run) {
    let parts = [flight::run(run), flood::run(run), outcomes::run(run)];
    run.result(parts.join("; "));
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
