//! What a multiboot2 loader looks for in our hypervisor image.

use anyhow::{Context, Result, ensure};

/// The header must lie wholly within this much of the file, 8-byte aligned (Multiboot2 3.1).
const SEARCH_BYTES: usize = 32 * 1024;
const ALIGNMENT: usize = 8;
const MAGIC: u32 = 0xe852_50d6;
const ARCHITECTURE_I386: u32 = 0;
/// Magic, architecture, header length, checksum.
const FIXED_BYTES: usize = 16;

/// Finds the multiboot2 header in a file; returns its offset in bytes, or says what is wrong.
pub(crate) fn multiboot2_header(file: &[u8]) -> Result<usize> {
    let searched = &file[..file.len().min(SEARCH_BYTES)];
    let word = |at: usize| u32::from_le_bytes(searched[at..at + 4].try_into().expect("4 bytes"));
    let at = (0..searched.len().saturating_sub(FIXED_BYTES - 1))
        .step_by(ALIGNMENT)
        .find(|&at| word(at) == MAGIC)
        .context("no multiboot2 header in the first 32 KiB: GRUB will not load it")?;
    let (architecture, length, checksum) = (word(at + 4), word(at + 8), word(at + 12));
    ensure!(
        architecture == ARCHITECTURE_I386,
        "multiboot2 architecture {architecture} is not i386"
    );
    let sum = MAGIC
        .wrapping_add(architecture)
        .wrapping_add(length)
        .wrapping_add(checksum);
    ensure!(
        sum == 0,
        "the multiboot2 header at {at:#x} has a wrong checksum"
    );
    ensure!(
        at + length as usize <= searched.len(),
        "the multiboot2 header at {at:#x} does not end in the first 32 KiB"
    );
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(at: usize, length: u32, checksum_error: u32) -> Vec<u8> {
        let checksum = 0u32
            .wrapping_sub(MAGIC)
            .wrapping_sub(length)
            .wrapping_add(checksum_error);
        let mut file = vec![0; 40_000];
        for (i, word) in [MAGIC, 0, length, checksum].iter().enumerate() {
            file[at + 4 * i..at + 4 * i + 4].copy_from_slice(&word.to_le_bytes());
        }
        file
    }

    #[test]
    fn a_header_is_found_only_where_a_loader_looks() {
        assert_eq!(multiboot2_header(&file(0x1000, 24, 0)).unwrap(), 0x1000);
        assert!(
            multiboot2_header(&file(0x1004, 24, 0)).is_err(),
            "misaligned"
        );
        assert!(
            multiboot2_header(&file(32 * 1024, 24, 0)).is_err(),
            "too far"
        );
        assert!(
            multiboot2_header(&file(32 * 1024 - 16, 24, 0)).is_err(),
            "ends too far"
        );
        assert!(multiboot2_header(&file(0x1000, 24, 1)).is_err(), "checksum");
        assert!(multiboot2_header(b"short").is_err());
    }
}
