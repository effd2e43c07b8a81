#![no_main]
//! Fuzzes `bodies/command_line.rs`.

#[path = "../bodies/command_line.rs"]
mod command_line;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    command_line::judge(input);
});
