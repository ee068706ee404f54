//! What `/-/status` says.
//!
//! It describes the set that runs and names what is wrong with the one on disk; it never shows the text of a
//! set that does not run.

use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::diagnostic::json;
use crate::issuer::RemoteStatus;
use crate::pipeline::{Outage, Services};
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
        "issuers": issuers(&services, &running).iter().map(|issuer| remote(issuer, now)).collect::<Value>(),
        "outages": services.inquiries.outages().iter().map(outage).collect::<Value>(),
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

/// What is known of the keys that issuers of the policy publish.
pub(super) fn issuers(services: &Services, policy: &PolicySet) -> Vec<RemoteStatus> {
    let mut all = services.issuers.remote();
    all.retain(|status| policy.issuer(&status.issuer).is_some_and(|issuer| issuer.remote.is_some()));
    all
}

fn remote(status: &RemoteStatus, now: Timestamp) -> Value {
    json!({
        "issuer": status.issuer.as_str(),
        "url": status.url,
        "keys": status.keys,
        "fetched": status.fetched.map(time),
        "age_seconds": status.fetched.map(|fetched| now.since(fetched).as_secs()),
        "next_fetch": status.next.map(time),
        "error": status.error,
    })
}

fn outage(outage: &Outage) -> Value {
    json!({
        "issuer": outage.issuer.as_str(),
        "about": outage.about,
        "since": time(outage.since),
        "error": outage.error,
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
