#![no_main]
//! Fuzzes `bodies/gpt.rs`.

#[path = "../bodies/gpt.rs"]
mod gpt;
#[path = "../bodies/patches.rs"]
mod patches;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    gpt::judge(input);
});
