#![no_main]
//! Fuzzes `bodies/dhcp.rs`.

#[path = "../bodies/dhcp.rs"]
mod dhcp;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    dhcp::judge(input);
});
