//! What the documents show is true: every complete policy in them passes `check`, every example folder passes
//! `check` and its own tests. A block marked `yaml fragment` is part of a policy or of other files.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a failure here is a failed test"
)]

#[path = "../benches/peers/report.rs"]
#[expect(dead_code, reason = "the bench keeps records and writes the page")]
mod report;

use std::path::{Path, PathBuf};

use portcullis::diagnostic::Diagnostic;
use portcullis::reload::load::{Options, load};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All documents with examples in them.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("docs"), root().join("examples")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    // The mistakes of the diagnostics' reference have a test of their own (tests/help.rs).
    found.retain(|path| !path.ends_with("docs/diagnostics.md"));
    found.extend(["README.md", "CONTRIBUTING.md", "SECURITY.md", "ARCHITECTURE.md"].map(|name| root().join(name)));
    found
}

/// The blocks of a document that open with exactly this fence.
fn blocks<'t>(text: &'t str, fence: &str) -> Vec<(usize, &'t str)> {
    let mut blocks = Vec::new();
    let mut at = 0;
    while let Some(start) = text[at..].find(&format!("\n{fence}\n")) {
        let start = at + start + fence.len() + 2;
        let end = start + text[start..].find("\n```").expect("the fence is closed") + 1;
        blocks.push((text[..start].lines().count() + 1, &text[start..end]));
        at = end;
    }
    blocks
}

#[test]
fn every_policy_in_the_documents_passes_check() {
    let mut checked = 0;
    for path in documents() {
        for (line, block) in blocks(&std::fs::read_to_string(&path).unwrap(), "```yaml") {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("policy.yaml"), block).unwrap();
            let loaded = load(folder.path(), &Options::check());
            assert!(loaded.tested.is_some(), "{}:{line}: {:#?}", path.display(), loaded.diagnostics);
            checked += 1;
        }
    }
    assert!(checked >= 3, "{checked} blocks");
}

/// A `console` block that begins with a command and its output: the command says just that.
#[test]
fn what_the_readme_shows_of_explain_is_what_it_prints() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let mut ran = 0;
    for (line, block) in blocks(&readme, "```console") {
        let Some((command, output)) = block.split_once('\n') else { continue };
        let Some(arguments) = command.strip_prefix("$ portcullis explain ") else { continue };
        let printed = std::process::Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .arg("explain")
            .args(arguments.split(' '))
            .current_dir(root())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&printed.stdout), output, "README.md:{line}");
        ran += 1;
    }
    assert_eq!(ran, 1);
}

#[test]
fn every_example_and_starter_passes_check_and_its_own_tests() {
    let mut folders = vec![root().join("policies")];
    let examples = std::fs::read_dir(root().join("examples")).unwrap();
    folders.extend(examples.map(|entry| entry.unwrap().path().join("policies")).filter(|folder| folder.exists()));
    assert!(folders.len() >= 6, "{folders:?}");
    for folder in folders {
        let loaded = load(&folder, &Options::check());
        let findings: Vec<&Diagnostic> = loaded.diagnostics.iter().filter(|found| found.suppressed.is_none()).collect();
        assert!(loaded.tested.is_some() && findings.is_empty(), "{}: {findings:#?}", folder.display());
    }
}

/// Each name in the last column of `docs/past-cves.md` is that of a test.
#[test]
fn each_past_bypass_of_a_peer_names_a_test() {
    let page = std::fs::read_to_string(root().join("docs/past-cves.md")).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| Who"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let mut sources = String::new();
    let mut folders = vec![root().join("src"), root().join("tests")];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut wrong = Vec::new();
    for row in &rows {
        let [_, _, _, test] = row[..] else {
            wrong.push(row.join(" | "));
            continue;
        };
        let test = test.trim_matches('`');
        if test.is_empty() || !sources.contains(&format!("fn {test}()")) {
            wrong.push(test.to_owned());
        }
    }
    assert!(wrong.is_empty(), "no such tests: {wrong:#?}");
    assert!(rows.len() > 70, "{} rows", rows.len());
}

#[test]
fn the_performance_page_and_its_chart_say_what_the_records_say() {
    for (file, text) in report::texts() {
        let now = std::fs::read_to_string(&file).unwrap();
        assert!(now == text, "{}: `cargo bench --bench peers -- report` writes it", file.display());
    }
}
