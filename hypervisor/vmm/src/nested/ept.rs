//! Intel's extended page tables: SDM 3C 28.3.2, tables "Format of an EPT ...".

use super::entry::{
    Access, Entry, Format, Leaf, MemoryType, PageSize, park_above_flags, unpark_above_flags,
};
use crate::frames::{Frame, HostPhysical};

const READ: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const EXECUTE: u64 = 1 << 2;
const TYPE_SHIFT: u32 = 3;
const TYPE_MASK: u64 = 7 << TYPE_SHIFT;
/// The guest's PAT is ignored: write-back memory stays write-back, so that dom0's and our own mappings agree with it.
const IGNORE_PAT: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const ACCESSED: u64 = 1 << 8;
const DIRTY: u64 = 1 << 9;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Bits 62:52 are ignored by the processor as long as the features that use 57 to 61 are off.
const WITHHELD: u64 = 1 << 52;
const DIRTY_BELOW: u64 = 1 << 53;
/// An absent page: not present to the processor, which then ignores all other bits.
const ABSENT: u64 = 1 << 54;
/// Of an absent page, read, write and execute are up here.
const HIDDEN_SHIFT: u32 = 55;
const RIGHTS: u64 = READ | WRITE | EXECUTE;

const TYPE_UNCACHEABLE: u64 = 0;
const TYPE_WRITE_COMBINING: u64 = 1;
const TYPE_WRITE_BACK: u64 = 6;

/// The EPT format.
#[derive(Debug)]
pub struct Ept;

impl Format for Ept {
    const NAME: &'static str = "EPT";

    fn decode(entry: u64, level: u8) -> Entry {
        let absent = entry & (RIGHTS | ABSENT) == ABSENT;
        let entry = match absent {
            true => entry | entry >> HIDDEN_SHIFT & RIGHTS,
            false => entry,
        };
        if entry & RIGHTS == 0 {
            return Entry::Empty;
        }
        let address = HostPhysical(entry & ADDRESS);
        if level > 1 && entry & LARGE == 0 {
            return Entry::Table {
                address,
                dirty_below: entry & DIRTY_BELOW != 0,
            };
        }
        Entry::Leaf(Leaf {
            address,
            access: Access {
                write: entry & WRITE != 0,
                execute: entry & EXECUTE != 0,
            },
            memory_type: match (entry & TYPE_MASK) >> TYPE_SHIFT {
                TYPE_UNCACHEABLE => MemoryType::Uncacheable,
                TYPE_WRITE_COMBINING => MemoryType::WriteCombining,
                TYPE_WRITE_BACK => MemoryType::WriteBack,
                other => unreachable!("EPT memory type {other} was never written"),
            },
            accessed: entry & ACCESSED != 0,
            dirty: entry & DIRTY != 0,
            withheld: entry & WITHHELD != 0,
            absent,
        })
    }

    fn leaf(leaf: Leaf, size: PageSize) -> u64 {
        let memory_type = match leaf.memory_type {
            MemoryType::WriteBack => TYPE_WRITE_BACK << TYPE_SHIFT | IGNORE_PAT,
            MemoryType::Uncacheable => TYPE_UNCACHEABLE << TYPE_SHIFT,
            MemoryType::WriteCombining => TYPE_WRITE_COMBINING << TYPE_SHIFT,
        };
        let entry = leaf.address.0
            | READ
            | memory_type
            | if leaf.access.write { WRITE } else { 0 }
            | if leaf.access.execute { EXECUTE } else { 0 }
            | if size > PageSize::Small4K { LARGE } else { 0 }
            | if leaf.accessed { ACCESSED } else { 0 }
            | if leaf.dirty { DIRTY } else { 0 }
            | if leaf.withheld { WITHHELD } else { 0 };
        match leaf.absent {
            true => entry & !RIGHTS | (entry & RIGHTS) << HIDDEN_SHIFT | ABSENT,
            false => entry,
        }
    }

    fn table(address: HostPhysical, dirty_below: bool) -> u64 {
        let flag = if dirty_below { DIRTY_BELOW } else { 0 };
        address.0 | READ | WRITE | EXECUTE | ACCESSED | flag
    }

    fn park(link: Option<Frame>) -> u64 {
        park_above_flags(link)
    }

    fn unpark(entry: u64) -> Option<Frame> {
        unpark_above_flags(entry)
    }
}
