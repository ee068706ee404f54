//! Test identities, requests and expectations.
//!
//! ```text
//! tests:    group → ( "METHOD target" → { identity: expectation } | title → { request, expect } )
//! target := [ ("http" | "https") "://" host ] path [ "?" query ]
//! ```

use serde_json::Value as Json;

use crate::clock::Timestamp;
use crate::diagnostic::{Code, Diagnostic, Span, Spanned};
use crate::policy::document::{Definition, Expectation, ExpectedOutcome, Fixture, Test};
use crate::policy::keys::{self, Context};
use crate::policy::yaml::{Key, Node, Value, shorten};

use super::{Lower, Object, scalars};

/// What a `because` may begin with, when a name follows.
const CAUSES: &[&str] = &["guard", "scope", "role", "permission", "issuer", "condition"];

/// A request target taken apart.
struct Target {
    scheme: Option<String>,
    host: Option<String>,
    target: String,
}

impl Lower<'_> {
    pub(super) fn identities(&mut self, object: Object<'_>) {
        self.each(object, "identities", |lower, key, node| {
            let name = lower.name(&key.text, key.span)?;
            if matches!(name.value.as_str(), "anonymous" | "invalid") {
                lower.reserved(&name, "built in");
                return None;
            }
            let object = lower.object("a test identity", node, Context::Fixture)?;
            let value = lower.fixture(object);
            let allow = lower.suppressions(object);
            lower.document.identities.push(Definition { name, fragment: lower.fragment, value, allow });
            Some(())
        });
    }

    fn fixture(&mut self, object: Object<'_>) -> Fixture {
        let mut fixture = Fixture::default();
        for (key, node) in object.entries {
            let what = format!("`{}`", key.text);
            match key.text.as_str() {
                "issuer" => fixture.issuer = self.text(&what, node),
                "id" => fixture.id = self.text(&what, node),
                "email" => fixture.email = self.text(&what, node),
                "name" => fixture.name = self.text(&what, node),
                "tenant" => fixture.tenant = self.text(&what, node),
                "roles" => fixture.roles = Some(self.named(node, &what, Self::role_name)),
                "scopes" => fixture.scopes = Some(self.named(node, &what, Self::carried_scope)),
                "permissions" => fixture.permissions = Some(self.texts(&what, node)),
                "mfa" => fixture.mfa = self.boolean(&what, node).map(|on| on.value),
                "auth_age" => fixture.auth_age = self.duration(&what, node).map(|age| age.value),
                "kind" => fixture.kind = self.word(&what, node, keys::KINDS).map(|word| word.map(str::to_owned)),
                "ip" => fixture.ip = self.ip(&what, node),
                "claims" => {
                    if self.map(&what, node).is_some()
                        && let Some(Json::Object(claims)) = self.json(node)
                    {
                        fixture.claims = claims;
                    }
                }
                _ => {}
            }
        }
        fixture
    }

    /// A scope as a token may carry it, which need not be one that a policy could ask for.
    fn carried_scope(&mut self, scope: &str, span: Span) -> Option<Spanned<String>> {
        if scope.contains(char::is_whitespace) {
            let message = format!("bad scope `{}`", shorten(scope));
            self.report(Diagnostic::new(Code::P109, message, span, "if several are meant, write a list"));
            return None;
        }
        Some(Spanned::new(scope.to_owned(), span))
    }

    /// Any YAML as JSON.
    fn json(&mut self, node: &Node) -> Option<Json> {
        Some(match &node.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Integer(value) => Json::Number((*value).into()),
            Value::Float(value) => match serde_json::Number::from_f64(*value) {
                Some(number) => Json::Number(number),
                None => {
                    let message = format!("`{}` has no JSON", shorten(&node.text));
                    self.report(Diagnostic::new(Code::P109, message, node.span, "not a finite number"));
                    return None;
                }
            },
            Value::String(text) => Json::String(text.clone()),
            Value::List(items) => Json::Array(items.iter().filter_map(|item| self.json(item)).collect()),
            Value::Map(entries) => Json::Object(
                entries.iter().filter_map(|(key, node)| Some((key.text.clone(), self.json(node)?))).collect(),
            ),
        })
    }

    // === Tests ===

    pub(super) fn tests(&mut self, object: Object<'_>) {
        self.each(object, "tests", |lower, group, node| {
            let entries = lower.map("a test group", node)?;
            for (key, node) in entries {
                if lower.is_full() {
                    return None;
                }
                // Nothing to do for `None`: the reason was reported.
                let _reported = lower.test(group, key, node);
            }
            Some(())
        });
    }

    fn malformed(&mut self, message: String, span: Span, label: &str) {
        self.report(Diagnostic::new(Code::P603, format!("malformed test: {message}"), span, label));
    }

    fn test(&mut self, group: &Key, key: &Key, node: &Node) -> Option<()> {
        let Value::Map(entries) = &node.value else {
            self.wrong_type("a test", "a map of identities to expectations", node);
            return None;
        };
        let mut test = Test {
            group: Spanned::new(group.text.clone(), group.span),
            title: Spanned::new(key.text.clone(), key.span),
            fragment: self.fragment,
            method: String::from("GET"),
            target: String::new(),
            scheme: None,
            host: None,
            headers: Vec::new(),
            ip: None,
            time: None,
            expect: Vec::new(),
        };
        let is_long = entries.iter().any(|(key, _)| key.text == "request" || key.text == "expect");
        if is_long {
            self.long_form(entries, key, &mut test)?;
        } else {
            let request = self.request_key(key);
            self.expectations(entries, node, &mut test);
            let (method, target) = request?;
            test.method = method;
            put_target(&mut test, target);
        }
        self.document.tests.push(test);
        Some(())
    }

    /// `METHOD target`.
    fn request_key(&mut self, key: &Key) -> Option<(String, Target)> {
        let Some((method, target)) = key.text.split_once(' ') else {
            let message = format!("`{}` is not `METHOD /path`", shorten(&key.text));
            self.malformed(message, key.span, "which request? (or the long form `{ request: …, expect: … }`)");
            return None;
        };
        if !scalars::is_token(method) {
            let message = format!("`{}` is not a method", shorten(method));
            self.malformed(message, key.span, "`METHOD /path`");
            return None;
        }
        let target = self.target(target.trim_start_matches(' '), key.span)?;
        Some((method.to_owned(), target))
    }

    fn target(&mut self, text: &str, span: Span) -> Option<Target> {
        let mut rest = text;
        let (mut scheme, mut host) = (None, None);
        if let Some((before, behind)) = text.split_once("://") {
            let end = behind.find(['/', '?']).unwrap_or(behind.len());
            let (authority, path) = behind.split_at_checked(end)?;
            let known = matches!(before, "http" | "https");
            // A port is allowed: it takes no part in matching.
            let name = match authority.rsplit_once(':') {
                Some((name, port)) if scalars::number(port).is_some() => name,
                _ => authority,
            };
            if !known || !scalars::is_host(name) || name.starts_with('*') {
                self.malformed(format!("bad URL `{}`", shorten(text)), span, "`https://host/path`");
                return None;
            }
            (scheme, host, rest) = (Some(before.to_owned()), Some(authority.to_owned()), path);
        }
        if host.is_some() && rest.is_empty() {
            rest = "/";
        }
        if !rest.starts_with('/') {
            self.malformed(format!("`{}` does not begin with `/`", shorten(text)), span, "`METHOD /path`");
            return None;
        }
        Some(Target { scheme, host, target: rest.to_owned() })
    }

    fn long_form(&mut self, entries: &[(Key, Node)], key: &Key, test: &mut Test) -> Option<()> {
        let object = self.known_keys(entries, Context::Test);
        match object.get("expect") {
            Some(node) => {
                if let Some(entries) = self.map("`expect`", node) {
                    self.expectations(entries, node, test);
                }
            }
            None => self.malformed(format!("`{}` has no `expect`", shorten(&key.text)), key.span, "what is expected?"),
        }
        let Some(node) = object.get("request") else {
            self.malformed(format!("`{}` has no `request`", shorten(&key.text)), key.span, "which request?");
            return None;
        };
        let request = self.object("`request`", node, Context::TestRequest)?;
        for (key, node) in request.entries {
            let what = format!("`{}`", key.text);
            match key.text.as_str() {
                "method" => match self.text(&what, node) {
                    Some(text) if scalars::is_token(&text.value) => test.method = text.value,
                    Some(text) => {
                        let message = format!("`{}` is not a method", shorten(&text.value));
                        self.malformed(message, node.span, "such as `GET`");
                    }
                    None => {}
                },
                "headers" => test.headers = self.request_headers(node),
                "ip" => test.ip = self.ip(&what, node),
                "time" => test.time = self.moment(node),
                _ => {}
            }
        }
        let Some(url) = request.get("url") else {
            self.malformed("`request` has no `url`".to_owned(), node.span, "which path?");
            return None;
        };
        let text = self.text("`url`", url)?;
        put_target(test, self.target(&text.value, url.span)?);
        Some(())
    }

    fn request_headers(&mut self, node: &Node) -> Vec<(String, String)> {
        let Some(entries) = self.map("`headers`", node) else { return Vec::new() };
        let mut headers = Vec::new();
        for (key, node) in entries {
            let Some(name) = self.header_name(&key.text, key.span) else { continue };
            for value in self.texts("a header", node) {
                if value.value.chars().any(|c| c.is_control() && c != '\t') {
                    self.malformed(format!("control character in `{}`", name.value), value.span, "here");
                } else {
                    headers.push((name.value.clone(), value.value));
                }
            }
        }
        headers
    }

    /// RFC 3339.
    fn moment(&mut self, node: &Node) -> Option<Timestamp> {
        let text = self.text("`time`", node)?;
        let moment = text.value.parse::<jiff::Timestamp>().ok();
        if moment.is_none() {
            let message = format!("bad time `{}`", shorten(&text.value));
            self.report(Diagnostic::new(Code::P109, message, node.span, "such as `2030-01-01T12:00:00Z`"));
        }
        moment.map(|moment| Timestamp::from_millis(moment.as_millisecond()))
    }

    // === Expectations ===

    fn expectations(&mut self, entries: &[(Key, Node)], node: &Node, test: &mut Test) {
        if entries.is_empty() {
            self.malformed("nothing is expected".to_owned(), node.span, "no identities");
        }
        for (key, node) in entries {
            let name = match key.text.as_str() {
                "anonymous" | "invalid" => Some(Spanned::new(key.text.clone(), key.span)),
                _ => self.name(&key.text, key.span),
            };
            let expectation = self.expectation(node);
            test.expect.extend(name.zip(expectation));
        }
    }

    fn expectation(&mut self, node: &Node) -> Option<Expectation> {
        let mut expectation = Expectation {
            span: node.span,
            outcome: ExpectedOutcome::Allow,
            code: None,
            because: None,
            route: None,
            headers: Vec::new(),
        };
        if !matches!(node.value, Value::Map(_)) {
            expectation.outcome = self.outcome(node)?;
            return Some(expectation);
        }
        let object = self.object("an expectation", node, Context::Expectation)?;
        let status = object.get("status").map(|node| self.status(node));
        let allow = object.get("allow").map(|node| self.boolean("`allow`", node).is_some_and(|allow| allow.value));
        match (status, allow) {
            (Some(status), None) => expectation.outcome = status?,
            (None, Some(true)) => {}
            (None, Some(false)) => {
                self.malformed("`allow: false`".to_owned(), node.span, "say which status is expected");
                return None;
            }
            (Some(_), Some(_)) => {
                self.malformed("`status` and `allow`".to_owned(), node.span, "one of the two");
                return None;
            }
            (None, None) => {
                self.malformed("neither `status` nor `allow`".to_owned(), node.span, "what is expected?");
                return None;
            }
        }
        for (key, node) in object.entries {
            let what = format!("`{}`", key.text);
            match key.text.as_str() {
                "code" => expectation.code = self.text(&what, node),
                "because" => expectation.because = self.because(node),
                "route" => expectation.route = self.text(&what, node),
                "headers" => expectation.headers = self.expected_headers(node),
                _ => {}
            }
        }
        Some(expectation)
    }

    fn outcome(&mut self, node: &Node) -> Option<ExpectedOutcome> {
        match &node.value {
            Value::String(text) if text == "allow" => Some(ExpectedOutcome::Allow),
            Value::Integer(_) => self.status(node),
            Value::List(_) | Value::Null => {
                self.wrong_type("an expectation", "`allow`, a status, or a map", node);
                None
            }
            _ => {
                let message = format!("bad expectation `{}`", shorten(&node.text));
                self.malformed(message, node.span, "`allow`, or a status such as `403`");
                None
            }
        }
    }

    fn status(&mut self, node: &Node) -> Option<ExpectedOutcome> {
        let status = self.integer("`status`", node)?;
        // Refusals, and the redirect to the login page.
        let good = u16::try_from(status.value).ok().filter(|status| (300..=599).contains(status));
        if good.is_none() {
            let label = if status.value == 200 { "for a forwarded request write `allow`" } else { "from 300 to 599" };
            self.malformed(format!("bad status `{}`", status.value), node.span, label);
        }
        good.map(ExpectedOutcome::Status)
    }

    fn because(&mut self, node: &Node) -> Option<Spanned<String>> {
        let text = self.text("`because`", node)?;
        let (first, name) = text.value.split_once(' ').unwrap_or((&text.value, ""));
        let good =
            if name.is_empty() { !CAUSES.contains(&first) && scalars::is_name(first) } else { CAUSES.contains(&first) };
        if !good {
            let message = format!("bad cause `{}`", shorten(&text.value));
            let label = "a code, `guard NAME`, `scope NAME`, `role NAME`, `permission NAME`, `issuer NAME`, `condition NAME`, `mfa` or `max_age`";
            self.malformed(message, node.span, label);
            return None;
        }
        Some(text)
    }

    fn expected_headers(&mut self, node: &Node) -> Vec<(Spanned<String>, Option<String>)> {
        let Some(entries) = self.map("`headers`", node) else { return Vec::new() };
        let mut headers = Vec::new();
        for (key, node) in entries {
            let Some(name) = self.header_name(&key.text, key.span) else { continue };
            if node.value == Value::Null {
                headers.push((name, None));
            } else if let Some(text) = self.text("a header", node) {
                headers.push((name, Some(text.value)));
            }
        }
        headers
    }
}

fn put_target(test: &mut Test, target: Target) {
    test.scheme = target.scheme;
    test.host = target.host;
    test.target = target.target;
}
