//! The second copy is on another host, over NBD, and the connection to it is cut anywhere, or for good.

use super::bench::*;
use crate::fake::RamDisk;
use crate::storage::mirror::{MirrorError, SwitchDisk};
use crate::storage::nbd::disk::Driver;
use crate::storage::nbd::serve::Served;
use crate::storage::nbd::{Connecting, Connector, NbdDisk, Stream};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::{Context, Poll};

const NAME: &str = "7-vda";
const PIECE_BYTES: usize = 5000;

/// Both directions of a connection, and how many bytes it still carries.
#[derive(Default)]
struct Cable {
    ways: [VecDeque<u8>; 2],
    closed: bool,
}

struct End {
    cable: Rc<RefCell<Cable>>,
    line: Rc<Line>,
    side: usize,
}

/// Where connections are made.
#[derive(Default)]
struct Line {
    arrived: RefCell<Vec<End>>,
    carried: Cell<u64>,
    /// The connection of then breaks when so many bytes have been carried.
    cut: Cell<Option<u64>>,
    refuses: Cell<bool>,
    connections: Cell<u64>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.cable.borrow_mut().closed = true;
    }
}

impl Stream for End {
    fn poll_read(&mut self, _: &mut Context<'_>, out: &mut [u8]) -> Poll<Result<usize, String>> {
        let mut cable = self.cable.borrow_mut();
        let closed = cable.closed;
        let way = &mut cable.ways[self.side];
        let count = way.len().min(out.len()).min(PIECE_BYTES);
        match (count, closed) {
            (0, true) => Poll::Ready(Ok(0)),
            (0, false) => Poll::Pending,
            (_, _) => {
                way.drain(..count)
                    .zip(out)
                    .for_each(|(byte, out)| *out = byte);
                Poll::Ready(Ok(count))
            }
        }
    }

    fn poll_write(&mut self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, String>> {
        let mut cable = self.cable.borrow_mut();
        let carried = self.line.carried.get();
        if self.line.cut.get().is_some_and(|cut| carried >= cut) {
            self.line.cut.set(None);
            cable.closed = true;
            // What was under way is lost.
            cable.ways = Default::default();
        }
        if cable.closed {
            return Poll::Ready(Err("cut".into()));
        }
        let count = bytes.len().min(PIECE_BYTES);
        cable.ways[1 - self.side].extend(&bytes[..count]);
        self.line.carried.set(carried + count as u64);
        Poll::Ready(Ok(count))
    }
}

/// What a connector needs to give a line away.
struct Dial(Rc<Line>);

impl Connector for Dial {
    fn connect(&self) -> Connecting<'_> {
        Box::pin(async {
            if self.0.refuses.get() {
                return Err("nobody is there".into());
            }
            self.0.connections.set(self.0.connections.get() + 1);
            let cable = Rc::<RefCell<Cable>>::default();
            let end = |side| End {
                cable: Rc::clone(&cable),
                line: Rc::clone(&self.0),
                side,
            };
            self.0.arrived.borrow_mut().push(end(1));
            Ok(Box::new(end(0)) as Box<dyn Stream>)
        })
    }
}

/// The other host: one connection after the other, none as long as the one before is served.
async fn host(served: Served, line: &Line) {
    loop {
        let arrived = poll_fn(|_| match line.arrived.borrow_mut().pop() {
            Some(end) => Poll::Ready(end),
            None => Poll::Pending,
        });
        let _ = served.serve(&mut arrived.await).await;
    }
}

/// Something that goes on until all is over.
async fn until(over: &Cell<bool>, task: impl Future<Output = ()>) {
    let mut task = pin!(task);
    poll_fn(|context| match over.get() {
        true => Poll::Ready(()),
        false => task.as_mut().poll(context),
    })
    .await;
}

struct Outcome {
    carried: u64,
    connections: u64,
    moved: Result<(), MirrorError>,
    target: Vec<u8>,
    source: Vec<u8>,
    expected: Vec<u8>,
}

/// A disk moves to another host while its guest writes; the line breaks after `cut` bytes.
fn scene(seed: u64, cut: Option<u64>, for_good: bool) -> Outcome {
    let (dice, clock, memory, there) = (Dice::new(seed), Clock::default(), arena(), arena());
    let first = contents(&dice);
    let oracle = Oracle::of(&first);
    let old = Rc::new(RamDisk::with_contents(Rc::clone(&memory), first, BLOCK));
    // What it held before must not be seen.
    let noise = vec![0xa5; (BLOCKS * u64::from(BLOCK)) as usize];
    let new = Rc::new(RamDisk::with_contents(Rc::clone(&there), noise, BLOCK));
    let disk = SwitchDisk::new(Slow::new(old.clone(), &dice), Rc::clone(&memory), false);
    let served = Served::new(NAME, Slow::new(new.clone(), &dice), there, false);
    let (line, over, driver) = (
        Rc::new(Line::default()),
        Cell::new(false),
        RefCell::new(None),
    );
    let moved = Cell::new(Ok(()));
    let writes = guest(
        disk.clone(),
        memory.clone(),
        oracle.clone(),
        dice.clone(),
        (0, 1),
        150,
    );
    let is_written = Cell::new(false);
    let go = async {
        let (dial, timer) = (Rc::new(Dial(line.clone())), Rc::new(clock.clone()));
        let connected = NbdDisk::connect(dial, timer.clone(), memory.clone(), NAME).await;
        let (nbd, task) = connected.unwrap();
        *driver.borrow_mut() = Some(task);
        line.cut.set(cut.map(|cut| line.carried.get() + cut));
        line.refuses.set(for_good);
        let mirror = disk.begin(nbd, timer).await.unwrap();
        let mut went = mirror.converge(&ALWAYS).await;
        if went.is_ok() {
            went = disk.switch(async || Ok::<(), MirrorError>(())).await;
        }
        if let Err(error) = &went {
            disk.end(error.clone()).await;
        }
        moved.set(went);
        poll_fn(|_| match is_written.get() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
        over.set(true);
    };
    let drive = poll_fn(|context| {
        let mut driver = driver.borrow_mut();
        if let Some(task) = driver.as_mut().map(Driver::as_mut) {
            let _ = task.poll(context).map(|()| *driver = None);
        }
        Poll::<()>::Pending
    });
    let mut tasks: Vec<Task<'_>> = vec![
        Box::pin(go),
        Box::pin(async {
            writes.await;
            is_written.set(true);
        }),
        Box::pin(until(&over, host(served, &line))),
        Box::pin(until(&over, drive)),
    ];
    assert!(
        run(&mut tasks, &dice, 3_000_000),
        "seed {seed}, {cut:?}: it hangs"
    );
    drop(tasks);
    Outcome {
        carried: line.carried.get(),
        connections: line.connections.get(),
        moved: moved.replace(Ok(())),
        target: new.contents(),
        source: old.contents(),
        expected: oracle.borrow().bytes.clone(),
    }
}

#[test]
fn a_disk_moves_to_another_host_while_its_guest_writes() {
    for seed in 1..=20 {
        let outcome = scene(seed, None, false);
        assert_eq!((outcome.moved, outcome.connections), (Ok(()), 1));
        assert!(outcome.target == outcome.expected, "seed {seed}");
    }
}

#[test]
fn a_line_that_is_cut_anywhere_is_made_anew_and_nothing_is_lost() {
    let whole = scene(3, None, false).carried;
    for at in 0..60 {
        let outcome = scene(3, Some(whole * at / 70), false);
        assert_eq!(outcome.moved, Ok(()), "cut {at}");
        assert_eq!(outcome.connections, 2, "cut {at}");
        assert!(outcome.target == outcome.expected, "cut {at}");
    }
}

#[test]
fn a_host_that_is_gone_for_good_costs_the_guest_nothing_but_time() {
    let whole = scene(4, None, false).carried;
    for at in 0..12 {
        // Early enough that there is no switch before it.
        let outcome = scene(4, Some(whole * at / 40), true);
        assert_eq!(outcome.moved, Err(MirrorError::TooSlow), "cut {at}");
        assert!(outcome.source == outcome.expected, "cut {at}");
    }
}
