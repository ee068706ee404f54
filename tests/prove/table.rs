//! The tables of `docs/proof.md` and of the README, written from the newest record of each figure.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::{figures, run};

const BEGIN: &str = "<!-- proof:begin (written by `make prove-table`) -->";
const END: &str = "<!-- proof:end -->";

/// Writes both.
pub fn write() {
    for (file, text) in texts() {
        std::fs::write(&file, text).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
}

/// Whether both say what the records say.
pub fn is_current() -> bool {
    texts().iter().all(|(file, text)| std::fs::read_to_string(file).is_ok_and(|now| now == *text))
}

/// Each file with what it must say.
fn texts() -> [(String, String); 2] {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = |name: &str| root.join(name).to_string_lossy().into_owned();
    let records = newest();
    let records: Vec<&Value> = figures().iter().filter_map(|figure| records.get(figure.name)).collect();
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let (before, rest) = readme.split_once(BEGIN).unwrap_or((&readme, END));
    let (_, after) = rest.split_once(END).unwrap_or_default();
    let short = format!("{before}{BEGIN}\n{}{END}{after}", table(&records, false));
    [(path("README.md"), short), (path("docs/proof.md"), page(&records))]
}

/// The newest full record of each figure, by its name.
fn newest() -> HashMap<String, Value> {
    let mut files: Vec<_> = std::fs::read_dir(run::folder()).into_iter().flatten().flatten().collect();
    files.sort_by_key(std::fs::DirEntry::file_name); // begins with the date: later ones win
    let mut newest = HashMap::new();
    for file in files {
        let Ok(text) = std::fs::read_to_string(file.path()) else { continue };
        let Ok(record) = serde_json::from_str::<Value>(&text) else { continue };
        if let (Some(name), Some("full")) = (record["name"].as_str(), record["size"].as_str()) {
            newest.insert(name.to_owned(), record);
        }
    }
    newest
}

fn table(records: &[&Value], with_ids: bool) -> String {
    let mut text = String::new();
    let head =
        if with_ids { ("| | Promise | Measured |", "|---|---|---|") } else { ("| Promise | Measured |", "|---|---|") };
    let _ = writeln!(text, "{}\n{}", head.0, head.1);
    for record in records {
        let cell = |name: &str| record[name].as_str().unwrap_or_default().replace('|', "\\|");
        let verdict = if record["passed"] == true { "" } else { "**does not hold**: " };
        if with_ids {
            let _ = write!(text, "| [{}](#{}) ", cell("figure"), cell("name"));
        }
        let _ = writeln!(text, "| {} | {verdict}{} |", cell("promise"), cell("result"));
    }
    text
}

fn page(records: &[&Value]) -> String {
    let mut text = String::from(PREFACE);
    text.push_str(&table(records, true));
    for record in records {
        let name = record["name"].as_str().unwrap_or_default();
        let cell = |name: &str| record[name].as_str().unwrap_or("unknown").to_owned();
        let machine = &record["machine"];
        let _ = write!(
            text,
            "\n## {name}\n\n{}.\n\n`make prove-{name}`, {} build of `{}` on {}, {} s, on {} cores ({}).",
            cell("promise"),
            cell("build"),
            cell("commit"),
            cell("date"),
            record["seconds"],
            machine["cores"],
            machine["processor"].as_str().unwrap_or("processor unknown"),
        );
        text.push_str("\n\n");
        for part in ["counts", "measured"] {
            for (what, value) in record[part].as_object().into_iter().flatten() {
                let value = value.as_str().map_or_else(|| grouped(value), str::to_owned);
                let _ = writeln!(text, "- {}: {value}", what.replace('_', " "));
            }
        }
        for (what, name) in [("failures", "Does not hold"), ("skipped", "Skipped")] {
            for line in record[what].as_array().into_iter().flatten().filter_map(Value::as_str) {
                let _ = writeln!(text, "- {name}: {}", line.lines().next().unwrap_or_default());
            }
        }
    }
    text
}

/// A number as the tables have it, for sentences.
pub fn thousands(number: u64) -> String {
    grouped(&number.into())
}

/// A number with its thousands apart.
fn grouped(value: &Value) -> String {
    let text = value.to_string();
    if value.as_u64().is_none() {
        return text;
    }
    let mut grouped = String::new();
    for (at, digit) in text.chars().enumerate() {
        if at > 0 && (text.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

const PREFACE: &str = "# What is proved, and how

Written by `make prove`, from the dated records in [`docs/proof`](proof): do not edit it by hand. `make prove` runs
everything at full size and takes about an hour and a half on two cores; `make prove-NAME` runs one figure,
`make prove-NAME SIZE=ci` its small size, which `make test` runs as well. Each prints how far it is. What a machine
lacks (a peer, a server, the public test vectors) is reported as skipped, by name.

[`docs/past-cves.md`](past-cves.md) has one row for each public bypass of a peer;
[`docs/performance.md`](performance.md) what a request costs beside peers.

";
