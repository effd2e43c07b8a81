#![no_main]
//! Fuzzes `bodies/channel.rs`.

#[path = "../bodies/channel.rs"]
mod channel;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    channel::judge(input);
});
