//! Lines on their way to a writer that may be slow, blocked or failing.
//!
//! [`Queue::push`] never waits for the writer. The queue is bounded in bytes; it loses nothing until it is
//! full, keeps the order, and counts what it could not take. One thread drains it. Lines of the audit log
//! ([`AUDIT`]) have some room of their own, so that they are the last to be lost, and are counted apart.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// How long the writer gathers lines before it writes them, so that a busy gateway wakes it rarely.
const GATHER: Duration = Duration::from_millis(5);
/// How long the writer waits after a failed write (a full disk) before it tries the rest again.
const RETRY: Duration = Duration::from_millis(500);

/// How a line of the audit log begins; no line of the decision log does.
pub(crate) const AUDIT: &str = "{\"v\":1,\"event\":";
/// So many bytes more may wait if they are lines of the audit log.
const AUDIT_BYTES: usize = 1 << 20;

/// Where lines end up.
pub(crate) trait Sink: Send + 'static {
    /// Writes some of `bytes`, which begin and end with a whole line unless the last call wrote only a part.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
}

/// A bounded queue of lines and the thread behind it.
pub(crate) struct Queue {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    idle: Condvar,
    limit: usize,
    dropped: AtomicU64,
    audit_dropped: AtomicU64,
    /// A line found no room, and the writer has taken none since.
    full: AtomicBool,
    /// The last write failed.
    failing: AtomicBool,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// Lines that the writer has taken and not finished.
    writing: bool,
    closing: bool,
}

impl Queue {
    /// A queue of at most `limit` bytes with a writer thread behind it.
    pub(crate) fn start(limit: usize, sink: impl Sink) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            work: Condvar::new(),
            idle: Condvar::new(),
            limit,
            dropped: AtomicU64::new(0),
            audit_dropped: AtomicU64::new(0),
            full: AtomicBool::new(false),
            failing: AtomicBool::new(false),
        });
        let writer = Arc::clone(&shared);
        std::thread::Builder::new().name("decision-log".into()).spawn(move || writer.drain(sink))?;
        Ok(Self { shared })
    }

    /// Adds one line, which ends with a line feed, or counts it as dropped.
    pub(crate) fn push(&self, line: &[u8]) {
        let mut state = self.shared.state.lock();
        let room = self.shared.limit + if line.starts_with(AUDIT.as_bytes()) { AUDIT_BYTES } else { 0 };
        if state.closing || state.waiting.len() + line.len() > room {
            self.shared.full.store(true, Ordering::Relaxed);
            drop(state);
            self.shared.count_lost(line);
            return;
        }
        let was_empty = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        drop(state);
        if was_empty {
            self.shared.work.notify_one();
        }
    }

    /// How many lines were lost, but for those of the audit log.
    pub(crate) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// How many lines of the audit log were lost.
    pub(crate) fn audit_dropped(&self) -> u64 {
        self.shared.audit_dropped.load(Ordering::Relaxed)
    }

    /// Whether lines are being lost, or are about to be: the queue is full, or the last write failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.shared.full.load(Ordering::Relaxed) || self.shared.failing.load(Ordering::Relaxed)
    }

    /// Waits until everything pushed so far is written, at most `patience`. Whether it was.
    pub(crate) fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.state.lock();
        while state.writing || !state.waiting.is_empty() {
            if self.shared.idle.wait_until(&mut state, deadline).timed_out() {
                return !state.writing && state.waiting.is_empty();
            }
        }
        true
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.shared.state.lock().closing = true;
        self.shared.work.notify_one();
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("dropped", &self.dropped()).finish_non_exhaustive()
    }
}

impl Shared {
    fn count_lost(&self, line: &[u8]) {
        let lost = if line.starts_with(AUDIT.as_bytes()) { &self.audit_dropped } else { &self.dropped };
        lost.fetch_add(1, Ordering::Relaxed);
    }

    fn drain(&self, mut sink: impl Sink) {
        let mut batch = Vec::new();
        loop {
            {
                let mut state = self.state.lock();
                state.writing = false;
                while state.waiting.is_empty() {
                    self.idle.notify_all();
                    if state.closing {
                        return;
                    }
                    self.work.wait(&mut state);
                }
                state.writing = true;
                if !state.closing {
                    // Nothing notifies here but the end; more lines gather meanwhile.
                    self.work.wait_for(&mut state, GATHER);
                }
                std::mem::swap(&mut state.waiting, &mut batch);
                self.full.store(false, Ordering::Relaxed);
            }
            self.write(&batch, &mut sink);
            batch.clear();
        }
    }

    /// Writes all of `batch`, trying again while the sink fails, so that lines are neither torn nor lost. A sink
    /// whose reader is gone, or a failing sink at the end of the process, loses the batch, and that is counted.
    fn write(&self, batch: &[u8], sink: &mut impl Sink) {
        let mut rest = batch;
        let mut complained = false;
        while !rest.is_empty() {
            let result =
                sink.write(rest).and_then(|n| if n > 0 { Ok(n) } else { Err(io::ErrorKind::WriteZero.into()) });
            match result {
                Ok(written) => {
                    self.failing.store(false, Ordering::Relaxed);
                    rest = rest.get(written..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failing.store(true, Ordering::Relaxed);
                    if !complained {
                        complained = true;
                        tracing::error!(%error, "decision log cannot be written");
                    }
                    let mut state = self.state.lock();
                    if error.kind() == io::ErrorKind::BrokenPipe || state.closing {
                        drop(state);
                        rest.split_inclusive(|byte| *byte == b'\n').for_each(|line| self.count_lost(line));
                        return;
                    }
                    self.work.wait_for(&mut state, RETRY);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const PATIENCE: Duration = Duration::from_secs(20);

    type Verdicts = mpsc::Sender<io::Result<usize>>;

    /// A sink that takes a few bytes at a time, and only while the test lets it.
    struct Gate(mpsc::Receiver<io::Result<usize>>, Arc<Mutex<Vec<u8>>>);

    impl Sink for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let take = self.0.recv().unwrap_or(Ok(usize::MAX))?.min(bytes.len());
            self.1.lock().extend_from_slice(&bytes[..take]);
            Ok(take)
        }
    }

    fn gated(limit: usize) -> (Queue, Verdicts, Arc<Mutex<Vec<u8>>>) {
        let (sender, receiver) = mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        (Queue::start(limit, Gate(receiver, Arc::clone(&written))).unwrap(), sender, written)
    }

    #[test]
    fn everything_arrives_in_order_through_short_writes_and_a_full_disk() {
        let (queue, gate, written) = gated(1 << 20);
        for n in 0..100 {
            queue.push(format!("line {n}\n").as_bytes());
        }
        gate.send(Ok(3)).unwrap();
        gate.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        drop(gate);
        assert!(queue.flush(PATIENCE));
        let expected: String = (0..100).map(|n| format!("line {n}\n")).collect();
        assert_eq!(String::from_utf8(written.lock().clone()).unwrap(), expected);
        assert_eq!(queue.dropped(), 0);
    }

    #[test]
    fn a_blocked_writer_stops_nobody_and_what_is_lost_is_counted() {
        let (queue, gate, written) = gated(70);
        for n in 0..1000 {
            queue.push(format!("line {n:03}\n").as_bytes());
        }
        assert!(!queue.flush(Duration::from_millis(1)));
        drop(gate);
        assert!(queue.flush(PATIENCE));
        let kept = written.lock().iter().filter(|byte| **byte == b'\n').count() as u64;
        assert_eq!(kept + queue.dropped(), 1000);
        assert!((7..=15).contains(&kept), "{kept}");
        assert!(written.lock().starts_with(b"line 000\nline 001\n"));
    }

    #[test]
    fn a_reader_that_is_gone_costs_the_lines_and_nothing_else() {
        let (queue, gate, _) = gated(1 << 20);
        gate.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
        queue.push(b"one\ntwo\n");
        assert!(queue.flush(PATIENCE));
        assert_eq!(queue.dropped(), 2);
    }

    #[test]
    fn lines_of_the_audit_log_are_the_last_to_be_lost() {
        let (queue, gate, written) = gated(20);
        let line = format!("{AUDIT}\"login\"}}\n");
        for _ in 0..20 {
            queue.push(b"a decision\n");
        }
        assert!(queue.is_failing());
        queue.push(line.as_bytes());
        assert_eq!(queue.audit_dropped(), 0);
        drop(gate);
        assert!(queue.flush(PATIENCE));
        assert!(String::from_utf8(written.lock().clone()).unwrap().ends_with(&line));
        queue.push(b"a decision\n");
        assert!(queue.flush(PATIENCE));
        assert!(!queue.is_failing());
    }

    #[test]
    fn a_failed_write_shows_until_one_succeeds() {
        let (queue, gate, _) = gated(1 << 20);
        let line = format!("{AUDIT}\"login\"}}\n");
        gate.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
        queue.push(line.as_bytes());
        assert!(queue.flush(PATIENCE));
        assert_eq!((queue.is_failing(), queue.audit_dropped(), queue.dropped()), (true, 1, 0));
        drop(gate);
        queue.push(line.as_bytes());
        assert!(queue.flush(PATIENCE));
        assert!(!queue.is_failing());
    }
}
