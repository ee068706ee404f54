//! One atomically replaced value.
//!
//! Readers take a snapshot and keep it for as long as they need; a writer replaces the whole value. Nobody
//! waits for anybody, and nobody sees half of a change.

use std::sync::Arc;

use arc_swap::ArcSwap;

/// A value that is replaced as a whole, with a generation that counts the replacements.
#[derive(Debug)]
pub struct Live<T> {
    current: ArcSwap<T>,
    changes: tokio::sync::watch::Sender<u64>,
}

impl<T> Live<T> {
    /// Starts with `value`, generation 0.
    pub fn new(value: T) -> Self {
        Self { current: ArcSwap::from_pointee(value), changes: tokio::sync::watch::Sender::new(0) }
    }

    /// Starts with a value that somebody else holds too, generation 0.
    pub fn shared(value: Arc<T>) -> Self {
        Self { current: ArcSwap::new(value), changes: tokio::sync::watch::Sender::new(0) }
    }

    /// The current value. The caller keeps this snapshot whatever is published later.
    pub fn snapshot(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Looks at the current value without counting that somebody does: for what is over at once.
    pub fn peek<R>(&self, look: impl FnOnce(&Arc<T>) -> R) -> R {
        look(&self.current.load())
    }

    /// Replaces the value and tells everybody who watches.
    pub fn publish(&self, value: T) {
        self.publish_shared(Arc::new(value));
    }

    /// Replaces the value by one that somebody else holds too.
    pub fn publish_shared(&self, value: Arc<T>) {
        self.current.store(value);
        self.changes.send_modify(|generation| *generation += 1);
    }

    /// A receiver that is told about each replacement from now on.
    pub fn watch(&self) -> tokio::sync::watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_outlives_a_replacement() {
        let live = Live::new(1);
        let (before, changes) = (live.snapshot(), live.watch());
        live.publish(2);
        assert_eq!((*before, *live.snapshot()), (1, 2));
        assert!(changes.has_changed().unwrap());
    }
}
