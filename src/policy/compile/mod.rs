//! From a checked document to a policy set that runs: names resolved, templates in tries, requirements as
//! formulas, guards joined with the routes they may apply to.
//!
//! `apps` makes apps and upstreams, `routes` the routes and the tables of templates, `requirement` the formulas,
//! `headers` what is sent and stripped, `issuers` who may sign tokens (`providers`: what presets of
//! identity providers fill in), `login` the gateway's own endpoints. A compile reports what only it can see (more
//! than 64 leaves, keys that do not fit); everything else was found by `check`, and finding it here again is an
//! error too, never a panic and never a set that lacks something.

mod apps;
pub(super) mod headers;
mod issuers;
mod login;
mod providers;
mod requirement;
mod routes;

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use crate::diagnostic::{Code, Diagnostic, Sources, Span};

use super::checked::Checked;
use super::document::{self, Document};
use super::references::References;
use super::set::{
    Bits, EnvId, EnvValue, Guard, Hosts, Limit, LimitId, Members, NamedSet, Place, PolicySet, Revision, RoleEntry,
    RoleId, Roles, SetId, Strip, Upstream, UpstreamId,
};

/// The built-in role that opens the console; only policies can give it.
pub const ADMIN_ROLE: &str = "portcullis:admin";

/// A set that compiled and whose own tests have not run yet.
#[derive(Clone, Debug)]
pub struct Candidate(Arc<PolicySet>);

impl Candidate {
    /// The set, for its tests and for commands that serve nothing.
    pub fn policy(&self) -> &Arc<PolicySet> {
        &self.0
    }
}

impl Deref for Candidate {
    type Target = PolicySet;

    fn deref(&self) -> &PolicySet {
        &self.0
    }
}

/// Compiles a document in which the checks found no error.
pub fn compile(
    checked: &Checked,
    sources: &Sources,
    references: &References,
    revision: Revision,
) -> Result<Candidate, Vec<Diagnostic>> {
    build(checked.document(), sources, references, revision).map(|policy| Candidate(Arc::new(policy)))
}

/// Compiles a document that `check` has not finished with: what it has to say about meaning, it says about the
/// compiled set.
pub(super) fn build(
    document: &Document,
    sources: &Sources,
    references: &References,
    revision: Revision,
) -> Result<PolicySet, Vec<Diagnostic>> {
    let mut builder = Builder::new(document, sources, references, revision);
    builder.roles();
    builder.sets();
    builder.named_limits();
    builder.issuers();
    builder.apps();
    builder.strip();
    builder.guards();
    builder.routes();
    builder.time_zone();
    let mut problems = builder.problems;
    if problems.iter().any(Diagnostic::is_error) {
        problems.sort_by_key(|problem| problem.primary.span);
        // One value may be needed at several places.
        problems.dedup();
        return Err(problems);
    }
    Ok(builder.policy)
}

/// A set while it is being made.
struct Builder<'d> {
    document: &'d Document,
    sources: &'d Sources,
    references: &'d References,
    policy: PolicySet,
    problems: Vec<Diagnostic>,
    conditions: HashMap<&'d str, &'d document::Definition<document::Condition>>,
    access: HashMap<&'d str, &'d document::Definition<document::Requirement>>,
    named_sets: HashMap<&'d str, SetId>,
    limits_by_name: HashMap<&'d str, LimitId>,
    environment: HashMap<Box<str>, EnvId>,
    upstreams: HashMap<Upstream, UpstreamId>,
    /// The definitions of the guards, in the order of [`PolicySet::guards`].
    guard_definitions: Vec<&'d document::Definition<document::Guard>>,
    /// How many parts the requirements have so far, with all names followed.
    parts: usize,
}

impl<'d> Builder<'d> {
    fn new(document: &'d Document, sources: &'d Sources, references: &'d References, revision: Revision) -> Self {
        let policy = PolicySet {
            revision,
            apps: Vec::new(),
            routes: Vec::new(),
            guards: Vec::new(),
            upstreams: Vec::new(),
            limits: Vec::new(),
            issuers: Vec::new(),
            verifier: crate::token::verify::Verifier::default(),
            roles: Roles::default(),
            scopes: document
                .scopes
                .iter()
                .map(|scope| (scope.name.value.as_str().into(), scope.value.value.as_str().into()))
                .collect(),
            permissions: Vec::new(),
            sets: Vec::new(),
            environment: Vec::new(),
            strip: Strip::default(),
            encode_unsafe: document.headers.encode_unsafe.as_ref().is_some_and(|encode| encode.value),
            time_zone: jiff::tz::TimeZone::UTC,
            unmatched: document.unmatched.as_ref().map_or(404, |status| status.value),
            sources: sources.clone(),
            fixtures: document.identities.clone(),
            tests: document.tests.clone(),
            hosts: Hosts::default(),
        };
        Self {
            document,
            sources,
            references,
            policy,
            problems: Vec::new(),
            conditions: document.conditions.iter().map(|d| (d.name.value.as_str(), d)).collect(),
            access: document.access.iter().map(|d| (d.name.value.as_str(), d)).collect(),
            named_sets: HashMap::new(),
            limits_by_name: HashMap::new(),
            environment: HashMap::new(),
            upstreams: HashMap::new(),
            guard_definitions: Vec::new(),
            parts: 0,
        }
    }

    fn place(&self, span: Span) -> Place {
        Place::of(self.sources, span)
    }

    fn problem(&mut self, code: Code, span: Span, message: impl Into<String>) {
        self.problems.push(Diagnostic::new(code, message, span, ""));
    }

    fn roles(&mut self) {
        let mut roles = Roles::default();
        for definition in &self.document.roles {
            let names = |names: &[crate::diagnostic::Spanned<String>]| {
                names.iter().map(|name| name.value.as_str().into()).collect()
            };
            roles.by_name.insert(definition.name.value.as_str().into(), RoleId(roles.roles.len()));
            roles.roles.push(RoleEntry {
                name: definition.name.value.as_str().into(),
                place: self.place(definition.name.span),
                closure: Bits::default(),
                can: names(&definition.value.can),
                grants: names(&definition.value.grants),
            });
        }
        if roles.id(ADMIN_ROLE).is_none() {
            roles.by_name.insert(ADMIN_ROLE.into(), RoleId(roles.roles.len()));
            roles.roles.push(RoleEntry {
                name: ADMIN_ROLE.into(),
                place: self.place(Span::default()),
                closure: Bits::default(),
                can: Vec::new(),
                grants: Vec::new(),
            });
        }
        let mut closures = Vec::with_capacity(roles.roles.len());
        for number in 0..roles.roles.len() {
            let mut closure = Bits::default();
            let mut open = vec![number];
            // A role that is in it already is not looked at again: a cycle (P103) ends too.
            while let Some(role) = open.pop() {
                if closure.contains(role) {
                    continue;
                }
                closure.insert(role);
                let Some(definition) = self.document.roles.get(role) else { continue };
                for included in &definition.value.includes {
                    match roles.id(&included.value) {
                        Some(id) => open.push(id.0),
                        None => self.problems.push(unknown("role", &included.value, included.span)),
                    }
                }
            }
            closures.push(closure);
        }
        for (role, closure) in roles.roles.iter_mut().zip(closures) {
            role.closure = closure;
        }
        let granted = roles.roles.iter().flat_map(|role| &role.can).filter(|name| !name.contains('*')).cloned();
        let catalogue = self.document.permissions.iter().map(|definition| definition.name.value.as_str().into());
        self.policy.permissions = catalogue.chain(granted).collect();
        self.policy.permissions.sort_unstable();
        self.policy.permissions.dedup();
        self.policy.roles = roles;
    }

    fn sets(&mut self) {
        for definition in &self.document.sets {
            let members = match &definition.value {
                document::Set::Networks(networks) => {
                    Members::Networks(networks.iter().map(|network| network.value).collect())
                }
                document::Set::Strings(strings) => {
                    Members::Strings(strings.iter().map(|string| string.value.as_str().into()).collect())
                }
                document::Set::Numbers(numbers) => {
                    Members::Numbers(numbers.iter().map(|number| number.value.clone()).collect())
                }
            };
            self.named_sets.insert(&definition.name.value, SetId(self.policy.sets.len()));
            self.policy.sets.push(NamedSet { name: definition.name.value.as_str().into(), members });
        }
    }

    fn named_limits(&mut self) {
        for definition in &self.document.limits {
            let id = self.limit(&definition.value, Some(definition.name.value.as_str()));
            self.limits_by_name.insert(&definition.name.value, id);
        }
    }

    fn limit(&mut self, limit: &document::Limit, name: Option<&str>) -> LimitId {
        let id = LimitId(self.policy.limits.len());
        let place = self.place(limit.text.span);
        self.policy.limits.push(Limit {
            id,
            name: name.map(Arc::from),
            count: limit.count,
            per: limit.per,
            burst: limit.burst.unwrap_or(limit.count),
            text: limit.text.value.as_str().into(),
            place,
        });
        id
    }

    fn guards(&mut self) {
        let mut definitions: Vec<_> = self.document.guards.iter().collect();
        definitions.sort_by(|a, b| a.name.value.cmp(&b.name.value));
        for definition in &definitions {
            let settings = &definition.value;
            let methods = self.methods(&settings.methods);
            let mut apps = Vec::new();
            for name in &settings.apps {
                match self.policy.apps.iter().position(|app| *app.name == *name.value) {
                    Some(number) => apps.push(document::AppId(number)),
                    None => self.problems.push(unknown("app", &name.value, name.span)),
                }
            }
            let hosts = settings.hosts.iter().map(|host| apps::host_pattern(&host.value)).collect();
            let place = self.place(definition.name.span);
            self.policy.guards.push(Guard {
                name: definition.name.value.as_str().into(),
                place,
                shadow: settings.shadow,
                include_public: settings.include_public.is_some(),
                paths: settings.paths.iter().map(|template| template.segments.clone()).collect(),
                hosts,
                methods,
                apps,
            });
        }
        self.guard_definitions = definitions;
    }

    /// The number of `env.NAME`.
    fn env(&mut self, name: &str) -> EnvId {
        if let Some(id) = self.environment.get(name) {
            return *id;
        }
        let id = EnvId(self.policy.environment.len());
        self.environment.insert(name.into(), id);
        // An empty secret would be equal to an empty header.
        let value = self.references.env(name).filter(|value| !value.expose().is_empty()).cloned();
        self.policy.environment.push(EnvValue { name: name.into(), value });
        id
    }

    fn time_zone(&mut self) {
        let Some(name) = &self.document.time_zone else { return };
        match jiff::tz::TimeZone::get(&name.value) {
            Ok(zone) => self.policy.time_zone = zone,
            Err(_) => {
                let message = format!("unknown time zone `{}`", name.value);
                self.problem(Code::P109, name.span, message);
            }
        }
    }
}

fn unknown(what: &str, name: &str, span: Span) -> Diagnostic {
    Diagnostic::new(Code::P102, format!("unknown {what} `{name}`"), span, "not defined")
}

#[cfg(test)]
mod tests;
