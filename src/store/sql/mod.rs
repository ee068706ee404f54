//! SQLite and PostgreSQL, through one SQL text each of them understands (sqlx `Any`).
//!
//! What differs is here: how they are opened, the statement that begins a transaction, and the migrations
//! (`migrations/sqlite`, `migrations/postgres`, embedded). Whatever a database says, or does not say in time, is
//! [`StoreError::Unavailable`]; it is never a "no".
//!
//! What must happen once (a rotation, a count, a position) is a transaction whose first statement takes a row that all
//! who do the same take, so that the rest of it sees what the one before left.

mod attempts;
mod keys;
mod revocations;
mod sessions;
mod users;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use sqlx::any::{AnyConnectOptions, AnyPoolOptions, AnyQueryResult, AnyRow, install_default_drivers};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{Any, AnyPool, ConnectOptions, Decode, Executor, Row, SqlStr, Transaction, Type};

use crate::clock::Timestamp;

use super::{OpenError, StoreError};

/// How long to wait for a connection.
const ACQUIRE: Duration = Duration::from_secs(3);

/// How long one call may take in all.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a call that writes many rows may take.
const LONG: Duration = Duration::from_secs(120);

/// How many rows of a statement go at once.
const CHUNK: usize = 200;

/// How many rows one `DELETE` of a sweep takes: short transactions, so that nobody waits for it.
const SWEEP: i64 = 1000;

/// A store in SQLite or PostgreSQL.
#[derive(Clone, Debug)]
pub struct Sql {
    read: AnyPool,
    write: AnyPool,
    begin: &'static str,
}

impl Sql {
    /// Opens a SQLite file, creates it (for its owner alone) where there is none, and brings its tables up to date. The
    /// folder must be there.
    pub async fn sqlite(path: &Path) -> Result<Self, OpenError> {
        let shown = path.display();
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
            return Err(OpenError::new(
                format!("the folder `{}` does not exist", folder.display()),
                "create it, or name another file",
            ));
        }
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| OpenError::new(format!("{error}"), "the file and its folder must be writable"))?;
        let Some(text) = path.to_str() else {
            return Err(OpenError::new(format!("`{shown}` is not UTF-8"), "name another file"));
        };
        const ESCAPED: AsciiSet = CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'?').add(b'%');
        let absolute = if path.is_absolute() { "" } else { "./" };
        let url = format!("sqlite:{absolute}{}?mode=rw", utf8_percent_encode(text, &ESCAPED));
        // Files in WAL mode have one writer: it is one connection, for which callers stand in line. Readers never wait.
        let pool = |connections| {
            AnyPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(ACQUIRE)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
                .after_connect(|connection, _| {
                    Box::pin(async move {
                        for pragma in [
                            "PRAGMA busy_timeout = 3000",
                            "PRAGMA journal_mode = WAL",
                            "PRAGMA synchronous = FULL",
                            "PRAGMA foreign_keys = ON",
                        ] {
                            connection.execute(pragma).await?;
                        }
                        Ok(())
                    })
                })
        };
        let options = connect_options(&url)?;
        let help = "it must be a SQLite database that this version of Portcullis can read";
        let failed = |error: sqlx::Error| OpenError::new(format!("{error}"), help);
        let write = pool(1).connect_with(options.clone()).await.map_err(failed)?;
        migrate(&write, include_str!("../../../migrations/sqlite/0001_start.sql")).await?;
        let read = pool(4).connect_with(options).await.map_err(failed)?;
        Ok(Self { read, write, begin: "BEGIN IMMEDIATE" })
    }

    /// Opens a PostgreSQL database and brings its tables up to date.
    pub async fn postgres(url: &str) -> Result<Self, OpenError> {
        let help = "check that the server runs, and the host, port, user, password and database in the URL";
        let pool = AnyPoolOptions::new()
            .max_connections(16)
            .acquire_timeout(ACQUIRE)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    for setting in ["SET statement_timeout = 3000", "SET idle_in_transaction_session_timeout = 5000"] {
                        connection.execute(setting).await?;
                    }
                    Ok(())
                })
            })
            .connect_with(connect_options(url)?)
            .await
            .map_err(|error| OpenError::new(format!("no connection to PostgreSQL: {}", describe(&error)), help))?;
        migrate(&pool, include_str!("../../../migrations/postgres/0001_start.sql")).await?;
        Ok(Self { read: pool.clone(), write: pool, begin: "BEGIN" })
    }

    /// Closes all connections, once what runs has ended.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }

    async fn begin(&self) -> Result<Transaction<'static, Any>, StoreError> {
        self.write.begin_with(self.begin).await.map_err(unavailable)
    }

    /// Deletes in small steps what `statement` (with a moment and a number of rows) finds.
    async fn sweep_with(&self, statement: &'static str, now: Timestamp) -> Result<u64, StoreError> {
        let mut gone: u64 = 0;
        loop {
            let step = sqlx::query(statement).bind(now.as_millis()).bind(SWEEP).execute(&self.write);
            let rows = within(PATIENCE, async { step.await.map_err(unavailable) }).await?.rows_affected();
            gone = gone.saturating_add(rows);
            if rows < SWEEP.unsigned_abs() {
                return Ok(gone);
            }
        }
    }
}

fn connect_options(url: &str) -> Result<AnyConnectOptions, OpenError> {
    install_default_drivers();
    let options: AnyConnectOptions =
        url.parse().map_err(|_| OpenError::new("it is not a URL", "like `postgres://user:password@host/database`"))?;
    Ok(options.disable_statement_logging())
}

async fn migrate(pool: &AnyPool, start: &'static str) -> Result<(), OpenError> {
    let start = Migration::new(1, "start".into(), MigrationType::Simple, SqlStr::from_static(start), false);
    let mut migrator = Migrator::with_migrations(vec![start]);
    migrator.dangerous_set_table_name("portcullis_migrations");
    let mut tries = 0;
    loop {
        match migrator.run(pool).await {
            Ok(()) => return Ok(()),
            // Another process may create the tables at this moment, and SQLite has no lock for that.
            Err(_) if tries < 3 => tries += 1,
            Err(error) => {
                let help = "its tables were made by another version of Portcullis, or the user may not create tables";
                return Err(OpenError::new(format!("the tables cannot be brought up to date: {error}"), help));
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

// === Errors and rows ===

/// What an error says, without what it was about.
fn describe(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::PoolTimedOut => format!("no connection within {} s", ACQUIRE.as_secs()),
        sqlx::Error::Database(error) => error.message().to_owned(),
        error => error.to_string(),
    }
}

fn unavailable(error: sqlx::Error) -> StoreError {
    StoreError::Unavailable(describe(&error))
}

/// Waits, but not for ever: a server that is stopped or unreachable never says so.
async fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, StoreError>> + Send,
) -> Result<T, StoreError> {
    let late = || Err(StoreError::Unavailable(format!("no answer within {} s", patience.as_secs())));
    tokio::time::timeout(patience, work).await.unwrap_or_else(|_| late())
}

fn column<'r, T: Decode<'r, Any> + Type<Any>>(row: &'r AnyRow, name: &str) -> Result<T, StoreError> {
    row.try_get(name).map_err(|error| StoreError::Corrupt(describe(&error)))
}

fn moment(row: &AnyRow, name: &str) -> Result<Timestamp, StoreError> {
    column(row, name).map(Timestamp::from_millis)
}

fn maybe_moment(row: &AnyRow, name: &str) -> Result<Option<Timestamp>, StoreError> {
    Ok(column::<Option<i64>>(row, name)?.map(Timestamp::from_millis))
}

/// A list of texts, kept as JSON.
fn list(row: &AnyRow, name: &str) -> Result<Vec<String>, StoreError> {
    serde_json::from_str(&column::<String>(row, name)?)
        .map_err(|_| StoreError::Corrupt(format!("column `{name}` is not a list")))
}

fn json(list: &[String]) -> String {
    serde_json::Value::from(list).to_string()
}

fn changed(result: &AnyQueryResult) -> bool {
    result.rows_affected() > 0
}

/// `($1, $2), ($3, $4), …`
fn placeholders(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let marks: Vec<String> = (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
        format!("({})", marks.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}
