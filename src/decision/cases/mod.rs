//! A policy's own tests: a group, a request, an identity, an expectation.
//!
//! They run on the very set that is to serve, with a fixed clock and address and with `test:NAME` for `env.NAME`, so
//! that they need no secret. Limits are not consumed, and the login path is not tested here.

mod coverage;
mod fixture;
mod text;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::clock::Timestamp;
use crate::diagnostic::{Code, Diagnostic, Spanned};
use crate::policy::compile::Candidate;
use crate::policy::document::{Expectation, ExpectedOutcome, Test};
use crate::policy::set::{Place, PolicySet};
use crate::request::forwarded::ClientAddr;
use crate::request::head::RequestHead;

use super::decide::{Decision, Presented, Question, decide};
use super::explain::{Explanation, explain};
use super::facts::Environment;

pub use coverage::{Coverage, Uncovered};
pub use fixture::{FixtureError, identity};

/// The clock of tests: 2030-01-01 12:00 UTC, a Tuesday.
pub const NOW: Timestamp = Timestamp::from_seconds(1_893_499_200);

/// The client's address in tests.
pub const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));

/// The host of tests that name none.
const HOST: &str = "localhost";

/// What the tests of a set said.
#[derive(Clone, Debug, Default)]
pub struct TestReport {
    /// The groups in file order.
    pub groups: Vec<Group>,
    /// The failures in file order.
    pub failures: Vec<Failure>,
    /// How many passed.
    pub passed: usize,
    /// Which routes, leaves and guards were seen with which results.
    pub coverage: Coverage,
}

/// A group of tests.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// How many passed.
    pub passed: usize,
    /// How many failed.
    pub failed: usize,
}

/// A test that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The group.
    pub group: String,
    /// The title of the request.
    pub title: String,
    /// The identity.
    pub identity: String,
    /// Where the expectation stands.
    pub place: Place,
    /// What was wrong: `expected 403, got allow`.
    pub message: String,
    /// What was observed, as it would be written: `allow`, `403`.
    pub observed: String,
    /// Why; `None` where the test itself is malformed.
    pub explanation: Option<Box<Explanation>>,
    /// [`Code::P601`], or [`Code::P603`] where the test itself is malformed.
    pub code: Code,
}

impl TestReport {
    /// Whether nothing failed.
    pub fn is_passing(&self) -> bool {
        self.failures.is_empty()
    }

    /// The failures as findings.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        self.failures
            .iter()
            .map(|failure| {
                let Failure { group, title, identity, message, .. } = failure;
                let text = format!("test failed: {group} › {title} as {identity}: {message}");
                let mut found = Diagnostic::new(failure.code, text, failure.place.span, "expected here");
                if let Some(explanation) = &failure.explanation {
                    found.notes.extend(text::reasons(explanation));
                }
                found
            })
            .collect()
    }
}

/// A policy set that passed its own tests: what may be published.
#[derive(Clone, Debug)]
pub struct Tested(Arc<PolicySet>);

impl Tested {
    /// Runs the tests of a candidate; only if all pass it may serve.
    pub fn run(candidate: Candidate) -> (TestReport, Option<Self>) {
        let report = run(candidate.policy());
        let tested = report.is_passing().then(|| Self(Arc::clone(candidate.policy())));
        (report, tested)
    }

    /// Takes a candidate without asking its tests: the operator switched the gate off.
    pub fn danger_untested(candidate: Candidate) -> Self {
        Self(Arc::clone(candidate.policy()))
    }

    /// The set.
    pub fn policy(&self) -> &Arc<PolicySet> {
        &self.0
    }
}

/// Runs all tests of a set.
pub fn run(policy: &Arc<PolicySet>) -> TestReport {
    run_matching(policy, |_, _| true)
}

/// Runs the tests whose group and title the filter accepts.
pub fn run_matching(policy: &Arc<PolicySet>, filter: impl Fn(&str, &str) -> bool) -> TestReport {
    let mut report = TestReport { coverage: Coverage::of(policy), ..TestReport::default() };
    for test in policy.tests.iter().filter(|test| filter(&test.group.value, &test.title.value)) {
        let at = report.groups.iter().position(|group| group.name == test.group.value).unwrap_or_else(|| {
            report.groups.push(Group { name: test.group.value.clone(), passed: 0, failed: 0 });
            report.groups.len() - 1
        });
        for (name, expectation) in &test.expect {
            let failure = run_one(policy, test, name, expectation, &mut report.coverage);
            let Some(group) = report.groups.get_mut(at) else { continue };
            match failure {
                None => {
                    group.passed += 1;
                    report.passed += 1;
                }
                Some(failure) => {
                    group.failed += 1;
                    report.failures.push(failure);
                }
            }
        }
    }
    report
}

/// The request of a test, owned.
struct Request {
    headers: HeaderMap,
    client: ClientAddr,
    now: Timestamp,
}

impl Request {
    fn of(test: &Test) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| format!("`{text}` is not a header value"));
        headers.insert(header::HOST, value(test.host.as_deref().unwrap_or(HOST))?);
        for (name, text) in &test.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is not a header name"))?;
            if name == header::HOST {
                headers.insert(name, value(text)?);
            } else {
                headers.append(name, value(text)?);
            }
        }
        Ok(Self { headers, client: ClientAddr::new(test.ip.unwrap_or(CLIENT)), now: test.time.unwrap_or(NOW) })
    }
}

fn run_one(
    policy: &Arc<PolicySet>,
    test: &Test,
    name: &Spanned<String>,
    expectation: &Expectation,
    coverage: &mut Coverage,
) -> Option<Failure> {
    let place_of_case = Place::of(&policy.sources, name.span.to(expectation.span));
    let name = name.value.as_str();
    let failure = |code: Code, message: String, observed: String, explanation: Option<Explanation>| Failure {
        group: test.group.value.clone(),
        title: test.title.value.clone(),
        identity: name.to_owned(),
        place: place_of_case.clone(),
        message,
        observed,
        explanation: explanation.map(Box::new),
        code,
    };
    let malformed = |message: String| Some(failure(Code::P603, message, String::new(), None));
    let Request { headers, mut client, now } = match Request::of(test) {
        Ok(request) => request,
        Err(message) => return malformed(message),
    };
    let mut place = None;
    let presented = match name {
        "anonymous" => Presented::Nothing,
        "invalid" => Presented::Invalid("test".to_owned()),
        name => {
            let Some(definition) = policy.fixtures.iter().find(|definition| definition.name.value == name) else {
                return malformed(format!("unknown identity `{name}`"));
            };
            place = Some(Place::of(&policy.sources, definition.name.span));
            if let (None, Some(ip)) = (test.ip, definition.value.ip) {
                client = ClientAddr::new(ip);
            }
            match identity(policy, &definition.value, now) {
                Ok(identity) => Presented::Identity(Arc::new(identity)),
                Err(error) => return malformed(error.to_string()),
            }
        }
    };
    let head = RequestHead::new(&test.method, test.target.as_bytes(), &headers)
        .secure(test.scheme.as_deref() == Some("https"))
        .peer(client.ip());
    let question =
        Question { policy, head: &head, client, country: None, presented, now, environment: Environment::Test };
    let decision = decide(&question);
    coverage.record(policy, &decision, matches!(question.presented, Presented::Identity(_)));
    let message = mismatch(policy, expectation, &decision)?;
    let explanation = explain(&question, (name, place.as_ref()));
    Some(failure(Code::P601, message, observed(&decision), Some(explanation)))
}

fn observed(decision: &Decision) -> String {
    match decision {
        Decision::Allow(_) => "allow".to_owned(),
        Decision::Deny(denial) => denial.status().to_string(),
        Decision::Preflight => "204".to_owned(),
    }
}

/// What differs from the expectation, if anything does.
fn mismatch(policy: &PolicySet, expectation: &Expectation, decision: &Decision) -> Option<String> {
    let expected = match expectation.outcome {
        ExpectedOutcome::Allow => "allow".to_owned(),
        ExpectedOutcome::Status(status) => status.to_string(),
    };
    if observed(decision) != expected {
        return Some(format!("expected {expected}, got {}", observed(decision)));
    }
    let denial = match decision {
        Decision::Deny(denial) => Some(denial),
        Decision::Allow(_) | Decision::Preflight => None,
    };
    if let Some(code) = &expectation.code {
        let got = denial.map_or("allow", |denial| denial.reason.code());
        if got != code.value {
            return Some(format!("expected code {}, got {got}", code.value));
        }
    }
    if let Some(because) = &expectation.because {
        let reasons = denial.map_or_else(Vec::new, |denial| text::because(policy, denial));
        if !reasons.contains(&because.value) {
            let got = if reasons.is_empty() { "nothing".to_owned() } else { reasons.join(", ") };
            return Some(format!("expected because {}, got {got}", because.value));
        }
    }
    if let Some(route) = &expectation.route {
        let id = match decision {
            Decision::Allow(allowed) => Some(allowed.0.route().id),
            Decision::Deny(denial) => denial.route,
            Decision::Preflight => None,
        };
        let got = id.and_then(|id| policy.route(id));
        if got.is_none_or(|got| *got.key != *route.value && *got.written != *route.value) {
            let got = got.map_or("no route", |got| &got.key);
            return Some(format!("expected route {}, got {got}", route.value));
        }
    }
    let sent = match decision {
        Decision::Allow(allowed) => allowed.1.request(),
        Decision::Deny(_) | Decision::Preflight => &[],
    };
    expectation.headers.iter().find_map(|(name, expected)| {
        let got = sent.iter().find(|(sent, _)| sent.as_str().eq_ignore_ascii_case(&name.value));
        let got = got.map(|(_, value)| String::from_utf8_lossy(value.as_bytes()).into_owned());
        if got == *expected {
            return None;
        }
        let text =
            |value: &Option<String>| value.as_ref().map_or_else(|| "none".to_owned(), |value| format!("`{value}`"));
        Some(format!("expected header {} {}, got {}", name.value, text(expected), text(&got)))
    })
}
