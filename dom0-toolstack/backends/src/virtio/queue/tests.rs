//! Queues against a driver that keeps the rules, and against ones that do not.

use super::*;
use crate::virtio::fake::{Driver, Part, guest};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::string::ToString;
use std::vec::Vec;

const QUEUE: u64 = 0x1000;
const TABLE: u64 = 0x4000;
const DATA: u64 = 0x6000;
const PAGES: u64 = 32;

fn pair(size: u16, event_index: bool) -> (Driver, Queue) {
    let memory = guest(PAGES);
    let driver = Driver::new(&memory, QUEUE, size, event_index);
    let queue = Queue::start(memory, driver.setup, event_index, true);
    (driver, queue.expect("a queue"))
}

fn bytes_of(chain: &Chain) -> Vec<u8> {
    let mut out = std::vec![0; chain.readable_bytes() as usize];
    assert_eq!(chain.read(0, &mut out), out.len());
    out
}

#[test]
fn what_is_offered_arrives_and_comes_back() {
    let (mut driver, mut queue) = pair(8, false);
    // Over the middle of the guest, where memory is in two pieces.
    let middle = PAGES / 2 * 4096;
    queue.memory.write(middle - 3, b"abcdef").unwrap();
    let head = driver.offer(
        &[(middle - 3, 2), (middle - 1, 4)],
        &[(DATA, 16), (DATA + 64, 16)],
    );
    let chain = queue.take().unwrap().expect("one");
    assert_eq!(bytes_of(&chain), b"abcdef");
    assert_eq!(chain.writable_bytes(), 32);
    assert_eq!(chain.write(14, b"wxyz"), 4);
    assert_eq!(chain.write(30, b"12345"), 2);
    assert!(queue.memory.is_held(DATA / 4096));
    assert!(queue.take().unwrap().is_none());
    queue.complete(chain, 18).unwrap();
    assert!(!queue.memory.is_held(DATA / 4096));
    assert_eq!(driver.returned(), None, "not before it is published");
    assert_eq!(queue.publish(), Ok(true));
    assert_eq!(driver.returned(), Some((head.unwrap(), 18)));
    assert_eq!(queue.publish(), Ok(false), "nothing new");
    let mut out = [0; 4];
    queue.memory.read(DATA + 14, &mut out[..2]).unwrap();
    queue.memory.read(DATA + 64, &mut out[2..]).unwrap();
    assert_eq!(&out, b"wxyz");
}

/// The rings are not held: a guest can give their pages away while requests are worked on. Whoever
/// waits for those waits for no ring.
#[test]
fn nothing_stays_in_flight_when_the_used_ring_goes_away() {
    let (mut driver, mut queue) = pair(8, false);
    let mut take = || {
        driver.offer(&[(DATA, 4)], &[]).expect("room");
        queue.take().unwrap().expect("one")
    };
    let (first, second) = (take(), take());
    let page = queue.setup.used / 4096;
    assert!(queue.memory.remove_page(page).is_some());
    queue.complete(second, 0).unwrap();
    assert!(!queue.is_idle());
    assert!(matches!(
        queue.complete(first, 0),
        Err(QueueError::NotMemory { .. })
    ));
    assert!(queue.is_idle(), "else a reset would never end");
}

#[test]
fn completions_show_in_the_order_of_the_available_ring() {
    let (mut driver, mut queue) = pair(8, false);
    let heads: Vec<u16> = (0..3)
        .map(|n| driver.offer(&[(DATA + n, 1)], &[]).unwrap())
        .collect();
    let [a, b, c] = [(); 3].map(|()| queue.take().unwrap().expect("three"));
    queue.complete(c, 3).unwrap();
    queue.complete(b, 2).unwrap();
    assert_eq!(queue.publish(), Ok(false));
    assert_eq!(driver.returned(), None);
    // A crash now: all three are in flight and are found again.
    let setup = driver.setup;
    let mut again = Queue::resume(queue.memory.clone(), setup, false, true).unwrap();
    let found: Vec<u16> = (0..3)
        .map(|_| again.take().unwrap().unwrap().position())
        .collect();
    assert_eq!(found, [0, 1, 2]);
    assert!(again.take().unwrap().is_none());
    queue.complete(a, 1).unwrap();
    queue.publish().unwrap();
    let back: Vec<_> = std::iter::from_fn(|| driver.returned()).collect();
    assert_eq!(back, [(heads[0], 1), (heads[1], 2), (heads[2], 3)]);
    let mut again = Queue::resume(queue.memory.clone(), setup, false, true).unwrap();
    assert!(again.take().unwrap().is_none(), "nothing is in flight");
}

#[test]
fn put_back_is_taken_again() {
    let (mut driver, mut queue) = pair(4, true);
    driver.offer(&[(DATA, 1)], &[]).unwrap();
    driver.offer(&[(DATA, 2)], &[]).unwrap();
    let (first, second) = (
        queue.take().unwrap().unwrap(),
        queue.take().unwrap().unwrap(),
    );
    queue.put_back(second);
    queue.put_back(first);
    assert!(queue.is_idle());
    assert!(driver.kicks());
    assert_eq!(queue.arm(), Ok(2), "they are still there");
    driver.offer(&[(DATA, 3)], &[]).unwrap();
    assert!(driver.kicks(), "there is one more than was seen");
    assert_eq!(queue.take().unwrap().unwrap().readable_bytes(), 1);
    assert_eq!(queue.take().unwrap().unwrap().readable_bytes(), 2);
}

#[test]
fn written_rings_and_data_are_marked_dirty() {
    let (mut driver, mut queue) = pair(4, false);
    driver
        .offer(&[], &[(DATA, 4096), (DATA + 0x2000, 16)])
        .unwrap();
    queue.memory.track(true);
    let chain = queue.take().unwrap().unwrap();
    queue.memory.harvest();
    chain.mark_dirty(4090, 10);
    assert_eq!(queue.memory.harvest(), [0b101 << (DATA / 4096)]);
    queue.complete(chain, 1).unwrap();
    queue.publish().unwrap();
    assert_eq!(queue.memory.harvest(), [1 << (driver.setup.used / 4096)]);
}

/// A ring that a test breaks: what it does, and what is said about it.
type Breach = (fn(&mut Driver), QueueError);

#[test]
fn breaches_have_names() {
    const D: u64 = QUEUE;
    const HOLE: u64 = PAGES * 4096;
    let breaches: &[Breach] = &[
        (|d| d.push(4), QueueError::NoSuchDescriptor(4)),
        (
            |d| {
                d.describe(D, 0, (DATA, 1), 1, 9);
                d.push(0);
            },
            QueueError::NoSuchDescriptor(9),
        ),
        (
            |d| {
                d.describe(D, 0, (DATA, 1), 1, 0);
                d.push(0);
            },
            QueueError::EndlessChain,
        ),
        (
            |d| {
                d.describe(D, 0, (DATA, 0), 0, 0);
                d.push(0);
            },
            QueueError::EmptyDescriptor,
        ),
        (
            |d| {
                d.describe(D, 0, (HOLE - 1, 2), 0, 0);
                d.push(0);
            },
            QueueError::NotMemory {
                gpa: HOLE - 1,
                bytes: 2,
            },
        ),
        (
            |d| {
                d.describe(D, 0, (u64::MAX, 2), 2, 0);
                d.push(0);
            },
            QueueError::NotMemory {
                gpa: u64::MAX,
                bytes: 2,
            },
        ),
        (
            |d| {
                d.describe(D, 0, (DATA, u32::MAX), 0, 0);
                d.push(0);
            },
            QueueError::LongChain,
        ),
        (
            |d| {
                d.offer(&[], &[(DATA, 1)]);
                d.describe(D, 0, (DATA, 1), 3, 1);
                d.describe(D, 1, (DATA, 1), 0, 0);
            },
            QueueError::ReadableBehindWritable,
        ),
        (
            |d| {
                d.describe(D, 0, (TABLE, 16), 5, 1);
                d.push(0);
            },
            QueueError::IndirectContinues,
        ),
        (
            |d| {
                d.describe(D, 0, (TABLE, 24), 4, 0);
                d.push(0);
            },
            QueueError::IndirectLength(24),
        ),
        (
            |d| {
                d.describe(D, 0, (TABLE, 0), 4, 0);
                d.push(0);
            },
            QueueError::IndirectLength(0),
        ),
        (
            |d| {
                d.describe(D, 0, (TABLE, 257 * 16), 4, 0);
                d.push(0);
            },
            QueueError::IndirectLength(257 * 16),
        ),
        (
            |d| {
                d.describe(D, 0, (TABLE, 16), 4, 0);
                d.describe(TABLE, 0, (TABLE, 16), 4, 0);
                d.push(0);
            },
            QueueError::NestedIndirect,
        ),
        (
            |d| {
                d.describe(D, 0, (TABLE, 16), 4, 0);
                d.describe(TABLE, 0, (DATA, 1), 1, 1);
                d.push(0);
            },
            QueueError::NoSuchDescriptor(1),
        ),
        (
            |d| d.store(d.setup.available_index(), 5),
            QueueError::IndexJumped { from: 0, to: 5 },
        ),
    ];
    for (breach, expected) in breaches {
        let (mut driver, mut queue) = pair(4, false);
        breach(&mut driver);
        let found = queue.take().expect_err("it broke the rules");
        assert_eq!(found, *expected);
        assert!(!std::format!("{found}").is_empty());
    }
}

#[test]
fn entries_in_flight_are_not_offered_again() {
    let (mut driver, mut queue) = pair(2, false);
    driver.offer(&[(DATA, 1)], &[]).unwrap();
    let chain = queue.take().unwrap().unwrap();
    driver.push(0);
    driver.push(0);
    let refused = QueueError::IndexJumped { from: 1, to: 3 };
    assert_eq!(queue.take().unwrap_err(), refused);
    queue.condemn();
    queue.complete(chain, 0).unwrap();
    assert_eq!(queue.publish(), Ok(false));
    assert!(queue.is_idle());
    assert_eq!(driver.returned(), None, "a condemned ring is left alone");
}

#[test]
fn indirect_tables_need_the_feature() {
    let (mut driver, queue) = pair(4, false);
    let mut queue = Queue::start(queue.memory.clone(), driver.setup, false, false).unwrap();
    driver.offer_indirect(TABLE, &[(DATA, 1)], &[]).unwrap();
    assert_eq!(queue.take().unwrap_err(), QueueError::IndirectNotNegotiated);
}

#[test]
fn queues_are_where_they_can_be() {
    let memory = guest(PAGES);
    let good = Setup {
        size: 256,
        descriptors: 0x1000,
        available: 0x2000,
        used: 0x3000,
    };
    assert_eq!(good.check(&memory), Ok(()));
    let refused = |change: fn(&mut Setup)| {
        let mut setup = good;
        change(&mut setup);
        setup.check(&memory).expect_err("it cannot be")
    };
    assert_eq!(refused(|s| s.size = 0), QueueError::Size(0));
    assert_eq!(refused(|s| s.size = 48), QueueError::Size(48));
    assert_eq!(refused(|s| s.size = 512), QueueError::Size(512));
    assert_eq!(refused(|s| s.descriptors = 8), QueueError::Misaligned(8));
    assert_eq!(refused(|s| s.available = 1), QueueError::Misaligned(1));
    assert_eq!(refused(|s| s.used = 2), QueueError::Misaligned(2));
    let end = PAGES * 4096;
    for gpa in [end - 16, end, u64::MAX - 15] {
        let missing = QueueError::NotMemory { gpa, bytes: 4096 };
        let mut setup = good;
        setup.descriptors = gpa;
        assert_eq!(setup.check(&memory), Err(missing));
    }
}

/// One step of a guest and its device.
#[derive(Clone, Debug)]
enum Step {
    Offer {
        readable: u8,
        writable: u8,
        indirect: bool,
    },
    Take,
    /// Completes the n-th of those taken.
    Complete(u8),
    Publish,
    Reap,
    Arm,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u8..4, 0u8..4, any::<bool>())
            .prop_map(|(readable, writable, indirect)| Step::Offer { readable, writable, indirect }),
        4 => Just(Step::Take),
        4 => any::<u8>().prop_map(Step::Complete),
        2 => Just(Step::Publish),
        2 => Just(Step::Reap),
        1 => Just(Step::Arm),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 0..200)
}

/// What the driver must see, worked out on lists.
#[derive(Default)]
struct Oracle {
    /// Offered and not returned, oldest first: head, bytes each way.
    waiting: VecDeque<(u16, u64, u64)>,
    /// How many of them are taken.
    taken: usize,
}

proptest! {
    /// Whatever the order of work, each chain arrives once (again after a crash) and as it was
    /// offered, comes back once and in order; a sleeping driver or device is always woken.
    #[test]
    fn queues_are_what_lists_say(steps in steps(), event_index: bool, size in 0u32..4) {
        let (mut driver, mut queue) = pair(2 << size, event_index);
        let mut oracle = Oracle::default();
        let mut working: Vec<Chain> = Vec::new();
        let (mut armed, mut interrupted, mut served) = (false, false, 0u32);
        for step in steps {
            match step {
                Step::Offer { readable, writable, indirect } => {
                    let parts = |count: u8| (0..count)
                        .map(|n| (DATA + 32 * u64::from(n), 1 + u32::from(n)))
                        .collect::<Vec<Part>>();
                    let (readable, writable) = (parts(readable), parts(writable));
                    if readable.len() + writable.len() == 0 {
                        continue;
                    }
                    let slot = driver.load(driver.setup.available_index()) % driver.setup.size;
                    let table = TABLE + 128 * u64::from(slot);
                    let head = if indirect {
                        driver.offer_indirect(table, &readable, &writable)
                    } else {
                        driver.offer(&readable, &writable)
                    };
                    let Some(head) = head else { continue };
                    let sum = |parts: &[Part]| parts.iter().map(|part| u64::from(part.1)).sum();
                    oracle.waiting.push_back((head, sum(&readable), sum(&writable)));
                    let kicks = driver.kicks();
                    prop_assert!(!armed || kicks, "a device that waits is woken");
                    armed = false;
                }
                Step::Take => {
                    let chain = queue.take().expect("a good driver");
                    let expected = oracle.waiting.get(oracle.taken);
                    prop_assert_eq!(chain.is_some(), expected.is_some());
                    let (Some(chain), Some((_, readable, writable))) = (chain, expected) else {
                        continue;
                    };
                    prop_assert_eq!(chain.readable_bytes(), *readable);
                    prop_assert_eq!(chain.writable_bytes(), *writable);
                    oracle.taken += 1;
                    working.push(chain);
                }
                Step::Complete(n) => {
                    if working.is_empty() {
                        continue;
                    }
                    let chain = working.swap_remove(usize::from(n) % working.len());
                    let length = chain.position() as u32;
                    queue.complete(chain, length).expect("a good driver");
                }
                Step::Publish => {
                    interrupted |= queue.publish().expect("a good driver");
                }
                Step::Reap => {
                    while let Some((head, length)) = driver.returned() {
                        let (expected, ..) = oracle.waiting.pop_front().expect("was offered");
                        oracle.taken -= 1;
                        prop_assert_eq!(head, expected);
                        prop_assert_eq!(length, served & 0xffff);
                        served += 1;
                        prop_assert!(interrupted, "a driver that waits is woken");
                    }
                    interrupted = false;
                }
                Step::Arm => {
                    let more = queue.arm().expect("a good driver");
                    prop_assert_eq!(usize::from(more), oracle.waiting.len() - oracle.taken);
armed = more == 0;
                }
                Step::Crash => {
                    working.clear();
                    let setup = driver.setup;
                    queue = Queue::resume(queue.memory.clone(), setup, event_index, true)
                        .expect("a good driver");
                    let used = driver.load(setup.used_index());
                    oracle.taken = used.wrapping_sub(served as u16).into();
                    armed = false;
                    // Whoever resumes it interrupts once.
                    interrupted = true;
                }
            }
        }
    }

    /// Rings of anything, changing while they are read: never a panic, never without an end.
    #[test]
    fn malicious_rings_are_survived(
        noise in proptest::collection::vec((0u64..3, 0u64..0x110, any::<u16>()), 1..80),
        heads in proptest::collection::vec(0u16..20, 1..40),
        event_index: bool,
    ) {
        let (mut driver, mut queue) = pair(16, event_index);
        for index in 0..16 {
            let flags = [0, 1, 2, 3, 4, 1][index as usize % 6];
            driver.describe(QUEUE, index, (DATA + 16 * u64::from(index), 32), flags, index + 1);
        }
        let mut noise = noise.iter().cycle();
        for head in heads {
            driver.push(head);
            let (page, at, value) = noise.next().expect("endless");
            driver.store(QUEUE + page * 4096 + (at & !1), *value);
            match queue.take() {
                Ok(Some(chain)) => {
                    let mut out = [0; 64];
                    let read = chain.read(0, &mut out);
                    chain.write(0, &out[..read]);
                    chain.mark_dirty(0, chain.writable_bytes());
                    queue.complete(chain, read as u32).unwrap();
                }
                Ok(None) => {}
                Err(error) => {
                    prop_assert!(!error.to_string().is_empty());
                    queue.condemn();
                    return Ok(());
                }
            }
            let _ = queue.publish().expect("rings that were checked");
            let _ = queue.arm();
        }
    }
}
