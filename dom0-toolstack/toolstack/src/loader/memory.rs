//! A guest's physical memory, and which of it it may use.
//!
//! ```text
//!        0 -   640 KiB  RAM
//!  640 KiB -   896 KiB  backed, not in the map (video memory and option ROMs of a PC)
//!  896 KiB -     1 MiB  reserved: the ACPI tables
//!    1 MiB -     3 GiB  RAM, as far as there is any
//!  3.5 GiB + 1 MiB      reserved: PCI configuration space
//!    4 GiB -            RAM, what is left
//! ```

use super::LoadError;
use crate::acpi;
use alloc::vec::Vec;
use core::ops::Range;
use godwit_abi::PAGE_SIZE_BYTES;

/// RAM below 1 MiB ends here.
pub const CONVENTIONAL_END: u64 = 640 << 10;
/// RAM goes on here, behind what a PC keeps for its firmware.
pub const EXTENDED_START: u64 = 1 << 20;
/// RAM below 4 GiB ends here at most; what is between is for devices.
pub const LOW_MEMORY_END: u64 = 3 << 30;
/// Where RAM goes on.
pub const HIGH_MEMORY_START: u64 = 4 << 30;

/// What a range of a memory map is. The numbers are those of BIOS function E820h, which all boot
/// protocols took over (ACPI 6.5 section 15.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RangeKind {
    /// Free to use.
    Ram = 1,
    /// Not to be touched.
    Reserved = 2,
}

/// What to populate for a guest of `memory_bytes`: guest-physical addresses.
pub fn memory_of(memory_bytes: u64) -> Vec<Range<u64>> {
    let low = memory_bytes.min(LOW_MEMORY_END);
    let mut ranges = alloc::vec![0..low];
    if memory_bytes > low {
        ranges.push(HIGH_MEMORY_START..HIGH_MEMORY_START.saturating_add(memory_bytes - low));
    }
    ranges
}

/// What a guest is told of its memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemoryMap {
    /// By address, not overlapping, none empty.
    pub ranges: Vec<(Range<u64>, RangeKind)>,
}

impl MemoryMap {
    /// The map of a guest of `memory_bytes`, which are at least [`EXTENDED_START`].
    pub fn new(memory_bytes: u64) -> Result<Self, LoadError> {
        if memory_bytes <= EXTENDED_START {
            return Err(LoadError::MemoryTooSmall(memory_bytes));
        }
        let tables = acpi::TABLES_START..acpi::TABLES_END;
        let pci = acpi::PCI_CONFIGURATION_START
            ..acpi::PCI_CONFIGURATION_START + acpi::PCI_CONFIGURATION_BYTES;
        let low_end = memory_bytes.min(LOW_MEMORY_END);
        let mut ranges = alloc::vec![
            (0..CONVENTIONAL_END, RangeKind::Ram),
            (tables, RangeKind::Reserved),
            (EXTENDED_START..low_end, RangeKind::Ram),
            (pci, RangeKind::Reserved),
        ];
        let high = memory_of(memory_bytes).into_iter().skip(1);
        ranges.extend(high.map(|range| (range, RangeKind::Ram)));
        Ok(Self { ranges })
    }

    /// Where RAM below 4 GiB ends.
    pub fn low_end(&self) -> u64 {
        let below = self.ram().filter(|range| range.end <= LOW_MEMORY_END);
        below.map(|range| range.end).max().unwrap_or(0)
    }

    /// Whether `bytes` from `start` on lie in RAM below 4 GiB.
    pub fn has_low_ram(&self, start: u64, bytes: u64) -> bool {
        let Some(end) = start.checked_add(bytes) else {
            return false;
        };
        let mut low = self.ram().filter(|range| range.end <= LOW_MEMORY_END);
        low.any(|range| range.start <= start && end <= range.end)
    }

    fn ram(&self) -> impl Iterator<Item = &Range<u64>> {
        let ram = self.ranges.iter().filter(|entry| entry.1 == RangeKind::Ram);
        ram.map(|entry| &entry.0)
    }
}

/// RAM from which places are taken, page by page.
pub(super) struct Room {
    next: u64,
    end: u64,
}

impl Room {
    /// What is free behind a kernel that ends at `end`.
    pub(super) fn behind(end: u64, map: &MemoryMap) -> Self {
        Self {
            next: end.max(EXTENDED_START),
            end: map.low_end(),
        }
    }

    /// A part of the RAM.
    pub(super) const fn new(range: Range<u64>) -> Self {
        Self {
            next: range.start,
            end: range.end,
        }
    }

    /// The address of `bytes` from the next page border on.
    pub(super) fn take(&mut self, what: &'static str, bytes: u64) -> Result<u64, LoadError> {
        let address = self.next.next_multiple_of(PAGE_SIZE_BYTES);
        match address.checked_add(bytes) {
            Some(end) if end <= self.end => {
                self.next = end;
                Ok(address)
            }
            Some(_) | None => Err(LoadError::NoRoom { what, bytes }),
        }
    }

    /// The address of `bytes` as high as a page border and `end` allow.
    pub(super) fn take_high(
        &mut self,
        what: &'static str,
        bytes: u64,
        end: u64,
    ) -> Result<u64, LoadError> {
        let address = self.end.min(end).checked_sub(bytes);
        let address = address.map(|address| address - address % PAGE_SIZE_BYTES);
        match address {
            Some(address) if address >= self.next => {
                self.end = address;
                Ok(address)
            }
            Some(_) | None => Err(LoadError::NoRoom { what, bytes }),
        }
    }
}
