//! Two gateways on one PostgreSQL and one Redis.

use std::time::{Duration, Instant};

use super::node::{POLICY, Site, client, get, login, post, refresh};
use super::server;
use super::servers::{Postgres, Redis};

/// K01, K02: one rotation for 200 requests, also across gateways; a replay after the window ends the session.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_parallel_refreshes_are_one_rotation_and_a_late_replay_ends_the_session() {
    let _alone = super::ALONE.lock().await;
    let Some(postgres) = server(Postgres::start()) else { return };
    let policy = POLICY.replace("scopes:", "identity: { local: { preset: local, reuse_window: 3s } }\nscopes:");
    let site = Site::new(&policy, &[("DATABASE_URL", postgres.database())]);
    site.user("ada");
    let (a, b) = (site.node(), site.node());
    let client = client();
    let first = login(&client, &a, "ada").await.text("refresh_token");
    let urls = [a.url("/token"), b.url("/token")];
    let began = Instant::now();
    let requests: Vec<_> = (0..200)
        .map(|number| {
            let (client, url, token) = (client.clone(), urls[number % 2].clone(), first.clone());
            tokio::spawn(async move { refresh(&client, &url, &token).await.unwrap() })
        })
        .collect();
    let mut successors = Vec::new();
    for request in requests {
        let answer = request.await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        successors.push(answer.text("refresh_token"));
    }
    println!("200 parallel refreshes: {} ms", began.elapsed().as_millis());
    successors.dedup();
    assert_eq!(successors.len(), 1, "all are the same successor");
    let second = refresh(&client, &urls[0], &successors[0]).await.unwrap();
    assert_eq!(second.status, 200, "{second:?}");
    let access = second.text("access_token");

    // The grand-parent is presented: two heads could follow from it, so the session ends for everybody.
    let replay = refresh(&client, &urls[1], &first).await.unwrap();
    assert_eq!((replay.status, replay.text("error").as_str()), (400, "invalid_grant"));
    let head = refresh(&client, &urls[0], &second.text("refresh_token")).await.unwrap();
    assert_eq!(head.status, 400, "the head is dead too");
    let refused = super::node::until("the session's access tokens are refused", || async {
        get(&client, &a.url("/items"), &access).await.unwrap() == 401
            && get(&client, &b.url("/items"), &access).await.unwrap() == 401
    });
    assert!(refused.await < Duration::from_secs(1));

    // And a parent, after the window.
    let parent = login(&client, &a, "ada").await.text("refresh_token");
    let child = refresh(&client, &urls[0], &parent).await.unwrap().text("refresh_token");
    assert_eq!(refresh(&client, &urls[1], &parent).await.unwrap().text("refresh_token"), child, "within the window");
    tokio::time::sleep(Duration::from_millis(3100)).await;
    assert_eq!(refresh(&client, &urls[0], &parent).await.unwrap().status, 400, "after the window");
    assert_eq!(refresh(&client, &urls[1], &child).await.unwrap().status, 400, "the family is dead");
}

/// What one gateway counts, the other knows: limits and failed logins.
#[tokio::test(flavor = "multi_thread")]
async fn gateways_share_limits_and_lockouts_through_redis() {
    let _alone = super::ALONE.lock().await;
    let (Some(postgres), Some(redis)) = (server(Postgres::start()), server(Redis::start())) else { return };
    let policy = POLICY
        .replace("limit: none, lockout: none", "limit: none, lockout: { after: 4, within: 10m, for: 10m }")
        .replace("GET /public: public", "GET /public: { access: public, limit: 6/hour by ip }");
    let site = Site::new(&policy, &[("DATABASE_URL", postgres.database()), ("REDIS_URL", redis.database())]);
    site.user("ada");
    let nodes = [site.node(), site.node()];
    let client = client();
    let mut statuses = Vec::new();
    for number in 0..8 {
        statuses.push(client.get(nodes[number % 2].url("/public")).send().await.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 429, 429]);
    for number in 0..4 {
        let wrong = [("username", "ada"), ("password", &*format!("wrong {number}"))];
        assert_eq!(post(&client, &nodes[number % 2].url("/token"), &wrong).await.unwrap().status, 400);
    }
    let right = [("username", "ada"), ("password", super::node::PASSWORD)];
    for node in &nodes {
        let locked = post(&client, &node.url("/token"), &right).await.unwrap();
        assert_eq!((locked.status, locked.text("error").as_str()), (400, "invalid_grant"), "locked says nothing more");
    }
}

/// A policy that needs no store may become one that does: the store is opened then, whether Redis was there or not.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_first_needs_the_store_opens_it() {
    let _alone = super::ALONE.lock().await;
    let redis = server(Redis::start());
    let with_redis = redis.iter().map(|redis| vec![("REDIS_URL", redis.database())]);
    for environment in with_redis.chain([Vec::new()]) {
        let without = POLICY.replace("login: { via: local, limit: none, lockout: none }\n", "");
        assert_ne!(without, POLICY);
        let site = Site::new(&without, &environment);
        let node = site.node();
        let client = client();
        let file = site.folder.path().join("portcullis.db");
        assert!(!file.exists(), "nothing needs it yet");
        std::fs::write(site.folder.path().join("policies/a.yaml"), POLICY).unwrap();
        super::node::until("the store is opened", || async { file.exists() }).await;
        site.user("ada");
        super::node::until("people can log in", || async {
            let form = [("username", "ada"), ("password", super::node::PASSWORD)];
            post(&client, &node.url("/token"), &form).await.unwrap().status == 200
        })
        .await;
        let access = login(&client, &node, "ada").await.text("access_token");
        assert_eq!(get(&client, &node.url("/items"), &access).await.unwrap(), 200, "{environment:?}");
    }
}
