//! What commands about users, sessions and keys have in common: the store that `serve` uses, and the policy beside it.

use std::collections::BTreeSet;
use std::future::Future;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use crate::clock::{Clock as _, Timestamp};
use crate::config::{Config, Database, Environment, StoreUrl};
use crate::diagnostic::suggest::closest;
use crate::policy::set::{LeafKind, PolicySet};
use crate::reload::load::{self, Loaded, load};
use crate::server::SystemClock;
use crate::store::revoked::RevokedList;
use crate::store::{EndedBy, OpenError, Revocation, Revoked, StoreError, Stores};

use super::exit::Exit;
use super::{Global, Terminal, broken};

/// How long a revocation is remembered at least: the environment of the gateway may lengthen its tokens
/// (`ACCESS_TOKEN_EXPIRE_MINUTES`), and is not ours.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// More sessions than are looked at in one step.
const MOST_SESSIONS: u32 = 10_000;

/// An opened store, and what to say about it.
pub struct Opened {
    pub stores: Stores,
    runtime: tokio::runtime::Runtime,
    terminal: Terminal,
    place: StoreUrl,
}

/// Whether a command makes the store where there is none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

impl Opened {
    /// Opens the store of the settings. `None`: it is a file that is not there, and the command only reads.
    pub fn open(config: &Config, terminal: Terminal, access: Access) -> Result<Option<Self>, Exit> {
        if let (Database::Sqlite(path), Access::Read) = (&config.store.database, access)
            && !path.exists()
        {
            return Ok(None);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
            terminal.err(format_args!("error: cannot start: {error}\n"));
            Exit::Found
        })?;
        match runtime.block_on(Stores::open(&config.store, config.redis.as_ref())) {
            Ok(stores) => Ok(Some(Self { stores, runtime, terminal, place: config.store.clone() })),
            Err(error) => {
                let OpenError { message, help } = error;
                terminal.err(format_args!(
                    "error: {message}\n\nhelp: {help}\nhelp: the store is {} (set by `{}`)\n",
                    config.store, config.store.setting
                ));
                Err(Exit::Found)
            }
        }
    }

    /// Opens it for a command that writes.
    pub fn to_write(config: &Config, terminal: Terminal) -> Result<Self, Exit> {
        Self::open(config, terminal, Access::Write)?.ok_or(Exit::Found)
    }

    /// Waits for what uses the store.
    pub fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Runs what asks the store; a failure is printed.
    pub fn run<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, Exit> {
        self.wait(work).map_err(|error| {
            self.terminal.err(format_args!(
                "error: {error}\n\nhelp: the store is {} (set by `{}`)\n",
                self.place, self.place.setting
            ));
            Exit::Found
        })
    }
}

/// Says that there is no store, where that is no mistake.
pub fn nothing_yet(config: &Config, terminal: Terminal, what: &str) {
    terminal.err(format_args!("no {what} yet: {} does not exist; `portcullis user add NAME` makes it\n", config.store));
}

// === The policy beside it ===

/// The policies folder, loaded without the secrets that it refers to.
pub struct Beside {
    folder: PathBuf,
    loaded: Loaded,
}

impl Beside {
    /// Loads it.
    pub fn load(global: &Global, config: &Config) -> Self {
        let folder = global.policies.clone().unwrap_or_else(|| config.policies.path.clone());
        let options = load::Options { tests: false, test_gate: false, ..load::Options::check() };
        Self { loaded: load(&folder, &options), folder }
    }

    /// The set, if it can be compiled.
    pub fn policy(&self) -> Option<&PolicySet> {
        self.loaded.candidate.as_ref().map(|candidate| &**candidate.policy())
    }

    /// The roles and scopes that the set speaks of, if it can be compiled.
    pub fn vocabulary(&self) -> Option<Vocabulary<'_>> {
        let policy = self.policy()?;
        let catalogue = self.loaded.checked.iter().flat_map(|checked| &checked.document().scopes);
        Some(Vocabulary::of(policy, catalogue.map(|scope| scope.name.value.as_str())))
    }

    /// The same, for a command that cannot do without; else the mistakes of the set are printed.
    pub fn needed_vocabulary(&self, terminal: Terminal) -> Result<Vocabulary<'_>, Exit> {
        self.vocabulary().ok_or_else(|| self.broken(terminal))
    }

    fn broken(&self, terminal: Terminal) -> Exit {
        broken(terminal, &self.loaded.diagnostics, &self.loaded.sources)
    }

    /// The set, for a command that cannot do without; else its mistakes are printed.
    pub fn needed(&self, terminal: Terminal) -> Result<&PolicySet, Exit> {
        self.policy().ok_or_else(|| self.broken(terminal))
    }

    /// What is known about the issuers whose tokens are revoked; that the policy does not load is no reason not to.
    pub fn issuers(&self, terminal: Terminal) -> Issuers {
        if self.policy().is_none() {
            terminal.err(format_args!(
                "warning: the policies in {} do not load, so only the tokens of known sessions are revoked: \
                 `portcullis check` says why\n",
                self.folder.display()
            ));
        }
        Issuers::of(self.policy())
    }
}

/// The issuers whose tokens the gateway gives out, and how long these live.
pub struct Issuers {
    local: Vec<(String, Duration)>,
}

impl Issuers {
    /// Those of a set.
    pub fn of(policy: Option<&PolicySet>) -> Self {
        let local = policy.into_iter().flat_map(|policy| {
            policy.issuers.iter().filter_map(|issuer| {
                let lives = issuer.local.as_ref()?.expires.saturating_add(policy.verifier.leeway(&issuer.name));
                Some((issuer.name.as_str().to_owned(), lives))
            })
        });
        Self { local: local.collect() }
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.local.iter().map(|(name, _)| name.as_str())
    }

    /// Until when a revocation must be remembered.
    pub fn until(&self, issuer: &str, now: Timestamp) -> Timestamp {
        let lives = self.local.iter().find(|(name, _)| name == issuer).map_or(REMEMBERED, |(_, lives)| *lives);
        now.plus(lives.max(REMEMBERED))
    }
}

/// Adds revocations to every store. What was added to one only is an error all the same: a gateway may look at the other.
pub async fn revoke(stores: &Stores, revocations: &[Revocation], now: Timestamp) -> Result<(), StoreError> {
    RevokedList::new(stores.revocations.clone()).revoke(revocations, now).await
}

/// Refuses all tokens of a user that were issued before `before`, by subject.
pub async fn revoke_subject(
    stores: &Stores,
    issuers: &Issuers,
    user: &str,
    before: Timestamp,
    now: Timestamp,
) -> Result<(), StoreError> {
    let revocations: Vec<Revocation> = issuers
        .names()
        .map(|issuer| Revocation {
            issuer: issuer.to_owned(),
            revoked: Revoked::Subject(user.to_owned(), before),
            until: issuers.until(issuer, now),
        })
        .collect();
    revoke(stores, &revocations, now).await
}

/// Ends all sessions of a user, and refuses all access tokens that were given out. Says how many ended. It can be
/// repeated where it fails in between.
pub async fn end_all(
    stores: &Stores,
    issuers: &Issuers,
    user: &str,
    before: Timestamp,
    by: EndedBy,
    now: Timestamp,
) -> Result<usize, StoreError> {
    revoke_subject(stores, issuers, user, before, now).await?;
    let revocation = |id: &str, issuer: &str| Revocation {
        issuer: issuer.to_owned(),
        revoked: Revoked::Session(id.to_owned()),
        until: issuers.until(issuer, now),
    };
    // Before they end: a command that is stopped in between and repeated finds them still.
    let live = stores.sessions.live(Some(user), now, MOST_SESSIONS).await?;
    let known: BTreeSet<&str> = live.iter().map(|session| session.id.as_str()).collect();
    let revocations: Vec<_> = live.iter().map(|session| revocation(&session.id, &session.issuer)).collect();
    revoke(stores, &revocations, now).await?;
    let ended = stores.sessions.end_all(user, None, by, now).await?;
    // Those that began since.
    let mut rest = Vec::new();
    for id in ended.iter().filter(|id| !known.contains(id.as_str())) {
        if let Some(session) = stores.sessions.get(id).await? {
            rest.push(revocation(&session.id, &session.issuer));
        }
    }
    if !rest.is_empty() {
        revoke(stores, &rest, now).await?;
    }
    Ok(ended.len())
}

/// The beginning of this second. Tokens say in which second they were issued: those of this one may be newer than what
/// is revoked now, and end with their session if they are not.
pub fn this_second(now: Timestamp) -> Timestamp {
    Timestamp::from_seconds(now.as_seconds())
}

/// The beginning of the second after this one.
pub fn next_second(now: Timestamp) -> Timestamp {
    this_second(now).plus(Duration::from_secs(1))
}

/// Waits until the next second has begun, and returns when that was: tokens from before are older by their `iat`, and
/// those that are made from now on are not.
pub fn turn_of_second() -> Timestamp {
    let begins = next_second(SystemClock.now());
    std::thread::sleep(begins.since(SystemClock.now()));
    begins
}

// === Names that the policy knows ===

/// The roles and scopes that a policy speaks of.
pub struct Vocabulary<'p> {
    policy: &'p PolicySet,
    scopes: BTreeSet<&'p str>,
}

impl<'p> Vocabulary<'p> {
    /// That of a set: the scopes of its catalogue, those that routes ask for, and those that roles grant.
    fn of(policy: &'p PolicySet, catalogue: impl Iterator<Item = &'p str>) -> Self {
        let asked = policy.routes.iter().flat_map(|route| &route.leaves).filter_map(|leaf| match &leaf.kind {
            LeafKind::Scope(scope) => Some(&**scope),
            _ => None,
        });
        let granted = policy.roles.roles.iter().flat_map(|role| &role.grants).map(|scope| &**scope);
        Self { policy, scopes: asked.chain(granted).chain(catalogue).collect() }
    }

    /// Whether a role is defined.
    pub fn has_role(&self, role: &str) -> bool {
        self.policy.roles.id(role).is_some()
    }

    /// Whether a scope has an effect: it is asked for, or implies one that is.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.contains(scope)
            || self
                .policy
                .issuers
                .iter()
                .any(|issuer| self.scopes.iter().any(|required| issuer.hierarchy.satisfies(scope, required)))
    }

    /// A line about a role that is not defined.
    pub fn unknown_role(&self, role: &str) -> String {
        let names: Vec<&str> = self.policy.roles.roles.iter().map(|role| &*role.name).collect();
        unknown("role", role, &names)
    }

    /// A line about a scope without effect.
    pub fn unknown_scope(&self, scope: &str) -> String {
        unknown("scope", scope, &self.scopes.iter().copied().collect::<Vec<_>>())
    }

    /// A line for each name that the policy does not know.
    pub fn unknown(&self, roles: &[String], scopes: &[String]) -> Vec<String> {
        let roles = roles.iter().filter(|role| !self.has_role(role)).map(|role| self.unknown_role(role));
        let scopes = scopes.iter().filter(|scope| !self.has_scope(scope)).map(|scope| self.unknown_scope(scope));
        roles.chain(scopes).collect()
    }
}

fn unknown(kind: &str, name: &str, known: &[&str]) -> String {
    if let Some(near) = closest(name, known.iter().copied()) {
        return format!("unknown {kind} `{name}`: did you mean `{near}`?");
    }
    match known {
        [] => format!("unknown {kind} `{name}`: the policy has no {kind}s"),
        known if known.len() <= 12 => format!("unknown {kind} `{name}`: there are {}", known.join(", ")),
        _ => format!("unknown {kind} `{name}`"),
    }
}

/// Why a text is no name of a role or scope; it must survive a claim (RFC 6749 §3.3) and a comma-joined header.
pub fn check_word(word: &str) -> Result<(), String> {
    let allowed = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e) && !matches!(byte, b',' | b';');
    if word.is_empty() || word.len() > 128 || !word.bytes().all(allowed) {
        return Err(
            "1 to 128 letters, digits and signs, without blanks, commas, semicolons, quotes or backslashes".to_owned()
        );
    }
    Ok(())
}

/// For clap: a role or scope.
pub fn word(text: &str) -> Result<String, String> {
    check_word(text).map(|()| text.to_owned())
}

// === Questions ===

/// Asks before something that cannot be undone. Where nobody can answer, `--yes` is needed.
pub fn confirmed(terminal: Terminal, yes: bool, question: &str) -> Result<bool, Exit> {
    if yes {
        return Ok(true);
    }
    if !io::stdin().is_terminal() {
        terminal.err(format_args!("error: {question} --yes if that is meant\n"));
        return Err(Exit::Usage);
    }
    terminal.err(format_args!("{question} [y/N] "));
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    let _ = io::stderr().flush();
    Ok(read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Reads the settings, for commands that need the store.
pub fn settings(global: &Global, terminal: Terminal, environment: &Environment) -> Result<Config, Exit> {
    global.settings(terminal, environment, &[])
}

/// A time for people: `2026-11-24 13:55`, UTC.
pub fn moment(at: Timestamp) -> String {
    let Ok(at) = jiff::Timestamp::from_millisecond(at.as_millis()) else { return "–".to_owned() };
    at.strftime("%Y-%m-%d %H:%M").to_string()
}

/// A time for programs: RFC 3339, UTC, to the second.
pub fn rfc3339(at: Timestamp) -> String {
    let Ok(at) = jiff::Timestamp::from_second(at.as_seconds()) else { return "–".to_owned() };
    at.to_string()
}

/// Columns under their headings; the last one is not padded.
pub fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = headings.map(|heading| heading.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let headings = headings.map(str::to_owned);
    for row in std::iter::once(&headings).chain(rows) {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', (width + 2).saturating_sub(cell.chars().count())));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Text from outside as it may be printed: controls and what reorders a line are shown as `?`.
pub fn printable(text: &str) -> String {
    let harmful = |char: char| {
        char.is_control()
            || matches!(char, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().map(|char| if harmful(char) { '?' } else { char }).collect()
}

/// A cell that has nothing.
pub fn or_dash(text: String) -> String {
    if text.is_empty() { "–".to_owned() } else { text }
}
