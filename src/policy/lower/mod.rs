//! YAML nodes → [`Document`]: every named thing with its place.
//!
//! Each document is walked key by key against the table in `keys`; every mistake becomes a diagnostic, and the
//! walk goes on, so that one run reports all of them. What was refused is left out, or stands in as `deny`, so
//! that names still resolve: a document with errors is never compiled.
//!
//! Names are not resolved here (`check`), and nothing is merged but apps of the same name.

mod app;
mod condition;
mod edge;
mod identity;
mod limit;
mod login;
mod names;
mod requirement;
mod route;
mod scalars;
mod template;
mod tests;
mod values;

use crate::diagnostic::{Code, Diagnostic, FileId, Sources, Span, Spanned, suggest};

use super::document::{Document, Fragment, FragmentId, Suppression};
use super::keys::{self, Context};
use super::yaml::{Key, Node, Text, Value, shorten};

pub use condition::reference as parse_reference;
pub(super) use edge::edge_of;
pub use scalars::{duration as parse_duration, is_host, is_private, size as parse_size, url_fault};

/// The language editions that this binary understands.
const NEWEST_EDITION: i64 = 1;
/// The most findings of one run; a file that earns more is hostile.
const MAX_FINDINGS: usize = 2000;

/// Lowers the documents of all files.
pub fn lower(files: &[(FileId, Vec<Node>)], sources: &Sources) -> (Document, Vec<Diagnostic>) {
    let mut lower =
        Lower { document: Document::default(), diagnostics: Vec::new(), fragment: FragmentId(0), source: "", path: "" };
    for (file, nodes) in files {
        let Some(source) = sources.get(*file) else { continue };
        lower.source = &source.text;
        lower.path = &source.path;
        for node in nodes {
            lower.document(*file, node);
        }
    }
    edge::add(&mut lower.document);
    if lower.is_full()
        && let Some(last) = lower.diagnostics.pop()
    {
        lower.diagnostics.push(last.note("the set holds more mistakes, which are not shown"));
    }
    (lower.document, lower.diagnostics)
}

/// Whether a file may hold only tests and their identities.
pub fn is_test_file(path: &str) -> bool {
    path.ends_with(".test.yaml") || path.ends_with(".test.yml")
}

/// The state of a run.
struct Lower<'s> {
    document: Document,
    diagnostics: Vec<Diagnostic>,
    /// The fragment that is being read.
    fragment: FragmentId,
    /// Text and path of its file.
    source: &'s str,
    path: &'s str,
}

/// A map whose keys were checked against a context.
#[derive(Clone, Copy)]
struct Object<'n> {
    entries: &'n [(Key, Node)],
}

impl<'n> Object<'n> {
    fn entry(self, name: &str) -> Option<&'n (Key, Node)> {
        self.entries.iter().find(|(key, _)| key.text == name)
    }

    fn get(self, name: &str) -> Option<&'n Node> {
        self.entry(name).map(|(_, node)| node)
    }
}

impl<'s> Lower<'s> {
    fn report(&mut self, found: Diagnostic) {
        if !self.is_full() {
            self.diagnostics.push(found);
        }
    }

    /// Whether nothing more is reported, so that looking on is a waste.
    fn is_full(&self) -> bool {
        self.diagnostics.len() >= MAX_FINDINGS
    }

    /// Reports the error of a parser and leaves the value out.
    fn kept<T>(&mut self, result: Result<T, Diagnostic>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(found) => {
                self.report(found);
                None
            }
        }
    }

    // === Documents ===

    fn document(&mut self, file: FileId, node: &Node) {
        let is_test_file = is_test_file(self.path);
        if node.value == Value::Null {
            self.report(Diagnostic::new(Code::P012, "empty document", node.span, "nothing here"));
            return;
        }
        let Some(entries) = self.map("a document", node) else { return };
        if !self.version(entries, node) {
            return;
        }
        self.fragment = FragmentId(self.document.fragments.len());
        let fragment = Fragment { file, span: node.span, is_test_file, app: None, allow: Vec::new() };
        self.document.fragments.push(fragment);
        let context = if is_test_file { Context::TestDocument } else { Context::Document };
        let object = self.known_keys(entries, context);
        if !is_test_file {
            self.app(object, node.span);
            self.named_things(object);
        }
        self.identities(object);
        self.tests(object);
    }

    fn version(&mut self, entries: &[(Key, Node)], document: &Node) -> bool {
        let Some((_, node)) = entries.iter().find(|(key, _)| key.text == "version") else {
            let at = Span { end: document.span.start, ..document.span };
            let label = entries.first().map_or(document.span, |(key, _)| key.span);
            self.report(
                Diagnostic::new(Code::P009, "`version` is missing", label, "a document begins with `version: 1`").fix(
                    "say which edition of the language this is",
                    at,
                    "version: 1\n",
                ),
            );
            return true;
        };
        match node.value {
            Value::Integer(1..=NEWEST_EDITION) => true,
            Value::Integer(version) if version > NEWEST_EDITION => {
                let release = env!("CARGO_PKG_VERSION");
                self.report(
                    Diagnostic::new(
                        Code::P003,
                        format!("`version: {version}` is newer than this binary"),
                        node.span,
                        "not known yet",
                    )
                    .note(format!("portcullis {release} understands editions up to {NEWEST_EDITION}"))
                    .help("update portcullis"),
                );
                false
            }
            _ => {
                let message = format!("bad version `{}`", shorten(&node.text));
                self.report(Diagnostic::new(Code::P109, message, node.span, "the edition is `1`"));
                true
            }
        }
    }

    // === Maps ===

    /// The entries of a map.
    fn map<'n>(&mut self, what: &str, node: &'n Node) -> Option<&'n [(Key, Node)]> {
        match &node.value {
            Value::Map(entries) => Some(entries),
            _ => {
                self.wrong_type(what, "a map", node);
                None
            }
        }
    }

    /// A map with the keys of a context; others are reported.
    fn object<'n>(&mut self, what: &str, node: &'n Node, context: Context) -> Option<Object<'n>> {
        let entries = self.map(what, node)?;
        Some(self.known_keys(entries, context))
    }

    fn known_keys<'n>(&mut self, entries: &'n [(Key, Node)], context: Context) -> Object<'n> {
        for (key, _) in entries {
            if context.key(&key.text).is_none() && !self.is_full() {
                self.unknown_key(key, context);
            }
        }
        Object { entries }
    }

    fn unknown_key(&mut self, key: &Key, context: Context) {
        let name = shorten(&key.text);
        if context == Context::TestDocument && Context::Document.key(&key.text).is_some() {
            self.report(
                Diagnostic::new(Code::P007, format!("`{name}` in a test file"), key.span, "belongs to a policy file")
                    .help("a `*.test.yaml` holds only `version`, `identities` and `tests`"),
            );
            return;
        }
        if context == Context::Requirement && keys::is_route_option(&key.text) {
            let message = format!("`{name}` is legal only at the top of a route");
            self.report(Diagnostic::new(Code::P004, message, key.span, "does not authorise anybody"));
            return;
        }
        let mut found = Diagnostic::new(
            Code::P004,
            format!("unknown key `{name}`"),
            key.span,
            format!("not a key of {}", context.noun()),
        );
        let near = suggest::closest(&key.text, context.keys().map(|key| key.name));
        found = match near {
            Some(near) => found.fix("a key with a similar name exists", key.span, near),
            None => {
                let names: Vec<&str> = context.keys().map(|key| key.name).collect();
                found.help(format!("keys of {}: `{}`", context.noun(), names.join("` `")))
            }
        };
        self.report(found);
    }

    fn wrong_type(&mut self, what: &str, expected: &str, node: &Node) {
        let kind = node.kind();
        let mut found = Diagnostic::new(Code::P010, format!("{what} must be {expected}, not {kind}"), node.span, kind);
        if let Value::Map(entries) = &node.value
            && let [(key, _)] = entries.as_slice()
            && matches!(key.text.as_str(), "env" | "file")
        {
            found = found.help(format!("write `{}:…` without a blank behind the colon", key.text));
        }
        self.report(found);
    }

    // === Suppressions ===

    /// `allow` of anything but an app header.
    fn suppressions(&mut self, object: Object<'_>) -> Vec<Suppression> {
        match object.get("allow") {
            None => Vec::new(),
            Some(node) => self.suppressions_of(node),
        }
    }

    fn suppressions_of(&mut self, node: &Node) -> Vec<Suppression> {
        let Value::Map(entries) = &node.value else {
            self.report(
                Diagnostic::new(Code::P511, "a suppression needs a reason", node.span, "not a map of codes to reasons")
                    .help("`allow: { P311: metrics are scraped without a login }`"),
            );
            return Vec::new();
        };
        entries.iter().filter_map(|(key, reason)| self.suppression(key, reason)).collect()
    }

    fn suppression(&mut self, key: &Key, reason: &Node) -> Option<Suppression> {
        if self.is_full() {
            return None;
        }
        let Ok(code) = key.text.parse::<Code>() else {
            let known = Code::ALL.iter().filter(|code| code.can_be_suppressed()).map(|code| code.as_str());
            let mut found =
                Diagnostic::new(Code::P511, format!("unknown code `{}`", shorten(&key.text)), key.span, "not a code");
            if let Some(near) = suggest::closest(&key.text, known) {
                found = found.help(format!("did you mean `{near}`?"));
            } else if key.text.contains(' ') {
                found =
                    found.help("a comma ends the reason in `{ … }`: quote it, or write the map on lines of its own");
            }
            self.report(found);
            return None;
        };
        if !code.can_be_suppressed() {
            let message = format!("`{code}` cannot be suppressed");
            self.report(Diagnostic::new(
                Code::P511,
                message,
                key.span,
                format!("{}: {}", code.severity().as_str(), code.title()),
            ));
            return None;
        }
        if reason.text.trim().is_empty() {
            let message = format!("`{code}` is suppressed without a reason");
            self.report(Diagnostic::new(Code::P511, message, reason.span, "say why"));
            return None;
        }
        Some(Suppression {
            code: Spanned::new(code, key.span),
            reason: Spanned::new(reason.text.trim().to_owned(), reason.span),
        })
    }

    /// A node's text with the way back to its place.
    fn text_of<'n>(&self, node: &'n Node) -> Text<'n>
    where
        's: 'n,
    {
        Text { value: &node.text, span: node.span, style: node.style, source: self.source }
    }

    fn text_of_key<'n>(&self, key: &'n Key) -> Text<'n>
    where
        's: 'n,
    {
        Text { value: &key.text, span: key.span, style: key.style, source: self.source }
    }
}
