//! When to look at the policies folder again.
//!
//! Reasons are file events, a poll of the contents, SIGHUP and the admin listener; [`run`] waits for quiet after file
//! events and reloads. Events are only hints, never believed: what counts is the content. Folders are watched, not
//! files, since editors and Kubernetes replace files; where the system sends no events, or has no watches
//! left, the poll does the same work, later.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use parking_lot::Mutex;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use super::publish::{Reloader, Report};

/// Asks whoever runs [`run`] for a reload.
#[derive(Clone, Debug)]
pub struct ReloadHandle(mpsc::Sender<oneshot::Sender<Report>>);

/// Where requests for a reload arrive.
#[derive(Debug)]
pub struct ReloadRequests(mpsc::Receiver<oneshot::Sender<Report>>);

impl ReloadHandle {
    /// Reloads now, and says what became of it; `None` if nobody reloads any more.
    pub async fn reload(&self) -> Option<Report> {
        let (sender, receiver) = oneshot::channel();
        self.0.send(sender).await.ok()?;
        receiver.await.ok()
    }
}

/// The two ends for requests from outside.
pub fn requests() -> (ReloadHandle, ReloadRequests) {
    let (sender, receiver) = mpsc::channel(16);
    (ReloadHandle(sender), ReloadRequests(receiver))
}

/// How the folder is watched.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Whether file events are listened to.
    pub watch: bool,
    /// How long it must be quiet after an event.
    pub debounce: Duration,
    /// How often the contents are compared.
    pub poll: Duration,
}

/// The paths whose changes matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Folders of which every change matters.
    pub folders: BTreeSet<PathBuf>,
    /// Files and folders that matter, while others beside them do not.
    pub files: BTreeSet<PathBuf>,
}

/// Reloads on every reason there is, until `stop` ends.
pub async fn run(mut reloader: Reloader, requests: ReloadRequests, timing: Timing, stop: impl Future<Output = ()>) {
    let mut requests = requests.0;
    let mut stop = pin!(stop);
    let changed = Arc::new(Notify::new());
    let mut events = timing.watch.then(|| Events::start(Arc::clone(&changed)));
    if let Some(events) = &mut events {
        events.watch(reloader.watched());
        // What changed between the first reading and the first watch.
        changed.notify_one();
    }
    let mut hangups = signal(SignalKind::hangup()).ok();
    let mut quiet = Quiet::new(timing.debounce);
    let mut poll = tokio::time::interval(timing.poll);
    poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let mut asked = None;
        let forced = tokio::select! {
            biased;
            () = &mut stop => return,
            () = hangup(&mut hangups) => true,
            Some(answer) = requests.recv() => {
                asked = Some(answer);
                true
            }
            () = changed.notified() => {
                quiet.event(Instant::now());
                continue;
            }
            () = sleep_until(quiet.due()) => false,
            _ = poll.tick() => false,
        };
        quiet.clear();
        // Loading reads files and may take long: it gets a thread that may wait.
        let loading = tokio::task::spawn_blocking(move || {
            let report = reloader.reload(forced);
            (reloader, report)
        });
        // A panic within loading is caught inside; this is the end of the runtime.
        let Ok((back, report)) = loading.await else { return };
        reloader = back;
        if let Some(events) = &mut events
            && events.watch(reloader.watched())
        {
            // Something may have changed after the reading and before the watch.
            changed.notify_one();
        }
        if let Some(asked) = asked {
            let _ = asked.send(report);
        }
    }
}

async fn hangup(signal: &mut Option<Signal>) {
    let received = match signal {
        Some(signal) => signal.recv().await.is_some(),
        None => false,
    };
    if !received {
        std::future::pending::<()>().await;
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

// === Debouncing ===

/// How many times the wait for quiet is taken before a folder that is never quiet is read all the same.
const PATIENCE: u32 = 10;

/// Waits for quiet after events.
#[derive(Debug)]
struct Quiet {
    quiet: Duration,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Quiet {
    fn new(quiet: Duration) -> Self {
        Self { quiet, first: None, last: None }
    }

    fn event(&mut self, now: Instant) {
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    fn due(&self) -> Option<Instant> {
        Some((self.last? + self.quiet).min(self.first? + self.quiet * PATIENCE))
    }

    fn clear(&mut self) {
        (self.first, self.last) = (None, None);
    }
}

// === File events ===

/// The system's file events, as far as there are any.
struct Events {
    watcher: Option<RecommendedWatcher>,
    interest: Arc<Mutex<Watched>>,
    complained: bool,
}

impl Events {
    fn start(changed: Arc<Notify>) -> Self {
        let interest = Arc::new(Mutex::new(Watched::default()));
        let shared = Arc::clone(&interest);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if shared.lock().concerns(&event) {
                changed.notify_one();
            }
        });
        let mut events = Self { watcher: None, interest, complained: false };
        match watcher {
            Ok(watcher) => events.watcher = Some(watcher),
            Err(error) => events.complain(&error),
        }
        events
    }

    /// Watches these paths from now on, also those that were watched before: a folder that was replaced has lost
    /// its watch. Whether something is watched that was not.
    fn watch(&mut self, watched: &Watched) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        let watched = watched.absolute();
        let before = std::mem::replace(&mut *self.interest.lock(), watched.clone());
        let (old, new) = (before.watch_points(), watched.watch_points());
        for gone in old.difference(&new) {
            let _ = watcher.unwatch(gone);
        }
        let mut failed = None;
        for path in &new {
            match watcher.watch(path, RecursiveMode::NonRecursive) {
                Ok(()) => {}
                // It is gone, or not allowed now; the folder above it or the poll will tell when it is back.
                Err(error) if is_about_the_path(&error) => {}
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            self.complain(&error);
        }
        !new.is_subset(&old)
    }

    fn complain(&mut self, error: &notify::Error) {
        if !self.complained {
            self.complained = true;
            tracing::warn!(%error, "no file events: changes are found by comparing contents");
        }
    }
}

fn is_about_the_path(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::PathNotFound => true,
        notify::ErrorKind::Io(error) => {
            matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied)
        }
        _ => false,
    }
}

impl Watched {
    /// Events name absolute paths.
    fn absolute(&self) -> Self {
        let absolute = |paths: &BTreeSet<PathBuf>| {
            paths.iter().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone())).collect()
        };
        Self { folders: absolute(&self.folders), files: absolute(&self.files) }
    }

    /// The folders to put a watch on.
    fn watch_points(&self) -> BTreeSet<PathBuf> {
        let parents = self.files.iter().filter_map(|file| file.parent().map(Path::to_owned));
        self.folders.iter().cloned().chain(parents).collect()
    }

    /// Whether an event may be about a change. Our own reading opens files, and nothing else may be told from a
    /// change; an error or an overflow may hide one.
    fn concerns(&self, event: &notify::Result<notify::Event>) -> bool {
        let Ok(event) = event else { return true };
        if event.need_rescan() || event.paths.is_empty() {
            return true;
        }
        if matches!(event.kind, EventKind::Access(AccessKind::Open(_))) {
            return false;
        }
        event.paths.iter().any(|path| {
            let parent = path.parent().unwrap_or(path);
            // Kubernetes replaces mounted secrets through the link `..data` beside them.
            let is_swap = || path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".."));
            self.folders.contains(path)
                || self.folders.contains(parent)
                || self.files.contains(path)
                || (is_swap() && self.files.iter().any(|file| file.parent() == Some(parent)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_after_quiet_and_not_never() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut quiet = Quiet::new(Duration::from_millis(200));
        assert_eq!(quiet.due(), None);
        quiet.event(at(0));
        quiet.event(at(150));
        assert_eq!(quiet.due(), Some(at(350)));
        for millis in (200..5000).step_by(100) {
            quiet.event(at(millis));
        }
        assert_eq!(quiet.due(), Some(at(2000)));
        quiet.clear();
        assert_eq!(quiet.due(), None);
    }

    #[test]
    fn what_is_beside_does_not_matter_and_opening_is_not_a_change() {
        use notify::event::{AccessMode, Flag, ModifyKind};
        let watched = Watched {
            folders: BTreeSet::from(["/p".into(), "/p/sub".into()]),
            files: BTreeSet::from(["/p".into(), "/run/secrets/key".into()]),
        };
        let modified = EventKind::Modify(ModifyKind::Any);
        let opened = EventKind::Access(AccessKind::Open(AccessMode::Any));
        for (kind, path, concerned) in [
            (modified, "/p/a.yaml", true),
            (modified, "/p/sub/a.yaml", true),
            (modified, "/p", true),
            (opened, "/p/a.yaml", false),
            (EventKind::Access(AccessKind::Close(AccessMode::Write)), "/p/a.yaml", true),
            (modified, "/decisions.jsonl", false),
            (modified, "/run/secrets/key", true),
            (modified, "/run/secrets/other", false),
            (modified, "/run/secrets/..data", true),
        ] {
            assert_eq!(watched.concerns(&Ok(notify::Event::new(kind).add_path(path.into()))), concerned, "{path}");
        }
        assert!(watched.concerns(&Err(notify::Error::generic("overflow"))));
        assert!(watched.concerns(&Ok(notify::Event::new(EventKind::Other).set_flag(Flag::Rescan))));
    }
}
