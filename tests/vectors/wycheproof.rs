//! Wycheproof (C2SP): JWS, JWK, JWE.

use portcullis::token::algorithm::AlgorithmSet;
use portcullis::token::compact::Compact;
use serde_json::Value;

/// Where this verifier differs on purpose from `json_web_signature_test.json`.
const EXCEPTIONS: [(u64, &str); 8] = [
    (346, "PS384 with a key whose `alg` is PS256: the `alg` of a key is honoured"),
    (347, "ES512 is not supported, and the key's `alg` is misspelt `ES521`"),
    (350, "PS384 with a key whose `alg` is PS256: the `alg` of a key is honoured"),
    (351, "ES512 is not supported, and the key's `alg` is misspelt `ES521`"),
    (367, "byte for byte the valid 357: the bad padding was lost"),
    (370, "byte for byte the valid 357: the bad padding was lost"),
    (372, "`?` in the header: RFC 7515 §2 has no such byte"),
    (373, "`?` in the payload: RFC 7515 §2 has no such byte"),
];

struct Case {
    id: u64,
    valid: bool,
    key: Value,
    token: Value,
}

fn cases(file: &str, member: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let document = super::read(&super::folder("wycheproof").join(file));
    for group in document["testGroups"].as_array().unwrap() {
        let key = group.get("public").or_else(|| group.get("private")).unwrap();
        for test in group["tests"].as_array().unwrap() {
            let Some(token) = test.get(member) else { continue };
            cases.push(Case {
                id: test["tcId"].as_u64().unwrap(),
                valid: test["result"] == "valid",
                key: key.clone(),
                token: token.clone(),
            });
        }
    }
    cases
}

/// The cases on which we and the vectors disagree.
fn differences(cases: &[Case]) -> Vec<u64> {
    // No list of algorithms: every key counts with its own `alg`.
    let differs = |case: &&Case| super::verifies(&case.key, AlgorithmSet::EMPTY, &case.token) != case.valid;
    cases.iter().filter(differs).map(|case| case.id).collect()
}

#[test]
#[cfg_attr(not(vectors), ignore = "needs ../shared/vectors/wycheproof")]
fn signatures_are_judged_as_wycheproof_does_but_for_the_exceptions() {
    let cases = cases("json_web_signature_test.json", "jws");
    assert_eq!(cases.len(), 401);
    assert_eq!(differences(&cases), EXCEPTIONS.map(|(id, _)| id));
}

#[test]
#[cfg_attr(not(vectors), ignore = "needs ../shared/vectors/wycheproof")]
fn weak_and_ambiguous_keys_are_refused() {
    let cases = cases("json_web_key_test.json", "jws");
    assert_eq!(cases.len(), 26);
    assert_eq!(differences(&cases), Vec::<u64>::new());
}

#[test]
#[cfg_attr(not(vectors), ignore = "needs ../shared/vectors/wycheproof")]
fn mixed_sets_and_foreign_forms_are_refused() {
    let cases = cases("json_web_crypto_test.json", "jws");
    assert_eq!(cases.len(), 49);
    assert_eq!(differences(&cases), Vec::<u64>::new());
}

#[test]
#[cfg_attr(not(vectors), ignore = "needs ../shared/vectors/wycheproof")]
fn encrypted_tokens_are_refused_unread() {
    for (file, count) in [("json_web_encryption_test.json", 139), ("json_web_crypto_test.json", 34)] {
        let cases = cases(file, "jwe");
        assert_eq!(cases.len(), count);
        for case in cases {
            let text = case.token.as_str().map_or_else(|| case.token.to_string(), String::from);
            assert!(Compact::parse(&text).is_err(), "{file} {}", case.id);
        }
    }
}
