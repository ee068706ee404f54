//! Users.

use std::collections::HashSet;

use async_trait::async_trait;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row};

use crate::clock::Timestamp;
use crate::identity::account::AccountName;
use crate::secret::Secret;
use crate::store::{Added, StoreError, User, Users, hash_kind};

use super::{CHUNK, LONG, PATIENCE, Sql, changed, column, json, list, moment, placeholders, unavailable, within};

const INSERT: &str = "INSERT INTO portcullis_users \
    (id, name, account, email, hash, hash_kind, roles, scopes, tenant, disabled, created, updated) VALUES ";

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, account, email, hash, roles, scopes, tenant, disabled, created, updated \
             FROM portcullis_users ",
            $rest
        )
    };
}

fn read(row: &AnyRow) -> Result<User, StoreError> {
    let account: String = column(row, "account")?;
    let account = AccountName::parse(&account)
        .map_err(|error| StoreError::Corrupt(format!("the name of an account: {error}")))?;
    Ok(User {
        id: column(row, "id")?,
        name: column(row, "name")?,
        account,
        email: column(row, "email")?,
        hash: column::<Option<String>>(row, "hash")?.map(Secret::new),
        roles: list(row, "roles")?,
        scopes: list(row, "scopes")?,
        tenant: column(row, "tenant")?,
        disabled: column::<i64>(row, "disabled")? != 0,
        created: moment(row, "created")?,
        updated: moment(row, "updated")?,
    })
}

impl Sql {
    async fn one_user(&self, statement: &'static str, value: &str) -> Result<Option<User>, StoreError> {
        within(PATIENCE, async {
            let row = sqlx::query(statement).bind(value).fetch_optional(&self.read).await.map_err(unavailable)?;
            row.as_ref().map(read).transpose()
        })
        .await
    }
}

#[async_trait]
impl Users for Sql {
    async fn add(&self, users: &[User]) -> Result<Added, StoreError> {
        within(LONG, async {
            let mut transaction = self.begin().await?;
            let (mut names, mut ids, mut taken) = (HashSet::new(), HashSet::new(), Vec::new());
            for (number, chunk) in users.chunks(CHUNK).enumerate() {
                let end = " ON CONFLICT DO NOTHING RETURNING id";
                let statement = format!("{INSERT}{}{end}", placeholders(chunk.len(), 12));
                let mut query = sqlx::query(AssertSqlSafe(statement));
                for user in chunk {
                    let hash = user.hash.as_ref().map(|hash| hash.expose().as_str());
                    query = query
                        .bind(user.id.as_str())
                        .bind(user.name.as_str())
                        .bind(user.account.as_str())
                        .bind(user.email.as_deref())
                        .bind(hash)
                        .bind(hash.map(hash_kind))
                        .bind(json(&user.roles))
                        .bind(json(&user.scopes))
                        .bind(user.tenant.as_deref())
                        .bind(i64::from(user.disabled))
                        .bind(user.created.as_millis())
                        .bind(user.updated.as_millis());
                }
                let rows = query.fetch_all(&mut *transaction).await.map_err(unavailable)?;
                let mut added = HashSet::new();
                for row in &rows {
                    added.insert(row.try_get::<String, _>(0).map_err(unavailable)?);
                }
                for (at, user) in chunk.iter().enumerate() {
                    if !names.insert(&user.account) | !ids.insert(&user.id) || !added.contains(&user.id) {
                        taken.push(number * CHUNK + at);
                    }
                }
            }
            if taken.is_empty() {
                transaction.commit().await.map_err(unavailable)?;
                return Ok(Added::All);
            }
            transaction.rollback().await.map_err(unavailable)?;
            Ok(Added::Taken(taken))
        })
        .await
    }

    async fn by_account(&self, account: &AccountName) -> Result<Option<User>, StoreError> {
        self.one_user(select!("WHERE account = $1"), account.as_str()).await
    }

    async fn by_id(&self, id: &str) -> Result<Option<User>, StoreError> {
        self.one_user(select!("WHERE id = $1"), id).await
    }

    async fn list(&self, after: Option<&AccountName>, most: u32) -> Result<Vec<User>, StoreError> {
        within(PATIENCE, async {
            let rows = sqlx::query(select!("WHERE account > $1 ORDER BY account LIMIT $2"))
                .bind(after.map_or("", AccountName::as_str))
                .bind(i64::from(most))
                .fetch_all(&self.read)
                .await
                .map_err(unavailable)?;
            rows.iter().map(read).collect()
        })
        .await
    }

    async fn update(&self, user: &User) -> Result<bool, StoreError> {
        let hash = user.hash.as_ref().map(|hash| hash.expose().as_str());
        within(PATIENCE, async {
            let updated = sqlx::query(
                "UPDATE portcullis_users SET name = $2, account = $3, email = $4, hash = $5, hash_kind = $6, \
                 roles = $7, scopes = $8, tenant = $9, disabled = $10, updated = $11 WHERE id = $1",
            )
            .bind(user.id.as_str())
            .bind(user.name.as_str())
            .bind(user.account.as_str())
            .bind(user.email.as_deref())
            .bind(hash)
            .bind(hash.map(hash_kind))
            .bind(json(&user.roles))
            .bind(json(&user.scopes))
            .bind(user.tenant.as_deref())
            .bind(i64::from(user.disabled))
            .bind(user.updated.as_millis())
            .execute(&self.write)
            .await;
            match updated {
                Ok(result) => Ok(changed(&result)),
                Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(false),
                Err(error) => Err(unavailable(error)),
            }
        })
        .await
    }

    async fn replace_hash(&self, id: &str, old: &str, new: &str, now: Timestamp) -> Result<bool, StoreError> {
        within(PATIENCE, async {
            let result = sqlx::query(
                "UPDATE portcullis_users SET hash = $3, hash_kind = $4, updated = $5 WHERE id = $1 AND hash = $2",
            )
            .bind(id)
            .bind(old)
            .bind(new)
            .bind(hash_kind(new))
            .bind(now.as_millis())
            .execute(&self.write)
            .await;
            result.map(|result| changed(&result)).map_err(unavailable)
        })
        .await
    }

    async fn remove(&self, id: &str) -> Result<bool, StoreError> {
        within(PATIENCE, async {
            let mut transaction = self.begin().await?;
            let removed = sqlx::query("DELETE FROM portcullis_users WHERE id = $1").bind(id);
            let removed = changed(&removed.execute(&mut *transaction).await.map_err(unavailable)?);
            if removed {
                let sessions = sqlx::query("DELETE FROM portcullis_sessions WHERE user_id = $1").bind(id);
                sessions.execute(&mut *transaction).await.map_err(unavailable)?;
            }
            transaction.commit().await.map_err(unavailable)?;
            Ok(removed)
        })
        .await
    }

    async fn hash_kinds(&self) -> Result<Vec<(String, u64)>, StoreError> {
        within(PATIENCE, async {
            let rows = sqlx::query(
                "SELECT hash_kind, COUNT(*) AS users FROM portcullis_users WHERE hash_kind IS NOT NULL \
                 GROUP BY hash_kind ORDER BY users DESC, hash_kind LIMIT 100",
            )
            .fetch_all(&self.read)
            .await
            .map_err(unavailable)?;
            let kind = |row| Ok((column(row, "hash_kind")?, column::<i64>(row, "users")?.unsigned_abs()));
            rows.iter().map(kind).collect()
        })
        .await
    }
}
