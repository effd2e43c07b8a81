//! The driver's side, for tests and fuzzing: a guest with memory, and drivers of its queues.

use super::queue::Setup;
use super::transport::{Interrupts, VirtioFunction};
use crate::fake::Arena;
use crate::memory::{GuestMemory, Memory, PAGE_BYTES, Run};
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

/// Guest memory of `pages` from page 0 on, in an arena with as much again for buffers. Pages lie
/// in two runs in the wrong order, so that a range over the middle is in two pieces.
pub fn guest(pages: u64) -> Rc<GuestMemory> {
    let bytes = pages * PAGE_BYTES;
    let arena = Arena::new(2 * bytes as usize + 0x40_0000);
    let base = arena.allocate(bytes as usize).expect("room for the guest");
    let first = pages / 2;
    let run = |page, pages, address| Run {
        page,
        pages,
        address,
    };
    let second = pages - first;
    let runs = vec![
        run(0, first, base + second * PAGE_BYTES),
        run(first, second, base),
    ];
    Rc::new(GuestMemory::new(arena, runs))
}

/// Counts interrupts.
#[derive(Default)]
pub struct Counter {
    /// Vectors raised, in order.
    pub raised: RefCell<Vec<u16>>,
    /// How often INTx was lowered.
    pub lowered: Cell<usize>,
}

impl Interrupts for Counter {
    fn raise(&self, vector: u16) {
        self.raised.borrow_mut().push(vector);
    }

    fn lower(&self) {
        self.lowered.set(self.lowered.get() + 1);
    }
}

/// A part of a chain: guest-physical address and length in bytes.
pub type Part = (u64, u32);

/// A driver of one queue, as a guest has it.
pub struct Driver {
    memory: Rc<GuestMemory>,
    /// Where the queue is.
    pub setup: Setup,
    /// Whether event indices are used.
    pub event_index: bool,
    free: Vec<u16>,
    /// Descriptors of each chain by head.
    chains: Vec<Vec<u16>>,
    available: u16,
    used: u16,
    kicked: u16,
}

impl Driver {
    /// A queue of `size` entries in the three pages from `gpa` on.
    pub fn new(memory: &Rc<GuestMemory>, gpa: u64, size: u16, event_index: bool) -> Driver {
        let setup = Setup {
            size,
            descriptors: gpa,
            available: gpa + PAGE_BYTES,
            used: gpa + 2 * PAGE_BYTES,
        };
        let zeroes = vec![0; 3 * PAGE_BYTES as usize];
        memory.write(gpa, &zeroes).expect("memory for the queue");
        Driver {
            memory: Rc::clone(memory),
            setup,
            event_index,
            free: (0..size).rev().collect(),
            chains: vec![Vec::new(); usize::from(size)],
            available: 0,
            used: 0,
            kicked: 0,
        }
    }

    /// Reads a u16 of the guest.
    pub fn load(&self, gpa: u64) -> u16 {
        let mut bytes = [0; 2];
        self.memory.read(gpa, &mut bytes).expect("guest memory");
        u16::from_le_bytes(bytes)
    }

    /// Writes a u16 of the guest.
    pub fn store(&self, gpa: u64, value: u16) {
        let written = self.memory.write(gpa, &value.to_le_bytes());
        written.expect("guest memory");
    }

    /// Writes a descriptor to entry `index` of the table at `table`.
    pub fn describe(&self, table: u64, index: u16, part: Part, flags: u16, next: u16) {
        let raw = u128::from(part.0)
            | u128::from(part.1) << 64
            | u128::from(flags) << 96
            | u128::from(next) << 112;
        let gpa = table + 16 * u64::from(index);
        let written = self.memory.write(gpa, &raw.to_le_bytes());
        written.expect("guest memory");
    }

    /// Makes a chain available. `None`: too few free descriptors. Returns its head.
    pub fn offer(&mut self, readable: &[Part], writable: &[Part]) -> Option<u16> {
        let count = readable.len() + writable.len();
        if count > self.free.len() || count == 0 {
            return None;
        }
        let indices = self.free.split_off(self.free.len() - count);
        self.write_chain(self.setup.descriptors, &indices, readable, writable);
        let head = indices[0];
        self.chains[usize::from(head)] = indices;
        self.push(head);
        Some(head)
    }

    /// As [`offer`](Driver::offer), by one descriptor and a table at `table`.
    pub fn offer_indirect(
        &mut self,
        table: u64,
        readable: &[Part],
        writable: &[Part],
    ) -> Option<u16> {
        let head = self.free.pop()?;
        let count = (readable.len() + writable.len()) as u16;
        let indices: Vec<u16> = (0..count).collect();
        self.write_chain(table, &indices, readable, writable);
        self.describe(
            self.setup.descriptors,
            head,
            (table, 16 * u32::from(count)),
            4,
            0,
        );
        self.chains[usize::from(head)] = vec![head];
        self.push(head);
        Some(head)
    }

    fn write_chain(&self, table: u64, indices: &[u16], readable: &[Part], writable: &[Part]) {
        let parts = readable.iter().map(|part| (part, 0));
        let parts = parts.chain(writable.iter().map(|part| (part, 2)));
        for (place, (part, flags)) in parts.enumerate() {
            let next = indices.get(place + 1);
            let more = u16::from(next.is_some());
            let next = next.copied().unwrap_or(0);
            self.describe(table, indices[place], *part, flags | more, next);
        }
    }

    /// Puts any number into the available ring.
    pub fn push(&mut self, head: u16) {
        self.store(self.setup.available_entry(self.available), head);
        self.available = self.available.wrapping_add(1);
        self.store(self.setup.available_index(), self.available);
    }

    /// Whether the device wants a doorbell for what was offered since this was last asked.
    pub fn kicks(&mut self) -> bool {
        let before = core::mem::replace(&mut self.kicked, self.available);
        if before == self.available {
            return false;
        }
        if !self.event_index {
            return self.load(self.setup.used) & 1 == 0;
        }
        let event = self.load(self.setup.available_event());
        self.available.wrapping_sub(event).wrapping_sub(1) < self.available.wrapping_sub(before)
    }

    /// The next chain that came back: head and bytes written.
    pub fn returned(&mut self) -> Option<(u16, u32)> {
        if self.load(self.setup.used_index()) == self.used {
            return None;
        }
        let mut element = [0; 8];
        let gpa = self.setup.used_element(self.used);
        self.memory.read(gpa, &mut element).expect("guest memory");
        let element = u64::from_le_bytes(element);
        self.used = self.used.wrapping_add(1);
        if self.event_index {
            self.store(self.setup.used_event(), self.used);
        }
        let head = u16::try_from(element & 0xffff_ffff).expect("a head");
        let chain = core::mem::take(&mut self.chains[usize::from(head)]);
        assert!(!chain.is_empty(), "a chain came back that was not offered");
        self.free.extend(chain);
        Some((head, (element >> 32) as u32))
    }

    /// Programs the queue's registers as queue `index` and enables it.
    pub fn enable(&self, function: &VirtioFunction, index: u16, vector: u16) {
        let write = |offset, width, value| function.write(0, offset, width, value);
        write(0x16, 2, u64::from(index));
        write(0x18, 2, u64::from(self.setup.size));
        write(0x1a, 2, u64::from(vector));
        for (offset, value) in [
            (0x20, self.setup.descriptors),
            (0x28, self.setup.available),
            (0x30, self.setup.used),
        ] {
            write(offset, 4, value & 0xffff_ffff);
            write(offset + 4, 4, value >> 32);
        }
        write(0x1c, 2, 1);
    }
}

/// Resets a function and agrees on those of `wanted` that it offers. Returns these; FEATURES_OK is
/// asserted.
pub fn negotiate(function: &VirtioFunction, wanted: u64) -> u64 {
    let write = |offset, width, value| function.write(0, offset, width, value);
    write(0x14, 1, 0);
    write(0x14, 1, 1);
    write(0x14, 1, 3);
    let mut offered = 0;
    for half in 0..2u64 {
        write(0, 4, half);
        offered |= function.read(0, 4, 4) << (32 * half);
    }
    let chosen = offered & wanted;
    for half in 0..2u64 {
        write(8, 4, half);
        write(0xc, 4, chosen >> (32 * half) & 0xffff_ffff);
    }
    write(0x14, 1, 0xb);
    assert_eq!(function.read(0, 0x14, 1), 0xb, "features are accepted");
    chosen
}

/// The driver is ready.
pub fn drive(function: &VirtioFunction) {
    function.write(0, 0x14, 1, 0xf);
}

/// Polls a future until it does not wake itself any more. Returns whether it ended.
pub fn settle<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Option<F::Output> {
    struct Flag(core::sync::atomic::AtomicBool);
    impl alloc::task::Wake for Flag {
        fn wake(self: alloc::sync::Arc<Self>) {
            self.0.store(true, core::sync::atomic::Ordering::Relaxed);
        }
    }
    let flag = alloc::sync::Arc::new(Flag(true.into()));
    let waker = Waker::from(alloc::sync::Arc::clone(&flag));
    let mut context = Context::from_waker(&waker);
    // Woken once from outside, whatever waker was registered before.
    flag.0.store(true, core::sync::atomic::Ordering::Relaxed);
    while flag.0.swap(false, core::sync::atomic::Ordering::Relaxed) {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
    }
    None
}
