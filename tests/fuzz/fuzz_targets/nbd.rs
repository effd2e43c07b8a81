#![no_main]
//! Fuzzes `bodies/nbd.rs`.

#[path = "../bodies/nbd.rs"]
mod nbd;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    nbd::judge(input);
});
