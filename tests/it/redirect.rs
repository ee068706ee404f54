//! `on_unauthenticated: redirect`: browsers that want to see a page are sent to sign in, everybody else gets 401.

use crate::harness::{Harness, NOW, Token};
use crate::ssr;

const PAGE: &str = "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
const HTML: &str = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_is_sent_to_sign_in_and_finds_its_way_back() {
    let routes =
        "  GET|POST /pages/**: { access: authenticated, on_unauthenticated: \"redirect /own-login?redirectTo={path}\" }
  GET /staff: { where: token.staff == true, on_unauthenticated: \"redirect /own-login?redirectTo={path}\" }
  GET /own-login: { access: authenticated, on_unauthenticated: \"redirect /own-login?redirectTo={path}\" }
  GET /api: authenticated
";
    let gateway = Harness::start(&ssr::policy("allow: [double_slash]\n", routes)).await;
    let user = "7b1d9a52-6f1e-4c3a-9d2b-0a4f5e6c7d81";
    let cookie = |token: &str| format!("Cookie: sb-abcdef-auth-token={}\r\n", ssr::base64(&ssr::session(token)));
    let expired = cookie(&ssr::token(user).with("exp", NOW - 60).sign());
    let forged = cookie(&ssr::token(user).signed_with("another-secret-that-has-more-than-32-bytes"));
    let good = cookie(&ssr::token(user).sign());
    let long = format!("/pages/x?{}", "q".repeat(3000));
    let to = |path: &str| Some(format!("/own-login?redirectTo={path}"));
    for (method, target, lines, status, location) in [
        ("GET", "/pages/a", PAGE, 303, to("%2Fpages%2Fa")),
        ("HEAD", "/pages/a", PAGE, 303, to("%2Fpages%2Fa")),
        ("GET", "/pages/a", HTML, 303, to("%2Fpages%2Fa")),
        ("GET", "/pages/a?b=c&d=%26#", PAGE, 400, None),
        ("GET", "/pages/a?b=c&d=%26&e=/x", PAGE, 303, to("%2Fpages%2Fa%3Fb%3Dc%26d%3D%2526%26e%3D%2Fx")),
        ("GET", "/pages/%C3%A9", PAGE, 303, to("%2Fpages%2F%25C3%25A9")),
        ("GET", "http://api.test/pages/a", PAGE, 303, to("%2Fpages%2Fa")),
        ("GET", &long, PAGE, 303, to("%2Fpages%2Fx")),
        ("GET", "/pages/a", &format!("{PAGE}{expired}"), 303, to("%2Fpages%2Fa")),
        ("GET", "/pages/a", &format!("{PAGE}{forged}"), 303, to("%2Fpages%2Fa")),
        ("GET", "/pages/a", &format!("{PAGE}{good}"), 200, None),
        ("GET", "/staff", PAGE, 303, to("%2Fstaff")),
        ("GET", "/staff", &format!("{PAGE}{good}"), 403, None),
        ("POST", "/pages/a", PAGE, 401, None),
        ("GET", "/pages/a", "", 401, None),
        ("GET", "/pages/a", "Accept: application/json\r\n", 401, None),
        ("GET", "/pages/a", "Accept: */*\r\n", 401, None),
        ("GET", "/pages/a", "Sec-Fetch-Mode: cors\r\nAccept: text/html\r\n", 401, None),
        ("GET", "/pages/a", &format!("{HTML}X-Requested-With: XMLHttpRequest\r\n"), 401, None),
        ("GET", "/api", PAGE, 401, None),
        // It would lead to itself for ever.
        ("GET", "/own-login?redirectTo=%2Fx", PAGE, 401, None),
    ] {
        let request = format!("{method} {target} HTTP/1.1\r\nHost: api.test\r\n{lines}Content-Length: 0\r\n\r\n");
        let answer = gateway.raw(request).await.unwrap();
        assert_eq!(
            (answer.status, answer.value("location").map(str::to_owned)),
            (status, location),
            "{method} {target} {lines}"
        );
        if status == 303 {
            assert_eq!(answer.value("cache-control"), Some("no-store"));
            assert!(answer.value("vary").unwrap().contains("sec-fetch-mode"));
            assert!(answer.value("x-portcullis-decision").is_some() && answer.value("www-authenticate").is_none());
        }
        if status == 401 {
            assert!(answer.value("www-authenticate").unwrap().starts_with("Bearer "), "{target}");
        }
    }
    // A path that a browser would take for another host is none to come back to.
    let routes = "  /**: { access: authenticated, on_unauthenticated: \"redirect /own-login?redirectTo={path}\" }\n";
    let gateway = Harness::start(&ssr::policy("allow: [double_slash]\n", routes)).await;
    let answer = gateway.get("//evil.example/x", PAGE).await;
    assert_eq!((answer.status, answer.value("location")), (303, Some("/own-login?redirectTo=%2F")));
    assert_eq!(Token::of("x").sign().split('.').count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_sessions_of_browsers_the_gateways_own_page_is_meant() {
    let policy = format!(
        "version: 1\nupstream: http://UPSTREAM\nbase: /app\nlogin: {{ via: supabase }}\n{}routes:\n  GET /pages/**: {{ access: authenticated, on_unauthenticated: redirect }}\n",
        ssr::IDENTITY.replace(
            "    from: [bearer, cookie sb-old-auth-token, cookie sb-abcdef-auth-token]\n",
            "    key: env:PUBLISHABLE_KEY\n"
        )
    );
    let gateway = Harness::start(&policy).await;
    let answer = gateway.get("/app/pages/a?b=c", PAGE).await;
    assert_eq!(
        (answer.status, answer.value("location")),
        (303, Some("/app/login?return_to=%2Fapp%2Fpages%2Fa%3Fb%3Dc"))
    );
    assert_eq!(gateway.get("/app/pages/a", "").await.status, 401);
}
