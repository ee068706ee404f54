//! Scopes and their hierarchy.

/// The scopes of a token, in the token's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScopeSet(Vec<Box<str>>);

impl ScopeSet {
    /// From the scopes as the token lists them.
    pub fn new(scopes: Vec<Box<str>>) -> Self {
        Self(scopes)
    }

    /// The scopes in the token's order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(AsRef::as_ref)
    }
}
