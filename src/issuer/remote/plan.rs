//! When an issuer's keys are fetched, and what may be said of a key meanwhile. Times in, answers out.
//!
//! ```text
//! fetched ──────────── 80 % ─ fresh ─────────── … fails, again and again … ────────── max_stale
//!    ├─────────────────────┼ fetched again        tried every cool_down, old keys in use     ├ no keys: 503
//! ```
//!
//! Any fetch begins a cool-down, in which no unknown name leads to another: so a flood of made-up names costs an issuer
//! no more than its set being fetched at the end of each, and a name that is really new is known by then.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::policy::issuer::RemoteKeys;

/// For how long a name that is not in a set fetched since counts as unknown.
const UNKNOWN: Duration = Duration::from_secs(30);
/// So many such names are remembered. More are forgotten, and then the cool-down alone protects the issuer.
const MOST_UNKNOWN: usize = 1024;
/// No issuer is asked more often than that, whatever the policy says.
const LEAST: Duration = Duration::from_secs(1);
/// A fetch that takes longer has been lost: its task is gone.
const LOST: Duration = Duration::from_secs(60);

/// What is known of one issuer's fetches.
#[derive(Debug)]
pub(super) struct Course {
    terms: Terms,
    /// When keys, or the answer that there are none, last came.
    fetched: Option<Timestamp>,
    /// When the last fetch began.
    began: Option<Timestamp>,
    /// When to fetch again whatever is asked; at once where nothing is stated.
    due: Option<Timestamp>,
    /// Fetches that failed since the last that did not.
    failures: u32,
    in_flight: bool,
    /// Names that were not in the set, as hashes, and when that was found out; oldest first.
    unknown: VecDeque<(u64, Timestamp)>,
}

#[derive(Clone, Copy, Debug)]
struct Terms {
    refresh: Duration,
    cool_down: Duration,
    max_stale: Duration,
}

/// What to do about a name that is not in the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Fetch: it may be new.
    Fetch,
    /// Somebody fetches already.
    Wait,
    /// The set is new enough to say that there is no such key.
    UpToDate,
    /// Nothing can be said.
    Unavailable,
}

impl Course {
    pub(super) fn new(settings: &RemoteKeys) -> Self {
        let RemoteKeys { refresh, cool_down, max_stale, .. } = *settings;
        Self {
            terms: Terms { refresh: refresh.max(LEAST), cool_down: cool_down.max(LEAST), max_stale },
            fetched: None,
            began: None,
            due: None,
            failures: 0,
            in_flight: false,
            unknown: VecDeque::new(),
        }
    }

    /// When the set last came.
    pub(super) fn fetched(&self) -> Option<Timestamp> {
        self.fetched
    }

    /// When the next fetch is due.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.due
    }

    /// Whether the set may be used: it came once, and not too long ago.
    pub(super) fn is_usable(&self, now: Timestamp) -> bool {
        self.fetched.is_some_and(|fetched| now.since(fetched) <= self.terms.max_stale)
    }

    /// Whether the last fetch succeeded.
    pub(super) fn is_well(&self) -> bool {
        self.fetched.is_some() && self.failures == 0
    }

    /// Whether it is time to fetch, although nobody asks.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        let due = self.due.is_none_or(|due| now >= due) || self.began.is_some_and(|began| now < began);
        due && !self.is_in_flight(now)
    }

    /// What to do about a name that is not in the set.
    pub(super) fn ask(&self, name: u64, now: Timestamp) -> Ask {
        let known = if self.is_well() && self.is_usable(now) { Ask::UpToDate } else { Ask::Unavailable };
        if self.is_in_flight(now) {
            return Ask::Wait;
        }
        let cools = self.began.is_some_and(|began| !is_over(began, self.terms.cool_down, now));
        let unknown = |(other, since): &(u64, Timestamp)| *other == name && !is_over(*since, UNKNOWN, now);
        if cools || (known == Ask::UpToDate && self.unknown.iter().any(unknown)) { known } else { Ask::Fetch }
    }

    /// Notes that a fetch begins.
    pub(super) fn begin(&mut self, now: Timestamp) {
        (self.in_flight, self.began) = (true, Some(now));
    }

    /// Notes that a set came, which may be used for `max_age` if its server says so. `spread` moves the next fetch, so
    /// that many gateways do not come at once.
    pub(super) fn succeeded(&mut self, max_age: Option<Duration>, spread: u8, now: Timestamp) {
        let Terms { refresh, cool_down, .. } = self.terms;
        let fresh = max_age.unwrap_or(refresh).clamp(cool_down.min(refresh), refresh);
        let ahead = fresh.mul_f64(0.8 - 0.1 * f64::from(spread) / 255.0);
        (self.in_flight, self.failures, self.fetched, self.due) = (false, 0, Some(now), Some(now.plus(ahead)));
    }

    /// Notes that none came. Where none ever did, it is tried again soon: perhaps both are only starting.
    pub(super) fn failed(&mut self, spread: u8, now: Timestamp) {
        let soon = Duration::from_secs(1 << self.failures.min(10));
        let wait = if self.fetched.is_none() { soon.min(self.terms.cool_down) } else { self.terms.cool_down };
        self.in_flight = false;
        self.failures = self.failures.saturating_add(1);
        self.due = Some(now.plus(wait.mul_f64(1.0 + 0.1 * f64::from(spread) / 255.0)));
    }

    /// Notes that a name is not in a set that just came.
    pub(super) fn is_unknown(&mut self, name: u64, now: Timestamp) {
        self.unknown.retain(|(other, since)| *other != name && !is_over(*since, UNKNOWN, now));
        if self.unknown.len() >= MOST_UNKNOWN {
            self.unknown.pop_front();
        }
        self.unknown.push_back((name, now));
    }

    fn is_in_flight(&self, now: Timestamp) -> bool {
        self.in_flight && self.began.is_some_and(|began| !is_over(began, LOST, now))
    }
}

/// Whether a time since a moment is over. Where the clock was set back, it is.
fn is_over(since: Timestamp, wait: Duration, now: Timestamp) -> bool {
    now < since || now >= since.plus(wait)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::issuer::KeysAt;
    use crate::token::algorithm::AlgorithmSet;

    const START: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn course() -> Course {
        Course::new(&RemoteKeys {
            at: KeysAt::Url("https://id.example/keys".into()),
            algorithms: AlgorithmSet::EMPTY,
            refresh: Duration::from_secs(600),
            cool_down: Duration::from_secs(30),
            max_stale: Duration::from_secs(24 * 3600),
            may_be_empty: false,
        })
    }

    fn at(seconds: u64) -> Timestamp {
        START.plus(Duration::from_secs(seconds))
    }

    fn fetched(max_age: Option<u64>, spread: u8) -> Course {
        let mut course = course();
        course.begin(START);
        course.succeeded(max_age.map(Duration::from_secs), spread, START);
        course
    }

    #[test]
    fn a_set_is_fetched_ahead_of_its_end_and_never_later_than_the_policy_says() {
        for (max_age, spread, due) in [
            (None, 0, 480),
            (Some(600), 0, 480),
            (Some(600), 255, 420),
            (Some(300), 0, 240),
            // A day: the policy's ten minutes count.
            (Some(86_400), 0, 480),
            // No time at all: no more often than every cool-down.
            (Some(0), 0, 24),
        ] {
            let course = fetched(max_age, spread);
            assert!(!course.is_due(at(due - 1)) && course.is_due(at(due)), "{max_age:?} {spread}: {:?}", course.due());
        }
        assert!(course().is_due(START));
    }

    #[test]
    fn what_is_asked_while_it_cools_down_is_answered_at_once() {
        let mut course = course();
        assert_eq!(course.ask(1, START), Ask::Fetch);
        course.begin(START);
        assert_eq!(course.ask(2, START), Ask::Wait);
        assert!(!course.is_due(START));
        course.failed(0, START);
        // Never seen: nothing can be said.
        assert_eq!((course.ask(1, at(29)), course.ask(1, at(30))), (Ask::Unavailable, Ask::Fetch));
        course.begin(at(30));
        course.succeeded(None, 0, at(30));
        course.is_unknown(1, at(30));
        assert_eq!(
            (course.ask(1, at(59)), course.ask(2, at(59)), course.ask(2, at(60))),
            (Ask::UpToDate, Ask::UpToDate, Ask::Fetch)
        );
        // A failed fetch leaves it open whether the name is new.
        course.begin(at(60));
        course.failed(0, at(60));
        assert_eq!((course.ask(2, at(89)), course.ask(2, at(90))), (Ask::Unavailable, Ask::Fetch));
    }

    #[test]
    fn a_name_is_unknown_for_thirty_seconds_and_so_many_are_remembered() {
        let mut course =
            Course { terms: Terms { cool_down: Duration::from_secs(5), ..course().terms }, ..fetched(None, 0) };
        course.is_unknown(1, START);
        assert_eq!(
            (course.ask(1, at(29)), course.ask(2, at(29)), course.ask(1, at(30))),
            (Ask::UpToDate, Ask::Fetch, Ask::Fetch)
        );
        for name in 0..5_000 {
            course.is_unknown(name, at(1));
        }
        assert_eq!(course.unknown.len(), MOST_UNKNOWN);
        assert_eq!((course.ask(1, at(29)), course.ask(4_999, at(29))), (Ask::Fetch, Ask::UpToDate));
    }

    #[test]
    fn a_first_set_is_tried_for_soon_and_a_next_one_every_cool_down() {
        let mut first = course();
        let mut waits = Vec::new();
        for _ in 0..8 {
            first.begin(START);
            first.failed(0, START);
            waits.push(first.due().unwrap().since(START).as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        let mut later = fetched(None, 0);
        later.begin(at(480));
        later.failed(0, at(480));
        assert!(!later.is_due(at(509)) && later.is_due(at(510)));
    }

    #[test]
    fn an_old_set_goes_on_until_it_is_too_old() {
        let mut course = fetched(None, 0);
        let day = 24 * 3600;
        for now in [0, 480, 3600, day] {
            course.begin(at(now));
            course.failed(0, at(now));
            assert!(course.is_usable(at(now)), "{now}");
        }
        assert!(!course.is_usable(at(day + 1)));
        assert_eq!(course.ask(1, at(day + 1)), Ask::Unavailable);
        course.begin(at(day + 2));
        course.succeeded(None, 0, at(day + 2));
        assert!(course.is_usable(at(day + 2)) && course.is_well());
    }

    #[test]
    fn a_clock_that_is_set_back_and_a_lost_fetch_hold_nothing_up() {
        let mut course = fetched(None, 0);
        let back = START.minus(Duration::from_secs(3600));
        assert!(course.is_due(back) && course.is_usable(back));
        assert_eq!(course.ask(1, back), Ask::Fetch);
        course.begin(at(40));
        assert_eq!((course.ask(1, at(99)), course.ask(1, at(100))), (Ask::Wait, Ask::Fetch));
    }
}
