//! H07, H08, O08: what issuers are asked about tokens, and what becomes of it where they are slow, down, or lie. And what a
//! logout at a Supabase project ends here.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};
use portcullis::clock::Timestamp;
use portcullis::pipeline::{Found, Outcome, Step};
use portcullis::request::head::RequestHead;
use portcullis::store::{Revocation, Revoked};
use serde_json::{Value, json};

use crate::h::World;
use crate::harness::{NOW, Token, compile};
use crate::idp::{Idp, Mode};

const INTROSPECT: &str = "/introspect";
const SUB: &str = "6d8a2a3c-2a53-4ac6-8d29-5d9c3f0f6a11";

fn opaque(idp: &Idp, audience: &str) -> String {
    let issuer = idp.issuer();
    format!(
        "version: 1\nupstream: http://127.0.0.1:9\nidentity:\n  company:\n    preset: oidc\n    issuer: '{issuer}'\n    \
         audience: {audience}\n    introspection: {{ url: '{issuer}{INTROSPECT}', client_id: gateway, \
         client_secret: env:SECRET, cache: 30s }}\nroutes:\n  GET /items: authenticated\n  \
         GET /writes: {{ scope: items:write }}\n  GET /open: public\n"
    )
}

/// An answer about a good token, with some members in place of others.
fn active(idp: &Idp, other: Value) -> Mode {
    let mut claims = json!({
        "active": true, "iss": idp.issuer(), "aud": ["api"], "sub": "ada", "scope": "items:read", "iat": NOW,
        "exp": NOW + 3600, "token_type": "Bearer", "jti": "j1",
    });
    for (name, value) in other.as_object().unwrap() {
        claims[name] = value.clone();
    }
    Mode::Answer(200, claims.to_string().into_bytes())
}

impl World {
    async fn get(&self, target: &str, token: &str) -> u16 {
        self.ask_for(target, token).await.0
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opaque_token_is_worth_what_its_issuer_says_by_the_rules_of_the_policy() {
    let idp = Idp::start(vec![]);
    let world = World::of(&opaque(&idp, "api"));
    for (number, (other, expected)) in [
        (json!({}), 200),
        (json!({ "iss": null, "aud": "api" }), 401), // a claim of another type is not the same as none
        (json!({ "token_type": null, "typ": null }), 200),
        (json!({ "exp": NOW - 31 }), 401),
        (json!({ "exp": null }), 401),
        (json!({ "exp": "tomorrow" }), 401),
        (json!({ "nbf": NOW + 60 }), 401),
        (json!({ "iat": NOW + 60 }), 401),
        (json!({ "aud": "other" }), 401),
        (json!({ "aud": [] }), 401),
        (json!({ "aud": null }), 401),
        (json!({ "iss": "https://elsewhere.example" }), 401),
        (json!({ "token_use": "refresh_token" }), 401),
        (json!({ "token_type": "refresh_token" }), 401),
        (json!({ "typ": "Refresh" }), 401),
        (json!({ "typ": "ID" }), 401),
        (json!({ "cnf": { "jkt": "x" } }), 401),
        (json!({ "active": false }), 401),
        (json!({ "active": "true" }), 503),
        (json!({ "active": 1 }), 503),
        (json!({ "active": null }), 503),
    ]
    .into_iter()
    .enumerate()
    {
        idp.set(active(&idp, other.clone()));
        let token = format!("opaque-{number}");
        assert_eq!(world.ask_for("/items", &token).await, (expected, true), "{other}");
        // What is known is not asked again; what is not known or has ended, is.
        let is_asked = expected == 503 || other == json!({ "exp": NOW - 31 });
        let before = idp.hits(INTROSPECT);
        assert_eq!(world.get("/items", &token).await, expected, "{other}");
        assert_eq!(idp.hits(INTROSPECT) - before, usize::from(is_asked), "{other}");
    }
    idp.set(Mode::Answer(200, json!({ "active": true, "sub": "u", "aud": "api", "exp": NOW + 60 }).to_string().into()));
    assert_eq!(world.get("/items", "without-iss").await, 200);
    let asked = idp.hits(INTROSPECT);
    let signed = Token::of("ada").with("iss", "https://elsewhere.example").sign();
    assert_eq!(world.get("/items", &signed).await, 401, "a signed token speaks for itself, and badly");
    assert_eq!(world.get("/open", "opaque-x").await, 200, "who need not say who they are are not asked about");
    assert_eq!(idp.hits(INTROSPECT), asked, "{asked}");
}

/// H07: scopes are checked at each use, and what was good for one audience is not for another.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_for_one_token_and_audience_and_grants_no_more_than_it_says() {
    let idp = Idp::start(vec![]);
    let world = World::of(&opaque(&idp, "api"));
    idp.set(active(&idp, json!({})));
    for _ in 0..3 {
        assert_eq!((world.get("/items", "t").await, world.get("/writes", "t").await), (200, 403));
    }
    assert_eq!(idp.hits(INTROSPECT), 1);
    idp.set(active(&idp, json!({ "scope": "items:write" })));
    assert_eq!((world.get("/writes", "t").await, world.get("/writes", "t2").await), (403, 200));
    assert_eq!(idp.hits(INTROSPECT), 2);
    world.policy.publish(compile(&opaque(&idp, "other"), &[]));
    assert_eq!(world.get("/items", "t").await, 401);
    assert_eq!(idp.hits(INTROSPECT), 3);
    world.policy.publish(compile(&opaque(&idp, "api"), &[]));
    assert_eq!((world.get("/items", "t").await, idp.hits(INTROSPECT)), (200, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_yes_is_used_for_as_long_as_the_policy_says_and_a_no_for_less() {
    let idp = Idp::start(vec![]);
    let world = World::of(&opaque(&idp, "api"));
    idp.set(active(&idp, json!({})));
    let short = |seconds: i64| active(&idp, json!({ "exp": NOW + seconds }));
    assert_eq!(world.get("/items", "yes").await, 200);
    idp.set(short(10));
    assert_eq!(world.get("/items", "short").await, 200);
    idp.set(Mode::Answer(200, b"{\"active\": false}".to_vec()));
    assert_eq!(world.get("/items", "no").await, 401);
    for (seconds, asked) in [(9, [0, 0, 0]), (1, [0, 1, 1]), (19, [0, 1, 1]), (1, [1, 0, 0])] {
        world.pass(seconds);
        for (token, asked) in ["yes", "short", "no"].into_iter().zip(asked) {
            let before = idp.hits(INTROSPECT);
            world.get("/items", token).await;
            assert_eq!(idp.hits(INTROSPECT) - before, asked, "{token} after {seconds} s more");
        }
    }
    assert_eq!(world.get("/items", "yes").await, 401, "it has ended since");
}

/// H08: a revocation counts at once, whatever was remembered.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_reaches_what_is_remembered_at_once() {
    let idp = Idp::start(vec![]);
    let world = World::of(&opaque(&idp, "api"));
    idp.set(active(&idp, json!({})));
    assert_eq!(world.get("/items", "t").await, 200);
    let until = Timestamp::from_seconds(NOW + 3600);
    let revoked = Revoked::Token("j1".to_owned());
    world.services.snapshot().revoked.add(&[Revocation { issuer: "company".to_owned(), revoked, until }]);
    assert_eq!((world.get("/items", "t").await, idp.hits(INTROSPECT)), (401, 1));
}

/// O08 and Q: an issuer that cannot be asked, or cannot be understood, is 503 for those who need it and nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_does_not_answer_lets_nobody_in_and_holds_up_nobody_else() {
    let idp = Idp::start(vec![]);
    let world = Arc::new(World::of(&opaque(&idp, "api")));
    let good = match active(&idp, json!({})) {
        Mode::Answer(_, body) => String::from_utf8(body).unwrap(),
        _ => String::new(),
    };
    let deep = format!("{{\"active\": true, \"x\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let large = format!("{{\"active\": true, \"x\": \"{}\"}}", "x".repeat(1_000_000));
    let answer = |body: &str| Mode::Answer(200, body.as_bytes().to_vec());
    for mode in [
        Mode::HangUp,
        Mode::Redirect(format!("{}/elsewhere", idp.issuer())),
        Mode::Answer(500, good.clone().into()),
        Mode::Answer(401, Vec::new()),
        Mode::Answer(429, good.clone().into()),
        Mode::Answer(201, good.clone().into()),
        answer(""),
        answer("<html></html>"),
        answer("[]"),
        answer(&deep),
        answer(&large),
        answer(&good.replace('}', ",}")),
        answer(&good.replace('}', "")),
        answer(&format!("{good} {good}")),
        answer(&format!("\u{feff}{good}")),
        answer(&good.replace("\"sub\"", "\"sub\": \"eve\", \"sub\"")),
        answer(&good.replace("ada", r"\ud800")),
    ] {
        idp.set(mode.clone());
        assert_eq!(world.ask_for("/items", "t").await, (503, true), "{:.100}", format!("{mode:?}"));
        assert_eq!(world.get("/open", "t").await, 200);
    }
    idp.set(Mode::Hold);
    let began = Instant::now();
    let waiting = Arc::clone(&world);
    let waiting = tokio::spawn(async move { waiting.get("/items", "t").await });
    assert_eq!(world.get("/open", "t").await, 200);
    assert!(began.elapsed() < Duration::from_secs(2), "who needs nobody waits for nobody");
    assert_eq!(waiting.await.unwrap(), 503);
    assert!(began.elapsed() < Duration::from_secs(8));
    idp.set(answer(&good));
    assert_eq!(world.get("/items", "t").await, 200, "nothing is remembered of an outage");
}

/// I10: many who wait are one question, and whoever goes away takes nothing with them.
#[tokio::test(flavor = "multi_thread")]
async fn many_requests_with_one_token_are_one_question() {
    let idp = Idp::start(vec![]);
    let world = Arc::new(World::of(&opaque(&idp, "api")));
    idp.set(Mode::Hold);
    let ask = || {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.get("/items", "t").await })
    };
    let requests: Vec<_> = (0..300).map(|_| ask()).collect();
    while idp.hits(INTROSPECT) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    requests.iter().step_by(2).for_each(tokio::task::JoinHandle::abort);
    idp.set(active(&idp, json!({})));
    for (number, request) in requests.into_iter().enumerate() {
        if number % 2 == 1 {
            assert_eq!(request.await.unwrap(), 200);
        }
    }
    assert_eq!((world.get("/items", "t").await, idp.hits(INTROSPECT)), (200, 1));
}

// === session_check ===

const USER: &str = "/auth/v1/user";

fn checked(idp: &Idp, settings: &str, header: &str) -> String {
    format!(
        "version: 1\nupstream: http://127.0.0.1:9\n{header}identity:\n  project:\n    preset: supabase\n    \
         url: '{}'\n    jwt_secret: env:SECRET\n    audience: api\n    \
         session_check: {{ paths: [/account/**, '/x/{{id:int}}']{settings} }}\n\
         routes:\n  GET /account/{{page**}}: authenticated\n  GET /x/{{id}}: authenticated\n  GET /items: authenticated\n",
        idp.issuer()
    )
}

fn session_token(idp: &Idp, session: &str) -> Token {
    let token = Token::of(SUB).with("iss", format!("{}/auth/v1", idp.issuer())).with("role", "authenticated");
    token.with("session_id", session)
}

fn refusal(status: u16, code: &str) -> Mode {
    Mode::Answer(status, json!({ "code": code, "message": "m" }).to_string().into_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_checked_where_the_policy_says_and_nowhere_else() {
    let idp = Idp::start(vec![]);
    let world = World::of(&checked(&idp, "", ""));
    let token = session_token(&idp, "s").sign();
    idp.set(Mode::Answer(200, json!({ "id": SUB }).to_string().into_bytes()));
    for (target, expected, asked) in [
        ("/items", 200, 0),
        ("/x/a", 200, 0),
        ("/account/a", 200, 1),
        ("/account/b/c", 200, 1),
        ("/account", 200, 1),
        ("/x/7", 200, 1),
    ] {
        assert_eq!(world.get(target, &token).await, expected, "{target}");
        assert_eq!(idp.hits(USER), asked, "{target}");
    }
    world.pass(29);
    assert_eq!((world.get("/account/a", &token).await, idp.hits(USER)), (200, 1));
    world.pass(1);
    assert_eq!((world.get("/account/a", &token).await, idp.hits(USER)), (200, 2));
    let forged = session_token(&idp, "s").signed_with("another secret of more than 32 bytes length");
    assert_eq!((world.get("/account/a", &forged).await, idp.hits(USER)), (401, 2), "nobody is asked about a forgery");
    // Upper case where the app does not tell it from lower case.
    let world = World::of(&checked(&idp, "", "case: insensitive\n"));
    assert_eq!((world.get("/ACCOUNT/a", &token).await, idp.hits(USER)), (200, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_has_ended_is_refused_until_its_token_ends() {
    let idp = Idp::start(vec![]);
    let world = World::of(&checked(&idp, "", ""));
    for code in ["session_not_found", "user_banned", "user_not_found"] {
        let token = session_token(&idp, code).sign();
        idp.set(refusal(403, code));
        assert_eq!(world.get("/account/a", &token).await, 401, "{code}");
        let asked = idp.hits(USER);
        idp.set(Mode::Answer(200, json!({ "id": SUB }).to_string().into_bytes()));
        assert_eq!((world.get("/account/a", &token).await, idp.hits(USER)), (401, asked), "{code}");
        assert_eq!(world.get("/items", &token).await, 200, "only where it is asked for");
    }
    world.pass(600);
    let asked = idp.hits(USER);
    let token = session_token(&idp, "user_banned").sign();
    assert_eq!((world.get("/account/a", &token).await, idp.hits(USER)), (401, asked));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_cannot_be_checked_is_503_or_what_the_policy_says() {
    let idp = Idp::start(vec![]);
    let token = session_token(&idp, "s").sign();
    for (settings, expected) in [("", 503), (", on_error: deny", 503), (", on_error: allow", 200)] {
        let world = World::of(&checked(&idp, settings, ""));
        for mode in [
            Mode::HangUp,
            refusal(500, "session_not_found"),
            refusal(429, "over_request_rate_limit"),
            refusal(401, "no_authorization"),
            Mode::Answer(200, b"<html>".to_vec()),
            Mode::Answer(200, json!({ "id": "somebody else" }).to_string().into_bytes()),
            Mode::Redirect("/auth/v1/elsewhere".to_owned()),
        ] {
            idp.set(mode.clone());
            assert_eq!(world.ask_for("/account/a", &token).await, (expected, true), "{settings} {mode:?}");
        }
        idp.set(refusal(403, "session_not_found"));
        assert_eq!(world.get("/account/a", &token).await, 401, "{settings}");
    }
}

// === Logging out at a project ===

impl World {
    /// A logout that the project answered 204.
    async fn logged_out(&self, target: &str, token: &str) {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("api.test"));
        headers.insert("authorization", HeaderValue::try_from(format!("Bearer {token}")).unwrap());
        let head = RequestHead::new("POST", target, &headers).peer(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let Step::Decided(decided) = self.pipeline.step(&head, &Found::default()) else { panic!("{target}: asks") };
        assert!(matches!(decided.outcome, Outcome::Forward(_)), "{target}: {:?}", decided.outcome);
        self.pipeline.logged_out(&decided.about, &head).await;
    }
}

/// F4: closes the hole that access tokens stay valid after a logout.
#[tokio::test(flavor = "multi_thread")]
async fn a_logout_that_passed_through_ends_tokens_at_once() {
    let idp = Idp::start(vec![]);
    let text = format!(
        "version: 1\nupstream: '{0}'\napp: web\npreset: supabase-edge\ndefaults: {{ on_store_error: allow_until_exp }}\nidentity:\n  \
         project: {{ preset: supabase, url: '{0}', key: env:SECRET, jwt_secret: env:SECRET, audience: api }}\nroutes: {{}}\n",
        idp.issuer()
    );
    let at = |session: &str, iat: i64| session_token(&idp, session).with("iat", iat).sign();
    let old = NOW - 10;
    // What is asked for: with whose token, and then who is refused: (session, issued, status).
    for (target, expected) in [
        ("?scope=local", [("s1", old, 401), ("s1", NOW, 401), ("s2", old, 200), ("s2", NOW, 200)]),
        ("?scope=others", [("s1", old, 200), ("s1", NOW, 200), ("s2", old, 401), ("s2", NOW, 200)]),
        ("?scope=global", [("s1", old, 401), ("s1", NOW, 401), ("s2", old, 401), ("s2", NOW, 200)]),
        ("", [("s1", old, 401), ("s1", NOW, 401), ("s2", old, 401), ("s2", NOW, 200)]),
    ] {
        let world = World::of(&text);
        for (session, iat, _) in expected {
            assert_eq!(world.get("/rest/v1/items", &at(session, iat)).await, 200);
        }
        world.logged_out(&format!("/auth/v1/logout{target}"), &at("s1", old)).await;
        for (session, iat, status) in expected {
            let found = world.get("/rest/v1/items", &at(session, iat)).await;
            assert_eq!(found, status, "{target}: {session} issued {}", iat - NOW);
        }
        let stranger =
            Token::of("0d3f2c1b-8a79-4e65-b4c3-2d1e0f9a8b7c").with("iss", format!("{}/auth/v1", idp.issuer()));
        let stranger = stranger.with("role", "authenticated").with("session_id", "s9").with("iat", old).sign();
        assert_eq!(world.get("/rest/v1/items", &stranger).await, 200, "{target}");
    }
    let world = World::of(&text);
    for junk in ["junk", "a.b.c", &Token::of(SUB).with("iss", "https://elsewhere.example").sign()] {
        world.logged_out("/auth/v1/logout", junk).await;
    }
    assert!(world.services.snapshot().revoked.is_empty(), "what nobody can read ends nothing");
}
