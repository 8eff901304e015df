//! Logs, read as a page of lines and followed in pieces: `binnacle::fuzz` says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| binnacle::fuzz::log_lines(data));
