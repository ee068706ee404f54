//! The routes of a set as they stand beside each other: one tree for each host pattern, templates with all
//! their methods, requirements as formulas, the guards of each route.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use crate::identity::scope::Hierarchy;
use crate::policy::document::{Access, App, AppHeader, Definition, Guard, Route};
use crate::policy::specificity::{compare, contains};
use crate::policy::template::Segment;

use super::Context;
use super::budget::Budget;
use super::formula::{FormulaId, Formulas};
use super::paths::{Tree, Wanted};

/// The methods of a route key that names none.
pub(super) const ANY: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Everything that the checks of routes beside each other read.
pub(super) struct Table<'d> {
    /// In the order of the document.
    pub(super) routes: Vec<View<'d>>,
    /// By canonical host pattern; the empty one is any host.
    pub(super) hosts: BTreeMap<String, HostTable>,
    pub(super) guards: Vec<GuardView<'d>>,
    pub(super) formulas: Formulas<'d>,
}

/// A route with what its app adds.
pub(super) struct View<'d> {
    pub(super) route: &'d Route,
    pub(super) app: &'d App,
    /// `base` and template.
    pub(super) segments: Vec<Segment>,
    pub(super) fold: bool,
    pub(super) methods: Methods<'d>,
    pub(super) access: Access,
    pub(super) formula: FormulaId,
    pub(super) hosts: Vec<String>,
    /// The guards that apply to some of its requests: index, and whether to all of them.
    pub(super) guards: Vec<(usize, bool)>,
}

impl<'d> View<'d> {
    pub(super) fn wanted(&self) -> Wanted<'_> {
        Wanted { segments: &self.segments, fold: self.fold }
    }

    pub(super) fn header(&self) -> Option<&'d AppHeader> {
        self.app.header()
    }

    /// Whether the template is nothing but a tail: everything of the app.
    pub(super) fn is_app_wide(&self) -> bool {
        matches!(self.route.template.segments.as_slice(), [Segment::Tail { .. }])
    }

    pub(super) fn has_tail(&self) -> bool {
        matches!(self.segments.last(), Some(Segment::Tail { .. }))
    }
}

/// The methods of a route. `GET` includes `HEAD`, unless another route of the template states it.
pub(super) struct Methods<'d> {
    /// None are named: all of [`ANY`].
    pub(super) any: bool,
    /// As they are written.
    pub(super) stated: BTreeSet<&'d str>,
    /// With `HEAD` for `GET`.
    pub(super) named: BTreeSet<&'d str>,
}

impl<'d> Methods<'d> {
    fn of(route: &'d Route) -> Self {
        let stated: BTreeSet<&str> = route.methods.iter().map(|method| method.value.as_str()).collect();
        let mut named = stated.clone();
        if named.contains("GET") {
            named.insert("HEAD");
        }
        Self { any: named.is_empty(), stated, named }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &'d str> {
        self.named.iter().copied().chain(ANY.into_iter().filter(|_| self.any))
    }
}

/// Methods as a route key has them: `HEAD` goes without saying beside `GET`, the usual order.
pub(super) fn method_list<'m>(methods: impl IntoIterator<Item = &'m str>) -> Vec<&'m str> {
    let mut list: Vec<&str> = methods.into_iter().collect();
    if list.contains(&"GET") {
        list.retain(|method| *method != "HEAD");
    }
    let rank = |method: &str| ANY.iter().position(|known| *known == method).unwrap_or(ANY.len());
    list.sort_by(|a, b| (rank(a), a).cmp(&(rank(b), b)));
    list.dedup();
    list
}

/// The templates of one host pattern.
pub(super) struct HostTable {
    pub(super) tree: Tree,
    pub(super) groups: Vec<Group>,
}

/// A template with all its routes.
pub(super) struct Group {
    pub(super) routes: Vec<usize>,
}

impl<'d> Table<'d> {
    pub(super) fn of(context: &Context<'d>) -> Self {
        let document = context.document;
        let mut formulas = Formulas::new(hierarchy(context), context.names.budget.clone());
        let mut routes = Vec::with_capacity(document.routes.len());
        let guards = GuardView::all(context, &mut formulas);
        for route in &document.routes {
            let Some(app) = document.apps.get(route.app.0) else { continue };
            let header = app.header();
            let base = header.and_then(|header| header.base.as_ref());
            let segments = || base.into_iter().flat_map(|base| &base.segments).chain(&route.template.segments);
            let at = formulas.positions(segments());
            let formula = formulas.of_route(&context.names, &route.requirement, &at);
            let mut hosts: Vec<String> =
                header.into_iter().flat_map(|header| &header.hosts).map(|host| canonical_host(&host.value)).collect();
            if hosts.is_empty() {
                hosts.push(String::new());
            }
            hosts.sort_unstable();
            hosts.dedup();
            routes.push(View {
                route,
                app,
                segments: segments().cloned().collect(),
                fold: header.and_then(|header| header.case_insensitive) == Some(true),
                methods: Methods::of(route),
                access: context.names.access_of(&route.requirement),
                formula,
                hosts,
                guards: Vec::new(),
            });
        }
        guard_routes(&context.names.budget, &guards, &mut routes);
        let mut hosts: BTreeMap<String, HostTable> = BTreeMap::new();
        for (index, view) in routes.iter().enumerate() {
            for host in &view.hosts {
                let table = hosts
                    .entry(host.clone())
                    .or_insert_with(|| HostTable { tree: Tree::new(&context.names.budget), groups: Vec::new() });
                let next = table.groups.len();
                let group = table.tree.insert(view.wanted(), next);
                if group == next {
                    table.groups.push(Group { routes: Vec::new() });
                }
                if let Some(group) = table.groups.get_mut(group) {
                    group.routes.push(index);
                }
            }
        }
        // By what is written, so that the order of files does not show.
        for group in hosts.values_mut().flat_map(|host| &mut host.groups).filter(|group| group.routes.len() > 1) {
            group.routes.sort_by_key(|index| {
                let route = routes.get(*index).map(|view| view.route);
                route.map(|route| (route.key.value.as_str(), context.sources.text(route.requirement.span())))
            });
        }
        Self { routes, hosts, guards, formulas }
    }

    /// The routes of a template.
    pub(super) fn views(&self, group: &Group) -> impl Iterator<Item = (usize, &View<'d>)> {
        group.routes.iter().filter_map(|index| Some((*index, self.routes.get(*index)?)))
    }

    /// The first route of a template.
    pub(super) fn first(&self, group: &Group) -> Option<&View<'d>> {
        group.routes.first().and_then(|index| self.routes.get(*index))
    }

    /// The route of a template that serves a method: named before any.
    pub(super) fn serving(&self, group: &Group, method: &str) -> Option<(usize, &View<'d>)> {
        let stated = self.views(group).find(|(_, view)| view.methods.stated.contains(method));
        let named = || self.views(group).find(|(_, view)| view.methods.named.contains(method));
        stated.or_else(named).or_else(|| self.views(group).find(|(_, view)| view.methods.any && ANY.contains(&method)))
    }

    /// All methods of a template.
    pub(super) fn methods(&self, group: &Group) -> BTreeSet<&'d str> {
        self.views(group).flat_map(|(_, view)| view.methods.iter()).collect()
    }

    /// The templates that contain a template, the most specific first.
    pub(super) fn around(&self, host: &HostTable, view: &View<'d>) -> Vec<usize> {
        let mut around = host.tree.containing(view.wanted());
        let segments = |group: &usize| {
            let first = host.groups.get(*group).and_then(|group| self.first(group));
            first.map_or(&[][..], |view| &view.segments)
        };
        around.sort_by(|a, b| compare(segments(a), segments(b)));
        around
    }
}

fn hierarchy(context: &Context<'_>) -> Hierarchy {
    let mut stated = context.document.issuers.iter().map(|issuer| issuer.value.hierarchy.as_ref());
    let first = stated.next().flatten().map_or(Hierarchy::Colon, |stated| stated.value);
    let same = stated.all(|other| other.map_or(Hierarchy::Colon, |stated| stated.value) == first);
    if same { first } else { Hierarchy::None }
}

/// Lower case, punycode, without the trailing dot.
pub(super) fn canonical_host(host: &str) -> String {
    let (wildcard, name) = match host.strip_prefix("*.") {
        Some(name) => ("*.", name),
        None => ("", host),
    };
    let name = name.trim_end_matches('.');
    let name = idna::domain_to_ascii(name).unwrap_or_else(|_| name.to_ascii_lowercase());
    format!("{wildcard}{name}")
}

/// Whether one host can be of both patterns.
pub(super) fn hosts_overlap(one: &str, other: &str) -> bool {
    let within = |name: &str, pattern: &str| {
        let Some(suffix) = pattern.strip_prefix('*') else { return false };
        name.trim_start_matches('*').ends_with(suffix) && name.len() > suffix.len()
    };
    one.is_empty() || other.is_empty() || one == other || within(one, other) || within(other, one)
}

// === Guards ===

/// A guard with each of its paths.
pub(super) struct GuardView<'d> {
    pub(super) guard: &'d Definition<Guard>,
    pub(super) hosts: Vec<String>,
    /// The requirement, for each path.
    pub(super) formulas: Vec<FormulaId>,
}

impl<'d> GuardView<'d> {
    fn all(context: &Context<'d>, formulas: &mut Formulas<'d>) -> Vec<Self> {
        (context.document.guards.iter())
            .map(|guard| {
                let of_path = guard.value.paths.iter().map(|path| {
                    let at = formulas.positions(&path.segments);
                    formulas.of_guard(&context.names, &guard.value.require, &at)
                });
                let formulas = of_path.collect();
                let hosts = guard.value.hosts.iter().map(|host| canonical_host(&host.value)).collect();
                Self { guard, hosts, formulas }
            })
            .collect()
    }

    /// Whether the guard looks at requests of the route's app, host and methods, whatever their path.
    fn concerns(&self, view: &View<'d>) -> bool {
        let guard = &self.guard.value;
        let app = guard.apps.is_empty() || guard.apps.iter().any(|app| app.value == view.app.name.value);
        let method = guard.methods.is_empty()
            || guard.methods.iter().any(|method| {
                view.methods.named.contains(method.value.as_str())
                    || (method.value == "GET" && view.methods.named.contains("HEAD"))
                    || (view.methods.any && ANY.contains(&method.value.as_str()))
            });
        let host = self.hosts.is_empty()
            || self.hosts.iter().any(|host| view.hosts.iter().any(|other| hosts_overlap(host, other)));
        app && method && host
    }
}

/// Notes for each route the guards whose paths intersect it. Public routes take part, too.
fn guard_routes(budget: &Budget, guards: &[GuardView<'_>], routes: &mut [View<'_>]) {
    let mut tree = Tree::new(budget);
    let mut paths: Vec<Vec<usize>> = Vec::new();
    for (index, guard) in guards.iter().enumerate() {
        for path in &guard.guard.value.paths {
            let at = tree.insert(Wanted { segments: &path.segments, fold: false }, paths.len());
            if at == paths.len() {
                paths.push(Vec::new());
            }
            if let Some(list) = paths.get_mut(at) {
                list.push(index);
            }
        }
    }
    for view in routes {
        let mut found: BTreeSet<usize> = BTreeSet::new();
        tree.overlapping(view.wanted(), false, &mut |at, _| {
            found.extend(paths.get(at).into_iter().flatten());
            ControlFlow::Continue(())
        });
        for index in found {
            let Some(guard) = guards.get(index).filter(|guard| guard.concerns(view)) else { continue };
            let value = &guard.guard.value;
            let everywhere = !view.fold
                && value.methods.is_empty()
                && value.hosts.is_empty()
                && value.paths.iter().any(|path| contains(&path.segments, &view.segments));
            view.guards.push((index, everywhere));
        }
    }
}
