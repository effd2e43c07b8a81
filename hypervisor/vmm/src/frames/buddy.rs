//! The buddy allocator: regions, free lists threaded through the table, splitting and coalescing.

use core::ops::DerefMut;

use arrayvec::ArrayVec;

use super::info::Kind;
use super::{Frame, FrameError, FrameInfo, Owner};

/// Order of a single frame.
pub const ORDER_4K: u8 = 0;
/// Order of a 2 MiB block.
pub const ORDER_2M: u8 = 9;
/// Order of a 1 GiB block.
pub const ORDER_1G: u8 = 18;
/// The largest block.
pub const ORDER_MAX: u8 = ORDER_1G;
/// Disjoint regions of memory that can be added.
pub const REGIONS_MAX: usize = 64;

const ORDERS: usize = ORDER_MAX as usize + 1;
/// End of a free list. Frame numbers stay below it (16 TiB).
const NONE: u32 = u32::MAX;

/// How low an address must be. Free blocks never cross a zone's border, so a low block is found without a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Zone {
    /// Below 1 MiB: real-mode start-up code of processors.
    Below1M = 0,
    /// Below 4 GiB: devices with 32-bit addresses.
    Below4G = 1,
    /// Anywhere.
    Any = 2,
}

impl Zone {
    /// Lowest first.
    pub const ALL: [Zone; 3] = [Zone::Below1M, Zone::Below4G, Zone::Any];

    fn of(frame: u64) -> Zone {
        if frame < 1 << 8 {
            Zone::Below1M
        } else if frame < 1 << 20 {
            Zone::Below4G
        } else {
            Zone::Any
        }
    }
}

/// Frames by kind of owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counts {
    /// All frames ever added; the sum of the others.
    pub total: u64,
    /// Free.
    pub free: u64,
    /// The hypervisor's.
    pub hypervisor: u64,
    /// All domains' together.
    pub domains: u64,
    /// Given up, still mapped.
    pub dying: u64,
}

/// The frame table with its free lists. `T` is the table: `&mut [FrameInfo]`, or a `Vec` in tests and models.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frames<T> {
    pub(super) table: T,
    pub(super) regions: ArrayVec<(u64, u64), REGIONS_MAX>,
    pub(super) counts: Counts,
    first: [[u32; ORDERS]; 3],
    /// Bit n of a zone: its list of order n is not empty.
    stocked: [u32; 3],
}

impl<T: DerefMut<Target = [FrameInfo]>> Frames<T> {
    /// Takes a table whose entries are all [`FrameInfo::RESERVED`] (zero). Entry n is frame n; frames beyond the table
    /// do not exist for the allocator. Not one entry is touched.
    pub fn new(table: T) -> Self {
        assert!(table.len() < NONE as usize, "frame table beyond 16 TiB");
        Frames {
            table,
            regions: ArrayVec::new(),
            counts: Counts::default(),
            first: [[NONE; ORDERS]; 3],
            stocked: [0; 3],
        }
    }

    /// Adds usable memory: frames `start..end`, free from now on.
    pub fn add_region(&mut self, start: Frame, end: Frame) -> Result<(), FrameError> {
        if start >= end {
            return Err(FrameError::BadSize);
        }
        if end.0 > self.table.len() as u64 {
            return Err(FrameError::OutOfTable);
        }
        if self.regions.iter().any(|&(s, e)| start.0 < e && s < end.0) {
            return Err(FrameError::Overlap);
        }
        let (mut joined_start, mut joined_end) = (start.0, end.0);
        let touches = |&(s, e): &(u64, u64)| e == start.0 || s == end.0;
        if self.regions.is_full() && !self.regions.iter().any(touches) {
            return Err(FrameError::TooManyRegions);
        }
        self.regions.retain(|region| {
            if touches(region) {
                joined_start = joined_start.min(region.0);
                joined_end = joined_end.max(region.1);
            }
            !touches(region)
        });
        self.regions.push((joined_start, joined_end));
        self.regions.sort_unstable();
        self.counts.total += end.0 - start.0;
        self.counts.free += end.0 - start.0;
        for (head, order) in aligned_blocks(start.0, end.0) {
            self.release(head, order);
        }
        Ok(())
    }

    /// Frames by kind of owner.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The regions added so far, ascending, touching ones joined.
    pub fn regions(&self) -> impl Iterator<Item = (Frame, Frame)> + '_ {
        self.regions.iter().map(|&(s, e)| (Frame(s), Frame(e)))
    }

    /// To whom a frame belongs.
    pub fn owner(&self, frame: Frame) -> Owner {
        match self.head_of(frame) {
            Some((head, _)) => self.entry(head).owner(),
            None => Owner::Reserved,
        }
    }

    pub(super) fn entry(&self, index: u64) -> &FrameInfo {
        &self.table[index as usize]
    }

    pub(super) fn entry_mut(&mut self, index: u64) -> &mut FrameInfo {
        &mut self.table[index as usize]
    }

    /// Head and order of the block that covers a frame.
    pub(super) fn head_of(&self, frame: Frame) -> Option<(u64, u8)> {
        if frame.0 >= self.table.len() as u64 {
            return None;
        }
        (0..=ORDER_MAX).find_map(|order| {
            let start = frame.0 >> order << order;
            let info = self.entry(start);
            (info.kind != Kind::NoHead && info.order >= order).then_some((start, info.order))
        })
    }

    /// Takes a free block of exactly this order out of the lists, from the highest zone allowed that has one. The entry
    /// heads nothing afterwards; the caller writes its owner.
    pub(super) fn take(&mut self, order: u8, zone: Zone) -> Option<u64> {
        let wanted = u32::MAX << order;
        let (zone, found) = Zone::ALL[..=zone as usize].iter().rev().find_map(|&zone| {
            let stocked = self.stocked[zone as usize] & wanted;
            (stocked != 0).then(|| (zone, stocked.trailing_zeros() as u8))
        })?;
        let head = u64::from(self.first[zone as usize][usize::from(found)]);
        self.unlink(head);
        self.give_back_rest(head, found, head, order);
        Some(head)
    }

    /// Takes the given aligned block out of the free block that covers it.
    pub(super) fn take_at(&mut self, start: u64, order: u8) -> Result<(), FrameError> {
        let (head, found) = self.head_of(Frame(start)).ok_or(FrameError::NotFree)?;
        if self.entry(head).kind != Kind::Free || found < order {
            return Err(FrameError::NotFree);
        }
        self.unlink(head);
        self.give_back_rest(head, found, start, order);
        Ok(())
    }

    /// Puts a block whose entry heads nothing and is not mapped into the free lists, joined with its free buddies.
    pub(super) fn release(&mut self, head: u64, order: u8) {
        debug_assert_eq!(*self.entry(head), FrameInfo::RESERVED);
        let (mut head, mut order) = (head, order);
        while order < ORDER_MAX {
            let buddy = head ^ (1 << order);
            if buddy >= self.table.len() as u64 || Zone::of(buddy) != Zone::of(head) {
                break;
            }
            let info = self.entry(buddy);
            if info.kind != Kind::Free || info.order != order {
                break;
            }
            self.unlink(buddy);
            head = head.min(buddy);
            order += 1;
        }
        self.link(head, order);
    }

    /// Of a block taken from the lists, releases all but the part `keep`.
    fn give_back_rest(&mut self, head: u64, order: u8, keep: u64, keep_order: u8) {
        let (mut head, mut order) = (head, order);
        while order > keep_order {
            order -= 1;
            let upper = head + (1 << order);
            if keep < upper {
                self.link(upper, order);
            } else {
                self.link(head, order);
                head = upper;
            }
        }
    }

    fn link(&mut self, head: u64, order: u8) {
        let zone = Zone::of(head) as usize;
        let next = self.first[zone][usize::from(order)];
        *self.entry_mut(head) = FrameInfo {
            kind: Kind::Free,
            order,
            next_or_maps: next,
            previous_or_sum: NONE,
            ..FrameInfo::RESERVED
        };
        if next != NONE {
            self.entry_mut(u64::from(next)).previous_or_sum = head as u32;
        }
        self.first[zone][usize::from(order)] = head as u32;
        self.stocked[zone] |= 1 << order;
    }

    fn unlink(&mut self, head: u64) {
        let info = core::mem::take(self.entry_mut(head));
        debug_assert_eq!(info.kind, Kind::Free);
        let (zone, order) = (Zone::of(head) as usize, usize::from(info.order));
        let (next, previous) = (info.next_or_maps, info.previous_or_sum);
        if next != NONE {
            self.entry_mut(u64::from(next)).previous_or_sum = previous;
        }
        if previous != NONE {
            self.entry_mut(u64::from(previous)).next_or_maps = next;
        } else {
            self.first[zone][order] = next;
            if next == NONE {
                self.stocked[zone] &= !(1 << order);
            }
        }
    }
}

/// Cuts `start..end` into the fewest aligned blocks that stay inside their zone.
pub(super) fn aligned_blocks(start: u64, end: u64) -> impl Iterator<Item = (u64, u8)> {
    let mut at = start;
    core::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let fits = (end - at).ilog2().min(at.trailing_zeros());
        let mut order = fits.min(u32::from(ORDER_MAX));
        if Zone::of(at) == Zone::Below1M {
            order = order.min(8);
        }
        let block = (at, order as u8);
        at += 1 << order;
        Some(block)
    })
}
