//! Forms in, answers out: on stores in memory, with a clock that is moved by hand.

mod supabase;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::clock::ManualClock;
use crate::diagnostic::{Diagnostic, Sources};
use crate::identity::account::AccountName;
use crate::identity::{Transport, account};
use crate::issuer::Issuers;
use crate::policy::compile::compile;
use crate::policy::references::References;
use crate::policy::set::{Lockout, OwnEndpoint, Revision};
use crate::policy::{Options, check, read};
use crate::random::SeededRandom;
use crate::secret::Secret;
use crate::store::memory::Memory;
use crate::store::{Attempt, Attempts, Rotation, Sessions, Successor, TokenHash, User, Users};

const POLICY: &str = "
version: 1
app: items-api
upstream: http://localhost:8000
login: local
roles:
  viewer: { can: [items:view], grants: [me] }
  editor: { includes: viewer, can: [items:edit], grants: [items] }
routes:
  GET /users/me: { scope: me }
  GET /items: { scope: items:read }
  POST /items: { scope: items:write }
";
const START: Timestamp = Timestamp::from_seconds(1_800_000_000);
const CLIENT: &str = "203.0.113.9";
const URLENCODED: &str = "application/x-www-form-urlencoded";

fn policy(text: &str) -> Arc<PolicySet> {
    let mut sources = Sources::default();
    sources.add("policies/test.yaml", text);
    let (document, found) = read(&sources);
    assert!(!found.iter().any(Diagnostic::is_error), "{found:?}");
    let (checked, found) = check(document, &sources, &Options::default());
    let Some(checked) = checked else { panic!("{found:?}") };
    let secret = Secret::new("q8Jz2kVb7mWn4xRt6yHc9pLd3sFg5aEu".to_owned());
    let references = References::none().with_env("SECRET_KEY", secret);
    match compile(&checked, &sources, &references, Revision::of(&sources)) {
        Ok(candidate) => Arc::clone(candidate.policy()),
        Err(found) => panic!("{found:?}"),
    }
}

/// A store of attempts or sessions that can be switched off.
#[derive(Debug, Default)]
struct Switch(AtomicBool);

impl Switch {
    fn check(&self) -> Result<(), StoreError> {
        match self.0.load(Ordering::SeqCst) {
            true => Err(StoreError::Unavailable("switched off".to_owned())),
            false => Ok(()),
        }
    }
}

#[derive(Debug)]
struct Flaky {
    inner: Arc<Memory>,
    attempts: Switch,
    rotate: Switch,
    revoke: Switch,
}

#[async_trait]
impl Attempts for Flaky {
    async fn begin(&self, key: &str, lockout: &Lockout, now: Timestamp) -> Result<Attempt, StoreError> {
        self.attempts.check()?;
        self.inner.begin(key, lockout, now).await
    }
    async fn forgive(&self, key: &str, now: Timestamp) -> Result<(), StoreError> {
        self.inner.forgive(key, now).await
    }
    async fn clear(&self, key: &str) -> Result<(), StoreError> {
        self.attempts.check()?;
        self.inner.clear(key).await
    }
    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError> {
        Attempts::sweep(&*self.inner, now).await
    }
}

#[async_trait]
impl crate::store::Revocations for Flaky {
    async fn add(&self, revocations: &[Revocation], now: Timestamp) -> Result<(), StoreError> {
        self.revoke.check()?;
        crate::store::Revocations::add(&*self.inner, revocations, now).await
    }
    async fn since(&self, cursor: &mut crate::store::Cursor, now: Timestamp) -> Result<Vec<Revocation>, StoreError> {
        self.inner.since(cursor, now).await
    }
    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError> {
        crate::store::Revocations::sweep(&*self.inner, now).await
    }
}

#[async_trait]
impl Sessions for Flaky {
    async fn start(&self, session: &Session, head: &TokenHash) -> Result<(), StoreError> {
        self.inner.start(session, head).await
    }
    async fn of_token(&self, token: &TokenHash) -> Result<Option<Session>, StoreError> {
        self.inner.of_token(token).await
    }
    async fn rotate(
        &self,
        presented: &TokenHash,
        successor: &Successor,
        window: Duration,
        now: Timestamp,
    ) -> Result<Rotation, StoreError> {
        self.rotate.check()?;
        self.inner.rotate(presented, successor, window, now).await
    }
    async fn get(&self, id: &str) -> Result<Option<Session>, StoreError> {
        self.inner.get(id).await
    }
    async fn live(&self, user: Option<&str>, now: Timestamp, most: u32) -> Result<Vec<Session>, StoreError> {
        self.inner.live(user, now, most).await
    }
    async fn end(&self, id: &str, by: EndedBy, now: Timestamp) -> Result<bool, StoreError> {
        self.inner.end(id, by, now).await
    }
    async fn end_all(
        &self,
        user: &str,
        but: Option<&str>,
        by: EndedBy,
        now: Timestamp,
    ) -> Result<Vec<String>, StoreError> {
        self.inner.end_all(user, but, by, now).await
    }
    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError> {
        Sessions::sweep(&*self.inner, now).await
    }
}

fn hasher() -> Hasher {
    Hasher::new(hasher::Bounds::default(), Arc::new(SeededRandom::new(2)))
}

/// A gateway's login with some users: `ada` (editor), `bob` (viewer, own scope `beta`), `eve` (no roles), `off`
/// (disabled), `sso` (no password). The password of all is `right`.
struct World {
    policy: Arc<PolicySet>,
    login: Arc<Login>,
    memory: Arc<Memory>,
    flaky: Arc<Flaky>,
    revoked: Arc<RevokedList>,
    clock: Arc<ManualClock>,
}

/// Argon2id of `right`, made once: it is slow on purpose.
fn right() -> Secret<String> {
    static HASH: std::sync::OnceLock<Secret<String>> = std::sync::OnceLock::new();
    HASH.get_or_init(|| crate::password::hash(b"right", [7; 16]).unwrap()).clone()
}

/// The same password as Django stores it.
const DJANGO: &str = "pbkdf2_sha256$1000$salt$Q/9Kvus9r/Z5pRD/V9eBFX31v5LhSkQG2Q44eDQAprk=";

fn user(name: &str, roles: &[&str], scopes: &[&str]) -> User {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    User {
        id: format!("id-{name}"),
        name: name.to_owned(),
        account: AccountName::parse(name).unwrap(),
        email: Some(format!("{name}@example.com")),
        hash: Some(right()),
        roles: owned(roles),
        scopes: owned(scopes),
        tenant: None,
        disabled: false,
        created: START,
        updated: START,
    }
}

impl World {
    async fn new(text: &str) -> Self {
        let (policy, memory) = (policy(text), Arc::new(Memory::new()));
        let users = [
            user("ada", &["editor", "portcullis:admin"], &[]),
            User { tenant: Some("acme".into()), ..user("bob", &["viewer"], &["beta"]) },
            user("eve", &[], &[]),
            User { disabled: true, ..user("off", &["editor"], &[]) },
            User { hash: None, ..user("sso", &["editor"], &[]) },
        ];
        memory.add(&users).await.unwrap();
        let flaky = Arc::new(Flaky {
            inner: Arc::clone(&memory),
            attempts: Switch::default(),
            rotate: Switch::default(),
            revoke: Switch::default(),
        });
        let stores = Stores {
            users: Arc::clone(&memory) as Arc<dyn Users>,
            sessions: Arc::clone(&flaky) as Arc<dyn Sessions>,
            browser: memory.clone(),
            revocations: vec![Arc::clone(&flaky) as Arc<dyn crate::store::Revocations>],
            attempts: Arc::clone(&flaky) as Arc<dyn Attempts>,
            limits: None,
            keys: Arc::clone(&memory) as Arc<dyn crate::store::SigningKeys>,
        };
        let (clock, random) = (Arc::new(ManualClock::at(START)), Arc::new(SeededRandom::new(42)));
        let revoked = Arc::new(RevokedList::new(Vec::new()));
        let issuers = Issuers::new(None, Arc::clone(&clock) as Arc<dyn Clock>, Arc::clone(&random) as Arc<dyn Random>);
        issuers.refresh(&policy).await.unwrap();
        let login = Login::new(Parts {
            stores: Arc::new(stores),
            revoked: Arc::clone(&revoked),
            hasher: hasher(),
            issuers: issuers.live(),
            supabase: crate::provider::Supabase::new(None),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            random,
            audit: Arc::new(Audit::none()),
        });
        Self { policy, login: Arc::new(login), memory, flaky, revoked, clock }
    }

    fn asking<'a>(&'a self, client: &str, caller: &'a Caller) -> Asking<'a> {
        let app = &self.policy.apps[0];
        Asking {
            policy: &self.policy,
            app,
            login: app.login.as_ref().unwrap(),
            client: ClientAddr::new(client.parse().unwrap()),
            user_agent: "test/1",
            caller,
            decision_id: "d-1",
            now: self.clock.now(),
        }
    }

    async fn form(body: &str) -> Result<Form, OAuthError> {
        Form::parse(Some(URLENCODED), None, Bytes::copy_from_slice(body.as_bytes())).await
    }

    async fn token_from(&self, client: &str, body: &str) -> Answer {
        let asking = self.asking(client, &Caller::Anonymous);
        match Self::form(body).await {
            Ok(form) => self.login.token(&asking, form).await.into(),
            Err(error) => self.login.refused(&asking, OwnEndpoint::Token, &error).into(),
        }
    }

    async fn token(&self, body: &str) -> Answer {
        self.token_from(CLIENT, body).await
    }

    async fn log_in(&self, name: &str, scope: &str) -> Answer {
        self.token(&format!("grant_type=password&username={name}&password=right&scope={scope}")).await
    }

    async fn refresh(&self, token: &str) -> Answer {
        self.token(&format!("grant_type=refresh_token&refresh_token={token}")).await
    }

    async fn revoke(&self, body: &str) -> Answer {
        self.login.revoke(&self.asking(CLIENT, &Caller::Anonymous), Self::form(body).await.unwrap()).await.into()
    }

    async fn introspect(&self, token: &str) -> Answer {
        let form = Self::form(&format!("token={token}")).await.unwrap();
        self.login.introspect(&self.asking(CLIENT, &Caller::Anonymous), form).await.into()
    }

    async fn logout(&self, bearer: Option<&str>, body: &str) -> Answer {
        let caller = bearer.map_or(Caller::Anonymous, |token| self.caller(token));
        self.login.logout(&self.asking(CLIENT, &caller), Self::form(body).await.unwrap()).await.into()
    }

    fn caller(&self, token: &str) -> Caller {
        let verified = self.policy.verifier.verify(token, self.clock.now()).unwrap();
        Caller::Known(std::sync::Arc::new(verified.identity(Transport::Bearer)))
    }

    fn claims(&self, token: &str) -> BTreeMap<String, Value> {
        let verified = self.policy.verifier.verify(token, self.clock.now()).unwrap();
        verified.claims().iter().map(|(name, value)| (name.to_owned(), value.clone())).collect()
    }

    /// Whether requests with this token are refused as revoked.
    fn is_dead(&self, token: &str) -> bool {
        let claims = self.claims(token);
        let text = |name: &str| claims[name].as_str();
        self.revoked.is_revoked("local", text("jti"), text("sid"), text("sub"), claims["iat"].as_i64())
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

/// An answer, with its JSON read.
#[derive(Debug)]
struct Answer {
    response: Response,
    body: Value,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        let body = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
        Self { response, body }
    }
}

impl Answer {
    /// Status and error, or status alone.
    fn word(&self) -> String {
        match self.body.get("error").and_then(Value::as_str) {
            Some(error) => format!("{} {error}", self.response.status),
            None => self.response.status.to_string(),
        }
    }

    fn text(&self, name: &str) -> &str {
        self.body[name].as_str().unwrap_or_else(|| panic!("no {name} in {}", self.body))
    }

    fn access(&self) -> &str {
        self.text("access_token")
    }

    fn refresh(&self) -> &str {
        self.text("refresh_token")
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.response.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

fn login_of(text: &str) -> String {
    POLICY.replace("login: local", text)
}

#[tokio::test]
async fn a_login_is_answered_as_clients_need_it() {
    let world = World::new(POLICY).await;
    let answer = world.log_in("Ada", "").await;
    assert_eq!(answer.word(), "200");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!((answer.header("cache-control"), answer.header("pragma")), (Some("no-store"), Some("no-cache")));
    let body = answer.body.as_object().unwrap();
    let names: Vec<&str> = body.keys().map(String::as_str).collect();
    assert_eq!(names, ["access_token", "token_type", "expires_in", "scope", "refresh_token"]);
    assert_eq!(body["token_type"], "bearer");
    assert_eq!(body["expires_in"], json!(1800));
    assert_eq!(body["scope"], "me items");

    let claims = world.claims(answer.access());
    let now = START.as_seconds();
    for (name, expected) in [
        ("iss", json!("portcullis")),
        ("sub", json!("id-ada")),
        ("aud", json!("items-api")),
        ("iat", json!(now)),
        ("exp", json!(now + 1800)),
        ("auth_time", json!(now)),
        ("scope", json!("me items")),
        ("roles", json!(["editor"])),
        ("name", json!("ada")),
        ("email", json!("ada@example.com")),
    ] {
        assert_eq!(claims[name], expected, "{name}");
    }
    assert!(!claims.contains_key("tenant"));
    let caller = world.caller(answer.access());
    let Caller::Known(identity) = caller else { panic!() };
    assert_eq!(identity.session.known().map(AsRef::as_ref), claims["sid"].as_str());
    assert_eq!(identity.auth_time.known(), Some(&START));
    assert_eq!(world.claims(world.log_in("bob", "").await.access())["tenant"], "acme");
}

/// C1, C2, J09: what is sent to the token endpoint and what it says.
#[tokio::test]
async fn the_token_endpoint_answers_each_form_as_documented() {
    let world = World::new(POLICY).await;
    let long = "x".repeat(1025);
    for (body, expected) in [
        // No client has an identity here: whatever is sent for one is ignored.
        ("grant_type=password&username=ada&password=right&client_id=None".to_owned(), "200"),
        ("grant_type=password&username=ada&password=right&client_id=&client_secret=".into(), "200"),
        ("username=ada&password=right".into(), "200"),
        ("username=ada&password=right&unknown=field".into(), "200"),
        ("grant_type=&username=ada&password=right".into(), "200"),
        ("".into(), "400 unsupported_grant_type"),
        ("username=ada".into(), "400 unsupported_grant_type"),
        ("grant_type=Password&username=ada&password=right".into(), "400 unsupported_grant_type"),
        ("grant_type=client_credentials".into(), "400 unsupported_grant_type"),
        ("grant_type=authorization_code&code=x".into(), "400 unsupported_grant_type"),
        ("grant_type=password&password=right".into(), "400 invalid_request"),
        ("grant_type=password&username=ada".into(), "400 invalid_request"),
        ("grant_type=password&username=ada&password=".into(), "400 invalid_request"),
        ("grant_type=password&username=ada&username=bob&password=right".into(), "400 invalid_request"),
        (format!("username=ada&password={long}"), "400 invalid_request"), // J05
        ("username=ada&password=right&scope=a%22b".into(), "400 invalid_scope"),
        ("username=ada&password=right&scope=admin".into(), "400 invalid_scope"),
        ("username=ada&password=wrong&scope=admin".into(), "400 invalid_grant"),
        ("username=%01&password=right".into(), "400 invalid_grant"),
        ("username=ada&password=Right".into(), "400 invalid_grant"), // J06: as received
        ("username=ada&password=right+".into(), "400 invalid_grant"),
        ("grant_type=refresh_token".into(), "400 invalid_request"),
        ("grant_type=refresh_token&refresh_token=junk".into(), "400 invalid_grant"),
        ("grant_type=refresh_token&username=ada&password=right".into(), "400 invalid_request"),
    ] {
        let answer = world.token(&body).await;
        assert_eq!(answer.word(), expected, "{body}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{body}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{body}");
        assert_eq!(answer.header("www-authenticate"), None, "{body}");
        if answer.response.status != 200 {
            assert_eq!(answer.text("error_description"), answer.text("detail"));
            assert_eq!(answer.header("x-portcullis-decision"), Some("d-1"));
        }
    }
    let caller = Caller::Anonymous;
    let query = Form::parse(Some(URLENCODED), Some("username=ada"), Bytes::from_static(b"password=right")).await;
    let refused: Answer =
        world.login.refused(&world.asking(CLIENT, &caller), OwnEndpoint::Token, &query.unwrap_err()).into();
    assert_eq!(refused.word(), "400 invalid_request");
}

#[tokio::test]
async fn a_password_is_checked_as_it_was_received() {
    let world = World::new(POLICY).await;
    let long = "ü".repeat(512); // 1,024 bytes
    let hash = crate::password::hash(long.as_bytes(), [1; 16]).unwrap();
    world.memory.add(&[User { hash: Some(hash), ..user("long", &[], &[]) }]).await.unwrap();
    assert_eq!(world.token(&format!("username=long&password={long}")).await.word(), "200");
    assert_eq!(
        world.token(&format!("username=long&password={}", "u\u{308}".repeat(341))).await.word(),
        "400 invalid_grant"
    );
}

/// J01, J02: unknown, wrong, disabled, locked and without a password are the same bytes, in every spelling of a name.
#[tokio::test]
async fn five_outcomes_of_a_login_are_one_answer() {
    for (text, status) in [("login: local", 400), ("login: local\nerrors: fastapi", 401)] {
        let world = World::new(&login_of(text)).await;
        for guess in 0..10 {
            let name = ["bob", "BOB", "ＢＯＢ", " bob ", "b\u{200b}ob"][guess % 5];
            let answer = world.token(&format!("username={name}&password=wrong{guess}")).await;
            assert_eq!(answer.word(), format!("{status} invalid_grant"));
        }
        let bodies = [
            "username=nobody&password=right",
            "username=ada&password=wrong",
            "username=off&password=right",
            "username=off&password=wrong",
            "username=bob&password=right", // locked
            "username=bob&password=wrong",
            "username=sso&password=right",
            "username=%00&password=right",
            "username=%C2%A0&password=right",
        ];
        let mut answers = Vec::new();
        for body in bodies.into_iter().filter(|body| !body.contains("%00")) {
            answers.push((body, world.token(body).await.response));
        }
        let first = answers[0].1.clone();
        assert_eq!(first.status, status);
        assert_eq!(first.headers.contains_key("www-authenticate"), status == 401);
        for (body, response) in answers {
            assert_eq!(response, first, "{body}");
        }
    }
}

#[tokio::test]
async fn a_lock_is_for_one_address_doubles_and_ends() {
    let lockout = "login: { via: local, lockout: { after: 3, within: 15m, for: 1m } }";
    let world = World::new(&login_of(lockout)).await;
    let guess = async |password: &str| world.token(&format!("username=ada&password={password}")).await.word();
    for password in ["a", "b", "c"] {
        guess(password).await;
    }
    assert_eq!(guess("right").await, "400 invalid_grant");
    assert_eq!(world.token_from("203.0.113.10", "username=ada&password=right").await.word(), "200");
    assert_eq!(world.log_in("bob", "").await.word(), "200");
    world.pass(61);
    for password in ["d", "e", "f"] {
        guess(password).await;
    }
    world.pass(61);
    assert_eq!(guess("right").await, "400 invalid_grant", "two minutes, this time");
    world.pass(120);
    assert_eq!(guess("right").await, "200");
}

#[tokio::test]
async fn ipv6_is_locked_by_64_bits_and_a_success_forgets_failures() {
    let lockout = "login: { via: local, lockout: { after: 3, within: 15m, for: 1m } }";
    let world = World::new(&login_of(lockout)).await;
    for number in 1..=3 {
        world.token_from(&format!("2001:db8::{number}"), &format!("username=ada&password=w{number}")).await;
    }
    assert_eq!(world.token_from("2001:db8::4", "username=ada&password=right").await.word(), "400 invalid_grant");
    assert_eq!(world.token_from("2001:db8:0:1::1", "username=ada&password=right").await.word(), "200");
    for round in 0..4 {
        for number in 0..2 {
            world.token(&format!("username=ada&password=w{round}{number}")).await;
        }
        assert_eq!(world.log_in("ada", "").await.word(), "200");
    }
}

/// Go's client sends each login twice, first with client credentials in the header.
#[tokio::test]
async fn the_same_credential_within_two_seconds_counts_once() {
    let lockout = "login: { via: local, lockout: { after: 3, within: 15m, for: 1m } }";
    let world = World::new(&login_of(lockout)).await;
    for password in ["a", "b"] {
        for _ in 0..5 {
            world.token(&format!("username=ada&password={password}")).await;
        }
    }
    assert_eq!(world.log_in("ada", "").await.word(), "200");
}

#[tokio::test]
async fn parallel_guesses_are_counted_before_they_are_tried() {
    let lockout = "login: { via: local, lockout: { after: 3, within: 15m, for: 1m } }";
    let world = Arc::new(World::new(&login_of(lockout)).await);
    let mut guesses = tokio::task::JoinSet::new();
    for guess in 0..8 {
        let world = Arc::clone(&world);
        // The right one is tried last and comes too late.
        let password = if guess < 7 { format!("w{guess}") } else { "right".to_owned() };
        guesses.spawn(async move { world.token(&format!("username=ada&password={password}")).await.word() });
    }
    let answers = guesses.join_all().await;
    assert!(answers.iter().all(|answer| answer == "400 invalid_grant"), "{answers:?}");
}

#[tokio::test]
async fn scopes_are_those_of_the_user_and_of_their_roles() {
    let strict = login_of("login: { via: local, scope_mode: strict }");
    let defaults = login_of("login: { via: local, default_scopes: [me, items:read] }");
    for (text, name, asked, expected) in [
        (POLICY, "ada", "", "me items"),
        (POLICY, "bob", "", "beta me"),
        (POLICY, "eve", "", ""),
        (POLICY, "ada", "items:read", "items:read"),
        (POLICY, "ada", "items:write+me", "items:write me"),
        (POLICY, "bob", "items+me", "me"),
        (POLICY, "bob", "items", "400 invalid_scope"),
        (POLICY, "eve", "me", "400 invalid_scope"),
        (&strict, "ada", "items:write+me", "items:write me"),
        (&strict, "bob", "items+me", "400 invalid_scope"),
        (&defaults, "ada", "", "me items:read"),
        (&defaults, "bob", "", "me"),
        (&defaults, "ada", "items", "items"),
    ] {
        let world = World::new(text).await;
        let answer = world.log_in(name, asked).await;
        let found = answer.body.get("scope").map_or_else(|| answer.word(), |scope| scope.as_str().unwrap().to_owned());
        assert_eq!(found, expected, "{name} asks for `{asked}`");
        if answer.response.status == 200 {
            assert_eq!(world.claims(answer.access())["scope"], *expected);
        }
    }
}

#[tokio::test]
async fn a_refresh_token_is_replaced_and_goes_on_with_the_session() {
    let world = World::new(POLICY).await;
    let first = world.log_in("ada", "").await;
    world.pass(600);
    let second = world.refresh(first.refresh()).await;
    assert_eq!((second.word().as_str(), second.text("scope")), ("200", "me items"));
    assert_ne!(second.refresh(), first.refresh());
    let (before, after) = (world.claims(first.access()), world.claims(second.access()));
    for same in ["sub", "sid", "aud", "iss", "auth_time", "scope"] {
        assert_eq!(before[same], after[same], "{same}");
    }
    for other in ["jti", "iat", "exp"] {
        assert_ne!(before[other], after[other], "{other}");
    }
    world.pass(600);
    assert_eq!(world.refresh(second.refresh()).await.word(), "200");
}

/// K02, K06: an answer that was lost can be asked for again, a copied token ends the session.
#[tokio::test]
async fn a_used_token_gives_the_same_successor_for_a_moment_and_then_ends_the_session() {
    let world = World::new(POLICY).await;
    let first = world.log_in("ada", "").await;
    let second = world.refresh(first.refresh()).await;
    world.pass(9);
    let again = world.refresh(first.refresh()).await;
    assert_eq!(again.refresh(), second.refresh());
    assert!(!world.is_dead(again.access()));
    world.pass(2);
    assert_eq!(world.refresh(first.refresh()).await.word(), "400 invalid_grant");
    for token in [first.access(), second.access(), again.access()] {
        assert!(world.is_dead(token));
    }
    assert_eq!(world.refresh(second.refresh()).await.word(), "400 invalid_grant", "the family has ended");

    // A grandparent is a copy at once.
    let first = world.log_in("ada", "").await;
    let second = world.refresh(first.refresh()).await;
    let third = world.refresh(second.refresh()).await;
    assert_eq!(world.refresh(first.refresh()).await.word(), "400 invalid_grant");
    assert_eq!(world.refresh(third.refresh()).await.word(), "400 invalid_grant");
    assert!(world.is_dead(third.access()));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_parallel_refreshes_of_one_token_are_one_rotation() {
    let world = Arc::new(World::new(POLICY).await);
    let first = world.log_in("ada", "").await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let (world, token) = (Arc::clone(&world), first.refresh().to_owned());
        tasks.spawn(async move { world.refresh(&token).await });
    }
    let answers = tasks.join_all().await;
    for answer in &answers {
        assert_eq!((answer.word().as_str(), answer.refresh()), ("200", answers[0].refresh()));
    }
    assert_eq!(world.refresh(answers[0].refresh()).await.word(), "200");
}

/// K04: the session has an end that no rotation moves, and scopes never widen.
#[tokio::test]
async fn a_session_ends_in_any_case_and_never_widens() {
    let world = World::new(POLICY).await;
    let mut answer = world.log_in("ada", "items:read+me").await;
    for asked in ["items:read", "me+items:read"] {
        let body = format!("grant_type=refresh_token&refresh_token={}&scope={asked}", answer.refresh());
        answer = world.token(&body).await;
        assert_eq!(answer.text("scope"), asked.replace('+', " "));
    }
    for asked in ["items", "admin", "me+items:write"] {
        let body = format!("grant_type=refresh_token&refresh_token={}&scope={asked}", answer.refresh());
        assert_eq!(world.token(&body).await.word(), "400 invalid_scope", "{asked}");
    }
    let narrow = world.token(&format!("grant_type=refresh_token&refresh_token={}&scope=me", answer.refresh())).await;
    let wide = world.refresh(narrow.refresh()).await;
    assert_eq!(wide.text("scope"), "items:read me", "what was granted once is still granted");

    answer = wide;
    for _ in 0..13 {
        world.pass(24 * 3600);
        answer = world.refresh(answer.refresh()).await;
        assert_eq!(answer.word(), "200");
    }
    world.pass(24 * 3600 - 600);
    answer = world.refresh(answer.refresh()).await;
    assert_eq!(answer.body["expires_in"], json!(600), "an access token does not outlive its session");
    world.pass(600);
    assert_eq!(world.refresh(answer.refresh()).await.word(), "400 invalid_grant");
}

#[tokio::test]
async fn a_refresh_follows_what_the_user_is_today() {
    let world = World::new(POLICY).await;
    let first = world.log_in("ada", "").await;
    let mut ada = world.memory.by_id("id-ada").await.unwrap().unwrap();
    ada.roles = vec!["viewer".to_owned()];
    world.memory.update(&ada).await.unwrap();
    let second = world.refresh(first.refresh()).await;
    assert_eq!(second.text("scope"), "me");
    assert_eq!(world.claims(second.access())["roles"], json!(["viewer"]));

    ada.disabled = true;
    world.memory.update(&ada).await.unwrap();
    assert_eq!(world.refresh(second.refresh()).await.word(), "400 invalid_grant");
    assert!(world.is_dead(second.access()));
    ada.disabled = false;
    world.memory.update(&ada).await.unwrap();
    assert_eq!(world.refresh(second.refresh()).await.word(), "400 invalid_grant", "the session has ended");

    let gone = world.log_in("bob", "").await;
    world.memory.remove("id-bob").await.unwrap();
    assert_eq!(world.refresh(gone.refresh()).await.word(), "400 invalid_grant");
}

#[tokio::test]
async fn a_token_of_another_app_is_unknown_and_stays_good_there() {
    let world = World::new(POLICY).await;
    let other = World { policy: policy(&POLICY.replace("items-api", "other")), ..World::new(POLICY).await };
    let other = World { login: Arc::clone(&world.login), ..other };
    let first = world.log_in("ada", "").await;
    assert_eq!(other.refresh(first.refresh()).await.word(), "400 invalid_grant");
    assert_eq!(world.refresh(first.refresh()).await.word(), "200");
}

#[tokio::test]
async fn a_store_that_fails_is_no_answer_and_loses_nothing() {
    let world = World::new(POLICY).await;
    let first = world.log_in("ada", "").await;
    world.flaky.rotate.0.store(true, Ordering::SeqCst);
    let answer = world.refresh(first.refresh()).await;
    assert_eq!((answer.word().as_str(), answer.header("retry-after")), ("503 temporarily_unavailable", Some("5")));
    world.flaky.rotate.0.store(false, Ordering::SeqCst);
    assert_eq!(world.refresh(first.refresh()).await.word(), "200");

    world.flaky.attempts.0.store(true, Ordering::SeqCst);
    for password in ["right", "wrong"] {
        let answer = world.token(&format!("username=ada&password={password}")).await;
        assert_eq!(answer.word(), "503 temporarily_unavailable");
    }
    world.flaky.attempts.0.store(false, Ordering::SeqCst);

    // A logout that is not durable is none, and can be repeated.
    let login = world.log_in("ada", "").await;
    world.flaky.revoke.0.store(true, Ordering::SeqCst);
    assert_eq!(world.logout(Some(login.access()), "").await.response.status, 503);
    assert_eq!(world.revoke(&format!("token={}", login.access())).await.word(), "503 temporarily_unavailable");
    world.flaky.revoke.0.store(false, Ordering::SeqCst);
    assert_eq!(world.logout(Some(login.access()), "").await.response.status, 204);
}

#[tokio::test]
async fn a_reuse_whose_revocation_failed_is_finished_at_the_next_try() {
    let world = World::new(POLICY).await;
    let first = world.log_in("ada", "").await;
    let second = world.refresh(first.refresh()).await;
    world.pass(11);
    world.flaky.revoke.0.store(true, Ordering::SeqCst);
    assert_eq!(world.refresh(first.refresh()).await.word(), "503 temporarily_unavailable");
    assert!(world.is_dead(second.access()), "here it is dead at once");
    world.flaky.revoke.0.store(false, Ordering::SeqCst);
    assert_eq!(world.refresh(second.refresh()).await.word(), "400 invalid_grant");
}

/// K08: RFC 7009.
#[tokio::test]
async fn whoever_holds_a_token_may_revoke_it() {
    let world = World::new(POLICY).await;
    let login = world.log_in("ada", "").await;
    for body in
        ["token=junk", "token=prt_junk", "token=a.b.c&token_type_hint=refresh_token", "token=x&token_type_hint=?"]
    {
        let answer = world.revoke(body).await;
        assert_eq!((answer.response.status, &*answer.response.body), (200, &b"{}"[..]), "{body}");
    }
    assert_eq!(world.revoke("").await.word(), "400 invalid_request");

    let second = world.log_in("ada", "").await;
    assert_eq!(world.revoke(&format!("token={}&token_type_hint=refresh_token", second.access())).await.word(), "200");
    assert!(world.is_dead(second.access()) && !world.is_dead(login.access()));
    let third = world.refresh(second.refresh()).await;
    assert!(!world.is_dead(third.access()), "only the one token");

    assert_eq!(world.revoke(&format!("token={}&token_type_hint=access_token", third.refresh())).await.word(), "200");
    assert!(world.is_dead(third.access()) && !world.is_dead(login.access()));
    assert_eq!(world.refresh(third.refresh()).await.word(), "400 invalid_grant");
    assert_eq!(world.revoke(&format!("token={}", third.refresh())).await.word(), "200", "once more");
}

#[tokio::test]
async fn introspection_says_what_a_token_is_worth() {
    let world = World::new(POLICY).await;
    let login = world.log_in("ada", "me").await;
    let answer = world.introspect(login.access()).await;
    for (name, expected) in [
        ("active", json!(true)),
        ("token_type", json!("Bearer")),
        ("scope", json!("me")),
        ("sub", json!("id-ada")),
        ("username", json!("ada")),
        ("aud", json!("items-api")),
        ("exp", json!(START.as_seconds() + 1800)),
    ] {
        assert_eq!(answer.body[name], expected, "{name}");
    }
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    world.revoke(&format!("token={}", login.access())).await;
    for token in [login.access(), login.refresh(), "junk", "a.b.c"] {
        let answer = world.introspect(token).await;
        assert_eq!((answer.response.status, &answer.body), (200, &json!({"active": false})), "{token}");
    }
    let old = world.log_in("ada", "").await;
    world.pass(1831);
    assert_eq!(world.introspect(old.access()).await.body, json!({"active": false}));
}

/// K05 on one node: after the answer no request passes.
#[tokio::test]
async fn a_logout_ends_this_session_or_all() {
    let world = World::new(POLICY).await;
    let (one, two, bob) = (world.log_in("ada", "").await, world.log_in("ada", "").await, world.log_in("bob", "").await);
    assert_eq!(world.logout(None, "").await.response.status, 401);
    assert!(world.logout(None, "").await.header("www-authenticate").unwrap().starts_with("Bearer"));
    assert_eq!(world.logout(None, "refresh_token=prt_junk").await.response.status, 401);

    let answer = world.logout(Some(one.access()), "").await;
    assert_eq!((answer.response.status, answer.response.body.len()), (204, 0));
    assert!(world.is_dead(one.access()) && !world.is_dead(two.access()));
    assert_eq!(world.refresh(one.refresh()).await.word(), "400 invalid_grant");

    // The refresh token of somebody else is not the caller's to end.
    let body = format!("refresh_token={}", bob.refresh());
    world.logout(Some(two.access()), &body).await;
    assert!(world.is_dead(two.access()) && !world.is_dead(bob.access()));
    // Alone it is enough.
    assert_eq!(world.logout(None, &body).await.response.status, 204);
    assert!(world.is_dead(bob.access()));
    assert_eq!(world.logout(None, &format!("{body}&all=true")).await.response.status, 401, "it has ended");

    let sessions = [world.log_in("ada", "").await, world.log_in("ada", "").await, world.log_in("bob", "").await];
    assert_eq!(world.logout(Some(sessions[0].access()), "all=true").await.response.status, 204);
    assert!(world.is_dead(sessions[0].access()) && world.is_dead(sessions[1].access()));
    assert!(!world.is_dead(sessions[2].access()));
    world.pass(1);
    let new = world.log_in("ada", "").await;
    assert!(!world.is_dead(new.access()), "a login afterwards is not affected");
}

/// A logout that one of the stores did not hear of was not acknowledged, and can be asked for again.
#[tokio::test]
async fn a_logout_that_got_half_way_can_be_repeated_until_its_tokens_have_expired() {
    let world = World::new(POLICY).await;
    let (half, other) = (world.log_in("ada", "").await, world.log_in("ada", "").await);
    let body = format!("refresh_token={}", half.refresh());
    world.flaky.revoke.0.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        assert_eq!(world.logout(None, &body).await.response.status, 503);
    }
    assert!(world.is_dead(half.access()), "here it is dead at once");
    let known = async || {
        let mut cursor = crate::store::Cursor::default();
        crate::store::Revocations::since(&*world.memory, &mut cursor, world.clock.now()).await.unwrap().len()
    };
    assert_eq!(known().await, 0);
    world.flaky.revoke.0.store(false, Ordering::SeqCst);
    assert_eq!(
        world.logout(None, &format!("{body}&all=true")).await.response.status,
        401,
        "an old token ends no other"
    );
    assert_eq!((world.logout(None, &body).await.response.status, known().await), (204, 1));
    assert!(!world.is_dead(other.access()));
    world.pass(30 * 60 + 91); // its last access token, leeway and margin
    assert_eq!(world.logout(None, &body).await.response.status, 401, "there is nothing left to end");
}

#[tokio::test]
async fn an_outdated_hash_is_replaced_unless_the_policy_says_otherwise() {
    let identity = "identity: { local: { preset: local, upgrade: log } }\nlogin: local";
    for (text, upgraded) in [(POLICY.to_owned(), true), (login_of(identity), false)] {
        let world = World::new(&text).await;
        let django = User { hash: Some(Secret::new(DJANGO.to_owned())), ..user("old", &[], &[]) };
        world.memory.add(&[django]).await.unwrap();
        assert_eq!(world.token("username=old&password=wrong").await.word(), "400 invalid_grant");
        for _ in 0..2 {
            assert_eq!(world.log_in("old", "").await.word(), "200");
        }
        let hash = world.memory.by_id("id-old").await.unwrap().unwrap().hash.unwrap();
        assert_eq!(hash.expose().starts_with("$argon2id$"), upgraded);
    }
}

#[tokio::test]
async fn a_hostile_or_unreadable_hash_is_like_none() {
    let world = World::new(POLICY).await;
    for (name, hash) in [("cap", "$argon2id$v=19$m=4194304,t=1000,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo"), ("junk", "right")]
    {
        world.memory.add(&[User { hash: Some(Secret::new(hash.to_owned())), ..user(name, &[], &[]) }]).await.unwrap();
        assert_eq!(world.log_in(name, "").await.word(), "400 invalid_grant", "{name}");
    }
}

#[tokio::test]
async fn documents_describe_the_endpoints() {
    let world = World::new(POLICY).await;
    let (policy, app) = (&world.policy, &world.policy.apps[0]);
    let login = app.login.as_ref().unwrap();
    let origin = "https://api.example.com";
    let server: Answer = metadata::authorization_server(policy, app, login, origin).unwrap().into();
    assert_eq!(
        server.body,
        json!({
            "issuer": origin,
            "token_endpoint": "https://api.example.com/token",
            "jwks_uri": "https://api.example.com/.well-known/jwks.json",
            "scopes_supported": ["items:read", "items:write", "me"],
            "response_types_supported": [],
            "grant_types_supported": ["password", "refresh_token"],
            "token_endpoint_auth_methods_supported": ["none"],
            "revocation_endpoint": "https://api.example.com/revoke",
            "revocation_endpoint_auth_methods_supported": ["none"],
            "introspection_endpoint": "https://api.example.com/introspect",
            "introspection_endpoint_auth_methods_supported": ["Bearer"],
        })
    );
    let resource: Answer = metadata::protected_resource(policy, app, origin).into();
    assert_eq!(resource.body["resource"], origin);
    assert_eq!(resource.body["authorization_servers"], json!([origin]));
    assert_eq!(resource.body["bearer_methods_supported"], json!(["header"]));
    assert_eq!(metadata::resource_metadata(app, origin), format!("{origin}/.well-known/oauth-protected-resource"));
    let stated = self::policy(&login_of(
        "identity: { local: { preset: local, issuer: \"https://login.example.com/x\" } }\nlogin: local",
    ));
    let server = metadata::issuer(&stated, stated.apps[0].login.as_ref().unwrap(), origin);
    assert_eq!(server.as_deref(), Some("https://login.example.com/x"));
}

#[tokio::test]
async fn the_apps_own_login_is_throttled_by_what_it_answers() {
    let text = "version: 1\napp: app\nupstream: http://localhost:8000\n\
                login: { via: upstream, account_field: email, lockout: { after: 3, within: 15m, for: 1m } }\n\
                routes: { GET /: public }\n";
    let world = World::new(text).await;
    let attempt = async |body: String, status: Option<u16>| {
        let asking = world.asking(CLIENT, &Caller::Anonymous);
        let attempted = upstream::Attempted::read(asking.login, Some(URLENCODED), &Bytes::from(body)).await;
        match world.login.upstream_attempt(&asking, attempted).await {
            Ok(forwarded) => {
                world.login.upstream_result(&asking, forwarded, status).await;
                "forwarded".to_owned()
            }
            Err(response) => Answer::from(response).word(),
        }
    };
    let ada = |number: i32| format!("email=ada&password=p{number}");
    for status in [500, 404, 302, 429, 500] {
        assert_eq!(attempt(ada(1), Some(status)).await, "forwarded", "{status} is no attempt");
    }
    assert_eq!(attempt(ada(1), None).await, "forwarded");
    for (number, status) in [(1, 401), (2, 422), (3, 200), (4, 400), (5, 403), (6, 401)] {
        assert_eq!(attempt(ada(number), Some(status)).await, "forwarded", "{number}");
    }
    assert_eq!(attempt(ada(7), Some(200)).await, "429 temporarily_unavailable");
    assert_eq!(attempt("email=bob&password=x".into(), Some(200)).await, "forwarded");
    // What names nobody clearly is one account, whatever the app makes of it.
    for number in 0..3 {
        let body = format!("email=ada&email=x{number}&password=p");
        assert_eq!(attempt(body, Some(401)).await, "forwarded");
        world.pass(3);
    }
    assert_eq!(attempt("<xml/>".into(), Some(401)).await, "429 temporarily_unavailable");
    world.flaky.attempts.0.store(true, Ordering::SeqCst);
    assert_eq!(attempt("email=carl&password=x".into(), Some(200)).await, "503 temporarily_unavailable");
}

#[test]
fn answers_can_be_waited_for_on_any_thread() {
    fn is_send<T: Send>(_: impl FnOnce(Asking<'static>, &'static Login, Form) -> T) {}
    is_send(|asking, login, form| async move { login.token(&asking, form).await });
    is_send(|asking, login, form| async move { login.logout(&asking, form).await });
    is_send(|asking, login, form| async move { login.revoke(&asking, form).await });
    is_send(|asking, login, form| async move { login.introspect(&asking, form).await });
}

/// Whoever gets a new password while the old one is checked is not let in with the old one.
#[tokio::test]
async fn a_password_that_changes_during_a_login_does_not_let_the_old_one_in() {
    #[derive(Debug)]
    struct Changing(Arc<Memory>);
    #[async_trait]
    impl Users for Changing {
        async fn add(&self, users: &[User]) -> Result<crate::store::Added, StoreError> {
            self.0.add(users).await
        }
        async fn by_account(&self, account: &account::AccountName) -> Result<Option<User>, StoreError> {
            let found = self.0.by_account(account).await?;
            if let Some(user) = &found {
                let hash = crate::password::hash(b"new", [1; 16]).ok();
                self.0.update(&User { hash, ..user.clone() }).await?;
            }
            Ok(found)
        }
        async fn by_id(&self, id: &str) -> Result<Option<User>, StoreError> {
            self.0.by_id(id).await
        }
        async fn list(&self, after: Option<&account::AccountName>, most: u32) -> Result<Vec<User>, StoreError> {
            self.0.list(after, most).await
        }
        async fn update(&self, user: &User) -> Result<bool, StoreError> {
            self.0.update(user).await
        }
        async fn replace_hash(&self, id: &str, old: &str, new: &str, now: Timestamp) -> Result<bool, StoreError> {
            self.0.replace_hash(id, old, new, now).await
        }
        async fn remove(&self, id: &str) -> Result<bool, StoreError> {
            self.0.remove(id).await
        }
        async fn hash_kinds(&self) -> Result<Vec<(String, u64)>, StoreError> {
            self.0.hash_kinds().await
        }
    }
    let world = World::new(POLICY).await;
    let parts = &world.login.parts;
    let stores = Stores { users: Arc::new(Changing(Arc::clone(&world.memory))), ..Stores::clone(&parts.stores) };
    let login = Login::new(Parts {
        stores: Arc::new(stores),
        revoked: Arc::clone(&parts.revoked),
        hasher: hasher(),
        issuers: Arc::clone(&parts.issuers),
        supabase: crate::provider::Supabase::new(None),
        clock: Arc::clone(&parts.clock),
        random: Arc::new(SeededRandom::new(3)),
        audit: Arc::new(Audit::none()),
    });
    let world = World { login: Arc::new(login), ..world };
    assert_eq!(world.log_in("ada", "").await.word(), "400 invalid_grant");
    assert!(world.memory.live(Some("id-ada"), START, 10).await.unwrap().is_empty());
}
