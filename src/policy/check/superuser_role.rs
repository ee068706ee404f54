//! P505
//!
//! # What it does
//! Reports `role: X` where a role with `can: "*"` does not include `X`.
//!
//! # Why it matters
//! "The administrator can do everything" is about permissions. A role check asks for the role itself, and fails
//! for an administrator who does not have it.
//!
//! # Example
//! ```yaml
//! roles:
//!   editor: [items:edit]
//!   admin: { can: "*" }
//! routes:
//!   PUT /items/{id}: { role: editor }
//! ```
//!
//! # Instead
//! `admin: { includes: editor, can: "*" }`, or ask for a permission.

use crate::diagnostic::{Code, Diagnostic};
use crate::policy::document::{Definition, Join, Requirement, Role};

use super::Context;
use super::findings::{Findings, Owner};
use super::formula::{Atom, FormulaId, Formulas};
use super::table::Table;
use super::walk::{Leaf, leaves};

/// So many superuser roles are looked at.
const MOST: usize = 16;

pub(super) fn run<'d>(context: &Context<'d>, table: &mut Table<'d>, found: &mut Findings<'d>) {
    let superusers: Vec<(&'d Definition<Role>, Vec<&'d str>)> = (context.document.roles.iter())
        .filter(|role| role.value.can.iter().any(|permission| permission.value == "*"))
        .take(MOST)
        .map(|role| (role, context.names.closure(&role.name.value)))
        .collect();
    if superusers.is_empty() {
        return;
    }
    for view in &table.routes {
        let place = (view.route.into(), &view.route.requirement, view.formula);
        check(context, &superusers, &table.formulas, place, found);
    }
    for view in &table.guards {
        let Some(formula) = view.formulas.first() else { continue };
        let place = (view.guard.into(), &view.guard.value.require, *formula);
        check(context, &superusers, &table.formulas, place, found);
    }
}

fn check<'d>(
    context: &Context<'d>,
    superusers: &[(&'d Definition<Role>, Vec<&'d str>)],
    formulas: &Formulas<'d>,
    (owner, asked, formula): (Owner<'d>, &'d Requirement, FormulaId),
    found: &mut Findings<'d>,
) {
    leaves(&context.names, asked, &mut |leaf, trail| {
        let Leaf::Role(listed) = leaf else { return };
        for (role, closure) in superusers {
            let mut missing = listed.names.iter().filter(|name| !closure.contains(&name.value.as_str()));
            let Some(first) = missing.next() else { continue };
            if listed.join == Join::Any && 1 + missing.count() < listed.names.len() {
                continue;
            }
            // Whoever has everything but this role: does the requirement as a whole hold?
            let passes = formulas.holds(formula, |atom| match atom {
                Atom::Role(name) => closure.contains(name),
                _ => true,
            });
            if passes || formula == Formulas::FALSE {
                continue;
            }
            let message = format!("`{}` can do everything, but fails this role check", role.name.value);
            let diagnostic = Diagnostic::new(
                Code::P505,
                message,
                first.span,
                format!("`{}` does not include `{}`", role.name.value, first.value),
            )
            .also(role.name.span, "can: \"*\"")
            .help(format!("let `{}` include `{}`, or ask for a permission", role.name.value, first.value));
            let mut owners = vec![owner, (*role).into()];
            owners.extend(trail.last().and_then(|name| context.names.access.get(&name.value)).map(Owner::from));
            found.between(owners, diagnostic);
        }
    });
}
