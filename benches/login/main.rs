//! What logging in gives away and what it costs.
//!
//! `cargo bench --bench login` compares the five outcomes of a failed login by bytes and by time, and, where `valgrind`
//! is installed, by the number of instructions, which no other load disturbs. Then what revocation costs requests and
//! how many refresh tokens are replaced per second. `PORTCULLIS_ROUNDS` is how often each outcome is measured.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench prints, reads its own settings, and ends at the first surprise"
)]

#[path = "../../tests/support/outcomes.rs"]
mod failures;
mod instructions;
mod outcomes;
mod refresh;
mod revoked;
#[path = "../../tests/support/statistics.rs"]
mod statistics;

use std::sync::Arc;

use portcullis::clock::{Clock, Timestamp};
use portcullis::diagnostic::Sources;
use portcullis::identity::Caller;
use portcullis::issuer::Issuers;
use portcullis::login::form::Form;
use portcullis::login::hasher::{Bounds, Hasher};
use portcullis::login::{Asking, Login, Parts};
use portcullis::policy::references::References;
use portcullis::policy::set::{PolicySet, Revision};
use portcullis::provider::Supabase;
use portcullis::random::Random;
use portcullis::request::forwarded::ClientAddr;
use portcullis::response::Response;
use portcullis::secret::Secret;
use portcullis::server::{SystemClock, SystemRandom};
use portcullis::store::Stores;
use portcullis::store::revoked::RevokedList;
use portcullis::telemetry::audit::Audit;

const SECRET: &str = "a-secret-of-the-bench-with-more-than-32-bytes";
const URLENCODED: &str = "application/x-www-form-urlencoded";

fn main() {
    portcullis::server::crypto::install();
    if let Some((outcome, logins)) = instructions::asked() {
        outcomes::only(outcome, logins);
        return;
    }
    let rounds = std::env::var("PORTCULLIS_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(400);
    outcomes::compare(rounds);
    instructions::compare();
    revoked::lookups();
    revoked::requests();
    refresh::rotations();
}

/// The login endpoints of one app over some stores.
struct Endpoints {
    policy: Arc<PolicySet>,
    login: Login,
}

impl Endpoints {
    async fn over(stores: Arc<Stores>, policy: &str, audit: Arc<Audit>, random: Arc<dyn Random>) -> Self {
        let policy = Arc::new(compile(policy));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let issuers = Issuers::new(Some(Arc::clone(&stores.keys)), Arc::clone(&clock), Arc::clone(&random));
        issuers.refresh(&policy).await.expect("keys");
        let hasher = Hasher::new(Bounds::default(), Arc::clone(&random));
        hasher.learn(&*stores.users).await.expect("kinds of hashes");
        let revoked = Arc::new(RevokedList::new(stores.revocations.clone()));
        let login = Login::new(Parts {
            stores,
            revoked,
            hasher,
            issuers: issuers.live(),
            supabase: Supabase::new(None),
            clock,
            random,
            audit,
        });
        Self { policy, login }
    }

    /// A form to the token endpoint.
    async fn token(&self, client: ClientAddr, form: String) -> Response {
        let app = self.policy.apps.first().expect("an app");
        let asking = Asking {
            policy: &self.policy,
            app,
            login: app.login.as_ref().expect("a login"),
            client,
            user_agent: "bench/1",
            caller: &Caller::Anonymous,
            decision_id: "0198a6f0-0000-7000-8000-000000000000",
            now: SystemClock.now(),
        };
        let form = Form::parse(Some(URLENCODED), None, form.into()).await.expect("a form");
        self.login.token(&asking, form).await
    }
}

fn compile(text: &str) -> PolicySet {
    let mut sources = Sources::default();
    sources.add("bench.yaml", text);
    let (document, _) = portcullis::policy::read(&sources);
    let (checked, found) = portcullis::policy::check(document, &sources, &portcullis::policy::Options::default());
    let checked = checked.unwrap_or_else(|| panic!("{found:?}"));
    let references = References::none().with_env("SECRET_KEY", Secret::new(SECRET.to_owned()));
    let candidate =
        portcullis::policy::compile::compile(&checked, &sources, &references, Revision::of(&sources)).expect("a set");
    let set = Arc::clone(candidate.policy());
    drop(candidate);
    Arc::try_unwrap(set).expect("the only one")
}

/// As `serve` has it.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

/// A number below `most`.
fn random_below(most: usize) -> usize {
    let mut bytes = [0; 8];
    SystemRandom.fill(&mut bytes);
    (u64::from_le_bytes(bytes) % most as u64) as usize
}

fn later() -> Timestamp {
    SystemClock.now().plus(std::time::Duration::from_secs(3600))
}
