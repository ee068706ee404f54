//! The explanations of codes tell the truth: every mistake earns its code, and no fix does.

use std::collections::BTreeSet;
use std::path::Path;

use portcullis::diagnostic::{Code, Sources, help};
use portcullis::policy;

/// What other commands find, and what needs a file system.
const ELSEWHERE: &[Code] = &[Code::P008, Code::P013, Code::P309, Code::P406, Code::P407, Code::P601, Code::P602];

/// The codes that an example earns. What every policy needs is added where the example does not have it.
fn codes(example: &str) -> BTreeSet<&'static str> {
    let mut text = example.to_owned();
    if !text.contains("version:") && !text.starts_with("# nothing") {
        let upstream = if text.contains("upstream:") { "" } else { "upstream: http://localhost:8000\n" };
        text = format!("version: 1\n{upstream}{text}");
    }
    let mut sources = Sources::default();
    sources.add(if text.contains("items.test.yaml") { "items.test.yaml" } else { "items.yaml" }, &text);
    let (document, mut found) = policy::read(&sources);
    let options = policy::Options { environment: Some(BTreeSet::new()), ..policy::Options::default() };
    let (_checked, more) = policy::check(document, &sources, &options);
    found.extend(more);
    found.iter().filter(|found| found.suppressed.is_none()).map(|found| found.code.as_str()).collect()
}

#[test]
fn mistakes_earn_their_code_and_fixes_do_not() {
    let mut wrong = Vec::new();
    for code in Code::ALL.iter().filter(|code| !ELSEWHERE.contains(code)) {
        let help = help::of(*code);
        // An example without `version` is what P009 is about.
        let mistake =
            if *code == Code::P009 { format!("# version:\n{}", help.mistake) } else { help.mistake.to_owned() };
        if !codes(&mistake).contains(code.as_str()) {
            wrong.push(format!("{code}: the mistake earns {:?}", codes(&mistake)));
        }
        if codes(help.fix).contains(code.as_str()) {
            wrong.push(format!("{code}: the fix earns it too"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_page_of_the_documentation_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/diagnostics.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, help::page()).unwrap();
    }
    assert!(std::fs::read_to_string(path).unwrap() == help::page(), "run `UPDATE=1 cargo test --test help`");
}

#[test]
fn an_explanation_fits_a_terminal() {
    let text = help::explain(Code::P311);
    assert!(text.starts_with("P311 (warning): ") && text.contains("The mistake:\n\n    roles:"), "{text}");
    assert!(text.ends_with("`allow: { P311: the reason }`\n"), "{text}");
}
