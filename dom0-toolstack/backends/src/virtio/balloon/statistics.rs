//! The statistics queue (5.5.6.3). The driver leaves one buffer with the device; giving it back
//! asks for new statistics. The buffer is not taken meanwhile, so it is not in flight.

use super::BalloonHost;
use crate::virtio::VirtioFunction;
use crate::virtio::queue::Chain;
use alloc::vec::Vec;
use core::cell::Cell;
use core::task::Context;

/// Bytes of one statistic.
const STATISTIC_BYTES: usize = 10;
/// Most statistics of a buffer; virtio 1.2 knows ten.
const STATISTICS_MAX: usize = 32;

/// One number: what it counts by 5.5.6.4, and how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistic {
    /// VIRTIO_BALLOON_S_...
    pub tag: u16,
    /// Bytes or events.
    pub value: u64,
}

/// Whether statistics are wanted, and which buffer was read last.
#[derive(Default)]
pub(super) struct Watch {
    wanted: Cell<bool>,
    read: Cell<Option<u16>>,
}

impl Watch {
    pub(super) fn ask(&self) {
        self.wanted.set(true);
    }

    pub(super) fn reset(&self) {
        self.read.set(None);
    }

    pub(super) fn poll(
        &self,
        function: &VirtioFunction,
        host: &dyn BalloonHost,
        queue: usize,
        context: &mut Context<'_>,
    ) {
        function.park(queue, context.waker());
        // At most the one answer that a request here brings, and the buffer behind it.
        for _ in 0..2 {
            let Some(chain) = function.take(queue) else {
                if function.arm(queue) > 0 {
                    continue;
                }
                return;
            };
            if self.read.replace(Some(chain.position())) != Some(chain.position()) {
                host.statistics(&parse(&chain));
            }
            if !self.wanted.take() {
                // While it waits here there is no doorbell to wait for.
                return function.put_back(queue, chain);
            }
            function.complete(queue, chain, 0);
            function.publish(queue);
        }
        context.waker().wake_by_ref();
    }
}

fn parse(chain: &Chain) -> Vec<Statistic> {
    let mut raw = [0; STATISTIC_BYTES * STATISTICS_MAX];
    let length = chain.read(0, &mut raw);
    let (entries, _) = raw[..length].as_chunks::<STATISTIC_BYTES>();
    let statistic = |entry: &[u8; STATISTIC_BYTES]| {
        let [t0, t1, value @ ..] = *entry;
        Statistic {
            tag: u16::from_le_bytes([t0, t1]),
            value: u64::from_le_bytes(value),
        }
    };
    entries.iter().map(statistic).collect()
}
