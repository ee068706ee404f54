//! Which template is more specific, which overlap, which contains which: the order of policy-language 5.
//!
//! Segment by segment from the left: literal < typed parameter < parameter or `*` < tail (the smaller wins),
//! and the end of a template beats a tail that matches nothing. Among templates that all match one path this
//! order is strict and total, provided that typed parameters that overlap never stand at one position after
//! equal beginnings (P204).
//!
//! All functions take segments as they are parsed. Literals are compared exactly; who means an app that folds
//! case passes both sides through [`folded`] first.

use std::cmp::Ordering;

use super::template::{Kind, Segment};

/// Whether a decoded request segment is one of the kind's. No kind matches an empty segment.
pub fn kind_matches(kind: Kind, text: &str) -> bool {
    match kind {
        Kind::Any => !text.is_empty(),
        Kind::Int => {
            (1..=19).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<i64>().is_ok()
        }
        Kind::Uuid => {
            text.len() == 36
                && text.bytes().enumerate().all(|(at, byte)| match at {
                    8 | 13 | 18 | 23 => byte == b'-',
                    _ => byte.is_ascii_hexdigit(),
                })
        }
        Kind::Slug => !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'),
        Kind::Date => is_date(text),
    }
}

fn is_date(text: &str) -> bool {
    let shape = text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    let number = |from: usize, to: usize| text.get(from..to).and_then(|part| part.parse::<i8>().ok());
    let year = text.get(0..4).and_then(|part| part.parse::<i16>().ok());
    match (shape, year, number(5, 7), number(8, 10)) {
        (true, Some(year), Some(month), Some(day)) => jiff::civil::Date::new(year, month, day).is_ok(),
        _ => false,
    }
}

/// Whether every segment of `inner` is one of `outer`.
pub fn kind_contains(outer: Kind, inner: Kind) -> bool {
    outer == inner || outer == Kind::Any || (outer == Kind::Slug && inner != Kind::Any)
}

/// Whether some segment is of both kinds. `int`, `uuid` and `date` are pairwise disjoint.
pub fn kinds_overlap(a: Kind, b: Kind) -> bool {
    kind_contains(a, b) || kind_contains(b, a)
}

/// Whether the path made of `segments` (percent-decoded) matches the template: the definition that the trie
/// must agree with.
pub fn matches<'p>(template: &[Segment], segments: impl IntoIterator<Item = &'p str>) -> bool {
    let (mut template, mut segments) = (template.iter(), segments.into_iter());
    loop {
        let matched = match (template.next(), segments.next()) {
            (Some(Segment::Tail { .. }), _) | (None, None) => return true,
            (None, Some(_)) | (Some(_), None) => return false,
            (Some(Segment::Literal(literal)), Some(text)) => literal == text,
            (Some(Segment::Parameter { kind, .. }), Some(text)) => kind_matches(*kind, text),
        };
        if !matched {
            return false;
        }
    }
}

/// Whether two templates are the same: kinds, literals and types; names of parameters do not count.
pub fn same_shape(a: &[Segment], b: &[Segment]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_segment(a, b))
}

/// Whether two segments have the same shape.
pub fn same_segment(a: &Segment, b: &Segment) -> bool {
    match (a, b) {
        (Segment::Literal(a), Segment::Literal(b)) => a == b,
        (Segment::Parameter { kind: a, .. }, Segment::Parameter { kind: b, .. }) => a == b,
        (Segment::Tail { .. }, Segment::Tail { .. }) => true,
        _ => false,
    }
}

/// The order of specificity: `Less` means that `a` wins over `b` on paths that both match.
///
/// `Equal` means that the order does not decide: the templates are the same, or no path matches both (they
/// part at different literals), or the set is refused (overlapping types at one position).
pub fn compare(a: &[Segment], b: &[Segment]) -> Ordering {
    let (mut a, mut b) = (a.iter(), b.iter());
    loop {
        match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(a), Some(b)) if same_segment(a, b) => {}
            (Some(a), Some(b)) => return rank(a).cmp(&rank(b)),
        }
    }
}

/// Whether `a` wins over `b` on paths that both match.
pub fn more_specific(a: &[Segment], b: &[Segment]) -> bool {
    compare(a, b) == Ordering::Less
}

fn rank(segment: &Segment) -> u8 {
    match segment {
        Segment::Literal(_) => 0,
        Segment::Parameter { kind: Kind::Any, .. } => 2,
        Segment::Parameter { .. } => 1,
        Segment::Tail { .. } => 3,
    }
}

/// Whether some path matches both.
pub fn overlaps(a: &[Segment], b: &[Segment]) -> bool {
    let (mut left, mut right) = (a.iter(), b.iter());
    loop {
        match (left.next(), right.next()) {
            (None, None) | (Some(Segment::Tail { .. }), _) | (_, Some(Segment::Tail { .. })) => return true,
            (None, Some(_)) | (Some(_), None) => return false,
            (Some(a), Some(b)) if segments_overlap(a, b) => {}
            (Some(_), Some(_)) => return false,
        }
    }
}

fn segments_overlap(a: &Segment, b: &Segment) -> bool {
    match (a, b) {
        (Segment::Tail { .. }, _) | (_, Segment::Tail { .. }) => true,
        (Segment::Literal(a), Segment::Literal(b)) => a == b,
        (Segment::Literal(text), Segment::Parameter { kind, .. })
        | (Segment::Parameter { kind, .. }, Segment::Literal(text)) => kind_matches(*kind, text),
        (Segment::Parameter { kind: a, .. }, Segment::Parameter { kind: b, .. }) => kinds_overlap(*a, *b),
    }
}

/// Whether every path of `inner` is a path of `outer`.
pub fn contains(outer: &[Segment], inner: &[Segment]) -> bool {
    let (mut outer, mut inner) = (outer.iter(), inner.iter());
    loop {
        let contained = match (outer.next(), inner.next()) {
            (Some(Segment::Tail { .. }), _) | (None, None) => return true,
            (None, Some(_)) | (Some(_), None | Some(Segment::Tail { .. })) => return false,
            (Some(Segment::Literal(a)), Some(Segment::Literal(b))) => a == b,
            (Some(Segment::Parameter { kind, .. }), Some(Segment::Literal(text))) => kind_matches(*kind, text),
            (Some(Segment::Parameter { kind: a, .. }), Some(Segment::Parameter { kind: b, .. })) => {
                kind_contains(*a, *b)
            }
            (Some(Segment::Literal(_)), Some(Segment::Parameter { .. })) => false,
        };
        if !contained {
            return false;
        }
    }
}

/// A path that matches both, as its decoded segments; `None` if there is none.
///
/// It is the shortest one, with readable values: `7`, `x`, `2030-01-01`.
pub fn witness(a: &[Segment], b: &[Segment]) -> Option<Vec<String>> {
    if !overlaps(a, b) {
        return None;
    }
    let until_tail = |template: &[Segment]| {
        template.iter().position(|segment| matches!(segment, Segment::Tail { .. })).unwrap_or(template.len())
    };
    let length = until_tail(a).max(until_tail(b));
    let at = |template: &[Segment], at: usize| template.get(at.min(template.len().saturating_sub(1))).cloned();
    (0..length).map(|i| value_of_both(at(a, i).as_ref(), at(b, i).as_ref())).collect()
}

fn value_of_both(a: Option<&Segment>, b: Option<&Segment>) -> Option<String> {
    let segments = || a.into_iter().chain(b);
    for segment in segments() {
        if let Segment::Literal(text) = segment {
            return Some(text.clone());
        }
    }
    let narrowest = segments()
        .filter_map(|segment| match segment {
            Segment::Parameter { kind, .. } => Some(*kind),
            Segment::Literal(_) | Segment::Tail { .. } => None,
        })
        .reduce(|a, b| if kind_contains(a, b) { b } else { a })
        .unwrap_or(Kind::Any);
    Some(sample(narrowest).to_owned())
}

/// A readable value of a kind.
pub fn sample(kind: Kind) -> &'static str {
    match kind {
        Kind::Any | Kind::Slug => "x",
        Kind::Int => "7",
        Kind::Uuid => "8b1a9953-c461-4296-a827-abf8c47804d7",
        Kind::Date => "2030-01-01",
    }
}

/// The template with its literals folded as an app with `case: insensitive` reads them (ASCII only).
pub fn folded(template: &[Segment]) -> Vec<Segment> {
    template
        .iter()
        .map(|segment| match segment {
            Segment::Literal(text) => Segment::Literal(text.to_ascii_lowercase()),
            Segment::Parameter { .. } | Segment::Tail { .. } => segment.clone(),
        })
        .collect()
}

/// The template as it is written in a route key.
pub fn render(template: &[Segment]) -> String {
    if template.is_empty() {
        return "/".to_owned();
    }
    let mut text = String::new();
    for segment in template {
        text.push('/');
        match segment {
            Segment::Literal(literal) => text.push_str(literal),
            Segment::Parameter { name: None, .. } => text.push('*'),
            Segment::Parameter { name: Some(name), kind } => {
                text.push('{');
                text.push_str(name);
                text.push_str(match kind {
                    Kind::Any => "",
                    Kind::Int => ":int",
                    Kind::Uuid => ":uuid",
                    Kind::Slug => ":slug",
                    Kind::Date => ":date",
                });
                text.push('}');
            }
            Segment::Tail { name: None } => text.push_str("**"),
            Segment::Tail { name: Some(name) } => {
                text.push('{');
                text.push_str(name);
                text.push_str("**}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> Vec<Segment> {
        text.split('/')
            .filter(|part| !part.is_empty())
            .map(|part| match part {
                "*" => Segment::Parameter { name: None, kind: Kind::Any },
                "**" => Segment::Tail { name: None },
                "{i}" => Segment::Parameter { name: Some("i".into()), kind: Kind::Int },
                "{s}" => Segment::Parameter { name: Some("s".into()), kind: Kind::Slug },
                literal => Segment::Literal(literal.into()),
            })
            .collect()
    }

    #[test]
    fn relations_of_templates() {
        // a, b, a wins, overlap, a contains b, b contains a
        for (a, b, wins, overlap, a_contains_b, b_contains_a) in [
            ("/users/me", "/users/*", true, true, false, true),
            ("/users/me/*", "/users/*/settings", true, true, false, false),
            ("/a", "/a/**", true, true, false, true),
            ("/a/{i}", "/a/*", true, true, false, true),
            ("/a/{i}", "/a/{s}", false, true, false, true),
            ("/a/7", "/a/{i}", true, true, false, true),
            ("/a/b", "/a/{i}", true, false, false, false),
            ("/**", "/", false, true, true, false),
            ("/*/**", "/**", true, true, false, true),
            ("/a", "/b", false, false, false, false),
        ] {
            let (left, right) = (template(a), template(b));
            assert_eq!(more_specific(&left, &right), wins, "{a} wins over {b}");
            assert_eq!(overlaps(&left, &right), overlap, "{a} overlaps {b}");
            assert_eq!(contains(&left, &right), a_contains_b, "{a} contains {b}");
            assert_eq!(contains(&right, &left), b_contains_a, "{b} contains {a}");
            let witness = witness(&left, &right);
            assert_eq!(witness.is_some(), overlap, "{a} and {b} have a witness");
            if let Some(path) = witness {
                for side in [&left, &right] {
                    assert!(matches(side, path.iter().map(String::as_str)), "{path:?} of {a} and {b}");
                }
            }
        }
    }

    #[test]
    fn kinds_take_what_the_language_says() {
        for (kind, yes, no) in [
            (Kind::Int, vec!["0", "007", "9223372036854775807"], vec!["", "+7", "9223372036854775808", "1.0", "٣"]),
            (Kind::Uuid, vec!["8B1a9953-c461-4296-a827-abf8c47804d7"], vec!["8b1a9953c4614296a827abf8c47804d7"]),
            (Kind::Slug, vec!["a_b-7"], vec!["a.b", "", "é"]),
            (Kind::Date, vec!["2028-02-29"], vec!["2030-02-29", "2030-2-1", "20300201", "+030-01-01"]),
            (Kind::Any, vec!["é"], vec![""]),
        ] {
            for text in yes {
                assert!(kind_matches(kind, text), "{kind:?} takes `{text}`");
            }
            for text in no {
                assert!(!kind_matches(kind, text), "{kind:?} does not take `{text}`");
            }
        }
    }
}
