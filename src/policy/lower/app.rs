//! Apps: header keys, defaults, CORS.

use std::path::Path;

use crate::diagnostic::{Code, Diagnostic, Span, Spanned};
use crate::policy::document::{App, AppHeader, AppId, Assertion, Cors, Defaults, FragmentId, Suppression};
use crate::policy::keys::{self, Context};
use crate::policy::yaml::{Node, Value, shorten};
use crate::request::target::Irregular;

use super::{Lower, Object, scalars, template};

impl Lower<'_> {
    /// The app of a document: its header keys and routes.
    pub(super) fn app(&mut self, object: Object<'_>, document: Span) {
        let (irregular, allow, opt_in) = self.header_allow(object);
        if let Some(fragment) = self.document.fragments.get_mut(self.fragment.0) {
            fragment.allow = allow;
        }
        let header_key = object.entries.iter().map(|(key, _)| key).find(|key| keys::is_app_key(&key.text));
        if header_key.is_none() && opt_in.is_none() && object.get("routes").is_none() {
            return;
        }
        let name = self.app_name(object, document);
        let app = self.app_id(name);
        if let Some(fragment) = self.document.fragments.get_mut(self.fragment.0) {
            fragment.app = Some(app);
        }
        let mut header = self.app_header(object);
        header.irregular = irregular;
        header.any_key = header.any_key.or(opt_in);
        let fragment = self.fragment;
        if let Some(entry) = self.document.apps.get_mut(app.0) {
            entry.fragments.push(fragment);
            entry.headers.push((fragment, header));
        }
        self.routes(object, app);
    }

    fn app_name(&mut self, object: Object<'_>, document: Span) -> Spanned<String> {
        let stated = object.get("app").and_then(|node| self.text("`app`", node));
        if let Some(name) = stated {
            self.name(&name.value, name.span);
            return name;
        }
        let stem = Path::new(self.path).file_stem().and_then(|stem| stem.to_str()).unwrap_or("app");
        let start = Span { end: document.start, ..document };
        if object.get("app").is_none() && !scalars::is_name(stem) {
            let message = format!("the file's name `{}` is not an app's name", shorten(stem));
            self.report(
                Diagnostic::new(Code::P109, message, start, "this document has no key `app`")
                    .help("add `app: NAME`: a letter, then letters, digits, `_`, `.`, `:` or `-`"),
            );
        }
        Spanned::new(stem.to_owned(), start)
    }

    fn app_id(&mut self, name: Spanned<String>) -> AppId {
        if let Some(index) = self.document.apps.iter().position(|app| app.name.value == name.value) {
            return AppId(index);
        }
        self.document.apps.push(App { name, fragments: Vec::<FragmentId>::new(), headers: Vec::new() });
        AppId(self.document.apps.len() - 1)
    }

    /// `allow` of a document: opt-ins and suppressions. Also the place of the first opt-in.
    fn header_allow(&mut self, object: Object<'_>) -> (Irregular, Vec<Suppression>, Option<Span>) {
        let mut irregular = Irregular::NONE;
        let mut allow = Vec::new();
        let mut first = None;
        let Some(node) = object.get("allow") else { return (irregular, allow, first) };
        match &node.value {
            Value::List(items) => {
                for item in items {
                    match Irregular::from_name(&item.text) {
                        Some(form) => {
                            irregular = irregular | form;
                            first = first.or(Some(item.span));
                        }
                        None => self.unknown_opt_in(item),
                    }
                }
            }
            Value::Map(entries) => {
                for (key, reason) in entries {
                    match Irregular::from_name(&key.text) {
                        Some(form) => {
                            irregular = irregular | form;
                            first = first.or(Some(key.span));
                            if reason.text.trim().is_empty() {
                                let message = format!("`{}` is allowed without a reason", key.text);
                                self.report(Diagnostic::new(Code::P511, message, key.span, "say why, or use a list"));
                            }
                        }
                        None => allow.extend(self.suppression(key, reason)),
                    }
                }
            }
            _ => self.wrong_type("`allow`", "a map of codes to reasons, or a list of opt-ins", node),
        }
        (irregular, allow, first)
    }

    fn unknown_opt_in(&mut self, item: &Node) {
        if item.text.parse::<Code>().is_ok() {
            let message = format!("`{}` is suppressed without a reason", shorten(&item.text));
            self.report(
                Diagnostic::new(Code::P511, message, item.span, "say why")
                    .help(format!("`allow: {{ {}: … }}`", shorten(&item.text))),
            );
            return;
        }
        self.word("`allow`", item, keys::OPT_INS);
    }

    fn app_header(&mut self, object: Object<'_>) -> AppHeader {
        let mut header = AppHeader::default();
        for (key, node) in object.entries {
            if keys::is_app_key(&key.text) && key.text != "app" && header.any_key.is_none() {
                header.any_key = Some(key.span);
            }
            match key.text.as_str() {
                "preset" => {
                    header.preset = self.word("`preset`", node, &["supabase-edge"]).map(|word| word.map(str::to_owned));
                }
                "upstream" => header.upstream = self.url("`upstream`", node, false),
                "upstream_tls" => self.upstream_tls(node, &mut header),
                "host" => header.hosts = self.hosts("`host`", node),
                "base" => header.base = self.template("`base`", node, template::Use::Base),
                "strip_base" => header.strip_base = self.boolean("`strip_base`", node).is_some_and(|on| on.value),
                "case" => {
                    header.case_insensitive = self
                        .word("`case`", node, &["sensitive", "insensitive"])
                        .map(|word| word.value == "insensitive");
                }
                "login" => header.login = self.login(node),
                "cors" => header.cors = self.cors(node),
                "defaults" => header.defaults = self.defaults(node),
                "assertion" => header.assertion = self.assertion(node),
                "errors" => {
                    let word = self.word("`errors`", node, &["problem", "fastapi"]);
                    header.errors_fastapi = word.is_some_and(|word| word.value == "fastapi");
                }
                _ => {}
            }
        }
        header
    }

    fn upstream_tls(&mut self, node: &Node, header: &mut AppHeader) {
        let Some(object) = self.object("`upstream_tls`", node, Context::UpstreamTls) else { return };
        if let Some(node) = object.get("ca") {
            header.upstream_ca = self.source("`ca`", node);
        }
        if let Some(node) = object.get("server_name") {
            header.upstream_server_name = self.text("`server_name`", node);
            if header.upstream_server_name.as_ref().is_some_and(|name| !scalars::is_host(&name.value)) {
                let message = format!("bad server name `{}`", shorten(&node.text));
                self.report(Diagnostic::new(Code::P109, message, node.span, "a host name"));
            }
        }
        if let Some((key, node)) = object.entry("insecure") {
            header.upstream_insecure =
                self.boolean("`insecure`", node).filter(|on| on.value).map(|on| key.span.to(on.span));
        }
    }

    pub(super) fn hosts(&mut self, what: &str, node: &Node) -> Vec<Spanned<String>> {
        let texts = self.texts(what, node);
        if texts.is_empty() && matches!(node.value, Value::List(_)) {
            self.report(Diagnostic::new(Code::P207, format!("empty list in {what}"), node.span, "no hosts"));
        }
        texts.into_iter().filter(|host| self.is_good_host(host)).collect()
    }

    fn is_good_host(&mut self, host: &Spanned<String>) -> bool {
        if scalars::is_host(&host.value) {
            return true;
        }
        let label = match host.value.as_str() {
            "*" => "leave the key out for any host",
            text if text.contains("://") => "without scheme",
            text if text.contains('/') => "without path",
            text if text.contains('*') => "`*` stands for the first labels alone: `*.example.com`",
            text if text.contains(':') => "without port: it takes no part in matching",
            _ => "a host name, or `*.` and a host name",
        };
        self.report(Diagnostic::new(Code::P207, format!("bad host `{}`", shorten(&host.value)), host.span, label));
        false
    }

    fn cors(&mut self, node: &Node) -> Option<Spanned<Cors>> {
        let object = self.object("`cors`", node, Context::Cors)?;
        let mut cors = Cors::default();
        for (key, node) in object.entries {
            match key.text.as_str() {
                "origins" => cors.origins = self.origins(node),
                "methods" => cors.methods = self.methods("`methods`", node),
                "headers" => cors.headers = Some(self.header_names("`headers`", node)),
                "expose" => cors.expose = self.header_names("`expose`", node),
                "credentials" => cors.credentials = self.boolean("`credentials`", node).is_some_and(|on| on.value),
                "max_age" => cors.max_age = self.duration("`max_age`", node).map(|age| age.value),
                _ => {}
            }
        }
        if object.get("origins").is_none() {
            self.report(Diagnostic::new(Code::P702, "CORS without `origins`", node.span, "whose pages may call?"));
        }
        Some(Spanned::new(cors, node.span))
    }

    fn origins(&mut self, node: &Node) -> Vec<Spanned<String>> {
        let mut origins = Vec::new();
        for origin in self.texts("`origins`", node) {
            let Some(fault) = scalars::origin_fault(&origin.value) else {
                origins.push(origin);
                continue;
            };
            let message = format!("bad origin `{}`", shorten(&origin.value));
            let mut found = Diagnostic::new(Code::P702, message, origin.span, fault);
            let better = origin.value.trim_end_matches('/').to_ascii_lowercase();
            if better != origin.value && scalars::origin_fault(&better).is_none() {
                found = found.fix("write it as browsers send it", origin.span, better);
            }
            self.report(found);
        }
        origins
    }

    fn header_names(&mut self, what: &str, node: &Node) -> Vec<Spanned<String>> {
        self.named(node, what, Self::header_name)
    }

    fn defaults(&mut self, node: &Node) -> Defaults {
        let mut defaults = Defaults::default();
        let Some(entries) = self.map("`defaults`", node) else { return defaults };
        for (key, _) in entries {
            let authorizing = Context::Requirement.key(&key.text).is_some() || key.text == "access";
            if authorizing {
                self.report(
                    Diagnostic::new(Code::P004, format!("`{}` in `defaults`", key.text), key.span, "not a setting")
                        .note("an access requirement stands on each route, so that reading one line is enough")
                        .help("give a requirement a name under `access`, or add one over a tree with `guards`"),
                );
            } else if Context::Defaults.key(&key.text).is_none() {
                self.unknown_key(key, Context::Defaults);
            }
        }
        for (key, node) in entries {
            match key.text.as_str() {
                "limit" => defaults.limit = self.limits(node, false),
                "headers" => defaults.headers = self.header_edits("`headers`", node),
                "timeout" => defaults.timeout = self.duration("`timeout`", node),
                "max_body" => defaults.max_body = self.size("`max_body`", node),
                "forward_token" => defaults.forward_token = self.boolean("`forward_token`", node),
                "on_store_error" => {
                    let word = self.word("`on_store_error`", node, &["deny", "allow_until_exp"]);
                    defaults.allow_on_store_error =
                        word.filter(|word| word.value == "allow_until_exp").map(|word| word.span);
                }
                "on_method_override" => {
                    let word = self.word("`on_method_override`", node, &["remove", "enforce"]);
                    defaults.enforce_method_override =
                        word.filter(|word| word.value == "enforce").map(|word| word.span);
                }
                "on_unauthenticated" => defaults.on_unauthenticated = self.on_unauthenticated(node),
                _ => {}
            }
        }
        defaults
    }

    fn assertion(&mut self, node: &Node) -> Option<Spanned<Assertion>> {
        if !matches!(node.value, Value::Map(_)) {
            let on = self.boolean("`assertion`", node).filter(|on| on.value)?;
            return Some(Spanned::new(Assertion::default(), on.span));
        }
        let object = self.object("`assertion`", node, Context::Assertion)?;
        let audience = object.get("audience").and_then(|node| self.text("`audience`", node));
        let expires = object.get("expires").and_then(|node| self.duration("`expires`", node));
        Some(Spanned::new(Assertion { audience, expires }, node.span))
    }
}
