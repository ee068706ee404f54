//! `secret new`: a secret that nobody can guess.

use clap::Subcommand;

use crate::random::Random as _;
use crate::server::SystemRandom;

use super::Terminal;
use super::exit::Exit;

/// Secrets
#[derive(Subcommand, Debug)]
pub enum Secret {
    /// Prints 32 random bytes as 64 hex digits
    New,
}

impl Secret {
    /// Runs the command.
    pub fn run(&self, terminal: Terminal) -> Exit {
        let mut bytes = [0; 32];
        SystemRandom.fill(&mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        terminal.out(format_args!("{hex}\n"));
        Exit::Fine
    }
}
