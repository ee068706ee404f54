//! P312
//!
//! # What it does
//! Reports a catch-all (a template that another spelling of a sibling's path falls into) that is weaker than that
//! sibling, in the same app: `/ADMIN` beside `/admin` while `case` is unset; `+7` or `007` beside `7` and `{id:int}`;
//! `/admin.json`, `/admin.`; and, in apps that admit them, `//`, `;…` and double encoding. In apps with such opt-ins
//! it is an error.
//!
//! # Why it matters
//! Many upstreams fold spellings. One that reads `/ADMIN` as `/admin` executes what the sibling protects, for
//! whoever the catch-all lets in.
//!
//! # Example
//! ```yaml
//! routes:
//!   /**: authenticated
//!   /admin/**: { role: admin }
//! ```
//!
//! # Instead
//! State how the upstream compares: `case: sensitive` or `case: insensitive`. Otherwise make the catch-all no weaker, or
//! say why it is no danger: `allow: { P312: … }`.

use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::policy::specificity::{kind_matches, sample};
use crate::policy::template::{Kind, Segment};
use crate::request::target::Irregular;

use super::Context;
use super::describe;
use super::findings::{Findings, Owner};
use super::table::{HostTable, Table, View};

pub(super) fn run<'d>(context: &Context<'d>, table: &mut Table<'d>, found: &mut Findings<'d>) {
    // Catch-all, sibling, other spelling of the sibling's path.
    let mut candidates: Vec<(usize, usize, String)> = Vec::new();
    for host in table.hosts.values() {
        for group in 0..host.groups.len() {
            candidates.extend(caught(table, host, group));
        }
    }
    let key = |index: usize| table.routes.get(index).map(|view| view.route.key.value.as_str());
    candidates.sort_by(|a, b| (a.0, key(a.1), a.1).cmp(&(b.0, key(b.1), b.1)));

    // One finding for each catch-all.
    let mut weaker: Vec<(usize, usize, String, usize)> = Vec::new();
    for (catch_all, sibling, path) in candidates {
        let (Some(one), Some(other)) = (table.routes.get(catch_all), table.routes.get(sibling)) else { continue };
        let (one, other) = (one.formula, other.formula);
        if table.formulas.implies(&context.names, one, other) {
            continue;
        }
        match weaker.last_mut() {
            Some((known, first, _, more)) if *known == catch_all => {
                if *first != sibling {
                    *more += 1;
                }
            }
            _ => weaker.push((catch_all, sibling, path, 0)),
        }
    }
    for (catch_all, sibling, path, more) in weaker {
        let (Some(catch_all), Some(sibling)) = (table.routes.get(catch_all), table.routes.get(sibling)) else {
            continue;
        };
        let mut diagnostic = Diagnostic::new(
            Code::P312,
            "a catch-all is weaker than its sibling, and the upstream may fold spellings",
            catch_all.route.key.span,
            format!("decides `{path}`: {}", describe::requirement(&context.names, &catch_all.route.requirement)),
        )
        .also(sibling.route.key.span, describe::requirement(&context.names, &sibling.route.requirement));
        if more > 0 {
            let (noun, verb) = if more == 1 { ("route", "is") } else { ("routes", "are") };
            diagnostic = diagnostic.note(format!("{more} more {noun} of this app {verb} stronger than the catch-all"));
        }
        diagnostic = match catch_all.header() {
            Some(header) if !header.irregular.is_empty() => {
                diagnostic.severity = Severity::Error;
                diagnostic.note("an error, because this app admits irregular targets (`allow`)")
            }
            Some(header) if header.case_insensitive.is_none() => {
                diagnostic.help("state how the upstream compares paths: `case: sensitive` or `case: insensitive`")
            }
            _ => diagnostic,
        };
        let owners: Vec<Owner<'d>> = vec![catch_all.route.into(), sibling.route.into()];
        found.between(owners, diagnostic);
    }
}

/// The routes that decide other spellings of a template's paths.
fn caught(table: &Table<'_>, host: &HostTable, index: usize) -> Vec<(usize, usize, String)> {
    let Some((group, first)) = host.groups.get(index).and_then(|group| Some((group, table.first(group)?))) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for path in spellings(first) {
        let Some(other) = host.tree.find(&path).filter(|other| *other != index) else { continue };
        let Some(catch_all) = host.groups.get(other) else { continue };
        for method in table.methods(group) {
            let (Some((sibling, one)), Some((caught, by))) =
                (table.serving(group, method), table.serving(catch_all, method))
            else {
                continue;
            };
            if std::ptr::eq(one.app, by.app) && !found.iter().any(|(known, of, _)| (*known, *of) == (caught, sibling)) {
                found.push((caught, sibling, shown(&path)));
            }
        }
    }
    found
}

/// Paths that an upstream may take for one of the template's.
fn spellings(view: &View<'_>) -> Vec<Vec<String>> {
    let header = view.header();
    let admitted = header.map_or(Irregular::NONE, |header| header.irregular);
    let case_unset = header.is_none_or(|header| header.case_insensitive.is_none());
    let path: Vec<String> = (view.segments.iter())
        .map_while(|segment| match segment {
            Segment::Literal(text) => Some(text.clone()),
            Segment::Parameter { kind, .. } => Some(sample(*kind).to_owned()),
            Segment::Tail { .. } => None,
        })
        .collect();
    let mut found = Vec::new();
    let mut replace = |at: usize, text: String| {
        let mut other = path.clone();
        if let Some(segment) = other.get_mut(at) {
            *segment = text;
            found.push(other);
        }
    };
    let last = view.segments.len().saturating_sub(1);
    for (at, segment) in view.segments.iter().enumerate() {
        match segment {
            Segment::Literal(text) => {
                let upper = text.to_ascii_uppercase();
                if case_unset && upper != *text {
                    replace(at, upper);
                } else if case_unset && text.to_ascii_lowercase() != *text {
                    replace(at, text.to_ascii_lowercase());
                }
                if kind_matches(Kind::Int, text) {
                    replace(at, format!("0{text}"));
                    replace(at, format!("+{text}"));
                }
                if at == last && !text.contains('.') {
                    replace(at, format!("{text}.json"));
                }
                if at == last {
                    replace(at, format!("{text}."));
                }
                if admitted.contains(Irregular::PATH_PARAMS) {
                    replace(at, format!("{text};x"));
                }
                if admitted.contains(Irregular::DOUBLE_ENCODING) {
                    replace(at, encoded(text));
                }
            }
            Segment::Parameter { kind: Kind::Int, .. } => replace(at, "+7".to_owned()),
            Segment::Parameter { kind: Kind::Uuid, .. } => replace(at, sample(Kind::Uuid).replace('-', "")),
            Segment::Parameter { kind: Kind::Date, .. } => replace(at, "2030-1-1".to_owned()),
            Segment::Parameter { kind: Kind::Any | Kind::Slug, .. } | Segment::Tail { .. } => {}
        }
    }
    if admitted.contains(Irregular::DOUBLE_SLASH) {
        for at in 0..path.len() {
            let mut other = path.clone();
            other.insert(at, String::new());
            found.push(other);
        }
    }
    if admitted.contains(Irregular::ENCODED_SLASH) {
        for at in 1..path.len() {
            let mut other = path.clone();
            let next = other.remove(at);
            if let Some(segment) = other.get_mut(at - 1) {
                *segment = format!("{segment}/{next}");
                found.push(other);
            }
        }
    }
    found
}

/// The path as it would be requested.
fn shown(path: &[String]) -> String {
    let segments: Vec<String> = path.iter().map(|segment| segment.replace('%', "%25").replace('/', "%2F")).collect();
    format!("/{}", segments.join("/"))
}

/// The segment with its first letter encoded once more.
fn encoded(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) if first.is_ascii() => format!("%{:02X}{}", u32::from(first), letters.as_str()),
        _ => text.to_owned(),
    }
}
