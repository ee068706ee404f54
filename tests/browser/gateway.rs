//! A running gateway with a store, and a browser before it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis::clock::{Clock, ManualClock, Timestamp};
use portcullis::config::StoreUrl;
use portcullis::issuer::Issuers;
use portcullis::live::Live;
use portcullis::policy::references::References;
use portcullis::policy::set::{PolicySet, Revision};
use portcullis::policy::{self, Options, check};
use portcullis::random::Random;
use portcullis::secret::Secret;
use portcullis::server::services::{self, Keeper, Outside};
use portcullis::server::{Gateway as Server, Parts, Stopper, SystemRandom};
use portcullis::store::Stores;
use portcullis::telemetry::audit::Audit;
use tempfile::TempDir;

use crate::client::{Answer, once};
use crate::provider::{Provider, SECRET};
use crate::upstream::Upstream;

/// What the clock shows at first.
pub const NOW: i64 = 1_800_000_000;

/// The app, which sends people to a Supabase project or to an OpenID provider.
pub const SUPABASE: &str = "\
version: 1
app: shop
upstream: http://UPSTREAM
login: { via: supabase, providers: [github], limit: none, lockout: none, return_to: /home }
identity:
  supabase: { preset: supabase, url: PROVIDER, key: env:KEY, jwt_secret: env:SECRET }
routes:
  GET /public: public
  /page/**: authenticated
  GET /maybe: optional
";
pub const OIDC: &str = "\
version: 1
app: shop
upstream: http://UPSTREAM
login: { via: oidc, return_to: /home }
identity:
  idp: { preset: oidc, issuer: PROVIDER/oidc, audience: api, client_id: gateway, client_secret: env:KEY }
routes:
  GET /public: public
  /page/**: authenticated
";

/// Everything around a gateway. Several gateways may share it.
pub struct World {
    pub clock: Arc<ManualClock>,
    pub provider: Provider,
    pub upstream: Upstream,
    /// Where gateways write down who signs in.
    pub audit: Arc<Audit>,
    policy: String,
    store: StoreUrl,
    folder: TempDir,
}

pub struct Gateway {
    pub address: SocketAddr,
    stopper: Stopper,
    keep: tokio::task::JoinHandle<()>,
}

impl World {
    pub async fn new(policy: &str) -> Self {
        Self::over(policy, None).await
    }

    /// With this database instead of a file.
    pub async fn over(policy: &str, database: Option<&str>) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(NOW)));
        let (provider, upstream) = (Provider::start(Arc::clone(&clock)).await, Upstream::start().await);
        let folder = tempfile::tempdir().unwrap();
        let file = format!("sqlite:{}", folder.path().join("store.db").display());
        let store = StoreUrl::parse(database.unwrap_or(&file), "/".as_ref(), "DATABASE_URL").unwrap();
        let policy = policy.replace("UPSTREAM", &upstream.address.to_string()).replace("PROVIDER", &provider.url());
        Self { clock, provider, upstream, audit: Arc::new(Audit::none()), policy, store, folder }
    }

    pub async fn gateway(&self) -> Gateway {
        let live = Arc::new(Live::new(compile(&self.policy)));
        let (clock, random): (Arc<dyn Clock>, Arc<dyn Random>) = (self.clock.clone(), Arc::new(SystemRandom));
        let issuers = Issuers::new(None, Arc::clone(&clock), Arc::clone(&random)).fetching(services::fetcher());
        let outside = Outside {
            store: self.store.clone(),
            redis: None,
            public_url: None,
            audit: Arc::clone(&self.audit),
            issuers: Arc::new(issuers),
            clock: Arc::clone(&clock),
            random: Arc::clone(&random),
        };
        let (services, keep) = Keeper::start(outside, Arc::clone(&live)).await.unwrap();
        let keep = tokio::spawn(keep);
        let mut parts = Parts::new(live);
        (parts.clock, parts.random, parts.services) = (clock, random, services);
        let server = Server::build(parts).unwrap();
        let (address, stopper) = (server.addresses()[0], server.stopper());
        tokio::spawn(server.run());
        Gateway { address, stopper, keep }
    }

    /// Runs a command beside the gateway: what it prints.
    pub fn command(&self, arguments: &[&str]) -> String {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.args(arguments).current_dir(self.folder.path()).env("DATABASE_URL", "sqlite:store.db");
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The store, as another gateway sees it.
    pub async fn stores(&self) -> Stores {
        Stores::open(&self.store, None).await.unwrap()
    }

    /// Sends to the present upstream what was to go to another.
    pub fn reach(&mut self, old: SocketAddr) {
        self.policy = self.policy.replace(&old.to_string(), &self.upstream.address.to_string());
    }

    /// Changes the policy of gateways that are started from now on.
    pub fn change(&mut self, old: &str, new: &str) {
        assert!(self.policy.contains(old), "{}", self.policy);
        let new = new.replace("PROVIDER", &self.provider.url());
        self.policy = self.policy.replace(old, &new);
    }

    pub fn advance(&self, seconds: i64) {
        self.clock.advance(Duration::from_secs(seconds.unsigned_abs()));
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.keep.abort();
        self.stopper.stop(Duration::ZERO);
    }
}

fn compile(text: &str) -> PolicySet {
    let (sources, document, diagnostics) = policy::read_bytes(&[("test.yaml".to_owned(), text.as_bytes().to_vec())]);
    let (checked, found) = check(document, &sources, &Options::default());
    let checked = checked.unwrap_or_else(|| panic!("{diagnostics:?} {found:?}\n{text}"));
    let references = References::none()
        .with_env("SECRET", Secret::new(SECRET.to_owned()))
        .with_env("KEY", Secret::new("sb_publishable_key-of-the-tests".to_owned()))
        .with_env("SEAL", Secret::new("a key that seals sessions, of 32 bytes and more".to_owned()));
    let compiled = policy::compile::compile(&checked, &sources, &references, Revision::of(&sources));
    let candidate = compiled.unwrap_or_else(|found| panic!("{found:?}\n{text}"));
    let policy = Arc::clone(candidate.policy());
    drop(candidate);
    Arc::try_unwrap(policy).unwrap()
}

/// A browser: it keeps cookies and says where its requests come from.
pub struct Browser {
    address: SocketAddr,
    pub cookies: Mutex<Vec<(String, String)>>,
}

impl Browser {
    pub fn new(gateway: &Gateway) -> Self {
        Self::at(gateway.address)
    }

    pub fn at(address: SocketAddr) -> Self {
        Self { address, cookies: Mutex::default() }
    }

    /// The `Cookie` line.
    pub fn cookie_line(&self) -> String {
        let cookies = self.cookies.lock().unwrap();
        let pairs: Vec<String> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if pairs.is_empty() { String::new() } else { format!("Cookie: {}\r\n", pairs.join("; ")) }
    }

    pub fn cookie(&self, name: &str) -> Option<String> {
        let cookies = self.cookies.lock().unwrap();
        cookies.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone())
    }

    pub async fn get(&self, target: &str) -> Answer {
        self.send(&format!("GET {target} HTTP/1.1\r\nHost: app.test\r\n{}\r\n", self.cookie_line())).await
    }

    /// Sends a form as a page of the same origin does.
    pub async fn post(&self, target: &str, form: &[(&str, &str)]) -> Answer {
        self.post_from(target, form, "Origin: http://app.test\r\n").await
    }

    pub async fn post_from(&self, target: &str, form: &[(&str, &str)], lines: &str) -> Answer {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: app.test\r\n{lines}{}Content-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.cookie_line(),
            body.len()
        );
        self.send(&request).await
    }

    async fn send(&self, request: &str) -> Answer {
        let answer = once(self.address, request).await.unwrap();
        for line in answer.values("set-cookie") {
            let (pair, attributes) = line.split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            for attribute in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax", "__Host-"] {
                assert!(line.contains(attribute), "{line}");
            }
            assert!(!line.contains("Domain"), "{line}");
            // I08, I09: browsers drop longer ones, and caches must not keep any.
            assert!(
                line.len() < 4096 && answer.value("cache-control").unwrap().contains("no-store"),
                "{}",
                answer.head
            );
            let mut cookies = self.cookies.lock().unwrap();
            cookies.retain(|(other, _)| other != name);
            if !attributes.contains("Max-Age=0") {
                cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        answer
    }

    /// Signs in with a password.
    pub async fn sign_in(&self, user: &str) -> String {
        let form = [("username", user), ("password", crate::provider::PASSWORD)];
        let answer = self.post("/login", &form).await;
        assert_eq!((answer.status, answer.value("location")), (303, Some("/home")), "{}", answer.text());
        self.cookie("__Host-session").unwrap()
    }

    /// Goes to the provider and back: the answer of the callback.
    pub async fn through(&self, provider: &Provider, start: &str) -> Answer {
        let away = self.get(start).await;
        assert_eq!(away.status, 303, "{}", away.text());
        self.get(&path_of(&provider.authorize(away.value("location").unwrap()))).await
    }
}

/// The path and query of a URL of the gateway.
pub fn path_of(url: &str) -> String {
    url.strip_prefix("http://app.test").unwrap_or_else(|| panic!("{url}")).to_owned()
}
