//! `doctor`: everything around the policies that can be wrong.
//!
//! Environment, files, clock, store, keys, upstreams, exposure, the policy on disk and the one that runs; with
//! `--project` also an app's own folder. Each part looks at one of these and returns findings. What goes over the
//! network goes at the same time, each exchange within its limits. No secret is shown, and nothing
//! is changed but the tables of a store of an older version.

mod environment;
mod exposure;
mod keys;
mod policy;
mod project;
mod report;
mod store;
mod upstreams;

use std::collections::BTreeSet;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use clap::{Args, ValueEnum};
use tokio::task::JoinSet;

use crate::clock::Clock as _;
use crate::config::{Config, Environment};
use crate::fetch::{Fetched, Fetcher};
use crate::policy::document::Document;
use crate::policy::set::PolicySet;
use crate::reload::load::{self, Loaded, load};
use crate::server::SystemClock;

use self::report::{Finding, Report, Section, Style};
use super::dotenv::{self, Dotenv};
use super::exit::Exit;
use super::{Global, Terminal};

/// Looks at everything around the policies: environment, files, clock, store, keys, upstreams, exposure
///
/// Exit code 0 without problems (warnings do not count), 1 with problems. With `--format json`: one object
/// `{ version: 1, problems, warnings, findings: [ { section, level, code, subject, message, help } ] }`, where `level` is
/// `ok`, `skipped`, `warning` or `problem`, and `code` a stable name of what is wrong, or null.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Look at nothing that is on the network
    #[arg(long)]
    offline: bool,
    /// How findings are shown
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// Also look at an app's own folder: its packages, and code for logging in that the gateway replaces
    #[arg(long, value_name = "DIR")]
    project: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// What is looked at.
struct World {
    /// The environment of the process.
    process: Environment,
    /// `.env`.
    dotenv: Option<Dotenv>,
    /// Where `.env` is, or would be.
    dotenv_path: PathBuf,
    /// Both, as commands read them.
    environment: Environment,
    config: Config,
    /// The settings file, where there is one.
    settings: PathBuf,
    /// The set as `check` loads it: no references resolved.
    checked: Loaded,
    /// The set as `serve` loads it.
    live: Loaded,
    offline: bool,
}

impl World {
    /// The document, unless it has mistakes.
    fn document(&self) -> Option<&Document> {
        let checked = self.checked.checked.as_ref().or(self.live.checked.as_ref())?;
        Some(checked.document())
    }

    /// The set that would serve.
    fn policy(&self) -> Option<&PolicySet> {
        let candidate = self.live.candidate.as_ref().or(self.checked.candidate.as_ref())?;
        Some(candidate.policy())
    }

    /// Where a name of the environment has its value from.
    fn origin(&self, name: &str) -> &'static str {
        if self.process.get(name).is_some() { "from the environment" } else { "from .env" }
    }
}

/// Something to look at that takes its time.
type Task = Pin<Box<dyn Future<Output = Looked> + Send>>;
/// What it is, and the task.
type Named = (String, Task);

/// What came of looking at something on the network.
#[derive(Debug, Default)]
struct Looked {
    findings: Vec<Finding>,
    /// Clocks that were seen: whose, how far ours is ahead in milliseconds, and whether tokens depend on it.
    clocks: Vec<(String, i64, bool)>,
}

impl Looked {
    /// Notes the clock of a server.
    fn clock(&mut self, who: &str, fetched: &Fetched, matters: bool) {
        let Some(theirs) = fetched.date() else { return };
        // A date has whole seconds, and was said somewhere on the way.
        let half = i64::try_from(fetched.took.as_millis() / 2).unwrap_or(0);
        let ahead = SystemClock.now().as_millis() - half - theirs.as_millis() - 500;
        self.clocks.push((who.to_owned(), ahead, matters));
    }
}

impl Arguments {
    /// Runs the command.
    pub fn run(&self, global: &Global, terminal: Terminal) -> Result<Exit, Exit> {
        let process = super::environment();
        let dotenv_path = global.beside_settings(".env");
        let mut findings = Vec::new();
        let dotenv = match dotenv::read(&dotenv_path) {
            Ok(dotenv) => dotenv,
            Err(error) => {
                let shown = dotenv_path.display().to_string();
                findings.push(Finding::problem(Section::Files, "env_file_unreadable", shown, error.to_string()));
                None
            }
        };
        let environment = merged(&process, dotenv.as_ref());
        let config = match global.settings(terminal, &environment, &[]) {
            Ok(config) => config,
            Err(_) => {
                let message = "the settings have mistakes (above); their defaults are looked at instead";
                findings.push(Finding::problem(Section::Settings, "settings", "portcullis.yaml", message));
                Config::default()
            }
        };
        for key in &config.not_acted_on {
            let message = "is set, and this version does not act on it";
            findings.push(Finding::warning(Section::Settings, "not_acted_on", *key, message));
        }
        let folder = config.policies.path.clone();
        let world = World {
            checked: load(&folder, &load::Options::check()),
            live: load(&folder, &load::Options::serve(&environment)),
            settings: global.config.clone().unwrap_or_else(|| PathBuf::from("portcullis.yaml")),
            process,
            dotenv,
            dotenv_path,
            environment,
            config,
            offline: self.offline,
        };
        findings.extend(environment::look(&world));
        findings.extend(keys::look(&world, &findings));
        findings.extend(exposure::look(&world));
        findings.extend(policy::look(&world));
        if let Some(project) = &self.project {
            findings.extend(project::look(project, &world));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|error| {
            terminal.err(format_args!("error: {error}\n"));
            Exit::Found
        })?;
        findings.extend(runtime.block_on(asked(&world, terminal)));
        runtime.shutdown_background();

        let report = Report::new(findings);
        match self.format {
            Format::Json => terminal.out(format_args!("{:#}\n", report.json())),
            Format::Text => {
                let style = Style { ascii: is_ascii(&world.process), color: terminal.colors_out() };
                terminal.out(report.text(style, global.quiet));
            }
        }
        Ok(if report.problems() > 0 { Exit::Found } else { Exit::Fine })
    }
}

/// Whether the terminal says that it shows nothing but ASCII.
fn is_ascii(environment: &Environment) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| environment.get(name).filter(|v| !v.is_empty()));
    locale.is_some_and(|locale| !locale.to_ascii_lowercase().replace('-', "").contains("utf8"))
}

/// The environment, and `.env` beneath it.
fn merged(process: &Environment, dotenv: Option<&Dotenv>) -> Environment {
    let beneath = dotenv.iter().flat_map(|file| &file.variables).filter(|(name, _)| process.get(name).is_none());
    let own = process.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    own.chain(beneath.map(|(name, value)| (name.clone(), value.expose().clone()))).collect()
}

/// Everything that has to be asked for: all at the same time.
async fn asked(world: &World, terminal: Terminal) -> Vec<Finding> {
    let mut tasks: JoinSet<(String, Looked)> = JoinSet::new();
    let mut waiting = BTreeSet::new();
    let mut looked = Looked::default();
    let mut start = |what: String, task: Task| {
        waiting.insert(what.clone());
        tasks.spawn(async move { (what, task.await) });
    };
    for (what, task) in store::tasks(world) {
        start(what, task);
    }
    if !world.offline {
        match Fetcher::new(&crate::fetch::Options::default()) {
            Ok(fetcher) => {
                for (what, task) in keys::tasks(world, &fetcher) {
                    start(what, task);
                }
                for (what, task) in upstreams::tasks(world, &fetcher) {
                    start(what, task);
                }
                for (what, task) in policy::tasks(world, &fetcher) {
                    start(what, task);
                }
            }
            Err(error) => {
                looked.findings.push(Finding::problem(Section::Keys, "fetch", "TLS", error.to_string()));
            }
        }
    }
    while !tasks.is_empty() {
        if terminal.is_err_interactive() {
            let names: Vec<&str> = waiting.iter().map(String::as_str).collect();
            terminal.err(format_args!("\r\u{1b}[Kasking {}", names.join(", ")));
        }
        let Some(done) = tasks.join_next().await else { break };
        match done {
            Ok((what, one)) => {
                waiting.remove(&what);
                looked.findings.extend(one.findings);
                looked.clocks.extend(one.clocks);
            }
            Err(error) => {
                looked.findings.push(Finding::problem(Section::Settings, "doctor", "doctor", error.to_string()))
            }
        }
    }
    if terminal.is_err_interactive() {
        terminal.err("\r\u{1b}[K");
    }
    looked.findings.extend(clock(&looked.clocks, world.offline));
    looked.findings
}

/// How far clocks may be apart before tokens are refused.
const LIMIT_MILLIS: i64 = 30_000;

fn clock(clocks: &[(String, i64, bool)], offline: bool) -> Vec<Finding> {
    let section = Section::Clock;
    if clocks.is_empty() {
        let why = if offline { "not compared (--offline)" } else { "not compared: nobody said what time it is" };
        return vec![Finding::skipped(section, "drift", why)];
    }
    let mut findings = Vec::new();
    for (who, ahead, matters) in clocks {
        let drift = ahead.saturating_abs();
        if drift <= LIMIT_MILLIS / 3 {
            continue;
        }
        let way = if *ahead > 0 { "ahead of" } else { "behind" };
        let message = format!("this machine is {} {way} {who} (limit 30 s)", seconds(drift));
        let finding = if drift > LIMIT_MILLIS && *matters {
            Finding::problem(section, "clock", "drift", message)
        } else {
            Finding::warning(section, "clock", "drift", message)
        };
        findings.push(finding.help("let a time service set the clock of both"));
    }
    if findings.is_empty() {
        let nearest = clocks.iter().max_by_key(|(_, ahead, matters)| (*matters, -ahead.saturating_abs()));
        if let Some((who, ahead, _)) = nearest {
            let drift = seconds(ahead.saturating_abs());
            findings.push(Finding::fine(section, "drift", format!("{drift} against the Date of {who} (limit 30 s)")));
        }
    }
    findings
}

fn seconds(millis: i64) -> String {
    match millis {
        0..60_000 => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
        60_000..7_200_000 => format!("{} min", millis / 60_000),
        7_200_000..172_800_000 => format!("{} h", millis / 3_600_000),
        _ => format!("{} days", millis / 86_400_000),
    }
}

/// A path as it is shown: without `./`.
fn shown(path: &Path) -> String {
    path.strip_prefix("./").unwrap_or(path).display().to_string()
}
