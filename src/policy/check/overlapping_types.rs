//! P204
//!
//! # What it does
//! Reports typed parameters that overlap and stand at one position after the same beginning: `{a:slug}` beside
//! `{b:int}`, `{b:uuid}` or `{b:date}`.
//!
//! # Why it matters
//! `/items/7` matches both, and nothing says which one is more specific.
//!
//! # Example
//! ```yaml
//! routes:
//!   GET /items/{id:int}: { scope: items:read }
//!   GET /items/{name:slug}: public
//! ```
//!
//! # Instead
//! Leave one of them untyped (`{name}`): typed comes before untyped.

use crate::diagnostic::{Code, Diagnostic};
use crate::policy::template::Kind;

use super::Context;
use super::findings::Findings;
use super::table::Table;

pub(super) fn run<'d>(_: &Context<'d>, table: &Table<'d>, found: &mut Findings<'d>) {
    for host in table.hosts.values() {
        for (one, first, other, second) in host.tree.overlapping_types() {
            let view = |group: usize| host.groups.get(group).and_then(|group| table.first(group));
            let (Some(first), Some(second)) = (view(first), view(second)) else { continue };
            let (first, second, one, other) = if first.route.key.span < second.route.key.span {
                (first, second, one, other)
            } else {
                (second, first, other, one)
            };
            let diagnostic = Diagnostic::new(
                Code::P204,
                format!("`{}` and `{}` overlap at one position", word(one), word(other)),
                second.route.key.span,
                format!("`{}` here", word(other)),
            )
            .also(first.route.key.span, format!("`{}` here", word(one)))
            .help("leave one of them untyped: typed comes before untyped");
            found.between(vec![second.route.into(), first.route.into()], diagnostic);
        }
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Any => "any",
        Kind::Int => "int",
        Kind::Uuid => "uuid",
        Kind::Slug => "slug",
        Kind::Date => "date",
    }
}
