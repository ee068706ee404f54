//! I. Bearer transport and cookies; O. resource exhaustion: the rows that a running gateway shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portcullis::clock::{Clock, Timestamp};

use crate::client::Client;
use crate::harness::{Harness, NOW, Token, get};
use crate::table::{BAD, Refused, Report, canon, p0, p1, policy};
use crate::upstream::Upstream;

#[tokio::test(flavor = "multi_thread")]
async fn authorization_is_bearer_and_one_token_or_refused() {
    let mut report = Report::default();
    let gateway = Harness::start(&policy("  GET /items: authenticated\n")).await;
    let token = Token::of("ada").sign();
    for value in
        [format!("bearer {token}"), format!("BEARER {token}"), format!("Bearer  {token}"), format!("Bearer {token}")]
    {
        report.get(&gateway, "I01", "/items", &format!("Authorization: {value}\r\n"), &canon("/items")).await;
    }
    for value in [
        format!("Bearer\t{token}"),
        format!("Bearer {token},"),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        format!("Bearer {token} b"),
        format!("Bearer,{token}"),
        format!("Bearer \"{token}\""),
        format!("Bearer {token}=x"),
        format!("Bearer ({token})"),
    ] {
        let lines = format!("Authorization: {value}\r\n");
        report.get(&gateway, "I01", "/items", &lines, &BAD).await;
        let answer = gateway.get("/items", &lines).await;
        let fine = answer.code() == "invalid_request"
            && answer.value("www-authenticate").is_some_and(|value| value.contains("error=\"invalid_request\""));
        report.note("I01", fine, || format!("{value}: {answer:?}"));
    }
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_credentials_are_refused() {
    let mut report = Report::default();
    let (a, b) =
        (Token::of("ada").with("roles", vec!["admin"]).sign(), Token::of("root").with("roles", vec!["admin"]).sign());
    for (gateway, target) in [(p0().await, "/api/admin/x"), (p1().await, "/admin/x")] {
        for lines in [
            format!("Authorization: Bearer {a}\r\nAuthorization: Bearer {b}\r\n"),
            format!("Authorization: Bearer {a}\r\nAuthorization: Bearer {a}\r\n"),
            format!("Authorization: Bearer {a}, Bearer {b}\r\n"),
            format!("Authorization: Basic YTpi\r\nAuthorization: Bearer {a}\r\n"),
            format!("Authorization: Bearer {a}\r\nauthorization: Basic YTpi\r\n"),
            format!("Authorization: Basic YTpi, Bearer {a}\r\n"),
        ] {
            report.get(&gateway, "I02", target, &lines, &BAD).await;
        }
    }
    report.finish();
}

const COOKIES: &str = "version: 1\nupstream: http://UPSTREAM\nidentity:\n  tests: { preset: jwt, secret: env:SECRET, issuer: https://issuer.test, audience: api, from: [bearer, cookie token] }\nroutes:\n  GET /items: authenticated\n  POST /items: authenticated\n";

#[tokio::test(flavor = "multi_thread")]
async fn header_and_cookie_are_one_credential_or_two() {
    let mut report = Report::default();
    let gateway = Harness::start(COOKIES).await;
    let (a, b) = (Token::of("ada").sign(), Token::of("eve").sign());
    let both = |bearer: &str, cookie: &str| format!("Authorization: Bearer {bearer}\r\nCookie: token={cookie}\r\n");
    report.get(&gateway, "I03", "/items", &both(&a, &b), &BAD).await;
    report.get(&gateway, "I03", "/items", &both(&a, &a), &canon("/items")).await;
    // A token in the query or a form is never read.
    let target = format!("/items?access_token={a}");
    report.get(&gateway, "I03", &target, "", &Refused(&[401])).await;
    let form = format!("access_token={a}");
    let request = format!(
        "POST /items HTTP/1.1\r\nHost: api.test\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    );
    report.raw(&gateway, "I03", request, &Refused(&[401])).await;
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn tossed_cookies_are_refused() {
    let mut report = Report::default();
    let gateway = Harness::start(COOKIES).await;
    let (a, b) = (Token::of("ada").sign(), Token::of("eve").sign());
    for (cookie, expect) in [
        (format!("token={a}"), canon("/items")),
        (format!("x=1; token={a}; y=2"), canon("/items")),
        (format!("token={a}; token={a}"), canon("/items")),
        (format!("token={a}; token={b}"), BAD),
        (format!("token={b};token={a}"), BAD),
        (format!("token={a}; Token={b}; __Host-token={b}; $Version=1"), canon("/items")),
        (format!("Token={a}"), Refused(&[401])),
        (format!("token =x; x={a}"), Refused(&[401])),
        (format!("token=\"{a}\""), Refused(&[401])),
        (format!("x=token={a}"), Refused(&[401])),
        (format!("{}token={a}", "c=1; ".repeat(200)), canon("/items")),
        (format!("{}token={a}; token={b}", "c=1; ".repeat(200)), BAD),
    ] {
        report.get(&gateway, "I04", "/items", &format!("Cookie: {cookie}\r\n"), &expect).await;
    }
    let two_lines = format!("Cookie: token={a}\r\nCookie: token={b}\r\n");
    report.get(&gateway, "I04", "/items", &two_lines, &BAD).await;
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_with_a_cookie_needs_its_own_origin() {
    let mut report = Report::default();
    let gateway = Harness::start(COOKIES).await;
    let token = Token::of("ada").sign();
    for (lines, status) in [
        (format!("Cookie: token={token}\r\nOrigin: http://api.test\r\n"), 200),
        (format!("Cookie: token={token}\r\nSec-Fetch-Site: same-origin\r\n"), 200),
        (format!("Cookie: token={token}\r\nOrigin: https://evil.example\r\n"), 403),
        (format!("Cookie: token={token}\r\nOrigin: null\r\n"), 403),
        (format!("Cookie: token={token}\r\nSec-Fetch-Site: cross-site\r\n"), 403),
        (format!("Cookie: token={token}\r\n"), 403),
        (format!("Authorization: Bearer {token}\r\nOrigin: https://evil.example\r\n"), 200),
    ] {
        let request = format!("POST /items HTTP/1.1\r\nHost: api.test\r\n{lines}Content-Length: 0\r\n\r\n");
        let got = gateway.raw(request).await.map(|answer| answer.status);
        report.note("I06", got == Some(status), || format!("{lines}: {got:?}"));
    }
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_drips_ends_at_its_deadline_and_others_do_not_notice() {
    let mut report = Report::default();
    let deadline = Duration::from_millis(400);
    let gateway = Harness::with(&policy("  /**: public\n"), Upstream::start().await, |parts| {
        parts.connections.head_deadline = deadline;
    })
    .await;
    let mut slow = tokio::task::JoinSet::new();
    for reused in [false, true] {
        for _ in 0..10 {
            let address = gateway.address;
            slow.spawn(async move {
                let mut client = Client::connect(address).await;
                if reused {
                    client.send(get("/x", "")).await;
                    assert_eq!(client.answer().await.unwrap().status, 200);
                    // Silence between requests is not slowness.
                    tokio::time::sleep(Duration::from_millis(600)).await;
                }
                let began = Instant::now();
                let (mut reader, drip) = (client, get("/x", "X-Slow: 1\r\n"));
                for byte in drip.as_bytes() {
                    reader.send([*byte]).await;
                    if began.elapsed() > Duration::from_secs(3) {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(40)).await;
                    if began.elapsed() > deadline * 2 {
                        break;
                    }
                }
                let answer = reader.answer().await.map(|answer| answer.status);
                (answer, began.elapsed())
            });
        }
    }
    for _ in 0..10 {
        let began = Instant::now();
        let answer = gateway.get("/x", "").await;
        report.note("O01", answer.status == 200 && began.elapsed() < Duration::from_millis(500), || {
            format!("{answer:?}")
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    while let Some(ended) = slow.join_next().await {
        let (answer, elapsed) = ended.unwrap();
        report.note("O01", matches!(answer, Some(408) | None) && elapsed < deadline * 4, || {
            format!("{answer:?} {elapsed:?}")
        });
    }
    report.finish();
}

/// Pingora gives each read of a chunk's size line a time of its own, and hands on nothing that could be counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_drips_ends_however_it_drips() {
    let mut report = Report::default();
    let patience = Duration::from_millis(400);
    let gateway = Harness::with(&policy("  /**: public\n"), Upstream::start().await, |parts| {
        parts.connections.body = patience;
    })
    .await;
    for (lines, first, drip) in [
        ("Content-Length: 1000", "", "x"),
        ("Transfer-Encoding: chunked", "5;a=", "b"),
        ("Transfer-Encoding: chunked", "", "1\r\nx\r\n"),
        ("Transfer-Encoding: chunked", "0\r\nX-Trailer: ", "y"),
    ] {
        let mut client = gateway.client().await;
        client.send(format!("POST /x HTTP/1.1\r\nHost: api.test\r\n{lines}\r\n\r\n{first}")).await;
        let began = Instant::now();
        while began.elapsed() < patience + Duration::from_millis(200) {
            client.send(drip).await;
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let answer = client.answer().await.map(|answer| answer.status);
        let elapsed = began.elapsed();
        report.note("O02", answer == Some(408) && elapsed < patience * 3, || {
            format!("{lines} {first} {drip}: {answer:?} {elapsed:?}")
        });
    }
    // A client that waits for a slow upstream is not slow itself, and one that sends enough may take its time.
    let mut client = gateway.client().await;
    client.send("POST /x HTTP/1.1\r\nHost: api.test\r\nContent-Length: 2000\r\n\r\n").await;
    for _ in 0..20 {
        client.send([b'x'; 100]).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let answer = client.answer().await.map(|answer| answer.status);
    report.note("O02", answer == Some(200), || format!("{answer:?}"));
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_cannot_hold_every_connection() {
    let mut report = Report::default();
    let gateway =
        Harness::with(&policy("  /**: public\n"), Upstream::start().await, |parts| parts.connections.per_address = 2)
            .await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = gateway.client().await;
        client.send(get("/x", "")).await;
        let status = client.answer().await.map(|answer| answer.status);
        report.note("O01", status == Some(200), || format!("{status:?}"));
        held.push(client);
    }
    let third = gateway.raw(get("/x", "")).await;
    report.note("O01", third.is_none(), || format!("{third:?}"));
    drop(held);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let next = gateway.raw(get("/x", "")).await.map(|answer| answer.status);
    report.note("O01", next == Some(200), || format!("{next:?}"));
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_or_too_long_headers_are_431() {
    let mut report = Report::default();
    for gateway in [p0().await, p1().await] {
        let fields = |count: usize| (0..count).map(|n| format!("X-{n}: 1\r\n")).collect::<String>();
        report.get(&gateway, "O05", "/public/x", &fields(99), &canon("/public/x")).await; // and Host
        for count in [100, 101, 255, 256, 300, 5000] {
            report.get(&gateway, "O05", "/public/x", &fields(count), &Refused(&[431])).await;
        }
        let one = |length: usize| format!("X: {}\r\n", "a".repeat(length));
        report.get(&gateway, "O05", "/public/x", &one(60 * 1024), &canon("/public/x")).await;
        for length in [64 * 1024 + 1, 128 * 1024, 1024 * 1024, 2 * 1024 * 1024] {
            report.get(&gateway, "O05", "/public/x", &one(length), &Refused(&[431])).await;
        }
    }
    report.finish();
}

#[derive(Debug, Default)]
struct Fuse(AtomicBool);

impl Clock for Fuse {
    fn now(&self) -> Timestamp {
        assert!(!self.0.swap(false, Ordering::SeqCst), "the fuse of this test");
        Timestamp::from_seconds(NOW)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_500_for_that_request_and_nothing_for_the_others() {
    let mut report = Report::default();
    let fuse = Arc::new(Fuse::default());
    let clock = fuse.clone();
    let gateway = Harness::with(&policy("  /**: public\n"), Upstream::start().await, |parts| parts.clock = clock).await;
    for _ in 0..5 {
        fuse.0.store(true, Ordering::SeqCst);
        let answer = gateway.get("/x", "").await;
        report.note("O10", answer.status == 500 && gateway.upstream.take().is_empty(), || format!("{answer:?}"));
        let answer = gateway.get("/x", "").await;
        report.note("O10", answer.status == 200 && gateway.upstream.take().len() == 1, || format!("{answer:?}"));
    }
    report.finish();
}
