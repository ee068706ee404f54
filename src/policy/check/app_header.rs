//! P207
//!
//! # What it does
//! Reports an app whose header keys are set by two documents, and an app with routes but without an `upstream`.
//!
//! # Why it matters
//! Two headers would need an order between files. Without an upstream there is nowhere to forward to.
//!
//! # Example
//! ```yaml
//! version: 1
//! app: items
//! routes:
//!   GET /items: authenticated
//! ```
//!
//! # Instead
//! Set the header keys in one document (others may add routes under the same `app`), with
//! `upstream: http://HOST:PORT`, or name an `upstream` on every route.

use crate::diagnostic::{Code, Diagnostic};
use crate::policy::document::{App, AppId, FragmentId};
use crate::policy::template::Segment;

use super::Context;
use super::findings::{Findings, Owner};

pub(super) fn run<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    for (index, app) in context.document.apps.iter().enumerate() {
        let mut setting = app.headers.iter().filter_map(|(fragment, header)| Some((*fragment, header.any_key?)));
        if let Some((first_fragment, first)) = setting.next() {
            for (fragment, again) in setting {
                let message = format!("the header of app `{}` is set twice", app.name.value);
                let diagnostic = Diagnostic::new(Code::P207, message, again, "again here").also(first, "first here");
                found.between(vec![Owner::of_fragment(fragment), Owner::of_fragment(first_fragment)], diagnostic);
            }
        }

        let header = app.header();
        graphql(app, found);
        if header.is_some_and(|header| header.upstream.is_some()) {
            continue;
        }
        if app.fragments.iter().any(|fragment| header_is_damaged(context, *fragment)) {
            continue;
        }
        let routes = context.document.routes.iter().filter(|route| route.app == AppId(index));
        let without = routes.filter(|route| route.options.upstream.is_none()).collect::<Vec<_>>();
        if let Some(preset) = header.and_then(|header| header.preset.as_ref()) {
            let message = format!("app `{}` has no `upstream`", app.name.value);
            let diagnostic = Diagnostic::new(Code::P207, message, preset.span, "in front of which project?")
                .help("name it: `upstream: env:SUPABASE_URL`");
            if let Some(fragment) = app.fragments.first() {
                found.about(Owner::of_fragment(*fragment), diagnostic);
            }
            continue;
        }
        if let Some(route) = without.first() {
            let mut diagnostic = Diagnostic::new(
                Code::P207,
                format!("app `{}` has no `upstream`", app.name.value),
                route.key.span,
                "nowhere to forward this to",
            )
            .help("add `upstream: http://HOST:PORT` to the app, or to every route");
            if without.len() > 1 {
                diagnostic = diagnostic.note(format!("{} routes of this app have none", without.len()));
            }
            found.about(Owner::of_fragment(route.fragment), diagnostic);
        }
    }
}

/// PostgREST has GraphQL elsewhere and in another schema: a shorter path is not enough to reach it.
fn graphql<'d>(app: &'d App, found: &mut Findings<'d>) {
    for (fragment, header) in app.headers.iter().filter(|(_, header)| header.preset.is_some() && header.strip_base) {
        let Some(base) = &header.base else { continue };
        let [.., Segment::Literal(name), Segment::Literal(version)] = base.segments.as_slice() else { continue };
        if name == "graphql" && version == "v1" {
            let message = format!("app `{}` cannot strip the `base` of GraphQL", app.name.value);
            let diagnostic = Diagnostic::new(Code::P207, message, base.span, "PostgREST serves it under another path")
                .note("it is `/rpc/graphql` there, with `Content-Profile: graphql_public`")
                .help("leave `strip_base` out, and let the project's own edge translate");
            found.about(Owner::of_fragment(*fragment), diagnostic);
        }
    }
}

/// Whether something outside of the document's routes could not be read: it may have been the `upstream`.
fn header_is_damaged(context: &Context<'_>, fragment: FragmentId) -> bool {
    let Some(whole) = context.document.fragments.get(fragment.0).map(|fragment| fragment.span) else { return false };
    let routes = || context.document.routes.iter().filter(|route| route.fragment == fragment);
    let damage = &context.document.damage;
    let mut places = damage
        .places
        .iter()
        .filter(|place| place.file == whole.file && whole.start <= place.start && place.start < whole.end);
    places.any(|place| {
        !routes().any(|route| route.key.span.start <= place.start && place.start <= route.requirement.span().end)
    })
}
