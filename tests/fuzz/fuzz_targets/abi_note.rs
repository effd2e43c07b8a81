#![no_main]
//! Fuzzes `bodies/abi_note.rs`.

#[path = "../bodies/abi_note.rs"]
mod abi_note;

libfuzzer_sys::fuzz_target!(|input: &[u8]| abi_note::judge(input));
