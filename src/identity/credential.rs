//! One credential, or none, or a refusal.
