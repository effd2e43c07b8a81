//! Every command, with sizes and memory as guests have them, against a disk in a vector.

use super::*;
use crate::disk::{Geometry, Pending};
use crate::fake::RamDisk;
use crate::memory::{GuestMemory, Span};
use crate::virtio::fake::{Counter, Driver, Part, drive, guest, negotiate, settle};
use crate::virtio::{FEATURE_VERSION_1, RING_FEATURES};
use config::{DISCARD, READ_ONLY, WRITE_ZEROES};
use core::cell::RefCell;
use core::pin::pin;
use core::task::{Poll, Waker};
use proptest::prelude::*;
use std::string::ToString;
use std::vec;

const QUEUE: u64 = 0x1000;
const HEADER: u64 = 0x5000;
const STATUS: u64 = 0x5100;
const DATA: u64 = 0x8000;
const PAGES: u64 = 256;

struct Bench {
    memory: Rc<GuestMemory>,
    disk: Rc<RamDisk>,
    block: Rc<Block>,
    function: Rc<VirtioFunction>,
    driver: Driver,
}

/// A guest with a disk of 64 KiB whose bytes are all different enough, and a driver that wants
/// `features`.
fn bench(block_bytes: u32, features: u64, change: impl FnOnce(&mut Geometry)) -> Bench {
    let memory = guest(PAGES);
    let contents = (0..64u32 << 10).map(|n| (n / 512 + n * 7) as u8).collect();
    let host = memory.memory();
    let disk = Rc::new(RamDisk::with_contents(host.clone(), contents, block_bytes));
    let mut geometry = disk.geometry();
    change(&mut geometry);
    disk.set_geometry(geometry);
    let block = Block::new(disk.clone(), host.clone(), "serial-0123456789abcdef", None);
    let interrupts = Rc::new(Counter::default());
    let function = VirtioFunction::new(memory.clone(), block.clone(), interrupts);
    let chosen = negotiate(&function, features);
    let event_index = chosen & RING_FEATURES & 1 << 29 != 0;
    let driver = Driver::new(&memory, QUEUE, 256, event_index);
    driver.enable(&function, 0, 1);
    drive(&function);
    Bench {
        memory,
        disk,
        block,
        function,
        driver,
    }
}

impl Bench {
    fn put_header(&self, kind: u32, sector: u64) {
        let header = u128::from(kind) | u128::from(sector) << 64;
        self.memory.write(HEADER, &header.to_le_bytes()).unwrap();
        self.memory.write(STATUS, &[0xee]).unwrap();
    }

    /// One request to its end: status and `used.len`.
    fn request(&mut self, kind: u32, sector: u64, from: &[Part], into: &[Part]) -> (u8, u32) {
        self.put_header(kind, sector);
        let mut readable = vec![(HEADER, 16)];
        readable.extend(from);
        let mut writable = into.to_vec();
        writable.push((STATUS, 1));
        self.driver.offer(&readable, &writable).unwrap();
        let mut run = Box::pin(self.function.run());
        settle(run.as_mut());
        let (_, written) = self.driver.returned().expect("it is done");
        let mut status = [0];
        self.memory.read(STATUS, &mut status).unwrap();
        (status[0], written)
    }

    fn ranges(&mut self, kind: u32, ranges: &[(u64, u32, u32)]) -> u8 {
        let mut bytes = vec![];
        for (sector, sectors, flags) in ranges {
            bytes.extend(sector.to_le_bytes());
            bytes.extend(sectors.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
        }
        self.memory.write(DATA, &bytes).unwrap();
        self.request(kind, 0, &[(DATA, bytes.len() as u32)], &[]).0
    }
}

#[test]
fn the_configuration_says_what_the_disk_is() {
    let bench = bench(4096, u64::MAX, |_| {});
    let read = |offset: u64, width| bench.function.read(0, 0x2000 + offset, width);
    assert_eq!(
        (read(0, 8), read(20, 4)),
        (128, 4096),
        "capacity, block size"
    );
    assert_eq!((read(8, 4), read(12, 4)), (512 << 10, 126));
    assert_eq!((read(32, 1), read(34, 2), read(44, 4)), (1, 1, 8));
    bench.function.write(0, 0x2020, 1, 0);
    assert_eq!(read(32, 1), 0, "the cache is off");
    bench.function.write(0, 0x2014, 4, 1);
    assert_eq!(read(20, 4), 4096, "the rest cannot be written");
}

#[test]
fn features_follow_the_disk() {
    let of = |change: fn(&mut Geometry)| bench(512, FEATURE_VERSION_1, change).block.features();
    let all = DISCARD | WRITE_ZEROES | FLUSH | WRITE_BACK;
    assert_eq!(of(|_| {}) & (all | READ_ONLY), all);
    assert_eq!(of(|g| g.can_discard = false) & all, all & !DISCARD);
    assert_eq!(
        of(|g| g.can_write_zeroes = false) & all,
        all & !WRITE_ZEROES
    );
    assert_eq!(of(|g| g.read_only = true) & (all | READ_ONLY), READ_ONLY);
    let bench = bench(512, FEATURE_VERSION_1, |_| {});
    assert!(!bench.block.consistent(WRITE_BACK) && bench.block.consistent(WRITE_BACK | FLUSH));
}

#[test]
fn odd_requests_get_a_status_and_change_nothing() {
    let mut bench = bench(512, u64::MAX, |_| {});
    let before = bench.disk.contents();
    let (io, unsupported) = ((1, 0), (2, 1));
    // Half a sector, beyond the end, overflowing, nothing.
    assert_eq!(bench.request(0, 0, &[], &[(DATA, 256)]), io);
    assert_eq!(bench.request(0, 127, &[], &[(DATA, 1024)]), io);
    assert_eq!(bench.request(0, u64::MAX, &[], &[(DATA, 512)]), io);
    assert_eq!(bench.request(0, 0, &[], &[]), (1, 1));
    assert_eq!(bench.request(1, 128, &[(DATA, 512)], &[]), (1, 1));
    assert_eq!(bench.request(1, 0, &[(DATA, 511)], &[]), (1, 1));
    assert_eq!(bench.request(1, 0, &[], &[]), (1, 1));
    // Get lifetime, secure erase, and one that nobody has defined.
    for kind in [10, 14, 77] {
        assert_eq!(bench.request(kind, 0, &[], &[]), unsupported);
    }
    // A header that is too short, and no room for a status.
    bench.driver.offer(&[(HEADER, 8)], &[(STATUS, 1)]).unwrap();
    bench.driver.offer(&[(HEADER, 16)], &[]).unwrap();
    settle(pin!(bench.function.run()).as_mut());
    assert_eq!(bench.driver.returned().unwrap().1, 1);
    assert_eq!(bench.driver.returned().unwrap().1, 0);
    assert_eq!(bench.disk.contents(), before);
    assert!(bench.function.broken().is_none());
}

#[test]
fn the_id_is_the_serial_cut_to_size() {
    let mut bench = bench(512, u64::MAX, |_| {});
    assert_eq!(bench.request(8, 0, &[], &[(DATA, 20)]), (0, 21));
    let mut id = [0; 20];
    bench.memory.read(DATA, &mut id).unwrap();
    assert_eq!(&id, b"serial-0123456789abc");
    assert_eq!(bench.request(8, 0, &[], &[(DATA, 4)]), (0, 5));
    assert_eq!(bench.request(8, 0, &[], &[(DATA, 64)]), (0, 20));
}

#[test]
fn flushes_are_made_when_asked_for_or_needed() {
    let flushes = |bench: &Bench| bench.disk.log().iter().filter(|e| e.is_none()).count();
    let mut cached = bench(512, u64::MAX, |_| {});
    assert_eq!(cached.request(1, 0, &[(DATA, 512)], &[]).0, 0);
    assert_eq!(flushes(&cached), 0);
    assert_eq!(cached.request(4, 0, &[], &[]), (0, 1));
    assert_eq!(flushes(&cached), 1);
    // The driver switches the cache off.
    cached.function.write(3, 32, 1, 0);
    assert_eq!(cached.request(1, 0, &[(DATA, 512)], &[]).0, 0);
    assert_eq!(flushes(&cached), 2);
    let mut legacy = bench(512, FEATURE_VERSION_1, |_| {});
    assert_eq!(legacy.request(1, 0, &[(DATA, 512)], &[]).0, 0);
    assert_eq!(flushes(&legacy), 1, "a driver that cannot flush");
}

#[test]
fn ranges_are_discarded_and_zeroed() {
    for block_bytes in [512, 4096] {
        let mut bench = bench(block_bytes, u64::MAX, |_| {});
        let mut expected = bench.disk.contents();
        assert_eq!(bench.ranges(13, &[(3, 20, 1), (40, 1, 0), (64, 8, 0)]), 0);
        for sectors in [3..23, 40..41, 64..72] {
            expected[sectors.start * 512..sectors.end * 512].fill(0);
        }
        assert_eq!(bench.disk.contents(), expected);
        assert_eq!(bench.ranges(11, &[(80, 16, 0), (99, 1, 0)]), 0);
        expected[80 * 512..96 * 512].fill(0);
        if block_bytes == 512 {
            expected[99 * 512..100 * 512].fill(0);
        }
        assert_eq!(
            bench.disk.contents(),
            expected,
            "only whole blocks are discarded"
        );
        for (kind, range, status) in [
            (11, (0, 1, 1), 2),
            (13, (0, 1, 2), 2),
            (13, (120, 9, 0), 1),
            (13, (u64::MAX, 1, 0), 1),
            (13, (0, 0, 0), 1),
            (11, (0, DISCARD_SECTORS_MAX + 1, 0), 1),
        ] {
            assert_eq!(bench.ranges(kind, &[(1, 1, 0), range]), status, "{range:?}");
        }
        assert_eq!(bench.ranges(13, &[(0, 1, 0); RANGES_MAX as usize + 1]), 1);
        assert_eq!(bench.request(13, 0, &[(DATA, 8)], &[]).0, 1);
        assert_eq!(
            bench.disk.contents(),
            expected,
            "nothing was done of what is refused"
        );
    }
    let mut bench = bench(512, !DISCARD & !WRITE_ZEROES, |_| {});
    assert_eq!(bench.ranges(11, &[(0, 1, 0)]), 2);
    assert_eq!(bench.ranges(13, &[(0, 1, 0)]), 2);
}

#[test]
fn a_read_only_disk_is_not_written() {
    let mut bench = bench(512, u64::MAX, |g| g.read_only = true);
    assert_eq!(bench.request(1, 0, &[(DATA, 512)], &[]).0, 1);
    assert_eq!(bench.request(0, 0, &[], &[(DATA, 512)]), (0, 513));
    assert!(bench.disk.log().is_empty());
}

/// Says so many times that the disk is back, then that it is not.
struct Patience(Cell<usize>, RefCell<Vec<std::string::String>>);

impl GonePolicy for Patience {
    fn decide<'a>(&'a self, why: &'a str) -> Pin<Box<dyn Future<Output = WhenGone> + 'a>> {
        self.1.borrow_mut().push(why.to_string());
        let left = self.0.get();
        self.0.set(left.saturating_sub(1));
        let answer = if left > 0 {
            WhenGone::Retry
        } else {
            WhenGone::Fail
        };
        Box::pin(core::future::ready(answer))
    }
}

#[test]
fn a_disk_that_is_gone_is_waited_for_as_long_as_the_policy_says() {
    let bench = bench(512, u64::MAX, |_| {});
    let policy = Rc::new(Patience(Cell::new(2), RefCell::default()));
    let host = bench.memory.memory().clone();
    let block = Block::new(bench.disk.clone(), host, "", Some(policy.clone()));
    bench.disk.cut_after(0);
    let spans = [Span {
        address: bench.memory.contiguous(DATA, 512).unwrap(),
        bytes: 512,
    }];
    let failed = settle(pin!(block.write(0, &spans))).unwrap();
    assert_eq!(failed, Err(DiskError::Gone("power cut".to_string())));
    assert_eq!(policy.1.take(), ["power cut"; 3]);
}

/// A write that waits: whether it may go on, and who is told.
type Ticket = Rc<(Cell<bool>, Cell<Option<Waker>>)>;

/// A disk whose writes wait until they are let through, newest first.
struct Slow {
    disk: Rc<RamDisk>,
    waiting: RefCell<Vec<Ticket>>,
}

impl Slow {
    fn let_newest_through(&self) {
        let newest = self.waiting.borrow_mut().pop().expect("one waits");
        newest.0.set(true);
        newest.1.take().expect("it was polled").wake();
    }
}

impl Disk for Slow {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }
    fn read<'a>(&'a self, block: u64, into: &'a [Span]) -> Pending<'a> {
        self.disk.read(block, into)
    }
    fn write<'a>(&'a self, block: u64, from: &'a [Span]) -> Pending<'a> {
        let ticket = Rc::new((Cell::new(false), Cell::new(None)));
        self.waiting.borrow_mut().push(ticket.clone());
        Box::pin(async move {
            core::future::poll_fn(|context| {
                if ticket.0.get() {
                    return Poll::Ready(());
                }
                ticket.1.set(Some(context.waker().clone()));
                Poll::Pending
            })
            .await;
            self.disk.write(block, from).await
        })
    }
    fn flush(&self) -> Pending<'_> {
        self.disk.flush()
    }
    fn discard(&self, block: u64, blocks: u64) -> Pending<'_> {
        self.disk.discard(block, blocks)
    }
    fn write_zeroes(&self, block: u64, blocks: u64, may_discard: bool) -> Pending<'_> {
        self.disk.write_zeroes(block, blocks, may_discard)
    }
}

/// A guest over a slow disk, with `count` writes of one sector each offered.
fn slow(block_bytes: u32, count: u64) -> (Bench, Rc<Slow>) {
    let mut bench = bench(block_bytes, u64::MAX, |_| {});
    let slow = Rc::new(Slow {
        disk: bench.disk.clone(),
        waiting: RefCell::default(),
    });
    let host = bench.memory.memory().clone();
    bench.block = Block::new(slow.clone(), host, "", None);
    let interrupts = Rc::new(Counter::default());
    bench.function = VirtioFunction::new(bench.memory.clone(), bench.block.clone(), interrupts);
    negotiate(&bench.function, FEATURE_VERSION_1 | FLUSH);
    bench.driver = Driver::new(&bench.memory, QUEUE, 256, false);
    bench.driver.enable(&bench.function, 0, 1);
    drive(&bench.function);
    for n in 0..count {
        let header = 1u128 | u128::from(n) << 64;
        let gpa = HEADER + 16 * n;
        bench.memory.write(gpa, &header.to_le_bytes()).unwrap();
        bench
            .memory
            .write(DATA + 512 * n, &[0x80 | n as u8; 512])
            .unwrap();
        let parts = [(gpa, 16), (DATA + 512 * n, 512)];
        bench.driver.offer(&parts, &[(STATUS + n, 1)]).unwrap();
    }
    (bench, slow)
}

#[test]
fn requests_are_worked_on_at_once_and_return_in_order() {
    let (mut bench, slow) = slow(512, 3);
    let function = bench.function.clone();
    let mut run = pin!(function.run());
    settle(run.as_mut());
    assert_eq!(slow.waiting.borrow().len(), 3);
    slow.let_newest_through();
    slow.let_newest_through();
    settle(run.as_mut());
    assert_eq!(bench.driver.returned(), None);
    slow.let_newest_through();
    settle(run.as_mut());
    let back = core::iter::from_fn(|| bench.driver.returned()).count();
    assert_eq!(back, 3);
}

#[test]
fn parts_of_one_block_written_at_once_all_arrive() {
    let (mut bench, slow) = slow(4096, 8);
    let mut expected = bench.disk.contents();
    for n in 0..8 {
        expected[n * 512..][..512].fill(0x80 | n as u8);
    }
    let function = bench.function.clone();
    let mut run = pin!(function.run());
    for _ in 0..8 {
        settle(run.as_mut());
        slow.let_newest_through();
    }
    settle(run.as_mut());
    assert_eq!(core::iter::from_fn(|| bench.driver.returned()).count(), 8);
    assert_eq!(bench.disk.contents(), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Reads and writes at any sector, of memory in any pieces, are those of a vector.
    #[test]
    fn transfers_are_copies(
        blocks_of_4096: bool,
        transfer_sectors in 8u32..40,
        requests in proptest::collection::vec(
            (any::<bool>(), 0u64..140, 1u32..24, proptest::collection::vec(1u32..3000, 0..6), 0u64..9),
            1..12,
        ),
    ) {
        let block_bytes = if blocks_of_4096 { 4096 } else { 512 };
        let mut bench = bench(block_bytes, u64::MAX, |g| {
            g.transfer_bytes_max = transfer_sectors * 512;
        });
        let mut expected = bench.disk.contents();
        for (round, (write, sector, sectors, cuts, skew)) in requests.into_iter().enumerate() {
            // Sometimes aligned, sometimes not; over the middle of the guest's memory.
            let skew = if skew < 4 { 0 } else { skew };
            let start = PAGES / 2 * 4096 - 4096 + skew;
            let bytes = sectors * 512;
            let (mut parts, mut at) = (vec![], 0);
            for cut in cuts {
                let cut = if skew == 0 { cut.next_multiple_of(512) } else { cut };
                let cut = cut.min(bytes - at);
                if cut > 0 {
                    parts.push((start + u64::from(at), cut));
                    at += cut;
                }
            }
            if at < bytes {
                parts.push((start + u64::from(at), bytes - at));
            }
            let range = sector as usize * 512..(sector as usize + sectors as usize) * 512;
            let inside = range.end <= expected.len();
            let data: Vec<u8> = (0..bytes).map(|n| (n as usize * 3 + round) as u8).collect();
            bench.memory.write(start, &data).unwrap();
            let (status, _) = if write {
                bench.request(1, sector, &parts, &[])
            } else {
                bench.request(0, sector, &[], &parts)
            };
            prop_assert_eq!(status, u8::from(!inside));
            let mut found = vec![0; bytes as usize];
            bench.memory.read(start, &mut found).unwrap();
            if write && inside {
                expected[range].copy_from_slice(&data);
            } else if inside {
                prop_assert_eq!(&found, &expected[range]);
            }
        }
        prop_assert_eq!(bench.disk.contents(), expected);
    }
}
