//! The system's clock and random numbers: the one place where both come from outside.

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

/// The system's generator, through aws-lc's.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        // aws-lc's generator ends the process where the system has no entropy; the result has no error to
        // act on here, and bytes that were not filled would be worse than none.
        #[expect(clippy::expect_used, reason = "without randomness nothing may go on")]
        aws_lc_rs::rand::fill(bytes).expect("the system has a random number generator");
    }
}
