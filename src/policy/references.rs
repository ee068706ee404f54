//! What `env:` and `file:` in a policy stand for, resolved by who may read environment and files.

use std::collections::HashMap;

use crate::diagnostic::FileId;
use crate::secret::Secret;

/// Resolved references. Nothing in here is printed.
#[derive(Clone, Debug, Default)]
pub struct References {
    environment: HashMap<Box<str>, Secret<String>>,
    files: HashMap<(FileId, Box<str>), Secret<Vec<u8>>>,
}

impl References {
    /// No reference is resolved: for `check`, `test` and `explain`, which need no keys.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds the value of `env:NAME` and `env.NAME`.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: Secret<String>) -> Self {
        self.environment.insert(name.into(), value);
        self
    }

    /// Adds the content of `file:PATH` as it is said in the policy file `from`.
    #[must_use]
    pub fn with_file(mut self, from: FileId, path: &str, content: Vec<u8>) -> Self {
        self.files.insert((from, path.into()), Secret::new(content));
        self
    }

    /// The value of `env:NAME`.
    pub fn env(&self, name: &str) -> Option<&Secret<String>> {
        self.environment.get(name)
    }

    /// The content of `file:PATH` as it is said in the policy file `from`.
    pub fn file(&self, from: FileId, path: &str) -> Option<&Secret<Vec<u8>>> {
        self.files.get(&(from, path.into()))
    }
}
