//! The order of stages: from a request head to a forwarded request or an answer.
//!
//! [`Pipeline::step`] takes one snapshot of the policy and asks the pure parts in order; this is the only
//! place where they meet what is impure (time, random ids, counters of limits, keys and revocations). In: a
//! [`RequestHead`]. Out: a [`Decided`], whose [`Outcome`] is forwarded or answered by `proxy` and whose
//! [`About`] becomes the line of the decision log; or a [`Need`]: what must be found out first (`ask`). What must ask a store (limits that gateways share, the login
//! endpoints) comes after that, and is in `own`. It does not read bodies and knows no connection.

mod ask;
mod assertion;
mod authenticate;
mod browse;
mod asked;
pub mod cors;
pub mod edge;
mod ended;
mod id;
mod inquiries;
pub mod limit;
mod outcome;
mod own;
mod record;
mod ssr;
mod token_cache;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderName;
use parking_lot::Mutex;

use crate::browser::Browser;
use crate::clock::{Clock, Timestamp};
use crate::decision::{
    Denial, HeaderEdits, Permit, Reason, RequestFacts, Routed, authorize, headers, preflight, route,
};
use crate::identity::Caller;
use crate::identity::credential::CredentialError;
use crate::issuer::{Issuers, Snapshot as Keys};
use crate::live::Live;
use crate::login::Login;
use crate::policy::set::{Destination, LimitUse, OwnEndpoint, PolicySet, Route};
use crate::provider::Supabase;
use crate::random::Random;
use crate::request::forwarded::{ClientAddr, Origin, TrustedProxies};
use crate::request::head::RequestHead;
use crate::request::host::Host;
use crate::request::method::OVERRIDE_HEADERS;
use crate::request::{Asked, RequestError};
use crate::response::Response;
use crate::store;
use crate::store::revoked::RevokedList;
use crate::telemetry::audit::Audit;
use crate::telemetry::decision_log::DecisionLog;
use crate::telemetry::metrics::Metrics;

pub use self::ask::{Checked, Found, Introspected, KeyFound, Need, Refreshed};
pub use self::id::DecisionId;
pub use self::inquiries::{Inquiries, Outage};
use self::limit::{Limited, Limits, SharedTake, Shelf};
pub use self::record::Answered;
use self::token_cache::TokenCache;

/// When to come back where something is missing that will be there again.
const RETRY: std::time::Duration = std::time::Duration::from_secs(5);

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
    /// Keys, revocations and login endpoints.
    pub services: Arc<Live<Services>>,
}

/// Decides requests with the policy that is live.
#[derive(Debug)]
pub struct Pipeline {
    policy: Arc<Live<PolicySet>>,
    settings: Settings,
    active: Live<Option<Arc<Active>>>,
    shelf: Shelf,
    building: Mutex<()>,
    ssr: ssr::Refreshes,
}

/// What requests need of the outside, beside the policy. Replaced as a whole when a store is opened.
#[derive(Debug)]
pub struct Services {
    /// The keys that the gateway itself signs with, and those that others publish.
    pub keys: Arc<Live<Keys>>,
    /// Where those keys come from.
    pub issuers: Arc<Issuers>,
    /// Whether what policies may need is kept: users, sessions, revocations. Until then nothing is known of them.
    pub has_store: bool,
    /// Which access tokens are refused, whatever they say.
    pub revoked: Arc<RevokedList>,
    /// The login endpoints.
    pub login: Arc<Login>,
    /// Sessions of browsers.
    pub browser: Arc<Browser>,
    /// What issuers are asked about tokens.
    pub inquiries: Inquiries,
    /// Speaks with Supabase Auth.
    pub supabase: Supabase,
    /// Limits that gateways share.
    pub limits: Option<Arc<dyn store::Limits>>,
    /// How clients reach the gateway (`public_url`).
    pub public_url: Option<Box<str>>,
    /// Where security events are written. Where they must be, nothing is answered while they cannot.
    pub audit: Arc<Audit>,
}

impl Services {
    /// Why requests that this policy lets pass are refused at the moment; nothing while all is well.
    pub fn problems(&self, policy: &PolicySet) -> Vec<String> {
        let mut problems = Vec::new();
        let needs_store = policy.needs_store();
        if needs_store && !self.has_store {
            problems.push("the store that the policy needs is not open".to_owned());
        } else if needs_store && !self.revoked.is_current() && !policy.apps.iter().all(|app| app.allow_on_store_error) {
            problems.push("revocations cannot be read".to_owned());
        }
        for (issuer, problem) in self.keys.snapshot().problems(policy) {
            problems.push(format!("issuer `{issuer}`: {problem}"));
        }
        if self.audit.is_blocked() {
            problems.push("audit records cannot be written".to_owned());
        }
        problems
    }
}

/// A policy set with what was prepared for it.
#[derive(Debug)]
struct Active {
    policy: Arc<PolicySet>,
    services: Arc<Services>,
    keys: Arc<Keys>,
    /// The policy's verifier, with the keys that are not in the policy, and what it has verified.
    tokens: TokenCache,
    limits: Limits,
    /// Whether the store that the policy needs is open.
    knows_revocations: bool,
    /// Whether sessions of identity providers end here too.
    ends_sessions: bool,
}

/// A request that was decided.
#[derive(Debug)]
pub struct Decided {
    /// What the log, the metrics and later phases need to know.
    pub about: About,
    /// What happens now.
    pub outcome: Outcome,
    /// What must still be taken from limits that gateways share, before it happens.
    pub shared: Vec<SharedTake>,
}

/// What happens to a request.
#[derive(Debug)]
pub enum Outcome {
    /// It goes to the permit's upstream.
    Forward(Box<Forward>),
    /// An endpoint of the gateway answers it: read its body, then ask [`Pipeline::answer`].
    Answer(OwnEndpoint),
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
    /// Fields that a part of Supabase gets.
    pub fields: Vec<(HeaderName, http::HeaderValue)>,
    /// `Host` in canonical form; for a part of Supabase, its own.
    pub host: http::HeaderValue,
    /// What becomes of `Authorization`.
    pub authorization: Authorization,
    /// Cookies that the answer sets beside the app's own.
    pub set_cookie: Vec<http::HeaderValue>,
    /// A cookie that the app gets anew.
    pub cookies: Option<RenewedCookie>,
    /// An origin that may read the answer.
    pub cors_origin: Option<Box<str>>,
    /// Whether people log in there: read its body, then ask [`Pipeline::attempt`].
    pub login: bool,
}

impl Forward {
    /// Sets the cookies on an answer of ours that is given instead of the app's: tokens in them would be lost.
    pub fn set_cookies(&self, response: &mut Response) {
        for cookie in &self.set_cookie {
            response.headers.append(http::header::SET_COOKIE, cookie.clone());
        }
    }
}

/// A cookie with its new content: its name, and its pieces (names and values) in the place of all that came.
pub type RenewedCookie = (Box<str>, Vec<(String, String)>);

/// How far a request came.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every request is decided at once: no allocation for it")]
pub enum Step {
    /// It is decided.
    Decided(Decided),
    /// Something must be found out first; then it is decided again, from the start.
    Ask(Need),
}

/// What becomes of a request's `Authorization`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorization {
    /// It is forwarded as received: it was validated, or the route is public.
    Keep,
    /// It is removed.
    Remove,
    /// It is this: the access token of a browser's session.
    Set(http::HeaderValue),
}

/// What is known about a request once it is decided.
#[derive(Debug)]
pub struct About {
    /// The decision's id.
    pub id: DecisionId,
    /// When it was decided.
    pub at: Timestamp,
    /// What decided.
    active: Arc<Active>,
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
    shared: Vec<SharedTake>,
    set_cookie: Vec<http::HeaderValue>,
    cookies: Option<RenewedCookie>,
}

/// Why the stages end early.
enum Stop {
    Refused(Denial),
    Ask(Need),
}

impl From<Denial> for Stop {
    fn from(denial: Denial) -> Self {
        Self::Refused(denial)
    }
}

impl From<RequestError> for Stop {
    fn from(error: RequestError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<CredentialError> for Stop {
    fn from(error: CredentialError) -> Self {
        Self::Refused(error.into())
    }
}

/// The end of the stages.
enum End {
    Forward(Permit, Box<Forward>),
    Answer(Permit, OwnEndpoint),
    Preflight(Response),
}

impl Pipeline {
    /// A pipeline that decides with whatever `policy` holds when a request comes.
    pub fn new(policy: Arc<Live<PolicySet>>, settings: Settings) -> Self {
        Self {
            policy,
            settings,
            active: Live::new(None),
            shelf: Shelf::default(),
            building: Mutex::new(()),
            ssr: ssr::Refreshes::default(),
        }
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.settings.clock.now()
    }

    /// Where requests are counted.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.settings.metrics)
    }

    /// Decides one request with what is at hand, as if nobody else could be asked.
    pub fn decide(&self, head: &RequestHead<'_>) -> Decided {
        let mut found = Found::default();
        loop {
            match self.step(head, &found) {
                Step::Decided(decided) => return decided,
                Step::Ask(need) => found.give_up(&need),
            }
        }
    }

    /// Decides one request, or says what must be found out first.
    pub fn step(&self, head: &RequestHead<'_>, found: &Found) -> Step {
        let began = Instant::now();
        let active = self.active();
        let at = self.now();
        let id = DecisionId::new(at, &*self.settings.random);
        let mut course = Course {
            client: ClientAddr::new(head.peer),
            auth_micros: 0,
            limited: None,
            shared: Vec::new(),
            set_cookie: Vec::new(),
            cookies: None,
        };
        let end = self.stages(&active, head, found, (&id, at), &mut course);
        let (verdict, outcome) = match end {
            Ok(End::Forward(permit, forward)) => (Verdict::Permitted(permit), Outcome::Forward(forward)),
            Ok(End::Answer(permit, own)) => (Verdict::Permitted(permit), Outcome::Answer(own)),
            Ok(End::Preflight(response)) => (Verdict::Preflight, Outcome::Respond(response)),
            Err(Stop::Ask(need)) => return Step::Ask(need),
            Err(Stop::Refused(denial)) => {
                let metadata = self.resource_metadata(&denial, &active, head);
                let mut response =
                    outcome::respond(&denial, course.limited, &active.policy, &id, head, metadata.as_deref());
                browse::as_page(&denial, &active.policy, &id, &mut response);
                for cookie in std::mem::take(&mut course.set_cookie) {
                    response.headers.append(http::header::SET_COOKIE, cookie);
                }
                (Verdict::Refused(Box::new(denial)), Outcome::Respond(response))
            }
        };
        let policy_micros = micros(began).saturating_sub(course.auth_micros);
        let Course { client, auth_micros, shared, .. } = course;
        let about = About { id, at, active, client, auth_micros, policy_micros, verdict };
        Step::Decided(Decided { about, outcome, shared })
    }

    /// The way of a request, stage by stage.
    fn stages(
        &self,
        active: &Active,
        head: &RequestHead<'_>,
        found: &Found,
        (id, now): (&DecisionId, Timestamp),
        course: &mut Course,
    ) -> Result<End, Stop> {
        let Asked { target, host, body } = Asked::parse(head)?; // 400, 414, 417, 421, 431, 501
        let origin = Origin::of(head, &host, &self.settings.trusted_proxies);
        course.client = origin.client();
        if self.settings.decisions.is_blocked() {
            let denial = Denial::new(Reason::Unavailable, "nothing is answered while no record can be kept of it");
            return Err(denial.retry_after(Duration::from_secs(1)).because("audit_not_written").into());
        }
        if let Some(preflight) = preflight(&active.policy, &target, &host, head) {
            let methods = preflight.methods.iter().map(http::Method::as_str);
            return Ok(End::Preflight(cors::preflight(preflight.cors, head, methods)));
        }
        let routed = route(&active.policy, target, &host, head)?; // 400, 404, 405
        if let Some(limit) = routed.route().max_body {
            body.within(limit).map_err(|error| routed.refuse(RequestError::from(error).into()))?; // 413
        }
        let facts = RequestFacts { head, client: course.client, host: &host, country: self.country(head) };
        let keys = limit::Keys { client: course.client, head, caller: &Caller::Anonymous, token: None, account: None };
        if !found.asked {
            self.limit(active, routed.route(), &routed.route().limits_by_address, &keys, course)?; // 429
        }

        let began = Instant::now();
        let with = authenticate::With {
            tokens: &active.tokens,
            revoked: &active.services.revoked,
            knows_revocations: active.knows_revocations,
            ends_sessions: active.ends_sessions,
            found,
        };
        let authenticated = authenticate::authenticate(with, &routed, head, &origin, now, course); // 400, 401, 403, 503
        course.auth_micros = micros(began);
        let authenticated = authenticated.map_err(|stop| match stop {
            Stop::Refused(denial) => Stop::Refused(routed.refuse(denial)),
            ask @ Stop::Ask(_) => ask,
        })?;
        authenticate::check_websocket(&routed, head, &origin).map_err(|denial| routed.refuse(denial))?; // 403
        edge::check_key(&routed, head).map_err(|denial| routed.refuse(denial))?; // 401
        let authorization = authenticated.authorization(&routed);
        let token = authenticated.token;

        authorize_overridden(&routed, &authenticated.caller, &facts, now)?; // 400, 401, 403, 405
        let permit = authorize(routed, authenticated.caller, &facts, now)?; // 401, 403
        let keys = limit::Keys { caller: permit.caller(), token: token.as_deref(), ..keys };
        self.limit(active, permit.route(), &permit.route().limits_by_identity, &keys, course)?; // 429
        let mut edits = headers(&permit, &facts, now)?; // 403
        match permit.destination() {
            Destination::Upstream(_) => {
                let public_url = active.services.public_url.as_deref();
                if let Some((name, value)) = assertion::assertion(&permit, &active.keys, public_url, id, now)? {
                    edits.set_on_request(name, value); // 503
                }
                let forward = Forward {
                    edits,
                    target: permit.forwarded_target()?.into(), // 500
                    origin: origin.headers(),
                    fields: edge::fields(&permit, head, course.client),
                    host: edge::host(&permit).unwrap_or_else(|| canonical_host(&host)),
                    authorization,
                    set_cookie: std::mem::take(&mut course.set_cookie),
                    cookies: course.cookies.take(),
                    cors_origin: cors_origin(&permit, head),
                    login: permit.route().login,
                };
                Ok(End::Forward(permit, Box::new(forward)))
            }
            Destination::Own(own) => Ok(End::Answer(permit, own)),
        }
    }

    fn limit(
        &self,
        active: &Active,
        route: &Route,
        uses: &[LimitUse],
        keys: &limit::Keys<'_>,
        course: &mut Course,
    ) -> Result<(), Denial> {
        if active.services.limits.is_some() && !uses.is_empty() {
            course.shared.extend(active.limits.shared(uses, keys));
        }
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

    /// The live policy with what belongs to it, made ready once per generation.
    fn active(&self) -> Arc<Active> {
        let (policy, services) = (self.policy.snapshot(), self.settings.services.snapshot());
        let keys = services.keys.snapshot();
        if let Some(active) = self.active_of(&policy, &services, &keys) {
            return active;
        }
        let _building = self.building.lock();
        // All may have changed again while we waited: what is live now counts.
        let (policy, services) = (self.policy.snapshot(), self.settings.services.snapshot());
        let keys = services.keys.snapshot();
        if let Some(active) = self.active_of(&policy, &services, &keys) {
            return active;
        }
        let limits = self.shelf.limits(&policy);
        let tokens = TokenCache::new(keys.verifier(&policy), self.settings.metrics.token_cache());
        let knows_revocations = services.has_store || !policy.needs_store();
        let ends_sessions = policy.ends_sessions();
        let active = Arc::new(Active { policy, services, keys, tokens, limits, knows_revocations, ends_sessions });
        self.active.publish(Some(Arc::clone(&active)));
        active
    }

    fn active_of(&self, policy: &Arc<PolicySet>, services: &Arc<Services>, keys: &Arc<Keys>) -> Option<Arc<Active>> {
        let is_it = |active: &&Arc<Active>| {
            Arc::ptr_eq(&active.policy, policy)
                && Arc::ptr_eq(&active.services, services)
                && Arc::ptr_eq(&active.keys, keys)
        };
        self.active.peek(|active| Option::as_ref(active).filter(is_it).cloned())
    }

    /// The answer to a request that was permitted and failed later: 408, 413, 500, 502, 504.
    pub fn refuse_later(&self, about: &About, denial: &Denial, head: &RequestHead<'_>) -> Response {
        outcome::respond(denial, None, about.policy(), &about.id, head, None)
    }
}

impl About {
    /// The policy that decided.
    pub fn policy(&self) -> &Arc<PolicySet> {
        &self.active.policy
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
