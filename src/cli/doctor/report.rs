//! What was found, as text and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// Where a finding belongs, in the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Section {
    Settings,
    Environment,
    Files,
    Clock,
    Store,
    Keys,
    Upstreams,
    Exposure,
    Policy,
    Project,
}

impl Section {
    fn as_str(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Environment => "environment",
            Self::Files => "files",
            Self::Clock => "clock",
            Self::Store => "store",
            Self::Keys => "keys",
            Self::Upstreams => "upstreams",
            Self::Exposure => "exposure",
            Self::Policy => "policy",
            Self::Project => "project",
        }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// As it should be.
    Fine,
    /// It was not looked at, or there is nothing to look at.
    Skipped,
    /// Somebody should look at it.
    Warning,
    /// It does not work, or is not safe.
    Problem,
}

/// One finding.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) section: Section,
    pub(super) level: Level,
    /// A stable name of what is wrong; empty where nothing is.
    pub(super) code: &'static str,
    /// What was looked at.
    pub(super) subject: String,
    /// What was seen.
    pub(super) message: String,
    /// What to do.
    pub(super) help: Option<String>,
}

impl Finding {
    pub(super) fn fine(section: Section, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(section, Level::Fine, "", subject, message)
    }

    pub(super) fn skipped(section: Section, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(section, Level::Skipped, "", subject, message)
    }

    pub(super) fn warning(
        section: Section,
        code: &'static str,
        subject: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self::new(section, Level::Warning, code, subject, message)
    }

    pub(super) fn problem(
        section: Section,
        code: &'static str,
        subject: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self::new(section, Level::Problem, code, subject, message)
    }

    fn new(
        section: Section,
        level: Level,
        code: &'static str,
        subject: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { section, level, code, subject: subject.into(), message: message.into(), help: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// How marks are drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// `ok` and `x` instead of `✓` and `✗`.
    pub(super) ascii: bool,
    pub(super) color: bool,
}

impl Style {
    fn mark(self, level: Level) -> String {
        let (unicode, ascii, color) = match level {
            Level::Fine => ("✓", "+", "32"),
            Level::Skipped => ("–", "-", "2"),
            Level::Warning => ("!", "!", "33"),
            Level::Problem => ("✗", "x", "31"),
        };
        let mark = if self.ascii { ascii } else { unicode };
        if self.color { format!("\u{1b}[{color}m{mark}\u{1b}[0m") } else { mark.to_owned() }
    }
}

/// All findings.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Finding>);

impl Report {
    pub(super) fn new(mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| finding.section);
        Self(findings)
    }

    fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|finding| finding.level == level).count()
    }

    pub(super) fn problems(&self) -> usize {
        self.count(Level::Problem)
    }

    pub(super) fn text(&self, style: Style, quiet: bool) -> String {
        let mut text = String::new();
        let mut section = None;
        let shown = |finding: &&Finding| !quiet || matches!(finding.level, Level::Warning | Level::Problem);
        for finding in self.0.iter().filter(shown) {
            if section != Some(finding.section) {
                section = Some(finding.section);
                let _ = writeln!(text, " {}", finding.section.as_str());
            }
            let (mark, message) = (style.mark(finding.level), self::ascii(&finding.message, style.ascii));
            let width = self.width(finding.section);
            let _ = writeln!(text, "  {mark} {:width$}  {message}", finding.subject);
            if let Some(help) = &finding.help {
                let arrow = if style.ascii { "->" } else { "→" };
                let _ = writeln!(text, "    {:width$}  {arrow} {}", "", self::ascii(help, style.ascii));
            }
        }
        let (problems, warnings) = (self.problems(), self.count(Level::Warning));
        let _ = match (problems, warnings) {
            (0, 0) => writeln!(text, " no problems"),
            (0, _) => writeln!(text, " no problems, {}", count(warnings, "warning")),
            (_, 0) => writeln!(text, " {}", count(problems, "problem")),
            _ => writeln!(text, " {}, {}", count(problems, "problem"), count(warnings, "warning")),
        };
        text
    }

    /// How wide the subjects of a section are.
    fn width(&self, section: Section) -> usize {
        let widths = self.0.iter().filter(|finding| finding.section == section);
        widths.map(|finding| finding.subject.chars().count()).filter(|width| *width <= 40).max().unwrap_or(0)
    }

    pub(super) fn json(&self) -> Value {
        let findings: Vec<Value> = self
            .0
            .iter()
            .map(|finding| {
                json!({
                    "section": finding.section.as_str(),
                    "level": match finding.level {
                        Level::Fine => "ok",
                        Level::Skipped => "skipped",
                        Level::Warning => "warning",
                        Level::Problem => "problem",
                    },
                    "code": if finding.code.is_empty() { Value::Null } else { json!(finding.code) },
                    "subject": finding.subject,
                    "message": finding.message,
                    "help": finding.help,
                })
            })
            .collect();
        json!({
            "version": 1,
            "problems": self.problems(),
            "warnings": self.count(Level::Warning),
            "findings": findings,
        })
    }
}

/// `1 problem`, `2 problems`.
fn count(number: usize, word: &str) -> String {
    crate::cli::terminal::count(number, word)
}

/// The few signs of ours that are not ASCII, for terminals that cannot show them.
fn ascii(text: &str, needed: bool) -> String {
    if needed { text.replace(" · ", ", ").replace('…', "...").replace('≠', "is not") } else { text.to_owned() }
}
