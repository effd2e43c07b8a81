//! A split virtqueue (virtio 1.2, 2.7), device side, that completes in order.
//!
//! What the driver wrote is an allegation: indices, descriptors and tables are copied out of guest
//! memory once and judged as copies. What cannot be is a [`QueueError`]; from then on the queue is
//! not touched until the driver resets the device. Work is bounded: a chain has at most
//! [`CHAIN_DESCRIPTORS_MAX`] descriptors and [`CHAIN_BYTES_MAX`] bytes, and at most the queue's
//! size of chains are taken and not completed.
//!
//! **In order**: chains may be worked on at once and [completed](Queue::complete) in any order, but
//! appear in the used ring in the order of the available ring. So those in flight are always
//! exactly `available[used.idx..available.idx]`, and [`Queue::resume`] finds them again after a
//! crash or a migration with nothing but guest memory.
//!
//! ```text
//!   available ring:   ... published | completed, in order | done or worked on | waiting ...
//!                                   ^published            ^next_used          ^next_available
//! ```

mod chain;
#[cfg(test)]
mod early_tests;
mod error;
mod setup;
#[cfg(test)]
mod tests;

pub use chain::{CHAIN_BYTES_MAX, CHAIN_DESCRIPTORS_MAX, Chain};
pub use error::QueueError;
pub use setup::{QUEUE_SIZE_MAX, Setup};

use crate::memory::GuestMemory;
use alloc::collections::VecDeque;
use alloc::rc::Rc;

/// `avail.flags`: the driver wants no interrupts (2.7.6).
const AVAIL_NO_INTERRUPT: u16 = 1;
/// `used.flags`: the device wants no doorbells (2.7.8).
const USED_NO_NOTIFY: u16 = 1;

/// A chain that was taken.
struct Slot {
    head: u16,
    /// Bytes written, once it is done.
    written: Option<u32>,
}

/// A queue in use.
pub struct Queue {
    memory: Rc<GuestMemory>,
    setup: Setup,
    /// VIRTIO_F_EVENT_IDX was negotiated.
    event_index: bool,
    /// VIRTIO_F_INDIRECT_DESC was negotiated.
    indirect: bool,
    /// `avail.idx` as last read.
    available: u16,
    next_available: u16,
    next_used: u16,
    published: u16,
    /// `published` when the driver was last interrupted or found not to want it; unknown at first.
    signalled: Option<u16>,
    /// Whether doorbells are wanted, as last told to the driver; unknown at first.
    armed: Option<bool>,
    /// Taken and not in the used ring, oldest first: from `next_used` to `next_available`.
    slots: VecDeque<Slot>,
    /// Where a chain stands that cannot be taken before memory has come.
    early: Option<u16>,
    /// It was in use before, and how far it was is not known before its rings have come.
    resumes: bool,
    /// The driver broke its rules: nothing is written to its rings any more.
    condemned: bool,
}

impl Queue {
    /// A queue whose driver starts with empty rings.
    pub fn start(
        memory: Rc<GuestMemory>,
        setup: Setup,
        event_index: bool,
        indirect: bool,
    ) -> Result<Queue, QueueError> {
        setup.check(&memory)?;
        Ok(Queue {
            memory,
            setup,
            event_index,
            indirect,
            available: 0,
            next_available: 0,
            next_used: 0,
            published: 0,
            signalled: None,
            armed: None,
            slots: VecDeque::new(),
            early: None,
            resumes: false,
            condemned: false,
        })
    }

    /// A queue that was in use before: goes on behind what is in its used ring, so what was in
    /// flight is taken again. If its rings have yet to come, that is looked at then.
    pub fn resume(
        memory: Rc<GuestMemory>,
        setup: Setup,
        event_index: bool,
        indirect: bool,
    ) -> Result<Queue, QueueError> {
        let mut queue = Self::start(memory, setup, event_index, indirect)?;
        queue.resumes = true;
        queue.rings_are_here()?;
        Ok(queue)
    }

    /// The next chain, oldest first. `None`: there is none now.
    pub fn take(&mut self) -> Result<Option<Chain>, QueueError> {
        if !self.rings_are_here()? {
            return Ok(None);
        }
        if self.available == self.next_available {
            self.refresh()?;
            if self.available == self.next_available {
                return Ok(None);
            }
        }
        self.ask_for_doorbells(false)?;
        let head = self.load(self.setup.available_entry(self.next_available))?;
        let chain = Chain::parse(
            &self.memory,
            &self.setup,
            self.indirect,
            head,
            self.next_available,
        );
        let chain = match chain {
            Err(QueueError::NotYet) => {
                self.early = Some(self.next_available);
                return Ok(None);
            }
            parsed => parsed?,
        };
        self.early = None;
        self.next_available = self.next_available.wrapping_add(1);
        self.slots.push_back(Slot {
            head,
            written: None,
        });
        Ok(Some(chain))
    }

    /// Undoes the last [`take`](Queue::take); several are undone last first.
    pub fn put_back(&mut self, chain: Chain) {
        let last = self.next_available.wrapping_sub(1);
        assert_eq!(chain.position(), last, "only the last is put back");
        let slot = self.slots.pop_back().expect("it was taken");
        assert!(slot.written.is_none(), "it was not completed");
        self.next_available = last;
    }

    /// The chain is done; `written` bytes were written to its writable part, from its start. Shows
    /// once [`publish`](Queue::publish) is called and all before it are done as well. After an error
    /// (the used ring was taken away) it is no longer in flight either.
    pub fn complete(&mut self, chain: Chain, written: u32) -> Result<(), QueueError> {
        let index = usize::from(chain.position().wrapping_sub(self.next_used));
        let slot = self.slots.get_mut(index).expect("a chain of this queue");
        assert!(slot.written.is_none(), "completed twice");
        slot.written = Some(written);
        let mut result = Ok(());
        while let Some(Slot {
            head,
            written: Some(written),
        }) = self.slots.front()
        {
            let mut element = [0; 8];
            element[..4].copy_from_slice(&u32::from(*head).to_le_bytes());
            element[4..].copy_from_slice(&written.to_le_bytes());
            if !self.condemned && result.is_ok() {
                let gpa = self.setup.used_element(self.next_used);
                result = self.memory.write(gpa, &element).map_err(QueueError::from);
            }
            self.slots.pop_front();
            self.next_used = self.next_used.wrapping_add(1);
        }
        result
    }

    /// Shows the driver what is done. Returns whether to interrupt it.
    pub fn publish(&mut self) -> Result<bool, QueueError> {
        if self.published == self.next_used || self.condemned {
            return Ok(false);
        }
        self.store(self.setup.used_index(), self.next_used)?;
        self.published = self.next_used;
        // The driver writes what it wants and then looks at the ring; here it is the other way
        // round, so one of the two sees the other (2.7.7.2).
        self.memory.memory().fence();
        let before = self.signalled.replace(self.published);
        if !self.event_index {
            let flags = self.load(self.setup.available)?;
            return Ok(flags & AVAIL_NO_INTERRUPT == 0);
        }
        let event = self.load(self.setup.used_event())?;
        Ok(before.is_none_or(|before| passed(event, before, self.published)))
    }

    /// Asks the driver for a doorbell with the next chain. Returns how many there are already, put
    /// back or new, for which none will ring; not those that wait for memory to come.
    pub fn arm(&mut self) -> Result<u16, QueueError> {
        if !self.rings_are_here()? {
            return Ok(0);
        }
        self.ask_for_doorbells(true)?;
        self.memory.memory().fence();
        self.refresh()?;
        let end = self.early.unwrap_or(self.available);
        Ok(end.wrapping_sub(self.next_available))
    }

    /// The first and last page of each of its parts.
    pub fn ring_pages(&self) -> [(u64, u64); 3] {
        self.setup.pages()
    }

    /// After an error: what is in flight is still completed, but the rings are left alone.
    pub fn condemn(&mut self) {
        self.condemned = true;
    }

    /// Whether nothing is in flight.
    pub fn is_idle(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether its rings have come. A driver may start a queue on pages whose contents are still at another
    /// host: they are wanted then, and whoever serves the queue is called again when they have come.
    fn rings_are_here(&mut self) -> Result<bool, QueueError> {
        let absent = self.memory.absent();
        let here = self.ring_pages().map(|(first, last)| {
            let bytes = (last - first + 1) * crate::memory::PAGE_BYTES;
            absent.is_here(first * crate::memory::PAGE_BYTES, bytes)
        });
        let here = here.into_iter().all(|here| here);
        if here && self.resumes {
            let used = self.load(self.setup.used_index())?;
            self.available = used;
            self.next_available = used;
            self.next_used = used;
            self.published = used;
            self.resumes = false;
        }
        Ok(here)
    }

    fn refresh(&mut self) -> Result<(), QueueError> {
        let available = self.load(self.setup.available_index())?;
        // An entry may be used again only once it was returned.
        let taken = self.next_available.wrapping_sub(self.published);
        let waiting = available.wrapping_sub(self.next_available);
        if waiting > self.setup.size - taken {
            return Err(QueueError::IndexJumped {
                from: self.next_available,
                to: available,
            });
        }
        self.available = available;
        Ok(())
    }

    /// With event index, the driver rings when it passes `avail_event`; while that lies behind it
    /// does not ring, so only arming writes anything.
    fn ask_for_doorbells(&mut self, wanted: bool) -> Result<(), QueueError> {
        if self.event_index {
            if wanted {
                self.store(self.setup.available_event(), self.available)?;
            }
        } else if self.armed != Some(wanted) {
            let flags = if wanted { 0 } else { USED_NO_NOTIFY };
            self.store(self.setup.used, flags)?;
            self.armed = Some(wanted);
        }
        Ok(())
    }

    fn load(&self, gpa: u64) -> Result<u16, QueueError> {
        let address = self.memory.contiguous(gpa, 2);
        let address = address.ok_or(QueueError::NotMemory { gpa, bytes: 2 })?;
        Ok(self.memory.memory().load_u16(address))
    }

    fn store(&self, gpa: u64, value: u16) -> Result<(), QueueError> {
        let address = self.memory.contiguous(gpa, 2);
        let address = address.ok_or(QueueError::NotMemory { gpa, bytes: 2 })?;
        self.memory.memory().store_u16(address, value);
        self.memory.mark_dirty(gpa, 2);
        Ok(())
    }
}

/// Whether an index that went from `before` to `after` passed `event` (2.7.10.1).
fn passed(event: u16, before: u16, after: u16) -> bool {
    after.wrapping_sub(event).wrapping_sub(1) < after.wrapping_sub(before)
}
