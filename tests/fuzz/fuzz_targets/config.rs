#![no_main]
//! Fuzzes `bodies/config.rs`.

#[path = "../bodies/config.rs"]
mod config;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    config::judge(input);
});
