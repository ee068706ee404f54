//! `help`: a command, or the code of a finding.

use clap::{Args, CommandFactory as _};

use crate::diagnostic::{Code, help};

use super::exit::Exit;
use super::{Cli, Terminal};

/// Explains a command, or a code such as P301
#[derive(Args, Debug)]
pub struct Arguments {
    /// A command, or a code
    #[arg(value_name = "COMMAND or CODE")]
    topics: Vec<String>,
}

impl Arguments {
    /// Runs the command.
    pub fn run(&self, terminal: Terminal) -> Exit {
        let mut command = Cli::command();
        command.build();
        if let [topic] = self.topics.as_slice()
            && let Ok(code) = topic.parse::<Code>()
        {
            terminal.out(help::explain(code));
            return Exit::Fine;
        }
        let mut found = command;
        for topic in &self.topics {
            match found.find_subcommand(topic) {
                Some(command) => found = command.clone(),
                None => {
                    terminal.err(format_args!("error: there is no command and no code `{topic}`\n"));
                    return Exit::Usage;
                }
            }
        }
        terminal.out(found.render_long_help().ansi());
        Exit::Fine
    }
}
