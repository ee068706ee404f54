//! The commands: text in, text out, exit codes.
//!
//! One file per command. Results go to standard output, everything else to standard error; nothing of what a command
//! finds out is computed here.

mod check;
mod completions;
mod demo;
mod doctor;
mod dotenv;
mod exit;
mod explain;
mod fix;
mod help;
mod init;
mod key;
mod openapi;
mod secret;
mod serve;
mod session;
mod settings;
mod stores;
mod terminal;
mod test;
mod token;
mod user;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use anstream::ColorChoice;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::diagnostic::{Diagnostic, Sources, text};

pub use self::dotenv::Dotenv;
pub use self::exit::Exit;
pub use self::serve::{Started, run_gateway, start_logging};
pub use self::settings::environment;
pub use self::terminal::Terminal;
pub use self::user::import::read::{Origin as UsersFrom, read as read_users};

/// An auth gateway: YAML policies decide, Pingora forwards
#[derive(Parser, Debug)]
#[command(name = "portcullis", version, disable_help_subcommand = true, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command.
#[derive(Args, Debug)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// The policies folder
    #[arg(short, long, value_name = "DIR", global = true)]
    policies: Option<PathBuf>,
    /// The settings file
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// When output is coloured
    #[arg(long, value_name = "WHEN", default_value = "auto", global = true)]
    color: Color,
    /// Say less
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Say more; twice for even more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Runs the gateway
    Serve(serve::Arguments),
    /// Runs the gateway in front of a sample API, with users and lines to try
    Demo(demo::Arguments),
    /// Finds mistakes in policies, and runs their tests
    Check(check::Arguments),
    /// Runs the policies' tests in detail, with coverage
    Test(test::Arguments),
    /// Says why a request is allowed or refused
    Explain(explain::Arguments),
    /// Prints what the policy asks for as an OpenAPI document
    Openapi(openapi::Arguments),
    /// Users that the gateway keeps itself
    #[command(subcommand)]
    User(user::Command),
    /// Who is logged in, and ending that
    #[command(subcommand)]
    Session(session::Command),
    /// Signing keys that the gateway keeps
    #[command(subcommand)]
    Key(key::Command),
    /// Makes tokens for a try, looks into them, ends them
    #[command(subcommand)]
    Token(token::Token),
    // The arguments of these two say what they do, at length.
    Doctor(doctor::Arguments),
    Init(init::Arguments),
    /// Makes secrets
    #[command(subcommand)]
    Secret(secret::Secret),
    /// Explains a command, a code such as P301, or the settings
    Help(help::Arguments),
    /// Prints the completions of a shell
    Completions(completions::Arguments),
}

/// Runs the program with the arguments of the process.
pub fn main() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // `--help` and `--version` come here too, and go to standard output.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Fine };
        }
    };
    cli.run()
}

impl Cli {
    fn run(&self) -> Exit {
        let terminal = Terminal::new(match self.global.color {
            Color::Auto => ColorChoice::Auto,
            Color::Always => ColorChoice::Always,
            Color::Never => ColorChoice::Never,
        });
        let global = &self.global;
        let environment = || self.global.environment(terminal);
        let result = match &self.command {
            Command::Serve(arguments) => arguments.run(global, terminal, Arc::new(environment())),
            Command::Demo(arguments) => arguments.run(terminal),
            Command::Check(arguments) => arguments.run(global, terminal, &environment()),
            Command::Test(arguments) => arguments.run(global, terminal, &environment()),
            Command::Explain(arguments) => arguments.run(global, terminal, &environment()),
            Command::Openapi(arguments) => arguments.run(global, terminal, &environment()),
            Command::User(command) => command.run(global, terminal, &environment()),
            Command::Session(command) => command.run(global, terminal, &environment()),
            Command::Key(command) => command.run(global, terminal, &environment()),
            Command::Token(token) => token.run(global, terminal, &environment()),
            Command::Secret(secret) => Ok(secret.run(terminal)),
            Command::Doctor(arguments) => arguments.run(global, terminal),
            Command::Init(arguments) => arguments.run(global, terminal),
            Command::Help(arguments) => Ok(arguments.run(terminal)),
            Command::Completions(arguments) => Ok(arguments.run(terminal)),
        };
        result.unwrap_or_else(|exit| exit)
    }
}

/// Shows why a set cannot be worked with.
fn broken(terminal: Terminal, diagnostics: &[Diagnostic], sources: &Sources) -> Exit {
    let errors: Vec<Diagnostic> = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).cloned().collect();
    terminal.err(text::render(&errors, sources, terminal.colors_err()));
    terminal.err(format_args!("{}; nothing was done\n", terminal::count(errors.len(), "error")));
    Exit::Invalid
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definitions_fit_together() {
        Cli::command().debug_assert();
    }
}
