//! Where commands print: results to standard output, everything else to standard error.

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};

use anstream::{AutoStream, ColorChoice};

/// The two streams.
#[derive(Clone, Copy, Debug)]
pub struct Terminal {
    color: ColorChoice,
}

impl Terminal {
    /// Streams with colours as asked for; `Auto` honours `NO_COLOR`, `CLICOLOR` and whether it is a terminal.
    pub fn new(color: ColorChoice) -> Self {
        Self { color }
    }

    /// Prints a result. A reader that is gone (`| head`) is not an error.
    pub fn out(&self, text: impl fmt::Display) {
        let mut stream = AutoStream::new(io::stdout().lock(), self.stdout_choice());
        let _ = write!(stream, "{text}").and_then(|()| stream.flush());
    }

    /// Prints anything else.
    pub fn err(&self, text: impl fmt::Display) {
        let mut stream = AutoStream::new(io::stderr().lock(), self.stderr_choice());
        let _ = write!(stream, "{text}").and_then(|()| stream.flush());
    }

    /// Whether results are coloured.
    pub fn colors_out(&self) -> bool {
        self.stdout_choice() != ColorChoice::Never
    }

    /// Whether everything else is coloured.
    pub fn colors_err(&self) -> bool {
        self.stderr_choice() != ColorChoice::Never
    }

    /// Whether somebody looks at the results.
    pub fn is_interactive(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Whether somebody looks at everything else.
    pub fn is_err_interactive(&self) -> bool {
        io::stderr().is_terminal()
    }

    fn stdout_choice(&self) -> ColorChoice {
        match self.color {
            ColorChoice::Auto => AutoStream::choice(&io::stdout()),
            choice => choice,
        }
    }

    fn stderr_choice(&self) -> ColorChoice {
        match self.color {
            ColorChoice::Auto => AutoStream::choice(&io::stderr()),
            choice => choice,
        }
    }
}

/// `1 error`, `2 errors`.
pub fn count(number: usize, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}
