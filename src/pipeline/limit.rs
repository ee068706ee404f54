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

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;

use crate::identity::{Caller, Identity};
use crate::policy::set::{Limit, LimitKey, LimitUse, PolicySet};
use crate::request::forwarded::ClientAddr;
use crate::request::head::RequestHead;

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
            let buckets = shelf.get(&same).cloned().unwrap_or_else(|| Arc::new(Buckets::of(limit)));
            kept.insert(same, Arc::clone(&buckets));
            buckets
        });
        let buckets = buckets.collect();
        *shelf = kept;
        Limits { buckets }
    }
}

fn place_of_inline(policy: &PolicySet, limit: &Limit) -> Arc<str> {
    let uses = |route: &&crate::policy::set::Route| {
        route.limits_by_address.iter().chain(&route.limits_by_identity).any(|used| used.limit == limit.id)
    };
    let route = policy.routes.iter().find(uses).map_or("", |route| &route.key);
    format!("{route}: {}", limit.text).into()
}

impl Limits {
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
    limiter: Limiter<C>,
    clock: C,
    count: u32,
    /// Keyed at random, so that nobody can choose an address that shares another's bucket.
    hasher: RandomState,
    checks: AtomicU32,
    full: AtomicBool,
}

impl Buckets {
    fn of(limit: &Limit) -> Self {
        Self::new(limit.count, limit.per, limit.burst, DefaultClock::default())
    }
}

impl<C: Clock + Clone> Buckets<C> {
    fn new(count: u32, per: Duration, burst: u32, clock: C) -> Self {
        let each = per.checked_div(count.max(1)).unwrap_or(per).max(Duration::from_nanos(1));
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(each).unwrap_or(Quota::per_second(NonZeroU32::MIN)).allow_burst(burst);
        Self {
            limiter: Limiter::dashmap_with_clock(quota, clock.clone()),
            clock,
            count,
            hasher: RandomState::new(),
            checks: AtomicU32::new(0),
            full: AtomicBool::new(false),
        }
    }

    fn key(&self, by: &LimitKey, keys: &Keys<'_>) -> u64 {
        let identity = match keys.caller {
            Caller::Known(identity) => Some(identity.as_ref()),
            Caller::Anonymous => None,
        };
        let value = match by {
            LimitKey::Ip | LimitKey::Account => None,
            LimitKey::User => identity.and_then(user).map(|user| self.hasher.hash_one(("user", user))),
            LimitKey::Tenant => identity
                .and_then(|identity| identity.tenant.known())
                .map(|tenant| self.hasher.hash_one(("tenant", tenant))),
            LimitKey::Token => keys.token.map(|token| self.hasher.hash_one(("token", token))),
            LimitKey::Route => Some(0),
            LimitKey::Header(name) => keys.head.header(name).one().map(|value| self.hasher.hash_one(("header", value))),
        };
        // Absence must not escape a limit.
        value.unwrap_or_else(|| self.hasher.hash_one(("ip", network(keys.client))))
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
            .map_err(|until| Limited { count: self.count, wait: until.wait_time_from(self.clock.now()) })
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
        f.debug_struct("Buckets").field("count", &self.count).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    #[test]
    fn a_bucket_admits_its_burst_and_refills_evenly() {
        let clock = FakeRelativeClock::default();
        let buckets = Buckets::new(60, Duration::from_secs(60), 3, clock.clone());
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
        let buckets = Buckets::new(1, Duration::from_secs(3600), 1, FakeRelativeClock::default());
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
