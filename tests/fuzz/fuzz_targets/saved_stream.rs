#![no_main]
//! Fuzzes `bodies/saved_stream.rs`.

#[path = "../bodies/saved_stream.rs"]
mod saved_stream;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    saved_stream::judge(input);
});
