//! The rows of `security.md` G that concern local verification. Keys are made anew in each run.

use std::sync::LazyLock;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::hmac;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, json};

use crate::identity::{Fact, Kind};
use crate::token::jwks::{Jwks, Origin};
use crate::token::key::{Key, Raw};
use crate::token::mint::Minter;

use super::*;

const NOW: i64 = 1_767_225_600;
const ISSUER: &str = "https://issuer.example";

/// A key pair or secret with one of the algorithms.
struct Signer {
    minter: Minter,
    public_pem: Option<String>,
}

impl Signer {
    fn from_der(private: &[u8], public: &[u8], algorithm: Algorithm) -> Self {
        let minter = Minter::from_pem(&pem("PRIVATE KEY", private), Some(algorithm)).unwrap();
        Self { minter, public_pem: Some(pem("PUBLIC KEY", public)) }
    }

    fn algorithm(&self) -> Algorithm {
        self.minter.algorithm()
    }

    fn seal(&self, header: &Value, payload: &str) -> String {
        self.minter.seal(header.to_string().as_bytes(), payload.as_bytes()).unwrap()
    }

    fn token(&self, claims: &Value) -> String {
        self.seal(&json!({"alg": self.algorithm().as_str(), "typ": "JWT"}), &claims.to_string())
    }

    fn rules(&self) -> IssuerRules {
        rules(self.minter.verifying_key().into())
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

fn ecdsa(algorithm: Algorithm, curve: &'static EcdsaSigningAlgorithm) -> Signer {
    let pair = EcdsaKeyPair::generate(curve).unwrap();
    let private = pair.to_pkcs8v1().unwrap();
    Signer::from_der(private.as_ref(), pair.public_key().as_der().unwrap().as_ref(), algorithm)
}

/// One signer for each algorithm there is.
static SIGNERS: LazyLock<Vec<Signer>> = LazyLock::new(|| {
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let (rsa_private, rsa_public) = (rsa.as_der().unwrap(), rsa.public_key().as_der().unwrap());
    let ed25519 = Ed25519KeyPair::generate().unwrap();
    let secret: Vec<u8> = (0..64).map(|byte| byte * 3 + 1).collect();
    let signer = |algorithm| match algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
            Signer { minter: Minter::from_secret(&secret, algorithm).unwrap(), public_pem: None }
        }
        Algorithm::ES256 => ecdsa(algorithm, &signature::ECDSA_P256_SHA256_FIXED_SIGNING),
        Algorithm::ES384 => ecdsa(algorithm, &signature::ECDSA_P384_SHA384_FIXED_SIGNING),
        Algorithm::EdDSA => Signer::from_der(
            ed25519.to_pkcs8v1().unwrap().as_ref(),
            ed25519.public_key().as_der().unwrap().as_ref(),
            algorithm,
        ),
        _ => Signer::from_der(rsa_private.as_ref(), rsa_public.as_ref(), algorithm),
    };
    Algorithm::ALL.into_iter().map(signer).collect()
});

fn signer(algorithm: Algorithm) -> &'static Signer {
    SIGNERS.iter().find(|signer| signer.algorithm() == algorithm).unwrap()
}

fn hs256() -> &'static Signer {
    signer(Algorithm::HS256)
}

fn rules(keys: KeySet) -> IssuerRules {
    let audience = ExpectedAudience::OneOf(vec!["api".into(), "other".into()]);
    IssuerRules::new(IssuerName::new("main"), ExpectedIssuer::Exact(ISSUER.into()), audience, keys)
}

fn good() -> Value {
    json!({"iss": ISSUER, "aud": "api", "sub": "ada", "iat": NOW - 60, "exp": NOW + 600})
}

/// The good claims with one replaced, or removed by `null`.
fn with(name: &str, value: Value) -> Value {
    let mut claims = good();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = good();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn verify(rules: &IssuerRules, token: &str) -> Result<VerifiedToken, TokenError> {
    Verifier::new(vec![rules.clone()]).unwrap().verify(token, Timestamp::from_seconds(NOW))
}

fn error(rules: &IssuerRules, token: &str) -> Option<TokenError> {
    verify(rules, token).err()
}

fn kid_key(signer: &Signer, kid: &str) -> Key {
    let pem = signer.public_pem.as_deref().unwrap();
    Key::from_pem(pem, signer.algorithm().into(), Some(Kid::new(kid))).unwrap()
}

#[test]
fn every_algorithm_accepts_its_own_and_refuses_what_was_changed() {
    for signer in SIGNERS.iter() {
        let (rules, token) = (signer.rules(), signer.token(&good()));
        let verified = verify(&rules, &token).unwrap();
        assert_eq!(verified.algorithm(), Some(signer.algorithm()));
        assert_eq!(verified.expires(), Some(Timestamp::from_seconds(NOW + 600)));
        assert_eq!(
            verified.claims().iter().map(|(name, value)| (name.to_owned(), value.clone())).collect::<Value>(),
            good()
        );
        if let Some(pem) = &signer.public_pem {
            let key = Key::from_pem(pem, signer.algorithm().into(), None).unwrap();
            assert_eq!(error(&self::rules(key.into()), &token), None, "{:?}", signer.algorithm());
        }

        let parts: Vec<&str> = token.split('.').collect();
        let other_payload = URL_SAFE_NO_PAD.encode(with("sub", json!("eve")).to_string());
        let other_signature = signer.token(&with("sub", json!("eve"))).split('.').next_back().unwrap().to_owned();
        for changed in [
            format!("{}.{other_payload}.{}", parts[0], parts[2]),
            format!("{}.{}.{other_signature}", parts[0], parts[1]),
            format!("{}.{}.AAAA", parts[0], parts[1]),
            format!("{}.{}.{}AAAA", parts[0], parts[1], parts[2]),
        ] {
            assert_eq!(error(&rules, &changed), Some(TokenError::BadSignature), "{:?}", signer.algorithm());
        }
    }
}

#[test]
fn no_other_spelling_of_a_token_is_accepted() {
    let (verifier, token) = (Verifier::new(vec![hs256().rules()]).unwrap(), hs256().token(&good()));
    let alphabet = (b'0'..=b'9').chain(b'A'..=b'Z').chain(b'a'..=b'z').chain(*b"-_.=+/ ");
    for byte in alphabet {
        for at in 0..token.len() {
            let mut other = token.clone().into_bytes();
            other[at] = byte;
            let other = String::from_utf8(other).unwrap();
            let accepted = verifier.verify(&other, Timestamp::from_seconds(NOW)).is_ok();
            assert_eq!(accepted, other == token, "{other}");
        }
    }
}

proptest::proptest! {
    #[test]
    fn nothing_from_the_network_panics(text in ".{0,200}", json in r#"[\[\]{}",:a-e0-9.\\ -]{0,80}"#) {
        let verifier = Verifier::new(vec![hs256().rules()]).unwrap();
        let now = Timestamp::from_seconds(NOW);
        proptest::prop_assert!(verifier.verify(&text, now).is_err());
        let header = format!("{{\"alg\":\"HS256\",{}", json);
        for (header, payload) in [(header.as_str(), json.as_str()), (json.as_str(), "{}"), (r#"{"alg":"HS256"}"#, &json)] {
            let token = hs256().minter.seal(header.as_bytes(), payload.as_bytes()).unwrap();
            proptest::prop_assert!(verifier.verify(&token, now).is_err());
        }
        let _ = Jwks::parse(json.as_bytes(), Origin::Published, AlgorithmSet::EMPTY);
        let _ = Key::from_pem(&text, AlgorithmSet::EMPTY, None);
        let _ = crate::identity::claims::ClaimPath::parse(&text);
    }
}

#[test]
fn the_algorithm_comes_from_policy_and_key_never_from_the_token() {
    for signer in SIGNERS.iter() {
        let rules = signer.rules();
        // G01 and the other eleven, each over a signature that the issuer's key did make.
        let names =
            Algorithm::ALL.into_iter().map(Algorithm::as_str).chain(["none", "None", "NONE", "nOnE", "ES512", ""]);
        for name in names.filter(|name| *name != signer.algorithm().as_str()) {
            let token = signer.seal(&json!({"alg": name}), &good().to_string());
            assert_eq!(error(&rules, &token), Some(TokenError::UnsupportedAlgorithm), "{name}");
        }
        for other in SIGNERS.iter().filter(|other| other.algorithm() != signer.algorithm()) {
            assert_eq!(error(&rules, &other.token(&good())), Some(TokenError::UnsupportedAlgorithm));
        }
        let unsigned = signer.seal(&json!({"alg": "none"}), &good().to_string());
        let unsigned = format!("{}.", unsigned.rsplit_once('.').unwrap().0);
        assert_eq!(error(&rules, &unsigned), Some(TokenError::Malformed(Malformed::Parts)));
    }
    // A key that could do more than the policy allows.
    let narrow = IssuerRules { algorithms: Algorithm::HS512.into(), ..hs256().rules() };
    assert_eq!(error(&narrow, &hs256().token(&good())), Some(TokenError::UnsupportedAlgorithm));
}

#[test]
fn a_public_key_never_becomes_a_secret() {
    // G02
    for signer in SIGNERS.iter().filter(|signer| signer.public_pem.is_some()) {
        let pem = signer.public_pem.as_deref().unwrap();
        let der = STANDARD.decode(pem.lines().nth(1).unwrap()).unwrap();
        let variants: [Vec<u8>; 7] = [
            pem.into(),
            pem.trim_end().into(),
            format!("\n{pem}").into(),
            format!(" {pem}").into(),
            pem.replace('\n', "\r\n").into(),
            STANDARD.encode(&der).into(),
            der,
        ];
        for secret in variants {
            for (name, hash) in
                [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)]
            {
                let header = URL_SAFE_NO_PAD.encode(json!({"alg": name}).to_string());
                let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(good().to_string()));
                let tag = hmac::sign(&hmac::Key::new(hash, &secret), signed.as_bytes());
                let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag));
                assert_eq!(error(&signer.rules(), &token), Some(TokenError::UnsupportedAlgorithm));
            }
        }
    }
}

#[test]
fn a_jwk_without_alg_is_for_what_the_policy_lists() {
    // G03
    let (rs256, ps256) = (signer(Algorithm::RS256), signer(Algorithm::PS256));
    let key = Key::from_pem(rs256.public_pem.as_deref().unwrap(), AlgorithmSet::EMPTY, None).unwrap();
    assert_eq!(key.algorithms(), Algorithm::RS256.into());
    assert_eq!(error(&rules(key.into()), &ps256.token(&good())), Some(TokenError::UnsupportedAlgorithm));
    let both = AlgorithmSet::of(&[Algorithm::RS256, Algorithm::PS256, Algorithm::ES256]);
    let key = Key::from_pem(rs256.public_pem.as_deref().unwrap(), both, None).unwrap();
    let rules = rules(key.into());
    assert_eq!(error(&rules, &ps256.token(&good())), None);
    assert_eq!(error(&rules, &rs256.token(&good())), None);
    assert_eq!(error(&rules, &signer(Algorithm::RS512).token(&good())), Some(TokenError::UnsupportedAlgorithm));
}

#[test]
fn keys_in_a_token_are_not_looked_at() {
    // G05: signed with the attacker's key, which the token brings along.
    for issuer in SIGNERS.iter() {
        let attacker = ecdsa(Algorithm::ES256, &signature::ECDSA_P256_SHA256_FIXED_SIGNING);
        let pem = attacker.public_pem.as_deref().unwrap();
        let spki = STANDARD.decode(pem.lines().nth(1).unwrap()).unwrap();
        let (x, y) = spki[spki.len() - 64..].split_at(32);
        let header = json!({"alg": "ES256", "kid": "https://attacker.example/key", "jku": "https://attacker.example/jwks",
            "x5u": "https://attacker.example/x5u", "x5c": [STANDARD.encode(&spki)], "x5t": "AAAA",
            "jwk": {"kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)}});
        let expected = match issuer.algorithm() {
            Algorithm::ES256 => TokenError::BadSignature,
            _ => TokenError::UnsupportedAlgorithm,
        };
        let token = attacker.seal(&header, &good().to_string());
        assert_eq!(error(&issuer.rules(), &token), Some(expected));
    }
}

#[test]
fn a_kid_chooses_among_the_keys_of_the_issuer() {
    let (a, b) = (signer(Algorithm::ES256), signer(Algorithm::EdDSA));
    let rules = rules(KeySet::new(vec![kid_key(a, "a"), kid_key(b, "b")]).unwrap());
    let token = |signer: &Signer, kid: Value| {
        signer.seal(&json!({"alg": signer.algorithm().as_str(), "kid": kid}), &good().to_string())
    };
    assert_eq!(verify(&rules, &token(a, json!("a"))).unwrap().kid(), Some(&Kid::new("a")));
    // Without `kid`, the keys for the algorithm.
    assert_eq!(verify(&rules, &b.token(&good())).unwrap().kid(), Some(&Kid::new("b")));
    for (kid, expected) in [
        (json!("b"), TokenError::UnsupportedAlgorithm),
        (json!("c"), TokenError::UnknownKey),
        (json!("A"), TokenError::UnknownKey),
        (json!(""), TokenError::UnknownKey),
        // G06
        (json!("../../dev/null"), TokenError::UnknownKey),
        (json!("/dev/null"), TokenError::UnknownKey),
        (json!("' UNION SELECT 'x"), TokenError::UnknownKey),
        (json!("a\u{0}"), TokenError::UnknownKey),
        (json!(1), TokenError::Malformed(Malformed::Header)),
        (json!(null), TokenError::Malformed(Malformed::Header)),
        (json!(["a"]), TokenError::Malformed(Malformed::Header)),
        (json!("a".repeat(1_000_000)), TokenError::TooLarge),
    ] {
        let shown: String = kid.to_string().chars().take(40).collect();
        assert_eq!(error(&rules, &token(a, kid)), Some(expected), "{shown}");
    }
    // A secret or PEM file has no name, so no `kid` contradicts it.
    assert_eq!(error(&a.rules(), &token(a, json!("whatever"))), None);
}

#[test]
fn a_header_that_changes_the_meaning_is_refused_even_if_well_signed() {
    let hs256 = hs256();
    for (header, expected) in [
        // G07
        (json!({"alg": "HS256", "crit": ["bork"], "bork": 1}), "crit"),
        (json!({"alg": "HS256", "crit": []}), "crit"),
        (json!({"alg": "HS256", "b64": false}), "b64"),
        (json!({"alg": "HS256", "b64": true}), "b64"),
        // G16
        (json!({"alg": "HS256", "zip": "DEF"}), "zip"),
        (json!({"alg": "HS256", "cty": "JWT"}), "cty"),
    ] {
        let token = hs256.seal(&header, &good().to_string());
        assert_eq!(error(&hs256.rules(), &token), Some(TokenError::ForbiddenHeader(expected)), "{header}");
    }
    for header in [r#"{"alg":"PBES2-HS256+A128KW","p2c":2147483648}"#, r#"{"alg":"dir","enc":"A128GCM"}"#] {
        let token = hs256.minter.seal(header.as_bytes(), b"{}").unwrap();
        assert_eq!(error(&hs256.rules(), &token), Some(TokenError::UnsupportedAlgorithm), "{header}");
    }
}

#[test]
fn a_time_is_a_number_or_the_token_is_refused() {
    // G08, written as text: serde_json cannot build all of them.
    for claim in ["exp", "nbf", "iat"] {
        let check = |value: &str| {
            let payload = with(claim, json!("@")).to_string().replace("\"@\"", value);
            error(&hs256().rules(), &hs256().seal(&json!({"alg": "HS256"}), &payload))
        };
        for value in
            ["\"1767226200\"", "null", "true", "{}", "[1767226200]", "-1", "9007199254740993", "18446744073709551616"]
        {
            assert_eq!(check(value), Some(TokenError::ClaimWrongType(claim)), "{claim}: {value}");
        }
        for value in ["1e309", "NaN", "-Infinity", "0x10", "01"] {
            let expected = TokenError::Malformed(Malformed::Claims(crate::identity::claims::ClaimsError::NotJson));
            assert_eq!(check(value), Some(expected), "{claim}: {value}");
        }
        let fraction = if claim == "exp" { "1767226200.5" } else { "1767225500.5" };
        assert_eq!(check(fraction), None, "{claim}: {fraction}");
        assert_eq!(check(&fraction.replace(".5", ".5e0")), None);
    }
}

#[test]
fn times_are_compared_with_leeway_to_the_second() {
    // G09. The last column in seconds from now.
    for (claim, offset, expected) in [
        ("exp", -1, None),
        ("exp", -29, None),
        ("exp", -30, Some(TokenError::Expired)),
        ("exp", -31, Some(TokenError::Expired)),
        ("nbf", 30, None),
        ("nbf", 31, Some(TokenError::NotYetValid)),
        ("iat", 30, None),
        ("iat", 31, Some(TokenError::IssuedInFuture)),
        ("exp", -NOW, Some(TokenError::Expired)),
    ] {
        let token = hs256().token(&with(claim, json!(NOW + offset)));
        assert_eq!(error(&hs256().rules(), &token), expected, "{claim} {offset}");
    }
    let strict = IssuerRules { leeway: Duration::ZERO, ..hs256().rules() };
    for (offset, expected) in [(1, None), (0, Some(TokenError::Expired))] {
        assert_eq!(error(&strict, &hs256().token(&with("exp", json!(NOW + offset)))), expected, "{offset}");
    }
}

#[test]
fn waiving_the_end_of_a_token_is_written_in_the_policy() {
    let endless = hs256().token(&without("exp"));
    let waived = IssuerRules { expiry: Expiry::DangerOptional, ..hs256().rules() };
    assert_eq!(error(&hs256().rules(), &endless), Some(TokenError::MissingClaim("exp")));
    assert_eq!(verify(&waived, &endless).unwrap().expires(), None);
    assert_eq!(error(&waived, &hs256().token(&with("exp", json!(NOW - 60)))), Some(TokenError::Expired));
}

#[test]
fn a_token_that_lives_longer_than_the_policy_allows_is_refused() {
    let limited = |expiry| IssuerRules { max_token_age: Some(Duration::from_secs(3600)), expiry, ..hs256().rules() };
    let token = |iat: Value, exp: Value| {
        let mut claims = with("iat", iat);
        claims["exp"] = exp;
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        hs256().token(&claims)
    };
    for (iat, exp, expected) in [
        (json!(NOW), json!(NOW + 3600), None),
        (json!(NOW), json!(NOW + 3601), Some(TokenError::TooLongLived)),
        (json!(0), json!(NOW + 60), Some(TokenError::TooLongLived)),
        (json!(null), json!(NOW + 60), Some(TokenError::MissingClaim("iat"))),
        (json!(NOW - 3600), json!(null), None),
        (json!(NOW - 3601), json!(null), Some(TokenError::TooLongLived)),
    ] {
        let found = error(&limited(Expiry::DangerOptional), &token(iat.clone(), exp.clone()));
        assert_eq!(found, expected, "{iat} {exp}");
    }
}

#[test]
fn issuer_and_audience_are_compared_exactly() {
    // G10
    for (claim, value, expected) in [
        ("aud", json!("api"), None),
        ("aud", json!(["api"]), None),
        ("aud", json!(["x", "other"]), None),
        ("aud", json!("API"), Some(TokenError::WrongAudience)),
        ("aud", json!("api "), Some(TokenError::WrongAudience)),
        ("aud", json!("ap"), Some(TokenError::WrongAudience)),
        ("aud", json!(""), Some(TokenError::WrongAudience)),
        ("aud", json!([]), Some(TokenError::WrongAudience)),
        ("aud", json!(["x"]), Some(TokenError::WrongAudience)),
        ("aud", json!(["api", 1]), Some(TokenError::ClaimWrongType("aud"))),
        ("aud", json!([["api"]]), Some(TokenError::ClaimWrongType("aud"))),
        ("aud", json!(1), Some(TokenError::ClaimWrongType("aud"))),
        ("aud", json!(null), Some(TokenError::ClaimWrongType("aud"))),
        ("aud", json!({"api": true}), Some(TokenError::ClaimWrongType("aud"))),
        ("iss", json!(format!("{ISSUER}/")), Some(TokenError::WrongIssuer)),
        ("iss", json!("https://ISSUER.example"), Some(TokenError::WrongIssuer)),
        ("iss", json!("https://issuer.exampl"), Some(TokenError::WrongIssuer)),
        ("iss", json!(format!("{ISSUER}.attacker.test")), Some(TokenError::WrongIssuer)),
        ("iss", json!(""), Some(TokenError::WrongIssuer)),
        ("iss", json!([ISSUER]), Some(TokenError::ClaimWrongType("iss"))),
        ("iss", json!(1), Some(TokenError::ClaimWrongType("iss"))),
        ("iss", json!(null), Some(TokenError::ClaimWrongType("iss"))),
    ] {
        let token = hs256().token(&with(claim, value.clone()));
        assert_eq!(error(&hs256().rules(), &token), expected, "{claim} {value}");
    }
    for claim in ["aud", "iss"] {
        let found = error(&hs256().rules(), &hs256().token(&without(claim)));
        assert_eq!(found, Some(TokenError::MissingClaim(claim)));
    }
    let waived =
        IssuerRules { issuer: ExpectedIssuer::DangerAny, audience: ExpectedAudience::DangerAny, ..hs256().rules() };
    for claims in [without("aud"), without("iss"), with("aud", json!("x")), with("iss", json!("x"))] {
        assert_eq!(error(&waived, &hs256().token(&claims)), None, "{claims}");
    }
    assert_eq!(error(&waived, &hs256().token(&with("iss", json!(1)))), Some(TokenError::ClaimWrongType("iss")));
}

/// Access tokens of Amazon Cognito name the client they are for, and no audience.
#[test]
fn a_client_stands_in_for_the_audience_only_where_the_policy_has_clients_and_the_token_no_aud() {
    let clients = |ours: &[&str]| {
        let audience = ExpectedAudience::ClientOneOf(ours.iter().map(|&own| own.into()).collect());
        IssuerRules { audience, ..hs256().rules() }
    };
    let claims = |aud: Option<Value>, client: Value| {
        let mut claims = without("aud");
        claims["client_id"] = client;
        if let Some(aud) = aud {
            claims["aud"] = aud;
        }
        claims
    };
    for (rules, aud, client, expected) in [
        (clients(&["web"]), None, json!("web"), None),
        (clients(&["web"]), None, json!("other"), Some(TokenError::WrongAudience)),
        (clients(&["web"]), None, json!(["web"]), Some(TokenError::ClaimWrongType("client_id"))),
        (clients(&["web"]), Some(json!("web")), json!("other"), None),
        (clients(&["web"]), Some(json!("other")), json!("web"), Some(TokenError::WrongAudience)),
        (clients(&[]), None, json!("web"), Some(TokenError::WrongAudience)),
        (hs256().rules(), None, json!("api"), Some(TokenError::MissingClaim("aud"))),
    ] {
        let token = hs256().token(&claims(aud.clone(), client.clone()));
        assert_eq!(error(&rules, &token), expected, "{aud:?} {client}");
    }
}

#[test]
fn an_issuer_vouches_only_for_its_own_tokens() {
    // G11
    let (a, b, any) = (signer(Algorithm::ES256), signer(Algorithm::ES384), signer(Algorithm::EdDSA));
    let issuer = |signer: &Signer, name: &str, issuer: ExpectedIssuer| IssuerRules {
        name: IssuerName::new(name),
        issuer,
        ..rules(kid_key(signer, "same").into())
    };
    let exact = |text: &str| ExpectedIssuer::Exact(text.into());
    let issuers = vec![issuer(a, "a", exact("A")), issuer(b, "b", exact("B"))];
    let strict = Verifier::new(issuers.clone()).unwrap();
    let open = Verifier::new([issuers, vec![issuer(any, "any", ExpectedIssuer::DangerAny)]].concat()).unwrap();
    let token = |signer: &Signer, iss: &str| {
        let header = json!({"alg": signer.algorithm().as_str(), "kid": "same"});
        signer.seal(&header, &with("iss", json!(iss)).to_string())
    };
    for (signer, iss, in_strict, in_open) in [
        (a, "A", Ok("a"), Ok("a")),
        (b, "B", Ok("b"), Ok("b")),
        (b, "A", Err(TokenError::UnsupportedAlgorithm), Err(TokenError::UnsupportedAlgorithm)),
        (a, "C", Err(TokenError::WrongIssuer), Err(TokenError::UnsupportedAlgorithm)),
        (any, "C", Err(TokenError::WrongIssuer), Ok("any")),
        // Its own issuer has the say, not the one that takes any.
        (any, "A", Err(TokenError::UnsupportedAlgorithm), Err(TokenError::UnsupportedAlgorithm)),
    ] {
        let found = |verifier: &Verifier| {
            let verified = verifier.verify(&token(signer, iss), Timestamp::from_seconds(NOW));
            verified.map(|verified| verified.issuer().to_string())
        };
        assert_eq!(found(&strict), in_strict.map(String::from), "{iss}");
        assert_eq!(found(&open), in_open.map(String::from), "{iss}");
    }

    for (first, second) in [(exact("A"), exact("A")), (ExpectedIssuer::DangerAny, ExpectedIssuer::DangerAny)] {
        let ambiguous = Verifier::new(vec![issuer(a, "a", first), issuer(b, "b", second)]).unwrap_err();
        assert_eq!(ambiguous, AmbiguousIssuers(IssuerName::new("a"), IssuerName::new("b")));
    }
    assert_eq!(
        Verifier::default().verify(&token(a, "A"), Timestamp::from_seconds(NOW)).err(),
        Some(TokenError::WrongIssuer)
    );
}

#[test]
fn tokens_of_an_issuer_without_keys_are_neither_accepted_nor_refused() {
    let known = hs256().rules();
    let unavailable = IssuerRules {
        name: IssuerName::new("remote"),
        issuer: ExpectedIssuer::Exact("remote".into()),
        keys: IssuerKeys::Unavailable,
        ..known.clone()
    };
    let now = Timestamp::from_seconds(NOW);
    let remote = hs256().token(&with("iss", json!("remote")));
    let own = hs256().token(&good());
    for issuers in [vec![unavailable.clone()], vec![known, unavailable]] {
        let verifier = Verifier::new(issuers.clone()).unwrap();
        assert_eq!(verifier.verify(&remote, now).err(), Some(TokenError::KeysUnavailable));
        let expected = (issuers.len() == 1).then_some(TokenError::WrongIssuer);
        assert_eq!(verifier.verify(&own, now).err(), expected);
        assert_eq!(verifier.verify("a.b.c", now).err(), Some(TokenError::Malformed(Malformed::Base64)));

        let keys = IssuerKeys::Known(Arc::new(hs256().minter.verifying_key().into()));
        let fetched = verifier.with_keys(&IssuerName::new("remote"), keys);
        assert_eq!(fetched.verify(&remote, now).err(), None);
    }
}

#[test]
fn a_token_of_another_kind_is_not_an_access_token() {
    // G12
    let required = IssuerRules { required_typ: Some("at+jwt".into()), ..hs256().rules() };
    for (typ, by_default, where_required) in [
        (None, true, false),
        (Some("JWT"), true, false),
        (Some("jwt"), true, false),
        (Some("application/jwt"), true, false),
        (Some("at+jwt"), true, true),
        (Some("AT+JWT"), true, true),
        (Some("application/at+jwt"), true, true),
        (Some("logout+jwt"), false, false),
        (Some("dpop+jwt"), false, false),
        (Some("application/application/at+jwt"), false, false),
        (Some(""), false, false),
    ] {
        let mut header = json!({"alg": "HS256"});
        if let Some(typ) = typ {
            header["typ"] = json!(typ);
        }
        let token = hs256().seal(&header, &good().to_string());
        for (rules, accepted) in [(hs256().rules(), by_default), (required.clone(), where_required)] {
            assert_eq!(error(&rules, &token), (!accepted).then_some(TokenError::WrongType), "{typ:?}");
        }
    }
}

#[test]
fn claims_on_which_two_parsers_disagree_are_refused_even_if_well_signed() {
    // G13
    let good = good().to_string();
    let open = good.trim_end_matches('}');
    for twice in [
        format!("{open},\"exp\":{NOW}}}"),
        format!("{open},\"sub\":\"eve\"}}"),
        format!("{open},\"\\u0073ub\":\"eve\"}}"),
        format!("{open},\"aud\":\"x\"}}"),
        format!("{open},\"role\":\"a\",\"role\":\"b\"}}"),
        format!("{open},\"x\":{{\"scope\":1,\"scope\":2}}}}"),
    ] {
        let expected = TokenError::Malformed(Malformed::Claims(crate::identity::claims::ClaimsError::DuplicateName));
        assert_eq!(error(&hs256().rules(), &hs256().seal(&json!({"alg": "HS256"}), &twice)), Some(expected), "{twice}");
    }
    for payload in ["", "null", "[]", "\"a\"", "foo", &format!("{good}{good}"), &format!("\u{feff}{good}")] {
        let token = hs256().seal(&json!({"alg": "HS256"}), payload);
        assert!(
            matches!(error(&hs256().rules(), &token), Some(TokenError::Malformed(Malformed::Claims(_)))),
            "{payload}"
        );
    }
}

#[test]
fn an_ecdsa_signature_is_two_numbers_in_range() {
    // G17
    let es256 = signer(Algorithm::ES256);
    let token = es256.token(&good());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let (r, s) = bytes.split_at(32);
    let n = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad,
        0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let mut other_s = [0_u8; 32];
    let mut borrow = 0_i16;
    for at in (0..32).rev() {
        let difference = i16::from(n[at]) - i16::from(s[at]) - borrow;
        borrow = i16::from(difference < 0);
        other_s[at] = difference.rem_euclid(256).to_le_bytes()[0];
    }
    let der = {
        let integer = |number: &[u8]| [&[2, 33, 0][..], number].concat();
        [&[0x30, 70][..], &integer(r), &integer(s)].concat()
    };
    for (name, signature, accepted) in [
        ("as made", bytes.clone(), true),
        // Both halves of the curve are valid (RFC 7518 does not ask for low s); caches are keyed by the whole token.
        ("the other s", [r, &other_s].concat(), true),
        ("zeros", vec![0; 64], false),
        ("r = 0", [&[0; 32], s].concat(), false),
        ("s = 0", [r, &[0; 32]].concat(), false),
        ("r = n", [&n, s].concat(), false),
        ("s = n", [r, &n].concat(), false),
        ("DER", der, false),
        ("too long", [&bytes[..], &[0]].concat(), false),
        ("padded in front", [&[0], r, &[0], s].concat(), false),
        ("too short", bytes[..63].to_vec(), false),
    ] {
        let found = error(&es256.rules(), &format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)));
        assert_eq!(found, (!accepted).then_some(TokenError::BadSignature), "{name}");
    }
}

#[test]
fn size_and_depth_are_bounded() {
    // G18
    let token = |padding: usize| hs256().token(&with("pad", json!("x".repeat(padding))));
    let longest = (5900..6100).rev().map(token).find(|token| token.len() <= 8192).unwrap();
    assert_eq!((error(&hs256().rules(), &longest), longest.len() > 8188), (None, true));
    assert_eq!(error(&hs256().rules(), &token(6100)), Some(TokenError::TooLarge));
    let many: Vec<String> = (0..10_000).map(|n| format!("r{n}")).collect();
    assert_eq!(error(&hs256().rules(), &hs256().token(&with("roles", json!(many)))), Some(TokenError::TooLarge));
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    let deep = hs256().seal(&json!({"alg": "HS256"}), &deep);
    assert!(matches!(error(&hs256().rules(), &deep), Some(TokenError::Malformed(Malformed::Claims(_)))));
}

#[test]
fn a_clock_may_show_anything() {
    // G23
    let rules = IssuerRules { leeway: Duration::MAX, max_token_age: Some(Duration::MAX), ..hs256().rules() };
    let verifiers = [hs256().rules(), rules].map(|rules| Verifier::new(vec![rules]).unwrap());
    let token = hs256().token(&with("nbf", json!(NOW)));
    for (now, expected) in [
        (i64::MIN, Some(TokenError::NotYetValid)),
        (-1, Some(TokenError::NotYetValid)),
        ((NOW - 3600) * 1000, Some(TokenError::NotYetValid)),
        (NOW * 1000, None),
        ((NOW + 3600) * 1000, Some(TokenError::Expired)),
        (i64::MAX, Some(TokenError::Expired)),
    ] {
        for verifier in &verifiers {
            let found = verifier.verify(&token, Timestamp::from_millis(now)).err();
            assert!(found == expected || verifier.issuers[0].leeway == Duration::MAX, "{now}: {found:?}");
        }
    }
}

#[test]
fn an_identity_is_read_by_the_mapping_of_the_issuer() {
    let mut claims = good();
    claims["roles"] = json!(["editor"]);
    claims["scope"] = json!("items:read items:write");
    let identity = verify(&hs256().rules(), &hs256().token(&claims)).unwrap().identity(Transport::Bearer);
    assert_eq!(identity.issuer, IssuerName::new("main"));
    assert_eq!(identity.id, Fact::Known("ada".into()));
    assert_eq!(identity.roles, Fact::Known(vec!["editor".into()]));
    assert_eq!(identity.expires, Some(Timestamp::from_seconds(NOW + 600)));
    assert!(identity.counts_as_authenticated);
}

#[test]
fn a_supabase_user_is_one_and_the_public_key_of_the_project_is_not() {
    // From Supabase's documented test secret, which a policy may not use.
    const USER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwOi8vMTI3LjAuMC4xOjgwODAvYXV0aC92MSIsInN1YiI\
        6IjdiMWQ5YTUyLTZmMWUtNGMzYS05ZDJiLTBhNGY1ZTZjN2Q4MSIsImF1ZCI6ImF1dGhlbnRpY2F0ZWQiLCJleHAiOjQxMDI0NDQ4MDAsImlhdCI\
        6MTc2NzIyNTYwMCwiZW1haWwiOiJhZGFAZXhhbXBsZS5jb20iLCJwaG9uZSI6IiIsImFwcF9tZXRhZGF0YSI6eyJwcm92aWRlciI6ImVtYWlsIiw\
        icHJvdmlkZXJzIjpbImVtYWlsIl0sInJvbGVzIjpbImVkaXRvciJdfSwidXNlcl9tZXRhZGF0YSI6eyJyb2xlIjoiYWRtaW4ifSwicm9sZSI6ImF\
        1dGhlbnRpY2F0ZWQiLCJhYWwiOiJhYWwxIiwiYW1yIjpbeyJtZXRob2QiOiJwYXNzd29yZCIsInRpbWVzdGFtcCI6MTc2NzIyNTYwMH1dLCJzZXN\
        zaW9uX2lkIjoiMGQzZjJjMWItOGE3OS00ZTY1LWI0YzMtMmQxZTBmOWE4YjdjIiwiaXNfYW5vbnltb3VzIjpmYWxzZX0.PSfoiabcRGCbmFCbngW\
        keLHfF6ujyo6DfxdG4GQaTUo";
    const ANON: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJyb2xlIjoiYW5vbiIsImlzcyI6InN1cGFiYXNlLWRlbW8iLCJpYXQiOjE2\
        NDE3NjkyMDAsImV4cCI6NDEwMjQ0NDgwMH0.-LYBFfZwIWKLnf4EZqwRJPitKyGLuIWMnV0rj80l3Bw";
    let secret = b"super-secret-jwt-token-with-at-least-32-characters-long";
    let key = Raw::Secret(secret).key(Algorithm::HS256.into(), None).unwrap();
    let supabase = IssuerRules {
        issuer: ExpectedIssuer::Exact("http://127.0.0.1:8080/auth/v1".into()),
        audience: ExpectedAudience::OneOf(vec!["authenticated".into()]),
        mapping: ClaimMapping::supabase(),
        ..rules(key.into())
    };
    let identity = verify(&supabase, USER).unwrap().identity(Transport::Bearer);
    assert_eq!((identity.kind, identity.counts_as_authenticated), (Kind::User, true));
    assert_eq!(identity.roles, Fact::Known(vec!["editor".into()]));
    assert_eq!(identity.session, Fact::Known("0d3f2c1b-8a79-4e65-b4c3-2d1e0f9a8b7c".into()));
    assert_eq!(identity.auth_time, Fact::Known(Timestamp::from_seconds(1_767_225_600)));
    assert_eq!(error(&supabase, ANON), Some(TokenError::WrongIssuer));
    let self_hosted = IssuerRules { issuer: ExpectedIssuer::DangerAny, ..supabase };
    assert_eq!(error(&self_hosted, ANON), Some(TokenError::MissingClaim("aud")));
}

#[test]
fn several_secrets_verify_so_that_one_can_be_replaced() {
    let (old, new): (Vec<u8>, Vec<u8>) = ((0..32).collect(), (100..132).collect());
    let key = |secret: &[u8]| Key::from_secret(secret, Algorithm::HS256.into(), None).unwrap();
    let rules = rules(KeySet::new(vec![key(&new), key(&old)]).unwrap());
    for secret in [&old, &new] {
        let minter = Minter::from_secret(secret, Algorithm::HS256).unwrap();
        let claims: Map<String, Value> = good().as_object().unwrap().clone();
        let token = minter.mint(&claims, Some(&Kid::new("rotated")), Some("at+jwt")).unwrap();
        assert_eq!(error(&rules, &token), None);
    }
}

#[test]
fn a_published_set_verifies_and_its_broken_key_locks_nobody_out() {
    let es256 = signer(Algorithm::ES256);
    let spki = STANDARD.decode(es256.public_pem.as_deref().unwrap().lines().nth(1).unwrap()).unwrap();
    let (x, y) = spki[spki.len() - 64..].split_at(32);
    let set = json!({"keys": [
        {"kty": "oct", "kid": "a", "alg": "HS256", "k": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"},
        {"kty": "EC", "kid": "b", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)},
        {"kty": "EC", "kid": "c", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(x)},
    ]});
    let jwks = Jwks::parse(set.to_string().as_bytes(), Origin::Published, AlgorithmSet::EMPTY).unwrap();
    assert_eq!(jwks.ignored.len(), 2);
    let token = es256.seal(&json!({"alg": "ES256", "kid": "b"}), &good().to_string());
    assert_eq!(error(&rules(jwks.keys), &token), None);
}

#[test]
fn the_client_learns_when_to_renew_and_nothing_else() {
    assert_eq!(TokenError::Expired.description(), "the token is expired");
    assert_eq!(TokenError::NotYetValid.description(), "the token is not yet valid");
    for error in [TokenError::BadSignature, TokenError::UnknownKey, TokenError::WrongAudience, TokenError::TooLarge] {
        assert_eq!(error.description(), "the token is invalid");
    }
}
