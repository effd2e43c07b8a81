#![no_main]
//! Fuzzes `bodies/emulate.rs`.

#[path = "../bodies/emulate.rs"]
mod emulate;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    emulate::judge(input);
});
