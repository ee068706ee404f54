//! What a decided request leaves behind: a line of the decision log and counts.

use super::{About, Pipeline, Verdict};
use crate::decision::Denial;
use crate::identity::Caller;
use crate::policy::formula::{LeafId, Masks, Truth};
use crate::policy::set::{GuardId, LeafKind, PolicySet, Route};
use crate::request::head::RequestHead;
use crate::request::host::Host;
use crate::telemetry::decision_log::{self, DecisionRecord};
use crate::telemetry::metrics::Outcome;

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// The status that the client was sent; 0 where the connection ended before one was.
    pub status: u16,
    /// Why a permitted request was answered by us all the same.
    pub failure: Option<&'a Denial>,
}

impl Pipeline {
    /// Logs and counts a request that has been answered.
    pub fn record(&self, about: &About, head: &RequestHead<'_>, answered: Answered<'_>) {
        let (denial, shadow) = match &about.verdict {
            Verdict::Permitted(permit) => (answered.failure, permit.shadow()),
            Verdict::Refused(denial) => (Some(&**denial), denial.shadow.clone()),
            Verdict::Preflight => (None, Vec::new()),
        };
        self.count(about, denial, answered.status, &shadow);
        self.notice_secret_keys(about, head, denial);
        if self.settings.decisions.is_on() {
            self.log(about, head, denial, answered.status, &shadow);
        }
    }

    fn count(&self, about: &About, denial: Option<&Denial>, status: u16, shadow: &[(GuardId, Truth)]) {
        let metrics = &self.settings.metrics;
        let app = match &about.verdict {
            Verdict::Permitted(permit) => Some(permit.app()),
            Verdict::Refused(_) | Verdict::Preflight => {
                denial.and_then(|denial| denial.app).and_then(|app| about.policy().app(app))
            }
        };
        let outcome = match status {
            500.. => Outcome::Error,
            _ if denial.is_some() => Outcome::Deny,
            _ => Outcome::Allow,
        };
        let code = denial.map(|denial| denial.reason.code());
        metrics.app(app.map(|app| &*app.name)).request(outcome, code, status);
        for (guard, truth) in shadow {
            if let Some(guard) = about.policy().guard(*guard) {
                metrics.shadow_guard(&guard.name, *truth == Truth::True);
            }
        }
    }

    fn log(
        &self,
        about: &About,
        head: &RequestHead<'_>,
        denial: Option<&Denial>,
        status: u16,
        shadow: &[(GuardId, Truth)],
    ) {
        let (route, app, masks, caller) = match &about.verdict {
            Verdict::Permitted(permit) => {
                (Some(permit.route()), Some(permit.app()), Some(permit.masks()), permit.caller())
            }
            Verdict::Refused(denial) => (
                denial.route.and_then(|route| about.policy().route(route)),
                denial.app.and_then(|app| about.policy().app(app)),
                denial.masks,
                &denial.caller,
            ),
            Verdict::Preflight => (None, None, None, &Caller::Anonymous),
        };
        let path = head.target.split(|byte| *byte == b'?').next().unwrap_or_default();
        let host = Host::of(head).ok();
        let source = route.map(|route| route.place.to_string());
        let revision = about.policy().revision.to_string();
        self.settings.decisions.record(&DecisionRecord {
            at: about.at,
            id: about.id.as_str(),
            trace: trace(head),
            revision: &revision,
            app: app.map(|app| &*app.name),
            method: head.method,
            host: host.as_ref().map_or("", |host| host.as_str()),
            path: &String::from_utf8_lossy(path),
            route: route.map(|route| &*route.key),
            source: source.as_deref(),
            // An upstream that fails does not make a permitted request a refused one.
            verdict: match &about.verdict {
                Verdict::Refused(_) => decision_log::Verdict::Deny,
                Verdict::Permitted(_) | Verdict::Preflight => decision_log::Verdict::Allow,
            },
            status,
            code: denial.map(|denial| denial.reason.code()),
            failed: denial.map_or(&[], |denial| &denial.failed),
            masks: masks.map(|masks| decision_log::Masks { known: masks.known(), truth: masks.truth() }),
            identity: match caller {
                Caller::Known(identity) => Some(identity),
                Caller::Anonymous => None,
            },
            mfa: route.zip(masks).and_then(|(route, masks)| mfa(route, masks)),
            ip: Some(about.client.ip()),
            auth_micros: about.auth_micros,
            policy_micros: about.policy_micros,
            shadow_guards: &shadow_guards(about.policy(), shadow),
            cause: denial.and_then(|denial| denial.cause.as_deref()),
        });
    }
}

/// What the leaf `mfa` of a route said, if it has one.
fn mfa(route: &Route, masks: Masks) -> Option<bool> {
    let at = route.leaves.iter().position(|leaf| matches!(leaf.kind, LeafKind::Mfa))?;
    match masks.get(LeafId(u8::try_from(at).ok()?)) {
        Truth::True => Some(true),
        Truth::False => Some(false),
        Truth::Unknown => None,
    }
}

fn shadow_guards<'p>(policy: &'p PolicySet, shadow: &[(GuardId, Truth)]) -> Vec<(&'p str, bool)> {
    let named = |(guard, truth): &(GuardId, Truth)| Some((&*policy.guard(*guard)?.name, *truth == Truth::True));
    shadow.iter().filter_map(named).collect()
}

/// The trace id of `traceparent`: `00-<32 hex digits>-…` (W3C Trace Context).
fn trace<'r>(head: &RequestHead<'r>) -> Option<&'r str> {
    let trace = head.header("traceparent").one()?.strip_prefix("00-")?.get(..32)?;
    trace.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(trace)
}
