//! P401
//!
//! # What it does
//! Reports issuers that take roles, permissions, scopes or the tenant from `user_metadata`.
//!
//! # Why it matters
//! In Supabase, users edit their own `user_metadata`: everybody could make themselves an administrator. Supabase's
//! own lint 0015 (`rls_references_user_metadata`) says so for row security.
//!
//! # Example
//! ```yaml
//! identity:
//!   supabase: { preset: supabase, claims: { roles: user_metadata.roles } }
//! ```
//!
//! # Instead
//! `app_metadata`, which only the server can write, or a claim that an access-token hook sets.

use crate::diagnostic::{Code, Diagnostic};

use super::Context;
use super::findings::Findings;

pub(super) fn run<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    for issuer in &context.document.issuers {
        for (fact, paths) in &issuer.value.claims {
            if !matches!(fact.value.as_str(), "roles" | "permissions" | "scopes" | "tenant") {
                continue;
            }
            for path in paths {
                let first = path.value.split('.').next().unwrap_or_default().trim_matches('"');
                if matches!(first, "user_metadata" | "raw_user_meta_data") {
                    let message = format!("`{}` is taken from `{first}`, which users can edit", fact.value);
                    let diagnostic = Diagnostic::new(Code::P401, message, path.span, "anybody can write this")
                        .help("keep it in `app_metadata`, which only the server can write");
                    found.about(issuer, diagnostic);
                }
            }
        }
    }
}
