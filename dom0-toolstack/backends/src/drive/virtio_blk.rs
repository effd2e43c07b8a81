//! virtio-blk (Virtio 1.2, 5.2): configuration, request headers, status, and the descriptors of a
//! request.

use super::{Command, Limits, Operation};
use crate::disk::{DiskError, Geometry};
use crate::memory::Span;
use alloc::format;
use alloc::vec::Vec;

/// The device says how long a segment may be.
pub const FEATURE_SIZE_MAX: u64 = 1 << 1;
/// The device says how many segments a request may have.
pub const FEATURE_SEG_MAX: u64 = 1 << 2;
/// It cannot be written.
pub const FEATURE_RO: u64 = 1 << 5;
/// It says the size of its blocks.
pub const FEATURE_BLK_SIZE: u64 = 1 << 6;
/// It has a cache and flushes it when asked.
pub const FEATURE_FLUSH: u64 = 1 << 9;
/// It discards.
pub const FEATURE_DISCARD: u64 = 1 << 13;
/// It writes zeroes.
pub const FEATURE_WRITE_ZEROES: u64 = 1 << 14;
/// A descriptor can point at a table of descriptors (2.7.5.3).
pub const FEATURE_INDIRECT: u64 = 1 << 28;
/// All of the above.
pub const FEATURES: u64 = FEATURE_SIZE_MAX
    | FEATURE_SEG_MAX
    | FEATURE_RO
    | FEATURE_BLK_SIZE
    | FEATURE_FLUSH
    | FEATURE_DISCARD
    | FEATURE_WRITE_ZEROES
    | FEATURE_INDIRECT;

/// Bytes of the device configuration that is read (5.2.4).
pub const CONFIG_BYTES: usize = 60;
/// Sectors in which the device counts, whatever its block size.
const SECTOR_BYTES: u32 = 512;
/// The most segments of a request, so that its table of descriptors is a page.
pub const SEGMENTS_MAX: u32 = 254;
/// The longest transfer.
const TRANSFER_BYTES_MAX: u32 = 1 << 20;

/// Bytes of the header before the data (5.2.6).
pub const HEADER_BYTES: u32 = 16;
/// Bytes that describe the range of a discard or of zeroes.
pub const RANGE_BYTES: u32 = 16;

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its size and abilities.
    pub geometry: Geometry,
    /// Most blocks of a discard.
    pub discard_blocks: u32,
    /// Most blocks of zeroes.
    pub zeroes_blocks: u32,
    /// Most data segments of a request.
    pub segments: u32,
    /// Most bytes of a segment.
    pub segment_bytes: u32,
}

impl Device {
    /// From the features agreed on and the configuration; a request has room for `segments_max`
    /// segments. The error says what is wrong with the device.
    pub fn parse(
        features: u64,
        config: &[u8; CONFIG_BYTES],
        segments_max: u32,
    ) -> Result<Device, &'static str> {
        let word = |at: usize| u32::from_le_bytes(core::array::from_fn(|i| config[at + i]));
        let has = |feature| features & feature != 0;
        let sectors = u64::from(word(0)) | u64::from(word(4)) << 32;
        let block_bytes = match has(FEATURE_BLK_SIZE).then(|| word(20)) {
            None => SECTOR_BYTES,
            Some(bytes @ (512 | 4096)) => bytes,
            Some(_) => return Err("its blocks have neither 512 nor 4096 bytes"),
        };
        let per_block = block_bytes / SECTOR_BYTES;
        let blocks = sectors / u64::from(per_block);
        if blocks == 0 {
            return Err("it has no blocks");
        }
        let segments = if has(FEATURE_SEG_MAX) { word(12) } else { 1 };
        let segment_bytes = if has(FEATURE_SIZE_MAX) {
            word(8)
        } else {
            u32::MAX
        };
        if segments == 0 || segment_bytes < 4096 {
            return Err("it takes no segment of a page");
        }
        let segments = segments.min(segments_max);
        let reach = segments.saturating_mul(segment_bytes.min(TRANSFER_BYTES_MAX));
        let discard_blocks = word(36) / per_block;
        let zeroes_blocks = word(48) / per_block;
        Ok(Device {
            geometry: Geometry {
                blocks,
                block_bytes,
                read_only: has(FEATURE_RO),
                needs_flush: has(FEATURE_FLUSH),
                can_discard: has(FEATURE_DISCARD) && discard_blocks != 0,
                can_write_zeroes: has(FEATURE_WRITE_ZEROES) && zeroes_blocks != 0,
                transfer_bytes_max: reach.min(TRANSFER_BYTES_MAX) & !4095,
            },
            discard_blocks,
            zeroes_blocks,
            segments,
            segment_bytes,
        })
    }

    /// Whether a request has room for these spans.
    pub fn has_room(&self, spans: &[Span]) -> bool {
        let segments = |span: &Span| u64::from(span.bytes.div_ceil(self.segment_bytes));
        spans.iter().map(segments).sum::<u64>() <= self.segments.into()
    }

    /// Its limits.
    pub fn limits(&self) -> Limits {
        Limits {
            discard_blocks: self.discard_blocks,
            zeroes_blocks: self.zeroes_blocks,
        }
    }
}

const TYPE_IN: u32 = 0;
const TYPE_OUT: u32 = 1;
const TYPE_FLUSH: u32 = 4;
const TYPE_DISCARD: u32 = 11;
const TYPE_WRITE_ZEROES: u32 = 13;
/// The range may be unmapped as well.
const ZEROES_UNMAP: u32 = 1;

/// The header of a command, and the range that follows it as data for a discard or zeroes.
pub fn header(
    command: &Command<'_>,
    block_bytes: u32,
) -> (
    [u8; HEADER_BYTES as usize],
    Option<[u8; RANGE_BYTES as usize]>,
) {
    let per_block = block_bytes / SECTOR_BYTES;
    let sector = command.block * u64::from(per_block);
    let range = |flags: u32| {
        let sectors = command.blocks * per_block;
        let mut range = [0; RANGE_BYTES as usize];
        range[..8].copy_from_slice(&sector.to_le_bytes());
        range[8..12].copy_from_slice(&sectors.to_le_bytes());
        range[12..].copy_from_slice(&flags.to_le_bytes());
        Some(range)
    };
    // The sector is reserved where a range follows (5.2.6).
    let (kind, sector, range) = match command.operation {
        Operation::Read(_) => (TYPE_IN, sector, None),
        Operation::Write(_) => (TYPE_OUT, sector, None),
        Operation::Flush => (TYPE_FLUSH, 0, None),
        Operation::Discard => (TYPE_DISCARD, 0, range(0)),
        Operation::WriteZeroes { may_discard } => {
            let flags = if may_discard { ZEROES_UNMAP } else { 0 };
            (TYPE_WRITE_ZEROES, 0, range(flags))
        }
    };
    let mut header = [0; HEADER_BYTES as usize];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    (header, range)
}

/// Before the device writes a status. Not one that it may write.
pub const STATUS_UNWRITTEN: u8 = 0xff;

/// What a status byte means (5.2.6).
pub fn result(status: u8) -> Result<(), DiskError> {
    match status {
        0 => Ok(()),
        1 => Err(DiskError::Failed("I/O error (virtio status 1)".into())),
        2 => Err(DiskError::Unsupported),
        STATUS_UNWRITTEN => Err(DiskError::Failed("no status was written".into())),
        other => Err(DiskError::Failed(format!("virtio status {other}"))),
    }
}

/// Descriptor flag: another follows.
const NEXT: u64 = 1;
/// Descriptor flag: the device writes.
const WRITE: u64 = 2;

/// The descriptors of a request, two words each: header, data, status. They lie one after the other
/// in a table whose first is number `first`.
pub fn descriptors(
    header: Span,
    data: &[Span],
    writes: bool,
    status: u64,
    first: u16,
) -> Vec<[u64; 2]> {
    let status = Span {
        address: status,
        bytes: 1,
    };
    let data_flags = if writes { WRITE } else { 0 };
    let mut parts = Vec::with_capacity(data.len() + 2);
    parts.push((header, 0));
    parts.extend(data.iter().map(|span| (*span, data_flags)));
    parts.push((status, WRITE));
    let last = parts.len() - 1;
    let describe = |(at, (span, flags)): (usize, (Span, u64))| {
        let chain = if at == last {
            0
        } else {
            NEXT << 32 | (u64::from(first) + at as u64 + 1) << 48
        };
        [span.address, u64::from(span.bytes) | flags << 32 | chain]
    };
    parts.into_iter().enumerate().map(describe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(sectors: u64, fields: &[(usize, u32)]) -> [u8; CONFIG_BYTES] {
        let mut config = [0; CONFIG_BYTES];
        config[..8].copy_from_slice(&sectors.to_le_bytes());
        for (at, value) in fields {
            config[*at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        config
    }

    #[test]
    fn a_plain_device_has_one_segment_and_no_cache() {
        let device = Device::parse(0, &config(100, &[]), SEGMENTS_MAX).unwrap();
        assert_eq!(device.geometry.blocks, 100);
        assert_eq!(device.segments, 1);
        assert!(!device.geometry.needs_flush && !device.geometry.can_discard);
    }

    #[test]
    fn sizes_are_in_sectors_whatever_the_block() {
        let features = FEATURE_BLK_SIZE | FEATURE_DISCARD | FEATURE_SEG_MAX | FEATURE_SIZE_MAX;
        let fields = [(20, 4096), (36, 800), (12, 1000), (8, 8192)];
        let device = Device::parse(features, &config(807, &fields), SEGMENTS_MAX).unwrap();
        assert_eq!(device.geometry.blocks, 100);
        assert_eq!(device.discard_blocks, 100);
        assert_eq!(device.segments, SEGMENTS_MAX);
        assert_eq!(device.segment_bytes, 8192);
        assert_eq!(device.geometry.transfer_bytes_max, 1 << 20);
    }

    #[test]
    fn nonsense_is_refused() {
        let fields = [(20, 520)];
        assert!(Device::parse(FEATURE_BLK_SIZE, &config(800, &fields), SEGMENTS_MAX).is_err());
        assert!(Device::parse(0, &config(0, &[]), SEGMENTS_MAX).is_err());
        assert!(Device::parse(FEATURE_SEG_MAX, &config(1, &[]), SEGMENTS_MAX).is_err());
        assert!(Device::parse(FEATURE_SIZE_MAX, &config(1, &[(8, 512)]), SEGMENTS_MAX).is_err());
    }

    #[test]
    fn ranges_follow_the_header_in_sectors() {
        let command = |operation| Command {
            unit: 0,
            block: 5,
            blocks: 2,
            operation,
        };
        let (head, range) = header(&command(Operation::Read(&[])), 4096);
        assert_eq!((head[0], head[8], range), (0, 40, None));
        let zeroes = Operation::WriteZeroes { may_discard: true };
        let (head, range) = header(&command(zeroes), 4096);
        let range = range.unwrap();
        assert_eq!((head[0], head[8]), (13, 0));
        assert_eq!((range[0], range[8], range[12]), (40, 16, 1));
    }

    #[test]
    fn descriptors_are_chained_and_only_the_device_s_are_writable() {
        let span = |address, bytes| Span { address, bytes };
        let data = [span(0x2000, 512), span(0x5000, 7)];
        let chain = descriptors(span(0x1000, 16), &data, true, 0x9000, 32);
        let flags: Vec<_> = chain.iter().map(|d| d[1] >> 32 & 0xffff).collect();
        let next: Vec<_> = chain.iter().map(|d| d[1] >> 48).collect();
        assert_eq!(flags, [1, 3, 3, 2]);
        assert_eq!(next, [33, 34, 35, 0]);
        assert_eq!(chain[2][0], 0x5000);
        assert_eq!(chain[2][1] as u32, 7);
        let chain = descriptors(span(0x1000, 16), &data, false, 0x9000, 0);
        let flags: Vec<_> = chain.iter().map(|d| d[1] >> 32 & 0xffff).collect();
        assert_eq!(flags, [1, 1, 1, 2]);
    }
}
