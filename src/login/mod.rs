//! Logging in, going on, and ending: the gateway's own OAuth endpoints.
//!
//! In: a parsed form, who asks from where, and the compiled login of the app. Out: a whole response in the form of RFC
//! 6749, 7009 or 7662. Users, sessions and counts are in `store`; hashing is in `password`; keys come from `issuer`.
//! It does not read bodies from connections, and does not decide who may call: that is `pipeline`'s and the policy's.

pub mod error;
pub mod form;
pub mod hasher;
