//! Routes, the guards that may apply to them, and the tables of templates.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::diagnostic::{Code, Diagnostic, Span, Spanned};
use crate::policy::document::{self, Access, AppHeader, AppId, LimitKey, RouteOptions};
use crate::policy::formula::{LeafId, MAX_LEAVES, Node};
use crate::policy::lower::edge_of;
use crate::policy::set::{
    ANY_METHOD, App, Destination, Edge, Guard, GuardId, HeaderRule, HostPattern, LeafKind, LimitUse, Methods,
    OnUnauthenticated, OwnEndpoint, Route, RouteGuard, RouteId,
};
use crate::policy::specificity::{contains, folded, overlaps, render};
use crate::policy::template::Segment;
use crate::policy::trie::Trie;

use super::Builder;
use super::apps::host_pattern;
use super::requirement::{Leaves, parameters};

/// How long an upstream may take, unless the policy says otherwise.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Large files take their time.
const STORAGE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Edge functions run up to 400 seconds.
const FUNCTIONS_TIMEOUT: Duration = Duration::from_secs(400);

/// What Supabase Auth itself takes at most.
const AUTH_BODY: u64 = 1 << 20;

/// What all routes of an app share.
pub(super) struct Shared<'d> {
    pub(super) app: AppId,
    pub(super) header: &'d AppHeader,
    headers: Option<Arc<[HeaderRule]>>,
}

/// A route as it is written, or an own endpoint.
pub(super) struct Entry<'d> {
    pub(super) written: &'d str,
    pub(super) span: Span,
    /// The methods as they are named.
    pub(super) named: Vec<Method>,
    /// The methods it serves.
    pub(super) methods: Vec<Method>,
    pub(super) any_method: bool,
    pub(super) template: Vec<Segment>,
    pub(super) requirement: &'d document::Requirement,
    pub(super) options: &'d RouteOptions,
    pub(super) own: Option<OwnEndpoint>,
    /// Nobody wrote it.
    pub(super) generated: bool,
}

impl<'d> Builder<'d> {
    pub(super) fn routes(&mut self) {
        let document = self.document;
        let nothing: &'d AppHeader = NO_HEADER;
        let mut shared = Vec::new();
        for (number, app) in document.apps.iter().enumerate() {
            let header = app.header().unwrap_or(nothing);
            let headers = self.app_headers(header);
            shared.push(Shared { app: AppId(number), header, headers });
        }
        let mut tables = Tables::default();
        for route in &document.routes {
            let Some(shared) = shared.get(route.app.0) else { continue };
            let any_method = route.methods.is_empty();
            let methods = if any_method { ANY_METHOD.to_vec() } else { self.methods(&route.methods) };
            let is_named = |method: &&Method| route.methods.iter().any(|named| named.value == method.as_str());
            let named = methods.iter().filter(is_named).cloned().collect();
            let template = self.whole_template(route.app, &route.template.segments);
            let entry = Entry {
                written: &route.key.value,
                span: route.key.span,
                named,
                methods,
                any_method,
                template,
                requirement: &route.requirement,
                options: &route.options,
                own: None,
                generated: route.generated,
            };
            self.route(entry, shared, &mut tables);
        }
        for shared in &shared {
            if let Some(login) = &shared.header.login {
                self.login(login, shared, &mut tables);
            }
            if let Some(assertion) = &shared.header.assertion {
                self.assertion_keys(assertion.span, shared, &mut tables);
            }
        }
        self.policy.hosts = tables.finish();
    }

    fn whole_template(&self, app: AppId, template: &[Segment]) -> Vec<Segment> {
        let base = self.policy.app(app).map_or(&[][..], |app| &app.base);
        base.iter().chain(template).cloned().collect()
    }

    pub(super) fn route(&mut self, entry: Entry<'_>, shared: &Shared<'_>, tables: &mut Tables) {
        let id = RouteId(self.policy.routes.len());
        let parameters = parameters(&entry.template);
        let mut leaves = Leaves::default();
        let (access, requirement) = self.route_requirement(entry.requirement, entry.span, &parameters, &mut leaves);
        let guards = self.route_guards(&entry, access, shared.app, &mut leaves);
        if leaves.wanted > MAX_LEAVES {
            let message = format!("this route has {} conditions with its guards, and 64 at most", leaves.wanted);
            self.problem(Code::P309, entry.span, message);
            return;
        }
        let destination = match entry.own {
            Some(own) => Destination::Own(own),
            None => match self.upstream(shared.header, entry.options.upstream.as_ref(), entry.span) {
                Some(upstream) => Destination::Upstream(upstream),
                None => return,
            },
        };
        let headers = match &shared.headers {
            Some(headers) if entry.options.headers.is_empty() => Arc::clone(headers),
            _ => self.route_headers(shared.header, &entry.options.headers, &parameters),
        };
        let (limits_by_address, limits_by_identity) = self.limit_uses(&entry, access, shared.header);
        let response_headers = self.response_headers(&entry.options.response_headers, &parameters);
        let named = entry.named.iter().map(Method::as_str).collect::<Vec<_>>().join("|");
        let template = render(&entry.template);
        let key = if named.is_empty() { template } else { format!("{named} {template}") };
        let mask = |wanted: fn(&LeafKind) -> bool| {
            let leaves = (0..).map(LeafId).zip(&leaves.leaves);
            leaves.filter(|(_, leaf)| wanted(&leaf.kind)).fold(0, |bits, (id, _)| bits | id.bit())
        };
        let edge = self.edge(&entry, shared);
        let route = Route {
            id,
            key: key.into(),
            written: entry.written.into(),
            name: entry.options.name.as_deref().map(Into::into),
            place: self.place(entry.span),
            app: shared.app,
            identity_leaves: mask(LeafKind::is_about_identity),
            scope_leaves: mask(|kind| matches!(kind, LeafKind::Scope(_))),
            step_up_leaves: mask(|kind| matches!(kind, LeafKind::Mfa | LeafKind::MaxAge(_))),
            methods: entry.methods,
            any_method: entry.any_method,
            template: entry.template,
            destination,
            access,
            leaves: leaves.leaves,
            requirement,
            guards,
            limits_by_address,
            limits_by_identity,
            timeout: entry
                .options
                .timeout
                .as_ref()
                .or(shared.header.defaults.timeout.as_ref())
                .map_or_else(|| timeout(edge), |timeout| timeout.value),
            max_body: entry
                .options
                .max_body
                .as_ref()
                .or(shared.header.defaults.max_body.as_ref())
                .map(|max_body| max_body.value)
                .or_else(|| is_auth(edge).then_some(AUTH_BODY)),
            retry: !entry.options.no_retry && !is_auth(edge),
            login: false,
            websocket: entry.options.websocket,
            max_ws_age: entry.options.max_ws_age.as_ref().map(|age| age.value),
            headers,
            response_headers,
            rewrite: entry.options.rewrite.as_ref().map(|template| template.segments.clone()),
            openapi_rewrite: entry.options.openapi_rewrite.is_some(),
            on_unauthenticated: match entry.own {
                Some(_) => OnUnauthenticated::Challenge,
                None => on_unauthenticated(
                    entry.options.on_unauthenticated.as_ref().or(shared.header.defaults.on_unauthenticated.as_ref()),
                ),
            },
            edge,
            generated: entry.generated,
        };
        let Some(app) = self.policy.app(shared.app) else { return };
        if let Some(other) = tables.insert(app, &route, &entry.named).and_then(|other| self.policy.route(other)) {
            self.problems.push(
                Diagnostic::new(Code::P201, "the same template and method twice", entry.span, "also here")
                    .also(other.place.span, "first here"),
            );
        }
        self.policy.routes.push(route);
    }

    /// Which part of Supabase a route leads to, whether it is written or the preset's.
    fn edge(&self, entry: &Entry<'_>, shared: &Shared<'_>) -> Option<Edge> {
        let is_edge = shared.header.preset.is_some() && entry.own.is_none();
        let app = self.policy.app(shared.app).filter(|_| is_edge)?;
        edge_of(&app.base, &entry.template)
    }

    /// The guards that may apply to a route, with their leaves numbered after the route's own.
    fn route_guards(&mut self, entry: &Entry<'_>, access: Access, app: AppId, leaves: &mut Leaves) -> Vec<RouteGuard> {
        let mut guards = Vec::new();
        let folds = self.policy.app(app).is_some_and(|app| app.fold_case);
        let folded_template = folds.then(|| folded(&entry.template));
        let template = folded_template.as_deref().unwrap_or(&entry.template);
        for (number, definition) in self.guard_definitions.clone().into_iter().enumerate() {
            let id = GuardId(number);
            let Some(settings) = self.policy.guard(id) else { continue };
            if !self.may_apply(settings, entry, access, app) {
                continue;
            }
            let paths: Vec<(Vec<Segment>, bool)> = settings
                .paths
                .iter()
                .map(|path| if folds { folded(path) } else { path.clone() })
                .filter(|path| overlaps(path, template))
                .map(|path| {
                    let always = contains(&path, template);
                    (path, always)
                })
                .collect();
            for (path, always) in paths {
                // With several templates all that match must hold: each binds its own parameters.
                let place = self.place(definition.value.require.span());
                let node = self.requirement(&definition.value.require, &parameters(&path), leaves, 0);
                let requirement = node.unwrap_or_else(|| Node {
                    // Access words are refused here (P303); a guard that asks for nothing must not grant.
                    kind: crate::policy::formula::NodeKind::Any([].into()),
                    label: None,
                    place,
                });
                guards.push(RouteGuard { guard: id, template: (!always).then_some(path), requirement });
            }
        }
        guards
    }

    fn may_apply(&self, guard: &Guard, entry: &Entry<'_>, access: Access, app: AppId) -> bool {
        let hosts = || {
            let hosts = self.policy.app(app).map_or(&[][..], |app| &app.hosts);
            hosts.is_empty()
                || guard.hosts.is_empty()
                || hosts
                    .iter()
                    .any(|host| guard.hosts.iter().any(|other| hosts_overlap(&HostPattern::new(host), other)))
        };
        (access != Access::Public || guard.include_public)
            && (guard.apps.is_empty() || guard.apps.contains(&app))
            && (guard.methods.is_empty() || guard.methods.iter().any(|method| entry.methods.contains(method)))
            && hosts()
    }

    fn limit_uses(&mut self, entry: &Entry<'_>, access: Access, header: &AppHeader) -> (Vec<LimitUse>, Vec<LimitUse>) {
        let own = &entry.options.limit;
        let drops_defaults = own.iter().any(|limit| matches!(limit, document::LimitUse::None(_)));
        let defaults = if drops_defaults { &[][..] } else { &header.defaults.limit };
        let default_key = match access {
            Access::Authenticated | Access::Optional => LimitKey::User,
            Access::Public | Access::Deny | Access::Todo => LimitKey::Ip,
        };
        let mut uses: Vec<LimitUse> = Vec::new();
        for limit in defaults.iter().chain(own) {
            let (limit, by) = match limit {
                document::LimitUse::None(_) => continue,
                document::LimitUse::Inline(limit) => (self.limit(limit, None), limit.by.clone()),
                document::LimitUse::Named(name) => match self.limits_by_name.get(name.value.as_str()).copied() {
                    Some(id) => {
                        let definition = self.document.limits.iter().find(|limit| limit.name.value == name.value);
                        (id, definition.and_then(|definition| definition.value.by.clone()))
                    }
                    None => {
                        self.problems.push(super::unknown("limit", &name.value, name.span));
                        continue;
                    }
                },
            };
            let used = LimitUse { limit, by: by.unwrap_or_else(|| default_key.clone()) };
            if !uses.contains(&used) {
                uses.push(used);
            }
        }
        uses.into_iter().partition(|used| used.by == LimitKey::Ip)
    }
}

/// How long a part of Supabase may take, unless the policy says otherwise.
fn timeout(edge: Option<Edge>) -> Duration {
    match edge {
        Some(Edge::Storage) => STORAGE_TIMEOUT,
        Some(Edge::Functions) => FUNCTIONS_TIMEOUT,
        _ => TIMEOUT,
    }
}

/// Supabase Auth: a refresh that is sent twice is a reuse, and ends the session.
fn is_auth(edge: Option<Edge>) -> bool {
    matches!(edge, Some(Edge::Auth | Edge::Token | Edge::Logout))
}

/// `challenge`, `redirect`, or `redirect /PATH`.
fn on_unauthenticated(stated: Option<&Spanned<String>>) -> OnUnauthenticated {
    match stated.map(|stated| stated.value.as_str()) {
        None | Some("challenge") => OnUnauthenticated::Challenge,
        Some("redirect") => OnUnauthenticated::Login,
        Some(other) => OnUnauthenticated::To(other.strip_prefix("redirect").unwrap_or(other).trim().into()),
    }
}

static NO_HEADER: &AppHeader = &AppHeader {
    any_key: None,
    preset: None,
    upstream: None,
    upstream_ca: None,
    upstream_server_name: None,
    upstream_insecure: None,
    hosts: Vec::new(),
    base: None,
    strip_base: false,
    case_insensitive: None,
    irregular: crate::request::target::Irregular::NONE,
    login: None,
    cors: None,
    defaults: document::Defaults {
        limit: Vec::new(),
        headers: Vec::new(),
        timeout: None,
        max_body: None,
        forward_token: None,
        allow_on_store_error: None,
        enforce_method_override: None,
        on_unauthenticated: None,
    },
    assertion: None,
    errors_fastapi: false,
};

fn hosts_overlap(a: &HostPattern, b: &HostPattern) -> bool {
    match (a, b) {
        (HostPattern::Exact(name), other) | (other, HostPattern::Exact(name)) => other.matches(name),
        (HostPattern::Suffix(a), HostPattern::Suffix(b)) => a.ends_with(&**b) || b.ends_with(&**a),
    }
}

/// The tables of templates while they are made.
#[derive(Default)]
pub(super) struct Tables {
    exact: HashMap<Box<str>, Trie<Methods>>,
    suffixes: HashMap<Box<str>, Trie<Methods>>,
    any: Trie<Methods>,
}

impl Tables {
    /// Adds a route on each of its app's hosts; returns a route that has its template and one of its methods.
    fn insert(&mut self, app: &App, route: &Route, named: &[Method]) -> Option<RouteId> {
        let mut twice = None;
        if app.hosts.is_empty() {
            twice = insert(&mut self.any, app, route, named);
        }
        for host in &app.hosts {
            let table = match host_pattern(host) {
                HostPattern::Exact(name) => self.exact.entry(name).or_default(),
                HostPattern::Suffix(suffix) => self.suffixes.entry(suffix).or_default(),
            };
            let other = insert(table, app, route, named);
            twice = twice.or(other);
        }
        twice
    }

    /// The finished tables: the longest suffix first.
    fn finish(mut self) -> crate::policy::set::Hosts {
        let tables = self.exact.values_mut().chain(self.suffixes.values_mut()).chain([&mut self.any]);
        tables.for_each(|table| table.values_mut().iter_mut().for_each(add_head));
        let mut suffixes: Vec<_> = self.suffixes.into_iter().collect();
        suffixes.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        crate::policy::set::Hosts { exact: self.exact, suffixes, any: self.any }
    }
}

fn insert(table: &mut Trie<Methods>, app: &App, route: &Route, named: &[Method]) -> Option<RouteId> {
    let methods = table.entry(&route.template, app.fold_case, Methods::default)?;
    if route.any_method {
        let other = methods.any;
        methods.any = other.or(Some(route.id));
        return other;
    }
    let mut twice = None;
    for method in named {
        match methods.named.iter().find(|(known, _)| known == method) {
            None => methods.named.push((method.clone(), route.id)),
            Some((_, other)) => twice = Some(*other),
        }
    }
    twice
}

/// `GET` includes `HEAD`, unless a route names it.
fn add_head(methods: &mut Methods) {
    let position = |wanted: Method| methods.named.iter().position(|(method, _)| *method == wanted);
    if let (Some(at), None) = (position(Method::GET), position(Method::HEAD))
        && let Some((_, route)) = methods.named.get(at).cloned()
    {
        methods.named.insert(at + 1, (Method::HEAD, route));
    }
}
