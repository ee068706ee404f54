//! The list of revoked tokens that requests are checked against: in memory, without asking a store.
//!
//! What this gateway revokes is in it at once ([`RevokedList::revoke`]); what others revoke comes from the stores that
//! gateways share, four times a second and sooner where the store can tell ([`RevokedList::follow`]). An entry leaves
//! when the last token it concerns has expired, so the list is as long as a token lives, not as long as the gateway.
//!
//! It holds keyed fingerprints of 64 bits, not texts: 10^6 entries are some 50 MB, and a lookup takes a tenth of a
//! microsecond. A collision refuses a token that is fine; nobody can aim at one, because the key is new at each start.

use std::collections::{HashMap, hash_map};
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use tokio::task::JoinSet;

use crate::clock::{Clock, Timestamp};

use super::{Cursor, Revocation, Revocations, Revoked, StoreError};

/// How often each store is asked.
const POLL: Duration = Duration::from_millis(250);

/// How long the list may have gone without a complete look at every store.
const STALE: Duration = Duration::from_secs(5);

/// How often what has ended is dropped.
const SWEEP: Duration = Duration::from_secs(60);

/// So many parts, each with its own lock: who adds holds back a part of the lookups, for less than a microsecond.
const SHARDS: usize = 64;

/// The revoked tokens, sessions and subjects whose tokens have not expired.
pub struct RevokedList {
    sources: Vec<Source>,
    shards: Vec<RwLock<Shard>>,
    key: RandomState,
    length: AtomicUsize,
    started: Instant,
}

type Map<V> = HashMap<u64, V, BuildHasherDefault<AsIs>>;

#[derive(Default)]
struct Shard {
    entries: Map<Entry>,
    /// Subjects with a session that was spared.
    others: Map<Others>,
}

#[derive(Clone, Copy)]
struct Entry {
    until: i64,
    /// Tokens issued before this moment are concerned; all of them but for subjects.
    before: i64,
}

/// Revocations of a subject that each spared one session. Of all of them two decide: the latest, and the latest that
/// spared another session than that.
#[derive(Clone, Copy)]
struct Others {
    until: i64,
    latest: Spared,
    /// For the session that the latest spared.
    next: Option<Spared>,
}

#[derive(Clone, Copy)]
struct Spared {
    before: i64,
    /// The fingerprint of the session.
    session: u64,
}

impl Others {
    /// Tokens issued before which moment are concerned.
    fn before(&self, session: Option<u64>) -> i64 {
        match session == Some(self.latest.session) {
            true => self.next.map_or(i64::MIN, |next| next.before),
            false => self.latest.before,
        }
    }

    fn merge(&mut self, new: Self) {
        self.until = self.until.max(new.until);
        let all = [Some(self.latest), self.next, Some(new.latest), new.next];
        let latest = |of: &mut dyn Iterator<Item = Spared>| of.max_by_key(|spared| spared.before);
        if let Some(first) = latest(&mut all.into_iter().flatten()) {
            self.next = latest(&mut all.into_iter().flatten().filter(|spared| spared.session != first.session));
            self.latest = first;
        }
    }
}

/// A store that others write to as well.
struct Source {
    store: Arc<dyn Revocations>,
    cursor: tokio::sync::Mutex<Cursor>,
    /// When the last complete look at it began: milliseconds after the start of the list, plus one. 0 is never.
    read: AtomicU64,
}

/// What is hashed already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

impl fmt::Debug for RevokedList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevokedList").field("length", &self.len()).field("sources", &self.sources.len()).finish()
    }
}

impl Default for RevokedList {
    /// A list that nobody else adds to.
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl RevokedList {
    /// An empty list over these stores. [`load`](Self::load) it before serving.
    pub fn new(stores: Vec<Arc<dyn Revocations>>) -> Self {
        let source = |store| Source { store, cursor: tokio::sync::Mutex::default(), read: AtomicU64::new(0) };
        Self {
            sources: stores.into_iter().map(source).collect(),
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            key: RandomState::new(),
            length: AtomicUsize::new(0),
            started: Instant::now(),
        }
    }

    /// Whether a token with these claims is revoked. A subject's revocation is strict: it concerns what was issued
    /// before its moment, and what does not say when.
    pub fn is_revoked(
        &self,
        issuer: &str,
        jti: Option<&str>,
        sid: Option<&str>,
        sub: Option<&str>,
        iat: Option<i64>,
    ) -> bool {
        if self.is_empty() {
            return false;
        }
        let issued = iat.map_or(i64::MIN, |seconds| Timestamp::from_seconds(seconds).as_millis());
        let is_other = |fingerprint: &u64, shard: &Shard| {
            let others = shard.others.get(fingerprint).filter(|_| !shard.others.is_empty());
            let session = || sid.map(|sid| self.fingerprint(Kind::Session, issuer, sid));
            others.is_some_and(|others| issued < others.before(session()))
        };
        [(Kind::Token, jti), (Kind::Session, sid), (Kind::Subject, sub)].into_iter().any(|(kind, value)| {
            let Some(value) = value else { return false };
            let fingerprint = self.fingerprint(kind, issuer, value);
            let Some(shard) = self.shard(fingerprint) else { return false };
            let shard = shard.read();
            shard.entries.get(&fingerprint).is_some_and(|entry| issued < entry.before) || is_other(&fingerprint, &shard)
        })
    }

    /// Adds to this list alone.
    pub fn add(&self, revocations: &[Revocation]) {
        for Revocation { issuer, revoked, until } in revocations {
            let (kind, value, before, but) = match revoked {
                Revoked::Token(id) => (Kind::Token, id, i64::MAX, None),
                Revoked::Session(id) => (Kind::Session, id, i64::MAX, None),
                Revoked::Subject(id, before) => (Kind::Subject, id, before.as_millis(), None),
                Revoked::Others { subject, before, but } => (Kind::Subject, subject, before.as_millis(), Some(but)),
            };
            let fingerprint = self.fingerprint(kind, issuer, value);
            let Some(shard) = self.shard(fingerprint) else { continue };
            let until = until.as_millis();
            let added = match but.map(|but| self.fingerprint(Kind::Session, issuer, but)) {
                None => put(&mut shard.write().entries, fingerprint, Entry { until, before }, |entry, new| {
                    *entry = Entry { until: entry.until.max(new.until), before: entry.before.max(new.before) };
                }),
                Some(session) => {
                    let new = Others { until, latest: Spared { before, session }, next: None };
                    put(&mut shard.write().others, fingerprint, new, Others::merge)
                }
            };
            if added {
                self.length.fetch_add(1, Ordering::Release);
            }
        }
    }

    /// Revokes: here at once, and in every store. An error means that others may not hear of it; here it holds anyway.
    pub async fn revoke(&self, revocations: &[Revocation], now: Timestamp) -> Result<(), StoreError> {
        self.add(revocations);
        let mut result = Ok(());
        for source in &self.sources {
            if let Err(error) = source.store.add(revocations, now).await {
                result = Err(error);
            }
        }
        result
    }

    /// Reads all there is. Whoever serves before that lets through what was revoked before the start.
    pub async fn load(&self, now: Timestamp) -> Result<(), StoreError> {
        for source in &self.sources {
            self.catch_up(source, now).await?;
        }
        Ok(())
    }

    /// Follows the stores for as long as it is polled.
    pub async fn follow(self: Arc<Self>, clock: Arc<dyn Clock>) {
        let mut tasks = JoinSet::new(); // ends its tasks when this future is dropped
        for index in 0..self.sources.len() {
            tasks.spawn(Arc::clone(&self).follow_one(index, Arc::clone(&clock)));
        }
        loop {
            tokio::time::sleep(SWEEP).await;
            self.sweep(clock.now());
            for source in &self.sources {
                if let Err(error) = source.store.sweep(clock.now()).await {
                    tracing::debug!(%error, "old revocations were not swept");
                }
            }
        }
    }

    async fn follow_one(self: Arc<Self>, index: usize, clock: Arc<dyn Clock>) {
        let Some(source) = self.sources.get(index) else { return };
        let mut failed = false;
        loop {
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                // Many come together.
                () = source.store.changed() => tokio::time::sleep(POLL / 25).await,
            }
            match self.catch_up(source, clock.now()).await {
                Ok(()) if failed => tracing::info!("revocations are read again"),
                Err(error) if !failed => tracing::warn!(%error, "revocations cannot be read"),
                Ok(()) | Err(_) => {}
            }
            failed = !self.is_fresh(source);
        }
    }

    /// Reads what is new in a store.
    async fn catch_up(&self, source: &Source, now: Timestamp) -> Result<(), StoreError> {
        let mut cursor = source.cursor.lock().await;
        loop {
            let began = self.elapsed();
            let before = *cursor;
            let found = source.store.since(&mut cursor, now).await?;
            self.add(&found);
            if *cursor == before {
                source.read.store(began, Ordering::Release);
                return Ok(());
            }
        }
    }

    /// Whether the list has seen a store lately. Where it has not, a token may have been revoked elsewhere: whoever
    /// checks revocation cannot decide. One store is enough, since a revocation is acknowledged only when it is in all.
    pub fn is_current(&self) -> bool {
        self.sources.is_empty() || self.sources.iter().any(|source| self.is_fresh(source))
    }

    /// Whether each store was seen lately, in the order in which they were given.
    pub fn are_fresh(&self) -> impl Iterator<Item = bool> {
        self.sources.iter().map(|source| self.is_fresh(source))
    }

    fn is_fresh(&self, source: &Source) -> bool {
        let read = source.read.load(Ordering::Acquire);
        read != 0 && self.elapsed().saturating_sub(read) <= STALE.as_millis() as u64
    }

    /// Milliseconds since the start, plus one. Not the clock: that one may jump.
    fn elapsed(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Drops what ended before `now`.
    pub fn sweep(&self, now: Timestamp) {
        for shard in &self.shards {
            let mut shard = shard.write();
            let Shard { entries, others } = &mut *shard;
            let before = entries.len() + others.len();
            entries.retain(|_, entry| entry.until >= now.as_millis());
            others.retain(|_, entry| entry.until >= now.as_millis());
            self.length.fetch_sub(before.saturating_sub(entries.len() + others.len()), Ordering::AcqRel);
            if entries.len() < entries.capacity() / 4 {
                entries.shrink_to_fit();
            }
            if others.len() < others.capacity() / 4 {
                others.shrink_to_fit();
            }
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.length.load(Ordering::Acquire)
    }

    /// Whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn fingerprint(&self, kind: Kind, issuer: &str, value: &str) -> u64 {
        self.key.hash_one((kind as u8, issuer, value))
    }

    /// The map takes its place from the lowest bits and its tags from the highest.
    fn shard(&self, fingerprint: u64) -> Option<&RwLock<Shard>> {
        self.shards.get((fingerprint >> 40) as usize % SHARDS)
    }
}

/// Puts something into a map, or merges it with what is there. Says whether it is new.
fn put<V>(map: &mut Map<V>, fingerprint: u64, new: V, merge: impl FnOnce(&mut V, V)) -> bool {
    match map.entry(fingerprint) {
        hash_map::Entry::Occupied(mut there) => {
            merge(there.get_mut(), new);
            false
        }
        hash_map::Entry::Vacant(place) => {
            place.insert(new);
            true
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Token = 0,
    Session = 1,
    Subject = 2,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn revocation(revoked: Revoked, until: i64) -> Revocation {
        Revocation { issuer: "local".to_owned(), revoked, until: at(until) }
    }

    #[test]
    fn a_token_is_revoked_by_its_id_its_session_or_its_subject() {
        let list = RevokedList::default();
        list.add(&[
            revocation(Revoked::Token("t1".into()), 2000),
            revocation(Revoked::Session("s1".into()), 2000),
            revocation(Revoked::Subject("u1".into(), at(1000)), 2000),
        ]);
        for (issuer, jti, sid, sub, iat, expected) in [
            ("local", Some("t1"), None, None, None, true),
            ("local", Some("t2"), Some("s1"), Some("u2"), Some(1500), true),
            ("local", Some("t2"), Some("s2"), Some("u1"), Some(999), true),
            ("local", Some("t2"), Some("s2"), Some("u1"), Some(1000), false),
            ("local", None, None, Some("u1"), None, true),
            ("local", Some("s1"), Some("t1"), None, Some(1), false),
            ("other", Some("t1"), Some("s1"), Some("u1"), Some(1), false),
            ("local", None, None, None, None, false),
        ] {
            assert_eq!(
                list.is_revoked(issuer, jti, sid, sub, iat),
                expected,
                "{issuer} {jti:?} {sid:?} {sub:?} {iat:?}"
            );
        }
    }

    #[test]
    fn the_later_of_two_revocations_of_a_subject_counts() {
        let list = RevokedList::default();
        for (before, until) in [(1000, 2000), (1200, 1500), (1100, 3000)] {
            list.add(&[revocation(Revoked::Subject("u".into(), at(before)), until)]);
        }
        list.sweep(at(2500));
        assert_eq!(list.len(), 1);
        assert!(list.is_revoked("local", None, None, Some("u"), Some(1199)));
        assert!(!list.is_revoked("local", None, None, Some("u"), Some(1200)));
    }

    fn others(subject: &str, before: i64, but: &str) -> Revocation {
        let (subject, but) = (subject.to_owned(), but.to_owned());
        revocation(Revoked::Others { subject, before: at(before), but }, 2000)
    }

    /// Whether tokens of these sessions of `u`, issued at these times, are revoked.
    fn are_revoked<const N: usize>(list: &RevokedList, tokens: [(&str, i64); N]) -> [bool; N] {
        tokens.map(|(sid, iat)| list.is_revoked("local", None, Some(sid), Some("u"), Some(iat)))
    }

    #[test]
    fn one_session_is_spared_by_a_revocation_of_the_others() {
        let list = RevokedList::default();
        list.add(&[others("u", 1000, "s1")]);
        let tokens = [("s1", 999), ("s2", 999), ("s2", 1000), ("s3", 1)];
        assert_eq!(are_revoked(&list, tokens), [false, true, false, true]);
        assert!(list.is_revoked("local", None, None, Some("u"), Some(999)), "a token without a session");
        assert!(!list.is_revoked("other", None, Some("s2"), Some("u"), Some(999)));
        assert!(!list.is_revoked("local", None, Some("s2"), Some("v"), Some(999)));
        assert_eq!(list.len(), 1);
        list.sweep(at(2001));
        assert!(list.is_empty());
    }

    /// A spared session is spared from that one revocation: whoever revokes everything, before or after, means it too.
    #[test]
    fn whoever_is_spared_once_is_not_spared_from_anything_else() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
            let list = RevokedList::default();
            let all = [others("u", 1000, "s1"), others("u", 1200, "s2"), others("u", 1100, "s1")];
            order.iter().for_each(|at| list.add(&all[*at..=*at]));
            let tokens = [("s1", 1199), ("s1", 1200), ("s2", 1099), ("s2", 1100), ("s3", 1199)];
            assert_eq!(are_revoked(&list, tokens), [true, false, true, false, true], "{order:?}");
        }
        for order in [[0, 1], [1, 0]] {
            let list = RevokedList::default();
            let all = [revocation(Revoked::Subject("u".into(), at(900)), 2000), others("u", 1000, "s1")];
            order.iter().for_each(|at| list.add(&all[*at..=*at]));
            assert_eq!(are_revoked(&list, [("s1", 899), ("s1", 900), ("s2", 999)]), [true, false, true], "{order:?}");
        }
        let list = RevokedList::default();
        list.add(&[others("u", 1000, "s1"), revocation(Revoked::Session("s1".into()), 2000)]);
        assert_eq!(are_revoked(&list, [("s1", 1500)]), [true]);
    }

    /// K07: bounded by the life of tokens, and quick at any size.
    #[test]
    fn a_million_entries_are_found_quickly_and_leave_in_time() {
        let list = RevokedList::default();
        let entries: Vec<Revocation> = (0..1_000_000)
            .map(|number| revocation(Revoked::Token(format!("{number:032x}")), 1000 + number % 1800))
            .collect();
        list.add(&entries);
        list.add(&entries);
        assert_eq!(list.len(), 1_000_000);
        let began = Instant::now();
        let mut found = 0;
        for number in 0..200_000 {
            let (jti, sid) = (format!("{:032x}", number * 10), "0198a6f0-0000-7000-8000-000000000000");
            found += usize::from(list.is_revoked("local", Some(&jti), Some(sid), Some("ada"), Some(1)));
        }
        let each = began.elapsed().as_nanos() / 200_000;
        assert_eq!(found, 100_000);
        println!("{each} ns for each lookup of three values (with making the text)");
        list.sweep(at(1900));
        assert_eq!(list.len(), (0..1_000_000).filter(|number| number % 1800 >= 900).count());
        list.sweep(at(3000));
        assert!(list.is_empty());
        assert!(list.shards.iter().all(|shard| shard.read().entries.capacity() < 10), "the memory is given back");
    }

    #[derive(Debug)]
    struct Broken;

    #[async_trait::async_trait]
    impl Revocations for Broken {
        async fn add(&self, _: &[Revocation], _: Timestamp) -> Result<(), StoreError> {
            Err(StoreError::Unavailable("broken".into()))
        }
        async fn since(&self, _: &mut Cursor, _: Timestamp) -> Result<Vec<Revocation>, StoreError> {
            Err(StoreError::Unavailable("broken".into()))
        }
        async fn sweep(&self, _: Timestamp) -> Result<u64, StoreError> {
            Err(StoreError::Unavailable("broken".into()))
        }
    }

    #[tokio::test]
    async fn a_list_over_a_broken_store_is_not_current_and_still_revokes_here() {
        let list = RevokedList::new(vec![Arc::new(Broken)]);
        assert!(!list.is_current());
        assert!(list.load(at(1000)).await.is_err());
        assert!(list.revoke(&[revocation(Revoked::Token("t".into()), 2000)], at(1000)).await.is_err());
        assert!(!list.is_current() && list.is_revoked("local", Some("t"), None, None, None));
        assert!(RevokedList::default().is_current());
    }

    #[tokio::test]
    async fn what_one_gateway_revokes_another_hears() {
        let memory: Arc<dyn Revocations> = Arc::new(Memory::new());
        let clock: Arc<dyn Clock> = Arc::new(crate::clock::ManualClock::at(at(1000)));
        let here = RevokedList::new(vec![Arc::clone(&memory)]);
        here.revoke(&[revocation(Revoked::Session("before".into()), 2000)], at(1000)).await.unwrap();
        let there = Arc::new(RevokedList::new(vec![memory]));
        there.load(at(1000)).await.unwrap();
        assert!(there.is_current() && there.is_revoked("local", None, Some("before"), None, None));
        let following = tokio::spawn(Arc::clone(&there).follow(clock));
        here.revoke(&[revocation(Revoked::Session("after".into()), 2000)], at(1000)).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(1);
        while !there.is_revoked("local", None, Some("after"), None, None) {
            assert!(Instant::now() < deadline, "nothing was heard within a second");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        following.abort();
    }
}
