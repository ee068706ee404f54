//! P305
//!
//! # What it does
//! Reports a template that refuses methods (405) that the next broader route of the same app would serve.
//! `GET`-only public routes beside an app-wide `/**` are not reported: there, reading is all that is opened.
//!
//! # Why it matters
//! A path owns its methods and never falls through to a broader route. Otherwise, with `/**: public` and
//! `GET /admin/users: { role: admin }`, anybody could call `DELETE /admin/users`. Who thinks of the broader
//! route as a default for the other methods is surprised by 405.
//!
//! # Example
//! ```yaml
//! routes:
//!   /admin/**: admin_only
//!   GET /admin/metrics/{name**}: public
//! ```
//!
//! # Instead
//! Name the methods, if they are needed: `POST|PUT|PATCH|DELETE /admin/metrics/{name**}: admin_only`. If not:
//! `allow: { P305: nobody deletes metrics }`.

use std::collections::BTreeSet;

use crate::diagnostic::{Code, Diagnostic};
use crate::policy::document::Access;

use super::Context;
use super::describe::written;
use super::findings::{Findings, Owner};
use super::table::{Group, HostTable, Table, View, method_list};

pub(super) fn run<'d>(context: &Context<'d>, table: &mut Table<'d>, found: &mut Findings<'d>) {
    for host in table.hosts.values() {
        for group in &host.groups {
            report(context, table, host, group, found);
        }
    }
}

fn report<'d>(
    context: &Context<'d>,
    table: &Table<'d>,
    host: &HostTable,
    group: &Group,
    found: &mut Findings<'d>,
) -> Option<()> {
    let first = table.first(group)?;
    let broad = host.groups.get(*table.around(host, first).first()?)?;
    let own = table.methods(group);
    let refused: BTreeSet<&str> = table.methods(broad).difference(&own).copied().collect();
    let (_, serving) = table.serving(broad, refused.first()?)?;
    if !std::ptr::eq(first.app, serving.app) || only_reading_opened(table, group, serving) {
        return None;
    }
    // `OPTIONS` is asked for by browsers, not by people.
    let needed = method_list(refused.iter().copied().filter(|method| *method != "OPTIONS"));
    if needed.is_empty() {
        return None;
    }
    let listed = method_list(own.iter().copied());
    let mut diagnostic = Diagnostic::new(
        Code::P305,
        "methods refused (405) that a broader route would serve",
        first.route.key.span,
        format!("owns its paths, and lists only {}", listed.join(", ")),
    );
    let mut owners: Vec<Owner<'d>> = table.views(group).map(|(_, view)| view.route.into()).collect();
    // Each of the broader routes with the methods that it would serve, in alphabetical order.
    let mut keys = Vec::new();
    for (_, view) in table.views(broad) {
        let served = |method: &&str| table.serving(broad, method).is_some_and(|(_, by)| std::ptr::eq(by, view));
        let methods: Vec<&str> = refused.iter().copied().filter(served).collect();
        if methods.is_empty() {
            continue;
        }
        owners.push(view.route.into());
        diagnostic = diagnostic.also(view.route.key.span, format!("would serve {}", methods.join(", ")));
        let needed = method_list(methods.into_iter().filter(|method| *method != "OPTIONS"));
        let requirement = written(context.sources, view.route);
        if !needed.is_empty() && !requirement.contains('\n') {
            keys.push(format!("`{} {}: {requirement}`", needed.join("|"), first.route.template.text));
        }
    }
    if !keys.is_empty() {
        diagnostic = diagnostic.help(format!("if they are needed, add: {}", keys.join(" and ")));
    }
    found.between(owners, diagnostic);
    Some(())
}

fn only_reading_opened(table: &Table<'_>, group: &Group, broad: &View<'_>) -> bool {
    broad.is_app_wide()
        && broad.methods.any
        && table.views(group).all(|(_, view)| {
            view.access == Access::Public
                && !view.methods.any
                && view.methods.named.iter().all(|method| matches!(*method, "GET" | "HEAD"))
        })
}
