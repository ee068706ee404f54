//! The `portcullis` program.

use portcullis::cli::{self, Exit};
use portcullis::server::crypto;

fn main() -> Exit {
    crypto::install();
    cli::main()
}
