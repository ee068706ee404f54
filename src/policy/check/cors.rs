//! P702
//!
//! # What it does
//! Reports `cors` that allows every origin (`*`) together with credentials.
//!
//! # Why it matters
//! Every web page could act with the cookies of whoever visits it. Browsers refuse the combination, and
//! gateways that echo the origin instead give exactly that away.
//!
//! # Example
//! ```yaml
//! cors: { origins: ["*"], credentials: true }
//! ```
//!
//! # Instead
//! List the origins: `cors: { origins: [https://app.example], credentials: true }`.

use crate::diagnostic::{Code, Diagnostic};

use super::Context;
use super::findings::{Findings, Owner};

pub(super) fn run<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    for (fragment, header) in context.document.apps.iter().flat_map(|app| &app.headers) {
        let Some(cors) = header.cors.as_ref().filter(|cors| cors.value.credentials) else { continue };
        for origin in cors.value.origins.iter().filter(|origin| origin.value == "*") {
            let message = "`*` together with `credentials: true`";
            let diagnostic =
                Diagnostic::new(Code::P702, message, origin.span, "every web page could use its visitors' cookies")
                    .help("list the origins that may send credentials");
            found.about(Owner::of_fragment(*fragment), diagnostic);
        }
    }
}
