#![no_main]
//! Fuzzes `bodies/fat.rs`.

#[path = "../bodies/fat.rs"]
mod fat;
#[path = "../bodies/patches.rs"]
mod patches;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    fat::judge(input);
});
