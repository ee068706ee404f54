//! Signing: our own tokens, `token mint`, the demo, tests.

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaEncoding, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::secret::Secret;

use super::algorithm::Algorithm;
use super::key::{Key, KeyError, Kid, Raw, check_secret, hmac_of};
use super::pem;
use super::rsa::RsaPublicKey;

/// Signs tokens with one key and one algorithm, both fixed when the key is loaded.
pub struct Minter {
    algorithm: Algorithm,
    signer: Signer,
    /// Verifies what this signs.
    key: Key,
}

enum Signer {
    Secret(Box<hmac::Key>),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// A token could not be signed. Not the caller's fault: the library failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MintError;

#[derive(Serialize)]
struct Header<'h> {
    alg: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    typ: Option<&'h str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'h str>,
}

/// PKCS#8 of a P-256 key up to its 32 bytes: version 0, `id-ecPublicKey` on `prime256v1`, and RFC 5915's version 1.
const P256_PRIVATE: &[u8] = &[
    0x30, 0x41, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x27, 0x30, 0x25, 0x02, 0x01, 0x01, 0x04, 0x20,
];

impl Minter {
    /// Signs with a shared secret, to which the rules of [`Key::from_secret`] apply.
    pub fn from_secret(secret: &[u8], algorithm: Algorithm) -> Result<Self, KeyError> {
        check_secret(secret)?;
        let hash = hmac_of(algorithm).ok_or(KeyError::AlgorithmMismatch)?;
        let key = Raw::Secret(secret).key(algorithm.into(), None)?;
        Ok(Self { algorithm, signer: Signer::Secret(Box::new(hmac::Key::new(hash, secret))), key })
    }

    /// Signs with a private key in PEM (PKCS#8, SEC 1 or PKCS#1). Without `algorithm` an RSA key signs with RS256,
    /// any other with the only algorithm there is for it.
    pub fn from_pem(text: &str, algorithm: Option<Algorithm>) -> Result<Self, KeyError> {
        let block = pem::first_key(text)?;
        if !block.label.ends_with("PRIVATE KEY") {
            return Err(KeyError::NotPem);
        }
        let der = block.der.as_slice();
        let ecdsa = |algorithm| EcdsaKeyPair::from_private_key_der(algorithm, der);
        let (signer, raw) = if let Ok(pair) = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der)) {
            let raw = Raw::Rsa(RsaPublicKey::from_pkcs1(pair.public_key().as_ref())?);
            let encoding = rsa_encoding(algorithm.unwrap_or(Algorithm::RS256)).ok_or(KeyError::AlgorithmMismatch)?;
            (Signer::Rsa(pair, encoding), raw)
        } else if let Ok(pair) = Ed25519KeyPair::from_pkcs8(der) {
            let raw = Raw::Ed25519(pair.public_key().as_ref().to_vec());
            (Signer::Ed25519(pair), raw)
        } else if let Ok(pair) = ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING) {
            let raw = Raw::P256(pair.public_key().as_ref().to_vec());
            (Signer::Ecdsa(pair), raw)
        } else if let Ok(pair) = ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING) {
            let raw = Raw::P384(pair.public_key().as_ref().to_vec());
            (Signer::Ecdsa(pair), raw)
        } else {
            return Err(KeyError::InvalidKey);
        };
        let default = if let Raw::Rsa(_) = raw { Some(Algorithm::RS256) } else { raw.algorithms().iter().next() };
        let algorithm = algorithm.or(default).ok_or(KeyError::AlgorithmMismatch)?;
        let key = raw.key(algorithm.into(), None)?;
        Ok(Self { algorithm, signer, key })
    }

    /// A new key pair, for ES256 or EdDSA, and its private key as PKCS#8 PEM. It follows from the seed, which must be
    /// random; about one of 2^32 seeds makes no ES256 key and is refused.
    pub fn generate(algorithm: Algorithm, seed: &[u8; 32]) -> Result<(Self, Secret<String>), KeyError> {
        let pem = match algorithm {
            Algorithm::ES256 => {
                // RFC 5915 without the public key, which the library computes.
                let der = Zeroizing::new([P256_PRIVATE, seed].concat());
                let pair = EcdsaKeyPair::from_private_key_der(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &der);
                let whole = pair.map_err(|_| KeyError::InvalidKey)?.to_pkcs8v1().map_err(|_| KeyError::InvalidKey)?;
                pem::private_key(whole.as_ref())
            }
            Algorithm::EdDSA => {
                let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyError::InvalidKey)?;
                pem::private_key(pair.to_pkcs8v1().map_err(|_| KeyError::InvalidKey)?.as_ref())
            }
            _ => return Err(KeyError::Unsupported("alg")),
        };
        Ok((Self::from_pem(pem.expose(), Some(algorithm))?, pem))
    }

    /// The algorithm of every token of this minter.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key that verifies what this signs: for an issuer that is also the gateway.
    pub fn verifying_key(&self) -> Key {
        self.key.clone()
    }

    /// Signs the claims as they are. The header has `alg`, and `typ` and `kid` where given.
    pub fn mint(&self, claims: &Map<String, Value>, kid: Option<&Kid>, typ: Option<&str>) -> Result<String, MintError> {
        let header = Header { alg: self.algorithm.as_str(), typ, kid: kid.map(Kid::as_str) };
        let header = serde_json::to_vec(&header).map_err(|_| MintError)?;
        let claims = serde_json::to_vec(claims).map_err(|_| MintError)?;
        self.seal(&header, &claims)
    }

    /// Signs whatever header and payload are given: the tests need tokens that nobody should make.
    pub(super) fn seal(&self, header: &[u8], payload: &[u8]) -> Result<String, MintError> {
        let mut token = URL_SAFE_NO_PAD.encode(header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(payload, &mut token);
        let signature = self.signer.sign(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

impl fmt::Debug for Minter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minter").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl Signer {
    /// ECDSA and RSA-PSS draw a nonce or salt inside the library; no caller can give them one.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, MintError> {
        match self {
            Self::Secret(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            Self::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &SystemRandom::new(), message, &mut signature).map_err(|_| MintError)?;
                Ok(signature)
            }
            Self::Ecdsa(pair) => pair
                .sign(&SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| MintError),
            Self::Ed25519(pair) => {
                pair.try_sign(message).map(|signature| signature.as_ref().to_vec()).map_err(|_| MintError)
            }
        }
    }
}

impl fmt::Display for MintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the token could not be signed")
    }
}

impl std::error::Error for MintError {}

fn rsa_encoding(algorithm: Algorithm) -> Option<&'static dyn RsaEncoding> {
    match algorithm {
        Algorithm::RS256 => Some(&signature::RSA_PKCS1_SHA256),
        Algorithm::RS384 => Some(&signature::RSA_PKCS1_SHA384),
        Algorithm::RS512 => Some(&signature::RSA_PKCS1_SHA512),
        Algorithm::PS256 => Some(&signature::RSA_PSS_SHA256),
        Algorithm::PS384 => Some(&signature::RSA_PSS_SHA384),
        Algorithm::PS512 => Some(&signature::RSA_PSS_SHA512),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_private_key_that_cannot_sign_so_is_refused() {
        let pem = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        for (text, expected) in [
            (pem("PUBLIC KEY"), KeyError::NotPem),
            (pem("PRIVATE KEY"), KeyError::InvalidKey),
            (pem("ENCRYPTED PRIVATE KEY"), KeyError::EncryptedPem),
            ("secret".into(), KeyError::NotPem),
        ] {
            assert_eq!(Minter::from_pem(&text, None).err(), Some(expected), "{text}");
        }
        let secret: Vec<u8> = (0..64).collect();
        assert_eq!(Minter::from_secret(&secret, Algorithm::ES256).err(), Some(KeyError::AlgorithmMismatch));
        let short = KeyError::ShortSecret { algorithm: Algorithm::HS512, length: 63 };
        assert_eq!(Minter::from_secret(&secret[..63], Algorithm::HS512).err(), Some(short));
    }

    #[test]
    fn the_header_names_algorithm_type_and_key() {
        let secret: Vec<u8> = (0..32).collect();
        let minter = Minter::from_secret(&secret, Algorithm::HS256).unwrap();
        let claims = json!({"sub": "ada"});
        let header = |kid: Option<&str>, typ: Option<&str>| {
            let token = minter.mint(claims.as_object().unwrap(), kid.map(Kid::new).as_ref(), typ).unwrap();
            String::from_utf8(URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap()).unwrap()
        };
        assert_eq!(header(None, None), r#"{"alg":"HS256"}"#);
        assert_eq!(header(Some("a\"b"), Some("at+jwt")), r#"{"alg":"HS256","typ":"at+jwt","kid":"a\"b"}"#);
    }
}
