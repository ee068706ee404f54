//! Findings for programs: one JSON object for each.

use serde_json::{Value, json};

use super::{Diagnostic, Label, Sources, Span};

/// A finding as an object: `code`, `severity`, `message`, `spans`, `notes`, `help`, `fixes`, `suppressed`.
///
/// Lines and columns count from 1, columns in characters; `start` and `end` are bytes. The first span is the
/// primary one.
pub fn object(found: &Diagnostic, sources: &Sources) -> Value {
    let spans: Vec<Value> = std::iter::once((&found.primary, true))
        .chain(found.secondary.iter().map(|label| (label, false)))
        .filter(|(label, _)| sources.get(label.span.file).is_some())
        .map(|(label, primary)| span(label, primary, sources))
        .collect();
    let fixes: Vec<Value> = found
        .fixes
        .iter()
        .map(|fix| {
            let edits: Vec<Value> = fix
                .edits
                .iter()
                .map(|edit| {
                    let mut place = place(edit.span, sources);
                    if let Value::Object(place) = &mut place {
                        place.insert("text".to_owned(), edit.text.as_str().into());
                    }
                    place
                })
                .collect();
            json!({ "title": fix.title, "edits": edits })
        })
        .collect();
    json!({
        "code": found.code.as_str(),
        "severity": found.severity.as_str(),
        "message": found.message,
        "spans": spans,
        "notes": found.notes,
        "help": found.help,
        "fixes": fixes,
        "suppressed": found.suppressed,
    })
}

/// All findings, suppressed ones too: one object in a line.
pub fn render(diagnostics: &[Diagnostic], sources: &Sources) -> String {
    diagnostics.iter().map(|found| format!("{}\n", object(found, sources))).collect()
}

fn span(label: &Label, primary: bool, sources: &Sources) -> Value {
    let mut place = place(label.span, sources);
    if let Value::Object(place) = &mut place {
        place.insert("label".to_owned(), label.text.as_str().into());
        place.insert("primary".to_owned(), primary.into());
    }
    place
}

fn place(span: Span, sources: &Sources) -> Value {
    let (line, column) = sources.position(span);
    let (end_line, end_column) = sources.position(Span { start: span.end, ..span });
    json!({
        "file": sources.get(span.file).map(|file| file.path.as_ref()),
        "line": line,
        "column": column,
        "end_line": end_line,
        "end_column": end_column,
        "start": span.start,
        "end": span.end,
    })
}

#[cfg(test)]
mod tests {
    use super::render;
    use crate::diagnostic::{Code, Diagnostic, FileId, Sources, Span};

    #[test]
    fn one_object_in_a_line() {
        let mut sources = Sources::default();
        sources.add("a.yaml", "ä: b\nc: d\n");
        let span = Span { file: FileId(0), start: 9, end: 10 };
        let mut found = Diagnostic::new(Code::P311, "weaker", span, "here").fix("better", span, "e");
        found.suppressed = Some("known".to_owned());
        assert_eq!(
            render(&[found], &sources),
            concat!(
                r#"{"code":"P311","severity":"warning","message":"weaker","spans":[{"file":"a.yaml","line":2,"column":4,"#,
                r#""end_line":2,"end_column":5,"start":9,"end":10,"label":"here","primary":true}],"notes":[],"help":[],"#,
                r#""fixes":[{"title":"better","edits":[{"file":"a.yaml","line":2,"column":4,"end_line":2,"end_column":5,"#,
                r#""start":9,"end":10,"text":"e"}]}],"suppressed":"known"}"#,
                "\n"
            )
        );
    }
}
