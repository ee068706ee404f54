//! crypt(3) with SHA-256 (`$5$`) and SHA-512 (`$6$`), after Ulrich Drepper's specification (version 0.6 of 2016): what
//! passlib and Linux write. Its work grows with the length of the password, too.

use aws_lc_rs::digest::{self, Context, Digest, SHA256, SHA512};
use zeroize::{Zeroize as _, Zeroizing};

/// The digits of its base 64, the least significant first.
pub(super) const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Fills `output` with the text of the hash.
pub(super) fn derive(long: bool, rounds: u32, password: &[u8], salt: &[u8], output: &mut [u8]) {
    let algorithm = if long { &SHA512 } else { &SHA256 };
    let hash = |feed: &dyn Fn(&mut Context)| {
        let mut context = Context::new(algorithm);
        feed(&mut context);
        context.finish()
    };

    let b = hash(&|context| [password, salt, password].iter().for_each(|part| context.update(part)));
    let a = hash(&|context| {
        context.update(password);
        context.update(salt);
        context.update(&stretch(&b, password.len()));
        let mut bits = password.len();
        while bits > 0 {
            context.update(if bits & 1 == 1 { b.as_ref() } else { password });
            bits >>= 1;
        }
    });
    let p = hash(&|context| (0..password.len()).for_each(|_| context.update(password)));
    let p = stretch(&p, password.len());
    let times = 16 + usize::from(a.as_ref().first().copied().unwrap_or_default());
    let s = hash(&|context| (0..times).for_each(|_| context.update(salt)));
    let s = stretch(&s, salt.len());

    let mut state = a;
    for round in 0..rounds {
        let odd = round % 2 == 1;
        state = hash(&|context| {
            context.update(if odd { &p } else { state.as_ref() });
            if round % 3 != 0 {
                context.update(&s);
            }
            if round % 7 != 0 {
                context.update(&p);
            }
            context.update(if odd { state.as_ref() } else { &p });
        });
    }
    let mut digest = state.as_ref().to_vec();
    for (to, from) in output.iter_mut().zip(written(&digest)) {
        *to = from;
    }
    digest.zeroize();
}

/// The digest again and again, up to a length.
fn stretch(digest: &Digest, length: usize) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(digest.as_ref().iter().copied().cycle().take(length).collect())
}

/// The digest as text: groups of three bytes, from three parts of it that lie a third of it apart, in rotating order.
fn written(digest: &[u8]) -> Vec<u8> {
    let byte = |at: usize| u32::from(digest.get(at).copied().unwrap_or_default());
    let mut text = Vec::with_capacity(86);
    let mut group = |high: u32, middle: u32, low: u32, digits: usize| {
        let mut bits = high << 16 | middle << 8 | low;
        for _ in 0..digits {
            let digit = usize::try_from(bits & 63).unwrap_or_default();
            text.push(DIGITS.get(digit).copied().unwrap_or_default());
            bits >>= 6;
        }
    };
    let long = digest.len() == digest::SHA512_OUTPUT_LEN;
    let third = digest.len() / 3;
    for at in 0..third {
        let (a, b, c) = (byte(at), byte(at + third), byte(at + 2 * third));
        match (at % 3, long) {
            (0, _) => group(a, b, c, 4),
            (1, true) | (2, false) => group(b, c, a, 4),
            _ => group(c, a, b, 4),
        }
    }
    match long {
        true => group(0, 0, byte(63), 2),
        false => group(0, byte(31), byte(30), 3),
    }
    text
}
