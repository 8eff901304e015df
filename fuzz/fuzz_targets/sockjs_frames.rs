//! A browser's SockJS frames, messages and addresses: `binnacle::fuzz` says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| binnacle::fuzz::sockjs_frames(data));
