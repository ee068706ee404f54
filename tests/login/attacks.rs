//! Rows J, K and P of the attack tables that need a whole gateway: forms, limits, and what is written down.

use std::fs;

use super::node::{Answer, Node, PASSWORD, POLICY, SECRET, Site, client, get, login, post, refresh};
use super::server;
use super::servers::Postgres;

const TRUST: (&str, &str) = ("PORTCULLIS_TRUSTED_PROXIES", "127.0.0.1/32");

fn site(policy: &str, environment: &[(&str, &str)]) -> Site {
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Site::new(policy, &environment)
}

fn form(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

/// A login from an address.
async fn from(client: &reqwest::Client, node: &Node, address: &str, user: &str, password: &str) -> (Answer, bool) {
    let request = client.post(node.url("/token")).header("x-forwarded-for", address);
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let response = request.body(form(&[("username", user), ("password", password)])).send().await.unwrap();
    let (status, again) = (response.status().as_u16(), response.headers().contains_key("retry-after"));
    let json = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    (Answer { status, json }, again)
}

/// J02: spellings that are one account are one count.
#[tokio::test(flavor = "multi_thread")]
async fn spellings_of_a_name_are_one_account_and_one_count() {
    let _alone = super::ALONE.lock().await;
    let policy = POLICY.replace("lockout: none", "lockout: { after: 4, within: 1h, for: 1h }");
    let site = site(&policy, &[TRUST]);
    site.user("jöhn");
    let (node, client) = (site.node(), client());
    let spellings = ["JÖHN", "jo\u{308}hn", "ｊöｈｎ", "Jöhn"];
    for spelling in spellings {
        let (answer, _) = from(&client, &node, "203.0.113.1", spelling, PASSWORD).await;
        assert_eq!(answer.status, 200, "{spelling}: {answer:?}");
    }
    for (number, spelling) in spellings.iter().enumerate() {
        let (answer, _) = from(&client, &node, "203.0.113.2", spelling, &format!("wrong {number}")).await;
        assert_eq!(answer.status, 400);
    }
    for spelling in spellings {
        let (answer, _) = from(&client, &node, "203.0.113.2", spelling, PASSWORD).await;
        assert_eq!((answer.status, answer.text("error").as_str()), (400, "invalid_grant"), "{spelling} is locked");
    }
    // J03: the owner, elsewhere, is not locked out by a stranger.
    assert_eq!(from(&client, &node, "203.0.113.3", "jöhn", PASSWORD).await.0.status, 200);
}

/// J03: limits by address and by account answer 429 in the form of RFC 6749.
#[tokio::test(flavor = "multi_thread")]
async fn too_many_logins_from_an_address_or_for_an_account_are_told_to_wait() {
    let _alone = super::ALONE.lock().await;
    let policy = POLICY.replace("limit: none", "limit: [6/hour by ip, 4/hour by account]");
    let site = site(&policy, &[TRUST]);
    for name in ["ada", "bob"] {
        site.user(name);
    }
    let (node, client) = (site.node(), client());
    let limited = |(answer, again): &(Answer, bool)| {
        assert!(*again, "Retry-After");
        assert_eq!((answer.status, answer.text("error").as_str()), (429, "temporarily_unavailable"), "{answer:?}");
        assert!(!answer.text("error_description").is_empty());
    };
    for number in 0..6 {
        assert_eq!(from(&client, &node, "203.0.113.1", &format!("nobody-{number}"), "x").await.0.status, 400);
    }
    let response = client.post(node.url("/token")).header("x-forwarded-for", "203.0.113.1");
    let response = response.header("content-type", "application/x-www-form-urlencoded");
    let response = response.body(form(&[("username", "bob"), ("password", PASSWORD)])).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 429, "by address");
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(from(&client, &node, "203.0.113.2", "bob", PASSWORD).await.0.status, 200);
    for number in 0..4 {
        assert_eq!(from(&client, &node, &format!("203.0.114.{number}"), "ada", "x").await.0.status, 400);
    }
    limited(&from(&client, &node, "203.0.115.1", "Ada", "x").await);
    assert_eq!(from(&client, &node, "203.0.115.1", "bob", PASSWORD).await.0.status, 200, "others are not concerned");
}

/// J05, J09, K08: what the endpoints say to each form.
#[tokio::test(flavor = "multi_thread")]
async fn forms_are_answered_as_documented() {
    let _alone = super::ALONE.lock().await;
    let site = site(POLICY, &[]);
    site.user("ada");
    let (node, client) = (site.node(), client());
    let url = node.url("/token");
    let right = form(&[("username", "ada"), ("password", PASSWORD)]);
    let of_size = |size: usize| format!("username=ada&password={}", "x".repeat(size));
    const FORM: &str = "application/x-www-form-urlencoded";
    for (query, content_type, body, status, error) in [
        ("", FORM, right.clone(), 200, ""),
        ("", "application/json", serde_json::json!({"username": "ada", "password": PASSWORD}).to_string(), 200, ""),
        ("", FORM, format!("{right}&username=ada"), 400, "invalid_request"),
        ("", FORM, format!("{right}&grant_type=implicit"), 400, "unsupported_grant_type"),
        ("", "text/plain", right.clone(), 400, "invalid_request"),
        ("?username=ada&password=x", FORM, String::new(), 400, "invalid_request"),
        ("?grant_type=password", FORM, right.clone(), 400, "invalid_request"),
        ("", FORM, of_size(1), 400, "invalid_grant"),
        ("", FORM, of_size(1024), 400, "invalid_grant"),
        ("", FORM, of_size(1025), 400, "invalid_request"),
        ("", FORM, of_size(1_000_000), 413, "invalid_request"),
    ] {
        let request = client.post(format!("{url}{query}")).header("content-type", content_type).body(body.clone());
        let response = request.send().await.unwrap();
        let what = format!("{query} {content_type} {}", body.chars().take(60).collect::<String>());
        assert_eq!(response.status().as_u16(), status, "{what}");
        let header = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        assert_eq!((header("cache-control").as_str(), header("pragma").as_str()), ("no-store", "no-cache"), "{what}");
        let json: serde_json::Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!(json["error"].as_str().unwrap_or_default(), error, "{what}");
    }
    assert_eq!(client.get(&url).send().await.unwrap().status().as_u16(), 405);

    let tokens = login(&client, &node, "ada").await;
    let revoke = |token: String, hint: &'static str| {
        let (client, url) = (client.clone(), node.url("/revoke"));
        async move { post(&client, &url, &[("token", &token), ("token_type_hint", hint)]).await.unwrap().status }
    };
    assert_eq!(revoke("unknown".into(), "refresh_token").await, 200);
    assert_eq!(get(&client, &node.url("/items"), &tokens.text("access_token")).await.unwrap(), 200);
    assert_eq!(revoke(tokens.text("refresh_token"), "access_token").await, 200);
    assert_eq!(get(&client, &node.url("/items"), &tokens.text("access_token")).await.unwrap(), 401);
}

/// J08: whatever alone is wrong with a request for tokens is enough to refuse it.
#[tokio::test(flavor = "multi_thread")]
async fn each_check_of_the_token_endpoint_refuses_alone() {
    let _alone = super::ALONE.lock().await;
    let site = site(POLICY, &[]);
    for name in ["ada", "off"] {
        site.user(name);
    }
    let (node, client) = (site.node(), client());
    let off = login(&client, &node, "off").await;
    assert!(site.command(&["user", "disable", "off"]).output().unwrap().status.success());
    let used = login(&client, &node, "ada").await.text("refresh_token");
    let ended = login(&client, &node, "ada").await.text("refresh_token");
    assert_eq!(post(&client, &node.url("/revoke"), &[("token", &ended)]).await.unwrap().status, 200);
    let (off, access) = (off.text("refresh_token"), login(&client, &node, "ada").await.text("access_token"));
    let password = |user, password| vec![("grant_type", "password"), ("username", user), ("password", password)];
    let refresh = |token| vec![("grant_type", "refresh_token"), ("refresh_token", token)];
    let with_scope = |mut form: Vec<(&'static str, &str)>, scope: &'static str| -> Vec<(String, String)> {
        form.push(("scope", scope));
        form.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    for (what, form, error) in [
        ("nothing", with_scope(password("ada", PASSWORD), "items"), ""),
        ("the password", with_scope(password("ada", "wrong"), "items"), "invalid_grant"),
        ("the name", with_scope(password("nobody", PASSWORD), "items"), "invalid_grant"),
        ("the user", with_scope(password("off", PASSWORD), "items"), "invalid_grant"),
        ("the scope", with_scope(password("ada", PASSWORD), "admin"), "invalid_scope"),
        ("the user of a refresh token", with_scope(refresh(&off), "items"), "invalid_grant"),
        ("the session of a refresh token", with_scope(refresh(&ended), "items"), "invalid_grant"),
        ("the kind of a token", with_scope(refresh(&access), "items"), "invalid_grant"),
        ("the scope of a refresh token", with_scope(refresh(&used), "items admin"), "invalid_scope"),
        ("nothing of a refresh token", with_scope(refresh(&used), "items"), ""),
    ] {
        let form: Vec<_> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let answer = post(&client, &node.url("/token"), &form).await.unwrap();
        assert_eq!(answer.json["error"].as_str().unwrap_or_default(), error, "wrong is {what}: {answer:?}");
        assert_eq!(answer.status, if error.is_empty() { 200 } else { 400 }, "wrong is {what}");
    }
}

/// P04, P07: a refusal says nothing of what is behind it.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_name_no_version_address_or_cause() {
    let _alone = super::ALONE.lock().await;
    let site = site(POLICY, &[]);
    let (node, client) = (site.node(), client());
    let urlencoded = "application/x-www-form-urlencoded";
    for (request, status) in [
        (client.get(node.url("/nowhere")), 404),
        (client.delete(node.url("/items")), 405),
        (client.get(node.url("/items")), 401),
        (client.get(node.url("/items")).bearer_auth("junk"), 401),
        (client.get(node.url("/items/%00")), 400),
        (client.post(node.url("/token")).header("content-type", urlencoded).body("username=a&password=b"), 400),
        (client.post(node.url("/token")).header("content-type", "application/json").body("{\"username\": [}"), 400),
        (client.post(node.url("/introspect")).header("content-type", urlencoded).body("token=x"), 403),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{}", response.url());
        for name in ["server", "via", "x-powered-by"] {
            assert!(!response.headers().contains_key(name), "{name}");
        }
        let headers = format!("{:?}", response.headers());
        let said = format!("{headers} {}", response.text().await.unwrap()).to_ascii_lowercase();
        for bad in ["127.0.0.1", env!("CARGO_PKG_VERSION"), "sqlite", "src/", "panicked", "line 1", "column", "serde"] {
            assert!(!said.replace(&node.address.to_string(), "").contains(bad), "`{bad}` in {said}");
        }
    }
}

/// P01, R16: whatever happens, at whatever level, secrets are in no log, metric, status or refusal.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_written_nowhere() {
    let _alone = super::ALONE.lock().await;
    let Some(postgres) = server(Postgres::start()) else { return };
    let canary = "canary-database-password";
    // Quieter levels say less of the same.
    for level in ["info", "debug", "trace"] {
        let database = postgres.database().replace("portcullis@", &format!("portcullis:{canary}@"));
        let site = site(
            &POLICY.replace("lockout: none", "introspect: authenticated, lockout: { after: 3, within: 1h, for: 1h }"),
            &[
                ("DATABASE_URL", &database),
                ("PORTCULLIS_LOG__LEVEL", level),
                ("PORTCULLIS_LOG__DECISIONS", "file:decisions"),
            ],
        );
        site.user("ada");
        let (node, client) = (site.node(), client());
        let mut secrets = vec![PASSWORD.to_owned(), PASSWORD.replace(' ', "+"), canary.to_owned(), SECRET.to_owned()];
        let mut said = String::new();
        let tokens = login(&client, &node, "ada").await;
        let renewed = refresh(&client, &node.url("/token"), &tokens.text("refresh_token")).await.unwrap();
        for answer in [&tokens, &renewed] {
            secrets.push(answer.text("refresh_token"));
            let access = answer.text("access_token");
            secrets.push(access.rsplit('.').next().unwrap().to_owned());
            secrets.push(access);
        }
        let (access, token) = (tokens.text("access_token"), tokens.text("refresh_token"));
        let wrong = "canary-wrong-password";
        secrets.push(wrong.to_owned());
        let urlencoded = "application/x-www-form-urlencoded";
        let token_url = node.url("/token");
        for request in [
            client
                .post(&token_url)
                .header("content-type", urlencoded)
                .body(form(&[("username", "ada"), ("password", wrong)])),
            // Typed into the wrong field.
            client
                .post(&token_url)
                .header("content-type", urlencoded)
                .body(form(&[("username", wrong), ("password", wrong)])),
            client
                .post(&token_url)
                .header("content-type", urlencoded)
                .body(format!("username=ada&password={wrong}&password=%zz")),
            client
                .post(&token_url)
                .header("content-type", "application/json")
                .body(format!("{{\"password\": \"{wrong}\"")),
            client.post(&token_url).header("content-type", "text/plain").body(wrong),
            client.post(format!("{token_url}?password={wrong}&refresh_token={token}")),
            client.get(node.url(&format!("/items?access_token={access}&password={wrong}"))),
            client.get(node.url("/items")).bearer_auth(&access),
            client.get(node.url("/items")).bearer_auth(format!("{access}x")),
            client.get(node.url("/items")).basic_auth("ada", Some(wrong)),
            client.get(node.url("/items")).bearer_auth(&token),
            client.get(node.url("/items")).header("authorization", format!("Bearer {access}, Bearer {access}")),
            client
                .post(node.url("/introspect"))
                .bearer_auth(&access)
                .header("content-type", urlencoded)
                .body(form(&[("token", &token)])),
            client
                .post(node.url("/revoke"))
                .header("content-type", urlencoded)
                .body(format!("token={token}&token={access}")),
            client
                .post(node.url("/logout"))
                .bearer_auth(&access)
                .header("content-type", urlencoded)
                .body(form(&[("refresh_token", &token)])),
            client
                .post(&token_url)
                .header("content-type", urlencoded)
                .body(form(&[("grant_type", "refresh_token"), ("refresh_token", &token)])),
        ] {
            let response = request.send().await.unwrap();
            said.push_str(&format!("{:?}", response.headers()));
            said.push_str(&response.text().await.unwrap());
        }
        for path in ["/metrics", "/-/status", "/-/ready"] {
            said.push_str(
                &client.get(format!("http://{}{path}", node.admin)).send().await.unwrap().text().await.unwrap(),
            );
        }
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let decisions = fs::read_to_string(site.folder.path().join("decisions")).unwrap();
        // Each place holds something: a secret there would be found as these are.
        for (text, expected) in [
            (&node.log(), "policy loaded"),
            (&decisions, "\"event\":\"login\""),
            (&decisions, "\"account\":\"ada\""),
            (&decisions, "\"path\":\"/items\""),
            (&said, "portcullis_logins_total"),
            (&said, "invalid_token"),
        ] {
            assert!(text.contains(expected), "{expected} is missing at {level}");
        }
        for secret in &secrets {
            for (place, text) in [("log", &node.log()), ("decisions", &decisions), ("answers", &said)] {
                assert!(!text.contains(secret.as_str()), "{secret} is in {place} at {level}");
            }
        }
    }
}

/// P02, P03: what a client says of itself is escaped, and an event says who, when, where and why.
#[tokio::test(flavor = "multi_thread")]
async fn audit_lines_are_whole_and_cannot_be_forged() {
    let _alone = super::ALONE.lock().await;
    let site = site(POLICY, &[("PORTCULLIS_LOG__DECISIONS", "file:decisions")]);
    site.user("ada");
    let (node, client) = (site.node(), client());
    let long = "A".repeat(6000);
    let agents = ["\u{202e}evil\u{2028}😀<script>", "tab\there", "\"},{\"event\":\"forged\"", long.as_str()];
    let names = ["ada\u{1b}[31m", "a\r\n{\"v\":1,\"event\":\"forged\"}", "\u{202e}\u{2028}\0", long.as_str()];
    for (agent, name) in agents.iter().zip(names) {
        let agent = reqwest::header::HeaderValue::from_bytes(agent.as_bytes()).unwrap();
        let request = client.post(node.url("/token")).header("user-agent", agent);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let response = request.body(form(&[("username", name), ("password", "x")])).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 400);
    }
    let tokens = login(&client, &node, "ada").await;
    let renewed = refresh(&client, &node.url("/token"), &tokens.text("refresh_token")).await.unwrap();
    let ended = post(&client, &node.url("/revoke"), &[("token", &renewed.text("refresh_token"))]).await.unwrap();
    assert_eq!(ended.status, 200);
    let access = login(&client, &node, "ada").await.text("access_token");
    assert!(client.post(node.url("/logout")).bearer_auth(&access).send().await.unwrap().status().is_success());
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;

    let text = fs::read_to_string(site.folder.path().join("decisions")).unwrap();
    let bad = |char: char| {
        char != '\n' && (char.is_control() || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{2029}'))
    };
    assert!(!text.contains(bad), "{text:?}");
    let mut seen = Vec::new();
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let Some(event) = line["event"].as_str() else { continue };
        assert!(line["ts"].as_str().is_some_and(|at| at.ends_with('Z')), "{line}");
        for field in ["id", "app", "outcome", "ip", "iss"] {
            assert!(line[field].is_string(), "{field} of {line}");
        }
        assert_eq!(line["outcome"] == "failure", line["reason"].is_string(), "{line}");
        assert_eq!(line["outcome"] == "success", line["sub"].is_string() && line["sid"].is_string(), "{line}");
        seen.push(format!("{event} {}", line["outcome"].as_str().unwrap()));
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen, ["login failure", "login success", "logout success", "refresh success", "revoke success"]);
}
