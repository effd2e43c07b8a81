//! AMD's nested page tables: the long-mode format (APM 2 5.3) read as APM 2 15.25 says: every nested access is a user access,
//! so the user bit is set on every level, and no-execute counts because the host runs with EFER.NXE.

use super::entry::{
    Access, Entry, Format, Leaf, MemoryType, PageSize, park_above_flags, unpark_above_flags,
};
use crate::frames::{Frame, HostPhysical};

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const WRITE_THROUGH: u64 = 1 << 3;
const CACHE_DISABLE: u64 = 1 << 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const PAT_SMALL: u64 = 1 << 7;
const PAT_LARGE: u64 = 1 << 12;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Bits 58:52 are available to software.
const WITHHELD: u64 = 1 << 52;
const DIRTY_BELOW: u64 = 1 << 53;
/// An absent page: not present to the processor, which then ignores all other bits.
const ABSENT: u64 = 1 << 54;

/// What the host's IA32_PAT must hold for the types below: the reset value, but entry 5 is write-combining, not write-through
/// (so that a host that forgets to load it errs on the safe side).
pub const HOST_PAT: u64 = 0x0007_0106_0007_0406;

/// The NPT format.
#[derive(Debug)]
pub struct Npt;

const fn pat_bit(size: PageSize) -> u64 {
    match size {
        PageSize::Small4K => PAT_SMALL,
        PageSize::Large2M | PageSize::Huge1G => PAT_LARGE,
    }
}

impl Format for Npt {
    const NAME: &'static str = "NPT";

    fn decode(entry: u64, level: u8) -> Entry {
        let absent = entry & (PRESENT | ABSENT) == ABSENT;
        if entry & PRESENT == 0 && !absent {
            return Entry::Empty;
        }
        let size = match PageSize::of_level(level) {
            Some(size) if level == 1 || entry & LARGE != 0 => size,
            Some(_) | None => {
                return Entry::Table {
                    address: HostPhysical(entry & ADDRESS),
                    dirty_below: entry & DIRTY_BELOW != 0,
                };
            }
        };
        let pat = entry & pat_bit(size) != 0;
        let memory_type = match (pat, entry & CACHE_DISABLE != 0, entry & WRITE_THROUGH != 0) {
            (false, false, false) => MemoryType::WriteBack,
            (false, true, true) => MemoryType::Uncacheable,
            (true, false, true) => MemoryType::WriteCombining,
            other => unreachable!("NPT memory type {other:?} was never written"),
        };
        Entry::Leaf(Leaf {
            address: HostPhysical(entry & ADDRESS & !(size.bytes() - 1)),
            access: Access {
                write: entry & WRITE != 0,
                execute: entry & NO_EXECUTE == 0,
            },
            memory_type,
            accessed: entry & ACCESSED != 0,
            dirty: entry & DIRTY != 0,
            withheld: entry & WITHHELD != 0,
            absent,
        })
    }

    fn leaf(leaf: Leaf, size: PageSize) -> u64 {
        let memory_type = match leaf.memory_type {
            MemoryType::WriteBack => 0,
            MemoryType::Uncacheable => CACHE_DISABLE | WRITE_THROUGH,
            MemoryType::WriteCombining => pat_bit(size) | WRITE_THROUGH,
        };
        leaf.address.0
            | if leaf.absent { ABSENT } else { PRESENT }
            | USER
            | memory_type
            | if leaf.access.write { WRITE } else { 0 }
            | if leaf.access.execute { 0 } else { NO_EXECUTE }
            | if size > PageSize::Small4K { LARGE } else { 0 }
            | if leaf.accessed { ACCESSED } else { 0 }
            | if leaf.dirty { DIRTY } else { 0 }
            | if leaf.withheld { WITHHELD } else { 0 }
    }

    fn table(address: HostPhysical, dirty_below: bool) -> u64 {
        let flag = if dirty_below { DIRTY_BELOW } else { 0 };
        address.0 | PRESENT | WRITE | USER | ACCESSED | flag
    }

    fn park(link: Option<Frame>) -> u64 {
        park_above_flags(link)
    }

    fn unpark(entry: u64) -> Option<Frame> {
        unpark_above_flags(entry)
    }
}
