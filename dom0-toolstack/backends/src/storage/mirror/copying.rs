//! Copying what is to be copied and comparing what was, one region after the other, behind the guest's
//! own requests.

use super::transfer::{Way, transfer};
use super::{Mirror, MirrorError, REGION_BYTES, UNEQUAL_NAMED_MAX};
use crate::disk::DiskError;
use crate::memory::Buffer;
use crate::storage::blocks::Blocks;
use crate::storage::copy::zero;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;
use core::future::{Future, poll_fn};
use core::ops::Range;
use core::pin::pin;
use core::task::Poll;
use futures_util::future::{Either, select};

/// While the guest has requests under way a region waits so long, so often.
const GIVE_WAY_MS: u64 = 1;
const GIVE_WAY_TIMES: u32 = 4;
/// How often somebody is asked whether to go on while a disk does not answer.
const LOOK_MS: u64 = 250;
/// Regions that may be left to be compared while the guest's requests wait: 2 MiB of each copy.
const LAST_REGIONS_MAX: u64 = 32;

/// How it is to be done.
pub struct Pace<'a> {
    /// Most bytes a second that are copied.
    pub bandwidth_bytes: Option<u64>,
    /// Asked again and again; an error, in words, ends it.
    pub go_on: &'a dyn Fn() -> Result<(), String>,
}

/// A pass under way.
struct Pass<'a> {
    pace: &'a Pace<'a>,
    begun_ms: u64,
    bytes: Cell<u64>,
    buffer: Buffer,
    one: Vec<u8>,
    other: Vec<u8>,
}

impl Mirror {
    /// Copies and compares until so little is left to compare that the guest can wait for it. What the
    /// guest writes meanwhile goes to both, so each region is copied once; only a guest that writes to
    /// ever new places faster than both copies can be read keeps it from ending.
    pub async fn converge(&self, pace: &Pace<'_>) -> Result<(), MirrorError> {
        let ended = self.converge_unless_failed(pace).await;
        if let Err(error) = &ended {
            self.fail(error.clone());
        }
        ended
    }

    async fn converge_unless_failed(&self, pace: &Pace<'_>) -> Result<(), MirrorError> {
        let mut pass = self.pass(pace)?;
        loop {
            self.copy_dirty(&mut pass).await?;
            self.flush_target().await?;
            self.compare(&mut pass).await?;
            let left = self.unproved.borrow().count();
            if self.dirty.borrow().count() == 0 && left <= LAST_REGIONS_MAX {
                return self.flush_target().await;
            }
        }
    }

    /// Does what is left; the gate is closed.
    pub(super) async fn settle(&self) -> Result<(), MirrorError> {
        let pace = Pace {
            bandwidth_bytes: None,
            go_on: &|| Ok(()),
        };
        let mut pass = self.pass(&pace)?;
        while self.dirty.borrow().count() + self.unproved.borrow().count() > 0 {
            self.copy_dirty(&mut pass).await?;
            self.compare(&mut pass).await?;
        }
        self.flush_target().await?;
        self.check()
    }

    fn pass<'a>(&self, pace: &'a Pace<'a>) -> Result<Pass<'a>, MirrorError> {
        let bytes = REGION_BYTES as usize;
        let buffer = Buffer::new(self.source.memory(), bytes).ok_or(MirrorError::NoMemory)?;
        Ok(Pass {
            pace,
            begun_ms: self.timer.now_ms(),
            bytes: Cell::new(0),
            buffer,
            one: vec![0; bytes],
            other: vec![0; bytes],
        })
    }

    fn blocks_in(&self, region: u64) -> Range<u64> {
        let size = u64::from(REGION_BYTES) / self.source.block_bytes() as u64;
        region * size..((region + 1) * size).min(self.blocks)
    }

    async fn copy_dirty(&self, pass: &mut Pass<'_>) -> Result<(), MirrorError> {
        let mut from = 0;
        loop {
            let next = self.dirty.borrow().next(from);
            let Some(region) = next else { return Ok(()) };
            from = region + 1;
            self.give_way(pass.pace).await?;
            let blocks = self.blocks_in(region);
            let held = self.locks.lock(blocks.clone()).await;
            self.copy_region(pass, &blocks).await?;
            self.dirty.borrow_mut().clear(region);
            drop(held);
            self.note_done();
            self.keep_pace(pass).await?;
        }
    }

    fn note_done(&self) {
        let left = self.dirty.borrow().count() * u64::from(REGION_BYTES);
        let mut progress = self.progress.borrow_mut();
        let done = progress.bytes.saturating_sub(left);
        // What people see never runs backwards.
        progress.done_bytes = progress.done_bytes.max(done);
    }

    fn note_unequal(&self, offset: u64) {
        let unequal = &mut self.progress.borrow_mut().unequal;
        if unequal.len() < UNEQUAL_NAMED_MAX {
            unequal.push(offset);
        }
    }

    /// Copies a region that is held.
    async fn copy_region(
        &self,
        pass: &mut Pass<'_>,
        blocks: &Range<u64>,
    ) -> Result<(), MirrorError> {
        let bytes = self.read_region(pass, &self.source, blocks, true).await?;
        let count = blocks.end - blocks.start;
        self.behind.set(true);
        self.unproved.borrow_mut().mark(blocks);
        if is_zero(&pass.one[..bytes]) {
            let zeroed = zero(&self.target, blocks.start, count, true);
            self.at_target(blocks.start, zeroed).await?;
            self.progress.borrow_mut().zero_bytes += bytes as u64;
        } else {
            let mut span = pass.buffer.span();
            span.bytes = bytes as u32;
            let span = [span];
            let written = transfer(&**self.target.disk(), Way::Write, blocks.start, &span);
            self.at_target(blocks.start, written).await?;
            self.progress.borrow_mut().copied_bytes += bytes as u64;
            pass.bytes.set(pass.bytes.get() + bytes as u64);
        }
        Ok(())
    }

    /// Reads a region into `one` (of the source) or `other` (of the target).
    async fn read_region(
        &self,
        pass: &mut Pass<'_>,
        from: &Blocks,
        blocks: &Range<u64>,
        is_source: bool,
    ) -> Result<usize, MirrorError> {
        let bytes = (blocks.end - blocks.start) as usize * from.block_bytes();
        let mut span = pass.buffer.span();
        span.bytes = bytes as u32;
        let span = [span];
        let read = transfer(&**from.disk(), Way::Read, blocks.start, &span);
        match is_source {
            true => self.at_source(pass.pace, blocks.start, read).await?,
            false => self.at_target(blocks.start, read).await?,
        }
        let out = if is_source {
            &mut pass.one
        } else {
            &mut pass.other
        };
        pass.buffer.read(0, &mut out[..bytes]);
        Ok(bytes)
    }

    /// Reads the source, which may take as long as the guest's own requests do.
    async fn at_source(
        &self,
        pace: &Pace<'_>,
        block: u64,
        reading: impl Future<Output = Result<(), DiskError>>,
    ) -> Result<(), MirrorError> {
        let offset = block * self.source.block_bytes() as u64;
        let mut reading = pin!(reading);
        loop {
            match select(reading.as_mut(), self.timer.sleep(LOOK_MS)).await {
                Either::Left((Ok(()), _)) => return Ok(()),
                Either::Left((Err(error), _)) => return Err(MirrorError::Source { offset, error }),
                Either::Right(((), _)) => (pace.go_on)().map_err(MirrorError::Stopped)?,
            }
        }
    }

    /// Compares every region that has to be; those that differ are copied again.
    async fn compare(&self, pass: &mut Pass<'_>) -> Result<(), MirrorError> {
        let mut from = 0;
        loop {
            let next = self.unproved.borrow().next(from);
            let Some(region) = next else { return Ok(()) };
            from = region + 1;
            self.give_way(pass.pace).await?;
            let blocks = self.blocks_in(region);
            let _held = self.locks.lock(blocks.clone()).await;
            if self.dirty.borrow().all(&blocks) {
                // It failed at the source since: copied first.
                continue;
            }
            if !self.is_equal(pass, &blocks).await? {
                let offset = blocks.start * self.source.block_bytes() as u64;
                self.note_unequal(offset);
                self.copy_region(pass, &blocks).await?;
                if !self.is_equal(pass, &blocks).await? {
                    return Err(MirrorError::Unequal { offset });
                }
            }
            self.unproved.borrow_mut().clear(region);
        }
    }

    async fn is_equal(
        &self,
        pass: &mut Pass<'_>,
        blocks: &Range<u64>,
    ) -> Result<bool, MirrorError> {
        let bytes = self.read_region(pass, &self.source, blocks, true).await?;
        self.read_region(pass, &self.target, blocks, false).await?;
        Ok(pass.one[..bytes] == pass.other[..bytes])
    }

    /// Lets the guest's requests go first, for a while, and everybody else of dom0 have a turn.
    async fn give_way(&self, pace: &Pace<'_>) -> Result<(), MirrorError> {
        self.check()?;
        (pace.go_on)().map_err(MirrorError::Stopped)?;
        for _ in 0..GIVE_WAY_TIMES {
            if self.gate.inside() == 0 {
                break;
            }
            self.timer.sleep(GIVE_WAY_MS).await;
        }
        yield_now().await;
        Ok(())
    }

    /// Waits until what was copied is no more than the bandwidth allows.
    async fn keep_pace(&self, pass: &Pass<'_>) -> Result<(), MirrorError> {
        let Some(bandwidth) = pass.pace.bandwidth_bytes else {
            return Ok(());
        };
        let due_ms = pass.bytes.get().saturating_mul(1000) / bandwidth.max(1);
        loop {
            let spent_ms = self.timer.now_ms().saturating_sub(pass.begun_ms);
            if spent_ms >= due_ms {
                return Ok(());
            }
            self.timer.sleep((due_ms - spent_ms).min(LOOK_MS)).await;
            (pass.pace.go_on)().map_err(MirrorError::Stopped)?;
        }
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    let word = |word: &[u8; 8]| u64::from_ne_bytes(*word) == 0;
    words.iter().all(word) && rest.iter().all(|byte| *byte == 0)
}

async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if core::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
