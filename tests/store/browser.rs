//! Sessions of browsers.

use std::sync::Arc;
use std::time::Duration;

use portcullis::clock::Timestamp;
use portcullis::store::{BrowserSession, BrowserSessions, CookieHash, LONGEST_LEASE};

use super::{NOW, Place, Row, at_once, rows};

pub const ROWS: &[Row] = rows![
    a_session_comes_back_as_given,
    a_cookie_and_a_name_begin_once,
    of_many_who_claim_at_once_one_does,
    a_lease_keeps_others_away_until_it_ends,
    a_lease_of_somebody_who_died_can_be_taken,
    what_was_written_by_a_clock_that_was_set_back_holds_nobody_up,
    only_the_tokens_that_were_read_are_replaced,
    after_a_replacement_there_is_a_pause,
    after_a_failure_there_is_a_pause_and_the_tokens_stay,
    whoever_comes_late_releases_nothing,
    use_is_noted_and_never_goes_back,
    an_ended_session_is_gone,
    of_many_who_end_a_session_at_once_one_did,
    what_ends_while_it_is_refreshed_stays_ended,
    all_sessions_of_a_user_at_an_issuer_end,
    live_sessions_are_listed_newest_first,
    sweeping_forgets_what_has_expired,
    what_one_gateway_replaces_another_reads,
];

fn hash(number: u32) -> CookieHash {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    CookieHash(bytes)
}

fn after(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

fn session(number: u32) -> BrowserSession {
    BrowserSession {
        hash: hash(number),
        id: format!("session {number}"),
        app: "web".to_owned(),
        issuer: "supabase".to_owned(),
        user: "ann".to_owned(),
        sealed: b"\0\xffsealed".to_vec(),
        version: 0,
        started: NOW,
        expires: after(86_400),
        used: NOW,
        refresh_from: NOW,
        lease: None,
        address: None,
        user_agent: String::new(),
    }
}

/// A store with session 1.
async fn started(place: &Place) -> Arc<dyn BrowserSessions> {
    let sessions = place.browser().await;
    sessions.start(&session(1)).await.unwrap();
    sessions
}

async fn get(sessions: &dyn BrowserSessions) -> BrowserSession {
    sessions.get(&hash(1)).await.unwrap().unwrap()
}

async fn claim(sessions: &dyn BrowserSessions, version: i64, seconds: u64) -> bool {
    sessions.claim(&hash(1), version, after(seconds + 15), after(seconds)).await.unwrap()
}

async fn a_session_comes_back_as_given(place: Place) {
    let sessions = place.browser().await;
    let full = BrowserSession {
        version: i64::MAX,
        used: after(1),
        refresh_from: Timestamp::from_millis(NOW.as_millis() + 1),
        lease: Some(after(2)),
        address: Some("2001:db8::1".parse().unwrap()),
        user_agent: "Mozilla \u{1F980} '; --".to_owned(),
        sealed: vec![0; 20_000],
        ..session(2)
    };
    for given in [session(1), full] {
        sessions.start(&given).await.unwrap();
        assert_eq!(sessions.get(&given.hash).await.unwrap(), Some(given.clone()));
        assert_eq!(sessions.by_id(&given.id).await.unwrap(), Some(given));
    }
    assert_eq!(sessions.get(&hash(3)).await, Ok(None));
    assert_eq!(sessions.by_id("session 3").await, Ok(None));
}

async fn a_cookie_and_a_name_begin_once(place: Place) {
    let sessions = started(&place).await;
    assert!(sessions.start(&BrowserSession { id: "other".to_owned(), ..session(1) }).await.is_err());
    assert!(sessions.start(&BrowserSession { hash: hash(2), ..session(1) }).await.is_err());
    assert_eq!(get(&*sessions).await, session(1));
    assert_eq!(sessions.get(&hash(2)).await, Ok(None));
}

async fn of_many_who_claim_at_once_one_does(place: Place) {
    started(&place).await;
    let gateways = [place.browser().await, place.browser().await];
    let done = at_once(50, |number| {
        let sessions = gateways[number as usize % 2].clone();
        async move { claim(&*sessions, 0, 0).await }
    })
    .await;
    assert_eq!(done.iter().filter(|claimed| **claimed).count(), 1, "{done:?}");
}

async fn a_lease_keeps_others_away_until_it_ends(place: Place) {
    let sessions = started(&place).await;
    assert!(claim(&*sessions, 0, 0).await);
    assert!(!claim(&*sessions, 0, 0).await && !claim(&*sessions, 0, 14).await);
    let read = get(&*sessions).await;
    assert!(read.is_leased(after(14)) && !read.is_leased(after(15)));
}

async fn a_lease_of_somebody_who_died_can_be_taken(place: Place) {
    let sessions = started(&place).await;
    assert!(claim(&*sessions, 0, 0).await && claim(&*sessions, 0, 15).await);
    // Whoever seemed dead comes back: what was read has not changed, so its tokens are good.
    assert!(sessions.replace(&hash(1), 0, b"first", after(20)).await.unwrap());
    assert!(!sessions.replace(&hash(1), 0, b"second", after(20)).await.unwrap());
    assert_eq!(get(&*sessions).await.sealed, b"first");
}

async fn what_was_written_by_a_clock_that_was_set_back_holds_nobody_up(place: Place) {
    let sessions = place.browser().await;
    let far = NOW.plus(LONGEST_LEASE).plus(Duration::from_secs(1));
    for (number, given) in [(1, (far, None)), (2, (NOW, Some(far))), (3, (far, Some(far)))] {
        let (refresh_from, lease) = given;
        let session = BrowserSession { refresh_from, lease, ..session(number) };
        assert!(!session.is_paused(NOW) && !session.is_leased(NOW));
        sessions.start(&session).await.unwrap();
        assert!(sessions.claim(&hash(number), 0, after(15), NOW).await.unwrap(), "{given:?}");
    }
}

async fn only_the_tokens_that_were_read_are_replaced(place: Place) {
    let sessions = started(&place).await;
    assert!(!claim(&*sessions, 1, 0).await, "another version");
    assert!(!sessions.replace(&hash(1), 1, b"other", NOW).await.unwrap());
    assert!(!sessions.replace(&hash(2), 0, b"other", NOW).await.unwrap(), "no such session");
    assert!(claim(&*sessions, 0, 0).await);
    assert!(sessions.replace(&hash(1), 0, b"new", after(5)).await.unwrap());
    let read = get(&*sessions).await;
    let expected = BrowserSession { sealed: b"new".to_vec(), version: 1, refresh_from: after(5), ..session(1) };
    assert_eq!(read, expected);
    assert!(!sessions.replace(&hash(1), 0, b"old", after(5)).await.unwrap(), "nothing newer is overwritten");
}

async fn after_a_replacement_there_is_a_pause(place: Place) {
    let sessions = started(&place).await;
    assert!(claim(&*sessions, 0, 0).await);
    assert!(sessions.replace(&hash(1), 0, b"new", after(5)).await.unwrap());
    assert!(!claim(&*sessions, 1, 4).await && get(&*sessions).await.is_paused(after(4)));
    assert!(claim(&*sessions, 1, 5).await);
}

async fn after_a_failure_there_is_a_pause_and_the_tokens_stay(place: Place) {
    let sessions = started(&place).await;
    assert!(claim(&*sessions, 0, 0).await);
    sessions.release(&hash(1), 0, after(5)).await.unwrap();
    assert_eq!(get(&*sessions).await, BrowserSession { refresh_from: after(5), ..session(1) });
    assert!(!claim(&*sessions, 0, 4).await);
    assert!(claim(&*sessions, 0, 5).await);
}

async fn whoever_comes_late_releases_nothing(place: Place) {
    let sessions = started(&place).await;
    assert!(sessions.replace(&hash(1), 0, b"new", NOW).await.unwrap());
    assert!(claim(&*sessions, 1, 0).await);
    sessions.release(&hash(1), 0, after(60)).await.unwrap();
    let read = get(&*sessions).await;
    assert!(read.is_leased(NOW) && read.refresh_from == NOW);
}

async fn use_is_noted_and_never_goes_back(place: Place) {
    let sessions = started(&place).await;
    for (at, used) in [(60, 60), (30, 60), (61, 61)] {
        sessions.touch(&hash(1), after(at)).await.unwrap();
        assert_eq!(get(&*sessions).await.used, after(used));
    }
    sessions.touch(&hash(2), NOW).await.unwrap();
}

async fn an_ended_session_is_gone(place: Place) {
    let sessions = started(&place).await;
    assert_eq!(sessions.end(&hash(1)).await, Ok(true));
    assert_eq!(sessions.end(&hash(1)).await, Ok(false));
    assert_eq!(sessions.get(&hash(1)).await, Ok(None));
    assert!(!claim(&*sessions, 0, 0).await);
}

async fn of_many_who_end_a_session_at_once_one_did(place: Place) {
    started(&place).await;
    let gateways = [place.browser().await, place.browser().await];
    let done = at_once(20, |number| {
        let sessions = gateways[number as usize % 2].clone();
        async move { sessions.end(&hash(1)).await.unwrap() }
    })
    .await;
    assert_eq!(done.iter().filter(|ended| **ended).count(), 1);
}

async fn what_ends_while_it_is_refreshed_stays_ended(place: Place) {
    let sessions = started(&place).await;
    assert!(claim(&*sessions, 0, 0).await);
    assert!(sessions.end(&hash(1)).await.unwrap());
    assert!(!sessions.replace(&hash(1), 0, b"new", NOW).await.unwrap());
    sessions.release(&hash(1), 0, NOW).await.unwrap();
    assert_eq!(sessions.get(&hash(1)).await, Ok(None));
}

async fn all_sessions_of_a_user_at_an_issuer_end(place: Place) {
    let sessions = place.browser().await;
    for number in 1..=3 {
        sessions.start(&session(number)).await.unwrap();
    }
    sessions.start(&BrowserSession { issuer: "other".to_owned(), ..session(4) }).await.unwrap();
    sessions.start(&BrowserSession { user: "bob".to_owned(), ..session(5) }).await.unwrap();
    let mut ended: Vec<String> =
        sessions.end_all("supabase", "ann").await.unwrap().into_iter().map(|session| session.id).collect();
    ended.sort();
    assert_eq!(ended, ["session 1", "session 2", "session 3"]);
    assert!(sessions.end_all("supabase", "ann").await.unwrap().is_empty());
    assert!(sessions.get(&hash(4)).await.unwrap().is_some() && sessions.get(&hash(5)).await.unwrap().is_some());
}

async fn live_sessions_are_listed_newest_first(place: Place) {
    let sessions = place.browser().await;
    for number in 1..=4 {
        let started = after(u64::from(number % 3));
        sessions.start(&BrowserSession { started, ..session(number) }).await.unwrap();
    }
    sessions.start(&BrowserSession { expires: after(1), ..session(5) }).await.unwrap();
    sessions.start(&BrowserSession { user: "bob".to_owned(), ..session(6) }).await.unwrap();
    let ids = async |user: Option<&str>, at, most| -> Vec<String> {
        sessions.live(user, at, most).await.unwrap().into_iter().map(|session| session.id).collect()
    };
    assert_eq!(ids(Some("ann"), after(1), 10).await, ["session 2", "session 4", "session 1", "session 3"]);
    assert_eq!(ids(None, NOW, 3).await, ["session 2", "session 4", "session 1"]);
    assert_eq!(ids(None, NOW, 10).await.len(), 6);
    assert!(ids(Some("eve"), NOW, 10).await.is_empty());
}

async fn sweeping_forgets_what_has_expired(place: Place) {
    let sessions = started(&place).await;
    sessions.start(&BrowserSession { expires: after(1), ..session(2) }).await.unwrap();
    assert_eq!(sessions.sweep(after(1)).await, Ok(0));
    assert_eq!(sessions.sweep(after(2)).await, Ok(1));
    assert_eq!(sessions.get(&hash(2)).await, Ok(None));
    assert_eq!(get(&*sessions).await, session(1));
}

async fn what_one_gateway_replaces_another_reads(place: Place) {
    let sessions = started(&place).await;
    let other = place.browser().await;
    assert!(claim(&*other, 0, 0).await);
    assert!(get(&*sessions).await.is_leased(NOW));
    assert!(other.replace(&hash(1), 0, b"new", NOW).await.unwrap());
    assert_eq!(get(&*sessions).await.sealed, b"new");
    assert!(sessions.end(&hash(1)).await.unwrap());
    assert_eq!(other.get(&hash(1)).await, Ok(None));
}
