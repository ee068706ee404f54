//! Rate limits: GCRA buckets, one for each key of each limit.
//!
//! A limit that a reload leaves as it was keeps its buckets, so that nobody gets a fresh allowance by touching
//! a file. Keys are bounded: they are hashes, and past `KEYS` of them new ones share buckets, which is
//! stricter and never looser.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;

use crate::identity::account::AccountName;
use crate::identity::{Caller, Identity};
use crate::policy::set::{Limit, LimitKey, LimitUse, PolicySet};
use crate::request::forwarded::ClientAddr;
use crate::request::head::RequestHead;
use crate::store::Rate;

/// How many keys a limit tells apart.
const KEYS: usize = 100_000;
/// How many buckets they share past that.
const SHARED: u64 = 4096;
/// After how many checks the number of keys is looked at.
const SWEEP: u32 = 1024;

/// A limit that has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// How many requests the limit admits in its time.
    pub count: u32,
    /// When there is room again.
    pub wait: Duration,
}

/// What limits count by, as far as a stage knows it.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'r> {
    /// The client's address.
    pub client: ClientAddr,
    /// The request.
    pub head: &'r RequestHead<'r>,
    /// Who asks; not known before authentication.
    pub caller: &'r Caller,
    /// The token as sent.
    pub token: Option<&'r str>,
    /// Who wants to log in; not known before the form is read.
    pub account: Option<&'r AccountName>,
}

/// The buckets of all limits of one policy set, by [`LimitId`](crate::policy::set::LimitId).
#[derive(Debug, Default)]
pub struct Limits {
    buckets: Vec<Arc<Buckets>>,
}

/// The buckets that exist, by what makes a limit the same limit. Shared by all generations of [`Limits`].
#[derive(Debug, Default)]
pub struct Shelf(Mutex<HashMap<Same, Arc<Buckets>>>);

/// What two limits of two generations have in common when they are the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Same {
    /// The limit's name, or the key of its only route.
    name: Arc<str>,
    count: u32,
    per: Duration,
    burst: u32,
}

impl Shelf {
    /// The buckets for a policy set; those of limits that it does not have any more are dropped.
    pub fn limits(&self, policy: &PolicySet) -> Limits {
        let mut shelf = self.0.lock();
        let mut kept = HashMap::new();
        let buckets = policy.limits.iter().map(|limit| {
            let same = Same {
                name: limit.name.clone().unwrap_or_else(|| place_of_inline(policy, limit)),
                count: limit.count,
                per: limit.per,
                burst: limit.burst,
            };
            let buckets = shelf.get(&same).cloned().unwrap_or_else(|| Arc::new(Buckets::of(&same.name, limit)));
            kept.insert(same, Arc::clone(&buckets));
            buckets
        });
        let buckets = buckets.collect();
        *shelf = kept;
        Limits { buckets }
    }
}

fn place_of_inline(policy: &PolicySet, limit: &Limit) -> Arc<str> {
    let is_it = |used: &LimitUse| used.limit == limit.id;
    let uses =
        |route: &&crate::policy::set::Route| route.limits_by_address.iter().chain(&route.limits_by_identity).any(is_it);
    let app = || {
        let logins = policy.apps.iter().filter(|app| app.login.is_some());
        let mut found =
            logins.filter(|app| app.login.as_ref().is_some_and(|login| login.account_limits.iter().any(is_it)));
        found.next().map_or("", |app| &*app.name)
    };
    let place = policy.routes.iter().find(uses).map_or_else(app, |route| &route.key);
    format!("{place}: {}", limit.text).into()
}

/// A limit that gateways share, as it stands for one request.
#[derive(Clone, Debug)]
pub struct SharedTake {
    /// What is counted: a digest, since it may be an address or a user.
    pub key: String,
    /// How often it may happen.
    pub rate: Rate,
}

impl Limits {
    /// The same limits, as gateways share them.
    pub fn shared(&self, uses: &[LimitUse], keys: &Keys<'_>) -> Vec<SharedTake> {
        let shared = |used: &LimitUse| {
            let buckets = self.buckets.get(used.limit.0)?;
            Some(SharedTake { key: buckets.shared_key(&used.by, keys), rate: buckets.rate })
        };
        uses.iter().filter_map(shared).collect()
    }

    /// Takes one request from each limit; the first that has no room refuses it.
    pub fn take(&self, uses: &[LimitUse], keys: &Keys<'_>) -> Result<(), Limited> {
        uses.iter().try_for_each(|used| {
            let Some(buckets) = self.buckets.get(used.limit.0) else { return Ok(()) };
            buckets.take(buckets.key(&used.by, keys))
        })
    }
}

type Limiter<C> = RateLimiter<u64, DashMapStateStore<u64>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// The buckets of one limit.
struct Buckets<C: Clock = DefaultClock> {
    /// What makes it the same limit on every gateway.
    name: Arc<str>,
    limiter: Limiter<C>,
    clock: C,
    rate: Rate,
    /// Keyed at random, so that nobody can choose an address that shares another's bucket.
    hasher: RandomState,
    checks: AtomicU32,
    full: AtomicBool,
}

impl Buckets {
    fn of(name: &Arc<str>, limit: &Limit) -> Self {
        let rate = Rate { count: limit.count, per: limit.per, burst: limit.burst };
        Self::new(Arc::clone(name), rate, DefaultClock::default())
    }
}

impl<C: Clock + Clone> Buckets<C> {
    fn new(name: Arc<str>, rate: Rate, clock: C) -> Self {
        let Rate { count, per, burst } = rate;
        let each = per.checked_div(count.max(1)).unwrap_or(per).max(Duration::from_nanos(1));
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(each).unwrap_or(Quota::per_second(NonZeroU32::MIN)).allow_burst(burst);
        Self {
            name,
            limiter: Limiter::dashmap_with_clock(quota, clock.clone()),
            clock,
            rate,
            hasher: RandomState::new(),
            checks: AtomicU32::new(0),
            full: AtomicBool::new(false),
        }
    }

    fn key(&self, by: &LimitKey, keys: &Keys<'_>) -> u64 {
        self.hasher.hash_one(Counted::of(by, keys))
    }

    fn shared_key(&self, by: &LimitKey, keys: &Keys<'_>) -> String {
        let mut digest = digest::Context::new(&digest::SHA256);
        let mut add = |part: &[u8]| {
            digest.update(&part.len().to_le_bytes());
            digest.update(part);
        };
        add(self.name.as_bytes());
        match Counted::of(by, keys) {
            Counted::Address(network) => {
                add(b"ip");
                add(&network.to_le_bytes());
            }
            Counted::User(issuer, user) => [b"user", issuer.as_bytes(), user.as_bytes()].into_iter().for_each(add),
            Counted::Value(kind, value) => [kind.as_bytes(), value.as_bytes()].into_iter().for_each(add),
            Counted::All => add(b"all"),
        }
        URL_SAFE_NO_PAD.encode(digest.finish().as_ref().get(..16).unwrap_or_default())
    }

    fn take(&self, key: u64) -> Result<(), Limited> {
        if self.checks.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP) {
            if self.limiter.len() > KEYS {
                self.limiter.retain_recent();
            }
            self.full.store(self.limiter.len() > KEYS, Ordering::Relaxed);
        }
        let key = if self.full.load(Ordering::Relaxed) { key % SHARED } else { key };
        self.limiter
            .check_key(&key)
            .map_err(|until| Limited { count: self.rate.count, wait: until.wait_time_from(self.clock.now()) })
    }
}

/// Whom or what a limit counts.
#[derive(Hash)]
enum Counted<'k> {
    Address(u128),
    User(&'k str, &'k str),
    Value(&'static str, &'k str),
    All,
}

impl<'k> Counted<'k> {
    fn of(by: &LimitKey, keys: &Keys<'k>) -> Self {
        let identity = match keys.caller {
            Caller::Known(identity) => Some(identity.as_ref()),
            Caller::Anonymous => None,
        };
        let counted = match by {
            LimitKey::Ip => None,
            LimitKey::Account => keys.account.map(|account| Self::Value("account", account.as_str())),
            LimitKey::User => identity.and_then(user).map(|(issuer, user)| Self::User(issuer, user)),
            LimitKey::Tenant => {
                identity.and_then(|identity| identity.tenant.known()).map(|tenant| Self::Value("tenant", tenant))
            }
            LimitKey::Token => keys.token.map(|token| Self::Value("token", token)),
            LimitKey::Route => Some(Self::All),
            LimitKey::Header(name) => keys.head.header(name).one().map(|value| Self::Value("header", value)),
        };
        // Absence must not escape a limit.
        counted.unwrap_or_else(|| Self::Address(network(keys.client)))
    }
}

fn user(identity: &Identity) -> Option<(&str, &str)> {
    identity.id.known().map(|id| (identity.issuer.as_str(), id.as_ref()))
}

/// An address, or for IPv6 its /64: that much one customer gets.
fn network(client: ClientAddr) -> u128 {
    match client.ip() {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address) >> 64 << 64,
    }
}

impl<C: Clock> fmt::Debug for Buckets<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buckets").field("rate", &self.rate).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn rate(count: u32, seconds: u64, burst: u32) -> Rate {
        Rate { count, per: Duration::from_secs(seconds), burst }
    }

    #[test]
    fn a_bucket_admits_its_burst_and_refills_evenly() {
        let clock = FakeRelativeClock::default();
        let buckets = Buckets::new("".into(), rate(60, 60, 3), clock.clone());
        assert!((0..3).all(|_| buckets.take(1).is_ok()));
        assert_eq!(buckets.take(1), Err(Limited { count: 60, wait: Duration::from_secs(1) }));
        assert_eq!(buckets.take(2), Ok(()), "another key has a bucket of its own");
        clock.advance(Duration::from_secs(1));
        assert_eq!(buckets.take(1), Ok(()));
        assert!(buckets.take(1).is_err());
    }

    /// O09: a limiter's memory is bounded, whoever sends the keys.
    #[test]
    fn a_million_keys_share_a_bounded_number_of_buckets() {
        let buckets = Buckets::new("".into(), rate(1, 3600, 1), FakeRelativeClock::default());
        for key in 0..1_000_000 {
            let _ = buckets.take(key);
        }
        assert!(buckets.limiter.len() <= KEYS + SHARED as usize + SWEEP as usize, "{}", buckets.limiter.len());
        assert!(buckets.take(2_000_000).is_err(), "a new key finds a bucket that others emptied");
    }

    #[test]
    fn an_ipv6_customer_is_one_key() {
        let address = |text: &str| network(ClientAddr::new(text.parse().unwrap()));
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:1"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
        assert_ne!(address("192.0.2.1"), address("192.0.2.2"));
    }
}
