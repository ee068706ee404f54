//! SQLite and PostgreSQL, through one SQL text each of them understands (sqlx `Any`).
//!
//! What differs is here: how they are opened, the statement that begins a transaction, and the migrations
//! (`migrations/sqlite`, `migrations/postgres`, embedded). Whatever a database says, or does not say in time, is
//! [`StoreError::Unavailable`]; it is never a "no".
//!
//! What must happen once (a rotation, a count, a position) is a transaction whose first statement takes a row that all
//! who do the same take, so that the rest of it sees what the one before left.

mod attempts;
mod browser;
mod keys;
mod revocations;
mod sessions;
mod users;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use sqlx::any::{AnyConnectOptions, AnyPoolOptions, AnyQueryResult, AnyRow, install_default_drivers};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Any, AnyConnection, AnyPool, ConnectOptions, Connection, Decode, Executor, Row, SqlStr, Transaction, Type};

use crate::clock::Timestamp;

use super::{OpenError, StoreError};

/// How long to wait for a connection.
const ACQUIRE: Duration = Duration::from_secs(3);

/// How long to wait for others who open the same SQLite file.
const OPENING: Duration = Duration::from_secs(5);

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
        let options = connect_options(&url)?;
        prepare(&options).await?;
        // Files in WAL mode have one writer: it is one connection, for which callers stand in line. Readers never wait.
        let pool = |connections| {
            AnyPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(ACQUIRE)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
                .after_connect(|connection, _| Box::pin(set(connection, &SQLITE)))
        };
        let write = pool(1).connect_with(options.clone()).await.map_err(|error| unusable(&error))?;
        let read = pool(4).connect_with(options).await.map_err(|error| unusable(&error))?;
        Ok(Self { read, write, begin: "BEGIN IMMEDIATE" })
    }

    /// Opens a PostgreSQL database and brings its tables up to date.
    pub async fn postgres(url: &str) -> Result<Self, OpenError> {
        let help = "check that the server runs, and the host, port, user, password and database in the URL";
        let pool = AnyPoolOptions::new()
            .max_connections(16)
            .acquire_timeout(ACQUIRE)
            .after_connect(|connection, _| Box::pin(set(connection, &POSTGRES)))
            .connect_with(connect_options(url)?)
            .await
            .map_err(|error| OpenError::new(format!("no connection to PostgreSQL: {}", describe(&error)), help))?;
        let versions = [
            include_str!("../../../migrations/postgres/0001_start.sql"),
            include_str!("../../../migrations/postgres/0002_browser_sessions.sql"),
        ];
        // One connection for all of it: what it locks against others who start is gone with it, whatever happens.
        let mut connection = pool.acquire().await.map_err(|error| OpenError::new(describe(&error), help))?.detach();
        migrator(versions).run_direct(None, &mut connection, false).await.map_err(|error| outdated(&error))?;
        connection.close().await.ok();
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

/// What a connection to SQLite is told.
const SQLITE: [&str; 4] = [
    "PRAGMA busy_timeout = 3000",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
];

/// What a connection to PostgreSQL is told.
const POSTGRES: [&str; 2] = ["SET statement_timeout = 3000", "SET idle_in_transaction_session_timeout = 5000"];

async fn set(connection: &mut AnyConnection, settings: &[&'static str]) -> Result<(), sqlx::Error> {
    for setting in settings {
        connection.execute(*setting).await?;
    }
    Ok(())
}

// === Tables ===

/// The version of the tables.
const VERSION: i64 = 2;

/// What makes the tables of each version out of those of the one before.
fn migrator(versions: [&'static str; 2]) -> Migrator {
    let names = ["start", "browser sessions"];
    let migrations = (1..=VERSION).zip(names).zip(versions).map(|((version, name), text)| {
        Migration::new(version, name.into(), MigrationType::Simple, SqlStr::from_static(text), false)
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    migrator.dangerous_set_table_name("portcullis_migrations");
    migrator
}

/// Brings the tables of a SQLite file up to date. Through a connection of its own: a pool tries again what is hopeless.
async fn prepare(options: &AnyConnectOptions) -> Result<(), OpenError> {
    let deadline = Instant::now() + OPENING;
    loop {
        match prepare_once(options).await {
            Ok(()) => return Ok(()),
            // Others open the file at this moment, and not everything waits for them.
            Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
                if !matches!(result_code(&error), Some(BUSY | LOCKED)) || Instant::now() > deadline {
                    return Err(unusable(&error));
                }
            }
            Err(error) => return Err(outdated(&error)),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn prepare_once(options: &AnyConnectOptions) -> Result<(), MigrateError> {
    let migrator = migrator([
        include_str!("../../../migrations/sqlite/0001_start.sql"),
        include_str!("../../../migrations/sqlite/0002_browser_sessions.sql"),
    ]);
    let mut connection = options.connect().await?;
    set(&mut connection, &SQLITE).await?;
    let table = "SELECT name FROM sqlite_master WHERE name = 'portcullis_migrations'";
    let newest = match connection.fetch_optional(table).await? {
        None => None,
        Some(_) => {
            let row = connection.fetch_one("SELECT MAX(version) FROM portcullis_migrations").await?;
            row.try_get::<Option<i64>, _>(0)?
        }
    };
    if newest.is_some_and(|newest| newest >= VERSION) {
        // Only looks; somebody who writes for long is no obstacle.
        migrator.run_direct(None, &mut connection, false).await?;
    } else {
        // All or nothing, and one after the other: sqlx has no lock for SQLite.
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        migrator.run_direct(None, &mut *transaction, false).await?;
        transaction.commit().await?;
    }
    connection.close().await.ok();
    Ok(())
}

/// Tables that are not those of this version.
fn outdated(error: &MigrateError) -> OpenError {
    match error {
        MigrateError::VersionMissing(version) => OpenError::new(
            format!("its tables are of version {version}, this Portcullis knows {VERSION} at most"),
            "run the newer Portcullis that made them, or go back to a backup from before it",
        ),
        MigrateError::VersionMismatch(version) => OpenError::new(
            format!("its tables of version {version} are not those that this Portcullis makes"),
            "run the Portcullis that made them, or name an empty database",
        ),
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => OpenError::new(
            format!("the tables cannot be brought up to date: {}", describe(error)),
            "the user of the database must be allowed to create tables",
        ),
        error => OpenError::new(
            format!("the tables cannot be brought up to date: {error}"),
            "name an empty database, or go back to a backup",
        ),
    }
}

/// A SQLite file that cannot be used.
fn unusable(error: &sqlx::Error) -> OpenError {
    let (message, help) = match result_code(error) {
        Some(NOT_A_DATABASE) => {
            ("it is not a SQLite database".to_owned(), "name another file; where there is none, one is made")
        }
        Some(CORRUPT) => ("it is damaged: it is not a whole SQLite database".to_owned(), "go back to a backup"),
        Some(BUSY | LOCKED) => ("another process keeps it locked".to_owned(), "end what works on it, and start again"),
        _ => (describe(error), "the file and its folder must be writable, on a disk of this machine"),
    };
    OpenError::new(message, help)
}

const BUSY: u32 = 5;
const LOCKED: u32 = 6;
const CORRUPT: u32 = 11;
const NOT_A_DATABASE: u32 = 26;

/// SQLite's primary result code.
fn result_code(error: &sqlx::Error) -> Option<u32> {
    let code: u32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
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
