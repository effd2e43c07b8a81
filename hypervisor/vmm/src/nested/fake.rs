//! A format no processor has: frame number in the top bits, rights and flags inverted, size spelt out, links odd. Code that
//! assumes the layout of EPT or NPT fails on it.

use super::entry::{Access, Entry, Format, Leaf, MemoryType, PageSize};
use crate::frames::{Frame, HostPhysical};

const KIND_TABLE: u64 = 0b10;
const KIND_LEAF: u64 = 0b01;
const NO_WRITE: u64 = 1 << 2;
const NO_EXECUTE: u64 = 1 << 3;
const CLEAN: u64 = 1 << 4;
const UNUSED: u64 = 1 << 5;
const GRANTED: u64 = 1 << 6;
const CLEAN_BELOW: u64 = 1 << 7;
const TYPE_SHIFT: u32 = 8;
const SIZE_SHIFT: u32 = 12;
const FRAME_SHIFT: u32 = 20;
const PARKED: u64 = 1 << 15;
const HERE: u64 = 1 << 16;

/// The fake format.
#[derive(Debug)]
pub(super) struct Fake;

impl Format for Fake {
    const NAME: &'static str = "fake";

    fn decode(entry: u64, level: u8) -> Entry {
        let address = Frame(entry >> FRAME_SHIFT).address();
        match entry & 0b11 {
            0 => Entry::Empty,
            KIND_TABLE => {
                assert!(level > 1, "table entry in the lowest table");
                Entry::Table {
                    address,
                    dirty_below: entry & CLEAN_BELOW == 0,
                }
            }
            KIND_LEAF => {
                assert_eq!(
                    entry >> SIZE_SHIFT & 7,
                    7 - u64::from(level),
                    "leaf in a table of the wrong level"
                );
                Entry::Leaf(Leaf {
                    address,
                    access: Access {
                        write: entry & NO_WRITE == 0,
                        execute: entry & NO_EXECUTE == 0,
                    },
                    memory_type: match entry >> TYPE_SHIFT & 7 {
                        3 => MemoryType::WriteBack,
                        5 => MemoryType::Uncacheable,
                        6 => MemoryType::WriteCombining,
                        other => panic!("memory type {other}"),
                    },
                    accessed: entry & UNUSED == 0,
                    dirty: entry & CLEAN == 0,
                    withheld: entry & GRANTED == 0,
                    absent: entry & HERE == 0,
                })
            }
            other => panic!("entry kind {other}"),
        }
    }

    fn leaf(leaf: Leaf, size: PageSize) -> u64 {
        let memory_type: u64 = match leaf.memory_type {
            MemoryType::WriteBack => 3,
            MemoryType::Uncacheable => 5,
            MemoryType::WriteCombining => 6,
        };
        assert_eq!(
            leaf.address.0 & (size.bytes() - 1),
            0,
            "leaf address not aligned to its size"
        );
        leaf.address.frame().0 << FRAME_SHIFT
            | KIND_LEAF
            | memory_type << TYPE_SHIFT
            | (7 - size as u64) << SIZE_SHIFT
            | if leaf.access.write { 0 } else { NO_WRITE }
            | if leaf.access.execute { 0 } else { NO_EXECUTE }
            | if leaf.accessed { 0 } else { UNUSED }
            | if leaf.dirty { 0 } else { CLEAN }
            | if leaf.withheld { 0 } else { GRANTED }
            | if leaf.absent { 0 } else { HERE }
    }

    fn table(address: HostPhysical, dirty_below: bool) -> u64 {
        let flag = if dirty_below { 0 } else { CLEAN_BELOW };
        address.frame().0 << FRAME_SHIFT | KIND_TABLE | flag
    }

    fn park(link: Option<Frame>) -> u64 {
        link.map_or(0, |frame| frame.0 << FRAME_SHIFT | PARKED)
    }

    fn unpark(entry: u64) -> Option<Frame> {
        (entry & PARKED != 0).then_some(Frame(entry >> FRAME_SHIFT))
    }
}
