//! A disk with a volatile write cache, for tests: after a power cut any part of what was not
//! flushed may be lost, block by block and in any order.

use crate::disk::{Disk, DiskError, Geometry, Pending};
use crate::memory::{Memory, Span};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

/// The disk.
pub struct CachedDisk {
    memory: Rc<dyn Memory>,
    block_bytes: usize,
    /// What reads see.
    now: RefCell<Vec<u8>>,
    /// What was flushed.
    durable: RefCell<Vec<u8>>,
    /// Blocks written since, oldest first: byte offset and contents.
    pending: RefCell<Vec<(usize, Vec<u8>)>>,
    writes: Cell<usize>,
    writes_max: Cell<usize>,
}

impl CachedDisk {
    /// A disk that holds `bytes`.
    pub fn new(memory: Rc<dyn Memory>, bytes: Vec<u8>, block_bytes: usize) -> Rc<CachedDisk> {
        assert!(bytes.len().is_multiple_of(block_bytes));
        Rc::new(CachedDisk {
            memory,
            block_bytes,
            now: RefCell::new(bytes.clone()),
            durable: RefCell::new(bytes),
            pending: RefCell::new(Vec::new()),
            writes: Cell::new(0),
            writes_max: Cell::new(usize::MAX),
        })
    }

    /// Lets `blocks` more blocks be written; then the power is gone.
    pub fn cut_after(&self, blocks: usize) {
        self.writes.set(0);
        self.writes_max.set(blocks);
    }

    /// Blocks written since the last `cut_after`.
    pub fn writes(&self) -> usize {
        self.writes.get()
    }

    /// What the medium holds after a power cut in which `kept` of the blocks not flushed, oldest
    /// first, had got there.
    pub fn after_cut(&self, mut kept: impl FnMut(usize) -> bool) -> Vec<u8> {
        let mut bytes = self.durable.borrow().clone();
        for (index, (at, block)) in self.pending.borrow().iter().enumerate() {
            if kept(index) {
                bytes[*at..*at + block.len()].copy_from_slice(block);
            }
        }
        bytes
    }

    /// Calls `check` with the medium after every kind of loss: nothing, everything, and `seeds`
    /// random subsets of what was not flushed.
    pub fn losses(&self, seeds: u64, mut check: impl FnMut(Vec<u8>)) {
        check(self.after_cut(|_| false));
        check(self.after_cut(|_| true));
        for seed in 1..=seeds {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            check(self.after_cut(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state & 0x100 != 0
            }));
        }
    }

    fn put(&self, block: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let at = block as usize * self.block_bytes;
        if at + bytes.len() > self.now.borrow().len() {
            return Err(DiskError::OutOfRange);
        }
        for (index, piece) in bytes.chunks(self.block_bytes).enumerate() {
            self.powered()?;
            self.writes.set(self.writes.get() + 1);
            let at = at + index * self.block_bytes;
            self.now.borrow_mut()[at..at + piece.len()].copy_from_slice(piece);
            self.pending.borrow_mut().push((at, piece.to_vec()));
        }
        Ok(())
    }

    fn powered(&self) -> Result<(), DiskError> {
        if self.writes.get() >= self.writes_max.get() {
            return Err(DiskError::Gone("power cut".into()));
        }
        Ok(())
    }
}

impl Disk for CachedDisk {
    fn geometry(&self) -> Geometry {
        Geometry {
            blocks: (self.now.borrow().len() / self.block_bytes) as u64,
            block_bytes: self.block_bytes as u32,
            read_only: false,
            needs_flush: true,
            can_discard: true,
            can_write_zeroes: true,
            transfer_bytes_max: 1 << 20,
        }
    }

    fn read<'a>(&'a self, block: u64, into: &'a [Span]) -> Pending<'a> {
        Box::pin(async move {
            let mut at = block as usize * self.block_bytes;
            let now = self.now.borrow();
            for span in into {
                let bytes = now.get(at..at + span.bytes as usize);
                let bytes = bytes.ok_or(DiskError::OutOfRange)?;
                self.memory.write(span.address, bytes);
                at += bytes.len();
            }
            Ok(())
        })
    }

    fn write<'a>(&'a self, block: u64, from: &'a [Span]) -> Pending<'a> {
        Box::pin(async move {
            let mut all = Vec::new();
            for span in from {
                let mut bytes = vec![0; span.bytes as usize];
                self.memory.read(span.address, &mut bytes);
                all.append(&mut bytes);
            }
            self.put(block, &all)
        })
    }

    fn flush(&self) -> Pending<'_> {
        Box::pin(async move {
            self.powered()?;
            *self.durable.borrow_mut() = self.now.borrow().clone();
            self.pending.borrow_mut().clear();
            Ok(())
        })
    }

    fn discard(&self, block: u64, blocks: u64) -> Pending<'_> {
        self.write_zeroes(block, blocks, true)
    }

    fn write_zeroes(&self, block: u64, blocks: u64, _may_discard: bool) -> Pending<'_> {
        Box::pin(async move { self.put(block, &vec![0; blocks as usize * self.block_bytes]) })
    }
}
