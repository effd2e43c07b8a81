#![no_main]
//! Fuzzes `bodies/guest_image.rs`.

#[path = "../bodies/guest_image.rs"]
mod guest_image;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    guest_image::judge(input);
});
