//! P703, P704
//!
//! # What it does
//! Reports headers that cannot be set because they frame or route the message or carry the credential (P703), and two
//! headers that many servers read as the same: they differ only in case or in `-`, `_`, `.` (P704).
//!
//! # Why it matters
//! `Transfer-Encoding` from a policy would break the framing between gateway and upstream. And WSGI servers fold
//! `X_User` and `X-User` into one variable, so that one value would silently win.
//!
//! # Example
//! ```yaml
//! headers: { X-Plan: token.plan, X_Plan: token.app_metadata.plan }
//! ```
//!
//! # Instead
//! Another name. Whether the `Authorization` header goes upstream is said by `forward_token`.

use std::collections::HashMap;

use crate::diagnostic::{Code, Diagnostic, Span};
use crate::policy::compile::headers::preset_names;
use crate::policy::document::HeaderEdit;

use super::Context;
use super::findings::{Findings, Owner};

/// Names that no policy sets on requests.
const REQUEST: &[&str] = &[
    "authorization",
    "connection",
    "content-length",
    "content-encoding",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-auth-assertion",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-real-ip",
];

/// Names that no policy sets on responses.
const RESPONSE: &[&str] = &[
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "www-authenticate",
    "x-portcullis-decision",
];

pub(super) fn run<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    let document = context.document;
    let names = preset_names(&document.headers);
    let preset: Level<'_> = Level { names: names.map(|name| (fold(name), (name, None))).collect() };

    let set_owner = |edit: &HeaderEdit| {
        // Set-wide headers belong to the document that they stand in.
        let holds = |span: Span| {
            span.file == edit.name.span.file && span.start <= edit.name.span.start && edit.name.span.end <= span.end
        };
        let at = document.fragments.iter().position(|fragment| holds(fragment.span)).unwrap_or_default();
        Owner::of_fragment(crate::policy::document::FragmentId(at))
    };
    for edit in &document.headers.edits {
        cannot_be_set(edit, REQUEST, set_owner(edit), found);
    }
    let mut set = Level::default();
    for edit in &document.headers.edits {
        set.add(edit, &[&preset], set_owner(edit), found);
    }

    let mut defaults: Vec<Level<'d>> = Vec::new();
    for app in &document.apps {
        let mut level = Level::default();
        for (fragment, header) in &app.headers {
            for edit in &header.defaults.headers {
                cannot_be_set(edit, REQUEST, Owner::of_fragment(*fragment), found);
                level.add(edit, &[&preset, &set], Owner::of_fragment(*fragment), found);
            }
        }
        defaults.push(level);
    }
    let nothing = Level::default();
    for route in &document.routes {
        let mut level = Level::default();
        let defaults = defaults.get(route.app.0).unwrap_or(&nothing);
        for edit in &route.options.headers {
            cannot_be_set(edit, REQUEST, route.into(), found);
            level.add(edit, &[&preset, &set, defaults], route.into(), found);
        }
        let mut level = Level::default();
        for edit in &route.options.response_headers {
            cannot_be_set(edit, RESPONSE, route.into(), found);
            level.add(edit, &[], route.into(), found);
        }
    }
}

fn cannot_be_set<'d>(edit: &HeaderEdit, refused: &[&str], owner: Owner<'d>, found: &mut Findings<'d>) {
    let name = &edit.name.value;
    let lower = fold(name);
    if !refused.contains(&lower.as_str()) {
        return;
    }
    let mut diagnostic = Diagnostic::new(
        Code::P703,
        format!("header `{name}` cannot be set"),
        edit.name.span,
        "the gateway writes or removes it",
    );
    if lower == "authorization" {
        diagnostic = diagnostic.help("`forward_token: false` keeps the token from the upstream");
    }
    found.about(owner, diagnostic);
}

/// The names of one level, folded, with the spelling and the place of the first.
#[derive(Default)]
struct Level<'d> {
    names: HashMap<String, (&'d str, Option<Span>)>,
}

impl<'d> Level<'d> {
    /// Within a level a name may stand once; above it only in the same spelling, which overrides.
    fn add(&mut self, edit: &'d HeaderEdit, above: &[&Self], owner: Owner<'d>, found: &mut Findings<'d>) {
        let name = edit.name.value.as_str();
        let folded = fold(name);
        let beside = self.names.get(&folded).copied().filter(|(other, _)| *other != name);
        let over = || {
            let mut spellings = above.iter().filter_map(|level| level.names.get(&folded)).copied();
            spellings.find(|(other, _)| !other.eq_ignore_ascii_case(name))
        };
        if let Some((other, place)) = beside.or_else(over) {
            let message = format!("headers `{other}` and `{name}` fold to the same name");
            let mut diagnostic =
                Diagnostic::new(Code::P704, message, edit.name.span, "many servers cannot tell them apart");
            match place {
                Some(place) => diagnostic = diagnostic.also(place, "the other one"),
                None => diagnostic = diagnostic.note(format!("`{other}` is set by the header preset")),
            }
            found.about(owner, diagnostic);
        }
        self.names.entry(folded).or_insert((name, Some(edit.name.span)));
    }
}

fn fold(name: &str) -> String {
    name.chars().map(|letter| if matches!(letter, '_' | '.') { '-' } else { letter.to_ascii_lowercase() }).collect()
}
