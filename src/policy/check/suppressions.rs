//! P510
//!
//! # What it does
//! Reports suppressions that suppress nothing.
//!
//! # Why it matters
//! A suppression is a decision with a reason. One that no longer matches anything hides the next finding of its kind.
//!
//! # Example
//! ```yaml
//! routes:
//!   GET /items: { scope: items:read, allow: { P311: nothing is weak here } }
//! ```
//!
//! # Instead
//! Delete it, or put it on the object that the finding is about.

use std::collections::HashSet;

use crate::diagnostic::{Code, Diagnostic, Span};

use super::Context;
use super::findings::{Findings, suppressions};

/// Marks what the policy suppresses, adds what is wrong with the suppressions themselves, sorts.
pub(super) fn finish(context: &Context<'_>, found: Findings<'_>) -> Vec<Diagnostic> {
    let mut used: HashSet<Span> = HashSet::new();
    let mut diagnostics: Vec<Diagnostic> = Vec::new();
    for (mut diagnostic, owners) in found.into_inner() {
        let mut generated = owners.iter().map(|owner| owner.generated);
        // Of routes that a preset brings, nobody can make other ones. That one of them is a hole in what the policy
        // refuses is worth knowing.
        let is_about_it = match diagnostic.code {
            Code::P311 => !owners.is_empty() && generated.clone().all(|generated| generated),
            _ => owners.first().is_some_and(|owner| owner.generated),
        };
        if is_about_it && !diagnostic.is_error() {
            continue;
        }
        // There is no text of theirs that could be edited.
        if generated.any(|generated| generated) {
            diagnostic.fixes.clear();
        }
        if diagnostic.code.can_be_suppressed() {
            for owner in owners {
                let of_document = context.document.fragments.get(owner.fragment.0);
                let documents = of_document.map_or(&[][..], |fragment| &fragment.allow);
                for suppression in owner.allow.iter().chain(documents) {
                    if suppression.code.value == diagnostic.code {
                        used.insert(suppression.code.span);
                        diagnostic.suppressed.get_or_insert_with(|| suppression.reason.value.clone());
                    }
                }
            }
        }
        diagnostics.push(diagnostic);
    }
    for suppression in suppressions(context.document) {
        let code = suppression.code.value;
        if raised_here(code) && !context.document.damage.broken && !used.contains(&suppression.code.span) {
            diagnostics.push(
                Diagnostic::new(
                    Code::P510,
                    format!("unused suppression of `{code}`"),
                    suppression.code.span,
                    "nothing here is reported under this code",
                )
                .help("delete it, or put it on the object that the finding is about"),
            );
        }
    }
    diagnostics.sort_by(|a, b| {
        (a.primary.span, a.code, &a.message, &a.secondary.first().map(|label| label.span)).cmp(&(
            b.primary.span,
            b.code,
            &b.message,
            &b.secondary.first().map(|label| label.span),
        ))
    });
    diagnostics.dedup();
    diagnostics
}

/// Whether this part raises the code: P407 comes from resolving references, P602 from coverage, and whether they are
/// used is not known here.
fn raised_here(code: Code) -> bool {
    !matches!(code, Code::P407 | Code::P602)
}
