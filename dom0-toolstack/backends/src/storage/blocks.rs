//! Bytes on a disk: whole blocks through a buffer of dom0's, and unaligned ranges on top.

use crate::disk::{Disk, DiskError};
use crate::memory::{Buffer, Memory};
use alloc::rc::Rc;
use alloc::string::ToString;
use alloc::vec;

/// Most bytes of one transfer, which is also the size of its buffer.
pub const TRANSFER_BYTES_MAX: usize = 128 << 10;

/// A disk with the memory its transfers go through.
#[derive(Clone)]
pub struct Blocks {
    disk: Rc<dyn Disk>,
    memory: Rc<dyn Memory>,
}

impl Blocks {
    /// `disk` by way of buffers out of `memory`.
    pub fn new(disk: Rc<dyn Disk>, memory: Rc<dyn Memory>) -> Blocks {
        Blocks { disk, memory }
    }

    /// The disk.
    pub fn disk(&self) -> &Rc<dyn Disk> {
        &self.disk
    }

    /// The memory.
    pub fn memory(&self) -> &Rc<dyn Memory> {
        &self.memory
    }

    /// Bytes of a block.
    pub fn block_bytes(&self) -> usize {
        self.disk.geometry().block_bytes as usize
    }

    /// A buffer for transfers of up to `bytes`, cut to what one transfer may have.
    pub(crate) fn buffer(&self, bytes: usize) -> Result<Buffer, DiskError> {
        let geometry = self.disk.geometry();
        let block = geometry.block_bytes as usize;
        let most = TRANSFER_BYTES_MAX.min(geometry.transfer_bytes_max as usize);
        let most = (most / block * block).max(block);
        Buffer::new(&self.memory, bytes.min(most))
            .ok_or_else(|| DiskError::Failed("no memory is left for a transfer".to_string()))
    }

    /// Reads whole blocks from `block` on.
    pub async fn read(&self, block: u64, out: &mut [u8]) -> Result<(), DiskError> {
        if out.is_empty() {
            return Ok(());
        }
        let buffer = self.buffer(out.len())?;
        let mut at = block;
        for piece in out.chunks_mut(buffer.len()) {
            let mut span = buffer.span();
            span.bytes = piece.len() as u32;
            self.disk.read(at, &[span]).await?;
            buffer.read(0, piece);
            at += (piece.len() / self.block_bytes()) as u64;
        }
        Ok(())
    }

    /// Writes whole blocks from `block` on.
    pub async fn write(&self, block: u64, bytes: &[u8]) -> Result<(), DiskError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let buffer = self.buffer(bytes.len())?;
        let mut at = block;
        for piece in bytes.chunks(buffer.len()) {
            let mut span = buffer.span();
            span.bytes = piece.len() as u32;
            buffer.write(0, piece);
            self.disk.write(at, &[span]).await?;
            at += (piece.len() / self.block_bytes()) as u64;
        }
        Ok(())
    }

    /// Reads any bytes from byte `offset` on.
    pub async fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), DiskError> {
        let (block, before, whole) = self.cover(offset, out.len())?;
        if before == 0 && whole == out.len() {
            return self.read(block, out).await;
        }
        let mut bytes = vec![0; whole];
        self.read(block, &mut bytes).await?;
        out.copy_from_slice(&bytes[before..before + out.len()]);
        Ok(())
    }

    /// Writes any bytes from byte `offset` on; what shares their first and last block is read
    /// before and written again, so two such writes to one block must not be under way at once.
    pub async fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let (block, before, whole) = self.cover(offset, bytes.len())?;
        if before == 0 && whole == bytes.len() {
            return self.write(block, bytes).await;
        }
        let mut all = vec![0; whole];
        self.read(block, &mut all).await?;
        all[before..before + bytes.len()].copy_from_slice(bytes);
        self.write(block, &all).await
    }

    /// First block of a byte range, bytes before it in that block, and bytes of all its blocks.
    fn cover(&self, offset: u64, bytes: usize) -> Result<(u64, usize, usize), DiskError> {
        let size = self.block_bytes() as u64;
        let end = offset
            .checked_add(bytes as u64)
            .ok_or(DiskError::OutOfRange)?;
        let (first, last) = (offset / size, end.div_ceil(size));
        if last > self.disk.geometry().blocks {
            return Err(DiskError::OutOfRange);
        }
        let whole = (last - first) * size;
        Ok((first, (offset % size) as usize, whole as usize))
    }

    /// Makes what was written last.
    pub async fn flush(&self) -> Result<(), DiskError> {
        self.disk.flush().await
    }
}
