//! What a new password must be (NIST SP 800-63B 3.1.1.2, ASVS 6.2): long enough, and not one that is tried first.
//! No rules of composition: they make passwords worse.

use std::fmt;

use super::MOST_BYTES;

/// The fewest characters of a new password.
const FEWEST: usize = 8;

/// Passwords that stand at the top of every published list, in lower case; shorter ones are refused anyway.
const COMMON: &str = include_str!("common.txt");

/// Why a new password is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weak {
    /// It is the name of the account.
    AccountName,
    /// It is one of those that are tried first.
    Common,
    /// It has more than [`MOST_BYTES`] bytes.
    TooLong,
    /// It has fewer than eight characters.
    TooShort,
}

/// Checks a password that somebody is about to get.
pub fn check_new(password: &str, account: &str) -> Result<(), Weak> {
    if password.len() > MOST_BYTES {
        return Err(Weak::TooLong);
    }
    if password.chars().take(FEWEST).count() < FEWEST {
        return Err(Weak::TooShort);
    }
    let lower = password.to_lowercase();
    let account = account.trim().to_lowercase();
    let before_at = account.split('@').next().unwrap_or_default();
    if lower.trim() == account || lower.trim() == before_at {
        return Err(Weak::AccountName);
    }
    let one_character = password.chars().all(|char| password.starts_with(char));
    if one_character || COMMON.lines().any(|common| common == lower) {
        return Err(Weak::Common);
    }
    Ok(())
}

impl fmt::Display for Weak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AccountName => f.write_str("the password is the name of the account"),
            Self::Common => f.write_str("the password is one of those that are tried first"),
            Self::TooLong => write!(f, "the password has more than {MOST_BYTES} bytes"),
            Self::TooShort => write!(f, "the password has fewer than {FEWEST} characters"),
        }
    }
}

impl std::error::Error for Weak {}
