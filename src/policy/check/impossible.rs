//! P304
//!
//! # What it does
//! Reports comparisons that can never be true: of types that cannot be equal, of a value that the reference never has
//! (`request.weekday == "monday"`), and pairs that exclude each other (`user.tenant == "a"` and `== "b"`, a range
//! without members, an address outside the set).
//!
//! # Why it matters
//! The route or the guard would refuse everybody, or a branch of `any` would be dead.
//!
//! # Example
//! ```yaml
//! routes:
//!   POST /orders: { where: [ request.time >= 18:00, request.time < 06:00 ] }
//! ```
//!
//! # Instead
//! `any: [ { where: request.time >= 18:00 }, { where: request.time < 06:00 } ]`.

use std::cmp::Ordering;

use crate::diagnostic::{Code, Diagnostic, Span};
use crate::policy::document::{
    Clause, Comparison, Condition, Operand, Operator, Reference, Requirement, Set, UserFact,
};
use crate::policy::specificity::kind_matches;
use crate::policy::template::{Kind, Segment};

use super::Context;
use super::findings::{Findings, Owner};
use super::walk::{Leaf, Part, leaves, written};

pub(super) fn run<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    written(context.document, &mut |site, part| {
        let Part::Comparison(comparison) = part else { return };
        if let Some((span, why)) = never(context, comparison) {
            found.about(site.owner(), report(comparison, span, why));
        }
    });
    for route in &context.document.routes {
        typed_parameters(context, route.into(), &route.requirement, &route.template.segments, found);
        together(context, route.into(), &route.requirement, found);
    }
    for guard in &context.document.guards {
        if let [path] = guard.value.paths.as_slice() {
            typed_parameters(context, guard.into(), &guard.value.require, &path.segments, found);
        }
        together(context, guard.into(), &guard.value.require, found);
    }
    for access in &context.document.access {
        together(context, access.into(), &access.value, found);
    }
    for condition in &context.document.conditions {
        let mut all = Vec::new();
        flatten(context, &condition.value, &mut all, 0);
        excluded(context, condition.into(), &all, found);
    }
}

fn report(comparison: &Comparison, span: Span, why: String) -> Diagnostic {
    Diagnostic::new(Code::P304, format!("`{}` can never be true", comparison.text.value), span, why)
}

// === One comparison ===

/// What kind of value a side has, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Type {
    Text,
    Number,
    Bool,
    List,
    Address,
    Time,
    Duration,
    /// A parameter: text, and a number if it is `int`.
    Parameter,
    /// Whatever the token has.
    Dynamic,
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Number => "a number",
            Self::Bool => "a Boolean",
            Self::List => "a list",
            Self::Address => "an address",
            Self::Time => "a time of the day",
            Self::Duration => "a duration",
            Self::Parameter => "a path parameter",
            Self::Dynamic => "a claim",
        }
    }
}

fn type_of(context: &Context<'_>, reference: &Reference) -> Type {
    match reference {
        Reference::Path(_) => Type::Parameter,
        Reference::User(UserFact::Roles | UserFact::Scopes | UserFact::Permissions) => Type::List,
        Reference::User(UserFact::AuthAge) => Type::Duration,
        Reference::User(_)
        | Reference::ClientCountry
        | Reference::Header(_)
        | Reference::Query(_)
        | Reference::RequestMethod
        | Reference::RequestHost
        | Reference::RequestWeekday
        | Reference::Env(_) => Type::Text,
        Reference::ClientIp => Type::Address,
        Reference::RequestTime => Type::Time,
        Reference::Token(path) => declared(context, &path.join(".")),
    }
}

/// The type that issuers declare for a claim, if they agree.
fn declared(context: &Context<'_>, claim: &str) -> Type {
    let mut types = context.document.issuers.iter().map(|issuer| {
        issuer.value.types.iter().find(|(name, _)| name.value == claim).map(|(_, kind)| kind.value.as_str())
    });
    let first = types.next().flatten();
    match first.filter(|first| types.all(|other| other == Some(*first))) {
        Some("string") => Type::Text,
        Some("number") => Type::Number,
        Some("bool") => Type::Bool,
        Some("list") => Type::List,
        _ => Type::Dynamic,
    }
}

fn type_of_operand(context: &Context<'_>, operand: &Operand) -> Option<Type> {
    Some(match operand {
        Operand::String(_) => Type::Text,
        Operand::Integer(_) | Operand::Float(_) => Type::Number,
        Operand::Bool(_) => Type::Bool,
        Operand::Time(_) => Type::Time,
        Operand::Duration(_) => Type::Duration,
        Operand::Reference(reference) => type_of(context, reference),
        Operand::Set(_) | Operand::Present | Operand::Missing => return None,
    })
}

/// Whether values of the two types can be equal.
fn comparable(one: Type, other: Type) -> bool {
    one == other
        || one == Type::Dynamic
        || other == Type::Dynamic
        || matches!(
            (one, other),
            (Type::Parameter, Type::Text | Type::Number) | (Type::Text | Type::Number, Type::Parameter)
        )
}

fn never(context: &Context<'_>, comparison: &Comparison) -> Option<(Span, String)> {
    let left = type_of(context, &comparison.left);
    let at_left = |why: String| Some((comparison.left_span, why));
    let at_right = |why: String| Some((comparison.right_span, why));
    let right = type_of_operand(context, &comparison.right);
    match comparison.operator {
        Operator::Equal | Operator::NotEqual | Operator::Is => {
            if let (Operator::Is, Operand::Missing) = (comparison.operator, &comparison.right) {
                let always = matches!(
                    comparison.left,
                    Reference::Path(_)
                        | Reference::ClientIp
                        | Reference::RequestMethod
                        | Reference::RequestHost
                        | Reference::RequestTime
                        | Reference::RequestWeekday
                        | Reference::Env(_)
                );
                return always.then(|| (comparison.right_span, "it is always there".to_owned()));
            }
            let right = right?;
            if !comparable(left, right) {
                let help = match (left, &comparison.right) {
                    (Type::List, _) => "; `contains` asks for a member",
                    (Type::Address, Operand::String(_)) => "; `in SET` compares addresses",
                    _ => "",
                };
                return at_right(format!("{} is never equal to {}{help}", left.name(), right.name()));
            }
            match (&comparison.right, comparison.operator) {
                (Operand::String(text), Operator::Equal | Operator::Is) => {
                    impossible_text(context, &comparison.left, text).and_then(at_right)
                }
                _ => None,
            }
        }
        Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
            let ordered = |kind: Type| {
                matches!(kind, Type::Number | Type::Time | Type::Duration | Type::Parameter | Type::Dynamic)
            };
            let right = right?;
            if !ordered(left) {
                return at_left(format!("{} has no order", left.name()));
            }
            (!ordered(right) || !comparable(left, right))
                .then(|| (comparison.right_span, format!("{} is never compared with {}", left.name(), right.name())))
        }
        Operator::Contains => {
            if !matches!(left, Type::List | Type::Text | Type::Parameter | Type::Dynamic) {
                return at_left(format!("{} has no members", left.name()));
            }
            let names_only = matches!(comparison.left, Reference::User(_));
            let right = right?;
            let wrong = names_only && !matches!(right, Type::Text | Type::Parameter | Type::Dynamic);
            wrong.then(|| (comparison.right_span, format!("its members are texts, never {}", right.name())))
        }
        Operator::StartsWith | Operator::EndsWith => {
            let text = |kind: Type| matches!(kind, Type::Text | Type::Parameter | Type::Dynamic);
            if !text(left) {
                return at_left(format!("{} is not a text", left.name()));
            }
            let right = right?;
            (!text(right)).then(|| (comparison.right_span, format!("{} is not a text", right.name())))
        }
        Operator::In => never_in(context, comparison, left),
        Operator::IsNot => None,
    }
}

fn never_in(context: &Context<'_>, comparison: &Comparison, left: Type) -> Option<(Span, String)> {
    let at_right = |why: &str| Some((comparison.right_span, format!("{} is never in {why}", left.name())));
    if left == Type::List {
        return at_right("a set or list; `contains` asks the other way round");
    }
    match &comparison.right {
        Operand::Set(name) => match &context.names.sets.get(name)?.value {
            Set::Networks(_) if !matches!(left, Type::Address | Type::Dynamic) => at_right("a set of addresses"),
            Set::Strings(_) if !matches!(left, Type::Text | Type::Parameter | Type::Dynamic) => {
                at_right("a set of texts")
            }
            Set::Numbers(_) if !matches!(left, Type::Number | Type::Parameter | Type::Dynamic) => {
                at_right("a set of numbers")
            }
            Set::Strings(texts) => {
                let possible =
                    texts.iter().any(|text| impossible_text(context, &comparison.left, &text.value).is_none());
                (!possible).then(|| (comparison.right_span, "none of its members is a possible value".to_owned()))
            }
            Set::Networks(_) | Set::Numbers(_) => None,
        },
        Operand::Reference(reference) => match type_of(context, reference) {
            Type::List | Type::Dynamic | Type::Text | Type::Parameter => None,
            other => Some((comparison.right_span, format!("{} has no members", other.name()))),
        },
        _ => None,
    }
}

/// Why the reference never has this text as its value.
fn impossible_text(context: &Context<'_>, reference: &Reference, text: &str) -> Option<String> {
    match reference {
        Reference::RequestWeekday => (!["mon", "tue", "wed", "thu", "fri", "sat", "sun"].contains(&text))
            .then(|| "weekdays are `mon tue wed thu fri sat sun`".to_owned()),
        Reference::RequestMethod => {
            text.bytes().any(|byte| byte.is_ascii_lowercase()).then(|| "methods are written in capitals".to_owned())
        }
        Reference::RequestHost => text
            .bytes()
            .any(|byte| byte.is_ascii_uppercase() || byte == b':')
            .then(|| "hosts are in lower case, without a port".to_owned()),
        Reference::User(UserFact::Kind) => (!["user", "anonymous", "service", "client"].contains(&text))
            .then(|| "kinds are `user anonymous service client`".to_owned()),
        Reference::User(UserFact::Issuer) => {
            let issuers = &context.names.issuers;
            (!issuers.is_empty() && !issuers.contains(text)).then(|| "no issuer in `identity` has this name".to_owned())
        }
        _ => None,
    }
}

// === Parameters with a type ===

fn typed_parameters<'d>(
    context: &Context<'d>,
    owner: Owner<'d>,
    asked: &'d Requirement,
    segments: &'d [Segment],
    found: &mut Findings<'d>,
) {
    leaves(&context.names, asked, &mut |leaf, trail| {
        let Leaf::Comparison(comparison) = leaf else { return };
        let Reference::Path(name) = &comparison.left else { return };
        let kind = segments.iter().find_map(|segment| match segment {
            Segment::Parameter { name: Some(known), kind } if known == name => Some(*kind),
            _ => None,
        });
        let Some(kind) = kind else { return };
        let equal = matches!(comparison.operator, Operator::Equal | Operator::Is);
        let why = match &comparison.right {
            Operand::String(text) if equal && !kind_matches(kind, text) => "the parameter's type does not admit this",
            Operand::Integer(_) | Operand::Float(_) if kind != Kind::Int => "only an `int` parameter is a number",
            _ => return,
        };
        let used = trail.first();
        let mut diagnostic = report(comparison, used.map_or(comparison.right_span, |name| name.span), why.to_owned());
        if used.is_some() {
            diagnostic = diagnostic.also(comparison.right_span, "this comparison");
        }
        found.about(owner, diagnostic);
    });
}

// === Comparisons that have to hold together ===

/// Every list of comparisons that have to hold at the same time.
fn together<'d>(context: &Context<'d>, owner: Owner<'d>, asked: &'d Requirement, found: &mut Findings<'d>) {
    let mut all = Vec::new();
    conjunction(context, asked, &mut all, 0);
    excluded(context, owner, &all, found);
    branches(context, owner, asked, found);
}

/// The members of `any` and `not`, each for itself.
fn branches<'d>(context: &Context<'d>, owner: Owner<'d>, asked: &'d Requirement, found: &mut Findings<'d>) {
    let Requirement::Object(object) = asked else { return };
    for clause in &object.clauses {
        match clause {
            Clause::Any(members, _) => members.iter().for_each(|member| together(context, owner, member, found)),
            Clause::All(members, _) => members.iter().for_each(|member| branches(context, owner, member, found)),
            Clause::Not(member, _) => together(context, owner, member, found),
            _ => {}
        }
    }
}

fn conjunction<'d>(context: &Context<'d>, asked: &'d Requirement, all: &mut Vec<&'d Comparison>, depth: usize) {
    let Requirement::Object(object) = asked else { return };
    for clause in &object.clauses {
        match clause {
            Clause::Where(condition) => flatten(context, condition, all, depth),
            Clause::All(members, _) => members.iter().for_each(|member| conjunction(context, member, all, depth)),
            _ => {}
        }
    }
}

fn flatten<'d>(context: &Context<'d>, condition: &'d Condition, all: &mut Vec<&'d Comparison>, depth: usize) {
    match condition {
        Condition::Comparison(comparison) => all.push(comparison),
        Condition::All(members, _) => members.iter().for_each(|member| flatten(context, member, all, depth)),
        Condition::Named(name) => {
            // Deeper chains, and lists that grow by repetition, are not followed: this is a convenience.
            if let Some(definition) = context.names.conditions.get(&name.value).filter(|_| depth < 8 && all.len() < 64)
            {
                flatten(context, &definition.value, all, depth + 1);
            }
        }
    }
}

fn excluded<'d>(context: &Context<'d>, owner: Owner<'d>, all: &[&'d Comparison], found: &mut Findings<'d>) {
    for (index, second) in all.iter().enumerate().take(64) {
        for first in all.iter().take(index).filter(|first| first.left == second.left) {
            if exclude(context, first, second) {
                let diagnostic = Diagnostic::new(
                    Code::P304,
                    format!("`{}` and `{}` can never be true together", first.text.value, second.text.value),
                    second.text.span,
                    "excludes the other",
                )
                .also(first.text.span, "the other one");
                found.about(owner, diagnostic);
            }
        }
    }
}

fn exclude(context: &Context<'_>, one: &Comparison, other: &Comparison) -> bool {
    let is = |comparison: &Comparison| matches!(comparison.operator, Operator::Equal | Operator::Is);
    let is_not = |comparison: &Comparison| matches!(comparison.operator, Operator::NotEqual | Operator::IsNot);
    let constant = |comparison: &Comparison| !matches!(comparison.right, Operand::Reference(_) | Operand::Set(_));
    match (&one.right, &other.right) {
        (Operand::Missing, Operand::Present) | (Operand::Present, Operand::Missing) => {
            return one.operator == other.operator;
        }
        (Operand::Missing, right) if one.operator == Operator::Is => {
            return !matches!(right, Operand::Missing) && other.operator != Operator::IsNot;
        }
        (left, Operand::Missing) if other.operator == Operator::Is => {
            return !matches!(left, Operand::Missing) && one.operator != Operator::IsNot;
        }
        (Operand::Missing | Operand::Present, _) | (_, Operand::Missing | Operand::Present) => return false,
        _ => {}
    }
    if one.right == other.right && ((is(one) && is_not(other)) || (is_not(one) && is(other))) {
        return true;
    }
    match (bound(one), bound(other)) {
        (Some(one), Some(other)) if constant(one.0) && constant(other.0) => one.excludes(&other),
        _ => sets_exclude(context, one, other),
    }
}

/// A comparison with a constant that orders or equals.
struct Bound<'d>(&'d Comparison);

fn bound(comparison: &Comparison) -> Option<Bound<'_>> {
    use Operator::{Equal, Greater, GreaterOrEqual, Is, Less, LessOrEqual};
    matches!(comparison.operator, Equal | Is | Less | LessOrEqual | Greater | GreaterOrEqual)
        .then_some(Bound(comparison))
}

impl Bound<'_> {
    /// Whether no value meets both.
    fn excludes(&self, other: &Bound<'_>) -> bool {
        use Operator::{Equal, Greater, GreaterOrEqual, Is, Less, LessOrEqual};
        let Some(order) = order(&self.0.right, &other.0.right) else {
            // Texts and Booleans: two different ones. A parameter can equal a text and a number.
            let kind = std::mem::discriminant(&self.0.right) == std::mem::discriminant(&other.0.right);
            let equal = |operator| matches!(operator, Equal | Is);
            return kind && equal(self.0.operator) && equal(other.0.operator) && self.0.right != other.0.right;
        };
        match (self.0.operator, other.0.operator) {
            (Equal | Is, Equal | Is) => order != Ordering::Equal,
            (Equal | Is, Less) | (Greater | GreaterOrEqual, Less) | (Greater, LessOrEqual | Equal | Is) => {
                order != Ordering::Less
            }
            (Equal | Is, LessOrEqual) | (GreaterOrEqual, LessOrEqual | Equal | Is) => order == Ordering::Greater,
            (Equal | Is, Greater) | (Less | LessOrEqual, Greater) | (Less, GreaterOrEqual | Equal | Is) => {
                order != Ordering::Greater
            }
            (Equal | Is, GreaterOrEqual) | (LessOrEqual, GreaterOrEqual | Equal | Is) => order == Ordering::Less,
            _ => false,
        }
    }
}

fn order(one: &Operand, other: &Operand) -> Option<Ordering> {
    match (one, other) {
        (Operand::Integer(one), Operand::Integer(other)) => Some(one.cmp(other)),
        (Operand::Float(one), Operand::Float(other)) => one.partial_cmp(other),
        (Operand::Time(one), Operand::Time(other)) => Some(one.cmp(other)),
        (Operand::Duration(one), Operand::Duration(other)) => Some(one.cmp(other)),
        _ => None,
    }
}

fn sets_exclude(context: &Context<'_>, one: &Comparison, other: &Comparison) -> bool {
    let set = |comparison: &Comparison| match (&comparison.operator, &comparison.right) {
        (Operator::In, Operand::Set(name)) => context.names.sets.get(name).map(|definition| &definition.value),
        _ => None,
    };
    let equals = |comparison: &Comparison| matches!(comparison.operator, Operator::Equal | Operator::Is);
    match (set(one), set(other)) {
        (Some(Set::Networks(one)), Some(Set::Networks(other))) => !one.iter().any(|network| {
            other.iter().any(|other| network.value.contains(&other.value) || other.value.contains(&network.value))
        }),
        (Some(Set::Strings(one)), Some(Set::Strings(other))) => {
            !one.iter().any(|text| other.iter().any(|other| other.value == text.value))
        }
        (Some(Set::Strings(texts)), None) => outside(equals(other), &other.right, texts),
        (None, Some(Set::Strings(texts))) => outside(equals(one), &one.right, texts),
        _ => false,
    }
}

fn outside(equals: bool, operand: &Operand, texts: &[crate::diagnostic::Spanned<String>]) -> bool {
    match operand {
        Operand::String(text) => equals && !texts.iter().any(|member| member.value == *text),
        _ => false,
    }
}
