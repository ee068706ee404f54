//! What goes on when the shared store is away: a stricter count of this gateway's own.
//!
//! While Redis cannot be reached, each gateway counts for itself and allows half as much, so that an outage is no
//! invitation to guess passwords, and nobody is locked out by it either. What was counted meanwhile is not carried back.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::policy::set::Lockout;

use super::memory::Memory;
use super::{Attempt, Attempts, Limits, Rate, StoreError};

/// How long after a failure the shared store is not asked, in milliseconds: whoever logs in then does not wait for it.
const PAUSE: i64 = 1000;

/// A shared store, and what stands in for it.
pub struct Fallback<S: ?Sized> {
    local: Memory,
    /// Until when the shared store is not asked.
    away_until: AtomicI64,
    is_away: AtomicBool,
    shared: Arc<S>,
}

impl<S: ?Sized> Fallback<S> {
    /// Over a shared store.
    pub fn new(shared: Arc<S>) -> Self {
        Self { local: Memory::new(), away_until: AtomicI64::new(i64::MIN), is_away: AtomicBool::new(false), shared }
    }

    /// Whether to ask the shared store: not within a second after it failed, as the clock shows it (which may jump).
    fn asks(&self, now: Timestamp) -> bool {
        let until = self.away_until.load(Ordering::Relaxed);
        now.as_millis() >= until || now.as_millis() < until.saturating_sub(PAUSE)
    }

    /// The shared store's answer, if there was one.
    fn answer<T>(&self, result: Result<T, StoreError>, now: Timestamp) -> Option<T> {
        match result {
            Ok(answer) => {
                if self.is_away.swap(false, Ordering::Relaxed) {
                    tracing::info!("the shared store counts again");
                }
                Some(answer)
            }
            Err(error) => {
                self.away_until.store(now.as_millis().saturating_add(PAUSE), Ordering::Relaxed);
                if !self.is_away.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "this gateway counts for itself, and allows half");
                }
                None
            }
        }
    }
}

impl<S: ?Sized> fmt::Debug for Fallback<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback").field("is_away", &self.is_away).finish_non_exhaustive()
    }
}

#[async_trait]
impl<S: Attempts + ?Sized> Attempts for Fallback<S> {
    async fn begin(&self, key: &str, lockout: &Lockout, now: Timestamp) -> Result<Attempt, StoreError> {
        if self.asks(now)
            && let Some(attempt) = self.answer(self.shared.begin(key, lockout, now).await, now)
        {
            return Ok(attempt);
        }
        let stricter = Lockout { after: (lockout.after / 2).max(1), ..*lockout };
        self.local.begin(key, &stricter, now).await
    }

    async fn forgive(&self, key: &str, now: Timestamp) -> Result<(), StoreError> {
        if self.asks(now) {
            self.answer(self.shared.forgive(key, now).await, now);
        }
        self.local.forgive(key, now).await
    }

    async fn clear(&self, key: &str) -> Result<(), StoreError> {
        // Whoever logged in is not held by an old count; where that cannot be told to the others, it ends by itself.
        if !self.is_away.load(Ordering::Relaxed)
            && let Err(error) = self.shared.clear(key).await
        {
            tracing::debug!(%error, "an old count was not cleared");
        }
        self.local.clear(key).await
    }

    async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.shared.sweep(now).await.ok();
        Attempts::sweep(&self.local, now).await
    }
}

#[async_trait]
impl<S: Limits + ?Sized> Limits for Fallback<S> {
    async fn take(&self, key: &str, rate: Rate, now: Timestamp) -> Result<Option<Duration>, StoreError> {
        if self.asks(now)
            && let Some(answer) = self.answer(self.shared.take(key, rate, now).await, now)
        {
            return Ok(answer);
        }
        let stricter = Rate { count: (rate.count / 2).max(1), burst: (rate.burst / 2).max(1), ..rate };
        self.local.take(key, stricter, now).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Flaky {
        down: AtomicBool,
        memory: Memory,
    }

    impl Flaky {
        fn check(&self) -> Result<(), StoreError> {
            let down = self.down.load(Ordering::Relaxed);
            if down { Err(StoreError::Unavailable("down".into())) } else { Ok(()) }
        }
    }

    #[async_trait]
    impl Attempts for Flaky {
        async fn begin(&self, key: &str, lockout: &Lockout, now: Timestamp) -> Result<Attempt, StoreError> {
            self.check()?;
            self.memory.begin(key, lockout, now).await
        }
        async fn forgive(&self, key: &str, now: Timestamp) -> Result<(), StoreError> {
            self.check()?;
            self.memory.forgive(key, now).await
        }
        async fn clear(&self, key: &str) -> Result<(), StoreError> {
            self.check()?;
            self.memory.clear(key).await
        }
        async fn sweep(&self, _: Timestamp) -> Result<u64, StoreError> {
            self.check().map(|()| 0)
        }
    }

    #[tokio::test]
    async fn an_outage_halves_what_is_allowed_and_ends_by_itself() {
        let shared = Arc::new(Flaky::default());
        let attempts = Fallback::new(Arc::clone(&shared));
        let lockout = Lockout { after: 4, ..Lockout::default() };
        let now = Timestamp::from_seconds(1000);
        shared.down.store(true, Ordering::Relaxed);
        assert_eq!(attempts.begin("a", &lockout, now).await, Ok(Attempt::Open));
        assert_eq!(attempts.begin("a", &lockout, now).await, Ok(Attempt::Open));
        assert!(matches!(attempts.begin("a", &lockout, now).await, Ok(Attempt::Locked(_))));
        attempts.clear("b").await.unwrap();
        shared.down.store(false, Ordering::Relaxed);
        assert!(matches!(attempts.begin("a", &lockout, now).await, Ok(Attempt::Locked(_))), "not asked again at once");
        let later = now.plus(Duration::from_secs(2));
        for _ in 0..4 {
            assert_eq!(attempts.begin("a", &lockout, later).await, Ok(Attempt::Open));
        }
        assert!(matches!(attempts.begin("a", &lockout, later).await, Ok(Attempt::Locked(_))));
    }
}
