//! Findings as workflow commands of GitHub Actions, which shows them beside the lines of a change.

use super::{Diagnostic, Severity, Sources, Span};

/// One `::error …` or `::warning …` for each finding; suppressed ones are left out.
pub fn render(diagnostics: &[Diagnostic], sources: &Sources) -> String {
    diagnostics.iter().filter(|found| found.suppressed.is_none()).map(|found| command(found, sources)).collect()
}

fn command(found: &Diagnostic, sources: &Sources) -> String {
    let command = match found.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let span = found.primary.span;
    let place = sources.get(span.file).map_or(String::new(), |file| {
        let (line, column) = sources.position(span);
        let (end_line, end_column) = sources.position(Span { start: span.end, ..span });
        let end =
            if end_line == line && end_column > column { format!(",endColumn={end_column}") } else { String::new() };
        format!("file={},line={line},col={column}{end},", property(&file.path))
    });
    let mut message = found.message.clone();
    for more in std::iter::once(&found.primary.text).chain(&found.notes).chain(&found.help).filter(|t| !t.is_empty()) {
        message.push('\n');
        message.push_str(more);
    }
    format!("::{command} {place}title={}::{}\n", found.code, data(&message))
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::render;
    use crate::diagnostic::{Code, Diagnostic, FileId, Sources, Span};

    #[test]
    fn nothing_in_a_finding_can_begin_another_command() {
        let mut sources = Sources::default();
        sources.add("a,b:c.yaml", "x: y\n");
        let mut found = Diagnostic::new(Code::P102, "", Span { file: FileId(0), start: 3, end: 4 }, "");
        found.message = "100% `a\n::error::b`".to_owned();
        assert_eq!(
            render(&[found], &sources),
            "::error file=a%2Cb%3Ac.yaml,line=1,col=4,endColumn=5,title=P102::100%25 `a%0A::error::b`\n"
        );
    }
}
