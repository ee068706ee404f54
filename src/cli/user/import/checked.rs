//! From what a file states to users who can be stored, or why a row cannot be.

use std::collections::HashMap;

use crate::clock::Timestamp;
use crate::identity::account::AccountName;
use crate::password::{HashError, PasswordHash};
use crate::secret::Secret;
use crate::store::User;

use super::super::super::stores;
use super::super::{email, new_id, password, tenant, without_repeats};
use super::fields::printable;
use super::read::{Bad, Record, Stated};

/// The longest hash that is stored.
const LONGEST_HASH: usize = 1024;

/// The most roles, and the most scopes, of one user.
const MOST_NAMES: usize = 200;

/// A row without mistakes.
pub struct Checked {
    /// Where it stands.
    pub line: usize,
    /// The id to keep.
    pub id: Option<String>,
    /// The name as it is written.
    pub name: String,
    /// Its canonical form.
    pub account: AccountName,
    /// With what the user logs in.
    pub login: Login,
    /// Roles, where they are stated.
    pub roles: Option<Vec<String>>,
    /// Scopes, where they are stated.
    pub scopes: Option<Vec<String>>,
    email: Option<String>,
    tenant: Option<String>,
    disabled: Option<bool>,
}

/// With what a user logs in.
pub enum Login {
    /// Nothing yet.
    None,
    /// A hash, and its format.
    Hash(Secret<String>, &'static str),
    /// A password that is hashed when everything else is fine.
    Plain(Secret<String>),
}

/// Checks all records; what is wrong is added to `bad`.
pub fn check(records: Vec<Record>, allow_weak: bool, bad: &mut Vec<Bad>) -> Vec<Checked> {
    let mut names: HashMap<AccountName, usize> = HashMap::new();
    let mut ids: HashMap<String, usize> = HashMap::new();
    let mut checked = Vec::with_capacity(records.len());
    for record in records {
        let (line, name, id) = (record.line, record.name.clone(), record.id.clone());
        let result = AccountName::parse(&record.name).map_err(|error| error.to_string()).and_then(|account| {
            // Also where the first one is bad: that the second one is meant is no more likely.
            if let Some(first) = names.get(&account) {
                return Err(format!("the same name as line {first}"));
            }
            names.insert(account.clone(), line);
            if let Some(first) = id.and_then(|id| ids.insert(id, line)) {
                return Err(format!("the same id as line {first}"));
            }
            one(record, account, allow_weak)
        });
        match result {
            Ok(user) => checked.push(user),
            Err(why) => bad.push(Bad { line, name: Some(name), why }),
        }
    }
    checked
}

fn one(record: Record, account: AccountName, allow_weak: bool) -> Result<Checked, String> {
    if let Some(address) = &record.email {
        email(address).map_err(|why| format!("the email is not {why}"))?;
    }
    if let Some(name) = &record.tenant {
        tenant(name).map_err(|why| format!("the tenant is not {why}"))?;
    }
    for (kind, names) in [("role", &record.roles), ("scope", &record.scopes)] {
        for name in names.iter().flatten() {
            stores::check_word(name).map_err(|why| format!("{kind} `{}` is not {why}", printable(name)))?;
        }
        if names.as_ref().is_some_and(|names| names.len() > MOST_NAMES) {
            return Err(format!("more than {MOST_NAMES} {kind}s"));
        }
    }
    Ok(Checked {
        line: record.line,
        id: record.id,
        name: record.name,
        login: login(record.password, &account, allow_weak)?,
        account,
        roles: record.roles,
        scopes: record.scopes,
        email: record.email,
        tenant: record.tenant,
        disabled: record.disabled,
    })
}

fn login(stated: Stated, account: &AccountName, allow_weak: bool) -> Result<Login, String> {
    let (text, is_hash) = match stated {
        Stated::Nothing => return Ok(Login::None),
        Stated::Hash(hash) => (hash, true),
        Stated::Either(text) => (text, false),
    };
    if text.expose().len() <= LONGEST_HASH {
        match PasswordHash::parse(text.expose()) {
            Ok(hash) => {
                let format = hash.format();
                return Ok(Login::Hash(text, format));
            }
            Err(HashError::Unusable) if is_hash => return Ok(Login::None),
            Err(HashError::Unusable) => {} // a password may begin with `!`
            Err(HashError::Unknown(None)) if !is_hash && !looks_like_hash(text.expose()) => {}
            Err(HashError::Unknown(None)) => {
                return Err(match prefix(text.expose()) {
                    Some(prefix) => format!("not a password hash of a known format: `{prefix}`"),
                    None => HashError::Unknown(None).to_string(),
                });
            }
            Err(error) => return Err(error.to_string()),
        }
    } else if is_hash {
        return Err(format!("the hash is longer than {LONGEST_HASH} characters"));
    }
    if !allow_weak {
        password::good(text.expose(), account.as_str())?;
    } else if !(1..=1024).contains(&text.expose().len()) {
        return Err("the password is not 1 to 1024 bytes long".to_owned());
    }
    Ok(Login::Plain(text))
}

/// The name of an algorithm at the beginning of a stored hash, with what surrounds it: `$2b$`, `pbkdf2_sha256$`,
/// `scrypt:`, `{SSHA}`. Nothing else of it is ever shown.
fn prefix(stored: &str) -> Option<&str> {
    let is_name = |name: &str| {
        (1..=24).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let (open, ends): (&str, &[char]) = match stored.chars().next()? {
        '$' => ("$", &['$']),
        '{' => ("{", &['}']),
        _ => ("", &['$', ':']),
    };
    let rest = stored.strip_prefix(open)?;
    let end = rest.find(ends)?;
    let name = rest.get(..end)?;
    // Letters and digits before a colon or dollar could also be the beginning of a password.
    let plausible = !open.is_empty() || name.starts_with(|char: char| char.is_ascii_lowercase());
    if is_name(name) && plausible { stored.get(..open.len() + end + 1) } else { None }
}

/// Whether a text is a hash rather than a password: it begins like one and is long.
fn looks_like_hash(text: &str) -> bool {
    let hex = matches!(text.len(), 32 | 40 | 56 | 64 | 96 | 128) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    hex || (text.len() >= 13 && !text.contains(' ') && prefix(text).is_some())
}

impl Checked {
    /// The password that is to be hashed.
    pub fn plain(&self) -> Option<Secret<String>> {
        match &self.login {
            Login::Plain(password) => Some(password.clone()),
            Login::None | Login::Hash(..) => None,
        }
    }

    /// A new user. The next of `hashes` is taken where there was a password.
    pub fn into_user(self, now: Timestamp, hashes: &mut impl Iterator<Item = Secret<String>>) -> User {
        let empty = User {
            id: self.id.clone().unwrap_or_else(|| new_id(now)),
            name: self.name.clone(),
            account: self.account.clone(),
            email: None,
            hash: None,
            roles: Vec::new(),
            scopes: Vec::new(),
            tenant: None,
            disabled: false,
            created: now,
            updated: now,
        };
        self.change(empty, now, hashes)
    }

    /// A user with what the file states about it.
    pub fn change(self, user: User, now: Timestamp, hashes: &mut impl Iterator<Item = Secret<String>>) -> User {
        let hash = match self.login {
            Login::None => None,
            Login::Hash(hash, _) => Some(hash),
            Login::Plain(_) => hashes.next(),
        };
        User {
            email: self.email.or(user.email),
            hash: hash.or(user.hash),
            roles: self.roles.map_or(user.roles, |roles| without_repeats(&roles)),
            scopes: self.scopes.map_or(user.scopes, |scopes| without_repeats(&scopes)),
            tenant: self.tenant.or(user.tenant),
            disabled: self.disabled.unwrap_or(user.disabled),
            updated: now,
            ..user
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_of_an_algorithm_is_shown_of_a_hash() {
        for (stored, expected) in [
            ("$2b$12$abcdefghijkl", Some("$2b$")),
            ("$argon2id$v=19$m=1", Some("$argon2id$")),
            ("pbkdf2_sha256$1000$salt$hash", Some("pbkdf2_sha256$")),
            ("scrypt:32768:8:1$salt$hash", Some("scrypt:")),
            ("{SSHA}0123456789", Some("{SSHA}")),
            ("hunter2", None),
            ("my secret: 42$", None),
            ("Secret1$rest", None),
            ("$", None),
            ("", None),
            ("$ecret phrase$", None),
            ("0123456789abcdef0123456789abcdef:salt", None),
        ] {
            assert_eq!(prefix(stored), expected, "{stored}");
        }
    }
}
