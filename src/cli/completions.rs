//! `completions`: what a shell needs to complete commands and flags.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::exit::Exit;
use super::{Cli, Terminal};

/// Prints the completions of a shell
#[derive(Args, Debug)]
pub struct Arguments {
    /// Which shell
    shell: Shell,
}

impl Arguments {
    /// Runs the command.
    pub fn run(&self, terminal: Terminal) -> Exit {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "portcullis", &mut script);
        terminal.out(String::from_utf8_lossy(&script));
        Exit::Fine
    }
}
