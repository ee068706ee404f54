//! Reading stored hashes. Every number and length is compared with its bound here, before anything is computed.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA1, PBKDF2_HMAC_SHA256, PBKDF2_HMAC_SHA512};
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD, STANDARD_NO_PAD};
use zeroize::Zeroizing;

use super::sha_crypt;
use super::{Before, Cost, HashError, PasswordHash, Scheme};

/// The longest stored text that is looked at; those of real formats have 60 to 400 bytes.
const MOST_STORED: usize = 1024;
/// The most memory that checking may take, in KiB.
const MOST_MEMORY: u32 = 256 * 1024;
const MOST_PASSES: u32 = 20;
const MOST_LANES: u32 = 16;
const MOST_ROUNDS: u32 = 5_000_000;
const MOST_BCRYPT: u32 = 15;
/// crypt(3) hashes the password again in every round, all of its bytes.
const MOST_CRYPT_ROUNDS: u32 = 1_000_000;
/// scrypt: block size. Nobody uses another than 8.
const MOST_R: u32 = 1024;
/// scrypt: all that is written, in KiB, one lane after the other.
const MOST_WRITTEN: u64 = 1024 * 1024;
const OUTPUTS: RangeInclusive<usize> = 16..=64;
const SALTS: RangeInclusive<usize> = 1..=64;

pub(super) const PASSLIB_BCRYPT: &str = "passlib bcrypt_sha256";
pub(super) const DJANGO_SCRYPT: &str = "django scrypt";

/// bcrypt's own alphabet. Some libraries wrote salts whose unused bits are not zero.
const BCRYPT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::BCRYPT,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::RequireNone),
);

/// Formats that exist and are not supported, for a message that helps. A text that starts with none of them may be a
/// password in the clear, of which nothing must be shown.
const UNSUPPORTED: &str = "$1$ $2$ $2x$ $7$ $H$ $P$ $apr1$ $argon2 $gy$ $md5$ $s0$ $sha1$ $wp$ $y$ md5$ pbkdf2_sha512$ sha1$ \
     sha256$ sha512$ {CRYPT} {SHA} {SSHA} {bcrypt} {noop} {pbkdf2}";

pub(super) fn parse(stored: &str) -> Result<PasswordHash, HashError> {
    if stored.len() > MOST_STORED {
        return Err(HashError::TooLong);
    }
    if stored.starts_with('!') || stored == "*" {
        return Err(HashError::Unusable);
    }
    for (prefix, format, read) in READERS {
        if let Some(rest) = stored.strip_prefix(prefix) {
            let (scheme, salt, expected) = read(Format(format), rest)?;
            return Ok(PasswordHash { format, scheme, salt, expected });
        }
    }
    Err(HashError::Unknown(UNSUPPORTED.split(' ').find(|prefix| stored.starts_with(*prefix))))
}

/// Scheme, salt and what must come out.
type Read = Result<(Scheme, Vec<u8>, Vec<u8>), HashError>;

/// Prefix, name and reader of a format.
type Reader = (&'static str, &'static str, fn(Format, &str) -> Read);

const READERS: [Reader; 27] = [
    ("$argon2id$", "argon2id", |format, rest| argon2(format, argon2::Algorithm::Argon2id, rest)),
    ("$argon2i$", "argon2i", |format, rest| argon2(format, argon2::Algorithm::Argon2i, rest)),
    ("$argon2d$", "argon2d", |format, rest| argon2(format, argon2::Algorithm::Argon2d, rest)),
    ("argon2$argon2id$", "django argon2id", |format, rest| argon2(format, argon2::Algorithm::Argon2id, rest)),
    ("argon2$argon2i$", "django argon2i", |format, rest| argon2(format, argon2::Algorithm::Argon2i, rest)),
    ("argon2$argon2d$", "django argon2d", |format, rest| argon2(format, argon2::Algorithm::Argon2d, rest)),
    ("$2a$", "bcrypt", |format, rest| bcrypt(format, Before::Nothing, rest)),
    ("$2b$", "bcrypt", |format, rest| bcrypt(format, Before::Nothing, rest)),
    ("$2y$", "bcrypt", |format, rest| bcrypt(format, Before::Nothing, rest)),
    ("bcrypt$$2a$", "django bcrypt", |format, rest| bcrypt(format, Before::Nothing, rest)),
    ("bcrypt$$2b$", "django bcrypt", |format, rest| bcrypt(format, Before::Nothing, rest)),
    ("bcrypt$$2y$", "django bcrypt", |format, rest| bcrypt(format, Before::Nothing, rest)),
    ("bcrypt_sha256$$2a$", "django bcrypt_sha256", |format, rest| bcrypt(format, Before::Sha256Hex, rest)),
    ("bcrypt_sha256$$2b$", "django bcrypt_sha256", |format, rest| bcrypt(format, Before::Sha256Hex, rest)),
    ("$bcrypt-sha256$", PASSLIB_BCRYPT, passlib_bcrypt),
    ("$pbkdf2$", "passlib pbkdf2_sha1", |format, rest| passlib_pbkdf2(format, PBKDF2_HMAC_SHA1, rest)),
    ("$pbkdf2-sha256$", "passlib pbkdf2_sha256", |format, rest| passlib_pbkdf2(format, PBKDF2_HMAC_SHA256, rest)),
    ("$pbkdf2-sha512$", "passlib pbkdf2_sha512", |format, rest| passlib_pbkdf2(format, PBKDF2_HMAC_SHA512, rest)),
    ("$scrypt$", "passlib scrypt", passlib_scrypt),
    ("pbkdf2_sha1$", "django pbkdf2_sha1", |format, rest| django_pbkdf2(format, PBKDF2_HMAC_SHA1, rest)),
    ("pbkdf2_sha256$", "django pbkdf2_sha256", |format, rest| django_pbkdf2(format, PBKDF2_HMAC_SHA256, rest)),
    ("scrypt$", DJANGO_SCRYPT, django_scrypt),
    ("pbkdf2:", "werkzeug pbkdf2", werkzeug_pbkdf2),
    ("scrypt:", "werkzeug scrypt", werkzeug_scrypt),
    ("$fbscrypt$", "firebase scrypt", firebase),
    ("$5$", "passlib sha256_crypt", |format, rest| sha_crypt(format, false, rest)),
    ("$6$", "passlib sha512_crypt", |format, rest| sha_crypt(format, true, rest)),
];

// === The formats ===

fn argon2(format: Format, algorithm: argon2::Algorithm, rest: &str) -> Read {
    let [version, costs, salt, output] = format.fields(rest, '$')?;
    if version != "v=19" {
        return Err(format.invalid("version"));
    }
    // Nothing but these three, in this order: `keyid` and `data` change what is computed.
    let [memory, passes, lanes] = format.fields(costs, ',')?;
    let lanes = format.cost(format.named(lanes, "p")?, "p", 1..=MOST_LANES)?;
    let memory = format.cost(format.named(memory, "m")?, "m", 8 * lanes..=MOST_MEMORY)?;
    let passes = format.cost(format.named(passes, "t")?, "t", 1..=MOST_PASSES)?;
    let salt = format.decode(&STANDARD_NO_PAD, salt, "salt", 8..=64)?;
    let output = format.decode(&STANDARD_NO_PAD, output, "hash", OUTPUTS)?;
    Ok((Scheme::Argon2 { algorithm, memory, passes, lanes }, salt, output))
}

fn bcrypt(format: Format, before: Before, rest: &str) -> Read {
    let [cost, both] = format.fields(rest, '$')?;
    let (salt, output) = both.split_at_checked(22).ok_or_else(|| format.invalid("salt"))?;
    bcrypt_parts(format, before, cost, salt, output)
}

fn passlib_bcrypt(format: Format, rest: &str) -> Read {
    let [costs, salt, output] = format.fields(rest, '$')?;
    let is_ident = |ident: &str| matches!(ident, "2a" | "2b" | "2y");
    if let Some(costs) = costs.strip_prefix("v=2,") {
        let [ident, cost] = format.fields(costs, ',')?;
        if !is_ident(format.named(ident, "t")?) {
            return Err(format.invalid("t"));
        }
        let before = Before::HmacBase64(salt.into());
        return bcrypt_parts(format, before, format.named(cost, "r")?, salt, output);
    }
    let [ident, cost] = format.fields(costs, ',')?;
    if !is_ident(ident) {
        return Err(format.invalid("version"));
    }
    bcrypt_parts(format, Before::Sha256Base64, cost, salt, output)
}

fn bcrypt_parts(format: Format, before: Before, cost: &str, salt: &str, output: &str) -> Read {
    let cost = match cost.strip_prefix('0') {
        Some(digit) if digit.len() == 1 => digit,
        _ => cost,
    };
    let cost = format.cost(cost, "cost", 4..=MOST_BCRYPT)?;
    let salt = format.decode(&BCRYPT, salt, "salt", 16..=16)?;
    let output = format.decode(&BCRYPT, output, "hash", 23..=23)?;
    Ok((Scheme::Bcrypt { cost, before }, salt, output))
}

fn passlib_pbkdf2(format: Format, hash: pbkdf2::Algorithm, rest: &str) -> Read {
    let [rounds, salt, output] = format.fields(rest, '$')?;
    let salt = format.decode(&STANDARD_NO_PAD, &salt.replace('.', "+"), "salt", SALTS)?;
    let output = format.decode(&STANDARD_NO_PAD, &output.replace('.', "+"), "hash", OUTPUTS)?;
    pbkdf2(format, hash, rounds, salt, output)
}

fn django_pbkdf2(format: Format, hash: pbkdf2::Algorithm, rest: &str) -> Read {
    let [rounds, salt, output] = format.fields(rest, '$')?;
    let output = format.decode(&STANDARD, output, "hash", OUTPUTS)?;
    pbkdf2(format, hash, rounds, format.text(salt)?, output)
}

fn werkzeug_pbkdf2(format: Format, rest: &str) -> Read {
    let [method, salt, output] = format.fields(rest, '$')?;
    let [hash, rounds] = format.fields(method, ':')?;
    let hash = match hash {
        "sha1" => PBKDF2_HMAC_SHA1,
        "sha256" => PBKDF2_HMAC_SHA256,
        "sha512" => PBKDF2_HMAC_SHA512,
        _ => return Err(format.invalid("hash function")),
    };
    pbkdf2(format, hash, rounds, format.text(salt)?, format.hex(output)?)
}

fn pbkdf2(format: Format, hash: pbkdf2::Algorithm, rounds: &str, salt: Vec<u8>, output: Vec<u8>) -> Read {
    let rounds = format.cost(rounds, "rounds", 1..=MOST_ROUNDS)?;
    let rounds = NonZeroU32::new(rounds).ok_or_else(|| format.invalid("rounds"))?;
    let size = match hash {
        hash if hash == PBKDF2_HMAC_SHA1 => 20,
        hash if hash == PBKDF2_HMAC_SHA256 => 32,
        _ => 64,
    };
    // Shorter would be easier to hit, longer is more work for us than for who guesses.
    if output.len() != size {
        return Err(format.invalid("hash"));
    }
    Ok((Scheme::Pbkdf2 { hash, rounds }, salt, output))
}

fn passlib_scrypt(format: Format, rest: &str) -> Read {
    let [costs, salt, output] = format.fields(rest, '$')?;
    let [log_n, r, p] = format.fields(costs, ',')?;
    let log_n = format.cost(format.named(log_n, "ln")?, "ln", 1..=31)?;
    let cost = scrypt(format, log_n, format.named(r, "r")?, format.named(p, "p")?)?;
    let salt = format.decode(&STANDARD_NO_PAD, salt, "salt", SALTS)?;
    let output = format.decode(&STANDARD_NO_PAD, output, "hash", OUTPUTS)?;
    Ok((Scheme::Scrypt(cost), salt, output))
}

fn django_scrypt(format: Format, rest: &str) -> Read {
    let [n, salt, r, p, output] = format.fields(rest, '$')?;
    let cost = scrypt(format, format.power_of_two(n)?, r, p)?;
    let output = format.decode(&STANDARD, output, "hash", OUTPUTS)?;
    Ok((Scheme::Scrypt(cost), format.text(salt)?, output))
}

fn werkzeug_scrypt(format: Format, rest: &str) -> Read {
    let [costs, salt, output] = format.fields(rest, '$')?;
    let [n, r, p] = format.fields(costs, ':')?;
    let cost = scrypt(format, format.power_of_two(n)?, r, p)?;
    Ok((Scheme::Scrypt(cost), format.text(salt)?, format.hex(output)?))
}

fn firebase(format: Format, rest: &str) -> Read {
    let [parameters, salt, output] = format.fields(rest, '$')?;
    let [version, n, r, p, separator, key] = format.fields(parameters, ',')?;
    if version != "v=1" {
        return Err(format.invalid("version"));
    }
    let log_n = format.cost(format.named(n, "n")?, "n", 1..=31)?;
    let cost = scrypt(format, log_n, format.named(r, "r")?, format.named(p, "p")?)?;
    let separator = format.decode(&STANDARD, format.named(separator, "ss")?, "salt separator", 0..=64)?;
    let signer_key = Zeroizing::new(format.decode(&STANDARD, format.named(key, "sk")?, "signer key", OUTPUTS)?);
    let mut salt = format.decode(&STANDARD, salt, "salt", SALTS)?;
    salt.extend(separator);
    let output = format.decode(&STANDARD, output, "hash", OUTPUTS)?;
    if output.len() != signer_key.len() {
        return Err(format.invalid("hash"));
    }
    Ok((Scheme::Firebase { cost, signer_key }, salt, output))
}

fn sha_crypt(format: Format, long: bool, rest: &str) -> Read {
    let (rounds, rest) = match rest.strip_prefix("rounds=") {
        None => (5000, rest),
        Some(stated) => {
            let (rounds, rest) = stated.split_once('$').ok_or_else(|| format.invalid("number of parts"))?;
            (format.cost(rounds, "rounds", 1000..=MOST_CRYPT_ROUNDS)?, rest)
        }
    };
    let [salt, output] = format.fields(rest, '$')?;
    // Implementations cut longer salts off: one that stands here was written by none of them.
    let salt = Some(format.text(salt)?).filter(|salt| salt.len() <= 16).ok_or_else(|| format.invalid("salt"))?;
    let length = if long { 86 } else { 43 };
    let is_hash = output.len() == length && output.bytes().all(|byte| sha_crypt::DIGITS.contains(&byte));
    // Compared as it is written: the order of its bits is of the format's own.
    let output = is_hash.then(|| output.as_bytes().to_vec()).ok_or_else(|| format.invalid("hash"))?;
    Ok((Scheme::ShaCrypt { long, rounds }, salt, output))
}

fn scrypt(format: Format, log_n: u32, r: &str, p: &str) -> Result<Cost, HashError> {
    let r = format.cost(r, "r", 1..=MOST_R)?;
    let p = format.cost(p, "p", 1..=MOST_LANES)?;
    let log_n = u8::try_from(log_n).ok().filter(|log_n| *log_n < 32).ok_or_else(|| format.invalid("n"))?;
    // 128·r bytes for each of the N blocks.
    let memory = (1_u64 << log_n).saturating_mul(u64::from(r)) / 8;
    if memory > u64::from(MOST_MEMORY) || memory.saturating_mul(u64::from(p)) > MOST_WRITTEN {
        return Err(HashError::TooCostly { format: format.0, part: "n" });
    }
    Ok(Cost { log_n, r, p })
}

// === Parts of a format ===

/// The name of the format that is being read, for errors.
#[derive(Clone, Copy)]
struct Format(&'static str);

impl Format {
    fn invalid(self, part: &'static str) -> HashError {
        HashError::Invalid { format: self.0, part }
    }

    /// Exactly so many fields.
    fn fields<const N: usize>(self, text: &str, separator: char) -> Result<[&str; N], HashError> {
        let mut fields = [""; N];
        let mut rest = text.split(separator);
        for field in &mut fields {
            *field = rest.next().ok_or_else(|| self.invalid("number of parts"))?;
        }
        if rest.next().is_some() { Err(self.invalid("number of parts")) } else { Ok(fields) }
    }

    /// The value of `name=value`.
    fn named<'t>(self, text: &'t str, name: &'static str) -> Result<&'t str, HashError> {
        text.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')).ok_or_else(|| self.invalid(name))
    }

    /// A number without sign or leading zero, and not beyond what may be spent.
    fn cost(self, text: &str, part: &'static str, allowed: RangeInclusive<u32>) -> Result<u32, HashError> {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number || (text.starts_with('0') && text.len() > 1) {
            return Err(self.invalid(part));
        }
        // More digits than a u32 has are too much of anything.
        match text.parse::<u32>() {
            Ok(number) if allowed.contains(&number) => Ok(number),
            Ok(number) if number < *allowed.start() => Err(self.invalid(part)),
            _ => Err(HashError::TooCostly { format: self.0, part }),
        }
    }

    /// The exponent of a power of two that is written out.
    fn power_of_two(self, text: &str) -> Result<u32, HashError> {
        let number = self.cost(text, "n", 2..=1 << 31)?;
        if number.is_power_of_two() { Ok(number.trailing_zeros()) } else { Err(self.invalid("n")) }
    }

    fn decode(
        self,
        engine: &GeneralPurpose,
        text: &str,
        part: &'static str,
        lengths: RangeInclusive<usize>,
    ) -> Result<Vec<u8>, HashError> {
        let bytes = engine.decode(text).map_err(|_| self.invalid(part))?;
        if lengths.contains(&bytes.len()) { Ok(bytes) } else { Err(self.invalid(part)) }
    }

    fn hex(self, text: &str) -> Result<Vec<u8>, HashError> {
        let invalid = || self.invalid("hash");
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let bytes: Option<Vec<u8>> = text
            .as_bytes()
            .chunks(2)
            .map(|pair| match pair {
                [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
                _ => None,
            })
            .collect();
        bytes.filter(|bytes| OUTPUTS.contains(&bytes.len())).ok_or_else(invalid)
    }

    /// A salt that is used as it is written.
    fn text(self, salt: &str) -> Result<Vec<u8>, HashError> {
        if SALTS.contains(&salt.len()) { Ok(salt.as_bytes().to_vec()) } else { Err(self.invalid("salt")) }
    }
}
