//! Reloads over real folders.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::load::{self, load};
use super::publish::{ReloadStatus, Reloader, Report, Surroundings};
use super::references;
use super::watch::{self, ReloadHandle, Timing};
use crate::clock::{ManualClock, Timestamp};
use crate::config::Environment;
use crate::diagnostic::Sources;
use crate::live::Live;
use crate::telemetry::decision_log::DecisionLog;
use crate::telemetry::metrics::Metrics;

const SECRET: &str = "3f9a7c1e5b8d2046a1c3e5f7092b4d6e8fa0c2e4d6b8091a";

fn policy(path: &str) -> String {
    format!("version: 1\nupstream: http://127.0.0.1:9\nroutes:\n  GET {path}: public\n")
}

struct Place {
    dir: tempfile::TempDir,
    reloader: Reloader,
    metrics: Arc<Metrics>,
}

impl Place {
    fn new() -> Self {
        Self::with(&policy("/one"))
    }

    fn with(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("policies")).unwrap();
        fs::write(dir.path().join("policies/a.yaml"), text).unwrap();
        Self::over(dir)
    }

    fn over(dir: tempfile::TempDir) -> Self {
        let environment = Arc::new(Environment::from([("KEY".to_owned(), SECRET.to_owned())]));
        let metrics = Arc::new(Metrics::new());
        let folder = dir.path().join("policies");
        let loaded = load(&folder, &load::Options::serve(&environment));
        assert!(!loaded.has_errors(), "{:#?}", loaded.diagnostics);
        let surroundings = Surroundings {
            folder,
            environment,
            test_gate: true,
            metrics: Arc::clone(&metrics),
            clock: Arc::new(ManualClock::at(Timestamp::from_seconds(1_000))),
        };
        let reloader = Reloader::start(surroundings, loaded).unwrap();
        Self { dir, reloader, metrics }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("policies").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn routes(&self) -> Vec<String> {
        self.reloader.policy().snapshot().routes.iter().map(|route| route.key.to_string()).collect()
    }

    /// The outcome of a reload, in a word.
    fn reload(&mut self) -> &'static str {
        match self.reloader.reload(false) {
            Report::Applied { .. } => "applied",
            Report::Rejected { .. } => "rejected",
            Report::Unchanged { .. } => "unchanged",
        }
    }

    fn stale(&self) -> bool {
        let stale = self.reloader.status().snapshot().rejected.is_some();
        let text = self.metrics.encode(Timestamp::from_seconds(1_000), &DecisionLog::none());
        assert_eq!(text.contains("portcullis_policy_last_reload_success 0"), stale);
        stale
    }
}

#[test]
fn every_way_of_changing_a_file_is_seen() {
    let mut place = Place::new();
    assert_eq!(place.reload(), "unchanged");
    // Truncate and write.
    place.write("a.yaml", &policy("/two"));
    assert_eq!((place.reload(), place.routes()), ("applied", vec!["GET /two".to_owned()]));
    // Write beside and rename.
    place.write(".a.yaml.new", &policy("/three"));
    fs::rename(place.path(".a.yaml.new"), place.path("a.yaml")).unwrap();
    assert_eq!((place.reload(), place.routes()), ("applied", vec!["GET /three".to_owned()]));
    // Delete and make anew, the folder too.
    fs::remove_dir_all(place.path("")).unwrap();
    assert_eq!(place.reload(), "rejected");
    fs::create_dir(place.path("")).unwrap();
    place.write("b.yaml", &policy("/four"));
    assert_eq!((place.reload(), place.routes()), ("applied", vec!["GET /four".to_owned()]));
    // Nothing but a look.
    place.write("b.yaml", &policy("/four"));
    assert_eq!(place.reload(), "unchanged");
}

#[test]
fn a_bad_set_changes_nothing_until_disk_and_memory_agree_again() {
    let mut place = Place::new();
    let good = fs::read_to_string(place.path("a.yaml")).unwrap();
    let before = place.routes();
    for (bad, code) in [
        ("", "P012"),
        (good.strip_suffix("ublic\n").unwrap(), "P411"),
        ("version: 1\nroutes: [", "P001"),
        ("version: 1\nupstream: http://127.0.0.1:9\nroutes: { GET /: { scope: items:read } }", "P411"),
        (&format!("{good}tests: {{ g: {{ GET /one: {{ anonymous: 403 }} }} }}\n"), "P601"),
        (&good.replace("upstream: http://127.0.0.1:9", "upstream: env:NOT_SET"), "P406"),
    ] {
        place.write("a.yaml", bad);
        assert_eq!(place.reload(), "rejected", "{bad}");
        assert_eq!(place.routes(), before);
        assert!(place.stale());
        let status = place.reloader.status().snapshot();
        let summary = &status.rejected.as_ref().unwrap().summary;
        assert!(summary.contains(&format!("error[{code}")), "{summary}");
        assert!(place.reload() == "rejected" && place.stale(), "it stays so while nothing changes");
        place.write("a.yaml", &good);
        assert_eq!(place.reload(), "unchanged", "{bad}");
        assert!(!place.stale());
    }
}

#[test]
fn what_cannot_be_read_is_rejected() {
    let mut place = Place::new();
    symlink("nowhere", place.path("b.yaml")).unwrap();
    assert_eq!((place.reload(), place.stale()), ("rejected", true));
    fs::remove_file(place.path("b.yaml")).unwrap();
    assert_eq!((place.reload(), place.stale()), ("unchanged", false));
    fs::set_permissions(place.path("a.yaml"), fs::Permissions::from_mode(0o000)).unwrap();
    // Root may read everything.
    let expected = if fs::read(place.path("a.yaml")).is_ok() { "unchanged" } else { "rejected" };
    assert_eq!(place.reload(), expected);
    fs::set_permissions(place.path("a.yaml"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!((place.reload(), place.stale()), ("unchanged", false));
}

#[test]
fn a_changed_secret_is_a_changed_set() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("policies")).unwrap();
    let text = format!(
        "{}identity: {{ ours: {{ preset: jwt, secret: file:../key, issuer: us, audience: them }} }}\n",
        policy("/one").replace("public", "authenticated")
    );
    fs::write(dir.path().join("policies/a.yaml"), text).unwrap();
    fs::write(dir.path().join("key"), SECRET).unwrap();
    let mut place = Place::over(dir);
    assert_eq!(place.reload(), "unchanged");
    assert!(place.reloader.watched().files.iter().any(|file| file.ends_with("key")));
    fs::write(place.path("../key"), format!("{SECRET}0")).unwrap();
    assert_eq!(place.reload(), "applied");
    fs::write(place.path("../key"), "short").unwrap();
    assert_eq!(place.reload(), "rejected");
    fs::remove_file(place.path("../key")).unwrap();
    assert_eq!(place.reload(), "rejected");
    fs::write(place.path("../key"), format!("{SECRET}0")).unwrap();
    assert_eq!(place.reload(), "unchanged");
}

/// A key that is replaced while a set is made with the old one: the next look must see it.
#[test]
fn a_secret_that_changes_while_it_is_read_looks_changed_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("key"), SECRET).unwrap();
    let mut sources = Sources::default();
    sources.add(
        "a.yaml",
        "version: 1\nidentity: { ours: { preset: jwt, secret: file:key, issuer: us, audience: them } }\n",
    );
    let (document, _) = crate::policy::read(&sources);
    let resolved = references::resolve(&document, &[dir.path().join("a.yaml")], &Environment::from([]));
    assert_eq!(resolved.files.len(), 1);
    assert_eq!(resolved.digest, references::digest(&resolved.files));
    fs::write(dir.path().join("key"), format!("{SECRET}0")).unwrap();
    assert_ne!(resolved.digest, references::digest(&resolved.files));
}

#[test]
fn without_the_gate_failing_tests_are_warnings() {
    let text = format!("{}tests: {{ g: {{ GET /one: {{ anonymous: 403 }} }} }}\n", policy("/one"));
    let place = Place::new();
    place.write("a.yaml", &text);
    for test_gate in [true, false] {
        let environment = Environment::default();
        let loaded = load(&place.path(""), &load::Options { test_gate, ..load::Options::serve(&environment) });
        assert_eq!((loaded.tested.is_some(), loaded.has_errors()), (!test_gate, test_gate));
        assert_eq!(loaded.diagnostics[0].code.as_str(), "P601");
    }
}

#[test]
fn the_revision_is_the_same_wherever_the_folder_lies() {
    let (one, two) = (Place::new(), Place::new());
    let revision = |place: &Place| place.reloader.status().snapshot().running.clone();
    assert_eq!(revision(&one), revision(&two));
}

#[test]
fn a_secret_that_everybody_can_read_is_reported_and_a_public_key_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, key) = (dir.path().join("policies"), dir.path().join("key"));
    fs::create_dir(&folder).unwrap();
    let text = policy("/one").replace("public", "authenticated");
    let identity = "identity: { ours: { preset: jwt, SOURCE: file:../key, issuer: us, audience: them } }\n";
    let environment = Environment::default();
    let public = rcgen::KeyPair::generate().unwrap().public_key_pem();
    for (kind, content, mode, expected) in [
        ("secret", SECRET, 0o644, vec!["P407"]),
        ("secret", SECRET, 0o640, vec![]),
        ("public_key", public.as_str(), 0o644, vec![]),
    ] {
        fs::write(folder.join("a.yaml"), format!("{text}{}", identity.replace("SOURCE", kind))).unwrap();
        fs::write(&key, content).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let loaded = load(&folder, &load::Options::serve(&environment));
        let codes: Vec<&str> = loaded.diagnostics.iter().map(|found| found.code.as_str()).collect();
        assert_eq!(codes, expected, "{kind} {mode:o}");
        assert!(loaded.tested.is_some());
    }
}

// === Watching ===

struct Running {
    dir: tempfile::TempDir,
    handle: ReloadHandle,
    status: Arc<Live<ReloadStatus>>,
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start(place: Place, watch: bool, poll: Duration) -> Self {
        let (handle, requests) = watch::requests();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let status = place.reloader.status();
        let timing = Timing { watch, debounce: Duration::from_millis(20), poll };
        let task = tokio::spawn(watch::run(place.reloader, requests, timing, async move { drop(stopped.await) }));
        // The answer says that everything is set up.
        assert!(matches!(handle.reload().await, Some(Report::Unchanged { .. })));
        Self { dir: place.dir, handle, status, stop, task }
    }

    fn write(&self, text: &str) {
        fs::write(self.dir.path().join("policies/a.yaml"), text).unwrap();
    }

    /// Waits until the running set has this route.
    async fn serves(&self, revision_of: &Path) {
        let expected = load(revision_of, &load::Options::check()).revision.to_string();
        let mut changes = self.status.watch();
        let reached = async {
            while self.status.snapshot().running != expected {
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(30), reached).await.expect("the change is live in time");
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
        assert!(self.handle.reload().await.is_none());
    }
}

const NEVER: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn file_events_reload() {
    let running = Running::start(Place::new(), true, NEVER).await;
    let folder = running.dir.path().join("policies");
    for n in 0..3 {
        running.write(&policy(&format!("/event-{n}")));
        running.serves(&folder).await;
    }
    // The folder itself is replaced.
    fs::rename(&folder, running.dir.path().join("old")).unwrap();
    fs::create_dir(&folder).unwrap();
    running.write(&policy("/anew"));
    running.serves(&folder).await;
    running.write(&policy("/anew-changed"));
    running.serves(&folder).await;
    running.stop().await;
}

#[tokio::test]
async fn config_map_swaps_reload() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("policies");
    let version = |n: usize| {
        let name = format!("..v{n}");
        fs::create_dir_all(folder.join(&name)).unwrap();
        fs::write(folder.join(&name).join("a.yaml"), policy(&format!("/v{n}"))).unwrap();
        symlink(&name, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
        if n > 0 {
            fs::remove_dir_all(folder.join(format!("..v{}", n - 1))).unwrap();
        }
    };
    version(0);
    symlink("..data/a.yaml", folder.join("a.yaml")).unwrap();
    let running = Running::start(Place::over(dir), true, NEVER).await;
    for n in 1..20 {
        version(n);
        running.serves(&folder).await;
    }
    running.stop().await;
}

#[tokio::test]
async fn without_events_the_contents_are_compared() {
    let running = Running::start(Place::new(), false, Duration::from_millis(20)).await;
    running.write(&policy("/polled"));
    running.serves(&running.dir.path().join("policies")).await;
    running.stop().await;
}

#[tokio::test]
async fn sighup_reloads() {
    let running = Running::start(Place::new(), false, NEVER).await;
    running.write(&policy("/hangup"));
    let process = std::process::id().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &process]).status().unwrap().success());
    running.serves(&running.dir.path().join("policies")).await;
    running.stop().await;
}

#[tokio::test]
async fn a_request_reloads_at_once_and_hears_the_result() {
    let running = Running::start(Place::new(), false, NEVER).await;
    running.write(&policy("/asked"));
    // SIGHUP of another test may have come first.
    assert!(!matches!(running.handle.reload().await, None | Some(Report::Rejected { .. })));
    running.serves(&running.dir.path().join("policies")).await;
    running.write("version: 1\nroutes: [");
    assert!(matches!(running.handle.reload().await, Some(Report::Rejected { .. })));
    running.stop().await;
}
