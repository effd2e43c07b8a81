#![no_main]
//! Fuzzes `bodies/abi_call.rs`.

#[path = "../bodies/abi_call.rs"]
mod abi_call;

libfuzzer_sys::fuzz_target!(|input: &[u8]| abi_call::judge(input));
