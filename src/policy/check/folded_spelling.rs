//! P312
//!
//! # What it does
//! Reports a catch-all (a template that another spelling of a sibling's path falls into) that is weaker than that
//! sibling, in the same app: `/ADMIN` beside `/admin` while `case` is unset; `+7` or `007` beside `7` and `{id:int}`;
//! `/admin.json` and `/admin.` beside `/admin`, and beside `/admin/**` while `case` is unset; `/index.php/x` beside
//! `/index.php`; and, in apps that admit them, `//`, `;…`, encoded slashes and double encoding. In apps with such
//! opt-ins it is an error.
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
//! State how the upstream compares letters: `case: sensitive` or `case: insensitive`. Make the catch-all no weaker, or
//! say why the other spellings are no danger: `allow: { P312: paths are compared byte by byte there }`.

use std::ops::ControlFlow;

use smallvec::SmallVec;

use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::policy::specificity::{kind_matches, matches, sample, witness};
use crate::policy::template::{Kind, Segment};
use crate::request::target::Irregular;

use super::Context;
use super::describe;
use super::findings::{Findings, Owner};
use super::paths::Wanted;
use super::table::{HostTable, Table, View};

pub(super) fn run<'d>(context: &Context<'d>, table: &mut Table<'d>, found: &mut Findings<'d>) {
    // Catch-all, sibling, other spelling of the sibling's path.
    let mut candidates: Vec<(usize, usize, String)> = Vec::new();
    for host in table.hosts.values() {
        for group in 0..host.groups.len() {
            candidates.extend(caught(context, table, host, group));
            if candidates.len() > MOST {
                break; // nobody reads more findings
            }
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
            _ => diagnostic
                .help("if the upstream takes no other spelling for the same path, say so: `allow: { P312: … }`"),
        };
        let owners: Vec<Owner<'d>> = vec![catch_all.route.into(), sibling.route.into()];
        found.between(owners, diagnostic);
    }
}

/// In so many segments other values are tried.
const MOST_FREE: usize = 5;
/// So many segments more are tried.
const MOST_MORE: usize = 2;

/// Files that servers run, whatever stands behind them in the path.
const SCRIPTS: [&str; 8] = [".asp", ".aspx", ".cgi", ".cfm", ".fcgi", ".jsp", ".php", ".pl"];

/// More pairs of routes are not looked at.
const MOST: usize = 20_000;
/// What a comparison costs, in steps of the budget.
const COST: usize = 100;
/// Of a spelling that falls into more than this many templates, the first are enough.
const MOST_OF_ONE: usize = 256;

/// The routes that decide other spellings of a template's paths, and ask for something else.
fn caught(context: &Context<'_>, table: &Table<'_>, host: &HostTable, index: usize) -> Vec<(usize, usize, String)> {
    let Some((group, first)) = host.groups.get(index).and_then(|group| Some((group, table.first(group)?))) else {
        return Vec::new();
    };
    let methods = table.methods(group);
    let mut found: Vec<(usize, usize, String)> = Vec::new();
    for spelling in spellings(first) {
        let wanted = Wanted { segments: &spelling, fold: first.fold };
        let mut met = 0;
        host.tree.overlapping(wanted, false, &mut |other, _| {
            met += 1;
            let pairs: SmallVec<[(usize, usize); 8]> = (host.groups.get(other).into_iter())
                .filter(|_| other != index)
                .flat_map(|catch_all| methods.iter().map(move |method| (catch_all, method)))
                .filter_map(|(catch_all, method)| {
                    let (sibling, one) = table.serving(group, method)?;
                    let (caught, by) = table.serving(catch_all, method)?;
                    (std::ptr::eq(one.app, by.app) && one.formula != by.formula).then_some((caught, sibling))
                })
                .filter(|pair| !found.iter().any(|(caught, sibling, _)| (*caught, *sibling) == *pair))
                .collect();
            if !pairs.is_empty()
                && context.names.budget.spend(COST)
                && let Some(path) = decided(table, host, &spelling, other)
            {
                for (caught, sibling) in pairs {
                    if !found.iter().any(|(known, of, _)| (*known, *of) == (caught, sibling)) {
                        found.push((caught, sibling, shown(&path)));
                    }
                }
            }
            if met < MOST_OF_ONE { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
    }
    found
}

/// A path of the spelling that the other template decides.
fn decided(table: &Table<'_>, host: &HostTable, spelling: &[Segment], other: usize) -> Option<Vec<String>> {
    let template = &host.groups.get(other).and_then(|group| table.first(group))?.segments;
    let path = witness(spelling, template)?;
    if host.tree.find(&path) == Some(other) {
        return Some(path);
    }
    // A more specific one takes that very path; not one with other values or with more segments, perhaps.
    let free = path.iter().enumerate().filter_map(|(at, value)| Some((at, unusual(value)?)));
    let free: Vec<(usize, &str)> = free.take(MOST_FREE).collect();
    let choices = (0..1_u32 << free.len()).flat_map(|choice| (0..=MOST_MORE).map(move |more| (choice, more)));
    choices.skip(1).find_map(|(choice, more)| {
        let mut path = path.clone();
        for (bit, (at, value)) in free.iter().enumerate() {
            if choice & 1 << bit != 0
                && let Some(segment) = path.get_mut(*at)
            {
                (*value).clone_into(segment);
            }
        }
        path.extend(std::iter::repeat_n("x~".to_owned(), more));
        let is_of = |template: &[Segment]| matches(template, path.iter().map(String::as_str));
        (is_of(spelling) && is_of(template) && host.tree.find(&path) == Some(other)).then_some(path)
    })
}

/// Another value in place of the usual one of a kind, which no other template is likely to name.
fn unusual(value: &str) -> Option<&'static str> {
    match value {
        "x" => Some("x~"), // nor is it a slug
        "7" => Some("70017"),
        _ => None,
    }
}

/// Templates of paths that an upstream may take for the template's, each spelled differently in one place.
fn spellings(view: &View<'_>) -> Vec<Vec<Segment>> {
    let header = view.header();
    let admitted = header.map_or(Irregular::NONE, |header| header.irregular);
    let case_unset = header.is_none_or(|header| header.case_insensitive.is_none());
    let segments = view.segments.as_slice();
    let mut found = Vec::new();
    let before_tail = segments.iter().filter(|segment| !matches!(segment, Segment::Tail { .. })).count();
    for (at, segment) in segments.iter().enumerate() {
        let text = match segment {
            Segment::Literal(text) => text.as_str(),
            Segment::Parameter { kind, .. } => sample(*kind),
            Segment::Tail { .. } => continue,
        };
        let is_literal = matches!(segment, Segment::Literal(_));
        // Whatever stands in `{any}`, another spelling of it does too.
        let is_any = matches!(segment, Segment::Parameter { kind: Kind::Any, .. });
        let mut others = Vec::new();
        let mut suffixed = None; // a suffix ends the path
        if is_literal && case_unset {
            let upper = text.to_ascii_uppercase();
            others.push(if upper == text { text.to_ascii_lowercase() } else { upper });
        }
        if kind_matches(Kind::Int, text) {
            others.push(format!("+{text}"));
            if is_literal {
                others.push(format!("0{text}"));
            }
        }
        match segment {
            Segment::Parameter { kind: Kind::Uuid, .. } => others.push(text.replace('-', "")),
            Segment::Parameter { kind: Kind::Date, .. } => others.push("2030-1-1".to_owned()),
            _ => {}
        }
        if !is_any {
            // Who states the case knows how the upstream compares, and need not explain every tree.
            let wants_all = case_unset || !admitted.is_empty() || at + 1 == segments.len();
            if wants_all && at + 1 == before_tail && !text.contains('.') {
                let ends = segments.iter().take(at).cloned();
                suffixed = Some(ends.chain([Segment::Literal(format!("{text}.json"))]).collect());
            }
            if wants_all {
                others.push(format!("{text}."));
            }
            if at + 1 == segments.len() && SCRIPTS.iter().any(|suffix| text.ends_with(suffix)) {
                // What follows a script is its path-info.
                let info = [Segment::Parameter { name: None, kind: Kind::Any }, Segment::Tail { name: None }];
                found.push(segments.iter().cloned().chain(info).collect());
            }
            if admitted.contains(Irregular::PATH_PARAMS) {
                others.push(format!("{text};x"));
            }
            if admitted.contains(Irregular::DOUBLE_ENCODING) {
                others.push(encoded(text));
            }
        }
        for other in others.into_iter().filter(|other| other != text) {
            let mut spelling = segments.to_vec();
            if let Some(segment) = spelling.get_mut(at) {
                if other.ends_with('.') {
                    found.extend(suffixed.take());
                }
                *segment = Segment::Literal(other);
                found.push(spelling);
            }
        }
        if let Some(next) = segments.get(at + 1) {
            let (next, joined) = match next {
                Segment::Literal(text) => (text.as_str(), 2),
                Segment::Parameter { kind, .. } => (sample(*kind), 2),
                Segment::Tail { .. } => (sample(Kind::Any), 1),
            };
            for slash in slashes(admitted) {
                let mut spelling = segments.to_vec();
                spelling.splice(at..at + joined, [Segment::Literal(format!("{text}{slash}{next}"))]);
                found.push(spelling);
            }
        }
    }
    let mut insert = |at: usize, new: Vec<Segment>| {
        let mut spelling = segments.to_vec();
        spelling.splice(at..at, new);
        found.push(spelling);
    };
    let has_tail = before_tail < segments.len();
    // Segments that become two, and those that vanish; in a tail behind its first one.
    for slash in slashes(admitted).filter(|_| has_tail) {
        insert(before_tail, vec![Segment::Literal(format!("{0}{slash}{0}", sample(Kind::Any)))]);
    }
    for (form, text) in [(Irregular::DOUBLE_SLASH, ""), (Irregular::PATH_PARAMS, ";x")] {
        if admitted.contains(form) {
            let vanishing = Segment::Literal(text.to_owned());
            (0..=before_tail).for_each(|at| insert(at, vec![vanishing.clone()]));
            if has_tail {
                insert(before_tail, vec![Segment::Parameter { name: None, kind: Kind::Any }, vanishing]);
            }
        }
    }
    found
}

/// What stands in a segment, decoded once, for a slash that the upstream may see there.
fn slashes(admitted: Irregular) -> impl Iterator<Item = &'static str> {
    let forms = [(Irregular::ENCODED_SLASH, "/"), (Irregular::DOUBLE_ENCODING, "%2F")];
    forms.into_iter().filter(move |(form, _)| admitted.contains(*form)).map(|(_, slash)| slash)
}

/// The path as it would be requested.
fn shown(path: &[String]) -> String {
    let segments: Vec<String> = path.iter().map(|segment| segment.replace('%', "%25").replace('/', "%2F")).collect();
    let open = if path.last().is_some_and(String::is_empty) { "/" } else { "" }; // a slash at the end is no segment
    format!("/{}{open}", segments.join("/"))
}

/// The segment with its first letter encoded once more.
fn encoded(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) if first.is_ascii() => format!("%{:02X}{}", u32::from(first), letters.as_str()),
        _ => text.to_owned(),
    }
}
