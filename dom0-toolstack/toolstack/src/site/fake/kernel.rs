//! A kernel for tests.

use alloc::vec::Vec;

/// A kernel that is loaded at 1 MiB, each page with its number in every byte.
pub fn kernel(kernel_bytes: u32) -> Vec<u8> {
    let mut file = alloc::vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
    file.resize(16, 0);
    file.extend([2, 0, 62, 0]);
    file.resize(32, 0);
    file.extend(64u64.to_le_bytes());
    file.resize(54, 0);
    file.extend([56, 0, 2, 0]);
    file.resize(64, 0);
    for (kind, offset, bytes) in [
        (1u64 | 5 << 32, 4096u64, u64::from(kernel_bytes)),
        (4, 256, 20),
    ] {
        for long in [kind, offset, 1 << 20, 1 << 20, bytes, bytes, 4] {
            file.extend(long.to_le_bytes());
        }
    }
    file.resize(256, 0);
    for word in [4u32, 4, 18, u32::from_le_bytes(*b"Xen\0"), 0x10_0000] {
        file.extend(word.to_le_bytes());
    }
    file.resize(4096, 0);
    for page in 0..kernel_bytes / 4096 {
        file.extend([page as u8; 4096]);
    }
    file
}
