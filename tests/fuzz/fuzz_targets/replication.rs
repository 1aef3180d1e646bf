//! Everything of replication that reads bytes from elsewhere, on any bytes.

#![no_main]

libfuzzer_sys::fuzz_target!(|raw: &[u8]| tests::exercise_replication::replication(raw));
