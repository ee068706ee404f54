//! Keys, tokens and the requests that carry them.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis::token::algorithm::Algorithm;
use portcullis::token::mint::Minter;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use serde_json::{Value, json};

use crate::peers::{AUDIENCE, ISSUER};

const SECRET: &str = "a-secret-of-the-bench-with-more-than-32-bytes";

/// A request as it goes over the wire.
pub type Request = Arc<[u8]>;

/// The key of one algorithm.
pub struct Issuer {
    pub algorithm: Algorithm,
    minter: Minter,
    /// The secret, else the public key in PEM.
    pub key: String,
    pub jwks: String,
}

impl Issuer {
    pub fn new(algorithm: Algorithm) -> Self {
        if algorithm == Algorithm::HS256 {
            let jwk = json!({ "kty": "oct", "alg": "HS256", "k": URL_SAFE_NO_PAD.encode(SECRET) });
            let minter = Minter::from_secret(SECRET.as_bytes(), algorithm).unwrap();
            return Self { algorithm, minter, key: SECRET.to_owned(), jwks: json!({ "keys": [jwk] }).to_string() };
        }
        let kind = if algorithm == Algorithm::RS256 { &PKCS_RSA_SHA256 } else { &PKCS_ECDSA_P256_SHA256 };
        let pair = KeyPair::generate_for(kind).unwrap();
        let minter = Minter::from_pem(&pair.serialize_pem(), Some(algorithm)).unwrap();
        let jwk = minter.verifying_key().to_jwk().unwrap();
        Self { algorithm, minter, key: pair.public_key_pem(), jwks: json!({ "keys": [jwk] }).to_string() }
    }

    pub fn name(&self) -> &'static str {
        self.algorithm.as_str()
    }

    /// What Portcullis is told of the key.
    pub fn portcullis(&self) -> &'static str {
        if self.algorithm == Algorithm::HS256 { "secret: env:KEY" } else { "public_key: env:KEY" }
    }

    /// A token of a user, with other claims where `changed` says so.
    pub fn token(&self, user: usize, changed: &[(&str, Value)]) -> String {
        let mut claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": sub(user), "iat": 1_700_000_000, "exp": 4_000_000_000_u64,
            "scope": "items:read items:write profile", "roles": ["reader"], "email": format!("user{user}@example.com"),
        });
        for (name, value) in changed {
            claims[*name] = value.clone();
        }
        self.minter.mint(claims.as_object().unwrap(), None, Some("JWT")).unwrap()
    }

    /// As many requests, each with a token of its own that no other has, made on all cores.
    pub fn requests(&self, from: usize, count: usize) -> Vec<Request> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let part = count.div_ceil(cores);
        std::thread::scope(|scope| {
            let parts: Vec<_> = (0..cores)
                .map(|core| {
                    let users = core * part..((core + 1) * part).min(count);
                    scope.spawn(move || users.map(|user| request(&self.token(from + user, &[]))).collect::<Vec<_>>())
                })
                .collect();
            parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
        })
    }
}

/// The user of a number.
pub fn sub(user: usize) -> String {
    format!("0193530c-7e21-7c44-9d0e-{user:012x}")
}

/// An ordinary request with a token.
pub fn request(token: &str) -> Request {
    let text = format!(
        "GET /v1/items/4711?page=2 HTTP/1.1\r\nHost: api.test\r\nUser-Agent: bench/1\r\nAccept: application/json\r\n\
         Accept-Encoding: gzip\r\nX-Trace: 0123456789abcdef\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    text.into_bytes().into()
}
