//! Keys that verify: what each may be used for, prepared when it is loaded.
//!
//! A key carries its algorithms. Nothing in a token can widen them, so a public key never becomes an HMAC secret.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents, VerificationAlgorithm};
use serde_json::{Map, Value};
use smallvec::SmallVec;

use super::algorithm::{Algorithm, AlgorithmSet};
use super::compact::Compact;
use super::error::TokenError;
use super::jwk::PublicJwk;
use super::pem;
use super::rsa::RsaPublicKey;

/// The name of a key within its issuer (`kid`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kid(Box<str>);

/// A key, ready to verify with.
#[derive(Clone)]
pub struct Key {
    kid: Option<Kid>,
    /// The numbers of a public key, for publishing it. None of a secret.
    public: Option<Arc<PublicJwk>>,
    // INVARIANT: not empty, and all symmetric or all not; `Raw::key` establishes it.
    uses: SmallVec<[(Algorithm, Material); 1]>,
}

/// What a signature is checked with. The library ties a public key to one algorithm, so a key has one for each.
#[derive(Clone)]
enum Material {
    /// Boxed: its two prepared hash states take more than a kilobyte.
    Secret(Box<hmac::Key>),
    Public(ParsedPublicKey),
}

/// The keys of one issuer.
#[derive(Clone, Debug)]
pub struct KeySet {
    // INVARIANT: not empty, no `kid` twice; no secret beside a public key, unless `with_published` put it there. `new`
    // establishes it.
    keys: Vec<Key>,
}

/// More keys than any issuer has at a time.
pub const MAX_KEYS: usize = 100;

/// Why a key, or a set of them, is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// The key is of another kind than the algorithms asked for, or than its own `alg` says.
    AlgorithmMismatch,
    /// The key's own `alg` is not among the algorithms of the issuer.
    AlgorithmNotListed,
    /// A certificate where a public key is needed.
    Certificate,
    /// Two keys with one `kid`: which one a token means would be a guess.
    DuplicateKid(Kid),
    /// A private key that needs a passphrase.
    EncryptedPem,
    /// A secret that repeats a few bytes.
    GuessableSecret,
    /// The numbers do not make a key, e.g. a point that is not on the curve.
    InvalidKey,
    /// A member of a JWK is missing or cannot be read.
    InvalidMember(&'static str),
    /// A secret beside a public key.
    MixedSet,
    /// A key that could be used with several algorithms and does not say with which.
    NeedsAlgorithm,
    /// Not one key is left.
    NoUsableKey,
    /// Not a JWK and not a set of them.
    NotJwks,
    /// Not PEM.
    NotPem,
    /// A PEM file in place of a secret: with HMAC a public key would be a secret that everybody knows.
    PemAsSecret,
    /// A private key where a public key is enough.
    PrivateKey,
    /// An RSA exponent that is even, one, or beyond 32 bits.
    RsaExponent,
    /// An RSA key of a chip that made guessable ones (CVE-2017-15361).
    RsaRoca,
    /// An RSA key of fewer than 2048 or more than 8192 bits.
    RsaSize(u32),
    /// A secret in a set that was published.
    SecretInPublishedSet,
    /// A secret shorter than the hash.
    ShortSecret {
        /// What it was to be used with.
        algorithm: Algorithm,
        /// Its length in bytes.
        length: usize,
    },
    /// More than [`MAX_KEYS`].
    TooManyKeys,
    /// A key type, curve or algorithm that is not supported.
    Unsupported(&'static str),
    /// A secret that stands in somebody's documentation.
    WellKnownSecret,
    /// A key for encryption, by its `use` or `key_ops`.
    WrongUse,
}

// === impl Kid ===

impl Kid {
    /// Wraps a name.
    pub fn new(kid: &str) -> Self {
        Self(kid.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Key ===

impl Key {
    /// A secret as an operator wrote it. Each of the algorithms must be an HMAC whose hash is not longer than it.
    pub fn from_secret(secret: &[u8], algorithms: AlgorithmSet, kid: Option<Kid>) -> Result<Self, KeyError> {
        check_secret(secret)?;
        if algorithms.iter().any(|algorithm| !algorithm.is_symmetric()) {
            return Err(KeyError::AlgorithmMismatch);
        }
        Raw::Secret(secret).key(algorithms, kid)
    }

    /// A public key in PEM (`PUBLIC KEY` or `RSA PUBLIC KEY`). Without algorithms an RSA key is for RS256, any other
    /// for the only one there is; with them, for those that fit it.
    pub fn from_pem(text: &str, algorithms: AlgorithmSet, kid: Option<Kid>) -> Result<Self, KeyError> {
        let block = pem::first_key(text)?;
        match block.label {
            "PUBLIC KEY" | "RSA PUBLIC KEY" => {}
            "CERTIFICATE" => return Err(KeyError::Certificate),
            label if label.ends_with("PRIVATE KEY") => return Err(KeyError::PrivateKey),
            _ => return Err(KeyError::NotPem),
        }
        let raw = Raw::from_der(&block.der)?;
        let default = if let Raw::Rsa(_) = raw { Algorithm::RS256.into() } else { raw.algorithms() };
        raw.key(if algorithms.is_empty() { default } else { algorithms }, kid)
    }

    /// The name of the key within its issuer.
    pub fn kid(&self) -> Option<&Kid> {
        self.kid.as_ref()
    }

    /// What the key may be used with.
    pub fn algorithms(&self) -> AlgorithmSet {
        self.uses.iter().map(|(algorithm, _)| *algorithm).collect()
    }

    /// The key under another name.
    pub fn named(self, kid: Kid) -> Self {
        Self { kid: Some(kid), ..self }
    }

    /// The name that follows from the key itself: the thumbprint of RFC 7638. None of a secret, whose thumbprint would
    /// be a hash of it.
    pub fn thumbprint(&self) -> Option<Kid> {
        self.public.as_ref().map(|public| public.thumbprint())
    }

    /// The key as a JWK (RFC 7517), for a published set: never of a secret.
    pub fn to_jwk(&self) -> Option<Map<String, Value>> {
        let mut jwk = self.public.as_ref()?.to_jwk();
        jwk.insert("use".to_owned(), "sig".into());
        if let [(algorithm, _)] = self.uses.as_slice() {
            jwk.insert("alg".to_owned(), algorithm.as_str().into());
        }
        if let Some(kid) = &self.kid {
            jwk.insert("kid".to_owned(), kid.as_str().into());
        }
        Some(jwk)
    }

    fn is_secret(&self) -> bool {
        matches!(self.uses.first(), Some((_, Material::Secret(_))))
    }

    fn is_named(&self, kid: &str) -> bool {
        self.kid.as_ref().is_some_and(|own| own.as_str() == kid)
    }

    fn material(&self, algorithm: Algorithm) -> Option<&Material> {
        self.uses.iter().find(|(own, _)| *own == algorithm).map(|(_, material)| material)
    }
}

impl fmt::Debug for Key {
    /// Without the material, which may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).field("algorithms", &self.algorithms()).finish()
    }
}

impl Material {
    fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        match self {
            // Compared in constant time.
            Self::Secret(key) => hmac::verify(key, signed, signature).is_ok(),
            Self::Public(key) => key.verify_sig(signed, signature).is_ok(),
        }
    }
}

/// What a key is made of, before it is known what it may be used with.
pub(super) enum Raw<'k> {
    Secret(&'k [u8]),
    Rsa(RsaPublicKey),
    /// SPKI, or a point.
    P256(Vec<u8>),
    /// SPKI, or a point.
    P384(Vec<u8>),
    /// SPKI, or the 32 bytes.
    Ed25519(Vec<u8>),
}

impl Raw<'_> {
    /// The DER of SPKI or, for RSA, of PKCS#1. The library compares the type in it with the one asked for.
    pub(super) fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        if let Ok(rsa) = rsa::PublicKey::from_der(der) {
            return RsaPublicKey::from_pkcs1(rsa.as_ref()).map(Raw::Rsa);
        }
        let is = |algorithm: &'static dyn VerificationAlgorithm| ParsedPublicKey::new(algorithm, der).is_ok();
        if is(&signature::ECDSA_P256_SHA256_FIXED) {
            Ok(Raw::P256(der.to_vec()))
        } else if is(&signature::ECDSA_P384_SHA384_FIXED) {
            Ok(Raw::P384(der.to_vec()))
        } else if is(&signature::ED25519) {
            Ok(Raw::Ed25519(der.to_vec()))
        } else {
            Err(KeyError::InvalidKey)
        }
    }

    /// What a key of this kind can be used with.
    pub(super) fn algorithms(&self) -> AlgorithmSet {
        use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
        match self {
            Self::Secret(_) => AlgorithmSet::of(&[HS256, HS384, HS512]),
            Self::Rsa(_) => AlgorithmSet::of(&[RS256, RS384, RS512, PS256, PS384, PS512]),
            Self::P256(_) => ES256.into(),
            Self::P384(_) => ES384.into(),
            Self::Ed25519(_) => EdDSA.into(),
        }
    }

    /// The key for those of the algorithms that fit it.
    pub(super) fn key(&self, algorithms: AlgorithmSet, kid: Option<Kid>) -> Result<Key, KeyError> {
        let fitting = algorithms.and(self.algorithms());
        if fitting.is_empty() {
            return Err(KeyError::AlgorithmMismatch);
        }
        let uses: Result<_, _> = fitting.iter().map(|algorithm| Ok((algorithm, self.material(algorithm)?))).collect();
        Ok(Key { kid, public: PublicJwk::of(self).map(Arc::new), uses: uses? })
    }

    fn material(&self, algorithm: Algorithm) -> Result<Material, KeyError> {
        let public = |algorithm: &'static dyn VerificationAlgorithm, bytes: &[u8]| {
            ParsedPublicKey::new(algorithm, bytes).map(Material::Public).map_err(|_| KeyError::InvalidKey)
        };
        match self {
            Self::Secret(secret) => {
                if secret.len() < algorithm.secret_len() {
                    return Err(KeyError::ShortSecret { algorithm, length: secret.len() });
                }
                let hash = hmac_of(algorithm).ok_or(KeyError::AlgorithmMismatch)?;
                Ok(Material::Secret(Box::new(hmac::Key::new(hash, secret))))
            }
            Self::Rsa(RsaPublicKey { modulus, exponent }) => RsaPublicKeyComponents { n: modulus, e: exponent }
                .to_parsed_public_key(rsa_of(algorithm).ok_or(KeyError::AlgorithmMismatch)?)
                .map(Material::Public)
                .map_err(|_| KeyError::InvalidKey),
            Self::P256(key) => public(&signature::ECDSA_P256_SHA256_FIXED, key),
            Self::P384(key) => public(&signature::ECDSA_P384_SHA384_FIXED, key),
            Self::Ed25519(key) => public(&signature::ED25519, key),
        }
    }
}

/// The hash of an HMAC.
pub(super) fn hmac_of(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    match algorithm {
        Algorithm::HS256 => Some(hmac::HMAC_SHA256),
        Algorithm::HS384 => Some(hmac::HMAC_SHA384),
        Algorithm::HS512 => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

fn rsa_of(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        Algorithm::RS256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        // The salt is as long as the hash (RFC 7518 §3.5); the library insists on it.
        Algorithm::PS256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        _ => None,
    }
}

/// Refuses what an attacker tries first. The length is checked with the algorithm.
pub(super) fn check_secret(secret: &[u8]) -> Result<(), KeyError> {
    if is_well_known(secret) {
        return Err(KeyError::WellKnownSecret);
    }
    if secret.trim_ascii_start().starts_with(b"-----BEGIN ") {
        return Err(KeyError::PemAsSecret);
    }
    let repeats = |period: usize| secret.iter().zip(secret.iter().skip(period)).all(|(a, b)| a == b);
    if secret.len() >= 32 && (1..=8).any(repeats) {
        return Err(KeyError::GuessableSecret);
    }
    Ok(())
}

/// Secrets of tutorials and templates, which end up in production.
pub(super) fn is_well_known(secret: &[u8]) -> bool {
    const WELL_KNOWN: [&str; 6] = [
        // FastAPI's tutorial.
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
        // FastAPI auth templates.
        "your-secret-key-here",
        // Supabase: command line, and its example for docker.
        "super-secret-jwt-token-with-at-least-32-characters-long",
        "your-super-secret-jwt-token-with-at-least-32-characters-long",
        // jwt.io.
        "your-256-bit-secret",
        "a-string-secret-at-least-256-bits-long",
    ];
    let secret = secret.trim_ascii();
    WELL_KNOWN.iter().any(|known| secret.eq_ignore_ascii_case(known.as_bytes()))
}

// === impl KeySet ===

impl KeySet {
    /// The keys of one issuer: at least one, no two of one name, all secrets or none.
    pub fn new(keys: Vec<Key>) -> Result<Self, KeyError> {
        let Some(first) = keys.first() else { return Err(KeyError::NoUsableKey) };
        if keys.len() > MAX_KEYS {
            return Err(KeyError::TooManyKeys);
        }
        if keys.iter().any(|key| key.is_secret() != first.is_secret()) {
            return Err(KeyError::MixedSet);
        }
        for (at, key) in keys.iter().enumerate() {
            let Some(kid) = &key.kid else { continue };
            if keys.iter().skip(at + 1).any(|other| other.kid.as_ref() == Some(kid)) {
                return Err(KeyError::DuplicateKid(kid.clone()));
            }
        }
        Ok(Self { keys })
    }

    /// These keys and those that the same issuer publishes. Where one of ours has the name, it stays: what comes over the
    /// network replaces nothing that the operator wrote. Each key remains for its own algorithms alone.
    pub fn with_published(&self, published: &Self) -> Self {
        let is_ours = |key: &&Key| key.kid.as_ref().is_some_and(|kid| self.names(kid));
        let theirs = published.keys.iter().filter(|key| !is_ours(key));
        Self { keys: self.keys.iter().chain(theirs).cloned().collect() }
    }

    /// Whether a key has this name.
    pub fn names(&self, kid: &Kid) -> bool {
        self.keys.iter().any(|key| key.kid.as_ref() == Some(kid))
    }

    /// The keys.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }

    /// What the keys may be used with, together.
    pub fn algorithms(&self) -> AlgorithmSet {
        self.keys.iter().flat_map(|key| &key.uses).map(|(algorithm, _)| *algorithm).collect()
    }

    /// Checks the signature of a token, below its claims: the payload may be anything.
    ///
    /// A `kid` chooses the key of that name. Where no key has it, keys without a name are tried, since a secret or a
    /// PEM file has none; a set whose keys all have names refuses. A secret says nothing about the tokens of key pairs,
    /// nor the other way round: their key is not known.
    pub fn verify(&self, token: &Compact<'_>, allowed: AlgorithmSet) -> Result<&Key, TokenError> {
        let header = token.header();
        if !allowed.contains(header.algorithm) {
            return Err(TokenError::UnsupportedAlgorithm);
        }
        let kid = header.kid.as_deref();
        let named = kid.is_some_and(|kid| self.keys.iter().any(|key| key.is_named(kid)));
        let mut refused = TokenError::UnknownKey;
        for key in &self.keys {
            let candidate = match kid {
                Some(kid) if named => key.is_named(kid),
                _ if key.is_secret() != header.algorithm.is_symmetric() => false,
                Some(_) => key.kid.is_none(),
                None => true,
            };
            if !candidate {
                continue;
            }
            match key.material(header.algorithm) {
                Some(material) if material.verifies(token.signed(), token.signature()) => return Ok(key),
                Some(_) => refused = TokenError::BadSignature,
                None if refused == TokenError::UnknownKey => refused = TokenError::UnsupportedAlgorithm,
                None => {}
            }
        }
        Err(refused)
    }
}

impl From<Key> for KeySet {
    fn from(key: Key) -> Self {
        Self { keys: vec![key] }
    }
}

// === impl KeyError ===

impl KeyError {
    /// The reason's name, never renamed.
    pub fn name(&self) -> &'static str {
        match self {
            Self::AlgorithmMismatch => "algorithm_mismatch",
            Self::AlgorithmNotListed => "algorithm_not_listed",
            Self::Certificate => "certificate",
            Self::DuplicateKid(_) => "duplicate_kid",
            Self::EncryptedPem => "encrypted_pem",
            Self::GuessableSecret => "guessable_secret",
            Self::InvalidKey => "invalid_key",
            Self::InvalidMember(_) => "invalid_member",
            Self::MixedSet => "mixed_set",
            Self::NeedsAlgorithm => "needs_algorithm",
            Self::NoUsableKey => "no_usable_key",
            Self::NotJwks => "not_jwks",
            Self::NotPem => "not_pem",
            Self::PemAsSecret => "pem_as_secret",
            Self::PrivateKey => "private_key",
            Self::RsaExponent => "rsa_exponent",
            Self::RsaRoca => "rsa_roca",
            Self::RsaSize(_) => "rsa_size",
            Self::SecretInPublishedSet => "secret_in_published_set",
            Self::ShortSecret { .. } => "short_secret",
            Self::TooManyKeys => "too_many_keys",
            Self::Unsupported(_) => "unsupported",
            Self::WellKnownSecret => "well_known_secret",
            Self::WrongUse => "wrong_use",
        }
    }

    /// What can be done about it.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Certificate => Some("take the key out of it: `openssl x509 -in FILE -pubkey -noout`"),
            Self::EncryptedPem => Some("decrypt it into a file that only the gateway can read: `openssl pkey`"),
            Self::GuessableSecret | Self::ShortSecret { .. } | Self::WellKnownSecret => {
                Some("make one with `openssl rand -hex 32` (`-hex 64` for HS512)")
            }
            Self::MixedSet => Some("give secrets and public keys an issuer each"),
            Self::NeedsAlgorithm => Some("list the algorithms that the issuer signs with in `algorithms`"),
            Self::NotPem => Some("the file begins with `-----BEGIN PUBLIC KEY-----`"),
            Self::PemAsSecret => Some("use `public_key` for a key pair"),
            Self::PrivateKey => Some("keep it with the issuer; the public half is enough: `openssl pkey -pubout`"),
            Self::RsaExponent | Self::RsaRoca | Self::RsaSize(_) => Some("let the issuer make a new key pair"),
            _ => None,
        }
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlgorithmMismatch => f.write_str("the key is of another kind than its algorithm needs"),
            Self::AlgorithmNotListed => f.write_str("the algorithm of the key is not one of the issuer's"),
            Self::Certificate => f.write_str("a certificate where a public key is needed"),
            Self::DuplicateKid(kid) => write!(f, "two keys are named `{kid}`"),
            Self::EncryptedPem => f.write_str("the private key is encrypted with a passphrase"),
            Self::GuessableSecret => f.write_str("the secret repeats a few characters and can be guessed"),
            Self::InvalidKey => f.write_str("the key is not valid"),
            Self::InvalidMember(member) => write!(f, "member `{member}` is missing or not valid"),
            Self::MixedSet => f.write_str("secrets and public keys stand in one set"),
            Self::NeedsAlgorithm => f.write_str("the key does not say which algorithm it is for"),
            Self::NoUsableKey => f.write_str("no usable key"),
            Self::NotJwks => f.write_str("neither a JSON Web Key nor a set of them"),
            Self::NotPem => f.write_str("not a key in PEM format"),
            Self::PemAsSecret => f.write_str("a PEM file is used as a shared secret"),
            Self::PrivateKey => f.write_str("a private key where a public key is needed"),
            Self::RsaExponent => f.write_str("the public exponent of the RSA key is not safe"),
            Self::RsaRoca => f.write_str("the RSA key was made by a chip with the flaw CVE-2017-15361"),
            Self::RsaSize(bits) => write!(f, "the RSA key has {bits} bits, 2048 to 8192 are accepted"),
            Self::SecretInPublishedSet => f.write_str("a secret stands in a published set of keys"),
            Self::ShortSecret { algorithm, length } => {
                write!(f, "the secret has {length} bytes, {algorithm} needs at least {}", algorithm.secret_len())
            }
            Self::TooManyKeys => write!(f, "more than {MAX_KEYS} keys"),
            Self::Unsupported(member) => write!(f, "the value of member `{member}` is not supported"),
            Self::WellKnownSecret => f.write_str("the secret stands in public documentation"),
            Self::WrongUse => f.write_str("the key is not for verifying signatures"),
        }
    }
}

impl std::error::Error for KeyError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(secret: &str, algorithm: Algorithm) -> Result<(), KeyError> {
        Key::from_secret(secret.as_bytes(), algorithm.into(), None).map(|_| ())
    }

    #[test]
    fn a_weak_secret_is_refused_when_it_is_loaded() {
        let short = |algorithm, length| Err(KeyError::ShortSecret { algorithm, length });
        let good = "k2Jx0vQ9-7fYt1Lr8ZcWm4Ns6HbDp3Ea5GuXq_IoRTyVSwzPBlKjChMfnAdgeUiO";
        let first = |length| good.get(..length).unwrap();
        for (text, algorithm, expected) in [
            (first(32), Algorithm::HS256, Ok(())),
            (first(31), Algorithm::HS256, short(Algorithm::HS256, 31)),
            (first(48), Algorithm::HS384, Ok(())),
            (first(47), Algorithm::HS384, short(Algorithm::HS384, 47)),
            (good, Algorithm::HS512, Ok(())),
            (first(63), Algorithm::HS512, short(Algorithm::HS512, 63)),
            ("", Algorithm::HS256, short(Algorithm::HS256, 0)),
            ("secret", Algorithm::HS256, short(Algorithm::HS256, 6)),
            (good, Algorithm::RS256, Err(KeyError::AlgorithmMismatch)),
            ("your-secret-key-here", Algorithm::HS256, Err(KeyError::WellKnownSecret)),
            (
                "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7\n",
                Algorithm::HS256,
                Err(KeyError::WellKnownSecret),
            ),
            (
                "super-secret-jwt-token-with-at-least-32-characters-long",
                Algorithm::HS256,
                Err(KeyError::WellKnownSecret),
            ),
            (
                "your-super-secret-jwt-token-with-at-least-32-characters-long",
                Algorithm::HS256,
                Err(KeyError::WellKnownSecret),
            ),
            (&"a".repeat(64), Algorithm::HS256, Err(KeyError::GuessableSecret)),
            (&"changeme".repeat(8), Algorithm::HS256, Err(KeyError::GuessableSecret)),
            // G02
            ("-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQY=", Algorithm::HS256, Err(KeyError::PemAsSecret)),
            ("\n -----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0C", Algorithm::HS256, Err(KeyError::PemAsSecret)),
        ] {
            assert_eq!(secret(text, algorithm), expected, "{text}");
        }
    }

    #[test]
    fn pem_that_is_not_a_public_key_is_named() {
        let pem = |label: &str, body: &str| format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
        for (text, expected) in [
            (String::new(), KeyError::NotPem),
            ("MFkwEwYHKoZIzj0CAQY=".into(), KeyError::NotPem),
            (pem("PUBLIC KEY", "%%%"), KeyError::NotPem),
            (pem("PUBLIC KEY", ""), KeyError::InvalidKey),
            (pem("PUBLIC KEY", "AAAA"), KeyError::InvalidKey),
            (pem("CERTIFICATE", "AAAA"), KeyError::Certificate),
            (pem("PRIVATE KEY", "AAAA"), KeyError::PrivateKey),
            (pem("EC PRIVATE KEY", "AAAA"), KeyError::PrivateKey),
            (pem("ENCRYPTED PRIVATE KEY", "AAAA"), KeyError::EncryptedPem),
            (pem("OPENSSH KEY", "AAAA"), KeyError::NotPem),
            ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END RSA KEY-----".into(), KeyError::NotPem),
        ] {
            let found = Key::from_pem(&text, AlgorithmSet::EMPTY, None).err();
            assert_eq!(found, Some(expected), "{text}");
        }
    }

    #[test]
    fn a_set_has_keys_of_one_sort_with_different_names() {
        let key = |kid: Option<&str>| {
            let secret: Vec<u8> = (0..32).collect();
            Key::from_secret(&secret, Algorithm::HS256.into(), kid.map(Kid::new)).unwrap()
        };
        assert_eq!(KeySet::new(vec![]).err(), Some(KeyError::NoUsableKey));
        assert!(KeySet::new(vec![key(None), key(None), key(Some("a"))]).is_ok());
        let twice = KeySet::new(vec![key(Some("a")), key(Some("b")), key(Some("a"))]);
        assert_eq!(twice.err(), Some(KeyError::DuplicateKid(Kid::new("a"))));
        assert_eq!(KeySet::new(vec![key(None); MAX_KEYS + 1]).err(), Some(KeyError::TooManyKeys));
        assert_eq!(format!("{:?}", key(None)), "Key { kid: None, algorithms: {HS256} }");
    }
}
