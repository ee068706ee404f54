//! What is allowed.
//!
//! YAML text goes in; out comes a `PolicySet` that answers requests, or diagnostics with places. The
//! way: `yaml` (nodes with places) → `lower` ([`document::Document`]) → `check` (all mistakes) →
//! `compile` (tries, formulas, resolved names). `keys` is the one table of all keys.
//!
//! Nothing here reads files, the environment or the time: texts and resolved references are passed in. Nothing
//! here decides a request; that is `decision`.

pub mod checked;
pub mod document;
pub mod formula;
pub mod references;
pub mod set;
pub mod specificity;
pub mod template;
pub mod trie;
pub mod yaml;
