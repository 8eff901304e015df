//! A repository's index: `binnacle::fuzz` says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| binnacle::fuzz::chart_index(data));
