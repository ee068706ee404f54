//! Names of accounts: what people type, and the one spelling under which it is looked up and counted.
//!
//! `John`, `john`, `ＪＯＨＮ` and `john` with an invisible character are one account, and one bucket of the throttle
//! (Authelia CVE-2026-47203 had one for each spelling).

use std::fmt;

use icu_normalizer::uts46::Uts46MapperBorrowed;

/// The most characters of a name, before and after mapping.
const MOST: usize = 256;

/// The canonical form of an account's name: case folded, compatibility forms and invisible characters gone (the
/// mapping of Unicode TS 46, which is NFKC with case folding), blanks trimmed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountName(Box<str>);

/// Why a text is no account's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountError {
    /// Nothing is left of it.
    Empty,
    /// It has more than 256 characters.
    TooLong,
    /// It has control characters, or some that no name has.
    BadCharacter,
}

impl AccountName {
    /// The canonical form of a name as it was typed.
    pub fn parse(typed: &str) -> Result<Self, AccountError> {
        if typed.chars().take(MOST + 1).count() > MOST {
            return Err(AccountError::TooLong);
        }
        let joiners = ['\u{200c}', '\u{200d}']; // kept by the mapping, for scripts that need them in host names
        let typed = typed.trim().chars().filter(|char| !joiners.contains(char));
        let mapped: String = Uts46MapperBorrowed::new().map_normalize(typed).collect();
        let mapped = mapped.trim();
        if mapped.is_empty() {
            return Err(AccountError::Empty);
        }
        if mapped.chars().count() > MOST {
            return Err(AccountError::TooLong);
        }
        if mapped.chars().any(|char| char.is_control() || char == char::REPLACEMENT_CHARACTER) {
            return Err(AccountError::BadCharacter);
        }
        Ok(Self(mapped.into()))
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for AccountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the name is empty",
            Self::TooLong => "the name has more than 256 characters",
            Self::BadCharacter => "the name has a character that no name may have",
        })
    }
}

impl std::error::Error for AccountError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_of_a_name_are_one_account() {
        for (spellings, expected) in [
            (
                &["John", "john", "JOHN", "ＪＯＨＮ", " john ", "jo\u{200b}hn", "john\u{200d}", "john\u{3000}"][..],
                "john",
            ),
            (&["jöhn", "jo\u{308}hn", "JÖHN"], "jöhn"),
            (&["Ada@Example.com"], "ada@example.com"),
            (&["Ada  Lovelace"], "ada  lovelace"),
        ] {
            for spelling in spellings {
                assert_eq!(
                    AccountName::parse(spelling).map(|name| name.to_string()),
                    Ok(expected.into()),
                    "{spelling}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for (typed, expected) in [
            ("", AccountError::Empty),
            (" \u{200b} ", AccountError::Empty),
            ("a\0b", AccountError::BadCharacter),
            ("a\nb", AccountError::BadCharacter),
            ("a\u{fffd}", AccountError::BadCharacter),
            (&"a".repeat(257), AccountError::TooLong),
            (&"ﷺ".repeat(250), AccountError::TooLong),
        ] {
            assert_eq!(AccountName::parse(typed), Err(expected), "{typed:?}");
        }
    }
}
