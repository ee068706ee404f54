//! P508
//!
//! # What it does
//! Reports `todo`: as a warning, and as an error with `check --strict`.
//!
//! # Why it matters
//! `todo` refuses everybody. It is what importers write where nobody ever stated who may call a route.
//!
//! # Example
//! ```yaml
//! routes:
//!   GET /reports: todo
//! ```
//!
//! # Instead
//! State who may call it; `deny` if really nobody.

use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::policy::document::Access;

use super::Context;
use super::findings::Findings;
use super::walk::{Part, written};

pub(super) fn run<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    written(context.document, &mut |site, part| {
        let Part::Word(word) = part else { return };
        if word.value == Access::Todo {
            let mut diagnostic = Diagnostic::new(Code::P508, "`todo` left", word.span, "refuses everybody")
                .help("state who may call it; `deny` if nobody");
            if context.options.strict {
                diagnostic.severity = Severity::Error;
            }
            found.about(site.owner(), diagnostic);
        }
    });
}
