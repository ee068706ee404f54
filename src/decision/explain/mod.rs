//! Why a request is allowed or refused, as data.
//!
//! A [`Question`] goes in; out comes an [`Explanation`], made of the decision itself: the same masks, the formulas
//! they were read with, and the values that the leaves read. Secrets and token text are never part of it, claims
//! only as far as leaves read them. `text` renders it; serialised it is what `explain --format json` prints.

mod nearest;
mod notes;
mod text;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::identity::Identity;
use crate::policy::formula::{Label, Masks, Node, NodeKind, Truth};
use crate::policy::set::{Destination, Place, PolicySet, Route};
use crate::request::Asked;

use super::authorize::{applying, masks};
use super::decide::{Decision, Presented, Question, decide};
use super::facts::{Facts, RequestFacts};
use super::headers::headers_in;
use super::reason::Denial;
use super::route::{Routed, route};
use crate::identity::Caller;
use notes::note;

/// A decision with everything that led to it.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The revision of the policy set.
    pub policy: String,
    /// The method of the request.
    pub method: String,
    /// The path of the request, canonical if it has a canonical form.
    pub path: String,
    /// `allow` or `deny`.
    pub decision: &'static str,
    /// The status of a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The code of a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// What the log keeps about a refusal, e.g. which rule of the canonical request it broke.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What the client of a refusal is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What decided.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
    /// The route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteExplained>,
    /// Who asks.
    pub identity: IdentityExplained,
    /// The route's requirement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs: Option<Tree>,
    /// The guards, those that do not apply included.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub guards: Vec<GuardExplained>,
    /// The limits that are taken, as written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
    /// The identity headers: sent if the request is allowed, otherwise those that would be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// `WWW-Authenticate` of a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub challenge: Option<String>,
    /// `Allow` of a 405.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Other templates, and why they did not decide.
    pub others: Vec<Other>,
}

/// The route of an explanation.
#[derive(Clone, Debug, Serialize)]
pub struct RouteExplained {
    /// Its app, if the set has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Methods and template.
    pub key: String,
    /// Where it stands.
    pub place: String,
    /// Captured parameters.
    pub parameters: Vec<(String, String)>,
    /// Where the request goes.
    pub to: String,
    /// The name of the access that is its whole requirement, and where that stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<(String, String)>,
}

/// The caller of an explanation.
#[derive(Clone, Debug, Default, Serialize)]
pub struct IdentityExplained {
    /// `anonymous`, `invalid`, or a word about who it is.
    pub who: String,
    /// The issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// `user.id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its own roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// The roles that these include.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub included: Vec<String>,
    /// Whether there was a second factor, where a fixture says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mfa: Option<bool>,
    /// `user.tenant`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Where a fixture stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

/// A guard of an explanation.
#[derive(Clone, Debug, Serialize)]
pub struct GuardExplained {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub place: String,
    /// Whether it only watches.
    pub shadow: bool,
    /// Why it does not apply; what it asks for is in `needs` otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_applied: Option<&'static str>,
    /// What it asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs: Option<Tree>,
}

/// A requirement with what it came to.
#[derive(Clone, Debug, Serialize)]
pub struct Tree {
    /// What it came to: `true`, `false` or `unknown`.
    #[serde(serialize_with = "truth_word")]
    pub value: Truth,
    /// The name of an access or condition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `any`, `all` or `not`; empty for a leaf.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub join: &'static str,
    /// What a leaf asks for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// What it read.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Where it stands.
    pub place: String,
    /// The scopes of a token that would satisfy a leaf that asks for one and does not hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub satisfied_by: Vec<String>,
    /// The parts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Self>,
}

/// A template that did not decide.
#[derive(Clone, Debug, Serialize)]
pub struct Other {
    /// The route's key.
    pub key: String,
    /// Where it stands.
    pub place: String,
    /// Why it did not decide.
    pub why: String,
}

fn truth_word<S: serde::Serializer>(value: &Truth, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match value {
        Truth::False => "false",
        Truth::True => "true",
        Truth::Unknown => "unknown",
    })
}

/// Explains a decision. `who` names the caller, e.g. a fixture with its place.
pub fn explain(question: &Question<'_>, who: (&str, Option<&Place>)) -> Explanation {
    let decision = decide(question);
    let mut explanation = outline(question, &decision);
    explanation.identity = identity(question, who);
    let Ok(Asked { target, host, .. }) = Asked::parse(question.head) else { return explanation };
    target.path().clone_into(&mut explanation.path);
    let denied_route = match &decision {
        Decision::Deny(denial) => denial.route,
        Decision::Allow(allowed) => Some(allowed.0.route().id),
        Decision::Preflight => None,
    };
    explanation.others = nearest::others(question.policy, &target, &host, denied_route);
    let Ok(routed) = route(question.policy, target, &host, question.head) else { return explanation };
    let caller = match &question.presented {
        Presented::Identity(identity) if routed.needs_credential() => Caller::Known(identity.clone()),
        _ => Caller::Anonymous,
    };
    let request = RequestFacts { head: question.head, host: &host, client: question.client, country: question.country };
    let facts = Facts::new(
        routed.policy(),
        routed.route(),
        routed.target(),
        &request,
        &caller,
        question.now,
        question.environment,
    );
    if !matches!(question.presented, Presented::Invalid(_)) || !routed.needs_credential() {
        let guards = applying(&facts);
        let masks = masks(&facts, &guards);
        explanation.needs = Some(needs(&facts, masks));
        explanation.guards = guards_explained(&facts, masks);
    }
    explanation.route = Some(route_explained(&routed, &facts));
    explanation.limits = limits(routed.policy(), routed.route());
    explanation.headers = sent_headers(question, &decision, routed.clone(), &caller, &request, question.now);
    explanation
}

/// What a decision of the log came to, from the masks that it keeps: the same trees without the values that were
/// read. Guards are those of which a leaf is known.
pub fn recall(policy: &PolicySet, route: &Route, masks: Masks) -> (Tree, Vec<GuardExplained>) {
    let guards = route.guards.iter().filter(|guard| guard.requirement.leaves() & masks.known() != 0);
    let guards = guards.filter_map(|guard| {
        let settings = policy.guard(guard.guard)?;
        Some(GuardExplained {
            name: settings.name.to_string(),
            place: settings.place.to_string(),
            shadow: settings.shadow,
            not_applied: None,
            needs: Some(bare_tree(&guard.requirement, route, masks)),
        })
    });
    (bare_tree(&route.requirement, route, masks), guards.collect())
}

fn outline(question: &Question<'_>, decision: &Decision) -> Explanation {
    let path = question.head.target.split(|byte| *byte == b'?').next().unwrap_or_default();
    let mut explanation = Explanation {
        policy: question.policy.revision.to_string(),
        method: question.head.method.to_owned(),
        path: path.escape_ascii().to_string(),
        decision: "allow",
        status: decision.status(),
        code: None,
        cause: None,
        detail: None,
        failed: Vec::new(),
        route: None,
        identity: IdentityExplained::default(),
        needs: None,
        guards: Vec::new(),
        limits: Vec::new(),
        headers: Vec::new(),
        challenge: None,
        allow: Vec::new(),
        others: Vec::new(),
    };
    match decision {
        Decision::Allow(_) => {}
        Decision::Preflight => explanation.cause = Some("the gateway answers this preflight".to_owned()),
        Decision::Deny(denial) => {
            explanation.decision = "deny";
            explanation.code = Some(denial.reason.code());
            explanation.cause.clone_from(&denial.cause);
            explanation.detail = Some(denial.detail.to_string());
            explanation.failed.clone_from(&denial.failed);
            explanation.allow = denial.allow.iter().map(ToString::to_string).collect();
            explanation.challenge = challenge(question.policy, denial);
        }
    }
    explanation
}

/// A header name as it is usually written: `X-Auth-User`.
fn title_case(name: &str) -> String {
    let capital = |part: &str| {
        let mut characters = part.chars();
        characters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + characters.as_str())
    };
    name.split('-').map(capital).collect::<Vec<_>>().join("-")
}

fn challenge(policy: &PolicySet, denial: &Denial) -> Option<String> {
    if !denial.reason.is_challenge() {
        return None;
    }
    let realm = denial.app.and_then(|app| policy.app(app)).map_or("", |app| &app.realm);
    let mut challenge = crate::response::Challenge::bearer(realm);
    if denial.reason != super::reason::Reason::Unauthenticated {
        challenge = challenge.error(denial.reason.code());
    }
    if !denial.scopes.is_empty() {
        challenge = challenge.scope(denial.scopes.iter().map(|scope| &**scope));
    }
    challenge.to_value().to_str().ok().map(str::to_owned)
}

fn identity(question: &Question<'_>, (who, place): (&str, Option<&Place>)) -> IdentityExplained {
    let mut explained = IdentityExplained {
        who: who.to_owned(),
        place: place.map(ToString::to_string),
        ..IdentityExplained::default()
    };
    if let Presented::Identity(identity) = &question.presented {
        let Identity { issuer, id, tenant, roles, mfa, .. } = &**identity;
        explained.issuer = Some(issuer.to_string());
        explained.id = id.known().map(ToString::to_string);
        explained.tenant = tenant.known().map(ToString::to_string);
        explained.mfa = *mfa;
        if let Some(roles) = roles.known() {
            explained.roles = roles.iter().map(ToString::to_string).collect();
            let closure = question.policy.roles.closure(roles.iter().map(|role| &**role));
            for role in closure.iter().filter_map(|number| question.policy.roles.roles.get(number)) {
                if !explained.roles.iter().any(|known| **known == *role.name) {
                    explained.included.push(role.name.to_string());
                }
            }
        }
    }
    explained
}

fn route_explained(routed: &Routed, facts: &Facts<'_>) -> RouteExplained {
    let route = routed.route();
    let parameters = notes::parameters(&route.template, facts);
    let to = match route.destination {
        Destination::Own(own) => format!("the gateway's own endpoint `{}`", own.as_str()),
        Destination::Upstream(id) => {
            routed.policy().upstream(id).map_or_else(String::new, |upstream| upstream.url.clone())
        }
    };
    let access = |node: &Node| match &node.label {
        Some(Label::Access(name)) if node.place.path == route.place.path => {
            Some((name.to_string(), format!("line {}", node.place.line)))
        }
        Some(Label::Access(name)) => Some((name.to_string(), node.place.to_string())),
        Some(Label::Condition(_)) | None => None,
    };
    RouteExplained {
        app: (routed.policy().apps.len() > 1).then(|| routed.app().name.to_string()),
        key: route.key.to_string(),
        place: route.place.to_string(),
        parameters,
        to,
        access: access(&route.requirement).or_else(|| match &route.requirement.kind {
            NodeKind::All(members) => members.last().and_then(access),
            _ => None,
        }),
    }
}

/// The route's requirement; a true access word says nothing beside anything else.
fn needs(facts: &Facts<'_>, masks: Masks) -> Tree {
    let requirement = &facts.route.requirement;
    if let NodeKind::All(members) = &requirement.kind
        && let [word, rest] = &members[..]
        && requirement.label.is_none()
        && word.value(masks) == Truth::True
    {
        return tree(rest, facts, masks);
    }
    tree(requirement, facts, masks)
}

fn tree(node: &Node, facts: &Facts<'_>, masks: Masks) -> Tree {
    let mut explained = bare_tree(node, facts.route, masks);
    annotate(&mut explained, node, facts);
    explained
}

/// Adds what the leaves read.
fn annotate(explained: &mut Tree, node: &Node, facts: &Facts<'_>) {
    match &node.kind {
        NodeKind::Leaf(id) => {
            let Some(leaf) = facts.route.leaf(*id) else { return };
            explained.note = note(leaf, facts, explained.value);
            if explained.value != Truth::True {
                explained.satisfied_by = notes::satisfied_by(leaf, facts);
            }
        }
        NodeKind::All(nodes) | NodeKind::Any(nodes) => {
            explained.members.iter_mut().zip(nodes).for_each(|(member, node)| annotate(member, node, facts));
        }
        NodeKind::Not(node) => explained.members.iter_mut().for_each(|member| annotate(member, node, facts)),
    }
}

/// A requirement with what it came to, without the values.
fn bare_tree(node: &Node, route: &Route, masks: Masks) -> Tree {
    let mut explained = Tree {
        value: node.value(masks),
        name: node.label.as_ref().map(ToString::to_string),
        join: "",
        text: String::new(),
        note: String::new(),
        place: node.place.to_string(),
        satisfied_by: Vec::new(),
        members: Vec::new(),
    };
    match &node.kind {
        NodeKind::Leaf(id) => {
            if let Some(leaf) = route.leaf(*id) {
                explained.text = leaf.text.to_string();
            }
        }
        NodeKind::All(members) => {
            explained.join = "all";
            explained.members = members.iter().map(|member| bare_tree(member, route, masks)).collect();
        }
        NodeKind::Any(members) => {
            explained.join = "any";
            explained.members = members.iter().map(|member| bare_tree(member, route, masks)).collect();
        }
        NodeKind::Not(member) => {
            explained.join = "not";
            explained.members = vec![bare_tree(member, route, masks)];
        }
    }
    explained
}

fn guards_explained(facts: &Facts<'_>, masks: Masks) -> Vec<GuardExplained> {
    let applied = applying(facts);
    let mut explained = Vec::new();
    for (number, guard) in facts.policy.guards.iter().enumerate() {
        let of_route = || facts.route.guards.iter().enumerate().filter(move |(_, own)| own.guard.0 == number);
        let mut applying = of_route().filter(|(at, _)| applied.contains(*at)).map(|(_, own)| own);
        // If several of its templates match, the one that refuses is shown.
        let all: Vec<_> = applying.by_ref().collect();
        let shown = all.iter().find(|own| own.requirement.value(masks) != Truth::True).or_else(|| all.first());
        let not_applied = match shown {
            Some(_) => None,
            None if of_route().next().is_some() => Some("path, host or method do not match"),
            None if facts.route.access == crate::policy::document::Access::Public && !guard.include_public => {
                Some("the route is public")
            }
            None => Some("paths do not match"),
        };
        explained.push(GuardExplained {
            name: guard.name.to_string(),
            place: guard.place.to_string(),
            shadow: guard.shadow,
            not_applied,
            needs: shown.map(|own| tree(&own.requirement, facts, masks)),
        });
    }
    explained
}

fn limits(policy: &PolicySet, route: &Route) -> Vec<String> {
    let uses = route.limits_by_address.iter().chain(&route.limits_by_identity);
    uses.filter_map(|used| policy.limit(used.limit))
        .map(|limit| match &limit.name {
            Some(name) => format!("{name} {}", limit.text),
            None => limit.text.to_string(),
        })
        .collect()
}

/// The headers that are sent, or would be: of a refused request those of a permit that does not exist.
fn sent_headers(
    question: &Question<'_>,
    decision: &Decision,
    routed: Routed,
    caller: &Caller,
    request: &RequestFacts<'_>,
    now: Timestamp,
) -> Vec<(String, String)> {
    let text = |headers: &[(http::HeaderName, http::HeaderValue)]| {
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.iter().map(|(name, value)| (title_case(name.as_str()), text(value))).collect()
    };
    match decision {
        Decision::Allow(allowed) => text(allowed.1.request()),
        Decision::Preflight => Vec::new(),
        // Who needs to be known and is not gets no headers on any way.
        Decision::Deny(denial) if denial.status() == 401 && !matches!(caller, Caller::Known(_)) => Vec::new(),
        Decision::Deny(_) => {
            let supposed = super::permit::Permit::supposed(routed, caller.clone());
            headers_in(&supposed, request, now, question.environment)
                .map(|edits| text(edits.request()))
                .unwrap_or_default()
        }
    }
}
