//! Where the keys of issuers come from, beside the policy: those that the gateway makes, keeps and rotates.
//!
//! In: the live policy, and the store's signing keys. Out: a snapshot that says with what each issuer signs and what
//! verifies it, and the JWKS that is published. It does not fetch keys over the network yet.
