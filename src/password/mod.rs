//! Stored password hashes: making, recognising and checking them.
//!
//! In: a stored text or a password, and salt. Out: a hash that is safe to check (its costs are capped when it is
//! read), a new hash, or a verdict. Pure, and slow on purpose: whoever calls this on a server does so in a pool for
//! blocking work with a bound (`login`). It does not know users, and never logs.
