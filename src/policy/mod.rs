//! What is allowed.
//!
//! YAML text goes in; out comes a `PolicySet` that answers requests, or diagnostics with places. The
//! way: `yaml` (nodes with places) → `lower` ([`document::Document`]) → `check` (all mistakes) →
//! `compile` (tries, formulas, resolved names). `keys` is the one table of all keys.
//!
//! Nothing here reads files, the environment or the time: texts and resolved references are passed in. Nothing
//! here decides a request; that is `decision`.

mod check;
pub mod checked;
pub mod compile;
pub mod document;
pub mod formula;
pub mod issuer;
pub mod keys;
pub mod login;
pub mod lower;
pub mod references;
pub mod set;
pub mod specificity;
pub mod template;
pub mod trie;
pub mod yaml;

pub use self::check::{Options, check};
pub use self::checked::Checked;

use crate::diagnostic::{Code, Diagnostic, FileId, Sources, Span};

use self::document::Document;
use self::yaml::Node;

/// The most bytes of a set, all files together.
pub const MAX_SET_BYTES: usize = 32 * 1024 * 1024;
/// The most files of a set.
pub const MAX_FILES: usize = 1000;

/// Reads the texts of a set: what they define, and every mistake of form, sorted by file and position.
///
/// Names are not resolved yet; that is `check`. A file that cannot be parsed has its mistake here and nothing in
/// the document, so with an error here what `check` says about unknown names may be a consequence.
pub fn read(sources: &Sources) -> (Document, Vec<Diagnostic>) {
    read_except(sources, &[])
}

/// Reads files as they are on disk: `(path, bytes)`, sorted by path. Files that are not UTF-8 are P008; their
/// readable text is kept for showing.
pub fn read_bytes(files: &[(String, Vec<u8>)]) -> (Sources, Document, Vec<Diagnostic>) {
    let mut sources = Sources::default();
    let mut unreadable = Vec::new();
    let mut diagnostics = Vec::new();
    for (path, bytes) in files {
        match std::str::from_utf8(bytes) {
            Ok(text) => {
                sources.add(path, text);
            }
            Err(error) => {
                let file = sources.add(path, &String::from_utf8_lossy(bytes));
                let start = u32::try_from(error.valid_up_to()).unwrap_or(u32::MAX);
                let end = start.saturating_add(3); // U+FFFD
                unreadable.push(file);
                diagnostics.push(Diagnostic::new(Code::P008, "file is not UTF-8", Span { file, start, end }, "here"));
            }
        }
    }
    let (mut document, found) = read_except(&sources, &unreadable);
    document.damage.broken |= !unreadable.is_empty();
    document.damage.unparsed |= !unreadable.is_empty();
    diagnostics.extend(found);
    sort(&mut diagnostics);
    (sources, document, diagnostics)
}

fn read_except(sources: &Sources, skipped: &[FileId]) -> (Document, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let mut files: Vec<(FileId, Vec<Node>)> = Vec::new();
    let mut bytes = 0;
    for (index, source) in sources.files().iter().enumerate() {
        let file = FileId(u32::try_from(index).unwrap_or(u32::MAX));
        let start = Span { file, start: 0, end: 0 };
        bytes += source.text.len();
        if bytes > MAX_SET_BYTES || index >= MAX_FILES {
            let message = "policy set of more than 32 MiB or 1000 files";
            diagnostics.push(Diagnostic::new(Code::P006, message, start, "this file does not fit any more"));
            break;
        }
        if skipped.contains(&file) {
            continue;
        }
        let before = diagnostics.len();
        let nodes = yaml::parse(file, &source.text, &mut diagnostics);
        if nodes.is_empty() && diagnostics.len() == before {
            diagnostics.push(Diagnostic::new(Code::P012, "empty file", start, "no document"));
        }
        files.push((file, nodes));
    }
    if sources.files().is_empty() {
        diagnostics.push(Diagnostic::new(Code::P012, "no policy files", Span::default(), ""));
    }
    let unparsed = diagnostics.iter().any(Diagnostic::is_error);
    let (mut document, found) = lower::lower(&files, sources);
    diagnostics.extend(found);
    document.damage.broken = diagnostics.iter().any(Diagnostic::is_error);
    document.damage.places = diagnostics.iter().map(|found| found.primary.span).collect();
    document.damage.unparsed = unparsed;
    sort(&mut diagnostics);
    (document, diagnostics)
}

/// By file and position; findings at one place keep their order.
pub fn sort(diagnostics: &mut [Diagnostic]) {
    diagnostics.sort_by_key(|found| (found.primary.span.file, found.primary.span.start));
}
