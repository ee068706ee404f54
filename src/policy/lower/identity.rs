//! Issuers: who may sign tokens.

use crate::diagnostic::{Code, Diagnostic, Spanned, suggest};
use crate::identity::scope::Hierarchy;
use crate::policy::document::{
    Condition, Definition, ForwardClientIp, Introspection, Issuer, Preset, Reference, SessionCheck, Source, Waivable,
};
use crate::policy::keys::{self, Context};
use crate::policy::specificity::kind_matches;
use crate::policy::template::Kind;
use crate::policy::yaml::{Key, Node, Value, shorten};

use super::{Lower, Object, scalars};

impl Lower<'_> {
    pub(super) fn issuer(&mut self, key: &Key, node: &Node) -> Option<()> {
        let name = self.name(&key.text, key.span)?;
        let entries = self.map("an issuer", node)?;
        let preset = self.preset(Object { entries }, key);
        let object = match &preset {
            Some(preset) => self.known_keys(entries, Context::Issuer(preset.value)),
            None => Object { entries },
        };
        let preset = preset?;
        let value = self.issuer_keys(object, preset, node);
        let allow = self.suppressions(object);
        self.document.issuers.push(Definition { name, fragment: self.fragment, value, allow });
        Some(())
    }

    fn preset(&mut self, object: Object<'_>, key: &Key) -> Option<Spanned<Preset>> {
        let Some(node) = object.get("preset") else {
            let message = format!("issuer `{}` has no `preset`", shorten(&key.text));
            let words: Vec<&str> = Preset::ALL.iter().map(|(_, word)| *word).collect();
            self.report(
                Diagnostic::new(Code::P412, message, key.span, "what kind of issuer is it?")
                    .help(format!("presets: `{}`", words.join("` `"))),
            );
            return None;
        };
        let text = self.text("`preset`", node)?;
        let preset = Preset::ALL.iter().find(|(_, word)| *word == text.value).map(|(preset, _)| *preset);
        if preset.is_none() {
            let words = Preset::ALL.iter().map(|(_, word)| *word);
            let label = format!("one of `{}`", words.clone().collect::<Vec<_>>().join("`, `"));
            let message = format!("unknown preset `{}`", shorten(&text.value));
            let mut found = Diagnostic::new(Code::P109, message, node.span, label);
            if let Some(near) = suggest::closest(&text.value, words) {
                found = found.fix(format!("did you mean `{near}`?"), node.span, near);
            }
            self.report(found);
        }
        Some(Spanned::new(preset?, node.span))
    }

    fn issuer_keys(&mut self, object: Object<'_>, preset: Spanned<Preset>, node: &Node) -> Issuer {
        let mut issuer = Issuer::empty(preset, node.span);
        for (key, node) in object.entries {
            let what = format!("`{}`", key.text);
            match key.text.as_str() {
                "secret" | "jwt_secret" => issuer.secrets.extend(self.secrets(&what, node)),
                "public_key" => issuer.public_key = self.public_key(&what, node),
                "signing_key" if node.text == "managed" => {
                    issuer.signing_key = Some(Spanned::new(Source::Literal("managed".to_owned()), node.span));
                }
                "signing_key" => issuer.signing_key = self.secret(&what, node),
                "jwks_file" => issuer.jwks_file = self.source(&what, node).map(as_file),
                "jwks_url" => issuer.jwks_url = self.https_url(&what, node),
                "url" => issuer.url = self.url(&what, node, true),
                "issuer" => issuer.issuer = self.waivable_issuer(&what, node),
                "audience" => issuer.audience = self.audience(&what, node),
                "expiry" => issuer.expiry_waived = self.word(&what, node, &["none"]).map(|word| key.span.to(word.span)),
                "algorithm" | "algorithms" => issuer.algorithms = self.named(node, &what, Self::algorithm),
                "leeway" => issuer.leeway = self.duration(&what, node),
                "max_token_age" => issuer.max_token_age = self.duration(&what, node),
                "required_typ" => issuer.required_typ = self.text(&what, node),
                "hierarchy" => issuer.hierarchy = self.hierarchy(&what, node),
                "expires" => issuer.expires = self.duration(&what, node),
                "from" => self.from(node, &mut issuer),
                "claims" => issuer.claims = self.claims(node),
                "types" => issuer.types = self.types(node),
                "mfa" => issuer.mfa = self.mfa(node),
                "db_roles" => issuer.db_roles = self.texts(&what, node),
                "anonymous_users" => issuer.allow_anonymous_users = self.allowed(&what, node),
                "service_role" => issuer.allow_service_role = self.allowed(&what, node),
                "oauth_clients" => issuer.allow_oauth_clients = self.allowed(&what, node),
                "preset" | "description" | "allow" => {}
                _ => self.other_issuer_key(key, node, &mut issuer),
            }
        }
        issuer
    }

    fn other_issuer_key(&mut self, key: &Key, node: &Node, issuer: &mut Issuer) {
        let what = format!("`{}`", key.text);
        let value = match key.text.as_str() {
            // A publishable key is public by its name; the older anon key cannot be told from a service key.
            "key" if node.text.starts_with("sb_publishable_") => self.source(&what, node),
            "key" | "client_secret" => self.secret(&what, node),
            "domain" => self.domain(&what, node),
            "tenant" => self.tenant(&what, node),
            "client_id" | "project" => self.source(&what, node),
            "refresh" => self.literal_duration(&what, node, Some((1, 600))),
            "cool_down" => self.literal_duration(&what, node, Some((1, 3600))),
            "max_stale" | "refresh_expires" | "reuse_window" => self.literal_duration(&what, node, None),
            "upgrade" => self.literal_word(&what, node, &["true", "log"]),
            "on_expired" => self
                .literal_word(&what, node, &["unauthenticated", "refresh_and_set_cookie"])
                .filter(|word| word.value != Source::Literal("unauthenticated".to_owned())),
            "login_scopes" => {
                issuer.login_scopes = self.named(node, &what, Self::scope_name);
                None
            }
            "introspection" => {
                issuer.introspection = self.introspection(node);
                None
            }
            "session_check" => {
                issuer.session_check = self.session_check(node);
                None
            }
            "forward_client_ip" => {
                issuer.forward_client_ip = self.forward_client_ip(node);
                None
            }
            _ => None,
        };
        issuer.other.extend(value.map(|value| (Spanned::new(key.text.clone(), key.span), value)));
    }

    /// A duration, within these seconds where there are limits.
    fn literal_duration(&mut self, what: &str, node: &Node, limits: Option<(u64, u64)>) -> Option<Spanned<Source>> {
        let duration = self.duration(what, node)?.value.as_secs();
        if let Some((least, most)) = limits
            && !(least..=most).contains(&duration)
        {
            let message = format!("bad value `{}` for {what}", shorten(&node.text));
            let label = format!("from {least}s to {}m", most / 60);
            self.report(Diagnostic::new(Code::P109, message, node.span, label));
            return None;
        }
        Some(Spanned::new(Source::Literal(node.text.clone()), node.span))
    }

    fn literal_word(&mut self, what: &str, node: &Node, words: &[&'static str]) -> Option<Spanned<Source>> {
        self.word(what, node, words).map(|word| word.map(|word| Source::Literal(word.to_owned())))
    }

    /// A host name: it becomes part of a URL from which keys are fetched.
    fn domain(&mut self, what: &str, node: &Node) -> Option<Spanned<Source>> {
        let source = self.source(what, node)?;
        let Source::Literal(text) = &source.value else { return Some(source) };
        if scalars::is_host(text) && !text.contains('*') {
            return Some(source);
        }
        let message = format!("bad value `{}` for {what}", shorten(text));
        let label = if text.contains("://") { "without scheme" } else { "a host name" };
        self.report(Diagnostic::new(Code::P109, message, node.span, label));
        None
    }

    /// A tenant of Entra: what stands in the `iss` of its tokens is the id, not the name.
    fn tenant(&mut self, what: &str, node: &Node) -> Option<Spanned<Source>> {
        let source = self.source(what, node)?;
        let Source::Literal(text) = &source.value else { return Some(source) };
        if kind_matches(Kind::Uuid, text) {
            return Some(source);
        }
        let message = format!("bad value `{}` for {what}", shorten(text));
        self.report(Diagnostic::new(Code::P109, message, node.span, "the id of the tenant, a UUID").help(
            "the portal shows it as `Directory (tenant) ID`; tokens of `common` come from every tenant there is",
        ));
        None
    }

    fn introspection(&mut self, node: &Node) -> Option<Spanned<Introspection>> {
        let object = self.object("`introspection`", node, Context::Introspection)?;
        let mut introspection = Introspection::default();
        for (key, node) in object.entries {
            match key.text.as_str() {
                "url" => introspection.url = self.https_url("`url`", node),
                "client_id" => introspection.client_id = self.source("`client_id`", node),
                "client_secret" => introspection.client_secret = self.secret("`client_secret`", node),
                "cache" => introspection.cache = self.duration("`cache`", node),
                _ => {}
            }
        }
        Some(Spanned::new(introspection, node.span))
    }

    fn forward_client_ip(&mut self, node: &Node) -> Option<Spanned<ForwardClientIp>> {
        let object = self.object("`forward_client_ip`", node, Context::ForwardClientIp)?;
        let secret_key = object.get("secret_key").and_then(|node| self.secret("`secret_key`", node));
        Some(Spanned::new(ForwardClientIp { secret_key }, node.span))
    }

    fn session_check(&mut self, node: &Node) -> Option<Spanned<SessionCheck>> {
        let object = self.object("`session_check`", node, Context::SessionCheck)?;
        let mut check = SessionCheck::default();
        for (key, node) in object.entries {
            match key.text.as_str() {
                "paths" => check.paths = self.templates("`paths`", node),
                "cache" => check.cache = self.duration("`cache`", node),
                "on_error" => {
                    let word = self.word("`on_error`", node, &["deny", "allow"]);
                    check.allow_on_error = word.is_some_and(|word| word.value == "allow");
                }
                _ => {}
            }
        }
        Some(Spanned::new(check, node.span))
    }

    /// A PEM text, or a reference to one.
    fn public_key(&mut self, what: &str, node: &Node) -> Option<Spanned<Source>> {
        let source = self.source(what, node)?;
        let Source::Literal(text) = &source.value else { return Some(source) };
        if text.contains("PRIVATE KEY") {
            self.report(
                Diagnostic::new(Code::P403, format!("private key in {what}"), node.span, "not shown")
                    .help("a public key is enough to verify; change this key"),
            );
            return None;
        }
        if !text.trim_start().starts_with("-----BEGIN ") {
            let message = format!("bad value for {what}");
            self.report(Diagnostic::new(Code::P109, message, node.span, "a PEM text, or `file:PATH`"));
            return None;
        }
        Some(source)
    }

    /// `https`, or `http` on the machine itself.
    fn https_url(&mut self, what: &str, node: &Node) -> Option<Spanned<Source>> {
        let source = self.url(what, node, true)?;
        if let Source::Literal(text) = &source.value
            && !scalars::is_private(text)
        {
            let message = format!("bad URL `{}` for {what}", shorten(text));
            let label = "by `https`: whoever can change what comes from there can let anybody in";
            self.report(Diagnostic::new(Code::P109, message, node.span, label));
            return None;
        }
        Some(source)
    }

    fn waivable_issuer(&mut self, what: &str, node: &Node) -> Option<Spanned<Waivable<String>>> {
        let text = self.text(what, node)?;
        if text.value.trim().is_empty() {
            self.report(Diagnostic::new(Code::P109, format!("empty {what}"), node.span, "the exact `iss`, or `any`"));
            return None;
        }
        Some(text.map(|text| if text == "any" { Waivable::Waived } else { Waivable::Required(text) }))
    }

    fn audience(&mut self, what: &str, node: &Node) -> Option<Spanned<Waivable<Vec<String>>>> {
        if matches!(&node.value, Value::String(text) if text == "none") {
            return Some(Spanned::new(Waivable::Waived, node.span));
        }
        let texts = self.texts(what, node);
        if let Some(bad) = texts.iter().find(|text| text.value.trim().is_empty() || text.value == "none") {
            let message = format!("bad value `{}` for {what}", shorten(&bad.value));
            self.report(Diagnostic::new(Code::P109, message, bad.span, "an audience; `none` stands alone"));
            return None;
        }
        if texts.is_empty() {
            if matches!(node.value, Value::List(_)) {
                self.report(Diagnostic::new(Code::P109, format!("empty {what}"), node.span, "no audience"));
            }
            return None;
        }
        Some(Spanned::new(Waivable::Required(texts.into_iter().map(|text| text.value).collect()), node.span))
    }

    fn algorithm(&mut self, name: &str, span: crate::diagnostic::Span) -> Option<Spanned<String>> {
        if keys::ALGORITHMS.contains(&name) {
            return Some(Spanned::new(name.to_owned(), span));
        }
        if name.eq_ignore_ascii_case("none") {
            self.report(Diagnostic::new(Code::P402, "algorithm `none`", span, "tokens that nobody signed"));
            return None;
        }
        let message = format!("unknown algorithm `{}`", shorten(name));
        let mut found =
            Diagnostic::new(Code::P109, message, span, format!("one of `{}`", keys::ALGORITHMS.join("`, `")));
        if let Some(near) = suggest::closest(name, keys::ALGORITHMS.iter().copied()) {
            found = found.fix(format!("did you mean `{near}`?"), span, near);
        }
        self.report(found);
        None
    }

    fn hierarchy(&mut self, what: &str, node: &Node) -> Option<Spanned<Hierarchy>> {
        let word = self.word(what, node, &["colon", "dot", "none"])?;
        Some(word.map(|word| match word {
            "dot" => Hierarchy::Dot,
            "none" => Hierarchy::None,
            _ => Hierarchy::Colon,
        }))
    }

    /// `from: [bearer, cookie NAME]`.
    fn from(&mut self, node: &Node, issuer: &mut Issuer) {
        let mut bearer = false;
        for text in self.texts("`from`", node) {
            if text.value == "bearer" {
                bearer = true;
            } else if let Some(name) = text.value.strip_prefix("cookie ") {
                issuer.cookies.extend(self.cookie_name(name.trim(), text.span));
            } else {
                let message = format!("bad value `{}` for `from`", shorten(&text.value));
                self.report(Diagnostic::new(Code::P109, message, text.span, "`bearer`, or `cookie NAME`"));
            }
        }
        issuer.no_bearer = !bearer;
    }

    fn claims(&mut self, node: &Node) -> Vec<(Spanned<String>, Vec<Spanned<String>>)> {
        let Some(object) = self.object("`claims`", node, Context::Claims) else { return Vec::new() };
        let mut claims = Vec::new();
        for (key, node) in object.entries {
            if Context::Claims.key(&key.text).is_none() {
                continue;
            }
            let mut paths = self.texts(&format!("`{}`", key.text), node);
            paths.retain(|path| {
                let good = path.value.contains("://") || is_claim_path(&path.value);
                if !good {
                    let message = format!("bad claim path `{}`", shorten(&path.value));
                    let label = "segments and dots; a segment with a dot in it is quoted";
                    self.report(Diagnostic::new(Code::P109, message, path.span, label));
                }
                good
            });
            claims.push((Spanned::new(key.text.clone(), key.span), paths));
        }
        claims
    }

    fn types(&mut self, node: &Node) -> Vec<(Spanned<String>, Spanned<String>)> {
        let Some(entries) = self.map("`types`", node) else { return Vec::new() };
        let mut types = Vec::new();
        for (key, node) in entries {
            if let Some(word) = self.word("a claim's type", node, &["string", "number", "bool", "list"]) {
                types.push((Spanned::new(key.text.clone(), key.span), word.map(str::to_owned)));
            }
        }
        types
    }

    fn mfa(&mut self, node: &Node) -> Option<Condition> {
        let condition = self.condition("`mfa`", node)?;
        match &condition {
            Condition::Comparison(leaf) if matches!(leaf.left, Reference::Token(_)) => Some(condition),
            _ => {
                let label = "a condition on `token.…`";
                self.report(Diagnostic::new(Code::P106, "`mfa` reads something else than the token", node.span, label));
                None
            }
        }
    }

    fn allowed(&mut self, what: &str, node: &Node) -> Option<crate::diagnostic::Span> {
        self.word(what, node, &["deny", "allow"]).filter(|word| word.value == "allow").map(|word| word.span)
    }
}

/// A dotted path; segments in double quotes may hold anything.
fn is_claim_path(path: &str) -> bool {
    let mut quoted = false;
    let mut empty = true;
    for c in path.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                empty = false;
            }
            '.' if !quoted => {
                if empty {
                    return false;
                }
                empty = true;
            }
            _ if c.is_control() || (c.is_whitespace() && !quoted) => return false,
            _ => empty = false,
        }
    }
    !quoted && !empty
}

fn as_file(source: Spanned<Source>) -> Spanned<Source> {
    source.map(|source| match source {
        Source::Literal(path) => Source::File(path),
        other => other,
    })
}
