//! Streaming between disks, and zeroes.

use super::blocks::{Blocks, TRANSFER_BYTES_MAX};
use crate::disk::{Disk, DiskError};
use crate::memory::Buffer;
use alloc::rc::Rc;
use core::cell::Cell;

/// Most bytes of one request for zeroes, so that other requests get a turn in between.
const ZERO_BYTES_MAX: u64 = 64 << 20;

/// Copies all of `from` to the start of `to`; what is left of `to` stays as it is. `done` counts
/// the bytes on the way. Refused when `to` is smaller. The last blocks are filled up with zeroes
/// where the block sizes differ. Ends with a flush.
pub async fn copy(from: &Blocks, to: &Blocks, done: &Cell<u64>) -> Result<(), DiskError> {
    let bytes = from.disk().geometry().bytes();
    let (from_size, to_size) = (from.block_bytes() as u64, to.block_bytes() as u64);
    if bytes.next_multiple_of(to_size) > to.disk().geometry().bytes() {
        return Err(DiskError::NoSpace);
    }
    let (one, other) = (
        from.buffer(TRANSFER_BYTES_MAX)?,
        to.buffer(TRANSFER_BYTES_MAX)?,
    );
    // The shorter of the two limits, in whole blocks of both.
    let unit = from_size.max(to_size);
    let most = (one.len().min(other.len()) as u64 / unit * unit).max(unit);
    let piece = Buffer::new(from.memory(), most as usize);
    let piece = piece.ok_or_else(|| DiskError::Failed("no memory is left for a copy".into()))?;
    drop((one, other));
    let mut at = 0;
    while at < bytes {
        let read = most.min(bytes - at);
        let written = read.next_multiple_of(to_size);
        if written > read {
            let zeroes = alloc::vec![0; (written - read) as usize];
            piece.write(read as usize, &zeroes);
        }
        let mut span = piece.span();
        span.bytes = read as u32;
        from.disk().read(at / from_size, &[span]).await?;
        span.bytes = written as u32;
        to.disk().write(at / to_size, &[span]).await?;
        at += read;
        done.set(at);
    }
    to.flush().await
}

/// Makes blocks read as zeroes; with `may_discard` their space may be given back.
pub async fn zero(
    blocks: &Blocks,
    first: u64,
    count: u64,
    may_discard: bool,
) -> Result<(), DiskError> {
    let size = blocks.block_bytes() as u64;
    let disk: &Rc<dyn Disk> = blocks.disk();
    let (mut at, end) = (first, first + count);
    while at < end {
        let piece = (ZERO_BYTES_MAX / size).min(end - at);
        match disk.write_zeroes(at, piece, may_discard).await {
            Ok(()) => at += piece,
            Err(DiskError::Unsupported) => return write_zeroes(blocks, at, end).await,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The same by plain writes, for disks that have no request for it.
async fn write_zeroes(blocks: &Blocks, first: u64, end: u64) -> Result<(), DiskError> {
    let size = blocks.block_bytes() as u64;
    let buffer = blocks.buffer(TRANSFER_BYTES_MAX)?;
    let mut at = first;
    while at < end {
        let piece = (buffer.len() as u64 / size).min(end - at);
        let mut span = buffer.span();
        span.bytes = (piece * size) as u32;
        blocks.disk().write(at, &[span]).await?;
        at += piece;
    }
    Ok(())
}
