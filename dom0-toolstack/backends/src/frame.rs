//! Ethernet frames between guests, the bridge, dom0's own network stack and the network card.

use alloc::vec::Vec;
use core::task::{Context, Poll};

/// A checksum that the sender has left to be filled in: add up from `start`, store at `start + offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// First byte that is summed, from the start of the frame.
    pub start: u16,
    /// Where the sum goes, from `start`.
    pub offset: u16,
}

/// How a long frame is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
}

/// A frame longer than the medium takes: TCP segments of `payload_bytes` are to be made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// Protocol.
    pub kind: SegmentKind,
    /// Bytes of headers.
    pub header_bytes: u16,
    /// Bytes of payload a segment.
    pub payload_bytes: u16,
    /// The sender has set CWR.
    pub ecn: bool,
}

/// An Ethernet frame without its check sequence.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Frame {
    /// From the destination address on.
    pub bytes: Vec<u8>,
    /// The checksum is still to be filled in.
    pub checksum: Option<PartialChecksum>,
    /// The frame is still to be cut; implies `checksum`.
    pub segmentation: Option<Segmentation>,
    /// The receiver need not check checksums: they were made on this host or by the card.
    pub checked: bool,
}

/// One end of a cable: what is plugged in sends and receives here.
pub trait FramePort {
    /// Gives a frame away. `false`: the queue behind is full and the frame is dropped and counted.
    fn send(&self, frame: Frame) -> bool;
    /// The next frame that has come, in order.
    fn poll_receive(&self, context: &mut Context<'_>) -> Poll<Frame>;
    /// Ready when the next frame should be sent. Who waits for it loses no frames to its rate limit
    /// or to a slow card; who sends regardless may.
    fn poll_ready(&self, _context: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}
