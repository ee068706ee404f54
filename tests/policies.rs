//! Every file of `tests/policies/` with the findings it earns.
//!
//! A fixture is a policy file, or a folder of files that are read together. At the end of each file stands what is
//! expected of it, one line for each finding: code, line and column, the underlined text, the message.
//!
//! ```text
//! # expect: P301 6:36 `[admin, editor]` a list needs `any` or `all`
//! #   label: one of them, or all of them?
//! ```
//!
//! Below it stand the remark beside the underline, the other places, notes, help and the replacements of fixes.
//!
//! A file without such lines earns none. `UPDATE=1 cargo test --test policies` writes the lines anew.
#![expect(clippy::string_slice, clippy::unwrap_used, reason = "clippy.toml exempts test functions, not their helpers")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use portcullis::diagnostic::{Diagnostic, Sources, Span};
use portcullis::policy;
use portcullis::policy::references::References;
use portcullis::policy::set::Revision;

const MARK: &str = "# expect: ";

fn fixtures() -> Vec<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policies");
    let list = |folder: &Path| -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    list(&folder).into_iter().map(|path| if path.is_dir() { list(&path) } else { vec![path] }).collect()
}

/// The policy without the expectations, and these.
fn split(text: &str) -> (String, String) {
    let at = text.find(MARK).filter(|at| *at == 0 || text[..*at].ends_with('\n')).unwrap_or(text.len());
    (text[..at].to_owned(), text[at..].to_owned())
}

fn show(found: &Diagnostic, sources: &Sources) -> String {
    let mut text = format!("{MARK}{} {}", found.code, place(found.primary.span, sources));
    let suppressed = if found.suppressed.is_some() { " (suppressed)" } else { "" };
    let _ = writeln!(text, " {}{suppressed}", found.message);
    if !found.primary.text.is_empty() {
        let _ = writeln!(text, "#   label: {}", found.primary.text);
    }
    for label in &found.secondary {
        let file =
            if label.span.file == found.primary.span.file { "" } else { &sources.get(label.span.file).unwrap().path };
        let _ = writeln!(
            text,
            "#   also: {file}{}{} {}",
            if file.is_empty() { "" } else { " " },
            place(label.span, sources),
            label.text
        );
    }
    let lines = found.notes.iter().map(|note| ("note", note)).chain(found.help.iter().map(|help| ("help", help)));
    for (kind, line) in lines {
        let _ = writeln!(text, "#   {kind}: {line}");
    }
    for fix in &found.fixes {
        let edits: Vec<String> = fix.edits.iter().map(|edit| format!("`{}`", edit.text.escape_debug())).collect();
        let _ = writeln!(text, "#   fix: {}: {}", fix.title, edits.join(", "));
    }
    text
}

/// Line, column and the underlined text.
fn place(span: Span, sources: &Sources) -> String {
    let (line, column) = sources.position(span);
    let text = sources.text(span);
    let underlined = match text.split_once('\n') {
        Some((first, _)) => format!("{} …", first.trim_end()),
        None => text.to_owned(),
    };
    format!("{line}:{column} `{}`", underlined.replace('\0', "␀"))
}

#[test]
fn every_fixture_earns_the_findings_written_at_its_end() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut wrong = String::new();
    for paths in fixtures() {
        let mut sources = Sources::default();
        let mut expected = Vec::new();
        for path in &paths {
            let text = fs::read_to_string(path).unwrap();
            let (policy, expectation) = split(&text);
            sources.add(path.file_name().unwrap().to_str().unwrap(), &policy);
            expected.push((path, policy, expectation));
        }
        let (document, mut diagnostics) = policy::read(&sources);
        let (checked, found) = policy::check(document, &sources, &policy::Options::default());
        diagnostics.extend(found);
        policy::sort(&mut diagnostics);
        let loads = !diagnostics.iter().any(Diagnostic::is_error);
        assert_eq!(checked.is_some(), loads, "{}", paths[0].display());
        if let Some(checked) = checked {
            let compiled = policy::compile::compile(&checked, &sources, &References::none(), Revision::of(&sources));
            assert!(compiled.is_ok(), "{} is checked, but not compiled: {:?}", paths[0].display(), compiled.err());
        }
        for (index, (path, policy, expected)) in expected.into_iter().enumerate() {
            let here = |found: &&Diagnostic| found.primary.span.file.0 as usize == index;
            let actual: String = diagnostics.iter().filter(here).map(|found| show(found, &sources)).collect();
            if actual == expected {
                continue;
            }
            if update {
                fs::write(path, format!("{policy}{actual}")).unwrap();
            } else {
                let _ = writeln!(wrong, "{}\nexpected\n{expected}actual\n{actual}", path.display());
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn policies_that_are_shipped_earn_nothing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let examples = fs::read_dir(root.join("examples")).unwrap().map(|entry| entry.unwrap().path().join("policies"));
    for folder in examples.filter(|folder| folder.is_dir()).chain([root.join("policies")]) {
        let mut sources = Sources::default();
        let mut paths: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "yaml")) {
            sources.add(path.to_str().unwrap(), &fs::read_to_string(path).unwrap());
        }
        let (document, mut diagnostics) = policy::read(&sources);
        diagnostics.extend(policy::check(document, &sources, &policy::Options::default()).1);
        diagnostics.retain(|found| found.suppressed.is_none());
        let text = portcullis::diagnostic::text::render(&diagnostics, &sources, false);
        assert!(text.is_empty(), "{text}");
    }
}

/// The sample of the documentation: three mistakes in the example of an items API.
#[test]
fn three_mistakes_look_as_documented() {
    let policy = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policies/items.yaml")).unwrap();
    let (policy, _) = split(&policy);
    let policy = policy
        .replace("{ scope: items:write }\n  GET /items/{id:int}", "{ scope: items:wirte }\n  GET /items/{id:int}")
        .replace("DELETE /users/{user_id}: admin_only", "DELETE /users/{user_id}: { role: [admin, editor] }")
        .replace("GET /items: { scope: items:read }\n  POST", "GET /items: self_or_admin\n  POST");
    let mut sources = Sources::default();
    sources.add("policies/items.yaml", &policy);
    let (document, mut diagnostics) = policy::read(&sources);
    diagnostics.extend(policy::check(document, &sources, &policy::Options::default()).1);
    policy::sort(&mut diagnostics);
    diagnostics.retain(Diagnostic::is_error);
    insta::assert_snapshot!(portcullis::diagnostic::text::render(&diagnostics, &sources, false));
}
