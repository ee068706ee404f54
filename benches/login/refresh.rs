//! How many refresh tokens are replaced per second, on SQLite in a file.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis::config::{Database, StoreUrl};
use portcullis::identity::account::AccountName;
use portcullis::request::forwarded::ClientAddr;
use portcullis::server::SystemRandom;
use portcullis::store::{Stores, User};
use portcullis::telemetry::audit::Audit;

use super::{Endpoints, later};

const POLICY: &str = "
version: 1
app: items
upstream: http://127.0.0.1:9
login: { via: local, limit: none, lockout: none }
scopes: { items: Everything on items }
routes:
  GET /items: { scope: items }
";
const PASSWORD: &str = "a-long-walk-in-the-rain";
const FOR: Duration = Duration::from_secs(2);

pub fn rotations() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = super::runtime();
    let endpoints = Arc::new(runtime.block_on(endpoints(&folder)));
    for sessions in [1, 16] {
        let tasks = (0..sessions).map(|_| runtime.spawn(go_on(Arc::clone(&endpoints))));
        let tasks: Vec<_> = tasks.collect();
        let done: f64 = tasks.into_iter().map(|task| runtime.block_on(task).expect("a session")).sum();
        println!("refresh tokens on SQLite, {sessions:>2} sessions at a time: {done:.0} replaced per second");
    }
}

async fn endpoints(folder: &tempfile::TempDir) -> Endpoints {
    let url = StoreUrl { database: Database::Sqlite(folder.path().join("bench.db")), setting: "store" };
    let stores = Arc::new(Stores::open(&url, None).await.expect("a store"));
    let user = User {
        id: "0198a6f0-0000-7000-8000-000000000001".to_owned(),
        name: "ada".to_owned(),
        account: AccountName::parse("ada").expect("a name"),
        email: None,
        hash: Some(portcullis::password::hash(PASSWORD.as_bytes(), [7; 16]).expect("a hash")),
        roles: Vec::new(),
        scopes: vec!["items".to_owned()],
        tenant: None,
        disabled: false,
        created: later(),
        updated: later(),
    };
    stores.users.add(&[user]).await.expect("a user");
    Endpoints::over(stores, POLICY, Arc::new(Audit::none()), Arc::new(SystemRandom)).await
}

/// Logs in and goes on for a while: replacements per second.
async fn go_on(endpoints: Arc<Endpoints>) -> f64 {
    let client = ClientAddr::new([192, 0, 2, 1].into());
    let ask = async |form: String| {
        let answer = endpoints.token(client, form).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        let answer: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        answer.get("refresh_token").and_then(serde_json::Value::as_str).expect("a refresh token").to_owned()
    };
    let mut token = ask(format!("grant_type=password&username=ada&password={PASSWORD}")).await;
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < FOR {
        token = ask(format!("grant_type=refresh_token&refresh_token={token}")).await;
        count += 1;
    }
    f64::from(count) / began.elapsed().as_secs_f64()
}
