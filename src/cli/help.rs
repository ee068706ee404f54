//! `help`: a command, the code of a finding, or the settings.

use clap::{Args, CommandFactory as _};

use crate::config::keys::KEYS;
use crate::diagnostic::{Code, help};

use super::exit::Exit;
use super::{Cli, Terminal};

/// Explains a command, a code such as P301, or the `settings`
#[derive(Args, Debug)]
pub struct Arguments {
    /// A command, a code, or `settings`
    #[arg(value_name = "TOPIC")]
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
        if let [topic] = self.topics.as_slice()
            && topic == "settings"
        {
            terminal.out(settings());
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

/// The keys of `portcullis.yaml`.
fn settings() -> String {
    let mut out = String::from(
        "Settings of the process stand in portcullis.yaml, which is optional. Flags beat the environment, the\n\
         environment beats the file. A change needs a restart.\n",
    );
    for key in KEYS {
        let later = if key.acted_on { "" } else { "\n      not acted on in this build" };
        out.push_str(&format!(
            "\n  {}  (default: {})\n      {}\n      {}{later}\n",
            key.path,
            key.default,
            key.doc,
            key.variable()
        ));
    }
    out
}
