//! `key`: the signing keys that the gateway makes and keeps (`signing_key: managed`). Private keys are never shown.

use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use crate::clock::{Clock as _, Timestamp};
use crate::config::{Config, Environment};
use crate::issuer::{ASSERTION, Issuers, RotateError, purpose};
use crate::policy::set::{Issuer, PolicySet};
use crate::server::{SystemClock, SystemRandom};
use crate::store::SigningKey;

use super::exit::Exit;
use super::stores::{self, Access, Beside, Opened, moment, printable, rfc3339, table};
use super::{Global, Terminal};

/// Signing keys that the gateway makes and keeps
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Lists the keys, oldest first for each issuer
    List(List),
    // The text is that of `Rotate`.
    Rotate(Rotate),
}

/// Makes new keys, although they are not due
///
/// A new key is published at once and signs a minute later, when everybody has it. The one before verifies until what it
/// signed has expired. Keys are rotated every 90 days without this.
#[derive(Args, Debug)]
pub struct Rotate {
    /// For this issuer only, or `assertion`: the key that signs what apps are told about the caller
    #[arg(long, value_name = "NAME")]
    purpose: Option<String>,
}

/// Lists the keys, oldest first for each issuer
#[derive(Args, Debug)]
pub struct List {
    /// How the list is shown; `json` is one object a line
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Command {
    /// Runs the command.
    pub fn run(&self, global: &Global, terminal: Terminal, environment: &Environment) -> Result<Exit, Exit> {
        let config = stores::settings(global, terminal, environment)?;
        match self {
            Self::List(list) => list.run(global, &config, terminal),
            Self::Rotate(rotate) => rotate.run(global, &config, terminal),
        }
    }
}

/// What keys are for: the names of issuers with managed keys, and of assertions; beside each what it is stored under.
fn purposes(policy: &PolicySet) -> Vec<(String, String)> {
    let managed = |issuer: &&Issuer| issuer.local.as_ref().is_some_and(|local| local.managed.is_some());
    let issuers = policy.issuers.iter().filter(managed);
    let issuers = issuers.map(|issuer| (issuer.name.as_str().to_owned(), purpose(&issuer.name)));
    issuers.chain([(ASSERTION.to_owned(), ASSERTION.to_owned())]).collect()
}

/// What a key does now; `newest` is the one that signs.
fn state(key: &SigningKey, newest: Option<&str>, now: Timestamp) -> String {
    match key.retired {
        Some(at) => format!("retired {}", moment(at)),
        None if key.signs > now => format!("signs from {}", moment(key.signs)),
        None if newest == Some(key.kid.as_str()) => "signs".to_owned(),
        None => "replaced".to_owned(),
    }
}

impl List {
    fn run(&self, global: &Global, config: &Config, terminal: Terminal) -> Result<Exit, Exit> {
        let Some(opened) = Opened::open(config, terminal, Access::Read)? else {
            stores::nothing_yet(config, terminal, "keys");
            return Ok(Exit::Fine);
        };
        let now = SystemClock.now();
        let mut rows = Vec::new();
        let beside = Beside::load(global, config);
        for (name, purpose) in purposes(beside.needed(terminal)?) {
            let keys = opened.run(opened.stores.keys.of(&purpose))?;
            let signing = keys.iter().rfind(|key| key.retired.is_none() && key.signs <= now);
            let signing = signing.map(|key| key.kid.as_str());
            for key in &keys {
                let state = state(key, signing, now);
                if self.format == Format::Json {
                    let object = json!({
                        "kid": key.kid,
                        "purpose": name,
                        "algorithm": key.algorithm,
                        "state": state,
                        "created": rfc3339(key.created),
                        "signs": rfc3339(key.signs),
                        "retired": key.retired.map(rfc3339),
                    });
                    terminal.out(format_args!("{object}\n"));
                }
                rows.push([key.kid.clone(), name.clone(), key.algorithm.clone(), moment(key.created), state]);
            }
        }
        if rows.is_empty() {
            terminal.err("no keys yet: the gateway makes one when it starts with `signing_key: managed`\n");
        } else if self.format == Format::Text {
            terminal.out(table(["KEY", "FOR", "ALGORITHM", "MADE (UTC)", "STATE"], &rows));
        }
        Ok(Exit::Fine)
    }
}

impl Rotate {
    fn run(&self, global: &Global, config: &Config, terminal: Terminal) -> Result<Exit, Exit> {
        let beside = Beside::load(global, config);
        let policy = beside.needed(terminal)?;
        let all = purposes(policy);
        let wanted: Vec<&(String, String)> = match &self.purpose {
            Some(wanted) => all.iter().filter(|(name, _)| name == wanted).collect(),
            None => all.iter().collect(),
        };
        let opened = Opened::to_write(config, terminal)?;
        let clock = Arc::new(SystemClock);
        let issuers = Issuers::new(Some(Arc::clone(&opened.stores.keys)), clock, Arc::new(SystemRandom));
        let mut done = 0;
        for (name, purpose) in wanted {
            match opened.wait(issuers.rotate(policy, purpose)) {
                // No app asks for assertions.
                Err(RotateError::NotManaged) => continue,
                Err(error) => {
                    terminal.err(format_args!("error: {name}: {error}\n"));
                    return Err(Exit::Found);
                }
                Ok(rotated) => {
                    done += 1;
                    let made = if rotated.made { "new key" } else { "a new key is on its way already:" };
                    terminal.out(format_args!(
                        "{name}: {made} {} signs from {} UTC\n",
                        rotated.kid,
                        moment(rotated.signs)
                    ));
                }
            }
        }
        if done > 0 {
            return Ok(Exit::Fine);
        }
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).filter(|name| *name != ASSERTION).collect();
        let why = match (&self.purpose, names.as_slice()) {
            (_, []) => {
                "the gateway keeps no keys for this policy: that needs an issuer with `signing_key: managed`".to_owned()
            }
            (Some(wanted), names) => {
                format!("no keys are kept for `{}`; they are for {}", printable(wanted), names.join(", "))
            }
            (None, _) => "no key was made".to_owned(),
        };
        terminal.err(format_args!("error: {why}\n"));
        Err(Exit::Found)
    }
}
