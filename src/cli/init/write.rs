//! Writing into a folder without ever overwriting.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::cli::dotenv::{self, Added};
use crate::cli::secret;
use crate::config;
use crate::secret::Secret;

use super::{Answers, texts};

/// A folder, and what was done to it.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    done: Vec<(Outcome, String, String)>,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is new.
    Wrote,
    /// Something was appended.
    Added,
    /// It was there, and is as it was.
    Kept,
    /// It could not be written.
    Failed,
    /// Something to know.
    Note,
}

impl Folder {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        Ok(Self { path: path.to_owned(), done: Vec::new() })
    }

    pub(super) fn say(&mut self, outcome: Outcome, what: &str, detail: &str) {
        self.done.push((outcome, what.to_owned(), detail.to_owned()));
    }

    /// Whether something could not be written.
    pub(super) fn failed(&self) -> bool {
        self.done.iter().any(|(outcome, ..)| *outcome == Outcome::Failed)
    }

    /// Whether a file is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.path.join(name).exists()
    }

    /// Whether a file has this text.
    pub(super) fn contains(&self, name: &Path, text: &str) -> bool {
        fs::read_to_string(self.path.join(name)).is_ok_and(|own| own == text)
    }

    /// Takes the addresses from the settings that are there.
    pub(super) fn settings(&self, answers: &mut Answers) {
        let path = self.path.join("portcullis.yaml");
        let Ok(text) = fs::read_to_string(&path) else { return };
        let name = path.display().to_string();
        let (config, _, _) =
            config::read(config::Settings { file: Some((&name, &text)), environment: None, flags: &[] });
        if let Some(listener) = config.as_ref().and_then(|config| config.listeners.first()) {
            answers.listen = listener.address;
        }
    }

    /// Whether a folder has policies in it.
    pub(super) fn has_policies(&self, policies: &Path) -> bool {
        let Ok(entries) = fs::read_dir(self.path.join(policies)) else { return false };
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            !name.starts_with('.') && (name.ends_with(".yaml") || name.ends_with(".yml") || entry.path().is_dir())
        })
    }

    /// Writes a file that is not there yet.
    pub(super) fn file(&mut self, name: &Path, text: &str) {
        let path = self.path.join(name);
        let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| {
            // Even one that appears in this very moment is kept; so is a link that leads nowhere.
            OpenOptions::new().write(true).create_new(true).open(&path)?.write_all(text.as_bytes())
        });
        let name = name.display().to_string();
        match written {
            Ok(()) => self.say(Outcome::Wrote, &name, ""),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.say(Outcome::Kept, &name, "exists");
            }
            Err(error) => self.say(Outcome::Failed, &name, &error.to_string()),
        }
    }

    /// Adds to `.env` what the policy needs and `init` can know.
    pub(super) fn secrets(&mut self, answers: &Answers) {
        let path = self.path.join(".env");
        for (name, what, value) in texts::variables(answers) {
            let value = match (name, value.is_empty()) {
                ("SECRET_KEY", _) => secret::fresh(),
                (_, false) => Secret::new(value),
                (_, true) => {
                    if name != "SUPABASE_JWT_SECRET" && !self.sets(name) {
                        self.say(Outcome::Note, ".env", &format!("add {name}: {what}"));
                    }
                    continue;
                }
            };
            let detail = if name == "SECRET_KEY" { "SECRET_KEY: 256 bits, mode 0600" } else { name };
            match dotenv::add(&path, name, &value, Some(what)) {
                Ok(Added::Created) => self.say(Outcome::Wrote, ".env", detail),
                Ok(Added::Appended) => self.say(Outcome::Added, ".env", detail),
                Ok(Added::Kept) => self.say(Outcome::Kept, ".env", &format!("has {name}")),
                Err(error) => self.say(Outcome::Failed, ".env", &error.to_string()),
            }
        }
        if let Some(mode) = dotenv::readable_by_others(&path) {
            self.say(Outcome::Note, ".env", &format!("others can read it (mode {mode:04o}): chmod 600 .env"));
        }
    }

    /// Whether `.env` has a value for a name.
    fn sets(&self, name: &str) -> bool {
        let file = dotenv::read(&self.path.join(".env")).ok().flatten();
        file.is_some_and(|file| file.get(name).is_some_and(|value| !value.is_empty()))
    }

    /// Appends the lines that `.gitignore` lacks.
    pub(super) fn ignore(&mut self, lines: &[&str]) {
        let path = self.path.join(".gitignore");
        let old = match fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return self.say(Outcome::Failed, ".gitignore", &error.to_string()),
        };
        let text = old.as_deref().unwrap_or("");
        let missing: Vec<&str> = lines.iter().copied().filter(|line| !ignores(text, line)).collect();
        if missing.is_empty() {
            return self.say(Outcome::Kept, ".gitignore", &format!("has {}", lines.join(", ")));
        }
        let mut addition = String::new();
        if !text.is_empty() && !text.ends_with('\n') {
            addition.push('\n');
        }
        for line in &missing {
            addition.push_str(line);
            addition.push('\n');
        }
        let file = OpenOptions::new().create(true).append(true).open(&path);
        match file.and_then(|mut file| file.write_all(addition.as_bytes())) {
            Ok(()) if old.is_none() => self.say(Outcome::Wrote, ".gitignore", &missing.join(", ")),
            Ok(()) => self.say(Outcome::Added, ".gitignore", &missing.join(", ")),
            Err(error) => self.say(Outcome::Failed, ".gitignore", &error.to_string()),
        }
    }

    /// What was done, one line each.
    pub(super) fn report(&self) -> Vec<String> {
        let lines = self.done.iter().map(|(outcome, what, detail)| {
            let word = match outcome {
                Outcome::Wrote => "wrote",
                Outcome::Added => "added",
                Outcome::Kept => "kept",
                Outcome::Failed => "FAILED",
                Outcome::Note => "note",
            };
            format!(" {word:6} {what:29} {detail}").trim_end().to_owned()
        });
        lines.collect()
    }
}

/// Whether a `.gitignore` leaves a file of this name out, as far as plain lines say it.
pub fn ignores(text: &str, name: &str) -> bool {
    let mut ignored = false;
    for line in text.lines().map(str::trim) {
        let (line, leaves_out) = line.strip_prefix('!').map_or((line, true), |line| (line, false));
        let line = line.strip_prefix("**/").or_else(|| line.strip_prefix('/')).unwrap_or(line);
        let fits =
            line == name || line.strip_suffix('*').is_some_and(|start| !start.is_empty() && name.starts_with(start));
        if fits {
            ignored = leaves_out;
        }
    }
    ignored
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_gitignore_is_seen_in_its_spellings() {
        for (text, expected) in [
            (".env\n", true),
            ("/.env\n", true),
            ("**/.env", true),
            (".env*\n", true),
            (".env\r\n", true),
            ("# .env\n", false),
            (".env.example\n", false),
            (".env\n!.env\n", false),
            ("target\n", false),
            ("*\n", false),
            ("", false),
        ] {
            assert_eq!(ignores(text, ".env"), expected, "{text:?}");
        }
    }
}
