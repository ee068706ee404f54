//! The request target in one canonical form.

/// Forms of a target that an app may opt into (4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Irregular(u8);
