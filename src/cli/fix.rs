//! `check --fix` and `--diff`: changes of the text at the places where they belong; comments and layout stay.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::diagnostic::{Code, Diagnostic, Edit, FileId, Sources};

/// The changes of each file, from the first to the last.
pub struct Fixes(BTreeMap<FileId, Vec<Edit>>);

impl Fixes {
    /// What can be mended without choosing: findings with exactly one fix, of one kind if `only` is given. Of
    /// fixes that overlap, the first is kept; the next run finds the other.
    pub fn of(diagnostics: &[Diagnostic], only: Option<Code>) -> Self {
        let mut files: BTreeMap<FileId, Vec<Edit>> = BTreeMap::new();
        let wanted = diagnostics.iter().filter(|d| d.suppressed.is_none() && only.is_none_or(|code| d.code == code));
        for diagnostic in wanted {
            let [fix] = diagnostic.fixes.as_slice() else { continue };
            let is_free = |edit: &Edit| {
                let taken = files.get(&edit.span.file).map_or(&[][..], Vec::as_slice);
                taken.iter().all(|other| edit.span.end <= other.span.start || other.span.end <= edit.span.start)
                    && !taken.iter().any(|other| other.span == edit.span)
            };
            if fix.edits.iter().all(is_free) {
                for edit in &fix.edits {
                    files.entry(edit.span.file).or_default().push(edit.clone());
                }
            }
        }
        for edits in files.values_mut() {
            edits.sort_by_key(|edit| edit.span);
        }
        Self(files)
    }

    /// How many places change.
    pub fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// The new text of each file that changes.
    pub fn texts(&self, sources: &Sources) -> Vec<(FileId, String)> {
        let apply = |(file, edits): (&FileId, &Vec<Edit>)| {
            let old = &*sources.get(*file)?.text;
            let mut new = String::with_capacity(old.len());
            let mut at = 0;
            for edit in edits {
                new.push_str(old.get(at..edit.span.start as usize)?);
                new.push_str(&edit.text);
                at = edit.span.end as usize;
            }
            new.push_str(old.get(at..)?);
            Some((*file, new))
        };
        self.0.iter().filter_map(apply).collect()
    }

    /// The changes as a patch.
    pub fn patch(&self, sources: &Sources) -> String {
        let mut out = String::new();
        for (file, edits) in &self.0 {
            let Some(source) = sources.get(*file) else { continue };
            let _ = write!(out, "--- {0}\n+++ {0}\n", source.path);
            let mut shift = 0_i64;
            let mut rest = edits.as_slice();
            while let Some((first, _)) = rest.split_first() {
                // Edits that touch the same lines are one hunk.
                let start = line_start(&source.text, first.span.start as usize);
                let mut end = line_end(&source.text, first.span.end as usize);
                let mut taken = 1;
                while let Some(next) = rest.get(taken).filter(|next| (next.span.start as usize) < end) {
                    end = line_end(&source.text, next.span.end as usize);
                    taken += 1;
                }
                let (hunk, later) = rest.split_at(taken);
                rest = later;
                let old = source.text.get(start..end).unwrap_or("");
                let mut new = String::new();
                let mut at = start;
                for edit in hunk {
                    new.push_str(source.text.get(at..edit.span.start as usize).unwrap_or(""));
                    new.push_str(&edit.text);
                    at = edit.span.end as usize;
                }
                new.push_str(source.text.get(at..end).unwrap_or(""));
                let line = source.text.get(..start).unwrap_or("").matches('\n').count() + 1;
                let (before, after) = (old.lines().count(), new.lines().count());
                let _ = writeln!(
                    out,
                    "@@ -{line},{before} +{},{after} @@",
                    i64::try_from(line).unwrap_or(i64::MAX).saturating_add(shift)
                );
                shift += i64::try_from(after).unwrap_or(0) - i64::try_from(before).unwrap_or(0);
                for (sign, text) in [('-', old), ('+', &new)] {
                    for line in text.lines() {
                        let _ = writeln!(out, "{sign}{line}");
                    }
                }
            }
        }
        out
    }
}

fn line_start(text: &str, at: usize) -> usize {
    text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1)
}

/// The byte after the line feed of the line that byte `at` stands in.
fn line_end(text: &str, at: usize) -> usize {
    text.get(at..).and_then(|after| after.find('\n')).map_or(text.len(), |newline| at + newline + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Span;

    #[test]
    fn edits_keep_everything_around_them() {
        let mut sources = Sources::default();
        let text = "a: wirte # why\nb: 1\nc: raed\n";
        let file = sources.add("p/a.yaml", text);
        let span = |word: &str| {
            let start = u32::try_from(text.find(word).unwrap()).unwrap();
            Span { file, start, end: start + u32::try_from(word.len()).unwrap() }
        };
        let finding = |word, to| Diagnostic::new(Code::P102, "x", span(word), "").fix("near", span(word), to);
        let choice = finding("b", "x").fix("other", span("b"), "y");
        let diagnostics = [finding("raed", "read"), finding("wirte", "write"), finding("wirte", "again"), choice];
        let fixes = Fixes::of(&diagnostics, None);
        assert_eq!(fixes.len(), 2);
        assert_eq!(fixes.texts(&sources), [(file, "a: write # why\nb: 1\nc: read\n".to_owned())]);
        assert_eq!(
            fixes.patch(&sources),
            "--- p/a.yaml\n+++ p/a.yaml\n@@ -1,1 +1,1 @@\n-a: wirte # why\n+a: write # why\n@@ -3,1 +3,1 @@\n-c: raed\n+c: read\n"
        );
        assert_eq!(Fixes::of(&diagnostics, Some(Code::P101)).len(), 0);
    }
}
