//! `openapi`: security schemes, and what each operation asks for, as an OpenAPI document.

use clap::Args;

use crate::config::Environment;
use crate::openapi::{View, outline, rewrite};
use crate::policy::document::AppId;
use crate::reload::load::{self, load};

use super::exit::Exit;
use super::{Global, Terminal, broken};

/// Prints what the policy asks for as an OpenAPI document
#[derive(Args, Debug)]
pub struct Arguments {
    /// The app, where there are several
    #[arg(long, value_name = "NAME")]
    app: Option<String>,
}

impl Arguments {
    /// Runs the command.
    pub fn run(&self, global: &Global, terminal: Terminal, environment: &Environment) -> Result<Exit, Exit> {
        let folder = global.folder(terminal, environment)?;
        let options = load::Options { tests: false, test_gate: false, ..load::Options::check() };
        let loaded = load(&folder, &options);
        let Some(candidate) = loaded.candidate else {
            return Err(broken(terminal, &loaded.diagnostics, &loaded.sources));
        };
        let policy = candidate.policy();
        let names: Vec<&str> = policy.apps.iter().map(|app| &*app.name).collect();
        let app = match (&self.app, names.as_slice()) {
            (Some(wanted), names) => names.iter().position(|name| name == wanted),
            (None, [_]) => Some(0),
            (None, _) => None,
        };
        let Some(app) = app else {
            let problem = match &self.app {
                Some(wanted) => format!("no app `{wanted}`"),
                None => "there are several apps; say which one with `--app`".to_owned(),
            };
            terminal.err(format_args!("error: {problem}\n\nThe apps are: {}\n", names.join(", ")));
            return Err(Exit::Usage);
        };
        let host =
            policy.apps.get(app).and_then(|app| app.hosts.first()).map_or("", String::as_str).replace('*', "any");
        let document = rewrite(outline(policy, AppId(app)), View { policy, app: AppId(app), host: &host });
        match document.map(|document| serde_json::to_string_pretty(&document)) {
            Ok(Ok(text)) => {
                terminal.out(format_args!("{text}\n"));
                Ok(Exit::Fine)
            }
            Ok(Err(error)) => {
                terminal.err(format_args!("error: {error}\n"));
                Err(Exit::Found)
            }
            Err(error) => {
                terminal.err(format_args!("error: the document cannot be made: {error}\n"));
                Err(Exit::Found)
            }
        }
    }
}
