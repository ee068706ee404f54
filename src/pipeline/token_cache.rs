//! Tokens that were verified a moment ago.
//!
//! In: a token as it was sent, and the time. Out: what [`Verifier::verify`] says of it. An entry is found by the
//! SHA-256 of the **whole** token, signature and all, so that nothing but that token finds it, and only what was
//! verified becomes one: there is no entry for a refusal.
//!
//! A cache owns the one verifier that its entries come from. Whoever makes another verifier (another policy, a key that
//! came, changed or went) makes another, empty cache: no entry outlives the policy or the key that it rests on, and none
//! is looked at with the rules of another. Times are checked at every use, with the time of that use.
//!
//! It says nothing about what may change for a token while policy and keys stay: whether it was revoked, whether its issuer
//! admits it, how it may be sent and what its holder may do is asked after it, for every request.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::clock::Timestamp;
use crate::identity::claims::Claims;
use crate::identity::{Identity, IssuerName, Transport};
use crate::telemetry::metrics::CacheCounters;
use crate::token::compact::MAX_TOKEN_LEN;
use crate::token::error::TokenError;
use crate::token::verify::{VerifiedToken, Verifier};

/// The most that all entries take, in bytes: some 12,000 tokens of 600 bytes.
const MAX_BYTES: u64 = 32 * 1024 * 1024;
/// What an entry takes beside what grows with its token.
const ENTRY: u64 = 1024;
/// How many bytes an entry takes for each of its token's: claims as JSON values, and facts as texts of their own.
const PER_BYTE: u64 = 3;

/// A verifier and what it has verified.
#[derive(Debug)]
pub(super) struct TokenCache {
    verifier: Verifier,
    entries: Cache<Key, Entry, Weight>,
    counters: CacheCounters,
}

/// SHA-256 of a token.
type Key = [u8; digest::SHA256_OUTPUT_LEN];

/// A verified token, and how much it weighs.
#[derive(Clone, Debug)]
struct Entry {
    token: Arc<Remembered>,
    bytes: u64,
}

#[derive(Clone, Debug)]
struct Weight;

impl Weighter<Key, Entry> for Weight {
    fn weight(&self, _: &Key, entry: &Entry) -> u64 {
        entry.bytes
    }
}

/// A verified token with what follows from it.
#[derive(Debug)]
pub(super) struct Remembered {
    verified: VerifiedToken,
    bearer: OnceLock<Arc<Identity>>,
}

impl Remembered {
    /// Of a token that is not kept.
    pub(super) fn new(verified: VerifiedToken) -> Arc<Self> {
        Arc::new(Self { verified, bearer: OnceLock::new() })
    }

    /// The issuer in the policy that vouches for the token.
    pub(super) fn issuer(&self) -> &IssuerName {
        self.verified.issuer()
    }

    /// The claims.
    pub(super) fn claims(&self) -> &Claims {
        self.verified.claims()
    }

    /// When the token ends, leeway not included.
    pub(super) fn expires(&self) -> Option<Timestamp> {
        self.verified.expires()
    }

    /// The identity that the token states.
    pub(super) fn identity(&self, transport: Transport) -> Arc<Identity> {
        let made = || Arc::new(self.verified.identity(transport));
        match transport {
            Transport::Bearer => Arc::clone(self.bearer.get_or_init(made)),
            Transport::Cookie | Transport::Session => made(),
        }
    }
}

impl TokenCache {
    /// Nothing is verified yet.
    pub(super) fn new(verifier: Verifier, counters: CacheCounters) -> Self {
        let estimated = usize::try_from(MAX_BYTES / (ENTRY + 600 * PER_BYTE)).unwrap_or(usize::MAX);
        Self { verifier, entries: Cache::with_weighter(estimated, MAX_BYTES, Weight), counters }
    }

    /// What verifies.
    pub(super) fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// What [`Verifier::verify`] says of the token at this time.
    pub(super) fn verify(&self, token: &str, now: Timestamp) -> Result<Arc<Remembered>, TokenError> {
        if token.len() > MAX_TOKEN_LEN {
            return Err(TokenError::TooLarge);
        }
        let mut key = Key::default();
        key.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref()); // both are of that length
        if let Some(Entry { token, .. }) = self.entries.get(&key) {
            self.counters.hits.inc();
            return match token.verified.check_times(now) {
                Ok(()) => Ok(token),
                Err(error) => {
                    if error == TokenError::Expired {
                        self.entries.remove(&key);
                    }
                    Err(error)
                }
            };
        }
        self.counters.misses.inc();
        let verified = Remembered::new(self.verifier.verify(token, now)?);
        let bytes = ENTRY.saturating_add(PER_BYTE.saturating_mul(token.len() as u64));
        self.entries.insert(key, Entry { token: Arc::clone(&verified), bytes });
        Ok(verified)
    }
}

#[cfg(test)]
mod tests {

    use serde_json::json;

    use super::*;
    use crate::identity::claims::ClaimMapping;
    use crate::token::algorithm::Algorithm;
    use crate::token::key::{Key as VerifyingKey, KeySet};
    use crate::token::mint::Minter;
    use crate::token::verify::{ExpectedAudience, ExpectedIssuer, IssuerRules};

    const SECRET: &[u8] = b"a secret of the tests, 32 bytes or more";
    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn cache() -> TokenCache {
        let key = VerifyingKey::from_secret(SECRET, Algorithm::HS256.into(), None).unwrap();
        let issuer = ExpectedIssuer::Exact("https://issuer.test".into());
        let audience = ExpectedAudience::OneOf(vec!["api".into()]);
        let mut rules = IssuerRules::new(IssuerName::new("company"), issuer, audience, KeySet::from(key));
        rules.mapping = ClaimMapping::standard();
        TokenCache::new(Verifier::new(vec![rules]).unwrap(), CacheCounters::default())
    }

    fn token(sub: &str, more: serde_json::Value) -> String {
        let seconds = NOW.as_millis() / 1000;
        let mut claims = json!({
            "iss": "https://issuer.test", "aud": "api", "sub": sub, "iat": seconds, "exp": seconds + 600,
            "email": "ada@example.com", "scope": "items:read items:write profile", "roles": ["reader"],
        });
        let all = claims.as_object_mut().unwrap();
        all.extend(more.as_object().unwrap().clone());
        Minter::from_secret(SECRET, Algorithm::HS256).unwrap().mint(all, None, Some("JWT")).unwrap()
    }

    fn counts(cache: &TokenCache) -> (u64, u64) {
        (cache.counters.hits.get(), cache.counters.misses.get())
    }

    #[test]
    fn the_second_look_at_a_token_finds_what_the_first_made() {
        let (cache, token) = (cache(), token("ada", json!({})));
        let first = cache.verify(&token, NOW).unwrap();
        let second = cache.verify(&token, NOW).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        assert!(Arc::ptr_eq(&first.identity(Transport::Bearer), &second.identity(Transport::Bearer)));
        assert_eq!(second.identity(Transport::Cookie).transport, Transport::Cookie);
        assert_eq!(counts(&cache), (1, 1));
    }

    #[test]
    fn two_tokens_that_differ_in_one_bit_share_nothing() {
        let (cache, good) = (cache(), token("ada", json!({})));
        cache.verify(&good, NOW).unwrap();
        for at in 0..good.len() {
            for bit in 0..7 {
                let mut bytes = good.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let forged = String::from_utf8(bytes).unwrap();
                assert!(cache.verify(&forged, NOW).is_err(), "byte {at}, bit {bit}");
            }
        }
        assert_eq!((counts(&cache).0, cache.entries.len()), (0, 1), "a refusal is no entry");
        // The same claims under another signature, and a signature under other claims.
        let other = token("eve", json!({}));
        let parts = |token: &str| token.rsplit_once('.').map(|(signed, mac)| (signed.to_owned(), mac.to_owned()));
        let ((ours, our_mac), (theirs, their_mac)) = (parts(&good).unwrap(), parts(&other).unwrap());
        assert!(cache.verify(&format!("{ours}.{their_mac}"), NOW).is_err());
        assert!(cache.verify(&format!("{theirs}.{our_mac}"), NOW).is_err());
        assert_eq!(cache.verify(&other, NOW).unwrap().claims().get("sub"), Some(&json!("eve")));
    }

    #[test]
    fn times_are_those_of_each_use() {
        let (cache, seconds) = (cache(), NOW.as_millis() / 1000);
        let token = token("ada", json!({ "nbf": seconds }));
        let at = |from_now: i64| {
            let now = Timestamp::from_millis(NOW.as_millis() + from_now);
            let (cached, fresh) = (cache.verify(&token, now).err(), cache.verifier.verify(&token, now).err());
            assert_eq!(cached, fresh, "{from_now} ms");
            cached
        };
        assert_eq!(at(0), None);
        // 600 s, and 30 s for clocks that differ: to the millisecond.
        assert_eq!(at(629_999), None);
        assert_eq!(at(630_000), Some(TokenError::Expired));
        assert_eq!(cache.entries.len(), 0, "what has ended is forgotten");
        assert_eq!(at(0), None);
        assert_eq!(at(-30_001), Some(TokenError::NotYetValid), "a clock that was set back");
        assert_eq!(at(-30_000), None);
    }

    #[test]
    fn a_token_that_is_too_long_is_not_even_hashed() {
        let cache = cache();
        assert_eq!(cache.verify(&"a".repeat(MAX_TOKEN_LEN + 1), NOW).err(), Some(TokenError::TooLarge));
        assert_eq!(counts(&cache), (0, 0));
    }

    #[test]
    fn a_flood_of_good_tokens_takes_a_bounded_place_and_leaves_those_in_use() {
        let cache = cache();
        let regulars: Vec<String> = (0..100).map(|n| token(&format!("regular-{n}"), json!({}))).collect();
        for _ in 0..3 {
            regulars.iter().for_each(|token| drop(cache.verify(token, NOW).unwrap()));
        }
        let (mut hits, mut asked) = (0, 0);
        for n in 0..30_000 {
            cache.verify(&token(&format!("flood-{n}"), json!({})), NOW).unwrap();
            if n % 10 == 0 {
                let before = counts(&cache).0;
                cache.verify(&regulars[n / 10 % regulars.len()], NOW).unwrap();
                (hits, asked) = (hits + counts(&cache).0 - before, asked + 1);
            }
        }
        assert!(cache.entries.weight() <= MAX_BYTES, "{}", cache.entries.weight());
        println!("{} entries, {hits} of {asked} regular looks found theirs", cache.entries.len());
        assert!(hits * 100 >= asked * 95, "{hits} of {asked}");
        assert_eq!(cache.verify(&regulars[0], NOW).unwrap().issuer().as_str(), "company");
    }
}
