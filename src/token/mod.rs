//! Strict verification and minting of JWTs over given keys and a given time.
//!
//! Into a [`verify::Verifier`] go a token as it was sent and the time; out comes a [`verify::VerifiedToken`], which
//! nothing else can make, or a [`error::TokenError`]. A token is split once ([`compact`]), its issuer chosen among
//! the configured ones, its signature checked with a key of that issuer ([`key`], [`jwks`]), and only then are its
//! claims read, once. [`mint`] signs.
//!
//! Only compact JWS is read: no JWE, no JSON serialisation, no `none`. Keys named or carried by a token (`jku`,
//! `jwk`, `x5u`, `x5c`) are never looked at. This part fetches nothing, keeps no cache and revokes nothing: that is
//! for `issuer`, `pipeline` and `store`.

pub mod algorithm;
pub mod compact;
pub mod error;
pub mod fingerprint;
mod jwk;
pub mod jwks;
pub mod key;
pub mod mint;
mod pem;
mod rsa;
pub mod verify;
