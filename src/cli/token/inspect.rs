//! `token inspect`: what a token says, and what each check says to it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use crate::clock::{Clock as _, Timestamp};
use crate::config::Environment;
use crate::identity::Transport;
use crate::identity::claims::seconds;
use crate::policy::set::{Admission, PolicySet};
use crate::server::SystemClock;
use crate::store::Session;
use crate::store::revoked::RevokedList;
use crate::token::compact::Compact;
use crate::token::fingerprint::Fingerprint;
use crate::token::verify::{ExpectedAudience, ExpectedIssuer, Expiry, IssuerKeys, IssuerRules, Verifier};

use super::super::exit::Exit;
use super::super::stores::{self, Access, Opened, moment, printable};
use super::super::{Global, Terminal};
use super::Keyed;

/// Shows what a token says, and what each check says to it
///
/// The policy decides as it would for a request, with the environment's keys. Exit code 1: the token would be refused.
/// Refresh tokens are looked up in the store. The token itself is not printed.
#[derive(Args, Debug)]
pub struct Inspect {
    /// The token, a file that holds one (`@FILE`), or `-` for standard input
    token: String,
    /// How it is shown
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// What one check says.
struct Check {
    name: &'static str,
    /// `None`: it could not be asked.
    passed: Option<bool>,
    detail: String,
}

impl Check {
    fn passed(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, passed: Some(true), detail: detail.into() }
    }

    fn failed(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, passed: Some(false), detail: detail.into() }
    }

    fn unknown(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, passed: None, detail: detail.into() }
    }
}

/// All that is found out.
struct Findings {
    header: Option<Value>,
    claims: Option<Map<String, Value>>,
    checks: Vec<Check>,
    /// The identity, or why there is none.
    verdict: Result<String, String>,
}

impl Inspect {
    /// Runs the command.
    pub fn run(&self, global: &Global, terminal: Terminal, environment: &Environment) -> Result<Exit, Exit> {
        let token = super::given(&self.token, terminal)?;
        let config = stores::settings(global, terminal, environment)?;
        let opened = Opened::open(&config, terminal, Access::Read)?;
        let now = SystemClock.now();
        if let Some(hash) = super::refresh_hash(&token) {
            let session = match &opened {
                Some(opened) => opened.run(opened.stores.sessions.of_token(&hash))?,
                None => None,
            };
            return Ok(self.refresh(session, terminal, now));
        }
        let keyed = Keyed::load(global, terminal, environment)?;
        let policy = keyed.policy(terminal)?;
        let (verifier, why) = super::verifier(policy, opened.as_ref(), &token)?;
        let findings = findings(&token, policy, (&verifier, why.as_deref()), opened.as_ref(), now)?;
        let exit = if findings.verdict.is_ok() { Exit::Fine } else { Exit::Found };
        let fingerprint = Fingerprint::of(&token);
        let short: String = fingerprint.as_bytes().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        match self.format {
            Format::Json => terminal.out(format_args!("{}\n", findings.json(&short))),
            Format::Text => terminal.out(findings.text(token.len(), &short, now)),
        }
        Ok(exit)
    }

    fn refresh(&self, session: Option<Session>, terminal: Terminal, now: Timestamp) -> Exit {
        let live = session.as_ref().is_some_and(|session| session.is_live(now));
        if self.format == Format::Json {
            let object = json!({
                "kind": "refresh token",
                "accepted": live,
                "session": session.as_ref().map(|session| &session.id),
                "sub": session.as_ref().map(|session| &session.user),
            });
            terminal.out(format_args!("{object}\n"));
        } else {
            let line = match &session {
                None => "nobody gave it out, or its session ended long ago".to_owned(),
                Some(session) => format!("session {} of user {}: {}", session.id, session.user, state(session, now)),
            };
            terminal.out(format_args!(" refresh token\n {} {line}\n", if live { '✓' } else { '✗' }));
        }
        if live { Exit::Fine } else { Exit::Found }
    }
}

fn state(session: &Session, now: Timestamp) -> String {
    match session.ended {
        Some((at, by)) => format!("ended {} (by {by:?})", moment(at)).to_lowercase(),
        None if session.is_live(now) => format!("live until {}", moment(session.expires)),
        None => format!("expired {}", moment(session.expires)),
    }
}

/// The parts of a token as they are, whatever they are worth.
fn parts(token: &str) -> (Option<Value>, Option<Map<String, Value>>) {
    let decode = |part: Option<&str>| -> Option<Value> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part?.trim_end_matches('=')).ok()?).ok()
    };
    let mut parts = token.split('.');
    let header = decode(parts.next());
    let claims = match decode(parts.next()) {
        Some(Value::Object(claims)) => Some(claims),
        _ => None,
    };
    (header.filter(Value::is_object), claims)
}

fn findings(
    token: &str,
    policy: &PolicySet,
    (verifier, no_keys): (&Verifier, Option<&str>),
    opened: Option<&Opened>,
    now: Timestamp,
) -> Result<Findings, Exit> {
    let (header, claims) = parts(token);
    let mut checks = Vec::new();
    let compact = Compact::parse(token);
    match &compact {
        Ok(_) => checks.push(Check::passed("form", "a signed token")),
        Err(error) => checks.push(Check::failed("form", error.to_string())),
    }
    let rules = claims.as_ref().and_then(|claims| rules(claims, verifier));
    if let Some(claims) = &claims {
        checks.push(issuer(claims, rules, verifier));
    }
    if let (Some(rules), Ok(compact)) = (rules, &compact) {
        checks.push(signature(compact, rules, no_keys));
    }
    if let (Some(rules), Some(claims)) = (rules, &claims) {
        checks.push(audience(claims, rules));
        checks.push(time(claims, rules, now));
        checks.push(revoked(claims, rules, opened, now)?);
    }
    let verdict = match verifier.verify(token, now) {
        Err(error) => Err(format!("{error} ({})", error.name())),
        Ok(verified) => {
            let admission = policy.issuer(verified.issuer()).map(|issuer| issuer.admit(verified.claims()));
            let was_revoked = checks.iter().any(|check| check.name == "revoked" && check.passed == Some(false));
            match admission {
                _ if was_revoked => Err("the token was revoked (token_revoked)".to_owned()),
                Some(Admission::Refused(why)) => Err(format!("the issuer's own rules ({why})")),
                Some(Admission::NoCredential) => Ok("no credential: the request counts as anonymous".to_owned()),
                Some(Admission::Accepted) | None => {
                    let identity = verified.identity(Transport::Bearer);
                    Ok(identity.id.known().map_or_else(|| "a caller without id".to_owned(), |id| id.to_string()))
                }
            }
        }
    };
    Ok(Findings { header, claims, checks, verdict })
}

/// The rules by which the gateway looks at the token.
fn rules<'v>(claims: &Map<String, Value>, verifier: &'v Verifier) -> Option<&'v IssuerRules> {
    let stated = claims.get("iss").and_then(Value::as_str);
    let exact = verifier
        .issuers()
        .find(|rules| matches!(&rules.issuer, ExpectedIssuer::Exact(exact) if Some(&**exact) == stated));
    exact.or_else(|| verifier.issuers().find(|rules| rules.issuer == ExpectedIssuer::DangerAny))
}

fn issuer(claims: &Map<String, Value>, rules: Option<&IssuerRules>, verifier: &Verifier) -> Check {
    let stated = claims.get("iss").map_or_else(|| "no `iss`".to_owned(), |iss| format!("iss {}", shown(iss)));
    match rules {
        Some(rules) => Check::passed("issuer", format!("{} · {stated}", rules.name)),
        None => {
            let known: Vec<&str> = verifier
                .issuers()
                .filter_map(|rules| match &rules.issuer {
                    ExpectedIssuer::Exact(issuer) => Some(&**issuer),
                    ExpectedIssuer::DangerAny => None,
                })
                .collect();
            Check::failed("issuer", format!("{stated} · the policy knows {}", known.join(", ")))
        }
    }
}

fn signature(compact: &Compact<'_>, rules: &IssuerRules, no_keys: Option<&str>) -> Check {
    let header = compact.header();
    let by = |kid: Option<&str>| match kid {
        Some(kid) => format!("{} by key {}", header.algorithm, printable(kid)),
        None => header.algorithm.to_string(),
    };
    match &rules.keys {
        IssuerKeys::Unavailable => {
            let why = no_keys.map_or_else(String::new, |why| format!(": {}", printable(why)));
            Check::unknown("signature", format!("the issuer's keys are not to be had{why}"))
        }
        IssuerKeys::Known(keys) => match keys.verify(compact, rules.algorithms) {
            Ok(key) => Check::passed("signature", by(key.kid().map(|kid| kid.as_str()))),
            Err(error) => Check::failed("signature", format!("{} · {error}", by(header.kid.as_deref()))),
        },
    }
}

fn audience(claims: &Map<String, Value>, rules: &IssuerRules) -> Check {
    let client = claims.get("client_id").filter(|_| matches!(rules.audience, ExpectedAudience::ClientOneOf(_)));
    let stated: Vec<&str> = match claims.get("aud").or(client) {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let list = printable(&stated.join(", "));
    match &rules.audience {
        ExpectedAudience::DangerAny => Check::passed("audience", format!("{list} · the policy takes any")),
        ExpectedAudience::OneOf(ours) | ExpectedAudience::ClientOneOf(ours)
            if ours.iter().any(|own| stated.contains(&&**own)) =>
        {
            Check::passed("audience", list)
        }
        ExpectedAudience::OneOf(ours) | ExpectedAudience::ClientOneOf(ours) => {
            let stated = if stated.is_empty() { "no `aud`".to_owned() } else { list };
            let ours: Vec<&str> = ours.iter().map(|own| &**own).collect();
            Check::failed("audience", format!("{stated} · the policy asks for {}", ours.join(" or ")))
        }
    }
}

fn time(claims: &Map<String, Value>, rules: &IssuerRules, now: Timestamp) -> Check {
    let at = |name: &str| claims.get(name).map(seconds);
    let leeway = rules.leeway;
    match at("exp") {
        Some(None) => return Check::failed("expiry", "`exp` is no time"),
        None if rules.expiry == Expiry::Required => return Check::failed("expiry", "no `exp`"),
        Some(Some(expires)) if now >= expires.plus(leeway) => {
            return Check::failed("expiry", format!("expired {} ago", span(now, expires)));
        }
        Some(Some(_)) | None => {}
    }
    for (name, what) in [("nbf", "not valid yet"), ("iat", "issued in the future")] {
        match at(name) {
            Some(None) => return Check::failed("expiry", format!("`{name}` is no time")),
            Some(Some(at)) if at > now.plus(leeway) => {
                return Check::failed("expiry", format!("{what}: in {}", span(at, now)));
            }
            Some(Some(_)) | None => {}
        }
    }
    match at("exp").flatten() {
        Some(expires) if expires <= now => Check::passed("expiry", "expired just now, within the leeway"),
        Some(expires) => Check::passed("expiry", format!("expires in {}", span(expires, now))),
        None => Check::passed("expiry", "never expires; the policy allows it"),
    }
}

/// The time between two moments, roughly.
fn span(later: Timestamp, earlier: Timestamp) -> String {
    match later.since(earlier).as_secs() {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7199 => format!("{} min", seconds / 60),
        seconds @ 7200..=172_799 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

fn revoked(
    claims: &Map<String, Value>,
    rules: &IssuerRules,
    opened: Option<&Opened>,
    now: Timestamp,
) -> Result<Check, Exit> {
    let Some(opened) = opened else { return Ok(Check::passed("revoked", "no · there is no store yet")) };
    let list = RevokedList::new(opened.stores.revocations.clone());
    opened.run(list.load(now))?;
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let issued = claims.get("iat").and_then(seconds).map(Timestamp::as_seconds);
    let (jti, sid, sub) = (text("jti"), text("sid"), text("sub"));
    let issuer = rules.name.as_str();
    for (what, jti, sid, sub) in [
        ("this token", jti, None, None),
        ("its session", None, sid, None),
        ("all older tokens of its user", None, None, sub),
    ] {
        if list.is_revoked(issuer, jti, sid, sub, issued) {
            return Ok(Check::failed("revoked", format!("yes: {what}")));
        }
    }
    Ok(match sid.map(|sid| opened.run(opened.stores.sessions.get(sid))).transpose()?.flatten() {
        Some(session) => Check::passed("revoked", format!("no · session {}", state(&session, now))),
        None => Check::passed("revoked", "no"),
    })
}

/// A value of a token as it may be printed.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => printable(text),
        value => printable(&value.to_string()),
    }
}

impl Findings {
    fn text(&self, length: usize, fingerprint: &str, now: Timestamp) -> String {
        let mut out = format!(" token      {length} characters · sha256 {fingerprint}…\n");
        let mut section = |title: &str, members: Option<&Map<String, Value>>| match members {
            None => out.push_str(&format!(" {title:10} cannot be read\n")),
            Some(members) => {
                out.push_str(&format!(" {title}\n"));
                for (name, value) in members {
                    let time = matches!(name.as_str(), "exp" | "iat" | "nbf" | "auth_time");
                    let when = match seconds(value) {
                        Some(at) if time && at > now => format!("  ({} UTC, in {})", moment(at), span(at, now)),
                        Some(at) if time => format!("  ({} UTC, {} ago)", moment(at), span(now, at)),
                        _ => String::new(),
                    };
                    out.push_str(&format!("   {:10} {}{when}\n", printable(name), shown(value)));
                }
            }
        };
        section("header", self.header.as_ref().and_then(Value::as_object));
        section("claims", self.claims.as_ref());
        out.push_str(" checks\n");
        for Check { name, passed, detail } in &self.checks {
            let mark = match passed {
                Some(true) => '✓',
                Some(false) => '✗',
                None => '?',
            };
            out.push_str(&format!("   {mark} {name:10} {detail}\n"));
        }
        match &self.verdict {
            Ok(who) => out.push_str(&format!(" accepted as {}\n", printable(who))),
            Err(why) => out.push_str(&format!(" refused: {why}\n")),
        }
        out
    }

    fn json(&self, fingerprint: &str) -> Value {
        let checks: Vec<Value> = self
            .checks
            .iter()
            .map(|check| json!({"check": check.name, "passed": check.passed, "detail": check.detail}))
            .collect();
        json!({
            "kind": "access token",
            "sha256": fingerprint,
            "header": self.header,
            "claims": self.claims,
            "checks": checks,
            "accepted": self.verdict.is_ok(),
            "why": self.verdict.as_ref().err(),
        })
    }
}
