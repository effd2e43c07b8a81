//! The cable between the two hosts: a rate, a delay, losses that cost time, cuts, and damage. What goes
//! over it are connections as TCP's: bytes in order, or an error.

use crate::executor::Executor;
use crate::random::Random;
use godwit_migrate::link::{Link, LinkError};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

/// Bytes of one direction that are under way or not read yet.
const WINDOW_BYTES: usize = 64 << 10;
/// Bytes that go together.
const PACKET_BYTES: usize = 8 << 10;
/// What a lost packet costs.
const RESEND_US: u64 = 200_000;

/// Something that happens to the next packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// A bit is turned.
    Flip,
    /// Its end is gone.
    Truncate,
    /// It comes twice.
    Replay,
}

/// How good a cable is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quality {
    /// Bytes a second, each way.
    pub rate_bytes: u64,
    /// Time from end to end.
    pub delay_us: u64,
    /// Packets of 1000 that are lost once.
    pub lost_in_thousand: u64,
}

/// The cable.
pub struct Cable {
    executor: Rc<Executor>,
    random: Random,
    /// How good it is.
    pub quality: Cell<Quality>,
    /// What happens to the next packet.
    pub damage: Cell<Option<Damage>>,
    cut_us: Cell<Option<u64>>,
    busy_us: [Cell<u64>; 2],
    pipes: RefCell<Vec<Weak<Pipe>>>,
}

struct Packet {
    arrives_us: u64,
    bytes: VecDeque<u8>,
}

#[derive(Default)]
struct Way {
    packets: RefCell<VecDeque<Packet>>,
    /// Bytes under way.
    bytes: Cell<usize>,
    /// The sender has ended it.
    ended: Cell<bool>,
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
}

impl Way {
    fn wake(&self) {
        for waker in [&self.reader, &self.writer] {
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
    }
}

/// A connection.
struct Pipe {
    /// By the side that sends.
    ways: [Way; 2],
    broken: Cell<bool>,
    /// The side's host has crashed and says nothing any more.
    silent: [Cell<bool>; 2],
}

impl Pipe {
    fn break_down(&self) {
        self.broken.set(true);
        self.ways.iter().for_each(Way::wake);
    }
}

/// One end of a connection.
pub struct End {
    cable: Rc<Cable>,
    pipe: Rc<Pipe>,
    side: usize,
    /// False: the dom0 that had it is dead.
    is_up: Rc<Cell<bool>>,
}

impl Cable {
    /// A cable.
    pub fn new(executor: &Rc<Executor>, random: Random, quality: Quality) -> Rc<Self> {
        Rc::new(Self {
            executor: Rc::clone(executor),
            random,
            quality: Cell::new(quality),
            damage: Cell::new(None),
            cut_us: Cell::new(None),
            busy_us: Default::default(),
            pipes: RefCell::default(),
        })
    }

    /// Whether it is cut.
    pub fn is_cut(&self) -> bool {
        self.cut_us.get().is_some()
    }

    /// Cuts it.
    pub fn cut(&self) {
        if !self.is_cut() {
            self.cut_us.set(Some(self.executor.now_us()));
        }
    }

    /// Mends it. Connections go on where they were, or are found broken.
    pub fn heal(&self) {
        let Some(cut_us) = self.cut_us.take() else {
            return;
        };
        let lost_us = self.executor.now_us() - cut_us + RESEND_US;
        for pipe in self.live() {
            for way in &pipe.ways {
                let mut packets = way.packets.borrow_mut();
                let late = packets.iter_mut().filter(|it| it.arrives_us > cut_us);
                late.for_each(|packet| packet.arrives_us += lost_us);
            }
            match self.random.one_in_thousand(400) {
                true => pipe.break_down(),
                false => pipe.ways.iter().for_each(Way::wake),
            }
        }
    }

    fn live(&self) -> Vec<Rc<Pipe>> {
        let mut pipes = self.pipes.borrow_mut();
        pipes.retain(|pipe| pipe.strong_count() > 0);
        pipes.iter().filter_map(Weak::upgrade).collect()
    }

    /// A host is there again and knows nothing of its old connections: some of them break, of others
    /// nobody ever hears.
    pub fn forget_connections(&self, side: usize) {
        for pipe in self.live() {
            if pipe.silent[side].get() && self.random.one_in_thousand(700) {
                pipe.break_down();
            }
        }
    }

    /// A connection from `side` to the other one: its two ends, that of `side` first.
    pub fn connect(self: &Rc<Self>, side: usize, up: [&Rc<Cell<bool>>; 2]) -> [End; 2] {
        let pipe = Rc::new(Pipe {
            ways: Default::default(),
            broken: Cell::new(false),
            silent: Default::default(),
        });
        self.pipes.borrow_mut().push(Rc::downgrade(&pipe));
        [side, 1 - side].map(|side| End {
            cable: Rc::clone(self),
            pipe: Rc::clone(&pipe),
            side,
            is_up: Rc::clone(up[side]),
        })
    }

    /// When what is sent now by `side` is there.
    fn arrival_us(&self, side: usize, bytes: usize) -> u64 {
        let quality = self.quality.get();
        let begins_us = self.busy_us[side].get().max(self.executor.now_us());
        let takes_us = bytes as u64 * 1_000_000 / quality.rate_bytes;
        let lost = self.random.one_in_thousand(quality.lost_in_thousand);
        self.busy_us[side].set(begins_us + takes_us);
        begins_us + takes_us + quality.delay_us + if lost { RESEND_US } else { 0 }
    }

    fn spoil(&self, bytes: &mut Vec<u8>) {
        match self.damage.take() {
            Some(Damage::Flip) => {
                let at = self.random.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << self.random.below(8);
            }
            Some(Damage::Truncate) => bytes.truncate(bytes.len() / 2),
            Some(Damage::Replay) => bytes.extend_from_within(..),
            None => {}
        }
    }
}

impl End {
    fn outward(&self) -> &Way {
        &self.pipe.ways[self.side]
    }

    fn inward(&self) -> &Way {
        &self.pipe.ways[1 - self.side]
    }

    /// When the first packet can be read; `None`: not before something happens.
    fn next_us(&self) -> Option<u64> {
        let packets = self.inward().packets.borrow();
        let arrives_us = packets.front()?.arrives_us;
        let cut_us = self.cable.cut_us.get();
        match cut_us {
            Some(cut_us) if arrives_us > cut_us => None,
            Some(_) | None => Some(arrives_us),
        }
    }

    /// Until somebody wakes, or a time has come.
    async fn pause(&self, slot: &RefCell<Option<Waker>>, until_us: Option<u64>) {
        let executor = &self.cable.executor;
        let mut sleep = until_us.map(|us| executor.sleep_until(us));
        let mut is_first = true;
        poll_fn(|context| {
            *slot.borrow_mut() = Some(context.waker().clone());
            if let Some(sleep) = &mut sleep
                && Pin::new(sleep).poll(context).is_ready()
            {
                return Poll::Ready(());
            }
            match std::mem::take(&mut is_first) {
                true => Poll::Pending,
                false => Poll::Ready(()),
            }
        })
        .await;
    }

    fn take(&self, out: &mut [u8]) -> usize {
        let way = self.inward();
        let mut packets = way.packets.borrow_mut();
        let first = packets.front_mut().expect("it was looked at");
        let count = first.bytes.len().min(out.len());
        for (to, from) in out.iter_mut().zip(first.bytes.drain(..count)) {
            *to = from;
        }
        if first.bytes.is_empty() {
            packets.pop_front();
        }
        way.bytes.set(way.bytes.get() - count);
        if let Some(writer) = way.writer.take() {
            writer.wake();
        }
        count
    }

    fn check(&self) -> Result<(), LinkError> {
        match self.pipe.broken.get() {
            true => Err(LinkError::Failed("connection reset".into())),
            false => Ok(()),
        }
    }
}

use std::future::Future;

impl Link for End {
    async fn read(&mut self, out: &mut [u8]) -> Result<usize, LinkError> {
        loop {
            self.check()?;
            let next_us = self.next_us();
            if next_us.is_some_and(|us| us <= self.cable.executor.now_us()) {
                return Ok(self.take(out));
            }
            let way = self.inward();
            if next_us.is_none() && way.ended.get() && way.packets.borrow().is_empty() {
                return Err(LinkError::Closed);
            }
            self.pause(&way.reader, next_us).await;
        }
    }

    async fn write_all(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        for packet in bytes.chunks(PACKET_BYTES) {
            loop {
                self.check()?;
                if self.inward().ended.get() {
                    return Err(LinkError::Closed);
                }
                let way = self.outward();
                if way.bytes.get() + packet.len() <= WINDOW_BYTES {
                    break;
                }
                self.pause(&way.writer, None).await;
            }
            let mut packet = packet.to_vec();
            self.cable.spoil(&mut packet);
            let way = self.outward();
            let mut packets = way.packets.borrow_mut();
            let arrives_us = self.cable.arrival_us(self.side, packet.len());
            // In order: what was sent before is there before.
            let before_us = packets.back().map_or(0, |packet| packet.arrives_us);
            way.bytes.set(way.bytes.get() + packet.len());
            packets.push_back(Packet {
                arrives_us: arrives_us.max(before_us),
                bytes: packet.into(),
            });
            if let Some(reader) = way.reader.take() {
                reader.wake();
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        loop {
            self.check()?;
            let last = self
                .outward()
                .packets
                .borrow()
                .back()
                .map(|it| it.arrives_us);
            match last {
                None => return Ok(()),
                Some(us) if us <= self.cable.executor.now_us() && !self.cable.is_cut() => {
                    return Ok(());
                }
                Some(_) if self.inward().ended.get() => return Err(LinkError::Closed),
                Some(us) => {
                    let until_us = us.max(self.cable.executor.now_us() + 10_000);
                    self.pause(&self.outward().writer, Some(until_us)).await;
                }
            }
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if self.is_up.get() {
            self.outward().ended.set(true);
            self.pipe.ways.iter().for_each(Way::wake);
        } else {
            self.pipe.silent[self.side].set(true);
        }
    }
}
