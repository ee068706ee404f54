//! Everything in the memory of one process: for tests, for `demo`, and for what one process may forget (attempts and
//! limits while the shared store is away). It has the semantics of the others, without their durability.
//!
//! What strangers can fill (attempts, limits) is bounded; what only users and operators can (users, sessions,
//! revocations) is not, and leaves by [`sweep`](Sessions::sweep).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::Timestamp;
use crate::identity::account::AccountName;
use crate::policy::set::Lockout;
use crate::secret::Secret;

use super::rules::{self, Counter, Presented, Verdict};
use super::{
    Added, Attempt, Attempts, BrowserSession, BrowserSessions, CookieHash, Cursor, EndedBy, Limits, Rate, Revocation,
    Revocations, Rotation, Session, Sessions, SigningKey, SigningKeys, StoreError, Successor, TokenHash, User, Users,
};

/// How many keys attempts and limits hold at most.
const MOST_KEYS: usize = 100_000;

/// How many revocations are handed out at once.
const PAGE: usize = 10_000;

/// A store that ends with the process.
#[derive(Debug, Default)]
pub struct Memory {
    users: Mutex<BTreeMap<AccountName, User>>,
    sessions: Mutex<State>,
    browser: Mutex<HashMap<CookieHash, BrowserSession>>,
    revocations: Mutex<BTreeMap<i64, Revocation>>,
    /// The position given out last; it outlives what was swept.
    position: Mutex<i64>,
    added: Notify,
    attempts: Mutex<HashMap<String, Counter>>,
    limits: Mutex<HashMap<String, i128>>,
    keys: Mutex<Vec<SigningKey>>,
}

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<String, Session>,
    tokens: HashMap<TokenHash, Token>,
}

#[derive(Debug)]
struct Token {
    session: String,
    /// When it was replaced, by what, and that sealed.
    used: Option<(Timestamp, TokenHash, Vec<u8>)>,
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

// === Users ===

#[async_trait]
impl Users for Memory {
    async fn add(&self, users: &[User]) -> Result<Added, StoreError> {
        let mut stored = self.users.lock();
        let mut ids: HashSet<&str> = stored.values().map(|user| user.id.as_str()).collect();
        let (mut names, mut taken) = (HashSet::new(), Vec::new());
        for (at, user) in users.iter().enumerate() {
            if stored.contains_key(&user.account) | !ids.insert(&user.id) | !names.insert(&user.account) {
                taken.push(at);
            }
        }
        if !taken.is_empty() {
            return Ok(Added::Taken(taken));
        }
        stored.extend(users.iter().map(|user| (user.account.clone(), user.clone())));
        Ok(Added::All)
    }

    async fn by_account(&self, account: &AccountName) -> Result<Option<User>, StoreError> {
        Ok(self.users.lock().get(account).cloned())
    }

    async fn by_id(&self, id: &str) -> Result<Option<User>, StoreError> {
        Ok(self.users.lock().values().find(|user| user.id == id).cloned())
    }

    async fn list(&self, after: Option<&AccountName>, most: u32) -> Result<Vec<User>, StoreError> {
        let users = self.users.lock();
        let rest = users.iter().filter(|(account, _)| after.is_none_or(|after| *account > after));
        Ok(rest.take(most as usize).map(|(_, user)| user.clone()).collect())
    }

    async fn update(&self, user: &User) -> Result<bool, StoreError> {
        let mut users = self.users.lock();
        let Some((account, created)) =
            users.values().find(|old| old.id == user.id).map(|old| (old.account.clone(), old.created))
        else {
            return Ok(false);
        };
        if account != user.account && users.contains_key(&user.account) {
            return Ok(false);
        }
        users.remove(&account);
        users.insert(user.account.clone(), User { created, ..user.clone() });
        Ok(true)
    }

    async fn replace_hash(&self, id: &str, old: &str, new: &str, now: Timestamp) -> Result<bool, StoreError> {
        let mut users = self.users.lock();
        let Some(user) = users.values_mut().find(|user| user.id == id) else { return Ok(false) };
        if user.hash.as_ref().is_none_or(|hash| hash.expose() != old) {
            return Ok(false);
        }
        (user.hash, user.updated) = (Some(Secret::new(new.to_owned())), now);
        Ok(true)
    }

    async fn remove(&self, id: &str) -> Result<bool, StoreError> {
        let mut users = self.users.lock();
        let Some(account) = users.values().find(|user| user.id == id).map(|user| user.account.clone()) else {
            return Ok(false);
        };
        users.remove(&account);
        self.sessions.lock().forget(|session| session.user == id);
        Ok(true)
    }

    async fn hash_kinds(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
        for hash in self.users.lock().values().filter_map(|user| user.hash.as_ref()) {
            *kinds.entry(super::hash_kind(hash.expose())).or_default() += 1;
        }
        let mut kinds: Vec<_> = kinds.into_iter().collect();
        kinds.sort_by(|(a, n), (b, m)| m.cmp(n).then_with(|| a.cmp(b)));
        kinds.truncate(100);
        Ok(kinds)
    }
}

// === Sessions ===

impl State {
    /// Forgets sessions and their tokens; how many sessions.
    fn forget(&mut self, over: impl Fn(&Session) -> bool) -> u64 {
        let before = self.sessions.len();
        self.sessions.retain(|_, session| !over(session));
        let sessions = &self.sessions;
        self.tokens.retain(|_, token| sessions.contains_key(&token.session));
        before.saturating_sub(self.sessions.len()) as u64
    }
}

#[async_trait]
impl Sessions for Memory {
    async fn start(&self, session: &Session, head: &TokenHash) -> Result<(), StoreError> {
        let mut state = self.sessions.lock();
        if state.sessions.contains_key(&session.id) || state.tokens.contains_key(head) {
            return Err(StoreError::Unavailable("the session exists already".to_owned()));
        }
        state.sessions.insert(session.id.clone(), session.clone());
        state.tokens.insert(*head, Token { session: session.id.clone(), used: None });
        Ok(())
    }

    async fn of_token(&self, token: &TokenHash) -> Result<Option<Session>, StoreError> {
        let state = self.sessions.lock();
        Ok(state.tokens.get(token).and_then(|token| state.sessions.get(&token.session)).cloned())
    }

    async fn rotate(
        &self,
        presented: &TokenHash,
        successor: &Successor,
        window: Duration,
        now: Timestamp,
    ) -> Result<Rotation, StoreError> {
        let mut state = self.sessions.lock();
        let State { sessions, tokens } = &mut *state;
        let Some(token) = tokens.get(presented) else { return Ok(Rotation::Unknown) };
        let Some(session) = sessions.get_mut(&token.session) else { return Ok(Rotation::Unknown) };
        let next = token.used.as_ref().and_then(|(_, next, _)| tokens.get(next));
        let known = Presented {
            used: token.used.as_ref().map(|(at, _, _)| *at),
            successor_is_head: next.is_some_and(|next| next.used.is_none()),
        };
        Ok(match rules::judge(session, known, window, now) {
            Verdict::Rotate => {
                if tokens.contains_key(&successor.hash) {
                    return Err(StoreError::Unavailable("the successor exists already".to_owned()));
                }
                session.used = now;
                tokens.insert(successor.hash, Token { session: session.id.clone(), used: None });
                if let Some(token) = tokens.get_mut(presented) {
                    token.used = Some((now, successor.hash, successor.sealed.clone()));
                }
                Rotation::Rotated(session.clone())
            }
            Verdict::Repeat => {
                let sealed = token.used.as_ref().map(|(_, _, sealed)| sealed.clone()).unwrap_or_default();
                Rotation::Repeated(session.clone(), sealed)
            }
            Verdict::Over => Rotation::Over(session.clone()),
            Verdict::Reuse => {
                if session.is_live(now) {
                    session.ended = Some((now, EndedBy::Reuse));
                }
                Rotation::Reused(session.clone())
            }
        })
    }

    async fn get(&self, id: &str) -> Result<Option<Session>, StoreError> {
        Ok(self.sessions.lock().sessions.get(id).cloned())
    }

    async fn live(&self, user: Option<&str>, now: Timestamp, most: u32) -> Result<Vec<Session>, StoreError> {
        let state = self.sessions.lock();
        let mut live: Vec<&Session> = state
            .sessions
            .values()
            .filter(|session| session.is_live(now) && user.is_none_or(|user| session.user == user))
            .collect();
        live.sort_by(|a, b| b.started.cmp(&a.started).then_with(|| b.id.cmp(&a.id)));
        Ok(live.into_iter().take(most as usize).cloned().collect())
    }

    async fn end(&self, id: &str, by: EndedBy, now: Timestamp) -> Result<bool, StoreError> {
        let mut state = self.sessions.lock();
        let Some(session) = state.sessions.get_mut(id).filter(|session| session.is_live(now)) else {
            return Ok(false);
        };
        session.ended = Some((now, by));
        Ok(true)
    }

    async fn end_all(
        &self,
        user: &str,
        but: Option<&str>,
        by: EndedBy,
        now: Timestamp,
    ) -> Result<Vec<String>, StoreError> {
        let mut ended = Vec::new();
        for session in self.sessions.lock().sessions.values_mut() {
            if session.user == user && Some(session.id.as_str()) != but && session.is_live(now) {
                session.ended = Some((now, by));
                ended.push(session.id.clone());
            }
        }
        Ok(ended)
    }

    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError> {
        Ok(self.sessions.lock().forget(|session| session.expires < now))
    }
}

// === Browser sessions ===

#[async_trait]
impl BrowserSessions for Memory {
    async fn start(&self, session: &BrowserSession) -> Result<(), StoreError> {
        let mut sessions = self.browser.lock();
        if sessions.contains_key(&session.hash) || sessions.values().any(|other| other.id == session.id) {
            return Err(StoreError::Unavailable("the session exists already".to_owned()));
        }
        sessions.insert(session.hash, session.clone());
        Ok(())
    }

    async fn get(&self, hash: &CookieHash) -> Result<Option<BrowserSession>, StoreError> {
        Ok(self.browser.lock().get(hash).cloned())
    }

    async fn by_id(&self, id: &str) -> Result<Option<BrowserSession>, StoreError> {
        Ok(self.browser.lock().values().find(|session| session.id == id).cloned())
    }

    async fn claim(
        &self,
        hash: &CookieHash,
        version: i64,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut sessions = self.browser.lock();
        let Some(session) = sessions.get_mut(hash) else { return Ok(false) };
        let free = session.version == version && !session.is_paused(now) && !session.is_leased(now);
        if free {
            session.lease = Some(until);
        }
        Ok(free)
    }

    async fn replace(
        &self,
        hash: &CookieHash,
        version: i64,
        sealed: &[u8],
        refresh_from: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut sessions = self.browser.lock();
        let Some(session) = sessions.get_mut(hash).filter(|session| session.version == version) else {
            return Ok(false);
        };
        (session.sealed, session.version) = (sealed.to_vec(), version.saturating_add(1));
        (session.refresh_from, session.lease) = (refresh_from, None);
        Ok(true)
    }

    async fn release(&self, hash: &CookieHash, version: i64, refresh_from: Timestamp) -> Result<(), StoreError> {
        if let Some(session) = self.browser.lock().get_mut(hash).filter(|session| session.version == version) {
            (session.refresh_from, session.lease) = (refresh_from, None);
        }
        Ok(())
    }

    async fn touch(&self, hash: &CookieHash, now: Timestamp) -> Result<(), StoreError> {
        if let Some(session) = self.browser.lock().get_mut(hash) {
            session.used = session.used.max(now);
        }
        Ok(())
    }

    async fn end(&self, hash: &CookieHash) -> Result<bool, StoreError> {
        Ok(self.browser.lock().remove(hash).is_some())
    }

    async fn end_all(&self, issuer: &str, user: &str) -> Result<Vec<BrowserSession>, StoreError> {
        let mut sessions = self.browser.lock();
        let ended = sessions.extract_if(|_, session| session.issuer == issuer && session.user == user);
        Ok(ended.map(|(_, session)| session).collect())
    }

    async fn live(&self, user: Option<&str>, now: Timestamp, most: u32) -> Result<Vec<BrowserSession>, StoreError> {
        let sessions = self.browser.lock();
        let is_meant =
            |session: &&BrowserSession| session.expires > now && user.is_none_or(|user| session.user == user);
        let mut live: Vec<&BrowserSession> = sessions.values().filter(is_meant).collect();
        live.sort_by(|a, b| b.started.cmp(&a.started).then_with(|| b.id.cmp(&a.id)));
        Ok(live.into_iter().take(most as usize).cloned().collect())
    }

    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut sessions = self.browser.lock();
        let before = sessions.len();
        sessions.retain(|_, session| session.expires >= now);
        Ok(before.saturating_sub(sessions.len()) as u64)
    }
}

// === Revocations ===

#[async_trait]
impl Revocations for Memory {
    async fn add(&self, revocations: &[Revocation], _now: Timestamp) -> Result<(), StoreError> {
        let mut position = self.position.lock();
        let mut stored = self.revocations.lock();
        for revocation in revocations {
            *position += 1;
            stored.insert(*position, revocation.clone());
        }
        self.added.notify_waiters();
        Ok(())
    }

    async fn since(&self, cursor: &mut Cursor, now: Timestamp) -> Result<Vec<Revocation>, StoreError> {
        let stored = self.revocations.lock();
        let mut found = Vec::new();
        for (position, revocation) in stored.range(cursor.0.saturating_add(1)..).take(PAGE) {
            cursor.0 = *position;
            if revocation.until > now {
                found.push(revocation.clone());
            }
        }
        Ok(found)
    }

    async fn changed(&self) {
        self.added.notified().await;
    }

    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut stored = self.revocations.lock();
        let before = stored.len();
        stored.retain(|_, revocation| revocation.until >= now);
        Ok(before.saturating_sub(stored.len()) as u64)
    }
}

// === Attempts ===

/// Drops what may be forgotten; where that is not enough, the quarter that could be forgotten soonest. Locked keys and
/// those with a history are remembered longest, so a stranger who fills the map loses their own counts first.
fn make_room<V>(map: &mut HashMap<String, V>, now: Timestamp, forget: impl Fn(&V) -> i64) {
    if map.len() < MOST_KEYS {
        return;
    }
    map.retain(|_, value| forget(value) > now.as_millis());
    if map.len() < MOST_KEYS {
        return;
    }
    let mut moments: Vec<i64> = map.values().map(&forget).collect();
    let (_, limit, _) = moments.select_nth_unstable(MOST_KEYS / 4);
    let limit = *limit;
    let mut room = MOST_KEYS / 4;
    map.retain(|_, value| {
        let goes = room > 0 && forget(value) <= limit;
        room -= usize::from(goes);
        !goes
    });
}

#[async_trait]
impl Attempts for Memory {
    async fn begin(&self, key: &str, lockout: &Lockout, now: Timestamp) -> Result<Attempt, StoreError> {
        let mut attempts = self.attempts.lock();
        if let Some(counter) = attempts.get_mut(key) {
            return Ok(counter.begin(lockout, now));
        }
        make_room(&mut attempts, now, |counter| counter.forget);
        Ok(attempts.entry(key.to_owned()).or_default().begin(lockout, now))
    }

    async fn forgive(&self, key: &str, now: Timestamp) -> Result<(), StoreError> {
        if let Some(counter) = self.attempts.lock().get_mut(key) {
            counter.forgive(now);
        }
        Ok(())
    }

    async fn clear(&self, key: &str) -> Result<(), StoreError> {
        self.attempts.lock().remove(key);
        Ok(())
    }

    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut attempts = self.attempts.lock();
        let before = attempts.len();
        attempts.retain(|_, counter| counter.forget > now.as_millis());
        Ok(before.saturating_sub(attempts.len()) as u64)
    }
}

// === Limits ===

#[async_trait]
impl Limits for Memory {
    async fn take(&self, key: &str, rate: Rate, now: Timestamp) -> Result<Option<Duration>, StoreError> {
        let mut limits = self.limits.lock();
        let arrival = limits.get(key).copied().unwrap_or(i128::MIN / 4);
        match rules::gcra(arrival, rate, now) {
            Err(wait) => Ok(Some(wait)),
            Ok(arrival) => {
                if let Some(stored) = limits.get_mut(key) {
                    *stored = arrival;
                } else {
                    make_room(&mut limits, now, |arrival| i64::try_from(arrival / 1_000_000).unwrap_or(i64::MAX));
                    limits.insert(key.to_owned(), arrival);
                }
                Ok(None)
            }
        }
    }
}

// === Signing keys ===

#[async_trait]
impl SigningKeys for Memory {
    async fn of(&self, purpose: &str) -> Result<Vec<SigningKey>, StoreError> {
        Ok(self.keys.lock().iter().filter(|key| key.purpose == purpose).cloned().collect())
    }

    async fn add(&self, key: &SigningKey, last: Option<&str>) -> Result<bool, StoreError> {
        let mut keys = self.keys.lock();
        let newest = keys.iter().rev().find(|own| own.purpose == key.purpose).map(|own| own.kid.as_str());
        if newest != last || keys.iter().any(|own| own.kid == key.kid) {
            return Ok(false);
        }
        keys.push(key.clone());
        Ok(true)
    }

    async fn retire(&self, kid: &str, at: Timestamp) -> Result<(), StoreError> {
        for key in self.keys.lock().iter_mut().filter(|key| key.kid == kid) {
            key.retired.get_or_insert(at);
        }
        Ok(())
    }

    async fn remove(&self, kid: &str) -> Result<(), StoreError> {
        self.keys.lock().retain(|key| key.kid != kid);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stranger_cannot_fill_the_memory_nor_push_out_a_lock() {
        let memory = Memory::new();
        let lockout = Lockout { after: 2, ..Lockout::default() };
        let now = Timestamp::from_seconds(1_000_000);
        for _ in 0..2 {
            assert_eq!(memory.begin("locked", &lockout, now).await, Ok(Attempt::Open));
        }
        let rate = Rate { count: 1, per: Duration::from_secs(60), burst: 1 };
        for number in 0..MOST_KEYS * 2 {
            let key = format!("key {number}");
            memory.begin(&key, &lockout, now).await.unwrap();
            memory.take(&key, rate, now).await.unwrap();
        }
        assert!(memory.attempts.lock().len() <= MOST_KEYS && memory.limits.lock().len() <= MOST_KEYS);
        assert!(matches!(memory.begin("locked", &lockout, now).await, Ok(Attempt::Locked(_))));
    }
}
