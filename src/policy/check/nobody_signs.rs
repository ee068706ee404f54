//! P411
//!
//! # What it does
//! Reports a set whose routes need an identity while no issuer is configured. Without `identity`, `local` is implied
//! when `SECRET_KEY` is set, and `supabase` when `SUPABASE_URL` is; where the environment is not known (a check in CI),
//! this is left open.
//!
//! # Why it matters
//! Every such route would answer 401 to everybody.
//!
//! # Example
//! ```yaml
//! routes:
//!   GET /items: authenticated        # no `identity`, no SECRET_KEY
//! ```
//!
//! # Instead
//! `identity: { local: { preset: local, secret: env:SECRET_KEY } }`, or set `SECRET_KEY`.

use crate::diagnostic::{Code, Diagnostic};
use crate::policy::document::Access;

use super::Context;
use super::findings::Findings;

pub(super) fn run<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    let Some(environment) = &context.options.environment else { return };
    let implied = ["SECRET_KEY", "SUPABASE_URL"].iter().any(|name| environment.contains(*name));
    if implied || !context.names.issuers.is_empty() {
        return;
    }
    let mut needing = (context.document.routes.iter())
        .filter(|route| context.names.access_of(&route.requirement) == Access::Authenticated);
    if let Some(route) = needing.next() {
        let mut diagnostic = Diagnostic::new(
            Code::P411,
            "routes need an identity but nobody may sign tokens",
            route.key.span,
            "needs an identity",
        )
        .help("add `identity`, or set `SECRET_KEY` (implies `local`) or `SUPABASE_URL` (implies `supabase`)");
        let more = needing.count();
        if more > 0 {
            diagnostic = diagnostic.note(format!("and so do {more} other routes"));
        }
        found.about(route, diagnostic);
    }
}
