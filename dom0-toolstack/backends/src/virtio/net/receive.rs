//! From the port to the guest (5.1.6.3, 5.1.6.4).

use super::config::{CTRL_RX, GUEST_CSUM, GUEST_ECN, GUEST_TSO4, GUEST_TSO6, MRG_RXBUF};
use super::{FRAMES_MAX, HEADER_BYTES, Net, NetHeader, RECEIVE};
use crate::frame::{Frame, SegmentKind};
use crate::network::offload::{LONG_FRAME_BYTES_MAX, Takes, adapt};
use crate::virtio::VirtioFunction;
use crate::virtio::queue::Chain;
use alloc::vec::Vec;
use core::task::{Context, Poll};

/// Ethernet header with a VLAN tag.
const LINK_BYTES: usize = 18;

/// What became of a frame.
enum Delivery {
    Done,
    /// The guest has only so many buffers now, too few.
    NoBuffers(u16),
    /// The guest's buffers can never take it.
    TooLong,
}

impl Net {
    /// Delivers what the port has, while the guest has buffers.
    pub(super) fn poll_receive(&self, function: &VirtioFunction, context: &mut Context<'_>) {
        function.park(RECEIVE, context.waker());
        if function.paused() {
            return;
        }
        let mut handled = 0;
        let more = loop {
            if handled == FRAMES_MAX {
                break true;
            }
            handled += 1;
            let Some(frame) = self.next(function, context) else {
                break false;
            };
            match self.deliver(function, &frame) {
                Delivery::Done => {}
                Delivery::TooLong => self.drop_one(|dropped| &mut dropped.too_long),
                Delivery::NoBuffers(found) => {
                    self.waiting.borrow_mut().push_front(frame);
                    function.publish(RECEIVE);
                    if function.arm(RECEIVE) > found {
                        continue;
                    }
                    break false;
                }
            }
        };
        function.publish(RECEIVE);
        if more {
            context.waker().wake_by_ref();
        }
    }

    /// The next frame as the guest takes it.
    fn next(&self, function: &VirtioFunction, context: &mut Context<'_>) -> Option<Frame> {
        for _ in 0..FRAMES_MAX {
            if let Some(frame) = self.waiting.borrow_mut().pop_front() {
                return Some(frame);
            }
            let Poll::Ready(frame) = self.port.poll_receive(context) else {
                return None;
            };
            let features = function.features();
            if !function.running() || !self.link.get() || !self.wants(features, &frame) {
                self.drop_one(|dropped| &mut dropped.unwanted);
                continue;
            }
            let takes = self.takes(features, &frame);
            let mut waiting = self.waiting.borrow_mut();
            if adapt(frame, takes, |frame| waiting.push_back(frame)).is_err() {
                self.drop_one(|dropped| &mut dropped.unfit);
            }
        }
        context.waker().wake_by_ref();
        None
    }

    /// Whether a frame is for an address that the driver wants (5.1.6.5.1).
    fn wants(&self, features: u64, frame: &Frame) -> bool {
        const GROUP: u8 = 1;
        let Some(target) = frame.bytes.first_chunk::<6>() else {
            return false;
        };
        let state = self.state.borrow();
        let all = features & CTRL_RX == 0 || state.promiscuous || state.more_addresses;
        all || target[0] & GROUP != 0 || *target == state.mac
    }

    /// What a driver that agreed to `features` takes of such a frame.
    fn takes(&self, features: u64, frame: &Frame) -> Takes {
        let segmentation = frame.segmentation.is_some_and(|segmentation| {
            let mut needed = match segmentation.kind {
                SegmentKind::Tcp4 => GUEST_TSO4,
                SegmentKind::Tcp6 => GUEST_TSO6,
            };
            if segmentation.ecn {
                needed |= GUEST_ECN;
            }
            features & needed == needed
        });
        Takes {
            checksum: features & GUEST_CSUM != 0,
            segmentation,
            frame_bytes_max: if segmentation {
                LONG_FRAME_BYTES_MAX
            } else {
                usize::from(self.mtu) + LINK_BYTES
            },
        }
    }

    /// Copies a frame into one buffer, or into as many as it takes if the driver merges them.
    fn deliver(&self, function: &VirtioFunction, frame: &Frame) -> Delivery {
        let features = function.features();
        let merges = features & MRG_RXBUF != 0;
        let needed = (HEADER_BYTES + frame.bytes.len()) as u64;
        let buffers_max = if merges {
            usize::from(function.queue_size(RECEIVE))
        } else {
            1
        };
        let mut chains: Vec<Chain> = Vec::new();
        let mut room = 0;
        while room < needed {
            let chain = (chains.len() < buffers_max).then(|| function.take(RECEIVE));
            let Some(Some(chain)) = chain else {
                // Nothing is used up for a frame that does not fit.
                let exhausted = chain.is_none();
                let found = chains.len() as u16;
                chains
                    .into_iter()
                    .rev()
                    .for_each(|chain| function.put_back(RECEIVE, chain));
                return if exhausted {
                    Delivery::TooLong
                } else {
                    Delivery::NoBuffers(found)
                };
            };
            room += chain.writable_bytes();
            chains.push(chain);
        }
        // Without merging the field is 1 (5.1.6.4.1).
        let header = NetHeader::of(frame, features, chains.len() as u16).bytes();
        // Where the frame and its header are, as one piece of `needed` bytes.
        let mut at = 0;
        for chain in chains {
            let here = chain.writable_bytes().min(needed - at as u64) as usize;
            let in_header = HEADER_BYTES.saturating_sub(at).min(here);
            if in_header > 0 {
                chain.write(0, &header[at..at + in_header]);
            }
            let from = (at + in_header).saturating_sub(HEADER_BYTES);
            let part = &frame.bytes[from..from + here - in_header];
            chain.write(in_header as u64, part);
            at += here;
            function.complete(RECEIVE, chain, here as u32);
        }
        Delivery::Done
    }
}
