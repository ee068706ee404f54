//! A finding: what is wrong with a policy or a setting, where, and how to mend it.
//!
//! Policies, settings and tests report [`Diagnostic`]s; `text`, `json`, `github` and `sarif` render
//! them. Nothing here decides whether something is a mistake, and nothing prints.

mod code;
pub mod github;
pub mod help;
pub mod json;
pub mod sarif;
pub mod suggest;
pub mod text;

pub use code::{Code, Severity};

use std::sync::Arc;

/// Which file of a set a span lies in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

/// A stretch of a source file, in bytes; `end` is exclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The file.
    pub file: FileId,
    /// The first byte.
    pub start: u32,
    /// The byte after the last.
    pub end: u32,
}

impl Span {
    /// From the start of `self` to the end of `other`, which lies behind it in the same file.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        Self { end: other.end.max(self.end), ..self }
    }
}

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub span: Span,
}

impl<T> Spanned<T> {
    /// Puts value and place together.
    pub fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }

    /// The same place with another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Spanned<U> {
        Spanned { value: f(self.value), span: self.span }
    }
}

/// A file that diagnostics point into.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// The path as it is shown, e.g. `policies/items.yaml`.
    pub path: Arc<str>,
    /// The text.
    pub text: Arc<str>,
    line_starts: Vec<u32>,
}

/// The files of a set, in the order of their paths.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<SourceFile>,
}

impl Sources {
    /// Adds a file and names it. Files are added in the order of their paths, so that sorting by span sorts
    /// by path and position.
    pub fn add(&mut self, path: &str, text: &str) -> FileId {
        let id = FileId(u32::try_from(self.files.len()).unwrap_or(u32::MAX));
        let line_starts = std::iter::once(0)
            .chain(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| offset(at + 1)))
            .collect();
        self.files.push(SourceFile { path: path.into(), text: text.into(), line_starts });
        id
    }

    /// A file by its name in spans.
    pub fn get(&self, file: FileId) -> Option<&SourceFile> {
        self.files.get(file.0 as usize)
    }

    /// All files.
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// Line and column of the span's start, both counted from 1; columns count characters.
    pub fn position(&self, span: Span) -> (usize, usize) {
        let Some(file) = self.get(span.file) else { return (1, 1) };
        let line = file.line_starts.partition_point(|start| *start <= span.start).max(1);
        let start = file.line_starts.get(line - 1).copied().unwrap_or(0);
        let before = file.text.get(start as usize..span.start as usize).unwrap_or("");
        (line, before.chars().count() + 1)
    }

    /// The text of a span; empty if it does not lie in a file.
    pub fn text(&self, span: Span) -> &str {
        self.get(span.file).and_then(|file| file.text.get(span.start as usize..span.end as usize)).unwrap_or("")
    }

    /// `path:line`, as explanations and logs name places.
    pub fn place(&self, span: Span) -> String {
        let path = self.get(span.file).map_or("", |file| &file.path);
        format!("{path}:{}", self.position(span).0)
    }
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// A place with a remark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The place; underlined.
    pub span: Span,
    /// The remark beside the underline; may be empty.
    pub text: String,
}

/// A change of the text that mends a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fix {
    /// What it does, e.g. ``a scope with a similar name exists``.
    pub title: String,
    /// The replacements; they do not overlap.
    pub edits: Vec<Edit>,
}

/// One replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// What is replaced; an empty span inserts.
    pub span: Span,
    /// By what.
    pub text: String,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Which kind of finding.
    pub code: Code,
    /// Error or warning here; some codes are warnings that become errors in stricter surroundings.
    pub severity: Severity,
    /// One line: lower case, no full stop, the user's text in backticks.
    pub message: String,
    /// The place it is about.
    pub primary: Label,
    /// Further places.
    pub secondary: Vec<Label>,
    /// Background, e.g. why this is refused.
    pub notes: Vec<String>,
    /// What to do, where no [`Fix`] can do it.
    pub help: Vec<String>,
    /// Changes that mend it; several are alternatives.
    pub fixes: Vec<Fix>,
    /// The reason with which the policy suppresses it.
    pub suppressed: Option<String>,
}

impl Diagnostic {
    /// A finding with the code's own severity. What it quotes may hold line ends and escapes of terminals: they are shown
    /// as U+FFFD, so that a finding stays one line of a log.
    pub fn new(code: Code, message: impl Into<String>, span: Span, label: impl Into<String>) -> Self {
        Self {
            code,
            severity: code.severity(),
            message: one_line(message.into()),
            primary: Label { span, text: one_line(label.into()) },
            secondary: Vec::new(),
            notes: Vec::new(),
            help: Vec::new(),
            fixes: Vec::new(),
            suppressed: None,
        }
    }

    /// Adds a further place.
    #[must_use]
    pub fn also(mut self, span: Span, text: impl Into<String>) -> Self {
        self.secondary.push(Label { span, text: one_line(text.into()) });
        self
    }

    /// Adds a note.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Adds a help line.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// Adds a fix of one replacement.
    #[must_use]
    pub fn fix(mut self, title: impl Into<String>, span: Span, text: impl Into<String>) -> Self {
        self.fixes.push(Fix { title: title.into(), edits: vec![Edit { span, text: text.into() }] });
        self
    }

    /// Whether this finding keeps the set from loading.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error && self.suppressed.is_none()
    }
}

/// A text without control characters.
fn one_line(text: String) -> String {
    if text.contains(char::is_control) { text.replace(char::is_control, "\u{fffd}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_finding_quotes_stays_one_line_without_escapes() {
        let found = Diagnostic::new(Code::P109, "`a\r\nb\u{1b}[31m` is wrong", Span::default(), "c\td");
        let found = found.also(Span::default(), "e\u{85}f");
        assert_eq!(found.message, "`a\u{fffd}\u{fffd}b\u{fffd}[31m` is wrong");
        assert_eq!((&*found.primary.text, &*found.secondary[0].text), ("c\u{fffd}d", "e\u{fffd}f"));
    }
}
