//! Stands between the bridge, the guests behind the router, and the host's own network stack.
//!
//! [`Gateway::poll_pump`] moves frames from both bridges through the router; the host's stack sends
//! and receives by the gateway as a [`FramePort`]. As long as no guest is behind it, frames pass
//! without a look. What reaches the host's stack has a right checksum: the stack need not check TCP
//! and UDP, and leaves their checksums out, for the card or [`super::offload`] to fill in.

use super::Clock;
use super::bridge::BridgePort;
use super::nat::router::{Output, Router};
use super::offload::{self, Takes};
use super::queue::FRAME_OVERHEAD_BYTES;
use crate::frame::{Frame, FramePort};
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::convert::Infallible;
use core::task::{Context, Poll, Waker};

/// Frames moved in one turn; then others have theirs.
const TURN_FRAMES: usize = 64;
/// Bytes that wait for the host's stack at most.
pub const HOST_QUEUE_BYTES: usize = 4 << 20;

/// What the host's stack takes: frames of the medium, checksums do not matter.
const HOST_TAKES: Takes = Takes {
    checksum: true,
    ..Takes::NOTHING
};

/// Counters of the host's own traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostStatistics {
    /// Frames dropped because the stack does not take them fast enough.
    pub dropped_full: u64,
    /// Frames dropped because their TCP or UDP checksum is wrong.
    pub dropped_damaged: u64,
}

struct HostQueue {
    frames: VecDeque<Frame>,
    bytes: usize,
    receiver: Option<Waker>,
}

/// The gateway.
pub struct Gateway {
    clock: Rc<dyn Clock>,
    /// The host's own port on the bridge.
    outer: BridgePort,
    /// Where guests' frames leave by, so that they and the host's own have a share each.
    leaving: BridgePort,
    inner: BridgePort,
    router: RefCell<Router>,
    host: RefCell<HostQueue>,
    host_statistics: Cell<HostStatistics>,
}

impl Gateway {
    /// Between two ports of the bridge, the one with the host's hardware address and the other with
    /// it as an alias, and one of the inside bridge, with the gateway's.
    pub fn new(
        clock: Rc<dyn Clock>,
        [outer, leaving]: [BridgePort; 2],
        inner: BridgePort,
        router: Router,
    ) -> Self {
        Gateway {
            clock,
            outer,
            leaving,
            inner,
            router: RefCell::new(router),
            host: RefCell::new(HostQueue {
                frames: VecDeque::new(),
                bytes: 0,
                receiver: None,
            }),
            host_statistics: Cell::default(),
        }
    }

    /// Changes or asks the router.
    pub fn with_router<R>(&self, act: impl FnOnce(&mut Router) -> R) -> R {
        act(&mut self.router.borrow_mut())
    }

    /// Counters of the host's own traffic.
    pub fn host_statistics(&self) -> HostStatistics {
        self.host_statistics.get()
    }

    /// Moves frames as long as it is polled.
    pub fn poll_pump(&self, context: &mut Context<'_>) -> Poll<Infallible> {
        let mut out = Vec::new();
        for _ in 0..TURN_FRAMES {
            let from_outside = self.move_outer(context, &mut out);
            let is_moved = self.move_inner(context, &mut out) || from_outside;
            // Neither had one, and both will wake us.
            if !is_moved {
                return Poll::Pending;
            }
            self.dispatch(&mut out, &self.leaving);
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn move_outer(&self, context: &mut Context<'_>, out: &mut Vec<Output>) -> bool {
        let Poll::Ready(mut frame) = self.outer.poll_receive(context) else {
            return false;
        };
        let router = &mut *self.router.borrow_mut();
        if router.loses(&mut frame) {
            return true;
        }
        if router.is_idle() {
            out.push(Output::Host(frame));
        } else {
            router.from_outside(frame, self.clock.now_us(), out);
        }
        true
    }

    fn move_inner(&self, context: &mut Context<'_>, out: &mut Vec<Output>) -> bool {
        if self.leaving.poll_ready(context).is_pending() {
            return false;
        }
        let Poll::Ready(frame) = self.inner.poll_receive(context) else {
            return false;
        };
        let now_us = self.clock.now_us();
        self.router.borrow_mut().from_inside(frame, now_us, out);
        true
    }

    /// Sends what the router has decided. `false`: something is dropped.
    fn dispatch(&self, out: &mut Vec<Output>, leaving: &BridgePort) -> bool {
        let mut is_taken = true;
        for output in out.drain(..) {
            is_taken &= match output {
                Output::Inside(frame) => self.inner.send(frame),
                Output::Outside(frame) => leaving.send(frame),
                Output::Host(frame) => self.to_host(frame),
            };
        }
        is_taken
    }

    fn to_host(&self, frame: Frame) -> bool {
        let mut statistics = self.host_statistics.get();
        if !offload::is_intact(&frame) {
            statistics.dropped_damaged += 1;
            self.host_statistics.set(statistics);
            return false;
        }
        let host = &mut *self.host.borrow_mut();
        let mut is_taken = true;
        let result = offload::adapt(frame, HOST_TAKES, |piece| {
            let cost = piece.bytes.len() + FRAME_OVERHEAD_BYTES;
            if host.bytes + cost > HOST_QUEUE_BYTES {
                statistics.dropped_full += 1;
                is_taken = false;
                return;
            }
            host.bytes += cost;
            host.frames.push_back(piece);
        });
        if result.is_err() {
            statistics.dropped_damaged += 1;
        }
        self.host_statistics.set(statistics);
        if let Some(waker) = host.receiver.take() {
            waker.wake();
        }
        is_taken && result.is_ok()
    }
}

/// The host's stack's side.
impl FramePort for Gateway {
    /// A frame without TCP or UDP checksum.
    fn send(&self, mut frame: Frame) -> bool {
        offload::leave_to_card(&mut frame);
        self.router.borrow_mut().host_sends(&mut frame);
        if self.router.borrow().is_idle() {
            return self.outer.send(frame);
        }
        let mut out = Vec::new();
        let now_us = self.clock.now_us();
        self.router.borrow_mut().from_host(frame, now_us, &mut out);
        self.dispatch(&mut out, &self.outer)
    }

    fn poll_receive(&self, context: &mut Context<'_>) -> Poll<Frame> {
        let host = &mut *self.host.borrow_mut();
        match host.frames.pop_front() {
            Some(frame) => {
                host.bytes -= frame.bytes.len() + FRAME_OVERHEAD_BYTES;
                Poll::Ready(frame)
            }
            None => {
                host.receiver = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        self.outer.poll_ready(context)
    }
}
