//! The JOSE cookbook: RFC 7520, 7797, 8037.

use std::path::{Path, PathBuf};

use portcullis::token::algorithm::{Algorithm, AlgorithmSet};
use serde_json::Value;

/// The only files whose compact form verifies. ES512 (4.3) is not supported; 4.5 is detached, 4.6 to 4.8 are JSON.
const ACCEPTED: [&str; 4] = [
    "curve25519/jws.json",
    "jws/4_1.rsa_v15_signature.json",
    "jws/4_2.rsa-pss_signature.json",
    "jws/4_4.hmac-sha2_integrity_protection.json",
];

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The public half: a verifier refuses to be given more.
fn public(key: &Value) -> Value {
    let mut key = key.clone();
    if let Some(members) = key.as_object_mut()
        && members.get("kty").is_some_and(|kty| kty != "oct")
    {
        members.retain(|name, _| !["d", "p", "q", "dp", "dq", "qi"].contains(&name.as_str()));
    }
    key
}

#[test]
#[cfg_attr(not(vectors), ignore = "needs ../shared/vectors/jose-cookbook")]
fn the_cookbook_is_accepted_where_it_is_compact_jws_and_refused_elsewhere() {
    let root = super::folder("jose-cookbook");
    let (mut accepted, mut forms) = (Vec::new(), 0);
    for path in files(&root) {
        let example = super::read(&path);
        let Some(output) = example.get("output").and_then(Value::as_object) else { continue };
        let key = public(&example["input"]["key"]);
        let name = path.strip_prefix(&root).unwrap().display().to_string();
        for (form, token) in output {
            forms += 1;
            if super::verifies(&key, AlgorithmSet::of(&Algorithm::ALL), token) {
                assert_eq!(form, "compact", "{name}");
                accepted.push(name.clone());
            }
        }
    }
    assert_eq!(accepted, ACCEPTED);
    assert!(forms > 50, "{forms}");
}
