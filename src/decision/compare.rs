//! Comparisons with three values (policy-language 8).
//!
//! `==`, `<`, `in`, `contains` and their kin are unknown if an operand is missing or has the wrong type. `is` and
//! `is not` are total, but for values that nobody can tell ([`Value::Unclear`]).

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value as Json;
use subtle::ConstantTimeEq;

use crate::policy::document::Operator;
use crate::policy::formula::Truth;
use crate::policy::set::{Comparison, Members, Operand};

use super::facts::{Facts, Value};

/// What a comparison says about a request.
pub(super) fn evaluate<'a>(comparison: &'a Comparison, facts: &Facts<'a>) -> Truth {
    let left = facts.read(&comparison.left);
    match (comparison.operator, &comparison.right) {
        (Operator::Is, right) => is(&left, right, facts),
        (Operator::IsNot, right) => is(&left, right, facts).not(),
        (Operator::In, Operand::Set(set)) => match facts.policy.sets.get(set.0) {
            Some(set) => is_member(&left, &set.members),
            None => Truth::Unknown,
        },
        (operator, right) => compare(&left, operator, &facts.read(right)),
    }
}

fn is<'a>(left: &Value<'_>, right: &'a Operand, facts: &Facts<'a>) -> Truth {
    match (left, right) {
        (Value::Unclear, _) => Truth::Unknown,
        (left, Operand::Present) => Truth::known(!matches!(left, Value::Missing)),
        (left, Operand::Missing) => Truth::known(matches!(left, Value::Missing)),
        (left, right) => match facts.read(right) {
            Value::Unclear => Truth::Unknown,
            right => Truth::known(equal(left, &right) == Some(true)),
        },
    }
}

/// A comparison of two values, other than `is`.
pub(super) fn compare(left: &Value<'_>, operator: Operator, right: &Value<'_>) -> Truth {
    let ordered = |accept: fn(Ordering) -> bool| order(left, right).map_or(Truth::Unknown, |o| Truth::known(accept(o)));
    match operator {
        Operator::Equal => truth(equal(left, right)),
        Operator::NotEqual => truth(equal(left, right)).not(),
        Operator::Less => ordered(Ordering::is_lt),
        Operator::LessOrEqual => ordered(Ordering::is_le),
        Operator::Greater => ordered(Ordering::is_gt),
        Operator::GreaterOrEqual => ordered(Ordering::is_ge),
        Operator::Contains => contains(left, right),
        Operator::In => contains(right, left),
        Operator::StartsWith | Operator::EndsWith => match (left, right) {
            (Value::Text(left, _), Value::Text(right, _)) => Truth::known(match operator {
                Operator::StartsWith => left.starts_with(&**right),
                _ => left.ends_with(&**right),
            }),
            _ => Truth::Unknown,
        },
        // Their right sides are read by `is`.
        Operator::Is | Operator::IsNot => Truth::Unknown,
    }
}

fn truth(value: Option<bool>) -> Truth {
    value.map_or(Truth::Unknown, Truth::known)
}

/// Whether two values are equal; `None` if they are not of one type.
fn equal(left: &Value<'_>, right: &Value<'_>) -> Option<bool> {
    match (left, right) {
        (Value::Text(a, _), Value::Text(b, _)) => Some(a == b),
        (Value::Secret(a), Value::Text(b, _) | Value::Secret(b)) | (Value::Text(a, _), Value::Secret(b)) => {
            Some(a.as_bytes().ct_eq(b.as_bytes()).into())
        }
        (Value::Bool(a), Value::Bool(b)) => Some(a == b),
        (Value::Address(a), Value::Address(b)) => Some(a == b),
        (Value::Address(a), Value::Text(b, _)) | (Value::Text(b, _), Value::Address(a)) => {
            b.parse().ok().map(|b: std::net::IpAddr| *a == b)
        }
        _ => order(left, right).map(Ordering::is_eq),
    }
}

/// The order of numbers, times and durations; `None` if they are not of one type.
fn order(left: &Value<'_>, right: &Value<'_>) -> Option<Ordering> {
    match (left, right) {
        (Value::Time(a), Value::Time(b)) => Some(a.cmp(b)),
        (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
        _ => {
            // A typed parameter is a number beside a number, and a text beside a text.
            if matches!((left, right), (Value::Text(..), Value::Text(..))) {
                return None;
            }
            match (number(left)?, number(right)?) {
                (Number::Integer(a), Number::Integer(b)) => Some(a.cmp(&b)),
                (Number::Integer(a), Number::Float(b)) => (a as f64).partial_cmp(&b),
                (Number::Float(a), Number::Integer(b)) => a.partial_cmp(&(b as f64)),
                (Number::Float(a), Number::Float(b)) => a.partial_cmp(&b),
            }
        }
    }
}

enum Number {
    Integer(i64),
    Float(f64),
}

fn number(value: &Value<'_>) -> Option<Number> {
    match value {
        Value::Integer(value) | Value::Text(_, Some(value)) => Some(Number::Integer(*value)),
        Value::Float(value) => Some(Number::Float(*value)),
        _ => None,
    }
}

/// List membership, never a substring. A single string counts as a list of one: issuers collapse such lists.
fn contains(list: &Value<'_>, member: &Value<'_>) -> Truth {
    if matches!(member, Value::Missing | Value::Unclear | Value::Other) {
        return Truth::Unknown;
    }
    let any = |values: &mut dyn Iterator<Item = Truth>| values.fold(Truth::False, Truth::or);
    match list {
        Value::List(items) => any(&mut items.iter().map(|item: &Json| truth(equal(&Value::json(Some(item)), member)))),
        Value::Names(names) => any(&mut names.iter().map(|name| truth(equal(&Value::text(name), member)))),
        Value::Text(text, _) => truth(equal(&Value::Text(Cow::Borrowed(text), None), member)),
        _ => Truth::Unknown,
    }
}

fn is_member(value: &Value<'_>, members: &Members) -> Truth {
    match (value, members) {
        (Value::Address(address), members) => truth(members.contains_address(*address)),
        (Value::Text(text, _), Members::Strings(strings)) => Truth::known(strings.contains(&**text)),
        (value, Members::Numbers(numbers)) if number(value).is_some() => {
            let equals = |member: &serde_json::Number| {
                let member = match (member.as_i64(), member.as_f64()) {
                    (Some(integer), _) => Value::Integer(integer),
                    (None, Some(float)) => Value::Float(float),
                    (None, None) => Value::Other,
                };
                equal(value, &member) == Some(true)
            };
            Truth::known(numbers.iter().any(equals))
        }
        _ => Truth::Unknown,
    }
}
