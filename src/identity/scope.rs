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

/// How scopes imply each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Hierarchy {
    /// `items` satisfies `items:read`.
    #[default]
    Colon,
    /// `items` satisfies `items.read`.
    Dot,
    /// Only equal scopes satisfy each other.
    None,
}
