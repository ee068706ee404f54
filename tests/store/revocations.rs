//! Revocations.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portcullis::store::{Cursor, Revocation, Revocations, Revoked};
use sqlx::{AnyConnection, Connection, Executor};

use super::{NOW, Place, Row, at_once, rows};

pub const ROWS: &[Row] = rows![
    revocations_of_every_kind_come_back_in_their_order,
    a_reader_gets_what_is_new,
    a_new_reader_gets_everything,
    what_has_ended_is_not_handed_out_and_hides_nothing,
    many_are_read_without_a_gap,
    the_same_revocation_twice_is_no_error_and_news,
    a_clock_that_goes_back_hides_nothing,
    nothing_is_skipped_while_many_write,
    sweeping_forgets_what_has_ended,
    after_everything_was_swept_a_reader_still_sees_what_is_new,
    revocations_outlive_the_connection,
];

/// Where the backend can tell that something was added.
pub const WAKING: &[Row] = rows![who_waits_for_revocations_is_woken];

/// What transactions bring about.
pub const SQL: &[Row] = rows![a_writer_who_has_not_committed_is_not_passed, a_writer_who_gives_up_leaves_nothing];

fn revocation(id: impl ToString) -> Revocation {
    let until = NOW.plus(Duration::from_secs(3600));
    Revocation { issuer: "local".to_owned(), revoked: Revoked::Token(id.to_string()), until }
}

fn ids(found: impl IntoIterator<Item = Revocation>) -> Vec<String> {
    let id = |revocation: Revocation| match revocation.revoked {
        Revoked::Token(id) | Revoked::Session(id) | Revoked::Subject(id, _) => id,
        Revoked::Others { subject, .. } => subject,
    };
    found.into_iter().map(id).collect()
}

/// All that a reader finds, in order and without repetitions.
async fn catch_up(revocations: &dyn Revocations, cursor: &mut Cursor) -> Vec<Revocation> {
    let (mut seen, mut all) = (HashSet::new(), Vec::new());
    loop {
        let before = *cursor;
        for found in revocations.since(cursor, NOW).await.unwrap() {
            if seen.insert(found.clone()) {
                all.push(found);
            }
        }
        assert!(cursor.0 >= before.0, "a cursor went back");
        if *cursor == before {
            return all;
        }
    }
}

async fn revocations_of_every_kind_come_back_in_their_order(place: Place) {
    let revocations = place.revocations().await;
    let kind = |revoked| Revocation { revoked, ..revocation("") };
    let given = [
        kind(Revoked::Token("z \"quoted\" \u{1F980}".to_owned())),
        kind(Revoked::Session("z".to_owned())),
        kind(Revoked::Subject("z".to_owned(), NOW)),
        kind(Revoked::Others { subject: "z \"q\" \u{1F980}".to_owned(), before: NOW, but: "s,]".to_owned() }),
        Revocation { issuer: "another".to_owned(), ..kind(Revoked::Token("a".to_owned())) },
        kind(Revoked::Subject(String::new(), NOW.minus(Duration::from_secs(5)))),
    ];
    revocations.add(&given, NOW).await.unwrap();
    revocations.add(&[], NOW).await.unwrap();
    assert_eq!(catch_up(&*revocations, &mut Cursor::default()).await, given);
}

async fn a_reader_gets_what_is_new(place: Place) {
    let (here, there) = (place.revocations().await, place.revocations().await);
    let mut cursor = Cursor::default();
    assert!(catch_up(&*here, &mut cursor).await.is_empty());
    for number in 0..5 {
        there.add(&[revocation(number)], NOW).await.unwrap();
        assert!(catch_up(&*here, &mut cursor).await.contains(&revocation(number)));
    }
}

async fn a_new_reader_gets_everything(place: Place) {
    let here = place.revocations().await;
    let given: Vec<Revocation> = (0..5).map(revocation).collect();
    for one in &given {
        here.add(std::slice::from_ref(one), NOW).await.unwrap();
    }
    catch_up(&*here, &mut Cursor::default()).await;
    assert_eq!(catch_up(&*place.revocations().await, &mut Cursor::default()).await, given);
}

async fn what_has_ended_is_not_handed_out_and_hides_nothing(place: Place) {
    let revocations = place.revocations().await;
    let ended = |id: usize| Revocation { until: NOW, ..revocation(format!("ended {id}")) };
    // More than one page of them.
    let old: Vec<Revocation> = (0..11_000).map(ended).collect();
    revocations.add(&[revocation("first")], NOW).await.unwrap();
    revocations.add(&old, NOW).await.unwrap();
    revocations.add(&[revocation("last")], NOW).await.unwrap();
    let mut cursor = Cursor::default();
    assert_eq!(ids(catch_up(&*revocations, &mut cursor).await), ["first", "last"]);
    revocations.add(&[revocation("later")], NOW).await.unwrap();
    assert!(ids(catch_up(&*revocations, &mut cursor).await).contains(&"later".to_owned()));
}

async fn many_are_read_without_a_gap(place: Place) {
    let revocations = place.revocations().await;
    let given: Vec<Revocation> = (0..12_345).map(revocation).collect();
    revocations.add(&given, NOW).await.unwrap();
    assert!(catch_up(&*revocations, &mut Cursor::default()).await == given, "not all, or in another order");
}

async fn the_same_revocation_twice_is_no_error_and_news(place: Place) {
    let revocations = place.revocations().await;
    let mut cursor = Cursor::default();
    revocations.add(&[revocation(1), revocation(1)], NOW).await.unwrap();
    assert_eq!(catch_up(&*revocations, &mut cursor).await, [revocation(1)]);
    revocations.add(&[revocation(1)], NOW).await.unwrap();
    assert_eq!(catch_up(&*revocations, &mut cursor).await, [revocation(1)]);
}

async fn a_clock_that_goes_back_hides_nothing(place: Place) {
    let (ahead, behind) = (place.revocations().await, place.revocations().await);
    let hour = Duration::from_secs(1800);
    let mut cursor = Cursor::default();
    ahead.add(&[revocation("ahead")], NOW.plus(hour)).await.unwrap();
    assert_eq!(ids(catch_up(&*behind, &mut cursor).await), ["ahead"]);
    behind.add(&[revocation("behind")], NOW.minus(hour)).await.unwrap();
    assert!(ids(catch_up(&*ahead, &mut cursor).await).contains(&"behind".to_owned()));
}

async fn nothing_is_skipped_while_many_write(place: Place) {
    let gateways = [place.revocations().await, place.revocations().await];
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (revocations, done) = (place.revocations().await, done.clone());
        tokio::spawn(async move {
            let (mut cursor, mut seen) = (Cursor::default(), HashSet::new());
            loop {
                let last = done.load(Ordering::SeqCst);
                seen.extend(catch_up(&*revocations, &mut cursor).await);
                if last {
                    return seen;
                }
            }
        })
    };
    at_once(8, |writer| {
        let revocations = gateways[writer as usize % 2].clone();
        async move {
            for number in 0..25 {
                let pair = [revocation(format!("{writer} {number}")), revocation(format!("{writer} {number} too"))];
                revocations.add(&pair, NOW.plus(Duration::from_millis(number))).await.unwrap();
            }
        }
    })
    .await;
    done.store(true, Ordering::SeqCst);
    assert_eq!(reader.await.unwrap().len(), 8 * 25 * 2);
}

async fn sweeping_forgets_what_has_ended(place: Place) {
    let revocations = place.revocations().await;
    let given: Vec<Revocation> = (0..5000)
        .map(|number| Revocation { until: NOW.plus(Duration::from_millis(number)), ..revocation(number) })
        .collect();
    revocations.add(&given, NOW).await.unwrap();
    assert_eq!(revocations.sweep(NOW).await, Ok(0), "not at the moment when it ends");
    assert_eq!(revocations.sweep(NOW.plus(Duration::from_millis(4500))).await, Ok(4500));
    assert_eq!(revocations.sweep(NOW.plus(Duration::from_millis(4500))).await, Ok(0));
    assert_eq!(catch_up(&*revocations, &mut Cursor::default()).await, given[4500..]);
}

async fn after_everything_was_swept_a_reader_still_sees_what_is_new(place: Place) {
    let revocations = place.revocations().await;
    let mut cursor = Cursor::default();
    for number in 0..3 {
        revocations.add(&[revocation(number)], NOW).await.unwrap();
        assert!(catch_up(&*revocations, &mut cursor).await.contains(&revocation(number)));
        assert_eq!(revocations.sweep(NOW.plus(Duration::from_secs(7200))).await, Ok(1));
    }
}

async fn revocations_outlive_the_connection(place: Place) {
    let mut cursor = Cursor::default();
    for number in 0..3 {
        place.revocations().await.add(&[revocation(number)], NOW).await.unwrap();
        assert!(catch_up(&*place.revocations().await, &mut cursor).await.contains(&revocation(number)));
    }
    assert_eq!(ids(catch_up(&*place.revocations().await, &mut Cursor::default()).await), ["0", "1", "2"]);
}

async fn who_waits_for_revocations_is_woken(place: Place) {
    let (here, there) = (place.revocations().await, place.revocations().await);
    let woken = Arc::new(AtomicBool::new(false));
    let waiting = tokio::spawn({
        let woken = woken.clone();
        async move {
            there.changed().await; // a subscription that has just begun may wake, too
            tokio::time::timeout(Duration::from_secs(20), there.changed()).await.ok();
            woken.store(true, Ordering::SeqCst);
        }
    });
    for number in 0..1000 {
        if woken.load(Ordering::SeqCst) {
            return waiting.await.unwrap();
        }
        here.add(&[revocation(number)], NOW).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nobody was woken");
}

/// A writer that has taken its position, and takes its time.
async fn slow_writer(place: &Place) -> AnyConnection {
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(&place.url()).await.unwrap();
    let begin = if matches!(place, Place::Sqlite(_)) { "BEGIN IMMEDIATE" } else { "BEGIN" };
    for statement in [
        begin,
        "UPDATE portcullis_revocation_position SET position = position + 1",
        "INSERT INTO portcullis_revocations (position, issuer, kind, value, until) \
         SELECT position, 'local', 'token', 'slow', 9000000000000 FROM portcullis_revocation_position",
    ] {
        connection.execute(statement).await.unwrap();
    }
    connection
}

async fn a_writer_who_has_not_committed_is_not_passed(place: Place) {
    let (here, there) = (place.revocations().await, place.revocations().await);
    let mut cursor = Cursor::default();
    here.add(&[revocation("before")], NOW).await.unwrap();
    assert_eq!(ids(catch_up(&*there, &mut cursor).await), ["before"]);
    let mut slow = slow_writer(&place).await;
    let quick = tokio::spawn(async move { here.add(&[revocation("quick")], NOW).await });
    for _ in 0..20 {
        assert_eq!(ids(catch_up(&*there, &mut cursor).await), [""; 0], "somebody passed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    slow.execute("COMMIT").await.unwrap();
    assert_eq!(quick.await.unwrap(), Ok(()));
    assert_eq!(ids(catch_up(&*there, &mut cursor).await), ["slow", "quick"]);
}

async fn a_writer_who_gives_up_leaves_nothing(place: Place) {
    let (here, there) = (place.revocations().await, place.revocations().await);
    let mut slow = slow_writer(&place).await;
    let quick = tokio::spawn(async move { here.add(&[revocation("quick")], NOW).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    slow.execute("ROLLBACK").await.unwrap();
    assert_eq!(quick.await.unwrap(), Ok(()));
    assert_eq!(ids(catch_up(&*there, &mut Cursor::default()).await), ["quick"]);
}
