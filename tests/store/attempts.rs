//! Counts of failed logins.

use std::time::Duration;

use portcullis::clock::Timestamp;
use portcullis::policy::set::Lockout;
use portcullis::store::{Attempt, Attempts};

use super::{NOW, Place, Row, at_once, rows};

pub const ROWS: &[Row] = rows![
    an_attempt_counts_before_it_is_made,
    the_last_allowed_attempt_locks,
    a_locked_attempt_does_not_lock_longer,
    after_the_lock_it_goes_on,
    locks_double_up_to_a_day,
    a_day_after_the_last_lock_it_is_forgotten,
    attempts_that_lie_far_apart_do_not_add_up,
    keys_are_apart,
    forgiving_takes_back_one,
    forgiving_takes_back_the_lock_that_it_brought,
    forgiving_where_nothing_was_counted_gives_nothing,
    clearing_forgets_counts_and_locks,
    of_many_attempts_at_once_as_many_go_on_as_are_allowed,
    what_one_gateway_counts_another_knows,
    sweeping_forgets_only_what_no_longer_counts,
];

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn after(duration: Duration) -> Timestamp {
    NOW.plus(duration)
}

/// Three attempts within an hour, then a minute.
const LOCKOUT: Lockout = Lockout { after: 3, within: HOUR, lock: MINUTE };

async fn begin(attempts: &dyn Attempts, now: Timestamp) -> Attempt {
    attempts.begin("key", &LOCKOUT, now).await.unwrap()
}

/// As many as are allowed; the next one is locked.
async fn lock(attempts: &dyn Attempts, now: Timestamp) -> Duration {
    for number in 0..LOCKOUT.after {
        assert_eq!(begin(attempts, now).await, Attempt::Open, "{number}");
    }
    match begin(attempts, now).await {
        Attempt::Locked(left) => left,
        Attempt::Open => panic!("not locked"),
    }
}

async fn an_attempt_counts_before_it_is_made(place: Place) {
    let attempts = place.attempts().await;
    let outcomes = [Attempt::Open, Attempt::Open, Attempt::Open, Attempt::Locked(MINUTE)];
    for expected in outcomes {
        assert_eq!(begin(&*attempts, NOW).await, expected);
    }
}

async fn the_last_allowed_attempt_locks(place: Place) {
    let attempts = place.attempts().await;
    let once = Lockout { after: 1, ..LOCKOUT };
    assert_eq!(attempts.begin("key", &once, NOW).await, Ok(Attempt::Open));
    assert_eq!(attempts.begin("key", &once, NOW).await, Ok(Attempt::Locked(MINUTE)));
}

async fn a_locked_attempt_does_not_lock_longer(place: Place) {
    let attempts = place.attempts().await;
    lock(&*attempts, NOW).await;
    for second in 0..60 {
        let left = Duration::from_secs(60 - second);
        assert_eq!(begin(&*attempts, after(Duration::from_secs(second))).await, Attempt::Locked(left));
    }
    assert_eq!(begin(&*attempts, after(MINUTE)).await, Attempt::Open);
}

async fn after_the_lock_it_goes_on(place: Place) {
    let attempts = place.attempts().await;
    lock(&*attempts, NOW).await;
    let almost = after(MINUTE - Duration::from_millis(1));
    assert_eq!(begin(&*attempts, almost).await, Attempt::Locked(Duration::from_millis(1)));
    for _ in 0..3 {
        assert_eq!(begin(&*attempts, after(MINUTE)).await, Attempt::Open, "it counts from the beginning");
    }
    assert_eq!(begin(&*attempts, after(MINUTE)).await, Attempt::Locked(2 * MINUTE));
}

async fn locks_double_up_to_a_day(place: Place) {
    let attempts = place.attempts().await;
    let (mut now, mut minutes) = (NOW, Vec::new());
    for _ in 0..40 {
        let left = lock(&*attempts, now).await;
        minutes.push(left.as_secs() / 60);
        now = now.plus(left);
    }
    assert_eq!(minutes[..13], [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1440, 1440]);
    assert!(minutes[13..].iter().all(|lock| *lock == 1440));
}

async fn a_day_after_the_last_lock_it_is_forgotten(place: Place) {
    let attempts = place.attempts().await;
    let second = lock(&*attempts, NOW).await;
    assert_eq!(lock(&*attempts, after(second)).await, 2 * MINUTE);
    let end = after(second + 2 * MINUTE);
    let third = end.plus(DAY - Duration::from_millis(1));
    assert_eq!(lock(&*attempts, third).await, 4 * MINUTE);
    assert_eq!(lock(&*attempts, third.plus(4 * MINUTE + DAY)).await, MINUTE);
}

async fn attempts_that_lie_far_apart_do_not_add_up(place: Place) {
    let attempts = place.attempts().await;
    for number in 0..20 {
        assert_eq!(begin(&*attempts, after(number * HOUR / 2)).await, Attempt::Open, "{number}");
    }
    // The window begins with the first of them.
    let attempts = place.attempts().await;
    attempts.clear("key").await.unwrap();
    for minutes in [0, 58, 59] {
        assert_eq!(begin(&*attempts, after(minutes * MINUTE)).await, Attempt::Open);
    }
    assert_eq!(begin(&*attempts, after(59 * MINUTE)).await, Attempt::Locked(MINUTE));
}

async fn keys_are_apart(place: Place) {
    let attempts = place.attempts().await;
    let keys = ["", "a", "A", "a ", "a:b", "a*", "\u{e5}", "a\u{30a}", "{a}", "'; --", "a\nb"];
    for key in keys {
        for expected in [Attempt::Open, Attempt::Open, Attempt::Open, Attempt::Locked(MINUTE)] {
            assert_eq!(attempts.begin(key, &LOCKOUT, NOW).await, Ok(expected), "{key:?}");
        }
    }
    attempts.clear("a").await.unwrap();
    for key in keys {
        let open = attempts.begin(key, &LOCKOUT, NOW).await == Ok(Attempt::Open);
        assert_eq!(open, key == "a", "{key:?}");
    }
}

async fn forgiving_takes_back_one(place: Place) {
    let attempts = place.attempts().await;
    for number in 0..20 {
        assert_eq!(begin(&*attempts, NOW).await, Attempt::Open, "{number}");
        attempts.forgive("key", NOW).await.unwrap();
    }
    lock(&*attempts, NOW).await;
}

async fn forgiving_takes_back_the_lock_that_it_brought(place: Place) {
    let attempts = place.attempts().await;
    lock(&*attempts, NOW).await;
    attempts.forgive("key", NOW).await.unwrap();
    assert_eq!(begin(&*attempts, NOW).await, Attempt::Open);
    assert_eq!(begin(&*attempts, NOW).await, Attempt::Locked(MINUTE), "and its doubling");
}

async fn forgiving_where_nothing_was_counted_gives_nothing(place: Place) {
    let attempts = place.attempts().await;
    for _ in 0..5 {
        attempts.forgive("key", NOW).await.unwrap();
    }
    assert_eq!(begin(&*attempts, NOW).await, Attempt::Open);
    for _ in 0..5 {
        attempts.forgive("key", NOW).await.unwrap();
    }
    assert_eq!(lock(&*attempts, NOW).await, MINUTE);
}

async fn clearing_forgets_counts_and_locks(place: Place) {
    let attempts = place.attempts().await;
    attempts.clear("key").await.unwrap();
    for _ in 0..2 {
        assert_eq!(lock(&*attempts, NOW).await, MINUTE);
        attempts.clear("key").await.unwrap();
    }
}

async fn of_many_attempts_at_once_as_many_go_on_as_are_allowed(place: Place) {
    let gateways = [place.attempts().await, place.attempts().await];
    let lockout = Lockout { after: 10, ..LOCKOUT };
    for key in ["one", "two"] {
        let done = at_once(60, |number| {
            let attempts = gateways[number as usize % 2].clone();
            async move { attempts.begin(key, &lockout, NOW).await.unwrap() }
        })
        .await;
        assert_eq!(done.iter().filter(|attempt| **attempt == Attempt::Open).count(), 10);
        assert_eq!(done.iter().filter(|attempt| **attempt == Attempt::Locked(MINUTE)).count(), 50);
    }
}

async fn what_one_gateway_counts_another_knows(place: Place) {
    let (here, there) = (place.attempts().await, place.attempts().await);
    assert_eq!(begin(&*here, NOW).await, Attempt::Open);
    assert_eq!(begin(&*there, NOW).await, Attempt::Open);
    drop(there);
    assert_eq!(begin(&*place.attempts().await, NOW).await, Attempt::Open);
    assert_eq!(begin(&*here, NOW).await, Attempt::Locked(MINUTE));
    place.attempts().await.clear("key").await.unwrap();
    assert_eq!(begin(&*here, NOW).await, Attempt::Open);
}

async fn sweeping_forgets_only_what_no_longer_counts(place: Place) {
    let attempts = place.attempts().await;
    lock(&*attempts, NOW).await;
    for number in 0..50 {
        attempts.begin(&format!("key {number}"), &LOCKOUT, NOW).await.unwrap();
    }
    attempts.sweep(after(Duration::from_secs(1))).await.unwrap();
    assert!(matches!(begin(&*attempts, after(Duration::from_secs(1))).await, Attempt::Locked(_)));
    let gone = attempts.sweep(after(HOUR)).await.unwrap();
    let by_itself = matches!(place, Place::Redis(_));
    assert_eq!(gone, if by_itself { 0 } else { 50 });
    assert_eq!(lock(&*attempts, after(2 * HOUR)).await, 2 * MINUTE, "who was locked is remembered for a day");
    assert_eq!(attempts.sweep(after(3 * DAY)).await.unwrap(), if by_itself { 0 } else { 1 });
    assert_eq!(lock(&*attempts, after(3 * DAY)).await, MINUTE);
}
