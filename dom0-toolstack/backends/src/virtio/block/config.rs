//! Features and configuration (5.2.3, 5.2.4).

use super::SECTOR_BYTES;
use crate::disk::Geometry;
use crate::virtio::CONFIG_BYTES_MAX;

const SIZE_MAX: u64 = 1 << 1;
const SEG_MAX: u64 = 1 << 2;
pub(super) const READ_ONLY: u64 = 1 << 5;
const BLOCK_SIZE: u64 = 1 << 6;
pub(super) const FLUSH: u64 = 1 << 9;
const TOPOLOGY: u64 = 1 << 10;
/// VIRTIO_BLK_F_CONFIG_WCE.
pub(super) const WRITE_BACK: u64 = 1 << 11;
pub(super) const DISCARD: u64 = 1 << 13;
pub(super) const WRITE_ZEROES: u64 = 1 << 14;

/// Most segments of data of a request: with header and status it fits half a queue.
pub const SEGMENTS_MAX: u32 = 126;
/// Most bytes of a segment: with [`SEGMENTS_MAX`] a request is within a chain's bytes.
pub const SEGMENT_BYTES_MAX: u32 = 512 << 10;
/// Most sectors of one range that is discarded or zeroed: 2 GiB.
pub const DISCARD_SECTORS_MAX: u32 = 1 << 22;
/// Most ranges of one request that discards or zeroes.
pub const RANGES_MAX: u32 = 32;
/// Where the cache switch is.
pub(super) const WRITEBACK_OFFSET: usize = 32;
/// Best size of a transfer, for the guest to merge to.
const OPTIMAL_BYTES: u32 = 1 << 20;

/// What a disk lets the device offer.
pub(super) fn features(geometry: &Geometry) -> u64 {
    let mut features = SIZE_MAX | SEG_MAX | BLOCK_SIZE | TOPOLOGY;
    if geometry.read_only {
        return features | READ_ONLY;
    }
    features |= FLUSH | WRITE_BACK;
    if geometry.can_discard {
        features |= DISCARD;
    }
    if geometry.can_write_zeroes {
        features |= WRITE_ZEROES;
    }
    features
}

/// `struct virtio_blk_config`.
pub(super) fn write(geometry: &Geometry, caches: bool, out: &mut [u8; CONFIG_BYTES_MAX]) {
    let sectors_a_block = (u64::from(geometry.block_bytes) / SECTOR_BYTES) as u32;
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        out[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(&(geometry.bytes() / SECTOR_BYTES).to_le_bytes());
    put(&SEGMENT_BYTES_MAX.to_le_bytes());
    put(&SEGMENTS_MAX.to_le_bytes());
    // Cylinders, heads, sectors: not offered.
    put(&[0; 4]);
    put(&geometry.block_bytes.to_le_bytes());
    // Topology: physical blocks are logical blocks, aligned; least and best transfer in blocks.
    put(&[0, 0]);
    put(&1u16.to_le_bytes());
    put(&(OPTIMAL_BYTES / geometry.block_bytes).to_le_bytes());
    put(&[u8::from(caches), 0]);
    put(&1u16.to_le_bytes());
    put(&DISCARD_SECTORS_MAX.to_le_bytes());
    put(&RANGES_MAX.to_le_bytes());
    put(&sectors_a_block.to_le_bytes());
    put(&DISCARD_SECTORS_MAX.to_le_bytes());
    put(&RANGES_MAX.to_le_bytes());
    put(&[1, 0, 0, 0]);
}
