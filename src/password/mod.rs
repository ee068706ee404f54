//! Stored password hashes: making, recognising and checking them.
//!
//! In: a stored text or a password, and salt. Out: a hash that is safe to check (its costs are capped when it is
//! read), a new hash, or a verdict. Pure, and slow on purpose: whoever calls this on a server does so in a pool for
//! blocking work with a bound (`login`). It does not know users, and never logs.
//!
//! Formats are read in `parse`, computed in `derive`; what a new password must be is in `strength`.

mod derive;
mod parse;
mod sha_crypt;
mod strength;
#[cfg(test)]
mod tests;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::secret::Secret;

pub use self::strength::{Weak, check_new};

/// The longest password that is looked at, in bytes. The shortest has one.
pub const MOST_BYTES: usize = 1024;

/// The memory of a new hash in KiB (OWASP's minimum for Argon2id with two passes).
const MEMORY: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const OUTPUT: usize = 32;

/// A stored hash, read and found safe to check: what it costs is bounded.
pub struct PasswordHash {
    format: &'static str,
    scheme: Scheme,
    salt: Vec<u8>,
    /// What the password must come out as.
    expected: Vec<u8>,
}

/// How a password becomes the bytes that are stored.
enum Scheme {
    Argon2 { algorithm: argon2::Algorithm, memory: u32, passes: u32, lanes: u32 },
    Bcrypt { cost: u32, before: Before },
    Firebase { cost: Cost, signer_key: Zeroizing<Vec<u8>> },
    Pbkdf2 { hash: aws_lc_rs::pbkdf2::Algorithm, rounds: std::num::NonZeroU32 },
    Scrypt(Cost),
    ShaCrypt { long: bool, rounds: u32 },
}

/// The costs of scrypt.
struct Cost {
    log_n: u8,
    r: u32,
    p: u32,
}

/// What is done to a password before bcrypt, so that more than its first 72 bytes count.
enum Before {
    Nothing,
    /// HMAC-SHA-256 under the salt's text, in base64 (passlib's version 2).
    HmacBase64(Box<str>),
    /// SHA-256 in base64 (passlib's version 1).
    Sha256Base64,
    /// SHA-256 in hex (Django).
    Sha256Hex,
}

/// What checking a password against a hash says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the password.
    Match,
    /// It is the password, and the hash is not what [`hash`] makes today: make a new one.
    MatchOutdated,
    /// It is not.
    NoMatch,
}

/// Why a stored text is no hash that can be checked, or why none could be made. Never contains any of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashError {
    /// The computation failed: there is not enough memory.
    Failed,
    /// A part of a known format cannot be read.
    Invalid {
        /// The format.
        format: &'static str,
        /// The part.
        part: &'static str,
    },
    /// A password is empty or has more than [`MOST_BYTES`] bytes.
    PasswordLength,
    /// The stored text is longer than any hash.
    TooLong,
    /// Checking it would take more memory or time than anybody may spend.
    TooCostly {
        /// The format.
        format: &'static str,
        /// The parameter.
        part: &'static str,
    },
    /// A format that is not supported: its prefix, where it is one that is in use somewhere.
    Unknown(Option<&'static str>),
    /// A mark in place of a hash: nobody can log in with it (Django's `!`).
    Unusable,
}

impl PasswordHash {
    /// Reads a stored hash. Everything that decides what checking it costs is compared with a bound here, before
    /// anything is allocated for it.
    ///
    /// ```text
    /// argon2  := ["argon2"] "$argon2" ("d"|"i"|"id") "$v=19$m=" n ",t=" n ",p=" n "$" base64 "$" base64
    /// bcrypt  := ["bcrypt$" | "bcrypt_sha256$"] ("$2a$"|"$2b$"|"$2y$") nn "$" salt22 hash31
    /// passlib := "$bcrypt-sha256$v=2,t=" ("2a"|"2b"|"2y") ",r=" n "$" salt22 "$" hash31
    ///          | "$bcrypt-sha256$" ("2a"|"2b"|"2y") "," n "$" salt22 "$" hash31
    ///          | "$pbkdf2" ["-sha256"|"-sha512"] "$" n "$" base64 "$" base64       ; "." for "+"
    ///          | "$scrypt$ln=" n ",r=" n ",p=" n "$" base64 "$" base64
    /// django  := ("pbkdf2_sha256$"|"pbkdf2_sha1$") n "$" salt "$" base64=
    ///          | "scrypt$" n "$" salt "$" n "$" n "$" base64=
    /// werkzeug:= "pbkdf2:" ("sha1"|"sha256"|"sha512") ":" n "$" salt "$" hex
    ///          | "scrypt:" n ":" n ":" n "$" salt "$" hex
    /// firebase:= "$fbscrypt$v=1,n=" n ",r=" n ",p=" n ",ss=" base64= ",sk=" base64= "$" base64= "$" base64=
    /// crypt(3) := ("$5$"|"$6$") ["rounds=" n "$"] salt "$" hash
    /// ```
    pub fn parse(stored: &str) -> Result<Self, HashError> {
        parse::parse(stored)
    }

    /// Checks a password, byte for byte as it was received. Takes as long as the costs of the hash say, whatever the
    /// outcome; a password of a length that nobody can have is refused at once.
    pub fn verify(&self, password: &[u8]) -> Result<Verdict, HashError> {
        if check_length(password).is_err() {
            return Ok(Verdict::NoMatch);
        }
        let mut found = Zeroizing::new(vec![0; self.expected.len()]);
        derive::derive(&self.scheme, password, &self.salt, &mut found)?;
        Ok(match bool::from(found.ct_eq(&self.expected)) {
            false => Verdict::NoMatch,
            true if self.is_outdated() => Verdict::MatchOutdated,
            true => Verdict::Match,
        })
    }

    /// The format, for people: `argon2id`, `bcrypt`, `django pbkdf2_sha256`, …
    pub fn format(&self) -> &'static str {
        self.format
    }

    /// Whether it costs so little that many passwords can be tried against a stolen copy.
    pub fn is_weak(&self) -> bool {
        match &self.scheme {
            Scheme::Argon2 { memory, .. } => *memory < 7 * 1024,
            Scheme::Bcrypt { cost, .. } => *cost < 10,
            Scheme::Firebase { cost, .. } | Scheme::Scrypt(cost) => cost.log_n < 14,
            Scheme::Pbkdf2 { rounds, .. } => rounds.get() < 100_000,
            Scheme::ShaCrypt { rounds, .. } => *rounds < 100_000,
        }
    }

    /// Whether it differs from what [`hash`] makes.
    pub fn is_outdated(&self) -> bool {
        let Scheme::Argon2 { algorithm: argon2::Algorithm::Argon2id, memory, passes, lanes } = self.scheme else {
            return true;
        };
        let sizes = (self.salt.len(), self.expected.len());
        self.format != "argon2id" || (memory, passes, lanes) != (MEMORY, PASSES, LANES) || sizes != (16, OUTPUT)
    }
}

impl fmt::Debug for PasswordHash {
    /// Without salt and hash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordHash").field("format", &self.format).finish_non_exhaustive()
    }
}

/// Whether a password has a length that is looked at: checked before anything is computed.
pub fn check_length(password: &[u8]) -> Result<(), HashError> {
    if (1..=MOST_BYTES).contains(&password.len()) { Ok(()) } else { Err(HashError::PasswordLength) }
}

/// A new hash: Argon2id version 19, 19 MiB, two passes, one lane, as a PHC string. The salt must be random.
pub fn hash(password: &[u8], salt: [u8; 16]) -> Result<Secret<String>, HashError> {
    check_length(password)?;
    let mut output = Zeroizing::new([0; OUTPUT]);
    let scheme =
        Scheme::Argon2 { algorithm: argon2::Algorithm::Argon2id, memory: MEMORY, passes: PASSES, lanes: LANES };
    derive::derive(&scheme, password, &salt, &mut *output)?;
    Ok(Secret::new(phc(&salt, &*output)))
}

fn phc(salt: &[u8], output: &[u8]) -> String {
    let (salt, output) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(output));
    format!("$argon2id$v=19$m={MEMORY},t={PASSES},p={LANES}${salt}${output}")
}

/// The kind of a stored hash: its text without salt and hash, so the algorithm and its costs. `unknown` where it
/// cannot be read.
pub fn kind(stored: &str) -> String {
    let Ok(hash) = PasswordHash::parse(stored) else { return "unknown".to_owned() };
    let kind = match hash.scheme {
        // Salt and hash are one word, but for passlib's.
        Scheme::Bcrypt { .. } if hash.format != parse::PASSLIB_BCRYPT => stored.rsplit_once('$').map(|(kind, _)| kind),
        // What follows is the project's key.
        Scheme::Firebase { .. } => stored.split_once(",ss=").map(|(kind, _)| kind),
        Scheme::Scrypt(Cost { r, p, .. }) if hash.format == parse::DJANGO_SCRYPT => {
            let n = stored.split('$').nth(1).unwrap_or_default();
            return format!("scrypt${n}$${r}${p}");
        }
        _ => stored.rsplitn(3, '$').nth(2),
    };
    kind.unwrap_or("unknown").to_owned()
}

/// A stored hash of no password that costs as much to check as those of a [`kind`]; as a new hash where the kind is
/// unknown. Checking against it is what happens when there is nobody of a name.
pub fn dummy(kind: &str) -> String {
    const SALT: [u8; 16] = *b"portcullis-dummy";
    let (salt, padded) = (STANDARD_NO_PAD.encode(SALT), STANDARD.encode(SALT));
    let complete = |output: &[u8]| {
        let (plain, base64) = (STANDARD_NO_PAD.encode(output), STANDARD.encode(output));
        let hex = "0".repeat(output.len() * 2);
        let dots = ".".repeat(22);
        [
            format!("{kind}${salt}${plain}"),
            format!("{kind}${salt}${base64}"),
            format!("{kind}${salt}${hex}"),
            format!("{kind}${dots}.{}", "/".repeat(30)),
            format!("{kind}${dots}$.{}", "/".repeat(30)),
            format!("{kind}$portcullis-dummy${}", ".".repeat(if output.len() == 64 { 86 } else { 43 })),
            kind.replacen("$$", &format!("${salt}$"), 1) + "$" + &base64,
            format!("{kind},ss=Bw==,sk={base64}${padded}${base64}"),
        ]
    };
    let mut stored = [32, 64, 20].iter().flat_map(|size| complete(&vec![0; *size]));
    let stored = stored.find(|stored| PasswordHash::parse(stored).is_ok() && self::kind(stored) == kind);
    stored.unwrap_or_else(|| phc(&SALT, &[0; OUTPUT]))
}

impl fmt::Display for HashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed => f.write_str("the hash could not be computed"),
            Self::Invalid { format, part } => write!(f, "not a valid hash of format {format}: {part}"),
            Self::PasswordLength => write!(f, "a password has 1 to {MOST_BYTES} bytes"),
            Self::TooLong => f.write_str("longer than any password hash"),
            Self::TooCostly { format, part } => {
                write!(f, "a hash of format {format} that costs too much to check: {part}")
            }
            Self::Unknown(Some(prefix)) => write!(f, "a hash of an unsupported format: `{prefix}`"),
            Self::Unknown(None) => f.write_str("not a password hash of a known format"),
            Self::Unusable => f.write_str("marked as unusable: nobody can log in with it"),
        }
    }
}

impl std::error::Error for HashError {}
