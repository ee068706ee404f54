//! Failed logins are counted for an account *and* an address, and lock that pair for a while.
//!
//! An attempt is counted before the password is looked at, so that parallel guesses count too, and taken back where it
//! was none. A lock says nothing about an account: names that do not exist are counted in the same way. It is never
//! permanent, and a stranger elsewhere cannot lock the owner out.
//!
//! The same account, address and password within two seconds is one attempt: Go's client tries each login twice, with
//! client credentials in the header and in the body.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::{digest, hmac};
use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::identity::account::AccountName;
use crate::policy::set::Lockout;
use crate::random::Random;
use crate::request::forwarded::ClientAddr;
use crate::store::{Attempt, Attempts, StoreError};

/// For how long the same credential is the same attempt.
const SAME: Duration = Duration::from_secs(2);
/// The most credentials and locks that are remembered; beyond it each counts for itself.
const MOST: usize = 4096;

/// Counts attempts through a store.
pub struct Throttle {
    /// Known to this process alone: what is remembered of a password is of no use to anybody.
    key: hmac::Key,
    recent: Mutex<HashMap<Tag, Recent>>,
    /// Locks that were reported already, and until when they last.
    locks: Mutex<HashMap<Box<str>, Timestamp>>,
}

type Tag = [u8; 32];

#[derive(Clone, Copy)]
struct Recent {
    at: Timestamp,
    locked: Option<Duration>,
}

/// An attempt that is about to be made.
#[derive(Clone, Copy)]
pub struct Attempting<'a> {
    /// Whose accounts these are: the same name means somebody else at another app's own login.
    pub realm: &'a str,
    /// The account. All names that are no account's count as one.
    pub account: Option<&'a AccountName>,
    /// From where.
    pub client: ClientAddr,
    /// The password, where it is known.
    pub password: Option<&'a [u8]>,
}

/// A counted attempt. There is no looking at a password without one; what is not [cleared](Throttle::clear) or
/// [forgiven](Throttle::forgive) stays counted as a failure.
#[must_use]
pub struct Ticket {
    key: Option<Box<str>>,
    tag: Option<Tag>,
    locked: Option<Duration>,
    /// Whether this lock is seen for the first time.
    new_lock: bool,
    /// Whether it was counted: the second of two equal ones is not.
    counted: bool,
}

impl Ticket {
    /// For how long the account is still locked for this address, if it is.
    pub fn locked(&self) -> Option<Duration> {
        self.locked
    }

    /// Whether the lock is to be reported: nobody else saw it yet.
    pub fn is_new_lock(&self) -> bool {
        self.new_lock
    }
}

impl Throttle {
    /// A throttle with a key of its own.
    pub fn new(random: &dyn Random) -> Self {
        let mut key = [0; 32];
        random.fill(&mut key);
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &key), recent: Mutex::default(), locks: Mutex::default() }
    }

    /// Counts an attempt. A store that fails refuses it.
    pub async fn begin(
        &self,
        attempts: &dyn Attempts,
        attempting: &Attempting<'_>,
        lockout: Option<&Lockout>,
        now: Timestamp,
    ) -> Result<Ticket, StoreError> {
        let Some(lockout) = lockout else {
            return Ok(Ticket { key: None, tag: None, locked: None, new_lock: false, counted: false });
        };
        let key = key(attempting);
        let tag = attempting.password.map(|password| self.tag(&key, password));
        if let Some(recent) = tag.and_then(|tag| self.recent.lock().get(&tag).copied())
            && now.since(recent.at) < SAME
            && now >= recent.at
        {
            return Ok(Ticket { key: Some(key), tag, locked: recent.locked, new_lock: false, counted: false });
        }
        let locked = match attempts.begin(&key, lockout, now).await? {
            Attempt::Open => None,
            Attempt::Locked(wait) => Some(wait),
        };
        if let Some(tag) = tag {
            remember(&mut self.recent.lock(), tag, Recent { at: now, locked }, |recent| now.since(recent.at) < SAME);
        }
        let new_lock = locked.is_some_and(|wait| self.is_new(&key, now.plus(wait), now));
        Ok(Ticket { key: Some(key), tag, locked, new_lock, counted: locked.is_none() })
    }

    /// Takes an attempt back: it was not tried after all. If the store fails it stays counted.
    pub async fn forgive(&self, attempts: &dyn Attempts, ticket: Ticket, now: Timestamp) {
        self.forget(&ticket);
        if let Some(key) = ticket.key.filter(|_| ticket.counted) {
            drop(attempts.forgive(&key, now).await);
        }
    }

    /// The login succeeded: what was counted before is forgotten. If the store fails it stays counted.
    pub async fn clear(&self, attempts: &dyn Attempts, ticket: Ticket) {
        self.forget(&ticket);
        if let Some(key) = ticket.key {
            self.locks.lock().remove(&key);
            drop(attempts.clear(&key).await);
        }
    }

    fn forget(&self, ticket: &Ticket) {
        if let Some(tag) = ticket.tag {
            self.recent.lock().remove(&tag);
        }
    }

    fn tag(&self, key: &str, password: &[u8]) -> Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(key.as_bytes()); // of one length always
        context.update(password);
        let mut tag = Tag::default();
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }

    fn is_new(&self, key: &str, until: Timestamp, now: Timestamp) -> bool {
        let mut locks = self.locks.lock();
        if locks.get(key).is_some_and(|until| now < *until) {
            return false;
        }
        remember(&mut locks, key.into(), until, |until| now < *until);
        true
    }
}

/// Remembers something in a map that does not grow beyond its bound.
fn remember<K: std::hash::Hash + Eq, V>(map: &mut HashMap<K, V>, key: K, value: V, keep: impl Fn(&V) -> bool) {
    if map.len() >= MOST {
        map.retain(|_, value| keep(value));
    }
    if map.len() < MOST {
        map.insert(key, value);
    }
}

/// The key of a pair: a hash, so that the store holds no names. An IPv6 customer has a /64 and is one address.
fn key(attempting: &Attempting<'_>) -> Box<str> {
    let network = match attempting.client.ip() {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address) >> 64 << 64,
    };
    let account = attempting.account.map_or("", AccountName::as_str); // no name is empty
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(b"portcullis attempt 1");
    for part in [attempting.realm.as_bytes(), account.as_bytes(), &network.to_be_bytes()] {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut text = String::with_capacity(64);
    for byte in hash.finish().as_ref() {
        let _ = write!(text, "{byte:02x}");
    }
    text.into()
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle").field("recent", &self.recent.lock().len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("locked", &self.locked).finish_non_exhaustive()
    }
}

impl fmt::Debug for Attempting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempting").field("realm", &self.realm).field("client", &self.client).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;
    use crate::store::memory;

    const LOCKOUT: Lockout = Lockout { after: 3, within: Duration::from_secs(60), lock: Duration::from_secs(60) };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(1_000_000 + seconds)
    }

    fn client(text: &str) -> ClientAddr {
        ClientAddr::new(text.parse().unwrap())
    }

    #[test]
    fn a_key_is_one_account_at_one_address_and_names_neither() {
        let name = |text: &str| AccountName::parse(text).unwrap();
        let of = |realm: &str, account: Option<&AccountName>, address: &str| {
            key(&Attempting { realm, account, client: client(address), password: None })
        };
        let (john, jane) = (name("John"), name("jane"));
        let first = of("local", Some(&john), "192.0.2.1");
        assert_eq!(first, of("local", Some(&name("ＪＯＨＮ")), "::ffff:192.0.2.1"));
        assert_eq!((first.len(), first.contains("john")), (64, false));
        for other in [
            of("app", Some(&john), "192.0.2.1"),
            of("local", Some(&jane), "192.0.2.1"),
            of("local", None, "192.0.2.1"),
            of("local", Some(&john), "192.0.2.2"),
        ] {
            assert_ne!(first, other);
        }
        assert_eq!(of("l", Some(&john), "2001:db8::1"), of("l", Some(&john), "2001:db8::ffff:1"));
        assert_ne!(of("l", Some(&john), "2001:db8::1"), of("l", Some(&john), "2001:db8:0:1::1"));
    }

    struct Fixture {
        throttle: Throttle,
        attempts: memory::Memory,
        ada: AccountName,
    }

    impl Fixture {
        fn new() -> Self {
            let throttle = Throttle::new(&SeededRandom::new(1));
            Self { throttle, attempts: memory::Memory::default(), ada: AccountName::parse("ada").unwrap() }
        }

        async fn begin(&self, password: &str, address: &str, seconds: i64) -> Ticket {
            let attempting = Attempting {
                realm: "local",
                account: Some(&self.ada),
                client: client(address),
                password: Some(password.as_bytes()),
            };
            self.throttle.begin(&self.attempts, &attempting, Some(&LOCKOUT), at(seconds)).await.unwrap()
        }
    }

    #[tokio::test]
    async fn a_lock_is_for_one_address_ends_by_itself_and_is_reported_once() {
        let fixture = Fixture::new();
        for guess in ["a", "b", "c"] {
            assert_eq!(fixture.begin(guess, "192.0.2.1", 0).await.locked(), None);
        }
        let locked = fixture.begin("d", "192.0.2.1", 1).await;
        assert!(locked.locked().is_some() && locked.is_new_lock());
        let again = fixture.begin("e", "192.0.2.1", 1).await;
        assert!(again.locked().is_some() && !again.is_new_lock());
        assert_eq!(fixture.begin("d", "192.0.2.2", 1).await.locked(), None, "the owner, elsewhere");
        assert_eq!(fixture.begin("f", "192.0.2.1", 62).await.locked(), None);
    }

    #[tokio::test]
    async fn the_same_credential_within_two_seconds_counts_once() {
        let fixture = Fixture::new();
        for _ in 0..10 {
            assert_eq!(fixture.begin("a", "192.0.2.1", 0).await.locked(), None);
        }
        assert_eq!(fixture.begin("a", "192.0.2.1", 2).await.locked(), None, "this one is the second");
        assert_eq!(fixture.begin("b", "192.0.2.1", 2).await.locked(), None);
        assert!(fixture.begin("c", "192.0.2.1", 2).await.locked().is_some());
        assert!(fixture.begin("c", "192.0.2.1", 3).await.locked().is_some(), "locked the second time too");
    }

    #[tokio::test]
    async fn what_was_not_tried_is_forgiven_and_a_success_forgets_all() {
        let fixture = Fixture::new();
        for seconds in 0..10 {
            let ticket = fixture.begin("a", "192.0.2.1", seconds).await;
            assert_eq!(ticket.locked(), None);
            fixture.throttle.forgive(&fixture.attempts, ticket, at(seconds)).await;
        }
        for seconds in 10..20 {
            let (_, right) =
                (fixture.begin("a", "192.0.2.1", seconds).await, fixture.begin("b", "192.0.2.1", seconds).await);
            assert_eq!(right.locked(), None);
            fixture.throttle.clear(&fixture.attempts, right).await;
        }
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let fixture = Fixture::new();
        for number in 0..MOST + 100 {
            let _ = fixture.begin("a", &format!("10.0.{}.{}", number / 256, number % 256), 0).await;
        }
        assert_eq!(fixture.throttle.recent.lock().len(), MOST);
        let _ = fixture.begin("a", "192.0.2.1", 2).await;
        assert_eq!(fixture.throttle.recent.lock().len(), 1);
    }
}
