//! The names of a set by kind.

use std::collections::{BTreeMap, HashSet};

use crate::diagnostic::{Diagnostic, Sources, Span, Spanned, suggest};
use crate::policy::document::{
    Access, Condition, Definition, Document, Fixture, Guard, Issuer, Limit, Requirement, Role, Set,
};

use super::budget::Budget;

/// The role that opens the console; built in, reached only through `includes`.
pub(super) const CONSOLE_ROLE: &str = "portcullis:admin";

/// Definitions by name; of several with one name, the first.
pub(super) struct Index<'d, T>(BTreeMap<&'d str, &'d Definition<T>>);

impl<'d, T> Index<'d, T> {
    fn of(definitions: &'d [Definition<T>]) -> Self {
        let mut map = BTreeMap::new();
        for definition in definitions {
            map.entry(definition.name.value.as_str()).or_insert(definition);
        }
        Self(map)
    }

    pub(super) fn get(&self, name: &str) -> Option<&'d Definition<T>> {
        self.0.get(name).copied()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &'d str> {
        self.0.keys().copied()
    }
}

/// The names of a set.
pub(super) struct Names<'d> {
    pub(super) issuers: Index<'d, Issuer>,
    pub(super) scopes: Index<'d, Spanned<String>>,
    pub(super) permissions: Index<'d, Spanned<String>>,
    pub(super) roles: Index<'d, Role>,
    pub(super) sets: Index<'d, Set>,
    pub(super) conditions: Index<'d, Condition>,
    pub(super) access: Index<'d, Requirement>,
    pub(super) limits: Index<'d, Limit>,
    pub(super) guards: Index<'d, Guard>,
    pub(super) identities: Index<'d, Fixture>,
    /// What the checks of a run may still cost.
    pub(super) budget: Budget,
    /// Permissions that roles grant by their full name.
    pub(super) granted: BTreeMap<&'d str, Span>,
}

impl<'d> Names<'d> {
    pub(super) fn of(document: &'d Document) -> Self {
        let granted = (document.roles.iter().flat_map(|role| &role.value.can))
            .filter(|permission| !permission.value.contains('*'))
            .map(|permission| (permission.value.as_str(), permission.span))
            .collect();
        Self {
            issuers: Index::of(&document.issuers),
            scopes: Index::of(&document.scopes),
            permissions: Index::of(&document.permissions),
            roles: Index::of(&document.roles),
            sets: Index::of(&document.sets),
            conditions: Index::of(&document.conditions),
            access: Index::of(&document.access),
            limits: Index::of(&document.limits),
            guards: Index::of(&document.guards),
            identities: Index::of(&document.identities),
            granted,
            budget: Budget::default(),
        }
    }

    /// The candidate that `word` most probably means, if one is near.
    pub(super) fn similar<'n>(&self, word: &str, candidates: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
        suggest::closest(word, candidates.into_iter().take_while(|_| self.budget.spend(20)))
    }

    /// The role and everything it includes, itself first.
    pub(super) fn closure(&self, role: &'d str) -> Vec<&'d str> {
        let mut closure = vec![role];
        let mut known = HashSet::from([role]);
        let mut at = 0;
        while let Some(name) = closure.get(at).copied().filter(|_| self.budget.spend(2)) {
            at += 1;
            let Some(definition) = self.roles.get(name) else { continue };
            for included in &definition.value.includes {
                if known.insert(included.value.as_str()) {
                    closure.push(&included.value);
                }
            }
        }
        closure
    }

    /// Whether somebody with this role has the permission.
    pub(super) fn role_grants(&self, role: &'d str, permission: &str) -> bool {
        (self.closure(role).into_iter().filter_map(|name| self.roles.get(name)))
            .any(|role| role.value.can.iter().any(|pattern| pattern_matches(&pattern.value, permission)))
    }

    /// The access word at the top of a requirement, through names.
    pub(super) fn access_word(&self, requirement: &'d Requirement) -> Option<&'d Spanned<Access>> {
        use crate::policy::document::AccessRef;
        let mut requirement = requirement;
        // A chain of names longer than there are names is a cycle, reported as P104.
        for _ in 0..=self.access.0.len() {
            let name = match requirement {
                Requirement::Word(word) => return Some(word),
                Requirement::Named(name) => name,
                Requirement::Object(object) => match &object.access {
                    None => return None,
                    Some(AccessRef::Word(word)) => return Some(word),
                    Some(AccessRef::Named(name)) => name,
                },
            };
            requirement = &self.access.get(&name.value)?.value;
        }
        None
    }

    /// The access that a route with this requirement has.
    pub(super) fn access_of(&self, requirement: &'d Requirement) -> Access {
        self.access_word(requirement).map_or(Access::Authenticated, |word| word.value)
    }
}

/// Whether `pattern` (`*`, `prefix:*` or a name) covers `permission`.
pub(super) fn pattern_matches(pattern: &str, permission: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) if prefix.is_empty() || prefix.ends_with(':') => permission.starts_with(prefix),
        _ => pattern == permission,
    }
}

/// Names in backticks, joined by commas.
pub(super) fn quoted<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Adds the replacement of a misspelt name, written as the original was.
pub(super) fn replace(diagnostic: Diagnostic, title: &str, sources: &Sources, span: Span, name: &str) -> Diagnostic {
    let text = match sources.text(span).chars().next() {
        Some(quote @ ('"' | '\'')) => format!("{quote}{name}{quote}"),
        _ => name.to_owned(),
    };
    diagnostic.fix(title, span, text)
}
