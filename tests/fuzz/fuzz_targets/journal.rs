#![no_main]
//! Fuzzes `bodies/journal.rs`.

#[path = "../bodies/journal.rs"]
mod journal;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    journal::judge(input);
});
