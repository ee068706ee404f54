//! Requirements in words.

use crate::diagnostic::Sources;
use crate::policy::document::{Access, Clause, Condition, Join, Names as Listed, Requirement, Route};
use crate::policy::specificity::render;
use crate::policy::template::Segment;

use super::cycles::DEPTH;
use super::names::Names;

/// `is public`, `needs role admin`, …
pub(super) fn requirement<'d>(names: &Names<'d>, asked: &'d Requirement) -> String {
    match names.access_of(asked) {
        Access::Public => "is public".to_owned(),
        Access::Deny | Access::Todo => "is refused".to_owned(),
        access => match needs(names, asked, 0) {
            Some(needs) => format!("needs {needs}"),
            None if access == Access::Optional => "is open to anonymous callers".to_owned(),
            None => "needs a login".to_owned(),
        },
    }
}

/// A route's requirement as text that can be written elsewhere.
pub(super) fn written<'d>(sources: &'d Sources, route: &Route) -> &'d str {
    match &route.requirement {
        // The text at its place is the name of the preset that brings it.
        Requirement::Word(word) if route.generated => word.value.as_str(),
        other => sources.text(other.span()),
    }
}

fn needs<'d>(names: &Names<'d>, asked: &'d Requirement, depth: usize) -> Option<String> {
    match asked {
        Requirement::Word(_) => None,
        Requirement::Named(name) => match names.access.get(&name.value) {
            Some(definition) if depth < DEPTH => needs(names, &definition.value, depth + 1),
            _ => Some(format!("`{}`", name.value)),
        },
        Requirement::Object(object) => {
            let mut parts: Vec<String> = Vec::new();
            if let Some(crate::policy::document::AccessRef::Named(name)) = &object.access {
                parts.push(format!("`{}`", name.value));
            }
            parts.extend(object.clauses.iter().map(|clause| self::clause(names, clause, depth)));
            match parts.as_slice() {
                [] => None,
                parts if parts.len() <= 3 => Some(parts.join(" and ")),
                _ => Some(format!("{} and more", parts.iter().take(2).cloned().collect::<Vec<_>>().join(", "))),
            }
        }
    }
}

fn clause<'d>(names: &Names<'d>, clause: &'d Clause, depth: usize) -> String {
    match clause {
        Clause::Scope(listed) => self::listed("scope", listed),
        Clause::Role(listed) => self::listed("role", listed),
        Clause::Permission(listed) => self::listed("permission", listed),
        Clause::Issuer(listed) => self::listed("issuer", listed),
        Clause::Where(Condition::Comparison(comparison)) => format!("`{}`", comparison.text.value),
        Clause::Where(Condition::Named(name)) => format!("condition {}", name.value),
        Clause::Where(Condition::All(..)) => "several conditions".to_owned(),
        Clause::Mfa(_) => "a second factor".to_owned(),
        Clause::MaxAge(_) => "a recent login".to_owned(),
        Clause::Any(members, _) => match members.as_slice() {
            [first, second] => {
                let side = |member| needs(names, member, depth + 1).unwrap_or_else(|| "a login".to_owned());
                if depth < 2 {
                    format!("{} or {}", side(first), side(second))
                } else {
                    "one of several things".to_owned()
                }
            }
            _ => "one of several things".to_owned(),
        },
        Clause::All(..) => "several things".to_owned(),
        Clause::Not(..) => "something not to hold".to_owned(),
    }
}

fn listed(kind: &str, listed: &Listed) -> String {
    let join = match listed.join {
        Join::Any => " or ",
        Join::All => " and ",
    };
    format!("{kind} {}", listed.names.iter().map(|name| name.value.as_str()).collect::<Vec<_>>().join(join))
}

/// A template with the names of its tails left out: `/admin/metrics/**`.
pub(super) fn shape(segments: &[Segment]) -> String {
    let unnamed: Vec<Segment> = (segments.iter())
        .map(|segment| match segment {
            Segment::Tail { .. } => Segment::Tail { name: None },
            other => other.clone(),
        })
        .collect();
    render(&unnamed)
}
