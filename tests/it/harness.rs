//! The running gateway of a test: the real thing on port 0, with a recording upstream behind it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis::clock::{ManualClock, Timestamp};
use portcullis::diagnostic::FileId;
use portcullis::live::Live;
use portcullis::policy;
use portcullis::policy::references::References;
use portcullis::policy::set::{PolicySet, Revision};
use portcullis::policy::{Options, check};
use portcullis::proxy::Certificate;
use portcullis::random::SeededRandom;
use portcullis::secret::Secret;
use portcullis::server::{Gateway, Listening, Parts, Stopper};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use crate::client::{Answer, Client, once};
use crate::upstream::Upstream;

/// The secret that the policies' tokens are signed with.
pub const SECRET: &str = "a-secret-of-the-tests-with-more-than-32-bytes";
/// Keys of a Supabase project.
pub const PUBLISHABLE_KEY: &str = "sb_publishable_0123456789abcdefghijkl_87654321";
pub const SECRET_KEY: &str = "sb_secret_canaryGHIJKLMNOPQRSTUV_12345678";
/// What the tests' clock shows at first.
pub const NOW: i64 = 1_800_000_000;

/// An issuer for tokens of [`Token`].
pub const IDENTITY: &str =
    "identity:\n  tests: { preset: jwt, secret: env:SECRET, issuer: https://issuer.test, audience: api }\n";

pub struct Harness {
    /// The plain listener.
    pub address: SocketAddr,
    /// The TLS listener, with a certificate for `localhost`.
    pub tls: SocketAddr,
    pub certificate: CertificateDer<'static>,
    pub upstream: Upstream,
    pub clock: Arc<ManualClock>,
    pub policy: Arc<Live<PolicySet>>,
    stopper: Stopper,
    running: Option<tokio::task::JoinHandle<std::io::Result<()>>>,
}

impl Harness {
    /// With a policy of one file, in which `UPSTREAM` stands for the upstream's address.
    pub async fn start(policy: &str) -> Self {
        Self::with(policy, Upstream::start().await, |_| {}).await
    }

    pub async fn with(policy: &str, upstream: Upstream, change: impl FnOnce(&mut Parts)) -> Self {
        let policy = policy.replace("UPSTREAM", &upstream.address.to_string());
        Self::running(compile(&policy, &[]), upstream, change).await
    }

    /// With files that the policy refers to.
    pub async fn with_files(policy: &str, upstream: Upstream, files: &[(&str, &[u8])]) -> Self {
        Self::running(compile(policy, files), upstream, |_| {}).await
    }

    async fn running(policy: PolicySet, upstream: Upstream, change: impl FnOnce(&mut Parts)) -> Self {
        let live = Arc::new(Live::new(policy));
        let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(NOW)));
        let (pem, key, certificate) = certificate("localhost");
        let mut parts = Parts::new(Arc::clone(&live));
        parts.clock = clock.clone();
        parts.random = Arc::new(SeededRandom::new(7));
        parts.listeners.push(Listening {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            certificate: Some(Certificate::from_pem(pem.as_bytes(), key.as_bytes()).unwrap()),
        });
        change(&mut parts);
        let gateway = Gateway::build(parts).unwrap();
        let addresses = gateway.addresses();
        let stopper = gateway.stopper();
        let running = Some(tokio::spawn(gateway.run()));
        let (address, tls) = (addresses[0], addresses[1]);
        Self { address, tls, certificate, upstream, clock, policy: live, stopper, running }
    }

    /// Replaces the policy, as a reload does.
    pub fn reload(&self, policy: &str) {
        let policy = policy.replace("UPSTREAM", &self.upstream.address.to_string());
        self.policy.publish(compile(&policy, &[]));
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// Sends raw bytes on a connection of their own.
    pub async fn raw(&self, request: impl AsRef<[u8]>) -> Option<Answer> {
        once(self.address, request).await
    }

    /// Sends a GET with these extra header lines (each with its line end).
    pub async fn get(&self, target: &str, lines: &str) -> Answer {
        self.raw(get(target, lines)).await.expect("an answer")
    }

    /// Stops and waits for the end.
    pub async fn stop(&mut self, grace: Duration) {
        self.stopper.stop(grace);
        self.running.take().unwrap().await.unwrap().unwrap();
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.stopper.stop(Duration::ZERO);
    }
}

/// A GET request for `api.test`.
pub fn get(target: &str, lines: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: api.test\r\n{lines}\r\n")
}

/// A policy of one file, compiled.
pub fn compile(policy: &str, files: &[(&str, &[u8])]) -> PolicySet {
    try_compile(policy, files).unwrap_or_else(|error| panic!("{error}\n{policy}"))
}

/// What is wrong with a policy, if anything.
pub fn compile_error(policy: &str) -> Option<String> {
    let policy = policy.replace("UPSTREAM", "127.0.0.1:9");
    try_compile(&policy, &[]).err()
}

fn try_compile(policy: &str, contents: &[(&str, &[u8])]) -> Result<PolicySet, String> {
    let files = [("test.yaml".to_owned(), policy.as_bytes().to_vec())];
    let (sources, document, diagnostics) = policy::read_bytes(&files);
    let (checked, found) = check(document, &sources, &Options::default());
    let Some(checked) = checked else {
        let errors = diagnostics.iter().chain(&found).filter(|found| found.is_error());
        return Err(errors.map(|found| format!("{} {}", found.code, found.message)).collect::<Vec<_>>().join("\n"));
    };
    let environment = [("SECRET", SECRET), ("PUBLISHABLE_KEY", PUBLISHABLE_KEY), ("SECRET_KEY", SECRET_KEY)];
    let references = environment
        .into_iter()
        .fold(References::none(), |all, (name, value)| all.with_env(name, Secret::new(value.to_owned())));
    let references =
        contents.iter().fold(references, |all, (path, content)| all.with_file(FileId(0), path, content.to_vec()));
    let revision = Revision::of(&sources);
    let candidate =
        policy::compile::compile(&checked, &sources, &references, revision).map_err(|found| format!("{found:?}"))?;
    let policy = Arc::clone(candidate.policy());
    drop(candidate);
    Ok(Arc::try_unwrap(policy).unwrap())
}

/// A self-signed certificate: chain and key as PEM, and the certificate to trust.
pub fn certificate(name: &str) -> (String, String, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem(), made.cert.der().clone())
}

/// A token of the tests' issuer.
#[derive(Clone, Debug)]
pub struct Token(Value);

impl Token {
    /// For a user, valid for an hour.
    pub fn of(user: &str) -> Self {
        Self(json!({ "iss": "https://issuer.test", "aud": "api", "sub": user, "iat": NOW, "exp": NOW + 3600 }))
    }

    pub fn with(mut self, claim: &str, value: impl Into<Value>) -> Self {
        self.0[claim] = value.into();
        self
    }

    /// As sent.
    pub fn sign(&self) -> String {
        self.signed_with(SECRET)
    }

    pub fn signed_with(&self, secret: &str) -> String {
        let encode = |value: &[u8]| URL_SAFE_NO_PAD.encode(value);
        let signed = format!("{}.{}", encode(br#"{"alg":"HS256","typ":"JWT"}"#), encode(self.0.to_string().as_bytes()));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
        let tag = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
        format!("{signed}.{}", encode(tag.as_ref()))
    }

    /// As a header line.
    pub fn line(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.sign())
    }
}
