//! P102
//!
//! # What it does
//! Reports the name of a role, scope, permission, access, condition, set, limit, issuer, identity or app that the set
//! does not define, and suggests the one that was probably meant.
//!
//! # Why it matters
//! A misspelt scope or role is a requirement that nobody meets, or, inside `any` or `not`, one that means
//! something else. Neither should be found out in production.
//!
//! # Example
//! ```yaml
//! scopes: { items:write: Create and change items }
//! routes:
//!   POST /items: { scope: items:wirte }
//! ```
//!
//! # Instead
//! Correct the name, or define it. Scopes are free as long as there is no `scopes` catalogue; permissions are
//! known from `permissions` and from what roles grant by name.

use crate::diagnostic::{Code, Diagnostic, Spanned};
use crate::policy::document::{Access, Clause, LimitUse, Operand};

use super::Context;
use super::findings::{Findings, Owner};
use super::names::{CONSOLE_ROLE, replace};
use super::walk::{Part, written};

/// Issuers that are implied by the environment where there is no `identity`.
const IMPLIED_ISSUERS: [&str; 2] = ["local", "supabase"];
const FIXTURES: [&str; 2] = ["anonymous", "invalid"];
const WORDS: [Access; 5] = [Access::Public, Access::Optional, Access::Authenticated, Access::Deny, Access::Todo];

pub(super) fn run<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    requirements(context, found);
    roles(context, found);
    limits(context, found);
    apps(context, found);
    tests(context, found);
}

fn requirements<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    let names = &context.names;
    written(context.document, &mut |site, part| {
        let owner = site.owner();
        match part {
            Part::Access { name, .. } => {
                let words = WORDS.iter().map(|word| word.as_str());
                let label = if names.access.is_empty() {
                    "neither an access word nor a name of `access`"
                } else {
                    "not in `access`"
                };
                check(
                    context,
                    owner,
                    "access",
                    label,
                    name,
                    names.access.contains(&name.value),
                    names.access.keys().chain(words),
                    found,
                );
            }
            Part::Condition(name) => {
                let known = names.conditions.contains(&name.value);
                check(context, owner, "condition", "not in `conditions`", name, known, names.conditions.keys(), found);
            }
            Part::Comparison(comparison) => {
                if let Operand::Set(set) = &comparison.right {
                    let name = Spanned::new(set.clone(), comparison.right_span);
                    let known = names.sets.contains(set);
                    check(context, owner, "set", "not in `sets`", &name, known, names.sets.keys(), found);
                }
            }
            Part::Clause(Clause::Scope(listed)) => {
                listed.names.iter().for_each(|name| scope(context, owner, name, found))
            }
            Part::Clause(Clause::Role(listed)) => {
                listed.names.iter().for_each(|name| role(context, owner, name, found))
            }
            Part::Clause(Clause::Permission(listed)) => {
                listed.names.iter().for_each(|name| permission(context, owner, name, found));
            }
            Part::Clause(Clause::Issuer(listed)) => {
                listed.names.iter().for_each(|name| issuer(context, owner, name, found))
            }
            Part::Clause(_) | Part::Word(_) => {}
        }
    });
}

fn roles<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    for definition in &context.document.roles {
        definition.value.includes.iter().for_each(|name| role(context, definition.into(), name, found));
        definition.value.grants.iter().for_each(|name| scope(context, definition.into(), name, found));
    }
}

fn limits<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    let mut each = |owner: Owner<'d>, uses: &'d [LimitUse]| {
        for limit in uses {
            if let LimitUse::Named(name) = limit {
                let known = context.names.limits.contains(&name.value);
                let candidates = context.names.limits.keys().chain(["none"]);
                check(context, owner, "limit", "not in `limits`", name, known, candidates, found);
            }
        }
    };
    for route in &context.document.routes {
        each(route.into(), &route.options.limit);
    }
    for (fragment, header) in context.document.apps.iter().flat_map(|app| &app.headers) {
        each(Owner::of_fragment(*fragment), &header.defaults.limit);
        if let Some(login) = &header.login {
            each(Owner::of_fragment(*fragment), &login.value.limit);
        }
    }
}

fn apps<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    let apps = &context.document.apps;
    for guard in &context.document.guards {
        for name in &guard.value.apps {
            let known = apps.iter().any(|app| app.name.value == name.value);
            let candidates = apps.iter().map(|app| app.name.value.as_str());
            check(context, guard.into(), "app", "no document has this `app`", name, known, candidates, found);
        }
    }
    for (fragment, header) in apps.iter().flat_map(|app| &app.headers) {
        let issuers = header.login.iter().flat_map(|login| &login.value.issuers);
        let of_oidc = header.login.iter().filter(|login| login.value.via.value == "oidc");
        let issuers = issuers.chain(of_oidc.flat_map(|login| &login.value.providers));
        issuers.for_each(|name| issuer(context, Owner::of_fragment(*fragment), name, found));
    }
}

fn tests<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    for identity in &context.document.identities {
        let owner = identity.into();
        identity.value.issuer.iter().for_each(|name| issuer(context, owner, name, found));
        // A token may carry roles that begin with `portcullis:`; that they have no effect is worth a test.
        let roles = identity.value.roles.iter().flatten().filter(|name| !name.value.starts_with("portcullis:"));
        roles.for_each(|name| role(context, owner, name, found));
    }
    for test in &context.document.tests {
        for (name, _) in &test.expect {
            let known = FIXTURES.contains(&name.value.as_str()) || context.names.identities.contains(&name.value);
            let candidates = context.names.identities.keys().chain(FIXTURES);
            let owner = Owner::of_fragment(test.fragment);
            check(context, owner, "identity", "not in `identities`", name, known, candidates, found);
        }
    }
}

fn scope<'d>(context: &Context<'d>, owner: Owner<'d>, name: &Spanned<String>, found: &mut Findings<'d>) {
    let names = &context.names;
    let known = names.scopes.is_empty() || names.scopes.contains(&name.value);
    check(context, owner, "scope", "not in `scopes`", name, known, names.scopes.keys(), found);
}

fn role<'d>(context: &Context<'d>, owner: Owner<'d>, name: &Spanned<String>, found: &mut Findings<'d>) {
    let names = &context.names;
    let known = names.roles.contains(&name.value) || name.value == CONSOLE_ROLE;
    check(context, owner, "role", "not in `roles`", name, known, names.roles.keys().chain([CONSOLE_ROLE]), found);
}

fn permission<'d>(context: &Context<'d>, owner: Owner<'d>, name: &Spanned<String>, found: &mut Findings<'d>) {
    let names = &context.names;
    let known = names.permissions.contains(&name.value) || names.granted.contains_key(name.value.as_str());
    let candidates = names.permissions.keys().chain(names.granted.keys().copied());
    let label = "not in `permissions`, and no role grants it by name";
    check(context, owner, "permission", label, name, known, candidates, found);
}

fn issuer<'d>(context: &Context<'d>, owner: Owner<'d>, name: &Spanned<String>, found: &mut Findings<'d>) {
    let issuers = &context.names.issuers;
    let implied = issuers.is_empty() && IMPLIED_ISSUERS.contains(&name.value.as_str());
    let known = implied || issuers.contains(&name.value);
    check(context, owner, "issuer", "not in `identity`", name, known, issuers.keys(), found);
}

#[expect(clippy::too_many_arguments, reason = "one row of a table: what is named where, and what is known")]
fn check<'d, 'n>(
    context: &Context<'d>,
    owner: Owner<'d>,
    kind: &str,
    label: &str,
    name: &Spanned<String>,
    known: bool,
    candidates: impl Iterator<Item = &'n str>,
    found: &mut Findings<'d>,
) {
    let damage = &context.document.damage;
    if known || damage.unparsed || damage.names.contains(&name.value) {
        return;
    }
    let mut diagnostic = Diagnostic::new(Code::P102, format!("unknown {kind} `{}`", name.value), name.span, label);
    if let Some(meant) = context.names.similar(&name.value, candidates) {
        let article = if kind.starts_with(['a', 'i']) { "an" } else { "a" };
        let title = format!("{article} {kind} with a similar name exists");
        diagnostic = replace(diagnostic, &title, context.sources, name.span, meant);
    }
    found.about(owner, diagnostic);
}
