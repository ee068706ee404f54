//! What must outlive a process, and what several gateways share.
//!
//! One narrow trait for each kind of data: [`Users`], [`Sessions`] (with their refresh tokens), [`BrowserSessions`],
//! [`Revocations`], [`Attempts`], [`Limits`], [`SigningKeys`]. In: values, and the time as a parameter. Out: values, or a [`StoreError`],
//! which never means "no": whoever asks answers 503. The backends are [`memory`] (tests, and what one process may
//! forget), [`sql`] (SQLite, PostgreSQL) and [`redis`]; [`revoked`] is the list that requests are checked against
//! without asking any of them.
//!
//! Nothing here hashes a password, makes a token or decides anything: a store keeps what it is given.

pub mod fallback;
pub mod memory;
pub mod redis;
pub mod revoked;
mod rules;
pub mod sql;

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::{Clock, Timestamp};
use crate::config::{Database, RedisUrl, StoreUrl};
use crate::identity::account::AccountName;
use crate::policy::set::Lockout;
use crate::secret::Secret;

use self::fallback::Fallback;
use self::memory::Memory;
use self::redis::Redis;
use self::sql::Sql;

/// A store could not do what it was asked. Never a "no".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// It cannot be reached, or did not answer in time.
    Unavailable(String),
    /// It holds something that this version cannot read.
    Corrupt(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(why) => write!(f, "the store is not available: {why}"),
            Self::Corrupt(what) => write!(f, "the store holds something unreadable: {what}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// A store that cannot be opened: what is wrong, and what to do. Never shows a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenError {
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

impl OpenError {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }

    fn at(self, url: impl fmt::Display, setting: &str) -> Self {
        let message = format!("{url} (setting `{setting}`) cannot be opened: {}", self.message);
        Self { message, ..self }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for OpenError {}

// === Users ===

/// Somebody who can log in.
#[derive(Clone, Debug)]
pub struct User {
    /// A UUID (version 7): the `sub` of the user's tokens. Never reused, never changed.
    pub id: String,
    /// The name as it was given.
    pub name: String,
    /// The name under which the user is found. Unique.
    pub account: AccountName,
    /// An address to show; it plays no part in logging in.
    pub email: Option<String>,
    /// The stored hash of the password, in any format that `password` reads; without one nobody can log in.
    pub hash: Option<Secret<String>>,
    /// Names of roles. What they mean is in the policy.
    pub roles: Vec<String>,
    /// Scopes of the user's own, beside those that roles grant.
    pub scopes: Vec<String>,
    /// The tenant, for policies that compare it.
    pub tenant: Option<String>,
    /// Whether the user may not log in.
    pub disabled: bool,
    /// When the user was added.
    pub created: Timestamp,
    /// When the user was last changed.
    pub updated: Timestamp,
}

/// What adding users found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Added {
    /// All are there now.
    All,
    /// These names were taken (indices into what was given); nothing was added.
    Taken(Vec<usize>),
}

/// The users that the gateway keeps itself.
#[async_trait]
pub trait Users: Send + Sync + fmt::Debug {
    /// Adds all users, or none.
    async fn add(&self, users: &[User]) -> Result<Added, StoreError>;
    /// A user by name.
    async fn by_account(&self, account: &AccountName) -> Result<Option<User>, StoreError>;
    /// A user by id.
    async fn by_id(&self, id: &str) -> Result<Option<User>, StoreError>;
    /// At most `most` users after `after`, by account name.
    async fn list(&self, after: Option<&AccountName>, most: u32) -> Result<Vec<User>, StoreError>;
    /// Replaces everything of a user but `id` and `created`. `false`: there is none, or the new name is taken.
    async fn update(&self, user: &User) -> Result<bool, StoreError>;
    /// Replaces a hash if it is still `old`: an upgrade at login must not undo a new password.
    async fn replace_hash(&self, id: &str, old: &str, new: &str, now: Timestamp) -> Result<bool, StoreError>;
    /// Removes a user, with all sessions. `false`: there was none.
    async fn remove(&self, id: &str) -> Result<bool, StoreError>;
    /// How many users there are for each beginning of a stored hash (up to the salt): what a dummy hash imitates, and
    /// what `doctor` looks at. At most 100.
    async fn hash_kinds(&self) -> Result<Vec<(String, u64)>, StoreError>;
}

// === Sessions and refresh tokens ===

/// The SHA-256 of a refresh token: all that is stored of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

/// One login, until it ends: the family of its refresh tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// A UUID: the `sid` of its tokens.
    pub id: String,
    /// The user's id.
    pub user: String,
    /// The issuer in the policy that gives its tokens.
    pub issuer: String,
    /// The app that was logged in to: the audience of its tokens.
    pub app: String,
    /// The scopes that were granted; refreshing never widens them.
    pub scopes: Vec<String>,
    /// When it began: the user authenticated then.
    pub started: Timestamp,
    /// When it ends in any case. Rotation does not move this.
    pub expires: Timestamp,
    /// When a token was last given out.
    pub used: Timestamp,
    /// Where the login came from.
    pub address: Option<IpAddr>,
    /// With what, shortened.
    pub user_agent: String,
    /// When and why it ended early.
    pub ended: Option<(Timestamp, EndedBy)>,
}

impl Session {
    /// Whether tokens may still be given out.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.ended.is_none() && now < self.expires
    }
}

/// Why a session ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// The user logged out.
    Logout,
    /// One of its tokens was revoked.
    Revoked,
    /// A refresh token was used twice.
    Reuse,
    /// The user was disabled or removed, or got a new password.
    User,
    /// An operator ended it.
    Operator,
}

/// The successor of a refresh token that is about to be presented.
#[derive(Clone, Debug)]
pub struct Successor {
    /// Its hash.
    pub hash: TokenHash,
    /// The successor itself, sealed under the token it follows: whoever presents that one again within the window gets
    /// the same successor, and nobody can read it from the store.
    pub sealed: Vec<u8>,
}

/// What presenting a refresh token did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// It was the head; now its successor is.
    Rotated(Session),
    /// It was the head a moment ago, and its successor still is: the answer to that rotation did not arrive. Here is
    /// the sealed successor again.
    Repeated(Session, Vec<u8>),
    /// It was used before, and not a moment ago: the session has ended, now or earlier.
    Reused(Session),
    /// Its session has ended or expired before; nothing else is wrong with it.
    Over(Session),
    /// Nobody gave it out, or long ago.
    Unknown,
}

/// Sessions, and the one refresh token of each that is its head.
///
/// Whatever happens to the process or to the store between two calls, a session has at most one head, and who holds the
/// head or its predecessor can go on.
///
/// After an error of [`rotate`](Sessions::rotate) it is not known whether the head moved: the client tries again with
/// the token it has, and gets the first successor or a new one.
#[async_trait]
pub trait Sessions: Send + Sync + fmt::Debug {
    /// Begins a session with its first refresh token.
    async fn start(&self, session: &Session, head: &TokenHash) -> Result<(), StoreError>;
    /// The session of a refresh token, old or new.
    async fn of_token(&self, token: &TokenHash) -> Result<Option<Session>, StoreError>;
    /// Presents a refresh token. In one step: either it is the head and `successor` becomes the head, or it was replaced
    /// less than `window` ago by what is still the head, or the session ends.
    async fn rotate(
        &self,
        presented: &TokenHash,
        successor: &Successor,
        window: Duration,
        now: Timestamp,
    ) -> Result<Rotation, StoreError>;
    /// A session by id.
    async fn get(&self, id: &str) -> Result<Option<Session>, StoreError>;
    /// Live sessions, of one user or of all, newest first.
    async fn live(&self, user: Option<&str>, now: Timestamp, most: u32) -> Result<Vec<Session>, StoreError>;
    /// Ends a session. `false`: it does not exist, or has ended already.
    async fn end(&self, id: &str, by: EndedBy, now: Timestamp) -> Result<bool, StoreError>;
    /// Ends all sessions of a user but one, and says which.
    async fn end_all(
        &self,
        user: &str,
        but: Option<&str>,
        by: EndedBy,
        now: Timestamp,
    ) -> Result<Vec<String>, StoreError>;
    /// Forgets sessions that expired before `now`, and says how many.
    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError>;
}

// === Browser sessions ===

/// The SHA-256 of what the cookie of a session holds: all that is stored of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CookieHash(pub [u8; 32]);

impl fmt::Debug for CookieHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CookieHash(…)")
    }
}

/// The session of a browser, with the tokens of its provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrowserSession {
    /// What the cookie leads to.
    pub hash: CookieHash,
    /// A UUID: the name of the session for people and logs. It leads to nothing.
    pub id: String,
    /// The app that was logged in to.
    pub app: String,
    /// The issuer in the policy that vouches for the user.
    pub issuer: String,
    /// The user's id at that issuer.
    pub user: String,
    /// The tokens, sealed.
    pub sealed: Vec<u8>,
    /// Counts the replacements of the tokens.
    pub version: i64,
    /// When it began.
    pub started: Timestamp,
    /// When it ends in any case.
    pub expires: Timestamp,
    /// When it was last used, to a minute.
    pub used: Timestamp,
    /// When its tokens may be replaced next: not at every request while a provider is down.
    pub refresh_from: Timestamp,
    /// Until when somebody has its tokens replaced, who may have died meanwhile.
    pub lease: Option<Timestamp>,
    /// Where the login came from.
    pub address: Option<IpAddr>,
    /// With what, shortened.
    pub user_agent: String,
}

/// The longest that a lease or a pause may last. What seems to last longer comes from a clock that was set back.
pub const LONGEST_LEASE: Duration = Duration::from_secs(120);

impl BrowserSession {
    /// Whether its tokens may not be replaced yet, because that was done or tried a moment ago.
    pub fn is_paused(&self, now: Timestamp) -> bool {
        rules::is_ahead(self.refresh_from, now)
    }

    /// Whether somebody has its tokens replaced at this moment.
    pub fn is_leased(&self, now: Timestamp) -> bool {
        self.lease.is_some_and(|lease| rules::is_ahead(lease, now))
    }
}

/// Sessions of browsers.
///
/// Tokens of a session are replaced by whoever holds its lease, and only while they still are those that were read
/// (`version`): of two gateways one asks the provider, and nothing newer is overwritten by something older.
#[async_trait]
pub trait BrowserSessions: Send + Sync + fmt::Debug {
    /// Begins a session.
    async fn start(&self, session: &BrowserSession) -> Result<(), StoreError>;
    /// A session, whether it has expired or not.
    async fn get(&self, hash: &CookieHash) -> Result<Option<BrowserSession>, StoreError>;
    /// A session by its name.
    async fn by_id(&self, id: &str) -> Result<Option<BrowserSession>, StoreError>;
    /// Takes the lease until then, to replace the tokens of this version. `false`: they are others by now, somebody else
    /// holds the lease, it is too early, or there is no such session.
    async fn claim(
        &self,
        hash: &CookieHash,
        version: i64,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError>;
    /// Replaces the tokens of this version, and gives the lease back; they may be replaced again from `refresh_from` on.
    /// `false`: they are others by now, or there is no such session.
    async fn replace(
        &self,
        hash: &CookieHash,
        version: i64,
        sealed: &[u8],
        refresh_from: Timestamp,
    ) -> Result<bool, StoreError>;
    /// Gives the lease back where no new tokens were to be had.
    async fn release(&self, hash: &CookieHash, version: i64, refresh_from: Timestamp) -> Result<(), StoreError>;
    /// Notes that it was used.
    async fn touch(&self, hash: &CookieHash, now: Timestamp) -> Result<(), StoreError>;
    /// Ends a session: it is forgotten. `false`: there was none.
    async fn end(&self, hash: &CookieHash) -> Result<bool, StoreError>;
    /// Ends all sessions of a user at an issuer, and says which there were.
    async fn end_all(&self, issuer: &str, user: &str) -> Result<Vec<BrowserSession>, StoreError>;
    /// Sessions that have not expired, of one user (at any issuer) or of all, newest first.
    async fn live(&self, user: Option<&str>, now: Timestamp, most: u32) -> Result<Vec<BrowserSession>, StoreError>;
    /// Forgets sessions that expired before `now`, and says how many.
    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError>;
}

// === Revocations ===

/// Which access tokens are refused from now on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Revoked {
    /// The one with this `jti`.
    Token(String),
    /// All of a session (`sid`).
    Session(String),
    /// All of a subject that were issued before this moment (whole seconds: `iat` strictly less).
    Subject(String, Timestamp),
    /// The same but for one session, which goes on. It is spared from this revocation alone.
    Others {
        /// The subject.
        subject: String,
        /// Tokens issued before this moment.
        before: Timestamp,
        /// The session that goes on.
        but: String,
    },
}

impl Revoked {
    /// As stores keep it: a kind, a value and a moment in milliseconds.
    fn encode(&self) -> (&'static str, Cow<'_, str>, Option<i64>) {
        match self {
            Self::Token(id) => ("token", id.into(), None),
            Self::Session(id) => ("session", id.into(), None),
            Self::Subject(id, before) => ("subject", id.into(), Some(before.as_millis())),
            Self::Others { subject, before, but } => {
                ("others", serde_json::json!([subject, but]).to_string().into(), Some(before.as_millis()))
            }
        }
    }

    /// What a store kept; `None` if it is none of that.
    fn decode(kind: &str, value: String, before: Option<i64>) -> Option<Self> {
        Some(match (kind, before.map(Timestamp::from_millis)) {
            ("token", None) => Self::Token(value),
            ("session", None) => Self::Session(value),
            ("subject", Some(before)) => Self::Subject(value, before),
            ("others", Some(before)) => {
                let (subject, but) = serde_json::from_str(&value).ok()?;
                Self::Others { subject, before, but }
            }
            _ => return None,
        })
    }
}

/// A revocation: whose tokens, and until when it must be remembered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Revocation {
    /// The issuer's name in the policy.
    pub issuer: String,
    /// Which tokens.
    pub revoked: Revoked,
    /// When the last of these tokens has expired (leeway included): the entry is forgotten then.
    pub until: Timestamp,
}

/// How far a reader has got; the default is the beginning. Each backend has its own positions.
///
/// Positions are given out under a lock that the writer holds until it has committed (a row in SQL, the one thread of
/// Redis), so they become visible in their order: what lies before a cursor never appears later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor(pub i64);

/// Revocations, kept until the tokens have expired.
#[async_trait]
pub trait Revocations: Send + Sync + fmt::Debug {
    /// Adds revocations. When this returns, they are durable.
    async fn add(&self, revocations: &[Revocation], now: Timestamp) -> Result<(), StoreError>;
    /// What was added since the cursor and has not ended, and moves the cursor on: at most some thousands, so whoever
    /// wants all asks until the cursor stays. What was seen may be returned again; nothing that was added before the
    /// call is ever skipped.
    async fn since(&self, cursor: &mut Cursor, now: Timestamp) -> Result<Vec<Revocation>, StoreError>;
    /// Returns when somebody may have added something, where the backend can tell. Only saves waiting for the next
    /// look: what it says is never all there is to know.
    async fn changed(&self) {
        std::future::pending().await
    }
    /// Forgets what ended before `now`.
    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError>;
}

// === Attempts ===

/// Whether an attempt may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It may, and counts as failed until it is [forgiven](Attempts::forgive) or [cleared](Attempts::clear).
    Open,
    /// It may not, for so long.
    Locked(Duration),
}

/// Counts of failed logins. A key is an account together with an address (see `login/throttle.rs`).
#[async_trait]
pub trait Attempts: Send + Sync + fmt::Debug {
    /// Counts an attempt as failed before it is made, so that parallel guesses count too; locks after the last one that
    /// is allowed.
    async fn begin(&self, key: &str, lockout: &Lockout, now: Timestamp) -> Result<Attempt, StoreError>;
    /// Takes one back: it was not tried after all, or it is the same as the one before.
    async fn forgive(&self, key: &str, now: Timestamp) -> Result<(), StoreError>;
    /// Forgets all: the login succeeded.
    async fn clear(&self, key: &str) -> Result<(), StoreError>;
    /// Forgets what no longer counts.
    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError>;
}

// === Limits ===

/// How often something may happen: `count` times in `per`, all at once or spread (GCRA).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In what time.
    pub per: Duration,
    /// How many at once at most; usually `count`.
    pub burst: u32,
}

/// Rates that gateways share.
#[async_trait]
pub trait Limits: Send + Sync + fmt::Debug {
    /// Takes one; `Some` says how long to wait instead.
    async fn take(&self, key: &str, rate: Rate, now: Timestamp) -> Result<Option<Duration>, StoreError>;
}

// === Signing keys ===

/// A key that the gateway made and keeps (`signing_key: managed`).
#[derive(Clone, Debug)]
pub struct SigningKey {
    /// Its `kid`: the RFC 7638 thumbprint.
    pub kid: String,
    /// What it is for: the issuer's name in the policy, or `assertion`.
    pub purpose: String,
    /// `ES256` or `EdDSA`.
    pub algorithm: String,
    /// The private key, PKCS#8 PEM.
    pub private: Secret<String>,
    /// When it was made; it is published from then on.
    pub created: Timestamp,
    /// When it begins to sign: later than `created`, so that everybody has seen it.
    pub signs: Timestamp,
    /// When it stopped signing because another took over; it verifies until what it signed has expired.
    pub retired: Option<Timestamp>,
}

/// Signing keys.
#[async_trait]
pub trait SigningKeys: Send + Sync + fmt::Debug {
    /// All keys of a purpose, oldest first.
    async fn of(&self, purpose: &str) -> Result<Vec<SigningKey>, StoreError>;
    /// Adds a key after `last` (the `kid` of the newest one that the caller knows). `false`: somebody else was faster;
    /// read again.
    async fn add(&self, key: &SigningKey, last: Option<&str>) -> Result<bool, StoreError>;
    /// Notes that a key no longer signs from `at` on.
    async fn retire(&self, kid: &str, at: Timestamp) -> Result<(), StoreError>;
    /// Forgets a key.
    async fn remove(&self, kid: &str) -> Result<(), StoreError>;
}

/// The beginning of a stored hash, up to the salt: the algorithm and its costs.
fn hash_kind(stored: &str) -> String {
    crate::password::kind(stored)
}

// === All of them ===

/// The stores of a gateway.
#[derive(Clone, Debug)]
pub struct Stores {
    /// Who can log in.
    pub users: Arc<dyn Users>,
    /// Logins and their refresh tokens.
    pub sessions: Arc<dyn Sessions>,
    /// Sessions of browsers.
    pub browser: Arc<dyn BrowserSessions>,
    /// Where revocations are kept, and read by every gateway: each of these has all of them.
    pub revocations: Vec<Arc<dyn Revocations>>,
    /// Failed logins. Where they are in Redis, this goes on without it (see [`fallback`]).
    pub attempts: Arc<dyn Attempts>,
    /// Rates that gateways share, where there is a place for them. Goes on without it, too.
    pub limits: Option<Arc<dyn Limits>>,
    /// Keys that the gateway made.
    pub keys: Arc<dyn SigningKeys>,
}

impl Stores {
    /// Opens the store, and Redis where it is used. Both must be there at the start.
    pub async fn open(store: &StoreUrl, redis: Option<&RedisUrl>) -> Result<Self, OpenError> {
        let opened = match &store.database {
            Database::Sqlite(path) => Sql::sqlite(path).await,
            Database::Postgres(url) => Sql::postgres(url.expose()).await,
        };
        let opened = opened.map_err(|error| error.at(store, store.setting))?;
        let sql = Arc::new(opened);
        let stores = Self {
            users: sql.clone(),
            sessions: sql.clone(),
            browser: sql.clone(),
            revocations: vec![sql.clone()],
            attempts: sql.clone(),
            limits: None,
            keys: sql,
        };
        match redis {
            Some(url) => stores.sharing(url).await,
            None => Ok(stores),
        }
    }

    /// The same, and Redis for what gateways share.
    pub async fn sharing(mut self, url: &RedisUrl) -> Result<Self, OpenError> {
        let redis = Redis::open(url.url.expose()).await.map_err(|error| error.at(url, url.setting))?;
        let redis = Arc::new(redis);
        self.revocations.push(redis.clone());
        self.attempts = Arc::new(Fallback::new(redis.clone()));
        self.limits = Some(Arc::new(Fallback::new(redis)));
        Ok(self)
    }

    /// Stores that end with the process.
    pub fn memory() -> Self {
        let memory = Arc::new(Memory::new());
        Self {
            users: memory.clone(),
            sessions: memory.clone(),
            browser: memory.clone(),
            revocations: vec![memory.clone()],
            attempts: memory.clone(),
            limits: None,
            keys: memory,
        }
    }

    /// Forgets from time to time what is over, for as long as it is polled. Revocations are swept by who follows them.
    pub async fn keep_clean(&self, clock: &dyn Clock) {
        loop {
            tokio::time::sleep(Duration::from_secs(600)).await;
            let now = clock.now();
            let swept = [self.sessions.sweep(now).await, self.browser.sweep(now).await, self.attempts.sweep(now).await];
            for swept in swept {
                if let Err(error) = swept {
                    tracing::warn!(%error, "the store was not cleaned up");
                }
            }
        }
    }
}
