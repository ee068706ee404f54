//! The system's clock and random numbers: the one place where both come from outside.

use std::cell::RefCell;
use std::time::SystemTime;

use crate::clock::{Clock, Timestamp};
use crate::random::Random;

/// The system's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "this is where the system's time enters")]
        let now = SystemTime::now();
        let millis = match now.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |millis| -millis),
        };
        Timestamp::from_millis(millis)
    }
}

/// The system's generator, through aws-lc's. Short requests are served from a stock that each thread keeps, since
/// every decision's id asks for ten bytes; what was handed out is wiped.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

/// How many bytes a thread keeps in stock.
const STOCK: usize = 512;

thread_local! {
    /// Random bytes of which the first part was not handed out yet.
    static REST: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        if bytes.len() > 16 {
            return fill(bytes);
        }
        REST.with_borrow_mut(|rest| {
            if rest.len() < bytes.len() {
                rest.resize(STOCK, 0);
                fill(rest);
            }
            let from = rest.len().saturating_sub(bytes.len());
            if let Some(stock) = rest.get_mut(from..) {
                bytes.copy_from_slice(stock);
                stock.fill(0);
            }
            rest.truncate(from);
        });
    }
}

fn fill(bytes: &mut [u8]) {
    // aws-lc's generator ends the process where the system has no entropy; the result has no error to act on
    // here, and bytes that were not filled would be worse than none.
    #[expect(clippy::expect_used, reason = "without randomness nothing may go on")]
    aws_lc_rs::rand::fill(bytes).expect("the system has a random number generator");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bytes_are_handed_out_twice() {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            let mut bytes = [0; 10];
            SystemRandom.fill(&mut bytes);
            assert!(seen.insert(bytes));
        }
    }
}
