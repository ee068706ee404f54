//! The way to a provider and back (L01–L08).

use serde_json::{Value, json};

use crate::gateway::{Browser, Gateway, OIDC, SUPABASE, World, path_of};

async fn world(policy: &str) -> (World, Gateway) {
    let world = World::new(policy).await;
    let gateway = world.gateway().await;
    (world, gateway)
}

fn has_session(browser: &Browser) -> bool {
    browser.cookie("__Host-session").is_some()
}

#[tokio::test]
async fn a_login_through_a_provider_ends_in_a_session_and_where_it_was_to_end() {
    for (policy, start) in [(SUPABASE, "/login/github"), (OIDC, "/login/idp")] {
        let (world, gateway) = world(policy).await;
        let browser = Browser::new(&gateway);
        let back = browser.through(&world.provider, &format!("{start}?return_to=%2Fpage%2Fa%3Fb%3Dc")).await;
        assert_eq!((back.status, back.value("location")), (303, Some("/page/a?b=c")), "{}", back.text()); // L06
        assert_eq!(back.value("cache-control"), Some("no-store"));
        assert_eq!(browser.cookies.lock().unwrap().len(), 1, "the cookie of the login under way is gone");
        assert_eq!(browser.get("/page/a").await.status, 200);
        let request = world.upstream.one();
        assert!(request.value("authorization").unwrap().starts_with("Bearer ey"), "{}", request.head);
        assert_eq!(request.value("cookie"), None);
        assert_eq!(request.value("x-auth-method"), Some("session"), "{}", request.head);
        // Who is signed in has no use for the page.
        let page = browser.get("/login?return_to=/page/b").await;
        assert_eq!((page.status, page.value("location")), (303, Some("/page/b")));
        assert_eq!(browser.get("/login").await.value("location"), Some("/home"));
    }
}

/// An OpenID provider whose access tokens say nothing: the ID token speaks, the app gets the access token.
#[tokio::test]
async fn the_id_token_speaks_where_access_tokens_are_opaque() {
    let (world, gateway) = world(OIDC).await;
    world.provider.opaque(true);
    let browser = Browser::new(&gateway);
    assert_eq!(browser.through(&world.provider, "/login/idp").await.status, 303);
    for round in 0..2 {
        assert_eq!(browser.get("/page/a").await.status, 200, "{round}");
        let request = world.upstream.one();
        assert!(request.value("authorization").unwrap().starts_with("Bearer opaque-"), "{}", request.head);
        assert_eq!(request.value("x-auth-user"), Some("ada"));
        world.advance(crate::provider::LIFE);
    }
    assert_eq!(world.provider.refreshes(), 1);
}

/// L01: whatever stands in `return_to`, a login ends on the same origin; the whole list is in `browser/return_to.rs`.
#[tokio::test]
async fn no_login_leads_elsewhere() {
    let (world, gateway) = world(SUPABASE).await;
    for hostile in [
        "//evil.example",
        "/%5Cevil.example",
        "https://evil.example",
        "%2F%2Fevil.example",
        "/%09/evil.example",
        "javascript:alert(1)",
        "%E3%80%82",
        "%5C%5Cevil.example",
        "/a%0d%0aSet-Cookie:x=y",
        "/%252fevil.example",
        "a&return_to=/b",
        "%",
        "",
    ] {
        let browser = Browser::new(&gateway);
        let back = browser.through(&world.provider, &format!("/login/github?return_to={hostile}")).await;
        assert_eq!((back.status, back.value("location")), (303, Some("/home")), "{hostile}");
        let form = [("username", "a@b.example"), ("password", crate::provider::PASSWORD), ("return_to", hostile)];
        let answer = Browser::new(&gateway).post("/login", &form).await;
        assert_eq!((answer.status, answer.value("location")), (303, Some("/home")), "{hostile}");
        let page = browser.get(&format!("/login?return_to={hostile}")).await;
        assert_eq!((page.status, page.value("location")), (303, Some("/home")), "{hostile}");
    }
}

/// I08: whatever is asked for, cookies stay within what browsers keep.
#[tokio::test]
async fn a_long_place_to_return_to_is_kept_or_left_out() {
    let (world, gateway) = world(OIDC).await;
    for (length, kept) in [(1000, true), (1024, true), (1025, false), (4000, false)] {
        let place = format!("/{}", "a".repeat(length - 1));
        let back = Browser::new(&gateway).through(&world.provider, &format!("/login/idp?return_to={place}")).await;
        assert_eq!(
            (back.status, back.value("location")),
            (303, Some(if kept { &*place } else { "/home" })),
            "{length}"
        );
    }
}

/// L02: providers send browsers back to one place, exactly.
#[tokio::test]
async fn the_way_back_is_one_place() {
    let (_world, gateway) = world(OIDC).await;
    let away = Browser::new(&gateway).get("/login/idp?redirect_uri=https://evil.example").await;
    let location = away.value("location").unwrap();
    assert!(location.contains("redirect_uri=http%3A%2F%2Fapp.test%2Fauth%2Fcallback&"), "{location}");
    assert!(location.contains("code_challenge_method=S256"), "{location}");
    assert_eq!(Browser::new(&gateway).get("/login/other").await.status, 404);
}

/// L05, L07, L08, L03: what comes back must be what was sent away, in the same browser, once, in ten minutes.
#[tokio::test]
async fn a_way_back_that_was_not_begun_here_signs_nobody_in() {
    let (world, gateway) = world(OIDC).await;
    let provider = &world.provider;
    let refused = async |browser: &Browser, target: &str, what: &str| {
        let answer = browser.get(target).await;
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
        assert!(answer.text().contains("You are not signed in"), "{what}");
        assert_eq!(answer.value("cache-control"), Some("no-store"));
        assert!(!has_session(browser), "{what}");
    };
    let begin = async |browser: &Browser| {
        let away = browser.get("/login/idp").await;
        path_of(&provider.authorize(away.value("location").unwrap()))
    };
    let part = |path: &str, name: &str| {
        let found = form_urlencoded::parse(path.split_once('?').unwrap().1.as_bytes()).find(|(found, _)| found == name);
        found.unwrap().1.into_owned()
    };

    // L08: another browser's.
    let (victim, attacker) = (Browser::new(&gateway), Browser::new(&gateway));
    let path = begin(&attacker).await;
    refused(&victim, &path, "login CSRF").await;
    // Also one that has a login under way itself.
    let own = begin(&victim).await;
    refused(&victim, &path, "another browser's state").await;
    let state = part(&path, "state");
    let mixed = own.replace(
        &*part(&own, "state"),
        &format!("{}.{}", part(&own, "state").split_once('.').unwrap().0, state.split_once('.').unwrap().1),
    );
    refused(&victim, &mixed, "own flow, another's state").await;

    for (what, change) in [
        (
            "no state",
            (|path: &str, state: &str| path.replace(&format!("&state={state}"), "")) as fn(&str, &str) -> String,
        ),
        ("empty state", |path, state| path.replace(state, "")),
        ("two states", |path, state| format!("{path}&state={state}")),
        ("a cut state", |path, state| path.replace(state, &state[..state.len() - 1])),
        ("a longer state", |path, state| path.replace(state, &format!("{state}x"))),
        ("state and flow", |path, state| format!("{path}&flow={}", &state[..22])),
        ("only flow", |path, state| path.replace(&format!("state={state}"), &format!("flow={}", &state[..22]))),
        ("no code", |path, _| path.replace("code=", "c=")),
        ("two codes", |path, _| format!("{path}&code=x")),
        ("a foreign issuer (RFC 9207)", |path, _| path.replace("%2Foidc", "%2Fother")),
        ("no issuer", |path, _| path.split("&iss=").next().unwrap().to_owned()),
        ("an error", |path, _| {
            path.replace("code=", "error=access_denied&error_description=%3Cscript%3Ealert(1)%3C/script%3E&x=")
        }),
        ("a broken escape", |path, _| format!("{path}&x=%zz")),
        ("a long query", |path, _| format!("{path}&x={}", "a".repeat(7000))),
    ] {
        let browser = Browser::new(&gateway);
        let path = begin(&browser).await;
        let target = change(&path, &part(&path, "state"));
        if what == "a long query" {
            let answer = browser.get(&target).await;
            assert!(matches!(answer.status, 303 | 400 | 414 | 431), "{}", answer.status);
            continue;
        }
        let answer = browser.get(&target).await;
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
        assert!(!answer.text().contains("<script") && !answer.text().contains("access_denied"), "{what}");
        assert!(!has_session(&browser), "{what}");
    }

    // Used before: here, and by somebody who kept the cookie.
    let browser = Browser::new(&gateway);
    let path = begin(&browser).await;
    let kept = browser.cookies.lock().unwrap().clone();
    assert_eq!(browser.get(&path).await.status, 303);
    let again = Browser::new(&gateway);
    refused(&again, &path, "used before").await;
    *again.cookies.lock().unwrap() = kept;
    refused(&again, &path, "used before, with its cookie").await;

    // Too late, and from the future.
    let late = Browser::new(&gateway);
    let path = begin(&late).await;
    world.advance(601);
    refused(&late, &path, "after ten minutes").await;

    // L07: what is too long is not even decoded, and what was changed does not open.
    for change in ["x", &"A".repeat(4100), "%41", "\u{e4}"] {
        let browser = Browser::new(&gateway);
        let path = begin(&browser).await;
        for (name, value) in browser.cookies.lock().unwrap().iter_mut() {
            assert!(name.starts_with("__Host-login-"));
            value.push_str(change);
        }
        let answer = browser.get(&path).await;
        assert!(matches!(answer.status, 400 | 431), "{change}: {}", answer.status);
        assert!(!has_session(&browser));
    }
}

/// L05: an ID token of somebody else, for somebody else, or of another login.
#[tokio::test]
async fn an_id_token_that_lies_signs_nobody_in() {
    let (world, gateway) = world(OIDC).await;
    let now = crate::gateway::NOW;
    for lie in [
        json!({ "nonce": "another" }),
        json!({ "nonce": null }),
        json!({ "aud": "another" }),
        json!({ "aud": ["gateway", "another"] }),
        json!({ "aud": ["gateway", "another"], "azp": "another" }),
        json!({ "azp": "another" }),
        json!({ "azp": 7 }),
        json!({ "iss": "https://evil.example" }),
        json!({ "iss": null }),
        json!({ "exp": now - 60 }),
        json!({ "exp": null }),
        json!({ "iat": now + 600 }),
        json!({ "at_hash": "77QmUPtjPfzWtF2AnpK9RQ" }),
        json!({ "at_hash": 7 }),
        json!({ "sub": null }),
    ] {
        let browser = Browser::new(&gateway);
        world.provider.lie(lie.clone());
        world.provider.opaque(lie.get("sub").is_some());
        let answer = browser.through(&world.provider, "/login/idp").await;
        assert_eq!(answer.status, 502, "{lie}: {}", answer.text());
        assert!(!has_session(&browser), "{lie}");
    }
    world.provider.lie(json!({ "aud": ["gateway", "another"], "azp": "gateway" }));
    let browser = Browser::new(&gateway);
    assert_eq!(browser.through(&world.provider, "/login/idp").await.status, 303);
    world.provider.lie(Value::Null);
}

/// L04: the code is worth nothing without the verifier, which never leaves the gateway.
#[tokio::test]
async fn a_code_of_another_login_signs_nobody_in() {
    for (policy, start) in [(SUPABASE, "/login/github"), (OIDC, "/login/idp")] {
        let (world, gateway) = world(policy).await;
        let (victim, attacker) = (Browser::new(&gateway), Browser::new(&gateway));
        let mut paths = Vec::new();
        for browser in [&victim, &attacker] {
            let away = browser.get(start).await;
            paths.push(path_of(&world.provider.authorize(away.value("location").unwrap())));
        }
        let injected = paths[0].replace("code-1", "code-2");
        assert_ne!(injected, paths[0]);
        let answer = victim.get(&injected).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(!has_session(&victim));
    }
}

#[tokio::test]
async fn tabs_do_not_clash_and_at_most_five_logins_are_under_way() {
    let (world, gateway) = world(SUPABASE).await;
    let browser = Browser::new(&gateway);
    let mut paths = Vec::new();
    for number in 0..8 {
        let away = browser.get(&format!("/login/github?return_to=/page/{number}")).await;
        paths.push(path_of(&world.provider.authorize(away.value("location").unwrap())));
        assert!(browser.cookies.lock().unwrap().len() <= 5);
        world.advance(1);
    }
    for (number, path) in paths.iter().enumerate() {
        let back = browser.get(path).await;
        let expected = if number < 3 { (400, None) } else { (303, Some(format!("/page/{number}"))) };
        assert_eq!((back.status, back.value("location").map(str::to_owned)), expected, "{number}");
    }
    assert_eq!(browser.cookies.lock().unwrap().len(), 1);
}
