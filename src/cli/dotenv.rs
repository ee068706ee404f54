//! `.env`: variables for those who have no better place for them.
//!
//! Lines `NAME=VALUE`, quoted or not, with comments, as Compose and the dotenv libraries read them. The real environment
//! wins over the file, and of two lines for one name the last does. Values are never shown: what there is to say about
//! a line names the line.
//!
//! [`add`] appends; nothing here ever changes or removes what stands in a file.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use crate::secret::Secret;

/// Larger files are not settings.
const MAX_BYTES: u64 = 1 << 20;

/// The variables of a file.
#[derive(Debug, Default)]
pub struct Dotenv {
    /// Names and values, in the order of the file.
    pub variables: Vec<(String, Secret<String>)>,
    /// What there is to say about lines that cannot be read as they are meant.
    pub notes: Vec<String>,
}

/// What became of a variable that was to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// The file was made for it.
    Created,
    /// It was appended.
    Appended,
    /// There is one already, and it was left as it is.
    Kept,
}

/// Reads a file. `None`: there is none.
pub fn read(path: &Path) -> io::Result<Option<Dotenv>> {
    Ok(text(path)?.map(|text| Dotenv::parse(&text)))
}

/// The permissions of a file that holds secrets: `Some(mode)` where others than its owner can read it.
pub fn readable_by_others(path: &Path) -> Option<u32> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then_some(mode)
}

/// Adds a variable, with a comment above it, unless the file has a value for it. The file is readable by its owner
/// only from then on.
pub fn add(path: &Path, name: &str, value: &Secret<String>, comment: Option<&str>) -> io::Result<Added> {
    let old = text(path)?;
    if let Some(old) = &old
        && has(old, name)
    {
        return Ok(Added::Kept);
    }
    let mut addition = String::new();
    if let Some(old) = &old
        && !old.is_empty()
        && !old.ends_with('\n')
    {
        addition.push('\n');
    }
    if let Some(comment) = comment {
        addition.push_str("# ");
        addition.push_str(comment);
        addition.push('\n');
    }
    let addition = Secret::new(format!("{addition}{name}={}\n", value.expose()));
    let mut options = OpenOptions::new();
    match &old {
        // What appeared in the meantime is not overwritten.
        None => options.write(true).create_new(true).mode(0o600),
        Some(_) => options.append(true),
    };
    let mut file = options.open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(addition.expose().as_bytes())?;
    file.sync_all()?;
    Ok(if old.is_none() { Added::Created } else { Added::Appended })
}

/// Whether a text has a value for a name; a line for it that cannot be read counts.
fn has(text: &str, name: &str) -> bool {
    let parsed = Dotenv::parse(text);
    match parsed.get(name) {
        Some(value) => !value.is_empty(),
        None => text.lines().any(|line| starts(line, name)),
    }
}

fn text(path: &Path) -> io::Result<Option<String>> {
    let bytes = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.is_file() => return Err(io::Error::other("not a regular file")),
        Ok(metadata) if metadata.len() > MAX_BYTES => return Err(io::Error::other("more than 1 MiB")),
        Ok(_) => fs::read(path)?,
    };
    String::from_utf8(bytes).map(Some).map_err(|_| io::Error::other("not UTF-8"))
}

/// Whether a line begins to set a name.
fn starts(line: &str, name: &str) -> bool {
    let line = line.trim_start();
    let line = line.strip_prefix("export ").map_or(line, str::trim_start);
    line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('='))
}

impl Dotenv {
    /// Reads a text.
    pub fn parse(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut found = Self::default();
        for item in dotenvy::from_read_iter(text.as_bytes()) {
            match item {
                Ok((name, value)) => {
                    let dollars = |text: &str| text.matches('$').count();
                    let line = text.lines().enumerate().find(|(_, line)| starts(line, &name));
                    if let Some((number, line)) = line
                        && dollars(line) > dollars(&value)
                        && !line.contains("\\$")
                    {
                        found.notes.push(format!(
                            "line {}: `$` in the value of {name} stands for another variable; write it in '…' if it is meant",
                            number + 1
                        ));
                    }
                    found.variables.push((name, Secret::new(value)));
                }
                Err(dotenvy::Error::LineParse(what, _)) => {
                    let number =
                        text.lines().position(|line| line.contains(what.trim_end()) && !line.trim().is_empty());
                    found.notes.push(match number {
                        Some(number) => format!("line {} is not NAME=VALUE, and is left out", number + 1),
                        None => "a line is not NAME=VALUE, and is left out".to_owned(),
                    });
                }
                Err(_) => found.notes.push("a line cannot be read, and is left out".to_owned()),
            }
        }
        found
    }

    /// The value of a name: the last one.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.iter().rev().find(|(own, _)| own == name).map(|(_, value)| value.expose().as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_are_meant() {
        for (text, expected) in [
            ("SECRET_KEY=abc\n", Some("abc")),
            ("export SECRET_KEY='a b'\n", Some("a b")),
            ("SECRET_KEY=\"a # b\" # comment\n", Some("a # b")),
            ("# SECRET_KEY=old\n", None),
            ("SECRET_KEY=\n", Some("")),
            ("SECRET_KEY=first\nSECRET_KEY=last\n", Some("last")),
            ("SECRET_KEY='p$x'\n", Some("p$x")),
            ("\u{feff}SECRET_KEY=abc\r\n", Some("abc")),
            ("OTHER_SECRET_KEY=abc\n", None),
            ("no line\nSECRET_KEY=abc\n", Some("abc")),
        ] {
            assert_eq!(Dotenv::parse(text).get("SECRET_KEY"), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_odd_is_named_by_its_line_and_never_shown() {
        for (text, expected) in [
            ("A=1\nhunter2\n", "line 2 is not NAME=VALUE, and is left out"),
            ("A=1\nPASSWORD=pa$hunter2\n", "line 2: `$` in the value of PASSWORD"),
        ] {
            let notes = Dotenv::parse(text).notes.join("\n");
            assert!(notes.starts_with(expected) && !notes.contains("hunter2"), "{text:?}: {notes}");
        }
        assert!(Dotenv::parse("A='x$y'\nB=x\\$y\n# $x\n").notes.is_empty());
    }

    #[test]
    fn a_value_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        let value = Secret::new("new".to_owned());
        for (before, added, after) in [
            (None, Added::Created, "K=new\n"),
            (Some("K=old\n"), Added::Kept, "K=old\n"),
            (Some("export K = \"old\""), Added::Kept, "export K = \"old\""),
            (Some("K=un readable\n"), Added::Kept, "K=un readable\n"),
            (Some("K=\n"), Added::Appended, "K=\nK=new\n"),
            (Some("# K=old\nKEY=1"), Added::Appended, "# K=old\nKEY=1\nK=new\n"),
        ] {
            let _ = fs::remove_file(&path);
            if let Some(text) = before {
                fs::write(&path, text).unwrap();
            }
            assert_eq!(add(&path, "K", &value, None).unwrap(), added, "{before:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), after, "{before:?}");
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert!(added == Added::Kept || mode == 0o600, "{before:?}: {mode:o}");
        }
    }
}
