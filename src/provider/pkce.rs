//! Proof that who redeems a code is who asked for it (RFC 7636), by SHA-256 alone.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::random::Random;
use crate::secret::Secret;

/// A verifier and its challenge.
#[derive(Clone, Debug)]
pub struct Pkce {
    /// What is kept, and shown with the code.
    pub verifier: Secret<String>,
    /// What is sent ahead: the verifier's SHA-256 (`S256`).
    pub challenge: Box<str>,
}

impl Pkce {
    /// A new pair: 32 random bytes in 43 characters.
    pub fn generate(random: &dyn Random) -> Self {
        let mut bytes = zeroize::Zeroizing::new([0; 32]);
        random.fill(&mut *bytes);
        Self::of(Secret::new(URL_SAFE_NO_PAD.encode(*bytes)))
    }

    /// The pair of a verifier that was kept.
    pub fn of(verifier: Secret<String>) -> Self {
        let hash = digest::digest(&digest::SHA256, verifier.expose().as_bytes());
        Self { challenge: URL_SAFE_NO_PAD.encode(hash).into(), verifier }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    #[test]
    fn the_challenge_is_that_of_rfc_7636() {
        let pair = Pkce::of(Secret::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned()));
        assert_eq!(&*pair.challenge, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn each_pair_is_new_and_has_the_length_that_servers_take() {
        let random = SeededRandom::new(1);
        let (one, other) = (Pkce::generate(&random), Pkce::generate(&random));
        assert_eq!((one.verifier.expose().len(), one.challenge.len()), (43, 43));
        assert_ne!(one.verifier.expose(), other.verifier.expose());
    }
}
