//! From the guest to the port (5.1.6.2).

use super::{FRAMES_MAX, HEADER_BYTES, Net, NetHeader, TRANSMIT};
use crate::frame::Frame;
use crate::network::offload::{LONG_FRAME_BYTES_MAX, SEGMENT_PAYLOAD_BYTES_MIN};
use crate::virtio::VirtioFunction;
use crate::virtio::queue::Chain;
use alloc::vec;
use core::task::Context;

/// Addresses and type.
const FRAME_BYTES_MIN: usize = 14;

impl Net {
    /// Sends what the guest has offered, while the port takes it.
    pub(super) fn poll_transmit(&self, function: &VirtioFunction, context: &mut Context<'_>) {
        function.park(TRANSMIT, context.waker());
        let mut sent = 0;
        let more = loop {
            if sent == FRAMES_MAX {
                break true;
            }
            // A port that is not ready wakes this task when it is.
            if self.port.poll_ready(context).is_pending() {
                break false;
            }
            let Some(chain) = function.take(TRANSMIT) else {
                function.publish(TRANSMIT);
                if function.arm(TRANSMIT) > 0 {
                    continue;
                }
                break false;
            };
            self.send(function.features(), &chain);
            function.complete(TRANSMIT, chain, 0);
            sent += 1;
        };
        function.publish(TRANSMIT);
        if more {
            context.waker().wake_by_ref();
        }
    }

    fn send(&self, features: u64, chain: &Chain) {
        let Some(frame) = parse(features, chain) else {
            return self.drop_one(|dropped| &mut dropped.malformed);
        };
        if !self.link.get() || !self.port.send(frame) {
            self.drop_one(|dropped| &mut dropped.refused);
        }
    }
}

/// Whether what is left undone can be done to a frame of `length` bytes. Other guests' drivers get
/// these fields as they are, and need not be as careful.
fn fits(header: &NetHeader, length: usize) -> bool {
    let inside = header.checksum.is_none_or(|partial| {
        usize::from(partial.start) + usize::from(partial.offset) + 2 <= length
    });
    let cuttable = header.segmentation.is_none_or(|segmentation| {
        segmentation.payload_bytes >= SEGMENT_PAYLOAD_BYTES_MIN
            && usize::from(segmentation.header_bytes) <= length
    });
    inside && cuttable
}

/// The frame of a chain, if it is one.
fn parse(features: u64, chain: &Chain) -> Option<Frame> {
    let mut header = [0; HEADER_BYTES];
    let length = chain.readable_bytes().checked_sub(HEADER_BYTES as u64)?;
    let length = usize::try_from(length).ok()?;
    if !(FRAME_BYTES_MIN..=LONG_FRAME_BYTES_MAX).contains(&length) {
        return None;
    }
    chain.read(0, &mut header);
    let header = NetHeader::parse(&header, features).ok()?;
    if !fits(&header, length) {
        return None;
    }
    let mut bytes = vec![0; length];
    chain.read(HEADER_BYTES as u64, &mut bytes);
    Some(Frame {
        bytes,
        checksum: header.checksum,
        segmentation: header.segmentation,
        checked: false,
    })
}
