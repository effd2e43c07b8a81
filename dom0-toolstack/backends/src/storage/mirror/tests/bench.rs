//! A guest, disks that take their time and fail on demand, and an executor whose order a seed decides.

use crate::disk::{Disk, DiskError, Geometry, Pending};
use crate::fake::Arena;
use crate::memory::{Buffer, Memory, Span};
use crate::storage::mirror::{Pace, SwitchDisk};
use crate::storage::nbd::Timer;
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

pub(super) const BLOCK: u32 = 512;
/// A few regions, the last one not whole.
pub(super) const BLOCKS: u64 = 128 * 9 + 40;

pub(super) const ALWAYS: Pace<'static> = Pace {
    bandwidth_bytes: None,
    go_on: &|| Ok(()),
};

/// Chance, from a seed.
#[derive(Clone)]
pub(super) struct Dice(Rc<Cell<u64>>);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice(Rc::new(Cell::new(
            seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        )))
    }

    pub(super) fn roll(&self, sides: u64) -> u64 {
        let mut state = self.0.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.0.set(state);
        (state >> 16) % sides
    }
}

/// A clock that goes on by a millisecond whenever somebody looks whether time is up.
#[derive(Clone, Default)]
pub(super) struct Clock(pub(super) Rc<Cell<u64>>);

impl Timer for Clock {
    fn now_ms(&self) -> u64 {
        self.0.get()
    }

    fn sleep(&self, ms: u64) -> Pin<Box<dyn Future<Output = ()>>> {
        let (clock, until) = (self.clone(), self.0.get() + ms);
        Box::pin(poll_fn(move |_| {
            clock.0.set(clock.0.get() + 1);
            match clock.0.get() >= until {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        }))
    }
}

/// What a disk does at one of its operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// An error.
    Fail,
    /// No answer.
    Hang,
    /// A write that says it was done and was not.
    Lose,
}

/// A disk whose operations take some turns before and after they are done.
pub(super) struct Slow {
    pub(super) disk: Rc<dyn Disk>,
    dice: Dice,
    /// Operations so far.
    pub(super) calls: Cell<u64>,
    /// What happens at which operation.
    pub(super) fault: Cell<Option<(u64, Fault)>>,
}

impl Slow {
    pub(super) fn new(disk: Rc<dyn Disk>, dice: &Dice) -> Rc<Slow> {
        Rc::new(Slow {
            disk,
            dice: dice.clone(),
            calls: Cell::new(0),
            fault: Cell::new(None),
        })
    }

    async fn around(&self, is_write: bool, operation: Pending<'_>) -> Result<(), DiskError> {
        let call = self.calls.replace(self.calls.get() + 1);
        let fault = self.fault.get().filter(|(at, _)| *at == call);
        turns(self.dice.roll(4)).await;
        match fault {
            Some((_, Fault::Fail)) => Err(DiskError::Failed("as it was told".into())),
            Some((_, Fault::Hang)) => core::future::pending().await,
            Some((_, Fault::Lose)) if is_write => Ok(()),
            Some((_, Fault::Lose)) | None => {
                let done = operation.await;
                turns(self.dice.roll(4)).await;
                done
            }
        }
    }
}

impl Disk for Slow {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }
    fn read<'a>(&'a self, block: u64, into: &'a [Span]) -> Pending<'a> {
        Box::pin(self.around(false, self.disk.read(block, into)))
    }
    fn write<'a>(&'a self, block: u64, from: &'a [Span]) -> Pending<'a> {
        Box::pin(self.around(true, self.disk.write(block, from)))
    }
    fn flush(&self) -> Pending<'_> {
        Box::pin(self.around(false, self.disk.flush()))
    }
    fn discard(&self, block: u64, blocks: u64) -> Pending<'_> {
        Box::pin(self.around(true, self.disk.discard(block, blocks)))
    }
    fn write_zeroes(&self, block: u64, blocks: u64, may_discard: bool) -> Pending<'_> {
        let zeroing = self.disk.write_zeroes(block, blocks, may_discard);
        Box::pin(self.around(true, zeroing))
    }
}

pub(super) async fn turns(count: u64) {
    let mut left = count;
    poll_fn(|_| match left {
        0 => Poll::Ready(()),
        _ => {
            left -= 1;
            Poll::Pending
        }
    })
    .await;
}

pub(super) type Task<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Polls tasks in an order that chance decides, until all are done or `polls` are over. Whether all are.
pub(super) fn run(tasks: &mut Vec<Task<'_>>, dice: &Dice, polls: u64) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..polls {
        if tasks.is_empty() {
            return true;
        }
        let at = dice.roll(tasks.len() as u64) as usize;
        if tasks[at].as_mut().poll(&mut context).is_ready() {
            drop(tasks.swap_remove(at));
        }
    }
    tasks.is_empty()
}

/// What a guest knows of its disk: the bytes, and of each block what could be there after a power cut.
pub(super) struct Oracle {
    pub(super) bytes: Vec<u8>,
    pub(super) possible: Vec<Vec<u8>>,
}

impl Oracle {
    pub(super) fn of(contents: &[u8]) -> Rc<RefCell<Oracle>> {
        let blocks = contents.chunks(BLOCK as usize);
        Rc::new(RefCell::new(Oracle {
            bytes: contents.into(),
            possible: blocks.map(|block| vec![block[0]]).collect(),
        }))
    }

    /// A block gets other contents, sooner or later from now on.
    fn wrote(&mut self, block: u64, value: u8) {
        let at = block as usize;
        self.bytes[at * BLOCK as usize..][..BLOCK as usize].fill(value);
        self.possible[at].push(value);
    }

    /// What was flushed is all there can be.
    fn flushed(&mut self) {
        for (at, possible) in self.possible.iter_mut().enumerate() {
            *possible = vec![self.bytes[at * BLOCK as usize]];
        }
    }
}

/// A disk's first contents: some blocks of zeroes, others of one byte each.
pub(super) fn contents(dice: &Dice) -> Vec<u8> {
    let mut bytes = vec![0; (BLOCKS * u64::from(BLOCK)) as usize];
    for region in bytes.chunks_mut(64 << 10) {
        if dice.roll(3) > 0 {
            for block in region.chunks_mut(BLOCK as usize) {
                block.fill(dice.roll(256) as u8);
            }
        }
    }
    bytes
}

/// Does `count` random requests, on blocks of which every third, from `lane` on, is its own. Its
/// flushes say what lasts only if there is no other guest.
pub(super) async fn guest(
    disk: Rc<SwitchDisk>,
    memory: Rc<dyn Memory>,
    oracle: Rc<RefCell<Oracle>>,
    dice: Dice,
    (lane, lanes): (u64, u64),
    count: u64,
) {
    const RUN: u64 = 10;
    let buffer = Buffer::new(&memory, (RUN * u64::from(BLOCK)) as usize).expect("memory");
    for _ in 0..count {
        let runs = BLOCKS / RUN / lanes;
        let block = (dice.roll(runs) * lanes + lane) * RUN + dice.roll(RUN);
        let blocks = 1 + dice.roll(RUN - block % RUN);
        let mut span = buffer.span();
        span.bytes = (blocks * u64::from(BLOCK)) as u32;
        let value = 1 + dice.roll(255) as u8;
        let note = |value| {
            let mut oracle = oracle.borrow_mut();
            (block..block + blocks).for_each(|block| oracle.wrote(block, value));
        };
        let done = match dice.roll(10) {
            0 => {
                let done = disk.flush().await;
                if lanes == 1 && done.is_ok() {
                    oracle.borrow_mut().flushed();
                }
                done
            }
            1 => {
                note(0);
                disk.discard(block, blocks).await
            }
            2 => {
                note(0);
                disk.write_zeroes(block, blocks, true).await
            }
            3 => {
                let read = disk.read(block, &[span]).await;
                let mut found = vec![0; span.bytes as usize];
                buffer.read(0, &mut found);
                let at = (block * u64::from(BLOCK)) as usize;
                assert_eq!(found, oracle.borrow().bytes[at..at + found.len()]);
                read
            }
            _ => {
                note(value);
                buffer.write(0, &vec![value; span.bytes as usize]);
                disk.write(block, &[span]).await
            }
        };
        assert_eq!(done, Ok(()), "the guest notices something");
        turns(dice.roll(12)).await;
    }
}

pub(super) fn arena() -> Rc<dyn Memory> {
    Arena::new(8 << 20)
}
