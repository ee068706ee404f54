//! P405
//!
//! # What it does
//! Reports conditions that read a request header or query parameter, unless it is compared with a secret (`env.X`).
//!
//! # Why it matters
//! Clients send what they like: `header.x-internal == "true"` is a door with the key in it.
//!
//! # Example
//! ```yaml
//! routes:
//!   GET /metrics: { access: public, where: header.x-internal == "true" }
//! ```
//!
//! # Instead
//! Compare with a shared secret (`header.x-webhook-secret == env.WEBHOOK_SECRET`), with `client.ip in SET`, or ask
//! for a token. Where the value only narrows what is granted anyway, say so: `allow: { P405: … }`.

use crate::diagnostic::{Code, Diagnostic};
use crate::policy::document::{Operand, Reference};

use super::Context;
use super::findings::Findings;
use super::walk::{Part, references, written};

pub(super) fn run<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    written(context.document, &mut |site, part| {
        let Part::Comparison(comparison) = part else { return };
        let secret = matches!(comparison.left, Reference::Env(_))
            || matches!(comparison.right, Operand::Reference(Reference::Env(_)));
        if secret {
            return;
        }
        let read = references(comparison).find_map(|reference| match reference {
            Reference::Header(name) => Some(format!("header `{name}`")),
            Reference::Query(name) => Some(format!("query parameter `{name}`")),
            _ => None,
        });
        if let Some(read) = read {
            let message = format!("the decision depends on {read}, which the client controls");
            let diagnostic = Diagnostic::new(Code::P405, message, comparison.text.span, "clients send what they like")
                .help("compare it with a secret: `== env.NAME`");
            found.about(site.owner(), diagnostic);
        }
    });
}
