//! P206
//!
//! # What it does
//! Reports a template that could be deleted without changing any answer: the broader route that would take over has
//! the same methods, the same requirement and nothing else to say, in the same app.
//!
//! # Why it matters
//! It is noise, or it was meant to differ.
//!
//! # Example
//! ```yaml
//! routes:
//!   GET /reports/**: { scope: reports:read }
//!   GET /reports/annual: { scope: reports:read }
//! ```
//!
//! # Instead
//! Delete it, or state the difference.

use std::ops::ControlFlow;

use crate::diagnostic::{Code, Diagnostic};
use crate::policy::document::{LimitUse, RouteOptions};

use super::Context;
use super::findings::Findings;
use super::table::{Group, HostTable, Table, View};

pub(super) fn run<'d>(context: &Context<'d>, table: &mut Table<'d>, found: &mut Findings<'d>) {
    let mut redundant: Vec<(usize, usize)> = Vec::new();
    let mut pairs: Vec<Vec<(usize, usize)>> = Vec::new();
    for host in table.hosts.values() {
        for group in &host.groups {
            pairs.extend(candidates(table, host, group));
        }
    }
    for pair in pairs {
        let same = pair.iter().all(|(narrow, broad)| {
            let formula = |index: &usize| table.routes.get(*index).map(|view| view.formula);
            let (Some(one), Some(other)) = (formula(narrow), formula(broad)) else { return false };
            table.formulas.same(&context.names, one, other)
        });
        if same {
            redundant.extend(pair);
        }
    }
    for (narrow, broad) in redundant {
        let (Some(narrow), Some(broad)) = (table.routes.get(narrow), table.routes.get(broad)) else { continue };
        let diagnostic = Diagnostic::new(
            Code::P206,
            format!("redundant route `{}`", narrow.route.key.value),
            narrow.route.key.span,
            "deleting it changes nothing",
        )
        .also(broad.route.key.span, "has the same methods and the same requirement");
        found.between(vec![narrow.route.into(), broad.route.into()], diagnostic);
    }
}

/// The routes of a template, each with the one that would take over; none if something else would differ.
fn candidates<'d>(table: &Table<'d>, host: &HostTable, group: &Group) -> Option<Vec<(usize, usize)>> {
    let first = table.first(group)?;
    let around = table.around(host, first);
    let (nearest, others) = around.split_first()?;
    let broad = host.groups.get(*nearest)?;
    // Where two broader templates cross, a route of its own says which one is meant (P302).
    let beyond = host.tree.containing(table.first(broad)?.wanted());
    if others.iter().any(|other| !beyond.contains(other)) {
        return None;
    }
    if table.methods(group) != table.methods(broad) {
        return None;
    }
    // A template that cuts across could take over some of the paths.
    let mut crossed = false;
    host.tree.overlapping(first.wanted(), true, &mut |_, _| {
        crossed = true;
        ControlFlow::Break(())
    });
    let pairs: Vec<(usize, usize)> = (table.views(group))
        .map(|(index, view)| {
            let method = view.methods.iter().next()?;
            let (other, over) = table.serving(broad, method)?;
            let alike = same_app(view, over)
                && view.access == over.access
                && view.methods.any == over.methods.any
                && view.methods.named == over.methods.named
                && has_nothing_else(view)
                && has_nothing_else(over);
            alike.then_some((index, other))
        })
        .collect::<Option<_>>()?;
    (!crossed).then_some(pairs)
}

fn same_app(one: &View<'_>, other: &View<'_>) -> bool {
    std::ptr::eq(one.app, other.app)
}

/// Whether the route says only who may call it. An inline limit is a bucket of its own.
fn has_nothing_else(view: &View<'_>) -> bool {
    let RouteOptions {
        limit,
        headers,
        response_headers,
        upstream,
        rewrite,
        timeout,
        max_body,
        no_retry,
        websocket,
        max_ws_age,
        on_unauthenticated,
        openapi_rewrite,
        name,
        description,
        tags,
    } = &view.route.options;
    let inline = view
        .header()
        .is_some_and(|header| header.defaults.limit.iter().any(|limit| matches!(limit, LimitUse::Inline(_))));
    !inline
        && limit.is_empty()
        && headers.is_empty()
        && response_headers.is_empty()
        && upstream.is_none()
        && rewrite.is_none()
        && timeout.is_none()
        && max_body.is_none()
        && !no_retry
        && !websocket
        && max_ws_age.is_none()
        && on_unauthenticated.is_none()
        && openapi_rewrite.is_none()
        && name.is_none()
        && description.is_none()
        && tags.is_empty()
}
