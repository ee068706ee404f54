//! Sessions of browsers.

use std::net::IpAddr;

use async_trait::async_trait;
use sqlx::any::AnyRow;

use crate::clock::Timestamp;
use crate::store::{BrowserSession, BrowserSessions, CookieHash, LONGEST_LEASE, StoreError};

use super::{PATIENCE, Sql, changed, column, maybe_moment, moment, unavailable, within};

macro_rules! columns {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            " hash, id, app, issuer, user_id, sealed, version, started, expires, used, refresh_from, lease, address, \
             user_agent ",
            $after
        )
    };
}

fn read(row: &AnyRow) -> Result<BrowserSession, StoreError> {
    let address: Option<Result<IpAddr, _>> = column::<Option<String>>(row, "address")?.map(|text| text.parse());
    let address = address.transpose().map_err(|_| StoreError::Corrupt("an address of a session".to_owned()))?;
    let hash: [u8; 32] = column::<Vec<u8>>(row, "hash")?
        .try_into()
        .map_err(|_| StoreError::Corrupt("the hash of a session's cookie".to_owned()))?;
    Ok(BrowserSession {
        hash: CookieHash(hash),
        id: column(row, "id")?,
        app: column(row, "app")?,
        issuer: column(row, "issuer")?,
        user: column(row, "user_id")?,
        sealed: column(row, "sealed")?,
        version: column(row, "version")?,
        started: moment(row, "started")?,
        expires: moment(row, "expires")?,
        used: moment(row, "used")?,
        refresh_from: moment(row, "refresh_from")?,
        lease: maybe_moment(row, "lease")?,
        address,
        user_agent: column(row, "user_agent")?,
    })
}

#[async_trait]
impl BrowserSessions for Sql {
    async fn start(&self, session: &BrowserSession) -> Result<(), StoreError> {
        within(PATIENCE, async {
            let started = sqlx::query(columns!(
                "INSERT INTO portcullis_browser_sessions (",
                ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
            ))
            .bind(session.hash.0.as_slice())
            .bind(session.id.as_str())
            .bind(session.app.as_str())
            .bind(session.issuer.as_str())
            .bind(session.user.as_str())
            .bind(session.sealed.as_slice())
            .bind(session.version)
            .bind(session.started.as_millis())
            .bind(session.expires.as_millis())
            .bind(session.used.as_millis())
            .bind(session.refresh_from.as_millis())
            .bind(session.lease.map(Timestamp::as_millis))
            .bind(session.address.map(|address| address.to_string()))
            .bind(session.user_agent.as_str());
            started.execute(&self.write).await.map(drop).map_err(unavailable)
        })
        .await
    }

    async fn get(&self, hash: &CookieHash) -> Result<Option<BrowserSession>, StoreError> {
        within(PATIENCE, async {
            let row = sqlx::query(columns!("SELECT", "FROM portcullis_browser_sessions WHERE hash = $1"))
                .bind(hash.0.as_slice())
                .fetch_optional(&self.read)
                .await
                .map_err(unavailable)?;
            row.as_ref().map(read).transpose()
        })
        .await
    }

    async fn by_id(&self, id: &str) -> Result<Option<BrowserSession>, StoreError> {
        within(PATIENCE, async {
            let row = sqlx::query(columns!("SELECT", "FROM portcullis_browser_sessions WHERE id = $1"))
                .bind(id)
                .fetch_optional(&self.read)
                .await
                .map_err(unavailable)?;
            row.as_ref().map(read).transpose()
        })
        .await
    }

    async fn claim(
        &self,
        hash: &CookieHash,
        version: i64,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        within(PATIENCE, async {
            // See `rules::is_ahead` for what is further away than $5.
            let claimed = sqlx::query(
                "UPDATE portcullis_browser_sessions SET lease = $3 WHERE hash = $1 AND version = $2 \
                 AND (refresh_from <= $4 OR refresh_from > $5) AND (lease IS NULL OR lease <= $4 OR lease > $5)",
            )
            .bind(hash.0.as_slice())
            .bind(version)
            .bind(until.as_millis())
            .bind(now.as_millis())
            .bind(now.plus(LONGEST_LEASE).as_millis())
            .execute(&self.write)
            .await;
            claimed.map(|result| changed(&result)).map_err(unavailable)
        })
        .await
    }

    async fn replace(
        &self,
        hash: &CookieHash,
        version: i64,
        sealed: &[u8],
        refresh_from: Timestamp,
    ) -> Result<bool, StoreError> {
        within(PATIENCE, async {
            let replaced = sqlx::query(
                "UPDATE portcullis_browser_sessions SET sealed = $3, version = version + 1, refresh_from = $4, \
                 lease = NULL WHERE hash = $1 AND version = $2",
            )
            .bind(hash.0.as_slice())
            .bind(version)
            .bind(sealed)
            .bind(refresh_from.as_millis())
            .execute(&self.write)
            .await;
            replaced.map(|result| changed(&result)).map_err(unavailable)
        })
        .await
    }

    async fn release(&self, hash: &CookieHash, version: i64, refresh_from: Timestamp) -> Result<(), StoreError> {
        within(PATIENCE, async {
            let released = sqlx::query(
                "UPDATE portcullis_browser_sessions SET lease = NULL, refresh_from = $3 \
                 WHERE hash = $1 AND version = $2",
            )
            .bind(hash.0.as_slice())
            .bind(version)
            .bind(refresh_from.as_millis());
            released.execute(&self.write).await.map(drop).map_err(unavailable)
        })
        .await
    }

    async fn touch(&self, hash: &CookieHash, now: Timestamp) -> Result<(), StoreError> {
        within(PATIENCE, async {
            let touched = sqlx::query("UPDATE portcullis_browser_sessions SET used = $2 WHERE hash = $1 AND used < $2")
                .bind(hash.0.as_slice())
                .bind(now.as_millis());
            touched.execute(&self.write).await.map(drop).map_err(unavailable)
        })
        .await
    }

    async fn end(&self, hash: &CookieHash) -> Result<bool, StoreError> {
        within(PATIENCE, async {
            let ended = sqlx::query("DELETE FROM portcullis_browser_sessions WHERE hash = $1").bind(hash.0.as_slice());
            ended.execute(&self.write).await.map(|result| changed(&result)).map_err(unavailable)
        })
        .await
    }

    async fn end_all(&self, issuer: &str, user: &str) -> Result<Vec<BrowserSession>, StoreError> {
        within(PATIENCE, async {
            let rows = sqlx::query(columns!(
                "DELETE FROM portcullis_browser_sessions WHERE issuer = $1 AND user_id = $2 RETURNING",
                ""
            ))
            .bind(issuer)
            .bind(user)
            .fetch_all(&self.write)
            .await
            .map_err(unavailable)?;
            rows.iter().map(read).collect()
        })
        .await
    }

    async fn live(&self, user: Option<&str>, now: Timestamp, most: u32) -> Result<Vec<BrowserSession>, StoreError> {
        within(PATIENCE, async {
            let query = match user {
                None => sqlx::query(columns!(
                    "SELECT",
                    "FROM portcullis_browser_sessions WHERE expires > $1 ORDER BY started DESC, id DESC LIMIT $2"
                )),
                Some(_) => sqlx::query(columns!(
                    "SELECT",
                    "FROM portcullis_browser_sessions WHERE expires > $1 AND user_id = $3 \
                     ORDER BY started DESC, id DESC LIMIT $2"
                )),
            };
            let mut query = query.bind(now.as_millis()).bind(i64::from(most));
            if let Some(user) = user {
                query = query.bind(user);
            }
            let rows = query.fetch_all(&self.read).await.map_err(unavailable)?;
            rows.iter().map(read).collect()
        })
        .await
    }

    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError> {
        let statement = "DELETE FROM portcullis_browser_sessions WHERE hash IN \
                         (SELECT hash FROM portcullis_browser_sessions WHERE expires < $1 LIMIT $2)";
        self.sweep_with(statement, now).await
    }
}
