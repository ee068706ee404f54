//! What must work: allowed and refused requests, keep-alive, streams, upgrades, broken upstreams.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis::clock::Clock;
use portcullis::config::{DecisionSink, Log};
use portcullis::random::SeededRandom;
use portcullis::telemetry::decision_log::DecisionLog;
use portcullis::telemetry::metrics::Metrics;
use tokio::io::AsyncWriteExt;

use crate::harness::{Harness, IDENTITY, Token, certificate, get};
use crate::upstream::Upstream;

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

#[tokio::test(flavor = "multi_thread")]
async fn ordinary_paths_pass_as_they_are_written() {
    let gateway = Harness::start(&policy("  /**: authenticated\n")).await;
    let token = Token::of("ada").line();
    for target in [
        "/caf%C3%A9",
        "/files/report%20final.pdf",
        "/q?next=/admin",
        "/a+b",
        "/users/@me",
        "/a:b/c,d/e=f/(g)/h!/i*/$j/'k'",
        "/~ada/x.tar.gz",
        "/v1.0/items/",
        "/q?a=1&b=%2F%2e%2e&c[]=x&d=a;b&e=%zz?x//y",
        "/",
        "/%E2%82%AC",
        "/100%25",
    ] {
        let answer = gateway.get(target, &token).await;
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        assert_eq!(gateway.upstream.one().target(), target);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_64_mib_streams_up() {
    const SIZE: usize = 64 * 1024 * 1024;
    let upstream = Upstream::answering(|request| {
        let same =
            request.body.len() == SIZE && request.body.iter().enumerate().all(|(n, byte)| *byte == (n % 251) as u8);
        let body = if same { "same" } else { "other" };
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    })
    .await;
    let gateway = Harness::with(&policy("  /**: public\n"), upstream, |_| {}).await;
    let body: Vec<u8> = (0..SIZE).map(|n| (n % 251) as u8).collect();
    let mut client = gateway.client().await;
    client.send(format!("POST /x HTTP/1.1\r\nHost: api.test\r\nContent-Length: {SIZE}\r\n\r\n")).await;
    client.send(&body).await;
    assert_eq!(client.answer().await.unwrap().text(), "same");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_when_they_are_sent() {
    let (go, gone) = tokio::sync::watch::channel(0);
    let upstream = Upstream::serving(move |_, mut io| {
        let mut gone = gone.clone();
        Box::pin(async move {
            io.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
                .await
                .ok()?;
            for event in 1..=3 {
                gone.wait_for(|allowed| *allowed >= event).await.ok()?;
                let data = format!("data: {event}\n\n");
                io.write_all(format!("{:x}\r\n{data}\r\n", data.len()).as_bytes()).await.ok()?;
                io.flush().await.ok()?;
            }
            io.write_all(b"0\r\n\r\n").await.ok()?;
            io.flush().await.ok()?;
            Some(io)
        })
    })
    .await;
    let gateway = Harness::with(&policy("  /**: public\n"), upstream, |_| {}).await;
    let mut client = gateway.client().await;
    client.send(get("/events", "")).await;
    assert_eq!(client.head().await.unwrap().status, 200);
    for event in 1..=3 {
        go.send_replace(event); // the next one is sent only now, so this one has arrived on its own
        let size = usize::from_str_radix(&client.line().await.unwrap(), 16).unwrap();
        let chunk = client.bytes(size + 2).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&chunk), format!("data: {event}\n\n\r\n"));
    }
    assert_eq!(client.line().await.unwrap(), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_down_is_502_and_one_that_is_slow_is_504() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let routes = format!(
        "  GET /down: {{ access: public, upstream: \"http://{closed}\" }}\n  GET /nowhere: {{ access: public, upstream: \"http://no-such-host.invalid\" }}\n  GET /slow: {{ access: public, timeout: 1s }}\n  POST /slow: {{ access: public, timeout: 1s }}\n"
    );
    let upstream = Upstream::serving(|_, io| {
        Box::pin(async move {
            std::future::pending::<()>().await;
            Some(io)
        })
    })
    .await;
    let gateway = Harness::with(&policy(&routes), upstream, |_| {}).await;
    for (request, status, code) in [
        (get("/down", ""), 502, "bad_gateway"),
        (get("/nowhere", ""), 502, "bad_gateway"),
        (get("/slow", ""), 504, "gateway_timeout"),
        ("POST /slow HTTP/1.1\r\nHost: api.test\r\nContent-Length: 2\r\n\r\nhi".to_owned(), 504, "gateway_timeout"),
    ] {
        let answer = gateway.raw(&request).await.unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{answer:?}");
        assert_eq!(answer.value("x-portcullis-decision"), answer.json("decision_id").as_str());
        assert!(answer.values("server").is_empty() && answer.values("www-authenticate").is_empty());
    }
    assert_eq!(gateway.upstream.take().len(), 2, "what an upstream has begun is not asked twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_looked_up_and_its_ipv4_address_is_tried_first() {
    let upstream = Upstream::start().await;
    let port = upstream.address.port();
    let routes = format!("  GET /x: {{ access: public, upstream: \"http://localhost:{port}\" }}\n");
    let gateway = Harness::with(&policy(&routes), upstream, |_| {}).await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/x", "").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstreams_certificate_is_verified() {
    let (pem, key, certificate) = certificate("upstream.test");
    let (other, ..) = crate::harness::certificate("upstream.test");
    let upstream = Upstream::tls(certificate, &key, |_, mut io| {
        Box::pin(async move {
            io.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.ok()?;
            io.flush().await.ok()?;
            Some(io)
        })
    })
    .await;
    let address = upstream.address;
    let files = [("right.pem", pem.as_bytes()), ("wrong.pem", other.as_bytes())];
    let mut apps = String::new();
    for (app, tls) in [
        ("right", "{ ca: file:right.pem, server_name: upstream.test }"),
        ("wrong-ca", "{ ca: file:wrong.pem, server_name: upstream.test }"),
        ("wrong-name", "{ ca: file:right.pem, server_name: other.test }"),
        ("no-name", "{ ca: file:right.pem }"),
        ("system-roots", "{ server_name: upstream.test }"),
        ("insecure", "{ insecure: true, server_name: upstream.test }"),
    ] {
        apps.push_str(&format!(
            "---\nversion: 1\napp: {app}\nhost: {app}.test\nupstream: https://{address}\nupstream_tls: {tls}\nallow: {{ P408: the test is about it }}\nroutes:\n  /**: public\n"
        ));
    }
    let gateway = Harness::with_files(apps.trim_start_matches("---\n"), upstream, &files).await;
    for (app, status) in [
        ("right", 200),
        ("wrong-ca", 502),
        ("wrong-name", 502),
        ("no-name", 502),
        ("system-roots", 502),
        ("insecure", 200),
    ] {
        let request = format!("GET /x HTTP/1.1\r\nHost: {app}.test\r\n\r\n");
        let answer = gateway.raw(request).await.unwrap();
        assert_eq!(answer.status, status, "{app}: {answer:?}");
        assert_eq!(gateway.upstream.take().len(), usize::from(status == 200), "{app}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_says_when_to_come_back_and_survives_a_reload_that_leaves_it() {
    let text =
        |limit: &str, more: &str| policy(&format!("  GET /items: {{ access: authenticated, limit: {limit} }}\n{more}"));
    let gateway = Harness::start(&text("2/hour", "")).await;
    let (ada, eve) = (Token::of("ada").line(), Token::of("eve").line());
    assert_eq!(gateway.get("/items", &ada).await.status, 200);
    assert_eq!(gateway.get("/items", &ada).await.status, 200);
    let refused = gateway.get("/items", &ada).await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"));
    assert!(refused.value("retry-after").unwrap().parse::<u32>().unwrap() > 1000, "{refused:?}");
    assert_eq!(refused.value("ratelimit-limit"), Some("2"));
    assert_eq!(refused.value("ratelimit-remaining"), Some("0"));
    assert!(refused.value("ratelimit-reset").is_some());
    assert_eq!(gateway.get("/items", &eve).await.status, 200, "each user has their own");

    gateway.reload(&text("2/hour", "  GET /new: public\n"));
    assert_eq!(gateway.get("/new", "").await.status, 200);
    assert_eq!(gateway.get("/items", &ada).await.status, 429, "the limit is the same, so is its bucket");
    gateway.reload(&text("3/hour", ""));
    assert_eq!(gateway.get("/items", &ada).await.status, 200, "another limit has another bucket");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_can_look_like_fastapis() {
    let gateway = Harness::start(&format!("errors: fastapi\n{}", policy("  GET /items: { scope: read }\n"))).await;
    for (target, lines, status) in
        [("/items", String::new(), 401), ("/items", Token::of("a").line(), 403), ("/none", String::new(), 404)]
    {
        let answer = gateway.get(target, &lines).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.value("content-type"), Some("application/json"));
        assert!(answer.json("detail").is_string() && answer.json("code").is_null(), "{answer:?}");
        assert!(answer.value("x-portcullis-decision").is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_is_told_so() {
    let gateway = Harness::start(&policy("  GET /items: authenticated\n")).await;
    let token = Token::of("ada").line();
    assert_eq!(gateway.get("/items", &token).await.status, 200);
    gateway.clock.advance(Duration::from_secs(3600 + 31));
    let answer = gateway.get("/items", &token).await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "invalid_token"));
    let challenge = answer.value("www-authenticate").unwrap();
    assert!(challenge.contains(r#"error="invalid_token""#) && challenge.contains("expired"), "{challenge}");
}

/// Ctrl-C must not wait for clients that are only there.
#[tokio::test(flavor = "multi_thread")]
async fn it_stops_within_its_grace_with_idle_and_busy_connections_open() {
    let upstream = Upstream::serving(|request, mut io| {
        Box::pin(async move {
            if request.target() == "/events" {
                io.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n").await.ok()?;
                io.flush().await.ok()?;
                std::future::pending::<()>().await;
            }
            if !request.values("upgrade").is_empty() {
                io.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                    .await
                    .ok()?;
                io.flush().await.ok()?;
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
            io.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.ok()?;
            io.flush().await.ok()?;
            Some(io)
        })
    })
    .await;
    let mut gateway = Harness::with(&policy("  /**: { access: public, websocket: true }\n"), upstream, |_| {}).await;
    let _silent = gateway.client().await;
    let mut idle = gateway.client().await;
    idle.send(get("/x", "")).await;
    assert_eq!(idle.answer().await.unwrap().status, 200);
    let mut events = gateway.client().await;
    events.send(get("/events", "")).await;
    assert_eq!(events.head().await.unwrap().status, 200);
    let mut socket = gateway.client().await;
    socket.send(get("/ws", "Connection: Upgrade\r\nUpgrade: websocket\r\n")).await;
    assert_eq!(socket.answer().await.unwrap().status, 101);
    let mut h2 = crate::h2raw::open(&gateway).await;
    h2.frame(6, 0, 0, &[0; 8]).await; // PING
    let mut busy = gateway.client().await;
    busy.send(get("/x", "")).await;
    tokio::time::sleep(Duration::from_millis(100)).await;

    let began = Instant::now();
    gateway.stop(Duration::from_secs(1)).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(busy.answer().await.unwrap().status, 200, "what was in flight is finished");
    assert!(idle.is_closed().await);
    assert!(tokio::net::TcpStream::connect(gateway.address).await.is_err(), "nothing is accepted any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_speaks_http_2_with_it() {
    let gateway = Harness::start(&policy("  /items: { scope: read }\n  /open/**: public\n")).await;
    let stream = crate::client::tls(gateway.tls, &gateway.certificate, &[b"h2"]).await;
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let bearer = format!("Bearer {}", Token::of("ada").with("scope", "read").sign());
    for (target, authorization, status) in [
        ("/items", "", 401),
        ("/items", &*bearer, 200),
        ("/none", "", 404),
        ("/open/x", "", 200),
        ("/items", "Bearer x", 401),
    ] {
        let mut request = http::Request::builder().method("POST").uri(format!("https://localhost{target}"));
        if !authorization.is_empty() {
            request = request.header("authorization", authorization);
        }
        let (answer, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
        let sent = body.send_data("a body".into(), true);
        assert!(sent.is_ok() || status != 200, "{target}: {sent:?}"); // a refusal may come before the body
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), status, "{target}");
        let mut received = Vec::new();
        let mut stream = answer.into_body();
        while let Some(chunk) = stream.data().await {
            received.extend_from_slice(&chunk.unwrap());
        }
        assert!(!received.is_empty());
    }
    let upstream = gateway.upstream.take();
    assert_eq!(upstream.len(), 2);
    assert!(upstream.iter().all(|request| request.body == b"a body" && request.value("via") == Some("2 portcullis")));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_leaves_a_line_without_its_query() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("decisions.jsonl");
    let decisions = DecisionSink::File { path: path.clone(), size: 1 << 20, keep: 1 };
    let log = Log { decisions, ..Log::default() };
    let decisions = Arc::new(DecisionLog::start(&log, &SeededRandom::new(1)).unwrap());
    let (kept, metrics) = (decisions.clone(), Arc::new(Metrics::new()));
    let counts = metrics.clone();
    let gateway = Harness::with(&policy("  GET /items: { scope: read }\n"), Upstream::start().await, |parts| {
        parts.decisions = decisions;
        parts.metrics = metrics;
    })
    .await;
    let reader = Token::of("ada").with("scope", "read").line();
    let allowed = gateway.get("/items?access_token=canary", &reader).await;
    let refused = gateway.get("/items?access_token=canary", "Authorization: Bearer canary\r\n").await;
    gateway.get("/none?canary", "Cookie: a=canary\r\n").await;
    assert_eq!((allowed.status, refused.status), (200, 401));
    assert!(kept.flush(Duration::from_secs(5)));
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("canary"), "{text}");
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!((lines[0]["status"].as_u64(), lines[0]["sub"].as_str()), (Some(200), Some("ada")));
    assert_eq!(lines[1]["code"], "invalid_token");
    assert_eq!(lines[1]["id"].as_str(), refused.value("x-portcullis-decision"));
    assert_eq!(lines[2]["code"], "not_found");
    let text = counts.encode(gateway.clock.now(), &kept);
    assert!(text.contains("code=\"invalid_token\"} 1") && text.contains("requests_in_flight 0"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_records_are_required_nothing_is_answered_without_one() {
    for (audit_required, expected) in [(true, 503), (false, 200)] {
        // A device that is always full.
        let decisions = DecisionSink::File { path: "/dev/full".into(), size: 1 << 20, keep: 1 };
        let log = Log { decisions, audit_required, ..Log::default() };
        let decisions = Arc::new(DecisionLog::start(&log, &SeededRandom::new(1)).unwrap());
        let gateway = Harness::with(&policy("  GET /items: public\n"), Upstream::start().await, |parts| {
            parts.decisions = decisions;
        })
        .await;
        assert_eq!(gateway.get("/items", "").await.status, 200);
        let deadline = std::time::Instant::now() + Duration::from_secs(if audit_required { 20 } else { 1 });
        let mut answer = gateway.get("/items", "").await;
        while answer.status != 503 && std::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
            answer = gateway.get("/items", "").await;
        }
        assert_eq!(answer.status, expected, "{answer:?}");
        assert_eq!(answer.value("retry-after"), audit_required.then_some("1"));
    }
}
