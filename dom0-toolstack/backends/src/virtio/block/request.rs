//! One request (5.2.6): header, data, status byte.

use super::config::{DISCARD, DISCARD_SECTORS_MAX, RANGES_MAX, WRITE_ZEROES};
use super::{Block, SECTOR_BYTES};
use crate::disk::DiskError;
use crate::virtio::queue::Chain;
use alloc::vec;

/// Bytes of the id that a guest reads.
pub const SERIAL_BYTES: usize = 20;

const HEADER_BYTES: u64 = 16;
const STATUS_BYTES: u64 = 1;
const RANGE_BYTES: usize = 16;

const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH_CACHE: u32 = 4;
const READ_ID: u32 = 8;
const DISCARD_RANGES: u32 = 11;
const ZERO_RANGES: u32 = 13;

/// What the guest is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Io,
    Unsupported,
}

impl Failure {
    fn status(self) -> u8 {
        match self {
            Failure::Io => 1,
            Failure::Unsupported => 2,
        }
    }
}

impl From<DiskError> for Failure {
    fn from(error: DiskError) -> Failure {
        match error {
            DiskError::Unsupported => Failure::Unsupported,
            DiskError::OutOfRange
            | DiskError::ReadOnly
            | DiskError::NoSpace
            | DiskError::Failed(_)
            | DiskError::Gone(_) => Failure::Io,
        }
    }
}

/// A range to discard or zero (5.2.6, `virtio_blk_discard_write_zeroes`).
struct Range {
    sector: u64,
    sectors: u64,
    /// `unmap`.
    may_discard: bool,
}

impl Block {
    /// Does a request and writes its status. Returns the bytes written.
    pub(super) async fn handle(&self, features: u64, chain: &Chain) -> u32 {
        let Some(data) = chain.writable_bytes().checked_sub(STATUS_BYTES) else {
            // Not even a status can be given (5.2.6.1 demands room for it).
            return 0;
        };
        let (status, written) = match self.perform(features, chain, data).await {
            Ok(written) => (0, written),
            Err(failure) => (failure.status(), 0),
        };
        chain.write(data, &[status]);
        // `used.len` is how far the writable part was written without a gap (2.7.8.2).
        if written == data {
            (data + STATUS_BYTES) as u32
        } else {
            written as u32
        }
    }

    /// Returns the bytes of data written.
    async fn perform(&self, features: u64, chain: &Chain, data: u64) -> Result<u64, Failure> {
        let mut header = [0; HEADER_BYTES as usize];
        if chain.read(0, &mut header) < header.len() {
            return Err(Failure::Io);
        }
        let header = u128::from_le_bytes(header);
        let (kind, sector) = (header as u32, (header >> 64) as u64);
        match kind {
            READ => {
                self.check(sector, data)?;
                let done = self.read(sector, &chain.writable(0, data)).await;
                // Even a read that failed may have written some of it.
                chain.mark_dirty(0, data);
                done?;
                Ok(data)
            }
            WRITE => {
                let data = chain.readable_bytes() - HEADER_BYTES;
                self.check(sector, data)?;
                self.check_writable()?;
                self.write(sector, &chain.readable(HEADER_BYTES, data))
                    .await?;
                self.settle(features).await?;
                Ok(0)
            }
            FLUSH_CACHE => {
                self.persistently(async || self.disk.flush().await).await?;
                Ok(0)
            }
            READ_ID => {
                let length = data.min(SERIAL_BYTES as u64);
                chain.write(0, &self.serial[..length as usize]);
                Ok(length)
            }
            DISCARD_RANGES | ZERO_RANGES => {
                let feature = if kind == DISCARD_RANGES {
                    DISCARD
                } else {
                    WRITE_ZEROES
                };
                if features & feature == 0 {
                    return Err(Failure::Unsupported);
                }
                self.clear(kind, chain).await?;
                self.settle(features).await?;
                Ok(0)
            }
            _unknown => Err(Failure::Unsupported),
        }
    }

    /// Whether a transfer is of whole sectors that the disk has.
    fn check(&self, sector: u64, bytes: u64) -> Result<(), Failure> {
        let sectors = self.disk.geometry().bytes() / SECTOR_BYTES;
        let end = sector.checked_add(bytes / SECTOR_BYTES);
        let inside = end.is_some_and(|end| end <= sectors);
        if inside && bytes > 0 && bytes.is_multiple_of(SECTOR_BYTES) {
            Ok(())
        } else {
            Err(Failure::Io)
        }
    }

    fn check_writable(&self) -> Result<(), Failure> {
        if self.disk.geometry().read_only {
            Err(Failure::Io)
        } else {
            Ok(())
        }
    }

    /// A guest without a cache is told of a write only when it lasts.
    async fn settle(&self, features: u64) -> Result<(), DiskError> {
        if self.caches(features) || !self.disk.geometry().needs_flush {
            return Ok(());
        }
        self.persistently(async || self.disk.flush().await).await
    }

    /// Discards or zeroes the ranges that the data names.
    async fn clear(&self, kind: u32, chain: &Chain) -> Result<(), Failure> {
        let bytes = (chain.readable_bytes() - HEADER_BYTES) as usize;
        let count = bytes / RANGE_BYTES;
        if !bytes.is_multiple_of(RANGE_BYTES) || !(1..=RANGES_MAX as usize).contains(&count) {
            return Err(Failure::Io);
        }
        self.check_writable()?;
        let mut ranges = vec![0; bytes];
        chain.read(HEADER_BYTES, &mut ranges);
        let (ranges, _) = ranges.as_chunks::<RANGE_BYTES>();
        // All are checked before anything is done.
        for raw in ranges {
            self.range(kind, raw)?;
        }
        for raw in ranges {
            let range = self.range(kind, raw)?;
            if kind == DISCARD_RANGES {
                self.discard(range.sector, range.sectors).await?;
            } else {
                self.write_zeroes(range.sector, range.sectors, range.may_discard)
                    .await?;
            }
        }
        Ok(())
    }

    fn range(&self, kind: u32, raw: &[u8; RANGE_BYTES]) -> Result<Range, Failure> {
        const UNMAP: u32 = 1;
        let raw = u128::from_le_bytes(*raw);
        let (sector, sectors, flags) = (raw as u64, (raw >> 64) as u32, (raw >> 96) as u32);
        // Only zeroing has a flag (5.2.6.2).
        let known = if kind == ZERO_RANGES { UNMAP } else { 0 };
        if flags & !known != 0 {
            return Err(Failure::Unsupported);
        }
        if sectors > DISCARD_SECTORS_MAX {
            return Err(Failure::Io);
        }
        let sectors = u64::from(sectors);
        self.check(sector, sectors * SECTOR_BYTES)?;
        Ok(Range {
            sector,
            sectors,
            may_discard: flags & UNMAP != 0,
        })
    }
}
