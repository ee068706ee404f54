//! When a signing key is made, when it takes over, and when it is forgotten. Keys and the time in, steps out.
//!
//! ```text
//!            created      signs                    retired               forgotten
//! key 1         ├───────────┼─────────────────────────┼────────────────────┤
//! key 2                                    ├──────────┼──────────────────────── …
//!               published from here on                └─ signs from here on
//! ```
//!
//! A key is published a minute before it signs, so that whoever caches the set has it by then. A key that was retired
//! verifies until the last token that it can have signed has expired. Only the very first key signs at once: there is
//! nobody yet who knows another.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::store::SigningKey;
use crate::token::algorithm::Algorithm;

/// How long a key is published before it signs. Answers with the set may be cached for that long at most.
pub const PUBLISHED_AHEAD: Duration = Duration::from_secs(60);

/// How long a key signs before the next one is made.
pub const ROTATE_EVERY: Duration = Duration::from_secs(90 * 24 * 3600);

/// How much longer than it must a key verifies: another gateway may learn of its successor a little later.
const MARGIN: Duration = Duration::from_secs(60);

/// How long the keys of another algorithm are kept in use after the policy changed it. For that long two gateways may
/// have different policies without retiring each other's keys.
const OTHER_ALGORITHM: Duration = Duration::from_secs(24 * 3600);

/// What a purpose needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) algorithm: Algorithm,
    /// How long what is signed is taken at most, leeway included.
    pub(super) valid: Duration,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A new key.
    Make {
        signs: Timestamp,
    },
    Retire {
        kid: String,
        at: Timestamp,
    },
    Forget {
        kid: String,
    },
}

impl Terms {
    /// What is to be done now about the keys of a purpose, oldest first.
    pub(super) fn steps(&self, keys: &[SigningKey], now: Timestamp) -> Vec<Step> {
        let mut steps = Vec::new();
        match self.newest(keys) {
            None => steps.push(Step::Make { signs: now }),
            // Whoever has a token of the key before must still find it, and the others the new one.
            Some(newest) if now >= newest.signs.plus(ROTATE_EVERY) => {
                steps.push(Step::Make { signs: Self::takes_over(now) });
            }
            Some(_) => {}
        }
        for (at, key) in keys.iter().enumerate() {
            match key.retired {
                Some(retired) if self.is_over(retired, now) => steps.push(Step::Forget { kid: key.kid.clone() }),
                Some(_) => {}
                None => {
                    let later = keys.iter().skip(at + 1).filter(|later| later.signs <= now);
                    let after = later.filter(|later| {
                        later.algorithm == key.algorithm
                            || (self.is_ours(later) && now >= later.signs.plus(OTHER_ALGORITHM))
                    });
                    if let Some(at) = after.map(|later| later.signs).min() {
                        steps.push(Step::Retire { kid: key.kid.clone(), at });
                    }
                }
            }
        }
        steps
    }

    /// When a key that is made now begins to sign.
    pub(super) fn takes_over(now: Timestamp) -> Timestamp {
        now.plus(PUBLISHED_AHEAD)
    }

    /// The newest key, whether it signs already or not.
    pub(super) fn newest<'k>(&self, keys: &'k [SigningKey]) -> Option<&'k SigningKey> {
        keys.iter().rfind(|key| self.is_ours(key) && key.retired.is_none())
    }

    /// The key that signs: the newest whose time has come. Where our clock says that it has come for none, the first.
    pub(super) fn signing<'k>(&self, keys: &'k [SigningKey], now: Timestamp) -> Option<&'k SigningKey> {
        let may = |key: &&SigningKey| self.is_ours(key) && key.retired.is_none_or(|retired| retired > now);
        keys.iter().filter(may).rfind(|key| key.signs <= now).or_else(|| keys.iter().find(may))
    }

    /// Whether a key still verifies.
    pub(super) fn verifies(&self, key: &SigningKey, now: Timestamp) -> bool {
        !key.retired.is_some_and(|retired| self.is_over(retired, now))
    }

    fn is_over(&self, retired: Timestamp, now: Timestamp) -> bool {
        now > retired.plus(self.valid).plus(MARGIN)
    }

    fn is_ours(&self, key: &SigningKey) -> bool {
        key.algorithm == self.algorithm.as_str()
    }
}
