//! Who works where on a disk: ranges of blocks held in the order they were asked for, and a gate that
//! all requests of a guest pass.
//!
//! Two writes to one place must reach both copies in one order, and a region must not change while it is
//! copied; so each holds its range, and a later one that overlaps waits. Everybody holds one range at a
//! time, so nobody waits in a circle.

use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::ops::Range;
use core::task::{Poll, Waker};

struct Entry {
    id: u64,
    range: Range<u64>,
    waker: Option<Waker>,
}

/// Ranges that are held or waited for, oldest first.
#[derive(Default)]
pub(super) struct RangeLocks {
    entries: RefCell<Vec<Entry>>,
    next: Cell<u64>,
}

/// A range that is held until this is dropped.
pub(super) struct Locked<'a> {
    locks: &'a RangeLocks,
    id: u64,
}

impl RangeLocks {
    /// Holds a range, once nobody who came before holds or waits for a part of it.
    pub(super) async fn lock(&self, range: Range<u64>) -> Locked<'_> {
        let id = self.next.replace(self.next.get() + 1);
        let waker = None;
        self.entries.borrow_mut().push(Entry { id, range, waker });
        // Made before the first wait: who gives up waiting leaves nothing behind.
        let locked = Locked { locks: self, id };
        poll_fn(|context| {
            let mut entries = self.entries.borrow_mut();
            let at = entries.iter().position(|entry| entry.id == id);
            let at = at.expect("it is there until it is dropped");
            let wanted = entries[at].range.clone();
            let overlaps =
                |entry: &Entry| entry.range.start < wanted.end && wanted.start < entry.range.end;
            if entries[..at].iter().any(overlaps) {
                entries[at].waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
        locked
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let mut entries = self.locks.entries.borrow_mut();
        entries.retain(|entry| entry.id != self.id);
        let waiting = entries.iter_mut().filter_map(|entry| entry.waker.take());
        waiting.for_each(Waker::wake);
    }
}

/// Lets requests in until it is closed.
#[derive(Default)]
pub(super) struct Gate {
    inside: Cell<usize>,
    closed: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

/// A request behind the gate.
pub(super) struct Inside<'a>(&'a Gate);

/// The gate is closed and nobody is inside; dropping this opens it.
pub(super) struct Closed<'a>(&'a Gate);

impl Gate {
    fn wake(&self) {
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    async fn until(&self, is_so: impl Fn() -> bool) {
        poll_fn(|context| match is_so() {
            true => Poll::Ready(()),
            false => {
                self.waiting.borrow_mut().push(context.waker().clone());
                Poll::Pending
            }
        })
        .await;
    }

    /// Requests that are under way.
    pub(super) fn inside(&self) -> usize {
        self.inside.get()
    }

    /// Goes in, when it is open.
    pub(super) async fn enter(&self) -> Inside<'_> {
        self.until(|| !self.closed.get()).await;
        self.inside.set(self.inside.get() + 1);
        Inside(self)
    }

    /// Closes it, and waits until everybody has left.
    pub(super) async fn close(&self) -> Closed<'_> {
        self.until(|| !self.closed.get()).await;
        self.closed.set(true);
        let closed = Closed(self);
        self.until(|| self.inside.get() == 0).await;
        closed
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.inside.set(self.0.inside.get() - 1);
        // Only who has closed it waits for that.
        if self.0.inside.get() == 0 && self.0.closed.get() {
            self.0.wake();
        }
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.closed.set(false);
        self.0.wake();
    }
}
