//! Signing keys.

use async_trait::async_trait;
use sqlx::any::AnyRow;

use crate::clock::Timestamp;
use crate::secret::Secret;
use crate::store::{SigningKey, SigningKeys, StoreError};

use super::{PATIENCE, Sql, changed, column, maybe_moment, moment, unavailable, within};

fn read(row: &AnyRow) -> Result<SigningKey, StoreError> {
    Ok(SigningKey {
        kid: column(row, "kid")?,
        purpose: column(row, "purpose")?,
        algorithm: column(row, "algorithm")?,
        private: Secret::new(column(row, "private")?),
        created: moment(row, "created")?,
        signs: moment(row, "signs")?,
        retired: maybe_moment(row, "retired")?,
    })
}

#[async_trait]
impl SigningKeys for Sql {
    async fn of(&self, purpose: &str) -> Result<Vec<SigningKey>, StoreError> {
        within(PATIENCE, async {
            let rows = sqlx::query(
                "SELECT kid, purpose, algorithm, private, created, signs, retired FROM portcullis_signing_keys \
                 WHERE purpose = $1 ORDER BY number",
            )
            .bind(purpose)
            .fetch_all(&self.read)
            .await
            .map_err(unavailable)?;
            rows.iter().map(read).collect()
        })
        .await
    }

    async fn add(&self, key: &SigningKey, last: Option<&str>) -> Result<bool, StoreError> {
        within(PATIENCE, async {
            let mut transaction = self.begin().await?;
            let newest = sqlx::query(
                "SELECT kid, number FROM portcullis_signing_keys WHERE purpose = $1 ORDER BY number DESC LIMIT 1",
            )
            .bind(key.purpose.as_str())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(unavailable)?;
            let (newest, number) = match &newest {
                None => (None, 0),
                Some(row) => (Some(column::<String>(row, "kid")?), column::<i64>(row, "number")?),
            };
            if newest.as_deref() != last {
                transaction.rollback().await.map_err(unavailable)?;
                return Ok(false);
            }
            // Whoever adds at the same moment adds the same number.
            let added = sqlx::query(
                "INSERT INTO portcullis_signing_keys \
                 (kid, purpose, number, algorithm, private, created, signs, retired) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
            )
            .bind(key.kid.as_str())
            .bind(key.purpose.as_str())
            .bind(number.saturating_add(1))
            .bind(key.algorithm.as_str())
            .bind(key.private.expose().as_str())
            .bind(key.created.as_millis())
            .bind(key.signs.as_millis())
            .bind(key.retired.map(Timestamp::as_millis))
            .execute(&mut *transaction)
            .await
            .map_err(unavailable)?;
            transaction.commit().await.map_err(unavailable)?;
            Ok(changed(&added))
        })
        .await
    }

    async fn retire(&self, kid: &str, at: Timestamp) -> Result<(), StoreError> {
        within(PATIENCE, async {
            let retired =
                sqlx::query("UPDATE portcullis_signing_keys SET retired = $2 WHERE kid = $1 AND retired IS NULL");
            let retired = retired.bind(kid).bind(at.as_millis());
            retired.execute(&self.write).await.map(drop).map_err(unavailable)
        })
        .await
    }

    async fn remove(&self, kid: &str) -> Result<(), StoreError> {
        within(PATIENCE, async {
            let removed = sqlx::query("DELETE FROM portcullis_signing_keys WHERE kid = $1").bind(kid);
            removed.execute(&self.write).await.map(drop).map_err(unavailable)
        })
        .await
    }
}
