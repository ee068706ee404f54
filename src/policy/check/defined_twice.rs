//! P101
//!
//! # What it does
//! Reports a name that is defined a second time, in the same file or in another one, and settings of the whole set
//! that are set twice.
//!
//! # Why it matters
//! A policy set is the union of its files. If a second definition replaced the first, the meaning of a name
//! would depend on the order of files.
//!
//! # Example
//! ```yaml
//! # a.yaml                          # b.yaml
//! roles: { admin: { can: "*" } }    roles: { admin: [items:read] }
//! ```
//!
//! # Instead
//! Rename one of them, or keep only one.

use std::collections::HashMap;

use crate::diagnostic::{Code, Diagnostic, Span, Spanned};
use crate::policy::document::Definition;

use super::Context;
use super::findings::{Findings, Owner};

pub(super) fn run<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    let document = context.document;
    each("issuer", &document.issuers, found);
    each("scope", &document.scopes, found);
    each("permission", &document.permissions, found);
    each("role", &document.roles, found);
    each("set", &document.sets, found);
    each("condition", &document.conditions, found);
    each("access", &document.access, found);
    each("limit", &document.limits, found);
    each("guard", &document.guards, found);
    each("identity", &document.identities, found);

    let mut presets = document.headers.preset.iter();
    if let Some(first) = presets.next() {
        for again in presets {
            twice("`headers.preset` is set twice".to_owned(), again.span, first.span, Vec::new(), found);
        }
    }
    let mut own: HashMap<&str, Span> = HashMap::new();
    for edit in &document.headers.edits {
        if let Some(first) = own.insert(&edit.name.value, edit.name.span) {
            twice(format!("header `{}` is defined twice", edit.name.value), edit.name.span, first, Vec::new(), found);
        }
    }
}

fn each<'d, T>(kind: &str, definitions: &'d [Definition<T>], found: &mut Findings<'d>) {
    let mut first: HashMap<&str, (&Spanned<String>, Owner<'d>)> = HashMap::new();
    for definition in definitions {
        let name = &definition.name;
        match first.get(name.value.as_str()) {
            None => {
                first.insert(&name.value, (name, definition.into()));
            }
            Some((before, owner)) => {
                let message = format!("{kind} `{}` is defined twice", name.value);
                twice(message, name.span, before.span, vec![definition.into(), *owner], found);
            }
        }
    }
}

fn twice<'d>(message: String, again: Span, before: Span, owners: Vec<Owner<'d>>, found: &mut Findings<'d>) {
    let diagnostic = Diagnostic::new(Code::P101, message, again, "again here").also(before, "first here");
    found.between(owners, diagnostic);
}
