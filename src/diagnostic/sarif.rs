//! Findings as SARIF 2.1.0, for code scanning services.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Code, Diagnostic, Fix, Label, Severity, Sources, Span, help};

/// The whole log: one run, the rules that it uses, all findings with their suppressions.
pub fn render(diagnostics: &[Diagnostic], sources: &Sources) -> String {
    let codes: BTreeSet<Code> = diagnostics.iter().map(|found| found.code).collect();
    let rules: Vec<Value> = codes.iter().map(|code| rule(*code)).collect();
    let results: Vec<Value> = diagnostics.iter().map(|found| result(found, sources)).collect();
    let log = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "portcullis",
                "version": env!("CARGO_PKG_VERSION"),
                "informationUri": env!("CARGO_PKG_REPOSITORY"),
                "rules": rules,
            } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    format!("{log:#}\n")
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn rule(code: Code) -> Value {
    let help = help::of(code);
    json!({
        "id": code.as_str(),
        "shortDescription": { "text": code.title() },
        "fullDescription": { "text": format!("{} {}", help.finds, help.why) },
        "helpUri": help::uri(code),
        "defaultConfiguration": { "level": level(code.severity()) },
    })
}

fn result(found: &Diagnostic, sources: &Sources) -> Value {
    let mut text = found.message.clone();
    for more in found.notes.iter().chain(&found.help) {
        text.push('\n');
        text.push_str(more);
    }
    let mut result = json!({
        "ruleId": found.code.as_str(),
        "level": level(found.severity),
        "message": { "text": text },
        "locations": location(&found.primary, sources).into_iter().collect::<Vec<_>>(),
    });
    let Value::Object(object) = &mut result else { return result };
    let related: Vec<Value> = found.secondary.iter().filter_map(|label| location(label, sources)).collect();
    if !related.is_empty() {
        object.insert("relatedLocations".to_owned(), related.into());
    }
    let fixes: Vec<Value> = found.fixes.iter().filter_map(|fix| fix_object(fix, sources)).collect();
    if !fixes.is_empty() {
        object.insert("fixes".to_owned(), fixes.into());
    }
    if let Some(reason) = &found.suppressed {
        object.insert("suppressions".to_owned(), json!([{ "kind": "inSource", "justification": reason }]));
    }
    result
}

fn location(label: &Label, sources: &Sources) -> Option<Value> {
    let file = sources.get(label.span.file)?;
    let mut location = json!({
        "physicalLocation": {
            "artifactLocation": { "uri": uri(&file.path) },
            "region": region(label.span, sources),
        },
    });
    if let (Value::Object(object), false) = (&mut location, label.text.is_empty()) {
        object.insert("message".to_owned(), json!({ "text": label.text }));
    }
    Some(location)
}

fn region(span: Span, sources: &Sources) -> Value {
    let (start_line, start_column) = sources.position(span);
    let (end_line, end_column) = sources.position(Span { start: span.end, ..span });
    json!({ "startLine": start_line, "startColumn": start_column, "endLine": end_line, "endColumn": end_column })
}

/// A fix changes one file; one over several files has no place in SARIF's `fixes` as services read them.
fn fix_object(fix: &Fix, sources: &Sources) -> Option<Value> {
    let file = fix.edits.first()?.span.file;
    if fix.edits.iter().any(|edit| edit.span.file != file) {
        return None;
    }
    let replacements: Vec<Value> = fix
        .edits
        .iter()
        .map(|edit| json!({ "deletedRegion": region(edit.span, sources), "insertedContent": { "text": edit.text } }))
        .collect();
    Some(json!({
        "description": { "text": fix.title },
        "artifactChanges": [{
            "artifactLocation": { "uri": uri(&sources.get(file)?.path) },
            "replacements": replacements,
        }],
    }))
}

/// A relative path as a URI.
fn uri(path: &str) -> String {
    use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
    const ESCAPED: &AsciiSet = &CONTROLS
        .add(b' ')
        .add(b'"')
        .add(b'#')
        .add(b'%')
        .add(b'<')
        .add(b'>')
        .add(b'?')
        .add(b'`')
        .add(b'{')
        .add(b'}')
        .add(b':');
    utf8_percent_encode(&path.replace('\\', "/"), ESCAPED).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::render;
    use crate::diagnostic::{Code, Diagnostic, FileId, Sources, Span};

    #[test]
    fn a_log_has_rules_results_fixes_and_suppressions() {
        let mut sources = Sources::default();
        sources.add("policies/a b.yaml", "x: y\nz: y\n");
        let place = |start| Span { file: FileId(0), start, end: start + 1 };
        let mut suppressed = Diagnostic::new(Code::P311, "weaker", place(8), "").also(place(3), "than this");
        suppressed.suppressed = Some("known".to_owned());
        let found = Diagnostic::new(Code::P102, "unknown", place(3), "here").fix("better", place(3), "w");
        let log: Value = serde_json::from_str(&render(&[found, suppressed], &sources)).unwrap();
        let run = &log["runs"][0];
        assert_eq!(log["version"], "2.1.0");
        assert_eq!(run["tool"]["driver"]["rules"][0]["id"], "P102");
        assert!(run["tool"]["driver"]["rules"][1]["helpUri"].as_str().unwrap().ends_with("#p311"));
        let region = json!({ "startLine": 1, "startColumn": 4, "endLine": 1, "endColumn": 5 });
        let first = &run["results"][0];
        assert_eq!(first["ruleId"], "P102");
        assert_eq!(first["locations"][0]["physicalLocation"]["region"], region);
        assert_eq!(first["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], "policies/a%20b.yaml");
        assert_eq!(first["fixes"][0]["artifactChanges"][0]["replacements"][0]["insertedContent"]["text"], "w");
        let second = &run["results"][1];
        assert_eq!(second["suppressions"][0]["justification"], "known");
        assert_eq!(second["relatedLocations"][0]["physicalLocation"]["region"], region);
    }
}
