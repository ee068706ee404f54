//! RSA public keys that must not be trusted although they are well formed.

use super::key::KeyError;

/// Modulus and exponent, big-endian without leading zeros.
#[derive(Clone, Debug)]
pub(super) struct RsaPublicKey {
    pub(super) modulus: Vec<u8>,
    pub(super) exponent: Vec<u8>,
}

impl RsaPublicKey {
    /// Checks size, exponent and the fingerprint of ROCA.
    pub(super) fn new(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyError> {
        let (modulus, exponent) = (without_leading_zeros(modulus), without_leading_zeros(exponent));
        let bits = bits(modulus);
        if !(2048..=8192).contains(&bits) {
            return Err(KeyError::RsaSize(bits));
        }
        let odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
        // With e = 1 every message is its own signature. 33 bits is what the verifying library takes at most.
        if !odd(exponent) || exponent == [1] || exponent.len() > 4 {
            return Err(KeyError::RsaExponent);
        }
        if !odd(modulus) {
            return Err(KeyError::InvalidKey);
        }
        if is_roca(modulus) {
            return Err(KeyError::RsaRoca);
        }
        Ok(Self { modulus: modulus.to_vec(), exponent: exponent.to_vec() })
    }

    /// From the DER of PKCS#1: `SEQUENCE { INTEGER modulus, INTEGER exponent }`.
    pub(super) fn from_pkcs1(der: &[u8]) -> Result<Self, KeyError> {
        const SEQUENCE: u8 = 0x30;
        const INTEGER: u8 = 0x02;
        let numbers = element(SEQUENCE, der).and_then(|(sequence, _)| {
            let (modulus, rest) = element(INTEGER, sequence)?;
            let (exponent, _) = element(INTEGER, rest)?;
            Some((modulus, exponent))
        });
        let (modulus, exponent) = numbers.ok_or(KeyError::InvalidKey)?;
        Self::new(modulus, exponent)
    }
}

/// The content of the DER element that `input` starts with, and what follows it.
fn element(tag: u8, input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 | 0x82 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), rest)
        }
        _ => return None,
    };
    if found == tag { rest.split_at_checked(length) } else { None }
}

fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|&&byte| byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

fn bits(number: &[u8]) -> u32 {
    let Some((first, rest)) = number.split_first() else { return 0 };
    u32::try_from(rest.len() * 8).unwrap_or(u32::MAX).saturating_add(8 - first.leading_zeros())
}

/// CVE-2017-15361: keys of a certain chip are `65537^a mod M` for a product `M` of small primes, so modulo each of
/// them the modulus is a power of 65537. For other keys that holds for all of these primes with odds of 2^-27.
fn is_roca(modulus: &[u8]) -> bool {
    const PRIMES: [u32; 38] = [
        3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107,
        109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
    ];
    PRIMES.iter().all(|&prime| {
        let rest = modulus.iter().fold(0, |rest, &byte| (rest * 256 + u32::from(byte)) % prime);
        let mut power = 1;
        (0..prime).any(|_| {
            let found = power == rest;
            power = power * 65537 % prime;
            found
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modulus(bytes: usize) -> Vec<u8> {
        let mut modulus = vec![0xc5; bytes];
        modulus[bytes - 1] = 0x01;
        modulus
    }

    #[test]
    fn weak_rsa_keys_are_refused() {
        let check = |modulus: &[u8], exponent: &[u8]| RsaPublicKey::new(modulus, exponent).err();
        assert_eq!(check(&modulus(256), &[1, 0, 1]), None);
        assert_eq!(check(&[&[0, 0][..], &modulus(256)].concat(), &[3]), None);
        assert_eq!(check(&modulus(128), &[1, 0, 1]), Some(KeyError::RsaSize(1024)));
        assert_eq!(check(&[], &[1, 0, 1]), Some(KeyError::RsaSize(0)));
        assert_eq!(check(&modulus(1025), &[1, 0, 1]), Some(KeyError::RsaSize(8200)));
        for exponent in [&[][..], &[0], &[1], &[2], &[1, 0, 0], &[1, 0, 0, 0, 1]] {
            assert_eq!(check(&modulus(256), exponent), Some(KeyError::RsaExponent), "{exponent:?}");
        }
        let mut even = modulus(256);
        even[255] = 2;
        assert_eq!(check(&even, &[3]), Some(KeyError::InvalidKey));
        // 65537^128 is a power of 65537 modulo every prime; multiplied byte by byte, the lowest first.
        let mut power = vec![1_u8];
        for _ in 0..128 {
            let mut product = vec![0_u8; power.len() + 3];
            for (at, byte) in power.iter().enumerate() {
                for shift in [0, 2] {
                    let mut carry = u16::from(*byte);
                    let mut to = at + shift;
                    while carry > 0 {
                        carry += u16::from(product[to]);
                        product[to] = carry.to_le_bytes()[0];
                        carry >>= 8;
                        to += 1;
                    }
                }
            }
            while product.last() == Some(&0) {
                product.pop();
            }
            power = product;
        }
        power.reverse();
        assert_eq!(check(&power, &[1, 0, 1]), Some(KeyError::RsaRoca));
    }

    #[test]
    fn pkcs1_is_read_and_garbage_is_not() {
        for der in [&[][..], &[0x30], &[0x30, 0x84, 1, 1, 1, 1], &[0x30, 5, 2, 1], &[0x31, 0]] {
            assert_eq!(RsaPublicKey::from_pkcs1(der).err(), Some(KeyError::InvalidKey), "{der:?}");
        }
    }
}
