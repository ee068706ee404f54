//! New passwords: typed twice without echo, or one line from standard input; never an argument.

use std::io::{self, Read as _};

use zeroize::Zeroizing;

use crate::password;
use crate::random::Random as _;
use crate::secret::Secret;
use crate::server::SystemRandom;

use super::super::Terminal;
use super::super::exit::Exit;

/// The longest line that is read; a password has at most 1024 bytes.
const LONGEST: usize = 4096;

/// How often somebody may mistype.
const TRIES: usize = 3;

/// A new password, hashed.
pub fn new_hash(terminal: Terminal, name: &str, from_stdin: bool) -> Result<Secret<String>, Exit> {
    let password = if from_stdin { one_line(terminal, name)? } else { asked(terminal, name)? };
    hash(&password).map_err(|why| {
        terminal.err(format_args!("error: {why}\n"));
        Exit::Found
    })
}

/// The hash of a password that was found good enough.
pub fn hash(password: &Secret<String>) -> Result<Secret<String>, String> {
    let mut salt = [0; 16];
    SystemRandom.fill(&mut salt);
    password::hash(password.expose().as_bytes(), salt).map_err(|error| format!("cannot hash the password: {error}"))
}

/// One line of standard input, without its end.
fn one_line(terminal: Terminal, name: &str) -> Result<Secret<String>, Exit> {
    let fail = |why: &str| {
        terminal.err(format_args!("error: --password-stdin: {why}\n"));
        Exit::Found
    };
    // As large as it gets: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * LONGEST));
    let outcome = io::stdin().lock().take(LONGEST as u64).read_to_end(&mut bytes);
    outcome.map_err(|error| fail(&format!("cannot read standard input: {error}")))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| fail("the password is not UTF-8"))?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.contains('\n') {
        return Err(fail("it takes one line, and there are more"));
    }
    good(line, name).map_err(|why| fail(&why))?;
    Ok(Secret::new(line.to_owned()))
}

/// Asks twice.
fn asked(terminal: Terminal, name: &str) -> Result<Secret<String>, Exit> {
    for _ in 0..TRIES {
        let first = prompt(terminal, &format!("Password for {name}: "))?;
        if let Err(why) = good(first.expose(), name) {
            terminal.err(format_args!("{why}\n"));
            continue;
        }
        if prompt(terminal, "The same again: ")?.expose() == first.expose() {
            return Ok(first);
        }
        terminal.err("these are not the same\n");
    }
    terminal.err("error: no password was set\n");
    Err(Exit::Found)
}

fn prompt(terminal: Terminal, question: &str) -> Result<Secret<String>, Exit> {
    rpassword::prompt_password(question).map(Secret::new).map_err(|_| {
        terminal.err("error: there is no terminal to ask for the password: pass it with --password-stdin\n");
        Exit::Usage
    })
}

/// Whether a new password is good enough; else why not, in words that lead on.
pub fn good(password: &str, name: &str) -> Result<(), String> {
    password::check_new(password, name).map_err(|weak| weak.to_string())
}
