#![no_main]
//! Fuzzes `bodies/nat.rs`.

#[path = "../bodies/nat.rs"]
mod nat;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    nat::judge(input);
});
