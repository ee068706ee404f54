//! An app in front of Supabase: what its parts get, and what their clients are told.

use std::sync::Arc;
use std::time::Duration;

use portcullis::clock::Clock as _;
use portcullis::config::{DecisionSink, Log};
use portcullis::live::Live;
use portcullis::pipeline::Services;
use portcullis::random::SeededRandom;
use portcullis::server::Parts;
use portcullis::server::services::Outside;
use portcullis::telemetry::audit::Audit;
use portcullis::telemetry::decision_log::DecisionLog;
use portcullis::telemetry::metrics::Metrics;
use tokio::io::AsyncWriteExt;

use crate::client::{Answer, Client};
use crate::harness::{Harness, NOW, PUBLISHABLE_KEY, SECRET, SECRET_KEY, Token, get};
use crate::ssr;
use crate::upstream::{Recorded, Upstream};

const USER: &str = "7b1d9a52-6f1e-4c3a-9d2b-0a4f5e6c7d81";

fn policy(project: &str, app: &str) -> String {
    format!(
        "version: 1
identity:
  supabase:
    preset: supabase
    url: https://abcdef.supabase.co
    jwt_secret: env:SECRET
    key: env:PUBLISHABLE_KEY
{project}
---
version: 1
app: edge
preset: supabase-edge
upstream: http://UPSTREAM
{app}"
    )
}

/// Supabase behind the gateway: `x-test-status` says what it answers.
async fn supabase() -> Upstream {
    Upstream::answering(|request| {
        let status = request.value("x-test-status").unwrap_or("200");
        let fields = request.value("x-test-fields").unwrap_or_default().replace('|', "\r\n");
        let fields = if fields.is_empty() { fields } else { format!("{fields}\r\n") };
        let (body, length) =
            if status == "204" { ("", String::new()) } else { ("{}", "Content-Length: 2\r\n".to_owned()) };
        format!("HTTP/1.1 {status} X\r\n{fields}{length}\r\n{body}").into_bytes()
    })
    .await
}

async fn gateway(project: &str, app: &str) -> Harness {
    Harness::with(&policy(project, app), supabase().await, keeping).await
}

/// As if the store were open in which revocations are kept.
fn keeping(parts: &mut Parts) {
    let outside = Outside::without_store(parts.clock.clone(), parts.random.clone());
    parts.services = Arc::new(Live::new(Services { has_store: true, ..Services::without_store(&outside) }));
}

fn post(target: &str, lines: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: api.test\r\n{lines}Content-Length: 2\r\n\r\n{{}}")
}

/// The only request that was for the app.
fn one(gateway: &Harness) -> Recorded {
    let mut seen = gateway.upstream.take();
    assert_eq!(seen.len(), 1, "{seen:?}");
    seen.remove(0)
}

fn text(answer: &Answer) -> String {
    format!("{} {}", answer.status, answer.text())
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_the_shape_that_clients_of_supabase_auth_read() {
    let app = "routes:\n  POST /auth/v1/token: { access: public, limit: 1/hour by ip, allow: { P305: only that } }\n  POST /auth/v1/otp: { access: public, limit: 1/hour by ip, allow: { P305: only that } }\n";
    let gateway = gateway("", app).await;
    for target in ["/auth/v1/token?grant_type=password", "/auth/v1/otp"] {
        assert_eq!(gateway.raw(post(target, "")).await.unwrap().status, 200, "{target}");
    }
    let newer = "X-Supabase-Api-Version: 2024-01-01\r\n";
    let limited = |status: u16| {
        format!(
            "{status} {{\"code\":{status},\"error_code\":\"over_request_rate_limit\",\"msg\":\"Request rate limit reached\"}}"
        )
    };
    for (request, expected, code) in [
        (post("/auth/v1/otp", ""), limited(429), "over_request_rate_limit"),
        (post("/auth/v1/otp", newer), "429 {\"code\":\"over_request_rate_limit\",\"message\":\"Request rate limit reached\"}".into(), "over_request_rate_limit"),
        (post("/auth/v1/token?grant_type=password", ""), limited(429), "over_request_rate_limit"),
        // A client drops its session at anything but an outage.
        (post("/auth/v1/token?grant_type=refresh_token", ""), limited(503), "over_request_rate_limit"),
        (post("/auth/v1/token?x=1&grant%5Ftype=refresh%5Ftoken", ""), limited(503), "over_request_rate_limit"),
        (get("/auth/v1/admin/users", ""), "403 {\"code\":403,\"error_code\":\"not_admin\",\"msg\":\"User not allowed\"}".into(), "not_admin"),
        (get("/auth/v1/admin/users", newer), "403 {\"code\":\"not_admin\",\"message\":\"User not allowed\"}".into(), "not_admin"),
        (post("/auth/v1/invite", ""), "403 {\"code\":403,\"error_code\":\"not_admin\",\"msg\":\"User not allowed\"}".into(), "not_admin"),
        (
            "POST /auth/v1/signup HTTP/1.1\r\nHost: api.test\r\nContent-Length: 99999999\r\n\r\n".into(),
            "413 {\"code\":413,\"error_code\":\"request_entity_too_large\",\"msg\":\"the message is longer than this resource admits\"}".into(),
            "request_entity_too_large",
        ),
    ] {
        gateway.upstream.take();
        let answer = gateway.raw(&request).await.unwrap();
        let expected_start = expected.split("\"msg\":\"the").next().unwrap();
        assert!(text(&answer).starts_with(expected_start), "{request}\n{} instead of {expected}", text(&answer));
        assert_eq!(answer.value("x-sb-error-code"), Some(code), "{request}");
        assert_eq!(answer.value("x-supabase-api-version"), request.contains(newer).then_some("2024-01-01"));
        assert_eq!(answer.value("retry-after").is_some(), matches!(answer.status, 429 | 503), "{request}");
        assert_eq!(answer.value("cache-control"), Some("no-store"));
        assert!(answer.value("x-portcullis-decision").is_some());
        assert!(gateway.upstream.take().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auth_server_that_is_down_or_slow_is_an_outage_to_its_clients() {
    let upstream = Upstream::serving(|request, io| {
        Box::pin(async move {
            if request.target().contains("slow") {
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
            drop(io);
            None
        })
    })
    .await;
    let gateway = Harness::with(&policy("", "defaults: { timeout: 1s }\n"), upstream, |_| {}).await;
    for (target, expected) in [
        ("/auth/v1/token?grant_type=refresh_token", "503 {\"code\":503,\"error_code\":\"unexpected_failure\""),
        ("/auth/v1/token?grant_type=refresh_token&slow", "504 {\"code\":504,\"error_code\":\"request_timeout\""),
        ("/auth/v1/user", "503 {\"code\":503,\"error_code\":\"unexpected_failure\""),
    ] {
        let answer = gateway.raw(post(target, "")).await.unwrap();
        assert!(text(&answer).starts_with(expected), "{target}: {}", text(&answer));
        // A refresh that is sent twice is a reuse, and ends the session.
        assert_eq!(gateway.upstream.take().len(), 1, "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_supabase_auth_says_goes_through_but_for_what_would_end_a_session() {
    let gateway = gateway("", "").await;
    let refresh = "/auth/v1/token?grant_type=refresh_token";
    for (target, status, fields, expected, retry, cache) in [
        (refresh, "200", "", 200, None, Some("no-store")),
        (refresh, "200", "Cache-Control: public, max-age=60", 200, None, Some("no-store")),
        (refresh, "429", "", 503, Some("5"), Some("no-store")),
        (refresh, "429", "Retry-After: 7", 503, Some("7"), Some("no-store")),
        (refresh, "409", "", 503, Some("5"), Some("no-store")),
        (refresh, "400", "", 400, None, Some("no-store")),
        (refresh, "401", "", 401, None, Some("no-store")),
        ("/auth/v1/token?grant_type=password", "429", "", 429, None, Some("no-store")),
        ("/auth/v1/token?grant_type=password", "409", "", 409, None, Some("no-store")),
        ("/auth/v1/otp?grant_type=refresh_token", "429", "", 429, None, Some("no-store")),
        ("/auth/v1/signup", "200", "", 200, None, Some("no-store")),
        ("/auth/v1/verify", "303", "Location: https://app.example/#access_token=x", 303, None, Some("no-store")),
        ("/auth/v1/authorize", "302", "Location: https://github.example/x?state=y", 302, None, Some("no-store")),
        ("/auth/v1/logout", "204", "", 204, None, Some("no-store")),
        ("/auth/v1/logout", "403", "", 403, None, Some("no-store")),
        (
            "/auth/v1/.well-known/jwks.json",
            "200",
            "Cache-Control: public, max-age=600",
            200,
            None,
            Some("public, max-age=600"),
        ),
        ("/rest/v1/items", "429", "", 429, None, None),
    ] {
        let lines = format!("X-Test-Status: {status}\r\nX-Test-Fields: {}\r\n", fields);
        let answer = gateway.raw(post(target, &lines)).await.unwrap();
        let got = (answer.status, answer.value("retry-after"), answer.value("cache-control"));
        assert_eq!(got, (expected, retry, cache), "{target} {status} {fields}");
        assert_eq!(answer.value("location"), fields.strip_prefix("Location: "), "{target}");
        assert_eq!(gateway.upstream.one().target(), target);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bearer_is_not_looked_at_before_supabase_auth_and_kept_for_all_parts() {
    let gateway = gateway("", "").await;
    let user = ssr::token(USER).sign();
    let expired = ssr::token(USER).with("exp", NOW - 3600).sign();
    let leaving = ssr::token(USER).with("exp", NOW - 3600).with("session_id", "another").with("iat", NOW - 7200).sign();
    let anon = Token::of("x").with("iss", "supabase").with("role", "anon").signed_with(SECRET);
    let service = Token::of("x").with("iss", "supabase").with("role", "service_role").signed_with(SECRET);
    let s3 = "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=c";
    let bearer = |token: &str| format!("Bearer {token}");
    for (target, authorization, status) in [
        ("/auth/v1/user", bearer(&user), 200),
        ("/auth/v1/token?grant_type=refresh_token", bearer(&expired), 200),
        ("/auth/v1/token?grant_type=password", bearer("not.a.token"), 200),
        ("/auth/v1/signup", bearer(PUBLISHABLE_KEY), 200),
        ("/auth/v1/logout?scope=local", bearer(&leaving), 200),
        ("/rest/v1/items", bearer(&user), 200),
        ("/rest/v1/items", bearer(PUBLISHABLE_KEY), 200),
        ("/rest/v1/items", bearer(&anon), 200),
        ("/rest/v1/items", bearer(&service), 401),
        ("/rest/v1/items", bearer(&expired), 401),
        ("/rest/v1/items", String::new(), 200),
        ("/storage/v1/object/a/b.png", bearer(&user), 200),
        ("/storage/v1/object/sign/a/b.png?token=x", String::new(), 200),
        ("/storage/v1/s3/bucket", s3.to_owned(), 200),
        ("/functions/v1/hello", bearer(PUBLISHABLE_KEY), 200),
        ("/functions/v1/hello", bearer("forged.x.y"), 401),
    ] {
        let line = if authorization.is_empty() { String::new() } else { format!("Authorization: {authorization}\r\n") };
        let answer = gateway.raw(post(target, &line)).await.unwrap();
        assert_eq!(answer.status, status, "{target} {authorization}");
        if status == 200 {
            let seen = one(&gateway);
            assert_eq!(seen.value("authorization").unwrap_or_default(), authorization, "{target}");
        } else {
            assert!(gateway.upstream.take().is_empty());
        }
    }
    // In front of any other app a bearer that counts as no credential is removed.
    let other = Harness::start(&ssr::policy("", "  POST /items: optional\n")).await;
    let line = format!("apikey: {PUBLISHABLE_KEY}\r\nAuthorization: Bearer {PUBLISHABLE_KEY}\r\n");
    assert_eq!(other.raw(post("/items", &line)).await.unwrap().status, 200);
    assert_eq!(other.upstream.one().value("authorization"), None);
}

/// F4: Supabase's access tokens stay valid after a logout; here they do not.
#[tokio::test(flavor = "multi_thread")]
async fn a_successful_logout_ends_the_access_token_here_at_once() {
    let gateway = gateway("", "").await;
    let session = |id: &str| ssr::token(USER).with("session_id", id).with("iat", NOW - 10).line();
    for (scope, status, this, other) in [
        ("?scope=local", "403", 200, 200),
        ("?scope=local", "401", 200, 200),
        ("?scope=local", "500", 200, 200),
        ("?scope=local", "204", 401, 200),
        ("?scope=others", "204", 200, 401),
        ("", "204", 401, 401),
    ] {
        let (mine, another) = (session(&format!("mine{scope}{status}")), session(&format!("another{scope}{status}")));
        let lines = format!("{mine}X-Test-Status: {status}\r\n");
        let answer = gateway.raw(post(&format!("/auth/v1/logout{scope}"), &lines)).await.unwrap();
        assert_eq!(answer.status.to_string(), status);
        let got = (gateway.get("/rest/v1/x", &mine).await.status, gateway.get("/rest/v1/x", &another).await.status);
        assert_eq!(got, (this, other), "{scope} {status}");
        gateway.upstream.take();
    }
}

/// What is refused as a bearer must not reach a part that believes it from another place.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_user_is_no_key_and_comes_as_a_bearer_or_not_at_all() {
    let gateway = gateway("", "").await;
    let user = ssr::token(USER).with("session_id", "ended").with("iat", NOW - 10);
    let (line, token) = (user.line(), user.sign());
    let logout = post("/auth/v1/logout?scope=local", &format!("{line}X-Test-Status: 204\r\n"));
    assert_eq!(gateway.raw(logout).await.unwrap().status, 204);
    gateway.upstream.take();
    let wrong = "api_key_of_user";
    let mut deep = serde_json::json!({});
    (0..200).for_each(|_| deep = serde_json::json!([std::mem::take(&mut deep)]));
    let deep = user.clone().with("user_metadata", deep).sign();
    for (target, lines, status, cause) in [
        ("/rest/v1/x".to_owned(), line.clone(), 401, "token_revoked"),
        ("/rest/v1/x".to_owned(), format!("apikey: {token}\r\n{line}"), 401, wrong),
        ("/rest/v1/x".to_owned(), format!("apikey: {PUBLISHABLE_KEY}\r\napikey: {token}\r\n{line}"), 401, wrong),
        ("/rest/v1/x".to_owned(), format!("apikey: {deep}\r\nAuthorization: Bearer {deep}\r\n"), 401, wrong),
        ("/realtime/v1/api/broadcast".to_owned(), format!("apikey: {token}\r\n"), 401, wrong),
        (format!("/realtime/v1/api/broadcast?apikey={token}"), String::new(), 401, wrong),
        ("/storage/v1/object/a/b.png".to_owned(), format!("Authorization: {token}\r\n"), 400, "credential_malformed"),
    ] {
        let answer = gateway.raw(post(&target, &lines)).await.unwrap();
        assert_eq!(answer.status, status, "{target} {lines}");
        assert!(gateway.upstream.take().is_empty(), "{target} {cause}");
    }
}

/// Else anybody could sign out anybody: an edge answers `OPTIONS` without a look at the bearer.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_logout_whose_bearer_was_looked_at_ends_anything() {
    let gateway = gateway("", "").await;
    let victim = ssr::token(USER).with("session_id", "victim").with("iat", NOW - 10);
    let mine = victim.clone().line();
    let forged = format!("Authorization: Bearer {}\r\n", victim.signed_with("another secret of at least 32 bytes.."));
    for (method, line) in [("OPTIONS", &forged), ("OPTIONS", &mine), ("GET", &mine), ("POST", &forged)] {
        let request = format!(
            "{method} /auth/v1/logout HTTP/1.1\r\nHost: api.test\r\n{line}X-Test-Status: 204\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(gateway.raw(&request).await.unwrap().status, 204, "{method}");
        assert_eq!(gateway.get("/rest/v1/x", &mine).await.status, 200, "{method} {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_supabase_are_told_the_truth_about_the_client() {
    let spoofed = format!(
        "apikey: {PUBLISHABLE_KEY}\r\nAuthorization: Bearer {PUBLISHABLE_KEY}\r\nUser-Agent: Mozilla/5.0 (X11)\r\nX-JWT-AUD: admin\r\nx_jwt_aud: admin\r\nSb-Forwarded-For: 198.51.100.1\r\nsb_forwarded_for: 198.51.100.1\r\nX-Forwarded-For: 198.51.100.1\r\n"
    );
    let plain = gateway("", "").await;
    let told = gateway("    forward_client_ip: { secret_key: env:SECRET_KEY }", "").await;
    for target in ["/auth/v1/signup", "/auth/v1/token?grant_type=password", "/auth/v1/logout", "/rest/v1/items"] {
        for (gateway, tells) in [(&plain, false), (&told, target.starts_with("/auth"))] {
            assert_eq!(gateway.raw(post(target, &spoofed)).await.unwrap().status, 200, "{target}");
            let seen = one(gateway);
            assert_eq!(seen.value("x-forwarded-for"), Some("127.0.0.1"), "{target}");
            assert_eq!(seen.value("x-jwt-aud"), None, "{target}");
            assert!(!seen.head.contains("198.51.100.1") && !seen.head.contains("admin"), "{}", seen.head);
            assert_eq!(seen.value("sb-forwarded-for"), tells.then_some("127.0.0.1"), "{target}");
            assert_eq!(seen.value("apikey"), Some(if tells { SECRET_KEY } else { PUBLISHABLE_KEY }), "{target}");
            // The secret key is refused from browsers, and its rights are not what a publishable key stands for.
            assert_eq!(
                seen.value("user-agent").is_some_and(|agent| agent.starts_with("portcullis/")),
                tells,
                "{target}"
            );
            let bearer = if tells { "Bearer anonymous".to_owned() } else { format!("Bearer {PUBLISHABLE_KEY}") };
            assert_eq!(seen.value("authorization"), Some(&*bearer), "{target}");
            assert_eq!(seen.value("host"), Some(gateway.upstream.address.to_string().as_str()), "{target}");
            assert_eq!(seen.value("x-forwarded-host"), Some("api.test"), "{target}");
        }
    }
    // Without a bearer the secret key would be the credential: it is not lent.
    for line in [
        "",
        "Authorization: \r\n",
        "Authorization: Bearer\r\n",
        "Authorization: Basic eDp5\r\n",
        "Authorization: sb_x\r\n",
    ] {
        let lines = format!("apikey: {PUBLISHABLE_KEY}\r\n{line}");
        assert_eq!(told.raw(post("/auth/v1/signup", &lines)).await.unwrap().status, 200, "{line}");
        assert_eq!(one(&told).value("apikey"), Some(PUBLISHABLE_KEY), "{line}");
    }
    let spaced = format!("Authorization: bearer\t{PUBLISHABLE_KEY}\r\n");
    assert_eq!(told.raw(post("/auth/v1/signup", &spaced)).await.unwrap().status, 200);
    assert_eq!(one(&told).value("authorization"), Some("Bearer anonymous"));
    // Nor where it may do everything, whatever the policy lets pass.
    let open = gateway(
        "    forward_client_ip: { secret_key: env:SECRET_KEY }",
        "routes:\n  GET /auth/v1/admin/users: { access: public, allow: { P305: a test, P311: a test } }\n",
    )
    .await;
    assert_eq!(open.get("/auth/v1/admin/users", &spoofed).await.status, 200);
    assert_eq!(one(&open).value("apikey"), Some(PUBLISHABLE_KEY));
}

#[tokio::test(flavor = "multi_thread")]
async fn cross_origin_answers_are_ours_alone() {
    let gateway = gateway("", "cors: { origins: [https://app.example] }\n").await;
    let theirs = "Access-Control-Allow-Origin: *|Access-Control-Allow-Credentials: true|Access-Control-Allow-Methods: GET|Access-Control-Allow-Headers: x|Access-Control-Max-Age: 5|Access-Control-Expose-Headers: y";
    let lines = format!("Origin: https://app.example\r\nX-Test-Fields: {theirs}\r\n");
    for target in ["/auth/v1/token?grant_type=password", "/rest/v1/items", "/storage/v1/object/a/b"] {
        let answer = gateway.raw(post(target, &lines)).await.unwrap();
        assert_eq!(answer.value("access-control-allow-origin"), Some("https://app.example"), "{target}");
        assert!(answer.value("access-control-expose-headers").unwrap().contains("x-sb-error-code"));
        for name in ["methods", "headers", "max-age", "credentials"] {
            let name = format!("access-control-allow-{name}").replace("allow-max", "max");
            assert_eq!(answer.value(&name), None, "{target} {name}");
        }
        assert_eq!(gateway.upstream.take().len(), 1);
        let preflight = format!(
            "OPTIONS {target} HTTP/1.1\r\nHost: api.test\r\nOrigin: https://app.example\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: apikey,authorization\r\n\r\n"
        );
        let answer = gateway.raw(preflight).await.unwrap();
        assert_eq!(answer.status, 204, "{target}");
        let allowed = answer.value("access-control-allow-headers").unwrap();
        for name in
            ["apikey", "authorization", "x-client-info", "x-supabase-api-version", "tus-resumable", "accept-profile"]
        {
            assert!(allowed.contains(name), "{name} not in {allowed}");
        }
        assert!(gateway.upstream.take().is_empty(), "{target}");
    }
    // Also a refusal can be read.
    let answer = gateway.get("/auth/v1/admin/users", "Origin: https://app.example\r\n").await;
    assert_eq!((answer.status, answer.value("access-control-allow-origin")), (403, Some("https://app.example")));
}

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

async fn realtime() -> Upstream {
    Upstream::serving(|request, mut io| {
        Box::pin(async move {
            assert!(request.value("upgrade").is_some());
            let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            io.write_all(answer).await.ok()?;
            io.flush().await.ok()?;
            tokio::time::sleep(Duration::from_millis(200)).await;
            None
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_of_realtime_needs_the_key_of_the_project() {
    let app = "base: /realtime/v1\nstrip_base: true\n";
    let gateway = Harness::with(&policy("", app), realtime().await, |_| {}).await;
    let key = format!("apikey={PUBLISHABLE_KEY}");
    let header = format!("apikey: {PUBLISHABLE_KEY}\r\n");
    let other = "X-Api-Key: another\r\n".to_owned();
    for (query, lines, status) in [
        (format!("{key}&vsn=2.0.0"), String::new(), 101),
        (format!("vsn=2.0.0&api%6Bey={PUBLISHABLE_KEY}"), String::new(), 101),
        ("vsn=2.0.0".into(), header.clone(), 101),
        (key.clone(), header.clone(), 101),
        (key.clone(), other, 101),
        ("vsn=2.0.0".into(), String::new(), 401),
        (String::new(), String::new(), 401),
        ("apikey=".into(), String::new(), 401),
        (format!("{key}x"), String::new(), 401),
        (key.trim_end_matches('1').to_owned(), String::new(), 401),
        (format!("{key}&apikey=x"), String::new(), 401),
        (key.clone(), "apikey: x\r\n".into(), 401),
        (format!("apikey={SECRET_KEY}"), String::new(), 401),
        (format!("APIKEY={PUBLISHABLE_KEY}"), String::new(), 401),
        ("apikey=%ff".into(), String::new(), 401),
    ] {
        let mut client = Client::connect(gateway.address).await;
        client.send(get(&format!("/realtime/v1/websocket?{query}"), &format!("{UPGRADE}{lines}"))).await;
        let answer = client.answer().await.unwrap();
        assert_eq!(answer.status, status, "{query} {lines}");
        let seen = gateway.upstream.take();
        if status == 101 {
            assert_eq!(seen[0].target(), format!("/socket/websocket?{query}"));
            assert_eq!(seen[0].value("x-api-key"), Some(PUBLISHABLE_KEY), "the key that was checked");
        } else {
            assert!(seen.is_empty());
            assert_eq!(answer.text(), "{\"message\":\"Invalid API key\"}");
        }
    }
    // Where the policy has no key, none is right.
    let without = policy("", app).replace("    key: env:PUBLISHABLE_KEY\n", "");
    let gateway = Harness::with(&without, realtime().await, |_| {}).await;
    let answer = gateway.get(&format!("/realtime/v1/websocket?{key}"), UPGRADE).await;
    assert_eq!(answer.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_upload_goes_through_in_pieces() {
    let gateway = gateway("", "").await;
    let (piece, count) = (vec![b'x'; 64 * 1024], 512);
    let mut client = gateway.client().await;
    let head = format!(
        "POST /storage/v1/object/bucket/large.bin HTTP/1.1\r\nHost: api.test\r\nContent-Length: {}\r\n\r\n",
        piece.len() * count
    );
    client.send(head).await;
    for _ in 0..count {
        client.send(&piece).await;
    }
    assert_eq!(client.answer().await.unwrap().status, 200);
    assert_eq!(one(&gateway).body.len(), piece.len() * count);
}

/// P01: what is secret is in no log, whoever sends it and however the request ends.
#[tokio::test(flavor = "multi_thread")]
async fn keys_and_tokens_in_any_place_reach_no_log_and_secret_keys_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("decisions.jsonl");
    let log = Log { decisions: DecisionSink::File { path: path.clone(), size: 1 << 20, keep: 1 }, ..Log::default() };
    let decisions = Arc::new(DecisionLog::start(&log, &SeededRandom::new(1)).unwrap());
    let (kept, metrics) = (decisions.clone(), Arc::new(Metrics::new()));
    let counts = metrics.clone();
    let gateway = Harness::with(&policy("", ""), supabase().await, |parts| {
        let mut outside = Outside::without_store(parts.clock.clone(), parts.random.clone());
        outside.audit = Arc::new(Audit::new(decisions.clone(), metrics.clone()));
        parts.services = Arc::new(Live::new(Services::without_store(&outside)));
        parts.decisions = decisions;
        parts.metrics = metrics;
    })
    .await;
    let service = Token::of("canary").with("iss", "supabase").with("role", "service_role").signed_with(SECRET);
    let user = ssr::token(USER).sign();
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    for (target, lines, noticed) in [
        ("/auth/v1/token?grant_type=refresh_token&refresh_token=canary&code=canary".to_owned(), String::new(), 0),
        (format!("/auth/v1/user?apikey={SECRET_KEY}"), String::new(), 1),
        ("/auth/v1/user".into(), format!("apikey: {SECRET_KEY}\r\n{}", bearer(SECRET_KEY)), 1),
        ("/auth/v1/user".into(), format!("apikey: {PUBLISHABLE_KEY}\r\n{}", bearer(&user)), 0),
        ("/auth/v1/user".into(), format!("apikey: {PUBLISHABLE_KEY}\r\n{}", bearer(PUBLISHABLE_KEY)), 0),
        ("/auth/v1/admin/users".into(), bearer(&service), 1),
        ("/rest/v1/items".into(), bearer(&service), 1),
        ("/rest/v1/items".into(), format!("apikey: {service}\r\n{}", bearer(&user)), 1),
        (format!("/realtime/v1/websocket?apikey={SECRET_KEY}"), UPGRADE.into(), 1),
        // A flood of them in one request is no flood of events.
        ("/auth/v1/user".into(), (0..150).map(|key| format!("apikey: sb_secret_{key}\r\n")).collect(), 4),
        (format!("/auth/v1/user?x{}", "&apikey=sb_secret_1&apikey=sb_secret_2".repeat(50)), bearer(SECRET_KEY), 5),
        ("/rest/v1/items?apikey=canary".into(), format!("apikey: canary\r\n{}", bearer("canary")), 0),
    ] {
        let before = std::fs::read_to_string(&path).unwrap_or_default().matches("\"event\":\"secret_key\"").count();
        gateway.get(&target, &lines).await;
        assert!(kept.flush(Duration::from_secs(5)));
        let written = std::fs::read_to_string(&path).unwrap();
        let events = written.matches("\"event\":\"secret_key\"").count();
        assert_eq!(events - before, noticed, "{target} {lines}\n{written}");
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(
        written.contains("\"key\":\"sb_secret_canary… sha256:") && written.contains("\"key\":\"service_role … sha256:")
    );
    let all = written.replace("sb_secret_canary…", "") + &counts.encode(gateway.clock.now(), &kept);
    for secret in ["canary", &*service, &*user, PUBLISHABLE_KEY, SECRET_KEY.trim_start_matches("sb_secret_canary")] {
        assert!(!all.contains(secret), "{secret} in\n{all}");
    }
}
