//! P408
//!
//! # What it does
//! Reports checks that the policy waives: `audience: none`, `issuer: any`, `expiry: none`, `insecure: true`.
//!
//! # Why it matters
//! Without `aud`, a token made for another API of the same issuer is accepted. Without `iss`, tokens of
//! everything that shares the key. Without `exp`, a stolen token is good for ever. With `insecure`, whoever sits between
//! gateway and upstream reads and answers.
//!
//! # Example
//! ```yaml
//! identity:
//!   app: { preset: jwt, secret: env:SECRET_KEY, issuer: any, audience: none }
//! ```
//!
//! # Instead
//! Let the issuer state `iss` and `aud` and name them here. If it cannot, say why on the issuer:
//! `allow: { P408: tokens of the tutorial carry neither iss nor aud }`.

use crate::diagnostic::{Code, Diagnostic, Span};
use crate::policy::document::Waivable;

use super::Context;
use super::findings::{Findings, Owner};

pub(super) fn run<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    for definition in &context.document.issuers {
        let issuer = &definition.value;
        let mut report = |span: Span, what: &str, label: &str| {
            let message = format!("issuer `{}`: {what} of its tokens is not checked", definition.name.value);
            found.about(definition, Diagnostic::new(Code::P408, message, span, label));
        };
        if let Some(name) = issuer.issuer.as_ref().filter(|name| name.value == Waivable::Waived) {
            report(name.span, "`iss`", "tokens of everything that shares the key are accepted");
        }
        if let Some(audience) = issuer.audience.as_ref().filter(|audience| audience.value == Waivable::Waived) {
            report(audience.span, "`aud`", "tokens made for other APIs are accepted");
        }
        if let Some(span) = issuer.expiry_waived {
            report(span, "`exp`", "a stolen token is good for ever");
        }
    }
    for app in &context.document.apps {
        for (fragment, header) in &app.headers {
            if let Some(span) = header.upstream_insecure {
                let message = format!("the certificate of app `{}`'s upstream is not verified", app.name.value);
                let diagnostic =
                    Diagnostic::new(Code::P408, message, span, "whoever sits in between reads and answers")
                        .help("name the upstream's own CA instead: `upstream_tls: { ca: file:ca.pem }`");
                found.about(Owner::of_fragment(*fragment), diagnostic);
            }
        }
    }
}
