//! What may be said about a token in a log, and what a cache may be keyed by.

use std::fmt;

use aws_lc_rs::digest;

/// The SHA-256 of a whole token, or of a `jti`. As a key it is the whole digest (with a weaker hash, or without the
/// signature in it, a forged token could hit the entry of a good one); printed, it is eight digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a token as it was sent, or of a `jti`.
    pub fn of(text: &str) -> Self {
        let mut bytes = [0; 32];
        for (byte, hashed) in bytes.iter_mut().zip(digest::digest(&digest::SHA256, text.as_bytes()).as_ref()) {
            *byte = *hashed;
        }
        Self(bytes)
    }

    /// All of the digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_gets_eight_digits_of_the_digest() {
        assert_eq!(Fingerprint::of("abc").to_string(), "ba7816bf");
        assert_ne!(Fingerprint::of("abc"), Fingerprint::of("abd"));
    }
}
