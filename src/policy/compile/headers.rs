//! Identity headers: presets, levels, and the names that no client may send.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::diagnostic::{Code, Spanned};
use crate::policy::document::{AppHeader, HeaderEdit, HeaderSettings, HeaderValue as Written, Reference, UserFact};
use crate::policy::set::{HeaderRule, HeaderSource, Operand, Parameter, Strip};

use super::Builder;

/// The presets of policy-language 12.2.
const PRESETS: &[(&str, &[(&str, PresetValue)])] = &[
    (
        "auth",
        &[
            ("X-Auth-User", PresetValue::User(UserFact::Id)),
            ("X-Auth-Email", PresetValue::User(UserFact::Email)),
            ("X-Auth-Roles", PresetValue::User(UserFact::Roles)),
            ("X-Auth-Scopes", PresetValue::User(UserFact::Scopes)),
            ("X-Auth-Permissions", PresetValue::User(UserFact::Permissions)),
            ("X-Auth-Issuer", PresetValue::User(UserFact::Issuer)),
            ("X-Auth-Method", PresetValue::Transport),
            ("X-Auth-Session", PresetValue::User(UserFact::Session)),
            ("X-Auth-Anonymous", PresetValue::Anonymous),
        ],
    ),
    (
        "remote",
        &[
            ("Remote-User", PresetValue::User(UserFact::Id)),
            ("Remote-Groups", PresetValue::User(UserFact::Roles)),
            ("Remote-Name", PresetValue::User(UserFact::Name)),
            ("Remote-Email", PresetValue::User(UserFact::Email)),
        ],
    ),
    (
        "forwarded",
        &[
            ("X-Forwarded-User", PresetValue::User(UserFact::Id)),
            ("X-Forwarded-Email", PresetValue::User(UserFact::Email)),
            ("X-Forwarded-Groups", PresetValue::User(UserFact::Roles)),
            ("X-Forwarded-Preferred-Username", PresetValue::User(UserFact::Name)),
        ],
    ),
    (
        "auth-request",
        &[
            ("X-Auth-Request-User", PresetValue::User(UserFact::Id)),
            ("X-Auth-Request-Email", PresetValue::User(UserFact::Email)),
            ("X-Auth-Request-Groups", PresetValue::User(UserFact::Roles)),
            ("X-Auth-Request-Preferred-Username", PresetValue::User(UserFact::Name)),
        ],
    ),
    (
        "pomerium-claims",
        &[
            ("X-Pomerium-Claim-Email", PresetValue::User(UserFact::Email)),
            ("X-Pomerium-Claim-Groups", PresetValue::User(UserFact::Roles)),
        ],
    ),
    (
        "grafana",
        &[
            ("X-WEBAUTH-USER", PresetValue::User(UserFact::Id)),
            ("X-WEBAUTH-NAME", PresetValue::User(UserFact::Name)),
            ("X-WEBAUTH-EMAIL", PresetValue::User(UserFact::Email)),
            // Grafana reads one role; which of several it is, the policy says by an own name.
            ("X-WEBAUTH-ROLE", PresetValue::User(UserFact::Roles)),
            ("X-WEBAUTH-GROUPS", PresetValue::User(UserFact::Roles)),
        ],
    ),
    (
        "hasura",
        &[("X-Hasura-User-Id", PresetValue::User(UserFact::Id)), ("X-Hasura-Role", PresetValue::User(UserFact::Roles))],
    ),
    ("supabase", &[]),
    ("none", &[]),
];

#[derive(Clone, Copy)]
enum PresetValue {
    User(UserFact),
    Transport,
    Anonymous,
}

/// Names of other families that apps believe, apart from the presets.
const FAMILIES: &[&str] = &[
    "x-auth-assertion",
    "x-forwarded-access-token",
    "x-auth-request-access-token",
    "x-pomerium-jwt-assertion",
    "x-token-subject",
    "x-token-user-name",
    "x-token-user-email",
    "x-token-user-roles",
    "x-consumer-id",
    "x-consumer-username",
    "x-consumer-custom-id",
    "x-credential-identifier",
    "x-anonymous-consumer",
    "x-userinfo",
    "x-access-token",
    "x-id-token",
    "x-jwt-payload",
    "cf-access-authenticated-user-email",
    "cf-access-jwt-assertion",
    "x-ms-client-principal",
    "x-remote-user",
    "sm-user",
    "sm-userdn",
];

/// Families with open ends.
const PREFIXES: &[&str] = &[
    "x-pomerium-claim-",
    "x-authentik-",
    "x-webauth-",
    "x-goog-authenticated-user-",
    "x-goog-iap-",
    "x-amzn-oidc-",
    "x-ms-client-principal-",
    "tailscale-user-",
];

/// What the preset of a set sends; `auth` if it names none.
fn preset(headers: &HeaderSettings) -> &'static [(&'static str, PresetValue)] {
    let preset = headers.preset.first().map_or("auth", |preset| preset.value.as_str());
    PRESETS.iter().find(|(name, _)| *name == preset).map_or(&[], |(_, names)| names)
}

/// The names that the preset of a set sends, as they are shown.
pub(in crate::policy) fn preset_names(headers: &HeaderSettings) -> impl Iterator<Item = &'static str> {
    preset(headers).iter().map(|(name, _)| *name)
}

impl Builder<'_> {
    /// Collects every name that is removed from every request.
    pub(super) fn strip(&mut self) {
        let document = self.document;
        let app_edits =
            document.apps.iter().flat_map(|app| app.headers.iter().flat_map(|(_, header)| &header.defaults.headers));
        let own = document
            .headers
            .edits
            .iter()
            .chain(app_edits)
            .chain(document.routes.iter().flat_map(|route| &route.options.headers))
            .map(|edit| edit.name.value.as_str());
        let presets = PRESETS.iter().flat_map(|(_, names)| names.iter().map(|(name, _)| *name));
        self.policy.strip = Strip::new(presets.chain(FAMILIES.iter().copied()).chain(own), PREFIXES);
    }

    /// What the preset of the set sends.
    fn preset_headers(&self) -> Vec<HeaderRule> {
        preset(&self.document.headers)
            .iter()
            .filter_map(|(name, value)| {
                let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
                let value = match value {
                    PresetValue::User(fact) => HeaderSource::Fact(Operand::User(*fact)),
                    PresetValue::Transport => HeaderSource::Fact(Operand::Transport),
                    PresetValue::Anonymous => HeaderSource::Anonymous,
                };
                Some(HeaderRule { name, value })
            })
            .collect()
    }

    /// The identity headers of the apps' routes that set none of their own; `None` where they read parameters of
    /// the path, so that each route has its own.
    pub(super) fn app_headers(&mut self, header: &AppHeader) -> Option<Arc<[HeaderRule]>> {
        let document = self.document;
        let levels = [&document.headers.edits[..], &header.defaults.headers[..]];
        let reads_path =
            |edit: &HeaderEdit| matches!(&edit.value, Written::Reference(Spanned { value: Reference::Path(_), .. }));
        if levels.iter().any(|edits| edits.iter().any(reads_path)) {
            return None;
        }
        Some(self.headers(&levels, &[]))
    }

    /// The identity headers of a route.
    pub(super) fn route_headers(
        &mut self,
        header: &AppHeader,
        own: &[HeaderEdit],
        parameters: &[Parameter],
    ) -> Arc<[HeaderRule]> {
        let document = self.document;
        self.headers(&[&document.headers.edits, &header.defaults.headers, own], parameters)
    }

    fn headers(&mut self, levels: &[&[HeaderEdit]], parameters: &[Parameter]) -> Arc<[HeaderRule]> {
        let mut rules = self.preset_headers();
        for edit in levels.iter().copied().flatten() {
            let Some(rule) = self.header_rule(edit, parameters) else { continue };
            let same = |known: &HeaderRule| Strip::new([known.name.as_str()], &[]).contains(rule.name.as_str());
            rules.retain(|known| !same(known));
            if !matches!(rule.value, HeaderSource::Remove) {
                rules.push(rule);
            }
        }
        rules.into()
    }

    pub(super) fn response_headers(&mut self, edits: &[HeaderEdit], parameters: &[Parameter]) -> Arc<[HeaderRule]> {
        edits.iter().filter_map(|edit| self.header_rule(edit, parameters)).collect()
    }

    fn header_rule(&mut self, edit: &HeaderEdit, parameters: &[Parameter]) -> Option<HeaderRule> {
        let Ok(name) = HeaderName::from_bytes(edit.name.value.as_bytes()) else {
            self.problem(Code::P703, edit.name.span, format!("`{}` is not a header name", edit.name.value));
            return None;
        };
        let value = match &edit.value {
            Written::Remove => HeaderSource::Remove,
            Written::Literal(text) => match HeaderValue::from_str(&text.value) {
                Ok(value) => HeaderSource::Literal(value),
                Err(_) => {
                    self.problem(Code::P109, text.span, "this text cannot be sent as a header");
                    return None;
                }
            },
            // Where the route has no such parameter, the fact is missing.
            Written::Reference(Spanned { value: Reference::Path(parameter), .. })
                if !parameters.iter().any(|known| *known.name == **parameter) =>
            {
                HeaderSource::Remove
            }
            Written::Reference(reference) => {
                HeaderSource::Fact(self.reference(&reference.value, reference.span, parameters)?)
            }
        };
        Some(HeaderRule { name, value })
    }
}
