//! The slots of an engine: which are free, which the device has, and who waits.
//!
//! A slot goes free -> taken -> busy -> done -> free. Only the device's driver ends a busy one
//! (`complete`), or `stop` after the device has been kept from memory.

use crate::disk::DiskError;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::task::{Context, Poll, Waker};

/// A device that is reset more often without one command that went well is given up.
pub const RESETS_MAX: u32 = 3;

enum Slot {
    Free,
    Taken,
    Busy { limit_us: u64, waker: Option<Waker> },
    Done(Result<(), DiskError>),
}

enum State {
    Open,
    /// Being reset: nobody gets a slot.
    Stopped,
    Gone(String),
}

struct Table {
    slots: Vec<Slot>,
    waiting: Vec<Waker>,
    state: State,
    resets: u32,
}

/// Slots.
pub struct Requests(RefCell<Table>);

impl Requests {
    /// `count` free slots.
    pub fn new(count: usize) -> Requests {
        Requests(RefCell::new(Table {
            slots: (0..count).map(|_| Slot::Free).collect(),
            waiting: Vec::new(),
            state: State::Open,
            resets: 0,
        }))
    }

    /// Takes a slot, or waits for one.
    pub(super) fn poll_take(&self, context: &Context<'_>) -> Poll<Result<usize, DiskError>> {
        let mut table = self.0.borrow_mut();
        match &table.state {
            State::Open => {}
            State::Gone(why) => return Poll::Ready(Err(DiskError::Gone(why.clone()))),
            State::Stopped => {
                table.waiting.push(context.waker().clone());
                return Poll::Pending;
            }
        }
        match table.slots.iter().position(|s| matches!(s, Slot::Free)) {
            Some(free) => {
                table.slots[free] = Slot::Taken;
                Poll::Ready(Ok(free))
            }
            None => {
                table.waiting.push(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The device gets the command in a taken slot now, and must be done at `limit_us`.
    pub(super) fn begin(&self, slot: usize, limit_us: u64) {
        let slot = &mut self.0.borrow_mut().slots[slot];
        assert!(matches!(slot, Slot::Taken), "a slot begun twice");
        let waker = None;
        *slot = Slot::Busy { limit_us, waker };
    }

    /// The device is done with a slot. False: it did not have it.
    pub fn complete(&self, slot: usize, result: Result<(), DiskError>) -> bool {
        let mut table = self.0.borrow_mut();
        if result.is_ok() {
            table.resets = 0;
        }
        let Some(entry @ Slot::Busy { .. }) = table.slots.get_mut(slot) else {
            return false;
        };
        let before = core::mem::replace(entry, Slot::Done(result));
        drop(table);
        if let Slot::Busy { waker: Some(w), .. } = before {
            w.wake();
        }
        true
    }

    /// How a slot ended; it stays done until it is freed.
    pub(super) fn poll_done(
        &self,
        slot: usize,
        context: &Context<'_>,
    ) -> Poll<Result<(), DiskError>> {
        match &mut self.0.borrow_mut().slots[slot] {
            Slot::Done(result) => Poll::Ready(result.clone()),
            Slot::Busy { waker, .. } => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            Slot::Free | Slot::Taken => panic!("a slot nobody began"),
        }
    }

    /// Whether the device has the slot.
    pub fn is_busy(&self, slot: usize) -> bool {
        let table = self.0.borrow();
        matches!(table.slots.get(slot), Some(Slot::Busy { .. }))
    }

    /// The slots the device has.
    pub fn busy(&self) -> Vec<usize> {
        let count = self.0.borrow().slots.len();
        (0..count).filter(|slot| self.is_busy(*slot)).collect()
    }

    /// Gives a slot back that is not busy, and wakes who waits for one.
    pub(super) fn free(&self, slot: usize) {
        let mut table = self.0.borrow_mut();
        let entry = &mut table.slots[slot];
        assert!(!matches!(entry, Slot::Busy { .. }), "a busy slot freed");
        *entry = Slot::Free;
        // All of them: the first may have stopped waiting, and would keep the slot from the rest.
        let waiting = core::mem::take(&mut table.waiting);
        drop(table);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Whether the device has a command it should have done by now.
    pub fn is_overdue(&self, now_us: u64) -> bool {
        let late = |slot: &Slot| matches!(slot, Slot::Busy { limit_us, .. } if *limit_us < now_us);
        self.0.borrow().slots.iter().any(late)
    }

    /// The device cannot touch memory any more: everything it had has failed, and nobody gets a
    /// slot until [`Self::open`].
    pub fn stop(&self, why: &str) {
        let mut table = self.0.borrow_mut();
        if !matches!(table.state, State::Gone(_)) {
            table.state = State::Stopped;
            table.resets += 1;
        }
        drop(table);
        self.fail(&DiskError::Failed(why.into()));
    }

    /// Whether the device is stopped and is to be started again. One that was reset too often is not.
    pub fn wants_restart(&self) -> bool {
        let table = self.0.borrow();
        let resets = table.resets;
        if !matches!(table.state, State::Stopped) {
            return false;
        }
        drop(table);
        if resets > RESETS_MAX {
            self.gone(&format!("{RESETS_MAX} resets in a row did not help"));
        }
        resets <= RESETS_MAX
    }

    /// The device runs (again).
    pub fn open(&self) {
        let mut table = self.0.borrow_mut();
        table.state = State::Open;
        let waiting = core::mem::take(&mut table.waiting);
        drop(table);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// The device will not run any more; it cannot touch memory either.
    pub fn gone(&self, why: &str) {
        let mut table = self.0.borrow_mut();
        table.state = State::Gone(why.into());
        let waiting = core::mem::take(&mut table.waiting);
        drop(table);
        waiting.into_iter().for_each(Waker::wake);
        self.fail(&DiskError::Gone(why.into()));
    }

    fn fail(&self, error: &DiskError) {
        for slot in self.busy() {
            self.complete(slot, Err(error.clone()));
        }
    }
}
