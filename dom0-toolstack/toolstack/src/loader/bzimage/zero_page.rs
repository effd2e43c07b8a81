//! `boot_params`, the "zero page" by which a loader tells Linux what there is
//! (`Documentation/arch/x86/zero-page.rst`).

use super::super::MemoryMap;
use super::header::{START, SetupHeader};
use alloc::vec::Vec;

/// Its size, bytes.
pub(super) const BYTES: usize = 4096;

const ACPI_RSDP: usize = 0x70;
const MAP_ENTRIES: usize = 0x1e8;
const TYPE_OF_LOADER: usize = 0x210;
const LOAD_FLAGS: usize = 0x211;
const CODE32_START: usize = 0x214;
const RAMDISK_ADDRESS: usize = 0x218;
const RAMDISK_BYTES: usize = 0x21c;
const HEAP_END: usize = 0x224;
const CMDLINE: usize = 0x228;
const SETUP_DATA: usize = 0x250;
const MAP: usize = 0x2d0;
const MAP_ENTRY_BYTES: usize = 20;
/// Most entries of the map.
const MAP_ENTRIES_MAX: usize = 128;

/// "Undefined": a loader without a number of its own.
const LOADER_UNDEFINED: u8 = 0xff;
/// `loadflags`: the real-mode code may use the heap; it never runs here.
const CAN_USE_HEAP: u8 = 1 << 7;

/// What the page says. Everything not named is zero: no screen, no disks, no EFI.
pub(super) struct ZeroPage<'a> {
    pub(super) header: &'a SetupHeader<'a>,
    /// Where the kernel lies.
    pub(super) start: u64,
    /// Where the ramdisk lies, and the ramdisk.
    pub(super) ramdisk: Option<(u64, &'a [u8])>,
    /// Where the command line lies.
    pub(super) cmdline: u64,
    pub(super) rsdp: u64,
    pub(super) map: &'a MemoryMap,
}

impl ZeroPage<'_> {
    /// The page.
    pub(super) fn make(&self) -> Vec<u8> {
        let mut page = alloc::vec![0; BYTES];
        put(&mut page, START, self.header.bytes);
        put(&mut page, ACPI_RSDP, &self.rsdp.to_le_bytes());
        page[TYPE_OF_LOADER] = LOADER_UNDEFINED;
        page[LOAD_FLAGS] &= !CAN_USE_HEAP;
        put(&mut page, HEAP_END, &[0; 2]);
        put(&mut page, SETUP_DATA, &[0; 8]);
        let (ramdisk_at, ramdisk_bytes) = self
            .ramdisk
            .map_or((0, 0), |(address, bytes)| (address, bytes.len() as u64));
        for (at, value) in [
            (CODE32_START, self.start),
            (CMDLINE, self.cmdline),
            (RAMDISK_ADDRESS, ramdisk_at),
            (RAMDISK_BYTES, ramdisk_bytes),
        ] {
            let value = u32::try_from(value).expect("the loader puts all below 4 GiB");
            put(&mut page, at, &value.to_le_bytes());
        }
        let ranges = &self.map.ranges;
        assert!(ranges.len() <= MAP_ENTRIES_MAX, "a map has few ranges");
        page[MAP_ENTRIES] = ranges.len() as u8;
        for (index, (range, kind)) in ranges.iter().enumerate() {
            let at = MAP + index * MAP_ENTRY_BYTES;
            put(&mut page, at, &range.start.to_le_bytes());
            put(&mut page, at + 8, &(range.end - range.start).to_le_bytes());
            put(&mut page, at + 16, &(*kind as u32).to_le_bytes());
        }
        page
    }
}

fn put(page: &mut [u8], at: usize, bytes: &[u8]) {
    page[at..at + bytes.len()].copy_from_slice(bytes);
}
