//! Serving a queue whose chains are independent of each other: many at once, one interrupt for
//! all that are done.

use super::VirtioFunction;
use crate::virtio::queue::Chain;
use core::future::poll_fn;
use core::pin::Pin;
use core::task::Poll;
use futures_util::stream::{FuturesUnordered, Stream};

/// Rounds of taking and completing before other tasks have their turn.
const ROUNDS_MAX: usize = 8;

impl VirtioFunction {
    /// Gives every chain of a queue to `handle`, at most `most` at once. It returns how many bytes
    /// of the writable part it wrote. Never ends.
    pub async fn serve(&self, index: usize, most: usize, handle: impl AsyncFn(&Chain) -> u32) {
        let handle = &handle;
        let work = async |chain: Chain| {
            let written = handle(&chain).await;
            (chain, written)
        };
        let mut working = FuturesUnordered::new();
        poll_fn(|context| {
            self.park(index, context.waker());
            for _ in 0..ROUNDS_MAX {
                let mut moved = false;
                while working.len() < most
                    && let Some(chain) = self.take(index)
                {
                    working.push(work(chain));
                    moved = true;
                }
                while let Poll::Ready(Some((chain, written))) =
                    Pin::new(&mut working).poll_next(context)
                {
                    self.complete(index, chain, written);
                    moved = true;
                }
                if !moved {
                    self.publish(index);
                    if working.len() >= most || self.arm(index) == 0 {
                        return Poll::<()>::Pending;
                    }
                }
            }
            self.publish(index);
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}
