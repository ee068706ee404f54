//! Whether a caller may do what is asked: the decision procedure of policy-language 15.

use smallvec::SmallVec;

use crate::clock::Timestamp;
use crate::identity::{Caller, Fact};
use crate::policy::document::Access;
use crate::policy::formula::{LeafId, Masks, Node, NodeKind, Truth};
use crate::policy::set::{Bits, GuardId, Leaf, LeafKind, PolicySet, Route, RouteGuard};
use crate::policy::template::Segment;

use super::compare;
use super::facts::{Environment, Facts, RequestFacts};
use super::permit::Permit;
use super::reason::{Denial, Reason};
use super::route::Routed;

/// Decides. The caller must come from a verified credential, or be anonymous because none was sent or none is
/// looked at.
pub fn authorize(routed: Routed, caller: Caller, facts: &RequestFacts<'_>, now: Timestamp) -> Result<Permit, Denial> {
    authorize_in(routed, caller, facts, now, Environment::Resolved)
}

/// The same with a choice of environment; the policy's own tests use it.
pub(super) fn authorize_in(
    routed: Routed,
    caller: Caller,
    request: &RequestFacts<'_>,
    now: Timestamp,
    environment: Environment,
) -> Result<Permit, Denial> {
    let verdict = {
        let facts = Facts::new(routed.policy(), routed.route(), routed.target(), request, &caller, now, environment);
        let guards = applying(&facts);
        let masks = masks(&facts, &guards);
        (value(&facts, &guards, masks, 0), guards, masks)
    };
    let (value, guards, masks) = verdict;
    if value == Truth::True {
        let (policy, route, target) = routed.into_parts();
        return Ok(Permit { policy, route, target, caller, masks, guards });
    }
    let (policy, route) = (routed.policy(), routed.route());
    let (reason, scopes) = reason(route, &enforced(policy, route, &guards), masks, &caller);
    let mut denial = routed.refuse(Denial::new(reason, detail(reason)));
    denial.scopes = scopes;
    denial.masks = Some(masks);
    denial.failed = failed(policy, route, &guards, masks);
    denial.shadow = shadow(policy, route, &guards, masks);
    denial.caller = caller;
    Err(denial)
}

fn detail(reason: Reason) -> &'static str {
    match reason {
        Reason::Unauthenticated => "this request needs a valid credential",
        Reason::InsufficientUserAuthentication => "this request needs a stronger or more recent authentication",
        Reason::InsufficientScope => "the token lacks a scope that this request needs",
        _ => "access is denied",
    }
}

/// The guards of the route that apply to the request, by their position in the route.
pub(super) fn applying(facts: &Facts<'_>) -> Bits {
    let mut bits = Bits::default();
    for (number, guard) in facts.route.guards.iter().enumerate() {
        if applies(guard, facts) {
            bits.insert(number);
        }
    }
    bits
}

fn applies(guard: &RouteGuard, facts: &Facts<'_>) -> bool {
    let Some(settings) = facts.policy.guard(guard.guard) else { return true };
    let (method, host) = (facts.request.head.method, facts.request.host.as_str());
    (settings.methods.is_empty() || settings.methods.iter().any(|named| named.as_str() == method))
        && (settings.hosts.is_empty() || settings.hosts.iter().any(|pattern| pattern.matches(host)))
        && guard.template.as_ref().is_none_or(|template| path_matches(template, facts))
}

/// The template's literals are folded already if the app folds case.
fn path_matches(template: &[Segment], facts: &Facts<'_>) -> bool {
    let fold = facts.policy.app(facts.route.app).is_some_and(|app| app.fold_case);
    let segments = facts.segments();
    if fold && segments.iter().any(|segment| segment.bytes().any(|byte| byte.is_ascii_uppercase())) {
        let folded: SmallVec<[String; 16]> = segments.iter().map(|segment| segment.to_ascii_lowercase()).collect();
        // Parameters do not mind: no kind tells upper from lower case.
        return crate::policy::specificity::matches(template, folded.iter().map(String::as_str));
    }
    crate::policy::specificity::matches(template, segments.iter().map(|segment| &**segment))
}

/// What the leaves say: those of the route and of the guards that apply.
pub(super) fn masks(facts: &Facts<'_>, guards: &Bits) -> Masks {
    let asked = guards
        .iter()
        .filter_map(|number| facts.route.guards.get(number))
        .fold(facts.route.requirement.leaves(), |bits, guard| bits | guard.requirement.leaves());
    let mut masks = Masks::default();
    for (number, leaf) in (0..).zip(&facts.route.leaves) {
        let id = LeafId(number);
        if asked & id.bit() != 0 {
            masks.set(id, evaluate(leaf, facts));
        }
    }
    masks
}

/// What one leaf says.
pub(super) fn evaluate<'a>(leaf: &'a Leaf, facts: &Facts<'a>) -> Truth {
    let identity = facts.identity();
    match &leaf.kind {
        LeafKind::Access(Access::Public | Access::Optional) => Truth::True,
        LeafKind::Access(Access::Deny | Access::Todo) => Truth::False,
        LeafKind::Access(Access::Authenticated) => {
            Truth::known(identity.is_some_and(|identity| identity.counts_as_authenticated))
        }
        LeafKind::Scope(required) => match identity.map(|identity| &identity.scopes) {
            None | Some(Fact::Missing) => Truth::False,
            Some(Fact::WrongType) => Truth::Unknown,
            Some(Fact::Known(scopes)) => match facts.issuer() {
                Some(issuer) => Truth::known(scopes.satisfies(required, issuer.hierarchy)),
                None => Truth::Unknown,
            },
        },
        LeafKind::Role(role) => match facts.closure() {
            Fact::Missing => Truth::False,
            Fact::WrongType => Truth::Unknown,
            Fact::Known(closure) => Truth::known(closure.contains(role.0)),
        },
        LeafKind::Permission(permission, permitting) => match facts.has_permission(permission, permitting) {
            Fact::Missing => Truth::False,
            Fact::WrongType => Truth::Unknown,
            Fact::Known(holds) => Truth::known(holds),
        },
        LeafKind::Issuer(issuer) => Truth::known(identity.is_some_and(|identity| identity.issuer == *issuer)),
        LeafKind::Mfa => match (identity.map(|identity| identity.mfa), facts.issuer()) {
            (None, _) => Truth::False,
            (Some(Some(stated)), _) => Truth::known(stated),
            (Some(None), Some(issuer)) if !issuer.mfa.is_empty() => {
                issuer.mfa.iter().fold(Truth::True, |value, condition| value.and(compare::evaluate(condition, facts)))
            }
            (Some(None), _) => Truth::Unknown,
        },
        LeafKind::MaxAge(longest) => match facts.auth_age() {
            Fact::Missing | Fact::WrongType => Truth::Unknown,
            Fact::Known(age) => Truth::known(age <= *longest),
        },
        LeafKind::Comparison(comparison) => compare::evaluate(comparison, facts),
    }
}

/// The requirement and all enforced guards that apply, if the leaves in `forced` said what is best.
fn value(facts: &Facts<'_>, guards: &Bits, masks: Masks, forced: u64) -> Truth {
    conjunction(&enforced(facts.policy, facts.route, guards), masks, forced)
}

fn conjunction(nodes: &[&Node], masks: Masks, forced: u64) -> Truth {
    nodes.iter().fold(Truth::True, |value, node| value.and(node.value_if(masks, forced)))
}

/// What must hold: the route's requirement, then the enforced guards that apply.
fn enforced<'r>(policy: &PolicySet, route: &'r Route, guards: &Bits) -> SmallVec<[&'r Node; 8]> {
    let applying = guards.iter().filter_map(|number| route.guards.get(number));
    let enforced = applying.filter(|guard| !policy.guard(guard.guard).is_some_and(|settings| settings.shadow));
    std::iter::once(&route.requirement).chain(enforced.map(|guard| &guard.requirement)).collect()
}

/// What the guards in shadow mode say; if one applies by several of its templates, all must hold.
pub(super) fn shadow(policy: &PolicySet, route: &Route, guards: &Bits, masks: Masks) -> Vec<(GuardId, Truth)> {
    let mut results: Vec<(GuardId, Truth)> = Vec::new();
    for guard in guards.iter().filter_map(|number| route.guards.get(number)) {
        if !policy.guard(guard.guard).is_some_and(|settings| settings.shadow) {
            continue;
        }
        let value = guard.requirement.value(masks);
        match results.iter_mut().find(|(id, _)| *id == guard.guard) {
            Some((_, known)) => *known = known.and(value),
            None => results.push((guard.guard, value)),
        }
    }
    results
}

/// Why it is refused, and the scopes that are missing if nothing else is.
fn reason(route: &Route, nodes: &[&Node], masks: Masks, caller: &Caller) -> (Reason, Vec<Box<str>>) {
    let would_hold = |forced: u64| conjunction(nodes, masks, forced) == Truth::True;
    if matches!(caller, Caller::Anonymous) {
        let reason = if route.needs_credential() && would_hold(route.identity_leaves) {
            Reason::Unauthenticated
        } else {
            Reason::AccessDenied
        };
        return (reason, Vec::new());
    }
    if would_hold(route.step_up_leaves) {
        return (Reason::InsufficientUserAuthentication, Vec::new());
    }
    if would_hold(route.scope_leaves) {
        return (Reason::InsufficientScope, missing_scopes(route, masks, would_hold));
    }
    (Reason::AccessDenied, Vec::new())
}

/// The first set of missing scopes, in file order, that would make the value true.
fn missing_scopes(route: &Route, masks: Masks, would_hold: impl Fn(u64) -> bool) -> Vec<Box<str>> {
    let missing: Vec<LeafId> = (0..64)
        .map(LeafId)
        .filter(|leaf| route.scope_leaves & leaf.bit() != 0 && masks.get(*leaf) != Truth::True)
        .collect();
    // Dropping from the end what is not needed leaves the earliest ones.
    let mut needed = route.scope_leaves;
    for leaf in missing.iter().rev() {
        if would_hold(needed & !leaf.bit()) {
            needed &= !leaf.bit();
        }
    }
    let scope = |leaf: &LeafId| match &route.leaf(*leaf)?.kind {
        LeafKind::Scope(scope) => Some(scope.clone()),
        _ => None,
    };
    missing.iter().filter(|leaf| needed & leaf.bit() != 0).filter_map(scope).collect()
}

/// What decided, in file order: guards by their names, the route's own requirement by its leaves.
fn failed(policy: &PolicySet, route: &Route, guards: &Bits, masks: Masks) -> Vec<String> {
    let mut failed = Vec::new();
    failing_leaves(&route.requirement, route, masks, true, &mut failed);
    for guard in guards.iter().filter_map(|number| route.guards.get(number)) {
        let Some(settings) = policy.guard(guard.guard) else { continue };
        let name = match guard.requirement.value(masks) {
            Truth::True => continue,
            _ if settings.shadow => continue,
            Truth::False => format!("guard {}", settings.name),
            Truth::Unknown => format!("unknown:guard {}", settings.name),
        };
        if !failed.contains(&name) {
            failed.push(name);
        }
    }
    failed
}

/// The leaves for which a node is not true (or, below a `not`, not false).
pub(super) fn failing_leaves(node: &Node, route: &Route, masks: Masks, wanted: bool, failed: &mut Vec<String>) {
    let value = node.value(masks);
    if value == Truth::known(wanted) {
        return;
    }
    match &node.kind {
        NodeKind::Leaf(id) => {
            let Some(leaf) = route.leaf(*id) else { return };
            let name =
                leaf.condition.as_ref().map_or_else(|| leaf.text.to_string(), |name| format!("condition {name}"));
            let name = match (value, wanted) {
                (Truth::Unknown, _) => format!("unknown:{name}"),
                (_, true) => name,
                (_, false) => format!("not {name}"),
            };
            if !failed.contains(&name) {
                failed.push(name);
            }
        }
        NodeKind::All(members) | NodeKind::Any(members) => {
            members.iter().for_each(|member| failing_leaves(member, route, masks, wanted, failed));
        }
        NodeKind::Not(member) => failing_leaves(member, route, masks, !wanted, failed),
    }
}
