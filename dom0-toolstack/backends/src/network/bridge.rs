//! A learning bridge. Frames are switched while `send` runs; what waits, waits in two places only:
//! with a sender that is over its rate (`Port::held`) and in front of a receiver
//! (`Port::waiting`).
//!
//! Invariants: the order between two ports is kept; a port never gets its own frames back; stations
//! of this host are fixed to their ports and learnt nowhere else.

use super::Clock;
use super::bucket::TokenBucket;
use super::headers;
use super::mac::MacAddress;
use super::offload::{self, Takes};
use super::policy::{Limits, Sources, Verdict};
use super::queue::{FairQueue, PortNumber};
use super::statistics::PortStatistics;
use super::table::MacTable;
use crate::frame::{Frame, FramePort};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::task::{Context, Poll, Waker};

/// Ports of one bridge.
pub const PORTS_MAX: usize = 256;
/// Bytes that a port over its rate may have waiting; what comes on top is dropped.
pub const HELD_BYTES_MAX: usize = 256 << 10;
/// A port that has so much waiting at the uplink is asked to wait ([`FramePort::poll_ready`]).
pub const UPLINK_SHARE_BYTES: usize = 512 << 10;

/// What is plugged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortOptions {
    /// The way out of the host: who sends to it is slowed down to its speed.
    pub is_uplink: bool,
    /// What it may send. A port with a fixed hardware address gets nothing for unknown stations.
    pub sources: Sources,
    /// Limits.
    pub limits: Limits,
    /// What its owner can do itself.
    pub takes: Takes,
    /// Whether its owner vouches for [`Frame::checked`]: not a guest.
    pub is_trusted: bool,
}

/// Why a port cannot be plugged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlugError {
    /// Another port has that hardware address.
    MacInUse(MacAddress),
    /// There are [`PORTS_MAX`].
    Full,
}

struct Port {
    options: PortOptions,
    bucket: Option<TokenBucket>,
    /// Judged, but over the rate.
    held: VecDeque<Frame>,
    held_bytes: usize,
    waiting: FairQueue,
    statistics: PortStatistics,
    receiver: Option<Waker>,
    sender: Option<Waker>,
}

struct Inner {
    clock: Rc<dyn Clock>,
    ports: BTreeMap<PortNumber, Port>,
    uplink: Option<PortNumber>,
    table: MacTable,
    next: u32,
    /// Woken when a port begins to hold frames.
    releaser: Option<Waker>,
}

/// The bridge; clones are the same one.
#[derive(Clone)]
pub struct Bridge(Rc<RefCell<Inner>>);

/// A port; dropping it unplugs it.
pub struct BridgePort {
    inner: Rc<RefCell<Inner>>,
    number: PortNumber,
}

impl Bridge {
    /// Without ports.
    pub fn new(clock: Rc<dyn Clock>) -> Self {
        Bridge(Rc::new(RefCell::new(Inner {
            clock,
            ports: BTreeMap::new(),
            uplink: None,
            table: MacTable::default(),
            next: 0,
            releaser: None,
        })))
    }

    /// Plugs a port in.
    pub fn plug(&self, options: PortOptions) -> Result<BridgePort, PlugError> {
        let inner = &mut *self.0.borrow_mut();
        if inner.ports.len() >= PORTS_MAX {
            return Err(PlugError::Full);
        }
        let number = PortNumber(inner.next);
        if let Some(mac) = options.sources.mac()
            && !inner.table.fix(mac, number)
        {
            return Err(PlugError::MacInUse(mac));
        }
        inner.next += 1;
        if options.is_uplink {
            assert!(inner.uplink.is_none(), "a second uplink");
            inner.uplink = Some(number);
        }
        let now_us = inner.clock.now_us();
        let port = Port {
            bucket: options
                .limits
                .rate
                .map(|rate| TokenBucket::new(rate, now_us)),
            held: VecDeque::new(),
            held_bytes: 0,
            waiting: FairQueue::new(options.limits.queue_bytes),
            statistics: PortStatistics::default(),
            receiver: None,
            sender: None,
            options,
        };
        inner.ports.insert(number, port);
        Ok(BridgePort {
            inner: self.0.clone(),
            number,
        })
    }

    /// Sends on what ports over their rate may send by now. Returns when to do so again, in
    /// microseconds of the clock; `None`: when [`Self::poll_held`] is ready.
    pub fn release(&self) -> Option<u64> {
        let inner = &mut *self.0.borrow_mut();
        let numbers: Vec<_> = inner.ports.keys().copied().collect();
        numbers
            .into_iter()
            .filter_map(|number| inner.release(number))
            .min()
    }

    /// Ready when a port holds frames that [`Self::release`] is to send on.
    pub fn poll_held(&self, context: &mut Context<'_>) -> Poll<()> {
        let inner = &mut *self.0.borrow_mut();
        if inner.ports.values().any(|port| !port.held.is_empty()) {
            return Poll::Ready(());
        }
        inner.releaser = Some(context.waker().clone());
        Poll::Pending
    }

    /// Stations in the table.
    pub fn stations(&self) -> usize {
        self.0.borrow().table.stations()
    }
}

impl Inner {
    fn send(&mut self, from: PortNumber, mut frame: Frame) -> bool {
        let Some(port) = self.ports.get_mut(&from) else {
            return false;
        };
        let mut verdict = port.options.sources.judge(&frame.bytes);
        if port.options.sources == Sources::Any
            && headers::source(&frame.bytes).is_some_and(|mac| self.table.is_fixed(mac))
        {
            verdict = Verdict::Spoofed;
        }
        match verdict {
            Verdict::Passes => {}
            Verdict::Malformed => {
                port.statistics.tx_dropped_malformed += 1;
                return false;
            }
            Verdict::Spoofed => {
                port.statistics.tx_dropped_spoofed += 1;
                return false;
            }
        }
        frame.checked &= port.options.is_trusted;
        let bytes = frame.bytes.len();
        if let Some(bucket) = &mut port.bucket {
            let is_first = port.held.is_empty();
            if !(is_first && bucket.take(bytes, self.clock.now_us())) {
                if port.held_bytes + bytes > HELD_BYTES_MAX {
                    port.statistics.tx_dropped_rate += 1;
                    return false;
                }
                port.held_bytes += bytes;
                port.held.push_back(frame);
                if let Some(waker) = self.releaser.take() {
                    waker.wake();
                }
                return true;
            }
        }
        self.switch(from, frame)
    }

    fn release(&mut self, number: PortNumber) -> Option<u64> {
        let now_us = self.clock.now_us();
        loop {
            let port = self.ports.get_mut(&number)?;
            let bytes = port.held.front()?.bytes.len();
            let bucket = port.bucket.as_mut()?;
            if !bucket.take(bytes, now_us) {
                return Some(bucket.ready_us());
            }
            let frame = port.held.pop_front()?;
            port.held_bytes -= bytes;
            if let Some(waker) = port.sender.take() {
                waker.wake();
            }
            self.switch(number, frame);
        }
    }

    /// Where a frame goes: to the one port that its station is behind, or to all that might want it.
    fn switch(&mut self, from: PortNumber, frame: Frame) -> bool {
        let now_us = self.clock.now_us();
        let addresses = headers::source(&frame.bytes).zip(headers::destination(&frame.bytes));
        let (source, destination) = addresses.expect("judged before");
        self.table.learn(source, from, now_us);
        let port = self.ports.get_mut(&from).expect("it sends");
        port.statistics.tx_frames += 1;
        port.statistics.tx_bytes += frame.bytes.len() as u64;
        if destination.is_link_constrained() {
            return true;
        }
        if let Some(to) = self.table.port_of(destination, now_us) {
            return to == from || self.deliver(from, to, frame);
        }
        let wants = |(number, port): (&PortNumber, &Port)| {
            let is_open = port.options.sources.wants(destination.is_group());
            (*number != from && is_open).then_some(*number)
        };
        let mut all: Vec<_> = self.ports.iter().filter_map(wants).collect();
        let last = all.pop();
        let mut is_taken = true;
        for to in all {
            is_taken &= self.deliver(from, to, frame.clone());
        }
        last.is_none_or(|to| self.deliver(from, to, frame)) && is_taken
    }

    /// Puts a frame in front of a port. `false`: it, or a piece of it, is dropped.
    fn deliver(&mut self, from: PortNumber, to: PortNumber, frame: Frame) -> bool {
        let Some(port) = self.ports.get_mut(&to) else {
            return false;
        };
        let waiting = &mut port.waiting;
        let result = offload::adapt(frame, port.options.takes, |piece| waiting.push(from, piece));
        let mut is_taken = result.is_ok();
        let mut losers = Vec::new();
        while let Some((loser, _)) = port.waiting.evict(from) {
            port.statistics.rx_dropped_full += 1;
            is_taken &= loser != from;
            losers.push(loser);
        }
        if let Some(waker) = port.receiver.take() {
            waker.wake();
        }
        for loser in losers {
            if let Some(port) = self.ports.get_mut(&loser) {
                port.statistics.tx_dropped_full += 1;
            }
        }
        if result.is_err()
            && let Some(port) = self.ports.get_mut(&from)
        {
            port.statistics.tx_dropped_malformed += 1;
        }
        is_taken
    }

    /// Whether a port should send now; if not, its waker is kept.
    fn is_ready(&self, number: PortNumber) -> bool {
        let Some(port) = self.ports.get(&number) else {
            return true;
        };
        let uplink = self.uplink.and_then(|uplink| self.ports.get(&uplink));
        let at_uplink = uplink.map_or(0, |uplink| uplink.waiting.bytes_from(number));
        port.held.is_empty() && at_uplink < UPLINK_SHARE_BYTES
    }

    fn unplug(&mut self, number: PortNumber) {
        let Some(port) = self.ports.remove(&number) else {
            return;
        };
        self.table.remove(number);
        if self.uplink == Some(number) {
            self.uplink = None;
            for waker in self
                .ports
                .values_mut()
                .filter_map(|port| port.sender.take())
            {
                waker.wake();
            }
        }
        for waker in [port.receiver, port.sender].into_iter().flatten() {
            waker.wake();
        }
    }
}

impl BridgePort {
    /// Unplugs it: what is sent afterwards is dropped, and nothing comes any more.
    pub fn unplug(&self) {
        self.inner.borrow_mut().unplug(self.number);
    }

    /// What it has counted; zeroes once it is unplugged.
    pub fn statistics(&self) -> PortStatistics {
        let inner = self.inner.borrow();
        let port = inner.ports.get(&self.number);
        port.map(|port| port.statistics).unwrap_or_default()
    }

    /// What it may send.
    pub fn set_sources(&self, sources: Sources) -> Result<(), PlugError> {
        let inner = &mut *self.inner.borrow_mut();
        let Some(port) = inner.ports.get_mut(&self.number) else {
            return Ok(());
        };
        if port.options.sources.mac() != sources.mac() {
            if let Some(mac) = sources.mac()
                && inner.table.is_fixed(mac)
            {
                return Err(PlugError::MacInUse(mac));
            }
            inner.table.remove(self.number);
            if let Some(mac) = sources.mac() {
                inner.table.fix(mac, self.number);
            }
        }
        port.options.sources = sources;
        Ok(())
    }

    /// Drops all that waits for its owner: there is no carrier.
    pub fn discard(&self) {
        while self.take(|counts, _| counts.rx_dropped_full += 1).is_some() {}
    }

    /// The next frame that waits, counted by `count`.
    fn take(&self, count: impl FnOnce(&mut PortStatistics, u64)) -> Option<Frame> {
        let inner = &mut *self.inner.borrow_mut();
        let port = inner.ports.get_mut(&self.number)?;
        let (from, frame) = port.waiting.pop()?;
        count(&mut port.statistics, frame.bytes.len() as u64);
        if inner.uplink == Some(self.number)
            && port.waiting.bytes_from(from) < UPLINK_SHARE_BYTES
            && let Some(sender) = inner.ports.get_mut(&from)
            && let Some(waker) = sender.sender.take()
        {
            waker.wake();
        }
        Some(frame)
    }
}

impl FramePort for BridgePort {
    fn send(&self, frame: Frame) -> bool {
        self.inner.borrow_mut().send(self.number, frame)
    }

    fn poll_receive(&self, context: &mut Context<'_>) -> Poll<Frame> {
        let frame = self.take(|counts, bytes| {
            counts.rx_frames += 1;
            counts.rx_bytes += bytes;
        });
        if let Some(frame) = frame {
            return Poll::Ready(frame);
        }
        let inner = &mut *self.inner.borrow_mut();
        if let Some(port) = inner.ports.get_mut(&self.number) {
            port.receiver = Some(context.waker().clone());
        }
        Poll::Pending
    }

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        let inner = &mut *self.inner.borrow_mut();
        if inner.is_ready(self.number) {
            return Poll::Ready(());
        }
        if let Some(port) = inner.ports.get_mut(&self.number) {
            port.sender = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for BridgePort {
    fn drop(&mut self) {
        self.unplug();
    }
}
