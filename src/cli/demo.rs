//! `demo`: the gateway in front of a sample API, with users who log in, and lines to try.

use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use clap::Args;

use crate::clock::Clock as _;
use crate::config::{self, Config, Environment, LogLevel, Settings};
use crate::demo::{self, ItemsApi};
use crate::diagnostic::text;
use crate::password;
use crate::random::Random as _;
use crate::server::{self, Socket, SystemClock, SystemRandom};
use crate::store::Stores;

use super::exit::Exit;
use super::serve::{run_gateway, start_logging};
use super::{Started, Terminal};

/// Runs the gateway in front of a sample API, with users and lines to try
///
/// Everything lives in a temporary folder and ends with Ctrl-C.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: String,
    /// Where the admin listener listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    admin_listen: String,
}

impl Arguments {
    /// Runs the command.
    pub fn run(&self, terminal: Terminal) -> Result<Exit, Exit> {
        let failed = |error: &dyn std::fmt::Display| {
            terminal.err(format_args!("error: {error}\n"));
            Exit::Found
        };
        let folder = folder().map_err(|error| failed(&format_args!("no temporary folder: {error}")))?;
        let policies = folder.path().join("policies");
        let decisions = folder.path().join("decisions.jsonl");
        let store = folder.path().join("portcullis.db");
        let flags = [
            ("store", "demo", format!("sqlite:{}", store.display())),
            ("listen", "--listen", self.listen.clone()),
            ("admin.listen", "--admin-listen", self.admin_listen.clone()),
            ("policies.path", "demo", policies.display().to_string()),
            ("log.decisions", "demo", format!("file:{}", decisions.display())),
        ];
        let (config, diagnostics, sources) = config::read(Settings { file: None, environment: None, flags: &flags });
        let Some(mut config) = config else {
            terminal.err(text::render(&diagnostics, &sources, terminal.colors_err()));
            return Err(Exit::Usage);
        };
        config.log.level = LogLevel::Warn;
        start_logging(&config, terminal);

        let api = Socket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).map_err(|error| failed(&error))?;
        add_people(&config).map_err(|error| failed(&error))?;
        let environment = Environment::from([
            ("SECRET_KEY".to_owned(), secret()),
            (demo::UPSTREAM.to_owned(), format!("http://{}", api.address())),
        ]);
        run_gateway(config, Arc::new(environment), terminal, vec![(api, Arc::new(ItemsApi::default()))], |started| {
            terminal.out(greeting(started, &policies, &decisions));
        })
    }
}

/// A folder with the demo's policy, removed when it is dropped.
fn folder() -> io::Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix("portcullis-demo-").tempdir()?;
    let policies = folder.path().join("policies");
    std::fs::create_dir(&policies)?;
    let (name, text) = demo::POLICY;
    std::fs::write(policies.join(name), text)?;
    Ok(folder)
}

/// Makes the store, with the demo's users in it.
fn add_people(config: &Config) -> Result<(), String> {
    let now = SystemClock.now();
    let mut users = Vec::new();
    for person in demo::PEOPLE {
        let mut salt = [0; 16];
        SystemRandom.fill(&mut salt);
        let hash = password::hash(person.password.as_bytes(), salt).map_err(|error| error.to_string())?;
        users.extend(person.user(hash, now));
    }
    let runtime = server::runtime().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let stores = Stores::open(&config.store, None).await.map_err(|error| error.to_string())?;
        stores.users.add(&users).await.map(drop).map_err(|error| error.to_string())
    })
}

/// 256 bits for this run alone.
fn secret() -> String {
    let mut bytes = [0; 32];
    SystemRandom.fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn greeting(started: &Started, policies: &Path, decisions: &Path) -> String {
    let gateway = started.addresses.first().copied().unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let program = std::env::args().next().unwrap_or_else(|| "portcullis".to_owned());
    let mut text = format!(
        "Portcullis listens on http://{gateway}, in front of a sample API that contains no auth code.\n\n\
         Log in, in another terminal:\n\n"
    );
    let logins: Vec<String> = demo::PEOPLE.iter().map(|person| person.command(gateway)).collect();
    let width = logins.iter().map(String::len).max().unwrap_or(0);
    for (person, command) in demo::PEOPLE.iter().zip(&logins) {
        let _ = writeln!(text, "  {command:width$}  # {}", person.has);
    }
    text.push_str("\nThen try:\n\n");
    let commands: Vec<String> = demo::LINES.iter().map(|line| line.command(gateway)).collect();
    let width = commands.iter().map(String::len).max().unwrap_or(0);
    for (line, command) in demo::LINES.iter().zip(&commands) {
        let _ = writeln!(text, "  {command:width$}  # {} {}", line.status, line.because);
    }
    let (policies, decisions) = (policies.display(), decisions.display());
    let _ = write!(
        text,
        "\nAsk why:\n\n\
         \x20 {program} explain -p {policies} POST /items --as alice\n\
         \x20 {program} test -p {policies} --coverage\n\n\
         The policy is {policies}/{}: change it, and the next request is decided by it.\n\
         Every decision is a line of {decisions}.\n",
        demo::POLICY.0,
    );
    if let Some(admin) = started.admin {
        let _ = writeln!(text, "Status and metrics are at http://{admin}/-/status and http://{admin}/metrics.");
    }
    text.push_str("\nCtrl-C ends the demo and removes its folder.\n");
    text
}
