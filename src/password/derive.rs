//! From a password to the bytes that are stored, in each scheme.

use argon2::{Argon2, Params, Version};
use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::{digest, hmac, iv, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize as _, Zeroizing};

use super::sha_crypt;
use super::{Before, Cost, HashError, Scheme};

/// bcrypt looks at so many bytes of a password, its closing zero included.
const BCRYPT_BYTES: usize = 72;

/// Fills `output`, whose length is part of the scheme.
pub(super) fn derive(scheme: &Scheme, password: &[u8], salt: &[u8], output: &mut [u8]) -> Result<(), HashError> {
    match scheme {
        Scheme::Argon2 { algorithm, memory, passes, lanes } => {
            let params = Params::new(*memory, *passes, *lanes, Some(output.len())).map_err(|_| HashError::Failed)?;
            let argon2 = Argon2::new(*algorithm, Version::V0x13, params);
            let mut blocks = memory_of(argon2.params().block_count())?;
            argon2.hash_password_into_with_memory(password, salt, output, &mut blocks).map_err(|_| HashError::Failed)
        }
        Scheme::Bcrypt { cost, before } => bcrypt(*cost, before, password, salt, output),
        Scheme::Firebase { cost, signer_key } => firebase(cost, signer_key, password, salt, output),
        Scheme::Pbkdf2 { hash, rounds } => {
            pbkdf2::derive(*hash, *rounds, salt, password, output);
            Ok(())
        }
        Scheme::Scrypt(cost) => scrypt(cost, password, salt, output),
        Scheme::ShaCrypt { long, rounds } => {
            sha_crypt::derive(*long, *rounds, password, salt, output);
            Ok(())
        }
    }
}

/// Room for so many blocks that goes back to the system when it is dropped. Allocators keep what they think will be
/// wanted again, glibc's up to 32 MiB for each of its arenas, and hashes are computed on many threads: 500 logins left
/// 200 MiB behind. What is more than 32 MiB it always gives back, and what is not touched costs nothing.
fn memory_of(blocks: usize) -> Result<Vec<argon2::Block>, HashError> {
    const GIVEN_BACK: usize = 33 * 1024; // blocks of 1 KiB
    let mut room = Vec::new();
    room.try_reserve_exact(blocks.max(GIVEN_BACK)).map_err(|_| HashError::Failed)?;
    room.resize(blocks, argon2::Block::default());
    Ok(room)
}

fn scrypt(cost: &Cost, password: &[u8], salt: &[u8], output: &mut [u8]) -> Result<(), HashError> {
    let params = scrypt::Params::new(cost.log_n, cost.r, cost.p).map_err(|_| HashError::Failed)?;
    scrypt::scrypt(password, salt, &params, output).map_err(|_| HashError::Failed)
}

/// A zero byte within a password counts like any other here. Libraries that stop at it would take `secret` for
/// `secret\0anything`; who has such a password in one of their hashes cannot log in, which is the safer mistake.
fn bcrypt(cost: u32, before: &Before, password: &[u8], salt: &[u8], output: &mut [u8]) -> Result<(), HashError> {
    let salt: [u8; 16] = salt.try_into().map_err(|_| HashError::Failed)?;
    if cost >= 32 {
        return Err(HashError::Failed); // where the library would panic; `parse` allows 15
    }
    let sha256 = |bytes: &[u8]| digest::digest(&digest::SHA256, bytes);
    let text = Zeroizing::new(match before {
        Before::Nothing => password.to_vec(),
        Before::HmacBase64(salt) => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, salt.as_bytes());
            STANDARD.encode(hmac::sign(&key, password)).into_bytes()
        }
        Before::Sha256Base64 => STANDARD.encode(sha256(password)).into_bytes(),
        Before::Sha256Hex => {
            const DIGITS: &[u8; 16] = b"0123456789abcdef";
            let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or_default();
            sha256(password).as_ref().iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
        }
    });
    let key: Zeroizing<Vec<u8>> = Zeroizing::new(text.iter().copied().chain([0]).take(BCRYPT_BYTES).collect());
    let mut computed = bcrypt::bcrypt(cost, salt, &key);
    // The last byte is not stored.
    for (to, from) in output.iter_mut().zip(computed) {
        *to = from;
    }
    computed.zeroize();
    Ok(())
}

/// Firebase encrypts the project's key under what scrypt makes of the password.
fn firebase(cost: &Cost, signer_key: &[u8], password: &[u8], salt: &[u8], output: &mut [u8]) -> Result<(), HashError> {
    let mut key = Zeroizing::new([0; 32]);
    scrypt(cost, password, salt, &mut *key)?;
    for (to, from) in output.iter_mut().zip(signer_key) {
        *to = *from;
    }
    let key = UnboundCipherKey::new(&AES_256, &*key).and_then(EncryptingKey::ctr).map_err(|_| HashError::Failed)?;
    let zero = EncryptionContext::Iv128(iv::FixedLength::from([0; 16]));
    key.less_safe_encrypt(output, zero).map(|_| ()).map_err(|_| HashError::Failed)
}
