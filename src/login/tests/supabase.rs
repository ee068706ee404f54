//! `via: supabase`: forms in, what the project was asked, answers out.

use std::sync::atomic::AtomicU16;

use crate::fetch::Fetcher;
use crate::policy::set::{OnExpired, SupabaseProject};
use crate::provider::Supabase;
use crate::provider::tests::server::{Server, answer};
use crate::token::algorithm::Algorithm;
use crate::token::mint::Minter;

use super::*;

const SECRET: &str = "q8Jz2kVb7mWn4xRt6yHc9pLd3sFg5aEu";
const THEIRS: &str = "
version: 1
app: items-api
upstream: http://localhost:8000
login: { via: supabase, lockout: { after: 3, within: 15m, for: 15m } }
identity:
  project:
    preset: supabase
    url: http://127.0.0.1:1
    key: env:SUPABASE_KEY
    jwt_secret: env:SUPABASE_JWT_SECRET
routes:
  GET /users/me: authenticated
  GET /items: { scope: items }
";

fn access(scope: Option<&str>) -> String {
    let now = START.as_seconds();
    let mut claims = json!({
        "iss": "http://127.0.0.1:1/auth/v1", "aud": "authenticated", "role": "authenticated",
        "sub": "7b1d9a52-6f1e-4c3a-9d2b-0a4f5e6c7d81", "session_id": "0d3f2c1b-8a79-4e65-b4c3-2d1e0f9a8b7c",
        "iat": now, "exp": now + 3600,
    });
    if let Some(scope) = scope {
        claims["scope"] = json!(scope);
    }
    let minter = Minter::from_secret(SECRET.as_bytes(), Algorithm::HS256).unwrap();
    minter.mint(claims.as_object().unwrap(), None, None).unwrap()
}

fn session(scope: Option<&str>) -> Value {
    json!({
        "access_token": access(scope), "token_type": "bearer", "expires_in": 3600, "expires_at": 4_102_444_800_u64,
        "refresh_token": "abcdefghijkl", "user": { "id": "7b1d9a52", "email": "ada@example.com" },
        "weak_password": null,
    })
}

/// A gateway in front of a project that answers one thing.
struct Project {
    world: World,
    server: Server,
}

impl Project {
    async fn at(server: Server, text: &str) -> Self {
        let mut sources = Sources::default();
        sources.add("policies/test.yaml", text);
        let (document, _) = read(&sources);
        let (checked, found) = check(document, &sources, &Options::default());
        let Some(checked) = checked else { panic!("{found:?}") };
        let references = References::none()
            .with_env("SUPABASE_KEY", Secret::new("sb_publishable_k".to_owned()))
            .with_env("SUPABASE_JWT_SECRET", Secret::new(SECRET.to_owned()));
        let candidate = compile(&checked, &sources, &references, Revision::of(&sources)).unwrap();
        let mut policy = Arc::clone(candidate.policy());
        drop(candidate);
        let project = SupabaseProject {
            url: server.url.as_str().into(),
            key: Some(Secret::new("sb_publishable_k".to_owned())),
            on_expired: OnExpired::Unauthenticated,
            session_check: None,
            forward_client_ip: Some(Secret::new("sb_secret_s".to_owned())),
        };
        Arc::get_mut(&mut policy).unwrap().issuers[0].supabase = Some(Arc::new(project));
        let world = World::new(POLICY).await;
        let parts = &world.login.parts;
        let issuers = Issuers::new(None, Arc::clone(&parts.clock), Arc::clone(&parts.random));
        issuers.refresh(&policy).await.unwrap();
        let login = Login::new(Parts {
            stores: Arc::clone(&parts.stores),
            revoked: Arc::clone(&parts.revoked),
            hasher: hasher(),
            issuers: issuers.live(),
            supabase: Supabase::new(Fetcher::impatient()),
            clock: Arc::clone(&parts.clock),
            random: Arc::new(SeededRandom::new(3)),
            audit: Arc::new(Audit::none()),
        });
        Self { world: World { policy, login: Arc::new(login), ..world }, server }
    }

    async fn answering(status: u16, body: &Value) -> Self {
        Self::at(Server::json(status, body), THEIRS).await
    }

    async fn password(&self, password: &str) -> Answer {
        self.world.token(&format!("grant_type=password&username=Ada%40example.com&password={password}")).await
    }

    async fn refresh(&self) -> Answer {
        self.world.refresh("abcdefghijkl").await
    }
}

fn refusal(code: &str) -> Value {
    json!({ "code": code, "message": "in their words" })
}

#[tokio::test]
async fn a_form_becomes_a_password_grant_and_its_session_an_answer_without_the_user() {
    let project = Project::answering(200, &session(None)).await;
    for body in [
        "grant_type=password&username=Ada%40example.com&password=p+w%22",
        "username=Ada%40example.com&password=p+w%22&client_id=None&client_secret=",
    ] {
        let answer = project.world.token(body).await;
        assert_eq!(answer.word(), "200");
        assert_eq!((answer.header("cache-control"), answer.header("pragma")), (Some("no-store"), Some("no-cache")));
        assert_eq!(
            answer.body,
            json!({
                "access_token": access(None), "token_type": "bearer", "expires_in": 3600, "scope": "",
                "refresh_token": "abcdefghijkl",
            })
        );
    }
    let asked = project.server.asked.lock().first().cloned().unwrap();
    assert!(asked.starts_with("POST /auth/v1/token?grant_type=password "), "{asked}");
    // The name as it was typed: the project knows its own users.
    assert!(asked.ends_with(r#"{"email":"Ada@example.com","password":"p w\""}"#), "{asked}");
    assert!(asked.contains("sb-forwarded-for: 203.0.113.9\r\n") && asked.contains("apikey: sb_secret_s\r\n"));
    let phone = project.world.token("username=%2B4915112345678&password=x").await;
    assert_eq!(phone.word(), "200");
    assert!(project.server.asked.lock()[2].ends_with(r#"{"phone":"4915112345678","password":"x"}"#));
}

#[tokio::test]
async fn a_refresh_goes_through_and_gives_the_next_token() {
    let project = Project::answering(200, &session(None)).await;
    let answer = project.refresh().await;
    assert_eq!((answer.word().as_str(), answer.refresh()), ("200", "abcdefghijkl"));
    assert!(project.server.asked.lock()[0].ends_with(r#"{"refresh_token":"abcdefghijkl"}"#));
    for bad in ["", "%20", "a%0Ab", &"x".repeat(513)] {
        let answer = project.world.refresh(bad).await;
        assert!(answer.word().starts_with("400 invalid_"), "{bad}");
    }
    assert_eq!(project.server.times(), 1, "what nobody can have is not asked about");
}

/// C2: what each refusal of the project becomes.
#[tokio::test]
async fn refusals_of_a_password_have_their_own_words() {
    const BAD: &str = "Incorrect username or password";
    for (status, body, expected, description) in [
        (400, refusal("invalid_credentials"), "400 invalid_grant", Some(BAD)),
        (400, json!({ "error": "invalid_grant", "error_description": "x" }), "400 invalid_grant", Some(BAD)),
        (400, json!({ "code": 400, "msg": "Invalid login credentials" }), "400 invalid_grant", Some(BAD)),
        (400, refusal("validation_failed"), "400 invalid_grant", Some(BAD)),
        (400, refusal("email_not_confirmed"), "400 invalid_grant", Some("Email not confirmed")),
        (400, refusal("phone_not_confirmed"), "400 invalid_grant", Some("Phone not confirmed")),
        (400, refusal("user_banned"), "400 invalid_grant", Some("User is banned")),
        (400, refusal("captcha_failed"), "400 invalid_request", None),
        (422, refusal("email_provider_disabled"), "400 invalid_request", None),
        (429, refusal("over_request_rate_limit"), "429 temporarily_unavailable", None),
        (401, json!({ "message": "Invalid API key" }), "503 temporarily_unavailable", None),
        (500, refusal("invalid_credentials"), "503 temporarily_unavailable", None),
        (504, refusal("request_timeout"), "503 temporarily_unavailable", None),
        (200, json!({ "user": {} }), "503 temporarily_unavailable", None),
    ] {
        let answer = Project::answering(status, &body).await.password("x").await;
        assert_eq!(answer.word(), expected, "{body}");
        assert_eq!(answer.header("retry-after").is_some(), !expected.starts_with("400"), "{body}");
        if let Some(description) = description {
            assert_eq!(answer.text("error_description"), description);
        }
        assert!(!answer.response.body.windows(11).any(|text| text == b"their words"), "nothing of theirs is repeated");
    }
}

/// A3.1: on a refresh only what says for certain that the session is over is a refusal.
#[tokio::test]
async fn a_refresh_that_cannot_be_decided_is_503() {
    for (status, body, expected) in [
        (400, refusal("refresh_token_not_found"), "400 invalid_grant"),
        (400, refusal("refresh_token_already_used"), "400 invalid_grant"),
        (400, refusal("session_expired"), "400 invalid_grant"),
        (400, refusal("user_banned"), "400 invalid_grant"),
        (400, json!({ "error": "invalid_client" }), "400 invalid_grant"),
        (409, refusal("conflict"), "503 temporarily_unavailable"),
        (429, refusal("over_request_rate_limit"), "503 temporarily_unavailable"),
        (422, refusal("hook_timeout"), "503 temporarily_unavailable"),
        (500, refusal("refresh_token_not_found"), "503 temporarily_unavailable"),
        (403, json!("blocked by a firewall"), "503 temporarily_unavailable"),
    ] {
        let answer = Project::answering(status, &body).await.refresh().await;
        assert_eq!(answer.word(), expected, "{body}");
        assert_eq!(answer.header("retry-after").is_some(), expected.starts_with("503"), "{body}");
    }
    let gone = Server { url: "http://127.0.0.1:1".to_owned(), asked: Arc::default() };
    let project = Project::at(gone, THEIRS).await;
    assert_eq!(project.refresh().await.word(), "503 temporarily_unavailable");
    assert_eq!(project.password("x").await.word(), "503 temporarily_unavailable");
}

#[tokio::test]
async fn failures_lock_the_pair_and_the_project_is_not_asked_any_more() {
    let project = Project::answering(400, &refusal("invalid_credentials")).await;
    let mut texts = Vec::new();
    for guess in 0..6 {
        let answer = project.password(&format!("guess{guess}")).await;
        texts.push((answer.word(), answer.response.body.clone()));
    }
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    assert_eq!(project.server.times(), 3);
    let elsewhere = project.world.token_from("198.51.100.7", "username=ada%40example.com&password=x").await;
    assert_eq!((elsewhere.word().as_str(), project.server.times()), ("400 invalid_grant", 4));
    for nobody in ["ada", "a%00b", "%40%01"] {
        let answer = project.world.token_from("198.51.100.8", &format!("username={nobody}&password=x")).await;
        assert!(answer.word().starts_with("400"), "{nobody}");
    }
    assert_eq!(project.server.times(), 4, "a name that nobody can have is not asked about");
}

#[tokio::test]
async fn an_outage_counts_as_no_attempt_and_a_success_forgets_the_others() {
    let status = Arc::new(AtomicU16::new(503));
    let seen = Arc::clone(&status);
    let server = Server::with(move |_| {
        let body = match seen.load(Ordering::SeqCst) {
            200 => session(None),
            _ => refusal("invalid_credentials"),
        };
        (answer(seen.load(Ordering::SeqCst), "", &body.to_string()), Duration::ZERO)
    });
    let project = Project::at(server, THEIRS).await;
    for guess in 0..6 {
        assert_eq!(project.password(&format!("a{guess}")).await.word(), "503 temporarily_unavailable");
    }
    status.store(400, Ordering::SeqCst);
    for guess in 0..2 {
        assert_eq!(project.password(&format!("b{guess}")).await.word(), "400 invalid_grant");
    }
    status.store(200, Ordering::SeqCst);
    assert_eq!(project.password("right").await.word(), "200");
    status.store(400, Ordering::SeqCst);
    for guess in 0..3 {
        assert_eq!(project.password(&format!("c{guess}")).await.word(), "400 invalid_grant");
    }
    assert_eq!(project.server.times(), 12, "all of them were asked");
    assert_eq!(project.password("d").await.word(), "400 invalid_grant");
    assert_eq!(project.server.times(), 12);
}

#[tokio::test]
async fn scopes_are_those_of_the_token_and_a_login_with_none_left_ends_at_the_project_too() {
    let project = Project::answering(200, &session(Some("me items"))).await;
    for (scope, expected) in [("", "me items"), ("items", "items"), ("items+admin", "items")] {
        let answer = project.world.token(&format!("username=a%40b.example&password=x&scope={scope}")).await;
        assert_eq!((answer.word().as_str(), answer.text("scope")), ("200", expected));
        let answer = project.world.token(&format!("grant_type=refresh_token&refresh_token=r&scope={scope}")).await;
        assert_eq!((answer.word().as_str(), answer.text("scope")), ("200", expected));
    }
    // What is asked for must not cost the session.
    let answer = project.world.token("grant_type=refresh_token&refresh_token=r&scope=admin").await;
    assert_eq!((answer.word().as_str(), answer.text("scope")), ("200", ""));
    let answer = project.world.token("username=a%40b.example&password=x&scope=admin").await;
    assert_eq!(answer.word(), "400 invalid_scope");
    let last = project.server.asked.lock().last().cloned().unwrap();
    assert!(last.starts_with("POST /auth/v1/logout?scope=local ") && last.contains("authorization: Bearer ey"));
    let strict = THEIRS.replace("via: supabase,", "via: supabase, scope_mode: strict,");
    let project = Project::at(Server::json(200, &session(Some("me items"))), &strict).await;
    let answer = project.world.token("username=a%40b.example&password=x&scope=items+admin").await;
    assert_eq!(answer.word(), "400 invalid_scope");
}

#[tokio::test]
async fn a_store_that_is_down_is_503_and_the_project_is_not_asked() {
    let project = Project::answering(200, &session(None)).await;
    project.world.flaky.attempts.0.store(true, Ordering::SeqCst);
    assert_eq!(project.password("x").await.word(), "503 temporarily_unavailable");
    assert_eq!(project.server.times(), 0);
}

#[tokio::test]
async fn fastapi_clients_see_a_bad_password_as_401() {
    let text = THEIRS.replace("app: items-api", "app: items-api\nerrors: fastapi");
    for code in ["invalid_credentials", "email_not_confirmed"] {
        let project = Project::at(Server::json(400, &refusal(code)), &text).await;
        let answer = project.password("x").await;
        assert_eq!((answer.word().as_str(), answer.header("www-authenticate")), ("401 invalid_grant", Some("Bearer")));
    }
}

#[tokio::test]
async fn metadata_names_the_endpoint_here_and_the_keys_there() {
    let project = Project::answering(200, &session(None)).await;
    let (policy, app) = (&project.world.policy, &project.world.policy.apps[0]);
    let login = app.login.as_ref().unwrap();
    let origin = "https://gateway.example";
    let document = metadata::authorization_server(policy, app, login, origin).unwrap();
    let document: Value = serde_json::from_slice(&document.body).unwrap();
    assert_eq!(document["issuer"], origin);
    assert_eq!(document["token_endpoint"], "https://gateway.example/token");
    assert_eq!(document["jwks_uri"], format!("{}/auth/v1/.well-known/jwks.json", project.server.url));
    assert!(document.get("revocation_endpoint").is_none() && document.get("introspection_endpoint").is_none());
    let resource: Value = serde_json::from_slice(&metadata::protected_resource(policy, app, origin).body).unwrap();
    assert_eq!(resource["authorization_servers"][0], origin);
    let own: Vec<OwnEndpoint> = policy.routes.iter().filter_map(crate::policy::set::Route::own).collect();
    for endpoint in [OwnEndpoint::Token, OwnEndpoint::AuthorizationServer, OwnEndpoint::ProtectedResource] {
        assert!(own.contains(&endpoint), "{endpoint:?} in {own:?}");
    }
    assert!(!own.contains(&OwnEndpoint::Jwks));
}
