//! What is asked: a raw request head becomes one unambiguous target, or a refusal.

pub mod target;
