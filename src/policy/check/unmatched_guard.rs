//! P307
//!
//! # What it does
//! Reports guards that no route can meet: none has a path, method, host and app of the guard, or only public
//! routes have, where guards do not apply unless they say `include_public`.
//!
//! # Why it matters
//! The guard was written to protect something. Its path is misspelt, or what it protected has moved.
//!
//! # Example
//! ```yaml
//! guards:
//!   office-only: { paths: /amdin/**, require: { where: client.ip in office } }
//! routes:
//!   /admin/**: { role: admin }
//! ```
//!
//! # Instead
//! Correct the path: a guard's `paths` begin at the root and contain the app's `base`.

use crate::diagnostic::{Code, Diagnostic};
use crate::policy::document::Access;

use super::Context;
use super::findings::Findings;
use super::table::Table;

pub(super) fn run<'d>(context: &Context<'d>, table: &Table<'d>, found: &mut Findings<'d>) {
    // Routes of a preset are not in the document.
    if context.document.damage.broken {
        return;
    }
    #[derive(Clone, Copy, PartialEq, PartialOrd)]
    enum Meets {
        Nothing,
        Public,
        Some,
    }
    let mut meets = vec![Meets::Nothing; table.guards.len()];
    for view in &table.routes {
        for (index, _) in &view.guards {
            let Some(guard) = table.guards.get(*index) else { continue };
            let applies = view.access != Access::Public || guard.guard.value.include_public.is_some();
            let now = if applies { Meets::Some } else { Meets::Public };
            if let Some(so_far) = meets.get_mut(*index).filter(|so_far| **so_far < now) {
                *so_far = now;
            }
        }
    }
    for (view, meets) in table.guards.iter().zip(meets) {
        let name = &view.guard.name;
        let login = view.guard.value.include_public.is_some()
            && context.document.apps.iter().flat_map(|app| &app.headers).any(|(_, header)| header.login.is_some());
        let diagnostic = match meets {
            Meets::Some => continue,
            // It may be about the login path.
            Meets::Nothing if login => continue,
            Meets::Nothing => Diagnostic::new(
                Code::P307,
                format!("guard `{}` matches no route", name.value),
                name.span,
                "guards nothing",
            ),
            Meets::Public => Diagnostic::new(
                Code::P307,
                format!("guard `{}` matches only public routes", name.value),
                name.span,
                "guards do not apply to public routes",
            )
            .help("`include_public: true` makes it apply there, to facts of the request"),
        };
        found.about(view.guard, diagnostic);
    }
}
