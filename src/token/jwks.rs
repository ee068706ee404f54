//! JSON Web Keys and sets of them (RFC 7517).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use std::fmt;
use zeroize::Zeroizing;

use crate::identity::claims::Strict;

use super::algorithm::{Algorithm, AlgorithmSet};
use super::key::{Key, KeyError, KeySet, Kid, MAX_KEYS, Raw, is_well_known};
use super::rsa::RsaPublicKey;

/// Where a set comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file of the operator. It may hold secrets, and a key that is weak or broken is a mistake to report.
    Local,
    /// Fetched from the issuer. It may not hold secrets, and a bad key in it must not lock out the users of the
    /// good ones: it is left out.
    Published,
}

/// A set that was read, and what was left out of it.
#[derive(Clone, Debug)]
pub struct Jwks {
    /// The keys.
    pub keys: KeySet,
    /// Keys that are not used, with the reason.
    pub ignored: Vec<KeyProblem>,
}

/// What is wrong with a key of a set, or with the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyProblem {
    /// The place of the key in the set, from 1; 0 for the set itself.
    pub position: usize,
    /// The name of the key, if it has one.
    pub kid: Option<Kid>,
    /// What is wrong.
    pub error: KeyError,
}

impl KeyProblem {
    fn of_set(error: KeyError) -> Self {
        Self { position: 0, kid: None, error }
    }
}

impl fmt::Display for KeyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.position, &self.kid) {
            (0, _) => self.error.fmt(f),
            (position, Some(kid)) => write!(f, "key {position} (`{kid}`): {}", self.error),
            (position, None) => write!(f, "key {position}: {}", self.error),
        }
    }
}

impl Jwks {
    /// Reads a set, or a single key, and prepares its keys.
    ///
    /// A key is for its own `alg`; one without is for those of `algorithms` that fit it, or for the only one that
    /// can. Where `algorithms` is not empty, an `alg` outside it makes a key unusable. All problems are returned.
    pub fn parse(json: &[u8], origin: Origin, algorithms: AlgorithmSet) -> Result<Self, Vec<KeyProblem>> {
        let of_set = |error| vec![KeyProblem::of_set(error)];
        let document = Strict::object(json).map_err(|_| of_set(KeyError::NotJwks))?;
        let keys = match document.get("keys") {
            Some(Value::Array(keys)) => keys.iter().collect(),
            None if document.contains_key("kty") => Vec::new(),
            _ => return Err(of_set(KeyError::NotJwks)),
        };
        if keys.len() > MAX_KEYS {
            return Err(of_set(KeyError::TooManyKeys));
        }
        let jwks: Vec<Option<&Map<String, Value>>> = if document.contains_key("keys") {
            keys.into_iter().map(Value::as_object).collect()
        } else {
            vec![Some(&document)]
        };

        let (mut usable, mut ignored, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
        for (at, jwk) in jwks.into_iter().enumerate() {
            let kid = jwk.and_then(|jwk| jwk.get("kid")).and_then(Value::as_str).map(Kid::new);
            match jwk.ok_or(KeyError::NotJwks).and_then(|jwk| key(jwk, origin, algorithms)) {
                Ok(key) => usable.push((at + 1, key)),
                Err(error) => {
                    // RFC 7517 §5: what is not understood is ignored. A set holds keys for other uses, too.
                    let foreign =
                        matches!(error, KeyError::AlgorithmNotListed | KeyError::Unsupported(_) | KeyError::WrongUse);
                    let problem = KeyProblem { position: at + 1, kid, error };
                    let list = if foreign || origin == Origin::Published { &mut ignored } else { &mut wrong };
                    list.push(problem);
                }
            }
        }
        if origin == Origin::Published {
            leave_out_duplicates(&mut usable, &mut ignored);
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        match KeySet::new(usable.into_iter().map(|(_, key)| key).collect()) {
            Ok(keys) => Ok(Self { keys, ignored }),
            Err(error) => {
                // A set without a usable key is explained by what was left out of it.
                ignored.push(KeyProblem::of_set(error));
                Err(ignored)
            }
        }
    }
}

/// Two keys of one name: neither is used, since a token would be checked with the wrong one or with both.
fn leave_out_duplicates(usable: &mut Vec<(usize, Key)>, ignored: &mut Vec<KeyProblem>) {
    let mut names: Vec<Kid> = usable.iter().filter_map(|(_, key)| key.kid().cloned()).collect();
    names.sort_unstable();
    let is_twice = |kid: &Kid| names.iter().filter(|name| *name == kid).count() > 1;
    usable.retain(|(position, key)| match key.kid() {
        Some(kid) if is_twice(kid) => {
            ignored.push(KeyProblem {
                position: *position,
                kid: Some(kid.clone()),
                error: KeyError::DuplicateKid(kid.clone()),
            });
            false
        }
        _ => true,
    });
}

fn key(jwk: &Map<String, Value>, origin: Origin, allowed: AlgorithmSet) -> Result<Key, KeyError> {
    let is_secret = match text(jwk, "kty")? {
        "RSA" | "EC" | "OKP" => false,
        "oct" => true,
        _ => return Err(KeyError::Unsupported("kty")),
    };
    if is_secret && origin == Origin::Published {
        return Err(KeyError::SecretInPublishedSet);
    }
    check_use(jwk)?;
    let own = match jwk.get("alg") {
        None => None,
        Some(Value::String(name)) => Some(name.parse::<Algorithm>().map_err(|_| KeyError::Unsupported("alg"))?),
        Some(_) => return Err(KeyError::InvalidMember("alg")),
    };
    let kid = match jwk.get("kid") {
        None => None,
        Some(Value::String(kid)) => Some(Kid::new(kid)),
        Some(_) => return Err(KeyError::InvalidMember("kid")),
    };
    // RFC 7517 §9.2: `d` is the private part of every kind of key pair.
    if !is_secret && jwk.contains_key("d") {
        return Err(KeyError::PrivateKey);
    }
    let secret: Zeroizing<Vec<u8>>;
    let raw = if is_secret {
        secret = Zeroizing::new(bytes(jwk, "k")?);
        if is_well_known(&secret) {
            return Err(KeyError::WellKnownSecret);
        }
        Raw::Secret(&secret)
    } else {
        public(jwk)?
    };
    let fitting = raw.algorithms();
    let usable = match own {
        Some(own) if !fitting.contains(own) => return Err(KeyError::AlgorithmMismatch),
        Some(own) if !allowed.is_empty() && !allowed.contains(own) => return Err(KeyError::AlgorithmNotListed),
        Some(own) => own.into(),
        None if allowed.is_empty() && fitting.iter().count() > 1 => return Err(KeyError::NeedsAlgorithm),
        None if allowed.is_empty() => fitting,
        None if allowed.and(fitting).is_empty() => return Err(KeyError::AlgorithmNotListed),
        None => allowed.and(fitting),
    };
    raw.key(usable, kid)
}

fn public(jwk: &Map<String, Value>) -> Result<Raw<'static>, KeyError> {
    match text(jwk, "kty")? {
        "RSA" => RsaPublicKey::new(&bytes(jwk, "n")?, &bytes(jwk, "e")?).map(Raw::Rsa),
        "EC" => match text(jwk, "crv")? {
            "P-256" => point(jwk, 32).map(Raw::P256),
            "P-384" => point(jwk, 48).map(Raw::P384),
            _ => Err(KeyError::Unsupported("crv")),
        },
        _ => match text(jwk, "crv")? {
            "Ed25519" => sized(jwk, "x", 32).map(Raw::Ed25519),
            _ => Err(KeyError::Unsupported("crv")),
        },
    }
}

/// `use` and `key_ops` (RFC 7517 §4.2, 4.3), each of which is enough to exclude a key.
fn check_use(jwk: &Map<String, Value>) -> Result<(), KeyError> {
    match jwk.get("use") {
        None => {}
        Some(Value::String(purpose)) if purpose == "sig" => {}
        Some(Value::String(_)) => return Err(KeyError::WrongUse),
        Some(_) => return Err(KeyError::InvalidMember("use")),
    }
    match jwk.get("key_ops") {
        None => Ok(()),
        Some(Value::Array(operations)) if operations.iter().any(|operation| operation == "verify") => Ok(()),
        Some(Value::Array(_)) => Err(KeyError::WrongUse),
        Some(_) => Err(KeyError::InvalidMember("key_ops")),
    }
}

/// An uncompressed point (SEC 1, 2.3.3). Whether it is on the curve is checked where it is prepared.
fn point(jwk: &Map<String, Value>, size: usize) -> Result<Vec<u8>, KeyError> {
    let mut point = vec![0x04];
    point.extend(sized(jwk, "x", size)?);
    point.extend(sized(jwk, "y", size)?);
    Ok(point)
}

fn sized(jwk: &Map<String, Value>, member: &'static str, size: usize) -> Result<Vec<u8>, KeyError> {
    let bytes = bytes(jwk, member)?;
    if bytes.len() == size { Ok(bytes) } else { Err(KeyError::InvalidMember(member)) }
}

fn bytes(jwk: &Map<String, Value>, member: &'static str) -> Result<Vec<u8>, KeyError> {
    URL_SAFE_NO_PAD.decode(text(jwk, member)?).map_err(|_| KeyError::InvalidMember(member))
}

fn text<'j>(jwk: &'j Map<String, Value>, member: &'static str) -> Result<&'j str, KeyError> {
    jwk.get(member).and_then(Value::as_str).ok_or(KeyError::InvalidMember(member))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    // Public keys of RFC 7517 A.1 and RFC 8037 A.2.
    fn p256() -> Value {
        json!({"kty": "EC", "crv": "P-256", "kid": "ec",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"})
    }

    fn rsa() -> Value {
        json!({"kty": "RSA", "kid": "rsa", "e": "AQAB", "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4\
            cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h\
            4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vM\
            QFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"})
    }

    fn ed25519() -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
    }

    fn oct() -> Value {
        json!({"kty": "oct", "kid": "oct", "alg": "HS256", "k": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"})
    }

    fn with(mut jwk: Value, member: &str, value: Value) -> Value {
        jwk[member] = value;
        jwk
    }

    fn parse(origin: Origin, algorithms: &[Algorithm], keys: Vec<Value>) -> Result<String, Vec<KeyError>> {
        let json = json!({ "keys": keys }).to_string();
        let jwks = Jwks::parse(json.as_bytes(), origin, AlgorithmSet::of(algorithms))
            .map_err(|problems| problems.into_iter().map(|problem| problem.error).collect::<Vec<_>>())?;
        let used = jwks.keys.iter().map(|key| format!("{}{:?}", key.kid().map_or("-", Kid::as_str), key.algorithms()));
        let ignored = jwks.ignored.iter().map(|problem| format!("!{}", problem.error.name()));
        Ok(used.chain(ignored).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn a_key_is_for_its_alg_or_for_what_the_policy_allows() {
        use Algorithm::{ES256, EdDSA, HS256, PS256, RS256};
        for (keys, algorithms, expected) in [
            (vec![p256(), ed25519()], &[][..], Ok("ec{ES256} ed{EdDSA}")),
            (vec![with(rsa(), "alg", json!("PS256"))], &[], Ok("rsa{PS256}")),
            (vec![with(ed25519(), "alg", json!("Ed25519"))], &[], Ok("ed{EdDSA}")),
            // G03
            (vec![rsa()], &[], Err(vec![KeyError::NeedsAlgorithm])),
            (vec![rsa()], &[RS256, PS256, ES256], Ok("rsa{RS256, PS256}")),
            (vec![rsa(), p256()], &[RS256], Ok("rsa{RS256} !algorithm_not_listed")),
            (vec![with(rsa(), "alg", json!("RS512")), p256()], &[RS256, ES256], Ok("ec{ES256} !algorithm_not_listed")),
            // G04
            (vec![with(p256(), "alg", json!("ES384"))], &[], Err(vec![KeyError::AlgorithmMismatch])),
            (vec![with(rsa(), "alg", json!("HS256"))], &[], Err(vec![KeyError::AlgorithmMismatch])),
            (vec![with(p256(), "crv", json!("P-384"))], &[], Err(vec![KeyError::InvalidMember("x")])),
            (
                vec![with(ed25519(), "crv", json!("X25519"))],
                &[EdDSA],
                Err(vec![KeyError::Unsupported("crv"), KeyError::NoUsableKey]),
            ),
            (vec![oct()], &[], Ok("oct{HS256}")),
            (vec![oct()], &[HS256], Ok("oct{HS256}")),
            (vec![oct(), p256()], &[], Err(vec![KeyError::MixedSet])),
        ] {
            let found = parse(Origin::Local, algorithms, keys.clone());
            assert_eq!(found, expected.map(String::from), "{keys:?}");
        }
    }

    #[test]
    fn a_local_set_reports_every_bad_key_and_ignores_foreign_ones() {
        let short = with(oct(), "k", json!("AAEC"));
        let off_curve = with(p256(), "y", p256()["x"].clone());
        for (keys, expected) in [
            (vec![], Err(vec![KeyError::NoUsableKey])),
            (
                vec![p256(), json!({"kty": "AKP"}), with(ed25519(), "use", json!("enc"))],
                Ok("ec{ES256} !unsupported !wrong_use"),
            ),
            (vec![p256(), with(ed25519(), "key_ops", json!(["encrypt"]))], Ok("ec{ES256} !wrong_use")),
            (vec![with(p256(), "key_ops", json!(["verify"]))], Ok("ec{ES256}")),
            (vec![with(p256(), "use", json!(1))], Err(vec![KeyError::InvalidMember("use")])),
            (vec![with(p256(), "key_ops", json!("verify"))], Err(vec![KeyError::InvalidMember("key_ops")])),
            (vec![with(p256(), "kid", json!(1))], Err(vec![KeyError::InvalidMember("kid")])),
            (vec![with(p256(), "d", json!("AA"))], Err(vec![KeyError::PrivateKey])),
            (vec![p256(), with(ed25519(), "kid", json!("ec"))], Err(vec![KeyError::DuplicateKid(Kid::new("ec"))])),
            (
                vec![short, off_curve],
                Err(vec![KeyError::ShortSecret { algorithm: Algorithm::HS256, length: 3 }, KeyError::InvalidKey]),
            ),
            (vec![with(p256(), "x", json!("M=="))], Err(vec![KeyError::InvalidMember("x")])),
            (vec![json!("key")], Err(vec![KeyError::NotJwks])),
            (vec![json!({})], Err(vec![KeyError::InvalidMember("kty")])),
        ] {
            let found = parse(Origin::Local, &[], keys.clone());
            assert_eq!(found, expected.map(String::from), "{keys:?}");
        }
    }

    #[test]
    fn a_published_set_leaves_bad_keys_out_and_never_holds_a_secret() {
        let off_curve = with(p256(), "y", p256()["x"].clone());
        for (keys, expected) in [
            (vec![oct(), p256()], Ok("ec{ES256} !secret_in_published_set")),
            (vec![oct()], Err(vec![KeyError::SecretInPublishedSet, KeyError::NoUsableKey])),
            (vec![off_curve, ed25519()], Ok("ed{EdDSA} !invalid_key")),
            (vec![with(p256(), "d", json!("AA")), ed25519()], Ok("ed{EdDSA} !private_key")),
            (
                vec![p256(), ed25519(), with(ed25519(), "kid", json!("ec"))],
                Ok("ed{EdDSA} !duplicate_kid !duplicate_kid"),
            ),
            (vec![], Err(vec![KeyError::NoUsableKey])),
            (vec![p256(); 101], Err(vec![KeyError::TooManyKeys])),
        ] {
            let found = parse(Origin::Published, &[], keys.clone());
            assert_eq!(found, expected.map(String::from), "{keys:?}");
        }
    }

    #[test]
    fn a_document_is_one_key_or_a_set_and_strict_json() {
        let parse = |json: &str| {
            Jwks::parse(json.as_bytes(), Origin::Local, AlgorithmSet::EMPTY).map_err(|problems| problems[0].to_string())
        };
        assert!(parse(&p256().to_string()).is_ok());
        let not_jwks = "neither a JSON Web Key nor a set of them";
        for json in ["", "[]", "{}", r#"{"keys":{}}"#, "<html>", r#"{"keys":[],"keys":[]}"#] {
            assert_eq!(parse(json).err().as_deref(), Some(not_jwks), "{json}");
        }
        let weak = json!({"keys": [p256(), with(rsa(), "e", json!("AQ"))]}).to_string();
        let message = "key 2 (`rsa`): the public exponent of the RSA key is not safe";
        assert_eq!(parse(&weak).err().as_deref(), Some(message));
    }
}
