//! `user export`: all users as JSON lines, which `user import` reads.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::super::exit::Exit;
use super::super::stores::{self, Opened};
use super::super::terminal::count;
use super::{Context, show};

/// Writes all users as JSON lines
///
/// The lines can be read by `user import`. Hashes are left out unless they are asked for: whoever has one can try
/// passwords on it.
#[derive(Args, Debug)]
pub struct Export {
    /// The file, readable for its owner only; it must not exist. Without it, standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// With the hashes of the passwords
    #[arg(long)]
    with_hashes: bool,
}

impl Export {
    /// Runs the command.
    pub fn run(&self, context: &Context<'_>) -> Result<Exit, Exit> {
        let terminal = context.terminal;
        let Some(opened) = Opened::open(&context.config, terminal, stores::Access::Read)? else {
            stores::nothing_yet(&context.config, terminal, "users");
            return Ok(Exit::Found);
        };
        let to: Box<dyn Write> = match &self.output {
            None => {
                if self.with_hashes && exposed() {
                    terminal.err(
                        "warning: the hashes go where others may read them; --output FILE makes a file for its owner only\n",
                    );
                }
                Box::new(io::stdout().lock())
            }
            Some(path) => Box::new(create(path).map_err(|error| {
                context.fail(match error.kind() {
                    io::ErrorKind::AlreadyExists => format!("{} exists already", path.display()),
                    _ => format!("cannot write {}: {error}", path.display()),
                })
            })?),
        };
        let mut to = BufWriter::new(to);
        let mut written = 0;
        let mut failed = None;
        show::for_each(&opened, |user| {
            let mut object = show::json(user);
            if let (true, Some(hash)) = (self.with_hashes, &user.hash) {
                object.insert("password_hash".into(), json!(hash.expose()));
            }
            written += 1;
            writeln!(to, "{}", Value::Object(object)).map_err(|error| {
                failed = Some(error);
                Exit::Found
            })
        })
        .and_then(|()| {
            to.flush().map_err(|error| {
                failed = Some(error);
                Exit::Found
            })
        })
        .or_else(|exit| match &failed {
            // A reader that is gone (`| head`) is not an error.
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Some(error) => Err(context.fail(format_args!("cannot write all users: {error}"))),
            None => Err(exit),
        })?;
        if let Some(path) = &self.output {
            terminal.err(format_args!("{} in {}\n", count(written, "user"), path.display()));
        }
        Ok(Exit::Fine)
    }
}

/// A new file, for its owner only.
fn create(path: &PathBuf) -> io::Result<std::fs::File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Whether standard output is a terminal, or a file that others may read.
fn exposed() -> bool {
    use std::io::IsTerminal as _;
    if io::stdout().is_terminal() {
        return true;
    }
    #[cfg(unix)]
    {
        use std::os::fd::AsFd as _;
        use std::os::unix::fs::MetadataExt as _;
        let own = io::stdout().as_fd().try_clone_to_owned().map(std::fs::File::from);
        own.and_then(|file| file.metadata()).is_ok_and(|file| file.is_file() && file.mode() & 0o077 != 0)
    }
    #[cfg(not(unix))]
    false
}
