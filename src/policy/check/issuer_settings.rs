//! P412
//!
//! # What it does
//! Reports issuers that lack a key that they need, that state keys which exclude each other, and issuers that cannot
//! be told apart, be it by `iss`, or because both are asked about opaque tokens (`introspection`).
//!
//! # Why it matters
//! An issuer chooses its tokens by `iss` and verifies them with its own keys. Two that claim the same tokens would
//! let one's keys sign for the other.
//!
//! # Example
//! ```yaml
//! identity:
//!   partners: { preset: oidc, issuer: https://login.example/ }      # for whom? `audience` is missing
//! ```
//!
//! # Instead
//! State the missing key. What shall not be checked is waived in words: `issuer: any`, `audience: none`.

use std::collections::HashMap;

use crate::diagnostic::{Code, Diagnostic, Span, Spanned};
use crate::policy::document::{Definition, Introspection, Issuer, Preset, Reference, Source, Waivable};
use crate::policy::lower::is_private;

use super::Context;
use super::findings::Findings;
use super::names::quoted;
use super::walk::{Part, condition, references};

pub(super) fn run<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    let apps =
        context.document.apps.iter().filter(|app| app.headers.iter().any(|(_, header)| header.upstream.is_some()));
    let several_apps = apps.count() > 1;
    for definition in &context.document.issuers {
        // A key that could not be read is not missing.
        if !context.document.damage.is_within(definition.value.span) {
            missing(definition, several_apps, found);
        }
        parts(definition, found);
        contradictions(definition, found);
        mfa(definition, found);
    }
    told_apart(context, found);
    one_is_asked(context, found);
}

/// Keys of which one has to be there, for each preset. `jwt` has its own rules below.
fn needs(preset: Preset) -> &'static [&'static [&'static str]] {
    match preset {
        Preset::Local | Preset::Supabase | Preset::Jwt => &[],
        Preset::Oidc => &[&["issuer"], &["audience"]],
        Preset::Auth0 | Preset::Okta => &[&["domain", "issuer"], &["audience", "client_id"]],
        Preset::Keycloak => &[&["url", "issuer"], &["audience", "client_id"]],
        Preset::Cognito => &[&["project", "url", "issuer"], &["audience", "client_id"]],
        Preset::Entra => &[&["tenant", "issuer"], &["audience", "client_id"]],
        Preset::Clerk => &[&["domain", "url", "issuer"], &["audience", "client_id"]],
        Preset::Firebase => &[&["project"]],
        Preset::Google => &[&["audience", "client_id"]],
    }
}

fn has(issuer: &Issuer, key: &str) -> bool {
    match key {
        "issuer" => issuer.issuer.is_some(),
        "audience" => issuer.audience.is_some(),
        "url" => issuer.url.is_some() || issuer.other.iter().any(|(name, _)| name.value == key),
        _ => issuer.other.iter().any(|(name, _)| name.value == key),
    }
}

fn missing<'d>(definition: &'d Definition<Issuer>, several_apps: bool, found: &mut Findings<'d>) {
    let issuer = &definition.value;
    let mut report = |what: String, help: Option<&str>| {
        let message = format!("issuer `{}` needs {what}", definition.name.value);
        let diagnostic = Diagnostic::new(Code::P412, message, definition.name.span, "incomplete");
        found.about(
            definition,
            match help {
                Some(help) => diagnostic.help(help),
                None => diagnostic,
            },
        );
    };
    for keys in needs(issuer.preset.value) {
        if !keys.iter().any(|key| has(issuer, key)) {
            let help = match (issuer.preset.value, *keys) {
                (Preset::Entra, ["tenant", ..]) => Some("the portal shows it as `Directory (tenant) ID`"),
                (Preset::Keycloak, ["url", ..]) => Some("as clients reach it: `url: https://HOST/realms/REALM`"),
                (Preset::Cognito, ["project", ..]) => {
                    Some("the id of the user pool: `project: eu-central-1_AbCdEfGhI`")
                }
                (Preset::Clerk, ["audience", ..]) => Some(
                    "session tokens of Clerk carry no `aud` of their own: `audience: none` accepts them as they are",
                ),
                _ => None,
            };
            report(keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(" or "), help);
        }
    }
    match issuer.preset.value {
        Preset::Jwt => {
            if issuer.issuer.is_none() {
                report("`issuer`".to_owned(), Some("tokens without `iss` are accepted with `issuer: any`"));
            }
            if issuer.audience.is_none() {
                report("`audience`".to_owned(), Some("tokens without `aud` are accepted with `audience: none`"));
            }
            if keys_of(issuer).is_empty() {
                report("a key: `secret`, `public_key`, `jwks_file` or `jwks_url`".to_owned(), None);
            }
        }
        Preset::Local if several_apps && issuer.audience.is_none() => {
            report("`audience`".to_owned(), Some("its default is the app's name, and this set has several apps"));
        }
        _ => {}
    }
}

/// Objects that lack a key.
fn parts<'d>(definition: &'d Definition<Issuer>, found: &mut Findings<'d>) {
    let issuer = &definition.value;
    let mut report = |object: &str, key: &str, span: Span, help: &str| {
        let message = format!("`{object}` of issuer `{}` needs `{key}`", definition.name.value);
        found.about(definition, Diagnostic::new(Code::P412, message, span, "incomplete").help(help));
    };
    if let Some(Spanned { value: Introspection { url, client_id, client_secret, .. }, span }) = &issuer.introspection {
        for (key, is_there, help) in [
            ("url", url.is_some(), "the provider's introspection endpoint"),
            ("client_id", client_id.is_some(), "the gateway needs a client of its own at the provider"),
            ("client_secret", client_secret.is_some(), "the endpoint answers nobody whom it does not know"),
        ] {
            if !is_there {
                report("introspection", key, *span, help);
            }
        }
    }
    if let Some(check) = issuer.session_check.as_ref().filter(|check| check.value.paths.is_empty()) {
        report("session_check", "paths", check.span, "each check is a request to Supabase: `paths: [/account/**]`");
    }
    if let Some(forward) = issuer.forward_client_ip.as_ref().filter(|forward| forward.value.secret_key.is_none()) {
        let help = "Supabase believes the address only with a secret key: `secret_key: env:SUPABASE_SECRET_KEY`";
        report("forward_client_ip", "secret_key", forward.span, help);
    }
    if let Some(secret) = issuer.other("client_secret").filter(|_| issuer.other("client_id").is_none()) {
        let message = format!("issuer `{}` has a `client_secret` without `client_id`", definition.name.value);
        found.about(definition, Diagnostic::new(Code::P412, message, secret.span, "of which client?"));
    }
}

/// An opaque token does not say who made it, so that there can be one who is asked.
fn one_is_asked<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    let mut asked = context.document.issuers.iter().filter_map(|definition| {
        let introspection = definition.value.introspection.as_ref()?;
        Some((definition, introspection.span))
    });
    let Some((first, at)) = asked.next() else { return };
    for (second, again) in asked {
        let names = quoted([first.name.value.as_str(), second.name.value.as_str()]);
        let message = format!("issuers {names} both have `introspection`");
        let label = "an opaque token does not say which of them to ask";
        let diagnostic = Diagnostic::new(Code::P412, message, again, label).also(at, "the other one");
        found.between(vec![second.into(), first.into()], diagnostic);
    }
}

fn keys_of(issuer: &Issuer) -> Vec<(&'static str, Span)> {
    let secret = issuer.secrets.first().map(|secret| ("secret", secret.span));
    let public_key = issuer.public_key.as_ref().map(|key| ("public_key", key.span));
    let signing_key = issuer.signing_key.as_ref().map(|key| ("signing_key", key.span));
    let jwks_file = issuer.jwks_file.as_ref().map(|file| ("jwks_file", file.span));
    let jwks_url = issuer.jwks_url.as_ref().map(|url| ("jwks_url", url.span));
    [secret, public_key, signing_key, jwks_file, jwks_url].into_iter().flatten().collect()
}

fn contradictions<'d>(definition: &'d Definition<Issuer>, found: &mut Findings<'d>) {
    let issuer = &definition.value;
    let keys = keys_of(issuer);
    if let (Preset::Jwt | Preset::Local, [(first, at), (second, again), ..]) = (issuer.preset.value, keys.as_slice()) {
        let message = format!("issuer `{}` has two kinds of keys", definition.name.value);
        let diagnostic = Diagnostic::new(Code::P412, message, *again, format!("`{second}` excludes `{first}`"))
            .also(*at, format!("`{first}` is here"));
        found.about(definition, diagnostic);
    }
    if !issuer.preset.value.is_provider() {
        return;
    }
    let stated = match &issuer.issuer {
        Some(Spanned { value: Waivable::Required(url), span }) => Some((url, *span)),
        _ => None,
    };
    let url = match &issuer.url {
        Some(Spanned { value: Source::Literal(url), span }) => Some((url, *span)),
        _ => None,
    };
    // Plain http is for tests on one machine.
    for (_, span) in stated.into_iter().chain(url).filter(|(url, _)| !is_private(url)) {
        let message = format!("issuer `{}` is not an https URL", definition.name.value);
        found.about(definition, Diagnostic::new(Code::P412, message, span, "its keys are fetched from there"));
    }
    if let Some(Spanned { value: Waivable::Waived, span }) = &issuer.issuer
        && issuer.jwks_url.is_none()
        && issuer.preset.value == Preset::Oidc
    {
        let message = format!("issuer `{}` needs `jwks_url`", definition.name.value);
        let diagnostic = Diagnostic::new(Code::P412, message, *span, "names no place for keys")
            .help("state the `issuer`, whose discovery document names its keys, or `jwks_url`");
        found.about(definition, diagnostic);
    }
}

fn mfa<'d>(definition: &'d Definition<Issuer>, found: &mut Findings<'d>) {
    let Some(asked) = &definition.value.mfa else { return };
    condition(asked, &mut |part| {
        let Part::Comparison(comparison) = part else { return };
        if let Some(other) = references(comparison).find(|reference| !matches!(reference, Reference::Token(_))) {
            let message = "`mfa` of an issuer is a condition on `token.*`";
            let label = match other {
                Reference::User(_) => "reads `user.*`, which is made from the token",
                _ => "reads the request",
            };
            found.about(definition, Diagnostic::new(Code::P412, message, comparison.text.span, label));
        }
    });
}

/// What the tokens of an issuer are recognised by.
#[derive(PartialEq, Eq, Hash)]
enum Claimed<'d> {
    Any,
    Issuer(&'d str),
    Url(&'d Source),
    Local,
}

fn claimed(issuer: &Issuer) -> Option<Claimed<'_>> {
    match (&issuer.issuer, issuer.preset.value) {
        (Some(Spanned { value: Waivable::Waived, .. }), _) => Some(Claimed::Any),
        (Some(Spanned { value: Waivable::Required(name), .. }), _) => Some(Claimed::Issuer(name)),
        (None, Preset::Local) => Some(Claimed::Local),
        (None, Preset::Supabase) => match &issuer.url {
            Some(url) => Some(Claimed::Url(&url.value)),
            None => Some(Claimed::Issuer("env:SUPABASE_URL")),
        },
        (None, _) => None,
    }
}

fn told_apart<'d>(context: &Context<'d>, found: &mut Findings<'d>) {
    let mut known: HashMap<Claimed<'d>, &'d Definition<Issuer>> = HashMap::new();
    for second in &context.document.issuers {
        let Some(claim) = claimed(&second.value) else { continue };
        let why = if claim == Claimed::Any { "both accept any issuer" } else { "both claim the same tokens" };
        let first = *known.entry(claim).or_insert(second);
        if first.name.value != second.name.value {
            let mut names = [first.name.value.as_str(), second.name.value.as_str()];
            names.sort_unstable();
            let diagnostic = Diagnostic::new(
                Code::P412,
                format!("issuers {} cannot be told apart", quoted(names)),
                second.name.span,
                why,
            )
            .also(first.name.span, "the other one");
            found.between(vec![second.into(), first.into()], diagnostic);
        }
    }
}
