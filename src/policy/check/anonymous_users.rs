//! P404
//!
//! # What it does
//! Reports routes that ask for nothing but a login while a Supabase issuer admits anonymous users.
//!
//! # Why it matters
//! Supabase's anonymous users are created by anybody with one call. With `anonymous_users: allow`,
//! `authenticated` means everybody.
//!
//! # Example
//! ```yaml
//! identity: { supabase: { preset: supabase, anonymous_users: allow } }
//! routes:
//!   POST /reviews: authenticated
//! ```
//!
//! # Instead
//! `{ where: user.kind == "user" }` where only real users are meant. If it is meant so, say so on the issuer:
//! `allow: { P404: guests may write reviews }`.

use crate::diagnostic::{Code, Diagnostic};
use crate::policy::document::Access;

use super::Context;
use super::findings::Findings;
use super::formula::Atom;
use super::table::Table;

pub(super) fn run<'d>(context: &Context<'d>, table: &mut Table<'d>, found: &mut Findings<'d>) {
    let admitting =
        context.document.issuers.iter().find_map(|issuer| Some((issuer, issuer.value.allow_anonymous_users?)));
    let Some((issuer, span)) = admitting else { return };
    for view in table.routes.iter().filter(|view| view.access == Access::Authenticated) {
        let passes = table.formulas.holds(view.formula, |atom| match atom {
            Atom::Authenticated => true,
            Atom::Issuer(name) => *name == issuer.name.value,
            // Facts of the request can be anything; facts of the user tell anonymous ones apart.
            Atom::Comparison { about_the_user, .. } => !about_the_user,
            Atom::Scope(_) | Atom::Role(_) | Atom::Permission(_) | Atom::Mfa | Atom::MaxAge(_) | Atom::Unknown(_) => {
                false
            }
        });
        if passes {
            let diagnostic = Diagnostic::new(
                Code::P404,
                format!("anonymous users of `{}` can call `{}`", issuer.name.value, view.route.key.value),
                view.route.requirement.span(),
                "asks for a login only",
            )
            .also(span, "anonymous users have one")
            .help("if only real users are meant: `{ where: user.kind == \"user\" }`");
            found.between(vec![view.route.into(), issuer.into()], diagnostic);
        }
    }
}
