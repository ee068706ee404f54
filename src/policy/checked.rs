//! A document that passed the checks.

use super::document::Document;

/// A document in which the checks found no error. Only [`check`](super) makes one.
#[derive(Debug)]
pub struct Checked(Document);

impl Checked {
    /// Says that the checks found no error. Only for `check`, which has just made sure of it.
    pub(super) fn danger_assert(document: Document) -> Self {
        Self(document)
    }

    /// The document.
    pub fn document(&self) -> &Document {
        &self.0
    }
}
