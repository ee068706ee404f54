//! What `/-/status` says.
//!
//! It describes the set that runs and names what is wrong with the one on disk; it never shows the text of a
//! set that does not run.

use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::diagnostic::json;
use crate::reload::publish::ReloadStatus;

use super::Admin;

pub(super) fn describe(admin: &Admin) -> Value {
    let status = admin.status.snapshot();
    let now = admin.clock.now();
    let listeners: Vec<Value> =
        admin.listeners.iter().map(|(address, tls)| json!({ "address": address.to_string(), "tls": tls })).collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "policy": {
            "running": status.running,
            "since": time(status.since),
            "files": status.files,
            "routes": status.routes,
            "tests": status.tests,
            "disk": status.disk,
            "stale": status.rejected.is_some(),
            "stale_seconds": status.rejected.as_ref().map_or(0, |rejected| now.since(rejected.stale_since).as_secs()),
            "error": rejection(&status),
            "not_acted_on": status.unsupported,
        },
        "listeners": listeners,
        "admin": { "address": admin.address.to_string() },
        "settings_not_acted_on": admin.not_acted_on,
        "decision_log": { "dropped": admin.decision_log.dropped() },
        "requests_in_flight": admin.metrics.in_flight(),
    })
}

/// Why the set on disk does not run.
pub(super) fn rejection(status: &ReloadStatus) -> Value {
    let Some(rejected) = &status.rejected else { return Value::Null };
    let diagnostics: Vec<Value> =
        rejected.diagnostics.iter().map(|found| json::object(found, &rejected.sources)).collect();
    json!({
        "at": time(rejected.at),
        "stale_since": time(rejected.stale_since),
        "summary": rejected.summary,
        "diagnostics": diagnostics,
    })
}

fn time(at: Timestamp) -> Value {
    jiff::Timestamp::from_millisecond(at.as_millis()).map_or(Value::Null, |at| Value::String(format!("{at:.3}")))
}
