//! The running policy, and what is known about the one on disk.
//!
//! A set that loads and passes its own tests replaces the running one as a whole. One that does not changes
//! nothing but the [`ReloadStatus`]: the last good set keeps serving, and log, metric and status say so until
//! disk and memory agree again.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::{Clock, Timestamp};
use crate::config::Environment;
use crate::diagnostic::{Diagnostic, Sources};
use crate::live::Live;
use crate::policy::set::PolicySet;
use crate::telemetry::metrics::{Metrics, ReloadResult};

use super::files;
use super::load::{self, Fingerprint, Loaded};
use super::references;
use super::watch::Watched;

/// What became of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The set on disk serves from now on.
    Applied {
        /// The revision that served before.
        from: String,
        /// The revision that serves now.
        to: String,
    },
    /// The set on disk does not load; this one still serves.
    Rejected {
        /// The revision that still serves.
        running: String,
    },
    /// The set on disk is the one that serves.
    Unchanged {
        /// Its revision.
        running: String,
    },
}

/// What runs, and what is on disk.
#[derive(Clone, Debug)]
pub struct ReloadStatus {
    /// The revision that serves.
    pub running: String,
    /// Since when.
    pub since: Timestamp,
    /// How many files it was read from.
    pub files: usize,
    /// How many routes it has.
    pub routes: usize,
    /// How many tests it passed.
    pub tests: usize,
    /// The revision on disk.
    pub disk: String,
    /// The rejected set on disk; `None` while disk and memory agree.
    pub rejected: Option<Arc<Rejection>>,
}

/// Why the set on disk does not serve.
#[derive(Debug)]
pub struct Rejection {
    /// Since when disk and memory differ.
    pub stale_since: Timestamp,
    /// When the set was rejected.
    pub at: Timestamp,
    /// One line: the first error with its place.
    pub summary: String,
    /// All findings.
    pub diagnostics: Vec<Diagnostic>,
    /// The texts that their places point into.
    pub sources: Sources,
}

/// Reads the folder again, and replaces the running set if what is there is good.
#[derive(Debug)]
pub struct Reloader {
    folder: PathBuf,
    environment: Arc<Environment>,
    test_gate: bool,
    policy: Arc<Live<PolicySet>>,
    status: Arc<Live<ReloadStatus>>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    running: Fingerprint,
    /// The last set that was looked at: the running one, or a rejected one.
    seen: Fingerprint,
    references: BTreeSet<PathBuf>,
    watched: Watched,
}

/// What a [`Reloader`] works with.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The policies folder.
    pub folder: PathBuf,
    /// The environment that `env:` reads.
    pub environment: Arc<Environment>,
    /// Whether failing tests reject a set.
    pub test_gate: bool,
    /// Where reloads are counted.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Reloader {
    /// Begins with a set that loaded. `None` if it did not.
    pub fn start(surroundings: Surroundings, loaded: Loaded) -> Option<Self> {
        let Surroundings { folder, environment, test_gate, metrics, clock } = surroundings;
        let tests = loaded.passed();
        let Loaded { tested, revision, fingerprint, reference_files: references, watched, .. } = loaded;
        let policy = Arc::clone(tested?.policy());
        let status = ReloadStatus {
            running: revision.to_string(),
            since: clock.now(),
            files: policy.sources.files().len(),
            routes: policy.routes.len(),
            tests,
            disk: revision.to_string(),
            rejected: None,
        };
        metrics.policy(&status.running, status.routes);
        metrics.stale(None);
        Some(Self {
            folder,
            environment,
            test_gate,
            policy: Arc::new(Live::shared(policy)),
            status: Arc::new(Live::new(status)),
            metrics,
            clock,
            running: fingerprint,
            seen: fingerprint,
            references,
            watched,
        })
    }

    /// The running policy.
    pub fn policy(&self) -> Arc<Live<PolicySet>> {
        Arc::clone(&self.policy)
    }

    /// What runs, and what is on disk.
    pub fn status(&self) -> Arc<Live<ReloadStatus>> {
        Arc::clone(&self.status)
    }

    /// The paths whose changes matter.
    pub fn watched(&self) -> &Watched {
        &self.watched
    }

    /// Looks at the folder. A set that was looked at before is not looked at again unless `forced`.
    pub fn reload(&mut self, forced: bool) -> Report {
        let texts = files::read(&self.folder);
        self.watched.folders.extend(texts.folders.iter().cloned());
        let seen = Fingerprint { texts: load::digest(&texts), references: references::digest(&self.references) };
        if seen == self.seen && !forced {
            return self.report();
        }
        let started = Instant::now();
        let loading = || {
            load::from_files(
                texts,
                &load::Options { test_gate: self.test_gate, ..load::Options::serve(&self.environment) },
            )
        };
        // A mistake of ours in reading a policy must not end the policy that runs.
        let Ok(loaded) = catch_unwind(AssertUnwindSafe(loading)) else {
            self.seen = seen;
            let message = "loading the policies failed within the gateway; please report this".to_owned();
            return self.reject(String::new(), message, Vec::new(), Sources::default());
        };
        self.seen = loaded.fingerprint;
        self.references.clone_from(&loaded.reference_files);
        self.watched = loaded.watched.clone();
        if loaded.fingerprint == self.running {
            return self.unchanged();
        }
        let (revision, tests) = (loaded.revision.to_string(), loaded.passed());
        let Some(tested) = loaded.tested else {
            let summary = load::summary(&loaded.diagnostics, &loaded.sources);
            return self.reject(revision, summary, loaded.diagnostics, loaded.sources);
        };
        self.running = loaded.fingerprint;
        self.apply(Arc::clone(tested.policy()), revision, tests, started.elapsed())
    }

    fn report(&self) -> Report {
        let status = self.status.snapshot();
        let running = status.running.clone();
        if status.rejected.is_some() { Report::Rejected { running } } else { Report::Unchanged { running } }
    }

    fn apply(&self, policy: Arc<PolicySet>, revision: String, tests: usize, took: Duration) -> Report {
        let before = self.status.snapshot();
        let status = ReloadStatus {
            running: revision.clone(),
            since: self.clock.now(),
            files: policy.sources.files().len(),
            routes: policy.routes.len(),
            tests,
            disk: revision.clone(),
            rejected: None,
        };
        tracing::info!(
            rev = format!("{} → {revision}", before.running),
            files = status.files,
            routes = format!("{}→{}", before.routes, status.routes),
            tests = format!("{tests}/{tests}"),
            took = format!("{:.1}ms", took.as_secs_f64() * 1000.0),
            "policy reload"
        );
        self.policy.publish_shared(policy);
        self.metrics.policy(&revision, status.routes);
        self.metrics.stale(None);
        self.metrics.reloaded(ReloadResult::Applied);
        self.status.publish(status);
        Report::Applied { from: before.running.clone(), to: revision }
    }

    fn unchanged(&self) -> Report {
        let before = self.status.snapshot();
        let running = before.running.clone();
        if before.rejected.is_some() {
            tracing::info!(rev = running.as_str(), "policy reload  disk equals running set again; stale cleared");
            self.status.publish(ReloadStatus { disk: running.clone(), rejected: None, ..(*before).clone() });
        } else {
            tracing::info!(rev = running.as_str(), "policy reload  unchanged");
        }
        self.metrics.stale(None);
        self.metrics.reloaded(ReloadResult::Unchanged);
        Report::Unchanged { running }
    }

    fn reject(&self, disk: String, summary: String, diagnostics: Vec<Diagnostic>, sources: Sources) -> Report {
        let before = self.status.snapshot();
        let now = self.clock.now();
        let stale_since = before.rejected.as_ref().map_or(now, |rejection| rejection.stale_since);
        tracing::error!(
            since_seconds = now.since(before.since).as_secs(),
            error = summary.as_str(),
            "policy reload REJECTED, still serving {}",
            before.running
        );
        self.metrics.stale(Some(stale_since));
        self.metrics.reloaded(ReloadResult::Rejected);
        let rejection = Arc::new(Rejection { stale_since, at: now, summary, diagnostics, sources });
        self.status.publish(ReloadStatus { disk, rejected: Some(rejection), ..(*before).clone() });
        Report::Rejected { running: before.running.clone() }
    }
}
