//! From the guest to the port (5.1.6.2).

use super::{FRAMES_MAX, HEADER_BYTES, Net, NetHeader, TRANSMIT};
use crate::frame::Frame;
use crate::network::offload::LONG_FRAME_BYTES_MAX;
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
    let mut bytes = vec![0; length];
    chain.read(HEADER_BYTES as u64, &mut bytes);
    Some(Frame {
        bytes,
        checksum: header.checksum,
        segmentation: header.segmentation,
        checked: false,
    })
}
