//! Sealing what lies in a store or a cookie: AES-256-GCM, with keys that are replaced.
//!
//! ```text
//! sealed = version (1) | key id (8) | nonce (12) | ciphertext | tag (16)
//! ```
//!
//! The version and the key's id are part of what is authenticated, and so is what the text belongs to: what was sealed
//! for one session or cookie opens for no other. Keys are those of the policy (`session.keys`, the first seals), or made
//! here, kept in the store and replaced every thirty days; an older one opens until nothing can be sealed with it any more.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::RwLock;
use zeroize::Zeroizing;

use crate::clock::{Clock, Timestamp};
use crate::random::Random;
use crate::secret::Secret;
use crate::store::{SigningKey, SigningKeys, StoreError};

/// The purpose under which keys are stored; no issuer has a name with a space.
const PURPOSE: &str = "session sealing";
const ALGORITHM: &str = "A256GCM";
const VERSION: u8 = 1;
const ID_LEN: usize = 8;
const HEAD_LEN: usize = 1 + ID_LEN;

/// How often a new key takes over.
const ROTATE_EVERY: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a key waits before it seals, so that every gateway knows it.
const AHEAD: Duration = Duration::from_secs(60);
/// How long a key is kept after another took over; longer than sessions last.
const KEEP: Duration = Duration::from_secs(400 * 24 * 3600);
/// How often the store is read again when nothing asks for it.
const REREAD: Duration = Duration::from_secs(600);
/// How often it is read again for a key that nobody knows.
const UNKNOWN: Duration = Duration::from_secs(2);

/// Why something cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OpenError {
    /// It was sealed with a key that is not known, or is no sealed text.
    UnknownKey,
    /// It was changed, or belongs to something else.
    Broken,
    /// Keys cannot be read now.
    Store(StoreError),
}

/// A key that seals and opens, one text for what it belongs to (`of`).
pub struct Key {
    id: [u8; ID_LEN],
    key: LessSafeKey,
}

impl Key {
    /// The key that a secret gives; the same secret gives the same key everywhere.
    pub fn derive(secret: &[u8]) -> Option<Self> {
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, b"portcullis").extract(secret);
        let key = UnboundKey::from(secret.expand(&[b"session sealing 1"], &AES_256_GCM).ok()?);
        let mut id = [0; 32];
        secret.expand(&[b"session sealing 1: key id"], hkdf::HKDF_SHA256).ok()?.fill(&mut id).ok()?;
        Some(Self { id: id.first_chunk().copied()?, key: LessSafeKey::new(key) })
    }

    /// Seals a text; `None` only where the cryptography library fails.
    pub fn seal(&self, of: &[u8], text: &[u8], random: &dyn Random) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        random.fill(&mut nonce);
        let mut sealed = Vec::with_capacity(HEAD_LEN + NONCE_LEN + text.len() + AES_256_GCM.tag_len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&self.id);
        let aad = [&sealed[..], of].concat();
        sealed.extend_from_slice(&nonce);
        let mut text = text.to_vec();
        self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut text).ok()?;
        sealed.extend_from_slice(&text);
        Some(sealed)
    }

    /// Opens what this key sealed for the same thing; anything else is `None`.
    pub fn open(&self, of: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (head, rest) = sealed.split_at_checked(HEAD_LEN)?;
        let (nonce, text) = rest.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = Zeroizing::new(text.to_vec());
        let aad = [head, of].concat();
        let length = self.key.open_in_place(nonce, Aad::from(aad), &mut text).ok()?.len();
        text.truncate(length);
        Some(text)
    }
}

/// Shows no key.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &URL_SAFE_NO_PAD.encode(self.id)).finish_non_exhaustive()
    }
}

/// The id of the key that sealed something.
fn key_of(sealed: &[u8]) -> Option<[u8; ID_LEN]> {
    let (version, rest) = sealed.split_first()?;
    (*version == VERSION).then(|| rest.first_chunk().copied())?
}

/// Seals and opens.
pub(super) struct Sealer {
    store: Arc<dyn SigningKeys>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    known: RwLock<Known>,
    reading: tokio::sync::Mutex<()>,
}

/// Keys of the store, oldest first.
#[derive(Default)]
struct Known {
    keys: Vec<(Timestamp, Arc<Key>)>,
    read: Option<Timestamp>,
}

impl Sealer {
    pub(super) fn new(store: Arc<dyn SigningKeys>, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self { store, clock, random, known: RwLock::default(), reading: tokio::sync::Mutex::default() }
    }

    /// Seals a text for what it belongs to.
    pub(super) async fn seal(&self, listed: &[Secret<Vec<u8>>], of: &[u8], text: &[u8]) -> Result<Vec<u8>, StoreError> {
        let failed = || StoreError::Corrupt("a key that seals nothing".to_owned());
        if let Some(first) = listed.first() {
            let key = Key::derive(first.expose()).ok_or_else(failed)?;
            return key.seal(of, text, &*self.random).ok_or_else(failed);
        }
        self.read_if_older_than(REREAD).await.or_else(|error| {
            // Whoever knows a key can go on without the store.
            if self.known.read().keys.is_empty() { Err(error) } else { Ok(()) }
        })?;
        let now = self.clock.now();
        let key = {
            let known = self.known.read();
            let ready = known.keys.iter().rev().find(|(seals, _)| *seals <= now);
            ready.or_else(|| known.keys.first()).map(|(_, key)| Arc::clone(key))
        };
        key.ok_or_else(failed)?.seal(of, text, &*self.random).ok_or_else(failed)
    }

    /// Opens what was sealed for the same thing. Keys of the store open too where others are listed: whoever begins to
    /// list keys signs nobody out.
    pub(super) async fn open(
        &self,
        listed: &[Secret<Vec<u8>>],
        of: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let id = key_of(sealed).ok_or(OpenError::UnknownKey)?;
        let own = listed.iter().filter_map(|secret| Key::derive(secret.expose())).find(|key| key.id == id);
        if let Some(key) = own {
            return key.open(of, sealed).ok_or(OpenError::Broken);
        }
        let find = || self.known.read().keys.iter().find(|(_, key)| key.id == id).map(|(_, key)| Arc::clone(key));
        let key = match find() {
            Some(key) => key,
            None => {
                self.read_if_older_than(UNKNOWN).await.map_err(OpenError::Store)?;
                find().ok_or(OpenError::UnknownKey)?
            }
        };
        key.open(of, sealed).ok_or(OpenError::Broken)
    }

    async fn read_if_older_than(&self, age: Duration) -> Result<(), StoreError> {
        let is_fresh = |now: Timestamp| {
            // A clock that was set back makes nothing fresh.
            self.known.read().read.is_some_and(|read| read <= now && now.since(read) < age)
        };
        if is_fresh(self.clock.now()) {
            return Ok(());
        }
        let _one_at_a_time = self.reading.lock().await;
        let now = self.clock.now();
        if is_fresh(now) {
            return Ok(());
        }
        let stored = self.bring_up_to_date(now).await?;
        let mut keys = Vec::with_capacity(stored.len());
        for key in &stored {
            let unreadable = || StoreError::Corrupt("a sealing key".to_owned());
            let secret = URL_SAFE_NO_PAD.decode(key.private.expose()).map(Zeroizing::new).map_err(|_| unreadable())?;
            keys.push((key.signs, Arc::new(Key::derive(&secret).ok_or_else(unreadable)?)));
        }
        *self.known.write() = Known { keys, read: Some(now) };
        Ok(())
    }

    /// Makes, retires and forgets what is due, and reads all.
    async fn bring_up_to_date(&self, now: Timestamp) -> Result<Vec<SigningKey>, StoreError> {
        let mut stored = self.store.of(PURPOSE).await?;
        let last = stored.last();
        let is_due = last.is_none_or(|last| now.since(last.created) >= ROTATE_EVERY);
        if is_due {
            let signs = if last.is_some() { now.plus(AHEAD) } else { now };
            let key = self.make(signs, now);
            // Where somebody else was faster, theirs is read now.
            if self.store.add(&key, last.map(|last| last.kid.as_str())).await? {
                tracing::info!(key = key.kid, purpose = PURPOSE, "a sealing key was made");
            }
            stored = self.store.of(PURPOSE).await?;
        }
        let newest = stored.iter().rev().find(|key| key.signs <= now).map(|key| (key.kid.clone(), key.signs));
        if let Some((newest, since)) = newest {
            for key in stored.iter().take_while(|key| key.kid != newest) {
                match key.retired {
                    None => self.store.retire(&key.kid, since).await?,
                    Some(retired) if now.since(retired) > KEEP => self.store.remove(&key.kid).await?,
                    Some(_) => {}
                }
            }
        }
        Ok(stored)
    }

    fn make(&self, signs: Timestamp, now: Timestamp) -> SigningKey {
        let (mut secret, mut kid) = (Zeroizing::new([0; 32]), [0; 12]);
        self.random.fill(&mut *secret);
        self.random.fill(&mut kid);
        SigningKey {
            kid: format!("seal-{}", URL_SAFE_NO_PAD.encode(kid)),
            purpose: PURPOSE.to_owned(),
            algorithm: ALGORITHM.to_owned(),
            private: Secret::new(URL_SAFE_NO_PAD.encode(*secret)),
            created: now,
            signs,
            retired: None,
        }
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("keys", &self.known.read().keys.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use crate::clock::ManualClock;
    use crate::random::SeededRandom;
    use crate::store::memory::Memory;

    use super::*;

    const START: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn sealer(store: &Arc<Memory>, clock: &Arc<ManualClock>, seed: u64) -> Sealer {
        Sealer::new(store.clone(), clock.clone(), Arc::new(SeededRandom::new(seed)))
    }

    fn listed(names: &[&str]) -> Vec<Secret<Vec<u8>>> {
        names.iter().map(|name| Secret::new(format!("{name}: thirty-two bytes and a few more").into_bytes())).collect()
    }

    #[tokio::test]
    async fn what_was_sealed_opens_for_what_it_belongs_to_alone() {
        let (store, clock) = (Arc::new(Memory::new()), Arc::new(ManualClock::at(START)));
        let sealer = sealer(&store, &clock, 1);
        for keys in [Vec::new(), listed(&["a", "b"])] {
            let sealed = sealer.seal(&keys, b"one", b"text").await.unwrap();
            assert_eq!(**sealer.open(&keys, b"one", &sealed).await.unwrap(), *b"text");
            assert_eq!(sealer.open(&keys, b"two", &sealed).await, Err(OpenError::Broken));
            assert_ne!(sealed, sealer.seal(&keys, b"one", b"text").await.unwrap(), "a nonce is never used twice");
            for bit in 0..sealed.len() * 8 {
                let mut flipped = sealed.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(sealer.open(&keys, b"one", &flipped).await.is_err(), "bit {bit}");
            }
            for length in 0..sealed.len() {
                assert!(sealer.open(&keys, b"one", &sealed[..length]).await.is_err(), "{length} bytes");
            }
        }
    }

    #[tokio::test]
    async fn listed_keys_rotate_and_the_first_seals() {
        let (store, clock) = (Arc::new(Memory::new()), Arc::new(ManualClock::at(START)));
        let sealer = sealer(&store, &clock, 1);
        let kept = sealer.seal(&[], b"", b"kept").await.unwrap();
        let old = sealer.seal(&listed(&["old"]), b"", b"old").await.unwrap();
        let both = listed(&["new", "old"]);
        let new = sealer.seal(&both, b"", b"new").await.unwrap();
        assert!(sealer.open(&both, b"", &old).await.is_ok() && sealer.open(&both, b"", &new).await.is_ok());
        assert!(sealer.open(&listed(&["new"]), b"", &new).await.is_ok());
        assert_eq!(sealer.open(&listed(&["new"]), b"", &old).await, Err(OpenError::UnknownKey));
        assert!(sealer.open(&both, b"", &kept).await.is_ok(), "whoever begins to list keys signs nobody out");
    }

    #[tokio::test]
    async fn kept_keys_are_shared_and_replaced_while_the_old_ones_open() {
        let (store, clock) = (Arc::new(Memory::new()), Arc::new(ManualClock::at(START)));
        let (here, there) = (sealer(&store, &clock, 1), sealer(&store, &clock, 2));
        let first = here.seal(&[], b"", b"first").await.unwrap();
        assert!(there.open(&[], b"", &first).await.is_ok());
        assert_eq!(store.of(PURPOSE).await.unwrap().len(), 1);
        clock.advance(ROTATE_EVERY);
        let second = here.seal(&[], b"", b"second").await.unwrap();
        assert_eq!(key_of(&second), key_of(&first), "the new key does not seal yet");
        clock.advance(AHEAD);
        let third = here.seal(&[], b"", b"third").await.unwrap();
        assert_ne!(key_of(&third), key_of(&first));
        for sealed in [&first, &second, &third] {
            assert!(there.open(&[], b"", sealed).await.is_ok());
        }
        clock.advance(KEEP + ROTATE_EVERY);
        here.seal(&[], b"", b"").await.unwrap();
        clock.advance(REREAD);
        here.seal(&[], b"", b"").await.unwrap();
        clock.advance(KEEP);
        here.seal(&[], b"", b"").await.unwrap();
        assert!(store.of(PURPOSE).await.unwrap().len() <= 3, "old ones are forgotten");
    }

    #[tokio::test]
    async fn nothing_of_a_key_is_shown() {
        let (store, clock) = (Arc::new(Memory::new()), Arc::new(ManualClock::at(START)));
        let sealer = sealer(&store, &clock, 1);
        sealer.seal(&[], b"", b"").await.unwrap();
        let shown = format!("{sealer:?} {:?}", store.of(PURPOSE).await.unwrap());
        assert!(!shown.contains(store.of(PURPOSE).await.unwrap()[0].private.expose()), "{shown}");
    }
}
