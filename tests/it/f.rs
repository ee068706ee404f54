//! F. Upgrades and WebSocket.

use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::Client;
use crate::h2raw;
use crate::harness::{Harness, Token, get};
use crate::table::{Report, admin, p0, p1, policy};
use crate::upstream::{Io, Recorded, Upstream};

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Upgrades whoever asks, and sends back what it receives. Everything else is 200.
async fn echo() -> Upstream {
    Upstream::serving(echoing).await
}

fn echoing(request: Recorded, mut io: Io) -> Pin<Box<dyn Future<Output = Option<Io>> + Send>> {
    Box::pin(async move {
        if request.values("upgrade").is_empty() {
            io.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.ok()?;
            io.flush().await.ok()?;
            return Some(io);
        }
        io.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            .await
            .ok()?;
        io.flush().await.ok()?;
        let mut buffer = [0; 1024];
        while let Ok(n) = io.read(&mut buffer).await {
            if n == 0 || io.write_all(&buffer[..n]).await.is_err() || io.flush().await.is_err() {
                break;
            }
        }
        None
    })
}

async fn gateway(routes: &str) -> Harness {
    Harness::with(&policy(routes), echo().await, |_| {}).await
}

async fn open(gateway: &Harness, target: &str, lines: &str) -> (Client, Option<u16>) {
    let mut client = Client::connect(gateway.address).await;
    client.send(get(target, &format!("{UPGRADE}{lines}"))).await;
    let status = client.answer().await.map(|answer| answer.status);
    (client, status)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_websocket_passes_bytes_both_ways_under_the_same_policy_as_get() {
    let mut report = Report::default();
    let gateway = gateway(
        "  GET /ws: { access: authenticated, websocket: true }\n  GET /open: { access: public, websocket: true }\n",
    )
    .await;
    let (_, status) = open(&gateway, "/ws", "").await;
    report.note("F04", status == Some(401) && gateway.upstream.take().is_empty(), || format!("{status:?}"));
    let (mut client, status) = open(&gateway, "/ws", &Token::of("ada").line()).await;
    report.note("F04", status == Some(101), || format!("{status:?}"));
    for message in ["hello", "\r\n\r\nGET /admin HTTP/1.1\r\n\r\n", "\0\u{1}\u{2}"] {
        client.send(message).await;
        let back = client.bytes(message.len()).await;
        report.note("F04", back.as_deref() == Some(message.as_bytes()), || format!("{message:?}: {back:?}"));
    }
    let request = gateway.upstream.one();
    let fine = request.value("upgrade") == Some("websocket")
        && request.value("x-auth-user") == Some("ada")
        && request.value("sec-websocket-key").is_some();
    report.note("F04", fine, || format!("{request:?}"));
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_cookies_or_cors_a_websocket_needs_its_own_or_a_listed_origin() {
    let mut report = Report::default();
    let text = "version: 1\nupstream: http://UPSTREAM\ncors: { origins: [https://good.example], credentials: true }\nidentity:\n  tests: { preset: jwt, secret: env:SECRET, issuer: https://issuer.test, audience: api, from: [bearer, cookie token] }\nroutes:\n  GET /ws: { access: authenticated, websocket: true }\n";
    let gateway = Harness::with(text, echo().await, |_| {}).await;
    let token = Token::of("ada").sign();
    let (cookie, bearer) = (format!("Cookie: token={token}\r\n"), format!("Authorization: Bearer {token}\r\n"));
    for (lines, status) in [
        (format!("{cookie}Origin: https://good.example\r\n"), 101),
        (format!("{cookie}Origin: http://api.test\r\n"), 101),
        (format!("{cookie}Origin: https://evil.example\r\n"), 403),
        (format!("{cookie}Origin: null\r\n"), 403),
        (format!("{cookie}Origin: https://api.test.evil.example\r\n"), 403),
        (cookie.clone(), 403),
        (format!("{bearer}Origin: https://evil.example\r\n"), 403),
        (bearer.clone(), 101),
    ] {
        let (_, got) = open(&gateway, "/ws", &lines).await;
        report.note("F04", got == Some(status), || format!("{lines}: {got:?}"));
    }
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_behind_an_upgrade_are_not_sent_ahead_of_the_101() {
    let mut report = Report::default();
    for routes in [
        "  /**: { access: public, websocket: true }\n  /admin/**: { role: admin }\n",
        "  /**: public\n  /admin/**: { role: admin }\n",
    ] {
        // The upstream does not upgrade, so what follows is a request, and it is judged as one.
        let gateway = Harness::start(&policy(routes)).await;
        let request = format!("{}{}", get("/x", UPGRADE), get("/admin/x", ""));
        let mut client = Client::connect(gateway.address).await;
        client.send(request).await;
        let first = client.answer().await.map(|answer| answer.status);
        let second = client.answer().await.map(|answer| answer.status);
        let upstream = gateway.upstream.take();
        let fine = matches!(first, Some(200 | 400))
            && matches!(second, None | Some(401))
            && upstream.iter().all(|request| request.target() == "/x" && request.body.is_empty());
        report.note("F01", fine, || format!("{first:?} {second:?} {upstream:?}"));
    }
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_upgrade_is_stripped() {
    let mut report = Report::default();
    let declared = gateway("  /public/**: { access: public, websocket: true }\n").await;
    for (gateway, name) in [(declared, "declared"), (p0().await, "P0"), (p1().await, "P1")] {
        for lines in [
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
            "Connection: Upgrade\r\nUpgrade: h2c\r\n",
            "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
            "Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n",
            "Connection: Upgrade\r\nUpgrade: foo\r\n",
            "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
            "Upgrade: h2c\r\n",
        ] {
            let answer = gateway.get("/public/x", lines).await;
            let upstream = gateway.upstream.take();
            let fine = match answer.status {
                200 => {
                    matches!(&*upstream, [only] if only.values("upgrade").is_empty() && only.values("http2-settings").is_empty() && only.values("connection").is_empty())
                }
                status => status == 400 && upstream.is_empty(),
            };
            report.note("F02", fine, || format!("{name} {lines:?}: {} {upstream:?}", answer.status));
        }
        if name != "declared" {
            let answer = gateway.get("/public/x", UPGRADE).await;
            let upstream = gateway.upstream.take();
            let fine = answer.status == 200 && matches!(&*upstream, [only] if only.values("upgrade").is_empty());
            report.note("F02", fine, || format!("{name} websocket: {upstream:?}"));
        }
    }
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_101_to_an_upgrade_makes_a_tunnel() {
    let mut report = Report::default();
    for (status, body) in [("426 Upgrade Required", "no"), ("200 OK", "ok"), ("204 No Content", "")] {
        let text = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let bytes = format!("HTTP/1.1 {status}\r\n{text}\r\n{body}");
        let upstream = Upstream::answering(move |_| bytes.clone().into_bytes()).await;
        let routes = "  GET /ws: { access: public, websocket: true }\n  /admin/**: { role: admin }\n";
        let gateway = Harness::with(&policy(routes), upstream, |_| {}).await;
        let (mut client, got) = open(&gateway, "/ws", "").await;
        report
            .note("F03", got.map(|got| got.to_string()).as_deref() == status.get(..3), || format!("{status}: {got:?}"));
        client.send(get("/admin/x", "")).await;
        let next = client.answer().await.map(|answer| answer.status);
        report.note("F03", matches!(next, None | Some(401)), || format!("after {status}: {next:?}"));
        gateway.upstream.take();
    }
    for (routes, lines) in [
        ("  /**: public\n", ""),
        ("  /**: public\n", UPGRADE), // stripped, so nobody asked
        ("  /**: { access: public, websocket: true }\n", ""),
    ] {
        let upstream = Upstream::answering(|_| {
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".to_vec()
        })
        .await;
        let gateway = Harness::with(&policy(routes), upstream, |_| {}).await;
        let answer = gateway.raw(get("/x", lines)).await;
        report.note("F03", answer.as_ref().is_some_and(|answer| answer.status == 502), || {
            format!("{routes}: {answer:?}")
        });
    }
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_ends_with_its_token_or_its_age() {
    let mut report = Report::default();
    let gateway = gateway("  GET /ws: { access: authenticated, websocket: true }\n  GET /aged: { access: public, websocket: true, max_ws_age: 1s }\n").await;
    let short = Token::of("ada").with("exp", crate::harness::NOW + 1).line();
    for (target, lines, silent) in
        [("/ws", &*short, true), ("/ws", &short, false), ("/aged", "", true), ("/aged", "", false)]
    {
        let (mut client, status) = open(&gateway, target, lines).await;
        report.note("F05", status == Some(101), || format!("{target}: {status:?}"));
        let opened = Instant::now();
        let closed = loop {
            if silent {
                break client.is_closed().await;
            }
            client.send("ping").await;
            if client.bytes(4).await.is_none() {
                break true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let after = opened.elapsed();
        let in_time = after > Duration::from_millis(700) && after < Duration::from_millis(2500);
        report.note("F05", closed && in_time, || format!("{target} silent {silent}: after {after:?}"));
    }
    // A token that lives keeps its silent socket.
    let (mut client, _) = open(&gateway, "/ws", &Token::of("ada").line()).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    client.send("still").await;
    let back = client.bytes(5).await;
    report.note("F05", back.as_deref() == Some(b"still"), || format!("{back:?}"));
    report.finish();
}

/// An upstream that upgrades at once must not find the tunnel closed: see `proxy/websocket.rs`.
#[tokio::test(flavor = "multi_thread")]
async fn no_socket_closes_as_it_opens_plain_or_over_tls() {
    let mut report = Report::default();
    let routes = "  GET /ws: { access: public, websocket: true }\n";
    let (pem, key, certificate) = crate::harness::certificate("upstream.test");
    let secure = Upstream::tls(certificate, &key, echoing).await;
    let text = format!(
        "version: 1\nupstream: https://{}\nupstream_tls: {{ ca: file:ca.pem, server_name: upstream.test }}\nroutes:\n{routes}",
        secure.address
    );
    let over_tls = Harness::with_files(&text, secure, &[("ca.pem", pem.as_bytes())]).await;
    for gateway in [gateway(routes).await, over_tls] {
        let address = gateway.address;
        let mut sockets = tokio::task::JoinSet::new();
        for _ in 0..64 {
            sockets.spawn(async move {
                let mut client = Client::connect(address).await;
                client.send(get("/ws", UPGRADE)).await;
                let status = client.answer().await.map(|answer| answer.status);
                client.send("ping").await;
                (status, client.bytes(4).await)
            });
        }
        while let Some(ended) = sockets.join_next().await {
            let (status, back) = ended.unwrap();
            report.note("F04", status == Some(101) && back.as_deref() == Some(b"ping"), || {
                format!("{status:?} {back:?}")
            });
        }
    }
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn extended_connect_is_refused() {
    let mut report = Report::default();
    let declared = gateway("  /**: { access: public, websocket: true }\n").await;
    for gateway in [declared, p0().await, p1().await] {
        for target in [&b"/x"[..], b"/admin/x", b"/public/x"] {
            let outcome = h2raw::request(
                &gateway,
                &[
                    (b":method", b"CONNECT"),
                    (b":protocol", b"websocket"),
                    (b":scheme", b"https"),
                    (b":authority", b"localhost"),
                    (b":path", target),
                    (b"authorization", admin().trim_end().strip_prefix("Authorization: ").unwrap().as_bytes()),
                ],
                &[b"bytes"],
            )
            .await;
            let upstream = gateway.upstream.take();
            report.note("F06", outcome.is_refused(&[400, 405, 501]) && upstream.is_empty(), || {
                format!("{outcome:?} {upstream:?}")
            });
        }
        let outcome =
            h2raw::request(&gateway, &[(b":method", b"CONNECT"), (b":authority", b"localhost:443")], &[b"x"]).await;
        report.note("F06", outcome.is_refused(&[400, 405]) && gateway.upstream.take().is_empty(), || {
            format!("{outcome:?}")
        });
    }
    report.finish();
}
