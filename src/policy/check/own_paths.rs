//! P701
//!
//! # What it does
//! Reports a login whose own paths (`/token`, `/logout`, …) are taken by a route or by another app's login on the same
//! host, and a `via` for which there is no fitting issuer: `local` needs one with the preset `local`, `supabase` one
//! with the preset `supabase` and its `key`, `oidc` one of the presets for OpenID providers with a `client_id`,
//! `upstream` one that is not `local`. And browsers that are sent to a sign-in page which is not there.
//!
//! # Why it matters
//! Two owners of one path need an order, and there is none. And tokens that no issuer recognises log nobody in.
//!
//! # Example
//! ```yaml
//! login: local
//! routes:
//!   POST /token: public
//! ```
//!
//! # Instead
//! Delete the route: the login answers there. To keep the app's own endpoint, `login: upstream`; to move ours,
//! `login: { via: local, path: /auth/token }`.

use std::collections::BTreeMap;

use crate::diagnostic::{Code, Diagnostic, Span, Spanned};
use crate::policy::document::{App, Definition, Document, FragmentId, Issuer, Login, Preset};
use crate::policy::template::Segment;

use super::Context;
use super::findings::{Findings, Owner};
use super::names::quoted;
use super::table::{Table, canonical_host};

pub(super) fn run<'d>(context: &Context<'d>, table: &Table<'d>, found: &mut Findings<'d>) {
    redirects(context, found);
    let mut own: BTreeMap<(String, String), (Span, FragmentId)> = BTreeMap::new();
    for app in &context.document.apps {
        for (fragment, header) in &app.headers {
            let Some(login) = &header.login else { continue };
            issuer(context, *fragment, login, found);
            sessions(*fragment, login, found);
            let mut hosts: Vec<String> = header.hosts.iter().map(|host| canonical_host(&host.value)).collect();
            if hosts.is_empty() {
                hosts.push(String::new());
            }
            for path in paths(context.document, &login.value) {
                let path = &path;
                let base = header.base.iter().flat_map(|base| base.segments.iter().cloned());
                let literals = path.value.split('/').filter(|part| !part.is_empty());
                let segments: Vec<Segment> =
                    base.chain(literals.map(|part| Segment::Literal(part.to_owned()))).collect();
                for host in &hosts {
                    taken_by_route(table, host, &segments, path, *fragment, found);
                    let key = (host.clone(), super::describe::shape(&segments));
                    let Some((first, other)) = own.get(&key).copied() else {
                        own.insert(key, (path.span, *fragment));
                        continue;
                    };
                    if first != path.span && other != *fragment {
                        let message = format!("own path `{}` belongs to two apps on one host", path.value);
                        let diagnostic =
                            Diagnostic::new(Code::P701, message, path.span, "again here").also(first, "first here");
                        found.between(vec![Owner::of_fragment(*fragment), Owner::of_fragment(other)], diagnostic);
                    }
                }
            }
        }
    }
}

/// The paths that a login answers itself.
fn paths(document: &Document, login: &Login) -> Vec<Spanned<String>> {
    let token = (login.via.value != "oidc").then_some(&login.path);
    let page = login.paths.iter().find(|(purpose, _)| purpose == "login").map(|(_, path)| path);
    let providers = page.into_iter().flat_map(|page| {
        let below = |name: &Spanned<String>| format!("{}/{}", page.value.trim_end_matches('/'), name.value);
        document.providers(login).into_iter().map(move |name| Spanned::new(below(name), page.span))
    });
    token.into_iter().chain(login.paths.iter().map(|(_, path)| path)).cloned().chain(providers).collect()
}

/// Sessions of browsers that are stated where there are none, or that nobody could get.
fn sessions(fragment: FragmentId, login: &Spanned<Login>, found: &mut Findings<'_>) {
    let settings = &login.value;
    let owner = Owner::of_fragment(fragment);
    let on = |wanted: &str| settings.paths.iter().any(|(purpose, _)| purpose == wanted);
    let via = settings.via.value.as_str();
    if !settings.has_sessions() {
        for stated in settings
            .providers
            .first()
            .iter()
            .map(|name| name.span)
            .chain(settings.return_to.iter().map(|path| path.span))
        {
            let message = "this is for sessions of browsers, which this login has not";
            let diagnostic = Diagnostic::new(Code::P701, message, stated, "has no effect")
                .help("sessions come with `via: supabase` and `via: oidc`, unless `session: none`");
            found.about(owner, diagnostic);
        }
        if let Some(none) = settings.no_session.filter(|_| via == "oidc") {
            let message = "`via: oidc` has nothing but sessions of browsers";
            found.about(owner, Diagnostic::new(Code::P701, message, none, "nobody could log in"));
        }
        return;
    }
    let leaves = via == "oidc" || !settings.providers.is_empty();
    if leaves && on("login") && !on("callback") {
        let message = "a login through a provider needs `callback`";
        let diagnostic = Diagnostic::new(Code::P701, message, login.span, "`callback: none`: nobody could come back");
        found.about(owner, diagnostic);
    }
}

/// `on_unauthenticated: redirect` where the app has no page to sign in.
fn redirects<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    let has_page = |app: &App| {
        let logins = app.headers.iter().filter_map(|(_, header)| header.login.as_ref());
        logins
            .into_iter()
            .any(|login| login.value.has_sessions() && login.value.paths.iter().any(|(purpose, _)| purpose == "login"))
    };
    let mut report = |owner: Owner<'d>, stated: &Spanned<String>, app: &App| {
        if stated.value != "redirect" || has_page(app) {
            return;
        }
        let message = format!("app `{}` has no sign-in page to redirect to", app.name.value);
        let diagnostic = Diagnostic::new(Code::P701, message, stated.span, "where to?").help(
            "add `login: supabase` or `login: oidc`, or name a page of the app: `redirect /login?redirectTo={path}`",
        );
        found.about(owner, diagnostic);
    };
    for app in &context.document.apps {
        for (fragment, header) in &app.headers {
            if let Some(stated) = &header.defaults.on_unauthenticated {
                report(Owner::of_fragment(*fragment), stated, app);
            }
        }
    }
    for route in &context.document.routes {
        if let (Some(stated), Some(app)) = (&route.options.on_unauthenticated, context.document.apps.get(route.app.0)) {
            report(route.into(), stated, app);
        }
    }
}

fn taken_by_route<'d>(
    table: &Table<'d>,
    host: &str,
    segments: &[Segment],
    path: &Spanned<String>,
    fragment: FragmentId,
    found: &mut Findings<'d>,
) {
    let Some(host) = table.hosts.get(host) else { return };
    let mut taken = None;
    host.tree.overlapping(super::paths::Wanted { segments, fold: false }, false, &mut |group, relation| {
        if !relation.wider && !relation.narrower {
            taken = host.groups.get(group);
        }
        std::ops::ControlFlow::Continue(())
    });
    for (_, view) in taken.into_iter().flat_map(|group| table.views(group)) {
        let message = format!("`{}` is an own path of the login", path.value);
        let diagnostic = Diagnostic::new(Code::P701, message, view.route.key.span, "taken by this route")
            .also(path.span, "the login answers here")
            .help("delete the route, or move the login with `path` or `paths`");
        found.between(vec![view.route.into(), Owner::of_fragment(fragment)], diagnostic);
    }
}

fn issuer<'d>(context: &Context<'d>, fragment: FragmentId, login: &'d Spanned<Login>, found: &mut Findings<'d>) {
    let issuers = &context.document.issuers;
    // Without `identity` they are implied by the environment, and whether they fit shows there.
    if issuers.is_empty() {
        return;
    }
    let via = &login.value.via;
    let named = &login.value.issuers;
    let (what, fits): (&str, fn(&Issuer) -> bool) = match via.value.as_str() {
        "local" => ("with `preset: local`", |issuer| issuer.preset.value == Preset::Local),
        "supabase" => ("with `preset: supabase` and its `key`", |issuer| issuer.preset.value == Preset::Supabase),
        "oidc" => ("of an OpenID provider", |issuer| {
            !matches!(issuer.preset.value, Preset::Local | Preset::Jwt | Preset::Supabase)
        }),
        "upstream" => ("that is not `local`", |issuer| issuer.preset.value != Preset::Local),
        _ => return,
    };
    let named = if via.value == "oidc" && !login.value.providers.is_empty() { &login.value.providers } else { named };
    let candidates =
        issuers.iter().filter(|issuer| named.is_empty() || named.iter().any(|name| name.value == issuer.name.value));
    let fitting: Vec<_> = candidates.filter(|issuer| fits(&issuer.value)).collect();
    let span = if via.span.end > via.span.start { via.span } else { login.span };
    match (via.value.as_str(), fitting.as_slice()) {
        ("oidc", [_, ..]) => return clients(fragment, span, &fitting, !named.is_empty(), found),
        ("supabase", [issuer, ..]) => return key(context, fragment, span, issuer, found),
        (_, [_, ..]) => return,
        (_, []) => {}
    }
    let diagnostic =
        Diagnostic::new(Code::P701, format!("`via: {}` needs an issuer {what}", via.value), span, "no fitting issuer")
            .note(format!("`identity` has {}", quoted(issuers.iter().map(|issuer| issuer.name.value.as_str()))));
    found.about(Owner::of_fragment(fragment), diagnostic);
}

/// The gateway is a client of the providers through which browsers sign in.
fn clients<'d>(
    fragment: FragmentId,
    via: Span,
    fitting: &[&'d Definition<Issuer>],
    named: bool,
    found: &mut Findings<'d>,
) {
    let without: Vec<_> = fitting.iter().filter(|issuer| issuer.value.other("client_id").is_none()).collect();
    // Of issuers that nobody named, those with a client are meant.
    if !named && without.len() < fitting.len() {
        return;
    }
    for issuer in without {
        let message = format!("`via: oidc` needs `client_id` of issuer `{}`", issuer.name.value);
        let diagnostic = Diagnostic::new(Code::P701, message, via, "as which client?")
            .also(issuer.name.span, "this issuer")
            .help("register the gateway at the provider, with the redirect URI `https://HOST/auth/callback`");
        found.between(vec![Owner::of_fragment(fragment), (*issuer).into()], diagnostic);
    }
}

/// Supabase Auth answers nobody without the project's key.
fn key<'d>(
    context: &Context<'d>,
    fragment: FragmentId,
    via: Span,
    issuer: &'d Definition<Issuer>,
    found: &mut Findings<'d>,
) {
    // What is not stated comes from the environment, where that is known.
    let Some(environment) = &context.options.environment else { return };
    if issuer.value.other("key").is_some() || environment.contains("SUPABASE_KEY") {
        return;
    }
    let message = format!("`via: supabase` needs the `key` of issuer `{}`", issuer.name.value);
    let diagnostic = Diagnostic::new(Code::P701, message, via, "asked with which key?")
        .also(issuer.name.span, "this issuer")
        .help("set SUPABASE_KEY to the publishable key of the project (or its older anon key), or state `key`");
    found.between(vec![Owner::of_fragment(fragment), issuer.into()], diagnostic);
}
