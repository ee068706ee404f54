//! No token that was forged or changed is accepted.
//!
//! Each of the 12 algorithms has an issuer, whose tokens are judged twice: where it is the only one, and beside the
//! eleven others. Issuers of one kind of key share theirs, so that nothing but the policy's algorithm keeps their tokens
//! apart. A class of forgeries is built by one function, which also builds a control: the same without the forgery,
//! and accepted. What an issuer signed against the standard (two `exp`, an `iss` in an array) counts as forged, too.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaEncoding, RsaKeyPair};
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use portcullis::clock::Timestamp;
use portcullis::identity::IssuerName;
use portcullis::token::algorithm::{Algorithm, AlgorithmSet};
use portcullis::token::compact::Compact;
use portcullis::token::jwks::{Jwks, Origin};
use portcullis::token::key::{Key, Kid};
use portcullis::token::verify::{ExpectedAudience, ExpectedIssuer, IssuerRules, Verifier};
use serde_json::{Value, json};

use crate::crowd;
use crate::dice::{Dice, SEED};
use crate::run::Run;

const NOW: i64 = 1_767_225_600;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Names of members and their values in JSON, in the order in which they are written.
type Members = Vec<(String, String)>;

/// A way to forge: its control, and its forgeries.
type Class = fn(&Signer) -> (String, Vec<String>);

const CLASSES: [(&str, Class); 18] = [
    ("no algorithm", no_algorithm),
    ("algorithm of a wrong type", algorithm_of_a_wrong_type),
    ("another algorithm with the same key", another_algorithm),
    ("HMAC keyed by what is public", keyed_by_what_is_public),
    ("a key carried by the token", carried_keys),
    ("kid tricks", kids),
    ("critical members", critical_members),
    ("another type of token", types),
    ("names twice in the header", twice_in_the_header),
    ("names twice in the claims", twice_in_the_claims),
    ("broken signatures", broken_signatures),
    ("base64 that is not canonical", not_canonical),
    ("parts", parts),
    ("bytes around it", around),
    ("changed below an old signature", changed),
    ("claims against the standard", claims_against_the_standard),
    ("another key of the same type", another_key),
    ("signature of another token", signature_of_another),
];

pub fn run(run: &mut Run) {
    let signers = signers();
    let among = Verifier::new(signers.iter().map(Signer::rules).collect()).unwrap();
    let judges: Vec<Judge<'_>> = signers.iter().map(|signer| Judge::new(signer, &among)).collect();
    let mut forgeries = 0;
    let mut of_class: BTreeMap<&str, u64> = BTreeMap::new();
    crowd::work(
        run,
        "algorithms",
        judges.len() as u64,
        |number| forge(&judges[number as usize]),
        |run, forged| {
            let name = forged.algorithm.as_str();
            run.count(&format!("{name}_forgeries"), forged.distinct);
            run.check(forged.distinct >= 1_000, || format!("{name}: only {} distinct forgeries", forged.distinct));
            forged.broken.into_iter().for_each(|broken| run.fail(broken));
            forgeries += forged.distinct;
            for (class, count) in forged.of_class {
                *of_class.entry(class).or_default() += count;
            }
        },
    );
    of_class.into_iter().for_each(|(class, count)| run.count(class, count));
    let flipped = flips(run, &judges);
    run.count("forgeries", forgeries);
    run.count("flipped", flipped);
    run.measure("seed", SEED);
    let vectors = vectors(run);
    run.result(format!(
        "{} forgeries over 12 algorithms, {} flipped tokens{vectors}: {} accepted",
        thousands(forgeries),
        thousands(flipped),
        run.broken()
    ));
}

/// `1,234,567`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}

// === Keys, and who judges ===

enum Pair {
    Secret(Vec<u8>),
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Pair {
    fn secret() -> Self {
        let mut secret = vec![0; 64];
        rand::fill(&mut secret).unwrap();
        Self::Secret(secret)
    }

    fn ec(curve: &'static signature::EcdsaSigningAlgorithm) -> Self {
        Self::Ec(EcdsaKeyPair::generate(curve).unwrap())
    }

    /// None where such a key makes no such signature.
    fn sign(&self, algorithm: Algorithm, signed: &[u8]) -> Option<Vec<u8>> {
        let random = rand::SystemRandom::new();
        match self {
            Self::Secret(secret) => Some(tag(hash(algorithm)?, secret, signed)),
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding(algorithm)?, &random, signed, &mut signature).unwrap();
                Some(signature)
            }
            Self::Ec(pair) => Some(pair.sign(&random, signed).unwrap().as_ref().to_vec()),
            Self::Ed(pair) => Some(pair.sign(signed).as_ref().to_vec()),
        }
    }

    /// PKCS#1, a point, or 32 bytes.
    fn public(&self) -> &[u8] {
        match self {
            Self::Secret(_) => &[],
            Self::Rsa(pair) => pair.public_key().as_ref(),
            Self::Ec(pair) => pair.public_key().as_ref(),
            Self::Ed(pair) => pair.public_key().as_ref(),
        }
    }

    fn der(&self) -> Vec<u8> {
        match self {
            Self::Secret(_) => Vec::new(),
            Self::Rsa(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
            Self::Ec(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
        }
    }

    fn pem(&self) -> String {
        let body = STANDARD.encode(self.der());
        let lines: Vec<&str> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    /// As the gateway loads it.
    fn key(&self, algorithm: Algorithm) -> Key {
        let kid = Some(Kid::new("k1"));
        match self {
            Self::Secret(secret) => Key::from_secret(secret, algorithm.into(), kid).unwrap(),
            _ => Key::from_pem(&self.pem(), algorithm.into(), kid).unwrap(),
        }
    }

    fn jwk(&self, algorithm: Algorithm) -> String {
        self.key(algorithm).to_jwk().map_or_else(
            || json!({"kty": "oct", "k": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}).to_string(),
            |jwk| Value::Object(jwk).to_string(),
        )
    }
}

fn hash(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    match algorithm {
        Algorithm::HS256 => Some(hmac::HMAC_SHA256),
        Algorithm::HS384 => Some(hmac::HMAC_SHA384),
        Algorithm::HS512 => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

fn tag(hash: hmac::Algorithm, secret: &[u8], signed: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hash, secret), signed).as_ref().to_vec()
}

fn padding(algorithm: Algorithm) -> Option<&'static dyn RsaEncoding> {
    match algorithm {
        Algorithm::RS256 => Some(&signature::RSA_PKCS1_SHA256),
        Algorithm::RS384 => Some(&signature::RSA_PKCS1_SHA384),
        Algorithm::RS512 => Some(&signature::RSA_PKCS1_SHA512),
        Algorithm::PS256 => Some(&signature::RSA_PSS_SHA256),
        Algorithm::PS384 => Some(&signature::RSA_PSS_SHA384),
        Algorithm::PS512 => Some(&signature::RSA_PSS_SHA512),
        _ => None,
    }
}

/// An issuer: its algorithm, its key, and a forger's key of the same type.
struct Signer {
    algorithm: Algorithm,
    pair: Arc<Pair>,
    other: Arc<Pair>,
}

/// New keys for each run.
fn signers() -> Vec<Signer> {
    let two = |make: &dyn Fn() -> Pair| (Arc::new(make()), Arc::new(make()));
    let secrets = two(&Pair::secret);
    let rsa = two(&|| Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()));
    let p256 = two(&|| Pair::ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING));
    let p384 = two(&|| Pair::ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING));
    let ed = two(&|| Pair::Ed(Ed25519KeyPair::generate().unwrap()));
    let signer = |algorithm: Algorithm| {
        let (pair, other) = match algorithm {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => &secrets,
            Algorithm::ES256 => &p256,
            Algorithm::ES384 => &p384,
            Algorithm::EdDSA => &ed,
            _ => &rsa,
        };
        Signer { algorithm, pair: Arc::clone(pair), other: Arc::clone(other) }
    };
    Algorithm::ALL.into_iter().map(signer).collect()
}

impl Signer {
    fn issuer(&self) -> String {
        format!("https://{}.issuer.test", self.algorithm.as_str().to_lowercase())
    }

    fn rules(&self) -> IssuerRules {
        let issuer = ExpectedIssuer::Exact(self.issuer().into());
        let audience = ExpectedAudience::OneOf(vec!["api".into()]);
        IssuerRules::new(
            IssuerName::new(self.algorithm.as_str()),
            issuer,
            audience,
            self.pair.key(self.algorithm).into(),
        )
    }

    fn header(&self) -> Members {
        members(&[("alg", &quoted(self.algorithm.as_str())), ("typ", r#""JWT""#), ("kid", r#""k1""#)])
    }

    fn claims(&self, who: &str) -> Members {
        members(&[
            ("iss", &quoted(&self.issuer())),
            ("aud", r#""api""#),
            ("sub", &quoted(who)),
            ("roles", r#"["user"]"#),
            ("iat", &(NOW - 60).to_string()),
            ("exp", &(NOW + 600).to_string()),
        ])
    }

    fn sign(&self, signed: &str) -> Vec<u8> {
        self.pair.sign(self.algorithm, signed.as_bytes()).unwrap()
    }

    /// With a signature that is this.
    fn with(&self, header: &Members, who: &str, signature: impl FnOnce(&str) -> Vec<u8>) -> String {
        let signed = format!("{}.{}", encode(text(header)), encode(text(&self.claims(who))));
        format!("{signed}.{}", encode(signature(&signed)))
    }

    /// With its own signature.
    fn seal(&self, header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
        self.close(&encode(header), &encode(claims))
    }

    /// Signs what is encoded already.
    fn close(&self, header: &str, claims: &str) -> String {
        let signed = format!("{header}.{claims}");
        format!("{signed}.{}", encode(self.sign(&signed)))
    }

    fn token(&self, who: &str) -> String {
        self.seal(text(&self.header()), text(&self.claims(who)))
    }

    /// A good header with one member set, under its own signature.
    fn headed(&self, name: &str, value: &str) -> String {
        self.seal(text(&set(self.header(), name, value)), text(&self.claims("ada")))
    }

    /// Good claims with one set, under its own signature.
    fn claiming(&self, name: &str, value: &str) -> String {
        self.seal(text(&self.header()), text(&set(self.claims("ada"), name, value)))
    }
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

fn members(all: &[(&str, &str)]) -> Members {
    all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn text(members: &Members) -> String {
    let members: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

/// With this member, in place of the one of its name.
fn set(mut members: Members, name: &str, value: &str) -> Members {
    match members.iter_mut().find(|(own, _)| own == name) {
        Some(member) => value.clone_into(&mut member.1),
        None => members.push((name.to_owned(), value.to_owned())),
    }
    members
}

fn without(mut members: Members, name: &str) -> Members {
    members.retain(|(own, _)| own != name);
    members
}

/// Verifies as two gateways do.
struct Judge<'j> {
    signer: &'j Signer,
    alone: Verifier,
    among: &'j Verifier,
}

impl<'j> Judge<'j> {
    fn new(signer: &'j Signer, among: &'j Verifier) -> Self {
        Self { signer, alone: Verifier::new(vec![signer.rules()]).unwrap(), among }
    }

    fn verdicts(&self, token: &str) -> [bool; 2] {
        [&self.alone, self.among].map(|verifier| verifier.verify(token, Timestamp::from_seconds(NOW)).is_ok())
    }
}

/// What forging for one algorithm came to.
struct Forged {
    algorithm: Algorithm,
    distinct: u64,
    of_class: Vec<(&'static str, u64)>,
    broken: Vec<String>,
}

fn forge(judge: &Judge<'_>) -> Forged {
    let algorithm = judge.signer.algorithm;
    let mut forged = Forged { algorithm, distinct: 0, of_class: Vec::new(), broken: Vec::new() };
    let mut seen = HashSet::new();
    for (name, class) in CLASSES {
        let (control, tokens) = class(judge.signer);
        if judge.verdicts(&control) != [true; 2] {
            forged.broken.push(format!("{algorithm}, {name}: the control is refused: {control}"));
        }
        seen.insert(control);
        let mut count = 0;
        for token in tokens {
            if seen.contains(&token) {
                continue;
            }
            if judge.verdicts(&token) != [false; 2] {
                forged.broken.push(format!("{algorithm}, {name}: accepted: {token}"));
            }
            count += 1;
            seen.insert(token);
        }
        if count == 0 {
            forged.broken.push(format!("{algorithm}, {name}: nothing was forged"));
        }
        forged.distinct += count;
        forged.of_class.push((name, count));
    }
    forged
}

// === The classes ===

/// Names of no algorithm, as JSON.
const NONE: [&str; 22] = [
    "none",
    "None",
    "NONE",
    "nOnE",
    "NoNe",
    "noNe",
    "nONE",
    "none ",
    " none",
    "none\\u0000",
    "\\u006eone",
    "n\\u006Fne",
    "",
    " ",
    "null",
    "false",
    "0",
    "undefined",
    "NULL",
    "*",
    "any",
    "HS256,none",
];

fn no_algorithm(signer: &Signer) -> (String, Vec<String>) {
    let headed = |alg: &str| set(signer.header(), "alg", &quoted(alg));
    let own = |signed: &str| signer.sign(signed);
    let control = signer.with(&headed(signer.algorithm.as_str()), "ada", own);
    let old = control.rsplit_once('.').unwrap().1.to_owned();
    let mut forged = Vec::new();
    for alg in NONE {
        let header = headed(alg);
        forged.push(signer.with(&header, "ada", own));
        for who in ["ada", "root"] {
            forged.push(signer.with(&header, who, |_| Vec::new()));
            forged.push(signer.with(&header, who, |_| URL_SAFE_NO_PAD.decode(&old).unwrap()));
            forged.push(signer.with(&without(header.clone(), "kid"), who, |_| vec![0]));
        }
    }
    (control, forged)
}

fn algorithm_of_a_wrong_type(signer: &Signer) -> (String, Vec<String>) {
    let own = quoted(signer.algorithm.as_str());
    let mut headers: Vec<Members> = Vec::new();
    for value in [
        "null",
        "0",
        "256",
        "true",
        "false",
        "[]",
        "{}",
        "1e3",
        "-1",
        &format!("[{own}]"),
        &format!("[{own},\"none\"]"),
    ] {
        headers.push(set(signer.header(), "alg", value));
    }
    headers.push(set(signer.header(), "alg", &format!("{{\"alg\":{own}}}")));
    let rest = without(signer.header(), "alg");
    headers.push(rest.clone());
    for name in ["ALG", "Alg", "alg ", " alg", "alg\\u0000", "algorithm", "enc", "\\u0000alg", "a lg", "aIg"] {
        headers.push(set(rest.clone(), name, &own));
    }
    let mut forged = Vec::new();
    for header in headers {
        forged.push(signer.with(&header, "ada", |signed| signer.sign(signed)));
        forged.push(signer.with(&header, "root", |_| Vec::new()));
    }
    (signer.with(&set(rest, "\\u0061lg", &own), "ada", |signed| signer.sign(signed)), forged)
}

fn another_algorithm(signer: &Signer) -> (String, Vec<String>) {
    let own = signer.algorithm;
    let build = |name: &str, with: Algorithm, who: &str| {
        let header = set(signer.header(), "alg", &quoted(name));
        signer.with(&header, who, |signed| {
            signer.pair.sign(with, signed.as_bytes()).unwrap_or_else(|| signer.sign(signed))
        })
    };
    let mut forged = Vec::new();
    for other in Algorithm::ALL.into_iter().filter(|other| *other != own) {
        for who in ["ada", "root", "eve"] {
            forged.push(build(other.as_str(), other, who)); // named and signed so
            forged.push(build(other.as_str(), own, who));
            // signed so, and named as is expected: only where the key makes another signature
            let signs =
                hash(own).is_some() && hash(other).is_some() || padding(own).is_some() && padding(other).is_some();
            if signs {
                forged.push(build(own.as_str(), other, who));
            }
        }
    }
    let own_name = own.as_str();
    let spelt = [own_name.to_lowercase(), own_name.replace('S', "s"), format!("{own_name} "), format!(" {own_name}")];
    let foreign =
        ["ES512", "ES256K", "Ed448", "ESP256", "HS1", "RS1", "RSA", "RSA-OAEP", "dir", "A256KW", "MD5", "SHA256"];
    for name in spelt.iter().map(String::as_str).chain(foreign).filter(|name| *name != own_name) {
        forged.push(build(name, own, "ada"));
        forged.push(build(&format!("{name}\\u0000"), own, "ada"));
    }
    (build(own_name, own, "ada"), forged)
}

/// What everybody knows of a key, in all the forms in which a library may take it for a secret.
fn public_forms(signer: &Signer) -> Vec<Vec<u8>> {
    let (pair, jwk) = (&signer.pair, signer.pair.jwk(signer.algorithm));
    let issuer = signer.issuer();
    let mut forms: Vec<Vec<u8>> =
        ["", "\0", "secret", "k1", "api", "JWT", "null", "{}", "0", &issuer, signer.algorithm.as_str()]
            .iter()
            .map(|text| text.as_bytes().to_vec())
            .collect();
    if let Pair::Secret(_) = **pair {
        let guesses =
            ["password", "changeme", "your-256-bit-secret", "ada", "[object Object]", "undefined", "\u{feff}"];
        forms.extend(guesses.map(|guess| guess.as_bytes().to_vec()));
        forms.extend((1..=64).step_by(7).map(|length| vec![0x20; length]));
        return forms;
    }
    let (pem, der, public) = (pair.pem(), pair.der(), pair.public());
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let label = pem.replace("PUBLIC KEY", "RSA PUBLIC KEY");
    forms.extend(
        [
            pem.trim_end(),
            &format!("{pem}\n"),
            &pem.replace('\n', "\r\n"),
            &pem.replace('\n', ""),
            &pem.replace('\n', "\\n"),
        ]
        .map(|text| text.as_bytes().to_vec()),
    );
    forms.extend([pem.clone().into_bytes(), format!(" {pem}").into_bytes(), label.into_bytes(), body.into_bytes()]);
    forms.extend([format!("{{\"keys\":[{jwk}]}}").into_bytes(), jwk.clone().into_bytes()]);
    let jwk: Value = serde_json::from_str(&jwk).unwrap();
    for name in ["n", "e", "x", "y"] {
        if let Some(number) = jwk.get(name).and_then(Value::as_str) {
            forms.push(number.as_bytes().to_vec());
            forms.push(URL_SAFE_NO_PAD.decode(number).unwrap());
        }
    }
    forms.extend([encode(public).into_bytes(), encode(&der).into_bytes(), public.to_vec(), der]);
    forms
}

fn keyed_by_what_is_public(signer: &Signer) -> (String, Vec<String>) {
    let mut forged = Vec::new();
    for secret in public_forms(signer) {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            for name in [algorithm, signer.algorithm] {
                let header = set(signer.header(), "alg", &quoted(name.as_str()));
                let signature = |signed: &str| tag(hash(algorithm).unwrap(), &secret, signed.as_bytes());
                forged.push(signer.with(&header, "ada", signature));
                forged.push(signer.with(&without(header, "kid"), "root", signature));
            }
        }
    }
    (signer.with(&signer.header(), "ada", |signed| signer.sign(signed)), forged)
}

fn carried_keys(signer: &Signer) -> (String, Vec<String>) {
    let jwk = signer.other.jwk(signer.algorithm);
    let certificate = format!("[{}]", quoted(&STANDARD.encode(signer.other.der())));
    let set_of = format!("{{\"keys\":[{jwk}]}}");
    let url = |text: &str| quoted(&format!("https://{text}"));
    let carried = [
        ("jwk", jwk.clone()),
        ("jwks", set_of.clone()),
        ("keys", format!("[{jwk}]")),
        ("x5c", certificate.clone()),
        ("key", quoted(&encode(signer.other.der()))),
        ("jku", url("evil.test/jwks.json")),
        ("jku", url("issuer.test@evil.test/jwks.json")),
        ("jku", quoted("http://127.0.0.1/jwks.json")),
        ("jku", quoted("file:///dev/null")),
        ("jku", quoted("data:application/json,")),
        ("jwks_uri", url("evil.test/jwks.json")),
        ("iss", url("evil.test")),
        ("x5u", url("evil.test/cert.pem")),
        ("x5t", quoted("AAAAAAAAAAAAAAAAAAAAAAAAAAA")),
        ("x5t#S256", quoted("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")),
        ("epk", jwk.clone()),
    ];
    let mut forged = Vec::new();
    for (name, value) in &carried {
        let header = set(signer.header(), name, value);
        let strange = set(header.clone(), "kid", "\"theirs\"");
        for header in [header.clone(), without(header, "kid"), strange] {
            let theirs = |signed: &str| signer.other.sign(signer.algorithm, signed.as_bytes()).unwrap();
            forged.push(signer.with(&header, "ada", theirs));
            forged.push(signer.with(&header, "root", |_| Vec::new()));
        }
    }
    let header = carried.iter().fold(signer.header(), |header, (name, value)| set(header, name, value));
    (signer.with(&header, "ada", |signed| signer.sign(signed)), forged)
}

fn kids(signer: &Signer) -> (String, Vec<String>) {
    let long = "k".repeat(2_000);
    let names = [
        "",
        " ",
        "k",
        "k2",
        "K1",
        "k1 ",
        " k1",
        "k1\\u0000",
        "k1\\n",
        "../../dev/null",
        "/dev/null",
        "/proc/self/environ",
        "file:///dev/null",
        "https://evil.test/key",
        "k1' OR '1'='1",
        "x' UNION SELECT 'secret",
        "k1;id",
        "$(id)",
        "`id`",
        "|id",
        "*",
        "%",
        "%00",
        "%6b1",
        "..",
        "k1/../k1",
        "null",
        "undefined",
        "0",
        "__proto__",
        "constructor",
        "${jndi:ldap://x}",
        "\\u043a1",
        "\\uFEFFk1",
        &long,
    ];
    let mut forged = Vec::new();
    for value in names.map(quoted).iter().map(String::as_str).chain([
        "null",
        "1",
        "true",
        "[]",
        "[\"k1\"]",
        "{\"kid\":\"k1\"}",
        "1.5",
    ]) {
        let header = set(signer.header(), "kid", value);
        forged.push(signer.with(&header, "ada", |signed| signer.sign(signed)));
        forged.push(
            signer.with(&header, "ada", |signed| signer.other.sign(signer.algorithm, signed.as_bytes()).unwrap()),
        );
        for secret in [&b""[..], b"\0", b"secret"] {
            let header = set(header.clone(), "alg", "\"HS256\"");
            forged.push(signer.with(&header, "ada", |signed| tag(hmac::HMAC_SHA256, secret, signed.as_bytes())));
        }
    }
    (signer.headed("kid", "\"\\u006b1\""), forged)
}

fn critical_members(signer: &Signer) -> (String, Vec<String>) {
    let mut forged = Vec::new();
    let crit = [
        "[]",
        "[\"exp\"]",
        "[\"alg\"]",
        "[\"b64\"]",
        "[\"bork\"]",
        "[\"kid\"]",
        "[\"\"]",
        "\"exp\"",
        "null",
        "true",
        "1",
        "{}",
        "[1]",
        "[null]",
        "[\"exp\",\"exp\"]",
        "[[\"exp\"]]",
        "\"\"",
        "[\"crit\"]",
        "[\"http://example.invalid/UNDEFINED\"]",
    ];
    let all = crit.iter().map(|value| ("crit", *value));
    let all = all.chain(["false", "true", "null", "0", "\"false\""].map(|value| ("b64", value)));
    let all = all.chain(["\"DEF\"", "\"GZ\"", "\"\"", "null", "true", "\"none\""].map(|value| ("zip", value)));
    let nested = [
        "\"JWT\"",
        "\"jwt\"",
        "\"application/jwt\"",
        "\"Application/JWT\"",
        "\"\\u004aWT\"",
        "null",
        "1",
        "[\"JWT\"]",
        "{}",
    ];
    for (name, value) in all.chain(nested.map(|value| ("cty", value))) {
        forged.push(signer.headed(name, value));
        forged.push(signer.headed(&format!("\\u00{:02x}{}", name.as_bytes()[0], &name[1..]), value));
        forged.push(signer.seal(text(&set(set(signer.header(), name, value), "x", "1")), text(&signer.claims("root"))));
    }
    (signer.headed("criticism", "[\"exp\"]"), forged)
}

fn types(signer: &Signer) -> (String, Vec<String>) {
    let names = [
        "JWE",
        "JOSE",
        "JOSE+JSON",
        "id_token",
        "id+jwt",
        "logout+jwt",
        "dpop+jwt",
        "secevent+jwt",
        "entity-statement+jwt",
        "token-introspection+jwt",
        "kb+jwt",
        "vc+sd-jwt",
        "dc+sd-jwt",
        "rt+jwt",
        "oauth-authz-req+jwt",
        "client-authentication+jwt",
        "",
        " ",
        " JWT",
        "JWT ",
        "JWT\\u0000",
        "JW",
        "JWTT",
        "at+jw",
        "at jwt",
        "at+jwt;x=1",
        "application/",
        "application",
        "text/jwt",
        "application/application/jwt",
        "JWT,at+jwt",
        "jwt+jwt",
        "at%2Bjwt",
        "none",
    ];
    let mut forged = Vec::new();
    for value in names.map(quoted).iter().map(String::as_str).chain(["null", "1", "true", "[\"JWT\"]", "{}", "[]"]) {
        forged.push(signer.headed("typ", value));
        forged
            .push(signer.seal(text(&set(without(signer.header(), "kid"), "typ", value)), text(&signer.claims("root"))));
    }
    (signer.headed("typ", "\"application/at+JWT\""), forged)
}

/// Each of these once more, before and behind the others, also spelt with an escape.
fn doubled(good: &Members, more: &[(&str, &str)]) -> Vec<String> {
    let mut all = Vec::new();
    for (name, value) in more {
        let escaped = format!("\\u00{:02x}{}", name.as_bytes()[0], &name[1..]);
        for name in [(*name).to_owned(), escaped] {
            let member = (name, (*value).to_owned());
            all.push(text(&[std::slice::from_ref(&member), good.as_slice()].concat()));
            all.push(text(&[good.as_slice(), &[member]].concat()));
        }
    }
    all
}

fn twice_in_the_header(signer: &Signer) -> (String, Vec<String>) {
    let own = quoted(signer.algorithm.as_str());
    let more = [
        ("alg", own.as_str()),
        ("alg", "\"none\""),
        ("alg", "\"HS256\""),
        ("alg", "null"),
        ("kid", "\"k1\""),
        ("kid", "\"k2\""),
        ("kid", "null"),
        ("typ", "\"JWT\""),
        ("typ", "\"at+jwt\""),
        ("typ", "null"),
        ("x", "1"),
        ("x", "2"),
    ];
    let good = set(signer.header(), "x", "1");
    let mut forged: Vec<String> = Vec::new();
    for header in doubled(&good, &more) {
        forged.push(signer.seal(&header, text(&signer.claims("ada"))));
        forged.push(signer.seal(format!(" {header}"), text(&signer.claims("root"))));
    }
    let nested = set(signer.header(), "y", "{\"a\":1,\"a\":2}");
    let many = (0..40).fold(signer.header(), |header, number| set(header, &format!("m{number}"), "0"));
    forged.extend([nested, many].map(|header| signer.seal(text(&header), text(&signer.claims("ada")))));
    (signer.seal(text(&good), text(&signer.claims("ada"))), forged)
}

fn twice_in_the_claims(signer: &Signer) -> (String, Vec<String>) {
    let (issuer, later) = (quoted(&signer.issuer()), (NOW + 9_000).to_string());
    let more = [
        ("iss", issuer.as_str()),
        ("iss", "\"https://evil.test\""),
        ("aud", "\"api\""),
        ("aud", "[]"),
        ("sub", "\"root\""),
        ("sub", "\"ada\""),
        ("roles", "[\"admin\"]"),
        ("exp", later.as_str()),
        ("exp", "1"),
        ("exp", "null"),
        ("iat", "1"),
        ("x", "1"),
    ];
    let good = set(signer.claims("ada"), "x", "1");
    let mut forged: Vec<String> = Vec::new();
    for claims in doubled(&good, &more) {
        forged.push(signer.seal(text(&signer.header()), &claims));
        forged.push(signer.seal(text(&without(signer.header(), "kid")), format!("{claims} ")));
    }
    for nested in ["{\"a\":1,\"a\":1}", "[{\"a\":1,\"\\u0061\":2}]", "{\"a\":{\"b\":0,\"b\":0}}"] {
        forged.push(signer.claiming("x", nested));
    }
    (signer.seal(text(&signer.header()), text(&good)), forged)
}

/// The order of the group of an elliptic curve, big-endian.
fn order(algorithm: Algorithm) -> Option<Vec<u8>> {
    let hex = match algorithm {
        Algorithm::ES256 => "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
        Algorithm::ES384 => {
            "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973"
        }
        Algorithm::EdDSA => "1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed",
        _ => return None,
    };
    Some((0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect())
}

/// The sum of two numbers of one length; none where it is longer.
fn sum(a: &[u8], b: &[u8]) -> Option<Vec<u8>> {
    let mut carry = 0;
    let mut sum: Vec<u8> = Vec::new();
    for (a, b) in a.iter().rev().zip(b.iter().rev()) {
        carry += u16::from(*a) + u16::from(*b);
        sum.push(carry as u8);
        carry >>= 8;
    }
    sum.reverse();
    (carry == 0).then_some(sum)
}

/// ECDSA as X.509 has it.
fn in_der(halves: &[&[u8]]) -> Vec<u8> {
    let mut body = Vec::new();
    for half in halves {
        let number: Vec<u8> = half.iter().copied().skip_while(|byte| *byte == 0).collect();
        let sign = usize::from(number.first().is_none_or(|first| *first >= 0x80));
        body.extend([2, (number.len() + sign) as u8]);
        body.extend(vec![0; sign]);
        body.extend(number);
    }
    [vec![0x30, body.len() as u8], body].concat()
}

fn broken_signatures(signer: &Signer) -> (String, Vec<String>) {
    let control = signer.token("ada");
    let (signed, signature) = control.rsplit_once('.').unwrap();
    let good = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let (length, half) = (good.len(), good.len() / 2);
    let (first, second) = good.split_at(half);
    let mut all: Vec<Vec<u8>> = (0..length).map(|end| good[..end].to_vec()).collect();
    all.extend((1..length.min(64)).map(|start| good[start..].to_vec()));
    for more in 1..=8 {
        all.extend([0, 1, 255].map(|byte| [good.clone(), vec![byte; more]].concat()));
        all.push([vec![0; more], good.clone()].concat());
    }
    for byte in [0, 1, 2, 0x7f, 0x80, 0xff] {
        all.extend([length, length - 1, length + 1, half, 32, 64, 96, 256].map(|length| vec![byte; length]));
        let filled = vec![byte; half];
        all.extend([[first, &filled].concat(), [&filled, second].concat()]);
    }
    all.push([first, first].concat());
    all.push([second, second].concat());
    all.push([second, first].concat());
    all.push(good.iter().rev().copied().collect());
    all.push(good.iter().map(|byte| !byte).collect());
    all.push([good.clone(), good.clone()].concat());
    all.push(signature.as_bytes().to_vec()); // encoded twice
    all.push(STANDARD.encode(&good).into_bytes());
    all.push(in_der(&[first, second]));
    all.push(in_der(&[&[], &[]]));
    if let Some(order) = order(signer.algorithm) {
        let zero = vec![0; half];
        let mut one = zero.clone();
        one[half - 1] = 1;
        for number in [order.as_slice(), &zero, &one] {
            for number in [number.to_vec(), number.iter().rev().copied().collect()] {
                all.extend([[&number, second].concat(), [first, &number].concat(), [&number[..], &number].concat()]);
                all.extend([
                    [&number, &zero[..]].concat(),
                    [&zero[..], &number].concat(),
                    [&number, &one[..]].concat(),
                ]);
            }
        }
        let reversed = |bytes: &[u8]| -> Vec<u8> { bytes.iter().rev().copied().collect() };
        if signer.algorithm == Algorithm::EdDSA {
            let larger = sum(&reversed(second), &order).unwrap(); // the same point: it would be a second spelling
            all.push([first, &reversed(&larger)].concat());
        } else {
            all.extend(sum(first, &order).map(|larger| [&larger, second].concat()));
            all.extend(sum(second, &order).map(|larger| [first, &larger].concat()));
        }
    }
    if let Pair::Rsa(_) = *signer.pair {
        let modulus = &signer.pair.public()[9..265];
        all.push(modulus.to_vec());
        all.extend(sum(&good, modulus)); // the same number to the modulus
    }
    (control.clone(), all.iter().map(|signature| format!("{signed}.{}", encode(signature))).collect())
}

/// Spellings of the same bytes whose unused bits are not zero.
fn with_unused_bits(part: &str) -> Vec<String> {
    let unused = match part.len() % 4 {
        2 => 16,
        3 => 4,
        _ => return Vec::new(),
    };
    let (rest, last) = part.split_at(part.len() - 1);
    let value = ALPHABET.iter().position(|byte| *byte == last.as_bytes()[0]).unwrap();
    (1..unused).map(|bits| format!("{rest}{}", char::from(ALPHABET[value | bits]))).collect()
}

/// What belongs in no token.
const STRANGE: [&str; 24] = [
    "=", "==", "===", " ", "\t", "\n", "\r\n", "+", "/", "%", "%2E", "~", ",", ":", "\0", "\u{e9}", "\u{200b}", "*",
    "!", "\\", "\"", "\u{feff}", "\u{ff21}", "\u{7f}",
];

fn not_canonical(signer: &Signer) -> (String, Vec<String>) {
    let control = signer.token("ada");
    let mut forged = Vec::new();
    for spaces in ["", " ", "  "] {
        let [header, claims] = [signer.header(), signer.claims("ada")].map(|part| encode(text(&part) + spaces));
        let token = signer.close(&header, &claims);
        let parts: [String; 3] = [header, claims, token.rsplit_once('.').unwrap().1.to_owned()];
        for at in 0..3 {
            for spelling in with_unused_bits(&parts[at]) {
                let mut changed = parts.clone();
                changed[at] = spelling;
                forged.push(changed.join("."));
                if at < 2 {
                    forged.push(signer.close(&changed[0], &changed[1]));
                }
            }
        }
    }
    let parts: Vec<&str> = control.split('.').collect();
    for at in 0..3 {
        for strange in STRANGE {
            for place in [0, 1, parts[at].len() / 2, parts[at].len()] {
                let mut changed: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
                changed[at].insert_str(place, strange);
                forged.push(changed.join("."));
                if at < 2 {
                    forged.push(signer.close(&changed[0], &changed[1]));
                }
            }
        }
    }
    (control, forged)
}

fn parts(signer: &Signer) -> (String, Vec<String>) {
    let forms = [
        "",
        ".",
        "..",
        "...",
        "h",
        "h.",
        "h.c",
        "h.c.",
        "h..g",
        ".c.g",
        "h..",
        ".c.",
        "..g",
        "h.c.g.",
        ".h.c.g",
        "h..c.g",
        "h.c..g",
        "h.c.g.g",
        "h.c.g.c",
        "h.c.g.c.g",
        "h.c.g.h.c.g",
        "h.h.c.g",
        "c.h.g",
        "g.c.h",
        "h.g.c",
        "c.g.h",
        "hc.g",
        "h.cg",
        "h.h.g",
        "c.c.g",
        "h.c.c",
        "h.c.h",
        "h-c-g",
        "h,c,g",
        "h c g",
        "h.c.g~",
        "h.c.g.h",
        "h.c.g,h.c.g",
        "hcg",
        "h....g",
        r#"{"payload":"c","protected":"h","signature":"g"}"#,
        r#"{"payload":"c","signatures":[{"protected":"h","signature":"g"}]}"#,
    ];
    let mut forged = Vec::new();
    let fill = |form: &str, who: &str| -> String {
        let token = signer.token(who);
        let parts: Vec<&str> = token.split('.').collect();
        // Only letters that stand alone are parts, not those within words.
        let bytes = form.as_bytes();
        let is_letter = |at: Option<&u8>| at.is_some_and(u8::is_ascii_alphabetic);
        let json = form.starts_with('{');
        form.char_indices()
            .map(|(at, character)| {
                let alone = !(json && (is_letter(bytes.get(at + 1)) || at > 0 && is_letter(bytes.get(at - 1))));
                match character {
                    'h' if alone => parts[0].to_owned(),
                    'c' if alone => parts[1].to_owned(),
                    'g' if alone => parts[2].to_owned(),
                    other => other.to_string(),
                }
            })
            .collect()
    };
    for who in ["ada", "root", "eve"] {
        forged.extend(forms.iter().map(|form| fill(form, who)));
    }
    (fill("h.c.g", "ada"), forged)
}

fn around(signer: &Signer) -> (String, Vec<String>) {
    let token = signer.token("ada");
    let mut forged = Vec::new();
    for strange in
        STRANGE.iter().chain(&["Bearer ", "bearer:", "A", "AA", "AAAA", "-", "_", ".", "0", "token=", "'", "`", ";"])
    {
        forged.extend([format!("{strange}{token}"), format!("{token}{strange}"), format!("{strange}{token}{strange}")]);
    }
    (token, forged)
}

fn changed(signer: &Signer) -> (String, Vec<String>) {
    let control = signer.token("ada");
    let signature = URL_SAFE_NO_PAD.decode(control.rsplit_once('.').unwrap().1).unwrap();
    let build = |header: &Members, claims: &Members| {
        format!("{}.{}.{}", encode(text(header)), encode(text(claims)), encode(&signature))
    };
    let claims = [
        ("sub", "\"root\""),
        ("sub", "\"Ada\""),
        ("sub", "\"ada \""),
        ("sub", "null"),
        ("roles", "[\"admin\"]"),
        ("roles", "[]"),
        ("roles", "\"admin\""),
        ("exp", "1767226201"),
        ("exp", "9000000000"),
        ("iat", "1767225599"),
        ("nbf", "1"),
        ("scope", "\"*\""),
        ("admin", "true"),
        ("jti", "\"1\""),
        ("aud", "[\"api\"]"),
        ("aud", "[\"api\",\"b\"]"),
        ("tenant", "\"b\""),
        ("email", "\"a@b.c\""),
    ];
    let headers = [
        ("typ", "\"jwt\""),
        ("typ", "\"at+jwt\""),
        ("x", "1"),
        ("kid", "\"\\u006b1\""),
        ("jku", "\"https://evil.test\""),
    ];
    let mut forged = Vec::new();
    for (name, value) in claims {
        forged.push(build(&signer.header(), &set(signer.claims("ada"), name, value)));
        forged.push(build(&signer.header(), &set(signer.claims("root"), name, value)));
    }
    for name in ["sub", "roles", "iat"] {
        forged.push(build(&signer.header(), &without(signer.claims("ada"), name)));
    }
    for (name, value) in headers {
        forged.push(build(&set(signer.header(), name, value), &signer.claims("ada")));
    }
    for name in ["typ", "kid"] {
        forged.push(build(&without(signer.header(), name), &signer.claims("ada")));
    }
    (build(&signer.header(), &signer.claims("ada")).clone(), forged)
}

/// Values that are no time, or that no sound token has.
const NO_TIMES: [&str; 18] = [
    "null",
    "true",
    "false",
    "[]",
    "{}",
    "\"\"",
    "\"1767226200\"",
    "\"never\"",
    "[1767226200]",
    "-1",
    "-1e300",
    "9007199254740992",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "1e20",
    "1e400",
    "NaN",
];

fn claims_against_the_standard(signer: &Signer) -> (String, Vec<String>) {
    let issuer = signer.issuer();
    let mut forged = Vec::new();
    for value in NO_TIMES {
        forged.extend(["exp", "nbf", "iat"].map(|name| signer.claiming(name, value)));
    }
    let past = [0, 1, NOW - 3_600, NOW - 31, NOW - 30];
    forged.extend(past.map(|time| signer.claiming("exp", &time.to_string())));
    for time in [NOW + 31, NOW + 3_600, 9_000_000_000] {
        forged.extend(["nbf", "iat"].map(|name| signer.claiming(name, &time.to_string())));
    }
    let own = quoted(&issuer);
    let issuers = [
        "null",
        "true",
        "1",
        "[]",
        "{}",
        "\"\"",
        &format!("[{own}]"),
        &format!("{{\"iss\":{own}}}"),
        &quoted(&format!("{issuer}/")),
        &quoted(&issuer.to_uppercase()),
        &quoted(&format!(" {issuer}")),
        &quoted(&format!("{issuer} ")),
        &quoted(&format!("{issuer}\\u0000")),
        &quoted(&issuer[..issuer.len() - 1]),
        &quoted(&issuer.replace("https", "http")),
        &quoted(&format!("{issuer}.evil.test")),
        "\"https://evil.test\"",
    ];
    forged.extend(issuers.map(|value| signer.claiming("iss", value)));
    for other in Algorithm::ALL.into_iter().filter(|other| *other != signer.algorithm) {
        forged.push(signer.claiming("iss", &quoted(&format!("https://{}.issuer.test", other.as_str().to_lowercase()))));
    }
    let audiences = [
        "null",
        "true",
        "1",
        "[]",
        "{}",
        "\"\"",
        "[1]",
        "[null]",
        "[\"api\",1]",
        "[\"api\",null]",
        "[[\"api\"]]",
        "{\"api\":1}",
        "\"API\"",
        "\"api \"",
        "\" api\"",
        "\"ap\"",
        "\"apis\"",
        "\"api\\u0000\"",
        "\"*\"",
        "\"a,api\"",
        "\"a api\"",
        "[\"b\"]",
        "[\"API\"]",
    ];
    forged.extend(audiences.map(|value| signer.claiming("aud", value)));
    for name in ["iss", "aud", "exp"] {
        let rest = without(signer.claims("ada"), name);
        let value = signer.claims("ada").into_iter().find(|(own, _)| own == name).unwrap().1;
        forged.push(signer.seal(text(&signer.header()), text(&rest)));
        for other in [name.to_uppercase(), format!("{name} "), format!(" {name}"), format!("{name}\\u0000")] {
            forged.push(signer.seal(text(&signer.header()), text(&set(rest.clone(), &other, &value))));
        }
    }
    let good = text(&signer.claims("ada"));
    let deep = format!("{{\"x\":{}1{},{}", "[".repeat(200), "]".repeat(200), &good[1..]);
    for payload in [
        "",
        " ",
        "{}",
        "[]",
        "null",
        "true",
        "1",
        "\"x\"",
        "{",
        &format!("\u{feff}{good}"),
        &format!("{good}{good}"),
        &format!("[{good}]"),
        &format!("{good},"),
        &format!("{good}\0"),
        &format!("{good}//"),
        &format!("/**/{good}"),
        &good.replace('"', "'"),
        &good.replace('}', ",}"),
        &good[..good.len() - 1],
        &quoted(&good.replace('"', "\\\"")),
        &deep,
    ] {
        forged.push(signer.seal(text(&signer.header()), payload));
    }
    let invalid = [&good.as_bytes()[..good.len() - 1], b",\"x\":\"\xff\"}"].concat();
    forged.push(signer.seal(text(&signer.header()), invalid));
    (signer.claiming("nbf", &(NOW + 30).to_string()), forged)
}

fn another_key(signer: &Signer) -> (String, Vec<String>) {
    let build = |pair: &Pair, header: &Members, who: &str| {
        signer.with(header, who, |signed| pair.sign(signer.algorithm, signed.as_bytes()).unwrap())
    };
    let mut forged = Vec::new();
    for who in (0..20).map(|number| format!("user{number}")) {
        forged.push(build(&signer.other, &signer.header(), &who));
        forged.push(build(&signer.other, &without(signer.header(), "kid"), &who));
    }
    (build(&signer.pair, &signer.header(), "ada"), forged)
}

fn signature_of_another(signer: &Signer) -> (String, Vec<String>) {
    let tokens: Vec<String> = (0..12).map(|number| signer.token(&format!("user{number}"))).collect();
    let build = |token: &str, other: &str| {
        format!("{}.{}", token.rsplit_once('.').unwrap().0, other.rsplit_once('.').unwrap().1)
    };
    let mut forged = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        forged
            .extend(tokens.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, other)| build(token, other)));
    }
    (build(&tokens[0], &tokens[0]), forged)
}

// === Flipped bits ===

/// Flips bits of a token, or of what its parts encode. None where that is no text, which no header field can be.
fn flip(token: &str, encoded: bool, bits: &[usize]) -> Option<String> {
    let turn = |bytes: &mut [u8], base: usize| {
        for bit in bits {
            if let Some(byte) = (bit / 8).checked_sub(base).and_then(|at| bytes.get_mut(at)) {
                *byte ^= 1 << (bit % 8);
            }
        }
    };
    if encoded {
        let mut bytes = token.as_bytes().to_vec();
        turn(&mut bytes, 0);
        return String::from_utf8(bytes).ok();
    }
    let mut base = 0;
    let mut parts = Vec::new();
    for part in token.split('.') {
        let mut bytes = URL_SAFE_NO_PAD.decode(part).unwrap();
        turn(&mut bytes, base);
        base += bytes.len();
        parts.push(encode(bytes));
    }
    Some(parts.join("."))
}

fn bits_of(token: &str, encoded: bool) -> usize {
    let decoded = || token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap().len()).sum();
    8 * if encoded { token.len() } else { decoded() }
}

/// Every bit, then 1 to 4 random ones; returns how many flipped tokens there were.
fn flips(run: &mut Run, judges: &[Judge<'_>]) -> u64 {
    let tokens: Vec<String> = judges.iter().map(|judge| judge.signer.token("ada")).collect();
    // A part is one algorithm and a share of its tokens; the first of them also flips every single bit.
    let (shares, each) = (run.of(2, 100), run.of(500, 8_400));
    let mut all = 0;
    let mut of_algorithm: BTreeMap<&str, u64> = BTreeMap::new();
    let part = |number: u64| {
        let at = number as usize % judges.len();
        let (judge, token) = (&judges[at], &tokens[at]);
        let mut dice = Dice::of(number);
        let mut broken = Vec::new();
        let mut count = 0_u64;
        let mut judged = |encoded: bool, bits: &[usize]| {
            count += 1;
            if let Some(flipped) = flip(token, encoded, bits)
                && judge.verdicts(&flipped) != [false; 2]
            {
                broken.push(format!("{}: accepted with bits {bits:?} flipped: {flipped}", judge.signer.algorithm));
            }
        };
        if (number as usize) < judges.len() {
            if judge.verdicts(token) != [true; 2] {
                panic!("the token to be flipped is refused");
            }
            for encoded in [true, false] {
                (0..bits_of(token, encoded)).for_each(|bit| judged(encoded, &[bit]));
            }
        }
        for _ in 0..each {
            let encoded = dice.one_in(4); // most of these are no token: the others reach the signature
            let (wanted, size) = (1 + dice.below(4), bits_of(token, encoded));
            let mut bits: Vec<usize> = Vec::new();
            while bits.len() < wanted {
                let bit = dice.below(size);
                if !bits.contains(&bit) {
                    bits.push(bit);
                }
            }
            judged(encoded, &bits);
        }
        (judge.signer.algorithm.as_str(), count, broken)
    };
    crowd::work(run, "flipped tokens", shares * judges.len() as u64, part, |run, (name, count, broken)| {
        all += count;
        *of_algorithm.entry(name).or_default() += count;
        broken.into_iter().for_each(|broken| run.fail(broken));
    });
    of_algorithm.into_iter().for_each(|(name, count)| run.count(&format!("{name}_flipped"), count));
    all
}

// === Public vectors ===

/// The invalid signatures of Wycheproof, where they lie beside the project; returns what is said of them.
fn vectors(run: &mut Run) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors/wycheproof/json_web_signature_test.json");
    let Ok(text) = std::fs::read_to_string(file) else {
        run.skip("the invalid signatures of Wycheproof: ../shared/vectors/wycheproof is missing");
        return String::new();
    };
    let document: Value = serde_json::from_str(&text).unwrap();
    let groups = document["testGroups"].as_array().unwrap();
    let tests = |group: &Value| group["tests"].as_array().unwrap().clone();
    let is_valid = |test: &Value| test["result"] == "valid";
    let valid: HashSet<String> =
        groups.iter().flat_map(tests).filter(is_valid).map(|test| test["jws"].to_string()).collect();
    let mut count = 0;
    for group in groups {
        let key = group.get("public").or_else(|| group.get("private")).unwrap().to_string();
        let keys = Jwks::parse(key.as_bytes(), Origin::Local, AlgorithmSet::EMPTY);
        // Two of them are byte for byte a valid one.
        for test in tests(group).iter().filter(|test| !is_valid(test) && !valid.contains(&test["jws"].to_string())) {
            let token = test["jws"].as_str().map_or_else(|| test["jws"].to_string(), str::to_owned);
            let accepted = keys.as_ref().is_ok_and(|jwks| {
                Compact::parse(&token).is_ok_and(|token| {
                    jwks.keys.verify(&token, jwks.keys.algorithms()).is_ok() && token.payload().is_ok()
                })
            });
            count += 1;
            run.check(!accepted, || format!("Wycheproof {} is accepted", test["tcId"]));
        }
    }
    run.count("wycheproof", count);
    format!(", {count} of Wycheproof")
}
