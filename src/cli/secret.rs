//! `secret new`: a secret that nobody can guess.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::random::Random as _;
use crate::secret::Secret as Hidden;
use crate::server::SystemRandom;

use super::Terminal;
use super::dotenv::{self, Added};
use super::exit::Exit;

/// Secrets
#[derive(Subcommand, Debug)]
pub enum Secret {
    /// Makes 32 random bytes: prints them as 64 hex digits, or writes them to a file such as `.env`
    New(New),
}

/// Makes 32 random bytes: prints them as 64 hex digits, or writes them to a file such as `.env`
#[derive(Args, Debug)]
pub struct New {
    /// Add it to this file instead of printing it; a value that is there is kept (exit code 1)
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// The variable to write
    #[arg(long, value_name = "NAME", default_value = "SECRET_KEY", requires = "write", value_parser = name)]
    name: String,
}

fn name(text: &str) -> Result<String, String> {
    let word = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if word && text.bytes().next().is_some_and(|first| !first.is_ascii_digit()) {
        Ok(text.to_owned())
    } else {
        Err("letters, digits and `_`".to_owned())
    }
}

/// 256 bits as 64 hex digits.
pub fn fresh() -> Hidden<String> {
    let mut bytes = [0; 32];
    SystemRandom.fill(&mut bytes);
    Hidden::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Secret {
    /// Runs the command.
    pub fn run(&self, terminal: Terminal) -> Exit {
        let Self::New(New { write, name }) = self;
        let Some(path) = write else {
            terminal.out(format_args!("{}\n", fresh().expose()));
            return Exit::Fine;
        };
        let shown = path.display();
        match dotenv::add(path, name, &fresh(), None) {
            Ok(Added::Created | Added::Appended) => {
                terminal.err(format_args!("{name} is in {shown} now: 256 bits, readable by you only\n"));
                Exit::Fine
            }
            Ok(Added::Kept) => {
                terminal.err(format_args!("error: {shown} has {name} already; it was kept\n"));
                Exit::Found
            }
            Err(error) => {
                terminal.err(format_args!("error: cannot write {shown}: {error}\n"));
                Exit::Found
            }
        }
    }
}
