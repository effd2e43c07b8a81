//! The slots and the disk over an engine whose device does what the test says, when it says so.

use super::*;
use crate::fake::{Arena, finish};
use alloc::string::String;
use core::cell::RefCell;
use core::task::{Context, Poll, Waker};
use std::vec;

/// Ends a command only when told to; a disk of numbered blocks behind it.
struct Fake {
    requests: Requests,
    memory: Rc<dyn Memory>,
    now_us: Cell<u64>,
    /// Slots under way, and what was started in them, in words.
    under_way: RefCell<Vec<usize>>,
    log: RefCell<Vec<String>>,
    /// Commands end at the next `poll`.
    obliging: Cell<bool>,
    stopped: Cell<bool>,
}

impl Engine for Fake {
    fn requests(&self) -> &Requests {
        &self.requests
    }
    fn memory(&self) -> &Rc<dyn Memory> {
        &self.memory
    }
    fn now_us(&self) -> u64 {
        self.now_us.replace(self.now_us.get() + 1000)
    }
    fn reaches(&self, spans: &[Span]) -> bool {
        spans.iter().all(|span| span.address.is_multiple_of(512))
    }
    fn start(&self, slot: usize, command: &Command<'_>) {
        assert!(!self.stopped.get(), "a command for a stopped device");
        if let Operation::Read(spans) = command.operation {
            let mut block = command.block as u8;
            for span in spans {
                for at in (0..span.bytes).step_by(512) {
                    let address = span.address + u64::from(at);
                    self.memory.write(address, &[block; 512]);
                    block += 1;
                }
            }
        }
        let kind = match command.operation {
            Operation::Read(_) => "read",
            Operation::Write(_) => "write",
            Operation::Flush => "flush",
            Operation::Discard => "discard",
            Operation::WriteZeroes { .. } => "zero",
        };
        let text = format!("{kind} {}+{}", command.block, command.blocks);
        self.log.borrow_mut().push(text);
        self.under_way.borrow_mut().push(slot);
    }
    fn poll(&self) -> usize {
        if !self.obliging.get() {
            return 0;
        }
        let ended = core::mem::take(&mut *self.under_way.borrow_mut());
        let told = |slot: &&usize| self.requests.complete(**slot, Ok(()));
        ended.iter().filter(told).count()
    }
    fn stop(&self) {
        self.stopped.set(true);
        self.under_way.borrow_mut().clear();
    }
}

fn bench(slots: usize) -> (Rc<Fake>, Drive) {
    let fake = Rc::new(Fake {
        requests: Requests::new(slots),
        memory: Arena::new(1 << 20),
        now_us: Cell::new(0),
        under_way: RefCell::new(Vec::new()),
        log: RefCell::new(Vec::new()),
        obliging: Cell::new(true),
        stopped: Cell::new(false),
    });
    let geometry = Geometry {
        blocks: 100,
        block_bytes: 512,
        read_only: false,
        needs_flush: true,
        can_discard: true,
        can_write_zeroes: false,
        transfer_bytes_max: 4096,
    };
    let limits = Limits {
        discard_blocks: 30,
        zeroes_blocks: 1,
    };
    let drive = Drive::new(Rc::clone(&fake) as Rc<dyn Engine>, 0, geometry, limits);
    (fake, drive)
}

fn span(address: u64, bytes: u32) -> Span {
    Span {
        address: Arena::BASE + address,
        bytes,
    }
}

/// Polls once.
fn poll(future: &mut Pending<'_>) -> Poll<Result<(), DiskError>> {
    let mut context = Context::from_waker(Waker::noop());
    future.as_mut().poll(&mut context)
}

/// Polls future and device until the future ends.
fn run(fake: &Fake, mut future: Pending<'_>) -> Result<(), DiskError> {
    loop {
        if let Poll::Ready(result) = poll(&mut future) {
            return result;
        }
        assert!(fake.poll() > 0, "nothing to wait for");
    }
}

#[test]
fn unreachable_memory_takes_the_detour() {
    let (fake, drive) = bench(2);
    fake.memory.allocate(0x8000);
    let spans = [span(0x101, 700), span(0x1001, 324)];
    run(&fake, drive.read(7, &spans)).unwrap();
    let mut out = [0; 324];
    fake.memory.read(spans[1].address, &mut out);
    assert!(out.iter().all(|byte| *byte == 8));
    let mut out = [0; 700];
    fake.memory.read(spans[0].address, &mut out);
    assert!(out[..512].iter().all(|byte| *byte == 7) && out[512..].iter().all(|byte| *byte == 8));
}

fn error(future: Pending<'_>) -> DiskError {
    finish(future).unwrap_err()
}

#[test]
fn ranges_are_checked_before_the_device_hears_of_them() {
    let (fake, drive) = bench(2);
    let two = [span(0, 1024)];
    assert_eq!(error(drive.read(99, &two)), DiskError::OutOfRange);
    assert_eq!(error(drive.read(u64::MAX, &two)), DiskError::OutOfRange);
    assert_eq!(
        error(drive.write(0, &[span(0, 700)])),
        DiskError::OutOfRange
    );
    assert_eq!(error(drive.discard(90, 11)), DiskError::OutOfRange);
    assert_eq!(error(drive.discard(1, u64::MAX)), DiskError::OutOfRange);
    assert_eq!(
        error(drive.write_zeroes(100, 1, true)),
        DiskError::OutOfRange
    );
    assert!(matches!(
        error(drive.read(0, &[span(0, 8192)])),
        DiskError::Failed(_)
    ));
    assert!(fake.log.borrow().is_empty());
}

#[test]
fn long_discards_and_zeroes_come_in_pieces() {
    let (fake, drive) = bench(1);
    run(&fake, drive.discard(10, 70)).unwrap();
    run(&fake, drive.write_zeroes(0, 20, false)).unwrap();
    let expected = [
        "discard 10+30",
        "discard 40+30",
        "discard 70+10",
        "write 0+8",
        "write 8+8",
        "write 16+4",
    ];
    assert_eq!(*fake.log.borrow(), expected);
}

#[test]
fn who_finds_no_slot_gets_the_next() {
    let (fake, drive) = bench(1);
    fake.obliging.set(false);
    let spans = [span(0, 512)];
    let mut first = drive.read(1, &spans);
    let mut second = drive.read(2, &spans);
    assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
    assert_eq!(fake.log.borrow().len(), 1);
    fake.obliging.set(true);
    fake.poll();
    assert_eq!(poll(&mut first), Poll::Ready(Ok(())));
    assert!(poll(&mut second).is_pending());
    fake.poll();
    assert_eq!(poll(&mut second), Poll::Ready(Ok(())));
}

#[test]
fn dropping_waits_for_the_device() {
    let (fake, drive) = bench(1);
    let spans = [span(0, 512)];
    let mut dropped = drive.read(1, &spans);
    assert!(poll(&mut dropped).is_pending());
    drop(dropped);
    assert!(fake.under_way.borrow().is_empty() && !fake.stopped.get());
    run(&fake, drive.read(2, &spans)).unwrap();
}

#[test]
fn dropping_stops_a_device_that_never_ends() {
    let (fake, drive) = bench(2);
    fake.obliging.set(false);
    let spans = [span(0, 512)];
    let (mut other, mut dropped) = (drive.read(1, &spans), drive.read(1, &spans));
    assert!(poll(&mut other).is_pending() && poll(&mut dropped).is_pending());
    drop(dropped);
    assert!(fake.stopped.get());
    assert!(matches!(
        poll(&mut other),
        Poll::Ready(Err(DiskError::Failed(_)))
    ));
    drop(other);
    // Nobody gets a slot until the device runs again.
    let mut next = drive.read(1, &spans);
    assert!(poll(&mut next).is_pending());
    assert_eq!(fake.log.borrow().len(), 2);
    assert!(fake.requests.wants_restart());
    fake.stopped.set(false);
    fake.requests.open();
    assert!(poll(&mut next).is_pending());
    assert_eq!(fake.log.borrow().len(), 3);
    fake.obliging.set(true);
}

#[test]
fn overdue_is_seen_and_too_many_resets_end_it() {
    let (fake, drive) = bench(1);
    let spans = [span(0, 512)];
    for round in 0..=RESETS_MAX {
        fake.obliging.set(false);
        let mut late = drive.read(1, &spans);
        assert!(poll(&mut late).is_pending());
        assert!(!fake.requests.is_overdue(fake.now_us()));
        assert!(fake.requests.is_overdue(fake.now_us() + COMMAND_LIMIT_US));
        fake.requests.stop("late");
        assert!(matches!(
            poll(&mut late),
            Poll::Ready(Err(DiskError::Failed(_)))
        ));
        drop(late);
        assert_eq!(fake.requests.wants_restart(), round < RESETS_MAX);
        if round < RESETS_MAX {
            fake.requests.open();
        }
    }
    assert!(matches!(finish(drive.flush()), Err(DiskError::Gone(_))));
}

#[test]
fn answers_for_slots_nobody_has_are_not_believed() {
    let (fake, _drive) = bench(1);
    assert!(!fake.requests.complete(0, Ok(())));
    assert!(!fake.requests.complete(7, Ok(())));
}

#[test]
fn cutting_keeps_every_byte_within_its_bounds() {
    let spans = vec![span(0x0fff, 0x2003), span(0x8000, 4)];
    let pieces = cut(&spans, 0x1800, 0x1000);
    assert_eq!(total_bytes(&pieces), total_bytes(&spans));
    let lengths: Vec<_> = pieces.iter().map(|piece| piece.bytes).collect();
    assert_eq!(lengths, [1, 0x1000, 0x1000, 2, 4]);
    let pieces = cut(&[span(0, 10)], 4, 1 << 16);
    assert_eq!(pieces.len(), 3);
}
