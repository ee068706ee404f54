//! `token mint`: a token for a try, from a fixture or from claims, signed with the policy's own key.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};

use crate::clock::{Clock as _, Timestamp};
use crate::config::Environment;
use crate::identity::claims::{AuthTime, ClaimPath};
use crate::issuer::{Signer, Snapshot};
use crate::policy::document;
use crate::policy::document::{Fixture, Preset, Source};
use crate::policy::references::References;
use crate::policy::set::{Issuer, PolicySet};
use crate::random::Random as _;
use crate::reload::load::{self, load};
use crate::server::{SystemClock, SystemRandom};
use crate::token::algorithm::Algorithm;
use crate::token::mint::Minter;
use crate::token::verify::{ExpectedAudience, ExpectedIssuer, IssuerRules};

use super::super::exit::Exit;
use super::super::stores::{Access, Opened};
use super::super::{Global, Terminal, broken};

/// Signs a token with the policy's own key
#[derive(Args, Debug)]
pub struct Mint {
    /// A test identity of the policy
    #[arg(long = "as", value_name = "NAME")]
    fixture: Option<String>,
    /// Whom the token is about, where that is no test identity: a user's id
    #[arg(long, value_name = "ID", conflicts_with = "fixture")]
    sub: Option<String>,
    /// A claim; the value is JSON, or else a text
    #[arg(long = "claim", value_name = "NAME=VALUE")]
    claims: Vec<String>,
    /// The issuer, where several could sign
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// How long the token is valid (`10m`, `1h`)
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = duration)]
    ttl: Duration,
    /// Also where an upstream is not on this machine
    #[arg(long)]
    yes: bool,
}

/// `90s`, `10m`, `1h`, `2d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).unwrap_or((text, ""));
    let unit = match unit {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("like `90s`, `10m`, `1h` or `2d`".to_owned()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    match seconds {
        Some(seconds @ 1..=31_536_000) => Ok(Duration::from_secs(seconds)),
        _ => Err("from a second to a year".to_owned()),
    }
}

impl Mint {
    /// Runs the command.
    pub fn run(&self, global: &Global, terminal: Terminal, environment: &Environment) -> Result<Exit, Exit> {
        let folder = global.folder(terminal, environment)?;
        match self.token(global, terminal, environment, &folder)? {
            Ok((token, summary)) => {
                terminal.err(format_args!("{summary}\n"));
                terminal.out(format_args!("{token}\n"));
                Ok(Exit::Fine)
            }
            Err(message) => {
                terminal.err(format_args!("error: {message}\n"));
                Ok(Exit::Found)
            }
        }
    }

    /// The token and a line about it, or why there is none.
    fn token(
        &self,
        global: &Global,
        terminal: Terminal,
        environment: &Environment,
        folder: &Path,
    ) -> Result<Result<(String, String), String>, Exit> {
        let options = load::Options { tests: false, test_gate: false, ..load::Options::serve(environment) };
        let loaded = load(folder, &options);
        let (Some(tested), Some(checked)) = (&loaded.tested, &loaded.checked) else {
            return Err(broken(terminal, &loaded.diagnostics, &loaded.sources));
        };
        let policy = tested.policy();
        let is_managed = |issuer: &Issuer| issuer.local.as_ref().is_some_and(|local| local.managed.is_some());
        let snapshot = if policy.issuers.iter().any(is_managed) {
            let config = global.settings(terminal, environment, &[])?;
            super::snapshot(policy, Opened::open(&config, terminal, Access::Read)?.as_ref())?
        } else {
            Snapshot::default()
        };
        let keys = Keys { document: checked.document(), references: &loaded.references, snapshot: &snapshot };
        Ok(self.mint(policy, &keys, SystemClock.now()))
    }

    fn mint(&self, policy: &PolicySet, keys: &Keys<'_>, now: Timestamp) -> Result<(String, String), String> {
        let remote = policy.upstreams.iter().find(|upstream| !is_loopback(&upstream.host));
        if let (Some(upstream), false) = (remote, self.yes) {
            return Err(format!(
                "the upstream {} is not on this machine: this token would be good there; --yes if that is meant",
                upstream.host
            ));
        }
        let fixture = match &self.fixture {
            None => None,
            Some(name) => {
                let found = policy.fixtures.iter().find(|fixture| fixture.name.value == *name);
                let names = || policy.fixtures.iter().map(|f| f.name.value.as_str()).collect::<Vec<_>>().join(", ");
                Some(&found.ok_or_else(|| format!("no test identity `{name}`; there are: {}", names()))?.value)
            }
        };
        let wanted = self.issuer.as_deref().or_else(|| fixture?.issuer.as_ref().map(|issuer| issuer.value.as_str()));
        let (issuer, Signer { minter, kid }) = keys.signer(policy, wanted)?;
        let rules = policy
            .verifier
            .issuers()
            .find(|rules| rules.name == issuer.name)
            .ok_or_else(|| format!("issuer `{}` cannot verify tokens here", issuer.name))?;

        let mut claims = Map::new();
        self.standard_claims(rules, now, &mut claims);
        if let Some(fixture) = fixture {
            fixture_claims(fixture, issuer, now, &mut claims);
        }
        if let Some(sub) = &self.sub {
            claims.insert("sub".into(), json!(sub));
        }
        for claim in &self.claims {
            let (name, value) = claim.split_once('=').ok_or_else(|| format!("`{claim}` is not NAME=VALUE"))?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
            claims.insert(name.to_owned(), value);
        }
        if fixture.is_none() && !claims.contains_key("sub") {
            let names: Vec<&str> = policy.fixtures.iter().map(|fixture| fixture.name.value.as_str()).collect();
            let names = if names.is_empty() { String::new() } else { format!(" (one of {})", names.join(", ")) };
            return Err(format!(
                "whom is the token about? --as NAME takes a test identity{names}, --sub ID anybody; without, no rule \
                 that asks for the user would hold"
            ));
        }
        let token = minter
            .mint(&claims, kid.as_ref(), Some(rules.required_typ.as_deref().unwrap_or("JWT")))
            .map_err(|error| error.to_string())?;
        let audience = claims.get("aud").map(|aud| aud.as_str().map_or_else(|| aud.to_string(), str::to_owned));
        let summary = format!(
            "issuer {} · {} · aud {} · sub {} · valid for {}",
            issuer.name,
            minter.algorithm(),
            audience.as_deref().unwrap_or("–"),
            claims.get("sub").and_then(Value::as_str).unwrap_or("–"),
            short(self.ttl),
        );
        Ok((token, summary))
    }

    fn standard_claims(&self, rules: &IssuerRules, now: Timestamp, claims: &mut Map<String, Value>) {
        if let ExpectedIssuer::Exact(issuer) = &rules.issuer {
            claims.insert("iss".into(), json!(issuer));
        }
        if let ExpectedAudience::OneOf(audience) = &rules.audience
            && let Some(first) = audience.first()
        {
            claims.insert("aud".into(), json!(first));
        }
        let mut id = [0; 16];
        SystemRandom.fill(&mut id);
        claims.insert("jti".into(), json!(id.iter().map(|byte| format!("{byte:02x}")).collect::<String>()));
        claims.insert("iat".into(), json!(now.as_seconds()));
        claims.insert("exp".into(), json!(now.plus(self.ttl).as_seconds()));
    }
}

/// Where what signs comes from.
struct Keys<'k> {
    document: &'k document::Document,
    references: &'k References,
    snapshot: &'k Snapshot,
}

impl Keys<'_> {
    /// The issuer that can sign, and with what.
    fn signer<'p>(&self, policy: &'p PolicySet, wanted: Option<&str>) -> Result<(&'p Issuer, Signer), String> {
        let mut last = None;
        for issuer in policy.issuers.iter().filter(|issuer| wanted.is_none_or(|name| issuer.name.as_str() == name)) {
            match self.of(issuer) {
                Ok(signer) => return Ok((issuer, signer)),
                Err(error) => last = Some(format!("issuer `{}`: {error}", issuer.name)),
            }
        }
        Err(match (last, wanted) {
            (Some(error), _) => error,
            (None, Some(name)) => format!("no issuer `{name}` in the policy"),
            (None, None) => "the policy names nobody who may sign tokens".to_owned(),
        })
    }

    fn of(&self, issuer: &Issuer) -> Result<Signer, String> {
        if issuer.local.as_ref().is_some_and(|local| local.managed.is_some()) {
            let signer = self.snapshot.signer(&issuer.name).cloned();
            return signer.ok_or_else(|| "its key is made when the gateway starts, and there is none yet".to_owned());
        }
        let written = self.document.issuers.iter().find(|definition| definition.name.value == issuer.name.as_str());
        let minter = minter(issuer, written, self.references)?;
        Ok(Signer { minter: Arc::new(minter), kid: None })
    }
}

fn minter(
    issuer: &Issuer,
    written: Option<&document::Definition<document::Issuer>>,
    references: &References,
) -> Result<Minter, String> {
    let settings = written.map(|definition| &definition.value);
    let algorithm = match settings.and_then(|settings| settings.algorithms.first()) {
        Some(name) => Some(name.value.parse::<Algorithm>().map_err(|_| format!("unknown algorithm `{}`", name.value))?),
        None => None,
    };
    if let Some(key) = settings.and_then(|settings| settings.signing_key.as_ref()) {
        let bytes = value(&key.value, key.span.file, references)?;
        let text = String::from_utf8(bytes).map_err(|_| "the signing key is not PEM".to_owned())?;
        return Minter::from_pem(&text, algorithm).map_err(|error| error.to_string());
    }
    let secret = match settings.and_then(|settings| settings.secrets.first()) {
        Some(secret) => value(&secret.value, secret.span.file, references)?,
        None if issuer.preset == Preset::Local => {
            value(&Source::Env("SECRET_KEY".to_owned()), Default::default(), references)?
        }
        None => return Err("it verifies with keys of others; only they can sign".to_owned()),
    };
    Minter::from_secret(&secret, algorithm.unwrap_or(Algorithm::HS256)).map_err(|error| error.to_string())
}

fn value(source: &Source, from: crate::diagnostic::FileId, references: &References) -> Result<Vec<u8>, String> {
    match source {
        Source::Literal(text) => Ok(text.clone().into_bytes()),
        Source::Env(name) => match references.env(name) {
            Some(value) => Ok(value.expose().clone().into_bytes()),
            None => Err(format!("environment variable `{name}` is not set")),
        },
        Source::File(path) => match references.file(from, path) {
            Some(content) => Ok(content.expose().clone()),
            None => Err(format!("file `{path}` cannot be read")),
        },
    }
}

/// The claims from which the issuer's mapping reads what the fixture says.
fn fixture_claims(fixture: &Fixture, issuer: &Issuer, now: Timestamp, claims: &mut Map<String, Value>) {
    let mapping = &issuer.mapping;
    let names = |list: &Option<Vec<crate::diagnostic::Spanned<String>>>| -> Option<Vec<String>> {
        list.as_ref().map(|names| names.iter().map(|name| name.value.clone()).collect())
    };
    let text = |text: &Option<crate::diagnostic::Spanned<String>>| text.as_ref().map(|text| json!(text.value));
    for (paths, value) in [
        (&mapping.id, text(&fixture.id)),
        (&mapping.email, text(&fixture.email)),
        (&mapping.name, text(&fixture.name)),
        (&mapping.tenant, text(&fixture.tenant)),
        (&mapping.roles, names(&fixture.roles).map(|names| json!(names))),
        (&mapping.scopes, names(&fixture.scopes).map(|names| json!(names.join(" ")))),
        (&mapping.permissions, names(&fixture.permissions).map(|names| json!(names))),
    ] {
        if let (Some(path), Some(value)) = (paths.first(), value) {
            put(claims, path, value);
        }
    }
    if fixture.mfa == Some(true) {
        match issuer.preset {
            Preset::Supabase => claims.insert("aal".into(), json!("aal2")),
            _ => claims.insert("amr".into(), json!(["pwd", "mfa"])),
        };
    }
    if let (Some(age), AuthTime::At(paths)) = (fixture.auth_age, &mapping.auth_time)
        && let Some(path) = paths.first()
    {
        put(claims, path, json!(now.minus(age).as_seconds()));
    }
    for (name, value) in &fixture.claims {
        claims.insert(name.clone(), value.clone());
    }
}

fn put(claims: &mut Map<String, Value>, path: &ClaimPath, value: Value) {
    let segments: Vec<&str> = path.segments().collect();
    let Some((last, parents)) = segments.split_last() else { return };
    let mut at = claims;
    for segment in parents {
        let inner = at.entry((*segment).to_owned()).or_insert_with(|| json!({}));
        let Value::Object(object) = inner else { return };
        at = object;
    }
    at.insert((*last).to_owned(), value);
}

/// Whether a host is this machine.
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn short(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        seconds if seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}
