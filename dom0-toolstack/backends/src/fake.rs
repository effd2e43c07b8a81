//! Memory and a disk for tests: plain vectors, and faults on demand.

use crate::disk::{Disk, DiskError, Geometry, Pending};
use crate::memory::{Memory, Span};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

/// Memory from address [`Arena::BASE`] on; panics on any address outside of it.
pub struct Arena {
    bytes: RefCell<Vec<u8>>,
    next: Cell<u64>,
    /// Allocations not released; at none of them all memory is free again.
    live: Cell<usize>,
}

impl Arena {
    /// Its first address: not 0, so that a forgotten base shows.
    pub const BASE: u64 = 0x10_0000;

    /// `bytes` of zeroes.
    pub fn new(bytes: usize) -> Rc<Arena> {
        Rc::new(Arena {
            bytes: RefCell::new(vec![0; bytes]),
            next: Cell::new(Self::BASE),
            live: Cell::new(0),
        })
    }

    fn range(&self, address: u64, bytes: usize) -> core::ops::Range<usize> {
        let start = usize::try_from(address.checked_sub(Self::BASE).expect("below the arena"));
        let start = start.expect("an address of the arena");
        let end = start.checked_add(bytes).expect("an end in the arena");
        assert!(end <= self.bytes.borrow().len(), "beyond the arena");
        start..end
    }
}

impl Memory for Arena {
    fn read(&self, address: u64, out: &mut [u8]) {
        let range = self.range(address, out.len());
        out.copy_from_slice(&self.bytes.borrow()[range]);
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        let range = self.range(address, bytes.len());
        self.bytes.borrow_mut()[range].copy_from_slice(bytes);
    }

    fn load_u16(&self, address: u64) -> u16 {
        assert!(address.is_multiple_of(2), "an odd address");
        let mut bytes = [0; 2];
        self.read(address, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    fn store_u16(&self, address: u64, value: u16) {
        assert!(address.is_multiple_of(2), "an odd address");
        self.write(address, &value.to_le_bytes());
    }

    fn fence(&self) {}

    fn copy(&self, from: u64, to: u64, bytes: usize) {
        let (from, to) = (self.range(from, bytes), self.range(to, bytes));
        assert!(
            from.end <= to.start || to.end <= from.start,
            "overlapping copy"
        );
        self.bytes.borrow_mut().copy_within(from, to.start);
    }

    fn allocate(&self, bytes: usize) -> Option<u64> {
        let address = self.next.get();
        let end = address.checked_add(bytes.next_multiple_of(4096) as u64)?;
        if end - Self::BASE > self.bytes.borrow().len() as u64 {
            return None;
        }
        self.next.set(end);
        self.live.set(self.live.get() + 1);
        self.range(address, bytes);
        self.write(address, &vec![0; bytes]);
        Some(address)
    }

    fn release(&self, address: u64, bytes: usize) {
        self.range(address, bytes);
        let live = self
            .live
            .get()
            .checked_sub(1)
            .expect("nothing is allocated");
        self.live.set(live);
        if live == 0 {
            self.next.set(Self::BASE);
        }
    }
}

/// A disk in a vector.
pub struct RamDisk {
    memory: Rc<dyn Memory>,
    geometry: Cell<Geometry>,
    bytes: RefCell<Vec<u8>>,
    /// Every write, zeroing, discard (block, blocks) and flush (`None`), in order.
    log: RefCell<Vec<Option<(u64, u64)>>>,
    /// Writes left until each further one fails, `None` for never: a power cut.
    writes_left: Cell<Option<usize>>,
}

impl RamDisk {
    /// A disk of zeroes whose operations copy to and from `memory`.
    pub fn new(memory: Rc<dyn Memory>, blocks: u64, block_bytes: u32) -> Rc<RamDisk> {
        let bytes = vec![0; (blocks * u64::from(block_bytes)) as usize];
        Rc::new(Self::with_contents(memory, bytes, block_bytes))
    }

    /// A disk that holds `bytes`, a whole number of blocks.
    pub fn with_contents(memory: Rc<dyn Memory>, bytes: Vec<u8>, block_bytes: u32) -> RamDisk {
        assert!(bytes.len().is_multiple_of(block_bytes as usize));
        RamDisk {
            memory,
            geometry: Cell::new(Geometry {
                blocks: bytes.len() as u64 / u64::from(block_bytes),
                block_bytes,
                read_only: false,
                needs_flush: true,
                can_discard: true,
                can_write_zeroes: true,
                transfer_bytes_max: 1 << 20,
            }),
            bytes: RefCell::new(bytes),
            log: RefCell::new(Vec::new()),
            writes_left: Cell::new(None),
        }
    }

    /// Changes what it says of itself.
    pub fn set_geometry(&self, geometry: Geometry) {
        self.geometry.set(geometry);
    }

    /// Lets `writes` more writes through; then the power is gone.
    pub fn cut_after(&self, writes: usize) {
        self.writes_left.set(Some(writes));
    }

    /// What is on it now.
    pub fn contents(&self) -> Vec<u8> {
        self.bytes.borrow().clone()
    }

    /// What was done to it.
    pub fn log(&self) -> Vec<Option<(u64, u64)>> {
        self.log.borrow().clone()
    }

    fn range(&self, block: u64, bytes: u64) -> Result<core::ops::Range<usize>, DiskError> {
        let geometry = self.geometry.get();
        let size = u64::from(geometry.block_bytes);
        let start = block.checked_mul(size).ok_or(DiskError::OutOfRange)?;
        let end = start.checked_add(bytes).ok_or(DiskError::OutOfRange)?;
        if end > self.bytes.borrow().len() as u64 || !bytes.is_multiple_of(size) {
            return Err(DiskError::OutOfRange);
        }
        Ok(start as usize..end as usize)
    }

    fn begin_write(&self, block: u64, blocks: u64) -> Result<(), DiskError> {
        if self.geometry.get().read_only {
            return Err(DiskError::ReadOnly);
        }
        match self.writes_left.get() {
            Some(0) => return Err(DiskError::Gone("power cut".into())),
            Some(left) => self.writes_left.set(Some(left - 1)),
            None => {}
        }
        self.log.borrow_mut().push(Some((block, blocks)));
        Ok(())
    }

    fn clear(&self, block: u64, blocks: u64) -> Result<(), DiskError> {
        let bytes = blocks.checked_mul(u64::from(self.geometry.get().block_bytes));
        let range = self.range(block, bytes.ok_or(DiskError::OutOfRange)?)?;
        self.begin_write(block, blocks)?;
        self.bytes.borrow_mut()[range].fill(0);
        Ok(())
    }

    fn read_now(&self, block: u64, into: &[Span]) -> Result<(), DiskError> {
        let total = into.iter().map(|span| u64::from(span.bytes)).sum();
        let mut at = self.range(block, total)?.start;
        for span in into {
            let end = at + span.bytes as usize;
            self.memory
                .write(span.address, &self.bytes.borrow()[at..end]);
            at = end;
        }
        Ok(())
    }

    fn write_now(&self, block: u64, from: &[Span]) -> Result<(), DiskError> {
        let total = from.iter().map(|span| u64::from(span.bytes)).sum();
        let mut at = self.range(block, total)?.start;
        self.begin_write(block, total / u64::from(self.geometry.get().block_bytes))?;
        for span in from {
            let end = at + span.bytes as usize;
            self.memory
                .read(span.address, &mut self.bytes.borrow_mut()[at..end]);
            at = end;
        }
        Ok(())
    }
}

impl Disk for RamDisk {
    fn geometry(&self) -> Geometry {
        self.geometry.get()
    }

    fn read<'a>(&'a self, block: u64, into: &'a [Span]) -> Pending<'a> {
        Box::pin(async move { self.read_now(block, into) })
    }

    fn write<'a>(&'a self, block: u64, from: &'a [Span]) -> Pending<'a> {
        Box::pin(async move { self.write_now(block, from) })
    }

    fn flush(&self) -> Pending<'_> {
        Box::pin(async move {
            if self.writes_left.get() == Some(0) {
                return Err(DiskError::Gone("power cut".into()));
            }
            self.log.borrow_mut().push(None);
            Ok(())
        })
    }

    fn discard(&self, block: u64, blocks: u64) -> Pending<'_> {
        Box::pin(async move { self.clear(block, blocks) })
    }

    fn write_zeroes(&self, block: u64, blocks: u64, _may_discard: bool) -> Pending<'_> {
        Box::pin(async move { self.clear(block, blocks) })
    }
}

/// Polls a future that never has to wait for anything outside of it. Panics when it waits.
pub fn finish<T>(future: impl Future<Output = T>) -> T {
    let mut future = core::pin::pin!(future);
    let mut context = core::task::Context::from_waker(core::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        core::task::Poll::Ready(value) => value,
        core::task::Poll::Pending => panic!("the future waits"),
    }
}
