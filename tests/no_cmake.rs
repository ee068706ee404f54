//! The patch crate `vendor/libz-ng-sys` really compresses: Pingora's `flate2` runs on zlib through it.

use std::io::{Read, Write};

#[test]
fn gzip_round_trips_through_the_patched_zlib() {
    let text = "portcullis ".repeat(10_000);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    let compressed = encoder.finish().unwrap();
    assert!(compressed.len() < text.len() / 50, "{} bytes", compressed.len());
    let mut back = String::new();
    flate2::read::GzDecoder::new(compressed.as_slice()).read_to_string(&mut back).unwrap();
    assert_eq!(back, text);
}
