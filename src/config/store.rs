//! Where state is kept: `store` and `redis`.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::secret::Secret;

/// A database, and the setting that names it.
#[derive(Clone, Debug)]
pub struct StoreUrl {
    /// Which database.
    pub database: Database,
    /// Where it was set, for messages: `store`, `DATABASE_URL`, …
    pub setting: &'static str,
}

/// A database.
#[derive(Clone, Debug)]
pub enum Database {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL URL, which may hold a password.
    Postgres(Secret<String>),
}

/// A Redis URL, which may hold a password, and the setting that names it.
#[derive(Clone, Debug)]
pub struct RedisUrl {
    /// The URL.
    pub url: Secret<String>,
    /// Where it was set, for messages.
    pub setting: &'static str,
}

/// Why a text names no store. Neither shows the text, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadUrl {
    /// What is wrong.
    pub message: &'static str,
    /// What belongs there.
    pub help: &'static str,
}

impl StoreUrl {
    /// `sqlite:PATH` (relative to `folder`) or `postgres://…`. The forms that SQLAlchemy writes, as many apps have them
    /// in `DATABASE_URL`, mean what they mean there: `postgresql+asyncpg://…`, `sqlite+aiosqlite:///./app.db`.
    pub fn parse(text: &str, folder: &Path, setting: &'static str) -> Result<Self, BadUrl> {
        const KNOWN: &str = "`sqlite:PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`";
        let bad = |message| Err(BadUrl { message, help: KNOWN });
        let Some((scheme, rest)) = text.split_once(':') else { return bad("a store is named by a URL") };
        let database = match scheme.split_once('+').map_or(scheme, |(database, _)| database) {
            "sqlite" => {
                // SQLAlchemy: three slashes are relative, four are absolute.
                let path = match rest.strip_prefix("//") {
                    None => rest,
                    Some(rest) => match rest.strip_prefix('/') {
                        Some(path) => path,
                        None => return bad("a SQLite store is named by its path"),
                    },
                };
                if path.is_empty() || path.ends_with('/') || path == ":memory:" || path.contains('?') {
                    return bad("a SQLite store is a file, without parameters");
                }
                Database::Sqlite(folder.join(path))
            }
            "postgres" | "postgresql" => {
                let host = rest.strip_prefix("//").unwrap_or_default();
                if host.is_empty() {
                    return bad("a PostgreSQL store is named by host and database");
                }
                Database::Postgres(Secret::new(format!("postgres://{host}")))
            }
            _ => return bad("unknown kind of store"),
        };
        Ok(Self { database, setting })
    }
}

impl RedisUrl {
    /// `redis://…` or `rediss://…` (TLS).
    pub fn parse(text: &str, setting: &'static str) -> Result<Self, BadUrl> {
        let help = "`redis://HOST:PORT/DATABASE`, or `rediss://` for TLS";
        let rest = text.strip_prefix("redis://").or_else(|| text.strip_prefix("rediss://"));
        if rest.unwrap_or_default().is_empty() {
            return Err(BadUrl { message: "it is not the URL of a Redis server", help });
        }
        Ok(Self { url: Secret::new(text.to_owned()), setting })
    }
}

/// A URL without user, password and parameters.
fn redacted(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{rest}")
}

impl fmt::Display for StoreUrl {
    /// Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.database {
            Database::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Database::Postgres(url) => f.write_str(&redacted(url.expose())),
        }
    }
}

impl fmt::Display for RedisUrl {
    /// Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redacted(self.url.expose()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_a_file_or_a_server() {
        for (text, expected) in [
            ("sqlite:x.db", Ok("sqlite:conf/x.db")),
            ("sqlite:/var/lib/x.db", Ok("sqlite:/var/lib/x.db")),
            ("sqlite:///./x.db", Ok("sqlite:conf/./x.db")),
            ("sqlite:////var/lib/x.db", Ok("sqlite:/var/lib/x.db")),
            ("sqlite+aiosqlite:///x.db", Ok("sqlite:conf/x.db")),
            ("postgres://ada:canary@db:5432/app?password=canary", Ok("postgres://db:5432/app")),
            ("postgresql+asyncpg://ada:can@ary@db/app", Ok("postgres://db/app")),
            ("sqlite:", Err("a SQLite store is a file, without parameters")),
            ("sqlite::memory:", Err("a SQLite store is a file, without parameters")),
            ("sqlite:x.db?mode=memory", Err("a SQLite store is a file, without parameters")),
            ("sqlite://x.db", Err("a SQLite store is named by its path")),
            ("postgres:app", Err("a PostgreSQL store is named by host and database")),
            ("mysql://db/app", Err("unknown kind of store")),
            ("x.db", Err("a store is named by a URL")),
        ] {
            let parsed = StoreUrl::parse(text, Path::new("conf"), "store");
            assert!(!format!("{parsed:?}").contains("canary"), "{parsed:?}");
            let shown = parsed.map(|url| url.to_string()).map_err(|bad| bad.message);
            assert_eq!(shown, expected.map(str::to_owned), "{text}");
        }
    }

    #[test]
    fn a_redis_url_shows_no_password() {
        for (text, expected) in [
            ("redis://:canary@cache:6379/1", Ok("redis://cache:6379/1")),
            ("rediss://cache", Ok("rediss://cache")),
            ("redis:cache", Err("it is not the URL of a Redis server")),
            ("redis://", Err("it is not the URL of a Redis server")),
        ] {
            let shown = RedisUrl::parse(text, "redis").map(|url| url.to_string()).map_err(|bad| bad.message);
            assert_eq!(shown, expected.map(str::to_owned), "{text}");
        }
    }
}
