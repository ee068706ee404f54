//! P303
//!
//! # What it does
//! Reports a fact about the user (scope, role, permission, issuer, `mfa`, `max_age`, `user.*`, `token.*`) on a `public`
//! route or in a guard with `include_public`, and named requirements that state an access word where none may
//! stand: inside `any`, `all`, `not`, and in guards. An access word written there is found while reading.
//!
//! # Why it matters
//! On public routes no credential is looked at: such a requirement could never hold. And access is a
//! property of the whole route: `any: [ public, … ]` would open it.
//!
//! # Example
//! ```yaml
//! routes:
//!   GET /feed: { access: public, role: admin }
//! ```
//!
//! # Instead
//! `optional` accepts both anonymous callers and users; leave `access` out to ask for a user.

use crate::diagnostic::{Code, Diagnostic, Span, Spanned};
use crate::policy::document::{Access, Requirement};

use super::Context;
use super::findings::{Findings, Owner};
use super::walk::{Leaf, Part, Site, leaves, written};

pub(super) fn run<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    for route in &context.document.routes {
        let Some(word) = context.names.access_word(&route.requirement) else { continue };
        if word.value == Access::Public {
            facts(context, route.into(), &route.requirement, "this route is `public`", word.span, found);
        }
    }
    for access in &context.document.access {
        let Some(word) = context.names.access_word(&access.value) else { continue };
        let stated_here = matches!(&access.value, Requirement::Object(_));
        if word.value == Access::Public && stated_here {
            facts(context, access.into(), &access.value, "this is `public`", word.span, found);
        }
    }
    for guard in &context.document.guards {
        if let Some(include) = guard.value.include_public {
            let why = "this guard applies to public routes";
            facts(context, guard.into(), &guard.value.require, why, include, found);
        }
    }
    written(context.document, &mut |site, part| {
        let Part::Access { name, nested } = part else { return };
        let Some(definition) = context.names.access.get(&name.value) else { return };
        let Some(word) = context.names.access_word(&definition.value) else { return };
        let guard = matches!(site, Site::Guard(_));
        if nested || guard {
            let place = if guard { "in a guard" } else { "below the top of a requirement" };
            let diagnostic = Diagnostic::new(
                Code::P303,
                format!("`{}` states an access word, which cannot stand {place}", name.value),
                name.span,
                "used here",
            )
            .also(word.span, format!("states `{}`", word.value.as_str()))
            .help("access belongs to the whole route: say it at the top of the route, or as its whole value");
            found.about(site.owner(), diagnostic);
        }
    });
}

fn facts<'d>(
    context: &Context<'d>,
    owner: Owner<'d>,
    asked: &'d Requirement,
    why: &str,
    word: Span,
    found: &mut Findings<'d>,
) {
    leaves(&context.names, asked, &mut |leaf, trail| {
        if !leaf.is_about_the_user() {
            return;
        }
        let message = format!("a fact about the user where no credential is looked at: {}", what(leaf));
        let used: Option<&&Spanned<String>> = trail.first();
        // A named requirement that is public itself is reported where it is defined.
        let defined = used.and_then(|name| context.names.access.get(&name.value));
        if defined.is_some_and(|definition| context.names.access_word(&definition.value).is_some()) {
            return;
        }
        let mut diagnostic = match used {
            Some(name) => {
                Diagnostic::new(Code::P303, message, name.span, "used here").also(leaf.span(), "reads the user")
            }
            None => Diagnostic::new(Code::P303, message, leaf.span(), "reads the user"),
        };
        if diagnostic.primary.span != word {
            diagnostic = diagnostic.also(word, why);
        }
        found.about(owner, diagnostic.help("`optional` lets anonymous callers in and looks at credentials"));
    });
}

fn what(leaf: Leaf<'_>) -> String {
    match leaf {
        Leaf::Scope(_) => "`scope`".to_owned(),
        Leaf::Role(_) => "`role`".to_owned(),
        Leaf::Permission(_) => "`permission`".to_owned(),
        Leaf::Issuer(_) => "`issuer`".to_owned(),
        Leaf::Mfa(_) => "`mfa`".to_owned(),
        Leaf::MaxAge(_) => "`max_age`".to_owned(),
        Leaf::Comparison(comparison) => format!("`{}`", comparison.text.value),
    }
}
