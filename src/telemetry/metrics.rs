//! Counters and gauges in the Prometheus text form; all names begin with `portcullis_`.
//!
//! Labels take values from policies and from closed lists only, never from requests. [`Metrics::app`] resolves
//! an app's counters once, so that counting a request is a look-up in a short list and one addition.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::RwLock;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::clock::Timestamp;

use super::decision_log::DecisionLog;

/// So many different apps, guards or limits get series of their own; those of further ones share `other`.
const MAX_NAMES: usize = 1000;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Forwarded, or answered by an own endpoint.
    Allow,
    /// Refused by the policy or before it: 4xx.
    Deny,
    /// We or the upstream could not: 5xx.
    Error,
}

/// What became of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReloadResult {
    /// The new set serves.
    Applied,
    /// The set on disk does not load.
    Rejected,
    /// The set on disk is the one that serves.
    Unchanged,
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        EncodeLabelValue::encode(
            &match self {
                Self::Allow => "allow",
                Self::Deny => "deny",
                Self::Error => "error",
            },
            encoder,
        )
    }
}

impl EncodeLabelValue for ReloadResult {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        EncodeLabelValue::encode(
            &match self {
                Self::Applied => "applied",
                Self::Rejected => "rejected",
                Self::Unchanged => "unchanged",
            },
            encoder,
        )
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    app: Arc<str>,
    outcome: Outcome,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResponseLabels {
    app: Arc<str>,
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: ReloadResult,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GuardLabels {
    guard: Arc<str>,
    result: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LoginLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IssuerLabels {
    issuer: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FetchLabels {
    issuer: Arc<str>,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AskedLabels {
    issuer: Arc<str>,
    about: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    event: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PolicyLabels {
    revision: String,
    edition: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

/// All counters and gauges of a gateway.
pub struct Metrics {
    registry: Registry,
    apps: RwLock<HashMap<Arc<str>, Arc<AppCounters>>>,
    requests: Family<RequestLabels, Counter>,
    responses: Family<ResponseLabels, Counter>,
    guard_shadow: Family<GuardLabels, Counter>,
    limited: Family<LimitLabels, Counter>,
    in_flight: Gauge,
    policy_info: Family<PolicyLabels, Gauge>,
    policy_routes: Gauge,
    reloads: Family<ResultLabels, Counter>,
    last_reload_success: Gauge,
    stale_seconds: Gauge,
    stale_since: AtomicI64,
    decision_log_dropped: Counter,
    audit_dropped: Counter,
    logins: Family<LoginLabels, Counter>,
    audit_events: Family<EventLabels, Counter>,
    issuer_fetches: Family<FetchLabels, Counter>,
    issuer_asked: Family<AskedLabels, Counter>,
    issuer_unknown_keys: Family<IssuerLabels, Counter>,
    issuer_keys: Family<IssuerLabels, Gauge>,
    issuer_keys_age: Family<IssuerLabels, Gauge>,
    token_cache: CacheCounters,
    store_errors: Counter,
    revocations: Gauge,
    revocations_current: Gauge,
    ready: Gauge,
}

/// [`Metrics::stale_since`] while disk and memory agree.
const FRESH: i64 = i64::MIN;

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("portcullis");
        let build = Family::<BuildLabels, Gauge>::default();
        build.get_or_create(&BuildLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("build_info", "The running build", build);
        let mut metrics = Self {
            registry: Registry::default(),
            apps: RwLock::default(),
            requests: Family::default(),
            responses: Family::default(),
            guard_shadow: Family::default(),
            limited: Family::default(),
            in_flight: Gauge::default(),
            policy_info: Family::default(),
            policy_routes: Gauge::default(),
            reloads: Family::default(),
            last_reload_success: Gauge::default(),
            stale_seconds: Gauge::default(),
            stale_since: AtomicI64::new(FRESH),
            decision_log_dropped: Counter::default(),
            audit_dropped: Counter::default(),
            logins: Family::default(),
            audit_events: Family::default(),
            issuer_fetches: Family::default(),
            issuer_asked: Family::default(),
            issuer_unknown_keys: Family::default(),
            issuer_keys: Family::default(),
            issuer_keys_age: Family::default(),
            token_cache: CacheCounters::default(),
            store_errors: Counter::default(),
            revocations: Gauge::default(),
            revocations_current: Gauge::default(),
            ready: Gauge::default(),
        };
        for result in [ReloadResult::Applied, ReloadResult::Rejected, ReloadResult::Unchanged] {
            drop(metrics.reloads.get_or_create(&ResultLabels { result }));
        }
        registry.register("requests", "Requests by what became of them", metrics.requests.clone());
        registry.register("responses", "Responses sent to clients, by class of status", metrics.responses.clone());
        registry.register("requests_in_flight", "Requests being handled", metrics.in_flight.clone());
        registry.register("guard_shadow", "What guards in shadow mode would have done", metrics.guard_shadow.clone());
        registry.register("limited", "Requests refused by a limit", metrics.limited.clone());
        registry.register("policy_info", "The running policy", metrics.policy_info.clone());
        registry.register("policy_routes", "Routes of the running policy", metrics.policy_routes.clone());
        registry.register("policy_reloads", "Reloads by result", metrics.reloads.clone());
        registry.register(
            "policy_last_reload_success",
            "1 if the policy on disk is the one that runs, 0 after a rejected reload",
            metrics.last_reload_success.clone(),
        );
        registry.register(
            "policy_stale_seconds",
            "For how long the policy on disk has not been the one that runs",
            metrics.stale_seconds.clone(),
        );
        registry.register(
            "decision_log_dropped",
            "Decision log lines lost because the writer could not follow",
            metrics.decision_log_dropped.clone(),
        );
        registry.register(
            "audit_dropped",
            "Audit records lost because the writer could not follow",
            metrics.audit_dropped.clone(),
        );
        registry.register("logins", "Attempts to log in, by `success` or why not", metrics.logins.clone());
        registry.register("audit_events", "What happened to logins and tokens", metrics.audit_events.clone());
        registry.register(
            "issuer_fetches",
            "Fetches of an issuer's keys: `ok`, `unreachable`, or `unusable` where what came are no keys",
            metrics.issuer_fetches.clone(),
        );
        registry.register(
            "issuer_asked",
            "Questions about tokens (`introspection`, `session_check`) that issuers answered, or not (`unavailable`)",
            metrics.issuer_asked.clone(),
        );
        registry.register(
            "issuer_unknown_keys",
            "Tokens refused because their issuer has no key of the name they give",
            metrics.issuer_unknown_keys.clone(),
        );
        registry.register(
            "issuer_keys",
            "Keys that an issuer publishes, as far as they are known",
            metrics.issuer_keys.clone(),
        );
        registry.register(
            "issuer_keys_age_seconds",
            "How long ago an issuer's keys were fetched",
            metrics.issuer_keys_age.clone(),
        );
        let token_cache = Family::<CacheLabels, Counter>::default();
        metrics.token_cache = CacheCounters {
            hits: token_cache.get_or_create_owned(&CacheLabels { result: "hit" }),
            misses: token_cache.get_or_create_owned(&CacheLabels { result: "miss" }),
        };
        registry.register(
            "token_cache",
            "Tokens that had been verified before (`hit`), and those that had not (`miss`)",
            token_cache,
        );
        registry.register(
            "store_errors",
            "Logins, refreshes and the like that were answered 503 because a store did not answer",
            metrics.store_errors.clone(),
        );
        registry.register(
            "revocations",
            "Revoked tokens, sessions and subjects that are remembered",
            metrics.revocations.clone(),
        );
        registry.register(
            "revocations_current",
            "1 while what others revoke is heard of, 0 while no store can be read",
            metrics.revocations_current.clone(),
        );
        registry.register("ready", "What `/-/ready` says: 1 or 0", metrics.ready.clone());
        metrics.registry = registry;
        metrics
    }

    /// The counters of the cache of verified tokens.
    pub fn token_cache(&self) -> CacheCounters {
        self.token_cache.clone()
    }

    /// The counters of an app; `None` for requests that belong to none.
    pub fn app(&self, name: Option<&str>) -> Arc<AppCounters> {
        let name = name.unwrap_or("");
        if let Some(counters) = self.apps.read().get(name) {
            return Arc::clone(counters);
        }
        let mut apps = self.apps.write();
        let name: Arc<str> = if apps.len() < MAX_NAMES { name.into() } else { "other".into() };
        let counters = apps.entry(Arc::clone(&name)).or_insert_with(|| {
            let class = |class| self.responses.get_or_create_owned(&ResponseLabels { app: Arc::clone(&name), class });
            Arc::new(AppCounters {
                responses: [class("other"), class("1xx"), class("2xx"), class("3xx"), class("4xx"), class("5xx")],
                family: self.requests.clone(),
                requests: RwLock::default(),
                app: Arc::clone(&name),
            })
        });
        Arc::clone(counters)
    }

    /// Counts what a guard in shadow mode would have done.
    pub fn shadow_guard(&self, guard: &str, passes: bool) {
        let result = if passes { Outcome::Allow } else { Outcome::Deny };
        self.guard_shadow.get_or_create(&GuardLabels { guard: guard.into(), result }).inc();
    }

    /// Counts a request refused by a limit. `limit` is its name, or the key of its route.
    pub fn limited(&self, limit: &str) {
        self.limited.get_or_create(&LimitLabels { limit: limit.into() }).inc();
    }

    /// One more request is being handled.
    pub fn request_begins(&self) {
        self.in_flight.inc();
    }

    /// One fewer request is being handled.
    pub fn request_ends(&self) {
        self.in_flight.dec();
    }

    /// How many requests are being handled.
    pub fn in_flight(&self) -> i64 {
        self.in_flight.get()
    }

    /// Counts an attempt to log in. `outcome` is `success`, or the code of a reason.
    pub(super) fn login(&self, outcome: &'static str) {
        self.logins.get_or_create(&LoginLabels { outcome }).inc();
    }

    /// Counts an event of the audit log.
    pub(super) fn audit_event(&self, event: &'static str, outcome: &'static str) {
        self.audit_events.get_or_create(&EventLabels { event, outcome }).inc();
    }

    /// Counts a fetch of an issuer's keys.
    pub fn issuer_fetched(&self, issuer: &str, result: &'static str) {
        self.issuer_fetches.get_or_create(&FetchLabels { issuer: issuer.into(), result }).inc();
    }

    /// Counts a question about a token that an issuer was asked, and whether it answered.
    pub fn issuer_asked(&self, issuer: &str, about: &'static str, answered: bool) {
        let result = if answered { "ok" } else { "unavailable" };
        self.issuer_asked.get_or_create(&AskedLabels { issuer: issuer.into(), about, result }).inc();
    }

    /// Counts a token whose key its issuer does not have.
    pub fn issuer_unknown_key(&self, issuer: &str) {
        self.issuer_unknown_keys.get_or_create(&IssuerLabels { issuer: issuer.into() }).inc();
    }

    /// States what is known of the keys that issuers publish: how many, and how long ago that was; no age where they
    /// were never fetched.
    pub fn issuers<'a>(&self, issuers: impl IntoIterator<Item = (&'a str, usize, Option<std::time::Duration>)>) {
        self.issuer_keys.clear();
        self.issuer_keys_age.clear();
        for (issuer, keys, age) in issuers {
            let labels = IssuerLabels { issuer: issuer.into() };
            self.issuer_keys.get_or_create(&labels).set(keys.try_into().unwrap_or(i64::MAX));
            if let Some(age) = age {
                self.issuer_keys_age.get_or_create(&labels).set(age.as_secs().try_into().unwrap_or(i64::MAX));
            }
        }
    }

    /// Counts a request that failed because of a store.
    pub(super) fn store_error(&self) {
        self.store_errors.inc();
    }

    /// States how many revocations are remembered, whether others' are heard of, and whether all is well.
    pub fn state(&self, revocations: usize, current: bool, ready: bool) {
        self.revocations.set(revocations.try_into().unwrap_or(i64::MAX));
        self.revocations_current.set(i64::from(current));
        self.ready.set(i64::from(ready));
    }

    /// Counts a reload.
    pub fn reloaded(&self, result: ReloadResult) {
        self.reloads.get_or_create(&ResultLabels { result }).inc();
    }

    /// States which policy runs.
    pub fn policy(&self, revision: &str, routes: usize) {
        self.policy_info.clear();
        self.policy_info.get_or_create(&PolicyLabels { revision: revision.to_owned(), edition: 1 }).set(1);
        self.policy_routes.set(routes.try_into().unwrap_or(i64::MAX));
    }

    /// States since when the policy on disk is not the one that runs; `None` while they agree.
    pub fn stale(&self, since: Option<Timestamp>) {
        self.last_reload_success.set(i64::from(since.is_none()));
        self.stale_since.store(since.map_or(FRESH, Timestamp::as_millis), Ordering::Relaxed);
    }

    /// The Prometheus text (OpenMetrics 1.0).
    pub fn encode(&self, now: Timestamp, log: &DecisionLog) -> String {
        let since = self.stale_since.load(Ordering::Relaxed);
        let stale = if since == FRESH { 0 } else { now.since(Timestamp::from_millis(since)).as_secs() };
        self.stale_seconds.set(stale.try_into().unwrap_or(i64::MAX));
        self.decision_log_dropped.inner().store(log.dropped(), Ordering::Relaxed);
        self.audit_dropped.inner().store(log.audit_dropped(), Ordering::Relaxed);
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// The counters of a cache.
#[derive(Clone, Debug, Default)]
pub struct CacheCounters {
    /// What was in it.
    pub hits: Counter,
    /// What was not.
    pub misses: Counter,
}

/// The counters of one app.
pub struct AppCounters {
    app: Arc<str>,
    responses: [Counter<u64, AtomicU64>; 6],
    family: Family<RequestLabels, Counter>,
    requests: RwLock<Vec<(Outcome, &'static str, Counter)>>,
}

impl AppCounters {
    /// Counts a request that has been answered. `code` is the reason's code, `None` where there is none.
    pub fn request(&self, outcome: Outcome, code: Option<&'static str>, status: u16) {
        let class = usize::from(status / 100);
        if let Some(counter) = self.responses.get(class).or_else(|| self.responses.first()) {
            counter.inc();
        }
        let code = code.unwrap_or("");
        let found = |entry: &&(Outcome, &'static str, Counter)| entry.0 == outcome && entry.1 == code;
        if let Some((_, _, counter)) = self.requests.read().iter().find(found) {
            counter.inc();
            return;
        }
        let labels = RequestLabels { app: Arc::clone(&self.app), outcome, code };
        let counter = self.family.get_or_create_owned(&labels);
        counter.inc();
        self.requests.write().push((outcome, code, counter));
    }
}

impl fmt::Debug for AppCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppCounters").field("app", &self.app).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_app_outcome_and_code() {
        let metrics = Metrics::new();
        metrics.app(Some("items")).request(Outcome::Allow, None, 200);
        metrics.app(Some("items")).request(Outcome::Deny, Some("invalid_token"), 401);
        metrics.app(Some("items")).request(Outcome::Deny, Some("invalid_token"), 401);
        metrics.app(None).request(Outcome::Deny, Some("not_found"), 404);
        metrics.limited("per_user");
        metrics.shadow_guard("office-hours", false);
        let text = metrics.encode(Timestamp::from_seconds(0), &DecisionLog::none());
        for line in [
            "portcullis_requests_total{app=\"items\",outcome=\"allow\",code=\"\"} 1",
            "portcullis_requests_total{app=\"items\",outcome=\"deny\",code=\"invalid_token\"} 2",
            "portcullis_requests_total{app=\"\",outcome=\"deny\",code=\"not_found\"} 1",
            "portcullis_responses_total{app=\"items\",class=\"4xx\"} 2",
            "portcullis_limited_total{limit=\"per_user\"} 1",
            "portcullis_guard_shadow_total{guard=\"office-hours\",result=\"deny\"} 1",
            "portcullis_decision_log_dropped_total 0",
            "portcullis_audit_dropped_total 0",
            "portcullis_policy_reloads_total{result=\"rejected\"} 0",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn names_are_bounded() {
        let metrics = Metrics::new();
        for n in 0..MAX_NAMES + 50 {
            metrics.app(Some(&format!("app-{n}"))).request(Outcome::Allow, None, 200);
        }
        assert!(
            metrics
                .encode(Timestamp::from_seconds(0), &DecisionLog::none())
                .contains("app=\"other\",outcome=\"allow\",code=\"\"} 50")
        );
    }

    #[test]
    fn staleness_is_told_until_it_ends() {
        let metrics = Metrics::new();
        metrics.policy("c04e17aa", 31);
        metrics.policy("9d21f00b", 32);
        metrics.stale(Some(Timestamp::from_seconds(100)));
        let text = metrics.encode(Timestamp::from_seconds(160), &DecisionLog::none());
        for line in
            ["policy_stale_seconds 60", "policy_last_reload_success 0", "revision=\"9d21f00b\",edition=\"1\"} 1"]
        {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(!text.contains("c04e17aa"));
        metrics.stale(None);
        let text = metrics.encode(Timestamp::from_seconds(170), &DecisionLog::none());
        assert!(text.contains("policy_stale_seconds 0") && text.contains("policy_last_reload_success 1"));
    }
}
