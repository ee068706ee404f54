//! `token revoke`: tokens that are refused from now on.

use std::time::Duration;

use clap::{ArgGroup, Args};

use crate::clock::{Clock as _, Timestamp};
use crate::config::{Config, Environment};
use crate::diagnostic::suggest::closest;
use crate::policy::set::PolicySet;
use crate::server::SystemClock;
use crate::store::{EndedBy, Revocation, Revoked};
use crate::token::error::TokenError;

use super::super::exit::Exit;
use super::super::stores::{self, Issuers, Opened, moment, printable};
use super::super::{Global, Terminal};
use super::Keyed;

/// How long a token without end is remembered.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Has tokens refused from now on
///
/// Running gateways on the same store refuse them within a second. A token is revoked by its `jti`, a session (`--sid`)
/// with all its tokens, a user (`--sub`) by when tokens were issued: later ones are good.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("which").required(true).multiple(false).args(["token", "jti", "sid", "sub"])))]
pub struct Revoke {
    /// The token, a file that holds one (`@FILE`), or `-` for standard input; a refresh token ends its session
    token: Option<String>,
    /// The token with this `jti`
    #[arg(long, value_name = "ID")]
    jti: Option<String>,
    /// The session with this `sid`, and its tokens
    #[arg(long, value_name = "ID")]
    sid: Option<String>,
    /// All tokens of this `sub` that were issued so far; its sessions go on
    #[arg(long, value_name = "ID")]
    sub: Option<String>,
    /// The issuer in the policy; all whose tokens the gateway gives out if it is not given
    #[arg(long, value_name = "NAME", conflicts_with = "token")]
    issuer: Option<String>,
    /// How long this is remembered: as long as such tokens live
    #[arg(long = "for", value_name = "DURATION", conflicts_with = "token", value_parser = super::duration)]
    lives: Option<Duration>,
}

impl Revoke {
    /// Runs the command.
    pub fn run(&self, global: &Global, terminal: Terminal, environment: &Environment) -> Result<Exit, Exit> {
        let config = stores::settings(global, terminal, environment)?;
        match &self.token {
            Some(argument) => token(argument, global, &config, terminal, environment),
            None => self.by_id(global, &config, terminal),
        }
    }

    fn by_id(&self, global: &Global, config: &Config, terminal: Terminal) -> Result<Exit, Exit> {
        let beside = stores::Beside::load(global, config);
        let policy = beside.needed(terminal)?;
        let issuers = Issuers::of(Some(policy));
        let opened = Opened::to_write(config, terminal)?;
        let (what, id) = match (&self.jti, &self.sid, &self.sub) {
            (Some(jti), _, _) => ("token", jti),
            (_, Some(sid), _) => ("session", sid),
            (_, _, Some(sub)) => ("tokens of", sub),
            (None, None, None) => return Err(Exit::Usage),
        };
        let session = match what {
            "session" => opened.run(opened.stores.sessions.get(id))?,
            _ => None,
        };
        let names: Vec<String> = match (&self.issuer, &session) {
            (Some(name), _) => vec![known_issuer(name, policy, terminal)?],
            (None, Some(session)) => vec![session.issuer.clone()],
            (None, None) => issuers.names().map(str::to_owned).collect(),
        };
        if names.is_empty() {
            terminal.err("error: the policy has no issuer whose tokens the gateway gives out: --issuer NAME\n");
            return Err(Exit::Found);
        }
        let before = if what == "tokens of" { stores::turn_of_second() } else { SystemClock.now() };
        let now = SystemClock.now();
        let revocations: Vec<Revocation> = names
            .iter()
            .map(|issuer| Revocation {
                issuer: issuer.clone(),
                revoked: match what {
                    "token" => Revoked::Token(id.clone()),
                    "session" => Revoked::Session(id.clone()),
                    _ => Revoked::Subject(id.clone(), before),
                },
                until: self.lives.map_or_else(|| issuers.until(issuer, now), |lives| now.plus(lives)),
            })
            .collect();
        opened.run(stores::revoke(&opened.stores, &revocations, now))?;
        if session.is_some() {
            opened.run(opened.stores.sessions.end(id, EndedBy::Operator, now))?;
        }
        let until = revocations.iter().map(|revocation| revocation.until).max().unwrap_or(now);
        let shown = printable(id);
        let more = match what {
            "session" if session.is_none() => " · no such session in the store: only its tokens are refused",
            "tokens of" => " · sessions go on: `portcullis session revoke --user` ends them",
            _ => "",
        };
        done(terminal, &format!("{what} {shown}"), &names.join(", "), until, more);
        Ok(Exit::Fine)
    }
}

fn done(terminal: Terminal, what: &str, issuers: &str, until: Timestamp, more: &str) {
    terminal.out(format_args!("revoked {what} · issuer {issuers} · remembered until {} UTC{more}\n", moment(until)));
}

fn known_issuer(name: &str, policy: &PolicySet, terminal: Terminal) -> Result<String, Exit> {
    if policy.issuers.iter().any(|issuer| issuer.name.as_str() == name) {
        return Ok(name.to_owned());
    }
    let names: Vec<&str> = policy.issuers.iter().map(|issuer| issuer.name.as_str()).collect();
    let hint = match closest(name, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", names.join(", ")),
    };
    terminal.err(format_args!("error: no issuer `{}` in the policy: {hint}\n", printable(name)));
    Err(Exit::Found)
}

fn token(
    argument: &str,
    global: &Global,
    config: &Config,
    terminal: Terminal,
    environment: &Environment,
) -> Result<Exit, Exit> {
    let token = super::given(argument, terminal)?;
    let fail = |why: &str| {
        terminal.err(format_args!("error: {why}\n"));
        Exit::Found
    };
    let now = SystemClock.now();
    if let Some(hash) = super::refresh_hash(&token) {
        let opened = Opened::open(config, terminal, stores::Access::Read)?;
        let session = match &opened {
            Some(opened) => opened.run(opened.stores.sessions.of_token(&hash))?.map(|session| (opened, session)),
            None => None,
        };
        let Some((opened, session)) = session else { return Err(fail("nobody gave out this refresh token")) };
        let until = now.plus(FOREVER).min(Issuers::of(None).until(&session.issuer, now));
        let revocation =
            Revocation { issuer: session.issuer.clone(), revoked: Revoked::Session(session.id.clone()), until };
        opened.run(stores::revoke(&opened.stores, &[revocation], now))?;
        opened.run(opened.stores.sessions.end(&session.id, EndedBy::Revoked, now))?;
        done(terminal, &format!("session {}", session.id), &session.issuer, until, "");
        return Ok(Exit::Fine);
    }
    let keyed = Keyed::load(global, terminal, environment)?;
    let policy = keyed.policy(terminal)?;
    let opened = Opened::to_write(config, terminal)?;
    // Only a token that is good names what may be refused: anybody can write one with another's `jti`.
    let verified = match super::verifier(policy, Some(&opened), &token)?.0.verify(&token, now) {
        Ok(verified) => verified,
        Err(TokenError::Expired) => {
            terminal.out("the token has expired already: it is refused anyway\n");
            return Ok(Exit::Fine);
        }
        Err(error) => return Err(fail(&format!("the token is refused anyway: {error}"))),
    };
    let text = |name: &str| verified.claims().get(name).and_then(serde_json::Value::as_str);
    let Some(jti) = text("jti") else {
        let others: Vec<String> =
            ["sid", "sub"].iter().filter_map(|name| Some(format!("--{name} {}", printable(text(name)?)))).collect();
        return Err(fail(&format!("the token has no `jti` to know it by; instead: {}", others.join(" or "))));
    };
    let leeway = policy.verifier.leeway(verified.issuer());
    let until = verified.expires().map_or_else(|| now.plus(FOREVER), |expires| expires.plus(leeway));
    let issuer = verified.issuer().as_str().to_owned();
    let revocation = Revocation { issuer: issuer.clone(), revoked: Revoked::Token(jti.to_owned()), until };
    opened.run(stores::revoke(&opened.stores, &[revocation], now))?;
    let more = match text("sid") {
        Some(sid) => format!(" · its session goes on: `portcullis session revoke {}` ends it", printable(sid)),
        None => String::new(),
    };
    done(terminal, &format!("token {}", printable(jti)), &issuer, until, &more);
    Ok(Exit::Fine)
}
