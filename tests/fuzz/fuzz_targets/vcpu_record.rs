#![no_main]
//! Fuzzes `bodies/vcpu_record.rs`.

#[path = "../bodies/vcpu_record.rs"]
mod vcpu_record;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    vcpu_record::judge(input);
});
