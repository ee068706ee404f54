//! The cookie of `@supabase/ssr` as a credential.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::harness::{Harness, NOW, SECRET, Token, get};
use crate::table::{BAD, Expect, Refused, Report, canon};

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
    let refused: &[(Expect, Expect)] = &[(Refused(&[401]), canon("/page"))];
    let [(none, anonymous)] = refused else { unreachable!() };
    let fine = (&canon("/me"), &canon("/page"));
    let nobody = (none, anonymous);
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
        ("half", format!("{name}={}", &good[..good.len() / 2]), nobody),
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
