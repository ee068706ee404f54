//! P306
//!
//! # What it does
//! Reports `path.X` where the route, or one of the guard's `paths`, has no parameter `X`: in conditions, through named
//! conditions and requirements, in a route's `headers` and in `rewrite`.
//!
//! # Why it matters
//! The condition would be unknown for every request, and unknown refuses.
//!
//! # Example
//! ```yaml
//! access:
//!   self_or_admin: { any: [ { where: path.user_id == user.id }, { role: admin } ] }
//! routes:
//!   GET /items: self_or_admin
//! ```
//!
//! # Instead
//! Use the name of the route's own parameter, or another requirement.

use crate::diagnostic::{Code, Diagnostic, Span, Spanned};
use crate::policy::document::{HeaderValue, Operand, Reference, Requirement};
use crate::policy::template::{Segment, Template};

use super::Context;
use super::findings::{Findings, Owner};
use super::walk::{Leaf, leaves};

pub(super) fn run<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    for route in &context.document.routes {
        let header = context.document.apps.get(route.app.0).and_then(|app| app.header());
        let base = header.and_then(|header| header.base.as_ref());
        let parameters = parameters(base.into_iter().chain([&route.template]));
        let place = Place { what: "this route", shown: format!("`{}`", route.key.value), parameters };
        requirement(context, route.into(), &route.requirement, &place, found);
        for edit in route.options.headers.iter().chain(&route.options.response_headers) {
            let HeaderValue::Reference(reference) = &edit.value else { continue };
            if let Some(name) = parameter(&reference.value) {
                direct(route.into(), name, reference.span, &place, found);
            }
        }
        if let Some(rewrite) = &route.options.rewrite {
            for name in self::parameters([rewrite]) {
                direct(route.into(), name, rewrite.span, &place, found);
            }
        }
    }
    for guard in &context.document.guards {
        let mut paths = guard.value.paths.iter().map(|path| parameters([path]));
        let first = paths.next().unwrap_or_default();
        let common = paths.fold(first, |common, more| common.into_iter().filter(|name| more.contains(name)).collect());
        let shown = match guard.value.paths.as_slice() {
            [path] => format!("`{}`", path.text),
            _ => "all of its `paths` together".to_owned(),
        };
        let place = Place { what: "this guard", shown, parameters: common };
        requirement(context, guard.into(), &guard.value.require, &place, found);
    }
}

struct Place<'d> {
    what: &'static str,
    shown: String,
    parameters: Vec<&'d str>,
}

impl Place<'_> {
    fn lacks(&self, name: &str) -> bool {
        !self.parameters.contains(&name)
    }

    fn note(&self) -> String {
        match self.parameters.as_slice() {
            [] => format!("{} has no parameters", self.shown),
            [one] => format!("{} has the parameter `{one}`", self.shown),
            several => format!("{} has the parameters {}", self.shown, super::names::quoted(several.iter().copied())),
        }
    }
}

fn requirement<'d>(
    context: &Context<'d>,
    owner: Owner<'d>,
    asked: &'d Requirement,
    place: &Place<'d>,
    found: &mut Findings<'d>,
) {
    leaves(&context.names, asked, &mut |leaf, trail| {
        let Leaf::Comparison(comparison) = leaf else { return };
        let right = match &comparison.right {
            Operand::Reference(reference) => Some((reference, comparison.right_span)),
            _ => None,
        };
        for (reference, span) in std::iter::once((&comparison.left, comparison.left_span)).chain(right) {
            let Some(name) = parameter(reference).filter(|name| place.lacks(name)) else { continue };
            match trail.first() {
                None => direct(owner, name, span, place, found),
                Some(used) => through(owner, used, name, span, place, found),
            }
        }
    });
}

fn through<'d>(
    owner: Owner<'d>,
    used: &Spanned<String>,
    name: &str,
    reads: Span,
    place: &Place<'_>,
    found: &mut Findings<'d>,
) {
    let diagnostic = Diagnostic::new(
        Code::P306,
        format!("`{}` needs a path parameter that {} doesn't have", used.value, place.what),
        used.span,
        "used here",
    )
    .also(reads, format!("reads `path.{name}`"))
    .note(place.note());
    found.about(owner, diagnostic);
}

fn direct<'d>(owner: Owner<'d>, name: &str, span: Span, place: &Place<'_>, found: &mut Findings<'d>) {
    if !place.lacks(name) {
        return;
    }
    let message = format!("`path.{name}` is a path parameter that {} doesn't have", place.what);
    let mut diagnostic = Diagnostic::new(Code::P306, message, span, "used here").note(place.note());
    if let Some(meant) = crate::diagnostic::suggest::closest(name, place.parameters.iter().copied()) {
        diagnostic = diagnostic.help(format!("did you mean `path.{meant}`?"));
    }
    found.about(owner, diagnostic);
}

fn parameter(reference: &Reference) -> Option<&str> {
    match reference {
        Reference::Path(name) => Some(name),
        _ => None,
    }
}

fn parameters<'t>(templates: impl IntoIterator<Item = &'t Template>) -> Vec<&'t str> {
    (templates.into_iter().flat_map(|template| &template.segments))
        .filter_map(|segment| match segment {
            Segment::Parameter { name, .. } | Segment::Tail { name } => name.as_deref(),
            Segment::Literal(_) => None,
        })
        .collect()
}
