//! Revocations.

use async_trait::async_trait;
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use crate::clock::Timestamp;
use crate::store::{Cursor, Revocation, Revocations, Revoked, StoreError};

use super::{CHUNK, LONG, PATIENCE, Sql, column, maybe_moment, moment, placeholders, unavailable, within};

/// How many are read at once.
const PAGE: i64 = 5000;

fn read(row: &AnyRow) -> Result<Revocation, StoreError> {
    let (kind, before) = (column::<String>(row, "kind")?, maybe_moment(row, "issued_before")?);
    let revoked = Revoked::decode(&kind, column(row, "value")?, before.map(Timestamp::as_millis))
        .ok_or_else(|| StoreError::Corrupt("the kind of a revocation".to_owned()))?;
    Ok(Revocation { issuer: column(row, "issuer")?, revoked, until: moment(row, "until")? })
}

#[async_trait]
impl Revocations for Sql {
    async fn add(&self, revocations: &[Revocation], now: Timestamp) -> Result<(), StoreError> {
        let Ok(count) = i64::try_from(revocations.len()) else { return Ok(()) };
        if count == 0 {
            return Ok(());
        }
        within(LONG, async {
            let mut transaction = self.begin().await?;
            // Positions follow the time, so that readers who are ahead of a restored backup see what is new.
            let row = sqlx::query(
                "UPDATE portcullis_revocation_position \
                 SET position = CASE WHEN position < $1 THEN $1 ELSE position END + $2 RETURNING position",
            )
            .bind(now.as_millis())
            .bind(count)
            .fetch_one(&mut *transaction)
            .await
            .map_err(unavailable)?;
            let mut position = column::<i64>(&row, "position")?.saturating_sub(count);
            for chunk in revocations.chunks(CHUNK) {
                let statement = format!(
                    "INSERT INTO portcullis_revocations (position, issuer, kind, value, issued_before, until) VALUES {}",
                    placeholders(chunk.len(), 6)
                );
                let mut query = sqlx::query(AssertSqlSafe(statement));
                for revocation in chunk {
                    position = position.saturating_add(1);
                    let (kind, value, before) = revocation.revoked.encode();
                    query = query
                        .bind(position)
                        .bind(revocation.issuer.as_str())
                        .bind(kind)
                        .bind(value.into_owned())
                        .bind(before)
                        .bind(revocation.until.as_millis());
                }
                query.execute(&mut *transaction).await.map_err(unavailable)?;
            }
            transaction.commit().await.map_err(unavailable)
        })
        .await
    }

    async fn since(&self, cursor: &mut Cursor, now: Timestamp) -> Result<Vec<Revocation>, StoreError> {
        let after = cursor.0;
        let rows = within(PATIENCE, async {
            sqlx::query(
                "SELECT position, issuer, kind, value, issued_before, until FROM portcullis_revocations \
                 WHERE position > $1 AND until > $2 ORDER BY position LIMIT $3",
            )
            .bind(after)
            .bind(now.as_millis())
            .bind(PAGE)
            .fetch_all(&self.read)
            .await
            .map_err(unavailable)
        })
        .await?;
        let found: Vec<Revocation> = rows.iter().map(read).collect::<Result<_, _>>()?;
        if let Some(last) = rows.last() {
            cursor.0 = column(last, "position")?;
        }
        Ok(found)
    }

    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError> {
        let statement = "DELETE FROM portcullis_revocations WHERE position IN \
                         (SELECT position FROM portcullis_revocations WHERE until < $1 LIMIT $2)";
        self.sweep_with(statement, now).await
    }
}
