//! One run of one figure: its counts, measurements and failures, its progress, and its record.

use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::machine;

/// One promise and what measures it.
pub struct Figure {
    /// Its id in the list of figures, `R1`.
    pub id: &'static str,
    /// Its name: the target is `make prove-NAME`.
    pub name: &'static str,
    /// What is promised, as the table says it.
    pub promise: &'static str,
    /// Measures it.
    pub run: fn(&mut Run),
}

/// How much is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    /// What `make test` has time for; time and memory are not judged.
    Smoke,
    /// What is promised.
    Full,
}

impl Size {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Smoke => "smoke",
            Self::Full => "full",
        }
    }
}

/// The most failures that are kept in words.
const KEPT: usize = 400;

/// What a figure has found so far.
pub struct Run {
    id: &'static str,
    name: &'static str,
    promise: &'static str,
    pub size: Size,
    counts: Map<String, Value>,
    measured: Map<String, Value>,
    failures: Vec<String>,
    failed: u64,
    skipped: Vec<String>,
    result: String,
    began: Instant,
    said: Cell<Instant>,
}

impl Run {
    /// Runs a figure; a panic in it is a failure.
    pub fn of_figure(figure: &Figure, size: Size) -> Self {
        let now = Instant::now();
        let mut run = Self {
            id: figure.id,
            name: figure.name,
            promise: figure.promise,
            size,
            counts: Map::new(),
            measured: Map::new(),
            failures: Vec::new(),
            failed: 0,
            skipped: Vec::new(),
            result: String::new(),
            began: now,
            said: Cell::new(now),
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (figure.run)(&mut run))) {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            run.fail(format!("stopped: {text}"));
        }
        run
    }

    pub fn is_full(&self) -> bool {
        self.size == Size::Full
    }

    /// The one of two sizes that this run has.
    pub fn of<T>(&self, smoke: T, full: T) -> T {
        if self.is_full() { full } else { smoke }
    }

    /// Something that was counted.
    pub fn count(&mut self, what: &str, number: u64) {
        self.counts.insert(what.to_owned(), number.into());
    }

    /// Something that was measured, its unit in the name (`p99_ms`).
    pub fn measure(&mut self, what: &str, value: impl Into<Value>) {
        self.measured.insert(what.to_owned(), value.into());
    }

    /// The promise is broken here.
    pub fn fail(&mut self, what: impl Into<String>) {
        self.failed += 1;
        let what = what.into();
        if self.failures.len() < KEPT {
            println!("    FAILED: {what}");
            self.failures.push(what);
        }
    }

    /// The promise is broken unless this holds; returns whether it holds.
    pub fn check(&mut self, holds: bool, what: impl FnOnce() -> String) -> bool {
        if !holds {
            self.fail(what());
        }
        holds
    }

    /// How often the promise was broken so far.
    pub const fn broken(&self) -> u64 {
        self.failed
    }

    /// Like [`check`](Self::check), for what depends on the machine's load (time, memory): judged at full size only.
    pub fn judge(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if self.is_full() {
            self.check(holds, what);
        }
    }

    /// A part that could not run here, by name.
    pub fn skip(&mut self, what: impl Into<String>) {
        let what = what.into();
        crate::servers::skipped(&format!("{}: {what}", self.name));
        self.skipped.push(what);
    }

    /// What came out, in a sentence for the table.
    pub fn result(&mut self, sentence: impl Into<String>) {
        self.result = sentence.into();
    }

    /// Says how far it is, not more often than somebody can read it.
    pub fn progress(&self, what: &str, done: u64, of: u64) {
        let terminal = std::io::stdout().is_terminal();
        let pause = Duration::from_secs(if terminal { 1 } else { 20 });
        if self.said.get().elapsed() < pause {
            return;
        }
        self.said.set(Instant::now());
        let seconds = self.began.elapsed().as_secs();
        let mut out = std::io::stdout();
        let (start, end) = if terminal { ("\r", "\x1b[K") } else { ("", "\n") };
        let _ = write!(out, "{start}    {what}: {done} of {of}, {seconds} s{end}");
        let _ = out.flush();
    }

    /// Prints and records what came out; returns whether the promise holds.
    pub fn finish(self) -> bool {
        let passed = self.failed == 0;
        let seconds = self.began.elapsed().as_secs_f64();
        println!("    {}", if self.result.is_empty() { "(no result)" } else { &self.result });
        println!("    {} in {seconds:.1} s", if passed { "holds" } else { "DOES NOT HOLD" });
        let record = json!({
            "figure": self.id,
            "name": self.name,
            "promise": self.promise,
            "size": self.size.name(),
            "date": machine::date(),
            "commit": machine::commit(),
            "build": if cfg!(debug_assertions) { "debug" } else { "release" },
            "machine": machine::describe(),
            "seconds": (seconds * 10.0).round() / 10.0,
            "passed": passed,
            "result": self.result,
            "counts": self.counts,
            "measured": self.measured,
            "failed": self.failed,
            "failures": self.failures,
            "skipped": self.skipped,
        });
        let (folder, file) = match self.size {
            Size::Full => (folder(), format!("{}-{}.json", machine::date(), self.name)),
            Size::Smoke => (PathBuf::from("target/proof"), format!("{}.json", self.name)),
        };
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(file), format!("{record:#}\n")).unwrap();
        passed
    }
}

/// Where full runs are recorded.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/proof")
}
