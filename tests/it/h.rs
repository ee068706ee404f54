//! H: keys over the network. And of G, what concerns them: G03, G05, G11; of R, the storm of R13; of O, O08.
//!
//! Time is the test's: no background task runs but where a test says so, and what it would do is asked for.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue};
use portcullis::clock::{Clock as _, ManualClock, Timestamp};
use portcullis::identity::IssuerName;
use portcullis::issuer::{Issuers, KeyOutcome};
use portcullis::live::Live;
use portcullis::pipeline::{Found, Outcome, Pipeline, Services, Settings, Step};
use portcullis::policy::set::PolicySet;
use portcullis::random::SeededRandom;
use portcullis::request::forwarded::TrustedProxies;
use portcullis::request::head::RequestHead;
use portcullis::server::services::{Outside, fetcher};
use portcullis::telemetry::decision_log::DecisionLog;
use portcullis::telemetry::metrics::Metrics;
use portcullis::token::algorithm::Algorithm;
use portcullis::token::key::Kid;
use portcullis::token::mint::Minter;
use serde_json::{Value, json};

use crate::harness::{Harness, NOW, Token, compile, get};
use crate::idp::{DISCOVERY, Idp, KEYS, Mode};
use crate::upstream::Upstream;

const HOUR: u64 = 3600;

/// A key pair of an issuer.
pub struct Pair {
    minter: Minter,
    kid: &'static str,
}

impl Pair {
    pub fn new(kid: &'static str, seed: u8) -> Self {
        Self { minter: Minter::generate(Algorithm::ES256, &[seed; 32]).unwrap().0, kid }
    }

    /// What is published of it.
    pub fn jwk(&self) -> Value {
        Value::Object(self.minter.verifying_key().named(Kid::new(self.kid)).to_jwk().unwrap())
    }

    /// A token of an issuer, good for two days.
    pub fn token(&self, issuer: &str) -> String {
        self.token_named(issuer, self.kid)
    }

    fn token_named(&self, issuer: &str, kid: &str) -> String {
        let claims = json!({
            "iss": issuer, "aud": "api", "sub": "6d8a2a3c-2a53-4ac6-8d29-5d9c3f0f6a11", "iat": NOW,
            "exp": NOW + 48 * 3600, "role": "authenticated", "session_id": "s",
        });
        self.minter.mint(claims.as_object().unwrap(), Some(&Kid::new(kid)), None).unwrap()
    }
}

/// The same token with another header.
fn with_header(token: &str, header: &Value) -> String {
    let rest = token.split_once('.').unwrap().1;
    format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()))
}

/// A token whose key nobody has.
fn made_up(token: &str, number: usize) -> String {
    with_header(token, &json!({ "alg": "ES256", "typ": "JWT", "kid": format!("made-up-{number}") }))
}

/// A policy with these issuers, in lines of YAML.
fn policy(issuers: &str) -> String {
    format!(
        "version: 1\nupstream: http://127.0.0.1:9\nidentity:\n{issuers}routes:\n  GET /items: authenticated\n  GET /open: public\n"
    )
}

pub fn by_url(name: &str, idp: &Idp) -> String {
    let (issuer, url) = (idp.issuer(), idp.keys_url());
    format!("  {name}: {{ preset: jwt, jwks_url: '{url}', issuer: '{issuer}', audience: api, algorithms: [ES256] }}\n")
}

fn by_discovery(name: &str, idp: &Idp) -> String {
    format!("  {name}: {{ preset: oidc, issuer: '{}', audience: api }}\n", idp.issuer())
}

/// What decides, without a listener.
pub struct World {
    pub pipeline: Arc<Pipeline>,
    pub policy: Arc<Live<PolicySet>>,
    issuers: Arc<Issuers>,
    pub services: Arc<Live<Services>>,
    metrics: Arc<Metrics>,
    pub clock: Arc<ManualClock>,
}

impl World {
    pub fn new(issuers: &str) -> Self {
        Self::of(&policy(issuers))
    }

    /// Decides by this policy.
    pub fn of(policy: &str) -> Self {
        let policy = Arc::new(Live::new(compile(policy, &[])));
        let (clock, random) = (Arc::new(ManualClock::at(Timestamp::from_seconds(NOW))), Arc::new(SeededRandom::new(7)));
        let metrics = Arc::new(Metrics::new());
        let mut outside = Outside::without_store(clock.clone(), random.clone());
        let fetching = Issuers::new(None, clock.clone(), random.clone()).fetching(fetcher());
        outside.issuers = Arc::new(fetching.counting(Arc::clone(&metrics)));
        let services = Arc::new(Live::new(Services::without_store(&outside)));
        let settings = Settings {
            clock: clock.clone(),
            random,
            trusted_proxies: TrustedProxies::default(),
            country_header: None,
            decisions: Arc::new(DecisionLog::none()),
            metrics: Arc::clone(&metrics),
            services: Arc::clone(&services),
        };
        let pipeline = Arc::new(Pipeline::new(Arc::clone(&policy), settings));
        Self { pipeline, policy, issuers: outside.issuers, services, metrics, clock }
    }

    /// What the background task does when it looks at the clock.
    async fn tick(&self) {
        self.issuers.fetch_due(&self.policy.snapshot()).await;
    }

    pub async fn after(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        self.tick().await;
    }

    pub async fn ask(&self, token: &str) -> u16 {
        self.ask_for("/items", token).await.0
    }

    /// The status, and whether somebody else had to be asked.
    pub async fn ask_for(&self, target: &str, token: &str) -> (u16, bool) {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("api.test"));
        headers.insert("authorization", HeaderValue::try_from(format!("Bearer {token}")).unwrap());
        let head = RequestHead::new("GET", target, &headers).peer(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let (mut found, mut asked) = (Found::default(), false);
        loop {
            match self.pipeline.step(&head, &found) {
                Step::Ask(need) => {
                    assert!(!asked, "nothing is asked twice");
                    asked = true;
                    self.pipeline.find_out(&need, &mut found).await;
                }
                Step::Decided(decided) => match decided.outcome {
                    Outcome::Forward(_) => return (200, asked),
                    Outcome::Respond(response) => {
                        assert_eq!(response.status == 503, response.headers.contains_key("retry-after"));
                        return (response.status, asked);
                    }
                    Outcome::Answer(_) => panic!("nothing of ours is there"),
                },
            }
        }
    }

    fn problems(&self) -> Vec<String> {
        self.services.snapshot().problems(&self.policy.snapshot())
    }

    pub fn metric(&self, line: &str) -> bool {
        self.metrics.encode(self.clock.now(), &DecisionLog::none()).lines().any(|found| found == line)
    }
}

/// R13 and H01: whatever is asked for, an issuer is asked three times a minute at most, and no good token waits. H02:
/// a key that is really new is known within the cool-down, in the middle of it.
async fn storm(
    world: &World,
    path: &str,
    idp: &Idp,
    good: &str,
    tokens: usize,
    rotate: Option<(&Pair, &str)>,
) -> String {
    const SECONDS: usize = 300;
    let (mut fetches, mut usable, template) = (Vec::new(), None, Pair::new("template", 99).token(&issuer_of(good)));
    for second in 0..SECONDS {
        if let Some((pair, _)) = rotate.filter(|_| second == 100) {
            idp.publish(vec![Pair::new("a", 1).jwk(), pair.jwk()]);
        }
        let before = idp.hits(path);
        world.after(1).await;
        for number in 0..tokens / SECONDS {
            let (status, _) = world.ask_for("/items", &made_up(&template, second * 1_000_000 + number)).await;
            assert_eq!(status, 401, "{second}");
            if number % 50 == 0 {
                assert_eq!(world.ask_for("/items", good).await, (200, false), "{second}");
            }
        }
        if let Some((_, new)) = rotate.filter(|_| second >= 100 && usable.is_none()) {
            usable = (world.ask(new).await == 200).then_some(second - 100);
        }
        fetches.push(idp.hits(path) - before);
    }
    let most = fetches.windows(60).map(|minute| minute.iter().sum::<usize>()).max().unwrap();
    let all: usize = fetches.iter().sum();
    assert!(most <= 3, "{most} fetches in a minute");
    if rotate.is_some() {
        assert!(usable.is_some_and(|seconds| seconds <= 31), "a new key after {usable:?} s");
    }
    format!("{tokens} tokens: {all} fetches in {SECONDS} s, {most} in the worst minute, a new key after {usable:?} s")
}

fn issuer_of(token: &str) -> String {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice::<Value>(&claims).unwrap()["iss"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_names_cost_an_issuer_no_more_than_its_cool_down_allows() {
    let (old, new) = (Pair::new("a", 1), Pair::new("b", 2));
    let idp = Idp::start(vec![old.jwk()]);
    let world = World::new(&by_url("company", &idp));
    let (good, next) = (old.token(&idp.issuer()), new.token(&idp.issuer()));
    assert_eq!(world.ask(&good).await, 200);
    println!("{}", storm(&world, KEYS, &idp, &good, 100_000, Some((&new, &next))).await);
    assert!(!world.metric("portcullis_issuer_unknown_keys_total{issuer=\"company\"} 0"));
}

/// H01: an empty set is no set to be fetched for ever (mobula).
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_set_cools_down_too() {
    let idp = Idp::start(vec![]);
    let base = idp.issuer();
    let world = World::new(&format!(
        "  project: {{ preset: supabase, url: '{base}', jwt_secret: env:SECRET, audience: api }}\n"
    ));
    let issuer = format!("{base}/auth/v1");
    let legacy = Token::of("6d8a2a3c-2a53-4ac6-8d29-5d9c3f0f6a11").with("iss", issuer.as_str());
    let legacy = legacy.with("role", "authenticated").with("session_id", "s").sign();
    assert_eq!(world.ask_for("/items", &legacy).await, (200, false), "the secret needs nobody");
    println!("{}", storm(&world, "/auth/v1/.well-known/jwks.json", &idp, &legacy, 20_000, None).await);
    assert!(world.problems().is_empty(), "{:?}", world.problems());
    // A project that moves to signing keys: both are good, each for its own algorithm.
    let pair = Pair::new("a", 1);
    idp.publish(vec![pair.jwk()]);
    world.after(31).await;
    assert_eq!((world.ask(&pair.token(&issuer)).await, world.ask(&legacy).await), (200, 200));
    let point = pair.jwk()["x"].to_string();
    let confused = Token::of("u").with("iss", issuer.as_str()).signed_with(&point);
    assert_eq!(world.ask(&confused).await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_without_keys_and_without_a_secret_says_what_it_lacks() {
    let idp = Idp::start(vec![]);
    let world = World::new(&format!("  project: {{ preset: supabase, url: '{}', audience: api }}\n", idp.issuer()));
    let token = Pair::new("a", 1).token(&format!("{}/auth/v1", idp.issuer()));
    assert_eq!(world.ask(&token).await, 503);
    assert!(world.problems()[0].contains("`jwt_secret`"), "{:?}", world.problems());
}

/// H03: for a day without its issuer, everybody who has a good token passes; then nobody can say, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_day_without_the_issuer_locks_nobody_out() {
    let pair = Pair::new("a", 1);
    let idp = Idp::start(vec![pair.jwk()]);
    let world = World::new(&by_discovery("company", &idp));
    let good = pair.token(&idp.issuer());
    world.tick().await;
    assert_eq!(world.ask_for("/items", &good).await, (200, false));
    let outages = [
        Mode::Answer(500, b"oops".to_vec()),
        Mode::HangUp,
        Mode::Answer(200, b"<html>maintenance</html>".to_vec()),
        Mode::Answer(200, b"{\"keys\":[]}".to_vec()),
        Mode::Answer(404, vec![]),
    ];
    let (mut asked, mut since) = (0, 0);
    while since < 24 * HOUR {
        idp.set(outages[(since / HOUR) as usize % outages.len()].clone());
        world.after(60).await;
        since += 60;
        assert_eq!(world.ask_for("/items", &good).await, (200, false), "after {since} s");
        asked += 1;
    }
    assert_eq!(asked, 24 * 60);
    assert!(world.problems().is_empty(), "{:?}", world.problems());
    let status = &world.issuers.remote()[0];
    assert!(status.error.is_some() && status.keys == 1, "{status:?}");
    world.after(61).await;
    assert_eq!(world.ask(&good).await, 503);
    assert!(world.problems()[0].contains("`company`: its keys are too old"), "{:?}", world.problems());
    assert_eq!(world.ask_for("/open", "").await, (200, false));
    idp.set(Mode::Fine);
    world.after(61).await;
    assert_eq!(world.ask(&good).await, 200);
    assert!(world.problems().is_empty() && world.issuers.remote()[0].error.is_none());
}

/// H03: keys that were never seen let nobody in, and turn nobody away for good.
#[tokio::test(flavor = "multi_thread")]
async fn without_keys_its_routes_say_503_and_readiness_names_the_issuer() {
    let (pair, other) = (Pair::new("a", 1), Pair::new("o", 3));
    let (idp, fine) = (Idp::start(vec![pair.jwk()]), Idp::start(vec![other.jwk()]));
    let world = World::new(&(by_url("company", &idp) + &by_url("partner", &fine)));
    let good = pair.token(&idp.issuer());
    for mode in [
        Mode::Answer(500, vec![]),
        Mode::HangUp,
        Mode::Answer(200, b"<html>".to_vec()),
        Mode::Answer(200, b"{\"keys\":[]}".to_vec()),
        Mode::Answer(200, json!({ "keys": [{ "kty": "oct", "k": "AAAA", "alg": "HS256" }] }).to_string().into_bytes()),
    ] {
        idp.set(mode.clone());
        world.after(61).await;
        assert_eq!(world.ask(&good).await, 503, "{mode:?}");
        assert_eq!(world.ask(&made_up(&good, 1)).await, 503, "{mode:?}");
        assert_eq!(world.ask(&other.token(&fine.issuer())).await, 200, "{mode:?}");
        assert_eq!(world.ask_for("/open", "").await, (200, false));
        assert_eq!(world.problems(), ["issuer `company`: its keys could not be fetched yet"], "{mode:?}");
    }
    idp.set(Mode::Fine);
    // The next fetch comes by itself, and whoever asks after a cool-down need not wait for it.
    world.clock.advance(Duration::from_secs(31));
    assert_eq!(world.ask_for("/items", &good).await, (200, true));
    assert!(world.problems().is_empty());
    for line in [
        "portcullis_issuer_fetches_total{issuer=\"company\",result=\"ok\"} 1",
        "portcullis_issuer_fetches_total{issuer=\"company\",result=\"unreachable\"} 2",
        "portcullis_issuer_fetches_total{issuer=\"company\",result=\"unusable\"} 3",
    ] {
        assert!(world.metric(line), "{line}");
    }
}

/// H04, D08 and O08: what a hostile or broken set holds is not used, and what was there before stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_set_changes_nothing() {
    let (old, evil) = (Pair::new("a", 1), Pair::new("evil", 66));
    let canary = Idp::start(vec![evil.jwk()]);
    let with = |members: Value| {
        let mut jwk = evil.jwk();
        for (name, value) in members.as_object().unwrap() {
            jwk[name] = value.clone();
        }
        jwk
    };
    let set = |keys: Vec<Value>| Mode::Answer(200, json!({ "keys": keys }).to_string().into_bytes());
    let many = |count: usize| -> Vec<Value> {
        let key = |n: usize| {
            let kid = format!("k{n}");
            let minter = Minter::generate(Algorithm::ES256, &[u8::try_from(n % 200 + 1).unwrap(); 32]).unwrap().0;
            Value::Object(minter.verifying_key().named(Kid::new(&kid)).to_jwk().unwrap())
        };
        (0..count).map(key).chain([evil.jwk()]).collect()
    };
    let good_key = old.jwk().to_string();
    let text = |body: String| Mode::Answer(200, body.into_bytes());
    for (id, what, mode, keeps) in [
        ("H04", "no keys", set(vec![]), true),
        ("H04", "a private key", set(vec![with(json!({ "d": "AAAA" }))]), true),
        ("H04", "a private key beside ours", set(vec![old.jwk(), with(json!({ "d": "AAAA" }))]), false),
        ("H04", "a key for encryption", set(vec![old.jwk(), with(json!({ "use": "enc" }))]), false),
        ("H04", "a key for signing alone", set(vec![old.jwk(), with(json!({ "key_ops": ["sign"] }))]), false),
        ("H04", "another curve", set(vec![old.jwk(), with(json!({ "crv": "P-384" }))]), false),
        ("H04", "another kind", set(vec![old.jwk(), with(json!({ "kty": "AKP" }))]), false),
        ("H04", "another algorithm", set(vec![old.jwk(), with(json!({ "alg": "RS256" }))]), false),
        (
            "H04",
            "one name for two keys",
            set(vec![old.jwk(), evil.jwk(), with(json!({ "x": old.jwk()["x"], "y": old.jwk()["y"] }))]),
            false,
        ),
        ("H04", "sixty-five keys", set(many(64)), true),
        ("D08", "ten thousand keys", set(many(200).into_iter().cycle().take(10_000).collect()), true),
        (
            "D08",
            "ten megabytes",
            text(format!("{{\"keys\":[{}],\"x\":\"{}\"}}", evil.jwk(), "x".repeat(10 << 20))),
            true,
        ),
        ("H04", "HTML", text("<html></html>".to_owned()), true),
        ("D08", "a redirect", Mode::Redirect(canary.keys_url()), true),
        ("H04", "201", Mode::Answer(201, json!({ "keys": [evil.jwk()] }).to_string().into_bytes()), true),
        (
            "O08",
            "deep",
            text(format!("{{\"keys\":[{}],\"x\":{}{}}}", evil.jwk(), "[".repeat(100_000), "]".repeat(100_000))),
            true,
        ),
        ("O08", "cut off", text(format!("{{\"keys\":[{}]", evil.jwk())), true),
        ("O08", "something after it", text(format!("{{\"keys\":[{}]}} x", evil.jwk())), true),
        ("O08", "one member twice", text(format!("{{\"keys\":[{good_key}],\"keys\":[{}]}}", evil.jwk())), true),
        ("O08", "a comma too many", text(format!("{{\"keys\":[{},]}}", evil.jwk())), true),
        ("O08", "a byte order mark", text(format!("\u{feff}{{\"keys\":[{}]}}", evil.jwk())), true),
        ("O08", "half a character", text(format!("{{\"keys\":[{}],\"x\":\"\\ud800\"}}", evil.jwk())), true),
        ("O08", "no number", text(format!("{{\"keys\":[{}],\"x\":NaN}}", evil.jwk())), true),
    ] {
        let idp = Idp::start(vec![old.jwk()]);
        let world = World::new(&by_url("company", &idp));
        let good = old.token(&idp.issuer());
        assert_eq!(world.ask(&good).await, 200, "{id}: {what}");
        idp.set(mode);
        world.after(601).await;
        let hostile = world.ask(&evil.token(&idp.issuer())).await;
        assert!(matches!(hostile, 401 | 503), "{id}: {what}: {hostile}");
        assert_eq!(world.ask_for("/items", &good).await, (200, false), "{id}: {what}");
        assert_eq!(world.issuers.remote()[0].error.is_some(), keeps, "{id}: {what}: {:?}", world.issuers.remote());
    }
    assert_eq!(canary.all_hits(), 0, "a redirect was followed");
}

/// G03: a key that does not say what it is for is for what the policy says, or for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_algorithm_is_for_what_the_policy_lists() {
    let pair = Pair::new("a", 1);
    let mut bare = pair.jwk();
    bare.as_object_mut().unwrap().remove("alg");
    let idp = Idp::start(vec![bare]);
    let world = World::new(&by_url("company", &idp));
    let good = pair.token(&idp.issuer());
    assert_eq!(world.ask(&good).await, 200);
    for algorithm in ["HS256", "none", "ES384", "RS256"] {
        let header = json!({ "alg": algorithm, "kid": "a" });
        assert_eq!(world.ask(&with_header(&good, &header)).await, 401, "{algorithm}");
    }
    let elsewhere = World::new(&by_url("company", &idp).replace("[ES256]", "[RS256]"));
    assert_eq!(elsewhere.ask(&good).await, 401);
}

/// G05: what a token brings along is neither used nor fetched.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_leads_nowhere() {
    let (pair, evil) = (Pair::new("a", 1), Pair::new("evil", 66));
    let (idp, canary) = (Idp::start(vec![pair.jwk()]), Idp::start(vec![evil.jwk()]));
    let world = World::new(&by_discovery("company", &idp));
    let token = evil.token(&idp.issuer());
    for kid in ["a", "evil", "../../keys", &canary.keys_url()] {
        for (name, value) in [
            ("jku", json!(canary.keys_url())),
            ("x5u", json!(canary.keys_url())),
            ("jwk", evil.jwk()),
            ("x5c", json!(["MIIB"])),
            ("x5t", json!("AAAA")),
        ] {
            let mut header = json!({ "alg": "ES256", "kid": kid });
            header[name] = value;
            let claims = json!({ "iss": idp.issuer(), "aud": "api", "sub": "u", "exp": NOW + 60 });
            let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            // Signed by the attacker over this very header.
            let signed = evil.minter.mint(claims.as_object().unwrap(), None, None).unwrap();
            let forged = format!("{}.{}.{}", encode(&header), encode(&claims), signed.rsplit('.').next().unwrap());
            assert_eq!(world.ask(&forged).await, 401, "{name} {kid}");
        }
    }
    assert_eq!(world.ask(&token).await, 401);
    // Whoever names the canary as issuer is nobody that the policy knows.
    assert_eq!(world.ask(&evil.token(&canary.issuer())).await, 401);
    assert_eq!((canary.all_hits(), idp.hits(KEYS)), (0, 1));
}

/// G11: a key is its issuer's, whatever it is called.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_one_issuer_sign_for_no_other() {
    let (a, b) = (Pair::new("a", 1), Pair::new("b", 2));
    let (first, second) = (Idp::start(vec![a.jwk()]), Idp::start(vec![b.jwk()]));
    let world = World::new(&(by_url("first", &first) + &by_discovery("second", &second)));
    for (pair, issuer, kid, expected) in [
        (&a, first.issuer(), "a", 200),
        (&b, second.issuer(), "b", 200),
        (&b, first.issuer(), "a", 401),
        (&b, first.issuer(), "b", 401),
        (&a, second.issuer(), "a", 401),
        (&a, second.issuer(), "b", 401),
        (&a, "https://nobody.example".to_owned(), "a", 401),
    ] {
        assert_eq!(world.ask(&pair.token_named(&issuer, kid)).await, expected, "{issuer} {kid}");
    }
}

/// H05 and H06: a discovery document leads to its own issuer's host alone, and says whose it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_discovery_document_cannot_lead_elsewhere() {
    let (pair, evil) = (Pair::new("a", 1), Pair::new("evil", 66));
    let canary = Idp::start(vec![evil.jwk()]);
    let port = canary.address.port();
    for members in [
        json!({ "jwks_uri": "http://169.254.169.254/latest/meta-data" }),
        json!({ "jwks_uri": "file:///etc/passwd" }),
        json!({ "jwks_uri": format!("http://localhost:{port}/keys") }),
        json!({ "jwks_uri": format!("http://[::1]:{port}/keys") }),
        json!({ "jwks_uri": format!("http://127.0.0.2:{port}/keys") }),
        json!({ "jwks_uri": format!("http://127.0.0.1@localhost:{port}/keys") }),
        json!({ "jwks_uri": "" }),
        json!({ "jwks_uri": null }),
        json!({ "jwks_uri": ["http://127.0.0.1/keys"] }),
        // H06
        json!({ "issuer": "http://127.0.0.1" }),
        json!({ "issuer": null }),
        json!({ "issuer": canary.issuer() }),
    ] {
        let idp = Idp::start(vec![pair.jwk()]);
        idp.discovery(members.clone());
        let world = World::new(&by_discovery("company", &idp));
        for token in [pair.token(&idp.issuer()), evil.token(&idp.issuer())] {
            assert_eq!(world.ask(&token).await, 503, "{members}");
        }
        assert_eq!(idp.hits(KEYS), 0, "{members}");
        // One that was good before stays what it was.
        idp.discovery(json!({}));
        world.after(31).await;
        idp.discovery(members.clone());
        world.after(601).await;
        assert_eq!(world.ask_for("/items", &pair.token(&idp.issuer())).await, (200, false), "{members}");
        assert!(idp.hits(DISCOVERY) >= 3 && world.issuers.remote()[0].error.is_some(), "{members}");
    }
    assert_eq!(canary.all_hits(), 0);
}

/// H09 for keys: what is removed stops to verify with the next fetch, and a reload begins anew where settings change.
#[tokio::test(flavor = "multi_thread")]
async fn removed_keys_verify_no_longer_and_a_reload_keeps_what_did_not_change() {
    let (a, b) = (Pair::new("a", 1), Pair::new("b", 2));
    let (idp, other) = (Idp::start(vec![a.jwk(), b.jwk()]), Idp::start(vec![b.jwk()]));
    let world = World::new(&by_url("company", &idp));
    let (by_a, by_b) = (a.token(&idp.issuer()), b.token(&idp.issuer()));
    assert_eq!((world.ask(&by_a).await, world.ask(&by_b).await), (200, 200));
    idp.publish(vec![b.jwk()]);
    world.after(480).await;
    assert_eq!((world.ask(&by_a).await, world.ask(&by_b).await), (401, 200));
    // The same settings: nothing is fetched.
    let hits = idp.hits(KEYS);
    world.policy.publish(compile(&policy(&by_url("company", &idp)).replace("GET /open", "GET /opened"), &[]));
    assert_eq!((world.ask_for("/items", &by_b).await, idp.hits(KEYS)), ((200, false), hits));
    // Another place: what was there counts for nothing, even while the new one cannot be reached.
    other.set(Mode::HangUp);
    let moved = by_url("company", &idp).replace(&idp.keys_url(), &other.keys_url());
    world.policy.publish(compile(&policy(&moved), &[]));
    assert_eq!(world.ask(&by_b).await, 503);
    other.set(Mode::Fine);
    world.after(31).await;
    assert_eq!((world.ask(&by_b).await, idp.hits(KEYS)), (200, hits));
    // An issuer that is gone is not asked any more.
    world.policy.publish(compile(&policy(&by_url("company", &idp)), &[]));
    let hits = other.hits(KEYS);
    world.after(601).await;
    assert_eq!((other.hits(KEYS), world.issuers.remote().len()), (hits, 1));
}

/// An issuer that does not answer holds up those who need it alone, and no more of them than are counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_issuer_holds_up_nobody_else() {
    let (pair, other) = (Pair::new("a", 1), Pair::new("o", 3));
    let (idp, fine) = (Idp::start(vec![pair.jwk()]), Idp::start(vec![other.jwk()]));
    let mut issuers = None;
    let (company, partner) = (by_url("company", &idp), by_url("partner", &fine));
    let text = policy(&(company + &partner)).replace("127.0.0.1:9\n", "UPSTREAM\n");
    let gateway = Harness::with(&text, Upstream::start().await, |parts| {
        let outside = Outside::without_store(parts.clock.clone(), Arc::new(SeededRandom::new(7)));
        issuers = Some(Arc::clone(&outside.issuers));
        parts.services = Arc::new(Live::new(Services::without_store(&outside)));
    })
    .await;
    let (issuers, live) = (issuers.unwrap(), gateway.policy.snapshot());
    let line = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let good = line(&pair.token(&idp.issuer()));
    assert_eq!(gateway.get("/items", &good).await.status, 200);
    assert_eq!(gateway.get("/items", &line(&other.token(&fine.issuer()))).await.status, 200);
    idp.set(Mode::Hold);
    gateway.clock.advance(Duration::from_secs(31));
    // Each waits for the one fetch; all are answered when it has ended, and none beyond the bound waits at all.
    let name = IssuerName::new("company");
    let waiting: Vec<_> = (0..700)
        .map(|number| {
            let (issuers, live, name) = (Arc::clone(&issuers), Arc::clone(&live), name.clone());
            tokio::spawn(async move {
                let began = Instant::now();
                let outcome = issuers.find_key(&live, &name, Some(&Kid::new(&format!("made-up-{number}")))).await;
                (outcome, began.elapsed())
            })
        })
        .collect();
    let over_http = tokio::spawn({
        let (address, token) = (gateway.address, made_up(&pair.token(&idp.issuer()), 9));
        let request = get("/items", &line(&token));
        async move { crate::client::once(address, request).await.unwrap().status }
    });
    for _ in 0..20 {
        let began = Instant::now();
        assert_eq!(gateway.get("/items", &good).await.status, 200);
        assert_eq!(gateway.get("/items", &line(&other.token(&fine.issuer()))).await.status, 200);
        assert_eq!(gateway.get("/open", "").await.status, 200);
        assert_eq!(gateway.get("/items", "").await.status, 401);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
    assert_eq!(idp.hits(KEYS), 2);
    idp.set(Mode::Fine);
    let mut outcomes = Vec::new();
    for waiting in waiting {
        outcomes.push(waiting.await.unwrap());
    }
    let told = outcomes.iter().filter(|(outcome, _)| *outcome == KeyOutcome::UpToDate).count();
    assert!((500..=512).contains(&told), "{told} waited");
    assert!(matches!(over_http.await.unwrap(), 401 | 503));
    assert_eq!(idp.hits(KEYS), 2, "one fetch for all");
    assert_eq!(gateway.get("/items", &good).await.status, 200);
}

/// H03: a server with a certificate that nobody vouches for gives no keys.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_server_that_is_not_trusted_are_none() {
    let pair = Pair::new("a", 1);
    let published = json!({ "keys": [pair.jwk()] }).to_string();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{published}", published.len());
    let upstream = Upstream::answering(move |_| answer.clone().into_bytes()).await;
    let open = "version: 1\nupstream: http://UPSTREAM\nroutes:\n  GET /open: public\n";
    let server = Harness::with(open, upstream, |_| {}).await;
    let at = |scheme: &str, port: u16| {
        let url = format!("{scheme}://localhost:{port}/open");
        World::new(&format!(
            "  company: {{ preset: jwt, jwks_url: '{url}', issuer: company, audience: api, algorithms: [ES256] }}\n"
        ))
    };
    assert_eq!(at("http", server.address.port()).ask(&pair.token("company")).await, 200);
    let world = at("https", server.tls.port());
    assert_eq!(world.ask(&pair.token("company")).await, 503);
    let status = world.issuers.remote();
    let error = status[0].error.as_deref().unwrap();
    assert!(error.contains("from an authority that is not trusted") && status[0].keys == 0, "{status:?}");
}

/// An answer without end is given up after five seconds, and nobody is let in.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_end_is_given_up() {
    let pair = Pair::new("a", 1);
    let idp = Idp::start(vec![pair.jwk()]);
    idp.set(Mode::Drip);
    let world = World::new(&by_url("company", &idp));
    let began = Instant::now();
    assert_eq!(world.ask(&pair.token(&idp.issuer())).await, 503);
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    assert!(world.issuers.remote()[0].error.as_deref().unwrap().contains("no answer in time"));
}

/// Whoever goes away takes no fetch along: the next one finds what came.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_loses_nothing() {
    let pair = Pair::new("a", 1);
    let idp = Idp::start(vec![pair.jwk()]);
    idp.set(Mode::Hold);
    let world = Arc::new(World::new(&by_url("company", &idp)));
    let good = pair.token(&idp.issuer());
    let asking = tokio::spawn({
        let (world, good) = (Arc::clone(&world), good.clone());
        async move { world.ask(&good).await }
    });
    while idp.hits(KEYS) == 0 {
        tokio::task::yield_now().await;
    }
    asking.abort();
    assert!(asking.await.is_err());
    idp.set(Mode::Fine);
    // It waits for the fetch that is under way.
    assert_eq!((world.ask(&good).await, idp.hits(KEYS)), (200, 1));
}
