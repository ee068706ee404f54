//! The order of stages: from a request head to a forwarded request or an answer.
//!
//! [`Pipeline::decide`] takes one snapshot of the policy and asks the pure parts in order; this is the only
//! place where they meet what is impure (time, random ids, counters of limits). In: a
//! [`RequestHead`]. Out: a [`Decided`], whose [`Outcome`] is forwarded or answered by `proxy` and whose
//! [`About`] becomes the line of the decision log. It does not read bodies and knows no connection.

mod authenticate;
pub mod cors;
mod id;
pub mod limit;
mod outcome;
mod record;

use std::sync::Arc;
use std::time::Instant;

use http::HeaderName;
use parking_lot::Mutex;

use crate::clock::{Clock, Timestamp};
use crate::decision::{
    Denial, HeaderEdits, Permit, Reason, RequestFacts, Routed, authorize, headers, preflight, route,
};
use crate::identity::Caller;
use crate::live::Live;
use crate::policy::set::{Destination, LimitUse, PolicySet, Route};
use crate::random::Random;
use crate::request::forwarded::{ClientAddr, Origin, TrustedProxies};
use crate::request::head::RequestHead;
use crate::request::host::Host;
use crate::request::method::OVERRIDE_HEADERS;
use crate::request::{Asked, RequestError};
use crate::response::Response;
use crate::telemetry::decision_log::DecisionLog;
use crate::telemetry::metrics::Metrics;

pub use self::id::DecisionId;
use self::limit::{Keys, Limited, Limits, Shelf};
pub use self::record::Answered;

/// What is decided with, but for the policy.
#[derive(Debug)]
pub struct Settings {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Random bytes, for decision ids.
    pub random: Arc<dyn Random>,
    /// Whose `X-Forwarded-*` are believed.
    pub trusted_proxies: TrustedProxies,
    /// The header in which a trusted proxy names the client's country.
    pub country_header: Option<HeaderName>,
    /// Where decisions are logged.
    pub decisions: Arc<DecisionLog>,
    /// Where they are counted.
    pub metrics: Arc<Metrics>,
}

/// Decides requests with the policy that is live.
#[derive(Debug)]
pub struct Pipeline {
    policy: Arc<Live<PolicySet>>,
    settings: Settings,
    active: Live<Option<Arc<Active>>>,
    shelf: Shelf,
    building: Mutex<()>,
}

/// A policy set with what was prepared for it.
#[derive(Debug)]
struct Active {
    policy: Arc<PolicySet>,
    limits: Limits,
}

/// A request that was decided.
#[derive(Debug)]
pub struct Decided {
    /// What the log, the metrics and later phases need to know.
    pub about: About,
    /// What happens now.
    pub outcome: Outcome,
}

/// What happens to a request.
#[derive(Debug)]
pub enum Outcome {
    /// It goes to the permit's upstream.
    Forward(Box<Forward>),
    /// It is answered.
    Respond(Response),
}

/// How a request goes upstream.
#[derive(Debug)]
pub struct Forward {
    /// Identity headers.
    pub edits: HeaderEdits,
    /// The request target: the bytes that were matched, or what the route's rewriting makes of them.
    pub target: Box<str>,
    /// What the upstream is told about where the request came from.
    pub origin: Vec<(HeaderName, http::HeaderValue)>,
    /// `Host` in canonical form.
    pub host: http::HeaderValue,
    /// What becomes of `Authorization`.
    pub authorization: Authorization,
    /// An origin that may read the answer.
    pub cors_origin: Option<Box<str>>,
}

/// What becomes of a request's `Authorization`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authorization {
    /// It is forwarded as received: it was validated, or the route is public.
    Keep,
    /// It is removed.
    Remove,
}

/// What is known about a request once it is decided.
#[derive(Debug)]
pub struct About {
    /// The decision's id.
    pub id: DecisionId,
    /// When it was decided.
    pub at: Timestamp,
    /// The policy that decided.
    pub policy: Arc<PolicySet>,
    /// The client's address.
    pub client: ClientAddr,
    /// Microseconds spent on authentication.
    pub auth_micros: u32,
    /// Microseconds spent on the rest.
    pub policy_micros: u32,
    /// What was decided.
    pub verdict: Verdict,
}

/// What was decided.
#[derive(Debug)]
pub enum Verdict {
    /// The request may pass.
    Permitted(Permit),
    /// It is refused.
    Refused(Box<Denial>),
    /// It is a CORS preflight that was answered.
    Preflight,
}

/// What the stages find out on their way, for the log and for the answer to a refusal.
#[derive(Debug)]
struct Course {
    client: ClientAddr,
    auth_micros: u32,
    limited: Option<Limited>,
}

/// The end of the stages.
enum End {
    Forward(Permit, Box<Forward>),
    Preflight(Response),
}

impl Pipeline {
    /// A pipeline that decides with whatever `policy` holds when a request comes.
    pub fn new(policy: Arc<Live<PolicySet>>, settings: Settings) -> Self {
        Self { policy, settings, active: Live::new(None), shelf: Shelf::default(), building: Mutex::new(()) }
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.settings.clock.now()
    }

    /// Where requests are counted.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.settings.metrics)
    }

    /// Decides one request.
    pub fn decide(&self, head: &RequestHead<'_>) -> Decided {
        let began = Instant::now();
        let active = self.active();
        let at = self.now();
        let id = DecisionId::new(at, &*self.settings.random);
        let mut course = Course { client: ClientAddr::new(head.peer), auth_micros: 0, limited: None };
        let end = self.stages(&active, head, at, &mut course);
        let (verdict, outcome) = match end {
            Ok(End::Forward(permit, forward)) => (Verdict::Permitted(permit), Outcome::Forward(forward)),
            Ok(End::Preflight(response)) => (Verdict::Preflight, Outcome::Respond(response)),
            Err(denial) => {
                let response = outcome::respond(&denial, course.limited, &active.policy, &id, head);
                (Verdict::Refused(Box::new(denial)), Outcome::Respond(response))
            }
        };
        let policy_micros = micros(began).saturating_sub(course.auth_micros);
        let policy = Arc::clone(&active.policy);
        let Course { client, auth_micros, .. } = course;
        Decided { about: About { id, at, policy, client, auth_micros, policy_micros, verdict }, outcome }
    }

    /// The way of a request, stage by stage.
    fn stages(
        &self,
        active: &Active,
        head: &RequestHead<'_>,
        now: Timestamp,
        course: &mut Course,
    ) -> Result<End, Denial> {
        let Asked { target, host, body } = Asked::parse(head)?; // 400, 414, 417, 421, 431, 501
        let origin = Origin::of(head, &host, &self.settings.trusted_proxies);
        course.client = origin.client();
        if let Some(preflight) = preflight(&active.policy, &target, &host, head) {
            let methods = preflight.methods.iter().map(http::Method::as_str);
            return Ok(End::Preflight(cors::preflight(preflight.cors, head, methods)));
        }
        let routed = route(&active.policy, target, &host, head)?; // 400, 404, 405
        if let Some(limit) = routed.route().max_body {
            body.within(limit).map_err(|error| routed.refuse(RequestError::from(error).into()))?; // 413
        }
        let facts = RequestFacts { head, client: course.client, host: &host, country: self.country(head) };
        let keys = Keys { client: course.client, head, caller: &Caller::Anonymous, token: None };
        self.limit(active, routed.route(), &routed.route().limits_by_address, &keys, course)?; // 429

        let began = Instant::now();
        let authenticated = authenticate::authenticate(&routed, head, &origin, now); // 400, 401, 403, 503
        course.auth_micros = micros(began);
        let authenticated = authenticated.map_err(|denial| routed.refuse(denial))?;
        authenticate::check_websocket(&routed, head, &origin).map_err(|denial| routed.refuse(denial))?; // 403
        let (token, authorization) = (authenticated.token, authenticated.authorization(&routed));

        authorize_overridden(&routed, &authenticated.caller, &facts, now)?; // 400, 401, 403, 405
        let permit = authorize(routed, authenticated.caller, &facts, now)?; // 401, 403
        let keys = Keys { caller: permit.caller(), token, ..keys };
        self.limit(active, permit.route(), &permit.route().limits_by_identity, &keys, course)?; // 429
        let edits = headers(&permit, &facts, now)?; // 403
        match permit.destination() {
            Destination::Upstream(_) => {
                let forward = Forward {
                    edits,
                    target: permit.forwarded_target()?.into(), // 500
                    origin: origin.headers(),
                    host: canonical_host(&host),
                    authorization,
                    cors_origin: cors_origin(&permit, head),
                };
                Ok(End::Forward(permit, Box::new(forward)))
            }
            Destination::Own(_) => Err(Denial::new(Reason::NotImplemented, "this build has no login endpoints")),
        }
    }

    fn limit(
        &self,
        active: &Active,
        route: &Route,
        uses: &[LimitUse],
        keys: &Keys<'_>,
        course: &mut Course,
    ) -> Result<(), Denial> {
        active.limits.take(uses, keys).map_err(|limited| {
            course.limited = Some(limited);
            self.settings.metrics.limited(route.name.as_deref().unwrap_or(&route.key));
            let mut denial = Denial::new(Reason::RateLimited, "too many requests").retry_after(limited.wait);
            (denial.route, denial.app) = (Some(route.id), Some(route.app));
            denial.caller = keys.caller.clone();
            denial
        })
    }

    fn country<'r>(&self, head: &RequestHead<'r>) -> Option<&'r str> {
        let name = self.settings.country_header.as_ref()?;
        let trusted = self.settings.trusted_proxies.contains(ClientAddr::new(head.peer));
        head.header(name.as_str()).one().filter(|_| trusted)
    }

    /// The live policy with its limits, made ready once per generation.
    fn active(&self) -> Arc<Active> {
        if let Some(active) = self.policy.peek(|policy| self.active_of(policy)) {
            return active;
        }
        let _building = self.building.lock();
        // The policy may have changed again while we waited: what is live now counts.
        let policy = self.policy.snapshot();
        if let Some(active) = self.active_of(&policy) {
            return active;
        }
        let active = Arc::new(Active { limits: self.shelf.limits(&policy), policy });
        self.active.publish(Some(Arc::clone(&active)));
        active
    }

    fn active_of(&self, policy: &Arc<PolicySet>) -> Option<Arc<Active>> {
        self.active.peek(|active| Option::as_ref(active).filter(|active| Arc::ptr_eq(&active.policy, policy)).cloned())
    }

    /// The answer to a request that was permitted and failed later: 408, 413, 500, 502, 504.
    pub fn refuse_later(&self, about: &About, denial: &Denial, head: &RequestHead<'_>) -> Response {
        outcome::respond(denial, None, &about.policy, &about.id, head)
    }
}

/// With `on_method_override: enforce`, the method that a header asks the upstream to run is authorised too.
fn authorize_overridden(
    routed: &Routed,
    caller: &Caller,
    facts: &RequestFacts<'_>,
    now: Timestamp,
) -> Result<(), Denial> {
    if !routed.app().enforce_method_override {
        return Ok(());
    }
    for name in OVERRIDE_HEADERS {
        let mut values = facts.head.headers.get_all(name).iter();
        let (Some(value), second) = (values.next(), values.next()) else { continue };
        let Some(method) = value.to_str().ok().filter(|_| second.is_none()) else {
            return Err(
                routed.refuse(Denial::new(Reason::InvalidRequest, "the overriding method has no clear reading"))
            );
        };
        let method = method.trim().to_ascii_uppercase(); // frameworks fold its case
        let head = RequestHead { method: &method, ..*facts.head };
        let other = route(routed.policy(), routed.target().clone(), facts.host, &head)?;
        authorize(other, caller.clone(), &RequestFacts { head: &head, ..*facts }, now)?;
    }
    Ok(())
}

fn micros(since: Instant) -> u32 {
    u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX)
}

fn canonical_host(host: &Host<'_>) -> http::HeaderValue {
    let value = match host.port() {
        Some(port) => http::HeaderValue::try_from(format!("{}:{port}", host.as_str())),
        None => http::HeaderValue::from_str(host.as_str()),
    };
    value.unwrap_or(http::HeaderValue::from_static("invalid.")) // Host::parse admits letters, digits and `-_.:[]`
}

fn cors_origin(permit: &Permit, head: &RequestHead<'_>) -> Option<Box<str>> {
    cors::allowed_origin(permit.app().cors.as_ref()?, head).map(Into::into)
}
