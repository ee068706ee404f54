//! Verified claims, and how facts about the caller are read from them.

use std::sync::Arc;

use serde_json::{Map, Value};

/// The claims of a verified token, as JSON. Made by `token` after verification, and by fixtures.
#[derive(Clone, Debug, Default)]
pub struct Claims(Arc<Map<String, Value>>);

impl Claims {
    /// Wraps claims that were verified, or that a fixture states.
    pub fn new(claims: Map<String, Value>) -> Self {
        Self(Arc::new(claims))
    }

    /// The claims as a JSON object.
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }
}
