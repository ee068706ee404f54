//! The five outcomes of a failed login (J01, R15): the same bytes, in the same time.

use std::sync::Arc;

use portcullis::config::{Config, DecisionSink, Log};
use portcullis::identity::account::AccountName;
use portcullis::random::SeededRandom;
use portcullis::request::forwarded::ClientAddr;
use portcullis::secret::Secret;
use portcullis::server::SystemRandom;
use portcullis::store::memory::Memory;
use portcullis::store::{Stores, User, Users};
use portcullis::telemetry::audit::Audit;
use portcullis::telemetry::decision_log::DecisionLog;
use portcullis::telemetry::metrics::Metrics;

use super::failures::{self, Attempt, LOGIN, OUTCOMES, RIGHT};
use super::{Endpoints, later};

fn policy() -> String {
    format!(
        "version: 1\napp: items\nupstream: http://127.0.0.1:9\nlogin: {LOGIN}\nscopes: {{ items: Everything on items }}\n\
         routes:\n  GET /items: {{ scope: items }}\n"
    )
}

/// Users that meet the outcomes of their names.
async fn stores() -> Arc<Stores> {
    let memory = Arc::new(Memory::new());
    let hash = portcullis::password::hash(RIGHT.as_bytes(), [7; 16]).expect("a hash");
    let user = |outcome: &&str| {
        let name = failures::name(outcome);
        User {
            id: format!("0198a6f0-0000-7000-8000-{name}"),
            account: AccountName::parse(&name).expect("a name"),
            name,
            email: None,
            hash: (*outcome != "passwordless").then(|| Secret::new(hash.expose().clone())),
            roles: Vec::new(),
            scopes: vec!["items".to_owned()],
            tenant: None,
            disabled: *outcome == "disabled",
            created: later(),
            updated: later(),
        }
    };
    let users: Vec<User> = OUTCOMES.iter().filter(|outcome| **outcome != "unknown").map(user).collect();
    memory.add(&users).await.expect("users");
    Arc::new(Stores { users: memory, ..Stores::memory() })
}

/// An audit log as `serve` keeps it, in a file that goes away.
fn audit(folder: &tempfile::TempDir) -> Arc<Audit> {
    let decisions = DecisionSink::File { path: folder.path().join("audit.log"), size: 1 << 30, keep: 0 };
    let settings = Log { decisions, ..Config::default().log };
    let log = DecisionLog::start(&settings, &SystemRandom).expect("a log");
    Arc::new(Audit::new(Arc::new(log), Arc::new(Metrics::new())))
}

/// Through the endpoint itself; through a gateway and the network it is a figure of `make prove-login`.
pub fn compare(rounds: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = super::runtime();
    let endpoints = runtime
        .block_on(async { Endpoints::over(stores().await, &policy(), audit(&folder), Arc::new(SystemRandom)).await });
    let compared = failures::compare(
        rounds,
        |_| true,
        |attempt| {
            let answer = runtime.block_on(endpoints.token(ClientAddr::new(attempt.client.into()), attempt.form));
            format!("{} {:?} {:?}", answer.status, answer.headers, answer.body).into_bytes()
        },
    );
    println!("five outcomes of a failed login, in memory, {} of each in random order:", compared.rounds);
    println!(
        "  {} of {} answers are not the same bytes ({} of them)",
        compared.others, compared.answers, compared.bytes
    );
    for (outcome, median) in OUTCOMES.iter().zip(compared.medians) {
        println!("  {outcome:<13} median {median:>7.0} us");
    }
    println!("  medians within {:.2} % (aim: 2 %)", compared.apart * 100.0);
    print!("  Kolmogorov-Smirnov, p of the ten pairs (aim: > 0.01; one run in ten or so has less by chance):");
    for (p, a, b) in compared.pairs {
        print!(" {p:.3}");
        if p < 0.05 {
            print!(" ({a}, {b})");
        }
    }
    println!();
}

/// One outcome alone, so often: what is counted by instructions.
pub fn only(outcome: &str, logins: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let outcome = OUTCOMES.iter().position(|name| *name == outcome).expect("an outcome");
    runtime.block_on(async {
        // Not the system's randomness: gathering it takes another number of instructions each time.
        let random = Arc::new(SeededRandom::new(1));
        let endpoints = Endpoints::over(stores().await, &policy(), Arc::new(Audit::none()), random).await;
        let attempts = (0..logins).map(|number| Attempt::new(outcome, number));
        for Attempt { client, form, .. } in std::iter::once(Attempt::that_locks()).chain(attempts) {
            assert_eq!(endpoints.token(ClientAddr::new(client.into()), form).await.status, 400);
        }
    });
}
