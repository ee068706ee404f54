//! H09: what was verified is believed no longer than what it rests on.

use std::sync::Arc;
use std::time::Duration;

use portcullis::clock::Timestamp;
use portcullis::store::{Revocation, Revoked};

use crate::h::{Pair, World, by_url};
use crate::harness::{NOW, Token, compile};
use crate::idp::Idp;

const OF_TWO: &str = "version: 1\nupstream: http://127.0.0.1:9\nidentity:\n  company: { preset: jwt, secret: env:SECRET, \
                      issuer: https://issuer.test, audience: api }\n  partner: { preset: jwt, secret: env:SECRET, issuer: \
                      https://partner.test, audience: api }\nroutes:\n  GET /items: authenticated\n  \
                      GET /partners: { issuer: partner }\n";

fn policy(identity: &str) -> String {
    format!(
        "version: 1\nupstream: http://127.0.0.1:9\nidentity:\n  company: {{ preset: jwt, {identity}, audience: api }}\n\
         routes:\n  GET /items: authenticated\n"
    )
}

/// A token that was verified twice: the second time, it was known.
async fn known(world: &World, token: &str) {
    assert_eq!((world.ask(token).await, world.ask(token).await), (200, 200));
    assert!(world.metric("portcullis_token_cache_total{result=\"hit\"} 1"));
    assert!(world.metric("portcullis_token_cache_total{result=\"miss\"} 1"));
}

#[tokio::test]
async fn a_reload_ends_what_rested_on_the_policy_before() {
    let ours = "secret: env:SECRET, issuer: https://issuer.test";
    for (after, status) in [
        (ours.replace("issuer.test", "other.test"), 401),
        (ours.replace("env:SECRET", "env:SECRET_KEY"), 401),
        (format!("{ours}, max_token_age: 10m"), 401),
        (format!("{ours}, leeway: 10s"), 200),
    ] {
        let (world, token) = (World::of(&policy(ours)), Token::of("ada").sign());
        known(&world, &token).await;
        world.policy.publish(compile(&policy(&after), &[]));
        assert_eq!(world.ask(&token).await, status, "{after}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_its_issuer_took_back_verifies_nothing_any_more() {
    let (old, new) = (Pair::new("a", 1), Pair::new("b", 2));
    let idp = Idp::start(vec![old.jwk()]);
    let world = World::new(&by_url("company", &idp));
    world.after(0).await;
    let token = old.token(&idp.issuer());
    known(&world, &token).await;
    // The same name for another key, and another name.
    idp.publish(vec![new.jwk()]);
    world.after(3600).await;
    assert_eq!(world.ask(&token).await, 401);
    assert_eq!(world.ask(&new.token(&idp.issuer())).await, 200);
}

#[tokio::test]
async fn a_revocation_counts_for_a_known_token_at_once() {
    let world = World::of(&policy("secret: env:SECRET, issuer: https://issuer.test"));
    for (number, revoked) in [
        Revoked::Token("j0".to_owned()),
        Revoked::Session("s1".to_owned()),
        Revoked::Subject("u2".to_owned(), Timestamp::from_seconds(NOW + 1)),
    ]
    .into_iter()
    .enumerate()
    {
        let token = Token::of(&format!("u{number}")).with("jti", format!("j{number}"));
        let token = token.with("sid", format!("s{number}")).with("iat", NOW).sign();
        assert_eq!((world.ask(&token).await, world.ask(&token).await), (200, 200), "{revoked:?}");
        let until = Timestamp::from_seconds(NOW + 7200);
        let revocation = Revocation { issuer: "company".to_owned(), revoked, until };
        world.services.snapshot().revoked.add(std::slice::from_ref(&revocation));
        assert_eq!(world.ask(&token).await, 401, "{revocation:?}");
    }
}

#[tokio::test]
async fn a_known_token_ends_in_the_second_that_it_names() {
    let world = World::of(&policy("secret: env:SECRET, issuer: https://issuer.test"));
    let token = Token::of("ada").with("iat", NOW).with("exp", NOW + 60).sign();
    known(&world, &token).await;
    world.clock.advance(Duration::from_millis(89_999)); // 30 s leeway
    assert_eq!(world.ask(&token).await, 200);
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(world.ask(&token).await, 401);
}

#[tokio::test]
async fn a_known_token_speaks_for_its_own_issuer_only() {
    let world = World::of(OF_TWO);
    let (ours, theirs) = (Token::of("ada").sign(), Token::of("ada").with("iss", "https://partner.test").sign());
    for _ in 0..2 {
        for (target, token, status) in
            [("/items", &ours, 200), ("/items", &theirs, 200), ("/partners", &ours, 403), ("/partners", &theirs, 200)]
        {
            assert_eq!(world.ask_for(target, token).await.0, status, "{target}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_see_the_same() {
    let world = Arc::new(World::of(&policy("secret: env:SECRET, issuer: https://issuer.test")));
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..64 {
        let world = Arc::clone(&world);
        asking.spawn(async move {
            let token = Token::of(&format!("u{}", number % 8)).sign();
            for _ in 0..50 {
                assert_eq!(world.ask(&token).await, 200);
                assert_eq!(world.ask(&format!("{token}x")).await, 401);
            }
        });
    }
    while let Some(ended) = asking.join_next().await {
        ended.unwrap();
    }
}
