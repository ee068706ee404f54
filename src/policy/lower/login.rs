//! The login endpoints of an app.

use crate::diagnostic::{Code, Diagnostic, Span, Spanned};
use crate::policy::document::Login;
use crate::policy::keys::{self, Context};
use crate::policy::template::Segment;
use crate::policy::yaml::{Node, Value, shorten};

use super::requirement::Place;
use super::{Lower, Object, template};

/// Own endpoints beside the token endpoint: purpose, default path, and for which `via` they are on.
const ENDPOINTS: &[(&str, &str, &[&str])] = &[
    ("login", "/login", &["supabase", "oidc"]),
    ("callback", "/auth/callback", &["supabase", "oidc"]),
    ("logout", "/logout", &["local", "supabase", "oidc"]),
    ("revoke", "/revoke", &["local"]),
    ("introspect", "/introspect", &["local"]),
];

impl Lower<'_> {
    /// `login: local`, or `login: { via: local, … }`.
    pub(super) fn login(&mut self, node: &Node) -> Option<Spanned<Login>> {
        if !matches!(node.value, Value::Map(_)) {
            let via = self.word("`login`", node, keys::LOGIN_WAYS)?.map(str::to_owned);
            let paths = self.own_paths(Object { entries: &[] }, &via);
            let path = Spanned::new("/token".to_owned(), node.span);
            let login = Login { path, via, limit: Vec::new(), issuers: Vec::new(), introspect: None, paths };
            return Some(Spanned::new(login, node.span));
        }
        let object = self.object("`login`", node, Context::Login)?;
        let via = match object.get("via") {
            Some(node) => self.word("`via`", node, keys::LOGIN_WAYS),
            None => {
                let found = Diagnostic::new(Code::P701, "`login` has no `via`", node.span, "who checks the password?");
                self.report(found.help("`via` is `local`, `upstream`, `supabase` or `oidc`"));
                None
            }
        };
        let path = match object.get("path") {
            Some(node) => self.literal_path("`path`", node),
            None => Some(Spanned::new("/token".to_owned(), via.as_ref().map_or(node.span, |via| via.span))),
        };
        let limit = object.get("limit").map_or_else(Vec::new, |node| self.limits(node, true));
        let issuers = object.get("issuer").map_or_else(Vec::new, |node| self.named(node, "`issuer`", Self::name));
        let introspect = object.get("introspect").and_then(|node| self.requirement(node, Place::Introspect));
        self.other_login_keys(object);
        let via = via?.map(str::to_owned);
        let paths = self.own_paths(object, &via);
        Some(Spanned::new(Login { path: path?, via, limit, issuers, introspect, paths }, node.span))
    }

    /// The own endpoints that are on.
    fn own_paths(&mut self, object: Object<'_>, via: &Spanned<String>) -> Vec<(String, Spanned<String>)> {
        let stated = object.get("paths").and_then(|node| self.object("`paths`", node, Context::LoginPaths));
        let no_session = object.get("session").is_some_and(|node| node.text == "none");
        let mut paths = Vec::new();
        for (purpose, default, ways) in ENDPOINTS {
            let node = stated.and_then(|object| object.get(purpose));
            let on = ways.contains(&via.value.as_str()) && !(no_session && via.value != "local");
            let path = match node {
                None => Some(Spanned::new((*default).to_owned(), via.span)),
                Some(node) if node.text == "none" => None,
                Some(node) => self.literal_path(&format!("`{purpose}`"), node),
            };
            paths.extend(path.filter(|_| on).map(|path| ((*purpose).to_owned(), path)));
        }
        paths
    }

    fn other_login_keys(&mut self, object: Object<'_>) {
        for (key, node) in object.entries {
            match key.text.as_str() {
                "lockout" if node.text != "none" => self.lockout(node),
                "scope_mode" => drop(self.word("`scope_mode`", node, &["intersect", "strict"])),
                "default_scopes" => drop(self.named(node, "`default_scopes`", Self::scope_name)),
                "to" | "return_to" => drop(self.literal_path(&format!("`{}`", key.text), node)),
                "account_field" => drop(self.text("`account_field`", node)),
                "failures" => self.failures(node),
                "session" if node.text != "none" => self.session(node),
                "providers" => drop(self.named(node, "`providers`", Self::name)),
                _ => {}
            }
        }
    }

    fn lockout(&mut self, node: &Node) {
        let Some(object) = self.object("`lockout`", node, Context::Lockout) else { return };
        if let Some(node) = object.get("after")
            && self.integer("`after`", node).is_some_and(|after| after.value < 1)
        {
            self.report(Diagnostic::new(Code::P109, "bad value for `after`", node.span, "a whole number from 1"));
        }
        for name in ["within", "for"] {
            if let Some(node) = object.get(name) {
                self.duration(&format!("`{name}`"), node);
            }
        }
    }

    fn failures(&mut self, node: &Node) {
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        for item in items {
            if self.integer("a status", item).is_some_and(|status| !(400..=599).contains(&status.value)) {
                let message = format!("bad status `{}`", shorten(&item.text));
                self.report(Diagnostic::new(Code::P109, message, item.span, "from 400 to 599"));
            }
        }
    }

    fn session(&mut self, node: &Node) {
        let Some(object) = self.object("`session`", node, Context::Session) else { return };
        for (key, node) in object.entries {
            match key.text.as_str() {
                "cookie" => drop(self.named(node, "`cookie`", Self::cookie_name)),
                "idle" | "expires" | "refresh_margin" => {
                    self.duration(&format!("`{}`", key.text), node);
                }
                "keys" => drop(self.secrets("`keys`", node)),
                _ => {}
            }
        }
    }

    pub(super) fn cookie_name(&mut self, name: &str, span: Span) -> Option<Spanned<String>> {
        if !super::scalars::is_token(name) {
            let message = format!("bad cookie name `{}`", shorten(name));
            self.report(Diagnostic::new(Code::P109, message, span, "letters, digits, `-` and `_`"));
            return None;
        }
        Some(Spanned::new(name.to_owned(), span))
    }

    /// A path without parameters.
    fn literal_path(&mut self, what: &str, node: &Node) -> Option<Spanned<String>> {
        let template = self.template(what, node, template::Use::Base)?;
        if template.segments.iter().any(|segment| !matches!(segment, Segment::Literal(_))) {
            self.report(Diagnostic::new(Code::P202, format!("parameter in {what}"), node.span, "a literal path"));
            return None;
        }
        Some(Spanned::new(template.text, template.span))
    }
}
