//! The session itself, its cookie, and the pages around it (I03–I09, K04).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis::clock::Timestamp;
use portcullis::config::{DecisionSink, Log};
use portcullis::server::SystemRandom;
use portcullis::telemetry::audit::{Audit, AuditEvent, Event, Outcome};
use portcullis::telemetry::decision_log::DecisionLog;
use portcullis::telemetry::metrics::Metrics;

use crate::client::once;
use crate::gateway::{Browser, SUPABASE, World};
use crate::provider::{LIFE, Mood, PASSWORD, uuid};

fn page(cookie: &str) -> String {
    format!("GET /page/a HTTP/1.1\r\nHost: app.test\r\nCookie: {cookie}\r\n\r\n")
}

#[tokio::test]
async fn a_password_opens_a_session_and_a_wrong_one_the_page_again() {
    let world = World::new(SUPABASE).await;
    let gateway = world.gateway().await;
    let browser = Browser::new(&gateway);
    let page = browser.get("/login").await;
    assert_eq!(page.status, 200);
    assert!(page.value("content-security-policy").unwrap().starts_with("default-src 'none'"));
    for text in ["action=\"/login\"", "name=\"password\"", "Continue with GitHub", "Create account"] {
        assert!(page.text().contains(text), "{text}");
    }
    for form in [
        &[("username", "ada@a.example"), ("password", "wrong")][..],
        &[("username", "nobody"), ("password", "wrong")],
        &[("username", "\"><script>"), ("password", "wrong")],
    ] {
        let answer = browser.post("/login", form).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(answer.text().contains("Email or password is not right.") && !answer.text().contains("<script"));
        assert!(browser.cookies.lock().unwrap().is_empty());
    }
    for form in [&[("username", "ada@a.example")][..], &[("password", PASSWORD)], &[]] {
        let answer = browser.post("/login", form).await;
        assert!(answer.status == 400 && answer.text().contains("Please fill in"), "{}", answer.text());
    }
    browser.sign_in("ada@a.example").await;
    assert_eq!(browser.get("/page/a").await.status, 200);
    assert_eq!(world.upstream.one().value("x-auth-user"), Some(&*uuid("ada@a.example")));
}

#[tokio::test]
async fn signing_up_signs_in_or_asks_for_a_confirmation() {
    let world = World::new(SUPABASE).await;
    let gateway = world.gateway().await;
    let up = |password: &'static str| [("username", "new@a.example"), ("password", password), ("action", "sign_up")];
    let browser = Browser::new(&gateway);
    let weak = browser.post("/login", &up("123")).await;
    assert!(weak.status == 400 && weak.text().contains("easily guessed") && weak.text().contains("<details open>"));
    let made = browser.post("/login", &up(PASSWORD)).await;
    assert_eq!((made.status, made.value("location")), (303, Some("/home")), "{}", made.text());
    assert_eq!(browser.get("/page/a").await.status, 200);
    world.provider.confirms(true);
    let browser = Browser::new(&gateway);
    let confirm = browser.post("/login", &up(PASSWORD)).await;
    assert!(confirm.status == 200 && confirm.text().contains("Check your mail"), "{}", confirm.text());
    assert!(browser.cookie("__Host-session").is_none());
    let asked = world.provider.server.take().into_iter().rev().find(|request| request.target().contains("signup"));
    let target = asked.unwrap().target().to_owned();
    assert!(target.contains("redirect_to=http%3A%2F%2Fapp.test%2Fauth%2Fcallback%3Fflow%3D"), "{target}");
}

/// I06, login CSRF: a form elsewhere signs nobody in, up or out.
#[tokio::test]
async fn forms_from_elsewhere_do_nothing() {
    let world = World::new(SUPABASE).await;
    let gateway = world.gateway().await;
    let signed_in = Browser::new(&gateway);
    signed_in.sign_in("ada@a.example").await;
    let form = [("username", "ada@a.example"), ("password", PASSWORD)];
    for lines in [
        "",
        "Origin: null\r\n",
        "Origin: http://evil.example\r\n",
        "Origin: http://app.test.evil.example\r\n",
        "Origin: http://sub.app.test\r\n",
        "Origin: https://app.test\r\n",
        "Origin: http://app.test:81\r\n",
        "Origin: http://app.test\r\nOrigin: http://evil.example\r\n",
        "Origin: http://evil.example\r\nSec-Fetch-Site: same-origin\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "Sec-Fetch-Site: none\r\n",
        "Referer: http://app.test/login\r\n",
    ] {
        let browser = Browser::new(&gateway);
        for up in [&form[..], &[form[0], form[1], ("action", "sign_up")]] {
            let answer = browser.post_from("/login", up, lines).await;
            assert_eq!(answer.status, 403, "{lines:?}: {}", answer.text());
            assert!(browser.cookies.lock().unwrap().is_empty(), "{lines:?}");
        }
        assert_eq!(signed_in.post_from("/logout", &[], lines).await.status, 403, "{lines:?}");
        assert_eq!(signed_in.get("/page/a").await.status, 200, "{lines:?}");
    }
    let answer = signed_in.get("/logout").await;
    assert_eq!((answer.status, answer.value("allow")), (405, Some("POST")));
    for lines in ["Origin: http://app.test\r\n", "Origin: HTTP://APP.test\r\n", "Sec-Fetch-Site: same-origin\r\n"] {
        assert_eq!(Browser::new(&gateway).post_from("/login", &form, lines).await.status, 303, "{lines:?}");
    }
}

/// I06: writes with a session's cookie need an origin that is the app's own.
#[tokio::test]
async fn writes_with_the_cookie_of_a_session_come_from_the_same_origin() {
    let world = World::new(SUPABASE).await;
    let gateway = world.gateway().await;
    let browser = Browser::new(&gateway);
    let cookie = browser.sign_in("ada@a.example").await;
    let mut count = 0;
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
        for (origin, own) in [
            ("", false),
            ("Origin: http://app.test\r\n", true),
            ("Origin: http://evil.example\r\n", false),
            ("Origin: null\r\n", false),
            ("Origin: https://app.test\r\n", false),
            ("Origin: http://app.test, http://evil.example\r\n", false),
        ] {
            for (site, same) in [
                ("", false),
                ("Sec-Fetch-Site: same-origin\r\n", true),
                ("Sec-Fetch-Site: same-site\r\n", false),
                ("Sec-Fetch-Site: cross-site\r\n", false),
            ] {
                for kind in [
                    "",
                    "text/plain",
                    "application/x-www-form-urlencoded",
                    "multipart/form-data; boundary=x",
                    "application/json",
                ] {
                    let reads = matches!(method, "GET" | "HEAD");
                    let kind = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
                    let length = if reads { "" } else { "Content-Length: 0\r\n" };
                    let request = format!(
                        "{method} /page/a HTTP/1.1\r\nHost: app.test\r\nCookie: __Host-session={cookie}\r\n{origin}{site}{kind}{length}\r\n"
                    );
                    let status = once(gateway.address, request).await.unwrap().status;
                    let allowed = reads || own || (origin.is_empty() && same);
                    assert_eq!(status, if allowed { 200 } else { 403 }, "{method} {origin:?} {site:?} {kind:?}");
                    count += 1;
                }
            }
        }
    }
    assert_eq!(count, 6 * 6 * 4 * 5);
}

/// I04: two values of the cookie are none, and are cleared; names are exact.
#[tokio::test]
async fn tossed_cookies_are_refused_and_cleared() {
    let world = World::new(SUPABASE).await;
    let gateway = world.gateway().await;
    let good = Browser::new(&gateway).sign_in("ada@a.example").await;
    for line in [
        format!("__Host-session={good}; __Host-session=other"),
        format!("__Host-session=other; __Host-session={good}"),
        format!("__Host-session={good}; __Host-session="),
        format!("__Host-session={good}; a=b; __Host-session={good}x"),
    ] {
        let answer = once(gateway.address, page(&line)).await.unwrap();
        assert_eq!(answer.status, 400, "{line}");
        let cleared = answer.value("set-cookie").unwrap();
        assert!(cleared.starts_with("__Host-session=; Path=/; Max-Age=0"), "{cleared}");
        assert!(world.upstream.take().is_empty());
    }
    for (line, status) in [
        (format!("__Host-session={good}; __Host-session={good}"), 200),
        (format!("$Version=1; __Host-session={good}; $Path=/"), 200),
        (format!("__host-session={good}"), 401),
        (format!("__Host-Session={good}"), 401),
        (format!("__Host-session=\"{good}\""), 401),
        (format!("x__Host-session={good}"), 401),
        (format!("a={good}; {}", (0..150).map(|n| format!("c{n}=1; ")).collect::<String>()), 401),
    ] {
        assert_eq!(once(gateway.address, page(&line)).await.unwrap().status, status, "{line}");
    }
}

/// I03: a second credential beside the session must be the same.
#[tokio::test]
async fn a_session_and_another_bearer_are_two_credentials() {
    let world = World::new(SUPABASE).await;
    let gateway = world.gateway().await;
    let (ada, bob) = (Browser::new(&gateway), Browser::new(&gateway));
    let mut bearers = Vec::new();
    for (browser, user) in [(&ada, "ada@a.example"), (&bob, "bob@a.example")] {
        browser.sign_in(user).await;
        assert_eq!(browser.get("/page/a").await.status, 200);
        bearers.push(world.upstream.one().value("authorization").unwrap().to_owned());
    }
    let cookie = ada.cookie_line();
    for (bearer, status) in [(&bearers[0], 200), (&bearers[1], 400)] {
        let request = format!("GET /page/a HTTP/1.1\r\nHost: app.test\r\n{cookie}Authorization: {bearer}\r\n\r\n");
        assert_eq!(once(gateway.address, request).await.unwrap().status, status);
    }
}

/// I05, K04: a login gives a new id, and the old one is dead; a planted one never lives.
#[tokio::test]
async fn a_login_changes_the_id_of_the_session() {
    let world = World::new(SUPABASE).await;
    let gateway = world.gateway().await;
    let browser = Browser::new(&gateway);
    let planted = URL_SAFE_NO_PAD.encode([7; 32]);
    browser.cookies.lock().unwrap().push(("__Host-session".to_owned(), planted.clone()));
    let first = browser.sign_in("ada@a.example").await;
    let second = browser.sign_in("ada@a.example").await;
    assert!(first != planted && second != first && second.len() == 43);
    for (cookie, status) in [(&planted, 401), (&first, 401), (&second, 200)] {
        let answer = once(gateway.address, page(&format!("__Host-session={cookie}"))).await.unwrap();
        assert_eq!(answer.status, status);
        // K03: what comes late does not clear the cookie of the next session.
        assert!(answer.values("set-cookie").is_empty(), "{}", answer.head);
    }
}

/// I07: a cookie that was changed is a cookie of nobody, whichever bit it was.
#[tokio::test]
async fn every_flipped_bit_of_the_cookie_gets_the_same_answer() {
    let world = World::new(SUPABASE).await;
    let gateway = world.gateway().await;
    let good = Browser::new(&gateway).sign_in("ada@a.example").await;
    let mut seen: Option<(u16, String)> = None;
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone().into_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        // What ends a cookie or a line for HTTP itself is not this cookie any more.
        if bytes.iter().any(|byte| !byte.is_ascii_graphic() || matches!(byte, b';' | b',' | b'"' | b'\\')) {
            continue;
        }
        let cookie = String::from_utf8(bytes).unwrap();
        let answer = once(gateway.address, page(&format!("__Host-session={cookie}"))).await.unwrap();
        let lines = answer.head.lines().filter(|line| {
            let line = line.to_ascii_lowercase();
            !line.starts_with("date:") && !line.starts_with("x-portcullis-decision:")
        });
        let id = answer.value("x-portcullis-decision").unwrap();
        let answer =
            (answer.status, format!("{}\n{}", lines.collect::<Vec<_>>().join("\n"), answer.text().replace(id, "")));
        assert_eq!(answer.0, 401);
        assert_eq!(seen.get_or_insert_with(|| answer.clone()), &answer, "bit {bit}");
    }
    let long = format!("__Host-session={}", "A".repeat(3000));
    assert_eq!(once(gateway.address, page(&long)).await.unwrap().status, 401);
    assert_eq!(once(gateway.address, page(&format!("__Host-session={good}"))).await.unwrap().status, 200);
}

/// K04: a session ends when nobody uses it, and in any case.
#[tokio::test]
async fn sessions_end_when_idle_and_at_their_end() {
    let policy = SUPABASE.replace("return_to:", "session: { idle: 2h, expires: 1d }, return_to:");
    let world = World::new(&policy).await;
    let gateway = world.gateway().await;
    let idle = Browser::new(&gateway);
    idle.sign_in("ada@a.example").await;
    world.advance(2 * LIFE);
    assert_eq!(idle.get("/page/a").await.status, 401);
    let busy = Browser::new(&gateway);
    busy.sign_in("ada@a.example").await;
    let mut hours = 0;
    while busy.get("/page/a").await.status == 200 {
        world.advance(LIFE);
        hours += 1;
        // What was touched is written beside the request.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert!(hours < 30);
    }
    assert_eq!(hours, 24);
    assert!(
        world
            .stores()
            .await
            .browser
            .live(None, portcullis::clock::Timestamp::from_seconds(0), 9)
            .await
            .unwrap()
            .is_empty()
    );
}

/// K02 for browsers: where the provider says that a session is over, it is.
#[tokio::test]
async fn a_session_that_the_provider_ended_is_over() {
    let world = World::new(SUPABASE).await;
    let gateway = world.gateway().await;
    let browser = Browser::new(&gateway);
    browser.sign_in("ada@a.example").await;
    world.provider.end_sessions();
    assert_eq!(browser.get("/page/a").await.status, 200, "its token is good");
    world.advance(LIFE);
    for _ in 0..3 {
        assert_eq!(browser.get("/page/a").await.status, 401);
    }
    assert_eq!(world.provider.refreshes(), 1, "nothing is asked of an ended session");
    assert_eq!(browser.get("/login").await.status, 200, "the page, and not back to the app");
}

/// K05: after the answer to a logout nothing of the session is good for anything.
#[tokio::test]
async fn a_logout_ends_the_session_here_and_at_the_provider() {
    let world = World::new(SUPABASE).await;
    let gateway = world.gateway().await;
    let browser = Browser::new(&gateway);
    let cookie = browser.sign_in("ada@a.example").await;
    assert_eq!(browser.get("/page/a").await.status, 200);
    let bearer = world.upstream.one().value("authorization").unwrap().to_owned();
    let answer = browser.post("/logout", &[]).await;
    assert_eq!((answer.status, answer.value("location")), (303, Some("/home")));
    assert_eq!(answer.value("cache-control"), Some("no-store"));
    assert!(browser.cookies.lock().unwrap().is_empty());
    assert_eq!(once(gateway.address, page(&format!("__Host-session={cookie}"))).await.unwrap().status, 401);
    // Whoever has seen the access token cannot go on with it either.
    let request = format!("GET /page/a HTTP/1.1\r\nHost: app.test\r\nAuthorization: {bearer}\r\n\r\n");
    assert_eq!(once(gateway.address, request).await.unwrap().status, 401);
    for _ in 0..100 {
        if world.provider.logged_out() == [bearer.trim_start_matches("Bearer ")] {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(world.provider.logged_out(), [bearer.trim_start_matches("Bearer ")]);
    // Nobody is signed in: it is done already.
    assert_eq!(browser.post("/logout", &[]).await.status, 303);
    browser.sign_in("ada@a.example").await;
    let json = browser.post_from("/logout", &[], "Origin: http://app.test\r\nAccept: application/json\r\n").await;
    assert_eq!(json.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_and_end_sessions_of_browsers() {
    let world = World::new(SUPABASE).await;
    let gateway = world.gateway().await;
    let browsers = [(); 3].map(|()| Browser::new(&gateway));
    for (browser, user) in browsers.iter().zip(["ada@a.example", "bob@a.example", "bob@a.example"]) {
        browser.sign_in(user).await;
    }
    let listed = world.command(&["session", "list", "--format", "json"]);
    let sessions: Vec<serde_json::Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(sessions.len(), 3, "{listed}");
    let of_ada = sessions.iter().find(|session| session["user_id"] == uuid("ada@a.example")).unwrap();
    assert_eq!(
        (&of_ada["kind"], &of_ada["app"], &of_ada["issuer"]),
        (&"browser".into(), &"shop".into(), &"supabase".into())
    );
    let cookie = browsers[0].cookie("__Host-session").unwrap();
    assert!(!listed.contains(&cookie), "no name of a session leads to it");
    world.command(&["session", "revoke", of_ada["id"].as_str().unwrap()]);
    assert_eq!(browsers[0].get("/page/a").await.status, 401);
    assert_eq!(browsers[1].get("/page/a").await.status, 200);
    assert_eq!(world.command(&["session", "list", &uuid("bob@a.example")]).lines().count(), 3, "a head and two rows");
    let ended = world.command(&["session", "revoke", "--user", &uuid("bob@a.example")]);
    assert!(ended.contains("2 sessions"), "{ended}");
    for browser in &browsers {
        assert_eq!(browser.get("/page/a").await.status, 401);
    }
}

#[tokio::test]
async fn too_many_tries_are_told_on_a_page() {
    let policy = SUPABASE.replace("limit: none", "limit: [3/min by ip, 2/min by account]");
    let world = World::new(&policy).await;
    let gateway = world.gateway().await;
    let browser = Browser::new(&gateway);
    let wrong = [("username", "ada@a.example"), ("password", "wrong")];
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let answer = browser.post("/login", &wrong).await;
        assert_eq!(answer.value("content-type"), Some("text/html; charset=utf-8"), "{}", answer.text());
        assert_eq!(answer.value("cache-control"), Some("no-store"));
        assert_eq!(answer.value("retry-after").is_some(), answer.status == 429);
        statuses.push(answer.status);
    }
    assert_eq!(statuses, [400, 400, 429, 429], "first by account, then by address");
    assert_eq!(browser.get("/login").await.status, 200, "the page itself can be seen");
}

/// The cookies of sessions and of logins under way are nobody's but ours: none goes upstream, none comes from there.
#[tokio::test]
async fn apps_neither_see_nor_set_our_cookies() {
    let policy = SUPABASE.replace("return_to:", "session: { cookie: __Host-shop }, return_to:");
    let mut world = World::new(&policy).await;
    let answering = crate::upstream::Upstream::answering(|_| {
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: __Host-shop=evil; Path=/; Secure\r\nSet-Cookie: __host-SHOP=x\r\n\
          Set-Cookie: __Host-session=evil\r\nSet-Cookie: __Host-login-abc=evil\r\n\
          Set-Cookie: =__Host-shop=evil; Path=/; Secure\r\nSet-Cookie: = __Host-session=evil\r\nSet-Cookie: theirs=1\r\n\r\nok"
            .to_vec()
    })
    .await;
    let old = std::mem::replace(&mut world.upstream, answering);
    world.reach(old.address);
    let gateway = world.gateway().await;
    let browser = Browser::new(&gateway);
    browser.get("/login/github").await;
    let form = [("username", "ada@a.example"), ("password", PASSWORD)];
    assert_eq!(browser.post("/login", &form).await.status, 303);
    assert!(browser.cookie("__Host-shop").is_some());
    for target in ["/page/a", "/public", "/maybe"] {
        let line = format!("{}; theirs=1; __Host-login-=x", browser.cookie_line().trim_end());
        let answer =
            once(gateway.address, format!("GET {target} HTTP/1.1\r\nHost: app.test\r\n{line}\r\n\r\n")).await.unwrap();
        assert_eq!((answer.status, answer.values("set-cookie")), (200, vec!["theirs=1"]), "{target}");
        assert_eq!(world.upstream.one().value("cookie"), Some("theirs=1"), "{target}");
    }
    // Also beside what is no text.
    let line = browser.cookie_line().trim_end().to_owned();
    let mut request = format!("GET /public HTTP/1.1\r\nHost: app.test\r\n{line}; b=").into_bytes();
    request.extend_from_slice(b"\xff\r\n\r\n");
    assert_eq!(once(gateway.address, request).await.unwrap().status, 200);
    let head = world.upstream.one().head;
    assert!(!head.contains("__Host-") && head.contains("b="), "{head}");
}

/// Keys that are listed seal; a key that goes ends the sessions that it sealed, and nothing else.
#[tokio::test]
async fn sealing_keys_may_be_listed() {
    let policy = SUPABASE.replace("return_to:", "session: { keys: [env:SEAL] }, return_to:");
    let world = World::new(&policy).await;
    let gateway = world.gateway().await;
    let browser = Browser::new(&gateway);
    browser.sign_in("ada@a.example").await;
    assert_eq!(browser.get("/page/a").await.status, 200);
    let stores = world.stores().await;
    let row = stores.browser.live(None, portcullis::clock::Timestamp::from_seconds(0), 1).await.unwrap().remove(0);
    let sealed = String::from_utf8_lossy(&row.sealed).into_owned();
    assert!(!sealed.contains("eyJ") && !sealed.contains("refresh"), "tokens are sealed");
    // Tokens that somebody changed in the store are of nobody.
    let mut bytes = row.sealed.clone();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    assert!(stores.browser.replace(&row.hash, row.version, &bytes, row.refresh_from).await.unwrap());
    assert_eq!(browser.get("/page/a").await.status, 401);
    // A logout ends also what cannot be opened: its key may come back.
    assert_eq!(browser.post("/logout", &[]).await.status, 303);
    assert_eq!(stores.browser.get(&row.hash).await.unwrap(), None);
}

/// A session that is used does not end, however short its rest may be.
#[tokio::test]
async fn short_rests_are_counted_from_the_last_use() {
    let world = World::new(&SUPABASE.replace("return_to:", "session: { idle: 1m }, return_to:")).await;
    let gateway = world.gateway().await;
    let browser = Browser::new(&gateway);
    browser.sign_in("ada@a.example").await;
    for _ in 0..4 {
        world.advance(40);
        assert_eq!(browser.get("/page/a").await.status, 200);
        // What was touched is written beside the request.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    world.advance(60);
    assert_eq!(browser.get("/page/a").await.status, 401);
}

/// Where records are required and cannot be written, nobody signs in, whichever way.
#[tokio::test]
async fn no_login_goes_unrecorded_where_records_are_required() {
    let full = DecisionSink::File { path: "/dev/full".into(), size: 1 << 20, keep: 1 };
    let settings = Log { audit_required: true, decisions: full, ..Log::default() };
    let log = Arc::new(DecisionLog::start(&settings, &SystemRandom).unwrap());
    let mut world = World::new(SUPABASE).await;
    world.audit = Arc::new(Audit::new(log, Arc::new(Metrics::new())));
    world.audit.record(&AuditEvent::new(Timestamp::from_seconds(0), Event::Logout, Outcome::Success));
    while !world.audit.is_blocked() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let gateway = world.gateway().await;
    let browser = Browser::new(&gateway);
    assert_eq!(browser.through(&world.provider, "/login/github").await.status, 503);
    assert!(browser.cookie("__Host-session").is_none());
}

/// Whoever the app does not take for signed in gets the page, and is not sent back to the app for ever.
#[tokio::test]
async fn the_page_sends_back_to_the_app_only_whom_the_app_takes() {
    let mut world = World::new(SUPABASE).await;
    world.change("KEY,", "KEY, session_check: { paths: [/page/**], cache: 10s },");
    let gateway = world.gateway().await;
    let browser = Browser::new(&gateway);
    browser.sign_in("ada@a.example").await;
    assert_eq!((browser.get("/page/a").await.status, browser.get("/login").await.status), (200, 303));
    // Another app of the host, which has the same cookie and other users.
    world.change("via: supabase, providers: [github], limit: none, lockout: none,", "via: oidc, issuer: idp,");
    let idp = "identity:\n  idp: { preset: oidc, issuer: PROVIDER/oidc, audience: api, client_id: gateway, client_secret: env:KEY }\n";
    world.change("identity:\n", idp);
    let beside = world.gateway().await;
    let other = Browser::new(&beside);
    other.cookies.lock().unwrap().clone_from(&browser.cookies.lock().unwrap());
    assert_eq!((other.get("/page/a").await.status, other.get("/login").await.status), (401, 200));
    // The project says that the session has ended.
    world.provider.end_sessions();
    world.advance(11);
    assert_eq!((browser.get("/page/a").await.status, browser.get("/login").await.status), (401, 200));
}

/// Sessions live as long as the app says that is asked, whichever app or policy began them.
#[tokio::test]
async fn a_session_lives_no_longer_than_the_policy_says() {
    let mut world = World::new(SUPABASE).await;
    let gateway = world.gateway().await;
    let browser = Browser::new(&gateway);
    browser.sign_in("ada@a.example").await;
    world.change("return_to:", "session: { expires: 30m }, return_to:");
    let shorter = world.gateway().await;
    let there = Browser::new(&shorter);
    there.cookies.lock().unwrap().clone_from(&browser.cookies.lock().unwrap());
    world.advance(1799);
    assert_eq!(there.get("/page/a").await.status, 200);
    world.advance(1);
    assert_eq!((there.get("/page/a").await.status, browser.get("/page/a").await.status), (401, 200));
}

/// Tokens that speak of another user than the one who signed in are of nobody, wherever they were mixed up.
#[tokio::test]
async fn a_session_speaks_for_who_signed_in_alone() {
    let world = World::new(SUPABASE).await;
    let gateway = world.gateway().await;
    let browser = Browser::new(&gateway);
    browser.sign_in("ada@a.example").await;
    let stores = world.stores().await;
    let row = stores.browser.live(None, portcullis::clock::Timestamp::from_seconds(0), 1).await.unwrap().remove(0);
    assert!(stores.browser.end(&row.hash).await.unwrap());
    let mixed_up = portcullis::store::BrowserSession { user: uuid("bob@a.example"), ..row };
    stores.browser.start(&mixed_up).await.unwrap();
    assert_eq!((browser.get("/page/a").await.status, browser.get("/login").await.status), (401, 200));
}

#[tokio::test]
async fn while_the_provider_is_down_the_page_says_so() {
    let world = World::new(SUPABASE).await;
    let gateway = world.gateway().await;
    world.provider.always(Some(Mood::Status(500)));
    let browser = Browser::new(&gateway);
    browser.sign_in("ada@a.example").await;
    drop(world.provider);
    assert_eq!(browser.get("/public").await.status, 200);
    assert_eq!(browser.get("/login").await.status, 303);
    assert_eq!(Browser::new(&gateway).get("/login").await.status, 200);
}
