//! Rates.

use std::time::{Duration, Instant};

use portcullis::clock::Timestamp;
use portcullis::store::redis::Redis;
use portcullis::store::{Limits, Rate};

use super::relay::{Relay, State};
use super::servers::{Redis as Server, skipped};
use super::{NOW, Place, Row, at_once, rows};

pub const ROWS: &[Row] = rows![
    a_burst_goes_at_once_and_the_next_waits,
    what_was_used_comes_back_one_by_one,
    a_long_rest_brings_no_more_than_the_burst,
    who_waits_too_little_loses_nothing,
    without_a_burst_each_waits_for_the_one_before,
    keys_are_apart,
    a_rate_that_is_not_a_whole_number_is_kept_over_time,
    a_clock_behind_gets_nothing_extra,
    of_many_at_once_exactly_the_burst_goes_on,
    what_one_gateway_takes_another_misses,
];

const STEP: Duration = Duration::from_secs(600);

/// One in ten minutes, three at once. The steps are long, so that no server forgets during a test.
const RATE: Rate = Rate { count: 6, per: Duration::from_secs(3600), burst: 3 };

fn after(duration: Duration) -> Timestamp {
    NOW.plus(duration)
}

async fn take(limits: &dyn Limits, now: Timestamp) -> Option<Duration> {
    limits.take("key", RATE, now).await.unwrap()
}

async fn burst(limits: &dyn Limits, now: Timestamp) {
    for number in 0..3 {
        assert_eq!(take(limits, now).await, None, "{number}");
    }
    assert_eq!(take(limits, now).await, Some(STEP));
}

async fn a_burst_goes_at_once_and_the_next_waits(place: Place) {
    burst(&*place.limits().await, NOW).await;
}

async fn what_was_used_comes_back_one_by_one(place: Place) {
    let limits = place.limits().await;
    burst(&*limits, NOW).await;
    for step in 1..10 {
        assert_eq!(take(&*limits, after(step * STEP)).await, None);
        assert_eq!(take(&*limits, after(step * STEP)).await, Some(STEP));
    }
    assert_eq!(take(&*limits, after(11 * STEP)).await, None);
    assert_eq!(take(&*limits, after(11 * STEP)).await, None);
    assert_eq!(take(&*limits, after(11 * STEP)).await, Some(STEP));
}

async fn a_long_rest_brings_no_more_than_the_burst(place: Place) {
    let limits = place.limits().await;
    for days in 0..5 {
        burst(&*limits, after(days * Duration::from_secs(86_400))).await;
    }
}

async fn who_waits_too_little_loses_nothing(place: Place) {
    let limits = place.limits().await;
    burst(&*limits, NOW).await;
    for seconds in [0, 1, 300, 599] {
        let waited = Duration::from_secs(seconds);
        assert_eq!(take(&*limits, after(waited)).await, Some(STEP - waited));
    }
    let almost = STEP - Duration::from_millis(1);
    assert_eq!(take(&*limits, after(almost)).await, Some(Duration::from_millis(1)));
    assert_eq!(take(&*limits, after(STEP)).await, None);
}

async fn without_a_burst_each_waits_for_the_one_before(place: Place) {
    let limits = place.limits().await;
    for burst in [0, 1] {
        let rate = Rate { burst, ..RATE };
        let key = format!("burst {burst}");
        for step in 0..3 {
            assert_eq!(limits.take(&key, rate, after(step * STEP)).await, Ok(None));
            assert_eq!(limits.take(&key, rate, after(step * STEP)).await, Ok(Some(STEP)));
        }
    }
}

async fn keys_are_apart(place: Place) {
    let limits = place.limits().await;
    for key in ["", "a", "A", "a ", "a:b", "\u{e5}", "{a}", "a\nb"] {
        for expected in [None, None, None, Some(STEP)] {
            assert_eq!(limits.take(key, RATE, NOW).await, Ok(expected), "{key:?}");
        }
    }
}

async fn a_rate_that_is_not_a_whole_number_is_kept_over_time(place: Place) {
    let limits = place.limits().await;
    let rate = Rate { count: 7, per: Duration::from_secs(3600), burst: 1 };
    let mut taken = 0;
    for second in (0..36_000).step_by(36) {
        taken += u32::from(limits.take("key", rate, after(Duration::from_secs(second))).await == Ok(None));
    }
    // Seven an hour for ten hours, less what falls between two looks.
    assert!((66..=71).contains(&taken), "{taken}");
}

async fn a_clock_behind_gets_nothing_extra(place: Place) {
    let limits = place.limits().await;
    burst(&*limits, NOW).await;
    assert_eq!(take(&*limits, NOW.minus(STEP)).await, Some(2 * STEP));
    assert_eq!(take(&*limits, after(STEP)).await, None);
}

async fn of_many_at_once_exactly_the_burst_goes_on(place: Place) {
    let gateways = [place.limits().await, place.limits().await];
    let rate = Rate { count: 6, per: Duration::from_secs(3600), burst: 7 };
    let done = at_once(60, |number| {
        let limits = gateways[number as usize % 2].clone();
        async move { limits.take("key", rate, NOW).await.unwrap() }
    })
    .await;
    assert_eq!(done.iter().filter(|wait| wait.is_none()).count(), 7);
    assert!(done.iter().flatten().all(|wait| *wait == STEP));
}

async fn what_one_gateway_takes_another_misses(place: Place) {
    let (here, there) = (place.limits().await, place.limits().await);
    assert_eq!(take(&*here, NOW).await, None);
    assert_eq!(take(&*there, NOW).await, None);
    drop(there);
    assert_eq!(take(&*place.limits().await, NOW).await, None);
    assert_eq!(take(&*here, NOW).await, Some(STEP));
}

/// Q: what a server said while it was not itself is not held against it.
#[tokio::test]
async fn a_redis_that_answered_nonsense_is_used_again_when_it_answers() {
    let server = match Server::start() {
        Ok(server) => server,
        Err(missing) => return skipped(&format!("a Redis that answers nonsense: {missing}")),
    };
    let url = server.database();
    let (host, database) = url.strip_prefix("redis://").unwrap().split_once('/').unwrap();
    let relay = Relay::to(host.parse().unwrap());
    let limits = Redis::open(&format!("redis://{}/{database}", relay.address)).await.unwrap();
    for lie in ["\u{fffd}\r\n garbage", "HTTP/1.1 200 OK\r\n\r\n", "-ERR max number of clients reached\r\n", "+OK\r\n"]
    {
        assert!(limits.take(lie, RATE, NOW).await.is_ok(), "{lie}");
        relay.set(State::Lying(lie.as_bytes().to_vec()));
        for _ in 0..4 {
            assert!(limits.take(lie, RATE, NOW).await.is_err(), "{lie}");
        }
        relay.set(State::Fine);
        let began = Instant::now();
        while limits.take(lie, RATE, NOW).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(5), "{lie}: never again");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
