#![no_main]
//! Fuzzes `bodies/cpu_policy.rs`.

#[path = "../bodies/cpu_policy.rs"]
mod cpu_policy;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    cpu_policy::judge(input);
});
