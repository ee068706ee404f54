//! Rotation on injected time, with the store that is in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;

use crate::clock::{Clock as _, ManualClock, Timestamp};
use crate::diagnostic::Sources;
use crate::identity::IssuerName;
use crate::policy::compile::compile;
use crate::policy::references::References;
use crate::policy::set::{PolicySet, Revision};
use crate::policy::{Options, check, read};
use crate::random::SeededRandom;
use crate::secret::Secret;
use crate::store::memory::Memory;
use crate::store::{SigningKey, SigningKeys, StoreError};
use crate::token::algorithm::Algorithm;
use crate::token::error::TokenError;
use crate::token::jwks::{Jwks, Origin};
use crate::token::mint::Minter;
use crate::token::verify::Verifier;

use super::plan::{Step, Terms};
use super::{Issuers, PUBLISHED_AHEAD, ROTATE_EVERY, RotateError, Rotated, purpose};

const START: Timestamp = Timestamp::from_seconds(1_800_000_000);

fn policy(identity: &str, references: &References) -> Arc<PolicySet> {
    let text = format!(
        "version: 1\napp: items\nupstream: http://localhost:8000\nidentity:\n{identity}routes:\n  GET /items: authenticated\n"
    );
    let mut sources = Sources::default();
    sources.add("policies/test.yaml", &text);
    let (document, found) = read(&sources);
    let (checked, more) = check(document, &sources, &Options::default());
    let checked = checked.unwrap_or_else(|| panic!("{found:?} {more:?}"));
    let candidate = compile(&checked, &sources, references, Revision::of(&sources));
    Arc::clone(candidate.unwrap_or_else(|found| panic!("{found:?}")).policy())
}

fn managed(algorithm: &str) -> Arc<PolicySet> {
    let identity = format!(
        "  main:\n    preset: local\n    signing_key: managed\n    algorithm: {algorithm}\n    issuer: https://gate\n    expires: 30m\n"
    );
    policy(&identity, &References::none())
}

/// A store that can be taken away.
#[derive(Debug, Default)]
struct Store {
    memory: Memory,
    is_down: AtomicBool,
}

impl Store {
    fn up(&self) -> Result<&Memory, StoreError> {
        match self.is_down.load(Ordering::Relaxed) {
            true => Err(StoreError::Unavailable("down".to_owned())),
            false => Ok(&self.memory),
        }
    }
}

#[async_trait]
impl SigningKeys for Store {
    async fn of(&self, purpose: &str) -> Result<Vec<SigningKey>, StoreError> {
        SigningKeys::of(self.up()?, purpose).await
    }
    async fn add(&self, key: &SigningKey, last: Option<&str>) -> Result<bool, StoreError> {
        // Others come in between.
        tokio::task::yield_now().await;
        SigningKeys::add(self.up()?, key, last).await
    }
    async fn retire(&self, kid: &str, at: Timestamp) -> Result<(), StoreError> {
        self.up()?.retire(kid, at).await
    }
    async fn remove(&self, kid: &str) -> Result<(), StoreError> {
        SigningKeys::remove(self.up()?, kid).await
    }
}

struct World {
    store: Arc<Store>,
    clock: Arc<ManualClock>,
}

/// A gateway.
struct Node {
    issuers: Arc<Issuers>,
    clock: Arc<ManualClock>,
}

impl World {
    fn new() -> Self {
        Self { store: Arc::default(), clock: Arc::new(ManualClock::at(START)) }
    }

    fn node(&self, seed: u64) -> Node {
        let keys: Arc<dyn SigningKeys> = Arc::clone(&self.store) as _;
        let issuers = Issuers::new(Some(keys), Arc::clone(&self.clock) as _, Arc::new(SeededRandom::new(seed)));
        Node { issuers: Arc::new(issuers), clock: Arc::clone(&self.clock) }
    }

    async fn kids(&self) -> Vec<String> {
        SigningKeys::of(&*self.store, "main").await.unwrap().into_iter().map(|key| key.kid).collect()
    }

    fn at(&self, since_start: Duration) {
        self.clock.set(START.plus(since_start));
    }
}

fn main() -> IssuerName {
    IssuerName::new("main")
}

impl Node {
    async fn refresh(&self, policy: &PolicySet) {
        self.issuers.refresh(policy).await.unwrap();
    }

    fn kid(&self) -> String {
        self.issuers.live().snapshot().signer(&main()).unwrap().kid.as_ref().unwrap().as_str().to_owned()
    }

    fn verifier(&self, policy: &PolicySet) -> Verifier {
        self.issuers.live().snapshot().verifier(policy)
    }

    fn token(&self) -> String {
        let snapshot = self.issuers.live().snapshot();
        let signer = snapshot.signer(&main()).unwrap();
        let now = self.clock.now().as_seconds();
        let claims = json!({"iss": "https://gate", "aud": "items", "sub": "ada", "iat": now, "exp": now + 1800});
        signer.minter.mint(claims.as_object().unwrap(), signer.kid.as_ref(), None).unwrap()
    }

    fn published(&self) -> Vec<String> {
        let set = self.issuers.live().snapshot().jwks(&[&main()]);
        let kid = |key: &serde_json::Value| key["kid"].as_str().unwrap().to_owned();
        set["keys"].as_array().unwrap().iter().map(kid).collect()
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_key_is_published_signs_verifies_and_is_forgotten_in_this_order() {
    let (world, policy) = (World::new(), managed("ES256"));
    let node = world.node(1);
    node.refresh(&policy).await;
    let first = node.kid();
    let due = ROTATE_EVERY;
    let retired = due + PUBLISHED_AHEAD;
    let mut second = String::new();
    let mut last_of_first = String::new();
    // When, which key signs, how many are published and stored.
    for (at, signs_first, published) in [
        (Duration::ZERO, true, 1),
        (due - MINUTE, true, 1),
        (due, true, 2),
        (retired - Duration::from_secs(1), true, 2),
        (retired, false, 2),
        // Thirty minutes, the leeway, and a minute.
        (retired + 31 * MINUTE, false, 2),
        (retired + 32 * MINUTE, false, 1),
    ] {
        world.at(at);
        node.refresh(&policy).await;
        let kids = world.kids().await;
        assert_eq!(
            (node.kid() == first, node.published().len(), kids.len()),
            (signs_first, published, published),
            "{at:?}"
        );
        assert_eq!(node.published(), kids, "{at:?}");
        if signs_first {
            last_of_first = node.token();
        } else {
            second = node.kid();
        }
        let verified = node.verifier(&policy).verify(&node.token(), world.clock.now()).unwrap();
        assert_eq!(verified.kid().unwrap().as_str(), node.kid());
        // As long as it has not expired, the token of a retired key is good.
        let expected = if at < retired + 30 * MINUTE {
            Ok(())
        } else if published == 2 {
            Err(TokenError::Expired)
        } else {
            Err(TokenError::UnknownKey)
        };
        let found = node.verifier(&policy).verify(&last_of_first, world.clock.now()).map(|_| ());
        assert_eq!(found, expected, "{at:?}");
    }
    assert_eq!(world.kids().await, [second]);
}

#[tokio::test]
async fn gateways_that_start_at_once_agree_on_one_key_and_on_each_that_follows() {
    let (world, policy) = (World::new(), managed("EdDSA"));
    let nodes = [world.node(1), world.node(2), world.node(3)];
    let refresh = async || {
        let [a, b, c] = &nodes;
        tokio::join!(a.refresh(&policy), b.refresh(&policy), c.refresh(&policy));
    };
    refresh().await;
    for at in
        [Duration::ZERO, ROTATE_EVERY, ROTATE_EVERY + MINUTE, ROTATE_EVERY * 2 + MINUTE, ROTATE_EVERY * 2 + 2 * MINUTE]
    {
        world.at(at);
        refresh().await;
        let kids: Vec<_> = nodes.iter().map(Node::kid).collect();
        assert!(kids.iter().all(|kid| *kid == kids[0]), "{at:?}: {kids:?}");
        for node in &nodes {
            let verified = nodes[0].verifier(&policy).verify(&node.token(), world.clock.now());
            assert!(verified.is_ok(), "{at:?}: {verified:?}");
        }
    }
    // One has not looked for a while: the others have published the new key before they sign with it.
    world.at(ROTATE_EVERY * 3 + 2 * MINUTE);
    nodes[0].refresh(&policy).await;
    world.clock.advance(Duration::from_secs(10));
    nodes[1].refresh(&policy).await;
    world.clock.advance(Duration::from_secs(50));
    nodes[0].refresh(&policy).await;
    assert_ne!(nodes[0].kid(), nodes[1].kid());
    for (from, to) in [(0, 1), (1, 0)] {
        let verified = nodes[to].verifier(&policy).verify(&nodes[from].token(), world.clock.now());
        assert!(verified.is_ok(), "{from} {to} {verified:?}");
    }
}

#[tokio::test]
async fn a_store_that_is_away_takes_no_key_from_who_has_it_and_gives_none_to_who_has_not() {
    let (world, policy) = (World::new(), managed("ES256"));
    let (old, new) = (world.node(1), world.node(2));
    old.refresh(&policy).await;
    world.at(ROTATE_EVERY);
    old.refresh(&policy).await;
    let first = old.kid();
    world.store.is_down.store(true, Ordering::Relaxed);
    world.at(ROTATE_EVERY + 2 * MINUTE);
    let down = Err(StoreError::Unavailable("down".to_owned()));
    assert_eq!((old.issuers.refresh(&policy).await, new.issuers.refresh(&policy).await), (down.clone(), down));
    // The clock goes on: the key that was published takes over.
    assert_ne!(old.kid(), first);
    assert!(old.verifier(&policy).verify(&old.token(), world.clock.now()).is_ok());

    let snapshot = new.issuers.live().snapshot();
    assert!(snapshot.signer(&main()).is_none());
    assert_eq!(snapshot.problems(&policy), [("main".into(), "its keys could not be read from the store yet")]);
    let refused = new.verifier(&policy).verify(&old.token(), world.clock.now()).unwrap_err();
    assert_eq!(refused, TokenError::KeysUnavailable);

    world.store.is_down.store(false, Ordering::Relaxed);
    new.refresh(&policy).await;
    assert_eq!(new.kid(), old.kid());
    assert!(new.issuers.live().snapshot().problems(&policy).is_empty());
}

#[tokio::test]
async fn a_key_that_cannot_be_read_is_an_error_and_not_a_new_key() {
    let (world, policy) = (World::new(), managed("ES256"));
    let broken = SigningKey {
        kid: "broken".into(),
        purpose: "main".into(),
        algorithm: "ES256".into(),
        private: Secret::new("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".into()),
        created: START,
        signs: START,
        retired: None,
    };
    SigningKeys::add(&*world.store, &broken, None).await.unwrap();
    let node = world.node(1);
    let corrupt = Err(StoreError::Corrupt("signing key broken".to_owned()));
    assert_eq!(node.issuers.refresh(&policy).await, corrupt);
    assert!(node.issuers.live().snapshot().signer(&main()).is_none());
    assert_eq!(world.kids().await, ["broken"]);
}

#[tokio::test]
async fn an_operator_can_rotate_once_at_a_time_and_only_managed_keys() {
    let (world, policy) = (World::new(), managed("ES256"));
    let node = world.node(1);
    let rotate = async || node.issuers.rotate(&policy, "main").await.unwrap();
    // There is none yet: it signs at once.
    let first = rotate().await;
    assert_eq!((first.signs, first.made), (START, true));
    let second = rotate().await;
    assert_eq!((second.signs, second.made), (START.plus(PUBLISHED_AHEAD), true));
    assert_eq!(rotate().await, Rotated { made: false, ..second.clone() });
    node.refresh(&policy).await;
    assert_eq!(node.kid(), first.kid);
    world.at(PUBLISHED_AHEAD);
    node.refresh(&policy).await;
    assert_eq!(node.kid(), second.kid);
    assert_eq!(node.issuers.rotate(&policy, "other").await, Err(RotateError::NotManaged));
}

#[tokio::test]
async fn another_algorithm_in_the_policy_gets_a_key_at_once_and_the_old_one_leaves_after_a_day() {
    let world = World::new();
    let (before, after) = (managed("ES256"), managed("EdDSA"));
    let (old, new) = (world.node(1), world.node(2));
    old.refresh(&before).await;
    for _ in 0..3 {
        // While one gateway has the old policy and one the new, neither makes more than one key.
        new.refresh(&after).await;
        old.refresh(&before).await;
    }
    assert_eq!(world.kids().await.len(), 2);
    let verified = new.verifier(&after).verify(&new.token(), world.clock.now()).unwrap();
    assert_eq!(verified.algorithm(), Some(Algorithm::EdDSA));
    world.at(Duration::from_secs(24 * 3600));
    new.refresh(&after).await;
    world.at(Duration::from_secs(26 * 3600));
    new.refresh(&after).await;
    assert_eq!(world.kids().await, [new.kid()]);
}

#[tokio::test]
async fn keys_of_the_policy_sign_without_a_store_and_secrets_are_not_published() {
    let secret = "3f9a7c1e5b8d2046a1c3e5f7092b4d6e8fa0c2e4d6b8091a";
    let (_, pem) = Minter::generate(Algorithm::EdDSA, &[9; 32]).unwrap();
    let references = References::none().with_env("SECRET_KEY", Secret::new(secret.to_owned()));
    let hs256 = policy("  main:\n    preset: local\n    issuer: https://gate\n", &references);
    let references = References::none().with_env("KEY", pem);
    let eddsa = policy("  main:\n    preset: local\n    signing_key: env:KEY\n    issuer: https://gate\n", &references);
    let clock = Arc::new(ManualClock::at(START));
    let issuers = Arc::new(Issuers::new(None, Arc::clone(&clock) as _, Arc::new(SeededRandom::new(1))));
    let node = Node { issuers, clock };
    for (policy, algorithm, published) in [(&hs256, Algorithm::HS256, 0), (&eddsa, Algorithm::EdDSA, 1)] {
        node.refresh(policy).await;
        let verified = node.verifier(policy).verify(&node.token(), START).unwrap();
        assert_eq!(verified.algorithm(), Some(algorithm));
        let set = node.issuers.live().snapshot().jwks(&[&main(), &main(), &IssuerName::new("other")]);
        assert_eq!(set["keys"].as_array().unwrap().len(), published, "{set}");
        assert!(!set.to_string().contains("\"d\"") && !set.to_string().contains("\"k\""), "{set}");
        if published > 0 {
            assert!(Jwks::parse(set.to_string().as_bytes(), Origin::Published, algorithm.into()).is_ok());
        }
    }
    // Managed keys are nowhere without a store.
    node.refresh(&managed("ES256")).await;
    let snapshot = node.issuers.live().snapshot();
    assert!(snapshot.signer(&main()).is_none());
    assert_eq!(snapshot.problems(&managed("ES256")), [("main".into(), "managed keys need a store")]);
}

#[tokio::test]
async fn a_snapshot_is_replaced_only_when_it_changes() {
    let (world, policy) = (World::new(), managed("ES256"));
    let node = world.node(1);
    node.refresh(&policy).await;
    let changes = node.issuers.live().watch();
    for _ in 0..3 {
        world.clock.advance(MINUTE);
        node.refresh(&policy).await;
    }
    assert!(!changes.has_changed().unwrap());
    node.issuers.rotate(&policy, "main").await.unwrap();
    node.refresh(&policy).await;
    assert!(changes.has_changed().unwrap());
}

#[test]
fn steps_follow_from_keys_and_time() {
    let terms = Terms { algorithm: Algorithm::ES256, valid: 30 * MINUTE };
    let key = |kid: &str, signs: i64, retired: Option<i64>| SigningKey {
        kid: kid.into(),
        purpose: "main".into(),
        algorithm: "ES256".into(),
        private: Secret::new(String::new()),
        created: Timestamp::from_seconds(signs - 60),
        signs: Timestamp::from_seconds(signs),
        retired: retired.map(Timestamp::from_seconds),
    };
    let at = Timestamp::from_seconds;
    let days = |days: i64| days * 24 * 3600;
    let retire = |kid: &str, seconds: i64| Step::Retire { kid: kid.into(), at: at(seconds) };
    let make = |seconds: i64| Step::Make { signs: at(seconds) };
    let forget = |kid: &str| Step::Forget { kid: kid.into() };
    for (keys, now, steps, signing) in [
        (vec![], 500, vec![make(500)], None),
        (vec![key("a", 500, None)], 500, vec![], Some("a")),
        // A clock that is behind.
        (vec![key("a", 500, None)], 400, vec![], Some("a")),
        (vec![key("a", 500, None)], 500 + days(90) - 1, vec![], Some("a")),
        (vec![key("a", 500, None)], 500 + days(90), vec![make(560 + days(90))], Some("a")),
        (vec![key("a", 500, None), key("b", 900, None)], 899, vec![], Some("a")),
        (vec![key("a", 500, None), key("b", 900, None)], 900, vec![retire("a", 900)], Some("b")),
        // The process was away: both successors have taken over since.
        (
            vec![key("a", 500, None), key("b", 900, None), key("c", 1200, None)],
            1300,
            vec![retire("a", 900), retire("b", 1200)],
            Some("c"),
        ),
        (vec![key("a", 500, Some(900)), key("b", 900, None)], 900 + 1860, vec![], Some("b")),
        (vec![key("a", 500, Some(900)), key("b", 900, None)], 901 + 1860, vec![forget("a")], Some("b")),
        // Retired by somebody else: a gateway with another policy.
        (vec![key("a", 500, Some(900))], 1000, vec![make(1000)], None),
    ] {
        let names: Vec<&str> = keys.iter().map(|key: &SigningKey| key.kid.as_str()).collect();
        assert_eq!(terms.steps(&keys, at(now)), steps, "{names:?} at {now}");
        let found = terms.signing(&keys, at(now)).map(|key| key.kid.as_str());
        assert_eq!(found, signing, "{names:?} at {now}");
    }
}

#[tokio::test]
async fn assertions_have_a_key_of_their_own_where_an_app_asks_for_them() {
    let world = World::new();
    let node = world.node(1);
    let plain = managed("EdDSA");
    node.refresh(&plain).await;
    assert!(node.issuers.live().snapshot().assertion().is_none());
    let text = "  main:\n    preset: local\n    signing_key: managed\n    algorithm: EdDSA\n    issuer: https://gate\nassertion: true\n";
    let asking = policy(text, &References::none());
    node.refresh(&asking).await;
    let snapshot = node.issuers.live().snapshot();
    let kid = snapshot.assertion().unwrap().kid.as_ref().unwrap().as_str();
    assert_eq!(node.published(), [node.kid().as_str(), kid]);
    // It is no key of the issuer: what an app was told is no token.
    let now = START.as_seconds();
    let claims = json!({"iss": "https://gate", "aud": "items", "sub": "ada", "iat": now, "exp": now + 60});
    let signer = snapshot.assertion().unwrap();
    let assertion = signer.minter.mint(claims.as_object().unwrap(), signer.kid.as_ref(), None).unwrap();
    assert!(node.verifier(&asking).verify(&assertion, START).is_err());
    node.refresh(&plain).await;
    assert_eq!(node.published(), [node.kid()]);
}

#[test]
fn an_issuer_called_assertion_has_keys_of_its_own() {
    assert_eq!(purpose(&main()), "main");
    assert_eq!(purpose(&IssuerName::new("assertion")), "issuer assertion");
}
