//! What the routes of an operation ask for, as `security` and in words.

use serde_json::{Map, Value, json};

use crate::policy::document::Access;
use crate::policy::formula::{LeafId, Node, NodeKind};
use crate::policy::set::{Comparison, LeafKind, Operand, PolicySet, Route, RouteId};

use super::schemes::{self, Scheme};
use super::{each_object, foreign};

/// More ways to be let in than these are told in words only.
const MOST_ALTERNATIVES: usize = 16;
/// Words are cut at this length.
const MOST_WORDS: usize = 1000;

/// What an operation needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Needs {
    /// Whether a token is looked at, and whether it may be absent.
    access: Access,
    /// Each is a way to be let in.
    alternatives: Vec<Alternative>,
    /// The same in words; empty if anybody may call.
    words: String,
    limited: bool,
}

/// A way to be let in, as far as OpenAPI can say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Alternative {
    /// All of these scopes.
    scopes: Vec<Box<str>>,
    /// And something that is not a scope.
    other: bool,
    /// And somebody: nobody anonymous gets in this way.
    somebody: bool,
}

impl Needs {
    /// What a caller needs who may be answered by any of these routes: all that any of them asks for. `None` if no
    /// route ever lets anybody in.
    pub(super) fn of(policy: &PolicySet, routes: &[RouteId], method: &str) -> Option<Self> {
        let mut all: Option<Self> = None;
        for route in routes.iter().filter_map(|id| policy.route(*id)) {
            let Some(needs) = Self::of_route(policy, route, method) else { continue };
            all = Some(match all {
                None => needs,
                Some(others) => others.and(needs),
            });
        }
        let mut needs = all?;
        if needs.words.len() > MOST_WORDS {
            needs.words = "more than can be said here".to_owned();
        }
        Some(needs)
    }

    fn of_route(policy: &PolicySet, route: &Route, method: &str) -> Option<Self> {
        if matches!(route.access, Access::Deny | Access::Todo) {
            return None;
        }
        let mut alternatives = alternatives(&route.requirement, route);
        let mut words: Vec<Words> = self::words(&route.requirement, route, policy).into_iter().collect();
        for applied in &route.guards {
            let Some(guard) = policy.guard(applied.guard).filter(|guard| !guard.shadow) else { continue };
            if !guard.methods.is_empty() && !guard.methods.iter().any(|named| named.as_str() == method) {
                continue;
            }
            alternatives = product(&alternatives, &self::alternatives(&applied.requirement, route));
            let always = applied.template.is_none();
            words.extend(
                self::words(&applied.requirement, route, policy).map(|words| {
                    if always { words } else { Words::Simple(format!("for some paths {}", closed(words))) }
                }),
            );
        }
        if alternatives.is_empty() {
            return None;
        }
        let mut words = match words.len() {
            1 => words.pop().map_or_else(String::new, open),
            _ => words.into_iter().map(closed).collect::<Vec<_>>().join(" and "),
        };
        if words.is_empty() && route.access == Access::Authenticated {
            words.push_str("a token");
        }
        let limited = !route.limits_by_address.is_empty() || !route.limits_by_identity.is_empty();
        Some(Self { access: route.access, alternatives, words, limited })
    }

    fn and(self, other: Self) -> Self {
        let access = match (self.access, other.access) {
            (Access::Authenticated, _) | (_, Access::Authenticated) => Access::Authenticated,
            (Access::Optional, _) | (_, Access::Optional) => Access::Optional,
            (access, _) => access,
        };
        let words = match (self.words.as_str(), other.words.as_str()) {
            (mine, theirs) if mine == theirs || theirs.is_empty() => self.words,
            ("", _) => other.words,
            (mine, theirs) => format!("{mine}; for some paths {theirs}"),
        };
        Self {
            access,
            alternatives: product(&self.alternatives, &other.alternatives),
            words,
            limited: self.limited || other.limited,
        }
    }

    /// Writes it into an operation.
    pub(super) fn describe(&self, operation: &mut Map<String, Value>, scheme: &Scheme<'_>) {
        operation.shift_remove("servers");
        if let Some(Value::Object(callbacks)) = operation.get_mut("callbacks") {
            callbacks.values_mut().for_each(|callback| each_object(Some(callback), foreign));
        }
        operation.insert("security".to_owned(), self.security(scheme));
        if !self.words.is_empty() {
            operation.insert("x-portcullis-requires".to_owned(), self.words.as_str().into());
            if self.alternatives.iter().any(|alternative| alternative.other) {
                let before = operation.get("description").map(|text| text.as_str().map(str::to_owned));
                let description = match before {
                    None => Some(format!("Requires {}.", self.words)),
                    Some(Some(text)) => Some(format!("{text}\n\nRequires {}.", self.words)),
                    Some(None) => None, // no text, left alone
                };
                if let Some(description) = description {
                    operation.insert("description".to_owned(), description.into());
                }
            }
        }
        let responses = operation.entry("responses").or_insert_with(|| json!({}));
        if let Value::Object(responses) = responses {
            if self.access != Access::Public {
                schemes::add_refusal(responses, "401");
            }
            if self.alternatives.iter().all(|alternative| alternative.other || !alternative.scopes.is_empty()) {
                schemes::add_refusal(responses, "403");
            }
            if self.limited {
                schemes::add_refusal(responses, "429");
            }
        }
    }

    fn security(&self, scheme: &Scheme<'_>) -> Value {
        if self.access == Access::Public {
            return json!([]);
        }
        let mut security = Vec::new();
        if self.access == Access::Optional && self.alternatives.iter().any(|alternative| !alternative.somebody) {
            security.push(json!({}));
        }
        for alternative in &self.alternatives {
            let requirement = scheme.requirement(&alternative.scopes);
            if !security.contains(&requirement) {
                security.push(requirement);
            }
        }
        Value::Array(security)
    }
}

// === Scopes ===

/// The ways in which a formula can hold, as far as scopes go; of none, it never does.
fn alternatives(node: &Node, route: &Route) -> Vec<Alternative> {
    match &node.kind {
        NodeKind::Leaf(leaf) => leaf_alternatives(*leaf, route),
        NodeKind::All(nodes) => {
            nodes.iter().fold(vec![Alternative::default()], |all, node| product(&all, &alternatives(node, route)))
        }
        NodeKind::Any(nodes) => simplified(nodes.iter().flat_map(|node| alternatives(node, route)).collect()),
        NodeKind::Not(_) => vec![Alternative { other: true, ..Alternative::default() }],
    }
}

fn leaf_alternatives(leaf: LeafId, route: &Route) -> Vec<Alternative> {
    let Some(leaf) = route.leaf(leaf) else { return Vec::new() };
    let somebody = leaf.kind.is_about_identity();
    match &leaf.kind {
        LeafKind::Access(Access::Deny | Access::Todo) => Vec::new(),
        LeafKind::Access(_) => vec![Alternative { somebody, ..Alternative::default() }],
        LeafKind::Scope(scope) => vec![Alternative { scopes: vec![scope.clone()], other: false, somebody }],
        LeafKind::Role(_)
        | LeafKind::Permission(..)
        | LeafKind::Issuer(_)
        | LeafKind::Mfa
        | LeafKind::MaxAge(_)
        | LeafKind::Comparison(_) => vec![Alternative { scopes: Vec::new(), other: true, somebody }],
    }
}

/// One of these and one of those.
fn product(these: &[Alternative], those: &[Alternative]) -> Vec<Alternative> {
    let both = these.iter().flat_map(|this| {
        those.iter().map(|that| {
            let mut scopes = this.scopes.clone();
            scopes.extend(that.scopes.iter().filter(|scope| !this.scopes.contains(scope)).cloned());
            Alternative { scopes, other: this.other || that.other, somebody: this.somebody || that.somebody }
        })
    });
    simplified(both.collect())
}

/// Without those that ask for more than another one. Where there are too many, what all of them ask for.
fn simplified(all: Vec<Alternative>) -> Vec<Alternative> {
    let mut kept: Vec<Alternative> = Vec::new();
    for alternative in all {
        let covers = |one: &Alternative, another: &Alternative| {
            (!one.other || one == another)
                && (!one.somebody || another.somebody)
                && one.scopes.iter().all(|scope| another.scopes.contains(scope))
        };
        if !kept.iter().any(|other| covers(other, &alternative)) {
            kept.retain(|other| !covers(&alternative, other));
            kept.push(alternative);
        }
    }
    if kept.len() <= MOST_ALTERNATIVES {
        return kept;
    }
    let somebody = kept.iter().all(|alternative| alternative.somebody);
    let mut scopes = kept.first().map_or_else(Vec::new, |first| first.scopes.clone());
    scopes.retain(|scope| kept.iter().all(|alternative| alternative.scopes.contains(scope)));
    vec![Alternative { scopes, other: true, somebody }]
}

// === Words ===

/// A sentence part; several parts that need parentheses within another.
enum Words {
    Simple(String),
    Several(String),
}

fn open(words: Words) -> String {
    match words {
        Words::Simple(text) | Words::Several(text) => text,
    }
}

fn closed(words: Words) -> String {
    match words {
        Words::Simple(text) => text,
        Words::Several(text) => format!("({text})"),
    }
}

/// A formula in words; `None` if it asks for nothing that can be said.
fn words(node: &Node, route: &Route, policy: &PolicySet) -> Option<Words> {
    match &node.kind {
        NodeKind::Leaf(leaf) => leaf_words(*leaf, route, policy).map(Words::Simple),
        NodeKind::All(nodes) => joined(nodes, " and ", route, policy),
        NodeKind::Any(nodes) => joined(nodes, " or ", route, policy),
        NodeKind::Not(node) => words(node, route, policy).map(|words| Words::Simple(format!("not {}", closed(words)))),
    }
}

fn joined(nodes: &[Node], word: &str, route: &Route, policy: &PolicySet) -> Option<Words> {
    let mut parts: Vec<Words> = nodes.iter().filter_map(|node| words(node, route, policy)).collect();
    if parts.len() < 2 {
        return parts.pop();
    }
    let mut texts: Vec<String> = Vec::new();
    for text in parts.into_iter().map(closed) {
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    Some(if texts.len() == 1 { Words::Simple(texts.concat()) } else { Words::Several(texts.join(word)) })
}

fn leaf_words(leaf: LeafId, route: &Route, policy: &PolicySet) -> Option<String> {
    let leaf = route.leaf(leaf)?;
    Some(match &leaf.kind {
        LeafKind::Access(_) => return None,
        LeafKind::Scope(scope) => format!("scope `{scope}`"),
        LeafKind::Role(role) => format!("role `{}`", policy.roles.get(*role).map_or("", |role| &*role.name)),
        LeafKind::Permission(permission, _) => format!("permission `{permission}`"),
        LeafKind::Issuer(issuer) => format!("a token of `{}`", issuer.as_str()),
        LeafKind::Mfa => "a second factor".to_owned(),
        LeafKind::MaxAge(age) => format!("a login not longer than {} seconds ago", age.as_secs()),
        LeafKind::Comparison(comparison) if is_shown(comparison) => format!("`{}`", leaf.text),
        LeafKind::Comparison(_) => "a further condition".to_owned(),
    })
}

/// A comparison of facts of the request with each other may be shown; the values of a policy may be internal.
fn is_shown(comparison: &Comparison) -> bool {
    [&comparison.left, &comparison.right].into_iter().all(|operand| match operand {
        Operand::Path(_) | Operand::User(_) | Operand::Query(_) | Operand::RequestMethod | Operand::RequestHost => true,
        Operand::Token(_)
        | Operand::ClientIp
        | Operand::ClientCountry
        | Operand::Header(_)
        | Operand::RequestTime
        | Operand::RequestWeekday
        | Operand::Env(_)
        | Operand::Transport
        | Operand::String(_)
        | Operand::Integer(_)
        | Operand::Float(_)
        | Operand::Bool(_)
        | Operand::Time(_)
        | Operand::Duration(_)
        | Operand::Set(_)
        | Operand::Present
        | Operand::Missing => false,
    })
}
