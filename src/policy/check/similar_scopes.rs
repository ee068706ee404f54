//! P509
//!
//! # What it does
//! Without a `scopes` catalogue, reports scopes that differ in one letter of one part, like `items:read` and
//! `item:read`. Parts shorter than four letters are not compared.
//!
//! # Why it matters
//! Without a catalogue every scope name is accepted, also the misspelt one that no token will ever carry.
//!
//! # Example
//! ```yaml
//! routes:
//!   GET /items: { scope: items:read }
//!   GET /items/{id}: { scope: item:read }
//! ```
//!
//! # Instead
//! Correct the name. A catalogue makes misspelt scopes an error: `scopes: { items:read: Read items }`.

use std::collections::{BTreeMap, HashMap};

use crate::diagnostic::{Code, Diagnostic, Span};
use crate::policy::document::Clause;

use super::Context;
use super::findings::{Findings, Owner};
use super::walk::{Part, written};

pub(super) fn run<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    if !context.names.scopes.is_empty() {
        return;
    }
    // The first use of each name.
    let mut used: BTreeMap<&'d str, (Span, Owner<'d>)> = BTreeMap::new();
    written(context.document, &mut |site, part| {
        if let Part::Clause(Clause::Scope(listed)) = part {
            for name in &listed.names {
                let entry = used.entry(&name.value).or_insert_with(|| (name.span, site.owner()));
                if name.span < entry.0 {
                    *entry = (name.span, site.owner());
                }
            }
        }
    });
    // Names at a distance of one share a spelling with one letter left out, or one is that spelling of the other.
    let mut spellings: HashMap<String, Vec<&'d str>> = HashMap::new();
    for name in used.keys() {
        let mut keys = vec![(*name).to_owned()];
        for (at, letter) in name.char_indices() {
            let (before, after) = (name.get(..at), name.get(at + letter.len_utf8()..));
            keys.push(format!("{}{}", before.unwrap_or_default(), after.unwrap_or_default()));
        }
        keys.dedup();
        for key in keys {
            spellings.entry(key).or_default().push(name);
        }
    }
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for names in spellings.values() {
        for (index, one) in names.iter().enumerate() {
            pairs.extend(
                names
                    .iter()
                    .skip(index + 1)
                    .filter(|other| near(one, other))
                    .map(|other| (*one.min(other), *one.max(other))),
            );
        }
    }
    pairs.sort_unstable();
    pairs.dedup();
    for (one, other) in pairs {
        let (Some(a), Some(b)) = (used.get(one), used.get(other)) else { continue };
        let (first, second) = if a.0 < b.0 { (a, b) } else { (b, a) };
        let diagnostic = Diagnostic::new(
            Code::P509,
            format!("scopes `{one}` and `{other}` differ in one letter"),
            second.0,
            "misspelt?",
        )
        .also(first.0, "the other one")
        .help("a `scopes` catalogue makes misspelt scopes an error");
        found.between(vec![second.1, first.1], diagnostic);
    }
}

fn near(one: &str, other: &str) -> bool {
    let (ones, others): (Vec<&str>, Vec<&str>) = (one.split(':').collect(), other.split(':').collect());
    if ones.len() != others.len() {
        return false;
    }
    let mut differing = ones.iter().zip(&others).filter(|(a, b)| a != b);
    let (Some((a, b)), None) = (differing.next(), differing.next()) else { return false };
    let letters = |part: &str| part.chars().count() >= 4;
    // `v1` and `v2`, `2024` and `2025` differ on purpose.
    let without_digits = |part: &str| part.chars().filter(|letter| !letter.is_ascii_digit()).collect::<String>();
    letters(a) && letters(b) && without_digits(a) != without_digits(b) && strsim::damerau_levenshtein(a, b) == 1
}
