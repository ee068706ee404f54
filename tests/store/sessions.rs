//! Sessions and refresh tokens.

use std::time::Duration;

use portcullis::clock::Timestamp;
use portcullis::store::{EndedBy, Rotation, Session, Sessions, Successor, TokenHash};

use super::{NOW, Place, Row, at_once, rows};

pub const ROWS: &[Row] = rows![
    a_session_comes_back_as_given,
    a_session_and_a_token_begin_once,
    the_head_is_replaced_by_its_successor,
    old_and_new_tokens_name_the_session,
    presented_again_within_the_window_a_token_brings_the_same_successor,
    presented_again_after_the_window_a_token_ends_the_session,
    the_token_before_the_last_ends_the_session_even_within_the_window,
    without_a_window_every_second_time_ends_the_session,
    the_window_begins_with_the_replacement_of_the_token_itself,
    a_client_that_got_no_answer_goes_on_from_the_repeated_successor,
    a_token_of_nobody_is_unknown_and_changes_nothing,
    an_ended_session_is_over,
    an_expired_session_is_over_and_rotation_does_not_move_its_end,
    the_first_reason_of_an_end_stays,
    fifty_at_once_rotate_once_and_get_the_same_successor,
    fifty_at_once_with_an_old_token_end_the_session_once,
    ending_while_rotating_leaves_nothing_that_rotates,
    ending_says_whether_there_was_something_to_end,
    of_many_who_end_a_session_at_once_one_did,
    ending_all_but_one_says_which,
    live_sessions_are_listed_newest_first,
    sweeping_forgets_expired_sessions_with_their_tokens,
    what_one_gateway_rotates_another_knows,
];

const WINDOW: Duration = Duration::from_secs(10);

pub fn session(id: &str) -> Session {
    Session {
        id: id.to_owned(),
        user: "ann".to_owned(),
        issuer: "local".to_owned(),
        app: "items".to_owned(),
        scopes: vec!["items:read".to_owned()],
        started: NOW,
        expires: after(86_400),
        used: NOW,
        address: None,
        user_agent: String::new(),
        ended: None,
    }
}

fn after(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

fn hash(number: u32) -> TokenHash {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    TokenHash(bytes)
}

fn sealed(number: u32) -> Vec<u8> {
    format!("\0\u{ff}sealed {number}").into_bytes()
}

fn successor(number: u32) -> Successor {
    Successor { hash: hash(number), sealed: sealed(number) }
}

/// Presents token `from`, with `to` as its successor, some seconds after the beginning.
async fn rotate(sessions: &dyn Sessions, from: u32, to: u32, seconds: u64) -> Rotation {
    sessions.rotate(&hash(from), &successor(to), WINDOW, after(seconds)).await.unwrap()
}

/// A store with one session, whose head is token 0.
macro_rules! started {
    ($place:ident) => {{
        let sessions = $place.sessions().await;
        sessions.start(&session("s"), &hash(0)).await.unwrap();
        sessions
    }};
}

/// How it ended, as it is stored.
async fn ended(sessions: &dyn Sessions) -> Option<(Timestamp, EndedBy)> {
    sessions.get("s").await.unwrap().unwrap().ended
}

async fn a_session_comes_back_as_given(place: Place) {
    let sessions = place.sessions().await;
    let full = Session {
        scopes: vec!["a".to_owned(), "b\"c".to_owned()],
        address: Some("2001:db8::1".parse().unwrap()),
        user_agent: "curl/8 \u{1F980} '; --".to_owned(),
        expires: Timestamp::from_millis(NOW.as_millis() + 86_400_001),
        ..session("full")
    };
    let empty = Session { scopes: Vec::new(), address: Some("192.0.2.1".parse().unwrap()), ..session("empty") };
    for (number, given) in [&full, &empty, &session("plain")].into_iter().enumerate() {
        let token = hash(u32::try_from(number).unwrap());
        sessions.start(given, &token).await.unwrap();
        assert_eq!(sessions.get(&given.id).await.unwrap().as_ref(), Some(given));
        assert_eq!(sessions.of_token(&token).await.unwrap().as_ref(), Some(given));
    }
    assert_eq!(sessions.get("another").await, Ok(None));
}

async fn a_session_and_a_token_begin_once(place: Place) {
    let sessions = started!(place);
    assert!(sessions.start(&session("s"), &hash(1)).await.is_err());
    assert!(sessions.start(&session("t"), &hash(0)).await.is_err());
    assert_eq!(sessions.get("t").await, Ok(None), "nothing is begun by half");
    assert_eq!(sessions.of_token(&hash(1)).await, Ok(None));
    assert!(matches!(rotate(&*sessions, 0, 1, 1).await, Rotation::Rotated(_)));
}

async fn the_head_is_replaced_by_its_successor(place: Place) {
    let sessions = started!(place);
    for number in 0..20 {
        let expected = Session { used: after(u64::from(number)), ..session("s") };
        assert_eq!(
            rotate(&*sessions, number, number + 1, u64::from(number)).await,
            Rotation::Rotated(expected.clone())
        );
        assert_eq!(sessions.get("s").await, Ok(Some(expected)));
    }
}

async fn old_and_new_tokens_name_the_session(place: Place) {
    let sessions = started!(place);
    rotate(&*sessions, 0, 1, 1).await;
    rotate(&*sessions, 1, 2, 2).await;
    for token in 0..3 {
        assert_eq!(sessions.of_token(&hash(token)).await.unwrap().unwrap().id, "s");
    }
    assert_eq!(sessions.of_token(&hash(3)).await, Ok(None));
}

async fn presented_again_within_the_window_a_token_brings_the_same_successor(place: Place) {
    let sessions = started!(place);
    rotate(&*sessions, 0, 1, 100).await;
    for (offered, seconds) in [(2, 100), (3, 105), (4, 109)] {
        let expected = Session { used: after(100), ..session("s") };
        assert_eq!(rotate(&*sessions, 0, offered, seconds).await, Rotation::Repeated(expected, sealed(1)));
        assert_eq!(sessions.of_token(&hash(offered)).await, Ok(None), "a second successor is not begun");
    }
    assert!(matches!(rotate(&*sessions, 1, 5, 110).await, Rotation::Rotated(_)));
}

async fn presented_again_after_the_window_a_token_ends_the_session(place: Place) {
    let sessions = started!(place);
    rotate(&*sessions, 0, 1, 100).await;
    let over = Session { used: after(100), ended: Some((after(110), EndedBy::Reuse)), ..session("s") };
    assert_eq!(rotate(&*sessions, 0, 2, 110).await, Rotation::Reused(over.clone()));
    assert_eq!(sessions.get("s").await, Ok(Some(over.clone())));
    assert_eq!(
        rotate(&*sessions, 1, 3, 111).await,
        Rotation::Over(over.clone()),
        "the thief and the user are both out"
    );
    assert_eq!(rotate(&*sessions, 0, 4, 112).await, Rotation::Reused(over));
}

async fn the_token_before_the_last_ends_the_session_even_within_the_window(place: Place) {
    let sessions = started!(place);
    rotate(&*sessions, 0, 1, 100).await;
    rotate(&*sessions, 1, 2, 101).await;
    assert!(matches!(rotate(&*sessions, 0, 3, 102).await, Rotation::Reused(_)));
    assert_eq!(ended(&*sessions).await, Some((after(102), EndedBy::Reuse)));
    assert!(matches!(rotate(&*sessions, 2, 4, 103).await, Rotation::Over(_)));
    assert!(matches!(rotate(&*sessions, 1, 5, 103).await, Rotation::Over(_)));
}

async fn without_a_window_every_second_time_ends_the_session(place: Place) {
    let sessions = started!(place);
    let present = async |to| sessions.rotate(&hash(0), &successor(to), Duration::ZERO, after(1)).await.unwrap();
    assert!(matches!(present(1).await, Rotation::Rotated(_)));
    assert!(matches!(present(2).await, Rotation::Reused(_)));
}

async fn the_window_begins_with_the_replacement_of_the_token_itself(place: Place) {
    let sessions = started!(place);
    rotate(&*sessions, 0, 1, 10).await;
    rotate(&*sessions, 1, 2, 1000).await;
    assert!(matches!(rotate(&*sessions, 1, 3, 1009).await, Rotation::Repeated(_, found) if found == sealed(2)));
    assert!(matches!(rotate(&*sessions, 1, 4, 1010).await, Rotation::Reused(_)));
}

async fn a_client_that_got_no_answer_goes_on_from_the_repeated_successor(place: Place) {
    let sessions = started!(place);
    for step in 0..5 {
        let (from, seconds) = (step, u64::from(step) * 1000);
        rotate(&*sessions, from, from + 1, seconds).await;
        let again = rotate(&*sessions, from, 100 + step, seconds + 9).await;
        assert!(matches!(again, Rotation::Repeated(_, found) if found == sealed(from + 1)));
    }
    assert_eq!(ended(&*sessions).await, None);
}

async fn a_token_of_nobody_is_unknown_and_changes_nothing(place: Place) {
    let sessions = started!(place);
    assert_eq!(rotate(&*sessions, 7, 8, 1).await, Rotation::Unknown);
    assert_eq!(sessions.of_token(&hash(8)).await, Ok(None));
    assert_eq!(sessions.get("s").await, Ok(Some(session("s"))));
}

async fn an_ended_session_is_over(place: Place) {
    let sessions = started!(place);
    rotate(&*sessions, 0, 1, 1).await;
    assert_eq!(sessions.end("s", EndedBy::Logout, after(2)).await, Ok(true));
    let over = Session { used: after(1), ended: Some((after(2), EndedBy::Logout)), ..session("s") };
    for presented in [1, 0] {
        assert_eq!(rotate(&*sessions, presented, 9, 3).await, Rotation::Over(over.clone()), "{presented}");
    }
    assert_eq!(sessions.of_token(&hash(9)).await, Ok(None));
}

async fn an_expired_session_is_over_and_rotation_does_not_move_its_end(place: Place) {
    let sessions = started!(place);
    let Rotation::Rotated(rotated) = rotate(&*sessions, 0, 1, 86_399).await else { panic!("not live") };
    assert_eq!(rotated.expires, session("s").expires);
    assert!(matches!(rotate(&*sessions, 1, 2, 86_400).await, Rotation::Over(over) if over.ended.is_none()));
    assert!(matches!(rotate(&*sessions, 0, 2, 86_400).await, Rotation::Over(_)), "within the window, too");
    assert!(matches!(rotate(&*sessions, 1, 2, 1_000_000).await, Rotation::Over(_)));
    assert_eq!(sessions.of_token(&hash(2)).await, Ok(None));
}

async fn the_first_reason_of_an_end_stays(place: Place) {
    let sessions = started!(place);
    rotate(&*sessions, 0, 1, 1).await;
    for (at, by, did) in [(2, EndedBy::Operator, true), (3, EndedBy::Logout, false)] {
        assert_eq!(sessions.end("s", by, after(at)).await, Ok(did));
    }
    assert!(matches!(rotate(&*sessions, 0, 2, 1000).await, Rotation::Reused(_)));
    assert_eq!(sessions.end_all("ann", None, EndedBy::User, after(1001)).await, Ok(Vec::new()));
    assert_eq!(ended(&*sessions).await, Some((after(2), EndedBy::Operator)));
    for (number, by) in (1..).zip([EndedBy::Revoked, EndedBy::Reuse, EndedBy::User]) {
        let id = format!("session {number}");
        sessions.start(&session(&id), &hash(100 + number)).await.unwrap();
        assert_eq!(sessions.end(&id, by, after(1)).await, Ok(true));
        assert_eq!(sessions.get(&id).await.unwrap().unwrap().ended, Some((after(1), by)));
    }
}

async fn fifty_at_once_rotate_once_and_get_the_same_successor(place: Place) {
    let gateways = [place.sessions().await, place.sessions().await];
    gateways[0].start(&session("s"), &hash(0)).await.unwrap();
    let mut head = 0;
    for round in 1..=3 {
        let done = at_once(50, |number| {
            let sessions = gateways[number as usize % 2].clone();
            async move { rotate(&*sessions, head, round * 100 + number, u64::from(round)).await }
        })
        .await;
        let winners: Vec<u32> =
            (0..50).filter(|number| matches!(done[*number as usize], Rotation::Rotated(_))).collect();
        assert_eq!(winners.len(), 1, "{done:?}");
        head = round * 100 + winners[0];
        let repeated = done.iter().filter(|did| matches!(did, Rotation::Repeated(_, found) if *found == sealed(head)));
        assert_eq!(repeated.count(), 49, "{done:?}");
    }
    assert_eq!(ended(&*gateways[1]).await, None);
}

async fn fifty_at_once_with_an_old_token_end_the_session_once(place: Place) {
    let gateways = [place.sessions().await, place.sessions().await];
    gateways[0].start(&session("s"), &hash(0)).await.unwrap();
    rotate(&*gateways[0], 0, 1, 1).await;
    let done = at_once(50, |number| {
        let sessions = gateways[number as usize % 2].clone();
        async move { rotate(&*sessions, 0, 100 + number, 1000).await }
    })
    .await;
    assert!(done.iter().all(|did| matches!(did, Rotation::Reused(_))), "{done:?}");
    assert_eq!(ended(&*gateways[1]).await, Some((after(1000), EndedBy::Reuse)));
    assert!(matches!(rotate(&*gateways[1], 1, 2, 1001).await, Rotation::Over(_)));
}

async fn ending_while_rotating_leaves_nothing_that_rotates(place: Place) {
    let gateways = [place.sessions().await, place.sessions().await];
    for round in 0..20 {
        let (id, head) = (format!("session {round}"), round * 100);
        gateways[0].start(&session(&id), &hash(head)).await.unwrap();
        let done = at_once(6, |number| {
            let (sessions, id) = (gateways[number as usize % 2].clone(), id.clone());
            async move {
                if number == 3 {
                    assert_eq!(sessions.end(&id, EndedBy::Logout, after(5)).await, Ok(true));
                    return None;
                }
                Some(rotate(&*sessions, head, head + 1 + number, 5).await)
            }
        })
        .await;
        let rotated = done.iter().filter(|did| matches!(did, Some(Rotation::Rotated(_)))).count();
        assert!(rotated <= 1, "{done:?}");
        for token in head..head + 10 {
            let later = rotate(&*gateways[1], token, head + 50, 5).await;
            assert!(matches!(later, Rotation::Over(_) | Rotation::Unknown), "{later:?} after {done:?}");
        }
        let stored = gateways[0].get(&id).await.unwrap().unwrap();
        assert_eq!(stored.ended, Some((after(5), EndedBy::Logout)));
    }
}

async fn ending_says_whether_there_was_something_to_end(place: Place) {
    let sessions = started!(place);
    assert_eq!(sessions.end("another", EndedBy::Logout, NOW).await, Ok(false));
    assert_eq!(sessions.end("s", EndedBy::Logout, session("s").expires).await, Ok(false), "it ends by itself");
    assert_eq!(ended(&*sessions).await, None);
    assert_eq!(sessions.end("s", EndedBy::Logout, after(1)).await, Ok(true));
    assert_eq!(sessions.end("s", EndedBy::Logout, after(1)).await, Ok(false));
}

async fn of_many_who_end_a_session_at_once_one_did(place: Place) {
    let gateways = [place.sessions().await, place.sessions().await];
    gateways[0].start(&session("s"), &hash(0)).await.unwrap();
    let done = at_once(20, |number| {
        let sessions = gateways[number as usize % 2].clone();
        async move { sessions.end("s", EndedBy::Logout, after(1)).await.unwrap() }
    })
    .await;
    assert_eq!(done.iter().filter(|did| **did).count(), 1);
}

async fn ending_all_but_one_says_which(place: Place) {
    let sessions = place.sessions().await;
    let given = [
        session("a"),
        session("b"),
        session("c"),
        Session { user: "bob".to_owned(), ..session("of somebody else") },
        Session { expires: after(1), ..session("expired") },
        Session { ended: Some((after(1), EndedBy::Logout)), ..session("ended") },
    ];
    for (number, session) in (0..).zip(&given) {
        sessions.start(session, &hash(number)).await.unwrap();
    }
    let end = async |but| {
        let mut ended = sessions.end_all("ann", but, EndedBy::User, after(2)).await.unwrap();
        ended.sort_unstable();
        ended
    };
    assert_eq!(end(Some("b")).await, ["a", "c"]);
    assert_eq!(end(Some("b")).await, [""; 0]);
    assert_eq!(end(Some("of somebody else")).await, ["b"]);
    assert_eq!(sessions.end_all("bob", None, EndedBy::User, after(2)).await.unwrap(), ["of somebody else"]);
    assert_eq!(sessions.end_all("nobody", None, EndedBy::User, after(2)).await, Ok(Vec::new()));
    assert_eq!(sessions.get("ended").await.unwrap().unwrap().ended, Some((after(1), EndedBy::Logout)));
    assert_eq!(sessions.get("expired").await.unwrap().unwrap().ended, None);
}

async fn live_sessions_are_listed_newest_first(place: Place) {
    let sessions = place.sessions().await;
    let given = [
        Session { started: after(1), ..session("first") },
        Session { started: after(3), ..session("third") },
        Session { started: after(2), user: "bob".to_owned(), ..session("second") },
        Session { started: after(4), expires: after(50), ..session("expires soon") },
        Session { started: after(5), ended: Some((after(6), EndedBy::Logout)), ..session("ended") },
        Session { started: after(3), ..session("third, too") },
    ];
    for (number, session) in (0..).zip(&given) {
        sessions.start(session, &hash(number)).await.unwrap();
    }
    for (user, at, most, expected) in [
        (None, 10, 10, &["expires soon", "third, too", "third", "second", "first"][..]),
        (None, 50, 10, &["third, too", "third", "second", "first"]),
        (None, 50, 3, &["third, too", "third", "second"]),
        (Some("ann"), 10, 3, &["expires soon", "third, too", "third"]),
        (Some("bob"), 10, 10, &["second"]),
        (Some("nobody"), 10, 10, &[]),
        (None, 10, 0, &[]),
        (None, 86_400, 10, &[]),
    ] {
        let found = sessions.live(user, after(at), most).await.unwrap();
        let ids: Vec<&str> = found.iter().map(|session| session.id.as_str()).collect();
        assert_eq!(ids, expected, "{user:?} {at} {most}");
    }
}

async fn sweeping_forgets_expired_sessions_with_their_tokens(place: Place) {
    let sessions = place.sessions().await;
    for number in 0..30 {
        let expires = after(100 + u64::from(number));
        sessions.start(&Session { expires, ..session(&format!("session {number}")) }, &hash(number)).await.unwrap();
    }
    rotate(&*sessions, 0, 1000, 1).await;
    sessions.end("session 20", EndedBy::Logout, after(1)).await.unwrap();
    assert_eq!(sessions.sweep(after(100)).await, Ok(0), "not at the moment when it expires");
    assert_eq!(sessions.sweep(after(110)).await, Ok(10));
    assert_eq!(sessions.sweep(after(110)).await, Ok(0));
    for token in [0, 1000, 9] {
        assert_eq!(sessions.of_token(&hash(token)).await, Ok(None));
        assert_eq!(rotate(&*sessions, token, 2000, 2).await, Rotation::Unknown);
    }
    assert_eq!(sessions.get("session 9").await, Ok(None));
    assert!(sessions.get("session 10").await.unwrap().is_some());
    assert!(sessions.get("session 20").await.unwrap().is_some(), "an ended one stays: its tokens may be copies");
    sessions.start(&session("session 0"), &hash(0)).await.unwrap();
}

async fn what_one_gateway_rotates_another_knows(place: Place) {
    let (here, there) = (place.sessions().await, place.sessions().await);
    here.start(&session("s"), &hash(0)).await.unwrap();
    assert!(matches!(rotate(&*there, 0, 1, 1).await, Rotation::Rotated(_)));
    assert!(matches!(rotate(&*here, 0, 2, 2).await, Rotation::Repeated(_, found) if found == sealed(1)));
    drop((here, there));
    let again = place.sessions().await;
    assert!(matches!(rotate(&*again, 1, 3, 3).await, Rotation::Rotated(_)));
    assert!(matches!(rotate(&*again, 0, 4, 4).await, Rotation::Reused(_)));
}
