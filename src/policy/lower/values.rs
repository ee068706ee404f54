//! Values that many keys share: texts, words, durations, references to the environment and to files.

use std::time::Duration;

use crate::diagnostic::{Code, Diagnostic, Span, Spanned, suggest};
use crate::policy::document::{Condition, HeaderEdit, HeaderValue, LimitUse, Source};
use crate::policy::template::Template;
use crate::policy::yaml::{Node, Style, Text, Value, shorten};

use super::{Lower, condition, limit, scalars, template};

impl Lower<'_> {
    fn bad_value(&mut self, message: String, span: Span, label: &str) {
        self.report(Diagnostic::new(Code::P109, message, span, label));
    }

    /// A text; numbers and Booleans count as they are written.
    pub(super) fn text(&mut self, what: &str, node: &Node) -> Option<Spanned<String>> {
        if !node.is_scalar() {
            self.wrong_type(what, "a text", node);
            return None;
        }
        Some(Spanned::new(node.text.clone(), node.span))
    }

    /// A text or a list of texts.
    pub(super) fn texts(&mut self, what: &str, node: &Node) -> Vec<Spanned<String>> {
        match &node.value {
            Value::List(items) => items.iter().filter_map(|item| self.text(what, item)).collect(),
            _ => self.text_or_list(what, node),
        }
    }

    fn text_or_list(&mut self, what: &str, node: &Node) -> Vec<Spanned<String>> {
        if !node.is_scalar() {
            self.wrong_type(what, "a text or a list of texts", node);
            return Vec::new();
        }
        vec![Spanned::new(node.text.clone(), node.span)]
    }

    /// One of a few words.
    pub(super) fn word(&mut self, what: &str, node: &Node, words: &[&'static str]) -> Option<Spanned<&'static str>> {
        let text = self.text(what, node)?;
        if let Some(word) = words.iter().find(|word| **word == text.value) {
            return Some(Spanned::new(*word, node.span));
        }
        let mut found = Diagnostic::new(
            Code::P109,
            format!("bad value `{}` for {what}", shorten(&text.value)),
            node.span,
            format!("one of `{}`", words.join("`, `")),
        );
        if let Some(near) = suggest::closest(&text.value, words.iter().copied()) {
            found = found.fix(format!("did you mean `{near}`?"), node.span, near);
        }
        self.report(found);
        None
    }

    pub(super) fn boolean(&mut self, what: &str, node: &Node) -> Option<Spanned<bool>> {
        if let Value::Bool(value) = node.value {
            return Some(Spanned::new(value, node.span));
        }
        let kind = node.kind();
        let mut found =
            Diagnostic::new(Code::P010, format!("{what} must be `true` or `false`, not {kind}"), node.span, kind);
        if node.style == Style::Plain {
            match node.text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "true" => found = found.fix("did you mean `true`?", node.span, "true"),
                "no" | "off" | "false" => found = found.fix("did you mean `false`?", node.span, "false"),
                _ => {}
            }
        }
        self.report(found);
        None
    }

    pub(super) fn duration(&mut self, what: &str, node: &Node) -> Option<Spanned<Duration>> {
        if !node.is_scalar() {
            self.wrong_type(what, "a duration such as `30s`", node);
            return None;
        }
        let value = scalars::duration(&node.text);
        if value.is_none() {
            let message = format!("bad duration `{}` for {what}", shorten(&node.text));
            self.bad_value(message, node.span, "a whole number and `s`, `m`, `h` or `d`, such as `90s`");
        }
        Some(Spanned::new(value?, node.span))
    }

    pub(super) fn size(&mut self, what: &str, node: &Node) -> Option<Spanned<u64>> {
        if !node.is_scalar() {
            self.wrong_type(what, "a size such as `10MiB`", node);
            return None;
        }
        let value = scalars::size(&node.text);
        if value.is_none() {
            let message = format!("bad size `{}` for {what}", shorten(&node.text));
            self.bad_value(message, node.span, "a whole number and a unit, such as `10MiB`, `64KiB` or `10MB`");
        }
        Some(Spanned::new(value?, node.span))
    }

    pub(super) fn integer(&mut self, what: &str, node: &Node) -> Option<Spanned<i64>> {
        match node.value {
            Value::Integer(value) => Some(Spanned::new(value, node.span)),
            _ => {
                self.wrong_type(what, "a whole number", node);
                None
            }
        }
    }

    pub(super) fn ip(&mut self, what: &str, node: &Node) -> Option<std::net::IpAddr> {
        let text = self.text(what, node)?;
        let parsed = text.value.parse().ok();
        if parsed.is_none() {
            self.bad_value(format!("bad address `{}` for {what}", shorten(&text.value)), node.span, "an IP address");
        }
        parsed
    }

    pub(super) fn template(&mut self, what: &str, node: &Node, usage: template::Use) -> Option<Template> {
        if !node.is_scalar() {
            self.wrong_type(what, "a path template", node);
            return None;
        }
        let text = self.text_of(node);
        let mut found = Vec::new();
        let parsed = template::parse(text, 0..text.value.len(), usage, &mut found);
        found.into_iter().for_each(|found| self.report(found));
        parsed
    }

    pub(super) fn templates(&mut self, what: &str, node: &Node) -> Vec<Template> {
        match &node.value {
            Value::List(items) => {
                items.iter().filter_map(|item| self.template(what, item, template::Use::Match)).collect()
            }
            _ => self.template(what, node, template::Use::Match).into_iter().collect(),
        }
    }

    pub(super) fn methods(&mut self, what: &str, node: &Node) -> Vec<Spanned<String>> {
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let mut methods = Vec::new();
        for item in items {
            if self.text(what, item).is_none() {
                continue;
            }
            let text = self.text_of(item);
            let mut found = Vec::new();
            methods.extend(template::method(text, 0..text.value.len(), &mut found));
            found.into_iter().for_each(|found| self.report(found));
        }
        methods
    }

    // === Sources ===

    /// `env:NAME`, `file:PATH`, or a text.
    pub(super) fn source(&mut self, what: &str, node: &Node) -> Option<Spanned<Source>> {
        let text = self.text(what, node)?;
        let value = if let Some(name) = text.value.strip_prefix("env:") {
            if !scalars::is_variable_name(name) {
                self.bad_value(format!("`{}` is not a variable's name", shorten(name)), node.span, "`env:NAME`");
                return None;
            }
            Source::Env(name.to_owned())
        } else if let Some(path) = text.value.strip_prefix("file:") {
            if path.trim().is_empty() {
                self.bad_value(format!("{what} names no file"), node.span, "`file:PATH`");
                return None;
            }
            Source::File(path.to_owned())
        } else {
            Source::Literal(text.value)
        };
        Some(Spanned::new(value, node.span))
    }

    /// A source that may not be written out (P403).
    pub(super) fn secret(&mut self, what: &str, node: &Node) -> Option<Spanned<Source>> {
        let source = self.source(what, node)?;
        if matches!(source.value, Source::Literal(_)) {
            self.report(
                Diagnostic::new(Code::P403, format!("literal secret in {what}"), node.span, "not shown")
                    .note("policies are read by many and kept for long; a secret in them is not one any more")
                    .help("write `env:NAME` or `file:PATH`, and change this secret"),
            );
            return None;
        }
        Some(source)
    }

    pub(super) fn secrets(&mut self, what: &str, node: &Node) -> Vec<Spanned<Source>> {
        match &node.value {
            Value::List(items) => items.iter().filter_map(|item| self.secret(what, item)).collect(),
            _ => self.secret(what, node).into_iter().collect(),
        }
    }

    /// A URL, or `env:NAME`.
    pub(super) fn url(&mut self, what: &str, node: &Node, path_allowed: bool) -> Option<Spanned<Source>> {
        let source = self.source(what, node)?;
        match &source.value {
            Source::Env(_) => Some(source),
            Source::File(_) => {
                self.bad_value(format!("{what} in a file"), node.span, "a URL, or `env:NAME`");
                None
            }
            Source::Literal(text) => match scalars::url_fault(text, path_allowed) {
                None => Some(source),
                Some("holds a user name or password") => {
                    let message = format!("credentials in {what}");
                    self.report(Diagnostic::new(Code::P403, message, node.span, "not shown"));
                    None
                }
                Some(fault) => {
                    let message = format!("bad URL `{}` for {what}", shorten(text));
                    self.bad_value(message, node.span, fault);
                    None
                }
            },
        }
    }

    // === Conditions, limits, headers ===

    pub(super) fn condition(&mut self, what: &str, node: &Node) -> Option<Condition> {
        match &node.value {
            Value::String(_) => {
                let parsed = condition::condition(self.text_of(node));
                self.kept(parsed)
            }
            _ => {
                self.wrong_type(what, "a comparison or a condition name", node);
                None
            }
        }
    }

    /// A condition, or a list of them.
    pub(super) fn conditions(&mut self, what: &str, node: &Node) -> Option<Condition> {
        let Value::List(items) = &node.value else { return self.condition(what, node) };
        if items.is_empty() {
            self.report(Diagnostic::new(Code::P308, format!("empty list in {what}"), node.span, "nothing to hold"));
            return None;
        }
        let conditions: Vec<Condition> = items.iter().filter_map(|item| self.condition(what, item)).collect();
        Some(Condition::All(conditions, node.span))
    }

    /// A limit, a limit name, `none`, or a list of them.
    pub(super) fn limits(&mut self, node: &Node, login: bool) -> Vec<LimitUse> {
        match &node.value {
            Value::List(items) => items.iter().filter_map(|item| self.limit_use(item, login)).collect(),
            _ => self.limit_use(node, login).into_iter().collect(),
        }
    }

    fn limit_use(&mut self, node: &Node, login: bool) -> Option<LimitUse> {
        let text = self.text("`limit`", node)?;
        if text.value == "none" {
            return Some(LimitUse::None(node.span));
        }
        if !text.value.contains('/') && scalars::is_name(&text.value) {
            return Some(LimitUse::Named(text));
        }
        let parsed = limit::limit(self.text_of(node), login);
        self.kept(parsed).map(LimitUse::Inline)
    }

    /// A map of header names to values.
    pub(super) fn header_edits(&mut self, what: &str, node: &Node) -> Vec<HeaderEdit> {
        let Some(entries) = self.map(what, node) else { return Vec::new() };
        let mut edits = Vec::new();
        for (key, value) in entries {
            if let Some(name) = self.header_name(&key.text, key.span) {
                edits.extend(self.header_value(value).map(|value| HeaderEdit { name, value }));
            }
        }
        edits
    }

    pub(super) fn header_name(&mut self, name: &str, span: Span) -> Option<Spanned<String>> {
        if !scalars::is_token(name) {
            self.bad_value(format!("bad header name `{}`", shorten(name)), span, "letters, digits and `-`");
            return None;
        }
        Some(Spanned::new(name.to_owned(), span))
    }

    pub(super) fn header_value(&mut self, node: &Node) -> Option<HeaderValue> {
        if node.value == Value::Null {
            return Some(HeaderValue::Remove);
        }
        let text = self.text("the value of a header", node)?;
        if let Some(inner) = text.value.strip_prefix('"') {
            let literal = inner.strip_suffix('"').filter(|inner| !inner.contains('"'));
            let Some(literal) = literal.filter(|literal| !literal.chars().any(char::is_control)) else {
                self.bad_value(
                    "bad string for a header".to_owned(),
                    node.span,
                    "`'\"text\"'`, without control characters",
                );
                return None;
            };
            return Some(HeaderValue::Literal(Spanned::new(literal.to_owned(), node.span)));
        }
        let words = self.text_of(node);
        if !condition::is_rooted(words.value) {
            self.report(unquoted_header(words));
            return None;
        }
        let parsed = condition::reference(words);
        self.kept(parsed).map(|reference| HeaderValue::Reference(Spanned::new(reference, node.span)))
    }
}

fn unquoted_header(text: Text<'_>) -> Diagnostic {
    let message = format!("`{}` is neither a reference nor a quoted string", shorten(text.value));
    let found = Diagnostic::new(Code::P106, message, text.span, "neither");
    if text.value.contains(['"', '\'', '\\', '\n']) {
        return found;
    }
    found.fix("a fixed text is quoted twice, for YAML and for the value", text.span, format!("'\"{}\"'", text.value))
}
