//! C. Identity headers and header hygiene.

use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis::clock::{ManualClock, Timestamp};
use portcullis::config::StoreUrl;
use portcullis::live::Live;
use portcullis::pipeline::Services;
use portcullis::random::SeededRandom;
use portcullis::server::services::{Keeper, Outside};
use serde_json::Value;

use crate::client::Client;
use crate::h2raw;
use crate::harness::{Harness, IDENTITY, NOW, Token, compile, get};
use crate::table::{BAD, Refused, Report, admin, canon, p0, p1, policy};
use crate::upstream::{Recorded, Upstream};

/// Names of every preset and family that apps trust.
const FAMILY: &[&str] = &[
    "X-Auth-User",
    "X-Auth-Email",
    "X-Auth-Roles",
    "X-Auth-Scopes",
    "X-Auth-Permissions",
    "X-Auth-Issuer",
    "X-Auth-Method",
    "X-Auth-Session",
    "X-Auth-Anonymous",
    "X-Auth-Assertion",
    "Remote-User",
    "Remote-Groups",
    "Remote-Name",
    "Remote-Email",
    "X-Forwarded-User",
    "X-Forwarded-Email",
    "X-Forwarded-Groups",
    "X-Forwarded-Preferred-Username",
    "X-Forwarded-Access-Token",
    "X-Auth-Request-User",
    "X-Auth-Request-Email",
    "X-Auth-Request-Groups",
    "X-Auth-Request-Preferred-Username",
    "X-Auth-Request-Access-Token",
    "X-Pomerium-Jwt-Assertion",
    "X-Pomerium-Claim-Email",
    "X-Pomerium-Claim-Groups",
    "X-Token-Subject",
    "X-Token-User-Name",
    "X-Token-User-Email",
    "X-Token-User-Roles",
    "X-authentik-username",
    "X-authentik-groups",
    "X-authentik-jwt",
    "X-Consumer-ID",
    "X-Consumer-Username",
    "X-Credential-Identifier",
    "X-Anonymous-Consumer",
    "X-Userinfo",
    "X-Access-Token",
    "X-ID-Token",
    "X-WEBAUTH-USER",
    "X-WEBAUTH-ROLE",
    "X-Hasura-User-Id",
    "X-Hasura-Role",
    "Cf-Access-Authenticated-User-Email",
    "Cf-Access-Jwt-Assertion",
    "X-Goog-Authenticated-User-Email",
    "X-Goog-Iap-Jwt-Assertion",
    "x-amzn-oidc-identity",
    "x-amzn-oidc-data",
    "X-MS-CLIENT-PRINCIPAL",
    "X-MS-CLIENT-PRINCIPAL-NAME",
    "Tailscale-User-Login",
];

/// Nothing that the client wrote arrived.
fn clean(upstream: &[Recorded]) -> bool {
    matches!(upstream, [only] if !only.head.contains("hostile"))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_identity_header_of_a_client_reaches_an_app_on_any_route() {
    let mut report = Report::default();
    let gateway =
        Harness::start(&policy("  GET /open: public\n  GET /maybe: optional\n  GET /closed: authenticated\n")).await;
    let user = Token::of("ada").line();
    for (target, lines) in [("/open", ""), ("/maybe", ""), ("/maybe", &*user), ("/closed", &*user)] {
        for name in FAMILY {
            for name in [(*name).to_owned(), name.to_ascii_lowercase(), name.replace('-', "_"), name.replace('-', ".")]
            {
                let answer = gateway.get(target, &format!("{lines}{name}: hostile\r\n")).await;
                let upstream = gateway.upstream.take();
                report
                    .note("C01", answer.status == 200 && clean(&upstream), || format!("{target} {name}: {upstream:?}"));
            }
        }
    }
    for (gateway, target) in [(p0().await, "/public/x"), (p1().await, "/x")] {
        for name in FAMILY {
            gateway.get(target, &format!("{name}: hostile\r\n")).await;
            let upstream = gateway.upstream.take();
            report.note("C01", clean(&upstream), || format!("{name}: {upstream:?}"));
            let name = name.to_ascii_lowercase();
            let outcome = h2raw::get(&gateway, target, &[(name.as_bytes(), b"hostile")]).await;
            let upstream = gateway.upstream.take();
            report.note("C01", clean(&upstream), || format!("h2 {name}: {outcome:?} {upstream:?}"));
        }
    }
    report.finish();
}

/// Both policies, each with a path that an admin may use.
async fn protected() -> [(Harness, &'static str); 2] {
    [(p0().await, "/api/admin/x"), (p1().await, "/admin/x")]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_absent_is_an_absent_header() {
    let mut report = Report::default();
    for (gateway, target) in protected().await {
        gateway.get(target, &format!("{}X-Auth-Email: ceo@x\r\nX-Auth-Scopes: all\r\n", admin())).await;
        let request = gateway.upstream.one();
        let fine = request.values("x-auth-email").is_empty() && request.values("x-auth-scopes").is_empty();
        report.note("C02", fine && request.value("x-auth-user") == Some("root"), || format!("{request:?}"));
    }
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn spellings_that_frameworks_fold_are_removed() {
    let mut report = Report::default();
    for (gateway, target, lines) in [(p0().await, "/public/x", String::new()), (p1().await, "/admin/x", admin())] {
        for name in [
            "X_Auth_User",
            "x-auth_user",
            "X.Auth.User",
            "X_AUTH-USER",
            "x_auth.user",
            "X-AUTH-USER",
            "X~Auth~User",
            "x+auth|user",
        ] {
            gateway.get(target, &format!("{lines}{name}: hostile\r\n")).await;
            let upstream = gateway.upstream.take();
            report.note("C03", clean(&upstream), || format!("{name}: {upstream:?}"));
        }
    }
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_duplicates_one_remains_and_it_is_ours() {
    let mut report = Report::default();
    for (gateway, target) in protected().await {
        gateway.get(target, &format!("X-Auth-User: hostile\r\nx-auth-USER: hostile\r\n{}", admin())).await;
        let request = gateway.upstream.one();
        report.note("C04", request.values("x-auth-user") == ["root"], || format!("{request:?}"));
    }
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nomination_removes_nothing_of_ours() {
    let mut report = Report::default();
    for (gateway, target) in protected().await {
        for nominated in [
            "X-Auth-User",
            "x-AUTH-user, close",
            "\"X-Auth-User\"",
            "X-Auth-User,X-Auth-Roles,Authorization",
            "close, x-auth-user, x-auth-roles",
            "a,b,c,d,e,f,g,h,i,j,k",
            "Via, X-Request-Id, X-Forwarded-Port, Forwarded, X-Real-IP",
        ] {
            let answer = gateway.get(target, &format!("{}Connection: {nominated}\r\n", admin())).await;
            let upstream = gateway.upstream.take();
            let fine = match answer.status {
                200 => matches!(&*upstream, [only] if only.value("x-auth-user") == Some("root")
                    && only.value("x-auth-roles") == Some("admin")
                    && only.value("x-real-ip").is_some()
                    && !only.values("connection").iter().any(|value| value.to_ascii_lowercase().contains("x-auth"))),
                400 => upstream.is_empty(),
                _ => false,
            };
            report.note("C05", fine, || format!("{nominated}: {} {upstream:?}", answer.status));
        }
    }
    for gateway in [p0().await, p1().await] {
        for nominated in ["host", "host, x-forwarded-for", "X-Forwarded-Proto", "x-forwarded-host", ":authority"] {
            report.get(&gateway, "C06", "/public", &format!("Connection: {nominated}\r\n"), &BAD).await;
        }
    }
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_never_reach_the_upstream() {
    let mut report = Report::default();
    for (gateway, target) in protected().await {
        let chunked = format!(
            "POST {target} HTTP/1.1\r\nHost: api.test\r\n{}Transfer-Encoding: chunked\r\nTrailer: X-Auth-User\r\n\r\n2\r\nhi\r\n0\r\nX-Auth-User: hostile\r\nX-Real-IP: hostile\r\n\r\n",
            admin()
        );
        let answer = gateway.raw(chunked).await;
        let upstream = gateway.upstream.take();
        let fine = match answer.as_ref().map(|answer| answer.status) {
            Some(200) => clean(&upstream) && upstream[0].body == b"hi" && upstream[0].values("trailer").is_empty(),
            Some(400) => !upstream.iter().any(|request| request.head.contains("hostile")),
            _ => false,
        };
        report.note("C07", fine, || format!("{answer:?} {upstream:?}"));
        let bearer = format!("Bearer {}", Token::of("root").with("roles", vec!["admin"]).sign());
        let fields: &[h2raw::Field<'_>] = &[
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":authority", b"localhost"),
            (b":path", target.as_bytes()),
            (b"authorization", bearer.as_bytes()),
        ];
        let outcome = h2raw::with_trailers(&gateway, fields, b"hi", &[(b"x-auth-user", b"hostile")]).await;
        let upstream = gateway.upstream.take();
        report.note("C07", upstream.iter().all(|request| !request.head.contains("hostile")), || {
            format!("{outcome:?} {upstream:?}")
        });
    }
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_never_becomes_a_second_line() {
    let mut report = Report::default();
    let gateway = Harness::start(&policy("  GET /items: authenticated\n")).await;
    for user in ["a\r\nX-Auth-Roles: admin", "a\nb", "a\0b", "a\tb", "a\u{7f}b", &"x".repeat(4097)] {
        let answer = gateway.get("/items", &Token::of(user).line()).await;
        let upstream = gateway.upstream.take();
        report.note("C08", answer.status == 403 && upstream.is_empty(), || {
            format!("{}: {answer:?}", user.escape_debug())
        });
    }
    for (user, sent) in [
        ("Zoë", "Zo%C3%AB"),
        ("🦊", "%F0%9F%A6%8A"),
        ("a\u{202e}b", "a%E2%80%AEb"),
        (" a ", "%20a%20"),
        ("100%", "100%25"),
    ] {
        gateway.get("/items", &Token::of(user).line()).await;
        let request = gateway.upstream.one();
        report.note("C08", request.value("x-auth-user") == Some(sent), || format!("{user}: {request:?}"));
    }
    let roles = Token::of("eve").with("roles", vec!["user,admin", "b"]);
    gateway.get("/items", &roles.line()).await;
    let request = gateway.upstream.one();
    let parsed: Vec<&str> = request.value("x-auth-roles").unwrap_or_default().split(',').collect();
    report.note("C09", parsed == ["user%2Cadmin", "b"], || format!("{request:?}"));
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_sent_twice_grants_nothing() {
    let mut report = Report::default();
    let gateway = Harness::start(&policy(
        "  GET /allow: { access: public, where: header.x-role == \"admin\" }\n  GET /deny: { access: public, where: header.x-role != \"blocked\" }\n",
    ))
    .await;
    for (target, lines, status) in [
        ("/allow", "x-role: admin\r\n", 200),
        ("/allow", "x-role: user\r\nx-role: admin\r\n", 403),
        ("/allow", "x-role: admin\r\nx-role: admin\r\n", 403),
        ("/allow", "x-role: user,admin\r\n", 403),
        ("/allow", "x-role:\r\n", 403),
        ("/allow", "", 403),
        ("/deny", "x-role: fine\r\n", 200),
        ("/deny", "x-role: fine\r\nx-role: blocked\r\n", 403),
        ("/deny", "x-role: blocked\r\nx-role: fine\r\n", 403),
        ("/deny", "", 403),
    ] {
        let answer = gateway.get(target, lines).await;
        report.note("C10", answer.status == status, || format!("{target} {lines:?}: {}, not {status}", answer.status));
    }
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_header_is_overwritten_whatever_its_case() {
    let mut report = Report::default();
    let gateway = Harness::start(&format!(
        "version: 1\nupstream: http://UPSTREAM\n{IDENTITY}headers: {{ preset: auth, x-PLAN: '\"free\"', X-Mail: user.email }}\nroutes:\n  GET /items: authenticated\n  GET /open: public\n"
    ))
    .await;
    for name in ["X-Plan", "x-plan", "X-PLAN", "X_Plan", "x.plan"] {
        gateway.get("/items", &format!("{}{name}: hostile\r\n", Token::of("ada").line())).await;
        let request = gateway.upstream.one();
        report.note("C11", request.values("x-plan") == ["free"] && clean(std::slice::from_ref(&request)), || {
            format!("{request:?}")
        });
        gateway.get("/open", &format!("{name}: hostile\r\nX-Mail: hostile\r\n")).await;
        let request = gateway.upstream.one();
        report.note("C11", clean(std::slice::from_ref(&request)), || format!("{request:?}"));
    }
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_goes_upstream_as_validated_or_not_at_all() {
    let mut report = Report::default();
    let of = |forward: bool| {
        format!(
            "version: 1\nupstream: http://UPSTREAM\ndefaults: {{ forward_token: {forward} }}\nidentity:\n  tests: {{ preset: jwt, secret: env:SECRET, issuer: https://issuer.test, audience: api, from: [bearer, cookie token] }}\nroutes:\n  GET /items: authenticated\n  GET /maybe: optional\n  GET /open: public\n"
        )
    };
    let token = Token::of("ada");
    let (keeps, removes) = (Harness::start(&of(true)).await, Harness::start(&of(false)).await);

    keeps.get("/items", &token.line()).await;
    let request = keeps.upstream.one();
    report.note("C12", request.value("authorization") == Some(&*format!("Bearer {}", token.sign())), || {
        format!("{request:?}")
    });
    keeps.get("/maybe", "Authorization: Basic YTpi\r\n").await;
    let request = keeps.upstream.one();
    report.note("C12", request.values("authorization").is_empty(), || format!("not validated: {request:?}"));

    let cookie = format!("Cookie: a=\"1\"; token={}; b=2;c=3; __Host-session=x\r\n", token.sign());
    removes.get("/items", &cookie).await;
    let request = removes.upstream.one();
    let fine = request.value("cookie") == Some("a=\"1\"; b=2;c=3") && request.value("x-auth-method") == Some("cookie");
    report.note("C12", fine, || format!("{request:?}"));
    for target in ["/items", "/maybe", "/open"] {
        removes.get(target, &token.line()).await;
        let request = removes.upstream.one();
        report.note("C12", request.values("authorization").is_empty(), || format!("{target}: {request:?}"));
    }
    removes.get("/open", "Cookie: __Host-session=x\r\n").await;
    let request = removes.upstream.one();
    report.note("C12", request.values("cookie").is_empty(), || format!("{request:?}"));
    report.finish();
}

/// One sanitiser for every way to say who one is: bearer, cookie, nobody; allowed on every kind of route.
#[tokio::test(flavor = "multi_thread")]
async fn every_authenticator_cleans_every_header() {
    let mut report = Report::default();
    let gateway = Harness::start(
        "version: 1\nupstream: http://UPSTREAM\nidentity:\n  tests: { preset: jwt, secret: env:SECRET, issuer: https://issuer.test, audience: api, from: [bearer, cookie token] }\nheaders: { preset: remote }\nroutes:\n  GET /items: authenticated\n  GET /maybe: optional\n  GET /open: public\n",
    )
    .await;
    let token = Token::of("ada").sign();
    for (target, lines) in [
        ("/items", format!("Authorization: Bearer {token}\r\n")),
        ("/items", format!("Cookie: token={token}\r\n")),
        ("/maybe", format!("Authorization: Bearer {token}\r\n")),
        ("/maybe", format!("Cookie: token={token}\r\n")),
        ("/maybe", String::new()),
        ("/open", String::new()),
    ] {
        let hostile: String = FAMILY.iter().map(|name| format!("{name}: hostile\r\n")).collect();
        let answer = gateway.get(target, &format!("{lines}{hostile}")).await;
        let upstream = gateway.upstream.take();
        report.note("C13", answer.status == 200 && clean(&upstream), || format!("{target}: {answer:?} {upstream:?}"));
        let user = (target == "/items").then_some("ada");
        report.note("C13", user.is_none() || upstream[0].value("remote-user") == user, || format!("{upstream:?}"));
    }
    report.finish();
}

/// An app that can be reached around the gateway believes the signed assertion, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_verifies_the_assertion_cannot_be_told_anything_by_others() {
    let mut report = Report::default();
    let text = format!(
        "version: 1\napp: items\nupstream: http://UPSTREAM\nassertion: true\n{IDENTITY}roles: {{ editor: {{}} }}\n\
         routes:\n  GET /items: authenticated\n  GET /maybe: optional\n  GET /open: public\n"
    );
    let folder = tempfile::tempdir().unwrap();
    let services = services(&text, &folder).await;
    let gateway = Harness::with(&text, Upstream::start().await, |parts| parts.services = services).await;
    let forged = "X-Auth-Assertion: forged\r\nX_Auth_Assertion: forged\r\n";

    let jwks = gateway.get("/.well-known/jwks.json", "").await;
    let keys: Value = serde_json::from_slice(&jwks.body).unwrap();
    report.note("C14", jwks.status == 200 && !jwks.text().contains("\"d\""), || jwks.text());

    let reader = Token::of("ada").with("roles", serde_json::json!(["editor"])).with("scope", "read").line();
    gateway.get("/items", &format!("{reader}{forged}")).await;
    let asserted = gateway.upstream.one().value("x-auth-assertion").unwrap_or_default().to_owned();
    let claims = verify_assertion(Some(&asserted), &keys, "items", NOW).unwrap();
    let said = (&claims["sub"], &claims["roles"][0], &claims["scope"], &claims["issuer"], &claims["iss"]);
    report.note(
        "C14",
        format!("{said:?}").replace("String", "") == r#"(("ada"), ("editor"), ("read"), ("tests"), ("portcullis"))"#,
        || format!("{said:?}"),
    );
    report.note("C14", claims["exp"].as_i64() == Some(NOW + 60), || format!("{claims}"));

    let with_another_key = Token::of("ada").with("iss", "portcullis").with("aud", "items").sign();
    let kept = asserted.rsplit_once('.').unwrap().0;
    let unsigned = format!("{kept}.");
    let mut changed = asserted.clone();
    changed.replace_range(60..61, if asserted.get(60..61) == Some("A") { "B" } else { "A" });
    for (given, audience, now, why) in [
        (None, "items", NOW, "missing"),
        (Some("forged"), "items", NOW, "forged"),
        (Some(&*with_another_key), "items", NOW, "with another key"),
        (Some(&*unsigned), "items", NOW, "unsigned"),
        (Some(&*changed), "items", NOW, "changed"),
        (Some(&*asserted), "orders", NOW, "for another app"),
        (Some(&*asserted), "items", NOW + 60, "expired"),
    ] {
        let verified = verify_assertion(given, &keys, audience, now);
        report.note("C14", verified.is_err(), || format!("{why}: {verified:?}"));
    }

    // Of nobody nothing is said, and what an app was told is no token.
    for (target, lines) in [("/maybe", ""), ("/open", ""), ("/open", &*reader)] {
        gateway.get(target, &format!("{lines}{forged}")).await;
        let upstream = gateway.upstream.one();
        report.note("C14", upstream.values("x-auth-assertion").is_empty(), || format!("{target}: {upstream:?}"));
    }
    let answer = gateway.get("/items", &format!("Authorization: Bearer {asserted}\r\n")).await;
    report.note("C14", answer.status == 401, || format!("{answer:?}"));

    // Without a key nobody is vouched for, and what is open stays open.
    let without = Harness::start(&text).await;
    let answer = without.get("/items", &reader).await;
    report.note("C14", answer.status == 503 && answer.value("retry-after").is_some(), || format!("{answer:?}"));
    report.note("C14", without.get("/open", "").await.status == 200, || "public".to_owned());
    report.finish();
}

/// What an app does: fetch the keys once, then verify algorithm, key, signature, issuer, audience and lifetime.
fn verify_assertion(given: Option<&str>, keys: &Value, audience: &str, now: i64) -> Result<Value, &'static str> {
    let [header, claims, signature] = given.unwrap_or_default().split('.').collect::<Vec<_>>()[..] else {
        return Err("no assertion");
    };
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| "not base64url");
    let parse = |text: &str| serde_json::from_slice::<Value>(&decode(text)?).map_err(|_| "no JSON");
    let (header, parsed) = (parse(header)?, parse(claims)?);
    if (&header["alg"], &header["typ"]) != (&"ES256".into(), &"assertion+jwt".into()) {
        return Err("another kind of token");
    }
    let key = keys["keys"].as_array().unwrap().iter().find(|key| key["kid"] == header["kid"] && key["alg"] == "ES256");
    let key = key.ok_or("an unknown key")?;
    let coordinate = |name: &str| decode(key[name].as_str().unwrap_or_default());
    let point = [vec![4], coordinate("x")?, coordinate("y")?].concat();
    let signed = given.unwrap_or_default().rsplit_once('.').unwrap_or_default().0;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(signed.as_bytes(), &decode(signature)?)
        .map_err(|_| "a wrong signature")?;
    match (parsed["iss"].as_str(), parsed["aud"].as_str(), parsed["exp"].as_i64()) {
        (Some("portcullis"), Some(aud), Some(exp)) if aud == audience && now < exp => Ok(parsed),
        _ => Err("of another gateway, for another app, or expired"),
    }
}

/// A store with a key for assertions in it.
async fn services(policy: &str, folder: &tempfile::TempDir) -> Arc<Live<Services>> {
    let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(NOW)));
    let mut outside = Outside::without_store(clock, Arc::new(SeededRandom::new(7)));
    outside.store = StoreUrl::parse("sqlite:portcullis.db", folder.path(), "store").unwrap();
    let policy = compile(&policy.replace("UPSTREAM", "127.0.0.1:9"), &[]);
    let (services, keeping) = Keeper::start(outside, Arc::new(Live::new(policy))).await.unwrap();
    tokio::spawn(keeping);
    services
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_cannot_speak_in_our_name() {
    let mut report = Report::default();
    let upstream = Upstream::answering(|_| {
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: __Host-session=stolen; Path=/\r\nSet-Cookie: app=1\r\nX-Auth-User: hostile\r\nX_Auth_Roles: hostile\r\nRemote-User: hostile\r\nKeep-Alive: timeout=99\r\nX-App: 1\r\n\r\nok".to_vec()
    })
    .await;
    let gateway = Harness::with(&policy("  /**: public\n"), upstream, |_| {}).await;
    let answer = gateway.get("/x", "").await;
    let fine = answer.values("set-cookie") == ["app=1"]
        && !answer.head.contains("hostile")
        && !answer.head.contains("timeout=99")
        && answer.value("x-app") == Some("1")
        && answer.values("server").is_empty();
    report.note("C15", fine, || format!("{answer:?}"));
    let mut client = Client::connect_tls(gateway.tls, &gateway.certificate).await;
    client.send("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let answer = client.answer().await.unwrap();
    report.note("C15", !answer.head.contains("hostile"), || format!("{answer:?}"));
    report.finish();
}

/// What stands in no row and is the other half of all of them: other headers arrive as they were sent.
#[tokio::test(flavor = "multi_thread")]
async fn ordinary_headers_arrive_as_they_were_sent() {
    let gateway = p1().await;
    gateway
        .raw(get("/x", "Accept: a/b;q=0.5\r\nX-Custom_One: 1\r\nX-Two: a\r\nX-Two: b\r\nUser-Agent: test/1 (x)\r\n"))
        .await;
    let request = gateway.upstream.one();
    assert_eq!(request.value("accept"), Some("a/b;q=0.5"));
    assert_eq!(request.value("x-custom_one"), Some("1"));
    assert_eq!(request.values("x-two"), ["a", "b"]);
    assert_eq!(request.value("user-agent"), Some("test/1 (x)"));
    let mut report = Report::default();
    report.get(&gateway, "C01", "/admin", "X-Auth-Roles: admin\r\n", &Refused(&[401])).await;
    report.get(&gateway, "C01", "/public", "X-Auth-Roles: admin\r\n", &canon("/public")).await;
    report.finish();
}
