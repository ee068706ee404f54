//! Test reports as text, and what decided in the words of tests.

use std::fmt::Write as _;
use std::time::Duration;

use crate::decision::authorize::failing_leaves;
use crate::decision::explain::{Explanation, Tree};
use crate::decision::reason::Denial;
use crate::policy::formula::{Label, NodeKind, Truth};
use crate::policy::set::{PolicySet, Route};

use super::{Coverage, Failure, TestReport};

/// The column at which places begin, where the text before them is short enough.
const PLACE_COLUMN: usize = 66;

impl TestReport {
    /// The report as text; ends with a line feed. Groups are listed only if nothing failed.
    pub fn to_text(&self, took: Option<Duration>) -> String {
        let mut out = String::new();
        let failed = self.failures.len();
        let time = took.map_or(String::new(), |took| format!(" in {} ms", took.as_millis()));
        if failed == 0 {
            let groups: Vec<String> =
                self.groups.iter().map(|group| format!("{}  ✓ {}", group.name, group.passed)).collect();
            let groups = groups.join("    ");
            let _ = writeln!(out, " {groups:<PLACE_COLUMN$} {} passed, 0 failed{time}", self.passed);
            return out;
        }
        for failure in &self.failures {
            out.push_str(&failure.to_text());
        }
        let _ = writeln!(out, " {} passed, {failed} failed{time}", self.passed);
        out
    }
}

impl Failure {
    /// The failure with its reasons; ends with a line feed.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        let Self { group, title, identity, place, .. } = self;
        let head = format!(" ✗ {group} › {title} as {identity}");
        let _ = writeln!(out, "{head:<PLACE_COLUMN$} {place}:{}", place.column);
        let _ = writeln!(out, "     {}", self.message);
        for line in self.explanation.as_deref().map(reasons).unwrap_or_default() {
            let _ = writeln!(out, "     {line}");
        }
        out
    }
}

/// The route of an explanation, and the trees that decided.
pub(super) fn reasons(explanation: &Explanation) -> Vec<String> {
    let mut lines = Vec::new();
    let Some(route) = &explanation.route else {
        lines.push("route  none".to_owned());
        let nearest = explanation.others.iter();
        lines.extend(nearest.map(|other| format!("  {}  {}   {}", other.key, other.why, other.place)));
        return lines;
    };
    let access = route.access.as_ref().map_or(String::new(), |(name, at)| format!("  →  {name} ({at})"));
    lines.push(format!("route  {}   {}{access}", route.key, route.place));
    let indented = |tree: &Tree| tree.lines().into_iter().map(|line| format!("  {line}"));
    if let Some(needs) = &explanation.needs {
        // The name is in the line above already.
        let needs = Tree { name: None, ..needs.clone() };
        lines.extend(indented(&needs));
    }
    for guard in &explanation.guards {
        let Some(needs) = guard.needs.as_ref().filter(|needs| needs.value != Truth::True && !guard.shadow) else {
            continue;
        };
        lines.push(format!("guard  {}   {}", guard.name, guard.place));
        lines.extend(indented(needs));
    }
    lines
}

impl Coverage {
    /// The coverage as text; ends with a line feed.
    pub fn to_text(&self) -> String {
        let share = |covered: usize, all: usize| match all {
            0 => "–".to_owned(),
            all => format!("{covered}/{all}"),
        };
        let mut out = format!(
            " coverage   routes {} (allow and deny seen; public: allow seen) · leaves {} (true and false seen) · guards {}\n",
            share(self.covered_routes(), self.routes.len()),
            share(self.covered_leaves(), self.leaves.len()),
            share(self.covered_guards(), self.guards.len()),
        );
        let findings = self.findings();
        let width = findings.iter().map(|finding| finding.what.chars().count()).max().unwrap_or(0);
        for finding in findings {
            let start = format!("   {:<width$}    {}", finding.what, finding.finding);
            let _ = writeln!(out, "{start:<PLACE_COLUMN$}  {}", finding.place);
        }
        out
    }
}

/// What decided, in every word that a test may use: the code, guards, leaves, named conditions.
pub(super) fn because(policy: &PolicySet, denial: &Denial) -> Vec<String> {
    let mut reasons = vec![denial.reason.code().to_owned()];
    let mut add = |reason: &str| {
        let reason = reason.strip_prefix("unknown:").unwrap_or(reason);
        // `max_age 10m` is `max_age` in a test.
        let reason = if reason.starts_with("max_age ") { "max_age" } else { reason };
        if !reasons.iter().any(|known| known == reason) {
            reasons.push(reason.to_owned());
        }
    };
    denial.failed.iter().for_each(|reason| add(reason));
    if let (Some(route), Some(masks)) = (denial.route.and_then(|id| policy.route(id)), denial.masks) {
        let failed_guards = route.guards.iter().filter(|guard| {
            let name = policy.guard(guard.guard).map_or("", |guard| &guard.name);
            denial
                .failed
                .iter()
                .any(|failed| failed.strip_prefix("unknown:").unwrap_or(failed) == format!("guard {name}"))
        });
        for node in std::iter::once(&route.requirement).chain(failed_guards.map(|guard| &guard.requirement)) {
            let mut leaves = Vec::new();
            failing_leaves(node, route, masks, true, &mut leaves);
            leaves.iter().for_each(|leaf| add(leaf));
            node.walk(&mut |part| {
                if part.value(masks) == Truth::True {
                    return;
                }
                match (&part.label, &part.kind) {
                    (Some(Label::Condition(name)), _) => add(&format!("condition {name}")),
                    (_, NodeKind::Leaf(id)) => text_of(route, *id).into_iter().for_each(&mut add),
                    _ => {}
                }
            });
        }
    }
    reasons
}

fn text_of(route: &Route, id: crate::policy::formula::LeafId) -> Option<&str> {
    route.leaf(id).map(|leaf| &*leaf.text)
}
