//! P205
//!
//! # What it does
//! Reports routes that never decide, because more specific ones take all their paths (`/a/**` beside `/a` and
//! `/a/{x}/**`), or because the same template names all methods elsewhere.
//!
//! # Why it matters
//! Whoever reads the route believes that it protects or opens something.
//!
//! # Example
//! ```yaml
//! routes:
//!   /files: authenticated
//!   /files/{path}/**: { scope: files }
//!   /files/**: deny
//! ```
//!
//! # Instead
//! Delete it, or widen what it is about.

use crate::diagnostic::{Code, Diagnostic};

use super::Context;
use super::findings::Findings;
use super::table::{ANY, Table};

pub(super) fn run<'d>(_: &Context<'d>, table: &Table<'d>, found: &mut Findings<'d>) {
    for host in table.hosts.values() {
        for (tail, end) in host.tree.taken_tails() {
            let (Some(tail), Some(end)) = (host.groups.get(tail), host.groups.get(end)) else { continue };
            let Some(other) = table.first(end) else { continue };
            for (_, view) in table.views(tail) {
                // An empty segment, where the app admits it, is matched by a tail only.
                if view.header().is_some_and(|header| !header.irregular.is_empty()) {
                    continue;
                }
                let diagnostic = Diagnostic::new(
                    Code::P205,
                    format!("unreachable route `{}`", view.route.key.value),
                    view.route.key.span,
                    "all its paths are taken by more specific routes",
                )
                .also(other.route.key.span, "one of them");
                found.between(vec![view.route.into(), other.route.into()], diagnostic);
            }
        }
        for group in host.groups.iter().filter(|group| group.routes.len() > 1) {
            let named: Vec<&str> =
                table.views(group).flat_map(|(_, view)| view.methods.named.iter().copied()).collect();
            if !ANY.iter().all(|method| named.contains(method)) {
                continue;
            }
            for (_, view) in table.views(group).filter(|(_, view)| view.methods.any) {
                let diagnostic = Diagnostic::new(
                    Code::P205,
                    format!("unreachable route `{}`", view.route.key.value),
                    view.route.key.span,
                    "all methods are named by other routes of this template",
                );
                found.about(view.route, diagnostic);
            }
        }
    }
}
