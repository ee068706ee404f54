//! P410
//!
//! # What it does
//! Reports comparisons of `token.*` that refuse whoever's token lacks the claim: every comparison but `is` and `is not`
//! in a guard, and `!=` on a route. On a route, `==` and the like are not reported: there, asking for a claim is the
//! point.
//!
//! # Why it matters
//! A missing claim makes a comparison unknown, and unknown refuses. `token.suspended != true` refuses everybody
//! whose token does not mention suspension.
//!
//! # Example
//! ```yaml
//! guards:
//!   not-suspended:
//!     paths: /**
//!     require: { where: token.suspended != true }
//! ```
//!
//! # Instead
//! `token.suspended is not true`: there, missing is a value. If those without the claim are meant to be refused, say
//! so: `allow: { P410: a token without a region must not export }`.

use crate::diagnostic::{Code, Diagnostic, Spanned};
use crate::policy::document::{Comparison, Operand, Operator, Reference, Requirement};

use super::Context;
use super::findings::{Findings, Owner};
use super::walk::{Leaf, leaves, references};

pub(super) fn run<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    for route in &context.document.routes {
        requirement(context, route.into(), &route.requirement, false, found);
    }
    for guard in &context.document.guards {
        requirement(context, guard.into(), &guard.value.require, true, found);
    }
}

fn requirement<'d>(
    context: &Context<'d>,
    owner: Owner<'d>,
    asked: &'d Requirement,
    is_guard: bool,
    found: &mut Findings<'d>,
) {
    leaves(&context.names, asked, &mut |leaf, trail| {
        let Leaf::Comparison(comparison) = leaf else { return };
        let reported = match comparison.operator {
            Operator::Is | Operator::IsNot => false,
            Operator::NotEqual => true,
            _ => is_guard,
        };
        if !reported {
            return;
        }
        let Some(claim) = references(comparison).find_map(optional_claim) else { return };
        let used: Option<&&Spanned<String>> = trail.first();
        let message = format!("refuses every identity whose token has no `{claim}`");
        let mut diagnostic = match used {
            Some(name) => Diagnostic::new(Code::P410, message, name.span, "used here")
                .also(comparison.text.span, "unknown without the claim"),
            None => Diagnostic::new(Code::P410, message, comparison.text.span, "unknown without the claim"),
        };
        if let Some(total) = total(comparison) {
            diagnostic = diagnostic.help(format!("if those may pass, write `{total}`"));
        }
        let mut owners = vec![owner];
        if let Some(definition) = trail.last().and_then(|name| context.names.conditions.get(&name.value)) {
            owners.push(definition.into());
        }
        found.between(owners, diagnostic);
    });
}

/// The claim's name, unless every token has it.
fn optional_claim(reference: &Reference) -> Option<String> {
    let Reference::Token(path) = reference else { return None };
    let name = path.join(".");
    (!matches!(name.as_str(), "sub" | "iss" | "aud" | "exp")).then_some(name)
}

/// The total comparison that lets those without the claim pass.
fn total(comparison: &Comparison) -> Option<String> {
    let text = &comparison.text.value;
    match (comparison.operator, &comparison.right) {
        (Operator::NotEqual, Operand::Reference(_)) => None,
        (Operator::NotEqual, _) => Some(text.replacen("!=", "is not", 1)),
        _ => None,
    }
}
