//! The settings of a command: flags, the environment, `portcullis.yaml`.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::{self, Config, Environment, Settings};
use crate::diagnostic::text;

use super::exit::Exit;
use super::{Global, Terminal, dotenv};

/// A flag that sets a key: the key's path, the flag as it is shown, its value.
pub type Flag = (&'static str, &'static str, String);

/// The environment of the process.
pub fn environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

impl Global {
    /// The environment of the process, and beneath it the variables of `.env` beside the settings. What is odd about
    /// that file is said, its values never.
    pub fn environment(&self, terminal: Terminal) -> Environment {
        let process = environment();
        let path = self.beside_settings(".env");
        let shown = path.display();
        let file = match dotenv::read(&path) {
            Ok(None) => return process,
            Ok(Some(file)) => file,
            Err(error) => {
                terminal.err(format_args!("warning: {shown} cannot be read: {error}\n"));
                return process;
            }
        };
        if !self.quiet {
            for note in &file.notes {
                terminal.err(format_args!("warning: {shown}: {note}\n"));
            }
            if dotenv::readable_by_others(&path).is_some_and(|mode| mode & 0o004 != 0) {
                terminal.err(format_args!("warning: every user of this machine can read {shown}: chmod 600 {shown}\n"));
            }
        }
        let variables = file.variables.iter().filter(|(name, _)| process.get(name).is_none());
        let beneath = variables.map(|(name, value)| (name.clone(), value.expose().clone()));
        process.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).chain(beneath).collect()
    }

    /// A file in the folder of the settings.
    pub fn beside_settings(&self, name: &str) -> PathBuf {
        let folder = self.config.as_deref().and_then(Path::parent).unwrap_or_else(|| Path::new(""));
        folder.join(name)
    }

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
