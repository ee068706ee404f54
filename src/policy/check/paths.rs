//! Templates beside each other: who contains whom, who overlaps, who wins.
//!
//! The relations of two templates are `specificity`'s. A [`Tree`] finds those that a template has relations with,
//! without comparing it with every other one.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::policy::specificity::{kind_contains, kind_matches};
use crate::policy::template::{Kind, Segment};

use super::budget::Budget;

/// Templates by their segments, each with a number.
pub(super) struct Tree {
    nodes: Vec<Node>,
    budget: Budget,
}

#[derive(Default)]
struct Node {
    exact: BTreeMap<Box<str>, usize>,
    /// Literals of apps that fold case, in lower case.
    folded: BTreeMap<Box<str>, usize>,
    parameters: BTreeMap<Kind, usize>,
    end: Option<usize>,
    tail: Option<usize>,
}

/// How a template lies to another one that it overlaps.
#[derive(Clone, Copy, Default)]
pub(super) struct Relation {
    /// It has paths that the other lacks.
    pub(super) wider: bool,
    /// The other has paths that it lacks.
    pub(super) narrower: bool,
}

impl Relation {
    pub(super) fn is_partial(self) -> bool {
        self.wider && self.narrower
    }
}

/// A template that is looked for: its segments and whether its literals fold case.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'t> {
    pub(super) segments: &'t [Segment],
    pub(super) fold: bool,
}

impl Tree {
    pub(super) fn new(budget: &Budget) -> Self {
        Self { nodes: Vec::new(), budget: budget.clone() }
    }

    /// The number of a template: `next`, if it is new.
    pub(super) fn insert(&mut self, wanted: Wanted<'_>, next: usize) -> usize {
        let mut at = 0;
        self.grow(at);
        for segment in wanted.segments {
            let new = self.nodes.len();
            let Some(node) = self.nodes.get_mut(at) else { return next };
            at = match segment {
                Segment::Literal(text) if wanted.fold => {
                    *node.folded.entry(text.to_ascii_lowercase().into()).or_insert(new)
                }
                Segment::Literal(text) => *node.exact.entry(text.as_str().into()).or_insert(new),
                Segment::Parameter { kind, .. } => *node.parameters.entry(*kind).or_insert(new),
                Segment::Tail { .. } => return *node.tail.get_or_insert(next),
            };
            self.grow(at);
        }
        self.nodes.get_mut(at).map_or(next, |node| *node.end.get_or_insert(next))
    }

    fn grow(&mut self, at: usize) {
        if at == self.nodes.len() {
            self.nodes.push(Node::default());
        }
    }

    /// The most specific template that matches a path.
    pub(super) fn find(&self, path: &[String]) -> Option<usize> {
        self.search(0, path)
    }

    fn search(&self, at: usize, path: &[String]) -> Option<usize> {
        let node = self.nodes.get(at).filter(|_| self.budget.spend(1))?;
        let Some((segment, rest)) = path.split_first() else { return node.end.or(node.tail) };
        let exact = node.exact.get(segment.as_str()).and_then(|child| self.search(*child, rest));
        let folded = || {
            let lower = segment.to_ascii_lowercase();
            node.folded.get(lower.as_str()).and_then(|child| self.search(*child, rest))
        };
        let parameter = || {
            // Typed ones first, `{any}` last.
            let typed = node.parameters.iter().rev().filter(|(kind, _)| **kind != Kind::Any);
            let any = node.parameters.iter().filter(|(kind, _)| **kind == Kind::Any);
            let mut children = typed.chain(any).filter(|(kind, _)| kind_matches(**kind, segment));
            children.find_map(|(_, child)| self.search(*child, rest))
        };
        exact.or_else(folded).or_else(parameter).or(node.tail)
    }

    /// Visits every template that has a path in common with the wanted one. With `partial`, only those of which
    /// neither contains the other.
    pub(super) fn overlapping(
        &self,
        wanted: Wanted<'_>,
        partial: bool,
        visit: &mut dyn FnMut(usize, Relation) -> ControlFlow<()>,
    ) {
        let _ = self.walk(0, wanted, Relation::default(), partial, visit);
    }

    fn walk(
        &self,
        at: usize,
        wanted: Wanted<'_>,
        so_far: Relation,
        partial: bool,
        visit: &mut dyn FnMut(usize, Relation) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Some(node) = self.nodes.get(at).filter(|_| self.budget.spend(1)) else {
            return ControlFlow::Continue(());
        };
        let mut report = |value: Option<usize>, relation: Relation| match value {
            Some(value) if !partial || relation.is_partial() => visit(value, relation),
            _ => ControlFlow::Continue(()),
        };
        let wider = Relation { wider: true, ..so_far };
        let narrower = Relation { narrower: true, ..so_far };
        let Some((segment, rest)) = wanted.segments.split_first() else {
            report(node.end, so_far)?;
            return report(node.tail, wider);
        };
        if let Segment::Tail { .. } = segment {
            report(node.tail, so_far)?;
            if partial && !so_far.wider {
                // Everything below is contained.
                return ControlFlow::Continue(());
            }
            report(node.end, narrower)?;
            let children = node.exact.values().chain(node.folded.values()).chain(node.parameters.values());
            for child in children {
                self.walk(*child, wanted, narrower, partial, visit)?;
            }
            return ControlFlow::Continue(());
        }
        report(node.tail, wider)?;
        let rest = Wanted { segments: rest, ..wanted };
        match segment {
            Segment::Literal(text) => {
                let lower = text.to_ascii_lowercase();
                if wanted.fold {
                    let exact = node.exact.iter().filter(|(literal, _)| literal.eq_ignore_ascii_case(text));
                    for (_, child) in exact {
                        self.walk(*child, rest, narrower, partial, visit)?;
                    }
                    if let Some(child) = node.folded.get(lower.as_str()) {
                        self.walk(*child, rest, so_far, partial, visit)?;
                    }
                } else {
                    if let Some(child) = node.exact.get(text.as_str()) {
                        self.walk(*child, rest, so_far, partial, visit)?;
                    }
                    if let Some(child) = node.folded.get(lower.as_str()) {
                        self.walk(*child, rest, wider, partial, visit)?;
                    }
                }
                for (_, child) in node.parameters.iter().filter(|(kind, _)| kind_matches(**kind, text)) {
                    self.walk(*child, rest, wider, partial, visit)?;
                }
            }
            Segment::Parameter { kind, .. } => {
                for (text, child) in node.exact.iter().chain(&node.folded) {
                    if kind_matches(*kind, text) {
                        self.walk(*child, rest, narrower, partial, visit)?;
                    }
                }
                for (other, child) in &node.parameters {
                    let relation = if other == kind {
                        so_far
                    } else if kind_contains(*other, *kind) {
                        wider
                    } else if kind_contains(*kind, *other) {
                        narrower
                    } else {
                        continue;
                    };
                    self.walk(*child, rest, relation, partial, visit)?;
                }
            }
            Segment::Tail { .. } => {}
        }
        ControlFlow::Continue(())
    }

    /// The templates that contain the wanted one, itself left out.
    pub(super) fn containing(&self, wanted: Wanted<'_>) -> Vec<usize> {
        let mut found = Vec::new();
        self.upwards(0, wanted, false, &mut found);
        found
    }

    fn upwards(&self, at: usize, wanted: Wanted<'_>, wider: bool, found: &mut Vec<usize>) {
        let Some(node) = self.nodes.get(at).filter(|_| self.budget.spend(1)) else { return };
        let Some((segment, rest)) = wanted.segments.split_first() else {
            found.extend(node.end.filter(|_| wider));
            found.extend(node.tail);
            return;
        };
        let rest = Wanted { segments: rest, ..wanted };
        match segment {
            Segment::Tail { .. } => {
                found.extend(node.tail.filter(|_| wider));
                return;
            }
            Segment::Literal(text) => {
                if let Some(child) = node.exact.get(text.as_str()).filter(|_| !wanted.fold) {
                    self.upwards(*child, rest, wider, found);
                }
                if let Some(child) = node.folded.get(text.to_ascii_lowercase().as_str()) {
                    self.upwards(*child, rest, wider || !wanted.fold, found);
                }
                for (_, child) in node.parameters.iter().filter(|(kind, _)| kind_matches(**kind, text)) {
                    self.upwards(*child, rest, true, found);
                }
            }
            Segment::Parameter { kind, .. } => {
                for (other, child) in node.parameters.iter().filter(|(other, _)| kind_contains(**other, *kind)) {
                    self.upwards(*child, rest, wider || other != kind, found);
                }
            }
        }
        found.extend(node.tail);
    }

    /// The typed parameters that stand at one position and overlap, as pairs of a template of each.
    pub(super) fn overlapping_types(&self) -> Vec<(Kind, usize, Kind, usize)> {
        let mut found = Vec::new();
        for node in &self.nodes {
            let typed: Vec<(Kind, usize)> = (node.parameters.iter())
                .filter(|(kind, _)| **kind != Kind::Any)
                .filter_map(|(kind, child)| Some((*kind, self.any_below(*child)?)))
                .collect();
            for (index, (one, first)) in typed.iter().enumerate() {
                for (other, second) in typed.iter().skip(index + 1) {
                    if kind_contains(*one, *other) || kind_contains(*other, *one) {
                        found.push((*one, *first, *other, *second));
                    }
                }
            }
        }
        found
    }

    /// The first template that was added at or below a node.
    fn any_below(&self, at: usize) -> Option<usize> {
        let mut best: Option<usize> = None;
        let mut open = vec![at];
        while let Some(node) = open.pop().and_then(|at| self.nodes.get(at)) {
            best = [best, node.end, node.tail].into_iter().flatten().min();
            open.extend(node.exact.values().chain(node.folded.values()).chain(node.parameters.values()));
        }
        best
    }

    /// Templates with a tail whose paths are all taken: their beginning, and everything below it.
    pub(super) fn taken_tails(&self) -> Vec<(usize, usize)> {
        (self.nodes.iter())
            .filter_map(|node| Some((node.tail?, node.end?, *node.parameters.get(&Kind::Any)?)))
            .filter_map(|(tail, end, below)| self.takes_everything(below).then_some((tail, end)))
            .collect()
    }

    fn takes_everything(&self, at: usize) -> bool {
        let mut at = at;
        // INVARIANT: children have larger numbers than their parents, so this ends.
        loop {
            let Some(node) = self.nodes.get(at) else { return false };
            match (node.tail, node.end, node.parameters.get(&Kind::Any)) {
                (Some(_), ..) => return true,
                (None, Some(_), Some(below)) => at = *below,
                _ => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ops::ControlFlow;

    use super::*;
    use crate::policy::specificity::{contains, matches, more_specific, overlaps, same_shape};

    /// Every template of up to three segments out of a few kinds.
    fn templates() -> Vec<Vec<Segment>> {
        let parameter = |kind| Segment::Parameter { name: None, kind };
        let kinds = [
            Segment::Literal("a".into()),
            Segment::Literal("7".into()),
            parameter(Kind::Int),
            parameter(Kind::Slug),
            parameter(Kind::Any),
        ];
        let mut all: Vec<Vec<Segment>> = vec![vec![]];
        let mut longest = all.clone();
        for _ in 0..3 {
            longest = longest
                .iter()
                .flat_map(|start| kinds.iter().map(|kind| [&start[..], std::slice::from_ref(kind)].concat()))
                .collect();
            all.extend(longest.clone());
        }
        let tails = all
            .iter()
            .filter(|start| start.len() < 3)
            .map(|start| [&start[..], &[Segment::Tail { name: None }]].concat());
        all.extend(tails.collect::<Vec<_>>());
        all
    }

    fn tree(templates: &[Vec<Segment>]) -> Tree {
        let mut tree = Tree::new(&Budget::default());
        for (index, segments) in templates.iter().enumerate() {
            assert_eq!(tree.insert(Wanted { segments, fold: false }, index), index);
        }
        tree
    }

    #[test]
    fn walks_find_what_comparing_each_pair_finds() {
        let templates = templates();
        let tree = tree(&templates);
        for segments in &templates {
            let wanted = Wanted { segments, fold: false };
            let where_pair = |holds: &dyn Fn(&[Segment]) -> bool| -> BTreeSet<usize> {
                (0..templates.len()).filter(|other| holds(&templates[*other])).collect()
            };

            let around: BTreeSet<usize> = tree.containing(wanted).into_iter().collect();
            assert_eq!(around, where_pair(&|other| contains(other, segments) && !same_shape(other, segments)));

            for partial in [false, true] {
                let mut met = BTreeSet::new();
                tree.overlapping(wanted, partial, &mut |other, relation| {
                    met.insert(other);
                    let (one, other) = (segments, &templates[other]);
                    assert_eq!(relation.wider, !contains(one, other), "{one:?} {other:?}");
                    assert_eq!(relation.narrower, !contains(other, one), "{one:?} {other:?}");
                    ControlFlow::Continue(())
                });
                let crosses =
                    |other: &[Segment]| !partial || (!contains(other, segments) && !contains(segments, other));
                assert_eq!(met, where_pair(&|other| overlaps(other, segments) && crosses(other)), "{segments:?}");
            }
        }
    }

    #[test]
    fn the_winner_is_the_most_specific_match() {
        // Without `slug`: it overlaps `int`, which P204 refuses.
        let mut templates = templates();
        templates.retain(|segments| {
            !segments.iter().any(|segment| matches!(segment, Segment::Parameter { kind: Kind::Slug, .. }))
        });
        let tree = tree(&templates);
        let words = ["a", "7", "8", "x", ""];
        let mut paths: Vec<Vec<String>> = vec![vec![]];
        let mut longest = paths.clone();
        for _ in 0..4 {
            longest =
                longest.iter().flat_map(|start| words.map(|word| [&start[..], &[word.to_owned()]].concat())).collect();
            paths.extend(longest.clone());
        }
        for path in paths {
            let matching = (0..templates.len()).filter(|at| matches(&templates[*at], path.iter().map(String::as_str)));
            let best = matching.reduce(|a, b| if more_specific(&templates[b], &templates[a]) { b } else { a });
            assert_eq!(tree.find(&path), best, "{path:?}");
        }
    }
}
