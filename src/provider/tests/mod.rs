//! Against servers that answer one thing.

pub(crate) mod server;

use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::fetch::Fetcher;
use crate::policy::set::{Introspection, OidcClient, OnExpired, SupabaseProject};
use crate::secret::Secret;

use self::server::Server;
use super::supabase::{Account, Liveness, SignedUp};
use super::{Authorization, Discovery, Oidc, Pkce, ProviderError, Supabase};

impl Server {
    fn asked(&self) -> String {
        self.asked.lock().first().cloned().unwrap()
    }

    fn project(&self) -> SupabaseProject {
        SupabaseProject {
            url: self.url.as_str().into(),
            key: Some(Secret::new("sb_publishable_k".to_owned())),
            on_expired: OnExpired::Unauthenticated,
            session_check: None,
            forward_client_ip: None,
        }
    }

    fn introspection(&self) -> Introspection {
        Introspection {
            url: format!("{}/introspect", self.url).into(),
            client_id: "gate way".into(),
            client_secret: Secret::new("s%c+r:t".to_owned()),
            cache: Duration::from_secs(30),
        }
    }

    fn discovery(&self) -> Discovery {
        let (authorize, token, end) =
            (format!("{}/auth", self.url), format!("{}/token", self.url), format!("{}/end?a=b", self.url));
        let document = json!({
            "issuer": self.url,
            "authorization_endpoint": authorize,
            "token_endpoint": token,
            "end_session_endpoint": end,
        });
        Discovery::parse(&self.url, document.to_string().as_bytes()).unwrap()
    }
}

fn supabase() -> Supabase {
    Supabase::new(Fetcher::impatient())
}

fn oidc() -> Oidc {
    Oidc::new(Fetcher::impatient())
}

fn client(secret: Option<&str>) -> OidcClient {
    OidcClient {
        issuer: "unused".into(),
        client_id: "gate way".into(),
        client_secret: secret.map(|secret| Secret::new(secret.to_owned())),
        scopes: vec!["openid".into(), "email".into()],
    }
}

fn body(request: &str) -> &str {
    request.split_once("\r\n\r\n").unwrap().1
}

fn session() -> serde_json::Value {
    json!({
        "access_token": "a.b.c", "token_type": "bearer", "expires_in": 3600, "expires_at": 4_102_444_800_u64,
        "refresh_token": "abcdefghijkl", "user": { "id": "u1", "user_metadata": { "role": "admin" } },
        "weak_password": null,
    })
}

/// How an error is told apart.
fn kind(error: &ProviderError) -> &'static str {
    match error {
        ProviderError::Refused { .. } => "refused",
        ProviderError::Busy(_) => "busy",
        ProviderError::Unavailable(_) => "unavailable",
        ProviderError::Misconfigured(_) => "misconfigured",
    }
}

#[tokio::test]
async fn a_password_goes_to_supabase_as_json_with_key_version_and_address() {
    let server = Server::json(200, &session());
    let from: IpAddr = "::ffff:192.0.2.7".parse().unwrap();
    let account = Account::parse("ada@example.com").unwrap();
    let found = supabase().password(&server.project(), Some(from), account, "p\"w").await.unwrap();
    assert_eq!(found.tokens.access.expose(), "a.b.c");
    assert_eq!(found.tokens.refresh.unwrap().expose(), "abcdefghijkl");
    assert_eq!(found.tokens.expires_in, Some(Duration::from_secs(3600)));
    assert_eq!(found.user["id"], "u1");
    assert!(found.json.expose().contains("expires_at"));
    let asked = server.asked();
    assert!(asked.starts_with("POST /auth/v1/token?grant_type=password HTTP/1.1\r\n"), "{asked}");
    for line in [
        "apikey: sb_publishable_k",
        "x-supabase-api-version: 2024-01-01",
        "x-forwarded-for: 192.0.2.7",
        "content-type: application/json",
        "accept: application/json",
    ] {
        assert!(asked.contains(&format!("{line}\r\n")), "{line} in {asked}");
    }
    assert!(!asked.to_ascii_lowercase().contains("authorization"), "{asked}");
    assert_eq!(body(&asked), r#"{"email":"ada@example.com","password":"p\"w"}"#);
}

#[tokio::test]
async fn a_secret_key_goes_with_the_clients_address_alone() {
    let server = Server::json(200, &session());
    let project =
        SupabaseProject { forward_client_ip: Some(Secret::new("sb_secret_x".to_owned())), ..server.project() };
    let client = supabase();
    client.refresh(&project, Some("192.0.2.7".parse().unwrap()), "r").await.unwrap();
    client.refresh(&project, None, "r").await.unwrap();
    let asked = server.asked.lock().clone();
    assert!(asked[0].contains("apikey: sb_secret_x\r\n") && asked[0].contains("sb-forwarded-for: 192.0.2.7\r\n"));
    assert!(asked[1].contains("apikey: sb_publishable_k\r\n") && !asked[1].contains("sb-forwarded-for"));
    assert_eq!(body(&asked[1]), r#"{"refresh_token":"r"}"#);
}

#[tokio::test]
async fn codes_sign_ups_and_logouts_have_their_form() {
    let server = Server::json(200, &session());
    let (project, client) = (server.project(), supabase());
    let pkce = Pkce::of(Secret::new("v".to_owned()));
    client.pkce(&project, None, "c", &pkce).await.unwrap();
    let to = "https://app.example/auth/callback?flow=1";
    let signed_up = client.sign_up(&project, None, ("a@b.example", "pw"), Some((to, &pkce))).await.unwrap();
    assert!(matches!(signed_up, SignedUp::Session(_)));
    client.logout(&project, "a.b.c", "local").await.unwrap();
    let asked = server.asked.lock().clone();
    assert!(asked[0].starts_with("POST /auth/v1/token?grant_type=pkce "));
    assert_eq!(body(&asked[0]), r#"{"auth_code":"c","code_verifier":"v"}"#);
    let to = "https%3A%2F%2Fapp.example%2Fauth%2Fcallback%3Fflow%3D1";
    assert!(asked[1].starts_with(&format!("POST /auth/v1/signup?redirect_to={to} ")));
    assert!(body(&asked[1]).contains(r#""code_challenge_method":"s256""#));
    assert!(asked[2].starts_with("POST /auth/v1/logout?scope=local ") && asked[2].contains("Bearer a.b.c\r\n"));
    let confirm = Server::json(200, &json!({ "id": "u1", "email": "a@b.example" }));
    let signed_up = client.sign_up(&confirm.project(), None, ("a@b.example", "pw"), None).await.unwrap();
    assert!(matches!(signed_up, SignedUp::Confirm));
    assert_eq!(
        Supabase::authorize_url(&confirm.project(), "github", "https://a/cb?x=1", "ch", Some("a b")),
        format!(
            "{}/auth/v1/authorize?provider=github&redirect_to=https%3A%2F%2Fa%2Fcb%3Fx%3D1&scopes=a+b\
             &code_challenge=ch&code_challenge_method=s256",
            confirm.url
        )
    );
}

#[test]
fn accounts_are_addresses_or_numbers() {
    for (name, expected) in [
        ("ada@example.com", Some(Account::Email("ada@example.com"))),
        ("+4915112345678", Some(Account::Phone("4915112345678"))),
        ("4915112345678", Some(Account::Phone("4915112345678"))),
        ("015112345678", None),
        ("ada", None),
        ("", None),
        ("+", None),
        ("1234567890123456", None),
    ] {
        assert_eq!(Account::parse(name), expected, "{name}");
    }
}

/// A2.3, A2.5, A3.1: an outage is never a refusal, and a refusal never an outage.
#[tokio::test]
async fn answers_of_supabase_are_told_apart() {
    let error = |code: &str| json!({ "code": 400, "error_code": code, "msg": "in words" });
    for (status, headers, body, expected, code) in [
        (400, "", error("invalid_credentials").to_string(), "refused", "invalid_credentials"),
        (400, "", json!({ "code": "user_banned", "message": "m" }).to_string(), "refused", "user_banned"),
        (
            400,
            "",
            json!({ "error": "invalid_grant", "error_description": "d" }).to_string(),
            "refused",
            "invalid_grant",
        ),
        (400, "", json!({ "error": "invalid request" }).to_string(), "refused", "invalid request"),
        (400, "", json!({ "code": 400, "msg": "old" }).to_string(), "refused", "unknown"),
        (400, "x-sb-error-code: session_expired\r\n", "{}".to_owned(), "refused", "session_expired"),
        (422, "", error("email_provider_disabled").to_string(), "refused", "email_provider_disabled"),
        (409, "", error("conflict").to_string(), "busy", ""),
        (429, "retry-after: 7\r\n", error("over_request_rate_limit").to_string(), "busy", ""),
        (429, "", "<html>".to_owned(), "busy", ""),
        (422, "", error("hook_timeout").to_string(), "unavailable", ""),
        (400, "", error("unexpected_failure").to_string(), "unavailable", ""),
        (400, "", "<html>blocked</html>".to_owned(), "unavailable", ""),
        (403, "", json!({ "detail": "no" }).to_string(), "unavailable", ""),
        (401, "", json!({ "message": "Invalid API key" }).to_string(), "misconfigured", ""),
        (401, "", "Unauthorized".to_owned(), "misconfigured", ""),
        (404, "", "no such page".to_owned(), "misconfigured", ""),
        (500, "", error("invalid_credentials").to_string(), "unavailable", ""),
        (503, "", String::new(), "unavailable", ""),
        (504, "", error("request_timeout").to_string(), "unavailable", ""),
        (302, "location: /elsewhere\r\n", String::new(), "unavailable", ""),
        (200, "", "<html>".to_owned(), "unavailable", ""),
        (200, "", String::new(), "unavailable", ""),
        (200, "", json!({ "access_token": null, "refresh_token": "r" }).to_string(), "unavailable", ""),
        (200, "", json!({ "access_token": "a\nb" }).to_string(), "unavailable", ""),
        (200, "", json!({ "access_token": "a", "token_type": "dpop" }).to_string(), "unavailable", ""),
        (200, "", r#"{"access_token": "a", "access_token": "b"}"#.to_owned(), "unavailable", ""),
        (200, "", json!({ "access_token": "x".repeat(20_000) }).to_string(), "unavailable", ""),
    ] {
        let server = Server::answering(status, headers, &body);
        let error = supabase().refresh(&server.project(), None, "r").await.unwrap_err();
        assert_eq!(kind(&error), expected, "{status} {body}: {error}");
        if let ProviderError::Refused { code: found, .. } = &error {
            assert_eq!(&**found, code);
        }
        if headers.starts_with("retry-after") {
            assert_eq!(error, ProviderError::Busy(Some(Duration::from_secs(7))));
        }
        assert_eq!(server.asked.lock().len(), 1, "nothing is sent twice");
    }
}

#[tokio::test]
async fn a_session_lives_or_has_ended_or_nobody_can_tell() {
    let error = |code: &str| json!({ "code": code, "message": "m" });
    for (status, body, expected) in [
        (200, json!({ "id": "u1" }), Ok(Liveness::Live("u1".into()))),
        (403, error("session_not_found"), Ok(Liveness::Ended("session_not_found".into()))),
        (403, error("user_banned"), Ok(Liveness::Ended("user_banned".into()))),
        (403, error("user_not_found"), Ok(Liveness::Ended("user_not_found".into()))),
        (403, error("not_admin"), Err("refused")),
        (401, error("no_authorization"), Err("refused")),
        (401, json!({ "message": "Invalid API key" }), Err("misconfigured")),
        (200, json!({}), Err("unavailable")),
        (200, json!([]), Err("unavailable")),
        (500, error("session_not_found"), Err("unavailable")),
        (429, error("session_not_found"), Err("busy")),
    ] {
        let server = Server::json(status, &body);
        let found = supabase().user(&server.project(), "a.b.c").await.map_err(|error| kind(&error));
        assert_eq!(found, expected, "{status} {body}");
        let asked = server.asked();
        assert!(asked.starts_with("GET /auth/v1/user ") && asked.contains("authorization: Bearer a.b.c\r\n"));
    }
}

/// L04: S256 always; the secret is sent in one way, and a public client has none.
#[tokio::test]
async fn a_code_is_redeemed_with_its_verifier_and_the_gateways_credentials() {
    let tokens = json!({ "access_token": "a", "id_token": "i.j.k", "token_type": "Bearer", "expires_in": "300" });
    let pkce = Pkce::of(Secret::new("verifier".to_owned()));
    let base = "grant_type=authorization_code&code=c+1&redirect_uri=https%3A%2F%2Fapp%2Fcb&code_verifier=verifier";
    for (secret, in_body, authorization, expected) in [
        (Some("s%c+r:t"), false, Some("Basic Z2F0ZSt3YXk6cyUyNWMlMkJyJTNBdA=="), base.to_owned()),
        (Some("s%c"), true, None, format!("{base}&client_id=gate+way&client_secret=s%25c")),
        (None, false, None, format!("{base}&client_id=gate+way")),
    ] {
        let server = Server::json(200, &tokens);
        let discovery = Discovery { secret_in_body: in_body, ..server.discovery() };
        let found = oidc().exchange(&discovery, &client(secret), "c 1", &pkce, "https://app/cb").await.unwrap();
        assert_eq!(found.id.unwrap().expose(), "i.j.k");
        assert_eq!((found.expires_in, found.refresh.is_none()), (Some(Duration::from_secs(300)), true));
        let asked = server.asked();
        assert!(
            asked.starts_with("POST /token ") && asked.contains("content-type: application/x-www-form-urlencoded\r\n")
        );
        assert_eq!(asked.lines().find_map(|line| line.strip_prefix("authorization: ")), authorization);
        assert_eq!(body(&asked), expected);
    }
    let server = Server::json(200, &tokens);
    oidc().refresh(&server.discovery(), &client(None), "r").await.unwrap();
    assert_eq!(body(&server.asked()), "grant_type=refresh_token&refresh_token=r&client_id=gate+way");
}

#[test]
fn a_browser_is_sent_to_sign_in_and_to_sign_out() {
    let discovery = Server::json(200, &json!({})).discovery();
    let login = Authorization { redirect_uri: "https://app/cb", state: "s", nonce: "n", challenge: "c" };
    let url = Oidc::authorize_url(&discovery, &client(None), &login).unwrap();
    assert_eq!(
        url.split_once('?').unwrap().1,
        "response_type=code&client_id=gate+way&redirect_uri=https%3A%2F%2Fapp%2Fcb&scope=openid+email&state=s&nonce=n\
         &code_challenge=c&code_challenge_method=S256"
    );
    let url = Oidc::end_session_url(&discovery, &client(None), Some("i"), "https://app/").unwrap();
    assert!(url.ends_with("/end?a=b&client_id=gate+way&post_logout_redirect_uri=https%3A%2F%2Fapp%2F&id_token_hint=i"));
    let without = Discovery { authorization_endpoint: None, end_session_endpoint: None, ..discovery };
    assert!(Oidc::authorize_url(&without, &client(None), &login).is_err());
    assert!(Oidc::end_session_url(&without, &client(None), None, "https://app/").is_none());
}

#[tokio::test]
async fn answers_of_an_openid_provider_are_told_apart() {
    let error = |code: &str| json!({ "error": code, "error_description": "d\u{7}" }).to_string();
    for (status, body, expected) in [
        (400, error("invalid_grant"), "refused"),
        (400, error("interaction_required"), "refused"),
        (400, error("invalid_client"), "misconfigured"),
        (401, error("invalid_client"), "misconfigured"),
        (400, error("unauthorized_client"), "misconfigured"),
        (400, error("unsupported_grant_type"), "misconfigured"),
        (401, String::new(), "misconfigured"),
        (400, error("temporarily_unavailable"), "unavailable"),
        (400, "<html>".to_owned(), "unavailable"),
        (400, "{}".to_owned(), "unavailable"),
        (403, String::new(), "unavailable"),
        (404, String::new(), "unavailable"),
        (429, error("invalid_grant"), "busy"),
        (409, error("invalid_grant"), "busy"),
        (500, error("invalid_grant"), "unavailable"),
        (302, String::new(), "unavailable"),
        (200, error("invalid_grant"), "unavailable"),
        (201, json!({ "access_token": "a" }).to_string(), "unavailable"),
    ] {
        let server = Server::answering(status, "", &body);
        let found = oidc().refresh(&server.discovery(), &client(Some("s")), "r").await.unwrap_err();
        assert_eq!(kind(&found), expected, "{status} {body}: {found}");
        if let ProviderError::Refused { description, .. } = found {
            assert_eq!(&*description, "d", "nothing that a log line must not have");
        }
    }
}

#[tokio::test]
async fn an_opaque_token_is_worth_what_its_issuer_says() {
    let active = json!({ "active": true, "sub": "u1", "scope": "a b", "exp": 4_102_444_800_u64 });
    let server = Server::json(200, &active);
    let found = oidc().introspect(&server.introspection(), "t&k=").await.unwrap().unwrap();
    assert_eq!(found["scope"], "a b");
    let asked = server.asked();
    assert!(asked.contains("authorization: Basic Z2F0ZSt3YXk6cyUyNWMlMkJyJTNBdA==\r\n"), "{asked}");
    assert_eq!(body(&asked), "token=t%26k%3D&token_type_hint=access_token");
    for (status, body, expected) in [
        (200, r#"{"active": false, "sub": "u1"}"#, None),
        (400, r#"{"error": "unsupported_token_type"}"#, None),
        (401, r#"{"error": "unsupported_token_type"}"#, Some("refused")),
        (200, r#"{"sub": "u1"}"#, Some("unavailable")),
        (200, r#"{"active": "true"}"#, Some("unavailable")),
        (200, r#"{"active": 1}"#, Some("unavailable")),
        (200, r#"{"active": false, "active": true}"#, Some("unavailable")),
        (200, r#"[{"active": true}]"#, Some("unavailable")),
        (200, "", Some("unavailable")),
        (204, "", Some("unavailable")),
        (401, "", Some("misconfigured")),
        (400, r#"{"error": "invalid_client"}"#, Some("misconfigured")),
        (429, "", Some("busy")),
        (503, r#"{"active": true}"#, Some("unavailable")),
        (302, "", Some("unavailable")),
    ] {
        let server = Server::answering(status, "", body);
        match (oidc().introspect(&server.introspection(), "t").await, expected) {
            (Ok(None), None) => {}
            (Err(error), Some(expected)) => assert_eq!(kind(&error), expected, "{status} {body}"),
            (found, _) => panic!("{status} {body}: {found:?}"),
        }
    }
}

/// Slow, endless, oversized, broken, or not there at all: an outage, soon.
#[tokio::test]
async fn a_provider_that_does_not_answer_properly_is_not_there() {
    let began = Instant::now();
    let large = "x".repeat(2 * 1024 * 1024);
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    for server in [
        Server::raw("", Duration::from_secs(20)),
        Server::raw("HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{", Duration::ZERO),
        Server::raw("SSH-2.0-OpenSSH\r\n", Duration::ZERO),
        Server::answering(200, "", &large),
        Server { url: gone, asked: Arc::default() },
    ] {
        let error = supabase().refresh(&server.project(), None, "r").await.unwrap_err();
        assert_eq!(kind(&error), "unavailable", "{error}");
        let error = oidc().introspect(&server.introspection(), "t").await.unwrap_err();
        assert_eq!(kind(&error), "unavailable", "{error}");
        let error = oidc().discover(&server.url).await.unwrap_err();
        assert_eq!(kind(&error), "unavailable", "{error}");
    }
    assert!(began.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn a_secret_that_cannot_be_sent_is_not_sent_in_part() {
    let server = Server::json(200, &session());
    let project = SupabaseProject { key: Some(Secret::new("a\r\nb".to_owned())), ..server.project() };
    let error = supabase().refresh(&project, None, "r").await.unwrap_err();
    assert_eq!(kind(&error), "misconfigured");
    assert!(!error.to_string().contains('\r') && server.asked.lock().is_empty());
}
