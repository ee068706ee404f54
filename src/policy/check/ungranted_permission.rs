//! P506
//!
//! # What it does
//! Reports a permission that a requirement asks for, but that no role grants and no issuer maps from its tokens.
//!
//! # Why it matters
//! Nobody can have it, so nobody can pass.
//!
//! # Example
//! ```yaml
//! permissions: { items:purge: Remove items for good }
//! roles: { editor: [items:edit] }
//! routes:
//!   DELETE /items: { permission: items:purge }
//! ```
//!
//! # Instead
//! Grant it to a role (`can`), or, if tokens carry permissions, say from which claim:
//! `claims: { permissions: permissions }`.

use std::collections::HashSet;

use crate::diagnostic::{Code, Diagnostic};
use crate::policy::document::Clause;

use super::Context;
use super::findings::Findings;
use super::names::pattern_matches;
use super::walk::{Part, written};

pub(super) fn run<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    let mapped = (context.document.issuers.iter().flat_map(|issuer| &issuer.value.claims))
        .any(|(fact, _)| fact.value == "permissions");
    if mapped {
        return;
    }
    let grants: HashSet<&str> =
        context.document.roles.iter().flat_map(|role| &role.value.can).map(|name| name.value.as_str()).collect();
    written(context.document, &mut |site, part| {
        let Part::Clause(Clause::Permission(listed)) = part else { return };
        for name in &listed.names {
            let known = context.names.permissions.contains(&name.value);
            if known && !grants.iter().any(|pattern| pattern_matches(pattern, &name.value)) {
                let message = format!("nobody can have the permission `{}`", name.value);
                let diagnostic = Diagnostic::new(
                    Code::P506,
                    message,
                    name.span,
                    "no role grants it, and no issuer maps `permissions`",
                );
                found.about(site.owner(), diagnostic);
            }
        }
    });
}
