//! Signing keys.

use std::time::Duration;

use portcullis::clock::Timestamp;
use portcullis::secret::Secret;
use portcullis::store::{SigningKey, SigningKeys};

use super::{NOW, Place, Row, at_once, rows};

pub const ROWS: &[Row] = rows![
    a_key_comes_back_as_given,
    keys_are_listed_by_purpose_oldest_first,
    a_key_is_added_only_after_the_newest,
    of_many_who_add_the_first_key_at_once_one_does,
    of_many_who_add_the_next_key_at_once_one_does,
    a_kid_is_never_given_twice,
    the_first_retirement_stays,
    a_removed_key_is_gone_and_the_next_follows_the_rest,
    what_one_gateway_adds_another_finds,
];

fn key(kid: &str, purpose: &str) -> SigningKey {
    SigningKey {
        kid: kid.to_owned(),
        purpose: purpose.to_owned(),
        algorithm: "ES256".to_owned(),
        private: Secret::new(format!("-----BEGIN PRIVATE KEY-----\n{kid}\n-----END PRIVATE KEY-----\n")),
        created: NOW,
        signs: NOW.plus(Duration::from_secs(60)),
        retired: None,
    }
}

fn text(key: &SigningKey) -> String {
    let SigningKey { kid, purpose, algorithm, private, created, signs, retired } = key;
    format!("{:?}", (kid, purpose, algorithm, private.expose(), created, signs, retired))
}

async fn kids(keys: &dyn SigningKeys, purpose: &str) -> Vec<String> {
    keys.of(purpose).await.unwrap().into_iter().map(|key| key.kid).collect()
}

async fn a_key_comes_back_as_given(place: Place) {
    let keys = place.keys().await;
    assert!(keys.of("local").await.unwrap().is_empty());
    let given = [
        key("one", "local"),
        SigningKey {
            algorithm: "EdDSA".to_owned(),
            signs: Timestamp::from_millis(NOW.as_millis() + 7),
            retired: Some(NOW.plus(Duration::from_millis(1))),
            ..key("two", "local")
        },
    ];
    assert_eq!(keys.add(&given[0], None).await, Ok(true));
    assert_eq!(keys.add(&given[1], Some("one")).await, Ok(true));
    let found = keys.of("local").await.unwrap();
    assert_eq!(found.iter().map(text).collect::<Vec<_>>(), given.iter().map(text).collect::<Vec<_>>());
}

async fn keys_are_listed_by_purpose_oldest_first(place: Place) {
    let keys = place.keys().await;
    let mut last: [Option<&str>; 2] = [None, None];
    for kid in ["z", "m", "a", "q"] {
        for (purpose, last) in ["local", "assertion"].into_iter().zip(&mut last) {
            // The clock of who adds it does not matter.
            let created = NOW.minus(Duration::from_secs(u64::from(kid == "a")));
            let key = SigningKey { created, ..key(&format!("{kid} {purpose}"), purpose) };
            let after = last.map(|last| format!("{last} {purpose}"));
            assert_eq!(keys.add(&key, after.as_deref()).await, Ok(true));
            *last = Some(kid);
        }
    }
    assert_eq!(kids(&*keys, "local").await, ["z local", "m local", "a local", "q local"]);
    assert_eq!(kids(&*keys, "assertion").await, ["z assertion", "m assertion", "a assertion", "q assertion"]);
    assert!(keys.of("another").await.unwrap().is_empty());
}

async fn a_key_is_added_only_after_the_newest(place: Place) {
    let keys = place.keys().await;
    assert_eq!(keys.add(&key("one", "local"), Some("another")).await, Ok(false));
    assert_eq!(keys.add(&key("one", "local"), None).await, Ok(true));
    assert_eq!(keys.add(&key("two", "local"), None).await, Ok(false));
    assert_eq!(keys.add(&key("two", "local"), Some("one")).await, Ok(true));
    assert_eq!(keys.add(&key("three", "local"), Some("one")).await, Ok(false));
    assert_eq!(keys.add(&key("three", "local"), Some("two")).await, Ok(true));
    assert_eq!(kids(&*keys, "local").await, ["one", "two", "three"]);
}

async fn race(place: &Place, last: Option<&'static str>) {
    let gateways = [place.keys().await, place.keys().await];
    let done = at_once(20, |number| {
        let keys = gateways[number as usize % 2].clone();
        async move { keys.add(&key(&format!("kid {number}"), "local"), last).await.unwrap() }
    })
    .await;
    let winners: Vec<usize> = (0..20).filter(|number| done[*number]).collect();
    assert_eq!(winners.len(), 1, "{done:?}");
    assert_eq!(*kids(&*gateways[0], "local").await.last().unwrap(), format!("kid {}", winners[0]));
}

async fn of_many_who_add_the_first_key_at_once_one_does(place: Place) {
    race(&place, None).await;
    assert_eq!(kids(&*place.keys().await, "local").await.len(), 1);
}

async fn of_many_who_add_the_next_key_at_once_one_does(place: Place) {
    place.keys().await.add(&key("first", "local"), None).await.unwrap();
    race(&place, Some("first")).await;
    assert_eq!(kids(&*place.keys().await, "local").await.len(), 2);
}

async fn a_kid_is_never_given_twice(place: Place) {
    let keys = place.keys().await;
    keys.add(&key("one", "local"), None).await.unwrap();
    assert_eq!(keys.add(&key("one", "local"), Some("one")).await, Ok(false));
    assert_eq!(keys.add(&key("one", "assertion"), None).await, Ok(false));
    assert!(keys.of("assertion").await.unwrap().is_empty());
}

async fn the_first_retirement_stays(place: Place) {
    let keys = place.keys().await;
    keys.add(&key("one", "local"), None).await.unwrap();
    keys.add(&key("two", "local"), Some("one")).await.unwrap();
    let (first, second) = (NOW.plus(Duration::from_secs(1)), NOW.plus(Duration::from_secs(2)));
    keys.retire("one", first).await.unwrap();
    keys.retire("one", second).await.unwrap();
    keys.retire("nobody", second).await.unwrap();
    let retired: Vec<_> = keys.of("local").await.unwrap().iter().map(|key| key.retired).collect();
    assert_eq!(retired, [Some(first), None]);
}

async fn a_removed_key_is_gone_and_the_next_follows_the_rest(place: Place) {
    let keys = place.keys().await;
    for (kid, last) in [("one", None), ("two", Some("one")), ("three", Some("two"))] {
        keys.add(&key(kid, "local"), last).await.unwrap();
    }
    keys.remove("one").await.unwrap();
    keys.remove("nobody").await.unwrap();
    assert_eq!(kids(&*keys, "local").await, ["two", "three"]);
    keys.remove("three").await.unwrap();
    assert_eq!(keys.add(&key("four", "local"), Some("three")).await, Ok(false));
    assert_eq!(keys.add(&key("four", "local"), Some("two")).await, Ok(true));
    assert_eq!(kids(&*keys, "local").await, ["two", "four"]);
    for kid in ["two", "four"] {
        keys.remove(kid).await.unwrap();
    }
    assert_eq!(keys.add(&key("five", "local"), None).await, Ok(true));
}

async fn what_one_gateway_adds_another_finds(place: Place) {
    let (here, there) = (place.keys().await, place.keys().await);
    here.add(&key("one", "local"), None).await.unwrap();
    assert_eq!(there.add(&key("two", "local"), None).await, Ok(false));
    assert_eq!(there.add(&key("two", "local"), Some("one")).await, Ok(true));
    drop((here, there));
    assert_eq!(kids(&*place.keys().await, "local").await, ["one", "two"]);
}
