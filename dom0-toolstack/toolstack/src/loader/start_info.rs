//! `hvm_start_info` version 1 and what it points to (Xen, `public/arch-x86/hvm/start_info.h`):
//!
//! ```text
//!   0 magic u32     4 version u32   8 flags u32    12 modules u32   16 module list u64
//!  24 cmdline u64  32 RSDP u64     40 map u64      48 map entries u32   52 reserved u32
//! ```
//! A module entry is address, size, command line, reserved (u64 each); a map entry is address u64,
//! size u64, type u32 (E820 numbers), reserved u32. All in one block: header, modules, map, text.

use super::{Guest, MemoryMap};
use alloc::vec::Vec;

/// `hvm_start_info::magic`.
pub const START_INFO_MAGIC: u32 = 0x336e_c578;
/// Size of `hvm_start_info`, bytes.
pub const START_INFO_BYTES: u64 = 56;
/// Size of a module entry, bytes.
pub const MODULE_ENTRY_BYTES: u64 = 32;
/// Size of a memory map entry, bytes.
pub const MAP_ENTRY_BYTES: u64 = 24;
const VERSION: u32 = 1;

/// What the block says.
pub(super) struct StartInfo<'a> {
    pub(super) guest: &'a Guest<'a>,
    pub(super) map: &'a MemoryMap,
    pub(super) rsdp: u64,
}

impl StartInfo<'_> {
    /// Length of the block in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.text_offset() + self.guest.cmdline.len() as u64 + 1
    }

    fn map_offset(&self) -> u64 {
        START_INFO_BYTES + u64::from(self.guest.ramdisk.is_some()) * MODULE_ENTRY_BYTES
    }

    fn text_offset(&self) -> u64 {
        self.map_offset() + self.map.ranges.len() as u64 * MAP_ENTRY_BYTES
    }

    /// The block as it is to lie at `address`.
    pub(super) fn make(&self, address: u64, ramdisk: Option<u64>) -> Vec<u8> {
        let modules = u32::from(ramdisk.is_some());
        let mut block = Vec::new();
        for word in [START_INFO_MAGIC, VERSION, 0, modules] {
            block.extend(word.to_le_bytes());
        }
        let module_list = ramdisk.map_or(0, |_| address + START_INFO_BYTES);
        let text = address + self.text_offset();
        for long in [module_list, text, self.rsdp, address + self.map_offset()] {
            block.extend(long.to_le_bytes());
        }
        block.extend((self.map.ranges.len() as u32).to_le_bytes());
        block.extend(0u32.to_le_bytes());
        if let (Some(at), Some(bytes)) = (ramdisk, self.guest.ramdisk) {
            for long in [at, bytes.len() as u64, 0, 0] {
                block.extend(long.to_le_bytes());
            }
        }
        for (range, kind) in &self.map.ranges {
            block.extend(range.start.to_le_bytes());
            block.extend((range.end - range.start).to_le_bytes());
            block.extend((*kind as u32).to_le_bytes());
            block.extend(0u32.to_le_bytes());
        }
        block.extend(self.guest.cmdline.as_bytes());
        block.push(0);
        assert_eq!(block.len() as u64, self.bytes());
        block
    }
}
