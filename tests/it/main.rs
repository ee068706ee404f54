//! The running gateway against raw bytes: every row of the attack tables, and the ordinary requests that must
//! go on working beside them.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests: a failure here is a failed test"
)]

mod a;
mod b;
mod c;
mod client;
mod coverage;
mod d;
mod e;
mod edge;
mod f;
#[path = "../support/h2raw.rs"]
mod frames;
mod h;
mod h2raw;
mod harness;
#[path = "../support/idp.rs"]
mod idp;
mod inquiries;
mod io;
mod openapi;
mod ordinary;
mod presets;
mod redirect;
mod ssr;
mod table;
mod token_cache;
mod upstream;
