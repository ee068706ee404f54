//! Counts of failed logins.

use async_trait::async_trait;
use sqlx::any::AnyRow;
use sqlx::{Any, Transaction};

use crate::clock::Timestamp;
use crate::policy::set::Lockout;
use crate::store::rules::Counter;
use crate::store::{Attempt, Attempts, StoreError};

use super::{PATIENCE, Sql, column, unavailable, within};

fn read(row: &AnyRow) -> Result<Counter, StoreError> {
    let number = |name| Ok(u32::try_from(column::<i64>(row, name)?).unwrap_or(u32::MAX));
    Ok(Counter {
        count: number("failures")?,
        since: column(row, "since_at")?,
        locked: column(row, "locked_until")?,
        locks: number("locks")?,
        forget: column(row, "forget_at")?,
    })
}

async fn write(mut transaction: Transaction<'static, Any>, key: &str, counter: Counter) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE portcullis_attempts SET failures = $2, since_at = $3, locked_until = $4, locks = $5, forget_at = $6 \
         WHERE attempt_key = $1",
    )
    .bind(key)
    .bind(i64::from(counter.count))
    .bind(counter.since)
    .bind(counter.locked)
    .bind(i64::from(counter.locks))
    .bind(counter.forget)
    .execute(&mut *transaction)
    .await
    .map_err(unavailable)?;
    transaction.commit().await.map_err(unavailable)
}

#[async_trait]
impl Attempts for Sql {
    async fn begin(&self, key: &str, lockout: &Lockout, now: Timestamp) -> Result<Attempt, StoreError> {
        within(PATIENCE, async {
            // Whoever is locked out costs one read.
            let row = sqlx::query(
                "SELECT failures, since_at, locked_until, locks, forget_at FROM portcullis_attempts \
                 WHERE attempt_key = $1",
            )
            .bind(key)
            .fetch_optional(&self.read)
            .await
            .map_err(unavailable)?;
            if let Some(left) = row.as_ref().map(read).transpose()?.and_then(|counter| counter.locked_for(now)) {
                return Ok(Attempt::Locked(left));
            }
            let mut transaction = self.begin().await?;
            let row = sqlx::query(
                "INSERT INTO portcullis_attempts (attempt_key, failures, since_at, locked_until, locks, forget_at) \
                 VALUES ($1, 0, 0, 0, 0, 0) \
                 ON CONFLICT (attempt_key) DO UPDATE SET locks = portcullis_attempts.locks \
                 RETURNING failures, since_at, locked_until, locks, forget_at",
            )
            .bind(key)
            .fetch_one(&mut *transaction)
            .await
            .map_err(unavailable)?;
            let mut counter = read(&row)?;
            let attempt = counter.begin(lockout, now);
            match attempt {
                Attempt::Open => write(transaction, key, counter).await?,
                Attempt::Locked(_) => transaction.rollback().await.map_err(unavailable)?,
            }
            Ok(attempt)
        })
        .await
    }

    async fn forgive(&self, key: &str, now: Timestamp) -> Result<(), StoreError> {
        within(PATIENCE, async {
            let mut transaction = self.begin().await?;
            let row = sqlx::query(
                "UPDATE portcullis_attempts SET locks = locks WHERE attempt_key = $1 \
                 RETURNING failures, since_at, locked_until, locks, forget_at",
            )
            .bind(key)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(unavailable)?;
            let Some(row) = row else { return transaction.rollback().await.map_err(unavailable) };
            let mut counter = read(&row)?;
            counter.forgive(now);
            write(transaction, key, counter).await
        })
        .await
    }

    async fn clear(&self, key: &str) -> Result<(), StoreError> {
        within(PATIENCE, async {
            let cleared = sqlx::query("DELETE FROM portcullis_attempts WHERE attempt_key = $1").bind(key);
            cleared.execute(&self.write).await.map(drop).map_err(unavailable)
        })
        .await
    }

    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError> {
        let statement = "DELETE FROM portcullis_attempts WHERE attempt_key IN \
                         (SELECT attempt_key FROM portcullis_attempts WHERE forget_at <= $1 LIMIT $2)";
        self.sweep_with(statement, now).await
    }
}
