//! P107
//!
//! # What it does
//! Reports definitions under a name that the language keeps for itself: `public`, `optional`, `authenticated`,
//! `deny`, `todo` (access), `anonymous`, `invalid` (identities), `none` (limits), roles that begin with
//! `portcullis:`.
//!
//! # Why it matters
//! `public` has to mean the same in every policy.
//!
//! # Example
//! ```yaml
//! access: { public: { scope: items:read } }
//! ```
//!
//! # Instead
//! Choose another name. To open the console to a role, let that role include `portcullis:admin`.

use crate::diagnostic::{Code, Diagnostic, Spanned};
use crate::policy::document::{Access, Definition};

use super::Context;
use super::findings::Findings;

pub(super) fn run<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    let document = context.document;
    each(&document.access, |name| Access::from_word(name).is_some(), "an access word", found);
    each(&document.identities, |name| matches!(name, "anonymous" | "invalid"), "built in", found);
    each(&document.limits, |name| name == "none", "drops the default limits", found);
    each(&document.roles, |name| name.starts_with("portcullis:"), "`portcullis:` is the gateway's own", found);
}

fn each<'d, T>(
    definitions: &'d [Definition<T>],
    is_reserved: impl Fn(&str) -> bool,
    why: &str,
    found: &mut Findings<'d>,
) {
    for definition in definitions {
        let Spanned { value, span } = &definition.name;
        if is_reserved(value) {
            found.about(definition, Diagnostic::new(Code::P107, format!("`{value}` is a reserved name"), *span, why));
        }
    }
}
