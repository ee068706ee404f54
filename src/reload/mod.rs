//! From a folder of policies to the policy that runs.
//!
//! [`load`](load::load) reads a folder and takes it through every check and its own tests; `serve`, `check`, `test`,
//! `explain` and each reload call that one function. [`publish::Reloader`] swaps the running set, or keeps the last
//! good one and says so until disk and memory agree; [`watch`] says when to look again.
//!
//! Nothing here decides a request, and nothing is ever half applied: a set loads as a whole or not at all.

pub mod files;
pub mod load;
pub mod publish;
pub mod references;
pub mod watch;

#[cfg(test)]
mod tests;
