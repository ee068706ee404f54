//! What leaves as a log line or a metric.
//!
//! A [`DecisionRecord`](decision_log::DecisionRecord) goes in for each decision, an [`AuditEvent`](audit::AuditEvent)
//! for what happens to logins and tokens, `tracing` events for what happens to the process, counts for [`metrics`]; out come JSON lines, log lines and the Prometheus text. Whatever a
//! reader of these does (a blocked pipe, a full disk), requests are neither stopped nor reordered: what
//! could not be kept is counted.
//!
//! Tokens, cookies, query strings and claims as a whole are never written here. Nothing here decides.

pub mod audit;
pub mod decision_log;
mod escape;
pub mod logging;
pub mod metrics;
mod queue;
