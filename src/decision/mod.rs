//! The answer.
//!
//! A request, a caller and a policy set go in. [`route()`] finds the one route that decides, [`authorize()`] makes a
//! [`Permit`] or a [`Denial`], [`headers()`] says what the upstream is told. Every answer keeps what the leaves said
//! ([`Masks`]), so that [`explain`] can show it later.
//!
//! Nothing here reads the clock, verifies a token, or waits: time, caller and policy are parameters. The same
//! functions answer requests, explanations and the policy's own tests ([`cases`]).

pub mod authorize;
pub mod cases;
mod compare;
pub mod decide;
pub mod explain;
pub mod facts;
pub mod headers;
pub mod permit;
pub mod reason;
pub mod route;

pub use crate::policy::formula::{Masks, Truth};
pub use authorize::authorize;
pub use decide::{Decision, Presented, Question, decide};
pub use facts::RequestFacts;
pub use headers::{HeaderEdits, headers};
pub use permit::Permit;
pub use reason::{Denial, Reason};
pub use route::{Preflight, Routed, preflight, route};

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
