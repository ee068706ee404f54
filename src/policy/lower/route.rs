//! Routes and guards.

use crate::diagnostic::{Code, Diagnostic, Spanned};
use crate::policy::document::{Access, AppId, Definition, Guard, Requirement, Route, RouteOptions};
use crate::policy::keys::Context;
use crate::policy::yaml::{Key, Node, Value, shorten};

use super::requirement::Place;
use super::{Lower, Object, template};

impl Lower<'_> {
    pub(super) fn routes(&mut self, object: Object<'_>, app: AppId) {
        self.each(object, "routes", |lower, key, node| lower.route(key, node, app));
    }

    fn route(&mut self, key: &Key, node: &Node, app: AppId) -> Option<()> {
        let mut found = Vec::new();
        let parsed = template::route_key(self.text_of_key(key), &mut found);
        found.into_iter().for_each(|found| self.report(found));
        let (requirement, allow) = self.requirement_or_deny(node, Place::Route, key.span);
        let options = match &node.value {
            Value::Map(entries) => self.route_options(Object { entries }),
            _ => RouteOptions::default(),
        };
        let (methods, template) = parsed?;
        self.document.routes.push(Route {
            key: Spanned::new(key.text.clone(), key.span),
            fragment: self.fragment,
            app,
            methods,
            template,
            requirement,
            options,
            allow,
            generated: false,
        });
        Some(())
    }

    fn route_options(&mut self, object: Object<'_>) -> RouteOptions {
        let mut options = RouteOptions::default();
        for (key, node) in object.entries {
            match key.text.as_str() {
                "limit" => options.limit = self.limits(node, false),
                "headers" => options.headers = self.header_edits("`headers`", node),
                "response_headers" => options.response_headers = self.header_edits("`response_headers`", node),
                "upstream" => options.upstream = self.url("`upstream`", node, false),
                "rewrite" => options.rewrite = self.template("`rewrite`", node, template::Use::Rewrite),
                "timeout" => options.timeout = self.duration("`timeout`", node),
                "max_body" => options.max_body = self.size("`max_body`", node),
                "retry" => options.no_retry = self.boolean("`retry`", node).is_some_and(|retry| !retry.value),
                "websocket" => options.websocket = self.boolean("`websocket`", node).is_some_and(|on| on.value),
                "max_ws_age" => options.max_ws_age = self.duration("`max_ws_age`", node),
                "on_unauthenticated" => options.on_unauthenticated = self.on_unauthenticated(node),
                "openapi" => {
                    options.openapi_rewrite = self.word("`openapi`", node, &["rewrite"]).map(|word| word.span);
                }
                "name" => options.name = self.text("`name`", node).map(|text| text.value),
                "description" => options.description = self.text("`description`", node).map(|text| text.value),
                "tags" => options.tags = self.texts("`tags`", node).into_iter().map(|tag| tag.value).collect(),
                _ => {}
            }
        }
        options
    }

    /// `challenge`, `redirect`, or `redirect /PATH`.
    pub(super) fn on_unauthenticated(&mut self, node: &Node) -> Option<Spanned<String>> {
        let text = self.text("`on_unauthenticated`", node)?;
        let target = text.value.strip_prefix("redirect ").map(str::trim);
        // A second slash would make it another host's URL in every browser.
        let is_path = |path: &str| {
            path.starts_with('/')
                && !path.starts_with("//")
                && !path.contains('\\')
                && !path.chars().any(char::is_control)
        };
        let good = matches!(text.value.as_str(), "challenge" | "redirect") || target.is_some_and(is_path);
        if !good {
            let message = format!("bad value `{}` for `on_unauthenticated`", shorten(&text.value));
            let label = "`challenge`, `redirect`, or `redirect /PATH`";
            self.report(Diagnostic::new(Code::P109, message, node.span, label));
            return None;
        }
        Some(text)
    }

    pub(super) fn guard(&mut self, key: &Key, node: &Node) -> Option<()> {
        let name = self.name(&key.text, key.span)?;
        let object = self.object("a guard", node, Context::Guard)?;
        let paths = match object.get("paths") {
            Some(node) => self.templates("`paths`", node),
            None => {
                let message = format!("guard `{}` has no `paths`", name.value);
                self.report(Diagnostic::new(Code::P010, message, key.span, "which paths does it watch?"));
                Vec::new()
            }
        };
        let require = match object.get("require") {
            Some(node) => self.requirement(node, Place::Guard),
            None => {
                let message = format!("empty requirement: guard `{}` has no `require`", name.value);
                self.report(Diagnostic::new(Code::P308, message, key.span, "what must hold?"));
                None
            }
        };
        let hosts = object.get("hosts").map_or_else(Vec::new, |node| self.hosts("`hosts`", node));
        let methods = object.get("methods").map_or_else(Vec::new, |node| self.methods("`methods`", node));
        let apps = object.get("apps").map_or_else(Vec::new, |node| self.named(node, "`apps`", Self::name));
        let mode = object.get("mode").and_then(|node| self.word("`mode`", node, &["enforce", "shadow"]));
        let include_public = object.entry("include_public").and_then(|(key, node)| {
            self.boolean("`include_public`", node).filter(|on| on.value).map(|on| key.span.to(on.span))
        });
        let description = object.get("description").and_then(|node| self.text("`description`", node));
        let allow = self.suppressions(object);
        // A guard that was refused in part still has its name; what it asks for stands in as `deny`.
        let require = require.unwrap_or_else(|| Requirement::Word(Spanned::new(Access::Deny, key.span)));
        let guard = Guard {
            paths,
            hosts,
            methods,
            apps,
            require,
            shadow: mode.is_some_and(|mode| mode.value == "shadow"),
            include_public,
            description: description.map(|text| text.value),
        };
        self.document.guards.push(Definition { name, fragment: self.fragment, value: guard, allow });
        Some(())
    }
}
