//! The layering of `ARCHITECTURE.md`, kept by a test: it reads the two tables there and fails on an import of
//! an equal or higher rank, on a part that the table does not know, on a crate outside its parts, and on I/O
//! or ambient time and randomness in the pure core.
#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The highest rank of the pure core.
const CORE: u32 = 5;

/// What may not be named in the core: I/O, async, ambient time and randomness. (Signing takes the generator of
/// its library as an argument; that one is named in `token/mint.rs`.)
const FORBIDDEN_IN_CORE: &[&str] = &[
    "async fn",
    "async move",
    "tokio",
    "pingora",
    "sqlx::",
    "redis::",
    "reqwest",
    "notify",
    "std::fs",
    "std::env",
    "std::thread",
    "std::process",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "SystemTime",
    "Instant",
    "getrandom",
    "now_v7",
    "new_v4",
];

#[derive(Debug, Default)]
struct Tables {
    /// Part → rank.
    ranks: BTreeMap<String, u32>,
    /// Crate → the parts (or files) that may name it.
    crates: BTreeMap<String, Vec<String>>,
}

fn tables(architecture: &str) -> Tables {
    let mut tables = Tables::default();
    for row in between(architecture, "<!-- ranks:begin -->", "<!-- ranks:end -->") {
        if let (Some(Ok(rank)), Some(parts)) = (row.first().map(|cell| cell.parse()), row.get(1)) {
            for part in ticked(parts) {
                tables.ranks.insert(part, rank);
            }
        }
    }
    for row in between(architecture, "<!-- crates:begin -->", "<!-- crates:end -->") {
        if let (Some(crates), Some(parts)) = (row.first(), row.get(1)) {
            for name in ticked(crates) {
                tables.crates.insert(name, ticked(parts));
            }
        }
    }
    tables
}

/// The cells of each table row between two markers.
fn between<'t>(text: &'t str, begin: &str, end: &str) -> Vec<Vec<&'t str>> {
    let inside = text.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).map_or("", |(inside, _)| inside);
    inside.lines().map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// The words between backticks.
fn ticked(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The code of a file without comments and the content of strings, line by line.
fn code_lines(text: &str) -> Vec<String> {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '/' if chars.peek() == Some(&'/') => {
                while chars.peek().is_some_and(|c| *c != '\n') {
                    chars.next();
                }
            }
            '/' if chars.peek() == Some(&'*') => {
                let mut last = ' ';
                for c in chars.by_ref() {
                    if c == '\n' {
                        out.push('\n');
                    }
                    if last == '*' && c == '/' {
                        break;
                    }
                    last = c;
                }
            }
            'r' if matches!(chars.peek(), Some('"' | '#'))
                && !out.ends_with(|c: char| c.is_alphanumeric() || c == '_') =>
            {
                raw_string(&mut chars, &mut out);
            }
            '"' => {
                out.push('"');
                while let Some(c) = chars.next() {
                    match c {
                        '\\' => drop(chars.next()),
                        '"' => break,
                        '\n' => out.push('\n'),
                        _ => {}
                    }
                }
                out.push('"');
            }
            '\'' => character(&mut chars, &mut out),
            _ => out.push(c),
        }
    }
    out.lines().map(str::to_owned).collect()
}

/// Skips `r"…"` or `r#"…"#`; a raw identifier such as `r#type` is kept.
fn raw_string(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) {
    let mut hashes = 0;
    while chars.peek() == Some(&'#') {
        chars.next();
        hashes += 1;
    }
    if chars.peek() != Some(&'"') {
        out.push('r');
        return;
    }
    chars.next();
    let mut closing = 0;
    let mut after_quote = false;
    for c in chars.by_ref() {
        match c {
            '"' => (after_quote, closing) = (true, 0),
            '#' if after_quote => closing += 1,
            _ => after_quote = false,
        }
        if c == '\n' {
            out.push('\n');
        }
        if after_quote && closing == hashes {
            break;
        }
    }
    out.push_str("\"\"");
}

/// Skips a character literal; a lifetime is kept.
fn character(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) {
    let ahead: Vec<char> = chars.clone().take(2).collect();
    match ahead.as_slice() {
        ['\\', _] => {
            chars.next();
            chars.next();
            for c in chars.by_ref() {
                if c == '\'' {
                    break;
                }
            }
        }
        [_, '\''] => {
            chars.next();
            chars.next();
        }
        _ => out.push('\''),
    }
}

/// The parts that a line of code names through `crate::`, grouped imports included.
fn named_parts(code: &[String]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in code.iter().enumerate() {
        for (at, _) in line.match_indices("crate::") {
            let is_word =
                line.get(..at).is_some_and(|before| before.ends_with(|c: char| c.is_alphanumeric() || c == '_'));
            if is_word {
                continue;
            }
            let rest = line.get(at + 7..).unwrap_or("");
            if let Some(group) = rest.strip_prefix('{') {
                let mut text = group.to_owned();
                for next in code.iter().skip(number + 1).take_while(|_| !group.contains("};")).take(40) {
                    text.push_str(next);
                    if next.contains("};") {
                        break;
                    }
                }
                let mut depth = 0_i32;
                let mut word = String::new();
                for c in text.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        _ => {}
                    }
                    if depth == 0 && (c.is_alphanumeric() || c == '_') {
                        word.push(c);
                    } else if depth == 0 && !word.is_empty() {
                        if c == ':' || c == ',' || c.is_whitespace() {
                            found.push((number + 1, std::mem::take(&mut word)));
                        }
                        if c == ':' {
                            depth += 0;
                        }
                    }
                }
                if !word.is_empty() {
                    found.push((number + 1, word));
                }
            } else {
                let word: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                found.push((number + 1, word));
            }
        }
    }
    found
}

/// How many folders up from the part's own root a `super::` chain may go without leaving the part.
fn leaves_part(line: &str, depth: usize) -> bool {
    line.match_indices("super::").any(|(at, _)| {
        let before = line.get(..at).unwrap_or("");
        !before.ends_with("super::") && {
            let chain = line.get(at..).unwrap_or("");
            let mut ups = 0;
            let mut rest = chain;
            while let Some(next) = rest.strip_prefix("super::") {
                ups += 1;
                rest = next;
            }
            ups > depth
        }
    })
}

/// Every offence of a source tree against the tables, one line each.
fn offences(src: &Path, tables: &Tables) -> Vec<String> {
    let mut offences = Vec::new();
    let mut parts = std::collections::BTreeSet::new();
    let mut files = Vec::new();
    collect(src, &mut files);
    files.sort();
    for file in files {
        let relative = file.strip_prefix(src).unwrap().to_string_lossy().replace('\\', "/");
        let part = relative.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        let code = code_lines(&text);
        if part == "lib" {
            for (number, line) in code.iter().enumerate() {
                let line = line.trim();
                if !(line.is_empty() || line.starts_with("pub mod ") || line.starts_with("#!")) {
                    offences.push(format!("lib.rs:{} holds more than `pub mod` lines: {line}", number + 1));
                }
            }
            continue;
        }
        parts.insert(part.clone());
        let Some(rank) = tables.ranks.get(&part) else {
            offences.push(format!("{relative}: `{part}` is not in the rank table"));
            continue;
        };
        for (line, named) in named_parts(&code) {
            if named == part {
                continue;
            }
            if let Some(other) = tables.ranks.get(&named)
                && other >= rank
            {
                offences.push(format!("{relative}:{line} (rank {rank}) imports `{named}` (rank {other})"));
            }
        }
        // `super` at the top of a part's root module is the crate itself.
        let depth = relative.matches('/').count() - usize::from(relative.ends_with("/mod.rs"));
        for (number, line) in code.iter().enumerate() {
            let in_test_module = line.starts_with("    ");
            if leaves_part(line, depth + usize::from(in_test_module)) {
                offences.push(format!("{relative}:{} leaves `{part}` through `super`", number + 1));
            }
            if *rank <= CORE {
                for word in FORBIDDEN_IN_CORE {
                    if contains_word(line, word) {
                        offences.push(format!("{relative}:{} (pure core) names `{word}`", number + 1));
                    }
                }
            }
            for (name, allowed) in &tables.crates {
                if contains_word(line, &format!("{name}::")) && !line.contains(&format!("crate::{name}")) {
                    let stem = relative.trim_end_matches(".rs").trim_end_matches("/mod");
                    let fits = |place: &String| stem == place || stem.starts_with(&format!("{place}/"));
                    if !allowed.iter().any(fits) {
                        offences.push(format!("{relative}:{} names the crate `{name}`", number + 1));
                    }
                }
            }
        }
    }
    for part in tables.ranks.keys() {
        if !parts.contains(part) {
            offences.push(format!("the rank table names `{part}`, which does not exist"));
        }
    }
    offences
}

/// Whether `line` has `word` and not merely as the end of a longer one.
fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, found)| {
        let before = line.get(..at).unwrap_or("");
        let after = line.get(at + found.len()..).unwrap_or("");
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        !before.ends_with(is_word)
            && !before.ends_with("crate::")
            && !before.ends_with("super::")
            && !before.ends_with("self::")
            && (found.ends_with(':') || !after.starts_with(is_word))
    })
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn every_import_points_to_a_lower_rank_and_the_core_is_pure() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tables = tables(&std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap());
    assert!(tables.ranks.len() > 10 && tables.crates.len() > 5, "the tables were not found: {tables:?}");
    let offences = offences(&root.join("src"), &tables);
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

/// The test of the test: a tree with one offence of each kind is reported in full.
#[test]
fn an_offence_of_each_kind_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("lib.rs", "//! Docs.\npub mod low;\npub use low::Thing;\n");
    write("low.rs", "use crate::high::Thing; // up\nfn f() { std::fs::read(\"x\"); }\n");
    write("even.rs", "use crate::{\n    low,\n    odd::{Deep, More},\n};\n");
    write("odd.rs", "fn f() -> crate::even::Thing { let _ = r#\"crate::high\"#; }\n/* crate::high */\n");
    write("high/mod.rs", "use super::low::Thing;\nfn f() { yaml::parse(); }\n");
    write("high/reader.rs", "fn f() { yaml::parse(); crate::low::f(); super::here(); }\n");
    write("stray.rs", "");
    let tables = tables(
        "<!-- ranks:begin -->\n| Rank | Part |\n|---|---|\n| 0 | `low` |\n| 1 | `even` `odd` |\n| 6 | `high` |\n| 7 | `ghost` |\n\
         <!-- ranks:end -->\n<!-- crates:begin -->\n| `yaml` | `high/reader` |\n<!-- crates:end -->\n",
    );
    let mut report = String::new();
    for offence in offences(folder.path(), &tables) {
        writeln!(report, "{offence}").unwrap();
    }
    assert_eq!(
        report,
        "even.rs:1 (rank 1) imports `odd` (rank 1)\n\
         high/mod.rs:1 leaves `high` through `super`\n\
         high/mod.rs:2 names the crate `yaml`\n\
         lib.rs:3 holds more than `pub mod` lines: pub use low::Thing;\n\
         low.rs:1 (rank 0) imports `high` (rank 6)\n\
         low.rs:2 (pure core) names `std::fs`\n\
         odd.rs:1 (rank 1) imports `even` (rank 1)\n\
         stray.rs: `stray` is not in the rank table\n\
         the rank table names `ghost`, which does not exist\n"
    );
}
