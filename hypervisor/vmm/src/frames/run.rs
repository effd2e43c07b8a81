//! The two linear operations: a contiguous run of any length (boot time), and a bounded scan over blocks (accounting).

use core::ops::DerefMut;

use super::info::Kind;
use super::{Frame, FrameError, FrameInfo, Frames, ORDER_MAX, Owner};

/// Table entries one call of [`Frames::scan`] looks at.
pub const SCAN_MAX: u64 = 4096;

/// A block as the table has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// First frame.
    pub start: Frame,
    /// 2^order frames.
    pub order: u8,
    /// Whose it is.
    pub owner: Owner,
}

/// One step of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// A block; continue at its end.
    Found(Block),
    /// Nothing in [`SCAN_MAX`] entries; continue here.
    More(Frame),
    /// The table ends.
    End,
}

impl<T: DerefMut<Target = [FrameInfo]>> Frames<T> {
    /// Gives `count` contiguous frames that start at a multiple of 2^align_order and end at or below `below` to `owner`:
    /// the highest such run. Linear in the number of blocks: for boot, not for a running host.
    pub fn allocate_run(
        &mut self,
        count: u64,
        align_order: u8,
        below: Frame,
        owner: Owner,
    ) -> Result<Frame, FrameError> {
        if count == 0 || align_order > ORDER_MAX {
            return Err(FrameError::BadSize);
        }
        let mut best = None;
        for &(start, end) in &self.regions {
            let end = end.min(below.0);
            let mut run_start = start;
            let mut at = start;
            while at < end {
                let (head, order) = self
                    .head_of(Frame(at))
                    .expect("regions are covered by blocks");
                at = head + (1 << order);
                if self.entry(head).kind != Kind::Free {
                    run_start = at;
                    continue;
                }
                let usable_end = at.min(end);
                if let Some(latest) = usable_end.checked_sub(count) {
                    let aligned = latest >> align_order << align_order;
                    if aligned >= run_start {
                        best = Some(aligned);
                    }
                }
            }
        }
        let start = best.ok_or(FrameError::OutOfMemory)?;
        self.allocate_at(Frame(start), Frame(start + count), owner)?;
        Ok(Frame(start))
    }

    /// Finds the first block that starts at or after `from`, looking at no more than [`SCAN_MAX`] entries. Serves
    /// per-owner accounting and the search for leaks after a domain is gone.
    pub fn scan(&self, from: Frame) -> Scan {
        let length = self.table.len() as u64;
        let end = length.min(from.0.saturating_add(SCAN_MAX));
        for at in from.0..end {
            let info = self.entry(at);
            if info.kind != Kind::NoHead {
                let (order, owner) = (info.order, info.owner());
                return Scan::Found(Block {
                    start: Frame(at),
                    order,
                    owner,
                });
            }
        }
        if end >= length {
            Scan::End
        } else {
            Scan::More(Frame(end))
        }
    }

    /// Frames of one owner, by a scan of the whole table: for tests and debug keys.
    pub fn count_owned(&self, owner: Owner) -> u64 {
        let (mut at, mut count) = (Frame(0), 0);
        loop {
            match self.scan(at) {
                Scan::Found(block) => {
                    at = block.start.plus(1 << block.order);
                    count += if block.owner == owner {
                        1 << block.order
                    } else {
                        0
                    };
                }
                Scan::More(next) => at = next,
                Scan::End => return count,
            }
        }
    }
}
