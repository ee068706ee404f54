//! Named things of the set: scopes, permissions, roles, sets, conditions, access, limits, and what is stated
//! once: headers, time zone, `unmatched`.

use ipnet::IpNet;

use crate::diagnostic::{Code, Diagnostic, Span, Spanned};
use crate::policy::document::{Access, Definition, Role, Set};
use crate::policy::keys::{self, Context};
use crate::policy::yaml::{Key, Node, Value, shorten};

use super::requirement::Place;
use super::{Lower, Object, condition, limit, scalars};

impl Lower<'_> {
    /// Everything in a document that has a name.
    pub(super) fn named_things(&mut self, object: Object<'_>) {
        self.each(object, "scopes", |lower, key, node| {
            let name = lower.scope_name(&key.text, key.span)?;
            let value = lower.description(node);
            lower.document.scopes.push(Definition { name, fragment: lower.fragment, value, allow: Vec::new() });
            Some(())
        });
        self.each(object, "permissions", |lower, key, node| {
            let name = lower.permission_name(&key.text, key.span)?;
            let value = lower.description(node);
            lower.document.permissions.push(Definition { name, fragment: lower.fragment, value, allow: Vec::new() });
            Some(())
        });
        self.each(object, "roles", Self::role);
        self.each(object, "sets", Self::set);
        self.each(object, "conditions", |lower, key, node| {
            let name = lower.unrooted_name(key)?;
            let value = lower.condition("a named condition", node)?;
            lower.document.conditions.push(Definition { name, fragment: lower.fragment, value, allow: Vec::new() });
            Some(())
        });
        self.each(object, "access", |lower, key, node| {
            let name = lower.name(&key.text, key.span)?;
            if Access::from_word(&name.value).is_some() {
                lower.reserved(&name, "an access word");
                return None;
            }
            let (value, allow) = lower.requirement_or_deny(node, Place::Access, key.span);
            lower.document.access.push(Definition { name, fragment: lower.fragment, value, allow });
            Some(())
        });
        self.each(object, "limits", |lower, key, node| {
            let name = lower.name(&key.text, key.span)?;
            if name.value == "none" {
                lower.reserved(&name, "drops the app's default limits");
                return None;
            }
            lower.text("a limit", node)?;
            let parsed = limit::limit(lower.text_of(node), false);
            let value = lower.kept(parsed)?;
            lower.document.limits.push(Definition { name, fragment: lower.fragment, value, allow: Vec::new() });
            Some(())
        });
        self.each(object, "guards", Self::guard);
        self.each(object, "identity", Self::issuer);
        self.headers(object);
        self.once(object);
    }

    /// Calls `lower` for each entry of a map of names.
    pub(super) fn each<'n>(
        &mut self,
        object: Object<'n>,
        name: &str,
        lower: impl Fn(&mut Self, &'n Key, &'n Node) -> Option<()>,
    ) {
        let Some(node) = object.get(name) else { return };
        let Some(entries) = self.map(&format!("`{name}`"), node) else { return };
        for (key, node) in entries {
            if self.is_full() {
                return;
            }
            // The reason for `None` was reported; that the name is used elsewhere is no second mistake.
            if lower(self, key, node).is_none() {
                self.document.damage.names.push(key.text.clone());
            }
        }
    }

    fn description(&mut self, node: &Node) -> Spanned<String> {
        if !node.is_scalar() && node.value != Value::Null {
            self.wrong_type("a description", "a text", node);
        }
        Spanned::new(node.text.clone(), node.span)
    }

    /// Names that the language keeps for itself (P107).
    pub(super) fn reserved(&mut self, name: &Spanned<String>, meaning: &str) {
        let message = format!("`{}` is a reserved name", shorten(&name.value));
        self.report(Diagnostic::new(Code::P107, message, name.span, meaning));
    }

    /// Names of conditions and sets stand where references stand, so they must not read like one.
    fn unrooted_name(&mut self, key: &Key) -> Option<Spanned<String>> {
        let name = self.name(&key.text, key.span)?;
        if condition::is_rooted(&name.value) {
            self.reserved(&name, "reads like a reference");
            return None;
        }
        Some(name)
    }

    // === Names ===

    /// A name in the common grammar.
    pub(super) fn name(&mut self, name: &str, span: Span) -> Option<Spanned<String>> {
        if !scalars::is_name(name) {
            let message = format!("bad name `{}`", shorten(name));
            let label = "a letter, then up to 63 letters, digits, `_`, `.`, `:` or `-`";
            self.report(Diagnostic::new(Code::P109, message, span, label));
            return None;
        }
        Some(Spanned::new(name.to_owned(), span))
    }

    pub(super) fn scope_name(&mut self, name: &str, span: Span) -> Option<Spanned<String>> {
        self.scope_like(name, span, "scope")
    }

    pub(super) fn permission_name(&mut self, name: &str, span: Span) -> Option<Spanned<String>> {
        self.scope_like(name, span, "permission")
    }

    fn scope_like(&mut self, name: &str, span: Span, kind: &str) -> Option<Spanned<String>> {
        if name.contains('*') {
            let message = format!("wildcard `{}` where one {kind} is required", shorten(name));
            self.report(
                Diagnostic::new(Code::P108, message, span, "could mean any or all of them")
                    .help("wildcards stand only in what a role `can` do; name what is needed, or list several with `{ any: […] }` or `{ all: […] }`"),
            );
            return None;
        }
        if !scalars::is_scope_name(name) {
            let mut found = Diagnostic::new(
                Code::P109,
                format!("bad {kind} `{}`", shorten(name)),
                span,
                "printable ASCII without blanks, `\"` and `\\`, and no empty part between colons",
            );
            if name.contains([' ', ',']) {
                let names: Vec<&str> = name.split([' ', ',']).filter(|name| !name.is_empty()).collect();
                found = found
                    .help(format!("if several are meant: `{{ all: [{0}] }}` or `{{ any: [{0}] }}`", names.join(", ")));
            }
            self.report(found);
            return None;
        }
        Some(Spanned::new(name.to_owned(), span))
    }

    pub(super) fn role_name(&mut self, name: &str, span: Span) -> Option<Spanned<String>> {
        if !scalars::is_role_name(name) {
            let message = format!("bad role `{}`", shorten(name));
            self.report(Diagnostic::new(Code::P109, message, span, "1 to 128 printable characters"));
            return None;
        }
        Some(Spanned::new(name.to_owned(), span))
    }

    // === Roles ===

    fn role(&mut self, key: &Key, node: &Node) -> Option<()> {
        let name = self.role_name(&key.text, key.span)?;
        if name.value.starts_with("portcullis:") {
            self.reserved(&name, "roles that begin with `portcullis:` are built in");
            return None;
        }
        let mut role = Role::default();
        let mut allow = Vec::new();
        match &node.value {
            Value::Map(_) => {
                if let Some(object) = self.object("a role", node, Context::Role) {
                    if let Some(node) = object.get("includes") {
                        role.includes = self.named(node, "`includes`", Self::role_name);
                    }
                    if let Some(node) = object.get("can") {
                        role.can = self.named(node, "`can`", Self::granted_permission);
                    }
                    if let Some(node) = object.get("grants") {
                        role.grants = self.named(node, "`grants`", Self::scope_name);
                    }
                    if let Some(node) = object.get("description") {
                        self.text("`description`", node);
                    }
                    allow = self.suppressions(object);
                }
            }
            Value::Null => self.wrong_type("a role", "a list of permissions or a map", node),
            _ => role.can = self.named(node, "a role", Self::granted_permission),
        }
        self.document.roles.push(Definition { name, fragment: self.fragment, value: role, allow });
        Some(())
    }

    /// One name or a list of names, each read by `read`.
    pub(super) fn named(
        &mut self,
        node: &Node,
        what: &str,
        read: impl Fn(&mut Self, &str, Span) -> Option<Spanned<String>>,
    ) -> Vec<Spanned<String>> {
        let texts = self.texts(what, node);
        texts.into_iter().filter_map(|text| read(self, &text.value, text.span)).collect()
    }

    /// What a role can do: a permission, `*` for all, `prefix:*` for a prefix.
    fn granted_permission(&mut self, name: &str, span: Span) -> Option<Spanned<String>> {
        let stem = name.strip_suffix(":*");
        if name == "*" || stem.is_some_and(|stem| !stem.contains('*') && scalars::is_scope_name(stem)) {
            return Some(Spanned::new(name.to_owned(), span));
        }
        if name.contains('*') {
            let message = format!("bad wildcard `{}`", shorten(name));
            self.report(Diagnostic::new(Code::P108, message, span, "`\"*\"` for all, `\"prefix:*\"` for a prefix"));
            return None;
        }
        self.permission_name(name, span)
    }

    // === Sets ===

    fn set(&mut self, key: &Key, node: &Node) -> Option<()> {
        let name = self.unrooted_name(key)?;
        let Value::List(items) = &node.value else {
            self.wrong_type("a set", "a list", node);
            return None;
        };
        if items.is_empty() {
            self.report(Diagnostic::new(Code::P109, format!("set `{}` is empty", name.value), node.span, "no members"));
        }
        let value = self.members(items);
        self.document.sets.push(Definition { name, fragment: self.fragment, value, allow: Vec::new() });
        Some(())
    }

    fn members(&mut self, items: &[Node]) -> Set {
        let is_number = |item: &Node| matches!(item.value, Value::Integer(_) | Value::Float(_));
        let is_network = |item: &Node| matches!(&item.value, Value::String(text) if network(text).is_some());
        if items.first().is_some_and(is_number) {
            let mut numbers = Vec::new();
            for item in items {
                match item.text.parse::<serde_json::Number>() {
                    Ok(number) if is_number(item) => numbers.push(Spanned::new(number, item.span)),
                    _ => self.wrong_type("a member of this set", "a number like the first", item),
                }
            }
            return Set::Numbers(numbers);
        }
        if items.iter().any(is_network) {
            return Set::Networks(items.iter().filter_map(|item| self.network(item)).collect());
        }
        let mut strings = Vec::new();
        for item in items {
            match &item.value {
                Value::String(text) => {
                    if text.split_once('/').is_some_and(|(address, _)| address.parse::<std::net::IpAddr>().is_ok()) {
                        self.network(item);
                    }
                    strings.push(Spanned::new(text.clone(), item.span));
                }
                _ => self.wrong_type("a member of this set", "a text", item),
            }
        }
        Set::Strings(strings)
    }

    fn network(&mut self, node: &Node) -> Option<Spanned<IpNet>> {
        let text = self.text("a member of this set", node)?;
        let Some(network) = network(&text.value) else {
            let message = format!("`{}` is not an address or CIDR", shorten(&text.value));
            self.report(Diagnostic::new(Code::P109, message, node.span, "such as `10.8.0.0/16` or `192.0.2.10`"));
            return None;
        };
        if network.trunc() != network {
            let message = format!("`{network}` has bits set behind its prefix");
            let whole = network.trunc().to_string();
            self.report(Diagnostic::new(Code::P109, message, node.span, "which network is meant?").fix(
                format!("the network that holds this address is `{whole}`"),
                node.span,
                whole,
            ));
            return None;
        }
        Some(Spanned::new(network, node.span))
    }

    // === Stated once ===

    fn headers(&mut self, object: Object<'_>) {
        let Some(node) = object.get("headers") else { return };
        let Some(entries) = self.map("`headers`", node) else { return };
        for (key, value) in entries {
            match key.text.as_str() {
                "preset" => {
                    if let Some(word) = self.word("`preset`", value, keys::HEADER_PRESETS) {
                        self.document.headers.preset.push(word.map(str::to_owned));
                    }
                }
                "unsafe_values" => {
                    if let Some(word) = self.word("`unsafe_values`", value, &["refuse", "encode"]) {
                        self.document.headers.encode_unsafe = Some(word.map(|word| word == "encode"));
                    }
                }
                name => {
                    if let Some(name) = self.header_name(name, key.span)
                        && let Some(value) = self.header_value(value)
                    {
                        self.document.headers.edits.push(crate::policy::document::HeaderEdit { name, value });
                    }
                }
            }
        }
    }

    fn once(&mut self, object: Object<'_>) {
        if let Some((key, node)) = object.entry("time_zone")
            && let Some(zone) = self.text("`time_zone`", node)
        {
            if jiff::tz::TimeZoneDatabase::bundled().get(&zone.value).is_err() {
                let message = format!("unknown time zone `{}`", shorten(&zone.value));
                self.report(Diagnostic::new(Code::P109, message, node.span, "an IANA name such as `Europe/Berlin`"));
            }
            match self.document.time_zone.as_ref().map(|earlier| earlier.span) {
                Some(earlier) => self.twice("time_zone", key.span, earlier),
                None => self.document.time_zone = Some(zone),
            }
        }
        if let Some((key, node)) = object.entry("unmatched") {
            let status = match node.value {
                Value::Integer(404) => 404,
                Value::Integer(403) => 403,
                _ => {
                    let message = format!("bad value `{}` for `unmatched`", shorten(&node.text));
                    self.report(Diagnostic::new(Code::P109, message, node.span, "`404` or `403`"));
                    return;
                }
            };
            match self.document.unmatched.as_ref().map(|earlier| earlier.span) {
                Some(earlier) => self.twice("unmatched", key.span, earlier),
                None => self.document.unmatched = Some(Spanned::new(status, node.span)),
            }
        }
    }

    fn twice(&mut self, name: &str, span: Span, earlier: Span) {
        let message = format!("`{name}` is set twice");
        self.report(Diagnostic::new(Code::P101, message, span, "set again").also(earlier, "first set here"));
    }
}

/// An address or a CIDR; a bare address is a network of one.
fn network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))
}
