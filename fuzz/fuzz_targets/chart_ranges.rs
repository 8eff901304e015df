//! Versions, and ranges of them: `binnacle::fuzz` says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| binnacle::fuzz::chart_ranges(data));
