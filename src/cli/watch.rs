//! `--watch`: the same again at every change.

use std::path::Path;
use std::time::Duration;

use crate::reload::{files, load};

use super::Terminal;
use super::exit::Exit;

/// How often the folder is compared: often enough that nobody waits.
const POLL: Duration = Duration::from_millis(50);

/// Runs `once` now and after every change of the folder, until the program is interrupted.
pub fn forever(terminal: Terminal, folder: &Path, mut once: impl FnMut() -> Result<Exit, Exit>) -> ! {
    loop {
        if terminal.is_interactive() {
            terminal.out("\u{1b}[2J\u{1b}[3J\u{1b}[H");
        }
        let before = load::digest(&files::read(folder));
        let _ = once();
        while load::digest(&files::read(folder)) == before {
            std::thread::sleep(POLL);
        }
    }
}
