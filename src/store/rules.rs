//! What every backend decides in the same way, once it has read its rows: pure, and time is a parameter.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::policy::set::Lockout;

use super::{Attempt, LONGEST_LEASE, Rate, Session};

/// What is known of a refresh token that was presented.
#[derive(Clone, Copy, Debug)]
pub(super) struct Presented {
    /// When it was replaced; the head was not.
    pub used: Option<Timestamp>,
    /// Whether what replaced it is the head.
    pub successor_is_head: bool,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Make the successor the head.
    Rotate,
    /// Answer with the successor of then.
    Repeat,
    /// Say that the session is over.
    Over,
    /// End the session, if it has not ended.
    Reuse,
}

/// Judges a refresh token. Who presents the head or, within the window, its predecessor holds what the client should
/// hold; everything else is a copy.
pub(super) fn judge(session: &Session, token: Presented, window: Duration, now: Timestamp) -> Verdict {
    let live = session.is_live(now);
    match token.used {
        None if live => Verdict::Rotate,
        None => Verdict::Over,
        Some(used) if token.successor_is_head && now.since(used) < window => {
            if live {
                Verdict::Repeat
            } else {
                Verdict::Over
            }
        }
        Some(_) => Verdict::Reuse,
    }
}

/// Whether a moment until which something waits has not come yet. One that is further away than anything ever waits was
/// written by a clock that was set back since: it counts as past.
pub(super) fn is_ahead(until: Timestamp, now: Timestamp) -> bool {
    now < until && until <= now.plus(LONGEST_LEASE)
}

/// The longest lock, and how long a lock is remembered after it ended.
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The failed attempts under one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counter {
    /// How many there were.
    pub count: u32,
    /// When the first of them was, in milliseconds.
    pub since: i64,
    /// Until when nothing goes on, in milliseconds; 0 is not locked.
    pub locked: i64,
    /// How often it was locked.
    pub locks: u32,
    /// When all of this may be forgotten, in milliseconds.
    pub forget: i64,
}

impl Counter {
    /// How long the key is locked.
    pub fn locked_for(&self, now: Timestamp) -> Option<Duration> {
        let left = Timestamp::from_millis(self.locked).since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Counts an attempt, and locks with the last one that is allowed.
    pub fn begin(&mut self, lockout: &Lockout, now: Timestamp) -> Attempt {
        if let Some(left) = self.locked_for(now) {
            return Attempt::Locked(left);
        }
        let millis = now.as_millis();
        if self.forget <= millis {
            *self = Self::default();
        }
        let over = Timestamp::from_millis(self.since).plus(lockout.within);
        if self.count == 0 || self.locked != 0 || over <= now {
            (self.count, self.since, self.locked) = (0, millis, 0);
        }
        self.count = self.count.saturating_add(1);
        if self.count >= lockout.after {
            let factor = 1_u32.checked_shl(self.locks).unwrap_or(u32::MAX);
            let lock = lockout.lock.saturating_mul(factor).min(DAY.max(lockout.lock));
            self.locked = now.plus(lock).as_millis();
            self.locks = self.locks.saturating_add(1);
        }
        let counted = Timestamp::from_millis(self.since).plus(lockout.within);
        let locked = Timestamp::from_millis(self.locked).plus(DAY);
        let relevant = if self.locks > 0 { counted.max(locked) } else { counted };
        self.forget = self.forget.max(relevant.as_millis());
        Attempt::Open
    }

    /// Takes one attempt back, and the lock that it brought.
    pub fn forgive(&mut self, now: Timestamp) {
        if self.count == 0 {
            return;
        }
        self.count -= 1;
        if self.locked_for(now).is_some() {
            self.locked = 0;
            self.locks = self.locks.saturating_sub(1);
        }
    }
}

/// One step of the generic cell rate algorithm over the theoretical arrival time of a key, in nanoseconds: the new one,
/// or how long to wait.
pub(super) fn gcra(arrival: i128, rate: Rate, now: Timestamp) -> Result<i128, Duration> {
    let now = i128::from(now.as_millis()) * 1_000_000;
    let each = interval(rate);
    let tolerance = each.saturating_mul(i128::from(rate.burst.max(1)) - 1);
    let arrival = arrival.max(now);
    let early = arrival - now - tolerance;
    if early > 0 {
        return Err(Duration::from_nanos(u64::try_from(early).unwrap_or(u64::MAX)));
    }
    Ok(arrival.saturating_add(each))
}

/// Nanoseconds between two events at a steady rate.
pub(super) fn interval(rate: Rate) -> i128 {
    i128::try_from(rate.per.as_nanos()).unwrap_or(i128::MAX / 4) / i128::from(rate.count.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    #[test]
    fn locks_double_up_to_a_day_and_are_forgotten_a_day_later() {
        let lockout = Lockout { after: 2, within: MINUTE, lock: MINUTE };
        let (mut counter, mut now) = (Counter::default(), at(1_000_000));
        let mut locks = Vec::new();
        for _ in 0..13 {
            assert_eq!(counter.begin(&lockout, now), Attempt::Open);
            assert_eq!(counter.begin(&lockout, now), Attempt::Open);
            let Attempt::Locked(left) = counter.begin(&lockout, now) else { panic!("not locked") };
            locks.push(left.as_secs() / 60);
            now = now.plus(left);
        }
        assert_eq!(locks, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1440, 1440]);
        now = now.plus(DAY);
        assert_eq!(counter.begin(&lockout, now), Attempt::Open);
        assert_eq!(counter.begin(&lockout, now), Attempt::Open);
        assert_eq!(counter.begin(&lockout, now), Attempt::Locked(MINUTE));
    }

    #[test]
    fn attempts_that_lie_far_apart_do_not_add_up() {
        let lockout = Lockout { after: 2, within: MINUTE, lock: MINUTE };
        let mut counter = Counter::default();
        for minute in 1..100 {
            assert_eq!(counter.begin(&lockout, at(minute * 60)), Attempt::Open, "{minute}");
        }
    }

    #[test]
    fn forgiving_takes_back_the_lock_too() {
        let lockout = Lockout { after: 2, within: MINUTE, lock: MINUTE };
        let mut counter = Counter::default();
        counter.begin(&lockout, at(1000));
        counter.begin(&lockout, at(1000));
        counter.forgive(at(1000));
        assert_eq!(counter.begin(&lockout, at(1000)), Attempt::Open);
        assert_eq!(counter.begin(&lockout, at(1000)), Attempt::Locked(MINUTE));
    }

    #[test]
    fn a_rate_has_its_burst_and_then_its_pace() {
        let rate = Rate { count: 60, per: MINUTE, burst: 3 };
        let mut arrival = 0;
        for _ in 0..3 {
            arrival = gcra(arrival, rate, at(1000)).unwrap();
        }
        assert_eq!(gcra(arrival, rate, at(1000)), Err(Duration::from_secs(1)));
        arrival = gcra(arrival, rate, at(1001)).unwrap();
        assert_eq!(gcra(arrival, rate, at(1001)), Err(Duration::from_secs(1)));
    }
}
