//! From requests, which are in sectors and in the guest's memory as it comes, to operations of the
//! disk, which are in its blocks.
//!
//! Memory aligned to sectors goes to the disk as it is, cut to what the disk takes at once. Other
//! memory, and places that are not whole blocks of the disk, go through a buffer. A write of part
//! of a block reads the block first, so while one is under way there is no other write (the
//! [`Gate`]): two halves of a block written at once must both arrive.

use super::{Block, SECTOR_BYTES};
use crate::disk::DiskError;
use crate::memory::{Buffer, Span};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::task::{Poll, Waker};

/// Most bytes that go through a buffer at once; a multiple of every block size.
const BUFFER_BYTES_MAX: u64 = 128 << 10;

/// Any number of whole writes, or one that reads first.
#[derive(Default)]
pub(super) struct Gate {
    whole: Cell<usize>,
    partial: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

/// A place behind the gate; leaving is dropping it.
struct Inside<'a> {
    gate: &'a Gate,
    partial: bool,
}

impl Gate {
    async fn enter(&self, partial: bool) -> Inside<'_> {
        poll_fn(|context| {
            if self.partial.get() || partial && self.whole.get() > 0 {
                self.waiting.borrow_mut().push(context.waker().clone());
                return Poll::Pending;
            }
            if partial {
                self.partial.set(true);
            } else {
                self.whole.set(self.whole.get() + 1);
            }
            Poll::Ready(())
        })
        .await;
        Inside {
            gate: self,
            partial,
        }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let gate = self.gate;
        if self.partial {
            gate.partial.set(false);
        } else {
            gate.whole.set(gate.whole.get() - 1);
        }
        gate.waiting.take().into_iter().for_each(Waker::wake);
    }
}

/// A piece of a transfer: where on the disk, and how long in whole sectors.
struct Piece {
    sector: u64,
    bytes: u64,
}

impl Block {
    fn block_sectors(&self) -> u64 {
        u64::from(self.disk.geometry().block_bytes) / SECTOR_BYTES
    }

    fn whole_blocks(&self, sector: u64, bytes: u64) -> bool {
        let sectors = self.block_sectors();
        sector.is_multiple_of(sectors) && (bytes / SECTOR_BYTES).is_multiple_of(sectors)
    }

    /// Whether the disk can take the memory and the place as they are.
    fn direct(&self, sector: u64, spans: &[Span]) -> bool {
        let aligned = |span: &Span| {
            span.address.is_multiple_of(SECTOR_BYTES)
                && u64::from(span.bytes).is_multiple_of(SECTOR_BYTES)
        };
        self.whole_blocks(sector, length(spans)) && spans.iter().all(aligned)
    }

    /// Reads whole sectors that the disk has.
    pub(super) async fn read(&self, sector: u64, into: &[Span]) -> Result<(), DiskError> {
        if self.direct(sector, into) {
            for (block, part) in self.cut(sector, into) {
                self.persistently(async || self.disk.read(block, &part).await)
                    .await?;
            }
            return Ok(());
        }
        let mut done = 0;
        for piece in self.pieces(sector, length(into)) {
            let (block, skipped, buffer) = self.buffer_for(&piece)?;
            let span = [buffer.span()];
            self.persistently(async || self.disk.read(block, &span).await)
                .await?;
            self.copy(into, done, piece.bytes, buffer.address() + skipped, true);
            done += piece.bytes;
        }
        Ok(())
    }

    /// Writes whole sectors that the disk has.
    pub(super) async fn write(&self, sector: u64, from: &[Span]) -> Result<(), DiskError> {
        if self.direct(sector, from) {
            let _inside = self.gate.enter(false).await;
            for (block, part) in self.cut(sector, from) {
                self.persistently(async || self.disk.write(block, &part).await)
                    .await?;
            }
            return Ok(());
        }
        let partial = !self.whole_blocks(sector, length(from));
        let _inside = self.gate.enter(partial).await;
        let mut done = 0;
        for piece in self.pieces(sector, length(from)) {
            let bytes = piece.bytes;
            self.write_through_buffer(piece, |address| {
                self.copy(from, done, bytes, address, false);
            })
            .await?;
            done += bytes;
        }
        Ok(())
    }

    /// Writes a piece that `fill` puts at the address it is given.
    async fn write_through_buffer(
        &self,
        piece: Piece,
        fill: impl FnOnce(u64),
    ) -> Result<(), DiskError> {
        let (block, skipped, buffer) = self.buffer_for(&piece)?;
        let span = [buffer.span()];
        if buffer.len() as u64 != piece.bytes {
            self.persistently(async || self.disk.read(block, &span).await)
                .await?;
        }
        fill(buffer.address() + skipped);
        self.persistently(async || self.disk.write(block, &span).await)
            .await
    }

    /// Discards the whole blocks among sectors that the disk has; the rest stays as it is.
    pub(super) async fn discard(&self, sector: u64, sectors: u64) -> Result<(), DiskError> {
        let size = self.block_sectors();
        let (first, end) = (sector.div_ceil(size), (sector + sectors) / size);
        if end <= first {
            return Ok(());
        }
        let _inside = self.gate.enter(false).await;
        self.persistently(async || self.disk.discard(first, end - first).await)
            .await
    }

    /// Zeroes sectors that the disk has.
    pub(super) async fn write_zeroes(
        &self,
        sector: u64,
        sectors: u64,
        may_discard: bool,
    ) -> Result<(), DiskError> {
        let size = self.block_sectors();
        let end = sector + sectors;
        // Parts of blocks before and behind the whole blocks.
        let head_end = sector.next_multiple_of(size).min(end);
        let tail = (end / size * size).max(head_end);
        for (from, to) in [(sector, head_end), (tail, end)] {
            if from == to {
                continue;
            }
            let _inside = self.gate.enter(true).await;
            let bytes = (to - from) * SECTOR_BYTES;
            let piece = Piece {
                sector: from,
                bytes,
            };
            let zeroes = alloc::vec![0; bytes as usize];
            self.write_through_buffer(piece, |address| self.memory.write(address, &zeroes))
                .await?;
        }
        if tail == head_end {
            return Ok(());
        }
        let _inside = self.gate.enter(false).await;
        let (first, count) = (head_end / size, (tail - head_end) / size);
        self.persistently(async || self.disk.write_zeroes(first, count, may_discard).await)
            .await
    }

    /// Cuts spans into transfers that the disk takes: first block and spans of each.
    fn cut(&self, sector: u64, spans: &[Span]) -> Vec<(u64, Vec<Span>)> {
        let geometry = self.disk.geometry();
        let most = geometry.transfer_bytes_max / geometry.block_bytes * geometry.block_bytes;
        let most = most.max(geometry.block_bytes);
        let mut block = sector / self.block_sectors();
        let mut parts = Vec::new();
        let (mut part, mut room) = (Vec::new(), most);
        for span in spans {
            let mut rest = *span;
            while rest.bytes > 0 {
                let bytes = rest.bytes.min(room);
                part.push(Span {
                    address: rest.address,
                    bytes,
                });
                rest.address += u64::from(bytes);
                rest.bytes -= bytes;
                room -= bytes;
                if room == 0 {
                    parts.push((block, core::mem::take(&mut part)));
                    block += u64::from(most / geometry.block_bytes);
                    room = most;
                }
            }
        }
        if !part.is_empty() {
            parts.push((block, part));
        }
        parts
    }

    /// A buffer for the blocks that a piece touches: first block, bytes before the piece, buffer.
    fn buffer_for(&self, piece: &Piece) -> Result<(u64, u64, Buffer), DiskError> {
        let size = self.block_sectors();
        let first = piece.sector / size;
        let end = (piece.sector + piece.bytes / SECTOR_BYTES).div_ceil(size);
        let bytes = (end - first) * size * SECTOR_BYTES;
        let buffer = Buffer::new(&self.memory, bytes as usize);
        let buffer =
            buffer.ok_or_else(|| DiskError::Failed("dom0 has no memory for a buffer".into()))?;
        let skipped = (piece.sector - first * size) * SECTOR_BYTES;
        Ok((first, skipped, buffer))
    }

    /// Pieces whose blocks fit a buffer and what the disk takes at once.
    fn pieces(&self, sector: u64, bytes: u64) -> Vec<Piece> {
        let block_bytes = self.block_sectors() * SECTOR_BYTES;
        let most = BUFFER_BYTES_MAX.min(u64::from(self.disk.geometry().transfer_bytes_max));
        let unit = (most / block_bytes * block_bytes).max(block_bytes) / SECTOR_BYTES;
        let end = sector + bytes / SECTOR_BYTES;
        let mut pieces = Vec::new();
        let mut at = sector;
        while at < end {
            let next = (at / unit * unit + unit).min(end);
            pieces.push(Piece {
                sector: at,
                bytes: (next - at) * SECTOR_BYTES,
            });
            at = next;
        }
        pieces
    }

    /// Copies between `bytes` of `spans`, from byte `at` on, and `address`.
    fn copy(&self, spans: &[Span], at: u64, bytes: u64, address: u64, to_spans: bool) {
        let (mut skip, mut left, mut address) = (at, bytes, address);
        for span in spans {
            let skipped = skip.min(u64::from(span.bytes));
            let here = (u64::from(span.bytes) - skipped).min(left);
            let place = span.address + skipped;
            if here > 0 && to_spans {
                self.memory.copy(address, place, here as usize);
            } else if here > 0 {
                self.memory.copy(place, address, here as usize);
            }
            skip -= skipped;
            left -= here;
            address += here;
        }
    }
}

fn length(spans: &[Span]) -> u64 {
    spans.iter().map(|span| u64::from(span.bytes)).sum()
}
