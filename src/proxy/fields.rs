//! Pingora's answers as fields that `decision` can edit.

use http::{HeaderName, HeaderValue};
use pingora::http::ResponseHeader;

use crate::decision::headers::Fields;

/// The head of an answer to a client.
pub(super) struct OfResponse<'a>(pub(super) &'a mut ResponseHeader);

impl Fields for OfResponse<'_> {
    fn names(&self) -> Vec<HeaderName> {
        self.0.headers.keys().cloned().collect()
    }

    fn remove(&mut self, name: &HeaderName) {
        self.0.remove_header(name);
    }

    fn set(&mut self, name: HeaderName, value: HeaderValue) {
        let _ = self.0.insert_header(name, value);
    }
}
