//! Where passwords are hashed: a pool for blocking work with a bound, so that a flood of logins neither fills the
//! memory nor takes the threads from everybody else.
//!
//! A check takes a permit, or waits in a queue of bounded length for a bounded time, or is refused at once. The permit
//! goes with the work: a client that hangs up does not let the next one start while its hash is still being computed
//! (alexedwards/argon2id#35). Hashing yields to others: requests of people who are logged in go first. Memory is bounded
//! by permits × 19 MiB for hashes of ours, × 256 MiB for whatever may be stored (`password` refuses more).
//!
//! [`Hasher::check`] does the same work whether somebody of the name exists or not: where there is no hash it checks
//! one that costs as much as most of those in the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroizing;

use crate::live::Live;
use crate::password::{self, HashError, PasswordHash, Verdict};
use crate::random::Random;
use crate::secret::Secret;
use crate::store::{StoreError, Users};

/// How often the most common kind of hash is looked up again.
const RELEARN: Duration = Duration::from_secs(5 * 60);

/// How much is hashed at a time.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How many hashes are computed at once.
    pub permits: usize,
    /// How many more may wait.
    pub queue: usize,
    /// For how long.
    pub wait: Duration,
}

impl Default for Bounds {
    /// One for each core, 64 that wait, for five seconds.
    fn default() -> Self {
        let permits = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { permits, queue: 64, wait: Duration::from_secs(5) }
    }
}

/// Computes and checks hashes. Clones share one pool.
#[derive(Clone, Debug)]
pub struct Hasher(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    bounds: Bounds,
    random: Arc<dyn Random>,
    /// The stored hash that is checked where there is nobody.
    dummy: Live<Box<str>>,
}

/// Nothing was found out: 503 with `Retry-After`, for whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// The computation failed, for lack of memory or because the process ends.
    Failed,
    /// Too many wait already. Found out at once.
    QueueFull,
    /// The turn did not come in time.
    WaitedTooLong,
}

/// What checking a password found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Whether it is the password. Never a match where there is no hash, or none that can be read.
    pub verdict: Verdict,
    /// Why the stored hash could not be read: something for the operator, not for the client.
    pub unreadable: Option<HashError>,
}

impl Hasher {
    /// A pool of its own.
    pub fn new(bounds: Bounds, random: Arc<dyn Random>) -> Self {
        Self(Arc::new(Pool {
            permits: Arc::new(Semaphore::new(bounds.permits.clamp(1, Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
            bounds,
            random,
            dummy: Live::new(password::dummy("").into()),
        }))
    }

    /// Checks a password. For every outcome of a login there is one call of this, with the hash of whoever has the
    /// name, or without one: an unknown name, a wrong password, and somebody who is disabled or locked out then cost
    /// the same. Whether a match means that the login succeeds is for the caller to say, afterwards.
    pub async fn check(&self, stored: Option<&Secret<String>>, password: Zeroizing<Vec<u8>>) -> Result<Checked, Busy> {
        if password::check_length(&password).is_err() {
            // Nobody's password. It says nothing about the name, so it may be quick.
            return Ok(Checked { verdict: Verdict::NoMatch, unreadable: None });
        }
        let dummy = self.0.dummy.snapshot();
        let stored_or_dummy = stored.map_or(&**dummy, |stored| stored.expose().as_str());
        let (hash, unreadable) = match PasswordHash::parse(stored_or_dummy) {
            Ok(hash) => (Ok(hash), None),
            Err(error) => (PasswordHash::parse(&dummy), Some(error)),
        };
        let hash = hash.map_err(|_| Busy::Failed)?;
        let verdict = self.compute(move || hash.verify(&password)).await?;
        let somebodys = stored.is_some() && unreadable.is_none();
        Ok(Checked { verdict: if somebodys { verdict } else { Verdict::NoMatch }, unreadable })
    }

    /// Whether a check would be refused at once, as things stand. Who asks this first spares the store the work for
    /// logins that come to nothing; the bound itself is kept by [`check`](Self::check).
    pub fn is_full(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) >= self.0.bounds.queue
    }

    /// A new hash, with a new salt.
    pub async fn hash(&self, password: Zeroizing<Vec<u8>>) -> Result<Secret<String>, Busy> {
        let mut salt = [0; 16];
        self.0.random.fill(&mut salt);
        self.compute(move || password::hash(&password, salt)).await
    }

    /// Takes the most common kind of hash in the store as the one to imitate.
    pub async fn learn(&self, users: &dyn Users) -> Result<(), StoreError> {
        let kinds = users.hash_kinds().await?;
        let known = kinds.iter().filter(|(kind, _)| kind != "unknown");
        let most = known.max_by(|(a, n), (b, m)| n.cmp(m).then_with(|| b.cmp(a)));
        let dummy: Box<str> = password::dummy(most.map_or("", |(kind, _)| kind)).into();
        if **self.0.dummy.snapshot() != *dummy {
            self.0.dummy.publish(dummy);
        }
        Ok(())
    }

    /// Learns at once and then again and again, for as long as the process runs.
    pub async fn run(self, users: Arc<dyn Users>) {
        loop {
            if let Err(error) = self.learn(&*users).await {
                tracing::debug!(%error, "the kinds of stored hashes could not be read");
            }
            tokio::time::sleep(RELEARN).await;
        }
    }

    async fn compute<T, F>(&self, work: F) -> Result<T, Busy>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, HashError> + Send + 'static,
    {
        let permit = self.permit().await?;
        let (answer, answered) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new().name("portcullis-hash".to_owned()).spawn(move || {
            let _permit = permit; // to the end of the work, not of the request
            step_back();
            let _ = answer.send(work());
        });
        drop(thread.map_err(|_| Busy::Failed)?);
        answered.await.map_err(|_| Busy::Failed)?.map_err(|_| Busy::Failed)
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, Busy> {
        let pool = &*self.0;
        if let Ok(permit) = Arc::clone(&pool.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let _place = Place::take(&pool.waiting, pool.bounds.queue).ok_or(Busy::QueueFull)?;
        let turn = Arc::clone(&pool.permits).acquire_owned();
        match tokio::time::timeout(pool.bounds.wait, turn).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(Busy::Failed),
            Err(_) => Err(Busy::WaitedTooLong),
        }
    }
}

/// Lets others on the machine go first, for as long as this thread lives. Not all the way down (19): beside an app that
/// keeps every core busy nobody could log in any more; at 5 a hash still gets a third of what others get. Priority goes
/// down without privileges and never up again, which is why each computation has a thread of its own. On Linux it is the
/// thread's alone; elsewhere it would be the process's.
fn step_back() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, 5);
}

/// A place in the queue, until it is dropped.
struct Place<'p>(&'p AtomicUsize);

impl<'p> Place<'p> {
    fn take(waiting: &'p AtomicUsize, most: usize) -> Option<Self> {
        let next = |waiting: usize| (waiting < most).then_some(waiting + 1);
        waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()?;
        Some(Self(waiting))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::identity::account::AccountName;
    use crate::random::SeededRandom;
    use crate::store::User;
    use crate::store::memory::Memory;

    fn hasher(permits: usize, queue: usize, wait: Duration) -> Hasher {
        Hasher::new(Bounds { permits, queue, wait }, Arc::new(SeededRandom::new(1)))
    }

    fn bytes(password: &str) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(password.as_bytes().to_vec())
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn only_who_has_the_hash_and_knows_the_password_matches() {
        let hasher = hasher(2, 64, LONG);
        let stored = hasher.hash(bytes("korrekt pferd")).await.unwrap();
        let checked = |verdict, unreadable| Ok(Checked { verdict, unreadable });
        let secret = |text: &str| Some(Secret::new(text.to_owned()));
        let outdated = "$2b$04$f7opLDtqpGfJ0C523e2s/.wv5YfLomEMEv8hVlLUvY8/0vI8KHixG";
        let broken = HashError::Invalid { format: "argon2id", part: "m" };
        for (stored, password, expected) in [
            (Some(stored.clone()), "korrekt pferd", checked(Verdict::Match, None)),
            (Some(stored.clone()), "korrekt Pferd", checked(Verdict::NoMatch, None)),
            (Some(stored), "", checked(Verdict::NoMatch, None)),
            (secret(outdated), "secret", checked(Verdict::MatchOutdated, None)),
            (None, "korrekt pferd", checked(Verdict::NoMatch, None)),
            (secret("!"), "!", checked(Verdict::NoMatch, Some(HashError::Unusable))),
            (secret("plain"), "plain", checked(Verdict::NoMatch, Some(HashError::Unknown(None)))),
            (secret("$argon2id$v=19$m=0,t=1,p=1$$"), "x", checked(Verdict::NoMatch, Some(broken))),
        ] {
            assert_eq!(hasher.check(stored.as_ref(), bytes(password)).await, expected, "{password:?}");
        }
        let again = [hasher.hash(bytes("x")).await.unwrap(), hasher.hash(bytes("x")).await.unwrap()];
        assert_ne!(again[0].expose(), again[1].expose());
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once_and_a_turn_that_does_not_come_in_time() {
        let pool = hasher(1, 1, Duration::from_millis(300));
        let held = pool.permit().await.unwrap();
        let (first, second) = tokio::join!(pool.check(None, bytes("x")), async {
            assert!(pool.is_full());
            let asked = std::time::Instant::now();
            let answer = pool.check(None, bytes("x")).await;
            (answer, asked.elapsed())
        });
        assert!(!pool.is_full());
        assert_eq!(first, Err(Busy::WaitedTooLong));
        assert_eq!(second.0, Err(Busy::QueueFull));
        assert!(second.1 < Duration::from_millis(100), "{:?}", second.1);
        assert_eq!(pool.0.waiting.load(Ordering::Relaxed), 0);
        drop(held);
        assert!(pool.check(None, bytes("x")).await.is_ok());
    }

    #[tokio::test]
    async fn a_name_that_nobody_has_costs_what_most_hashes_cost() {
        let (pool, users) = (hasher(1, 1, LONG), Memory::new());
        let user = |number: usize, hash: Option<&str>| User {
            id: number.to_string(),
            name: number.to_string(),
            account: AccountName::parse(&number.to_string()).unwrap(),
            email: None,
            hash: hash.map(|hash| Secret::new(hash.to_owned())),
            roles: Vec::new(),
            scopes: Vec::new(),
            tenant: None,
            disabled: false,
            created: Timestamp::from_seconds(0),
            updated: Timestamp::from_seconds(0),
        };
        let ours = pool.hash(bytes("x")).await.unwrap();
        let bcrypt = "$2b$04$f7opLDtqpGfJ0C523e2s/.wv5YfLomEMEv8hVlLUvY8/0vI8KHixG";
        let mut number = 0;
        let ours = ours.expose().as_str();
        for (more, expected) in [
            (vec![], "argon2id"),
            (vec![None, None, None], "argon2id"),
            // What cannot be checked is not imitated.
            (vec![Some("!"), Some("!"), Some(bcrypt)], "bcrypt"),
            (vec![Some(ours), Some(ours)], "argon2id"),
            (vec![Some(bcrypt), Some(bcrypt)], "bcrypt"),
        ] {
            let more: Vec<User> = more
                .into_iter()
                .map(|hash| {
                    number += 1;
                    user(number, hash)
                })
                .collect();
            Users::add(&users, &more).await.unwrap();
            pool.learn(&users).await.unwrap();
            let dummy = pool.0.dummy.snapshot();
            assert_eq!(PasswordHash::parse(&dummy).unwrap().format(), expected, "{number}");
        }
        // Nobody has it, whatever the hash is that was imitated.
        assert_eq!(pool.check(None, bytes("secret")).await.unwrap().verdict, Verdict::NoMatch);
    }

    /// J04
    #[tokio::test]
    async fn who_hangs_up_does_not_free_the_permit_before_the_work_is_done() {
        let pool = hasher(1, 64, LONG);
        let (started, has_started) = tokio::sync::oneshot::channel();
        let (finish, may_finish) = std::sync::mpsc::channel::<()>();
        let request = tokio::spawn({
            let pool = pool.clone();
            async move {
                pool.compute(move || {
                    started.send(()).unwrap();
                    may_finish.recv().map_err(|_| HashError::Failed)
                })
                .await
            }
        });
        has_started.await.unwrap();
        request.abort();
        assert!(request.await.unwrap_err().is_cancelled());
        assert_eq!(pool.0.permits.available_permits(), 0);
        finish.send(()).unwrap();
        drop(tokio::time::timeout(LONG, pool.permit()).await.unwrap().unwrap());
        assert_eq!(pool.0.permits.available_permits(), 1);
    }
}
