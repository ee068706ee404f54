//! The settings of a command: flags, the environment, `portcullis.yaml`.

use std::io;
use std::path::PathBuf;

use crate::config::{self, Config, Environment, Settings};
use crate::diagnostic::text;

use super::exit::Exit;
use super::{Global, Terminal};

/// A flag that sets a key: the key's path, the flag as it is shown, its value.
pub type Flag = (&'static str, &'static str, String);

/// The environment of the process.
pub fn environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

impl Global {
    /// Reads the settings; mistakes are printed.
    pub fn settings(&self, terminal: Terminal, environment: &Environment, flags: &[Flag]) -> Result<Config, Exit> {
        let mut all: Vec<(&'static str, &str, String)> =
            flags.iter().map(|(path, flag, value)| (*path, *flag, value.clone())).collect();
        if let Some(folder) = &self.policies {
            all.push(("policies.path", "--policies", folder.to_string_lossy().into_owned()));
        }
        let path = self.config.clone().unwrap_or_else(|| PathBuf::from("portcullis.yaml"));
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.config.is_none() => None,
            Err(error) => {
                terminal.err(format_args!("error: cannot read {}: {error}\n", path.display()));
                return Err(Exit::Invalid);
            }
        };
        let name = path.to_string_lossy();
        let (config, diagnostics, sources) = config::read(Settings {
            file: text.as_deref().map(|text| (&*name, text)),
            environment: Some(environment),
            flags: &all,
        });
        if !diagnostics.is_empty() {
            terminal.err(text::render(&diagnostics, &sources, terminal.colors_err()));
        }
        config.ok_or(Exit::Invalid)
    }

    /// The policies folder for commands that only read policies.
    pub fn folder(&self, terminal: Terminal, environment: &Environment) -> Result<PathBuf, Exit> {
        match &self.policies {
            Some(folder) => Ok(folder.clone()),
            None => Ok(self.settings(terminal, environment, &[])?.policies.path),
        }
    }
}
