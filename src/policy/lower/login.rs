//! The login endpoints of an app.

use crate::diagnostic::{Code, Diagnostic, Span, Spanned};
use crate::policy::document::{Lockout, Login, Session};
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
            return Some(Spanned::new(Login { paths, ..Login::new(via) }, node.span));
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
        let stated = via.is_some();
        let via = via.map_or_else(|| Spanned::new("local".to_owned(), node.span), |via| via.map(str::to_owned));
        let mut login = Login::new(via);
        let mut complete = stated;
        for (key, node) in object.entries {
            complete &= self.login_key(&key.text, node, &mut login);
        }
        login.paths = self.own_paths(object, &login.via);
        complete.then(|| Spanned::new(login, node.span))
    }

    /// Reads one key; `false` if nothing can stand for what is wrong.
    fn login_key(&mut self, key: &str, node: &Node, login: &mut Login) -> bool {
        match key {
            "path" => match self.literal_path("`path`", node) {
                Some(path) => login.path = path,
                None => return false,
            },
            "limit" => login.limit = self.limits(node, true),
            "issuer" => login.issuers = self.named(node, "`issuer`", Self::name),
            "introspect" => login.introspect = self.requirement(node, Place::Introspect),
            "lockout" if node.text == "none" => login.lockout = None,
            "lockout" => login.lockout = self.lockout(node),
            "scope_mode" => {
                let mode = self.word("`scope_mode`", node, &["intersect", "strict"]);
                login.strict_scopes = mode.is_some_and(|mode| mode.value == "strict");
            }
            "default_scopes" => {
                login.default_scopes = Some(self.named(node, "`default_scopes`", Self::scope_name));
            }
            "to" => login.to = self.literal_path("`to`", node),
            "return_to" => login.return_to = self.literal_path("`return_to`", node),
            "account_field" => login.account_field = self.text("`account_field`", node),
            "failures" => login.failures = self.failures(node),
            "session" if node.text == "none" => login.no_session = Some(node.span),
            "session" => login.session = self.session(node),
            "providers" => login.providers = self.named(node, "`providers`", Self::name),
            _ => {}
        }
        true
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

    fn lockout(&mut self, node: &Node) -> Option<Lockout> {
        let object = self.object("`lockout`", node, Context::Lockout)?;
        let mut lockout = Lockout::default();
        if let Some(node) = object.get("after")
            && let Some(after) = self.integer("`after`", node)
        {
            match u32::try_from(after.value) {
                Ok(after) if after > 0 => lockout.after = after,
                _ => self.report(Diagnostic::new(
                    Code::P109,
                    "bad value for `after`",
                    node.span,
                    "a whole number from 1",
                )),
            }
        }
        for (name, place) in [("within", &mut lockout.within), ("for", &mut lockout.lock)] {
            if let Some(node) = object.get(name)
                && let Some(stated) = self.duration(&format!("`{name}`"), node)
            {
                *place = stated.value;
            }
        }
        Some(lockout)
    }

    fn failures(&mut self, node: &Node) -> Vec<u16> {
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let mut failures = Vec::new();
        for item in items {
            let Some(status) = self.integer("a status", item) else { continue };
            match u16::try_from(status.value) {
                Ok(status @ 400..=599) => failures.push(status),
                _ => {
                    let message = format!("bad status `{}`", shorten(&item.text));
                    self.report(Diagnostic::new(Code::P109, message, item.span, "from 400 to 599"));
                }
            }
        }
        failures
    }

    fn session(&mut self, node: &Node) -> Session {
        let mut session = Session::default();
        let Some(object) = self.object("`session`", node, Context::Session) else { return session };
        for (key, node) in object.entries {
            match key.text.as_str() {
                "cookie" => session.cookie = self.session_cookie(node),
                "idle" => session.idle = self.duration("`idle`", node),
                "expires" => session.expires = self.duration("`expires`", node),
                "refresh_margin" => session.refresh_margin = self.duration("`refresh_margin`", node),
                "keys" => session.keys = self.secrets("`keys`", node),
                _ => {}
            }
        }
        session
    }

    /// Browsers take a cookie with this prefix from no other host and no other path, and only over TLS.
    fn session_cookie(&mut self, node: &Node) -> Option<Spanned<String>> {
        let name = self.text("`cookie`", node)?;
        let name = self.cookie_name(&name.value, name.span)?;
        if !name.value.starts_with("__Host-") {
            let message = format!("bad cookie name `{}`", shorten(&name.value));
            self.report(Diagnostic::new(Code::P109, message, name.span, "begins with `__Host-`").fix(
                "so that no other host can set it",
                name.span,
                format!("__Host-{}", name.value),
            ));
            return None;
        }
        if name.value.starts_with("__Host-login-") {
            let message = format!("bad cookie name `{}`", shorten(&name.value));
            let label = "`__Host-login-…` are the cookies of logins on their way";
            self.report(Diagnostic::new(Code::P109, message, name.span, label));
            return None;
        }
        Some(name)
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
