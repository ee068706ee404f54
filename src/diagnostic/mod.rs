//! A finding with place, code, help and fix, and its renderings.
