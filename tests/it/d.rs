//! D. Forwarded metadata, trusted networks.

use std::net::SocketAddr;

use portcullis::request::forwarded::TrustedProxies;

use crate::harness::{Harness, SECRET, Token, compile_error};
use crate::table::{Refused, Report, canon, p0, p1, policy};
use crate::upstream::Upstream;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_decided_on_what_a_client_says_about_its_request() {
    let mut report = Report::default();
    for (gateway, target) in [(p0().await, "/api/admin/x"), (p1().await, "/admin/x")] {
        for line in [
            "X-Forwarded-Uri: /public",
            "X-Original-URL: /public",
            "X-Rewrite-URL: /public",
            "X-Original-Uri: /public",
            "X-Forwarded-Path: /public",
            "X-Forwarded-Method: GET",
            "X-Forwarded-Prefix: /public/..",
            "X-Forwarded-Host: open.test",
        ] {
            report.get(&gateway, "D01", target, &format!("{line}\r\n"), &Refused(&[401])).await;
        }
    }
    for gateway in [p0().await, p1().await] {
        for name in ["X-Forwarded-Uri", "X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Method", "X_Original_Url"] {
            gateway.get("/public/x", &format!("{name}: hostile\r\n")).await;
            let request = gateway.upstream.one();
            report.note("D01", !request.head.contains("hostile"), || format!("{request:?}"));
        }
    }
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_proxies_say_is_rebuilt_or_absent() {
    let mut report = Report::default();
    for gateway in [p0().await, p1().await] {
        for name in [
            "X-Forwarded-For",
            "X-Forwarded-Host",
            "X-Forwarded-Proto",
            "X-Forwarded-Port",
            "X-Forwarded-Prefix",
            "X-Forwarded-Uri",
            "X-Forwarded-Method",
            "X-Forwarded-Server",
            "X-Forwarded-User",
            "X-Forwarded-Groups",
            "X-Forwarded-Email",
            "X-Forwarded-Anything",
            "Forwarded",
            "X-Real-IP",
            "X-Client-IP",
            "True-Client-IP",
            "CF-Connecting-IP",
            "X_Forwarded_For",
            "X.Real.IP",
            "x-forwarded_proto",
            "Client-IP",
            "Proxy",
        ] {
            let answer = gateway.get("/public/x", &format!("{name}: hostile\r\n")).await;
            let upstream = gateway.upstream.take();
            let fine = answer.status == 200 && matches!(&*upstream, [only] if !only.head.contains("hostile"));
            report.note("D02", fine, || format!("{name}: {} {upstream:?}", answer.status));
        }
        gateway.get("/public/x", "X-Request-Id: hostile\r\n").await;
        let request = gateway.upstream.one();
        let forwarded = "for=127.0.0.1;host=\"api.test\";proto=http";
        let fine = request.value("x-forwarded-for") == Some("127.0.0.1")
            && request.value("x-forwarded-host") == Some("api.test")
            && request.value("x-forwarded-proto") == Some("http")
            && request.value("x-forwarded-port") == Some("80")
            && request.value("x-real-ip") == Some("127.0.0.1")
            && request.value("forwarded") == Some(forwarded)
            && request.value("host") == Some("api.test")
            && request.value("via") == Some("1.1 portcullis")
            && request.value("x-request-id").is_some_and(|id| id.len() == 36);
        report.note("D02", fine, || format!("{request:?}"));
    }
    report.finish();
}

/// The scheme upstream is that of the connection; there is no rule on the scheme that a header could satisfy.
#[tokio::test(flavor = "multi_thread")]
async fn the_scheme_is_that_of_the_connection() {
    let mut report = Report::default();
    for gateway in [p0().await, p1().await] {
        for value in ["https", "wss", "https, http"] {
            gateway.get("/public/x", &format!("X-Forwarded-Proto: {value}\r\nForwarded: proto=https\r\nX-Forwarded-Ssl: on\r\nFront-End-Https: on\r\n")).await;
            let request = gateway.upstream.one();
            let fine = request.value("x-forwarded-proto") == Some("http")
                && request.values("x-forwarded-ssl").is_empty()
                && request.values("front-end-https").is_empty();
            report.note("D03", fine, || format!("{request:?}"));
        }
    }
    report.finish();
}

async fn trusting(routes: &str, networks: &[&str]) -> Harness {
    let trusted = TrustedProxies::parse(networks.iter().copied()).unwrap();
    let text = format!("{}sets: {{ inside: [10.0.0.0/8] }}\n", policy(routes));
    Harness::with(&text, Upstream::start().await, |parts| parts.trusted_proxies = trusted).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_is_the_first_untrusted_address_from_the_right() {
    let mut report = Report::default();
    let gateway = trusting(
        "  GET /open: public\n  GET /inside: { access: public, where: client.ip in inside }\n",
        &["127.0.0.1", "192.0.2.0/24"],
    )
    .await;
    let fifty = (0..50).map(|n| format!("203.0.113.{n}")).collect::<Vec<_>>().join(", ");
    for (value, client) in [
        ("203.0.113.9".to_owned(), "203.0.113.9"),
        ("10.0.0.1, 203.0.113.9".to_owned(), "203.0.113.9"),
        ("203.0.113.9, 192.0.2.7".to_owned(), "203.0.113.9"),
        ("203.0.113.9,192.0.2.7 ,  192.0.2.8".to_owned(), "203.0.113.9"),
        (fifty, "203.0.113.49"),
        ("203.0.113.9:4711".to_owned(), "203.0.113.9"),
        ("[2001:db8::1]:4711".to_owned(), "2001:db8::1"),
        ("unknown".to_owned(), "127.0.0.1"),
        ("10.0.0.1, unknown".to_owned(), "127.0.0.1"),
        ("10.0.0.1, \"192.0.2.1, x\"".to_owned(), "127.0.0.1"),
        ("::ffff:203.0.113.9".to_owned(), "203.0.113.9"),
        (String::new(), "127.0.0.1"),
    ] {
        gateway.get("/open", &format!("X-Forwarded-For: {value}\r\n")).await;
        let request = gateway.upstream.one();
        report
            .note("D04", request.value("x-real-ip") == Some(client), || format!("{value}: not {client}: {request:?}"));
    }
    for (value, expect) in [
        ("10.0.0.1", canon("/inside")),
        ("10.0.0.1, 203.0.113.9", Refused(&[403])),
        ("203.0.113.9, 10.0.0.1", canon("/inside")),
        ("::ffff:10.0.0.1", canon("/inside")),
        ("010.0.0.1", Refused(&[403])),
        ("10.0.0.1%eth0", Refused(&[403])),
    ] {
        report.get(&gateway, "D05", "/inside", &format!("X-Forwarded-For: {value}\r\n"), &expect).await;
    }
    // From a peer that is not trusted nothing is believed.
    let gateway = trusting("  GET /inside: { access: public, where: client.ip in inside }\n", &["192.0.2.0/24"]).await;
    for line in ["X-Forwarded-For: 10.0.0.1", "X-Real-IP: 10.0.0.1", "Forwarded: for=10.0.0.1", "X-Client-IP: 10.0.0.1"]
    {
        report.get(&gateway, "D04", "/inside", &format!("{line}\r\n"), &Refused(&[403])).await;
    }
    report.finish();
}

/// Rate limits count by the same address.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_by_address_is_not_escaped_by_a_header() {
    let mut report = Report::default();
    let routes = "  GET /open: { access: public, limit: 2/hour by ip }\n";
    let gateway = Harness::start(&policy(routes)).await;
    let statuses = |lines: Vec<String>, gateway: Harness| async move {
        let mut statuses = Vec::new();
        for lines in lines {
            statuses.push(gateway.get("/open", &lines).await.status);
        }
        statuses
    };
    let lines = (1..=4).map(|n| format!("X-Forwarded-For: 203.0.113.{n}\r\n")).collect();
    let got = statuses(lines, gateway).await;
    report.note("D04", got == [200, 200, 429, 429], || format!("{got:?}"));
    let gateway = trusting(routes, &["127.0.0.1"]).await;
    let lines = ["1", "1", "1", "2"].map(|n| format!("X-Forwarded-For: 203.0.113.{n}\r\n")).to_vec();
    let got = statuses(lines, gateway).await;
    report.note("D04", got == [200, 200, 429, 200], || format!("{got:?}"));
    report.finish();
}

#[test]
fn mapped_addresses_and_leading_zeros_have_one_reading() {
    let mut report = Report::default();
    let trusted = TrustedProxies::parse(["::ffff:10.0.0.0/104"]).unwrap();
    let peer = portcullis::request::forwarded::ClientAddr::parse("10.1.2.3").unwrap();
    report.note("D05", trusted.contains(peer), || "mapped network".to_owned());
    report.note("D05", TrustedProxies::parse(["0.0.0.0/0"]).is_err(), || "everyone".to_owned());
    report.note("D05", TrustedProxies::parse(["::/0"]).is_err(), || "everyone".to_owned());
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_depends_on_the_user_agent() {
    let mut report = Report::default();
    for (gateway, target) in [(p0().await, "/api/admin/x"), (p1().await, "/admin/x")] {
        for agent in ["GoogleHC/1.0", "kube-probe/1.29", "ELB-HealthChecker/2.0", "Prometheus/2.0", ""] {
            report.get(&gateway, "D06", target, &format!("User-Agent: {agent}\r\n"), &Refused(&[401])).await;
        }
        for path in ["/health", "/healthz", "/ready", "/metrics", "/status"] {
            let answer = gateway.get(path, "").await;
            let upstream = gateway.upstream.take();
            let policy_only = if upstream.is_empty() { answer.status == 404 } else { answer.status == 200 };
            report.note("D12", policy_only, || format!("{path}: {answer:?}"));
        }
    }
    report.finish();
}

#[test]
fn a_reference_that_cannot_be_resolved_does_not_open_a_route() {
    let mut report = Report::default();
    let text = "version: 1\nupstream: http://UPSTREAM\nidentity:\n  tests: { preset: jwt, secret: file:no-such-file, issuer: https://issuer.test, audience: api }\nroutes:\n  GET /items: authenticated\n";
    // `serve` refuses such a set; `check`, which needs no secrets, compiles it, and nobody may sign tokens then.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let opened = compile_error(text).is_none()
        && runtime.block_on(async {
            let gateway = Harness::start(text).await;
            let lines = [SECRET, ""]
                .map(|secret| format!("Authorization: Bearer {}\r\n", Token::of("eve").signed_with(secret)));
            let mut opened = false;
            for lines in ["", &*lines[0], &*lines[1]] {
                opened |= !matches!(gateway.get("/items", lines).await.status, 401 | 503);
            }
            opened || !gateway.upstream.take().is_empty()
        });
    report.note("D09", !opened, || format!("a route is open: {:?}", compile_error(text)));
    for upstream in ["ftp://x", "http://", "http://h:99999", "x", "http://h/path", "http://user@h"] {
        let text = format!("version: 1\nupstream: {upstream}\nroutes:\n  /**: public\n");
        report.note("D09", compile_error(&text).is_some(), || format!("upstream {upstream} loads"));
    }
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_do_not_mix() {
    let mut report = Report::default();
    let upstream = Upstream::answering(|request| {
        let user = request.value("x-auth-user").unwrap_or("-").to_owned();
        let body = format!("{} {user} {}", request.target(), String::from_utf8_lossy(&request.body));
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    })
    .await;
    let gateway = Harness::with(&policy("  /items/**: authenticated\n  /open/**: public\n"), upstream, |_| {}).await;
    let address: SocketAddr = gateway.address;
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..20 {
        tasks.spawn(async move {
            let mut wrong = Vec::new();
            let mut client = crate::client::Client::connect(address).await;
            for n in 0..100 {
                let user = format!("user-{worker}-{n}");
                let (line, target, status, who) = match n % 4 {
                    0 => (Token::of(&user).line(), format!("/items/{user}"), 200, user.clone()),
                    1 => (String::new(), format!("/open/{user}"), 200, "-".to_owned()),
                    2 => (String::new(), format!("/items/{user}"), 401, String::new()),
                    _ => (
                        Token::of(&user).signed_with("another-secret-of-more-than-32-bytes..").as_str().into(),
                        format!("/items/{user}"),
                        401,
                        String::new(),
                    ),
                };
                let line = if n % 4 == 3 { format!("Authorization: Bearer {line}\r\n") } else { line };
                client
                    .send(format!(
                        "POST {target} HTTP/1.1\r\nHost: api.test\r\n{line}Content-Length: {}\r\n\r\n{user}",
                        user.len()
                    ))
                    .await;
                let Some(answer) = client.answer().await else {
                    wrong.push(format!("{user}: closed"));
                    client = crate::client::Client::connect(address).await;
                    continue;
                };
                let expected = format!("{target} {who} {user}");
                if answer.status != status || (status == 200 && answer.text() != expected) {
                    wrong.push(format!("{user}: {answer:?}"));
                }
            }
            wrong
        });
    }
    while let Some(wrong) = tasks.join_next().await {
        let wrong = wrong.unwrap();
        report.note("D10", wrong.is_empty(), || wrong.join("\n"));
    }
    report.finish();
}
