//! The keys of others, which come over the network.
//!
//! In: where an issuer publishes its keys. Out: the newest set that could be had, for as long as it may be used. When it
//! is fetched is in `plan`, what a fetch is in `fetch`; a [`RemoteSet`] has one issuer's state. A set belongs to its
//! issuer and to the settings it was fetched with: other settings begin anew, the same ones keep it.
//!
//! Nothing here is fetched because of what a token says, but earlier; and nothing from anywhere that is not configured.

mod fetch;
mod plan;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::clock::Timestamp;
use crate::fetch::Fetcher;
use crate::identity::IssuerName;
use crate::policy::issuer::{KeysAt, RemoteKeys};
use crate::policy::set::PolicySet;
use crate::provider::Discovery;
use crate::telemetry::metrics::Metrics;
use crate::token::key::{KeySet, Kid};

use self::plan::{Ask, Course};

pub use self::fetch::max_age;

/// So many requests wait for the keys of an issuer at most; others are answered that nothing can be said.
const MOST_WAITING: usize = 512;
/// How long a request waits for keys: longer than the two exchanges of a fetch may take.
const WAIT: Duration = Duration::from_secs(12);

/// What came of asking for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOutcome {
    /// The keys are as new as they may be: if it is there, it is in the snapshot now.
    UpToDate,
    /// They could not be fetched, so nothing can be said about a key that is not known.
    Unavailable,
}

/// What is known of an issuer's published keys, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteStatus {
    /// The issuer.
    pub issuer: IssuerName,
    /// Where its keys, or its discovery document, are.
    pub url: String,
    /// How many keys may be used now.
    pub keys: usize,
    /// When they were fetched.
    pub fetched: Option<Timestamp>,
    /// When they will be fetched again, if nothing asks for it earlier.
    pub next: Option<Timestamp>,
    /// Why the last fetch failed, if it did.
    pub error: Option<String>,
}

/// The published keys of an issuer, at a moment.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) issuer: IssuerName,
    pub(super) settings: Arc<RemoteKeys>,
    /// `None`: it is not known what the issuer publishes. `Some(None)`: it publishes nothing.
    pub(super) keys: Option<Option<Arc<KeySet>>>,
    /// Whether keys were fetched once, but too long ago.
    pub(super) is_old: bool,
}

impl Published {
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let keys = match (&self.keys, &other.keys) {
            (Some(Some(a)), Some(Some(b))) => Arc::ptr_eq(a, b),
            (Some(None), Some(None)) | (None, None) => true,
            _ => false,
        };
        keys && self.issuer == other.issuer && self.settings == other.settings && self.is_old == other.is_old
    }
}

/// The published keys of all issuers of the live policy.
#[derive(Debug, Default)]
pub(super) struct RemoteSets {
    sets: RwLock<Vec<Arc<RemoteSet>>>,
    pub(super) fetcher: Option<Fetcher>,
    pub(super) metrics: Option<Arc<Metrics>>,
    names: RandomState,
}

/// The published keys of one issuer.
#[derive(Debug)]
pub(super) struct RemoteSet {
    issuer: IssuerName,
    settings: Arc<RemoteKeys>,
    state: Mutex<State>,
    /// Changes when a fetch has ended.
    done: watch::Sender<u64>,
    waiting: AtomicUsize,
}

#[derive(Debug)]
struct State {
    course: Course,
    keys: Option<Arc<KeySet>>,
    /// What they were read from.
    body: Bytes,
    discovery: Option<Arc<Discovery>>,
    error: Option<String>,
    /// Whether it was said that the keys are too old.
    said_old: bool,
}

/// A place in the queue for an issuer's keys.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl RemoteSets {
    /// Follows a policy: new issuers and settings begin, what it does not name is forgotten.
    pub(super) fn follow(&self, policy: &PolicySet) {
        let wanted = |set: &RemoteSet| {
            let issuer = policy.issuer(&set.issuer);
            issuer.and_then(|issuer| issuer.remote.as_ref()).is_some_and(|settings| *settings == set.settings)
        };
        if !self.sets.read().iter().all(|set| wanted(set)) {
            self.sets.write().retain(|set| wanted(set));
        }
        for issuer in &policy.issuers {
            self.of(policy, &issuer.name);
        }
    }

    /// The keys of an issuer with the settings that this policy has for it.
    pub(super) fn of(&self, policy: &PolicySet, issuer: &IssuerName) -> Option<Arc<RemoteSet>> {
        let settings = policy.issuer(issuer)?.remote.as_ref()?;
        let is_it = |set: &&Arc<RemoteSet>| set.issuer == *issuer && set.settings == *settings;
        if let Some(set) = self.sets.read().iter().find(is_it) {
            return Some(Arc::clone(set));
        }
        let mut sets = self.sets.write();
        if let Some(set) = sets.iter().find(is_it) {
            return Some(Arc::clone(set));
        }
        let set = Arc::new(RemoteSet::new(issuer.clone(), Arc::clone(settings)));
        sets.push(Arc::clone(&set));
        Some(set)
    }

    /// The discovery document of an issuer, where one was read.
    pub(super) fn discovery(&self, issuer: &IssuerName) -> Option<Arc<Discovery>> {
        let sets = self.sets.read();
        let found = sets.iter().rev().find(|set| set.issuer == *issuer)?;
        found.state.lock().discovery.clone()
    }

    /// What is known now.
    pub(super) fn published(&self, now: Timestamp) -> Vec<Published> {
        self.sets.read().iter().map(|set| set.published(now)).collect()
    }

    pub(super) fn status(&self, now: Timestamp) -> Vec<RemoteStatus> {
        self.sets.read().iter().map(|set| set.status(now)).collect()
    }

    /// The sets for which it is time to fetch: whoever asks fetches them.
    pub(super) fn begin_due(&self, now: Timestamp) -> Vec<Arc<RemoteSet>> {
        let sets = self.sets.read();
        sets.iter().filter(|set| set.begin_if_due(now)).map(Arc::clone).collect()
    }

    /// Whether there is any.
    pub(super) fn is_empty(&self) -> bool {
        self.sets.read().is_empty()
    }

    /// Asks about a name that the snapshot does not know. `fetch` is called where a fetch must begin.
    pub(super) async fn find(
        &self,
        set: &Arc<RemoteSet>,
        kid: Option<&Kid>,
        now: impl Fn() -> Timestamp,
        fetch: impl FnOnce(Arc<RemoteSet>),
    ) -> KeyOutcome {
        let name = self.names.hash_one(kid);
        let mut done = set.done.subscribe();
        match set.ask(kid, name, now()) {
            Ask::UpToDate => return self.up_to_date(set, kid),
            Ask::Unavailable => return KeyOutcome::Unavailable,
            Ask::Fetch => fetch(Arc::clone(set)),
            Ask::Wait => {}
        }
        let Some(_waiting) = set.wait() else { return KeyOutcome::Unavailable };
        // However that ends, the state tells.
        let _ = tokio::time::timeout(WAIT, done.changed()).await;
        match set.answer(kid, name, now()) {
            KeyOutcome::UpToDate => self.up_to_date(set, kid),
            KeyOutcome::Unavailable => KeyOutcome::Unavailable,
        }
    }

    fn up_to_date(&self, set: &RemoteSet, kid: Option<&Kid>) -> KeyOutcome {
        if let Some(metrics) = self.metrics.as_ref().filter(|_| !set.has(kid)) {
            metrics.issuer_unknown_key(set.issuer.as_str());
        }
        KeyOutcome::UpToDate
    }

    /// Fetches a set for which a fetch has begun, and notes what came. Whoever waits is told by [`RemoteSet::tell`].
    pub(super) async fn fetch(&self, set: &RemoteSet, spread: u8, now: impl Fn() -> Timestamp) {
        let (mut discovery, anew) = {
            let state = set.state.lock();
            (state.discovery.clone(), state.course.due().is_none_or(|due| now() >= due))
        };
        let got = match &self.fetcher {
            Some(fetcher) => fetch::keys(fetcher, &set.settings, &mut discovery, anew).await,
            None => Err(fetch::Failure::Unreachable("nothing can be fetched by this process".to_owned())),
        };
        set.state.lock().discovery = discovery;
        let outcome = set.take(got, spread, now());
        if let Some(metrics) = &self.metrics {
            metrics.issuer_fetched(set.issuer.as_str(), outcome);
        }
    }
}

impl RemoteSet {
    fn new(issuer: IssuerName, settings: Arc<RemoteKeys>) -> Self {
        let state = State {
            course: Course::new(&settings),
            keys: None,
            body: Bytes::new(),
            discovery: None,
            error: None,
            said_old: false,
        };
        let (state, done, waiting) = (Mutex::new(state), watch::Sender::new(0), AtomicUsize::new(0));
        Self { issuer, settings, state, done, waiting }
    }

    /// Tells those who wait that a fetch has ended.
    pub(super) fn tell(&self) {
        self.done.send_modify(|fetches| *fetches = fetches.wrapping_add(1));
    }

    fn has(&self, kid: Option<&Kid>) -> bool {
        let state = self.state.lock();
        state.keys.as_ref().zip(kid).is_some_and(|(keys, kid)| keys.names(kid))
    }

    fn begin_if_due(&self, now: Timestamp) -> bool {
        let mut state = self.state.lock();
        let is_due = state.course.is_due(now);
        if is_due {
            state.course.begin(now);
        }
        is_due
    }

    /// What to do about a name. Where it is [`Ask::Fetch`], the fetch counts as begun.
    fn ask(&self, kid: Option<&Kid>, name: u64, now: Timestamp) -> Ask {
        let mut state = self.state.lock();
        let has = state.keys.as_ref().zip(kid).is_some_and(|(keys, kid)| keys.names(kid));
        if has && state.course.is_usable(now) {
            return Ask::UpToDate; // it came between looking and asking
        }
        let ask = state.course.ask(name, now);
        if ask == Ask::Fetch {
            state.course.begin(now);
        }
        ask
    }

    /// What a fetch that has ended says about a name.
    fn answer(&self, kid: Option<&Kid>, name: u64, now: Timestamp) -> KeyOutcome {
        let mut state = self.state.lock();
        let usable = state.course.is_usable(now);
        let has = state.keys.as_ref().zip(kid).is_some_and(|(keys, kid)| keys.names(kid));
        if usable && has {
            return KeyOutcome::UpToDate;
        }
        if !(usable && state.course.is_well()) {
            return KeyOutcome::Unavailable;
        }
        state.course.is_unknown(name, now);
        KeyOutcome::UpToDate
    }

    fn wait(&self) -> Option<Waiting<'_>> {
        let waiting = Waiting(&self.waiting);
        (self.waiting.fetch_add(1, Ordering::Relaxed) < MOST_WAITING).then_some(waiting)
    }

    fn published(&self, now: Timestamp) -> Published {
        let mut state = self.state.lock();
        let usable = state.course.is_usable(now);
        let is_old = !usable && state.course.fetched().is_some();
        if is_old && !state.said_old {
            let error = state.error.as_deref().unwrap_or("");
            tracing::error!(issuer = %self.issuer, error, "keys are too old and not used any more: answering 503");
        }
        state.said_old = is_old;
        Published {
            issuer: self.issuer.clone(),
            settings: Arc::clone(&self.settings),
            keys: usable.then(|| state.keys.clone()),
            is_old,
        }
    }

    fn status(&self, now: Timestamp) -> RemoteStatus {
        let state = self.state.lock();
        let usable = state.keys.as_ref().filter(|_| state.course.is_usable(now));
        RemoteStatus {
            issuer: self.issuer.clone(),
            url: match &self.settings.at {
                KeysAt::Url(url) => url.to_string(),
                KeysAt::Discovery(issuer) => Discovery::url(issuer),
            },
            keys: usable.map_or(0, |keys| keys.iter().count()),
            fetched: state.course.fetched(),
            next: state.course.due(),
            error: state.error.clone(),
        }
    }

    /// Notes what came, says so once, and returns what it counts as.
    fn take(&self, got: Result<fetch::Got, fetch::Failure>, spread: u8, now: Timestamp) -> &'static str {
        let mut state = self.state.lock();
        let got = match got {
            // No set that has keys is replaced by one that has none, however long it has been there.
            Ok(fetch::Got { keys: None, .. }) if state.keys.is_some() && state.course.is_usable(now) => {
                Err(fetch::Failure::Unusable("no keys are published any more: those that were stay in use".to_owned()))
            }
            got => got,
        };
        match got {
            Ok(got) => {
                state.course.succeeded(got.max_age, spread, now);
                if state.error.take().is_some() {
                    tracing::info!(issuer = %self.issuer, "keys can be fetched again");
                }
                if state.body != got.body {
                    match &got.keys {
                        Some(keys) => {
                            tracing::info!(issuer = %self.issuer, keys = keys.iter().count(), "keys were fetched");
                        }
                        // As a Supabase project that still signs with its secret.
                        None => tracing::info!(issuer = %self.issuer, "the issuer publishes no keys"),
                    }
                    for problem in &got.ignored {
                        tracing::warn!(issuer = %self.issuer, %problem, "a published key is not used");
                    }
                    (state.keys, state.body) = (got.keys, got.body);
                }
                "ok"
            }
            Err(failure) => {
                state.course.failed(spread, now);
                let error = failure.to_string();
                if state.error.is_none() {
                    match state.course.fetched() {
                        Some(_) => {
                            tracing::warn!(issuer = %self.issuer, error, "keys cannot be fetched: those that are known stay in use")
                        }
                        None => {
                            tracing::error!(issuer = %self.issuer, error, "keys cannot be fetched: its tokens are answered 503")
                        }
                    }
                }
                state.error = Some(error);
                failure.name()
            }
        }
    }
}
