#![no_main]
//! Fuzzes `bodies/xsave_record.rs`.

#[path = "../bodies/xsave_record.rs"]
mod xsave_record;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    xsave_record::judge(input);
});
