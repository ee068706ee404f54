//! P701
//!
//! # What it does
//! Reports a login whose own paths (`/token`, `/logout`, …) are taken by a route or by another app's login on the same
//! host, and a `via` for which there is no fitting issuer: `local` needs one with the preset `local`, `supabase` one
//! with the preset `supabase` and its `key`, `oidc` one of the presets for OpenID providers, `upstream` one that is
//! not `local`.
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
use crate::policy::document::{FragmentId, Issuer, Login, Preset};
use crate::policy::template::Segment;

use super::Context;
use super::findings::{Findings, Owner};
use super::names::quoted;
use super::table::{Table, canonical_host};

pub(super) fn run<'d>(context: &Context<'d>, table: &Table<'d>, found: &mut Findings<'d>) {
    let mut own: BTreeMap<(String, String), (Span, FragmentId)> = BTreeMap::new();
    for app in &context.document.apps {
        for (fragment, header) in &app.headers {
            let Some(login) = &header.login else { continue };
            issuer(context, *fragment, login, found);
            let mut hosts: Vec<String> = header.hosts.iter().map(|host| canonical_host(&host.value)).collect();
            if hosts.is_empty() {
                hosts.push(String::new());
            }
            for path in paths(&login.value) {
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
fn paths(login: &Login) -> Vec<&Spanned<String>> {
    let token = (login.via.value != "oidc").then_some(&login.path);
    token.into_iter().chain(login.paths.iter().map(|(_, path)| path)).collect()
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
    let mut candidates =
        issuers.iter().filter(|issuer| named.is_empty() || named.iter().any(|name| name.value == issuer.name.value));
    if candidates.any(|issuer| fits(&issuer.value)) {
        return;
    }
    let span = if via.span.end > via.span.start { via.span } else { login.span };
    let diagnostic =
        Diagnostic::new(Code::P701, format!("`via: {}` needs an issuer {what}", via.value), span, "no fitting issuer")
            .note(format!("`identity` has {}", quoted(issuers.iter().map(|issuer| issuer.name.value.as_str()))));
    found.about(Owner::of_fragment(fragment), diagnostic);
}
