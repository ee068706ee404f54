//! The endpoints, called without a server.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;

use super::Admin;
use crate::browser::{self, Browser};
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::diagnostic::{Code, Diagnostic, Sources, Span};
use crate::endpoint::Endpoint as _;
use crate::issuer::Issuers;
use crate::live::Live;
use crate::login::hasher::{Bounds, Hasher};
use crate::login::{self, Login};
use crate::pipeline::Services;
use crate::policy::Options;
use crate::policy::compile::compile;
use crate::policy::references::References;
use crate::policy::set::{PolicySet, Revision};
use crate::random::{Random, SeededRandom};
use crate::reload::publish::{Rejection, ReloadStatus};
use crate::reload::watch;
use crate::secret::Secret;
use crate::store::Stores;
use crate::store::revoked::RevokedList;
use crate::telemetry::audit::Audit;
use crate::telemetry::decision_log::DecisionLog;
use crate::telemetry::metrics::Metrics;

/// A policy with users.
fn policy() -> Arc<PolicySet> {
    let text =
        "version: 1\napp: items\nupstream: http://localhost:8000\nlogin: local\nroutes: { GET /items: public }\n";
    let mut sources = Sources::default();
    sources.add("policies/test.yaml", text);
    let (document, _) = crate::policy::read(&sources);
    let (checked, found) = crate::policy::check(document, &sources, &Options::default());
    let Some(checked) = checked else { panic!("{found:?}") };
    let references =
        References::none().with_env("SECRET_KEY", Secret::new("q8Jz2kVb7mWn4xRt6yHc9pLd3sFg5aEu".to_owned()));
    match compile(&checked, &sources, &references, Revision::default()) {
        Ok(candidate) => Arc::clone(candidate.policy()),
        Err(found) => panic!("{found:?}"),
    }
}

fn services(has_store: bool) -> Services {
    let (clock, random) = (Arc::new(ManualClock::at(Timestamp::from_seconds(1_000))), Arc::new(SeededRandom::new(1)));
    let issuers = Issuers::new(None, Arc::clone(&clock) as Arc<dyn Clock>, Arc::clone(&random) as Arc<dyn Random>);
    let issuers = Arc::new(issuers);
    let revoked = Arc::new(RevokedList::default());
    let audit = Arc::new(Audit::none());
    let browser = Browser::new(browser::Parts {
        stores: Arc::new(Stores::memory()),
        revoked: Arc::clone(&revoked),
        issuers: Arc::clone(&issuers),
        supabase: crate::provider::Supabase::new(None),
        oidc: crate::provider::Oidc::new(None),
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        random: Arc::clone(&random) as Arc<dyn Random>,
        audit: Arc::clone(&audit),
    });
    let login = Login::new(login::Parts {
        stores: Arc::new(Stores::memory()),
        revoked: Arc::clone(&revoked),
        hasher: Hasher::new(Bounds::default(), Arc::clone(&random) as Arc<dyn Random>),
        issuers: issuers.live(),
        supabase: crate::provider::Supabase::new(None),
        clock,
        random,
        audit: Arc::clone(&audit),
    });
    Services {
        keys: issuers.live(),
        issuers,
        browser: Arc::new(browser),
        supabase: crate::provider::Supabase::new(None),
        has_store,
        revoked,
        login: Arc::new(login),
        inquiries: crate::pipeline::Inquiries::new(
            crate::provider::Oidc::new(None),
            crate::provider::Supabase::new(None),
            None,
        ),
        limits: None,
        public_url: None,
        audit,
    }
}

fn admin(address: &str, token: Option<&str>) -> Admin {
    let now = Timestamp::from_seconds(1_000);
    Admin {
        status: Arc::new(Live::new(ReloadStatus {
            running: "c04e17aa".into(),
            since: now,
            files: 1,
            routes: 2,
            tests: 3,
            disk: "c04e17aa".into(),
            rejected: None,
        })),
        policy: Arc::new(Live::shared(policy())),
        services: Arc::new(Live::new(services(true))),
        stores: ("sqlite:portcullis.db".to_owned(), None),
        reload: watch::requests().0,
        metrics: Arc::new(Metrics::new()),
        decision_log: Arc::new(DecisionLog::none()),
        clock: Arc::new(ManualClock::at(now)),
        is_stopping: Box::new(|| false),
        token: token.map(|token| Secret::new(token.to_owned())),
        address: address.parse::<SocketAddr>().unwrap(),
        listeners: vec![],
        not_acted_on: vec!["store"],
    }
}

fn ask(admin: &Admin, method: &str, target: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Bytes::new()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let response = runtime.block_on(admin.answer(request));
    (response.status, String::from_utf8(response.body.to_vec()).unwrap())
}

const LOOPBACK: &str = "127.0.0.1:9901";
const HOST: (&str, &str) = ("host", LOOPBACK);

#[test]
fn endpoints_know_their_methods() {
    let admin = admin(LOOPBACK, None);
    for (method, target, status) in [
        ("GET", "/-/live", 200),
        ("HEAD", "/-/ready", 200),
        ("POST", "/-/ready", 405),
        ("GET", "/-/status", 200),
        ("GET", "/-/reload", 405),
        ("POST", "/-/reload", 503),
        ("GET", "/metrics", 200),
        ("GET", "/", 404),
        ("GET", "/-/live/", 404),
        ("GET", "/-/status/../live", 404),
    ] {
        assert_eq!(ask(&admin, method, target, &[HOST]).0, status, "{method} {target}");
    }
}

#[test]
fn other_sites_and_rebound_names_are_refused() {
    let admin = admin(LOOPBACK, None);
    for (headers, status) in [
        (&[HOST][..], 503),
        (&[("host", "localhost:9901")], 503),
        (&[("host", "evil.example")], 403),
        (&[], 403),
        (&[HOST, ("origin", "http://evil.example")], 403),
        (&[HOST, ("origin", "null")], 403),
        (&[HOST, ("sec-fetch-site", "cross-site")], 403),
        (&[HOST, ("sec-fetch-site", "same-site")], 403),
        (&[HOST, ("sec-fetch-site", "same-origin"), ("origin", "http://127.0.0.1:9901")], 503),
    ] {
        assert_eq!(ask(&admin, "POST", "/-/reload", headers).0, status, "{headers:?}");
    }
    assert_eq!(ask(&admin, "GET", "/-/status", &[("host", "evil.example")]).0, 403);
}

#[test]
fn the_token_opens_status_and_reload_and_nothing_opens_them_beyond_loopback_without_one() {
    let bearer = ("authorization", "Bearer t0ken");
    for (address, token, headers, expected) in [
        (LOOPBACK, Some("t0ken"), &[HOST][..], 401),
        (LOOPBACK, Some("t0ken"), &[HOST, ("authorization", "Bearer t0keN")], 401),
        (LOOPBACK, Some("t0ken"), &[HOST, bearer, bearer], 401),
        (LOOPBACK, Some("t0ken"), &[HOST, bearer], 200),
        ("0.0.0.0:9901", Some("t0ken"), &[("host", "gateway:9901"), bearer], 200),
        ("0.0.0.0:9901", None, &[("host", "gateway:9901")], 403),
    ] {
        let admin = admin(address, token);
        assert_eq!(ask(&admin, "GET", "/-/status", headers).0, expected, "{address} {headers:?}");
        assert_eq!(ask(&admin, "GET", "/-/live", &[("host", "gateway")]).0, 200);
        assert_eq!(ask(&admin, "GET", "/metrics", headers).0, 200);
    }
}

#[test]
fn a_rejected_reload_shows_in_the_status_until_it_is_over() {
    let admin = admin(LOOPBACK, None);
    assert_eq!(ask(&admin, "GET", "/-/ready?strict=1", &[HOST]).0, 200);
    let mut sources = Sources::default();
    let file = sources.add("policies/a.yaml", "routes: { GET /: canary-text }");
    let span = Span { file, start: 0, end: 6 };
    let mut status = (*admin.status.snapshot()).clone();
    status.disk = "00000000".into();
    status.rejected = Some(Arc::new(Rejection {
        stale_since: Timestamp::from_seconds(990),
        at: Timestamp::from_seconds(990),
        summary: "error[P102] unknown".into(),
        diagnostics: vec![Diagnostic::new(Code::P102, "unknown", span, "")],
        sources,
    }));
    admin.status.publish(status);
    assert_eq!(ask(&admin, "GET", "/-/ready", &[HOST]).0, 200);
    assert_eq!(ask(&admin, "GET", "/-/ready?strict=1", &[HOST]).0, 503);
    let (_, body) = ask(&admin, "GET", "/-/status", &[HOST]);
    let value: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&value["policy"]["running"], &value["policy"]["stale_seconds"]), (&"c04e17aa".into(), &10.into()));
    assert_eq!(value["policy"]["error"]["diagnostics"][0]["code"], "P102");
    assert_eq!(value["policy"]["error"]["diagnostics"][0]["spans"][0]["line"], 1);
    assert!(!body.contains("canary"));
}

#[test]
fn readiness_waits_for_the_store_that_the_policy_needs() {
    let admin = admin(LOOPBACK, None);
    admin.services.publish(services(false));
    let not = ask(&admin, "GET", "/-/ready", &[]);
    assert_eq!(not, (503, "the store that the policy needs is not open\n".to_owned()));
    let status: serde_json::Value = serde_json::from_str(&ask(&admin, "GET", "/-/status", &[HOST]).1).unwrap();
    assert_eq!(status["problems"][0], "the store that the policy needs is not open");
    assert_eq!((&status["store"]["needed"], &status["store"]["open"]), (&true.into(), &false.into()));
    assert!(ask(&admin, "GET", "/metrics", &[HOST]).1.contains("portcullis_ready 0"));
    admin.services.publish(services(true));
    assert_eq!(ask(&admin, "GET", "/-/ready", &[]).0, 200);
    assert!(ask(&admin, "GET", "/metrics", &[HOST]).1.contains("portcullis_ready 1"));
}

#[test]
fn readiness_ends_when_the_gateway_stops() {
    let admin = Admin { is_stopping: Box::new(|| true), ..admin(LOOPBACK, None) };
    assert_eq!((ask(&admin, "GET", "/-/ready", &[]).0, ask(&admin, "GET", "/-/live", &[]).0), (503, 200));
}
