//! The contract of the stores: one list of behaviours, each a row named after it, run against memory, SQLite, PostgreSQL
//! and Redis, for the traits each of them has. Every row gets an empty place of its own, and opens it as often as there
//! are gateways in it. Time is a parameter everywhere, so nothing here waits for it.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends at the first surprise")]

#[path = "../support/relay.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod relay;
#[path = "../support/servers.rs"]
mod servers;

mod attempts;
mod browser;
mod keys;
mod limits;
mod opening;
mod revocations;
mod sessions;
mod users;

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use portcullis::clock::Timestamp;
use portcullis::config::{RedisUrl, StoreUrl};
use portcullis::store::memory::Memory;
use portcullis::store::redis::Redis;
use portcullis::store::sql::Sql;
use portcullis::store::{
    Attempts, BrowserSessions, Limits, OpenError, Revocations, Sessions, SigningKeys, Stores, Users,
};
use tempfile::TempDir;

/// The moment at which most rows begin.
const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A behaviour: its name, and what shows it.
type Row = (&'static str, fn(Place) -> Running);

/// Makes rows of functions; their names are those of the behaviours.
macro_rules! rows {
    ($($behaviour:ident),+ $(,)?) => {
        &[$((stringify!($behaviour), |place| Box::pin($behaviour(place)))),+]
    };
}
use rows;

/// Where a store is. It is empty at first.
#[derive(Clone)]
enum Place {
    Memory(Arc<Memory>),
    Sqlite(Arc<TempDir>),
    Postgres(String),
    Redis(String),
}

/// Opens it for one trait: another connection, like that of another gateway (memory has but one).
macro_rules! open {
    ($name:ident: $trait:ident in memory, sql) => {
        async fn $name(&self) -> Arc<dyn $trait> {
            match self {
                Self::Memory(memory) => memory.clone(),
                Self::Sqlite(_) | Self::Postgres(_) => Arc::new(self.sql().await.unwrap()),
                Self::Redis(_) => panic!("not kept in Redis"),
            }
        }
    };
    ($name:ident: $trait:ident in memory, sql, redis) => {
        async fn $name(&self) -> Arc<dyn $trait> {
            match self {
                Self::Memory(memory) => memory.clone(),
                Self::Sqlite(_) | Self::Postgres(_) => Arc::new(self.sql().await.unwrap()),
                Self::Redis(url) => Arc::new(Redis::open(url).await.unwrap()),
            }
        }
    };
    ($name:ident: $trait:ident in memory, redis) => {
        async fn $name(&self) -> Arc<dyn $trait> {
            match self {
                Self::Memory(memory) => memory.clone(),
                Self::Sqlite(_) | Self::Postgres(_) => panic!("not kept in SQL"),
                Self::Redis(url) => Arc::new(Redis::open(url).await.unwrap()),
            }
        }
    };
}

impl Place {
    open!(users: Users in memory, sql);
    open!(sessions: Sessions in memory, sql);
    open!(browser: BrowserSessions in memory, sql);
    open!(keys: SigningKeys in memory, sql);
    open!(revocations: Revocations in memory, sql, redis);
    open!(attempts: Attempts in memory, sql, redis);
    open!(limits: Limits in memory, redis);

    async fn sql(&self) -> Result<Sql, OpenError> {
        match self {
            Self::Sqlite(_) => Sql::sqlite(&self.file()).await,
            Self::Postgres(url) => Sql::postgres(url).await,
            Self::Memory(_) | Self::Redis(_) => panic!("not an SQL store"),
        }
    }

    /// The SQLite file.
    fn file(&self) -> PathBuf {
        let Self::Sqlite(folder) = self else { panic!("not SQLite") };
        folder.path().join("store.db")
    }

    /// The URL of the database, for SQL past the store.
    fn url(&self) -> String {
        match self {
            Self::Sqlite(_) => format!("sqlite:{}?mode=rwc", self.file().display()),
            Self::Postgres(url) => url.clone(),
            Self::Memory(_) | Self::Redis(_) => panic!("not an SQL store"),
        }
    }

    /// Opens it as a gateway does; the error is the one that is shown.
    async fn stores(&self) -> Result<Stores, OpenError> {
        let url = match self {
            Self::Sqlite(_) => format!("sqlite:{}", self.file().display()),
            Self::Postgres(url) => url.clone(),
            Self::Memory(_) | Self::Redis(_) => panic!("not an SQL store"),
        };
        let url = StoreUrl::parse(&url, "/".as_ref(), "DATABASE_URL").unwrap();
        Stores::open(&url, None::<&RedisUrl>).await
    }
}

/// Runs all rows, each at a new place, and says how many there were.
fn run(backend: &str, groups: &[&'static [Row]], mut place: impl FnMut() -> Place) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let mut failed = Vec::new();
    let rows: Vec<Row> = groups.iter().copied().flatten().copied().collect();
    for (behaviour, row) in &rows {
        if runtime.block_on(runtime.spawn(row(place()))).is_err() {
            failed.push(behaviour.replace('_', " "));
        }
    }
    let kept = rows.len() - failed.len();
    writeln!(std::io::stderr(), "store contract: {backend}: {kept} of {} rows as they should be", rows.len()).ok();
    assert!(failed.is_empty(), "{backend}:\n  {}", failed.join("\n  "));
}

/// Runs `count` futures at the same moment, in tasks of their own, and returns what they did in their order.
async fn at_once<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    count: u32,
    mut work: impl FnMut(u32) -> F,
) -> Vec<T> {
    let start = Arc::new(tokio::sync::Barrier::new(count as usize));
    let tasks: Vec<_> = (0..count)
        .map(|number| {
            let (start, work) = (start.clone(), work(number));
            tokio::spawn(async move {
                start.wait().await;
                work.await
            })
        })
        .collect();
    let mut done = Vec::new();
    for task in tasks {
        done.push(task.await.unwrap());
    }
    done
}

#[test]
fn memory() {
    let groups = [
        users::ROWS,
        sessions::ROWS,
        browser::ROWS,
        revocations::ROWS,
        revocations::WAKING,
        attempts::ROWS,
        limits::ROWS,
        keys::ROWS,
    ];
    run("memory", &groups, || Place::Memory(Arc::new(Memory::new())));
}

#[test]
fn sqlite() {
    let groups = [
        users::ROWS,
        sessions::ROWS,
        browser::ROWS,
        revocations::ROWS,
        revocations::SQL,
        attempts::ROWS,
        keys::ROWS,
        opening::SQL,
        opening::SQLITE,
    ];
    run("SQLite", &groups, || Place::Sqlite(Arc::new(tempfile::tempdir().unwrap())));
}

#[test]
fn postgres() {
    let server = match servers::Postgres::start() {
        Ok(server) => server,
        Err(missing) => return servers::skipped(&format!("the store contract on PostgreSQL: {missing}")),
    };
    let version = server.sql("postgres", "SHOW server_version");
    let groups = [
        users::ROWS,
        sessions::ROWS,
        browser::ROWS,
        revocations::ROWS,
        revocations::SQL,
        attempts::ROWS,
        keys::ROWS,
        opening::SQL,
    ];
    let version = version.split(' ').next().unwrap_or_default();
    run(&format!("PostgreSQL {version}"), &groups, || Place::Postgres(server.database()));
}

#[test]
fn redis() {
    let server = match servers::Redis::start() {
        Ok(server) => server,
        Err(missing) => return servers::skipped(&format!("the store contract on Redis: {missing}")),
    };
    let groups = [revocations::ROWS, revocations::WAKING, attempts::ROWS, limits::ROWS];
    run(&format!("Redis {}", server.version()), &groups, || Place::Redis(server.database()));
}

/// The permissions of a file.
fn mode(path: &std::path::Path) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions()) & 0o777
}
