//! Everything that reads SIP, on any datagram.

#![no_main]

libfuzzer_sys::fuzz_target!(|raw: &[u8]| tests::exercise::sip(raw));
