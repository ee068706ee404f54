//! PEM (RFC 7468): the first block that holds a key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::secret::Secret;

use super::key::KeyError;

/// A block: what it says it is, and its bytes.
pub(super) struct Block<'p> {
    pub(super) label: &'p str,
    pub(super) der: Zeroizing<Vec<u8>>,
}

/// The first block of `text` but `EC PARAMETERS`, which OpenSSL writes in front of a key.
pub(super) fn first_key(text: &str) -> Result<Block<'_>, KeyError> {
    let mut rest = text;
    loop {
        let (_, after) = rest.split_once("-----BEGIN ").ok_or(KeyError::NotPem)?;
        let (label, after) = after.split_once("-----").ok_or(KeyError::NotPem)?;
        let (body, after) = after.split_once("-----END ").ok_or(KeyError::NotPem)?;
        let after = after.strip_prefix(label).and_then(|after| after.strip_prefix("-----")).ok_or(KeyError::NotPem)?;
        if label == "EC PARAMETERS" {
            rest = after;
            continue;
        }
        if label.starts_with("ENCRYPTED") || body.contains("ENCRYPTED") {
            return Err(KeyError::EncryptedPem);
        }
        let base64: Zeroizing<String> = Zeroizing::new(body.split_ascii_whitespace().collect());
        let der = STANDARD.decode(base64.as_bytes()).map_err(|_| KeyError::NotPem)?;
        return Ok(Block { label, der: Zeroizing::new(der) });
    }
}

/// A private key (PKCS#8) as PEM.
pub(super) fn private_key(der: &[u8]) -> Secret<String> {
    let base64 = Zeroizing::new(STANDARD.encode(der));
    let mut text = String::with_capacity(base64.len() + base64.len() / 64 + 64);
    text.push_str("-----BEGIN PRIVATE KEY-----\n");
    for (at, char) in base64.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            text.push('\n');
        }
        text.push(char);
    }
    text.push_str("\n-----END PRIVATE KEY-----\n");
    Secret::new(text)
}
