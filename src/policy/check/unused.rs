//! P501, P502, P503, P504
//!
//! # What it does
//! Reports names that nothing uses: roles, scopes and permissions (P501), requirements and conditions (P502), sets
//! and limits (P503), test identities (P504). A role counts as used if it is asked for, included, or grants something; a
//! scope if it is asked for, granted, or implies one that is asked for; a permission if it is asked for or granted by
//! name.
//!
//! # Why it matters
//! Usually the name is misspelt where it should have been used, or a route was deleted and its
//! vocabulary forgotten.
//!
//! # Example
//! ```yaml
//! conditions:
//!   same_tenant: path.tenant == user.tenant      # and no route says `where: same_tenant`
//! ```
//!
//! # Instead
//! Use it or delete it.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::diagnostic::{Code, Diagnostic, Spanned};
use crate::policy::document::{Clause, Definition, LimitUse, Operand, Operator, Reference, UserFact};

use super::Context;
use super::findings::Findings;
use super::names::CONSOLE_ROLE;
use super::walk::{Part, written};

#[derive(Default)]
struct Uses<'d> {
    roles: HashSet<&'d str>,
    scopes: BTreeSet<&'d str>,
    permissions: HashSet<&'d str>,
    access: HashSet<&'d str>,
    conditions: HashSet<&'d str>,
    sets: HashSet<&'d str>,
    limits: HashSet<&'d str>,
    identities: HashSet<&'d str>,
}

pub(super) fn run<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    let document = context.document;
    // Where parts are missing because they could not be read, their uses are missing too.
    if document.damage.broken {
        return;
    }
    let uses = uses(context);

    let granting = granting(context);
    report(&document.roles, Code::P501, "role", |name| uses.roles.contains(name) || granting.contains(name), found);
    let implied = |scope: &str| {
        let below = |separator: char| {
            let prefix = format!("{scope}{separator}");
            uses.scopes.range(prefix.as_str()..).next().is_some_and(|used| used.starts_with(&prefix))
        };
        below(':') || below('.')
    };
    report(&document.scopes, Code::P501, "scope", |name| uses.scopes.contains(name) || implied(name), found);
    let granted = &context.names.granted;
    let asked = |name: &str| uses.permissions.contains(name) || granted.contains_key(name);
    report(&document.permissions, Code::P501, "permission", asked, found);
    report(&document.access, Code::P502, "access", |name| uses.access.contains(name), found);
    report(&document.conditions, Code::P502, "condition", |name| uses.conditions.contains(name), found);
    report(&document.sets, Code::P503, "set", |name| uses.sets.contains(name), found);
    report(&document.limits, Code::P503, "limit", |name| uses.limits.contains(name), found);
    report(&document.identities, Code::P504, "identity", |name| uses.identities.contains(name), found);
}

fn report<'d, T>(
    definitions: &'d [Definition<T>],
    code: Code,
    kind: &str,
    is_used: impl Fn(&'d str) -> bool,
    found: &mut Findings<'d>,
) {
    for definition in definitions {
        let Spanned { value, span } = &definition.name;
        if !is_used(value) {
            let label = if code == Code::P504 { "no test expects anything of it" } else { "nothing uses it" };
            found.about(definition, Diagnostic::new(code, format!("unused {kind} `{value}`"), *span, label));
        }
    }
}

fn uses<'d>(context: &Context<'d>) -> Uses<'d> {
    let document = context.document;
    let mut uses = Uses::default();
    written(document, &mut |_, part| match part {
        Part::Access { name, .. } => {
            uses.access.insert(&name.value);
        }
        Part::Condition(name) => {
            uses.conditions.insert(&name.value);
        }
        Part::Comparison(comparison) => match (&comparison.left, comparison.operator, &comparison.right) {
            (_, _, Operand::Set(set)) => {
                uses.sets.insert(set);
            }
            (Reference::User(fact), Operator::Contains, Operand::String(name)) => {
                match fact {
                    UserFact::Roles => uses.roles.insert(name),
                    UserFact::Scopes => uses.scopes.insert(name),
                    UserFact::Permissions => uses.permissions.insert(name),
                    _ => false,
                };
            }
            _ => {}
        },
        Part::Clause(Clause::Role(listed)) => uses.roles.extend(listed.names.iter().map(|name| name.value.as_str())),
        Part::Clause(Clause::Scope(listed)) => uses.scopes.extend(listed.names.iter().map(|name| name.value.as_str())),
        Part::Clause(Clause::Permission(listed)) => {
            uses.permissions.extend(listed.names.iter().map(|name| name.value.as_str()));
        }
        Part::Clause(_) | Part::Word(_) => {}
    });
    for role in &document.roles {
        uses.roles.extend(role.value.includes.iter().map(|name| name.value.as_str()));
        uses.scopes.extend(role.value.grants.iter().map(|name| name.value.as_str()));
    }
    let headers = document.apps.iter().flat_map(|app| &app.headers).map(|(_, header)| header);
    let limits = (document.routes.iter().flat_map(|route| &route.options.limit)).chain(headers.flat_map(|header| {
        header.defaults.limit.iter().chain(header.login.iter().flat_map(|login| &login.value.limit))
    }));
    for limit in limits {
        if let LimitUse::Named(name) = limit {
            uses.limits.insert(&name.value);
        }
    }
    for (name, _) in document.tests.iter().flat_map(|test| &test.expect) {
        uses.identities.insert(&name.value);
    }
    uses
}

/// The roles that grant something, themselves or through what they include.
fn granting<'d>(context: &Context<'d>) -> HashSet<&'d str> {
    let mut included_by: HashMap<&str, Vec<&'d str>> = HashMap::new();
    let mut open: Vec<&'d str> = vec![CONSOLE_ROLE];
    for role in &context.document.roles {
        let name = role.name.value.as_str();
        if !role.value.can.is_empty() || !role.value.grants.is_empty() {
            open.push(name);
        }
        for included in &role.value.includes {
            included_by.entry(&included.value).or_default().push(name);
        }
    }
    let mut granting = HashSet::new();
    while let Some(name) = open.pop() {
        if granting.insert(name) {
            open.extend(included_by.get(name).into_iter().flatten());
        }
    }
    granting
}
