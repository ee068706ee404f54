//! A public key as it is published (RFC 7517, 7518 §6, 8037), and its thumbprint (RFC 7638).

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::key::{Kid, Raw};

/// The members that make up a public key: those of which RFC 7638 takes the hash, in its order.
#[derive(Debug)]
pub(super) struct PublicJwk(Vec<(&'static str, String)>);

impl PublicJwk {
    /// The numbers of a key; none of a secret, nor of a point that stands in an unusual form.
    pub(super) fn of(raw: &Raw<'_>) -> Option<Self> {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let curve = |name: &str, key: &[u8], size: usize| {
            let (x, y) = coordinates(key, size)?;
            Some(vec![("crv", name.to_owned()), ("kty", "EC".to_owned()), ("x", text(x)), ("y", text(y))])
        };
        let members = match raw {
            Raw::Secret(_) => return None,
            Raw::Rsa(rsa) => {
                vec![("e", text(&rsa.exponent)), ("kty", "RSA".to_owned()), ("n", text(&rsa.modulus))]
            }
            Raw::P256(key) => curve("P-256", key, 32)?,
            Raw::P384(key) => curve("P-384", key, 48)?,
            Raw::Ed25519(key) => {
                // Both forms end in the 32 bytes.
                let (_, x) = key.split_at_checked(key.len().checked_sub(32)?)?;
                vec![("crv", "Ed25519".to_owned()), ("kty", "OKP".to_owned()), ("x", text(x))]
            }
        };
        Some(Self(members))
    }

    pub(super) fn to_jwk(&self) -> Map<String, Value> {
        self.0.iter().map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str()))).collect()
    }

    /// SHA-256 over the members as JSON, without blanks. Their values need no escapes.
    pub(super) fn thumbprint(&self) -> Kid {
        let members: Vec<String> = self.0.iter().map(|(name, value)| format!("\"{name}\":\"{value}\"")).collect();
        let json = format!("{{{}}}", members.join(","));
        Kid::new(&URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, json.as_bytes())))
    }
}

/// The coordinates of an uncompressed point (SEC 1, 2.3.3), with which an SPKI ends.
fn coordinates(key: &[u8], size: usize) -> Option<(&[u8], &[u8])> {
    let (_, point) = key.split_at_checked(key.len().checked_sub(2 * size + 1)?)?;
    let (form, numbers) = point.split_first()?;
    if *form == 0x04 { numbers.split_at_checked(size) } else { None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::token::algorithm::{Algorithm, AlgorithmSet};
    use crate::token::jwks::{Jwks, Origin};
    use crate::token::key::Key;
    use crate::token::mint::Minter;

    #[test]
    fn thumbprints_are_those_of_the_rfcs() {
        for (jwk, expected) in [
            // RFC 7638 §3.1
            (
                json!({"kty": "RSA", "alg": "RS256", "kid": "2011-04-29", "e": "AQAB", "n": "0vx7agoebGcQSuuPiLJXZptN9\
                    nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W\
                    -5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qM\
                    QvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCu\
                    r-kEgU8awapJzKnqDKgw"}),
                "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
            ),
            // RFC 8037 A.3
            (
                json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
                "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
            ),
        ] {
            let jwks = Jwks::parse(jwk.to_string().as_bytes(), Origin::Local, AlgorithmSet::EMPTY).unwrap();
            let thumbprint = jwks.keys.iter().next().and_then(Key::thumbprint).unwrap();
            assert_eq!(thumbprint.as_str(), expected);
        }
    }

    #[test]
    fn what_is_published_verifies_and_has_no_private_part() {
        for algorithm in [Algorithm::ES256, Algorithm::EdDSA] {
            let (minter, pem) = Minter::generate(algorithm, &[7; 32]).unwrap();
            let key = minter.verifying_key();
            let kid = key.thumbprint().unwrap();
            let jwk = key.named(kid.clone()).to_jwk().unwrap();
            let names: Vec<&str> = jwk.keys().map(String::as_str).collect();
            assert!(names.iter().all(|name| ["crv", "kty", "x", "y", "use", "alg", "kid"].contains(name)), "{names:?}");

            let published = json!({"keys": [jwk]}).to_string();
            let jwks = Jwks::parse(published.as_bytes(), Origin::Published, AlgorithmSet::EMPTY).unwrap();
            let token = minter.mint(json!({"sub": "ada"}).as_object().unwrap(), Some(&kid), None).unwrap();
            let token = crate::token::compact::Compact::parse(&token).unwrap();
            let used = jwks.keys.verify(&token, algorithm.into()).unwrap();
            assert_eq!((used.kid(), used.algorithms()), (Some(&kid), algorithm.into()));

            // The same key again, from what is stored of it.
            let again = Minter::from_pem(pem.expose(), None).unwrap();
            assert_eq!((again.algorithm(), again.verifying_key().thumbprint()), (algorithm, Some(kid)));
        }
        let secret: Vec<u8> = (0..32).collect();
        let secret = Key::from_secret(&secret, Algorithm::HS256.into(), None).unwrap();
        assert_eq!((secret.to_jwk(), secret.thumbprint()), (None, None));
    }

    #[test]
    fn only_some_key_pairs_are_made_and_no_bad_scalar_is_one() {
        for algorithm in [Algorithm::HS256, Algorithm::RS256, Algorithm::ES384] {
            assert!(Minter::generate(algorithm, &[7; 32]).is_err(), "{algorithm}");
        }
        for scalar in [[0; 32], [0xff; 32]] {
            assert!(Minter::generate(Algorithm::ES256, &scalar).is_err());
        }
    }
}
