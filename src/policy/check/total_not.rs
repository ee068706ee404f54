//! P310
//!
//! # What it does
//! Reports `not` over anything but roles, scopes, issuers and conditions with `is` or `is not`.
//!
//! # Why it matters
//! Everything else can be unknown (a claim is missing, or has another type), and the negation of unknown is
//! unknown: the route would refuse people for reasons that the policy does not show.
//!
//! # Example
//! ```yaml
//! guards:
//!   not-suspended:
//!     paths: /**
//!     require: { not: { where: token.suspended == true } }
//! ```
//!
//! # Instead
//! `require: { where: token.suspended is not true }`: missing is a value there.

use crate::diagnostic::{Code, Diagnostic, Span, Spanned};
use crate::policy::document::{Clause, Operator};

use super::Context;
use super::findings::Findings;
use super::walk::{Leaf, Part, leaves, written};

pub(super) fn run<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    written(context.document, &mut |site, part| {
        let Part::Clause(Clause::Not(member, not)) = part else { return };
        leaves(&context.names, member, &mut |leaf, trail| {
            let why = match leaf {
                Leaf::Scope(_) | Leaf::Role(_) | Leaf::Issuer(_) => return,
                Leaf::Comparison(comparison) => match comparison.operator {
                    Operator::Is | Operator::IsNot => return,
                    _ => format!("`{}` can be unknown", comparison.text.value),
                },
                Leaf::Permission(_) => "`permission` can be unknown".to_owned(),
                Leaf::Mfa(_) => "`mfa` can be unknown".to_owned(),
                Leaf::MaxAge(_) => "`max_age` can be unknown".to_owned(),
            };
            found.about(site.owner(), report(leaf.span(), trail.first().copied(), *not, why));
        });
    });
}

fn report(leaf: Span, used: Option<&Spanned<String>>, not: Span, why: String) -> Diagnostic {
    let message = "`not` over something that can be unknown";
    let diagnostic = match used {
        Some(name) => Diagnostic::new(Code::P310, message, name.span, "used inside `not`").also(leaf, why),
        None => Diagnostic::new(Code::P310, message, leaf, why),
    };
    let diagnostic = if not.file == diagnostic.primary.span.file && not.end <= diagnostic.primary.span.start {
        diagnostic.also(not, "negated here")
    } else {
        diagnostic
    };
    diagnostic.help("say the opposite with `is not` instead: there, missing is a value")
}
