//! The admin listener's endpoints: probes, status, metrics, reload.
//!
//! Plain [`Endpoint`]s over what other parts know; `proxy/side.rs` serves them on an address of their own, loopback
//! unless the settings say otherwise. Policies are never changed here: files stay the only source of truth.
//!
//! Who may ask is decided in `access`: probes and metrics are open to whoever reaches the listener; status and
//! reload need the admin token if there is one, and are closed without one beyond loopback.

mod access;
mod status;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request};
use serde_json::json;

use crate::clock::Clock;
use crate::endpoint::Endpoint;
use crate::live::Live;
use crate::pipeline::Services;
use crate::policy::set::PolicySet;
use crate::reload::publish::{ReloadStatus, Report};
use crate::reload::watch::ReloadHandle;
use crate::response::{Challenge, Problem, Response};
use crate::secret::Secret;
use crate::telemetry::decision_log::DecisionLog;
use crate::telemetry::metrics::Metrics;

/// What the admin listener can see and do.
pub struct Admin {
    /// What runs, and what is on disk.
    pub status: Arc<Live<ReloadStatus>>,
    /// The policy that runs.
    pub policy: Arc<Live<PolicySet>>,
    /// Keys, revocations and login endpoints.
    pub services: Arc<Live<Services>>,
    /// The store and Redis, as the settings name them, without passwords.
    pub stores: (String, Option<String>),
    /// Asks for a reload.
    pub reload: ReloadHandle,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// For the count of lost lines.
    pub decision_log: Arc<DecisionLog>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Whether the gateway has begun to stop: readiness then answers 503.
    pub is_stopping: Box<dyn Fn() -> bool + Send + Sync>,
    /// The bearer token of status and reload.
    pub token: Option<Secret<String>>,
    /// Where this listener listens.
    pub address: SocketAddr,
    /// Where the gateway listens: the address, and whether it speaks TLS.
    pub listeners: Vec<(SocketAddr, bool)>,
    /// Settings that this build loads and does not act on.
    pub not_acted_on: Vec<&'static str>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("address", &self.address).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy)]
enum Resource {
    Live,
    Ready,
    Status,
    Reload,
    Metrics,
}

impl Resource {
    fn at(path: &str) -> Option<Self> {
        Some(match path {
            "/-/live" => Self::Live,
            "/-/ready" => Self::Ready,
            "/-/status" => Self::Status,
            "/-/reload" => Self::Reload,
            "/metrics" => Self::Metrics,
            _ => return None,
        })
    }

    fn allows(self, method: &Method) -> bool {
        match self {
            Self::Reload => method == Method::POST,
            _ => method == Method::GET || method == Method::HEAD,
        }
    }

    fn allow(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Reload => "POST",
            _ => "GET, HEAD",
        })
    }
}

#[async_trait]
impl Endpoint for Admin {
    async fn answer(&self, request: Request<Bytes>) -> Response {
        let response = self.respond(&request).await;
        response.with(CACHE_CONTROL, HeaderValue::from_static("no-store"))
    }

    fn max_body(&self) -> usize {
        0
    }
}

impl Admin {
    async fn respond(&self, request: &Request<Bytes>) -> Response {
        let Some(resource) = Resource::at(request.uri().path()) else {
            return problem(404, "not_found", "there is no such endpoint");
        };
        if !resource.allows(request.method()) {
            return problem(405, "method_not_allowed", "the method is not allowed here").with(ALLOW, resource.allow());
        }
        if let Err(refusal) = access::check(self, resource, request.headers()) {
            return refusal.respond();
        }
        match resource {
            Resource::Live => Response::text(200, "live\n"),
            Resource::Ready => self.ready(request.uri().query()),
            Resource::Status => Response::json(200, &status::describe(self)),
            Resource::Reload => self.reload().await,
            Resource::Metrics => {
                let (services, problems) = (self.services.snapshot(), self.problems());
                let (now, issuers) = (self.clock.now(), status::issuers(&services, &self.policy.snapshot()));
                let fetched = issuers.iter().map(|issuer| {
                    (issuer.issuer.as_str(), issuer.keys, issuer.fetched.map(|fetched| now.since(fetched)))
                });
                self.metrics.issuers(fetched);
                self.metrics.state(services.revoked.len(), services.revoked.is_current(), problems.is_empty());
                let text = self.metrics.encode(self.clock.now(), &self.decision_log);
                let mut response = Response::text(200, text);
                response.headers.insert(
                    CONTENT_TYPE,
                    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8"),
                );
                response
            }
        }
    }

    fn ready(&self, query: Option<&str>) -> Response {
        let strict = query.is_some_and(|query| query.split('&').any(|pair| pair == "strict=1"));
        if strict && self.status.snapshot().rejected.is_some() {
            return Response::text(503, "the policy on disk is not the one that runs\n");
        }
        let problems = self.problems();
        if !problems.is_empty() {
            return Response::text(503, format!("{}\n", problems.join("\n")));
        }
        Response::text(200, "ready\n")
    }

    /// Why requests that should pass do not.
    fn problems(&self) -> Vec<String> {
        if (self.is_stopping)() {
            return vec!["stopping".to_owned()];
        }
        self.services.snapshot().problems(&self.policy.snapshot())
    }

    async fn reload(&self) -> Response {
        match self.reload.reload().await {
            Some(Report::Applied { from, to }) => {
                Response::json(200, &json!({ "result": "applied", "from": from, "to": to }))
            }
            Some(Report::Unchanged { running }) => {
                Response::json(200, &json!({ "result": "unchanged", "running": running }))
            }
            Some(Report::Rejected { running }) => {
                let error = status::rejection(&self.status.snapshot());
                Response::json(422, &json!({ "result": "rejected", "running": running, "error": error }))
            }
            None => problem(503, "unavailable", "the gateway is stopping"),
        }
    }
}

fn problem(status: u16, code: &str, detail: &str) -> Response {
    Problem { status, code, detail, decision_id: "" }.respond()
}

/// Why somebody may not ask.
enum Refusal {
    /// No token, or a wrong one.
    Token,
    /// Something about where the request comes from.
    Origin(&'static str),
}

impl Refusal {
    fn respond(&self) -> Response {
        match self {
            Self::Token => problem(401, "unauthenticated", "the admin token is needed")
                .with(WWW_AUTHENTICATE, Challenge::bearer("portcullis admin").to_value()),
            Self::Origin(detail) => problem(403, "access_denied", detail),
        }
    }
}

#[cfg(test)]
mod tests;
