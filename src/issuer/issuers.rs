//! Keeps the snapshot: reads the store, and does what the plan says.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use serde_json::Value;

use crate::clock::{Clock, Timestamp};
use crate::fetch::Fetcher;
use crate::identity::IssuerName;
use crate::live::Live;
use crate::policy::set::{Issuer, LocalIssuer, PolicySet};
use crate::provider::Discovery;
use crate::random::Random;
use crate::store::{SigningKey, SigningKeys, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::token::algorithm::Algorithm;
use crate::token::key::{KeyError, KeySet, Kid};
use crate::token::mint::Minter;
use crate::token::verify::DEFAULT_LEEWAY;

use super::plan::{Step, Terms};
use super::remote::{KeyOutcome, RemoteSet, RemoteSets, RemoteStatus};
use super::{ASSERTION, Keys, Own, Signer, Snapshot, purpose};

/// How often the store is read again: a key that another gateway made is published a minute before it signs.
const REREAD: Duration = Duration::from_secs(10);

/// How often somebody else may be faster before it is left to the next time.
const TRIES: usize = 4;

/// How often it is looked whether an issuer's keys are to be fetched.
const TICK: Duration = Duration::from_secs(1);

/// Where keys come from, for all issuers of the live policy.
#[derive(Debug)]
pub struct Issuers {
    keys: RwLock<Option<Arc<dyn SigningKeys>>>,
    remote: RemoteSets,
    /// The keys of our own issuers, as last published.
    own: Mutex<Arc<Own>>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    live: Arc<Live<Snapshot>>,
    known: tokio::sync::Mutex<Known>,
    failing: AtomicBool,
}

/// What was last read. It goes on where the store cannot be reached.
#[derive(Debug, Default)]
struct Known {
    /// The keys of each purpose, oldest first.
    stored: HashMap<String, Vec<SigningKey>>,
    /// Private keys are read once.
    minters: HashMap<String, Arc<Minter>>,
}

/// A purpose with keys of the store.
struct Wanted {
    purpose: String,
    terms: Terms,
}

/// What asking for a new key did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// The name of the new key.
    pub kid: String,
    /// When it begins to sign.
    pub signs: Timestamp,
    /// Whether it was made by this call; otherwise one is on its way already, and this is it.
    pub made: bool,
}

/// Why no key was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RotateError {
    /// Others made keys at the same time, again and again.
    Contended,
    /// The key could not be made.
    Key(KeyError),
    /// The policy has no managed keys for this.
    NotManaged,
    /// The store failed.
    Store(StoreError),
}

impl Issuers {
    /// Nothing is read yet. Without a store there are only the keys of the policy.
    pub fn new(keys: Option<Arc<dyn SigningKeys>>, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self {
            keys: RwLock::new(keys),
            remote: RemoteSets::default(),
            own: Mutex::default(),
            clock,
            random,
            live: Arc::new(Live::new(Snapshot::default())),
            known: tokio::sync::Mutex::default(),
            failing: AtomicBool::new(false),
        }
    }

    /// The same, with what fetches others' keys. Without it, they are not to be had.
    pub fn fetching(mut self, fetcher: Option<Fetcher>) -> Self {
        self.remote.fetcher = fetcher;
        self
    }

    /// The same, with where fetches are counted.
    pub fn counting(mut self, metrics: Arc<Metrics>) -> Self {
        self.remote.metrics = Some(metrics);
        self
    }

    /// Where fetches are counted.
    pub fn metrics(&self) -> Option<Arc<Metrics>> {
        self.remote.metrics.clone()
    }

    /// Keeps managed keys in this store from now on.
    pub fn keep_in(&self, keys: Arc<dyn SigningKeys>) {
        *self.keys.write() = Some(keys);
    }

    /// The snapshot, which is replaced when keys or the policy change.
    pub fn live(&self) -> Arc<Live<Snapshot>> {
        Arc::clone(&self.live)
    }

    /// Brings the snapshot up to date with policy, store and time: reads keys, makes those that are due, retires and
    /// forgets. Where the store fails, what was known goes on; secrets and keys of the policy never need it.
    pub async fn refresh(&self, policy: &PolicySet) -> Result<(), StoreError> {
        let mut known = self.known.lock().await;
        let now = self.clock.now();
        self.publish(policy, &known, now);
        let Some(keys) = self.keys.read().clone() else { return Ok(()) };
        let mut outcome = Ok(());
        for wanted in wanted(policy) {
            let read = async {
                let stored = self.bring_up_to_date(keys.as_ref(), &wanted, now).await?;
                for key in &stored {
                    if !known.minters.contains_key(&key.kid) {
                        known.minters.insert(key.kid.clone(), Arc::new(read(key)?));
                    }
                }
                known.stored.insert(wanted.purpose.clone(), stored);
                Ok(())
            };
            outcome = outcome.and(read.await);
        }
        let Known { stored, minters } = &mut *known;
        minters.retain(|kid, _| stored.values().flatten().any(|key| key.kid == *kid));
        self.publish(policy, &known, now);
        outcome
    }

    /// Refreshes on every change of the policy, and every ten seconds, and fetches others' keys when that is due, for as
    /// long as the process runs.
    pub async fn run(self: Arc<Self>, policy: Arc<Live<PolicySet>>) {
        tokio::join!(self.reread(&policy), self.keep_fetched(&policy));
    }

    async fn reread(&self, policy: &Live<PolicySet>) {
        let mut changes = policy.watch();
        loop {
            changes.mark_unchanged();
            self.refresh_and_log(&policy.snapshot()).await;
            change_or(&mut changes, REREAD).await;
        }
    }

    async fn keep_fetched(self: &Arc<Self>, policy: &Live<PolicySet>) {
        let mut changes = policy.watch();
        loop {
            changes.mark_unchanged();
            self.remote.follow(&policy.snapshot());
            self.compose();
            // A slow one must not hold up the others.
            for set in self.remote.begin_due(self.clock.now()) {
                drop(self.fetch_in_background(set));
            }
            change_or(&mut changes, if self.remote.is_empty() { REREAD } else { TICK }).await;
        }
    }

    /// Fetches whatever is due of the issuers that this policy names, and returns when all of it has ended.
    pub async fn fetch_due(self: &Arc<Self>, policy: &PolicySet) {
        self.remote.follow(policy);
        let due = self.remote.begin_due(self.clock.now());
        let fetches: Vec<_> = due.into_iter().map(|set| self.fetch_in_background(set)).collect();
        for fetch in fetches {
            // One that panicked has told nothing, and is tried again.
            let _ = fetch.await;
        }
        self.compose();
    }

    /// Asks for a key that the snapshot does not have: it may be new. At most one fetch goes out for an issuer in each
    /// cool-down, whoever asks and for whatever name; while that is so, and where the name was just asked for, the answer
    /// comes at once.
    pub async fn find_key(self: &Arc<Self>, policy: &PolicySet, issuer: &IssuerName, kid: Option<&Kid>) -> KeyOutcome {
        // Without keys elsewhere, all there are have been looked at.
        let Some(set) = self.remote.of(policy, issuer) else { return KeyOutcome::UpToDate };
        let fetch = |set| drop(self.fetch_in_background(set));
        self.remote.find(&set, kid, || self.clock.now(), fetch).await
    }

    /// The discovery document of an issuer, where its keys were found through one.
    pub fn discovery(&self, issuer: &IssuerName) -> Option<Arc<Discovery>> {
        self.remote.discovery(issuer)
    }

    /// What is known of the keys that others publish.
    pub fn remote(&self) -> Vec<RemoteStatus> {
        self.remote.status(self.clock.now())
    }

    /// Fetches a set for which a fetch has begun. Nobody who goes away takes it along.
    fn fetch_in_background(self: &Arc<Self>, set: Arc<RemoteSet>) -> tokio::task::JoinHandle<()> {
        let issuers = Arc::clone(self);
        tokio::spawn(async move {
            let mut spread = [0; 1];
            issuers.random.fill(&mut spread);
            issuers.remote.fetch(&set, spread[0], || issuers.clock.now()).await;
            // Whoever was told finds the key in the snapshot.
            issuers.compose();
            set.tell();
        })
    }

    async fn refresh_and_log(&self, policy: &PolicySet) {
        match self.refresh(policy).await {
            Ok(()) if self.failing.swap(false, Ordering::Relaxed) => tracing::info!("signing keys are read again"),
            Ok(()) => {}
            Err(error) if !self.failing.swap(true, Ordering::Relaxed) => {
                tracing::error!(%error, "signing keys cannot be read: those that are known stay in use");
            }
            Err(_) => {}
        }
    }

    /// Makes a new key for a [`purpose`], although it is not due: it is published now and signs a minute later. Where
    /// one is on its way already, that is the answer.
    pub async fn rotate(&self, policy: &PolicySet, purpose: &str) -> Result<Rotated, RotateError> {
        let wanted = wanted(policy).into_iter().find(|wanted| wanted.purpose == purpose);
        let (Some(wanted), Some(keys)) = (wanted, self.keys.read().clone()) else {
            return Err(RotateError::NotManaged);
        };
        let _one_at_a_time = self.known.lock().await;
        let now = self.clock.now();
        for _ in 0..TRIES {
            let stored = keys.of(purpose).await?;
            let signs = match wanted.terms.newest(&stored) {
                Some(newest) if newest.signs > now => {
                    return Ok(Rotated { kid: newest.kid.clone(), signs: newest.signs, made: false });
                }
                Some(_) => Terms::takes_over(now),
                None => now,
            };
            let key = self.make(&wanted, signs, now).map_err(RotateError::Key)?;
            if keys.add(&key, stored.last().map(|last| last.kid.as_str())).await? {
                return Ok(Rotated { kid: key.kid, signs, made: true });
            }
        }
        Err(RotateError::Contended)
    }

    /// The keys of a purpose after all that the plan asks for was done.
    async fn bring_up_to_date(
        &self,
        keys: &dyn SigningKeys,
        wanted: &Wanted,
        now: Timestamp,
    ) -> Result<Vec<SigningKey>, StoreError> {
        let mut stored = keys.of(&wanted.purpose).await?;
        for _ in 0..TRIES {
            let steps = wanted.terms.steps(&stored, now);
            if steps.is_empty() {
                break;
            }
            for step in steps {
                match step {
                    Step::Make { signs } => {
                        let key = self.make(wanted, signs, now);
                        let key = key.map_err(|error| StoreError::Corrupt(format!("no key could be made: {error}")))?;
                        // Where somebody else was faster, theirs is read now.
                        if keys.add(&key, stored.last().map(|last| last.kid.as_str())).await? {
                            tracing::info!(key = key.kid, purpose = key.purpose, "a signing key was made");
                        }
                    }
                    Step::Retire { kid, at } => {
                        keys.retire(&kid, at).await?;
                        tracing::info!(key = kid, purpose = wanted.purpose, "a signing key was retired");
                    }
                    Step::Forget { kid } => {
                        keys.remove(&kid).await?;
                        tracing::info!(key = kid, purpose = wanted.purpose, "a signing key was forgotten");
                    }
                }
            }
            stored = keys.of(&wanted.purpose).await?;
        }
        Ok(stored)
    }

    fn make(&self, wanted: &Wanted, signs: Timestamp, now: Timestamp) -> Result<SigningKey, KeyError> {
        let algorithm = wanted.terms.algorithm;
        let mut last = KeyError::InvalidKey;
        for _ in 0..TRIES {
            let mut seed = zeroize::Zeroizing::new([0; 32]);
            self.random.fill(&mut *seed);
            match Minter::generate(algorithm, &seed) {
                Ok((minter, private)) => {
                    let kid = minter.verifying_key().thumbprint().ok_or(KeyError::InvalidKey)?;
                    return Ok(SigningKey {
                        kid: kid.as_str().to_owned(),
                        purpose: wanted.purpose.clone(),
                        algorithm: algorithm.as_str().to_owned(),
                        private,
                        created: now,
                        signs,
                        retired: None,
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Notes what is known of our own keys.
    fn publish(&self, policy: &PolicySet, known: &Known, now: Timestamp) {
        let mut own = Own::default();
        let stored: Vec<Wanted> = wanted(policy);
        let managed = |purpose: &str| {
            let wanted = stored.iter().find(|wanted| wanted.purpose == purpose)?;
            Some(known.keys(wanted, now))
        };
        for issuer in &policy.issuers {
            let Some(local) = &issuer.local else { continue };
            let keys = match managed(&purpose(&issuer.name)) {
                Some(keys) => keys,
                None => of_policy(local),
            };
            if keys.signer.is_none() {
                own.problems.push((issuer.name.as_str().into(), self.problem(local.managed)));
            }
            own.issuers.push((issuer.name.clone(), keys));
        }
        own.assertion = managed(ASSERTION);
        if own.assertion.as_ref().is_some_and(|keys| keys.signer.is_none()) {
            own.problems.push((ASSERTION.into(), self.problem(Some(Algorithm::ES256))));
        }
        *self.own.lock() = Arc::new(own);
        self.compose();
    }

    /// Publishes a snapshot of our own keys and those of others, if it says anything new.
    fn compose(&self) {
        let own = self.own.lock(); // of two at a time, the later one publishes later
        let snapshot = Snapshot { own: Arc::clone(&own), published: self.remote.published(self.clock.now()) };
        if !self.live.peek(|old| old.is_same(&snapshot)) {
            self.live.publish(snapshot);
        }
    }

    fn problem(&self, managed: Option<Algorithm>) -> &'static str {
        match managed {
            Some(_) if self.keys.read().is_none() => "managed keys need a store",
            Some(_) => "its keys could not be read from the store yet",
            None => "it has neither a secret nor a private key",
        }
    }
}

/// Waits for a change, or so long. The sender lives as long as the policy; should it ever not, the timer goes on.
async fn change_or(changes: &mut tokio::sync::watch::Receiver<u64>, wait: Duration) {
    let changed = async {
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = changed => {}
        () = tokio::time::sleep(wait) => {}
    }
}

impl Known {
    fn keys(&self, wanted: &Wanted, now: Timestamp) -> Keys {
        let (terms, none) = (wanted.terms, Vec::new());
        let stored = self.stored.get(&wanted.purpose).unwrap_or(&none);
        let minter = |key: &SigningKey| self.minters.get(&key.kid).map(|minter| (Kid::new(&key.kid), minter));
        let verifying = stored.iter().filter(|key| terms.verifies(key, now)).filter_map(minter);
        let verifying: Vec<_> = verifying.map(|(kid, minter)| minter.verifying_key().named(kid)).collect();
        let signer = terms.signing(stored, now).and_then(minter);
        Keys {
            signer: signer.map(|(kid, minter)| Signer { minter: Arc::clone(minter), kid: Some(kid) }),
            published: verifying.iter().filter_map(|key| key.to_jwk()).map(Value::Object).collect(),
            managed: KeySet::new(verifying).ok().map(Arc::new),
        }
    }
}

/// A secret, or the private key of a file: what verifies stands in the policy.
fn of_policy(local: &LocalIssuer) -> Keys {
    let Some(minter) = &local.signer else { return Keys::default() };
    let key = minter.verifying_key();
    let kid = key.thumbprint();
    let named = kid.clone().map(|kid| key.named(kid));
    Keys {
        signer: Some(Signer { minter: Arc::clone(minter), kid }),
        managed: None,
        published: named.and_then(|key| key.to_jwk()).map(Value::Object).into_iter().collect(),
    }
}

/// What the policy wants keys of the store for: issuers with managed keys, and assertions where an app asks for them.
fn wanted(policy: &PolicySet) -> Vec<Wanted> {
    let of_issuer = |issuer: &Issuer| {
        let local = issuer.local.as_ref()?;
        let valid = local.expires.saturating_add(policy.verifier.leeway(&issuer.name));
        Some(Wanted { purpose: purpose(&issuer.name), terms: Terms { algorithm: local.managed?, valid } })
    };
    let longest = policy.apps.iter().filter_map(|app| app.assertion.as_ref()).map(|assertion| assertion.expires).max();
    let assertions = longest.map(|expires| {
        let valid = expires.saturating_add(DEFAULT_LEEWAY);
        Wanted { purpose: ASSERTION.to_owned(), terms: Terms { algorithm: Algorithm::ES256, valid } }
    });
    policy.issuers.iter().filter_map(of_issuer).chain(assertions).collect()
}

fn read(key: &SigningKey) -> Result<Minter, StoreError> {
    let corrupt = |_| StoreError::Corrupt(format!("signing key {}", key.kid));
    let algorithm = key.algorithm.parse().map_err(|_| corrupt(KeyError::Unsupported("alg")))?;
    Minter::from_pem(key.private.expose(), Some(algorithm)).map_err(corrupt)
}

impl From<StoreError> for RotateError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for RotateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Contended => f.write_str("other gateways make keys at the same time: try again"),
            Self::Key(error) => write!(f, "no key could be made: {error}"),
            Self::NotManaged => f.write_str("the policy has no `signing_key: managed` for this"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RotateError {}
