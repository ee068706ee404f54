//! The gateway's own client of Supabase Auth against the fake Supabase of `tests/supabase`, which the published clients
//! are tested against too.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a failure here is a failed test")]

#[path = "support/supabase.rs"]
mod fake_supabase;

use std::net::IpAddr;

use portcullis::fetch::{Fetcher, Options};
use portcullis::policy::set::{OnExpired, SupabaseProject};
use portcullis::provider::supabase::{Account, Liveness, SignedUp};
use portcullis::provider::{Pkce, ProviderError, Supabase};
use portcullis::secret::Secret;
use serde_json::{Value, json};

use self::fake_supabase::FakeSupabase;

const PASSWORD: &str = "Correct horse 7 battery";

fn project(fake: &FakeSupabase) -> SupabaseProject {
    SupabaseProject {
        url: fake.url().into(),
        key: Some(Secret::new(fake.text("publishable_key").to_owned())),
        on_expired: OnExpired::Unauthenticated,
        session_check: None,
        forward_client_ip: None,
    }
}

fn client() -> Supabase {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    Supabase::new(Fetcher::new(&Options::default()).unwrap())
}

fn refused<T: std::fmt::Debug>(result: Result<T, ProviderError>) -> (u16, String) {
    match result {
        Err(ProviderError::Refused { status, code, .. }) => (status, code.into()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_session_from_its_sign_up_to_its_end() {
    let Some(fake) = FakeSupabase::start(&[]) else { return };
    let (supabase, project) = (client(), project(&fake));
    let signed_up = supabase.sign_up(&project, None, ("ada@example.com", PASSWORD), None).await.unwrap();
    let SignedUp::Session(_) = signed_up else { panic!("{signed_up:?}") };
    let again = supabase.sign_up(&project, None, ("ada@example.com", PASSWORD), None).await;
    assert_eq!(refused(again), (422, "user_already_exists".to_owned()));

    let account = Account::parse("Ada@Example.com").unwrap();
    let wrong = supabase.password(&project, None, account, "wrong").await;
    assert_eq!(refused(wrong), (400, "invalid_credentials".to_owned()));
    let session = supabase.password(&project, None, account, PASSWORD).await.unwrap();
    assert_eq!(session.user["email"], "ada@example.com");
    assert_eq!(session.tokens.expires_in.unwrap().as_secs(), 3600);
    let first = session.tokens.refresh.unwrap();

    let second = supabase.refresh(&project, None, first.expose()).await.unwrap().tokens;
    let next = second.refresh.unwrap();
    assert_ne!(next.expose(), first.expose());
    let parent = supabase.refresh(&project, None, first.expose()).await.unwrap().tokens;
    assert_eq!(parent.refresh.unwrap().expose(), next.expose(), "a lost answer loses no session");
    let unknown = supabase.refresh(&project, None, "abcdefghijkl").await;
    assert_eq!(refused(unknown), (400, "refresh_token_not_found".to_owned()));

    let access = second.access.expose();
    let Liveness::Live(_) = supabase.user(&project, access).await.unwrap() else { panic!("not alive") };
    supabase.logout(&project, access, "local").await.unwrap();
    let ended = supabase.user(&project, access).await.unwrap();
    assert_eq!(ended, Liveness::Ended("session_not_found".into()));
    assert!(supabase.refresh(&project, None, next.expose()).await.is_err());
}

#[tokio::test]
async fn what_may_pass_is_no_refusal() {
    let Some(fake) = FakeSupabase::start(&["--alg=HS256"]) else { return };
    let (supabase, project) = (client(), project(&fake));
    fake.user("ada@example.com", PASSWORD);
    let account = Account::Email("ada@example.com");
    let session = supabase.password(&project, None, account, PASSWORD).await.unwrap();
    let refresh = session.tokens.refresh.unwrap();
    let mut token = refresh;
    for fault in [
        json!({ "status": 429, "code": "over_request_rate_limit" }),
        json!({ "status": 409, "code": "conflict" }),
        json!({ "status": 500 }),
        json!({ "status": 503, "body": "<html>" }),
        json!({ "status": 200, "body": "no JSON" }),
        json!({ "filler": 2_000_000 }),
        json!({ "drop": "before" }),
        json!({ "drop": "after" }),
        json!({ "status": 302, "headers": { "Location": "/auth/v1/user" }, "body": {} }),
    ] {
        let mut once = fault.clone();
        once["path"] = json!("/token");
        once["times"] = json!(1);
        fake.fail(&once);
        match supabase.refresh(&project, None, token.expose()).await {
            Err(ProviderError::Busy(_) | ProviderError::Unavailable(_)) => {}
            other => panic!("{fault}: {other:?}"),
        }
        // The same token is good for the next try.
        token = supabase.refresh(&project, None, token.expose()).await.unwrap().tokens.refresh.unwrap();
    }
    assert_eq!(fake.count("POST auth/token?grant_type=refresh_token"), 18, "nothing was tried twice by itself");
}

#[tokio::test]
async fn pkce_and_the_address_of_the_user() {
    let Some(fake) = FakeSupabase::start(&["--alg=RS256"]) else { return };
    let (supabase, mut project) = (client(), project(&fake));
    project.forward_client_ip = Some(Secret::new(fake.text("secret_key").to_owned()));
    let pkce = Pkce::of(Secret::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned()));
    let back = "http://127.0.0.1:3000/auth/callback?flow=1";
    let start = Supabase::authorize_url(&project, "github", back, &pkce.challenge, None);
    let code = code_of(&follow(&start).await);
    let from: IpAddr = "2001:db8::7".parse().unwrap();
    let session = supabase.pkce(&project, Some(from), &code, &pkce).await.unwrap();
    assert_eq!(session.user["email"], "ada@provider.example");
    assert_eq!(refused(supabase.pkce(&project, None, &code, &pkce).await), (404, "flow_state_not_found".to_owned()));
    let arrived = fake.ask("GET", "/requests?path=/token", &Value::Null);
    assert_eq!(arrived[0]["client_ip"], "2001:db8::7");
    let header = |name: &str| {
        let headers = arrived[0]["headers"].as_array().unwrap();
        headers.iter().find(|pair| pair[0] == name).map(|pair| pair[1].clone())
    };
    assert_eq!(header("sb-forwarded-for"), Some(json!("2001:db8::7")));
    assert_eq!(header("apikey"), Some(json!(fake.text("secret_key"))));
}

/// Where a browser ends that starts here, before it leaves for the app.
async fn follow(start: &str) -> String {
    let fetcher = Fetcher::new(&Options::default()).unwrap();
    let mut url = start.to_owned();
    for _ in 0..5 {
        let answer = fetcher.get(&url, 65_536).await.unwrap();
        url = answer.headers["location"].to_str().unwrap().to_owned();
        if url.starts_with("http://127.0.0.1:3000/") {
            return url;
        }
    }
    panic!("too many redirects")
}

fn code_of(url: &str) -> String {
    url.split(['?', '&', '#']).find_map(|part| part.strip_prefix("code=")).unwrap().to_owned()
}
