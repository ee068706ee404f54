//! `token`: making tokens for a try, looking into them, ending them.
//!
//! A token that is given to a command is never printed again, and need not be an argument: `-` is standard input, and
//! `@FILE` a file.

mod inspect;
mod mint;
mod revoke;

use std::io::{self, Read as _};
use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use clap::Subcommand;
use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::config::Environment;
use crate::issuer::{Issuers, Snapshot};
use crate::policy::set::PolicySet;
use crate::reload::load::{self, Loaded, load};
use crate::server::{SystemClock, SystemRandom, services};
use crate::store::{SigningKey, SigningKeys, StoreError, TokenHash};
use crate::token::verify::Verifier;

use super::exit::Exit;
use super::stores::Opened;
use super::{Global, Terminal, broken};

use self::mint::duration;
pub use self::mint::is_loopback;

/// How refresh tokens begin.
const REFRESH: &str = "prt_";

/// No token is longer.
const LONGEST: u64 = 64 * 1024;

/// Tokens
#[derive(Subcommand, Debug)]
pub enum Token {
    /// Signs a token with the policy's own key (`local`, or `jwt` with a secret)
    Mint(mint::Mint),
    Inspect(inspect::Inspect),
    Revoke(revoke::Revoke),
}

impl Token {
    /// Runs the command.
    pub fn run(&self, global: &Global, terminal: Terminal, environment: &Environment) -> Result<Exit, Exit> {
        match self {
            Self::Mint(mint) => mint.run(global, terminal, environment),
            Self::Inspect(inspect) => inspect.run(global, terminal, environment),
            Self::Revoke(revoke) => revoke.run(global, terminal, environment),
        }
    }
}

/// The token that an argument means.
fn given(argument: &str, terminal: Terminal) -> Result<Zeroizing<String>, Exit> {
    let mut text = Zeroizing::new(String::new());
    let read = match argument {
        "-" => io::stdin().lock().take(LONGEST).read_to_string(&mut text),
        argument => match argument.strip_prefix('@') {
            Some(path) => std::fs::File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text)),
            None => {
                text.push_str(argument);
                Ok(0)
            }
        },
    };
    if let Err(error) = read {
        terminal.err(format_args!("error: cannot read the token: {error}\n"));
        return Err(Exit::Found);
    }
    let token = text.trim();
    let token = token.strip_prefix("Bearer ").or_else(|| token.strip_prefix("bearer ")).unwrap_or(token).trim();
    if token.is_empty() {
        terminal.err("error: there is no token\n");
        return Err(Exit::Found);
    }
    Ok(Zeroizing::new(token.to_owned()))
}

/// Under what a refresh token is stored.
fn refresh_hash(token: &str) -> Option<TokenHash> {
    token.strip_prefix(REFRESH)?;
    Some(TokenHash(digest(&SHA256, token.as_bytes()).as_ref().try_into().ok()?))
}

/// A policy set with its keys, as the gateway loads it.
struct Keyed(Loaded);

impl Keyed {
    fn load(global: &Global, terminal: Terminal, environment: &Environment) -> Result<Self, Exit> {
        let folder = global.folder(terminal, environment)?;
        let options = load::Options { tests: false, test_gate: false, ..load::Options::serve(environment) };
        let loaded = load(&folder, &options);
        if loaded.tested.is_none() {
            return Err(broken(terminal, &loaded.diagnostics, &loaded.sources));
        }
        Ok(Self(loaded))
    }

    fn policy(&self, terminal: Terminal) -> Result<&PolicySet, Exit> {
        let tested = self.0.tested.as_ref();
        tested.map(|tested| &**tested.policy()).ok_or_else(|| broken(terminal, &self.0.diagnostics, &self.0.sources))
    }
}

/// The keys of the gateway's own issuers, as a gateway on this store has them; none are made.
fn snapshot(policy: &PolicySet, opened: Option<&Opened>) -> Result<Snapshot, Exit> {
    let issuers = issuers(opened);
    if let Some(opened) = opened {
        opened.run(issuers.refresh(policy))?;
    }
    let live = issuers.live();
    Ok(Snapshot::clone(&live.snapshot()))
}

fn issuers(opened: Option<&Opened>) -> Issuers {
    let keys = opened.map(|opened| Arc::new(ReadOnly(Arc::clone(&opened.stores.keys))) as Arc<dyn SigningKeys>);
    Issuers::new(keys, Arc::new(SystemClock), Arc::new(SystemRandom))
}

/// What verifies a token, with the keys that its issuer publishes: they are fetched once. Where they cannot be had, why.
fn verifier(policy: &PolicySet, opened: Option<&Opened>, token: &str) -> Result<(Verifier, Option<String>), Exit> {
    let mut issuers = issuers(opened);
    let named = policy.verifier.named(token);
    let named = named.filter(|(name, _)| policy.issuer(name).is_some_and(|issuer| issuer.remote.is_some()));
    if named.is_some() {
        issuers = issuers.fetching(services::fetcher());
    }
    let issuers = Arc::new(issuers);
    if let Some(opened) = opened {
        opened.run(issuers.refresh(policy))?;
    }
    let mut why = None;
    if let Some((issuer, kid)) = named {
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => drop(runtime.block_on(issuers.find_key(policy, &issuer, kid.as_ref()))),
            Err(error) => why = Some(error.to_string()),
        }
        let status = issuers.remote().into_iter().find(|status| status.issuer == issuer);
        why = why.or_else(|| status.and_then(|status| status.error));
    }
    Ok((issuers.live().snapshot().verifier(policy), why))
}

/// The same, for a command that looks at no store.
pub fn verifier_without_store(policy: &PolicySet, token: &str) -> (Verifier, Option<String>) {
    verifier(policy, None, token).unwrap_or_else(|_| (policy.verifier.clone(), None))
}

/// Signing keys that are only looked at: what is due is left to the gateway.
#[derive(Debug)]
struct ReadOnly(Arc<dyn SigningKeys>);

#[async_trait]
impl SigningKeys for ReadOnly {
    async fn of(&self, purpose: &str) -> Result<Vec<SigningKey>, StoreError> {
        self.0.of(purpose).await
    }

    async fn add(&self, _: &SigningKey, _: Option<&str>) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn retire(&self, _: &str, _: Timestamp) -> Result<(), StoreError> {
        Ok(())
    }

    async fn remove(&self, _: &str) -> Result<(), StoreError> {
        Ok(())
    }
}
