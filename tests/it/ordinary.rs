//! What must work: allowed and refused requests, keep-alive, streams, upgrades, broken upstreams.

use crate::harness::{Harness, IDENTITY, Token, get};

fn policy(routes: &str) -> String {
    format!("version: 1\nupstream: http://UPSTREAM\n{IDENTITY}routes:\n{routes}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_with_the_scope_passes_and_one_without_is_told_which() {
    let gateway = Harness::start(&policy("  GET /items: { scope: items:read }\n")).await;
    let reader = Token::of("ada").with("scope", "items:read");
    let answer = gateway.get("/items?page=2", &reader.line()).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{answer:?}");
    let request = gateway.upstream.one();
    assert_eq!(request.target(), "/items?page=2");
    assert_eq!(request.value("x-auth-user"), Some("ada"));
    assert_eq!(request.value("authorization"), Some(&*format!("Bearer {}", reader.sign())));

    let answer = gateway.get("/items", "").await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "unauthenticated"));
    let answer = gateway.get("/items", &Token::of("eve").line()).await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "insufficient_scope"));
    assert!(answer.value("www-authenticate").unwrap().contains(r#"scope="items:read""#), "{answer:?}");
    assert_eq!(answer.value("x-portcullis-decision"), answer.json("decision_id").as_str());
    assert!(gateway.upstream.take().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_keeps_the_connection() {
    let gateway = Harness::start(&policy("  GET /items: { scope: items:read }\n")).await;
    let mut client = gateway.client().await;
    let reader = Token::of("ada").with("scope", "items:read").line();
    for (lines, status) in [("", 401), (&*reader, 200), ("Authorization: Bearer x\r\n", 401), (&*reader, 200)] {
        client.send(get("/items", lines)).await;
        let answer = client.answer().await.expect("the connection is kept");
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.value("connection"), Some("keep-alive"));
        assert!(answer.values("server").is_empty());
    }
    assert_eq!(gateway.upstream.connections(), 1, "connections to the upstream are kept as well");
}
