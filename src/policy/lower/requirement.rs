//! Requirements.

use crate::diagnostic::{Code, Diagnostic, Edit, Fix, Span, Spanned};
use crate::policy::document::{Access, AccessRef, Clause, Join, Names, Requirement, RequirementObject, Suppression};
use crate::policy::keys::Context;
use crate::policy::yaml::{Key, Node, Style, Value};

use super::{Lower, Object};

/// Where a requirement stands, which says what it may hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The value of a route.
    Route,
    /// The value of an access name.
    Access,
    /// `require` of a guard.
    Guard,
    /// Inside of `any`, `all` or `not`.
    Nested,
    /// `login.introspect`.
    Introspect,
}

impl Place {
    fn context(self) -> Context {
        match self {
            Self::Route => Context::Route,
            Self::Access => Context::Access,
            Self::Guard | Self::Nested | Self::Introspect => Context::Requirement,
        }
    }

    fn may_state_access(self) -> bool {
        matches!(self, Self::Route | Self::Access | Self::Introspect)
    }
}

impl Lower<'_> {
    /// A requirement and the suppressions in it; `deny` stands in for one that was refused.
    pub(super) fn requirement_or_deny(
        &mut self,
        node: &Node,
        place: Place,
        fallback: Span,
    ) -> (Requirement, Vec<Suppression>) {
        let requirement = self.requirement(node, place);
        let allow = match &node.value {
            Value::Map(entries) if matches!(place, Place::Route | Place::Access) => {
                self.suppressions(Object { entries })
            }
            _ => Vec::new(),
        };
        let span = if node.span.start == node.span.end { fallback } else { node.span };
        (requirement.unwrap_or_else(|| Requirement::Word(Spanned::new(Access::Deny, span))), allow)
    }

    pub(super) fn requirement(&mut self, node: &Node, place: Place) -> Option<Requirement> {
        match &node.value {
            Value::String(text) => self.requirement_word(text, node, place),
            Value::Map(entries) => {
                let object = self.known_requirement_keys(entries, place);
                self.requirement_object(object, node, place).map(Requirement::Object)
            }
            Value::Null => {
                self.report(
                    Diagnostic::new(Code::P308, "empty requirement", node.span, "nothing is asked for")
                        .help("if everybody may come in, write `public`"),
                );
                None
            }
            Value::List(_) => {
                self.bare_list(node, None);
                None
            }
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {
                self.wrong_type("a requirement", "a word, an access name or a map", node);
                None
            }
        }
    }

    fn requirement_word(&mut self, text: &str, node: &Node, place: Place) -> Option<Requirement> {
        if let Some(access) = Access::from_word(text) {
            if !place.may_state_access() {
                self.access_below_top(text, node.span, place);
                return None;
            }
            return Some(Requirement::Word(Spanned::new(access, node.span)));
        }
        if text.trim().is_empty() {
            self.report(Diagnostic::new(Code::P308, "empty requirement", node.span, "nothing is asked for"));
            return None;
        }
        self.name(text, node.span).map(Requirement::Named)
    }

    fn access_below_top(&mut self, word: &str, span: Span, place: Place) {
        let (message, label) = match place {
            Place::Guard => (format!("`{word}` in a guard"), "a guard only adds to what routes ask for"),
            _ => (format!("`{word}` below the top of a requirement"), "access is a property of the whole route"),
        };
        self.report(Diagnostic::new(Code::P303, message, span, label));
    }

    /// Like `known_keys`, but `access` below the top has its own code.
    fn known_requirement_keys<'n>(&mut self, entries: &'n [(Key, Node)], place: Place) -> Object<'n> {
        let context = place.context();
        for (key, _) in entries {
            if context.key(&key.text).is_some() || (key.text == "access" && place == Place::Introspect) {
                continue;
            }
            if key.text == "access" {
                self.access_below_top("access", key.span, place);
            } else {
                self.unknown_key(key, context);
            }
        }
        Object { entries }
    }

    fn requirement_object(&mut self, object: Object<'_>, node: &Node, place: Place) -> Option<RequirementObject> {
        if object.entries.is_empty() {
            self.report(
                Diagnostic::new(Code::P308, "empty requirement", node.span, "nothing is asked for")
                    .help("if everybody may come in, write `public`"),
            );
            return None;
        }
        let mut requirement = RequirementObject { span: node.span, access: None, clauses: Vec::new() };
        for (key, node) in object.entries {
            match key.text.as_str() {
                "access" if place.may_state_access() => requirement.access = self.access_ref(node),
                _ => requirement.clauses.extend(self.clause(key, node)),
            }
        }
        Some(requirement)
    }

    fn access_ref(&mut self, node: &Node) -> Option<AccessRef> {
        let text = self.text("`access`", node)?;
        match Access::from_word(&text.value) {
            Some(access) => Some(AccessRef::Word(Spanned::new(access, node.span))),
            None => self.name(&text.value, node.span).map(AccessRef::Named),
        }
    }

    /// An authorising key; `None` for the others.
    fn clause(&mut self, key: &Key, node: &Node) -> Option<Clause> {
        match key.text.as_str() {
            "scope" => self.choice(key, node, Self::scope_name).map(Clause::Scope),
            "role" => self.choice(key, node, Self::role_name).map(Clause::Role),
            "permission" => self.choice(key, node, Self::permission_name).map(Clause::Permission),
            "issuer" => self.choice(key, node, Self::name).map(Clause::Issuer),
            "where" => self.conditions("`where`", node).map(Clause::Where),
            "mfa" => match node.value {
                Value::Bool(true) => Some(Clause::Mfa(Span { end: node.span.end, ..key.span })),
                Value::Bool(false) => {
                    let found = Diagnostic::new(Code::P109, "`mfa` can only be `true`", node.span, "leave the key out");
                    self.report(found);
                    None
                }
                _ => {
                    self.wrong_type("`mfa`", "`true`", node);
                    None
                }
            },
            "max_age" => self.duration("`max_age`", node).map(Clause::MaxAge),
            "any" => self.alternatives(key, node).map(|members| Clause::Any(members, node.span)),
            "all" => self.alternatives(key, node).map(|members| Clause::All(members, node.span)),
            "not" => self.requirement(node, Place::Nested).map(|inner| Clause::Not(Box::new(inner), node.span)),
            _ => None,
        }
    }

    fn alternatives(&mut self, key: &Key, node: &Node) -> Option<Vec<Requirement>> {
        let Value::List(items) = &node.value else {
            self.wrong_type(&format!("`{}`", key.text), "a list of requirements", node);
            return None;
        };
        if items.is_empty() {
            self.empty_list(key, node);
            return None;
        }
        Some(items.iter().filter_map(|item| self.requirement(item, Place::Nested)).collect())
    }

    fn empty_list(&mut self, key: &Key, node: &Node) {
        let message = format!("empty requirement: `{}` of nothing", key.text);
        self.report(Diagnostic::new(Code::P308, message, node.span, "no members"));
    }

    /// One name, `{ any: […] }` or `{ all: […] }`.
    fn choice(
        &mut self,
        key: &Key,
        node: &Node,
        read: impl Fn(&mut Self, &str, Span) -> Option<Spanned<String>>,
    ) -> Option<Names> {
        match &node.value {
            Value::List(_) => {
                self.bare_list(node, Some(key));
                None
            }
            Value::Map(entries) => {
                let object = self.known_keys(entries, Context::Choice);
                self.joined(object, key, node, read)
            }
            Value::Null => {
                let message = format!("empty requirement: `{}` of nothing", key.text);
                self.report(Diagnostic::new(Code::P308, message, key.span, "no name"));
                None
            }
            Value::Bool(_) => {
                self.wrong_type(&format!("`{}`", key.text), "a name, `{ any: […] }` or `{ all: […] }`", node);
                None
            }
            _ => {
                let name = read(self, &node.text, node.span)?;
                Some(Names { join: Join::All, names: vec![name], span: node.span })
            }
        }
    }

    fn joined(
        &mut self,
        object: Object<'_>,
        key: &Key,
        node: &Node,
        read: impl Fn(&mut Self, &str, Span) -> Option<Spanned<String>>,
    ) -> Option<Names> {
        let (join, (join_key, list)) = match (object.entry("any"), object.entry("all")) {
            (Some(entry), None) => (Join::Any, entry),
            (None, Some(entry)) => (Join::All, entry),
            (Some(_), Some((all, _))) => {
                let message = format!("`any` and `all` in one `{}`", key.text);
                self.report(Diagnostic::new(Code::P010, message, all.span, "one of the two"));
                return None;
            }
            (None, None) => {
                if object.entries.is_empty() {
                    self.empty_list(key, node);
                }
                return None;
            }
        };
        let Value::List(items) = &list.value else {
            self.wrong_type(&format!("`{}`", join_key.text), "a list of names", list);
            return None;
        };
        if items.is_empty() {
            self.empty_list(join_key, list);
            return None;
        }
        let what = format!("a member of `{}`", join_key.text);
        let names: Vec<Spanned<String>> = items
            .iter()
            .filter_map(|item| self.text(&what, item))
            .collect::<Vec<_>>()
            .into_iter()
            .filter_map(|text| read(self, &text.value, text.span))
            .collect();
        (!names.is_empty()).then_some(Names { join, names, span: node.span })
    }

    /// P301: products disagree about what a bare list means.
    fn bare_list(&mut self, node: &Node, key: Option<&Key>) {
        let written = self.source.get(node.span.start as usize..node.span.end as usize).unwrap_or("");
        let inline = node.style == Style::Flow && !written.contains('\n');
        let mut found =
            Diagnostic::new(Code::P301, "a list needs `any` or `all`", node.span, "one of them, or all of them?")
                .note("products disagree here (AWS: any, OpenAPI: all), so we don't guess");
        for join in ["any", "all"] {
            if inline {
                let text = format!("{{ {join}: {written} }}");
                let title = key.map_or_else(|| text.clone(), |key| format!("{{ {}: {text} }}", key.text));
                found.fixes.push(Fix { title, edits: vec![Edit { span: node.span, text }] });
            }
        }
        if !inline {
            found = found.help("put the list under `any:` or `all:`");
        }
        self.report(found);
    }
}
