//! The process's TLS provider.

/// Makes aws-lc the provider of every TLS connection of this process. Called first thing in `main`; a second
/// call changes nothing.
pub fn install() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default(); // an error says it is installed
}
