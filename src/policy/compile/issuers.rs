//! Who may sign tokens: presets, keys as far as they are resolved, rules for the verifier.

use std::sync::Arc;
use std::time::Duration;

use crate::diagnostic::{Code, Diagnostic, Span, Spanned};
use crate::identity::IssuerName;
use crate::identity::claims::{AuthTime, ClaimMapping, ClaimPath, Kinds};
use crate::policy::document::{self, Condition, Definition, Preset, Source, Waivable};
use crate::policy::lower::parse_duration;
use crate::policy::references::PUBLIC_URL;
use crate::policy::set::{Comparison, Issuer, LocalIssuer};
use crate::token::algorithm::{Algorithm, AlgorithmSet};
use crate::token::jwks::{Jwks, Origin};
use crate::token::key::{Key, KeyError, KeySet};
use crate::token::mint::Minter;
use crate::token::verify::{
    DEFAULT_LEEWAY, ExpectedAudience, ExpectedIssuer, Expiry, IssuerKeys, IssuerRules, Verifier,
};

use super::{Builder, providers};

/// The `iss` of our own tokens unless the policy says otherwise.
const OWN_ISSUER: &str = "portcullis";

/// How long our own access tokens are valid, unless the policy says otherwise.
const EXPIRES: Duration = Duration::from_secs(30 * 60);

/// The most that `ACCESS_TOKEN_EXPIRE_MINUTES` may say: a year.
const MOST_MINUTES: u64 = 365 * 24 * 60;

/// How long a login lasts, unless the policy says otherwise.
const REFRESH_EXPIRES: Duration = Duration::from_secs(14 * 24 * 3600);

/// How long a refresh token that was just replaced gets the same successor again.
const REUSE_WINDOW: Duration = Duration::from_secs(10);

impl Builder<'_> {
    pub(super) fn issuers(&mut self) {
        let document = self.document;
        let mut rules = Vec::new();
        for definition in &document.issuers {
            self.issuer(definition, &mut rules);
        }
        if document.issuers.is_empty() {
            for preset in self.implied() {
                self.issuer(&implied_issuer(preset), &mut rules);
            }
        }
        match Verifier::new(rules) {
            Ok(verifier) => self.policy.verifier = verifier,
            Err(ambiguous) => {
                let named = |name: &IssuerName| {
                    let found = document.issuers.iter().find(|definition| definition.name.value == name.as_str());
                    found.map_or_else(Span::default, |definition| definition.name.span)
                };
                let (first, second) = (named(&ambiguous.0), named(&ambiguous.1));
                self.problems.push(
                    Diagnostic::new(Code::P412, ambiguous.to_string(), second, "accepts what the other accepts")
                        .also(first, "the other"),
                );
            }
        }
    }

    /// Without an `identity` block: `local` where `SECRET_KEY` is set, `supabase` where `SUPABASE_URL` is. Where
    /// nothing is resolved, the one that the login needs, else `local`, so that tests have an issuer.
    fn implied(&self) -> Vec<Preset> {
        let (local, supabase) =
            (self.references.env("SECRET_KEY").is_some(), self.references.env("SUPABASE_URL").is_some());
        let mut logins = self.document.apps.iter().filter_map(|app| app.header()?.login.as_ref());
        match (local, supabase) {
            (false, true) => vec![Preset::Supabase],
            (false, false) if logins.any(|login| login.value.via.value == "supabase") => vec![Preset::Supabase],
            (true, true) => vec![Preset::Local, Preset::Supabase],
            (_, false) => vec![Preset::Local],
        }
    }

    fn issuer(&mut self, definition: &Definition<document::Issuer>, rules: &mut Vec<IssuerRules>) {
        let settings = &definition.value;
        let preset = settings.preset.value;
        let name = IssuerName::new(&definition.name.value);
        let mapping = self.mapping(settings);
        let algorithms = self.algorithms(settings);
        let iss = self.provider_issuer(settings);
        let keys = self.keys(settings, algorithms).unwrap_or_else(|error| {
            let (error, span) = *error;
            let mut problem = Diagnostic::new(Code::P402, error.to_string(), span, "this key is not used");
            problem.help.extend(error.help().map(str::to_owned));
            self.problems.push(problem);
            IssuerKeys::Unavailable
        });
        let waived = |expiry: bool| if expiry { Expiry::DangerOptional } else { Expiry::Required };
        rules.push(IssuerRules {
            name: name.clone(),
            issuer: self.expected_issuer(settings, iss.as_deref()),
            audience: self.expected_audience(settings),
            expiry: waived(settings.expiry_waived.is_some()),
            algorithms: self.admitted(settings, algorithms, &keys),
            keys,
            leeway: settings.leeway.as_ref().map_or(DEFAULT_LEEWAY, |leeway| leeway.value),
            max_token_age: settings.max_token_age.as_ref().map(|age| age.value),
            required_typ: settings.required_typ.as_ref().map(|typ| typ.value.as_str().into()),
            mapping: mapping.clone(),
        });
        let place = self.place(definition.name.span);
        let mfa = self.mfa(settings);
        let texts = |texts: &[Spanned<String>]| -> Vec<Box<str>> {
            texts.iter().map(|text| text.value.as_str().into()).collect()
        };
        let db_roles = (preset == Preset::Supabase).then(|| match &settings.db_roles[..] {
            [] => vec!["authenticated".into()],
            roles => texts(roles),
        });
        let local = (preset == Preset::Local).then(|| self.local(settings, algorithms));
        let remote = self.remote(settings, algorithms, iss.as_deref()).map(Arc::new);
        let introspection = self.introspection(settings).map(Arc::new);
        let supabase = self.supabase(settings).map(Arc::new);
        let oidc = self.oidc(settings, iss.as_deref());
        self.policy.issuers.push(Issuer {
            name,
            place,
            preset,
            hierarchy: settings.hierarchy.as_ref().map(|hierarchy| hierarchy.value).unwrap_or_default(),
            mapping,
            mfa,
            bearer: !settings.no_bearer,
            cookies: texts(&settings.cookies),
            db_roles,
            allow_service_role: settings.allow_service_role.is_some(),
            local,
            remote,
            introspection,
            supabase,
            oidc,
        });
    }

    /// The algorithms that tokens may have, whichever keys they are for: those in the policy and those to come.
    fn admitted(&self, settings: &document::Issuer, stated: AlgorithmSet, keys: &IssuerKeys) -> AlgorithmSet {
        let preset = settings.preset.value;
        if preset == Preset::Supabase && stated.is_empty() {
            let has_secret = !settings.secrets.is_empty() || self.supabase_secret().is_some();
            let secret = has_secret.then_some(Algorithm::HS256);
            return AlgorithmSet::of(
                &secret.into_iter().chain(providers::algorithms(preset).iter()).collect::<Vec<_>>(),
            );
        }
        match keys {
            IssuerKeys::Known(keys) if preset != Preset::Supabase => keys.algorithms(),
            IssuerKeys::Unavailable if stated.is_empty() => providers::algorithms(preset),
            IssuerKeys::Known(_) | IssuerKeys::Unavailable => stated,
        }
    }

    fn algorithms(&mut self, settings: &document::Issuer) -> AlgorithmSet {
        let mut algorithms = Vec::new();
        for name in &settings.algorithms {
            match name.value.parse() {
                Ok(algorithm) => algorithms.push(algorithm),
                Err(_) => self.problem(Code::P402, name.span, format!("unknown algorithm `{}`", name.value)),
            }
        }
        if algorithms.is_empty() && settings.preset.value == Preset::Local {
            let stated = self.references.env("ALGORITHM").and_then(|name| name.expose().parse().ok());
            return AlgorithmSet::of(&stated.into_iter().collect::<Vec<_>>());
        }
        AlgorithmSet::of(&algorithms)
    }

    /// The legacy secret of the environment.
    fn supabase_secret(&self) -> Option<Vec<u8>> {
        self.references.env("SUPABASE_JWT_SECRET").map(|secret| secret.expose().clone().into_bytes())
    }

    /// The keys, if all that they are made of is resolved and none comes over the network.
    fn keys(&self, settings: &document::Issuer, algorithms: AlgorithmSet) -> Result<IssuerKeys, Box<(KeyError, Span)>> {
        let or_hs256 = |algorithms: AlgorithmSet| {
            if algorithms.is_empty() { AlgorithmSet::of(&[Algorithm::HS256]) } else { algorithms }
        };
        let known = |keys: Vec<Key>, span: Span| {
            KeySet::new(keys).map(|keys| IssuerKeys::Known(Arc::new(keys))).map_err(|error| Box::new((error, span)))
        };
        // The secret of a Supabase project is for HS256 alone, whatever its other keys are for.
        let of_secret = match settings.preset.value {
            Preset::Supabase => AlgorithmSet::of(&[Algorithm::HS256]),
            _ => or_hs256(algorithms),
        };
        let secret = |bytes: &[u8], span: Span| {
            Key::from_secret(without_newline(bytes), of_secret, None).map_err(|error| Box::new((error, span)))
        };
        let text =
            |bytes: Vec<u8>, span: Span| String::from_utf8(bytes).map_err(|_| Box::new((KeyError::NotPem, span)));
        if let Some(key) = &settings.signing_key {
            if key.value == managed() {
                return Ok(IssuerKeys::Unavailable);
            }
            let Some(bytes) = self.resolve(key) else { return Ok(IssuerKeys::Unavailable) };
            let minter = Minter::from_pem(&text(bytes, key.span)?, algorithms.iter().next())
                .map_err(|error| Box::new((error, key.span)))?;
            return known(vec![minter.verifying_key()], key.span);
        }
        if !settings.secrets.is_empty() {
            let mut keys = Vec::new();
            for source in &settings.secrets {
                let Some(bytes) = self.resolve(source) else { return Ok(IssuerKeys::Unavailable) };
                keys.push(secret(&bytes, source.span)?);
            }
            return known(keys, settings.span);
        }
        if let Some(source) = &settings.public_key {
            let Some(bytes) = self.resolve(source) else { return Ok(IssuerKeys::Unavailable) };
            let key = Key::from_pem(&text(bytes, source.span)?, algorithms, None)
                .map_err(|error| Box::new((error, source.span)))?;
            return known(vec![key], source.span);
        }
        if let Some(source) = &settings.jwks_file {
            let Some(bytes) = self.resolve(source) else { return Ok(IssuerKeys::Unavailable) };
            let jwks = Jwks::parse(&bytes, Origin::Local, algorithms).map_err(|problems| {
                let error = problems.into_iter().next().map_or(KeyError::NotJwks, |problem| problem.error);
                Box::new((error, source.span))
            })?;
            return Ok(IssuerKeys::Known(Arc::new(jwks.keys)));
        }
        let default = match settings.preset.value {
            Preset::Local => self.references.env("SECRET_KEY").map(|value| value.expose().clone().into_bytes()),
            Preset::Supabase => self.supabase_secret(),
            _ => None,
        };
        match default {
            Some(bytes) => known(vec![secret(&bytes, settings.span)?], settings.span),
            None => Ok(IssuerKeys::Unavailable),
        }
    }

    fn expected_issuer(&mut self, settings: &document::Issuer, provider: Option<&str>) -> ExpectedIssuer {
        let exact = |text: String| ExpectedIssuer::Exact(text.into());
        let Span { file, start, .. } = settings.span;
        // No token has this: what names the issuer is not resolved, as in a check.
        let unresolved = || format!("unresolved:{}:{start}", file.0);
        match &settings.issuer {
            Some(Spanned { value: Waivable::Waived, .. }) => ExpectedIssuer::DangerAny,
            Some(Spanned { value: Waivable::Required(issuer), .. }) => exact(issuer.clone()),
            None => match settings.preset.value {
                Preset::Local => exact(self.own_issuer()),
                Preset::Supabase => {
                    exact(self.supabase_url(settings).map_or_else(unresolved, |url| format!("{url}/auth/v1")))
                }
                _ => exact(provider.map_or_else(unresolved, str::to_owned)),
            },
        }
    }

    /// The `iss` of our own tokens, where none is stated.
    fn own_issuer(&self) -> String {
        self.references.env(PUBLIC_URL).map_or_else(|| OWN_ISSUER.to_owned(), |url| url.expose().clone())
    }

    /// What a local issuer signs with, and how long what it signs is good.
    fn local(&mut self, settings: &document::Issuer, algorithms: AlgorithmSet) -> LocalIssuer {
        let minutes =
            |minutes: &str| minutes.trim().parse().ok().filter(|minutes| (1..=MOST_MINUTES).contains(minutes));
        let environment = self.references.env("ACCESS_TOKEN_EXPIRE_MINUTES");
        if environment.is_some_and(|text| minutes(text.expose()).is_none()) && settings.expires.is_none() {
            let message = "`ACCESS_TOKEN_EXPIRE_MINUTES` is not a number of minutes from 1 to 525600";
            self.problem(Code::P406, settings.preset.span, message);
        }
        let minutes = environment.and_then(|text| minutes(text.expose()));
        let default = minutes.map_or(EXPIRES, |minutes: u64| Duration::from_secs(minutes * 60));
        let stated = |wanted: &str| {
            let (_, value) = settings.other.iter().find(|(key, _)| key.value == wanted)?;
            let Source::Literal(text) = &value.value else { return None };
            Some(text.as_str())
        };
        let duration = |wanted: &str| stated(wanted).and_then(parse_duration);
        let managed_key = settings.signing_key.as_ref().filter(|key| key.value == managed());
        if let (Some(key), Some(algorithm)) = (managed_key, algorithms.iter().next())
            && !matches!(algorithm, Algorithm::ES256 | Algorithm::EdDSA)
        {
            let message = format!("managed keys are for ES256 or EdDSA, but `ALGORITHM` is {algorithm}");
            self.problem(Code::P402, key.span, message);
        }
        let is_managed = managed_key.is_some();
        LocalIssuer {
            signer: if is_managed { None } else { self.signer(settings, algorithms).map(Arc::new) },
            managed: is_managed.then(|| algorithms.iter().next().unwrap_or(Algorithm::ES256)),
            iss: match &settings.issuer {
                Some(Spanned { value: Waivable::Required(issuer), .. }) => issuer.as_str().into(),
                _ => self.own_issuer().into(),
            },
            audience: match &settings.audience {
                Some(Spanned { value: Waivable::Required(audience), .. }) => {
                    audience.iter().map(|audience| audience.as_str().into()).collect()
                }
                _ => Vec::new(),
            },
            expires: settings.expires.as_ref().map_or(default, |expires| expires.value),
            refresh_expires: duration("refresh_expires").unwrap_or(REFRESH_EXPIRES),
            reuse_window: duration("reuse_window").unwrap_or(REUSE_WINDOW),
            upgrade: stated("upgrade") != Some("log"),
        }
    }

    /// The first secret, or the private key; what is wrong with them was said where they verify.
    fn signer(&self, settings: &document::Issuer, algorithms: AlgorithmSet) -> Option<Minter> {
        if let Some(key) = &settings.signing_key {
            let text = String::from_utf8(self.resolve(key)?).ok()?;
            return Minter::from_pem(&text, algorithms.iter().next()).ok();
        }
        let secret = match settings.secrets.first() {
            Some(source) => self.resolve(source)?,
            None => self.references.env("SECRET_KEY")?.expose().clone().into_bytes(),
        };
        Minter::from_secret(without_newline(&secret), algorithms.iter().next().unwrap_or(Algorithm::HS256)).ok()
    }

    fn expected_audience(&mut self, settings: &document::Issuer) -> ExpectedAudience {
        match &settings.audience {
            Some(Spanned { value: Waivable::Waived, .. }) => ExpectedAudience::DangerAny,
            Some(Spanned { value: Waivable::Required(audiences), .. }) => {
                let audiences = audiences.iter().map(|audience| audience.as_str().into()).collect();
                match settings.preset.value {
                    Preset::Cognito => ExpectedAudience::ClientOneOf(audiences),
                    _ => ExpectedAudience::OneOf(audiences),
                }
            }
            None => match settings.preset.value {
                Preset::Supabase => ExpectedAudience::OneOf(vec!["authenticated".into()]),
                // The app's name; with several apps it must be stated.
                Preset::Local => {
                    let apps = self.document.apps.iter().map(|app| app.name.value.as_str().into()).collect();
                    ExpectedAudience::OneOf(apps)
                }
                Preset::Cognito => ExpectedAudience::ClientOneOf(
                    self.provider_audience(settings).into_iter().map(Into::into).collect(),
                ),
                _ => ExpectedAudience::OneOf(self.provider_audience(settings).into_iter().map(Into::into).collect()),
            },
        }
    }

    fn mapping(&mut self, settings: &document::Issuer) -> ClaimMapping {
        let mut mapping = providers::mapping(settings.preset.value);
        if let Kinds::Supabase { anonymous, service, clients } = &mut mapping.kinds {
            *anonymous = settings.allow_anonymous_users.is_some();
            *service = settings.allow_service_role.is_some();
            *clients = settings.allow_oauth_clients.is_some();
        }
        for (fact, written) in &settings.claims {
            let mut paths = Vec::new();
            for path in written {
                match ClaimPath::parse(&path.value) {
                    Ok(parsed) => paths.push(parsed),
                    Err(error) => self.problem(Code::P109, path.span, error.to_string()),
                }
            }
            match fact.value.as_str() {
                "id" => mapping.id = paths,
                "email" => mapping.email = paths,
                "name" => mapping.name = paths,
                "tenant" => mapping.tenant = paths,
                "session" => mapping.session = paths,
                "roles" => mapping.roles = paths,
                "scopes" => mapping.scopes = paths,
                "permissions" => mapping.permissions = paths,
                "auth_time" => mapping.auth_time = AuthTime::At(paths),
                other => {
                    let message = format!("unknown fact `{other}`");
                    self.problem(Code::P004, fact.span, message);
                }
            }
        }
        mapping
    }

    /// When a token counts as multi-factor.
    fn mfa(&mut self, settings: &document::Issuer) -> Vec<Comparison> {
        let mut comparisons = Vec::new();
        if let Some(condition) = &settings.mfa {
            self.flatten(condition, 0, &mut comparisons);
            return comparisons;
        }
        vec![providers::mfa(settings.preset.value)]
    }

    fn flatten(&mut self, condition: &Condition, depth: usize, into: &mut Vec<Comparison>) {
        match condition {
            Condition::Comparison(comparison) => into.extend(self.comparison(comparison, &[])),
            Condition::All(members, _) => members.iter().for_each(|member| self.flatten(member, depth, into)),
            Condition::Named(name) => match self.conditions.get(name.value.as_str()).copied() {
                Some(definition) if depth < 32 => self.flatten(&definition.value, depth + 1, into),
                Some(_) => self.problem(Code::P104, name.span, format!("condition `{}` names itself", name.value)),
                None => self.problems.push(super::unknown("condition", &name.value, name.span)),
            },
        }
    }
}

fn managed() -> Source {
    Source::Literal("managed".to_owned())
}

/// Files end with a line feed that is no part of the secret.
pub(super) fn without_newline(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

fn implied_issuer(preset: Preset) -> Definition<document::Issuer> {
    let name = Preset::ALL.iter().find(|(known, _)| *known == preset).map_or("local", |(_, name)| name);
    Definition {
        name: Spanned::new(name.to_owned(), Span::default()),
        fragment: document::FragmentId::default(),
        value: document::Issuer::empty(Spanned::new(preset, Span::default()), Span::default()),
        allow: Vec::new(),
    }
}
