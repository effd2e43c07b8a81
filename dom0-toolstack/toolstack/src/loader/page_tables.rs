//! Page tables that map the first 4 GiB of linear addresses to themselves, in pages of 2 MiB (SDM
//! 3A 4.5): all that a loader puts anywhere lies there.

use alloc::vec::Vec;
use godwit_abi::PAGE_SIZE_BYTES;

/// Linear addresses mapped, bytes.
pub(super) const MAPPED_BYTES: u64 = 4 << 30;
const LARGE_PAGE_BYTES: u64 = 2 << 20;
const ENTRIES: u64 = PAGE_SIZE_BYTES / 8;
const DIRECTORIES: u64 = MAPPED_BYTES / LARGE_PAGE_BYTES / ENTRIES;
/// Their size: root, pointer table, directories.
pub(super) const TABLES_BYTES: u64 = (2 + DIRECTORIES) * PAGE_SIZE_BYTES;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;

/// The tables as they are to lie at `address`, page-aligned; the root comes first.
pub(super) fn make(address: u64) -> Vec<u8> {
    let pointers = address + PAGE_SIZE_BYTES;
    let directories = pointers + PAGE_SIZE_BYTES;
    let mut tables = Vec::with_capacity(TABLES_BYTES as usize);
    let mut table = |used: u64, entry: &dyn Fn(u64) -> u64| {
        for index in 0..ENTRIES {
            let value = if index < used { entry(index) } else { 0 };
            tables.extend(value.to_le_bytes());
        }
    };
    table(1, &|_| pointers | PRESENT | WRITABLE);
    table(DIRECTORIES, &|index| {
        (directories + index * PAGE_SIZE_BYTES) | PRESENT | WRITABLE
    });
    for directory in 0..DIRECTORIES {
        table(ENTRIES, &|index| {
            ((directory * ENTRIES + index) * LARGE_PAGE_BYTES) | PRESENT | WRITABLE | LARGE
        });
    }
    tables
}
