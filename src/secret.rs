//! What never prints.
//!
//! A [`Secret`] shows its content to nobody but who asks with [`Secret::expose`]; it has no `Display` and no
//! `Serialize`, its `Debug` says only that something is there, and its memory is cleared when it is dropped.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

/// A value that must not reach a log, an error text or an answer.
#[derive(Clone)]
pub struct Secret<T: Zeroize>(Zeroizing<T>);

impl<T: Zeroize> Secret<T> {
    /// Wraps a secret value.
    pub fn new(value: T) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The content. The name is long enough to be seen in a review.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_does_not_show_the_content() {
        let secret = Secret::new(String::from("canary-4711"));
        assert!(!format!("{secret:?} {:?}", Some(&secret)).contains("canary"));
        assert_eq!(secret.expose(), "canary-4711");
    }
}
