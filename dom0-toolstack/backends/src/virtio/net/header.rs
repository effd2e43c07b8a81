//! The header before each frame (5.1.6): what its sender left undone, what its receiver need not
//! check.

use super::config::{CSUM, GUEST_CSUM, HOST_ECN, HOST_TSO4, HOST_TSO6};
use crate::frame::{Frame, PartialChecksum, SegmentKind, Segmentation};

/// Bytes of a header.
pub const HEADER_BYTES: usize = 12;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCP4: u8 = 1;
const GSO_TCP6: u8 = 4;
const GSO_ECN: u8 = 0x80;

/// What a driver's header cannot say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// It uses what was not agreed on.
    NotNegotiated,
    /// A kind of segmentation that there is not.
    UnknownSegmentation(u8),
    /// Segments of no bytes, or without a checksum to fill in.
    Segmentation,
}

/// `struct virtio_net_hdr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct NetHeader {
    /// To be filled in.
    pub checksum: Option<PartialChecksum>,
    /// To be cut.
    pub segmentation: Option<Segmentation>,
    /// Checksums are known to be right.
    pub checked: bool,
    /// Buffers that the frame is in, for drivers that merge them.
    pub buffers: u16,
}

impl NetHeader {
    /// What a driver that agreed to `features` says of a frame that it sends. Flags that only
    /// devices set are ignored (5.1.6.2).
    pub fn parse(raw: &[u8; HEADER_BYTES], features: u64) -> Result<NetHeader, HeaderError> {
        let [flags, gso, h0, h1, g0, g1, s0, s1, o0, o1, b0, b1] = *raw;
        let checksum = (flags & NEEDS_CSUM != 0).then_some(PartialChecksum {
            start: u16::from_le_bytes([s0, s1]),
            offset: u16::from_le_bytes([o0, o1]),
        });
        let (kind, feature) = match gso & !GSO_ECN {
            GSO_NONE => (None, 0),
            GSO_TCP4 => (Some(SegmentKind::Tcp4), HOST_TSO4),
            GSO_TCP6 => (Some(SegmentKind::Tcp6), HOST_TSO6),
            unknown => return Err(HeaderError::UnknownSegmentation(unknown)),
        };
        let ecn = gso & GSO_ECN != 0;
        let mut needed = feature;
        if checksum.is_some() {
            needed |= CSUM;
        }
        if ecn {
            needed |= HOST_ECN;
        }
        if needed & !features != 0 {
            return Err(HeaderError::NotNegotiated);
        }
        let segmentation = kind.map(|kind| Segmentation {
            kind,
            header_bytes: u16::from_le_bytes([h0, h1]),
            payload_bytes: u16::from_le_bytes([g0, g1]),
            ecn,
        });
        match segmentation {
            Some(s) if s.payload_bytes == 0 || checksum.is_none() => Err(HeaderError::Segmentation),
            Some(_) | None => Ok(NetHeader {
                checksum,
                segmentation,
                checked: false,
                buffers: u16::from_le_bytes([b0, b1]),
            }),
        }
    }

    /// What a driver that agreed to `features` is told of a frame made fit for it.
    pub fn of(frame: &Frame, features: u64, buffers: u16) -> NetHeader {
        NetHeader {
            checksum: frame.checksum,
            segmentation: frame.segmentation,
            checked: frame.checked && features & GUEST_CSUM != 0 && frame.checksum.is_none(),
            buffers,
        }
    }

    /// The header's bytes.
    pub fn bytes(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        if let Some(PartialChecksum { start, offset }) = self.checksum {
            out[0] |= NEEDS_CSUM;
            out[6..8].copy_from_slice(&start.to_le_bytes());
            out[8..10].copy_from_slice(&offset.to_le_bytes());
        }
        if self.checked {
            out[0] |= DATA_VALID;
        }
        if let Some(segmentation) = self.segmentation {
            out[1] = match segmentation.kind {
                SegmentKind::Tcp4 => GSO_TCP4,
                SegmentKind::Tcp6 => GSO_TCP6,
            };
            if segmentation.ecn {
                out[1] |= GSO_ECN;
            }
            out[2..4].copy_from_slice(&segmentation.header_bytes.to_le_bytes());
            out[4..6].copy_from_slice(&segmentation.payload_bytes.to_le_bytes());
        }
        out[10..12].copy_from_slice(&self.buffers.to_le_bytes());
        out
    }
}
