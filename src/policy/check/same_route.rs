//! P201
//!
//! # What it does
//! Reports a template that is listed twice for one method: in one file or in two, with the same or other names of
//! parameters, in one app or in two apps on the same host. `GET` includes `HEAD`, but a route that states `HEAD` may stand beside it.
//!
//! # Why it matters
//! Both would decide, and only the order of files could say which one does.
//!
//! # Example
//! ```yaml
//! routes:
//!   GET /users/{id}: { scope: users:read }
//!   GET /users/{name}: authenticated
//! ```
//!
//! # Instead
//! Keep one. `/users/{id:int}` and `/users/{name}` may stand beside each other: the typed one wins where it matches.

use crate::diagnostic::{Code, Diagnostic};

use super::Context;
use super::findings::Findings;
use super::table::{ANY, Table, View};

pub(super) fn run<'d>(_: &Context<'d>, table: &Table<'d>, found: &mut Findings<'d>) {
    for host in table.hosts.values() {
        for group in host.groups.iter().filter(|group| group.routes.len() > 1) {
            let mut views: Vec<&View<'d>> = table.views(group).map(|(_, view)| view).collect();
            views.sort_by_key(|view| view.route.key.span);
            for (index, again) in views.iter().enumerate() {
                let mut before = views.iter().take(index);
                let conflict = before.find_map(|first| Some((first, both_serve(first, again)?)));
                if let Some((first, method)) = conflict {
                    found.between(vec![again.route.into(), first.route.into()], report(first, again, method));
                }
            }
        }
    }
}

fn both_serve<'d>(first: &View<'d>, again: &View<'d>) -> Option<&'d str> {
    if first.methods.any && again.methods.any {
        return Some("any method");
    }
    let common: Vec<&str> = first.methods.stated.intersection(&again.methods.stated).copied().collect();
    // Among several the first in the usual order.
    ANY.iter().find(|method| common.contains(method)).or_else(|| common.first()).copied()
}

fn report<'d>(first: &View<'d>, again: &View<'d>, method: &str) -> Diagnostic {
    let key = &again.route.key;
    let what = if method == "any method" { "for any method".to_owned() } else { format!("for `{method}`") };
    let mut diagnostic = Diagnostic::new(Code::P201, format!("same template twice {what}"), key.span, "again here")
        .also(first.route.key.span, "first here");
    if first.segments != again.segments {
        diagnostic = diagnostic.note("names of parameters do not tell templates apart");
    }
    diagnostic
}
