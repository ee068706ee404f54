//! The id of a decision: in the log, in every refusal, and upstream as `X-Request-Id`.

use std::fmt;

use uuid::Builder;

use crate::clock::Timestamp;
use crate::random::Random;

/// A UUIDv7 (RFC 9562) in its usual form: sorts by time, cannot be guessed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DecisionId([u8; 36]);

impl DecisionId {
    /// A new id for a decision at `now`.
    pub fn new(now: Timestamp, random: &dyn Random) -> Self {
        let mut bytes = [0; 10];
        random.fill(&mut bytes);
        let millis = u64::try_from(now.as_millis()).unwrap_or(0);
        let mut text = [0; 36];
        Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid().hyphenated().encode_lower(&mut text);
        Self(text)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("") // INVARIANT: hex digits and hyphens
    }
}

impl fmt::Debug for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    #[test]
    fn an_id_begins_with_the_time() {
        let id = DecisionId::new(Timestamp::from_millis(0x0193_530c_7e21), &SeededRandom::new(1));
        assert!(id.as_str().starts_with("0193530c-7e21-7"), "{id:?}");
    }
}
