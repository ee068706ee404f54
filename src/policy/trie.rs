//! The table of templates of one host.
//!
//! Each node is a position in the path. A look-up walks exact literal → folded literal → typed parameter →
//! parameter → tail **with backtracking**, which finds exactly the template that
//! [`specificity`](super::specificity) calls the winner. A node is visited at most once for each look-up, so the
//! work is bounded by the number of nodes.
//!
//! A literal of an app with `case: insensitive` is a wider thing than the same literal of another app on that
//! host, and therefore comes after it.

use std::collections::HashMap;

use super::specificity::kind_matches;
use super::template::{Kind, Segment};

/// Templates with a value of type `T` each.
#[derive(Clone, Debug)]
pub struct Trie<T> {
    nodes: Vec<Node>,
    values: Vec<T>,
    /// All-literal templates by their path without leading and trailing slash. INVARIANT: only templates whose
    /// literals are exact and hold neither `/` nor `%`, so that a path without `%` is looked up as it stands.
    literal: HashMap<Box<str>, usize>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    exact: HashMap<Box<str>, usize>,
    folded: HashMap<Box<str>, usize>,
    typed: Vec<(Kind, usize)>,
    any: Option<usize>,
    /// The value of a template that ends here.
    end: Option<usize>,
    /// The value of a template whose tail begins here.
    tail: Option<usize>,
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self { nodes: vec![Node::default()], values: Vec::new(), literal: HashMap::new() }
    }
}

impl<T> Trie<T> {
    /// The value at a template, made by `new` if it is not there yet. `fold` says that the literals are
    /// compared without ASCII case. Templates of the same shape share one value.
    pub fn entry(&mut self, template: &[Segment], fold: bool, new: impl FnOnce() -> T) -> Option<&mut T> {
        let mut at = 0;
        let mut is_tail = false;
        for segment in template {
            at = match segment {
                Segment::Tail { .. } => {
                    is_tail = true;
                    break;
                }
                Segment::Literal(text) => self.literal_child(at, text, fold)?,
                Segment::Parameter { kind, .. } => self.parameter_child(at, *kind)?,
            };
        }
        let next = self.values.len();
        let node = self.nodes.get_mut(at)?;
        let slot = if is_tail { &mut node.tail } else { &mut node.end };
        let value = *slot.get_or_insert(next);
        if value == next {
            self.values.push(new());
            if let Some(key) = literal_key(template).filter(|_| !fold && !is_tail) {
                self.literal.insert(key, value);
            }
        }
        self.values.get_mut(value)
    }

    fn literal_child(&mut self, at: usize, text: &str, fold: bool) -> Option<usize> {
        let next = self.nodes.len();
        let node = self.nodes.get_mut(at)?;
        let child = if fold {
            *node.folded.entry(text.to_ascii_lowercase().into()).or_insert(next)
        } else {
            *node.exact.entry(text.into()).or_insert(next)
        };
        self.add_if_new(child, next);
        Some(child)
    }

    fn parameter_child(&mut self, at: usize, kind: Kind) -> Option<usize> {
        let next = self.nodes.len();
        let node = self.nodes.get_mut(at)?;
        let child = if kind == Kind::Any {
            *node.any.get_or_insert(next)
        } else if let Some((_, child)) = node.typed.iter().find(|(known, _)| *known == kind) {
            *child
        } else {
            node.typed.push((kind, next));
            // Overlapping types at one position are refused at load (P204). The set with such a mistake is
            // never published, but checks look at it: a fixed order keeps what they say independent of files.
            node.typed.sort_unstable();
            next
        };
        self.add_if_new(child, next);
        Some(child)
    }

    fn add_if_new(&mut self, child: usize, next: usize) {
        if child == next {
            self.nodes.push(Node::default());
        }
    }

    /// The value of the most specific template that matches.
    ///
    /// `path` is the canonical path as text, `segments` are its segments, percent-decoded. Both must come from
    /// one request.
    pub fn find<S: AsRef<str>>(&self, path: &str, segments: &[S]) -> Option<&T> {
        // `//` has one empty segment, which only a tail matches.
        if !path.contains('%') && !path.ends_with("//") {
            let path = path.strip_prefix('/').unwrap_or(path);
            if let Some(value) = self.literal.get(path.strip_suffix('/').unwrap_or(path)) {
                return self.values.get(*value);
            }
        }
        self.values.get(self.search(0, segments)?)
    }

    fn search<S: AsRef<str>>(&self, at: usize, segments: &[S]) -> Option<usize> {
        let node = self.nodes.get(at)?;
        let Some((segment, rest)) = segments.split_first() else { return node.end.or(node.tail) };
        let segment = segment.as_ref();
        let found = node
            .exact
            .get(segment)
            .and_then(|child| self.search(*child, rest))
            .or_else(|| self.search_folded(node, segment, rest))
            .or_else(|| {
                let matching = node.typed.iter().filter(|(kind, _)| kind_matches(*kind, segment));
                matching.map(|(_, child)| self.search(*child, rest)).find(Option::is_some).flatten()
            })
            .or_else(|| node.any.filter(|_| !segment.is_empty()).and_then(|child| self.search(child, rest)));
        found.or(node.tail)
    }

    fn search_folded<S: AsRef<str>>(&self, node: &Node, segment: &str, rest: &[S]) -> Option<usize> {
        if node.folded.is_empty() {
            return None;
        }
        let child = if segment.bytes().any(|byte| byte.is_ascii_uppercase()) {
            node.folded.get(segment.to_ascii_lowercase().as_str())
        } else {
            node.folded.get(segment)
        };
        child.and_then(|child| self.search(*child, rest))
    }

    /// All values, in the order in which their templates were added.
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// All values, to finish them after the last template was added.
    pub fn values_mut(&mut self) -> &mut [T] {
        &mut self.values
    }
}

fn literal_key(template: &[Segment]) -> Option<Box<str>> {
    let mut key = String::new();
    for segment in template {
        match segment {
            Segment::Literal(text) if !text.contains(['/', '%']) => {
                if !key.is_empty() {
                    key.push('/');
                }
                key.push_str(text);
            }
            _ => return None,
        }
    }
    Some(key.into())
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::policy::specificity::{compare, contains, kinds_overlap, matches, same_segment, same_shape};

    fn segment() -> impl Strategy<Value = Segment> {
        let parameter = |kind| Segment::Parameter { name: Some("p".into()), kind };
        proptest::sample::select(vec![
            Segment::Literal("a".into()),
            Segment::Literal("7".into()),
            Segment::Literal("a/b".into()),
            parameter(Kind::Int),
            parameter(Kind::Slug),
            parameter(Kind::Date),
            parameter(Kind::Any),
        ])
    }

    fn template() -> impl Strategy<Value = Vec<Segment>> {
        (vec(segment(), 0..4), any::<bool>()).prop_map(|(mut segments, tail)| {
            segments.extend(tail.then_some(Segment::Tail { name: None }));
            segments
        })
    }

    fn path() -> impl Strategy<Value = Vec<&'static str>> {
        vec(proptest::sample::select(vec!["a", "b", "7", "2030-01-01", "a.b", "a/b", ""]), 0..5)
    }

    /// Whether a set with both loads: neither the same twice (P201) nor overlapping types at one position (P204).
    fn load_together(a: &[Segment], b: &[Segment]) -> bool {
        if same_shape(a, b) {
            return false;
        }
        let differ = a.iter().zip(b).find(|(a, b)| !same_segment(a, b));
        !matches!(differ, Some((Segment::Parameter { kind: a, .. }, Segment::Parameter { kind: b, .. }))
            if *a != Kind::Any && *b != Kind::Any && kinds_overlap(*a, *b))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_trie_finds_what_the_definition_calls_the_winner(
            candidates in vec(template(), 1..12), paths in vec(path(), 1..20),
        ) {
            let mut templates: Vec<Vec<Segment>> = Vec::new();
            for template in candidates {
                if templates.iter().all(|known| load_together(known, &template)) {
                    templates.push(template);
                }
            }
            let mut trie = Trie::default();
            for (number, template) in templates.iter().enumerate() {
                trie.entry(template, false, || number);
            }
            for path in paths {
                let matching: Vec<usize> = (0..templates.len())
                    .filter(|number| matches(&templates[*number], path.iter().copied()))
                    .collect();
                let beats_all = |number: &&usize| {
                    matching.iter().all(|other| {
                        other == *number || compare(&templates[**number], &templates[*other]) == Ordering::Less
                    })
                };
                let winner = matching.iter().find(beats_all);
                prop_assert_eq!(winner.is_some(), !matching.is_empty(), "a tie on {:?}", path);
                // As `request::target` writes it: an encoded slash is data.
                let text = format!("/{}", path.iter().map(|s| s.replace('/', "%2F")).collect::<Vec<_>>().join("/"));
                // A last segment that is empty would be a trailing slash.
                if path.last() == Some(&"") {
                    continue;
                }
                prop_assert_eq!(trie.find(&text, &path), winner, "{}", text);
            }
        }

        #[test]
        fn the_narrower_of_two_templates_wins(a in template(), b in template()) {
            if load_together(&a, &b) && contains(&a, &b) && !contains(&b, &a) {
                prop_assert_eq!(compare(&b, &a), Ordering::Less);
            }
        }

        #[test]
        fn containment_and_overlap_are_about_paths(a in template(), b in template(), path in path()) {
            let (in_a, in_b) = (matches(&a, path.iter().copied()), matches(&b, path.iter().copied()));
            prop_assert!(!contains(&a, &b) || !in_b || in_a);
            prop_assert!(!(in_a && in_b) || crate::policy::specificity::overlaps(&a, &b));
            if let Some(witness) = crate::policy::specificity::witness(&a, &b) {
                let on = |template: &[Segment]| matches(template, witness.iter().map(String::as_str));
                prop_assert!(on(&a) && on(&b), "{witness:?}");
            }
        }
    }
}
