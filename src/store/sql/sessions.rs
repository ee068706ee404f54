//! Sessions and refresh tokens.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::any::AnyRow;

use crate::clock::Timestamp;
use crate::store::rules::{self, Presented, Verdict};
use crate::store::{EndedBy, Rotation, Session, Sessions, StoreError, Successor, TokenHash};

use super::{PATIENCE, Sql, changed, column, json, list, maybe_moment, moment, unavailable, within};

macro_rules! columns {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            " portcullis_sessions.id, user_id, issuer, app, scopes, started, expires, portcullis_sessions.used, \
             address, user_agent, ended, ended_by ",
            $after
        )
    };
}

fn read(row: &AnyRow) -> Result<Session, StoreError> {
    let address = column::<Option<String>>(row, "address")?;
    let address: Option<Result<IpAddr, _>> = address.map(|text| text.parse());
    let address = address.transpose().map_err(|_| StoreError::Corrupt("an address of a session".to_owned()))?;
    let ended = match (maybe_moment(row, "ended")?, column::<Option<String>>(row, "ended_by")?) {
        (Some(at), Some(by)) => Some((at, reason(&by)?)),
        (None, None) => None,
        _ => return Err(StoreError::Corrupt("the end of a session".to_owned())),
    };
    Ok(Session {
        id: column(row, "id")?,
        user: column(row, "user_id")?,
        issuer: column(row, "issuer")?,
        app: column(row, "app")?,
        scopes: list(row, "scopes")?,
        started: moment(row, "started")?,
        expires: moment(row, "expires")?,
        used: moment(row, "used")?,
        address,
        user_agent: column(row, "user_agent")?,
        ended,
    })
}

const REASONS: [(EndedBy, &str); 5] = [
    (EndedBy::Logout, "logout"),
    (EndedBy::Revoked, "revoked"),
    (EndedBy::Reuse, "reuse"),
    (EndedBy::User, "user"),
    (EndedBy::Operator, "operator"),
];

fn word(by: EndedBy) -> &'static str {
    REASONS.iter().find(|(reason, _)| *reason == by).map_or("operator", |(_, word)| word)
}

fn reason(word: &str) -> Result<EndedBy, StoreError> {
    let found = REASONS.iter().find(|(_, known)| *known == word).map(|(reason, _)| *reason);
    found.ok_or_else(|| StoreError::Corrupt("the reason why a session ended".to_owned()))
}

#[async_trait]
impl Sessions for Sql {
    async fn start(&self, session: &Session, head: &TokenHash) -> Result<(), StoreError> {
        within(PATIENCE, async {
            let mut transaction = self.begin().await?;
            sqlx::query(
                "INSERT INTO portcullis_sessions (id, user_id, issuer, app, scopes, started, expires, used, address, \
                 user_agent, ended, ended_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            )
            .bind(session.id.as_str())
            .bind(session.user.as_str())
            .bind(session.issuer.as_str())
            .bind(session.app.as_str())
            .bind(json(&session.scopes))
            .bind(session.started.as_millis())
            .bind(session.expires.as_millis())
            .bind(session.used.as_millis())
            .bind(session.address.map(|address| address.to_string()))
            .bind(session.user_agent.as_str())
            .bind(session.ended.map(|(at, _)| at.as_millis()))
            .bind(session.ended.map(|(_, by)| word(by)))
            .execute(&mut *transaction)
            .await
            .map_err(unavailable)?;
            sqlx::query("INSERT INTO portcullis_refresh_tokens (hash, session_id, issued) VALUES ($1, $2, $3)")
                .bind(head.0.as_slice())
                .bind(session.id.as_str())
                .bind(session.started.as_millis())
                .execute(&mut *transaction)
                .await
                .map_err(unavailable)?;
            transaction.commit().await.map_err(unavailable)
        })
        .await
    }

    async fn of_token(&self, token: &TokenHash) -> Result<Option<Session>, StoreError> {
        within(PATIENCE, async {
            let row = sqlx::query(columns!(
                "SELECT",
                "FROM portcullis_sessions JOIN portcullis_refresh_tokens \
                 ON session_id = portcullis_sessions.id WHERE hash = $1"
            ))
            .bind(token.0.as_slice())
            .fetch_optional(&self.read)
            .await
            .map_err(unavailable)?;
            row.as_ref().map(read).transpose()
        })
        .await
    }

    async fn rotate(
        &self,
        presented: &TokenHash,
        successor: &Successor,
        window: Duration,
        now: Timestamp,
    ) -> Result<Rotation, StoreError> {
        within(PATIENCE, async {
            let mut transaction = self.begin().await?;
            // Takes the session's row: who rotates or ends the same session waits here, and then sees what was done.
            let row = sqlx::query(columns!(
                "UPDATE portcullis_sessions SET used = used \
                 WHERE id = (SELECT session_id FROM portcullis_refresh_tokens WHERE hash = $1) RETURNING",
                ""
            ))
            .bind(presented.0.as_slice())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(unavailable)?;
            let Some(row) = row else {
                transaction.rollback().await.map_err(unavailable)?;
                return Ok(Rotation::Unknown);
            };
            let mut session = read(&row)?;
            let token = sqlx::query(
                "SELECT used, sealed, (SELECT COUNT(*) FROM portcullis_refresh_tokens AS following \
                 WHERE following.hash = presented.next AND following.used IS NULL) AS successors \
                 FROM portcullis_refresh_tokens AS presented WHERE hash = $1",
            )
            .bind(presented.0.as_slice())
            .fetch_one(&mut *transaction)
            .await
            .map_err(unavailable)?;
            let known = Presented {
                used: maybe_moment(&token, "used")?,
                successor_is_head: column::<i64>(&token, "successors")? > 0,
            };
            let rotation = match rules::judge(&session, known, window, now) {
                Verdict::Rotate => {
                    let replaced = sqlx::query(
                        "UPDATE portcullis_refresh_tokens SET used = $2, next = $3, sealed = $4 \
                         WHERE hash = $1 AND used IS NULL",
                    )
                    .bind(presented.0.as_slice())
                    .bind(now.as_millis())
                    .bind(successor.hash.0.as_slice())
                    .bind(successor.sealed.as_slice())
                    .execute(&mut *transaction)
                    .await
                    .map_err(unavailable)?;
                    if !changed(&replaced) {
                        return Err(StoreError::Unavailable("the head moved in spite of the lock".to_owned()));
                    }
                    sqlx::query("INSERT INTO portcullis_refresh_tokens (hash, session_id, issued) VALUES ($1, $2, $3)")
                        .bind(successor.hash.0.as_slice())
                        .bind(session.id.as_str())
                        .bind(now.as_millis())
                        .execute(&mut *transaction)
                        .await
                        .map_err(unavailable)?;
                    sqlx::query("UPDATE portcullis_sessions SET used = $2 WHERE id = $1")
                        .bind(session.id.as_str())
                        .bind(now.as_millis())
                        .execute(&mut *transaction)
                        .await
                        .map_err(unavailable)?;
                    session.used = now;
                    Rotation::Rotated(session)
                }
                Verdict::Reuse => {
                    if session.is_live(now) {
                        sqlx::query("UPDATE portcullis_sessions SET ended = $2, ended_by = $3 WHERE id = $1")
                            .bind(session.id.as_str())
                            .bind(now.as_millis())
                            .bind(word(EndedBy::Reuse))
                            .execute(&mut *transaction)
                            .await
                            .map_err(unavailable)?;
                        session.ended = Some((now, EndedBy::Reuse));
                    }
                    Rotation::Reused(session)
                }
                Verdict::Repeat => {
                    let sealed = column::<Option<Vec<u8>>>(&token, "sealed")?;
                    let lost = || StoreError::Corrupt("a used refresh token without its successor".to_owned());
                    let sealed = sealed.ok_or_else(lost)?;
                    transaction.rollback().await.map_err(unavailable)?;
                    return Ok(Rotation::Repeated(session, sealed));
                }
                Verdict::Over => {
                    transaction.rollback().await.map_err(unavailable)?;
                    return Ok(Rotation::Over(session));
                }
            };
            transaction.commit().await.map_err(unavailable)?;
            Ok(rotation)
        })
        .await
    }

    async fn get(&self, id: &str) -> Result<Option<Session>, StoreError> {
        within(PATIENCE, async {
            let row = sqlx::query(columns!("SELECT", "FROM portcullis_sessions WHERE id = $1"))
                .bind(id)
                .fetch_optional(&self.read)
                .await
                .map_err(unavailable)?;
            row.as_ref().map(read).transpose()
        })
        .await
    }

    async fn live(&self, user: Option<&str>, now: Timestamp, most: u32) -> Result<Vec<Session>, StoreError> {
        within(PATIENCE, async {
            let query = match user {
                None => sqlx::query(columns!(
                    "SELECT",
                    "FROM portcullis_sessions WHERE ended IS NULL AND expires > $1 \
                     ORDER BY started DESC, id DESC LIMIT $2"
                )),
                Some(_) => sqlx::query(columns!(
                    "SELECT",
                    "FROM portcullis_sessions WHERE ended IS NULL AND expires > $1 AND user_id = $3 \
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

    async fn end(&self, id: &str, by: EndedBy, now: Timestamp) -> Result<bool, StoreError> {
        within(PATIENCE, async {
            let result = sqlx::query(
                "UPDATE portcullis_sessions SET ended = $2, ended_by = $3 \
                 WHERE id = $1 AND ended IS NULL AND expires > $2",
            )
            .bind(id)
            .bind(now.as_millis())
            .bind(word(by))
            .execute(&self.write)
            .await;
            result.map(|result| changed(&result)).map_err(unavailable)
        })
        .await
    }

    async fn end_all(
        &self,
        user: &str,
        but: Option<&str>,
        by: EndedBy,
        now: Timestamp,
    ) -> Result<Vec<String>, StoreError> {
        within(PATIENCE, async {
            let rows = sqlx::query(
                "UPDATE portcullis_sessions SET ended = $2, ended_by = $3 \
                 WHERE user_id = $1 AND ended IS NULL AND expires > $2 AND id <> $4 RETURNING id",
            )
            .bind(user)
            .bind(now.as_millis())
            .bind(word(by))
            .bind(but.unwrap_or_default()) // no session's id is empty
            .fetch_all(&self.write)
            .await
            .map_err(unavailable)?;
            rows.iter().map(|row| column(row, "id")).collect()
        })
        .await
    }

    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError> {
        let statement = "DELETE FROM portcullis_sessions WHERE id IN \
                         (SELECT id FROM portcullis_sessions WHERE expires < $1 LIMIT $2)";
        self.sweep_with(statement, now).await
    }
}
