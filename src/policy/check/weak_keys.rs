//! P402
//!
//! # What it does
//! Reports algorithms that do not fit the key (and `none`, while reading), and written-out secrets that are too short or well known. The
//! length of secrets behind `env:` and `file:` is checked where they are resolved.
//!
//! # Why it matters
//! HS256 verified with a public key lets everybody who has that key sign. A secret shorter than its hash can be
//! guessed offline from one token, and the sample secrets of tutorials are the first that are tried.
//!
//! # Example
//! ```yaml
//! identity:
//!   partners: { preset: oidc, issuer: https://login.example/, audience: api, algorithms: [HS256] }
//! ```
//!
//! # Instead
//! RS256, ES256 or EdDSA with keys from a URL or a public key; HS256 with a secret of at least 32 random bytes
//! (`portcullis secret`).

use crate::diagnostic::{Code, Diagnostic, Span, Spanned};
use crate::policy::document::{Issuer, Preset, Source};

use super::Context;
use super::findings::Findings;

/// Beginnings of secrets that stand in tutorials and sample settings.
const WELL_KNOWN: [&str; 5] = [
    "your-secret-key",
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    "super-secret-jwt-token-with-at-least-32-characters-long",
    "your-super-secret-jwt-token-with-at-least-32-characters-long",
    "changeme",
];

pub(super) fn run<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    for definition in &context.document.issuers {
        let issuer = &definition.value;
        for algorithm in &issuer.algorithms {
            if let Some(diagnostic) = misfit(issuer, algorithm) {
                found.about(definition, diagnostic);
            }
        }
        let needed =
            issuer.algorithms.iter().filter_map(|algorithm| secret_length(&algorithm.value)).max().unwrap_or(32);
        for secret in &issuer.secrets {
            let Source::Literal(text) = &secret.value else { continue };
            if let Some(problem) = weakness(text, needed) {
                found.about(definition, Diagnostic::new(Code::P402, problem, secret.span, "").help(MAKE));
            }
        }
    }
}

const MAKE: &str = "make one with `portcullis secret` and refer to it: `env:SECRET_KEY`";

fn misfit(issuer: &Issuer, algorithm: &Spanned<String>) -> Option<Diagnostic> {
    let name = &algorithm.value;
    let report = |message: String, label: &str, other: Option<(Span, &str)>| {
        let diagnostic = Diagnostic::new(Code::P402, message, algorithm.span, label);
        Some(match other {
            Some((span, text)) => diagnostic.also(span, text),
            None => diagnostic,
        })
    };
    let symmetric = secret_length(name).is_some();
    if symmetric {
        let public = (issuer.public_key.as_ref().map(|key| (key.span, "a public key")))
            .or_else(|| issuer.jwks_url.as_ref().map(|url| (url.span, "public keys")))
            .or_else(|| issuer.signing_key.as_ref().map(|key| (key.span, "a private key")));
        if public.is_some() {
            return report(format!("`{name}` does not fit this key"), "needs a shared secret", public);
        }
        if !matches!(issuer.preset.value, Preset::Local | Preset::Supabase | Preset::Jwt) {
            let message = format!("`{name}` does not fit public keys");
            return report(message, "needs a shared secret, but this issuer's keys come from a URL", None);
        }
        return None;
    }
    if let Some(key) = &issuer.signing_key
        && key.value == Source::Literal("managed".to_owned())
        && !matches!(name.as_str(), "ES256" | "EdDSA" | "Ed25519")
    {
        return report(
            format!("`{name}` does not fit managed keys"),
            "ES256 or EdDSA",
            Some((key.span, "managed keys")),
        );
    }
    // The legacy secret of Supabase stands beside its keys.
    let secret = issuer.secrets.first().filter(|_| issuer.preset.value != Preset::Supabase)?;
    report(format!("`{name}` does not fit a shared secret"), "needs a key pair", Some((secret.span, "a shared secret")))
}

/// How many bytes a secret for this algorithm has at least; `None` if it does not use one.
fn secret_length(algorithm: &str) -> Option<usize> {
    match algorithm {
        "HS256" => Some(32),
        "HS384" => Some(48),
        "HS512" => Some(64),
        _ => None,
    }
}

fn weakness(secret: &str, needed: usize) -> Option<String> {
    let lower = secret.to_ascii_lowercase();
    if WELL_KNOWN.iter().any(|known| lower.starts_with(known)) {
        return Some("a well-known sample secret".to_owned());
    }
    (secret.len() < needed)
        .then(|| format!("a secret of {} bytes, shorter than its hash ({needed} bytes)", secret.len()))
}
