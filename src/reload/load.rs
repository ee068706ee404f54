//! A policies folder, taken through everything that a set has to pass.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};

use crate::config::Environment;
use crate::decision::cases::{TestReport, Tested};
use crate::diagnostic::{Diagnostic, FileId, Severity, Sources};
use crate::policy::compile::{Candidate, compile};
use crate::policy::references::References;
use crate::policy::set::Revision;
use crate::policy::{self, Checked};

use super::files::{self, Files};
use super::references;
use super::watch::Watched;

/// How a folder is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The environment that `env:` reads; `None` leaves all references unresolved, as in CI.
    pub environment: Option<&'a Environment>,
    /// Whether the set's own tests run.
    pub tests: bool,
    /// Whether failing tests keep a set from being [`Tested`].
    pub test_gate: bool,
    /// Whether what is left to do (P508) is an error.
    pub strict: bool,
}

impl<'a> Options<'a> {
    /// As a gateway loads: references resolved, tests run, nothing passes that fails.
    pub fn serve(environment: &'a Environment) -> Self {
        Self { environment: Some(environment), tests: true, test_gate: true, strict: false }
    }

    /// As a check in CI loads: no secrets.
    pub fn check() -> Self {
        Self { environment: None, tests: true, test_gate: true, strict: false }
    }
}

/// What was read, and what came of it.
#[derive(Debug)]
pub struct Loaded {
    /// The texts.
    pub sources: Sources,
    /// Where each text was read, by [`FileId`].
    pub paths: Vec<PathBuf>,
    /// All findings, sorted; failing tests are among them.
    pub diagnostics: Vec<Diagnostic>,
    /// The revision of the texts.
    pub revision: Revision,
    /// How many routes there are.
    pub routes: usize,
    /// How many guards there are.
    pub guards: usize,
    /// What the tests said, if they ran.
    pub report: Option<TestReport>,
    /// The document, if nothing was wrong with it.
    pub checked: Option<Checked>,
    /// The compiled set, whatever its tests said.
    pub candidate: Option<Candidate>,
    /// The set, if nothing keeps it from serving.
    pub tested: Option<Tested>,
    /// The values behind `env:` and `file:`, if they were resolved.
    pub references: References,
    /// Digests of texts and referenced files.
    pub fingerprint: Fingerprint,
    /// The files behind `file:`.
    pub reference_files: BTreeSet<PathBuf>,
    /// The paths whose changes matter.
    pub watched: Watched,
}

/// Digests of everything a set is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Of the texts.
    pub texts: [u8; 32],
    /// Of the files behind `file:`.
    pub references: [u8; 32],
}

impl Loaded {
    /// Whether an error keeps the set from serving.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }

    /// How many tests passed.
    pub fn passed(&self) -> usize {
        self.report.as_ref().map_or(0, |report| report.passed)
    }
}

/// Loads a policies folder.
pub fn load(folder: &Path, options: &Options<'_>) -> Loaded {
    from_files(files::read(folder), options)
}

/// Loads what was read from a folder.
pub fn from_files(files: Files, options: &Options<'_>) -> Loaded {
    let texts = digest(&files);
    let Files { folder, sources, paths, diagnostics, folders } = files;
    let mut loaded = Loaded {
        revision: revision(&folder, &sources),
        sources,
        paths,
        diagnostics,
        routes: 0,
        guards: 0,
        report: None,
        checked: None,
        candidate: None,
        tested: None,
        references: References::none(),
        fingerprint: Fingerprint { texts, references: references::digest(&BTreeSet::new()) },
        reference_files: BTreeSet::new(),
        watched: Watched { folders, files: BTreeSet::from([folder]) },
    };
    loaded.go(options);
    policy::sort(&mut loaded.diagnostics);
    loaded
}

impl Loaded {
    fn go(&mut self, options: &Options<'_>) {
        let unread: Vec<FileId> = self.diagnostics.iter().map(|diagnostic| diagnostic.primary.span.file).collect();
        let (mut document, mut found) = policy::read(&self.sources);
        // What could not be read is not empty.
        found.retain(|diagnostic| !unread.contains(&diagnostic.primary.span.file));
        self.diagnostics.append(&mut found);
        if !unread.is_empty() {
            document.damage.broken = true;
            document.damage.unparsed = true;
        }
        (self.routes, self.guards) = (document.routes.len(), document.guards.len());

        if let Some(environment) = options.environment {
            let resolved = references::resolve(&document, &self.paths, environment);
            self.diagnostics.extend(resolved.diagnostics);
            self.references = resolved.references;
            self.fingerprint.references = resolved.digest;
            self.watched.files.extend(resolved.files.iter().cloned());
            self.reference_files = resolved.files;
        }
        let names = |environment: &Environment| environment.names().map(str::to_owned).collect();
        let surroundings = policy::Options { strict: options.strict, environment: options.environment.map(names) };
        let (checked, found) = policy::check(document, &self.sources, &surroundings);
        self.diagnostics.extend(found);
        self.checked = checked;
        let Some(checked) = &self.checked else { return };
        if self.has_errors() {
            return;
        }
        let candidate = match compile(checked, &self.sources, &self.references, self.revision) {
            Ok(candidate) => self.candidate.insert(candidate).clone(),
            Err(found) => return self.diagnostics.extend(found),
        };
        if !options.tests {
            self.tested = Some(Tested::danger_untested(candidate));
            return;
        }
        let (report, tested) = Tested::run(candidate.clone());
        let mut failures = report.diagnostics();
        if !options.test_gate {
            // They are shown, and keep nothing from serving.
            failures.iter_mut().for_each(|failure| failure.severity = Severity::Warning);
        }
        self.diagnostics.extend(failures);
        self.tested = tested.or_else(|| (!options.test_gate).then(|| Tested::danger_untested(candidate)));
        self.report = Some(report);
    }
}

fn revision(folder: &Path, sources: &Sources) -> Revision {
    let relative = |path| Path::new(path).strip_prefix(folder).ok().and_then(Path::to_str).unwrap_or(path);
    Revision::of_texts(sources.files().iter().map(|file| (relative(&*file.path), &*file.text)).collect())
}

/// A digest of the texts, and of what kept others from being read.
pub fn digest(files: &Files) -> [u8; 32] {
    let mut digest = Context::new(&SHA256);
    let mut add = |part: &str| {
        digest.update(&(part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    };
    for file in files.sources.files() {
        add(&file.path);
        add(&file.text);
    }
    for diagnostic in &files.diagnostics {
        add(&diagnostic.message);
    }
    digest.finish().as_ref().try_into().unwrap_or_default()
}

/// The first error on one line, and how many more there are.
pub fn summary(diagnostics: &[Diagnostic], sources: &Sources) -> String {
    let mut errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error());
    let Some(first) = errors.next() else { return String::new() };
    let span = first.primary.span;
    let (_, column) = sources.position(span);
    let place = sources.place(span);
    let mut line = format!("error[{}] {} {place}:{column}", first.code, first.message);
    match errors.count() {
        0 => {}
        more => line.push_str(&format!("  (+{more} more; portcullis check)")),
    }
    line
}
