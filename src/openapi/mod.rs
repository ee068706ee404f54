//! What a policy says, in the words of OpenAPI: security schemes, scopes, and who may call each operation.
//!
//! In: a policy set and an upstream's OpenAPI document (3.0 or 3.1) as JSON. Out: that document with our security in
//! place of its own. Pure; it does not fetch the document and does not decide.
