//! Explanations as text for a terminal: no colours, aligned, understandable without either.

use std::fmt::Write as _;

use crate::policy::formula::Truth;

use super::{Explanation, GuardExplained, Tree};

/// The column at which places begin, where the text before them is short enough.
const PLACE_COLUMN: usize = 60;

impl Explanation {
    /// The explanation as text; ends with a line feed.
    pub fn to_text(&self) -> String {
        let mut out = self.headline();
        out.push('\n');
        if let Some(cause) = self.cause.as_ref().filter(|_| self.needs.is_none()) {
            // Of a credential that does not hold, the identity says more than the client is told.
            let detail = self.detail.as_ref().filter(|_| self.code != Some("invalid_token"));
            line(&mut out, "cause", &detail.map_or_else(|| cause.clone(), |detail| format!("{cause}: {detail}")), "");
        }
        if let Some(route) = &self.route {
            let access = match &route.access {
                Some((name, at)) => format!("  →  {name} ({at})"),
                None => String::new(),
            };
            let app = route.app.as_ref().map_or_else(String::new, |app| format!("{app}: "));
            line(&mut out, "route", &format!("{app}{}{access}", route.key), &route.place);
            if !route.parameters.is_empty() {
                let parameters = route.parameters.iter().map(|(name, value)| format!("path.{name} = \"{value}\""));
                line(&mut out, "", &parameters.collect::<Vec<_>>().join("   "), "");
            }
        }
        line(&mut out, "identity", &self.identity_text(), self.identity.place.as_deref().unwrap_or(""));
        if let Some(needs) = &self.needs {
            // A name that is the whole requirement stands beside the route.
            let named = self.route.as_ref().is_some_and(|route| route.access.is_some());
            let needs = if named { Tree { name: None, ..needs.clone() } } else { needs.clone() };
            block(&mut out, "needs", &needs.lines());
            if !needs.satisfied_by.is_empty() {
                line(&mut out, "", &format!("satisfied by any of: {}", needs.satisfied_by.join(", ")), "");
            }
        }
        self.guards_text(&mut out);
        if !self.limits.is_empty() {
            line(&mut out, "limits", &self.limits.join(" · "), "");
        }
        if !self.headers.is_empty() {
            let headers: Vec<String> = self.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            let sent = if self.decision == "allow" { "" } else { "(not sent) " };
            line(&mut out, "headers", &format!("{sent}{}", headers.join("  ")), "");
        }
        if let (Some(status), "deny") = (self.status, self.decision) {
            let mut response = status.to_string();
            if let Some(challenge) = &self.challenge {
                let _ = write!(response, "  WWW-Authenticate: {challenge}");
            }
            if !self.allow.is_empty() {
                let _ = write!(response, "  Allow: {}", self.allow.join(", "));
            }
            line(&mut out, "response", &response, "");
        }
        self.others_text(&mut out);
        out
    }

    fn headline(&self) -> String {
        let verdict = match (self.decision, self.status, self.code) {
            ("deny", Some(status), Some(code)) => format!("DENY {status} {code}"),
            _ => "ALLOW".to_owned(),
        };
        format!("{verdict:<47} policy {}   request: {} {}\n", self.policy, self.method, self.path)
    }

    fn identity_text(&self) -> String {
        let identity = &self.identity;
        let mut parts = vec![identity.who.clone()];
        parts.extend(identity.issuer.as_ref().map(|issuer| format!("issuer {issuer}")));
        parts.extend(identity.id.as_ref().map(|id| format!("id {id}")));
        if !identity.roles.is_empty() {
            let mut roles = format!("roles {}", identity.roles.join(", "));
            if !identity.included.is_empty() {
                let _ = write!(roles, " → {}", identity.included.join(", "));
            }
            parts.push(roles);
        }
        parts.extend(identity.tenant.as_ref().map(|tenant| format!("tenant {tenant}")));
        parts.extend(identity.mfa.map(|mfa| format!("mfa {}", if mfa { "yes" } else { "no" })));
        parts.join(" · ")
    }

    fn guards_text(&self, out: &mut String) {
        let applied: Vec<&GuardExplained> = self.guards.iter().filter(|guard| guard.needs.is_some()).collect();
        if self.needs.is_some() && applied.is_empty() {
            line(out, "guards", "none match", "");
        }
        for (number, guard) in applied.into_iter().enumerate() {
            let Some(needs) = &guard.needs else { continue };
            let shadow = if guard.shadow { " (shadow: not enforced)" } else { "" };
            let title = format!("{} {}{shadow}", mark(needs.value), guard.name);
            line(out, if number == 0 { "guards" } else { "" }, &title, &guard.place);
            for text in needs.lines() {
                line(out, "", &format!("   {text}"), "");
            }
        }
        let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
        for guard in &self.guards {
            let Some(why) = guard.not_applied.filter(|_| self.needs.is_some()) else { continue };
            match reasons.iter_mut().find(|(known, _)| *known == why) {
                Some((_, names)) => names.push(&guard.name),
                None => reasons.push((why, vec![&guard.name])),
            }
        }
        for (why, names) in reasons {
            line(out, "", &format!("– {}: {why}", names.join(", ")), "");
        }
    }

    fn others_text(&self, out: &mut String) {
        let question = if self.route.is_some() { "why not another route?" } else { "nearest routes" };
        if self.others.is_empty() {
            if self.route.is_some() {
                let _ = writeln!(out, " {question}   {} {} matches no other template", self.method, self.path);
            } else if self.cause.as_deref() == Some("no_route") {
                let _ = writeln!(out, " {question}   none: no template begins like this path");
            }
            return;
        }
        let _ = writeln!(out, " {question}");
        let width = self.others.iter().map(|other| other.key.chars().count()).max().unwrap_or(0);
        for other in &self.others {
            line(out, "", &format!("{:width$}  {}", other.key, other.why), &other.place);
        }
    }
}

/// One line: a heading, a text, a place at the right.
fn line(out: &mut String, heading: &str, text: &str, place: &str) {
    let start = format!(" {heading:<9} {text}");
    if place.is_empty() {
        out.push_str(start.trim_end());
    } else {
        let _ = write!(out, "{start:<PLACE_COLUMN$}  {place}");
    }
    out.push('\n');
}

fn block(out: &mut String, heading: &str, lines: &[String]) {
    for (number, text) in lines.iter().enumerate() {
        line(out, if number == 0 { heading } else { "" }, text, "");
    }
}

/// The sign of a truth value.
pub(super) fn mark(value: Truth) -> char {
    match value {
        Truth::True => '✓',
        Truth::False => '✗',
        Truth::Unknown => '?',
    }
}

impl Tree {
    /// The tree as lines: parts of `any` and `all` below each other, notes aligned.
    pub fn lines(&self) -> Vec<String> {
        self.lines_padded(0)
    }

    fn lines_padded(&self, width: usize) -> Vec<String> {
        if self.members.is_empty() {
            let text = self.own_text();
            let line = match self.note.as_str() {
                "" => format!("{} {text}", mark(self.value)),
                note => format!("{} {text:width$}   {note}", mark(self.value)),
            };
            return vec![line];
        }
        let head = match &self.name {
            Some(name) => format!("{} {name}: {} ", mark(self.value), self.join),
            None => format!("{} ", self.join),
        };
        let indent = " ".repeat(head.chars().count());
        let leaf_width = |member: &Self| member.own_text().chars().count();
        let widest = self.members.iter().filter(|member| member.members.is_empty()).map(leaf_width).max().unwrap_or(0);
        let last = self.members.len() - 1;
        let mut lines = Vec::new();
        for (number, member) in self.members.iter().enumerate() {
            let (first, rest) = match (number == last, last) {
                (_, 0) => ("─ ", "  "),
                (true, _) => ("└ ", "  "),
                (false, _) => ("├ ", "│ "),
            };
            for (at, text) in member.lines_padded(widest).into_iter().enumerate() {
                let before = if lines.is_empty() { &head } else { &indent };
                lines.push(format!("{before}{}{text}", if at == 0 { first } else { rest }));
            }
        }
        lines
    }

    /// A leaf with the name it was inlined under: `staff: role support`.
    fn own_text(&self) -> String {
        match &self.name {
            Some(name) if !self.text.is_empty() => format!("{name}: {}", self.text),
            Some(name) => name.clone(),
            None => self.text.clone(),
        }
    }
}
