//! `explain`: why is this request allowed or refused?

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, ValueEnum};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::clock::{Clock as _, Timestamp};
use crate::config::Environment;
use crate::decision::cases;
use crate::decision::explain::explain;
use crate::decision::facts;
use crate::decision::{Presented, Question};
use crate::diagnostic::Sources;
use crate::identity::Transport;
use crate::identity::claims::Claims;
use crate::policy;
use crate::policy::document::Fixture;
use crate::policy::set::{HostPattern, Place, PolicySet};
use crate::reload::load::{self, load};
use crate::request::forwarded::ClientAddr;
use crate::request::head::RequestHead;
use crate::server::SystemClock;
use crate::token::verify::ExpectedIssuer;

use super::exit::Exit;
use super::{Global, Terminal, broken};

/// Says why a request is allowed or refused
#[derive(Args, Debug)]
pub struct Arguments {
    /// The method
    #[arg(value_parser = method)]
    method: String,
    /// The path with its query, or a whole URL
    target: String,
    /// Who asks: a test identity of the policy, `anonymous` or `invalid`
    #[arg(long = "as", value_name = "NAME", group = "who")]
    fixture: Option<String>,
    /// Who asks: a token, a file that holds one (`@FILE`), or `-` for standard input
    #[arg(long, value_name = "TOKEN", group = "who")]
    token: Option<String>,
    /// Who asks: an identity as in `identities`, e.g. `{ id: u1, scopes: items:read }`
    #[arg(long, value_name = "IDENTITY", group = "who")]
    identity: Option<String>,
    /// Believe the token without checking it
    #[arg(long, requires = "token")]
    unverified: bool,
    /// The client's address
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<IpAddr>,
    /// The client's country
    #[arg(long, value_name = "CODE")]
    country: Option<String>,
    /// The time, e.g. `2026-11-22T09:00Z`; now if not given
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<Timestamp>,
    /// A header of the request (`Name: value`)
    #[arg(short = 'H', long = "header", value_name = "HEADER", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// A refusal makes the exit code 4
    #[arg(long)]
    exit_code: bool,
    /// How the explanation is shown
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// A method, in any case.
fn method(text: &str) -> Result<String, String> {
    let method = text.to_ascii_uppercase();
    http::Method::from_bytes(method.as_bytes()).map_err(|_| "not a method".to_owned())?;
    Ok(method)
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("like `Name: value`")?;
    let name = name.trim().parse().map_err(|_| "not a header name".to_owned())?;
    Ok((name, value.trim().parse().map_err(|_| "not a header value".to_owned())?))
}

/// `2026-11-22T09:00Z`, seconds and offset optional.
fn moment(text: &str) -> Result<Timestamp, String> {
    let with_seconds = text.strip_suffix('Z').map(|rest| format!("{rest}:00Z"));
    let parsed = text.parse::<jiff::Timestamp>().ok().or_else(|| with_seconds?.parse().ok());
    let local =
        || text.parse::<jiff::civil::DateTime>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|z| z.timestamp());
    match parsed.or_else(local) {
        Some(at) => Ok(Timestamp::from_millis(at.as_millisecond())),
        None => Err("like `2026-11-22T09:00Z`".to_owned()),
    }
}

/// The request as a URL says it.
struct Asked {
    secure: bool,
    host: Option<String>,
    target: String,
}

fn asked(target: &str) -> Asked {
    for (scheme, secure) in [("https://", true), ("http://", false)] {
        if let Some(rest) = target.strip_prefix(scheme) {
            let at = rest.find(['/', '?']).unwrap_or(rest.len());
            let (host, path) = rest.split_at_checked(at).unwrap_or((rest, ""));
            let slash = if path.starts_with('/') { "" } else { "/" };
            return Asked { secure, host: Some(host.to_owned()), target: format!("{slash}{path}") };
        }
    }
    Asked { secure: false, host: None, target: target.to_owned() }
}

impl Arguments {
    /// Runs the command.
    pub fn run(&self, global: &Global, terminal: Terminal, environment: &Environment) -> Result<Exit, Exit> {
        let folder = global.folder(terminal, environment)?;
        // Only a token needs keys.
        let verifies = self.token.is_some() && !self.unverified;
        let options = load::Options {
            environment: verifies.then_some(environment),
            tests: false,
            test_gate: false,
            ..load::Options::check()
        };
        let loaded = load(&folder, &options);
        let Some(candidate) = loaded.candidate.filter(|_| !verifies || loaded.tested.is_some()) else {
            return Err(broken(terminal, &loaded.diagnostics, &loaded.sources));
        };
        let policy = candidate.policy();
        let now = self.at.unwrap_or_else(|| SystemClock.now());
        let (presented, who, place) = match self.presented(policy, now) {
            Ok(presented) => presented,
            Err(message) => {
                terminal.err(format_args!("error: {message}\n"));
                return Err(Exit::Usage);
            }
        };
        let asked = asked(&self.target);
        let mut headers: HeaderMap = self.headers.iter().cloned().collect();
        if !headers.contains_key(http::header::HOST) {
            let host = asked.host.unwrap_or_else(|| usual_host(policy));
            match HeaderValue::from_str(&host) {
                Ok(host) => drop(headers.insert(http::header::HOST, host)),
                Err(_) => {
                    terminal.err(format_args!("error: `{host}` is not a host\n"));
                    return Err(Exit::Usage);
                }
            }
        }
        let ip = self.ip.unwrap_or(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)));
        let head = RequestHead::new(&self.method, &asked.target, &headers).secure(asked.secure).peer(ip);
        let question = Question {
            policy,
            head: &head,
            client: ClientAddr::new(ip),
            country: self.country.as_deref(),
            presented,
            now,
            environment: if verifies { facts::Environment::Resolved } else { facts::Environment::Test },
        };
        let explanation = explain(&question, (&who, place.as_ref()));
        match self.format {
            Format::Text => terminal.out(explanation.to_text()),
            Format::Json => {
                terminal.out(format_args!("{}\n", serde_json::to_string_pretty(&explanation).unwrap_or_default()))
            }
        }
        Ok(if self.exit_code && explanation.decision != "allow" { Exit::Denied } else { Exit::Fine })
    }

    /// Who asks, what to call them, and where they are written.
    fn presented(&self, policy: &Arc<PolicySet>, now: Timestamp) -> Result<(Presented, String, Option<Place>), String> {
        if let Some(token) = &self.token {
            let token = token_text(token)?;
            return if self.unverified { unverified(policy, &token) } else { Ok(verified(policy, &token, now)) };
        }
        if let Some(text) = &self.identity {
            let fixture = given(text)?;
            return Ok((stated(policy, &fixture, now)?, "given".to_owned(), None));
        }
        match self.fixture.as_deref() {
            None | Some("anonymous") => Ok((Presented::Nothing, "anonymous".to_owned(), None)),
            Some("invalid") => Ok((Presented::Invalid("invalid".to_owned()), "invalid".to_owned(), None)),
            Some(name) => {
                let found = policy.fixtures.iter().find(|fixture| fixture.name.value == name).ok_or_else(|| {
                    let names: Vec<&str> = policy.fixtures.iter().map(|f| f.name.value.as_str()).collect();
                    format!("no test identity `{name}`; there are: {}", names.join(", "))
                })?;
                let place = Place::of(&policy.sources, found.name.span);
                Ok((stated(policy, &found.value, now)?, name.to_owned(), Some(place)))
            }
        }
    }
}

/// A host that the policy answers on: `localhost`, unless every app names hosts.
fn usual_host(policy: &PolicySet) -> String {
    let named = |hosts: &Vec<String>| {
        hosts.iter().find(|host| matches!(HostPattern::new(host), HostPattern::Exact(_))).cloned()
    };
    if policy.apps.iter().any(|app| app.hosts.is_empty()) {
        return "localhost".to_owned();
    }
    policy.apps.iter().find_map(|app| named(&app.hosts)).unwrap_or_else(|| "localhost".to_owned())
}

fn stated(policy: &PolicySet, fixture: &Fixture, now: Timestamp) -> Result<Presented, String> {
    let identity = cases::identity(policy, fixture, now).map_err(|error| error.to_string())?;
    Ok(Presented::Identity(Arc::new(identity)))
}

fn token_text(argument: &str) -> Result<String, String> {
    let text = match argument.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?,
        None if argument == "-" => {
            let mut text = String::new();
            let read = std::io::stdin().lock().take(64 * 1024).read_to_string(&mut text);
            read.map_err(|error| format!("cannot read standard input: {error}"))?;
            text
        }
        None => argument.to_owned(),
    };
    let text = text.trim();
    Ok(text.strip_prefix("Bearer ").unwrap_or(text).to_owned())
}

fn verified(policy: &PolicySet, token: &str, now: Timestamp) -> (Presented, String, Option<Place>) {
    let (verifier, no_keys) = super::token::verifier_without_store(policy, token);
    match verifier.verify(token, now) {
        Ok(token) => {
            let identity = token.identity(Transport::Bearer);
            let expires = token.expires().map_or_else(String::new, |at| format!(" · expires in {}", until(now, at)));
            let algorithm = token.algorithm().map_or_else(String::new, |algorithm| algorithm.to_string());
            let who = format!("token · {algorithm}{expires}");
            (Presented::Identity(Arc::new(identity)), who, None)
        }
        Err(error) => {
            let why = no_keys.map_or_else(String::new, |why| format!(" ({why})"));
            (Presented::Invalid(error.name().to_owned()), format!("token · {error}{why}"), None)
        }
    }
}

/// How long it is until then, in the largest unit that says something: `41m`.
fn until(now: Timestamp, then: Timestamp) -> String {
    let seconds = then.as_seconds().saturating_sub(now.as_seconds());
    match seconds {
        ..0 => "0s, within the leeway".to_owned(),
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The claims of a token that nobody checked.
fn unverified(policy: &PolicySet, token: &str) -> Result<(Presented, String, Option<Place>), String> {
    let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let claims = payload.and_then(|payload| Claims::parse(&payload).ok()).ok_or("this is not a JWT")?;
    let iss = claims.get("iss").and_then(|iss| iss.as_str());
    let mut rules = policy.verifier.issuers();
    let named = rules
        .find(|rules| matches!((&rules.issuer, iss), (ExpectedIssuer::Exact(exact), Some(iss)) if **exact == *iss));
    let rules = named
        .or_else(|| policy.verifier.issuers().find(|rules| rules.issuer == ExpectedIssuer::DangerAny))
        .or_else(|| policy.verifier.issuers().next())
        .ok_or("the policy names nobody who may sign tokens")?;
    let identity = rules.mapping.identity(claims, rules.name.clone(), Transport::Bearer, None);
    Ok((Presented::Identity(Arc::new(identity)), "token · NOT VERIFIED".to_owned(), None))
}

/// An identity written on the command line, read as in `identities`.
fn given(text: &str) -> Result<Fixture, String> {
    let mut sources = Sources::default();
    sources.add("--identity", &format!("version: 1\nidentities: {{ given: {text} }}\n"));
    let (mut document, diagnostics) = policy::read(&sources);
    if let Some(error) = diagnostics.iter().find(|diagnostic| diagnostic.is_error()) {
        return Err(format!("--identity: {}", error.message));
    }
    document.identities.pop().map(|definition| definition.value).ok_or_else(|| "--identity: nothing there".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_and_moments_are_read() {
        let check = |text, secure, host: Option<&str>, target| {
            let asked = asked(text);
            assert_eq!((asked.secure, asked.host.as_deref(), asked.target.as_str()), (secure, host, target));
        };
        check("/items?x=1", false, None, "/items?x=1");
        check("https://api.example/v1?q", true, Some("api.example"), "/v1?q");
        check("http://api.example", false, Some("api.example"), "/");
        check("http://api.example?q", false, Some("api.example"), "/?q");
        for text in ["2026-11-22T09:00Z", "2026-11-22T09:00:00Z", "2026-11-22T10:00:00+01:00", "2026-11-22T09:00"] {
            assert_eq!(moment(text).map(Timestamp::as_seconds), Ok(1_795_338_000), "{text}");
        }
        assert!(moment("tomorrow").is_err());
        assert_eq!(method("get"), Ok("GET".to_owned()));
        assert!(method("G T").is_err());
        for (seconds, text) in
            [(-3, "0s, within the leeway"), (59, "59s"), (1_800, "30m"), (7_200, "2h"), (864_000, "10d")]
        {
            assert_eq!(until(Timestamp::from_millis(0), Timestamp::from_millis(seconds * 1_000)), text);
        }
    }
}
