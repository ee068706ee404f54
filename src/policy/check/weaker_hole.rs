//! P311
//!
//! # What it does
//! Reports a route that grants what the tree around it refuses. A tree is a template with a tail (`…/**`) and at
//! least one literal segment of its own; a hole in an app-wide `/**` is what routes are for. Requirements are
//! compared exactly: roles with what they include, scopes with what they imply, guards counted in.
//!
//! # Why it matters
//! "Everything below `/admin` needs the role admin" is what people read and rely on. The exception may stand in
//! another file.
//!
//! # Example
//! ```yaml
//! routes:
//!   /admin/**: { role: admin }
//!   GET /admin/metrics/{name**}: public
//! ```
//!
//! # Instead
//! If the exception is meant, say why:
//! `{ access: public, allow: { P311: metrics are scraped without a login } }`.

use std::collections::BTreeMap;

use crate::diagnostic::{Code, Diagnostic, Spanned};
use crate::policy::document::{Access, Requirement};
use crate::policy::template::Segment;

use super::Context;
use super::describe;
use super::findings::Findings;
use super::formula::FormulaId;
use super::table::{Group, HostTable, Table, View, method_list};

pub(super) fn run<'d>(context: &Context<'d>, table: &mut Table<'d>, found: &mut Findings<'d>) {
    // Route, route around it → methods.
    let mut candidates: BTreeMap<(usize, usize), Vec<&'d str>> = BTreeMap::new();
    for host in table.hosts.values() {
        for group in &host.groups {
            for (inner, outer, method) in below_trees(table, host, group) {
                let methods = candidates.entry((inner, outer)).or_default();
                if !methods.contains(&method) {
                    methods.push(method);
                }
            }
        }
    }
    for ((inner, outer), methods) in candidates {
        let (Some(one), Some(tree)) = (table.routes.get(inner), table.routes.get(outer)) else { continue };
        let tree_formula = tree.formula;
        let granted = granted(table, one);
        let granted = table.formulas.all(granted);
        if table.formulas.implies(&context.names, granted, tree_formula) {
            continue;
        }
        let (Some(one), Some(tree)) = (table.routes.get(inner), table.routes.get(outer)) else { continue };
        found.between(vec![one.route.into(), tree.route.into()], report(context, one, tree, &methods));
    }
}

/// The routes of a template that serve a method which a tree around them serves too, with the nearest such tree.
fn below_trees<'d>(table: &Table<'d>, host: &HostTable, group: &Group) -> Vec<(usize, usize, &'d str)> {
    let Some(first) = table.first(group) else { return Vec::new() };
    let around: Vec<&Group> = (table.around(host, first).into_iter())
        .filter_map(|group| host.groups.get(group))
        .filter(|around| table.first(around).is_some_and(|tree| is_tree(tree, first)))
        .collect();
    let mut found = Vec::new();
    for method in table.methods(group) {
        let Some((inner, _)) = table.serving(group, method) else { continue };
        let nearest = around.iter().find_map(|tree| table.serving(tree, method));
        found.extend(nearest.map(|(outer, _)| (inner, outer, method)));
    }
    found
}

fn is_tree(tree: &View<'_>, inner: &View<'_>) -> bool {
    let segments = if std::ptr::eq(tree.app, inner.app) { &tree.route.template.segments } else { &tree.segments };
    tree.has_tail() && segments.iter().any(|segment| matches!(segment, Segment::Literal(_)))
}

/// What the route asks for, with the guards that hold for all its requests.
fn granted(table: &Table<'_>, view: &View<'_>) -> Vec<FormulaId> {
    let mut parts = vec![view.formula];
    for (index, everywhere) in &view.guards {
        let Some(guard) = table.guards.get(*index).filter(|_| *everywhere) else { continue };
        let value = &guard.guard.value;
        let applies = !value.shadow && (view.access != Access::Public || value.include_public.is_some());
        if let (true, [formula]) = (applies, guard.formulas.as_slice()) {
            parts.push(*formula);
        }
    }
    parts
}

fn report(context: &Context<'_>, one: &View<'_>, tree: &View<'_>, methods: &[&str]) -> Diagnostic {
    let shape = describe::shape(&one.segments);
    let shown =
        if one.methods.any { shape } else { format!("{} {shape}", method_list(methods.iter().copied()).join("|")) };
    let outside = describe::requirement(&context.names, &tree.route.requirement);
    let inside = describe::requirement(&context.names, &one.route.requirement);
    Diagnostic::new(
        Code::P311,
        "a more specific route is weaker than the tree around it",
        one.route.key.span,
        format!("… except {shown}, which {inside}"),
    )
    .also(tree.route.key.span, format!("everything here {outside} …"))
    .help(format!("if intended, say so: `{}`", with_reason(context, &one.route.requirement)))
}

/// The requirement as it is written, with a suppression to be filled in.
fn with_reason(context: &Context<'_>, asked: &Requirement) -> String {
    let allow = "allow: { P311: why it is weaker }";
    match asked {
        Requirement::Word(Spanned { value, .. }) => format!("{{ access: {}, {allow} }}", value.as_str()),
        Requirement::Named(Spanned { value, .. }) => format!("{{ access: {value}, {allow} }}"),
        Requirement::Object(object) => {
            let text = context.sources.text(object.span);
            match text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
                Some(inner) if !text.contains('\n') && !text.contains("allow:") => {
                    format!("{{ {}, {allow} }}", inner.trim())
                }
                _ => allow.to_owned(),
            }
        }
    }
}
