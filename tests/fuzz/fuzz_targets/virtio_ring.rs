#![no_main]
//! Fuzzes `bodies/virtio_ring.rs`.

#[path = "../bodies/virtio_ring.rs"]
mod virtio_ring;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    virtio_ring::judge(input);
});
