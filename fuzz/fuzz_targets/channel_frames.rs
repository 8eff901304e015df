//! The API server's frames of processes and ports: `binnacle::fuzz` says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| binnacle::fuzz::channel_frames(data));
