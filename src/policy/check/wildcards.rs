//! P108
//!
//! # What it does
//! Reports `*` where one name is required: in what a route or guard asks for, in catalogues, in `grants` and
//! `includes`, and anywhere in `can` but alone or as the last part (`project:*`).
//!
//! # Why it matters
//! `permission: project:*` could mean any of them or all of them. Only a grant can be wide.
//!
//! # Example
//! ```yaml
//! routes:
//!   DELETE /projects/{id}: { permission: project:* }
//! ```
//!
//! # Instead
//! Name the permission that the route needs, or list several with `{ any: […] }` or `{ all: […] }`.

use crate::diagnostic::{Code, Diagnostic, Spanned};
use crate::policy::document::Clause;

use super::Context;
use super::findings::{Findings, Owner};
use super::walk::{Part, written};

pub(super) fn run<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    let names = &context.names;
    written(context.document, &mut |site, part| {
        let Part::Clause(clause) = part else { return };
        let (kind, listed) = match clause {
            Clause::Scope(listed) => ("scope", listed),
            Clause::Permission(listed) => ("permission", listed),
            Clause::Role(listed) => ("role", listed),
            Clause::Issuer(listed) => ("issuer", listed),
            _ => return,
        };
        for name in &listed.names {
            let wild = match kind {
                // Role names may contain any printable character.
                "role" | "issuer" => name.value == "*" && !names.roles.contains("*"),
                _ => name.value.contains('*'),
            };
            if wild {
                report(site.owner(), name, &format!("a requirement asks for one {kind}"), found);
            }
        }
    });
    for role in &context.document.roles {
        for scope in role.value.grants.iter().filter(|scope| scope.value.contains('*')) {
            report(role.into(), scope, "`grants` lists scopes one by one; `items` implies `items:read`", found);
        }
        for include in role.value.includes.iter().filter(|include| include.value == "*" && !names.roles.contains("*")) {
            report(role.into(), include, "`includes` lists roles one by one", found);
        }
        for permission in &role.value.can {
            let stem = permission.value.strip_suffix('*').unwrap_or(&permission.value);
            let alone = stem.is_empty() || stem.ends_with(':') || stem == permission.value;
            if stem.contains('*') || !alone {
                report(role.into(), permission, "in `can`, `*` stands alone or after the last colon", found);
            }
        }
    }
    for (fragment, name) in (context.document.scopes.iter().chain(&context.document.permissions))
        .map(|entry| (entry.fragment, &entry.name))
        .filter(|(_, name)| name.value.contains('*'))
    {
        report(Owner::of_fragment(fragment), name, "a catalogue lists names one by one", found);
    }
}

fn report<'d>(owner: Owner<'d>, name: &Spanned<String>, label: &str, found: &mut Findings<'d>) {
    found.about(owner, Diagnostic::new(Code::P108, format!("wildcard `{}`", name.value), name.span, label));
}
