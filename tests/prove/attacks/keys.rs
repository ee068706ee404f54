//! The keys of the corpus' tokens, made anew for each run, and the tokens: good ones and every forgery that a group
//! of the corpus describes.

use std::collections::BTreeMap;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use aws_lc_rs::{hmac, rand, rsa};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use portcullis::clock::Clock as _;
use portcullis::server::SystemClock;
use serde_json::json;

/// Who issues tokens, signed with RS256.
pub const ISSUER: &str = "https://issuer.test";
/// For whom.
pub const AUDIENCE: &str = "api";
/// A second issuer has this secret for HS256; only Portcullis knows it.
pub const SECRET: &str = "a-secret-of-the-attacks-with-more-than-32-bytes";

/// Keys and the tokens that are used all over.
pub struct Keys {
    rsa: RsaKeyPair,
    other: RsaKeyPair,
    ec: EcdsaKeyPair,
    der: Vec<u8>,
    /// The public key in PEM.
    pub pem: String,
    /// The public key as a JWKS.
    pub jwks: String,
    now: i64,
    good: BTreeMap<&'static str, String>,
}

/// A forged or odd token: what differs from a good one of an admin. All texts are JSON, so that what no encoder
/// writes can be said.
#[derive(Clone, Debug, Default)]
pub struct Forgery {
    pub header: Option<String>,
    /// Members to replace; `-` leaves one out.
    pub claims: BTreeMap<String, String>,
    /// Behind the last member.
    pub more: String,
    /// With which key: see `signature`.
    pub key: String,
    /// `{h}`, `{c}` and `{s}` stand for the three parts.
    pub form: String,
}

impl Keys {
    pub fn new() -> Self {
        let pair = || RsaKeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let (rsa, other) = (pair(), pair());
        let der = rsa.public_key().as_der().unwrap().as_ref().to_vec();
        let body = STANDARD.encode(&der);
        let lines: Vec<&str> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"));
        let modulus = URL_SAFE_NO_PAD.encode(modulus(&rsa));
        let key = json!({ "kty": "RSA", "kid": "k1", "alg": "RS256", "use": "sig", "n": modulus, "e": "AQAB" });
        let now = SystemClock.now().as_seconds();
        let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let mut keys =
            Self { rsa, other, ec, der, pem, jwks: json!({ "keys": [key] }).to_string(), now, good: BTreeMap::new() };
        for (name, sub, roles, scope) in [
            ("admin", "root", r#"["admin"]"#, "items:read items:write"),
            ("user", "ada", "[]", "x"),
            ("reader", "ada", "[]", "items:read"),
            ("writer", "ada", "[]", "items:write"),
        ] {
            let claims = [("sub", format!("{sub:?}")), ("roles", roles.to_owned()), ("scope", format!("{scope:?}"))];
            let claims = claims.map(|(name, value)| (name.to_owned(), value));
            let token = keys.token(&Forgery { claims: claims.into(), ..Forgery::default() });
            keys.good.insert(name, token);
        }
        keys
    }

    /// Replaces `{admin}`, `{user}`, `{reader}` and `{writer}` by tokens.
    pub fn fill(&self, text: &str) -> String {
        self.good.iter().fold(text.to_owned(), |text, (name, token)| text.replace(&format!("{{{name}}}"), token))
    }

    pub fn token(&self, forgery: &Forgery) -> String {
        let header = forgery.header.as_deref().unwrap_or(r#"{"alg":"RS256","typ":"JWT","kid":"k1"}"#);
        let mut claims: Vec<(String, String)> = [
            ("iss", format!("{ISSUER:?}")),
            ("aud", format!("{AUDIENCE:?}")),
            ("sub", r#""root""#.to_owned()),
            ("roles", r#"["admin"]"#.to_owned()),
            ("iat", self.now.to_string()),
            ("exp", (self.now + 7200).to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        for (name, value) in &forgery.claims {
            claims.retain(|(claim, _)| claim != name);
            if value != "-" {
                claims.push((name.clone(), self.times(value)));
            }
        }
        let members: Vec<String> = claims.iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
        let claims = format!("{{{}{}}}", members.join(","), self.times(&forgery.more));
        let encode = |text: &[u8]| URL_SAFE_NO_PAD.encode(text);
        let header = encode(self.times(header).as_bytes());
        let claims = encode(claims.as_bytes());
        let signature = encode(&self.signature(&forgery.key, format!("{header}.{claims}").as_bytes()));
        let form = if forgery.form.is_empty() { "{h}.{c}.{s}" } else { &forgery.form };
        form.replace("{h}", &header).replace("{c}", &claims).replace("{s}", &signature)
    }

    /// `{now}`, `{now+N}`, `{now-N}` and the public key in a text.
    fn times(&self, text: &str) -> String {
        let mut text = text.to_owned();
        while let Some(at) = text.find("{now") {
            let end = at + text[at..].find('}').unwrap();
            let shift: i64 = text[at + 4..end].parse().unwrap_or(0);
            text.replace_range(at..=end, &(self.now + shift).to_string());
        }
        text.replace("{attackers-n}", &URL_SAFE_NO_PAD.encode(modulus(&self.other)))
    }

    fn signature(&self, key: &str, signed: &[u8]) -> Vec<u8> {
        let with = |secret: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed).as_ref().to_vec();
        let rsa = |pair: &RsaKeyPair| {
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(&RSA_PKCS1_SHA256, &rand::SystemRandom::new(), signed, &mut signature).unwrap();
            signature
        };
        let pem = self.pem.as_bytes();
        let modulus = modulus(&self.rsa);
        match key {
            "" => rsa(&self.rsa),
            "another" => rsa(&self.other),
            "flipped" => {
                let mut signature = rsa(&self.rsa);
                signature[100] ^= 1;
                signature
            }
            "of other claims" => rsa(&self.rsa).into_iter().rev().collect(),
            "cut" => rsa(&self.rsa)[..255].to_vec(),
            "longer" => [rsa(&self.rsa), vec![0]].concat(),
            "nothing" => Vec::new(),
            "zeros" => vec![0; 256],
            "zeros of P-256" => vec![0; 64],
            "one byte" => vec![1],
            "the attacker's EC" => self.ec.sign(&rand::SystemRandom::new(), signed).unwrap().as_ref().to_vec(),
            "HMAC: PEM" => with(pem),
            "HMAC: PEM without its last newline" => with(pem.trim_ascii_end()),
            "HMAC: PEM and a newline more" => with(&[pem, b"\n"].concat()),
            "HMAC: a space and PEM" => with(&[b" ", pem].concat()),
            "HMAC: PEM with CRLF" => with(self.pem.replace('\n', "\r\n").as_bytes()),
            "HMAC: PEM's body" => {
                let body: String = self.pem.lines().filter(|line| !line.starts_with('-')).collect();
                with(body.as_bytes())
            }
            "HMAC: DER" => with(&self.der),
            "HMAC: PKCS#1" => with(self.rsa.public_key().as_ref()),
            "HMAC: JWKS" => with(self.jwks.as_bytes()),
            "HMAC: JWK" => {
                let jwks: serde_json::Value = serde_json::from_str(&self.jwks).unwrap();
                with(jwks["keys"][0].to_string().as_bytes())
            }
            "HMAC: modulus" => with(modulus),
            "HMAC: modulus in base64url" => with(URL_SAFE_NO_PAD.encode(modulus).as_bytes()),
            "HMAC: empty" => with(b""),
            "HMAC: the other issuer's secret" => with(SECRET.as_bytes()),
            secret => match secret.strip_prefix("HMAC: ") {
                Some(secret) => with(secret.as_bytes()),
                None => panic!("the corpus names an unknown key: {secret}"),
            },
        }
    }
}

/// The modulus of a key of 2,048 bits, out of its PKCS#1 form.
fn modulus(pair: &RsaKeyPair) -> &[u8] {
    &pair.public_key().as_ref()[9..265]
}
