//! `hvm_start_info` version 1 and what it points to (Xen, `public/arch-x86/hvm/start_info.h`):
//!
//! ```text
//!   0 magic u32     4 version u32   8 flags u32    12 modules u32   16 module list u64
//!  24 cmdline u64  32 RSDP u64     40 map u64      48 map entries u32   52 reserved u32
//! ```
//! A module entry is address, size, command line, reserved (u64 each); a map entry is address u64,
//! size u64, type u32 (E820 numbers), reserved u32. All in one block: header, modules, map, text.

use super::Guest;
use alloc::vec::Vec;
use core::ops::Range;

/// `hvm_start_info::magic`.
pub const START_INFO_MAGIC: u32 = 0x336e_c578;
/// Size of `hvm_start_info`, bytes.
pub const START_INFO_BYTES: u64 = 56;
/// Size of a module entry, bytes.
pub const MODULE_ENTRY_BYTES: u64 = 32;
/// Size of a memory map entry, bytes.
pub const MAP_ENTRY_BYTES: u64 = 24;
/// Map entry type of RAM.
pub const MAP_TYPE_RAM: u32 = 1;
const VERSION: u32 = 1;

/// Length of the block in bytes.
pub(super) fn bytes(guest: &Guest<'_>, ranges: usize) -> u64 {
    text_offset(guest, ranges) + guest.cmdline.len() as u64 + 1
}

fn map_offset(guest: &Guest<'_>) -> u64 {
    START_INFO_BYTES + u64::from(guest.ramdisk.is_some()) * MODULE_ENTRY_BYTES
}

fn text_offset(guest: &Guest<'_>, ranges: usize) -> u64 {
    map_offset(guest) + ranges as u64 * MAP_ENTRY_BYTES
}

/// The block as it is to lie at `address`.
pub(super) fn make(
    guest: &Guest<'_>,
    address: u64,
    ramdisk: Option<u64>,
    memory: &[Range<u64>],
) -> Vec<u8> {
    let modules = u32::from(ramdisk.is_some());
    let mut block = Vec::new();
    for word in [START_INFO_MAGIC, VERSION, 0, modules] {
        block.extend(word.to_le_bytes());
    }
    let module_list = ramdisk.map_or(0, |_| address + START_INFO_BYTES);
    let text = address + text_offset(guest, memory.len());
    let rsdp = 0u64;
    for long in [module_list, text, rsdp, address + map_offset(guest)] {
        block.extend(long.to_le_bytes());
    }
    block.extend((memory.len() as u32).to_le_bytes());
    block.extend(0u32.to_le_bytes());
    if let (Some(at), Some(bytes)) = (ramdisk, guest.ramdisk) {
        for long in [at, bytes.len() as u64, 0, 0] {
            block.extend(long.to_le_bytes());
        }
    }
    for range in memory {
        block.extend(range.start.to_le_bytes());
        block.extend((range.end - range.start).to_le_bytes());
        block.extend(MAP_TYPE_RAM.to_le_bytes());
        block.extend(0u32.to_le_bytes());
    }
    block.extend(guest.cmdline.as_bytes());
    block.push(0);
    assert_eq!(block.len() as u64, bytes(guest, memory.len()));
    block
}
