//! Findings for people, in the manner of rustc.

use std::fmt::Write as _;
use std::ops::Range;
use std::time::Duration;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Patch, Renderer, Snippet};

use super::{Diagnostic, Fix, Label, Severity, SourceFile, Sources, Span};

/// Places in one file that are at most this many lines apart are shown in one piece.
const NEAR: usize = 5;
/// More source text than this is not shown.
const MAX_SHOWN: usize = 64 * 1024;

/// What was looked at, for the last line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scope {
    /// How many files.
    pub files: usize,
    /// How many routes.
    pub routes: usize,
    /// How many guards.
    pub guards: usize,
    /// How many of the policy's tests passed, if all that ran did.
    pub passed: usize,
    /// How long it took.
    pub took: Duration,
}

/// Renders findings, one after the other with an empty line between; suppressed ones are left out.
///
/// Secrets that a finding points at (P403) are not shown, neither there nor beside another finding.
pub fn render(diagnostics: &[Diagnostic], sources: &Sources, colored: bool) -> String {
    let renderer = if colored { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.decor_style(DecorStyle::Ascii).term_width(120);
    let secrets: Vec<Span> =
        diagnostics.iter().filter(|found| found.code == super::Code::P403).map(|found| found.primary.span).collect();
    let mut out = String::new();
    for found in diagnostics.iter().filter(|found| found.suppressed.is_none()) {
        out.push_str(&renderer.render(&report(found, sources, &secrets)));
        out.push_str("\n\n");
    }
    out
}

/// `3 errors, 2 warnings in 4 files (31 routes, 3 guards) in 6 ms. …`
pub fn summary(diagnostics: &[Diagnostic], scope: Scope) -> String {
    let count = |severity| diagnostics.iter().filter(|d| d.suppressed.is_none() && d.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let counted = match (errors, warnings) {
        (0, 0) => "no problems".to_owned(),
        (0, warnings) => plural(warnings, "warning"),
        (errors, 0) => plural(errors, "error"),
        (errors, warnings) => format!("{}, {}", plural(errors, "error"), plural(warnings, "warning")),
    };
    let mut line = format!(
        "{counted} in {} ({}, {}) in {} ms",
        plural(scope.files, "file"),
        plural(scope.routes, "route"),
        plural(scope.guards, "guard"),
        scope.took.as_millis()
    );
    let suppressed = diagnostics.iter().filter(|found| found.suppressed.is_some()).count();
    if suppressed > 0 {
        let _ = write!(line, ", {suppressed} suppressed");
    }
    if scope.passed > 0 {
        let _ = write!(line, " · {} passed", plural(scope.passed, "test"));
    }
    if let Some(first) = first_code(diagnostics) {
        let _ = write!(line, ". `portcullis help {first}` explains a code.");
    }
    line
}

/// The code to name as an example: of an error if there is one.
fn first_code(diagnostics: &[Diagnostic]) -> Option<super::Code> {
    let shown = || diagnostics.iter().filter(|found| found.suppressed.is_none());
    shown().find(|found| found.severity == Severity::Error).or_else(|| shown().next()).map(|found| found.code)
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// A stretch of a file that is shown.
struct Shown {
    text: String,
    /// The byte of the file that it begins with, and that byte's line.
    start: usize,
    line: usize,
}

impl Shown {
    fn range(&self, span: Span) -> Range<usize> {
        let at = |offset: u32| {
            let at = (offset as usize).saturating_sub(self.start).min(self.text.len());
            (0..=at).rev().find(|at| self.text.is_char_boundary(*at)).unwrap_or(0)
        };
        let start = at(span.start);
        start..at(span.end).max(start)
    }
}

fn report<'a>(found: &'a Diagnostic, sources: &'a Sources, secrets: &[Span]) -> Vec<Group<'a>> {
    let level = match found.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(level.primary_title(found.message.as_str()).id(found.code.as_str()));
    for (file, labels) in pieces(found, sources) {
        group = match shown(file, labels.iter().map(|(label, _)| label.span), sources, secrets) {
            Some(shown) => {
                let annotations = labels.iter().map(|(label, kind)| {
                    let text = (!label.text.is_empty()).then_some(label.text.as_str());
                    kind.span(shown.range(label.span)).label(text)
                });
                let annotations: Vec<_> = annotations.collect();
                group.element(
                    Snippet::source(shown.text)
                        .line_start(shown.line)
                        .path(file.path.as_ref())
                        .annotations(annotations),
                )
            }
            None => {
                let span = labels.first().map(|(label, _)| label.span).unwrap_or_default();
                let (line, column) = sources.position(span);
                let origin = Origin::path(file.path.as_ref());
                // Of a file that is empty or could not be read there is nothing but the path.
                let origin = if file.text.is_empty() { origin } else { origin.line(line).char_column(column) };
                group.element(origin)
            }
        };
    }
    for note in &found.notes {
        group = group.element(Level::NOTE.message(note.as_str()));
    }
    for help in &found.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    let mut groups = vec![group];
    match found.fixes.as_slice() {
        [] => {}
        [fix] => groups.extend(patch(fix, sources, secrets)),
        several => {
            let titles: Vec<&str> = several.iter().map(|fix| fix.title.as_str()).collect();
            groups.push(Group::with_title(Level::HELP.secondary_title(titles.join("   or   "))));
        }
    }
    groups
}

type Annotated<'a> = (&'a Label, AnnotationKind);

/// The places of a finding, those near each other together, the primary one first.
fn pieces<'a>(found: &'a Diagnostic, sources: &'a Sources) -> Vec<(&'a SourceFile, Vec<Annotated<'a>>)> {
    let mut pieces: Vec<(&SourceFile, Vec<Annotated<'_>>)> = Vec::new();
    let primary = std::iter::once((&found.primary, AnnotationKind::Primary));
    let secondary = found.secondary.iter().map(|label| (label, AnnotationKind::Context));
    for (label, kind) in primary.chain(secondary) {
        let Some(file) = sources.get(label.span.file) else { continue };
        let line = sources.position(label.span).0;
        let near = pieces.iter_mut().find(|(_, labels)| {
            labels.iter().any(|(other, _)| {
                other.span.file == label.span.file && sources.position(other.span).0.abs_diff(line) <= NEAR
            })
        });
        match near {
            Some((_, labels)) => labels.push((label, kind)),
            None => pieces.push((file, vec![(label, kind)])),
        }
    }
    pieces
}

/// The lines of a file that hold all the places, secrets masked; `None` if that is too much.
fn shown(
    file: &SourceFile,
    spans: impl Iterator<Item = Span> + Clone,
    sources: &Sources,
    secrets: &[Span],
) -> Option<Shown> {
    let text: &str = &file.text;
    if text.is_empty() {
        return None;
    }
    let first = spans.clone().min_by_key(|span| span.start)?;
    let last = spans.map(|span| span.end.max(span.start) as usize).max()?;
    let start = text.get(..first.start as usize)?.rfind('\n').map_or(0, |at| at + 1);
    let end = text.get(last..)?.find('\n').map_or(text.len(), |at| last + at);
    if end - start > MAX_SHOWN {
        return None;
    }
    let mut shown = text.get(start..end)?.to_owned();
    for secret in secrets.iter().filter(|secret| secret.file == first.file) {
        let (from, to) = ((secret.start as usize).max(start), (secret.end as usize).min(end));
        if from < to {
            let hidden: String = text.get(from..to)?.chars().map(mask).collect();
            shown.replace_range(from - start..to - start, &hidden);
        }
    }
    let line = sources.position(Span { end: first.start, ..first }).0;
    Some(Shown { text: shown, start, line })
}

/// A star for each byte, so that the places behind it stay; line ends stay themselves.
fn mask(c: char) -> &'static str {
    match (c, c.len_utf8()) {
        ('\n', _) => "\n",
        (_, 1) => "*",
        (_, 2) => "**",
        (_, 3) => "***",
        _ => "****",
    }
}

/// A fix, as a patch of the lines that it changes.
fn patch<'a>(fix: &'a Fix, sources: &'a Sources, secrets: &[Span]) -> Option<Group<'a>> {
    let file = sources.get(fix.edits.first()?.span.file)?;
    let shown = shown(file, fix.edits.iter().map(|edit| edit.span), sources, secrets)?;
    let patches: Vec<_> = fix.edits.iter().map(|edit| Patch::new(shown.range(edit.span), edit.text.as_str())).collect();
    let snippet = Snippet::source(shown.text).line_start(shown.line).patches(patches);
    Some(Level::HELP.secondary_title(fix.title.as_str()).element(snippet))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Scope, render, summary};
    use crate::diagnostic::{Code, Diagnostic, FileId, Sources, Span};

    fn span(sources: &Sources, file: u32, part: &str) -> Span {
        let text = &sources.files()[file as usize].text;
        let start = u32::try_from(text.find(part).unwrap()).unwrap();
        Span { file: FileId(file), start, end: start + u32::try_from(part.len()).unwrap() }
    }

    #[test]
    fn findings_look_like_rustcs() {
        let mut sources = Sources::default();
        let above = "\n".repeat(24);
        let items = format!(
            "{above}  self_or_admin: {{ where: path.user_id == user.id }}\n{}  DELETE /users/{{user_id}}: {{ role: [admin, editor] }}\n  GET /items: self_or_admin\n  POST /items: {{ scope: items:wirte }}\n",
            "\n".repeat(8)
        );
        sources.add("policies/items.yaml", &items);
        let scope = span(&sources, 0, "items:wirte");
        let list = span(&sources, 0, "[admin, editor]");
        let mut name = span(&sources, 0, "GET /items: self_or_admin");
        name.start += 12;
        let condition = span(&sources, 0, "path.user_id");
        let diagnostics = [
            Diagnostic::new(Code::P102, "unknown scope `items:wirte`", scope, "not in `scopes`").fix(
                "a scope with a similar name exists",
                scope,
                "items:write",
            ),
            Diagnostic::new(Code::P301, "a list needs `any` or `all`", list, "one of them, or all of them?")
                .note("products disagree here (AWS: any, OpenAPI: all), so we don't guess")
                .fix("{ role: { any: [admin, editor] } }", list, "{ any: [admin, editor] }")
                .fix("{ role: { all: [admin, editor] } }", list, "{ all: [admin, editor] }"),
            Diagnostic::new(
                Code::P306,
                "`self_or_admin` needs a path parameter that this route doesn't have",
                name,
                "used here",
            )
            .also(condition, "reads `path.user_id`")
            .note("`GET /items` has no parameters"),
        ];
        insta::assert_snapshot!(render(&diagnostics, &sources, false));
        let scope = Scope { files: 4, routes: 31, guards: 1, passed: 7, took: Duration::from_millis(6) };
        assert_eq!(
            summary(&diagnostics, scope),
            "3 errors in 4 files (31 routes, 1 guard) in 6 ms · 7 tests passed. `portcullis help P102` explains a code."
        );
        assert_eq!(summary(&[], Scope::default()), "no problems in 0 files (0 routes, 0 guards) in 0 ms");
    }

    #[test]
    fn secrets_are_never_shown() {
        let mut sources = Sources::default();
        sources.add("a.yaml", "a: { secret: hünter2, leeway: soon }\n");
        let secret = span(&sources, 0, "hünter2");
        let diagnostics = [
            Diagnostic::new(Code::P403, "literal secret in `secret`", secret, "not shown"),
            Diagnostic::new(Code::P109, "bad duration `soon`", span(&sources, 0, "soon"), ""),
        ];
        for colored in [false, true] {
            let text = render(&diagnostics, &sources, colored);
            assert!(!text.contains("nter2") && text.contains("********"), "{text}");
        }
    }

    #[test]
    fn a_finding_without_a_file_or_in_a_huge_line_has_no_snippet() {
        let mut sources = Sources::default();
        let nowhere = Diagnostic::new(Code::P012, "no policy files", Span { file: FileId(7), start: 3, end: 9 }, "");
        assert_eq!(render(&[nowhere], &sources, false), "error[P012]: no policy files\n\n");
        sources.add("a.yaml", &"x".repeat(100_000));
        let huge = Diagnostic::new(Code::P001, "bad", Span { file: FileId(0), start: 70_000, end: 70_001 }, "here");
        assert_eq!(render(&[huge], &sources, false), "error[P001]: bad\n--> a.yaml:1:70001\n\n");
    }
}
