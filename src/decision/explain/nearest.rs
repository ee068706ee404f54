//! The templates that did not decide, and why.

use crate::policy::set::{HostPattern, PolicySet, Route, RouteId};
use crate::policy::specificity::{folded, kind_matches, matches};
use crate::policy::template::{Kind, Segment};
use crate::request::host::Host;
use crate::request::target::Target;

use super::Other;

/// How many are listed.
const SHOWN: usize = 3;

/// Beside a route: the templates that match too and are less specific. Without one: the nearest.
pub(super) fn others(policy: &PolicySet, target: &Target, host: &Host<'_>, decided: Option<RouteId>) -> Vec<Other> {
    let path: Vec<String> = target.segments().map(|segment| segment.decoded().into_owned()).collect();
    let winner = super::super::route::find(policy, target, host);
    let is_of_winner = |route: &Route| winner.is_some_and(|methods| methods.routes().any(|id| id == route.id));
    let mut found: Vec<(usize, Other)> = Vec::new();
    for route in policy.routes.iter().filter(|route| Some(route.id) != decided) {
        let answers = answers_on(policy, route, host.as_str());
        // A path owns its methods: another route of the same template is no other template.
        if decided.is_some() && is_of_winner(route) {
            continue;
        }
        let (depth, why) = match judge(policy, route, &path) {
            Judged::Matches if is_of_winner(route) => (
                usize::MAX,
                format!("serves {}", if route.any_method { "any method".to_owned() } else { methods(route) }),
            ),
            Judged::Matches if !answers => (usize::MAX / 2, "answers on another host".to_owned()),
            Judged::Matches => (usize::MAX - 1, "matches too, and is less specific".to_owned()),
            Judged::Differs { .. } if decided.is_some() || !answers => continue,
            Judged::Differs { depth, why } => (depth, why),
        };
        if depth == 0 {
            continue;
        }
        found.push((depth, Other { key: route.key.to_string(), place: route.place.to_string(), why }));
    }
    // The nearest first; a sort is stable, so equals stay in file order.
    found.sort_by_key(|(depth, _)| std::cmp::Reverse(*depth));
    found.into_iter().take(SHOWN).map(|(_, other)| other).collect()
}

fn methods(route: &Route) -> String {
    route.methods.iter().map(http::Method::as_str).collect::<Vec<_>>().join(", ")
}

/// Whether the route is in the table that decides for a host: the most specific host that exists.
fn answers_on(policy: &PolicySet, route: &Route, host: &str) -> bool {
    let Some(app) = policy.app(route.app) else { return false };
    if policy.hosts.exact.contains_key(host) {
        return app.hosts.iter().any(|own| own == host);
    }
    let patterns = || app.hosts.iter().map(|own| HostPattern::new(own));
    let mut suffixes = policy.hosts.suffixes.iter().map(|(suffix, _)| HostPattern::Suffix(suffix.clone()));
    match suffixes.find(|suffix| suffix.matches(host)) {
        Some(suffix) => patterns().any(|own| own == suffix),
        None => app.hosts.is_empty(),
    }
}

enum Judged {
    Matches,
    Differs { depth: usize, why: String },
}

fn judge(policy: &PolicySet, route: &Route, path: &[String]) -> Judged {
    let fold = policy.app(route.app).is_some_and(|app| app.fold_case);
    let folded_path: Vec<String>;
    let folded_template: Vec<Segment>;
    let (template, path) = if fold {
        folded_template = folded(&route.template);
        folded_path = path.iter().map(|segment| segment.to_ascii_lowercase()).collect();
        (&folded_template[..], &folded_path[..])
    } else {
        (&route.template[..], path)
    };
    if matches(template, path.iter().map(String::as_str)) {
        return Judged::Matches;
    }
    for (depth, segment) in template.iter().enumerate() {
        let why = match (segment, path.get(depth)) {
            (Segment::Tail { .. }, _) => break,
            (_, None) => {
                return Judged::Differs { depth: depth + 1, why: "needs a further segment".to_owned() };
            }
            (Segment::Literal(literal), Some(text)) if literal != text => {
                if literal.eq_ignore_ascii_case(text) {
                    return Judged::Differs {
                        depth: depth + 2,
                        why: format!("`{text}` is not `{literal}`: case counts"),
                    };
                }
                format!("segment {} is `{text}`, not `{literal}`", depth + 1)
            }
            (Segment::Parameter { kind, .. }, Some(text)) if !kind_matches(*kind, text) => {
                return Judged::Differs {
                    // A near miss: everything else fits so far.
                    depth: depth + 2,
                    why: format!("`{text}` is not {}", kind_text(*kind)),
                };
            }
            _ => continue,
        };
        return Judged::Differs { depth, why };
    }
    let more = path.len() - template.len().min(path.len());
    let word = if more == 1 { "segment" } else { "segments" };
    Judged::Differs { depth: template.len(), why: format!("the path has {more} more {word}") }
}

fn kind_text(kind: Kind) -> &'static str {
    match kind {
        Kind::Any => "a value: it is empty",
        Kind::Int => "an int",
        Kind::Uuid => "a uuid",
        Kind::Slug => "a slug",
        Kind::Date => "a date",
    }
}
