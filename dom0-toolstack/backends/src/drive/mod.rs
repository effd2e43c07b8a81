//! Drives of the host: what is common to their drivers, and the parts of each that decide.
//!
//! A driver is an [`Engine`]: it starts commands in numbered slots and says when they are done. A
//! [`Drive`] is one disk behind an engine: it checks ranges, waits for a slot, takes a detour over a
//! buffer of its own for memory the device cannot reach, and waits for the end.
//!
//! Invariant: while a device may touch the memory of a command, that command's future exists. One
//! that is dropped first waits, in its destructor, for the device; it stops a device that does not
//! come to an end. So the future must not be forgotten (`mem::forget`).

pub mod ahci;
pub mod ata;
pub mod ide;
pub mod nvme;
mod requests;
#[cfg(test)]
mod tests;
pub mod virtio_blk;

pub use requests::{RESETS_MAX, Requests};

use crate::disk::{Disk, DiskError, Geometry, Pending};
use crate::memory::{Buffer, Memory, Span};
use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::future::poll_fn;

/// A command that takes longer has failed, and its device is reset. As long as Linux waits.
pub const COMMAND_LIMIT_US: u64 = 30_000_000;
/// How long the destructor of a dropped command waits for the device before it stops it.
pub const DROP_LIMIT_US: u64 = 2_000_000;
/// Bytes of zeroes written at a time where the device has no command for it.
const ZEROES_BYTES: u32 = 64 << 10;

/// What a command does.
#[derive(Clone, Copy, Debug)]
pub enum Operation<'a> {
    /// Disk to memory.
    Read(&'a [Span]),
    /// Memory to disk.
    Write(&'a [Span]),
    /// Makes what was written last.
    Flush,
    /// Forgets blocks.
    Discard,
    /// Writes zeroes.
    WriteZeroes {
        /// The space may be given back.
        may_discard: bool,
    },
}

/// A command for an engine, checked: its range is on the disk and within the disk's limits.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    /// Which disk behind the engine.
    pub unit: u32,
    /// First block.
    pub block: u64,
    /// Blocks; not 0 but for a flush.
    pub blocks: u32,
    /// What to do.
    pub operation: Operation<'a>,
}

/// A driver. It is called by tasks of one executor, and calls none of them back.
pub trait Engine {
    /// Its slots.
    fn requests(&self) -> &Requests;
    /// dom0's memory.
    fn memory(&self) -> &Rc<dyn Memory>;
    /// Microseconds on a clock that only goes forward.
    fn now_us(&self) -> u64;
    /// Whether the device can read and write these spans as they are; of one span that starts at
    /// a page and is below 4 GiB it is asked as well, and says yes.
    fn reaches(&self, spans: &[Span]) -> bool;
    /// Gives the device a command in a slot that is free. How it ends is told to `requests`.
    fn start(&self, slot: usize, command: &Command<'_>);
    /// Looks what the device has done and tells `requests`. Returns how many commands ended.
    fn poll(&self) -> usize;
    /// Keeps the device from touching memory, at once and until it is started again.
    fn stop(&self);
}

/// Most blocks of one command.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of a discard.
    pub discard_blocks: u32,
    /// Of writing zeroes.
    pub zeroes_blocks: u32,
}

/// A disk behind an engine.
pub struct Drive {
    engine: Rc<dyn Engine>,
    unit: u32,
    geometry: Cell<Geometry>,
    limits: Limits,
}

impl Drive {
    /// Disk `unit` of an engine.
    pub fn new(engine: Rc<dyn Engine>, unit: u32, geometry: Geometry, limits: Limits) -> Drive {
        Drive {
            engine,
            unit,
            geometry: Cell::new(geometry),
            limits,
        }
    }

    fn check(&self, block: u64, blocks: u64) -> Result<(), DiskError> {
        let end = block.checked_add(blocks).ok_or(DiskError::OutOfRange)?;
        if end > self.geometry.get().blocks {
            return Err(DiskError::OutOfRange);
        }
        Ok(())
    }

    fn check_write(&self) -> Result<(), DiskError> {
        if self.geometry.get().read_only {
            return Err(DiskError::ReadOnly);
        }
        Ok(())
    }

    /// The whole blocks that spans add up to.
    fn blocks_of(&self, spans: &[Span]) -> Result<u32, DiskError> {
        let geometry = self.geometry.get();
        let bytes: u64 = spans.iter().map(|span| u64::from(span.bytes)).sum();
        let most = geometry.transfer_bytes_max;
        if bytes > u64::from(most) {
            let why = format!("a transfer of {bytes} bytes; it takes {most} at a time");
            return Err(DiskError::Failed(why));
        }
        if !bytes.is_multiple_of(geometry.block_bytes.into()) {
            return Err(DiskError::OutOfRange);
        }
        Ok(bytes as u32 / geometry.block_bytes)
    }

    async fn transfer(&self, block: u64, spans: &[Span], write: bool) -> Result<(), DiskError> {
        let blocks = self.blocks_of(spans)?;
        self.check(block, blocks.into())?;
        if blocks == 0 {
            return Ok(());
        }
        let operation = if write {
            Operation::Write
        } else {
            Operation::Read
        };
        let command = |operation| Command {
            unit: self.unit,
            block,
            blocks,
            operation,
        };
        if self.engine.reaches(spans) {
            return self.run(command(operation(spans))).await;
        }
        let memory = self.engine.memory();
        let bytes = blocks * self.geometry.get().block_bytes;
        // Declared before the command is under way, so dropped after it.
        let detour = Buffer::new(memory, bytes as usize)
            .ok_or_else(|| DiskError::Failed("dom0 has no memory for a buffer".into()))?;
        if write {
            walk(&detour, spans, |inside, span| {
                memory.copy(span.address, inside, span.bytes as usize);
            });
        }
        self.run(command(operation(&[detour.span()]))).await?;
        if !write {
            walk(&detour, spans, |inside, span| {
                memory.copy(inside, span.address, span.bytes as usize);
            });
        }
        Ok(())
    }

    async fn run(&self, command: Command<'_>) -> Result<(), DiskError> {
        let engine = &*self.engine;
        let slot = poll_fn(|context| engine.requests().poll_take(context)).await?;
        let flight = Flight { engine, slot };
        let limit = engine.now_us().saturating_add(COMMAND_LIMIT_US);
        engine.requests().begin(slot, limit);
        engine.start(slot, &command);
        poll_fn(|context| engine.requests().poll_done(flight.slot, context)).await
    }

    /// Runs a command without data on pieces of a range.
    async fn pieces(
        &self,
        mut block: u64,
        mut left: u64,
        most: u32,
        operation: Operation<'_>,
    ) -> Result<(), DiskError> {
        while left > 0 {
            let blocks = left.min(most.max(1).into()) as u32;
            self.run(Command {
                unit: self.unit,
                block,
                blocks,
                operation,
            })
            .await?;
            block += u64::from(blocks);
            left -= u64::from(blocks);
        }
        Ok(())
    }

    /// Writes zeroes the hard way.
    async fn zero_by_writing(&self, mut block: u64, mut left: u64) -> Result<(), DiskError> {
        let geometry = self.geometry.get();
        let bytes = ZEROES_BYTES.min(geometry.transfer_bytes_max);
        let zeroes = Buffer::new(self.engine.memory(), bytes as usize)
            .ok_or_else(|| DiskError::Failed("dom0 has no memory for a buffer".into()))?;
        while left > 0 {
            let blocks = left.min((bytes / geometry.block_bytes).into()) as u32;
            let span = Span {
                address: zeroes.address(),
                bytes: blocks * geometry.block_bytes,
            };
            self.transfer(block, &[span], true).await?;
            block += u64::from(blocks);
            left -= u64::from(blocks);
        }
        Ok(())
    }
}

/// Calls with each span and the address that belongs to it in one piece of memory.
fn walk(whole: &Buffer, spans: &[Span], mut act: impl FnMut(u64, &Span)) {
    let mut inside = whole.address();
    for span in spans {
        act(inside, span);
        inside += u64::from(span.bytes);
    }
}

/// Holds a slot; gives it back only when the device is done with it.
struct Flight<'a> {
    engine: &'a dyn Engine,
    slot: usize,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let requests = self.engine.requests();
        let limit = self.engine.now_us().saturating_add(DROP_LIMIT_US);
        while requests.is_busy(self.slot) {
            self.engine.poll();
            if requests.is_busy(self.slot) && self.engine.now_us() > limit {
                self.engine.stop();
                requests.stop("the device did not finish a command nobody waits for");
            }
            core::hint::spin_loop();
        }
        requests.free(self.slot);
    }
}

impl Disk for Drive {
    fn geometry(&self) -> Geometry {
        self.geometry.get()
    }

    fn read<'a>(&'a self, block: u64, into: &'a [Span]) -> Pending<'a> {
        Box::pin(self.transfer(block, into, false))
    }

    fn write<'a>(&'a self, block: u64, from: &'a [Span]) -> Pending<'a> {
        Box::pin(async move {
            self.check_write()?;
            self.transfer(block, from, true).await
        })
    }

    fn flush(&self) -> Pending<'_> {
        Box::pin(async move {
            if !self.geometry.get().needs_flush {
                return Ok(());
            }
            self.run(Command {
                unit: self.unit,
                block: 0,
                blocks: 0,
                operation: Operation::Flush,
            })
            .await
        })
    }

    fn discard(&self, block: u64, blocks: u64) -> Pending<'_> {
        Box::pin(async move {
            self.check(block, blocks)?;
            self.check_write()?;
            if !self.geometry.get().can_discard {
                return Err(DiskError::Unsupported);
            }
            let most = self.limits.discard_blocks;
            self.pieces(block, blocks, most, Operation::Discard).await
        })
    }

    fn write_zeroes(&self, block: u64, blocks: u64, may_discard: bool) -> Pending<'_> {
        Box::pin(async move {
            self.check(block, blocks)?;
            self.check_write()?;
            if !self.geometry.get().can_write_zeroes {
                return self.zero_by_writing(block, blocks).await;
            }
            let most = self.limits.zeroes_blocks;
            let operation = Operation::WriteZeroes { may_discard };
            self.pieces(block, blocks, most, operation).await
        })
    }
}

/// Total bytes of spans.
pub fn total_bytes(spans: &[Span]) -> u64 {
    spans.iter().map(|span| u64::from(span.bytes)).sum()
}

/// Cuts spans so that each piece is at most `bytes_max` long and crosses no multiple of `boundary`,
/// a power of two.
pub fn cut(spans: &[Span], bytes_max: u32, boundary: u64) -> Vec<Span> {
    let mut out = Vec::new();
    for span in spans {
        let (mut address, mut left) = (span.address, span.bytes);
        while left > 0 {
            let to_boundary = boundary - (address & (boundary - 1));
            let bytes = u64::from(left.min(bytes_max)).min(to_boundary) as u32;
            out.push(Span { address, bytes });
            address += u64::from(bytes);
            left -= bytes;
        }
    }
    out
}
