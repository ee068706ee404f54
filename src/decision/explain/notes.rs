//! What a leaf read, in a few words. Never a secret.

use crate::identity::Fact;
use crate::identity::scope::Hierarchy;
use crate::policy::document::{Access, Operator};
use crate::policy::formula::Truth;
use crate::policy::set::{Comparison, Leaf, LeafKind, Operand, Parameter, permits};
use crate::policy::template::{Kind, Segment};

use crate::decision::facts::{Facts, Value};

/// Values longer than this are cut.
const MAX_SHOWN: usize = 48;

/// What a leaf read.
pub(super) fn note<'a>(leaf: &'a Leaf, facts: &Facts<'a>, value: Truth) -> String {
    let Some(identity) = facts.identity() else {
        return match &leaf.kind {
            LeafKind::Access(Access::Authenticated) => "anonymous".to_owned(),
            LeafKind::Access(_) => String::new(),
            LeafKind::Comparison(comparison) => compared(comparison, &leaf.text, facts, value),
            _ => "anonymous".to_owned(),
        };
    };
    match &leaf.kind {
        LeafKind::Access(Access::Authenticated) if value != Truth::True => {
            format!("user.kind is {}, which the issuer does not allow", identity.kind.as_str())
        }
        LeafKind::Access(_) => String::new(),
        LeafKind::Scope(_) => match &identity.scopes {
            Fact::WrongType => "the claim has the wrong type".to_owned(),
            Fact::Missing => "has: (none)".to_owned(),
            Fact::Known(scopes) => format!("has: {}", list(scopes.iter())),
        },
        LeafKind::Role(_) => roles(facts),
        LeafKind::Permission(permission, _) => match granting(permission, facts) {
            Some(grant) => grant,
            None => roles(facts),
        },
        LeafKind::Issuer(_) => format!("issuer: {}", identity.issuer),
        LeafKind::Mfa => match value {
            Truth::True => String::new(),
            Truth::False => "no second factor".to_owned(),
            Truth::Unknown => "the token does not say".to_owned(),
        },
        LeafKind::MaxAge(_) => match &identity.auth_time {
            Fact::Known(time) => format!("authenticated {} ago", duration(facts.now.since(*time))),
            Fact::Missing | Fact::WrongType => "the token does not say when".to_owned(),
        },
        LeafKind::Comparison(comparison) => compared(comparison, &leaf.text, facts, value),
    }
}

/// The scopes of a token that would satisfy a leaf, the one it asks for first.
pub(super) fn satisfied_by(leaf: &Leaf, facts: &Facts<'_>) -> Vec<String> {
    let LeafKind::Scope(required) = &leaf.kind else { return Vec::new() };
    let separator = match facts.issuer().map_or(Hierarchy::Colon, |issuer| issuer.hierarchy) {
        Hierarchy::Colon => ':',
        Hierarchy::Dot => '.',
        Hierarchy::None => return vec![required.to_string()],
    };
    let shorter = required.rmatch_indices(separator).filter_map(|(at, _)| required.get(..at));
    std::iter::once(&**required).chain(shorter).map(str::to_owned).collect()
}

fn roles(facts: &Facts<'_>) -> String {
    match facts.identity().map(|identity| facts.role_names(identity)) {
        Some(Some(roles)) => format!("roles: {}", list(roles.into_iter())),
        Some(None) => "the claim has the wrong type".to_owned(),
        None => "anonymous".to_owned(),
    }
}

/// What gives a permission: `owner can "project:*"`.
fn granting(permission: &str, facts: &Facts<'_>) -> Option<String> {
    let identity = facts.identity()?;
    if let Fact::Known(patterns) = &identity.permissions
        && let Some(pattern) = patterns.iter().find(|pattern| permits(pattern, permission))
    {
        return Some(format!("(the token has \"{pattern}\")"));
    }
    let closure = facts.closure().known()?;
    let mut roles = closure.iter().filter_map(|number| facts.policy.roles.roles.get(number));
    roles.find_map(|role| {
        let pattern = role.can.iter().find(|pattern| permits(pattern, permission))?;
        Some(if **pattern == *permission {
            format!("({})", role.name)
        } else {
            format!("({} can \"{pattern}\")", role.name)
        })
    })
}

fn compared<'a>(comparison: &'a Comparison, text: &str, facts: &Facts<'a>, value: Truth) -> String {
    let Comparison { left, operator, right } = comparison;
    // What is compared with a secret is one, or a guess at it.
    let secret = [left, right].into_iter().any(|side| matches!(side, Operand::Env(_)));
    let show = |operand: &'a Operand| match facts.read(operand) {
        Value::Missing => "missing".to_owned(),
        _ if secret => "(not shown)".to_owned(),
        value => shown(&value),
    };
    if value == Truth::Unknown
        && let Some(missing) = missing(comparison, text, facts)
    {
        return format!("{missing} is missing");
    }
    let left_text = show(left);
    match (operator, right) {
        (Operator::Is | Operator::IsNot, _) => format!("({left_text})"),
        (_, Operand::Set(set)) => {
            let name = facts.policy.sets.get(set.0).map_or("", |set| &set.name);
            match value {
                Truth::True => format!("{left_text} is in {name}"),
                Truth::False => format!("{left_text} is not in {name}"),
                Truth::Unknown => left_text,
            }
        }
        (Operator::Equal | Operator::NotEqual, _) => {
            let equal = match (value, operator) {
                (Truth::Unknown, _) => return mistake(left, right, facts, &left_text, &show(right)),
                (Truth::True, Operator::Equal) | (Truth::False, Operator::NotEqual) => "=",
                _ => "≠",
            };
            format!("{left_text} {equal} {}", show(right))
        }
        _ => match value {
            Truth::Unknown => mistake(left, right, facts, &left_text, &show(right)),
            _ if matches!(right, Operand::String(_) | Operand::Integer(_) | Operand::Time(_)) => left_text,
            _ => format!("{left_text}, {}", show(right)),
        },
    }
}

/// The side that is missing, as it is written.
fn missing<'a>(comparison: &'a Comparison, text: &str, facts: &Facts<'a>) -> Option<String> {
    let Comparison { left, right, .. } = comparison;
    let is_missing = |operand: &'a Operand| matches!(facts.read(operand), Value::Missing);
    // References have no blanks outside quotes, which only names of claims need.
    if is_missing(left) {
        text.split(' ').next().map(str::to_owned)
    } else if is_missing(right) {
        text.rsplit(' ').next().map(str::to_owned)
    } else {
        None
    }
}

/// Why a comparison is unknown.
fn mistake<'a>(left: &'a Operand, right: &'a Operand, facts: &Facts<'a>, left_text: &str, right_text: &str) -> String {
    let untyped = |path: &Operand, other: &'a Operand| match path {
        Operand::Path(Parameter { name, kind: Kind::Any, tail: false, .. }) => {
            matches!(facts.read(other), Value::Integer(_)).then(|| format!(": write {{{name}:int}}"))
        }
        _ => None,
    };
    let hint = untyped(left, right).or_else(|| untyped(right, left)).unwrap_or_default();
    format!("cannot compare {left_text} with {right_text}{hint}")
}

fn shown(value: &Value<'_>) -> String {
    match value {
        Value::Missing => "missing".to_owned(),
        Value::Unclear => "several values, or none that can be read".to_owned(),
        Value::Other => "a value of another type".to_owned(),
        Value::Text(text, _) => format!("\"{}\"", cut(text)),
        Value::Secret(_) => "(not shown)".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Address(value) => value.to_string(),
        Value::Time(minutes) => format!("{:02}:{:02}", minutes / 60, minutes % 60),
        Value::Duration(value) => duration(*value),
        Value::List(items) => {
            let texts: Vec<String> = items.iter().map(|item| shown(&Value::json(Some(item)))).collect();
            format!("[{}]", cut(&texts.join(", ")))
        }
        Value::Names(names) => format!("[{}]", cut(&names.join(", "))),
    }
}

fn cut(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

fn list<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "(none)".to_owned() } else { cut(&names.join(", ")) }
}

fn duration(duration: std::time::Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds @ 3600..86400 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86400),
    }
}

/// The parameters of a template with their values.
pub(super) fn parameters(template: &[Segment], facts: &Facts<'_>) -> Vec<(String, String)> {
    let segments = facts.segments();
    let mut found = Vec::new();
    for (position, segment) in template.iter().enumerate() {
        match segment {
            Segment::Parameter { name: Some(name), .. } => {
                if let Some(value) = segments.get(position) {
                    found.push((name.clone(), value.to_string()));
                }
            }
            Segment::Tail { name: Some(name) } => {
                let rest = segments.get(position..).unwrap_or_default();
                found.push((name.clone(), rest.join("/")));
            }
            Segment::Literal(_) | Segment::Parameter { name: None, .. } | Segment::Tail { name: None } => {}
        }
    }
    found
}
