//! Everything that reads Diameter, on any octets.

#![no_main]

libfuzzer_sys::fuzz_target!(|raw: &[u8]| tests::exercise::diameter(raw));
