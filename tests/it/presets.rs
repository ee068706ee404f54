//! Presets of identity providers, each with what its provider documents: `tests/oidc/presets/`.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis::clock::Timestamp;
use portcullis::identity::{Fact, Identity, Transport};
use portcullis::policy::set::{KeysAt, PolicySet};
use portcullis::provider::Discovery;
use portcullis::token::jwks::{Jwks, Origin};
use portcullis::token::verify::Verifier;
use serde_json::{Value, json};

use crate::harness::{NOW, compile};

/// The provider's key, and the set that it publishes.
struct Signer {
    key: KeyPair,
    jwks: Value,
}

impl Signer {
    fn new() -> Self {
        let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
        // PKCS #1 of 2048 bits: a sequence of two integers, the second 65537.
        let public = key.public_key().as_ref();
        let (n, e) = (&public[9..265], [1, 0, 1]);
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let jwks = json!({ "keys": [{ "kty": "RSA", "use": "sig", "kid": "k1", "n": encode(n), "e": encode(&e) }] });
        Self { key, jwks }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let mut header = header.clone();
        header["alg"] = "RS256".into();
        header["kid"] = "k1".into();
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        let random = aws_lc_rs::rand::SystemRandom::new();
        self.key.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn verifier(policy: &PolicySet, signer: &Signer) -> Verifier {
    let issuer = &policy.issuers[0];
    let algorithms = issuer.remote.as_ref().unwrap().algorithms;
    let jwks = Jwks::parse(signer.jwks.to_string().as_bytes(), Origin::Published, algorithms).unwrap();
    policy.verifier.with_published(&issuer.name, Some(&Arc::new(jwks.keys)), algorithms)
}

fn shown(identity: &Identity) -> String {
    let text = |fact: &Fact<Box<str>>| match fact {
        Fact::Known(text) => text.to_string(),
        _ => "-".to_owned(),
    };
    let list = |fact: &Fact<Vec<Box<str>>>| match fact {
        Fact::Known(names) => names.join(","),
        _ => String::new(),
    };
    let scopes = match &identity.scopes {
        Fact::Known(scopes) => scopes.iter().collect::<Vec<_>>().join(","),
        _ => String::new(),
    };
    format!(
        "id={} email={} roles={} scopes={scopes} permissions={} tenant={} session={}",
        text(&identity.id),
        text(&identity.email),
        list(&identity.roles),
        list(&identity.permissions),
        text(&identity.tenant),
        text(&identity.session),
    )
}

#[test]
fn each_preset_fits_what_its_provider_documents() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oidc/presets");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "json"));
    assert_eq!(files.len(), 9, "{files:?}");
    let signer = Signer::new();
    for file in files {
        let preset = file.file_stem().unwrap().to_string_lossy().into_owned();
        let case: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let text = |name: &str| case[name].as_str().unwrap_or_else(|| panic!("{preset}: no `{name}`"));
        let policy = compile(
            &format!(
                "version: 1\napp: api\nupstream: http://127.0.0.1:9\nidentity:\n  it: {}\nroutes:\n  GET /: authenticated\n",
                text("policy")
            ),
            &[],
        );

        // Where its keys are: at a place of its own, or where the document says, which must be good for this issuer.
        let keys = match &policy.issuers[0].remote.as_ref().unwrap().at {
            KeysAt::Url(url) => url.to_string(),
            KeysAt::Discovery(issuer) => {
                assert_eq!(**issuer, *text("issuer"), "{preset}");
                let found = Discovery::parse(issuer, case["discovery"].to_string().as_bytes()).unwrap();
                found.keys().unwrap().to_owned()
            }
        };
        assert_eq!(keys, text("keys"), "{preset}");
        if let Some(document) = case.get("discovery") {
            let found = Discovery::parse(text("issuer"), document.to_string().as_bytes())
                .unwrap_or_else(|error| panic!("{preset}: {error}"));
            let stated = |name: &str| document[name].as_str();
            assert_eq!(found.authorization_endpoint.as_deref(), stated("authorization_endpoint"), "{preset}");
            assert_eq!(found.token_endpoint.as_deref(), stated("token_endpoint"), "{preset}");
            assert_eq!(found.end_session_endpoint.as_deref(), stated("end_session_endpoint"), "{preset}");
        }

        let verifier = verifier(&policy, &signer);
        let verify = |changes: &Value| {
            let mut claims = case["claims"].clone();
            (claims["iat"], claims["exp"]) = (NOW.into(), (NOW + 3600).into());
            for (name, value) in changes.as_object().unwrap() {
                match value {
                    Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                    value => claims[name] = value.clone(),
                }
            }
            let token = signer.sign(&case["header"], &claims);
            verifier.verify(&token, Timestamp::from_seconds(NOW))
        };
        let token = verify(&json!({})).unwrap_or_else(|error| panic!("{preset}: {error}"));
        assert_eq!(shown(&token.identity(Transport::Bearer)), text("expect"), "{preset}");
        for changes in case["not"].as_array().unwrap() {
            assert!(verify(changes).is_err(), "{preset}: accepted with {changes}");
        }
    }
}
