//! Any text is read or refused, and never a panic or a stall.
//!
//! The inputs of the public YAML test suite (`../shared/vectors/yaml-test-suite`, read in place), random texts, and
//! the project's own examples with a few bytes changed.
#![expect(clippy::panic, clippy::unwrap_used, reason = "clippy.toml exempts test functions, not their helpers")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use portcullis::diagnostic::{FileId, Severity, Sources, Span};
use portcullis::policy;
use portcullis::policy::yaml::{self, Node, Value};
use proptest::prelude::{ProptestConfig, any, prop};
use proptest::{prop_assert, proptest};

/// Reads a text both ways and checks what must hold of every span.
fn read(text: &str) {
    let mut found = Vec::new();
    let nodes = yaml::parse(FileId(0), text, &mut found);
    nodes.iter().for_each(|node| check(node, text));
    for path in ["a.yaml", "a.test.yaml"] {
        let mut sources = Sources::default();
        sources.add(path, text);
        let (_document, diagnostics) = policy::read(&sources);
        for diagnostic in &diagnostics {
            slice(text, diagnostic.primary.span);
            diagnostic.secondary.iter().for_each(|label| drop(slice(text, label.span)));
            for edit in diagnostic.fixes.iter().flat_map(|fix| &fix.edits) {
                slice(text, edit.span);
            }
            assert!(!diagnostic.message.is_empty() && !diagnostic.message.contains('\n'), "{diagnostic:?}");
            assert_eq!(diagnostic.severity, Severity::Error, "{diagnostic:?}");
        }
    }
}

fn slice(text: &str, span: Span) -> String {
    let (start, end) = (span.start as usize, span.end as usize);
    text.get(start..end).unwrap_or_else(|| panic!("{start}..{end} in {text:?}")).to_owned()
}

fn check(node: &Node, text: &str) {
    slice(text, node.span);
    match &node.value {
        Value::List(items) => items.iter().for_each(|item| check(item, text)),
        Value::Map(entries) => {
            for (key, value) in entries {
                slice(text, key.span);
                check(value, text);
            }
        }
        _ => {
            let whole = yaml::Text { value: &node.text, span: node.span, style: node.style, source: text };
            for (at, c) in node.text.char_indices() {
                slice(text, whole.at(at..at + c.len_utf8()));
            }
        }
    }
}

#[test]
#[cfg_attr(not(vectors), ignore = "needs ../shared/vectors/yaml-test-suite")]
fn every_input_of_the_yaml_test_suite_is_read_or_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors/yaml-test-suite");
    let (mut inputs, mut wrong) = (0, Vec::new());
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let mut found = Vec::new();
        let text = fs::read_to_string(&path).unwrap();
        read(&text);
        let cases = yaml::parse(FileId(0), &text, &mut found);
        assert!(found.is_empty(), "{}: {found:?}", path.display());
        let Value::List(cases) = &cases[0].value else { panic!("{}", path.display()) };
        for case in cases {
            let Value::Map(entries) = &case.value else { panic!("{}", path.display()) };
            let field = |name: &str| entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| node);
            let Some(input) = field("yaml") else { continue };
            // The suite writes blanks and the like as visible characters.
            let input = input.text.replace('␣', " ").replace('»', "\t").replace('—', "").replace('←', "\r");
            let input = input.replace('⇔', "\u{feff}").replace('↵', "").replace("∎\n", "");
            let start = Instant::now();
            read(&input);
            assert!(start.elapsed() < Duration::from_secs(1), "{}: {:?}", path.display(), start.elapsed());
            inputs += 1;
            let must_fail = field("fail").is_some_and(|node| node.value == Value::Bool(true));
            let mut found = Vec::new();
            yaml::parse(FileId(0), &input, &mut found);
            let syntax = found.iter().any(|found| found.code.as_str() == "P001");
            if syntax != must_fail {
                wrong.push(path.file_stem().unwrap().to_string_lossy().into_owned());
            }
        }
    }
    assert!(inputs > 300, "{inputs}");
    wrong.sort();
    // The first three close a flow collection or go on with a quoted scalar at the column of the key, which many
    // people write and other parsers read; the last is a directive that the YAML specification leaves open.
    assert_eq!(wrong, ["9C9N", "DK95", "QB6E", "ZYU8"]);
}

#[test]
fn a_hostile_file_is_an_error_in_under_a_second() {
    let mut laughs = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        let _ = writeln!(laughs, "a{level}: &a{level} [{aliases}]");
    }
    let big = "x".repeat(2 * 1024 * 1024);
    let many_aliases: String = (0..2000).map(|n| format!("k{n}: *a\n")).collect();
    let duplicates: String = (0..200_000).map(|_| "a: 1\n").collect();
    let indented: String = (0..2000).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
    for (name, text) in [
        ("billion laughs", laughs),
        ("quadratic blow-up", format!("a: &a {big}\nb: [*a, *a, *a, *a]\n")),
        ("many aliases", format!("a: &a b\n{many_aliases}")),
        ("deep lists", "[".repeat(10_000)),
        ("deep maps", "{a: ".repeat(10_000)),
        ("deep block lists", "- ".repeat(10_000)),
        ("deep explicit keys", "? ".repeat(10_000)),
        ("deep by indentation", indented),
        ("100 MB", "a".repeat(100 * 1024 * 1024)),
        ("many values", "[1,1,1,1,1,1,1,1,1,1],".repeat(100_000)),
        ("many values in a list", format!("[{}]", "1,".repeat(1_000_000))),
        ("many documents", "---\na\n".repeat(300_000)),
        ("many duplicates", duplicates),
        ("open quote", format!("a: \"{}", "b ".repeat(1_000_000))),
        ("tabs", format!("a:\n{}", "\t".repeat(1_000_000))),
        ("many anchors without end", "&a ".repeat(1_000_000)),
        ("exclamation marks", "!".repeat(1_000_000)),
        ("colons", ": ".repeat(1_000_000)),
        ("dashes", "-".repeat(3_000_000) + "\n: ["),
        ("a comment", format!("a: [{}", "#".repeat(3_000_000))),
        ("line ends", format!("a: [{}", "\n".repeat(3_000_000))),
        ("percent", "%a b\n".repeat(500_000)),
    ] {
        let start = Instant::now();
        let mut diagnostics = Vec::new();
        yaml::parse(FileId(0), &text, &mut diagnostics);
        let took = start.elapsed();
        assert!(diagnostics.len() <= 100, "{name}");
        assert_eq!(diagnostics.is_empty(), name == "tabs", "{name}");
        // Debug builds on a busy machine; a release build needs a fifth.
        assert!(took < Duration::from_secs(5), "{name}: {took:?}");
        eprintln!("{name}: {took:?} {:?}", diagnostics.first().map(|d| &d.message));
    }
}

#[test]
fn a_hostile_policy_is_an_error_in_about_a_second() {
    let lines = |line: &dyn Fn(usize) -> String| -> String { (0..80_000).map(line).collect() };
    let head = "version: 1\nupstream: http://localhost\n";
    for (name, text) in [
        ("unknown keys", format!("{head}{}", lines(&|n| format!("upstraem{n}: 1\n")))),
        ("bad routes", format!("{head}routes:\n{}", lines(&|n| format!("  FETCH /{n}/:a: publik\n")))),
        ("bad conditions", format!("{head}conditions:\n{}", lines(&|n| format!("  c{n}: usre.id == {n} x\n")))),
        ("long condition", format!("{head}conditions: {{ a: '{}' }}", "user.id == \"a\" and ".repeat(200_000))),
        ("long template", format!("{head}routes:\n  /{}: public\n", "a/".repeat(500))),
        ("bad tests", format!("{head}tests:\n  a:\n{}", lines(&|n| format!("    GETT{n}: {{ a: dney }}\n")))),
        ("bad allow", format!("{head}allow:\n{}", lines(&|n| format!("  P{n}: x\n")))),
        ("many apps", (0..900).map(|n| format!("---\nversion: 1\napp: a{n}\nupstream: x\n")).collect()),
    ] {
        let mut sources = Sources::default();
        sources.add("a.yaml", &text);
        let start = Instant::now();
        let (document, diagnostics) = policy::read(&sources);
        let took = start.elapsed();
        assert!(!diagnostics.is_empty() && document.damage.broken, "{name}");
        assert!(diagnostics.len() <= 2000, "{name}: {}", diagnostics.len());
        eprintln!("{name}: {took:?}");
        // Debug builds on a busy machine; a release build needs a tenth.
        assert!(took < Duration::from_secs(10), "{name}: {took:?}");
        let start = Instant::now();
        let text = portcullis::diagnostic::text::render(&diagnostics, &sources, false);
        assert!(!text.is_empty());
        eprintln!("{name}: rendered in {:?}", start.elapsed());
    }
}

fn examples() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policies");
    let mut texts = Vec::new();
    for name in ["items.yaml", "saas/_platform.yaml", "saas/apps.yaml", "saas/saas.test.yaml", "small.yaml"] {
        texts.push(fs::read_to_string(folder.join(name)).unwrap());
    }
    texts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC*") {
        read(&text);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (_sources, _document, diagnostics) = policy::read_bytes(&[("a.yaml".to_owned(), bytes)]);
        prop_assert!(!diagnostics.is_empty());
    }

    #[test]
    fn yaml_shaped_texts_are_read_or_refused(words in prop::collection::vec(
        prop::sample::select(vec![
            "version: 1", "\n", "\n  ", "\n    ", ": ", "- ", "{", "}", "[", "]", ", ", "routes:", "GET /a", "/{id}",
            "access:", "public", "any:", "all:", "not:", "where:", "user.id == ", "\"", "'", "|\n", ">\n", "*a", "&a ",
            "<<: ", "!!str ", "# ", "---\n", "...\n", "identity:", "tests:", "limit: 5/min", "null", "~", "é", "\t", "\r\n",
            "roles:", "sets:", "10.0.0.0/8", "headers:", "login:", "via: local", "preset: jwt", "%41", "**", "?",
        ]),
        0..60,
    )) {
        read(&words.concat());
    }

    #[test]
    fn examples_with_changed_bytes_are_read_or_refused(
        which in 0_usize..5,
        changes in prop::collection::vec((any::<prop::sample::Index>(), "[ -~\n]{0,3}", 0_usize..4), 1..6),
    ) {
        let mut chars: Vec<char> = examples()[which].chars().collect();
        for (index, text, removed) in changes {
            let at = index.index(chars.len());
            let end = (at + removed).min(chars.len());
            chars.splice(at..end, text.chars());
        }
        read(&chars.into_iter().collect::<String>());
    }
}
