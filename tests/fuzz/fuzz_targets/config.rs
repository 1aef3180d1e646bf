//! Everything that reads a configuration file, on any text.

#![no_main]

libfuzzer_sys::fuzz_target!(|raw: &[u8]| tests::exercise::config(raw));
