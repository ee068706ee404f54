//! What `/-/status` says.
//!
//! It describes the set that runs and names what is wrong with the one on disk; it never shows the text of a
//! set that does not run.

use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::diagnostic::json;
use crate::pipeline::Services;
use crate::policy::set::{Issuer, PolicySet};
use crate::reload::publish::ReloadStatus;
use crate::token::key::Kid;

use super::Admin;

pub(super) fn describe(admin: &Admin) -> Value {
    let status = admin.status.snapshot();
    let now = admin.clock.now();
    let listeners: Vec<Value> =
        admin.listeners.iter().map(|(address, tls)| json!({ "address": address.to_string(), "tls": tls })).collect();
    let (services, running) = (admin.services.snapshot(), admin.policy.snapshot());
    let mut fresh = services.revoked.are_fresh();
    let (store_read, redis_read) = (fresh.next(), fresh.next());
    let (store, redis) = &admin.stores;
    let redis_open = services.limits.is_some();
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
        "problems": admin.problems(),
        "store": {
            "url": store,
            "needed": running.needs_store(),
            "open": services.has_store,
            "readable": store_read.filter(|_| services.has_store),
        },
        "redis": redis.as_ref().map(|url| {
            json!({ "url": url, "open": redis_open, "readable": redis_read.filter(|_| redis_open) })
        }),
        "revocations": { "entries": services.revoked.len(), "current": services.revoked.is_current() },
        "keys": keys(&running, &services),
        "listeners": listeners,
        "admin": { "address": admin.address.to_string() },
        "settings_not_acted_on": admin.not_acted_on,
        "decision_log": { "dropped": admin.decision_log.dropped() },
        "requests_in_flight": admin.metrics.in_flight(),
    })
}

/// What signs the tokens that the gateway gives out.
fn keys(policy: &PolicySet, services: &Services) -> Value {
    let keys = services.keys.snapshot();
    let local = policy.issuers.iter().filter(|issuer| issuer.local.is_some());
    let key = |issuer: &Issuer| {
        let signer = keys.signer(&issuer.name);
        let kid = signer.and_then(|signer| signer.kid.as_ref()).map(Kid::as_str);
        json!({ "issuer": issuer.name.as_str(), "signs": signer.is_some(), "kid": kid })
    };
    local.map(key).collect()
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
