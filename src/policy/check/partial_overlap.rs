//! P302
//!
//! # What it does
//! Reports two templates of which neither contains the other, that share paths and methods, and that ask for
//! different things. It names a path of both and the one that decides there. Nothing is reported if a route for
//! exactly these paths exists, nor if all they share is the root of the more specific tree (`/admin` of `/admin/**`
//! beside `/{page}`): a tree owns its root.
//!
//! # Why it matters
//! The rule is fixed (from the left, the more specific segment wins), but whoever wrote the second route
//! probably did not think of the first.
//!
//! # Example
//! ```yaml
//! routes:
//!   GET /users/me/{section}: authenticated
//!   GET /users/{id}/settings: { role: admin }
//! ```
//!
//! # Instead
//! Say what the common paths need: `GET /users/me/settings: authenticated`.

use std::ops::ControlFlow;

use crate::diagnostic::{Code, Diagnostic, Edit, Fix, Span};
use crate::policy::specificity::{contains, kind_contains, more_specific, render, same_segment, witness};
use crate::policy::template::Segment;

use super::Context;
use super::describe;
use super::findings::Findings;
use super::table::{HostTable, Table, View, method_list};

/// Of a template that crosses more than this many others, the first are enough.
const MOST_OF_ONE: usize = 256;
/// Nobody reads more findings.
const MOST: usize = 2000;

pub(super) fn run<'d>(context: &Context<'d>, table: &mut Table<'d>, found: &mut Findings<'d>) {
    let mut crossings: Vec<Crossing<'d>> = Vec::new();
    for host in table.hosts.values() {
        for (index, group) in host.groups.iter().enumerate() {
            let Some(first) = table.first(group) else { continue };
            let mut met = 0;
            host.tree.overlapping(first.wanted(), true, &mut |other, _| {
                met += 1;
                crossings.extend(crossing(table, host, index, other));
                if met < MOST_OF_ONE && crossings.len() < MOST {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            });
        }
    }
    for crossing in crossings {
        let Crossing { pairs, path } = crossing;
        let differing: Vec<(usize, usize, &str)> = (pairs.into_iter())
            .filter(|(winner, loser, _)| {
                let (Some(one), Some(other)) = (table.routes.get(*winner), table.routes.get(*loser)) else {
                    return false;
                };
                let (one_formula, other_formula) = (one.formula, other.formula);
                one.access != other.access || !table.formulas.same(&context.names, one_formula, other_formula)
            })
            .collect();
        let Some((winner, loser, _)) = differing.first().copied() else { continue };
        let (Some(winner), Some(loser)) = (table.routes.get(winner), table.routes.get(loser)) else { continue };
        let methods = method_list(differing.iter().map(|(_, _, method)| *method));
        let shown = if winner.methods.any && loser.methods.any {
            path.clone()
        } else {
            format!("{} {path}", methods.join("|"))
        };
        let mut diagnostic = Diagnostic::new(
            Code::P302,
            "partial overlap with different requirements",
            winner.route.key.span,
            format!("decides `{shown}`: {}", describe::requirement(&context.names, &winner.route.requirement)),
        )
        .also(
            loser.route.key.span,
            format!("would match it too: {}", describe::requirement(&context.names, &loser.route.requirement)),
        )
        .note("from the left, the more specific segment wins");
        diagnostic = explicit_route(context, winner, loser, &methods, diagnostic);
        found.between(vec![winner.route.into(), loser.route.into()], diagnostic);
    }
}

/// Two templates that cross: the routes that serve a common method (winner, loser), and a common path.
struct Crossing<'d> {
    pairs: Vec<(usize, usize, &'d str)>,
    path: String,
}

fn crossing<'d>(table: &Table<'d>, host: &HostTable, one: usize, other: usize) -> Option<Crossing<'d>> {
    let (winner, loser) = (host.groups.get(one)?, host.groups.get(other)?);
    let (first, second) = (table.first(winner)?, table.first(loser)?);
    // Each pair is met from both sides.
    if !more_specific(&first.segments, &second.segments) {
        return None;
    }
    if shares_only_the_root(&first.segments, &second.segments) {
        return None;
    }
    let path = witness(&first.segments, &second.segments)?;
    if host.tree.find(&path) != Some(one) {
        return None;
    }
    let methods = table.methods(winner);
    let pairs: Vec<(usize, usize, &'d str)> = (table.methods(loser).intersection(&methods))
        .filter_map(|method| {
            let (one, by) = table.serving(winner, method)?;
            let (other, instead) = table.serving(loser, method)?;
            (by.formula != instead.formula || by.access != instead.access).then_some((one, other, *method))
        })
        .collect();
    (!pairs.is_empty()).then(|| Crossing { pairs, path: format!("/{}", path.join("/")) })
}

/// Whether the only common path is the one at which the tail of `tree` matches nothing.
fn shares_only_the_root(tree: &[Segment], other: &[Segment]) -> bool {
    match tree.split_last() {
        Some((Segment::Tail { .. }, root)) => root.len() == other.len() && contains(other, root),
        _ => false,
    }
}

/// Offers the route for the common paths, with what decides there now.
fn explicit_route(
    context: &Context<'_>,
    winner: &View<'_>,
    loser: &View<'_>,
    methods: &[&str],
    diagnostic: Diagnostic,
) -> Diagnostic {
    let base = winner.header().and_then(|header| header.base.as_ref()).map_or(&[][..], |base| &base.segments);
    let Some(common) = common(&winner.segments, &loser.segments) else { return diagnostic };
    let within_base =
        common.len() >= base.len() && common.iter().zip(base).all(|(one, other)| same_segment(one, other));
    let requirement = describe::written(context.sources, winner.route);
    if !within_base || requirement.is_empty() || requirement.contains('\n') || !winner.route.allow.is_empty() {
        return diagnostic.help("say what the common paths need with a route of their own");
    }
    let path = render(common.get(base.len()..).unwrap_or_default());
    let key = if winner.methods.any && loser.methods.any { path } else { format!("{} {path}", methods.join("|")) };
    let line = format!("{key}: {requirement}");
    let Some((at, indent)) = line_end(context, winner.route.key.span, winner.route.requirement.span()) else {
        return diagnostic.help(format!("say it with a route of its own: `{line}`"));
    };
    let mut diagnostic = diagnostic;
    diagnostic.fixes.push(Fix {
        title: "say what the common paths need with a route of their own".to_owned(),
        edits: vec![Edit { span: at, text: format!("\n{indent}{line}") }],
    });
    diagnostic
}

/// The template of the paths that match both.
fn common(winner: &[Segment], loser: &[Segment]) -> Option<Vec<Segment>> {
    let mut common = Vec::new();
    let (mut one, mut other) = (winner.iter(), loser.iter());
    loop {
        let (left, right) = (one.next(), other.next());
        match (left, right) {
            (None, None) | (None, Some(Segment::Tail { .. })) | (Some(Segment::Tail { .. }), None) => {
                return Some(common);
            }
            (Some(Segment::Tail { .. }), Some(_)) => {
                common.extend(right.into_iter().chain(other).cloned());
                return Some(common);
            }
            (Some(_), Some(Segment::Tail { .. })) => {
                common.extend(left.into_iter().chain(one).cloned());
                return Some(common);
            }
            (Some(literal @ Segment::Literal(_)), Some(_)) | (Some(_), Some(literal @ Segment::Literal(_))) => {
                common.push(literal.clone());
            }
            (Some(left @ Segment::Parameter { kind, .. }), Some(right @ Segment::Parameter { kind: other, .. })) => {
                common.push(if kind_contains(*kind, *other) && kind != other { right } else { left }.clone());
            }
            (None, Some(_)) | (Some(_), None) => return None,
        }
    }
}

/// The end of the line that the route stands on, and the line's indentation, if the key is the first thing on it.
fn line_end(context: &Context<'_>, key: Span, value: Span) -> Option<(Span, String)> {
    let text = &context.sources.get(key.file)?.text;
    let before = text.get(..key.start as usize)?;
    let indent = before.rsplit('\n').next()?;
    if key.file != value.file || value.start < key.start || !indent.chars().all(|letter| letter == ' ') {
        return None;
    }
    let after = text.get(value.end as usize..)?;
    let rest = after.split('\n').next()?.trim_end_matches('\r');
    let at = u32::try_from(value.end as usize + rest.len()).ok()?;
    Some((Span { start: at, end: at, ..key }, indent.to_owned()))
}
