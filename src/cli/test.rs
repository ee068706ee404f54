//! `test`: the policies' own tests in detail, and what they leave out.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::config::Environment;
use crate::decision::cases::{self, Coverage, Failure, TestReport};
use crate::diagnostic::github;
use crate::policy::set::PolicySet;
use crate::reload::load::{self, load};

use super::exit::Exit;
use super::{Global, Terminal, broken, watch};

/// Runs the policies' tests in detail, with coverage
#[derive(Args, Debug)]
pub struct Arguments {
    /// How results are shown
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// Also show which routes, leaves and guards no test has seen
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    coverage: Option<CoverageFormat>,
    /// The least coverage in percent; less is a failure
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    min: Option<u8>,
    /// Only these tests, e.g. `items › POST*`; without `*`, tests whose group or title contains this
    #[arg(long, value_name = "PATTERN")]
    filter: Option<String>,
    /// Test again at every change
    #[arg(long)]
    watch: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
    Junit,
    Github,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CoverageFormat {
    Text,
    Json,
    Lcov,
}

impl Arguments {
    /// Runs the command.
    pub fn run(&self, global: &Global, terminal: Terminal, environment: &Environment) -> Result<Exit, Exit> {
        let folder = global.folder(terminal, environment)?;
        if self.watch {
            watch::forever(terminal, &folder, || self.once(terminal, &folder));
        }
        self.once(terminal, &folder)
    }

    fn once(&self, terminal: Terminal, folder: &Path) -> Result<Exit, Exit> {
        let started = Instant::now();
        let options = load::Options { tests: false, ..load::Options::check() };
        let loaded = load(folder, &options);
        let Some(candidate) = &loaded.candidate else {
            return Err(broken(terminal, &loaded.diagnostics, &loaded.sources));
        };
        let policy = candidate.policy();
        let report = cases::run_matching(policy, |group, title| self.wants(group, title));
        if report.passed + report.failures.len() == 0 {
            let why = if self.filter.is_some() { "no test matches the filter" } else { "the policies have no tests" };
            terminal.err(format_args!("{why}\n"));
        }
        self.show(terminal, policy, &report, started.elapsed());
        if self.format == Format::Github {
            terminal.out(github::render(&report.diagnostics(), &loaded.sources));
        }
        let percent = report.coverage.percent();
        let too_little = self.min.is_some_and(|least| percent < usize::from(least));
        if too_little {
            terminal.err(format_args!("coverage is {percent} %, less than {} %\n", self.min.unwrap_or(0)));
        }
        Ok(if report.is_passing() && !too_little { Exit::Fine } else { Exit::Found })
    }

    fn wants(&self, group: &str, title: &str) -> bool {
        let Some(filter) = &self.filter else { return true };
        let name = format!("{group} › {title}");
        if filter.contains('*') { matches(filter, &name) } else { name.contains(filter.as_str()) }
    }

    fn show(&self, terminal: Terminal, policy: &PolicySet, report: &TestReport, took: Duration) {
        match self.format {
            Format::Text => terminal.out(report.to_text(Some(took))),
            Format::Json => terminal.out(format_args!("{:#}\n", describe(report, self.coverage.is_some()))),
            Format::Junit => terminal.out(junit(policy, report, took, |group, title| self.wants(group, title))),
            Format::Github => {}
        }
        match self.coverage {
            None => {}
            Some(CoverageFormat::Text) if matches!(self.format, Format::Text) => {
                terminal.out(report.coverage.to_text());
            }
            Some(CoverageFormat::Text) => {}
            Some(CoverageFormat::Json) => terminal.out(format_args!("{:#}\n", covered(&report.coverage))),
            Some(CoverageFormat::Lcov) => terminal.out(lcov(&report.coverage)),
        }
    }
}

/// Whether a text matches a pattern in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, between)) = parts.split_last() else { return rest.is_empty() };
    for part in between {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn describe(report: &TestReport, with_coverage: bool) -> Value {
    let groups: Vec<Value> = report
        .groups
        .iter()
        .map(|group| json!({ "name": group.name, "passed": group.passed, "failed": group.failed }))
        .collect();
    let failures: Vec<Value> = report
        .failures
        .iter()
        .map(|failure| {
            json!({
                "group": failure.group,
                "title": failure.title,
                "identity": failure.identity,
                "path": &*failure.place.path,
                "line": failure.place.line,
                "column": failure.place.column,
                "code": failure.code.as_str(),
                "message": failure.message,
                "observed": failure.observed,
                "explanation": failure.explanation,
            })
        })
        .collect();
    let mut value =
        json!({ "passed": report.passed, "failed": failures.len(), "groups": groups, "failures": failures });
    if let (true, Some(object)) = (with_coverage, value.as_object_mut()) {
        object.insert("coverage".to_owned(), covered(&report.coverage));
    }
    value
}

fn covered(coverage: &Coverage) -> Value {
    let findings: Vec<Value> = coverage
        .findings()
        .iter()
        .map(|finding| {
            json!({
                "what": finding.what,
                "finding": finding.finding,
                "path": &*finding.place.path,
                "line": finding.place.line,
            })
        })
        .collect();
    json!({
        "percent": coverage.percent(),
        "routes": { "covered": coverage.covered_routes(), "all": coverage.routes.len() },
        "leaves": { "covered": coverage.covered_leaves(), "all": coverage.leaves.len() },
        "guards": { "covered": coverage.covered_guards(), "all": coverage.guards.len() },
        "findings": findings,
    })
}

/// The lines of routes, leaves and guards with how often each was evaluated.
fn lcov(coverage: &Coverage) -> String {
    use std::collections::BTreeMap;
    let mut files: BTreeMap<&str, BTreeMap<u32, usize>> = BTreeMap::new();
    let routes = coverage.routes.iter().map(|route| (&route.place, route.allowed + route.denied));
    let leaves = coverage.leaves.iter().map(|leaf| (&leaf.place, leaf.held + leaf.failed));
    let guards = coverage.guards.iter().map(|guard| (&guard.place, guard.held + guard.failed));
    for (place, hits) in routes.chain(leaves).chain(guards) {
        let lines = files.entry(&place.path).or_default();
        let line = lines.entry(place.line).or_insert(hits);
        *line = (*line).min(hits);
    }
    let mut out = String::from("TN:\n");
    for (path, lines) in files {
        let _ = writeln!(out, "SF:{path}");
        for (line, hits) in &lines {
            let _ = writeln!(out, "DA:{line},{hits}");
        }
        let hit = lines.values().filter(|hits| **hits > 0).count();
        let _ = write!(out, "LF:{}\nLH:{hit}\nend_of_record\n", lines.len());
    }
    out
}

fn junit(policy: &PolicySet, report: &TestReport, took: Duration, wants: impl Fn(&str, &str) -> bool) -> String {
    let total = report.passed + report.failures.len();
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"portcullis\" tests=\"{total}\" failures=\"{}\" time=\"{:.3}\">\n",
        report.failures.len(),
        took.as_secs_f64(),
    );
    for group in &report.groups {
        let _ = writeln!(
            out,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\">",
            xml(&group.name),
            group.passed + group.failed,
            group.failed,
        );
        let tests = policy.tests.iter().filter(|test| test.group.value == group.name);
        for test in tests.filter(|test| wants(&test.group.value, &test.title.value)) {
            for (identity, _) in &test.expect {
                let is_this = |failure: &&Failure| {
                    failure.group == group.name
                        && failure.title == test.title.value
                        && failure.identity == identity.value
                };
                let name = xml(&format!("{} as {}", test.title.value, identity.value));
                let _ = write!(out, "    <testcase classname=\"{}\" name=\"{name}\"", xml(&group.name));
                match report.failures.iter().find(is_this) {
                    None => out.push_str("/>\n"),
                    Some(failure) => {
                        let (message, text) = (xml(&failure.message), xml(&failure.to_text()));
                        let _ =
                            writeln!(out, ">\n      <failure message=\"{message}\">{text}</failure>\n    </testcase>");
                    }
                }
            }
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

/// Text for XML; characters that XML 1.0 does not know are replaced.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, expected) in [
            ("items › POST*", "items › POST /items", true),
            ("items › POST*", "items › GET /items", false),
            ("*users*", "users › GET /users/me", true),
            ("*/me", "users › GET /users/me", true),
            ("*/me", "users › GET /users/me/items", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
