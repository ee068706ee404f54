//! Logins against running gateways, with real PostgreSQL and Redis: what holds between processes, and when they are
//! killed.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends at the first surprise"
)]

#[path = "../support/relay.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod relay;
#[path = "../support/servers.rs"]
mod servers;

mod attacks;
mod cluster;
#[expect(dead_code, reason = "shared with other tests")]
mod node;
mod outage;

/// Each of these tests takes the whole machine: what they measure and wait for is their own.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A server, or the word that it is missing.
fn server<T>(started: Result<T, String>) -> Option<T> {
    started.inspect_err(|missing| servers::skipped(&format!("logins against real servers: {missing}"))).ok()
}
