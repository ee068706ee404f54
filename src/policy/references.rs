//! What `env:` and `file:` in a policy stand for, resolved by who may read environment and files.

use std::collections::HashMap;

use crate::diagnostic::{FileId, Span, Spanned};
use crate::secret::Secret;

use super::document::{
    self, Clause, Condition, Document, HeaderValue, Operand, Preset, Reference, Requirement, Source,
};

/// The environment's name for the setting `public_url`: the default `iss` of our own tokens.
pub const PUBLIC_URL: &str = "PORTCULLIS_PUBLIC_URL";

/// Resolved references. Nothing in here is printed.
#[derive(Clone, Debug, Default)]
pub struct References {
    environment: HashMap<Box<str>, Secret<String>>,
    files: HashMap<(FileId, Box<str>), Secret<Vec<u8>>>,
}

impl References {
    /// No reference is resolved: for `check`, `test` and `explain`, which need no keys.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds the value of `env:NAME` and `env.NAME`.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: Secret<String>) -> Self {
        self.environment.insert(name.into(), value);
        self
    }

    /// Adds the content of `file:PATH` as it is said in the policy file `from`.
    #[must_use]
    pub fn with_file(mut self, from: FileId, path: &str, content: Vec<u8>) -> Self {
        self.files.insert((from, path.into()), Secret::new(content));
        self
    }

    /// The value of `env:NAME`.
    pub fn env(&self, name: &str) -> Option<&Secret<String>> {
        self.environment.get(name)
    }

    /// The content of `file:PATH` as it is said in the policy file `from`.
    pub fn file(&self, from: FileId, path: &str) -> Option<&Secret<Vec<u8>>> {
        self.files.get(&(from, path.into()))
    }
}

impl Document {
    /// Every reference that must be resolved before the set can serve: `env:` and `file:` in settings, `env.NAME`
    /// in conditions, and what presets read where nothing is stated. The place is where it is said, or the preset's.
    pub fn references(&self) -> Vec<Spanned<Source>> {
        let mut found = Vec::new();
        let mut add = |source: &Spanned<Source>| {
            if !matches!(source.value, Source::Literal(_)) && !found.contains(source) {
                found.push(source.clone());
            }
        };
        for header in self.apps.iter().flat_map(|app| &app.headers).map(|(_, header)| header) {
            header.upstream.iter().chain(&header.upstream_ca).for_each(&mut add);
            let sessions = header.login.iter().filter(|login| login.value.has_sessions());
            sessions.flat_map(|login| &login.value.session.keys).for_each(&mut add);
        }
        let mut logins = self.apps.iter().flat_map(|app| &app.headers).filter_map(|(_, header)| header.login.as_ref());
        let asks_supabase = logins.any(|login| login.value.via.value == "supabase");
        self.routes.iter().filter_map(|route| route.options.upstream.as_ref()).for_each(&mut add);
        for issuer in self.issuers.iter().map(|definition| &definition.value) {
            issuer
                .secrets
                .iter()
                .chain(&issuer.public_key)
                .chain(&issuer.signing_key)
                .chain(&issuer.jwks_file)
                .chain(&issuer.jwks_url)
                .chain(&issuer.url)
                .chain(issuer.introspection.iter().flat_map(|introspection| {
                    let document::Introspection { url, client_id, client_secret, .. } = &introspection.value;
                    url.iter().chain(client_id).chain(client_secret)
                }))
                .chain(issuer.forward_client_ip.iter().flat_map(|forward| &forward.value.secret_key))
                .chain(issuer.other.iter().map(|(_, value)| value))
                .for_each(&mut add);
            let span = issuer.preset.span;
            match issuer.preset.value {
                Preset::Local if issuer.secrets.is_empty() && issuer.signing_key.is_none() => {
                    add(&Spanned::new(Source::Env("SECRET_KEY".to_owned()), span));
                }
                Preset::Supabase => {
                    if issuer.url.is_none() {
                        add(&Spanned::new(Source::Env("SUPABASE_URL".to_owned()), span));
                    }
                    if asks_supabase && issuer.other("key").is_none() {
                        add(&Spanned::new(Source::Env("SUPABASE_KEY".to_owned()), span));
                    }
                }
                _ => {}
            }
        }
        let mut reference = |reference: &Reference, span: Span| {
            if let Reference::Env(name) = reference {
                add(&Spanned::new(Source::Env(name.clone()), span));
            }
        };
        let mut conditions: Vec<&Condition> = self.conditions.iter().map(|definition| &definition.value).collect();
        let requirements = self
            .routes
            .iter()
            .map(|route| &route.requirement)
            .chain(self.access.iter().map(|definition| &definition.value))
            .chain(self.guards.iter().map(|definition| &definition.value.require));
        requirements.for_each(|requirement| conditions_of(requirement, &mut conditions));
        while let Some(condition) = conditions.pop() {
            match condition {
                Condition::Comparison(comparison) => {
                    reference(&comparison.left, comparison.left_span);
                    if let Operand::Reference(right) = &comparison.right {
                        reference(right, comparison.right_span);
                    }
                }
                Condition::All(members, _) => conditions.extend(members),
                Condition::Named(_) => {}
            }
        }
        let headers = self
            .headers
            .edits
            .iter()
            .chain(self.apps.iter().flat_map(|app| &app.headers).flat_map(|(_, header)| &header.defaults.headers))
            .chain(
                self.routes
                    .iter()
                    .flat_map(|route| route.options.headers.iter().chain(&route.options.response_headers)),
            );
        for edit in headers {
            if let HeaderValue::Reference(value) = &edit.value {
                reference(&value.value, value.span);
            }
        }
        found.sort_by_key(|source| source.span);
        found
    }

    /// Environment variables that are used where they are set, and not missed where they are not.
    pub fn optional_environment(&self) -> Vec<&'static str> {
        let mut names =
            vec!["ALGORITHM", "ACCESS_TOKEN_EXPIRE_MINUTES", PUBLIC_URL, "SUPABASE_JWT_SECRET", "SUPABASE_KEY"];
        if self.issuers.is_empty() {
            names.extend(["SECRET_KEY", "SUPABASE_URL"]);
        }
        names
    }
}

fn conditions_of<'d>(requirement: &'d Requirement, into: &mut Vec<&'d Condition>) {
    let Requirement::Object(object) = requirement else { return };
    for clause in &object.clauses {
        match clause {
            Clause::Where(condition) => into.push(condition),
            Clause::Any(members, _) | Clause::All(members, _) => {
                members.iter().for_each(|member| conditions_of(member, into));
            }
            Clause::Not(member, _) => conditions_of(member, into),
            Clause::Scope(_)
            | Clause::Role(_)
            | Clause::Permission(_)
            | Clause::Issuer(_)
            | Clause::Mfa(_)
            | Clause::MaxAge(_) => {}
        }
    }
}
