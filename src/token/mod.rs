//! Strict verification and minting of JWTs over given keys and a given time.
