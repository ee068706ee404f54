//! Who may sign tokens, and whether their keys can be had.

use std::time::Duration;

use serde_json::Value;

use crate::config::Environment;
use crate::diagnostic::Code;
use crate::fetch::Fetcher;
use crate::issuer::max_age;
use crate::policy::document::{Definition, Issuer, Preset, Source, Waivable};
use crate::policy::issuer::KeysAt;
use crate::policy::set::{self, PolicySet};
use crate::provider::Discovery;
use crate::token::algorithm::AlgorithmSet;
use crate::token::jwks::{Jwks, Origin};
use crate::token::verify::IssuerKeys;

use super::report::{Finding, Level, Section};
use super::{Looked, Named, World};

const SECTION: Section = Section::Keys;
/// Key sets and discovery documents are smaller than this.
const MOST: usize = 1024 * 1024;

/// What needs no network. What is wrong with a secret is said where the variable is looked at, and not here again.
pub(super) fn look(world: &World, environment: &[Finding]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let said =
        environment.iter().any(|finding| finding.level == Level::Problem && finding.section == Section::Environment);
    for diagnostic in world.live.diagnostics.iter().filter(|diagnostic| diagnostic.is_error()) {
        // Variables and files are looked at elsewhere, and so is what `check` finds without them.
        let known = world
            .checked
            .diagnostics
            .iter()
            .any(|other| (other.code, other.primary.span) == (diagnostic.code, diagnostic.primary.span));
        if known || matches!(diagnostic.code, Code::P406 | Code::P407) || (said && diagnostic.code == Code::P402) {
            continue;
        }
        let place = world.live.sources.place(diagnostic.primary.span);
        let message = format!("{} ({place})", diagnostic.message);
        let mut finding = Finding::problem(SECTION, diagnostic.code.as_str(), "key", message);
        finding.help = diagnostic.help.first().cloned();
        findings.push(finding);
    }
    let Some(policy) = world.live.candidate.as_ref().map(|candidate| candidate.policy()) else { return findings };
    for rules in policy.verifier.issuers() {
        let own = policy.issuer(&rules.name);
        match &rules.keys {
            IssuerKeys::Known(keys) => {
                let number = crate::cli::terminal::count(keys.iter().count(), "key");
                let what = match own.map(|issuer| issuer.local.is_some()) {
                    Some(true) => "signs and verifies",
                    _ => "verifies",
                };
                let message = format!("{what} with {number} ({})", names(keys.algorithms()));
                findings.push(Finding::fine(SECTION, rules.name.as_str(), message));
            }
            IssuerKeys::Unavailable => {
                let managed = own.and_then(|issuer| issuer.local.as_ref()).and_then(|local| local.managed);
                if let Some(algorithm) = managed {
                    let message = format!("signs with keys that the gateway makes and keeps ({algorithm})");
                    findings.push(Finding::fine(SECTION, rules.name.as_str(), message));
                } else if world.offline {
                    let message = "keys come over the network: not looked at (--offline)";
                    findings.push(Finding::skipped(SECTION, rules.name.as_str(), message));
                }
            }
        }
    }
    findings
}

/// One task for each issuer whose keys are published.
pub(super) fn tasks(world: &World, fetcher: &Fetcher) -> Vec<Named> {
    let Some(document) = world.document() else { return Vec::new() };
    let mut all: Vec<Asked> = match world.live.candidate.as_ref().map(|candidate| candidate.policy()) {
        Some(policy) => policy.issuers.iter().filter_map(|issuer| Asked::as_served(policy, issuer)).collect(),
        None => Vec::new(),
    };
    // What does not load as a whole is looked at as far as it says where its keys are.
    for definition in &document.issuers {
        if !all.iter().any(|asked| asked.issuer == definition.name.value) {
            all.extend(Asked::of(definition, &world.environment));
        }
    }
    if let Some(url) = world.environment.get("SUPABASE_URL").filter(|_| all.is_empty() && document.issuers.is_empty()) {
        all.push(Asked::supabase("supabase", url, world.environment.get("SUPABASE_JWT_SECRET").is_some()));
    }
    let task = |asked: Asked| -> Named {
        let fetcher = fetcher.clone();
        (format!("keys of {}", asked.issuer), Box::pin(async move { asked.look(&fetcher).await }))
    };
    all.into_iter().map(task).collect()
}

/// Where an issuer's keys are asked for.
struct Asked {
    issuer: String,
    place: Place,
    algorithms: AlgorithmSet,
    /// A secret of the same issuer is configured too.
    secret: bool,
}

enum Place {
    Jwks(String),
    /// The `issuer`, whose discovery document names the key set.
    Discovery(String),
}

impl Asked {
    /// As the gateway itself asks.
    fn as_served(policy: &PolicySet, issuer: &set::Issuer) -> Option<Self> {
        let remote = issuer.remote.as_ref()?;
        let rules = policy.verifier.issuers().find(|rules| rules.name == issuer.name);
        Some(Self {
            issuer: issuer.name.as_str().to_owned(),
            place: match &remote.at {
                KeysAt::Url(url) => Place::Jwks(url.to_string()),
                KeysAt::Discovery(issuer) => Place::Discovery(issuer.to_string()),
            },
            algorithms: remote.algorithms,
            secret: rules.is_some_and(|rules| matches!(rules.keys, IssuerKeys::Known(_))),
        })
    }

    fn of(definition: &Definition<Issuer>, environment: &Environment) -> Option<Self> {
        let settings = &definition.value;
        let issuer = definition.name.value.clone();
        let algorithms = settings.algorithms.iter().filter_map(|name| name.value.parse().ok()).collect();
        if settings.preset.value == Preset::Supabase {
            let url = match settings.url.as_ref().map(|url| &url.value) {
                Some(Source::Literal(url)) => url.as_str(),
                Some(Source::Env(name)) => environment.get(name)?,
                Some(Source::File(_)) => return None,
                None => environment.get("SUPABASE_URL")?,
            };
            let secret = !settings.secrets.is_empty() || environment.get("SUPABASE_JWT_SECRET").is_some();
            return Some(Self::supabase(&issuer, url, secret));
        }
        let place = match (&settings.jwks_url, &settings.issuer) {
            (Some(url), _) => match &url.value {
                Source::Literal(url) => Place::Jwks(url.clone()),
                Source::Env(name) => Place::Jwks(environment.get(name)?.to_owned()),
                Source::File(_) => return None,
            },
            (None, Some(stated)) if !matches!(settings.preset.value, Preset::Local | Preset::Jwt) => {
                match &stated.value {
                    Waivable::Required(issuer) => Place::Discovery(issuer.clone()),
                    Waivable::Waived => return None,
                }
            }
            _ => return None,
        };
        Some(Self { issuer, place, algorithms, secret: !settings.secrets.is_empty() })
    }

    fn supabase(issuer: &str, url: &str, secret: bool) -> Self {
        let place = Place::Jwks(format!("{}/auth/v1/.well-known/jwks.json", url.trim_end_matches('/')));
        Self { issuer: issuer.to_owned(), place, algorithms: AlgorithmSet::default(), secret }
    }

    async fn look(&self, fetcher: &Fetcher) -> Looked {
        let mut looked = Looked::default();
        match self.keys(fetcher, &mut looked).await {
            Ok(message) => {
                looked.findings.push(Finding::fine(SECTION, &self.issuer, message));
                if self.secret {
                    let message = "a legacy HS256 secret is configured beside published keys";
                    let finding = Finding::warning(SECTION, "legacy_secret", &self.issuer, message);
                    looked.findings.push(finding.help("remove it when the last token that it signed has expired"));
                }
            }
            Err(Trouble { code: "no_keys", .. }) if self.secret => {
                let message = "publishes no keys; its tokens are verified with the HS256 secret";
                looked.findings.push(Finding::fine(SECTION, &self.issuer, message));
            }
            Err(Trouble { code, message, help }) => {
                let mut finding = Finding::problem(SECTION, code, &self.issuer, message);
                finding.help = help;
                looked.findings.push(finding);
            }
        }
        looked
    }

    async fn keys(&self, fetcher: &Fetcher, looked: &mut Looked) -> Result<String, Trouble> {
        let url = match &self.place {
            Place::Jwks(url) => url.clone(),
            Place::Discovery(issuer) => {
                let url = Discovery::url(issuer);
                let (body, _, _) = self.document(fetcher, &url, looked).await?;
                let document: Value = serde_json::from_slice(&body)
                    .map_err(|_| Trouble::new("discovery", format!("{url}  is not JSON")))?;
                let text = |name: &str| document.get(name).and_then(Value::as_str);
                if text("issuer") != Some(issuer) {
                    let says = text("issuer").unwrap_or("nothing");
                    let message = format!("{url}  names the issuer {says:?}, not {issuer:?}");
                    return Err(Trouble::new("issuer_mismatch", message)
                        .help("write `issuer` exactly as the provider does, the slash at the end included"));
                }
                let read = Discovery::parse(issuer, &body).and_then(|found| found.keys().map(str::to_owned));
                read.map_err(|error| Trouble::new("discovery", format!("{url}  {error}")))?
            }
        };
        let (body, took, cache) = self.document(fetcher, &url, looked).await?;
        let none = serde_json::from_slice::<Value>(&body)
            .is_ok_and(|document| document.get("keys").and_then(Value::as_array).is_some_and(Vec::is_empty));
        if none {
            return Err(Trouble::new("no_keys", format!("{url}  holds no keys")));
        }
        let jwks = Jwks::parse(&body, Origin::Published, self.algorithms).map_err(|problems| {
            let problems: Vec<String> = problems.iter().take(3).map(ToString::to_string).collect();
            Trouble::new("jwks", format!("{url}  {}", problems.join("; ")))
        })?;
        let number = crate::cli::terminal::count(jwks.keys.iter().count(), "key");
        let mut message = format!("JWKS 200 in {} ms · {number} ({})", took.as_millis(), names(jwks.keys.algorithms()));
        if let Some(age) = cache {
            message.push_str(&format!(" · cache {} min", age.as_secs() / 60));
        }
        for problem in &jwks.ignored {
            let finding = Finding::warning(SECTION, "key_left_out", &self.issuer, format!("not used: {problem}"));
            looked.findings.push(finding);
        }
        Ok(message)
    }

    async fn document(
        &self,
        fetcher: &Fetcher,
        url: &str,
        looked: &mut Looked,
    ) -> Result<(bytes::Bytes, Duration, Option<Duration>), Trouble> {
        if let Some(rest) = url.strip_prefix("http://")
            && !crate::cli::token::is_loopback(host(rest))
        {
            let message = format!("{url}  is not https: whoever is on the way can put in a key");
            return Err(Trouble::new("plain_http", message));
        }
        let fetched = fetcher.get(url, MOST).await.map_err(|error| {
            let trouble = Trouble::new("unreachable", format!("{url}  {error}"));
            match error {
                crate::fetch::FetchError::Certificate(_) => Trouble { code: "certificate", ..trouble },
                _ => trouble,
            }
        })?;
        looked.clock(&self.issuer, &fetched, true);
        if fetched.status != http::StatusCode::OK {
            let redirect = if fetched.status.is_redirection() { ", and redirects are not followed" } else { "" };
            return Err(Trouble::new("unreachable", format!("{url}  answers {}{redirect}", fetched.status.as_u16())));
        }
        Ok((fetched.body, fetched.took, max_age(&fetched.headers)))
    }
}

/// The host of what follows `http://`.
fn host(rest: &str) -> &str {
    let authority = rest.split(['/', '?']).next().unwrap_or("");
    match authority.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((inner, _)) => inner,
        None => authority.split(':').next().unwrap_or(""),
    }
}

/// Why keys cannot be had.
struct Trouble {
    code: &'static str,
    message: String,
    help: Option<String>,
}

impl Trouble {
    fn new(code: &'static str, message: String) -> Self {
        Self { code, message, help: None }
    }

    fn help(mut self, help: &str) -> Self {
        self.help = Some(help.to_owned());
        self
    }
}

fn names(algorithms: AlgorithmSet) -> String {
    algorithms.iter().map(|algorithm| algorithm.as_str()).collect::<Vec<_>>().join(", ")
}
