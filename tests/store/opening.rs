//! Opening a database: what is wrong with it is said, at once.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use portcullis::store::sql::Sql;
use portcullis::store::{OpenError, Session, TokenHash, Users as _};
use sqlx::{AnyConnection, Connection, Executor};

use super::sessions::session;
use super::{NOW, Place, Row, at_once, mode, rows};

pub const SQL: &[Row] = rows![
    a_database_of_a_newer_version_is_refused,
    a_database_of_another_build_is_refused,
    many_can_open_a_new_database_at_once,
    the_tables_of_an_app_in_the_same_database_stay,
    the_database_itself_refuses_a_second_head,
    tables_of_the_first_version_become_those_of_the_second_with_what_is_in_them,
];

pub const SQLITE: &[Row] = rows![
    a_file_that_is_no_database_is_refused,
    every_command_names_the_file_and_the_setting_of_a_bad_store,
    a_damaged_database_is_refused,
    a_locked_file_is_refused,
    a_file_in_no_folder_is_refused,
    a_folder_is_refused,
    an_empty_file_becomes_a_database,
    all_its_files_are_for_their_owner_alone,
    a_name_with_odd_characters_names_that_file,
    many_processes_can_open_a_new_file_at_once,
    a_file_that_somebody_writes_to_for_long_can_be_opened,
];

async fn sql(place: &Place, statements: &[&'static str]) -> AnyConnection {
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(&place.url()).await.unwrap();
    for statement in statements {
        connection.execute(*statement).await.unwrap();
    }
    connection
}

async fn refused(place: &Place) -> OpenError {
    let error = place.stores().await.unwrap_err();
    assert!(error.message.contains("(setting `DATABASE_URL`) cannot be opened: "), "{error}");
    if matches!(place, Place::Sqlite(_)) {
        assert!(error.message.contains(place.file().to_str().unwrap()), "{error}");
    }
    assert!(!error.help.is_empty());
    error
}

async fn a_database_of_a_newer_version_is_refused(place: Place) {
    place.stores().await.unwrap();
    let newer = "INSERT INTO portcullis_migrations (version, description, success, checksum, execution_time) \
                 SELECT 7, 'later', success, checksum, 0 FROM portcullis_migrations WHERE version = 1";
    sql(&place, &[newer]).await;
    for _ in 0..2 {
        let error = refused(&place).await;
        assert!(error.message.ends_with("its tables are of version 7, this Portcullis knows 2 at most"), "{error}");
    }
}

async fn a_database_of_another_build_is_refused(place: Place) {
    place.stores().await.unwrap();
    let mut connection = sql(&place, &[]).await;
    let other = sqlx::query("UPDATE portcullis_migrations SET checksum = $1").bind([1_u8; 48].as_slice());
    other.execute(&mut connection).await.unwrap();
    let error = refused(&place).await;
    assert!(error.message.ends_with("its tables of version 1 are not those that this Portcullis makes"), "{error}");
}

async fn many_can_open_a_new_database_at_once(place: Place) {
    let opened = at_once(8, |_| {
        let place = place.clone();
        async move { place.stores().await.map(|stores| stores.users) }
    })
    .await;
    for users in opened {
        assert!(users.unwrap().list(None, 1).await.unwrap().is_empty());
    }
}

async fn the_tables_of_an_app_in_the_same_database_stay(place: Place) {
    let of_the_app =
        ["CREATE TABLE users (name TEXT)", "CREATE TABLE sessions (id TEXT)", "INSERT INTO users VALUES ('ann')"];
    let mut connection = sql(&place, &of_the_app).await;
    place.stores().await.unwrap();
    connection.fetch_one("SELECT name FROM users WHERE name = 'ann'").await.unwrap();
}

async fn the_database_itself_refuses_a_second_head(place: Place) {
    let sessions = place.sessions().await;
    sessions.start(&session("s"), &TokenHash([1; 32])).await.unwrap();
    let mut connection = sql(&place, &[]).await;
    let second = sqlx::query("INSERT INTO portcullis_refresh_tokens (hash, session_id, issued) VALUES ($1, 's', 1)");
    assert!(second.bind([2_u8; 32].as_slice()).execute(&mut connection).await.is_err());
    assert_eq!(sessions.of_token(&TokenHash([1; 32])).await, Ok(Some(Session { used: NOW, ..session("s") })));
}

async fn tables_of_the_first_version_become_those_of_the_second_with_what_is_in_them(place: Place) {
    place.sessions().await.start(&session("s"), &TokenHash([1; 32])).await.unwrap();
    sql(&place, &["DROP TABLE portcullis_browser_sessions", "DELETE FROM portcullis_migrations WHERE version = 2"])
        .await;
    let stores = place.stores().await.unwrap();
    assert!(stores.browser.live(None, NOW, 1).await.unwrap().is_empty());
    assert_eq!(stores.sessions.get("s").await, Ok(Some(session("s"))));
}

async fn a_file_that_is_no_database_is_refused(place: Place) {
    for content in ["apps:\n  items:\n    upstream: http://127.0.0.1:8000\n".repeat(10), "PORT=1".to_owned()] {
        fs::write(place.file(), &content).unwrap();
        let error = refused(&place).await;
        assert!(error.message.ends_with("it is not a SQLite database"), "{error}");
        assert_eq!(error.help, "name another file; where there is none, one is made");
        assert_eq!(fs::read_to_string(place.file()).unwrap(), content, "it stays as it is");
    }
}

async fn every_command_names_the_file_and_the_setting_of_a_bad_store(place: Place) {
    let Place::Sqlite(folder) = &place else { panic!("not SQLite") };
    let portcullis = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command
            .args(arguments)
            .current_dir(folder.path())
            .env_remove("REDIS_URL")
            .env("DATABASE_URL", "sqlite:notes.txt");
        command.stdin(Stdio::null()).output().unwrap()
    };
    assert!(portcullis(&["init"]).status.success());
    fs::write(folder.path().join("notes.txt"), "milk, bread").unwrap();
    for arguments in [&["serve"][..], &["user", "list"], &["user", "add", "ann", "--no-password"], &["key", "list"]] {
        let output = portcullis(arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        let expected = "error: sqlite:notes.txt (setting `DATABASE_URL`) cannot be opened: it is not a SQLite database\n\n\
                        help: name another file; where there is none, one is made\n";
        assert!(!output.status.success() && error.contains(expected), "{arguments:?}: {error}");
    }
}

async fn a_damaged_database_is_refused(place: Place) {
    place.sql().await.unwrap().close().await;
    let mut bytes = fs::read(place.file()).unwrap();
    for byte in bytes.iter_mut().skip(100) {
        *byte = 0x55;
    }
    fs::write(place.file(), bytes).unwrap();
    let error = refused(&place).await;
    assert!(error.message.ends_with("it is damaged: it is not a whole SQLite database"), "{error}");
}

async fn a_locked_file_is_refused(place: Place) {
    let _locked = sql(&place, &["PRAGMA locking_mode = EXCLUSIVE", "CREATE TABLE of_the_app (id TEXT)"]).await;
    let error = refused(&place).await;
    assert!(error.message.ends_with("another process keeps it locked"), "{error}");
}

async fn a_file_in_no_folder_is_refused(place: Place) {
    let Place::Sqlite(folder) = &place else { panic!("not SQLite") };
    fs::remove_dir(folder.path()).unwrap();
    let error = refused(&place).await;
    assert!(error.message.ends_with("does not exist"), "{error}");
    fs::create_dir(folder.path()).unwrap();
}

async fn a_folder_is_refused(place: Place) {
    fs::create_dir(place.file()).unwrap();
    let error = refused(&place).await;
    assert!(error.message.contains("irectory"), "{error}");
}

async fn an_empty_file_becomes_a_database(place: Place) {
    fs::write(place.file(), "").unwrap();
    assert!(place.users().await.list(None, 1).await.unwrap().is_empty());
}

async fn all_its_files_are_for_their_owner_alone(place: Place) {
    let sessions = place.sessions().await;
    sessions.start(&session("s"), &TokenHash([1; 32])).await.unwrap();
    for end in ["", "-wal", "-shm"] {
        let path = format!("{}{end}", place.file().display());
        assert_eq!(mode(path.as_ref()), 0o600, "{path}");
    }
}

async fn a_name_with_odd_characters_names_that_file(place: Place) {
    let Place::Sqlite(folder) = &place else { panic!("not SQLite") };
    for name in ["a b.db", "a%20b.db", "a#b.db", "\u{e5}.db", "a&mode=memory.db"] {
        let path = folder.path().join(name);
        Sql::sqlite(&path).await.unwrap().close().await;
        assert!(fs::metadata(&path).unwrap().len() > 0, "{name}");
    }
    let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.retain(|name| !name.to_str().unwrap().contains(".db"));
    assert!(names.is_empty(), "{names:?}");
}

async fn many_processes_can_open_a_new_file_at_once(place: Place) {
    let Place::Sqlite(folder) = &place else { panic!("not SQLite") };
    for round in 0..3 {
        let processes: Vec<_> = (0..6)
            .map(|number| {
                let mut add = Command::new(env!("CARGO_BIN_EXE_portcullis"));
                add.args(["user", "add", &format!("user{number}"), "--no-password"]).current_dir(folder.path());
                add.env("DATABASE_URL", format!("sqlite:round{round}.db")).stdin(Stdio::null());
                add.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        for process in processes {
            let output = process.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let opened = Sql::sqlite(&folder.path().join(format!("round{round}.db"))).await.unwrap();
        assert_eq!(opened.list(None, 100).await.unwrap().len(), 6);
    }
}

async fn a_file_that_somebody_writes_to_for_long_can_be_opened(place: Place) {
    place.stores().await.unwrap();
    let mut writer = sql(&place, &["BEGIN IMMEDIATE"]).await;
    tokio::time::timeout(Duration::from_secs(20), place.stores()).await.unwrap().unwrap();
    writer.execute("ROLLBACK").await.unwrap();
}
