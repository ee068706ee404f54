//! The zlib interface that `flate2` expects from `libz-ng-sys`, provided by `libz-sys`.
//! Used through `[patch.crates-io]`; the published crate can only be built with cmake.
#![no_std]
pub use libz_sys::*;
