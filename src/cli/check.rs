//! `check`: all mistakes of all files in one run; and if there are none, the policy's own tests.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use crate::config::Environment;
use crate::diagnostic::{Code, Diagnostic, github, json, sarif, text};
use crate::reload::load::{self, Loaded, load};

use super::exit::Exit;
use super::fix::Fixes;
use super::terminal::count;
use super::{Global, Terminal, watch};

/// Finds mistakes in policies, and runs their tests
#[derive(Args, Debug)]
pub struct Arguments {
    /// How findings are shown
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// Warnings fail too, and `todo` is an error
    #[arg(long)]
    strict: bool,
    /// What makes the exit code 1
    #[arg(long, value_name = "SEVERITY", default_value = "error")]
    fail_on: FailOn,
    /// Also resolve `env:` and `file:` references
    #[arg(long)]
    resolve: bool,
    /// Do not run the policy's tests
    #[arg(long)]
    no_tests: bool,
    /// Mend what can be mended without a choice
    #[arg(long)]
    fix: bool,
    /// Mend findings of one kind only
    #[arg(long, value_name = "CODE", value_parser = code)]
    fix_only: Option<Code>,
    /// Show what `--fix` would change, as a patch, and change nothing
    #[arg(long)]
    diff: bool,
    /// Check again at every change
    #[arg(long)]
    watch: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
    Github,
    Sarif,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FailOn {
    Error,
    Warning,
}

/// A code of a finding, in any case.
pub fn code(text: &str) -> Result<Code, String> {
    text.parse().map_err(|_| format!("there is no code `{text}`"))
}

impl Arguments {
    /// Runs the command.
    pub fn run(&self, global: &Global, terminal: Terminal, environment: &Environment) -> Result<Exit, Exit> {
        let folder = global.folder(terminal, environment)?;
        if self.watch {
            watch::forever(terminal, &folder, || self.once(global, terminal, environment, &folder));
        }
        self.once(global, terminal, environment, &folder)
    }

    fn once(
        &self,
        global: &Global,
        terminal: Terminal,
        environment: &Environment,
        folder: &Path,
    ) -> Result<Exit, Exit> {
        let started = Instant::now();
        let options = load::Options {
            environment: self.resolve.then_some(environment),
            tests: !self.no_tests,
            strict: self.strict,
            ..load::Options::check()
        };
        let mut loaded = load(folder, &options);
        if self.fix || self.fix_only.is_some() || self.diff {
            let fixes = Fixes::of(&loaded.diagnostics, self.fix_only);
            if self.diff {
                terminal.out(fixes.patch(&loaded.sources));
                return Ok(if fixes.len() > 0 { Exit::Found } else { Exit::Fine });
            }
            self.mend(terminal, &fixes, &loaded)?;
            loaded = load(folder, &options);
        }
        self.show(global, terminal, &loaded, started);
        if !folder.is_dir() {
            return Err(Exit::Invalid);
        }
        let fails = |diagnostic: &Diagnostic| {
            diagnostic.is_error()
                || (diagnostic.suppressed.is_none() && (self.strict || self.fail_on == FailOn::Warning))
        };
        Ok(if loaded.diagnostics.iter().any(fails) { Exit::Found } else { Exit::Fine })
    }

    fn mend(&self, terminal: Terminal, fixes: &Fixes, loaded: &Loaded) -> Result<(), Exit> {
        for (file, text) in fixes.texts(&loaded.sources) {
            let Some(path) = loaded.paths.get(file.0 as usize) else { continue };
            if let Err(error) = replace(path, &text) {
                terminal.err(format_args!("error: cannot write {}: {error}\n", path.display()));
                return Err(Exit::Invalid);
            }
        }
        if fixes.len() > 0 {
            terminal.err(format_args!("mended {}\n", count(fixes.len(), "place")));
        }
        Ok(())
    }

    fn show(&self, global: &Global, terminal: Terminal, loaded: &Loaded, started: Instant) {
        let (diagnostics, sources) = (&loaded.diagnostics, &loaded.sources);
        match self.format {
            Format::Json => terminal.out(json::render(diagnostics, sources)),
            Format::Github => terminal.out(github::render(diagnostics, sources)),
            Format::Sarif => terminal.out(sarif::render(diagnostics, sources)),
            Format::Text => {
                terminal.out(text::render(diagnostics, sources, terminal.colors_out()));
                if !global.quiet {
                    terminal.out(summary(loaded, started.elapsed()));
                }
            }
        }
    }
}

/// What a run of `check` found, on one line.
pub fn summary(loaded: &Loaded, took: Duration) -> String {
    let passed = if loaded.has_errors() { 0 } else { loaded.passed() };
    // A folder that cannot be read stands among the sources too, with an empty path.
    let files = loaded.paths.iter().filter(|path| path.is_file()).count();
    let scope = text::Scope { files, routes: loaded.routes, guards: loaded.guards, passed, took };
    text::summary(&loaded.diagnostics, scope) + "\n"
}

/// Writes beside the file and renames, so that a running gateway never sees half of it. The file behind a link is
/// replaced, not the link.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let path: PathBuf = std::fs::canonicalize(path)?;
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let beside = path.with_file_name(name);
    std::fs::write(&beside, text)?;
    std::fs::set_permissions(&beside, std::fs::metadata(&path)?.permissions())?;
    std::fs::rename(&beside, &path)
}
