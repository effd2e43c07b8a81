//! Registers, negotiation, reset, restore: over a device that echoes.

use super::*;
use crate::memory::GuestMemory;
use crate::virtio::fake::{Counter, Driver, drive, guest, negotiate, settle};
use crate::virtio::queue::{Chain, QueueError};
use crate::virtio::{
    Device, FEATURE_EVENT_INDEX, FEATURE_INDIRECT, FEATURE_VERSION_1, Identity, RING_FEATURES,
    Serving,
};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::future::poll_fn;
use core::pin::pin;
use core::task::Poll;
use godwit_records::DecodeError;

const NEEDED: u64 = 1 << 5;
const NEEDS_IT: u64 = 1 << 6;
const QUEUE: [u64; 2] = [0x1000, 0x4000];
const DATA: u64 = 0x8000;

/// Copies what it is given to where the driver takes, while the gate is open.
struct Echo {
    open: Cell<bool>,
    resets: Cell<usize>,
    config: Cell<u8>,
}

impl Echo {
    async fn handle(&self, chain: &Chain) -> u32 {
        poll_fn(|context| {
            if self.open.get() {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        let mut bytes = [0; 64];
        let length = chain.read(0, &mut bytes);
        chain.write(0, &bytes[..length]) as u32
    }
}

impl Device for Echo {
    fn identity(&self) -> Identity {
        Identity {
            device_id: 40,
            pci_class: 0xff_0000,
        }
    }
    fn features(&self) -> u64 {
        NEEDED | NEEDS_IT
    }
    fn consistent(&self, features: u64) -> bool {
        features & NEEDS_IT == 0 || features & NEEDED != 0
    }
    fn queue_sizes(&self) -> &'static [u16] {
        &[16, 8]
    }
    fn read_config(&self, _features: u64, out: &mut [u8; CONFIG_BYTES_MAX]) {
        out[..4].copy_from_slice(&[1, 2, 3, self.config.get()]);
    }
    fn write_config(&self, _features: u64, offset: usize, bytes: &[u8]) {
        if let (3, [value]) = (offset, bytes) {
            self.config.set(*value);
        }
    }
    fn reset(&self) {
        self.resets.set(self.resets.get() + 1);
    }
    fn save(&self, _out: &mut Vec<u8>) {}
    fn restore(&self, _bytes: &[u8]) -> Result<(), DecodeError> {
        Ok(())
    }
    fn serve<'a>(&'a self, function: &'a VirtioFunction) -> Serving<'a> {
        let handle = async |chain: &Chain| self.handle(chain).await;
        Box::pin(async move { function.serve(1, 4, handle).await })
    }
}

struct Bench {
    memory: Rc<GuestMemory>,
    device: Rc<Echo>,
    interrupts: Rc<Counter>,
    function: Rc<VirtioFunction>,
}

fn bench() -> Bench {
    bench_in(guest(32))
}

fn bench_in(memory: Rc<GuestMemory>) -> Bench {
    let device = Rc::new(Echo {
        open: Cell::new(true),
        resets: Cell::new(0),
        config: Cell::new(4),
    });
    let interrupts = Rc::new(Counter::default());
    let function = VirtioFunction::new(memory.clone(), device.clone(), interrupts.clone());
    Bench {
        memory,
        device,
        interrupts,
        function,
    }
}

/// A guest that uses queue 1, with MSI-X vector 2.
fn driven(bench: &Bench, features: u64) -> Driver {
    let chosen = negotiate(&bench.function, features);
    let event_index = chosen & FEATURE_EVENT_INDEX != 0;
    let driver = Driver::new(&bench.memory, QUEUE[1], 8, event_index);
    driver.enable(&bench.function, 1, 2);
    drive(&bench.function);
    driver
}

fn status(function: &VirtioFunction) -> u64 {
    function.read(0, 0x14, 1)
}

#[test]
fn the_hypervisor_is_told_what_drivers_look_for() {
    let definition = bench().function.definition();
    assert_eq!((definition.vendor, definition.device), (0x1af4, 0x1068));
    assert_eq!((definition.doorbells, definition.msix_vectors), (2, 3));
    let mut found = Vec::new();
    let mut rest = &definition.capabilities[..definition.capability_bytes as usize];
    while let [id, length, more @ ..] = rest {
        let (body, next) = more.split_at(usize::from(*length));
        assert_eq!((*id, body[0]), (9, length + 2));
        let word = |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().unwrap());
        found.push((body[1], body[2], word(6), word(10)));
        if body[1] == 2 {
            assert_eq!(word(14), 4, "doorbell stride");
        }
        rest = next;
    }
    let expected = [
        (1, 0, 0, 60),
        (2, 0, 0x3000, 8),
        (3, 0, 0x1000, 1),
        (4, 0, 0x2000, 64),
        (4, 3, 0, 64),
    ];
    assert_eq!(found, expected);
}

#[test]
fn features_are_agreed_on_or_refused() {
    let all = RING_FEATURES | NEEDED | NEEDS_IT;
    let table = [
        (FEATURE_VERSION_1, true),
        (all, true),
        (FEATURE_VERSION_1 | NEEDED, true),
        // A legacy driver; one without what a feature needs; ones that were not offered, of them
        // ACCESS_PLATFORM.
        (NEEDED, false),
        (0, false),
        (FEATURE_VERSION_1 | NEEDS_IT, false),
        (FEATURE_VERSION_1 | 1, false),
        (FEATURE_VERSION_1 | 1 << 33, false),
        (u64::MAX, false),
    ];
    for (chosen, accepted) in table {
        let Bench { function, .. } = bench();
        let write = |offset, width, value| function.write(0, offset, width, value);
        write(0x14, 1, 3);
        for half in 0..2 {
            write(8, 4, half);
            write(0xc, 4, chosen >> (32 * half) & 0xffff_ffff);
        }
        write(0x14, 1, 0xb);
        assert_eq!(status(&function) == 0xb, accepted, "{chosen:#x}");
        assert_eq!(function.features(), if accepted { chosen } else { 0 });
        write(0x14, 1, 0xf);
        let running = status(&function) & 4 != 0;
        assert_eq!(running, accepted, "a device without features does not run");
        // Too late.
        write(8, 4, 0);
        write(0xc, 4, 0);
        assert_eq!(function.features(), if accepted { chosen } else { 0 });
    }
    assert_eq!(negotiate(&bench().function, u64::MAX), all);
}

#[test]
fn fields_are_read_in_parts_and_written_whole() {
    let Bench { function, .. } = bench();
    let read = |offset, width| function.read(0, offset, width);
    let write = |offset, width, value| function.write(0, offset, width, value);
    assert_eq!(read(0x12, 2), 2, "queues");
    write(0x16, 2, 1);
    assert_eq!(
        (read(0x18, 2), read(0x1a, 2), read(0x1e, 2)),
        (8, 0xffff, 1)
    );
    for (size, taken) in [(4, 4), (3, 4), (16, 4), (0, 4), (8, 8)] {
        write(0x18, 2, size);
        assert_eq!(read(0x18, 2), taken);
    }
    for (vector, taken) in [(2, 2), (3, 0xffff), (0, 0), (0xffff, 0xffff)] {
        write(0x1a, 2, vector);
        write(0x10, 2, vector);
        assert_eq!((read(0x1a, 2), read(0x10, 2)), (taken, taken));
    }
    write(0x20, 4, 0x5566_7788);
    write(0x24, 4, 0x1122_3344);
    assert_eq!(read(0x20, 8), 0x1122_3344_5566_7788);
    write(0x28, 8, 0x99);
    assert_eq!(
        (read(0x28, 4), read(0x2c, 4), read(0x27, 2)),
        (0x99, 0, 0x9911)
    );
    write(0x21, 4, 1);
    write(0x20, 2, 1);
    assert_eq!(read(0x20, 8), 0x1122_3344_5566_7788, "not a field");
    write(0x16, 2, 2);
    assert_eq!((read(0x18, 2), read(0x20, 8)), (0, 0), "no such queue");
    write(0x20, 8, 1);
    assert_eq!(read(0x3c, 4), 0);
    assert_eq!(function.read(0, u64::MAX, 8), 0);
    assert_eq!(function.read(5, 0, 8), 0);
}

#[test]
fn the_configuration_is_read_and_written_in_both_places() {
    let Bench {
        function,
        interrupts,
        ..
    } = bench();
    assert_eq!(function.read(0, 0x2000, 4), 0x0403_0201);
    function.write(3, 3, 1, 9);
    assert_eq!(
        (function.read(3, 2, 2), function.read(3, 62, 4)),
        (0x0903, 0)
    );
    function.write(0, 0x2003, 1, 8);
    function.write(3, u64::MAX, 8, 1);
    function.write(3, 60, 8, 1);
    assert_eq!(function.read(3, 3, 1), 8);
    let generation = function.read(0, 0x15, 1);
    function.config_changed();
    assert_eq!(function.read(0, 0x15, 1), generation + 1);
    assert!(interrupts.raised.borrow().is_empty(), "no driver yet");
}

#[test]
fn requests_are_served_and_interrupt_by_vector_or_pin() {
    let bench = bench();
    let mut run = pin!(bench.function.run());
    for (vector, isr) in [(2, 0), (0xffff, 1)] {
        let mut driver = driven(&bench, u64::MAX);
        bench.function.write(0, 0x1a, 2, vector);
        settle(run.as_mut());
        bench.memory.write(DATA, b"echo").unwrap();
        for n in 0..3 {
            driver.offer(&[(DATA, 4)], &[(DATA + 16 * n, 8)]).unwrap();
        }
        assert!(driver.kicks());
        bench.function.doorbell(0b10);
        bench.interrupts.raised.borrow_mut().clear();
        settle(run.as_mut());
        assert_eq!(
            *bench.interrupts.raised.borrow(),
            [vector as u16],
            "one for all"
        );
        let lengths: Vec<_> = core::iter::from_fn(|| driver.returned())
            .map(|r| r.1)
            .collect();
        assert_eq!(lengths, [4, 4, 4]);
        let lowered = bench.interrupts.lowered.get();
        assert_eq!(bench.function.read(0, 0x1000, 1), isr);
        assert_eq!(bench.function.read(0, 0x1000, 1), 0);
        assert_eq!(bench.interrupts.lowered.get(), lowered + 2);
    }
}

#[test]
fn a_broken_ring_breaks_this_device_until_it_is_reset() {
    let bench = bench();
    let mut run = pin!(bench.function.run());
    let mut driver = driven(&bench, FEATURE_VERSION_1);
    bench.function.write(0, 0x10, 2, 0);
    driver.push(77);
    settle(run.as_mut());
    let error = QueueError::NoSuchDescriptor(77);
    assert_eq!(bench.function.broken(), Some(Broken { queue: 1, error }));
    assert_eq!(status(&bench.function), 0x4f);
    assert_eq!(*bench.interrupts.raised.borrow(), [0], "configuration");
    bench.function.write(0, 0x14, 1, 0);
    assert_eq!(
        (status(&bench.function), bench.function.broken()),
        (0, None)
    );
    let mut driver = driven(&bench, FEATURE_VERSION_1);
    driver.offer(&[(DATA, 4)], &[]).unwrap();
    settle(run.as_mut());
    assert!(driver.returned().is_some());
}

#[test]
fn a_queue_that_cannot_be_is_found_when_enabled() {
    let bench = bench();
    negotiate(&bench.function, FEATURE_VERSION_1 | FEATURE_INDIRECT);
    let mut driver = Driver::new(&bench.memory, QUEUE[0], 16, false);
    driver.setup.used = 32 * 4096;
    driver.enable(&bench.function, 0, 1);
    assert_eq!(status(&bench.function), 0x4b);
    drive(&bench.function);
    driver.push(0);
    assert!(bench.function.take(0).is_none());
}

#[test]
fn a_reset_waits_for_what_is_in_flight() {
    let bench = bench();
    let mut run = pin!(bench.function.run());
    let mut driver = driven(&bench, u64::MAX);
    bench.device.open.set(false);
    driver.offer(&[(DATA, 4)], &[(DATA + 64, 4)]).unwrap();
    let mut context = core::task::Context::from_waker(core::task::Waker::noop());
    assert!(run.as_mut().poll(&mut context).is_pending());
    assert!(bench.memory.is_held(DATA / 4096));
    bench.function.write(0, 0x14, 1, 0);
    assert_eq!(status(&bench.function), 0xf, "not yet");
    bench.function.write(0, 0x14, 1, 1);
    let resets = bench.device.resets.get();
    bench.device.open.set(true);
    settle(run.as_mut());
    assert_eq!(
        (status(&bench.function), bench.device.resets.get()),
        (0, resets + 1)
    );
    assert!(!bench.memory.is_held(DATA / 4096));
}

/// Saves with requests waiting and in flight, at every stage; the restored one does what the first
/// would have done.
#[test]
fn a_restored_function_goes_on() {
    for crash in [false, true] {
        let bench = bench();
        let mut run = Box::pin(bench.function.run());
        let mut driver = driven(&bench, u64::MAX);
        settle(run.as_mut());
        bench.memory.write(DATA, b"echo").unwrap();
        driver.offer(&[(DATA, 4)], &[(DATA + 64, 4)]).unwrap();
        settle(run.as_mut());
        assert!(driver.returned().is_some());
        assert!(bench.function.take_changed());
        assert!(
            !bench.function.take_changed(),
            "requests change nothing to be kept"
        );
        bench.device.open.set(false);
        driver.offer(&[(DATA, 4)], &[(DATA + 128, 4)]).unwrap();
        let mut context = core::task::Context::from_waker(core::task::Waker::noop());
        assert!(run.as_mut().poll(&mut context).is_pending());
        if !crash {
            let mut quiesce = pin!(bench.function.quiesce());
            assert!(settle(quiesce.as_mut()).is_none(), "one is in flight");
            bench.device.open.set(true);
            settle(run.as_mut());
            assert!(settle(quiesce.as_mut()).is_some());
        }
        driver.offer(&[(DATA, 3)], &[(DATA + 192, 4)]).unwrap();
        bench.function.doorbell(2);
        let saved = bench.function.save();
        drop(run);

        let other = bench_in(bench.memory.clone());
        other.function.restore(&saved).unwrap();
        assert_eq!(other.function.save(), saved);
        let mut run = pin!(other.function.run());
        settle(run.as_mut());
        assert!(other.interrupts.raised.borrow().is_empty(), "paused");
        other.function.resume();
        assert_eq!(
            *other.interrupts.raised.borrow(),
            [2],
            "one may have been lost"
        );
        settle(run.as_mut());
        let lengths: Vec<_> = core::iter::from_fn(|| driver.returned())
            .map(|r| r.1)
            .collect();
        assert_eq!(lengths, [4, 3]);
        driver.offer(&[(DATA, 1)], &[(DATA, 1)]).unwrap();
        assert!(driver.kicks());
        other.function.doorbell(2);
        settle(run.as_mut());
        assert!(driver.returned().is_some());
    }
}

#[test]
fn states_of_other_functions_are_refused() {
    use godwit_records::{Record, VirtioState};
    let bench = bench();
    driven(&bench, u64::MAX);
    let saved = bench.function.save();
    let good = VirtioState::decode(&saved).unwrap();
    let restore = |change: &dyn Fn(&mut VirtioState)| {
        let mut state = good.clone();
        change(&mut state);
        let mut bytes = [0; VirtioState::MAX_BYTES];
        let length = state.encode(&mut bytes).unwrap();
        bench_in(bench.memory.clone())
            .function
            .restore(&bytes[..length])
    };
    assert_eq!(restore(&|_| {}), Ok(()));
    let refused = restore(&|state| state.device_id = 2);
    assert_eq!(refused, Err(RestoreError::OtherDevice(2)));
    let refused = restore(&|state| state.driver_features |= 1);
    assert_eq!(refused, Err(RestoreError::Features(1)));
    let refused = restore(&|state| state.driver_features &= !NEEDED);
    assert_eq!(refused, Err(RestoreError::Features(0)));
    let undecided = restore(&|state| (state.status, state.driver_features) = (3, u64::MAX));
    assert_eq!(undecided, Ok(()), "nothing is agreed on yet");
    for queue in [0, 2] {
        let refused = restore(&|state| state.queues[queue].size = 32);
        assert_eq!(refused, Err(RestoreError::Queue(queue)));
    }
    let refused = restore(&|state| state.queues[1].vector = 3);
    assert_eq!(refused, Err(RestoreError::Queue(1)));
    let refused = restore(&|state| state.queues[1].used = 1);
    let error = QueueError::Misaligned(1);
    assert_eq!(
        refused,
        Err(RestoreError::Setup(Broken { queue: 1, error }))
    );
    for length in 0..saved.len() {
        let refused = bench_in(bench.memory.clone())
            .function
            .restore(&saved[..length]);
        assert!(matches!(refused, Err(RestoreError::Record(_))));
    }
}
