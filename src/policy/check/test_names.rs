//! P603
//!
//! # What it does
//! Reports tests that expect something which cannot be: a `because` or a `route` that names nothing in the set. (The
//! form of tests is checked while reading; an unknown identity is P102.)
//!
//! # Why it matters
//! Such a test fails for a reason that has nothing to do with the policy.
//!
//! # Example
//! ```yaml
//! tests:
//!   isolation:
//!     GET /t/acme/items: { eve: { status: 403, because: guard tenant-isolatoin } }
//! ```
//!
//! # Instead
//! Correct the name. `because` takes a code, `guard NAME`, `scope NAME`, `role NAME`, `permission NAME`, `issuer NAME`,
//! `condition NAME`, `mfa` or `max_age`.

use std::collections::BTreeSet;

use crate::diagnostic::{Code, Diagnostic, Spanned};

use super::Context;
use super::findings::{Findings, Owner};
use super::names::CONSOLE_ROLE;

pub(super) fn run<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    let keys: BTreeSet<String> = context.document.routes.iter().map(|route| one_space(&route.key.value)).collect();
    for test in &context.document.tests {
        for (_, expectation) in &test.expect {
            let owner = Owner::of_fragment(test.fragment);
            if let Some(because) = &expectation.because {
                reason(context, owner, because, found);
            }
            if let Some(route) = expectation.route.as_ref().filter(|route| !keys.contains(&one_space(&route.value))) {
                let message = format!("no route has the key `{}`", route.value);
                let mut diagnostic = Diagnostic::new(Code::P603, message, route.span, "not in `routes`");
                if let Some(meant) = context.names.similar(&route.value, keys.iter().map(String::as_str)) {
                    diagnostic = diagnostic.help(format!("did you mean `{meant}`?"));
                }
                found.about(owner, diagnostic);
            }
        }
    }
}

fn one_space(key: &str) -> String {
    key.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn reason<'d>(context: &Context<'d>, owner: Owner<'d>, because: &Spanned<String>, found: &mut Findings<'d>) {
    let Some((kind, name)) = because.value.split_once(' ') else { return };
    let name = name.trim();
    let names = &context.names;
    let (known, candidates): (bool, Vec<&str>) = match kind {
        "guard" => (names.guards.contains(name), names.guards.keys().collect()),
        "role" => (names.roles.contains(name) || name == CONSOLE_ROLE, names.roles.keys().collect()),
        "issuer" => (names.issuers.contains(name) || names.issuers.is_empty(), names.issuers.keys().collect()),
        "condition" => (names.conditions.contains(name), names.conditions.keys().collect()),
        "scope" => (names.scopes.contains(name) || names.scopes.is_empty(), names.scopes.keys().collect()),
        "permission" => {
            let known = names.permissions.contains(name) || names.granted.contains_key(name);
            (known, names.permissions.keys().chain(names.granted.keys().copied()).collect())
        }
        _ => return,
    };
    // A condition without a name is named by its text.
    if known || (kind == "condition" && name.contains(char::is_whitespace)) {
        return;
    }
    let mut diagnostic =
        Diagnostic::new(Code::P603, format!("`because` names an unknown {kind} `{name}`"), because.span, "");
    if let Some(meant) = names.similar(name, candidates) {
        diagnostic = diagnostic.help(format!("did you mean `{kind} {meant}`?"));
    }
    found.about(owner, diagnostic);
}
