//! A balloon and a host that notes what becomes of pages.

use super::*;
use crate::memory::GuestMemory;
use crate::virtio::fake::{Counter, Driver, drive, guest, negotiate, settle};
use core::pin::pin;
use std::vec;

const DATA: u64 = 0xc000;

#[derive(Default)]
struct Host {
    released: RefCell<Vec<u64>>,
    populated: RefCell<Vec<u64>>,
    statistics: RefCell<Vec<Vec<Statistic>>>,
    short: Cell<bool>,
    waker: Cell<Option<core::task::Waker>>,
}

impl BalloonHost for Host {
    fn release<'a>(&'a self, pages: &'a [u64]) -> Moving<'a> {
        self.released.borrow_mut().extend(pages);
        Box::pin(core::future::ready(()))
    }
    fn populate<'a>(&'a self, pages: &'a [u64]) -> Moving<'a> {
        Box::pin(poll_fn(move |context| {
            if self.short.get() {
                self.waker.set(Some(context.waker().clone()));
                return Poll::Pending;
            }
            self.populated.borrow_mut().extend(pages);
            Poll::Ready(())
        }))
    }
    fn statistics(&self, statistics: &[Statistic]) {
        self.statistics.borrow_mut().push(statistics.to_vec());
    }
}

struct Bench {
    memory: Rc<GuestMemory>,
    host: Rc<Host>,
    balloon: Rc<Balloon>,
    function: Rc<VirtioFunction>,
    drivers: [Driver; 3],
}

fn bench() -> Bench {
    let memory = guest(64);
    let host = Rc::new(Host::default());
    let balloon = Balloon::new(host.clone(), true);
    let interrupts = Rc::new(Counter::default());
    let function = VirtioFunction::new(memory.clone(), balloon.clone(), interrupts);
    negotiate(&function, u64::MAX);
    let drivers = [(0x1000, 128), (0x4000, 128), (0x7000, 16)]
        .map(|(gpa, size)| Driver::new(&memory, gpa, size, true));
    for (index, driver) in drivers.iter().enumerate() {
        driver.enable(&function, index as u16, 0);
    }
    drive(&function);
    Bench {
        memory,
        host,
        balloon,
        function,
        drivers,
    }
}

#[test]
fn pages_come_and_go() {
    let mut bench = bench();
    let mut run = Box::pin(bench.function.run());
    let pages: Vec<u32> = (0..700).map(|n| n * 3 + 20).collect();
    let raw: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
    bench.memory.write(DATA, &raw).unwrap();
    // A page that a device is accessing now stays.
    bench.memory.hold(23 * 4096, 1);
    bench.drivers[0]
        .offer(&[(DATA, 1000), (DATA + 1000, 1802)], &[])
        .unwrap();
    settle(run.as_mut());
    assert!(bench.drivers[0].returned().is_some());
    let mut expected: Vec<u64> = pages.iter().map(|page| u64::from(*page)).collect();
    expected.remove(1);
    assert_eq!(*bench.host.released.borrow(), expected);

    bench.host.short.set(true);
    bench.drivers[1].offer(&[(DATA, 8)], &[]).unwrap();
    settle(run.as_mut());
    assert_eq!(
        bench.drivers[1].returned(),
        None,
        "not before they are there"
    );
    bench.host.short.set(false);
    bench.host.waker.take().expect("it waits").wake();
    settle(run.as_mut());
    assert!(bench.drivers[1].returned().is_some());
    assert_eq!(*bench.host.populated.borrow(), [20, 23]);
}

#[test]
fn a_deflate_ends_when_the_pages_are_there() {
    let mut bench = bench();
    bench
        .memory
        .write(DATA, &[20, 0, 0, 0, 21, 0, 0, 0, 9])
        .unwrap();
    bench.drivers[1].offer(&[(DATA, 9)], &[]).unwrap();
    settle(pin!(bench.function.run()).as_mut());
    assert!(bench.drivers[1].returned().is_some());
    assert_eq!(
        *bench.host.populated.borrow(),
        [20, 21],
        "whole numbers only"
    );
}

#[test]
fn the_target_is_told_and_the_answer_kept() {
    let bench = bench();
    bench.balloon.set_target(300);
    bench.function.config_changed();
    assert_eq!(bench.function.read(0, 0x2000, 4), 300);
    bench.function.write(0, 0x2000, 4, 1);
    bench.function.write(0, 0x2004, 4, 250);
    assert_eq!(
        (bench.balloon.target_pages(), bench.balloon.actual_pages()),
        (300, 250)
    );
    let saved = bench.function.save();
    let other = self::bench();
    other.function.restore(&saved).unwrap();
    assert_eq!(
        (other.balloon.target_pages(), other.balloon.actual_pages()),
        (300, 250)
    );
    other.function.write(0, 0x14, 1, 0);
    assert_eq!(
        (other.balloon.target_pages(), other.balloon.actual_pages()),
        (300, 0)
    );
}

#[test]
fn statistics_come_when_asked_for() {
    let mut bench = bench();
    let mut run = Box::pin(bench.function.run());
    let raw = |value: u8| [vec![4, 0, value, 0, 0, 0, 0, 0, 0, 0], vec![5, 0, 1, 1]].concat();
    let expected = |value: u8| {
        vec![Statistic {
            tag: 4,
            value: u64::from(value),
        }]
    };
    bench.memory.write(DATA, &raw(1)).unwrap();
    bench.drivers[2].offer(&[(DATA, 14)], &[]).unwrap();
    settle(run.as_mut());
    settle(run.as_mut());
    assert_eq!(*bench.host.statistics.borrow(), [expected(1)], "once");
    assert_eq!(
        bench.drivers[2].returned(),
        None,
        "the device keeps the buffer"
    );
    assert!(
        settle(pin!(bench.function.quiesce())).is_some(),
        "but not in flight"
    );
    bench.function.resume();
    bench.balloon.ask_for_statistics();
    settle(run.as_mut());
    assert!(bench.drivers[2].returned().is_some());
    bench.memory.write(DATA, &raw(2)).unwrap();
    bench.drivers[2].offer(&[(DATA, 14)], &[]).unwrap();
    assert!(bench.drivers[2].kicks());
    settle(run.as_mut());
    assert_eq!(*bench.host.statistics.borrow(), [expected(1), expected(2)]);
}
