//! The disk with a host's journal: it takes time, and what was not flushed may be gone with the power.

use crate::executor::Executor;
use crate::random::Random;
use godwit_backends::disk::{Disk, DiskError, Geometry, Pending};
use godwit_backends::fake::{Arena, RamDisk};
use godwit_backends::memory::{Memory, Span};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

const BLOCK_BYTES: u32 = 512;
/// The smallest journal there can be.
const BLOCKS: u64 = 1024;
const ARENA_BYTES: usize = 2 << 20;

/// A disk.
pub struct SimDisk {
    executor: Rc<Executor>,
    random: Random,
    memory: Rc<dyn Memory>,
    disk: RamDisk,
    /// Written and not flushed: block and what was there before.
    unsure: RefCell<Vec<(u64, Vec<u8>)>>,
    /// Writes and flushes so far.
    writes: Cell<u64>,
    /// How many of them still get through.
    writes_left: Cell<Option<u64>>,
    /// How many of the unsure ones were written before the last flush.
    flushed: Cell<usize>,
    /// Broken on purpose: a flush makes sure only of what was written before the flush before it.
    lies: bool,
}

impl SimDisk {
    /// A disk of zeroes, whose first contents are `bytes` if there are any.
    pub fn new(
        executor: &Rc<Executor>,
        random: Random,
        bytes: Option<Vec<u8>>,
        lies: bool,
    ) -> Rc<Self> {
        let memory = Arena::new(ARENA_BYTES);
        let bytes = bytes.unwrap_or_else(|| vec![0; (BLOCKS * u64::from(BLOCK_BYTES)) as usize]);
        Rc::new(Self {
            executor: Rc::clone(executor),
            random,
            disk: RamDisk::with_contents(Rc::clone(&memory) as Rc<dyn Memory>, bytes, BLOCK_BYTES),
            memory,
            unsure: RefCell::default(),
            flushed: Cell::new(0),
            writes: Cell::new(0),
            writes_left: Cell::new(None),
            lies,
        })
    }

    /// What reads and writes of it go through.
    pub fn memory(&self) -> Rc<dyn Memory> {
        Rc::clone(&self.memory)
    }

    /// Whether some bytes are on it, flushed or not.
    pub fn contains(&self, wanted: &[u8]) -> bool {
        let bytes = self.disk.contents();
        bytes.windows(wanted.len()).any(|some| some == wanted)
    }

    /// Writes and flushes so far.
    pub fn writes(&self) -> u64 {
        self.writes.get()
    }

    /// Lets `writes` more through, then fails.
    pub fn fail_after(&self, writes: Option<u64>) {
        self.writes_left.set(writes);
    }

    /// The same disk after a power cut: of what was not flushed, chance keeps some.
    pub fn after_power_cut(&self) -> Rc<Self> {
        let mut bytes = self.disk.contents();
        for (block, old) in self.unsure.take().into_iter().rev() {
            if self.random.one_in_thousand(500) {
                let at = (block * u64::from(BLOCK_BYTES)) as usize;
                bytes[at..at + old.len()].copy_from_slice(&old);
            }
        }
        Self::new(&self.executor, self.random.fork(), Some(bytes), self.lies)
    }

    async fn work(&self) -> Result<(), DiskError> {
        let takes_us = self.random.between(20, 3_000);
        let until_us = self.executor.now_us() + takes_us;
        self.executor.sleep_until(until_us).await;
        self.writes.set(self.writes.get() + 1);
        match self.writes_left.get() {
            Some(0) => return Err(DiskError::Failed("it was told to".into())),
            Some(left) => self.writes_left.set(Some(left - 1)),
            None => {}
        }
        Ok(())
    }

    fn remember(&self, block: u64, blocks: u64) {
        let bytes = self.disk.contents();
        let mut unsure = self.unsure.borrow_mut();
        for block in block..block + blocks {
            let at = (block * u64::from(BLOCK_BYTES)) as usize;
            let old = bytes[at..].iter().take(BLOCK_BYTES as usize);
            unsure.push((block, old.copied().collect()));
        }
    }
}

impl Disk for SimDisk {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }

    fn read<'a>(&'a self, block: u64, into: &'a [Span]) -> Pending<'a> {
        self.disk.read(block, into)
    }

    fn write<'a>(&'a self, block: u64, from: &'a [Span]) -> Pending<'a> {
        Box::pin(async move {
            self.work().await?;
            let bytes: u64 = from.iter().map(|span| u64::from(span.bytes)).sum();
            self.remember(block, bytes / u64::from(BLOCK_BYTES));
            self.disk.write(block, from).await
        })
    }

    fn flush(&self) -> Pending<'_> {
        Box::pin(async move {
            self.work().await?;
            let mut unsure = self.unsure.borrow_mut();
            let sure = match self.lies {
                true => self.flushed.get(),
                false => unsure.len(),
            };
            unsure.drain(..sure);
            self.flushed.set(unsure.len());
            Ok(())
        })
    }

    fn discard(&self, block: u64, blocks: u64) -> Pending<'_> {
        self.write_zeroes(block, blocks, true)
    }

    fn write_zeroes(&self, block: u64, blocks: u64, may_discard: bool) -> Pending<'_> {
        Box::pin(async move {
            self.work().await?;
            self.remember(block, blocks);
            self.disk.write_zeroes(block, blocks, may_discard).await
        })
    }
}
