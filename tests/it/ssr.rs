//! The cookie of `@supabase/ssr` as a credential.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::harness::{Harness, NOW, SECRET, Token, get};
use crate::table::{BAD, Refused, Report, canon};
use crate::upstream::Upstream;

const USER: &str = "7b1d9a52-6f1e-4c3a-9d2b-0a4f5e6c7d81";

pub const IDENTITY: &str = "identity:
  supabase:
    preset: supabase
    url: https://abcdef.supabase.co
    jwt_secret: env:SECRET
    from: [bearer, cookie sb-old-auth-token, cookie sb-abcdef-auth-token]
";

pub fn policy(app: &str, routes: &str) -> String {
    format!("version: 1\nupstream: http://UPSTREAM\n{app}{IDENTITY}routes:\n{routes}")
}

/// A user's token of the project.
pub fn token(user: &str) -> Token {
    Token::of(user)
        .with("iss", "https://abcdef.supabase.co/auth/v1")
        .with("aud", "authenticated")
        .with("role", "authenticated")
        .with("session_id", "0d3f2c1b-8a79-4e65-b4c3-2d1e0f9a8b7c")
        .with("email", "ada@example.com")
}

/// The session around a token.
pub fn session(token: &str) -> Value {
    json!({
        "access_token": token, "token_type": "bearer", "expires_in": 3600, "expires_at": NOW + 3600,
        "refresh_token": "abcdefghijkl", "user": { "id": USER, "name": "Zoë" },
    })
}

pub fn base64(session: &Value) -> String {
    format!("base64-{}", URL_SAFE_NO_PAD.encode(session.to_string()))
}

fn raw(session: &Value) -> String {
    percent_encoding::utf8_percent_encode(&session.to_string(), percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// A `Cookie` field with a value cut into pieces of this length.
pub fn pieces(name: &str, value: &str, length: usize) -> String {
    let pieces = value.as_bytes().chunks(length).enumerate();
    let pieces = pieces.map(|(number, piece)| format!("{name}.{number}={}", std::str::from_utf8(piece).unwrap()));
    pieces.collect::<Vec<_>>().join("; ")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_in_a_cookie_is_a_credential_and_garbage_is_none() {
    let mut report = Report::default();
    let gateway = Harness::start(&policy("", "  GET /me: authenticated\n  GET /page: optional\n")).await;
    let (ada, eve) = (token(USER).sign(), token("00000000-0000-4000-8000-000000000001").sign());
    let (good, other) = (base64(&session(&ada)), base64(&session(&eve)));
    let name = "sb-abcdef-auth-token";
    let expired = base64(&session(&token(USER).with("exp", NOW - 60).sign()));
    let forged = base64(&session(&token(USER).signed_with("another-secret-that-has-more-than-32-bytes")));
    let anon = Token::of("x").with("iss", "supabase").with("role", "anon").signed_with(SECRET);
    let fine = (&canon("/me"), &canon("/page"));
    let nobody = (&Refused(&[401]), &canon("/page"));
    let bad = (&Refused(&[401]), &Refused(&[401]));
    let two = (&BAD, &BAD);
    for (what, cookie, (me, page)) in [
        ("base64", format!("{name}={good}"), fine),
        ("raw", format!("{name}={}", raw(&session(&ada))), fine),
        ("bare token", format!("{name}={ada}"), fine),
        ("among others", format!("a=1; {name}={good}; b=2"), fine),
        ("pieces", pieces(name, &good, 300), fine),
        ("pieces of raw", pieces(name, &raw(&session(&ada)), 300), fine),
        ("tokens only", format!("{name}={}", base64(&json!({ "access_token": ada }))), fine),
        ("whole before pieces", format!("{name}={good}; {}", pieces(name, &other, 300)), fine),
        ("empty whole, pieces", format!("{name}=; {}", pieces(name, &good, 300)), fine),
        ("left-over piece after a gap", format!("{}; {name}.19=x", pieces(name, &good, 300)), fine),
        ("first name of two", format!("{name}={other}; sb-old-auth-token={good}"), fine),
        ("first name unreadable", format!("{name}={good}; sb-old-auth-token=base64-e30"), fine),
        ("gap", pieces(name, &good, 300).replace(&format!("{name}.1"), &format!("{name}.9")), nobody),
        ("first piece missing", pieces(name, &good, 300).replace(&format!("{name}.0"), "x"), nobody),
        ("half", format!("{name}={}", good.get(..good.len() / 2).unwrap()), nobody),
        ("no base64", format!("{name}=base64-!!!"), nobody),
        ("no session", format!("{name}={}", base64(&json!({ "refresh_token": "x" }))), nobody),
        ("no JSON", format!("{name}=base64-{}", URL_SAFE_NO_PAD.encode("hello")), nobody),
        ("null", format!("{name}={}", raw(&json!({ "access_token": null }))), nobody),
        ("too many pieces", pieces(name, &good, good.len() / 22), nobody),
        ("wrong name", format!("sb-other-auth-token={good}"), nobody),
        ("verifier", format!("{name}-code-verifier={good}"), nobody),
        ("other case", format!("SB-abcdef-auth-token={good}"), nobody),
        ("expired", format!("{name}={expired}"), nobody),
        ("expired, in pieces", pieces(name, &expired, 300), nobody),
        ("forged", format!("{name}={forged}"), bad),
        ("two values", format!("{name}={good}; {name}={other}"), two),
        ("two values of a piece", format!("{}; {name}.0=x", pieces(name, &good, 300)), two),
    ] {
        let lines = format!("Cookie: {cookie}\r\n");
        report.get(&gateway, what, "/me", &lines, me).await;
        report.get(&gateway, what, "/page", &lines, page).await;
    }
    // One credential, or two.
    let with = |bearer: &str, cookie: &str| format!("Authorization: Bearer {bearer}\r\nCookie: {cookie}\r\n");
    for (what, lines, expect) in [
        ("header and the same cookie", with(&ada, &pieces(name, &good, 300)), canon("/me")),
        ("header and another cookie", with(&eve, &format!("{name}={good}")), BAD),
        ("bad header and good cookie", with("x.y.z", &format!("{name}={good}")), BAD),
        ("header and garbage", with(&ada, &format!("{name}=base64-!!!")), canon("/me")),
        ("publishable key and cookie", with("sb_publishable_x", &format!("{name}={good}")), canon("/me")),
        ("anon key and cookie", format!("apikey: {anon}\r\n{}", with(&anon, &format!("{name}={good}"))), canon("/me")),
        ("anon key alone", format!("Authorization: Bearer {anon}\r\n"), Refused(&[401])),
    ] {
        report.get(&gateway, what, "/me", &lines, &expect).await;
    }
    let service = Token::of("x").with("iss", "supabase").with("role", "service_role").signed_with(SECRET);
    let old = Token::of("x").with("iss", "supabase").with("role", "anon").with("exp", NOW - 60).signed_with(SECRET);
    let foreign = Token::of(USER).with("iss", "supabase").with("role", "authenticated").signed_with(SECRET);
    for (what, token, expect) in [
        ("anon key", anon, canon("/page")),
        ("expired anon key", old, Refused(&[401])),
        ("service key", service, Refused(&[401])),
        ("user of another issuer", foreign, Refused(&[401])),
    ] {
        report.get(&gateway, what, "/page", &format!("Authorization: Bearer {token}\r\n"), &expect).await;
    }
    report.finish();
    // An expired session is nobody, not a bad token: the browser's own client refreshes it.
    let answer = gateway.get("/me", &format!("Cookie: {name}={expired}\r\n")).await;
    assert_eq!(
        (answer.code().as_str(), answer.value("www-authenticate").unwrap().contains("error")),
        ("unauthenticated", false)
    );
    assert!(answer.values("set-cookie").is_empty(), "the browser's own client owns the cookie");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_with_a_session_in_a_cookie_needs_its_own_origin() {
    let mut report = Report::default();
    let gateway = Harness::start(&policy(
        "cors: { origins: [https://app.example], credentials: true }\n",
        "  POST /me: authenticated\n",
    ))
    .await;
    let cookie = format!("Cookie: sb-abcdef-auth-token={}\r\n", base64(&session(&token(USER).sign())));
    for (lines, status) in [
        ("Origin: http://api.test\r\n", 200),
        ("Origin: https://app.example\r\n", 200),
        ("Sec-Fetch-Site: same-origin\r\n", 200),
        ("Sec-Fetch-Site: none\r\n", 200),
        ("Sec-Fetch-Site: same-site\r\n", 403),
        ("Sec-Fetch-Site: cross-site\r\n", 403),
        ("Origin: https://evil.example\r\nSec-Fetch-Site: same-origin\r\n", 403),
        ("Origin: null\r\n", 403),
        ("Content-Type: text/plain\r\n", 403),
        ("", 403),
    ] {
        let request = format!("POST /me HTTP/1.1\r\nHost: api.test\r\n{cookie}{lines}Content-Length: 0\r\n\r\n");
        let got = gateway.raw(request).await.map(|answer| answer.status);
        report.note("I06", got == Some(status), || format!("{lines}: {got:?}"));
    }
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_tokens_are_not_forwarded_no_piece_of_a_session_is() {
    let good = base64(&session(&token(USER).sign()));
    let cookie =
        format!("a=1; {}; b=2; sb-abcdef-auth-token-code-verifier=v", pieces("sb-abcdef-auth-token", &good, 300));
    for (app, forwarded) in [
        ("", cookie.as_str()),
        ("defaults: { forward_token: false }\n", "a=1; b=2; sb-abcdef-auth-token-code-verifier=v"),
    ] {
        let gateway = Harness::start(&policy(app, "  GET /me: authenticated\n")).await;
        let answer = gateway.raw(get("/me", &format!("Cookie: {cookie}\r\n"))).await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(gateway.upstream.one().value("cookie"), Some(forwarded));
    }
}

/// A project whose refresh tokens are good once, and an app behind the same address. `mode` is what it does at a refresh.
async fn project(mode: Arc<Mutex<&'static str>>) -> (Upstream, Arc<AtomicUsize>) {
    let refreshes = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&refreshes);
    let upstream = Upstream::serving(move |request, mut io| {
        let (mode, counter) = (*mode.lock().unwrap(), Arc::clone(&counter));
        Box::pin(async move {
            let (status, body) = if request.target().starts_with("/auth/v1/token?grant_type=refresh_token") {
                counter.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(200)).await;
                assert_eq!(request.value("sb-forwarded-for"), None);
                assert_eq!(request.value("x-forwarded-for"), Some("127.0.0.1"));
                let body: Value = serde_json::from_slice(&request.body).unwrap();
                assert_eq!(body["refresh_token"], "abcdefghijkl");
                match mode {
                    "ok" => {
                        let mut new = session(&project_token(USER, 3600));
                        new["refresh_token"] = "mnopqrstuvwx".into();
                        new["user"]["bio"] = "Zoë ".repeat(1200).into();
                        new.as_object_mut().unwrap().remove("expires_at");
                        (200, new.to_string())
                    }
                    "over" => (400, json!({ "code": "refresh_token_not_found", "message": "no" }).to_string()),
                    "busy" => (429, "{}".to_owned()),
                    _ => (500, "{}".to_owned()),
                }
            } else if request.target().starts_with("/auth/") {
                (404, "{}".to_owned())
            } else {
                (200, "ok".to_owned())
            };
            let answer = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            io.write_all(answer.as_bytes()).await.ok()?;
            io.flush().await.ok()?;
            Some(io)
        })
    })
    .await;
    (upstream, refreshes)
}

/// A token of a project at the address in [`refreshing`].
fn project_token(user: &str, life: i64) -> String {
    token(user).with("iss", "https://project.test/auth/v1").with("exp", NOW + life).sign()
}

fn refreshing(on_expired: &str) -> String {
    format!(
        "version: 1
upstream: http://UPSTREAM
identity:
  supabase:
    preset: supabase
    url: http://UPSTREAM
    issuer: https://project.test/auth/v1
    key: env:PUBLISHABLE_KEY
    jwt_secret: env:SECRET
    from: [bearer, cookie sb-project-auth-token]
    on_expired: {on_expired}
routes:
  GET /me: authenticated
  GET /page: optional
  GET /secret: {{ where: token.aal == \"aal2\" }}
"
    )
}

fn to_app(gateway: &Harness) -> Vec<crate::upstream::Recorded> {
    gateway.upstream.take().into_iter().filter(|request| !request.target().starts_with("/auth/")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_session_is_refreshed_once_for_all_who_bring_it() {
    let name = "sb-project-auth-token";
    let mode = Arc::new(Mutex::new("ok"));
    let (upstream, refreshes) = project(Arc::clone(&mode)).await;
    let gateway = Arc::new(Harness::with(&refreshing("refresh_and_set_cookie"), upstream, |_| {}).await);
    let expired = base64(&session(&project_token(USER, -60)));
    let lines = format!("Cookie: a=1; {}; {name}.7=y; b=2\r\n", pieces(name, &expired, 600));
    let mut all = tokio::task::JoinSet::new();
    for number in 0..200 {
        let (gateway, lines) = (Arc::clone(&gateway), lines.clone());
        all.spawn(async move {
            let mut client = gateway.client().await;
            client.send(get("/me", &lines)).await;
            // Some go away at once: whoever waits for the same refresh does not notice.
            if number % 10 == 3 { None } else { client.answer().await }
        });
    }
    let answers: Vec<_> = all.join_all().await.into_iter().flatten().collect();
    assert!(answers.len() == 180 && answers.iter().all(|answer| answer.status == 200));
    assert_eq!(refreshes.load(Ordering::SeqCst), 1, "one refresh for all");
    let answer = gateway.get("/me", &lines).await; // who comes a moment later, too
    assert_eq!((answer.status, refreshes.load(Ordering::SeqCst)), (200, 1));

    // What the browser gets: the whole session, cut where the library cuts, and what is left over removed.
    let set = answer.values("set-cookie");
    assert_eq!(set[0], format!("{name}.7=; Max-Age=0; Path=/; SameSite=Lax"));
    assert!(set[1..].iter().all(|cookie| cookie.ends_with("; Max-Age=34560000; Path=/; SameSite=Lax")));
    let values = set[1..].iter().map(|cookie| cookie.split(['=', ';']).nth(1).unwrap());
    assert_eq!(values.clone().next().unwrap().len(), 3180);
    let joined: String = values.collect();
    let json: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(joined.strip_prefix("base64-").unwrap()).unwrap()).unwrap();
    assert_eq!((&json["refresh_token"], &json["expires_at"]), (&json!("mnopqrstuvwx"), &json!(NOW + 3600)));
    assert!(json["user"]["bio"].as_str().unwrap().starts_with("Zoë"));
    let caching = ["cache-control", "expires", "pragma"].map(|name| answer.value(name).unwrap().to_owned());
    assert_eq!(caching, ["private, no-cache, no-store, must-revalidate, max-age=0", "0", "no-cache"]);

    // What the app gets: the same, beside its own cookies.
    let seen = to_app(&gateway).pop().unwrap();
    let pieces: Vec<&str> = set[1..].iter().map(|cookie| cookie.split(';').next().unwrap()).collect();
    assert_eq!(seen.value("cookie").unwrap(), format!("a=1; b=2; {}", pieces.join("; ")));
    assert_eq!(seen.value("x-auth-user"), Some(USER));

    // It works as a credential, and a refusal hands it over as well.
    let again = gateway.get("/me", &format!("Cookie: {}\r\n", pieces.join("; "))).await;
    assert_eq!((again.status, again.values("set-cookie").len()), (200, 0));
    let refused = gateway.get("/secret", &lines).await;
    assert_eq!((refused.status, refused.values("set-cookie").len()), (403, set.len()));
    assert_eq!(refreshes.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_refreshed_is_over_or_an_outage() {
    let name = "sb-project-auth-token";
    let raw_expired = raw(&session(&project_token(USER, -60)));
    let just = base64(&session(&project_token(USER, -10)));
    let long = base64(&session(&project_token(USER, -60)));
    let no_refresh = base64(&json!({ "access_token": project_token(USER, -60) }));
    let forged =
        base64(&session(&token(USER).with("exp", NOW - 60).signed_with("another-secret-that-has-more-than-32-bytes")));
    let removal = format!("{name}=; Max-Age=0; Path=/; SameSite=Lax");
    for (mode, on_expired, cookie, me, page, removed, asked) in [
        ("ok", "refresh_and_set_cookie", &raw_expired, 200, 200, true, 1),
        ("ok", "refresh_and_set_cookie", &just, 200, 200, true, 1),
        ("ok", "refresh_and_set_cookie", &forged, 401, 401, false, 0),
        ("ok", "refresh_and_set_cookie", &no_refresh, 401, 200, true, 0),
        ("over", "refresh_and_set_cookie", &long, 401, 200, true, 1),
        ("busy", "refresh_and_set_cookie", &long, 503, 503, false, 1),
        ("down", "refresh_and_set_cookie", &long, 503, 503, false, 1),
        ("down", "refresh_and_set_cookie", &just, 200, 200, false, 1), // still accepted, since clocks differ
        ("ok", "unauthenticated", &long, 401, 200, false, 0),
        ("ok", "unauthenticated", &just, 200, 200, false, 0),
    ] {
        let (upstream, refreshes) = project(Arc::new(Mutex::new(mode))).await;
        let gateway = Harness::with(&refreshing(on_expired), upstream, |_| {}).await;
        let lines = format!("Cookie: {name}={cookie}\r\n");
        let answer = gateway.get("/me", &lines).await;
        let other = gateway.get("/page", &lines).await;
        assert_eq!((answer.status, other.status), (me, page), "{mode} {on_expired} {cookie}");
        assert_eq!(answer.values("set-cookie").contains(&removal.as_str()), removed, "{mode} {on_expired} {cookie}");
        assert_eq!(refreshes.load(Ordering::SeqCst), asked, "{mode} {on_expired} {cookie}");
        match me {
            401 if removed => assert_eq!(answer.code(), "unauthenticated"),
            503 => assert!(answer.value("retry-after").is_some()),
            _ => {}
        }
        if cookie == &raw_expired {
            assert!(
                answer.values("set-cookie").iter().any(|set| set.contains(".0=%7B%22")),
                "raw stays raw: {}",
                answer.head
            );
        }
    }
}
