//! P103, P104
//!
//! # What it does
//! Reports roles that include themselves through others (P103), and requirements or conditions that refer to
//! themselves, or that are nested by name more than 30 deep (P104).
//!
//! # Why it matters
//! A cycle has no meaning: there is nothing that it finally asks for.
//!
//! # Example
//! ```yaml
//! roles:
//!   editor: { includes: admin }
//!   admin: { includes: editor, can: "*" }
//! ```
//!
//! # Instead
//! Let the higher role include the lower one, and only that way round.

use std::collections::{BTreeMap, HashMap};

use crate::diagnostic::{Code, Diagnostic, Spanned};
use crate::policy::document::Definition;

use super::Context;
use super::findings::{Findings, Owner};
use super::walk::{self, Part};

/// How deep names may refer to names. Nothing follows them further.
pub(super) const DEPTH: usize = 30;

pub(super) fn run<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    let document = context.document;
    let roles = graph(&document.roles, |role, edges| edges.extend(&role.includes));
    roles.report(Code::P103, "role", "includes", found);
    let access = graph(&document.access, |asked, edges| {
        walk::requirement(asked, false, &mut |part| {
            if let Part::Access { name, .. } = part {
                edges.push(name);
            }
        });
    });
    access.report(Code::P104, "access", "refers to", found);
    let conditions = graph(&document.conditions, |asked, edges| {
        walk::condition(asked, &mut |part| {
            if let Part::Condition(name) = part {
                edges.push(name);
            }
        });
    });
    conditions.report(Code::P104, "condition", "refers to", found);
}

struct Graph<'d> {
    nodes: BTreeMap<&'d str, (Owner<'d>, Vec<&'d Spanned<String>>)>,
    order: Vec<&'d Spanned<String>>,
}

fn graph<'d, T>(definitions: &'d [Definition<T>], edges: impl Fn(&'d T, &mut Vec<&'d Spanned<String>>)) -> Graph<'d> {
    let mut nodes = BTreeMap::new();
    let mut order = Vec::new();
    for definition in definitions {
        nodes.entry(definition.name.value.as_str()).or_insert_with(|| {
            order.push(&definition.name);
            let mut list = Vec::new();
            edges(&definition.value, &mut list);
            (definition.into(), list)
        });
    }
    Graph { nodes, order }
}

#[derive(Clone, Copy, PartialEq)]
enum Visit {
    Open,
    /// Finished, with the length of the longest way from here.
    Done(usize),
}

impl<'d> Graph<'d> {
    /// A depth-first search with its own stack: chains may be longer than ours.
    fn report(&self, code: Code, kind: &str, verb: &str, found: &mut Findings<'d>) {
        let mut state: HashMap<&'d str, Visit> = HashMap::new();
        for start in &self.order {
            if state.contains_key(start.value.as_str()) {
                continue;
            }
            state.insert(&start.value, Visit::Open);
            // Each entry: a node, how many of its edges are done, and the longest way below it so far.
            let mut stack: Vec<(&'d str, usize, usize)> = vec![(&start.value, 0, 0)];
            while let Some((name, done, longest)) = stack.pop() {
                let edges = self.nodes.get(name).map_or(&[][..], |(_, edges)| edges);
                let Some(edge) = edges.get(done) else {
                    state.insert(name, Visit::Done(longest));
                    if longest == DEPTH + 1 {
                        self.too_deep(code, kind, name, found);
                    }
                    if let Some((_, _, above)) = stack.last_mut() {
                        *above = (*above).max(longest + 1);
                    }
                    continue;
                };
                match state.get(edge.value.as_str()) {
                    Some(Visit::Open) => {
                        let from = stack.iter().position(|(open, _, _)| *open == edge.value).unwrap_or(stack.len());
                        let mut cycle: Vec<&str> = stack.iter().skip(from).map(|(open, _, _)| *open).collect();
                        cycle.push(name);
                        self.cycle(code, kind, verb, &cycle, found);
                        stack.push((name, done + 1, longest));
                    }
                    Some(Visit::Done(below)) => stack.push((name, done + 1, longest.max(below + 1))),
                    None => {
                        stack.push((name, done + 1, longest));
                        if let Some((known, _)) = self.nodes.get_key_value(edge.value.as_str()) {
                            state.insert(known, Visit::Open);
                            stack.push((known, 0, 0));
                        }
                    }
                }
            }
        }
    }

    fn cycle(&self, code: Code, kind: &str, verb: &str, cycle: &[&str], found: &mut Findings<'d>) {
        // Each step of the cycle with the place where it is written.
        let steps: Vec<(&str, &Spanned<String>)> = (cycle.iter().zip(cycle.iter().cycle().skip(1)))
            .filter_map(|(from, to)| {
                let (_, edges) = self.nodes.get(from)?;
                Some((*from, *edges.iter().find(|edge| edge.value == **to)?))
            })
            .collect();
        // Told from the step that stands first, so that the order of the search does not show.
        let Some(first) = (0..steps.len()).min_by_key(|at| steps.get(*at).map(|(_, edge)| edge.span)) else { return };
        let mut steps = steps.iter().cycle().skip(first).take(steps.len());
        let Some((from, edge)) = steps.next() else { return };
        let mut diagnostic = Diagnostic::new(
            code,
            format!("{kind} cycle through `{}`", cycle.iter().min().unwrap_or(from)),
            edge.span,
            format!("`{from}` {verb} `{}`", edge.value),
        );
        for (from, edge) in steps {
            diagnostic = diagnostic.also(edge.span, format!("`{from}` {verb} `{}`", edge.value));
        }
        if let Some((owner, _)) = self.nodes.get(from) {
            found.about(*owner, diagnostic);
        }
    }

    fn too_deep(&self, code: Code, kind: &str, name: &str, found: &mut Findings<'d>) {
        let Some(place) = self.order.iter().find(|place| place.value == name) else { return };
        let Some((owner, _)) = self.nodes.get(name) else { return };
        let message = format!("{kind} `{name}` is nested more than {DEPTH} deep");
        found.about(
            *owner,
            Diagnostic::new(code, message, place.span, "refers to names that refer to names, and so on"),
        );
    }
}
