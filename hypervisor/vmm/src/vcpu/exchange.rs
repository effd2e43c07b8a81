//! The place where a vCPU asks dom0 to answer an access to a device that dom0 serves, and dom0 answers.
//!
//! ```text
//!            vCPU asks          dom0 takes           dom0 completes            vCPU collects
//!   Idle ---------------> Asked -----------> Taken -----------------> Answered -------------> Idle
//!     ^                     |  <-----------   |  dom0 was restarted      ^
//!     |                     +-----------------+--------------------------+ the device is removed: all ones
//!     +---------------------+-----------------+ the vCPU gives up: INIT, reset, new registers
//! ```
//!
//! No lock: the vCPU (or who holds it off its CPU) and dom0 share one word of state; the rest is written by one side
//! before a change of state that the other side waits for.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

const IDLE: u32 = 0;
const ASKED: u32 = 1;
const TAKEN: u32 = 2;
const ANSWERED: u32 = 3;

/// An access to a device that dom0 serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// PCI device number.
    pub slot: u8,
    /// BAR.
    pub bar: u8,
    /// Bytes: 1, 2, 4 or 8.
    pub width: u8,
    /// From the BAR's start.
    pub offset: u64,
    /// What is written; `None`: a read.
    pub write: Option<u64>,
}

/// The exchange of one vCPU.
#[derive(Debug, Default)]
pub struct Exchange {
    state: AtomicU32,
    /// Slot, BAR, width, write flag: a byte each, from the lowest.
    place: AtomicU64,
    offset: AtomicU64,
    value: AtomicU64,
    answer: AtomicU64,
}

impl Exchange {
    /// Nothing is asked.
    pub const fn new() -> Self {
        Self {
            state: AtomicU32::new(IDLE),
            place: AtomicU64::new(0),
            offset: AtomicU64::new(0),
            value: AtomicU64::new(0),
            answer: AtomicU64::new(0),
        }
    }

    fn step(&self, from: u32, to: u32) -> bool {
        self.state
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// The vCPU asks; what it may have asked before is given up. dom0 is then to be told.
    pub(super) fn ask(&self, request: &Request) {
        self.withdraw();
        let [slot, bar, width] = [request.slot, request.bar, request.width];
        let write = u8::from(request.write.is_some());
        let place = u32::from_le_bytes([slot, bar, width, write]);
        self.place.store(place.into(), Ordering::Relaxed);
        self.offset.store(request.offset, Ordering::Relaxed);
        self.value
            .store(request.write.unwrap_or(0), Ordering::Relaxed);
        self.state.store(ASKED, Ordering::Release);
    }

    /// Whether the vCPU can go on.
    pub fn is_answered(&self) -> bool {
        self.state.load(Ordering::Acquire) == ANSWERED
    }

    /// The vCPU collects the answer.
    pub(super) fn collect(&self) -> Option<u64> {
        if !self.is_answered() {
            return None;
        }
        let answer = self.answer.load(Ordering::Relaxed);
        self.state.store(IDLE, Ordering::Release);
        Some(answer)
    }

    /// The vCPU gives up; whoever calls runs it, or holds it off its CPU.
    pub fn withdraw(&self) {
        self.state.store(IDLE, Ordering::Release);
    }

    fn request(&self) -> Request {
        let place = self.place.load(Ordering::Relaxed) as u32;
        let [slot, bar, width, write] = place.to_le_bytes();
        let value = self.value.load(Ordering::Relaxed);
        Request {
            slot,
            bar,
            width,
            offset: self.offset.load(Ordering::Relaxed),
            write: (write != 0).then_some(value),
        }
    }

    /// dom0 takes what is asked, once.
    pub fn take(&self) -> Option<Request> {
        if !self.step(ASKED, TAKEN) {
            return None;
        }
        let request = self.request();
        // Given up meanwhile, and perhaps asked for something else: that is taken next.
        (self.state.load(Ordering::Acquire) == TAKEN).then_some(request)
    }

    /// dom0 answers what it has taken. `false`: nobody waits for that. Otherwise the vCPU is to be woken.
    pub fn complete(&self, value: u64) -> bool {
        if self.state.load(Ordering::Acquire) != TAKEN {
            // Answered already: that stays.
            return false;
        }
        self.answer.store(value, Ordering::Relaxed);
        self.step(TAKEN, ANSWERED)
    }

    /// The device in a slot goes away: what was asked of it reads as all ones. As `complete`.
    pub fn abandon(&self, slot: u8) -> bool {
        let waits = matches!(self.state.load(Ordering::Acquire), ASKED | TAKEN);
        if !waits || self.request().slot != slot {
            return false;
        }
        self.answer.store(u64::MAX, Ordering::Relaxed);
        self.step(ASKED, ANSWERED) || self.step(TAKEN, ANSWERED)
    }

    /// A new dom0 knows nothing of what the old one has taken: it is to be taken again. Returns whether anything waits.
    pub fn put_back(&self) -> bool {
        self.step(TAKEN, ASKED) || self.state.load(Ordering::Acquire) == ASKED
    }
}
