//! P507
//!
//! # What it does
//! Reports public routes with methods that change something, without a limit and without a condition.
//!
//! # Why it matters
//! Anybody can call them as often as they like.
//!
//! # Example
//! ```yaml
//! routes:
//!   POST /contact: public
//! ```
//!
//! # Instead
//! `POST /contact: { access: public, limit: 5/min by ip }`, or a secret: `where: header.x-hook == env.HOOK_SECRET`. A
//! route without a method allows all of them: write `GET /contact` if that is meant.

use crate::diagnostic::{Code, Diagnostic};
use crate::policy::document::{Access, LimitUse};

use super::Context;
use super::findings::Findings;
use super::formula::Formulas;
use super::table::{Table, method_list};

pub(super) fn run<'d>(_: &Context<'d>, table: &mut Table<'d>, found: &mut Findings<'d>) {
    for view in table.routes.iter().filter(|view| view.access == Access::Public && view.formula == Formulas::TRUE) {
        let changing: Vec<&str> = method_list(view.methods.iter())
            .into_iter()
            .filter(|method| !matches!(*method, "GET" | "HEAD" | "OPTIONS"))
            .collect();
        let own = &view.route.options.limit;
        let default = || view.header().is_some_and(|header| !header.defaults.limit.is_empty());
        let limited =
            if own.is_empty() { default() } else { own.iter().any(|limit| !matches!(limit, LimitUse::None(_))) };
        if changing.is_empty() || limited {
            continue;
        }
        let mut diagnostic = Diagnostic::new(
            Code::P507,
            format!("`public` with {}, without a limit or a condition", changing.join(", ")),
            view.route.key.span,
            "anybody can call this as often as they like",
        );
        diagnostic = if view.methods.any {
            diagnostic.help(format!("if reading is meant, name the method: `GET {}`", view.route.template.text))
        } else {
            diagnostic.help("add a limit: `limit: 10/min by ip`")
        };
        found.about(view.route, diagnostic);
    }
}
