//! Moving a guest's disk to another one while the guest uses it.
//!
//! ```text
//!   guest's virtio-blk ── SwitchDisk ──┬── source          until the switch: the truth
//!                                      └── target          what was copied, and what is written since
//! ```
//!
//! Every disk of a guest is behind a [`SwitchDisk`], which costs a request one allocation. [`SwitchDisk::begin`]
//! adds a [`Mirror`]; [`Mirror::converge`] copies region by region and compares both copies; then
//! [`SwitchDisk::switch`] closes the gate between two requests of the guest, compares what was written last, has
//! the caller note the new disk, and from then on only the target is used.
//!
//! Invariants: the guest is told what the source says, never the target. A region not yet copied is written
//! only at the source; afterwards whatever the guest writes goes to both, and whoever works on blocks holds
//! them (`locks`). Any failure of the target ends the mirror and nothing else: the source is complete at
//! every moment. A flush goes to the source; the target is flushed before the switch, with the gate closed,
//! so that everything the guest was told to be lasting lasts there too.
//!
//! Comparing reads both copies: a block the guest changed in memory while it was being written (which is its
//! right) may differ, is found, copied again and named in [`Progress::unequal`].

mod copying;
mod error;
mod locks;
mod map;
mod switch;
#[cfg(test)]
mod tests;
mod transfer;

pub use copying::Pace;
pub use error::MirrorError;
pub use switch::SwitchDisk;

use super::blocks::Blocks;
use super::copy::zero;
use super::nbd::Timer;
use crate::disk::{Disk, DiskError};
use crate::memory::{Memory, Span};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::Future;
use core::ops::Range;
use core::pin::pin;
use futures_util::future::{Either, join, select};
use locks::RangeLocks;
use map::RegionMap;
use transfer::{Way, bytes_of, transfer};

/// What is copied, compared and marked as one.
pub const REGION_BYTES: u32 = 64 << 10;
/// A target that does not answer for so long is given up; the guest's writes wait for it meanwhile.
pub const TARGET_LIMIT_MS: u64 = 10_000;
/// Unequal regions that are named.
const UNEQUAL_NAMED_MAX: usize = 16;

/// How far a mirror is. Nothing but `unproved` ever goes down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Size of the disk.
    pub bytes: u64,
    /// Of that, what has been copied.
    pub done_bytes: u64,
    /// What was written to the target by copying, again included.
    pub copied_bytes: u64,
    /// What was found to be zeroes, and not sent as data.
    pub zero_bytes: u64,
    /// What the guest wrote to both.
    pub mirrored_bytes: u64,
    /// The guest's requests that wrote to both.
    pub mirrored_requests: u64,
    /// Regions still to be compared.
    pub unproved: u64,
    /// Byte offsets of regions that were not equal and were copied again; the first few.
    pub unequal: Vec<u64>,
}

/// The second copy of a guest's disk in the making.
pub struct Mirror {
    source: Blocks,
    target: Blocks,
    /// Of which so much is the guest's disk; what is behind it may be larger.
    blocks: u64,
    timer: Rc<dyn Timer>,
    locks: RangeLocks,
    gate: Rc<locks::Gate>,
    /// Regions to be copied.
    dirty: RefCell<RegionMap>,
    /// Regions to be compared.
    unproved: RefCell<RegionMap>,
    progress: RefCell<Progress>,
    failure: RefCell<Option<MirrorError>>,
    /// The target has what it may lose.
    behind: Cell<bool>,
}

impl Mirror {
    fn new(
        (source, blocks): (Rc<dyn Disk>, u64),
        target: Rc<dyn Disk>,
        memory: &Rc<dyn Memory>,
        timer: Rc<dyn Timer>,
        gate: Rc<locks::Gate>,
    ) -> Mirror {
        let block_bytes = source.geometry().block_bytes;
        let full = || RefCell::new(RegionMap::full(blocks, block_bytes));
        Mirror {
            source: Blocks::new(source, Rc::clone(memory)),
            target: Blocks::new(target, Rc::clone(memory)),
            blocks,
            timer,
            locks: RangeLocks::default(),
            gate,
            dirty: full(),
            unproved: full(),
            progress: RefCell::new(Progress {
                bytes: blocks * u64::from(block_bytes),
                ..Progress::default()
            }),
            failure: RefCell::new(None),
            behind: Cell::new(true),
        }
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        let unproved = self.unproved.borrow().count();
        Progress {
            unproved,
            ..self.progress.borrow().clone()
        }
    }

    /// Why it came to nothing, if it did: the guest goes on at the source.
    pub fn failure(&self) -> Option<MirrorError> {
        self.failure.borrow().clone()
    }

    /// Ends it: nothing more is written to the target.
    fn fail(&self, error: MirrorError) {
        self.failure.borrow_mut().get_or_insert(error);
    }

    fn check(&self) -> Result<(), MirrorError> {
        self.failure().map_or(Ok(()), Err)
    }

    fn blocks_of(&self, block: u64, spans: &[Span]) -> Range<u64> {
        let size = self.source.block_bytes() as u64;
        block..block + bytes_of(spans).div_ceil(size)
    }

    /// The guest writes.
    async fn write(&self, block: u64, spans: &[Span]) -> Result<(), DiskError> {
        let blocks = self.blocks_of(block, spans);
        let (source, target) = (self.source.disk(), self.target.disk());
        self.change(
            blocks,
            || transfer(&**source, Way::Write, block, spans),
            || transfer(&**target, Way::Write, block, spans),
        )
        .await
    }

    /// The guest zeroes blocks, or discards them: both copies read as zeroes then, and can be compared.
    async fn clear(&self, block: u64, blocks: u64, may_discard: bool) -> Result<(), DiskError> {
        let end = block.checked_add(blocks).ok_or(DiskError::OutOfRange)?;
        self.change(
            block..end,
            || zero(&self.source, block, blocks, may_discard),
            || zero(&self.target, block, blocks, may_discard),
        )
        .await
    }

    /// The guest does not need blocks any more.
    async fn discard(&self, block: u64, blocks: u64) -> Result<(), DiskError> {
        let source = self.source.disk();
        if source.geometry().can_write_zeroes {
            return self.clear(block, blocks, true).await;
        }
        // What it reads as now, only the source knows: copied again.
        let end = block.checked_add(blocks).ok_or(DiskError::OutOfRange)?;
        if end > self.blocks {
            return Err(DiskError::OutOfRange);
        }
        let _held = self.locks.lock(block..end).await;
        let done = source.discard(block, blocks).await;
        self.dirty.borrow_mut().mark(&(block..end));
        done
    }

    /// Changes blocks of the source, and of the target where it has been copied.
    async fn change<S, T>(
        &self,
        blocks: Range<u64>,
        at_source: impl FnOnce() -> S,
        at_target: impl FnOnce() -> T,
    ) -> Result<(), DiskError>
    where
        S: Future<Output = Result<(), DiskError>>,
        T: Future<Output = Result<(), DiskError>>,
    {
        if blocks.end > self.blocks {
            return Err(DiskError::OutOfRange);
        }
        let bytes = (blocks.end - blocks.start) * self.source.block_bytes() as u64;
        let _held = self.locks.lock(blocks.clone()).await;
        // What is to be copied anyway need not be written twice.
        if self.failure.borrow().is_some() || self.dirty.borrow().all(&blocks) {
            return at_source().await;
        }
        self.unproved.borrow_mut().mark(&blocks);
        self.behind.set(true);
        let (done, mirrored) = join(at_source(), self.at_target(blocks.start, at_target())).await;
        if done.is_err() {
            // What of it is at the source, the source must be asked.
            self.dirty.borrow_mut().mark(&blocks);
        }
        match mirrored {
            Ok(()) => {
                let mut progress = self.progress.borrow_mut();
                progress.mirrored_bytes += bytes;
                progress.mirrored_requests += 1;
            }
            Err(error) => self.fail(error),
        }
        done
    }

    /// Does something at the target, which must answer in time.
    async fn at_target(
        &self,
        block: u64,
        operation: impl Future<Output = Result<(), DiskError>>,
    ) -> Result<(), MirrorError> {
        let offset = block * self.source.block_bytes() as u64;
        let limit = self.timer.sleep(TARGET_LIMIT_MS);
        match select(pin!(operation), limit).await {
            Either::Left((Ok(()), _)) => Ok(()),
            Either::Left((Err(error), _)) => Err(MirrorError::Target { offset, error }),
            Either::Right(((), _)) => Err(MirrorError::TooSlow),
        }
    }

    /// The guest flushes; the target follows before it is used.
    async fn flush(&self) -> Result<(), DiskError> {
        self.source.flush().await
    }

    /// Makes what was written to the target last.
    async fn flush_target(&self) -> Result<(), MirrorError> {
        if self.behind.replace(false) {
            self.at_target(0, self.target.flush()).await?;
        }
        Ok(())
    }
}
