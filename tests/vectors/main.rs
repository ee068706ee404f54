//! Public test vectors. Those in `../shared/vectors` are read in place; where they are missing, the tests that need
//! them are ignored, visibly.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy.toml exempts test functions, not their helpers"
)]

mod argon2;
mod cookbook;
mod rfc;
mod wycheproof;

use std::path::{Path, PathBuf};

use portcullis::token::algorithm::AlgorithmSet;
use portcullis::token::compact::Compact;
use portcullis::token::jwks::{Jwks, Origin};
use serde_json::Value;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors").join(name)
}

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether a token verifies with a JWK or JWKS of an operator's file, below its claims.
fn verifies(keys: &Value, algorithms: AlgorithmSet, token: &Value) -> bool {
    let Ok(jwks) = Jwks::parse(keys.to_string().as_bytes(), Origin::Local, algorithms) else { return false };
    // What is not a string is the JSON serialisation.
    let text = token.as_str().map_or_else(|| token.to_string(), String::from);
    Compact::parse(&text)
        .is_ok_and(|token| jwks.keys.verify(&token, jwks.keys.algorithms()).is_ok() && token.payload().is_ok())
}
