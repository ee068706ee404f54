//! Sessions of browsers over HTTP, against a provider of these tests that rotates refresh tokens, notices their reuse,
//! and fails as it is told.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test ends at the first surprise"
)]

#[path = "../it/client.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod client;
#[path = "../support/servers.rs"]
mod servers;
#[path = "../it/upstream.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod upstream;

mod flight;
mod gateway;
#[expect(dead_code, reason = "shared with other tests")]
mod provider;
mod redirects;
mod sessions;
