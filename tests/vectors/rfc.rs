//! The examples of RFC 7515 appendix A, RFC 7519 §3.1 and RFC 8037 appendix A.4, for every clone of the project.

use portcullis::clock::Timestamp;
use portcullis::identity::IssuerName;
use portcullis::token::algorithm::{Algorithm, AlgorithmSet};
use portcullis::token::compact::Compact;
use portcullis::token::error::{Malformed, TokenError};
use portcullis::token::jwks::{Jwks, Origin};
use portcullis::token::verify::{ExpectedAudience, ExpectedIssuer, IssuerRules, Verifier};
use serde_json::{Value, json};

/// The payload of A.1 to A.3 and A.5: `joe`, until 2011.
const PAYLOAD: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const EXPIRES: i64 = 1_300_819_380;

/// A.1, which is also RFC 7519 §3.1.
fn hs256() -> (Value, String) {
    let key = json!({"kty": "oct", "alg": "HS256",
        "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"});
    let signature = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    (key, format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{PAYLOAD}.{signature}"))
}

/// A.2
fn rs256() -> (Value, String) {
    let key = json!({"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-\
        Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5\
        rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9i\
        aGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"});
    let signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds\
        9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_\
        dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_Ioyp\
        GlUPQGe77Rw";
    (key, format!("eyJhbGciOiJSUzI1NiJ9.{PAYLOAD}.{signature}"))
}

/// A.3
fn es256() -> (Value, String) {
    let key = json!({"kty": "EC", "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"});
    let signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    (key, format!("eyJhbGciOiJFUzI1NiJ9.{PAYLOAD}.{signature}"))
}

#[test]
fn the_examples_with_claims_verify_until_they_expire() {
    for (key, token) in [hs256(), rs256(), es256()] {
        let algorithms = AlgorithmSet::of(&[Algorithm::HS256, Algorithm::RS256, Algorithm::ES256]);
        let keys = Jwks::parse(key.to_string().as_bytes(), Origin::Local, algorithms).unwrap().keys;
        let joe = ExpectedIssuer::Exact("joe".into());
        let rules = IssuerRules::new(IssuerName::new("rfc"), joe, ExpectedAudience::DangerAny, keys);
        let verifier = Verifier::new(vec![rules]).unwrap();
        let verified = verifier.verify(&token, Timestamp::from_seconds(EXPIRES - 1)).unwrap();
        assert_eq!(verified.claims().get("http://example.com/is_root"), Some(&true.into()));
        let late = verifier.verify(&token, Timestamp::from_seconds(EXPIRES + 30)).unwrap_err();
        assert_eq!(late, TokenError::Expired);
    }
}

#[test]
fn ed25519_verifies() {
    let key = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let token = json!(
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4\
        iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    );
    assert!(super::verifies(&key, AlgorithmSet::EMPTY, &token));
}

#[test]
fn what_is_not_supported_is_refused() {
    let json_form = format!(r#"{{"payload":"{PAYLOAD}","protected":"eyJhbGciOiJFUzI1NiJ9","signature":"AAAA"}}"#);
    for (token, expected) in [
        // A.4
        (
            "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-\
            KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn"
                .to_owned(),
            TokenError::UnsupportedAlgorithm,
        ),
        // A.5
        (format!("eyJhbGciOiJub25lIn0.{PAYLOAD}."), TokenError::Malformed(Malformed::Parts)),
        (format!("eyJhbGciOiJub25lIn0.{PAYLOAD}.AAAA"), TokenError::UnsupportedAlgorithm),
        // A.6, A.7
        (json_form, TokenError::Malformed(Malformed::Alphabet)),
    ] {
        assert_eq!(Compact::parse(&token).err(), Some(expected), "{token}");
    }
}
