//! What the presets of identity providers fill in: the `iss` of their tokens, where their keys are, and the claims that
//! they send. What is the user's own (a domain, a tenant, a project) comes from the policy.
//!
//! Sources: Auth0 "Access Token Profiles" and "Work with Tokens and Organizations"; Keycloak "Securing applications";
//! Microsoft "Access token claims reference"; Amazon Cognito "Understanding the access token"; Clerk "Session tokens"
//! (versions 1 and 2); Firebase "Verify ID tokens"; Google "OpenID Connect"; Okta "API token claims".

use std::sync::Arc;
use std::time::Duration;

use crate::diagnostic::{Code, Spanned};
use crate::identity::claims::{ClaimMapping, ClaimPath};
use crate::policy::document::{self, Operator, Preset, Source, Waivable};
use crate::policy::lower::{is_host, is_private, parse_duration, url_fault};
use crate::policy::set::{
    Comparison, Introspection, KeysAt, OidcClient, OnExpired, Operand, RemoteKeys, SessionCheck, SupabaseProject,
};
use crate::policy::specificity::kind_matches;
use crate::policy::template::Kind;
use crate::secret::Secret;
use crate::token::algorithm::{Algorithm, AlgorithmSet};

use super::Builder;

/// What a provider may sign with, unless the policy says otherwise.
const NETWORK: &[Algorithm] =
    &[Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];

/// All that can be verified with a key that everybody may know.
const PUBLIC: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// What Supabase Auth signs with where it has key pairs.
const SUPABASE: &[Algorithm] = &[Algorithm::RS256, Algorithm::RS512, Algorithm::ES256, Algorithm::EdDSA];

/// Google's keys, which are on another host than its `iss`.
const GOOGLE_KEYS: &str = "https://www.googleapis.com/oauth2/v3/certs";

/// Firebase's keys, likewise.
const FIREBASE_KEYS: &str = "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com";

/// How old keys may become: no longer than the clients of the providers keep them.
const REFRESH: Duration = Duration::from_secs(600);

/// The least time between two fetches for a `kid` that is not known.
const COOL_DOWN: Duration = Duration::from_secs(30);

/// How long keys are used while they cannot be fetched.
const MAX_STALE: Duration = Duration::from_secs(24 * 3600);

/// How long an answer of a provider about a token is used again.
const CACHE: Duration = Duration::from_secs(30);

/// What a login asks for, unless the policy says otherwise.
const LOGIN_SCOPES: [&str; 3] = ["openid", "profile", "email"];

/// The algorithms of an issuer whose keys are not all in the policy.
pub(super) fn algorithms(preset: Preset) -> AlgorithmSet {
    AlgorithmSet::of(match preset {
        Preset::Jwt => PUBLIC,
        Preset::Supabase => SUPABASE,
        Preset::Entra | Preset::Cognito | Preset::Clerk | Preset::Firebase | Preset::Google | Preset::Okta => {
            &[Algorithm::RS256]
        }
        Preset::Auth0 => &[Algorithm::RS256, Algorithm::PS256],
        Preset::Local | Preset::Oidc | Preset::Keycloak => NETWORK,
    })
}

/// Where a preset's tokens say what.
pub(super) fn mapping(preset: Preset) -> ClaimMapping {
    let standard = ClaimMapping::standard();
    match preset {
        Preset::Local => ClaimMapping::local(),
        Preset::Supabase => ClaimMapping::supabase(),
        Preset::Oidc | Preset::Jwt => standard,
        // Roles come by an action of the tenant, under a name of its own.
        Preset::Auth0 => ClaimMapping { tenant: paths(&["org_id"]), ..standard },
        // Those of a client are under `resource_access.<client>.roles`.
        Preset::Keycloak => ClaimMapping {
            roles: paths(&["realm_access.roles", "roles"]),
            name: paths(&["name", "preferred_username"]),
            ..standard
        },
        // `sub` differs from application to application; `oid` is the user's in the whole tenant.
        Preset::Entra => ClaimMapping { id: paths(&["oid", "sub"]), tenant: paths(&["tid"]), ..standard },
        Preset::Cognito => ClaimMapping {
            roles: paths(&["cognito:groups"]),
            name: paths(&["name", "cognito:username", "username"]),
            session: paths(&["origin_jti"]),
            ..standard
        },
        Preset::Clerk => ClaimMapping {
            tenant: paths(&["o.id", "org_id"]),
            roles: paths(&["o.rol", "org_role"]),
            permissions: paths(&["org_permissions", "permissions"]),
            ..standard
        },
        Preset::Firebase => {
            ClaimMapping { tenant: paths(&["firebase.tenant"]), roles: paths(&["roles", "role"]), ..standard }
        }
        Preset::Google => ClaimMapping { tenant: paths(&["hd"]), ..standard },
        // `sub` of an access token is the login name, which can change hands.
        Preset::Okta => ClaimMapping { id: paths(&["uid", "sub"]), roles: paths(&["groups", "roles"]), ..standard },
    }
}

/// When a preset's tokens count as multi-factor.
pub(super) fn mfa(preset: Preset) -> Comparison {
    let text = |text: &str| Operand::String(text.into());
    let (claim, operator, right) = match preset {
        Preset::Supabase => ("aal", Operator::Equal, text("aal2")),
        Preset::Firebase => ("firebase.sign_in_second_factor", Operator::Is, Operand::Present),
        _ => ("amr", Operator::Contains, text("mfa")),
    };
    let path = ClaimPath::parse(claim).unwrap_or_else(|_| ClaimPath::name(claim));
    Comparison { left: Operand::Token(path), operator, right }
}

fn paths(paths: &[&str]) -> Vec<ClaimPath> {
    paths.iter().filter_map(|path| ClaimPath::parse(path).ok()).collect()
}

/// The region of a user pool stands at the beginning of its id.
fn cognito(pool: &str) -> Option<String> {
    let (region, _) = pool.split_once('_')?;
    let is_clean = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    (is_clean(pool) && is_host(region)).then(|| format!("https://cognito-idp.{region}.amazonaws.com/{pool}"))
}

impl Builder<'_> {
    /// The text that a source stands for; `None` if the reference is not resolved.
    fn value(&mut self, source: &Spanned<Source>) -> Option<String> {
        let text = String::from_utf8(self.resolve(source)?).ok().map(|text| text.trim().to_owned());
        if text.as_ref().is_none_or(String::is_empty) {
            self.problem(Code::P406, source.span, "this is empty, or not a text");
        }
        text.filter(|text| !text.is_empty())
    }

    /// One of an issuer's further keys.
    fn other(&mut self, settings: &document::Issuer, key: &str) -> Option<String> {
        settings.other(key).and_then(|source| self.value(source))
    }

    /// A further key that becomes part of a URL.
    fn part(
        &mut self,
        settings: &document::Issuer,
        key: &str,
        is_good: fn(&str) -> bool,
        what: &str,
    ) -> Option<String> {
        let source = settings.other(key)?;
        let text = self.value(source)?;
        if is_good(&text) {
            return Some(text);
        }
        self.problem(Code::P109, source.span, format!("`{key}` is {what}"));
        None
    }

    /// A URL without the slash at its end.
    fn base_url(&mut self, source: &Spanned<Source>, private: bool) -> Option<String> {
        let text = self.value(source)?;
        let fault = url_fault(&text, true).or_else(|| {
            (private && !is_private(&text))
                .then_some("by `https`: whoever can change what comes from there can let anybody in")
        });
        match fault {
            Some(fault) => {
                self.problem(Code::P109, source.span, format!("bad URL: {fault}"));
                None
            }
            None => Some(text.trim_end_matches('/').to_owned()),
        }
    }

    /// The `iss` of a provider's tokens, and the issuer whose discovery document names its keys.
    pub(super) fn provider_issuer(&mut self, settings: &document::Issuer) -> Option<String> {
        if let Some(Spanned { value: Waivable::Required(issuer), .. }) = &settings.issuer {
            return Some(issuer.clone());
        }
        let host = |text: &str| is_host(text) && !text.contains('*');
        let from_domain = |builder: &mut Self| builder.part(settings, "domain", host, "a host name");
        let from_url = |builder: &mut Self| settings.url.as_ref().and_then(|url| builder.base_url(url, true));
        match settings.preset.value {
            Preset::Auth0 => from_domain(self).map(|domain| format!("https://{domain}/")),
            Preset::Okta => from_domain(self).map(|domain| format!("https://{domain}/oauth2/default")),
            Preset::Clerk => from_url(self).or_else(|| from_domain(self).map(|domain| format!("https://{domain}"))),
            Preset::Keycloak => from_url(self),
            Preset::Entra => {
                let is_id = |text: &str| kind_matches(Kind::Uuid, text);
                let tenant = self.part(settings, "tenant", is_id, "the id of the tenant, a UUID")?;
                // The `iss` has it in lower case.
                Some(format!("https://login.microsoftonline.com/{}/v2.0", tenant.to_ascii_lowercase()))
            }
            Preset::Cognito => from_url(self).or_else(|| {
                let pool = self.part(settings, "project", |pool| cognito(pool).is_some(), "the id of the user pool")?;
                cognito(&pool)
            }),
            Preset::Firebase => {
                let is_id = |id: &str| id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.:".contains(&byte));
                let project = self.part(settings, "project", is_id, "the id of the project")?;
                Some(format!("https://securetoken.google.com/{project}"))
            }
            Preset::Google => Some("https://accounts.google.com".to_owned()),
            Preset::Local | Preset::Supabase | Preset::Oidc | Preset::Jwt => None,
        }
    }

    /// The `aud` of a provider's tokens where the policy states none.
    pub(super) fn provider_audience(&mut self, settings: &document::Issuer) -> Option<String> {
        match settings.preset.value {
            Preset::Firebase => self.other(settings, "project"),
            _ => self.other(settings, "client_id"),
        }
    }

    /// Keys over the network, where they are not all in the policy and it is known where they are.
    pub(super) fn remote(
        &mut self,
        settings: &document::Issuer,
        stated: AlgorithmSet,
        issuer: Option<&str>,
    ) -> Option<RemoteKeys> {
        let preset = settings.preset.value;
        let at = match (&settings.jwks_url, preset) {
            (Some(url), _) => KeysAt::Url(self.base_url(url, true)?.into()),
            (None, Preset::Local | Preset::Jwt) => return None,
            (None, Preset::Supabase) => {
                // Where only the secret is admitted, no key of the project could be used.
                if !stated.is_empty() && stated.iter().all(Algorithm::is_symmetric) {
                    return None;
                }
                KeysAt::Url(format!("{}/auth/v1/.well-known/jwks.json", self.supabase_url(settings)?).into())
            }
            (None, Preset::Google) => KeysAt::Url(GOOGLE_KEYS.into()),
            (None, Preset::Firebase) => KeysAt::Url(FIREBASE_KEYS.into()),
            (None, _) => KeysAt::Discovery(issuer?.into()),
        };
        let duration = |key: &str, default| {
            let Some(Spanned { value: Source::Literal(text), .. }) = settings.other(key) else { return default };
            parse_duration(text).unwrap_or(default)
        };
        Some(RemoteKeys {
            at,
            algorithms: match preset {
                Preset::Jwt | Preset::Supabase => stated,
                _ if stated.is_empty() => algorithms(preset),
                _ => stated,
            },
            refresh: duration("refresh", REFRESH).min(REFRESH),
            cool_down: duration("cool_down", COOL_DOWN),
            max_stale: duration("max_stale", MAX_STALE),
            may_be_empty: preset == Preset::Supabase,
        })
    }

    /// The URL of a Supabase project, without a slash at its end.
    pub(super) fn supabase_url(&mut self, settings: &document::Issuer) -> Option<String> {
        let from_environment = Spanned::new(Source::Env("SUPABASE_URL".to_owned()), settings.preset.span);
        let source = settings.url.as_ref().unwrap_or(&from_environment);
        let url = self.base_url(source, false)?;
        if url.ends_with("/auth/v1") {
            self.problem(Code::P109, source.span, "the URL of a Supabase project ends before `/auth/v1`");
            return None;
        }
        Some(url)
    }

    /// The project of an issuer with preset `supabase`.
    pub(super) fn supabase(&mut self, settings: &document::Issuer) -> Option<SupabaseProject> {
        if settings.preset.value != Preset::Supabase {
            return None;
        }
        let url = self.supabase_url(settings)?;
        let key = match settings.other("key") {
            Some(key) => self.value(key),
            None => self.references.env("SUPABASE_KEY").map(|key| key.expose().trim().to_owned()),
        };
        let forward = settings.forward_client_ip.as_ref().and_then(|forward| forward.value.secret_key.as_ref());
        let refreshes = Source::Literal("refresh_and_set_cookie".to_owned());
        let on_expired = match settings.other("on_expired") {
            Some(word) if word.value == refreshes => OnExpired::RefreshAndSetCookie,
            _ => OnExpired::Unauthenticated,
        };
        Some(SupabaseProject {
            url: url.into(),
            key: key.map(Secret::new),
            on_expired,
            session_check: settings.session_check.as_ref().map(|check| SessionCheck {
                paths: check.value.paths.iter().map(|path| path.segments.clone()).collect(),
                cache: check.value.cache.as_ref().map_or(CACHE, |cache| cache.value),
                allow_on_error: check.value.allow_on_error,
            }),
            forward_client_ip: forward.and_then(|secret| self.value(secret)).map(Secret::new),
        })
    }

    /// Whom to ask about opaque tokens.
    pub(super) fn introspection(&mut self, settings: &document::Issuer) -> Option<Introspection> {
        let asked = &settings.introspection.as_ref()?.value;
        Some(Introspection {
            url: asked.url.as_ref().and_then(|url| self.base_url(url, true))?.into(),
            client_id: asked.client_id.as_ref().and_then(|id| self.value(id))?.into(),
            client_secret: Secret::new(asked.client_secret.as_ref().and_then(|secret| self.value(secret))?),
            cache: asked.cache.as_ref().map_or(CACHE, |cache| cache.value),
        })
    }

    /// What the gateway is at a provider.
    pub(super) fn oidc(&mut self, settings: &document::Issuer, issuer: Option<&str>) -> Option<Arc<OidcClient>> {
        if !settings.preset.value.is_provider() {
            return None;
        }
        let client_id = self.other(settings, "client_id")?;
        let client_secret = match settings.other("client_secret") {
            // A secret that is not resolved must not make a public client of a confidential one.
            Some(secret) => Some(Secret::new(self.value(secret)?)),
            None => None,
        };
        Some(Arc::new(OidcClient {
            issuer: issuer?.into(),
            client_id: client_id.into(),
            client_secret,
            scopes: if settings.login_scopes.is_empty() {
                LOGIN_SCOPES.map(Into::into).into()
            } else {
                settings.login_scopes.iter().map(|scope| scope.value.as_str().into()).collect()
            },
        }))
    }
}

#[cfg(test)]
mod tests;
