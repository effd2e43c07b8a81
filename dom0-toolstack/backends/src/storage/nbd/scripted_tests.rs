//! The client against a server that crashes, forgets what was not flushed, hangs and refuses.

use super::driver::{DEAD_MS, FAREWELL_MS, SILENCE_MS};
use super::queue::WRITE_BYTES_MAX;
use super::wire::*;
use super::{Connecting, Connector, Link, NbdDisk, Stream, Timer};
use crate::disk::{Disk, DiskError};
use crate::fake::Arena;
use crate::memory::{Memory, Span};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

const EXPORT_BYTES: usize = 1 << 20;

struct Server {
    durable: Vec<u8>,
    cache: Vec<u8>,
    flags: u16,
    /// Requests until it crashes.
    lives: Option<usize>,
    /// Connections of an older generation are dead.
    generation: usize,
    silent: bool,
    refuses: bool,
    /// Every transmission command it has carried out.
    log: Vec<u16>,
}

impl Server {
    fn crash(&mut self) {
        self.cache = self.durable.clone();
        self.generation += 1;
        self.lives = None;
    }

    /// Carries out a request; gives the reply's data.
    fn execute(&mut self, command: u16, offset: usize, data: &[u8], length: usize) -> Vec<u8> {
        self.log.push(command);
        let range = offset..offset + length;
        match command {
            READ => return self.cache[range].to_vec(),
            WRITE => self.cache[range].copy_from_slice(data),
            WRITE_ZEROES | TRIM => self.cache[range].fill(0),
            FLUSH => self.durable = self.cache.clone(),
            other => panic!("command {other}"),
        }
        Vec::new()
    }
}

struct Wire {
    server: Rc<RefCell<Server>>,
    generation: usize,
    inbox: Vec<u8>,
    outbox: VecDeque<u8>,
    greeted: bool,
    transmitting: bool,
}

impl Wire {
    /// Takes whole messages out of the inbox.
    fn work(&mut self) {
        let server = Rc::clone(&self.server);
        let mut server = server.borrow_mut();
        if !self.greeted {
            if self.inbox.len() < 4 {
                return;
            }
            self.inbox.drain(..4);
            self.greeted = true;
        }
        while !self.transmitting && self.inbox.len() >= 16 {
            let option = u32::from_be_bytes(self.inbox[8..12].try_into().unwrap());
            let bytes = u32::from_be_bytes(self.inbox[12..16].try_into().unwrap()) as usize;
            self.inbox.drain(..16 + bytes);
            let mut reply = |kind: u32, data: &[u8]| {
                self.outbox.extend(OPTION_REPLY_MAGIC.to_be_bytes());
                self.outbox.extend(option.to_be_bytes());
                self.outbox.extend(kind.to_be_bytes());
                self.outbox.extend((data.len() as u32).to_be_bytes());
                self.outbox.extend(data);
            };
            if option != OPTION_GO {
                reply(REPLY_ERROR | 1, &[]);
                continue;
            }
            let mut info = vec![0, 0];
            info.extend((server.cache.len() as u64).to_be_bytes());
            info.extend(server.flags.to_be_bytes());
            reply(REPLY_INFO, &info);
            reply(REPLY_ACK, &[]);
            self.transmitting = true;
        }
        while self.inbox.len() >= REQUEST_BYTES && self.generation == server.generation {
            let command = u16::from_be_bytes(self.inbox[6..8].try_into().unwrap());
            let offset = u64::from_be_bytes(self.inbox[16..24].try_into().unwrap()) as usize;
            let length = u32::from_be_bytes(self.inbox[24..28].try_into().unwrap()) as usize;
            let data = if command == WRITE { length } else { 0 };
            if command == DISCONNECT {
                server.log.push(command);
                // It hangs up.
                self.generation = usize::MAX;
                return;
            }
            if self.inbox.len() < REQUEST_BYTES + data {
                return;
            }
            let message: Vec<u8> = self.inbox.drain(..REQUEST_BYTES + data).collect();
            if server.lives == Some(0) {
                return server.crash();
            }
            server.lives = server.lives.map(|lives| lives - 1);
            let reply = server.execute(command, offset, &message[REQUEST_BYTES..], length);
            // The last request before a crash is carried out, but not answered.
            if server.lives != Some(0) {
                self.outbox.extend(SIMPLE_MAGIC.to_be_bytes());
                self.outbox.extend([0; 4]);
                self.outbox.extend(&message[8..16]);
                self.outbox.extend(reply);
            }
        }
    }
}

impl Stream for Wire {
    fn poll_read(&mut self, _: &mut Context<'_>, out: &mut [u8]) -> Poll<Result<usize, String>> {
        if self.generation != self.server.borrow().generation {
            return Poll::Ready(Ok(0));
        }
        if self.server.borrow().silent {
            return Poll::Pending;
        }
        self.work();
        // In small pieces, so that every boundary is met.
        let bytes = out.len().min(self.outbox.len()).min(7);
        if bytes == 0 {
            return Poll::Pending;
        }
        out.iter_mut()
            .zip(self.outbox.drain(..bytes))
            .for_each(|(to, from)| *to = from);
        Poll::Ready(Ok(bytes))
    }

    fn poll_write(&mut self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, String>> {
        let bytes = &bytes[..bytes.len().min(1000)];
        self.inbox.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }
}

struct ToServer(Rc<RefCell<Server>>);

impl Connector for ToServer {
    fn connect(&self) -> Connecting<'_> {
        Box::pin(async {
            let server = self.0.borrow();
            if server.refuses {
                return Err("connection refused".into());
            }
            let mut outbox = VecDeque::new();
            outbox.extend(SERVER_MAGIC.to_be_bytes());
            outbox.extend(OPTION_MAGIC.to_be_bytes());
            outbox.extend((FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes());
            Ok(Box::new(Wire {
                server: Rc::clone(&self.0),
                generation: server.generation,
                inbox: Vec::new(),
                outbox,
                greeted: false,
                transmitting: false,
            }) as Box<dyn Stream>)
        })
    }
}

#[derive(Clone, Default)]
struct Clock(Rc<Cell<u64>>);

impl Timer for Clock {
    fn now_ms(&self) -> u64 {
        self.0.get()
    }

    fn sleep(&self, ms: u64) -> Pin<Box<dyn Future<Output = ()>>> {
        let (clock, until) = (self.clone(), self.0.get() + ms);
        Box::pin(core::future::poll_fn(move |_| {
            match clock.now_ms() >= until {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        }))
    }
}

struct Bench {
    server: Rc<RefCell<Server>>,
    clock: Clock,
    memory: Rc<Arena>,
    disk: Rc<NbdDisk>,
    /// Until it has ended.
    driver: RefCell<Option<super::disk::Driver>>,
}

impl Bench {
    fn new() -> Bench {
        let server = Rc::new(RefCell::new(Server {
            durable: vec![0; EXPORT_BYTES],
            cache: vec![0; EXPORT_BYTES],
            flags: 1 | FLAG_FLUSH | FLAG_TRIM | FLAG_WRITE_ZEROES,
            lives: None,
            generation: 0,
            silent: false,
            refuses: false,
            log: Vec::new(),
        }));
        let (clock, memory) = (Clock::default(), Arena::new(4 << 20));
        let connector = Rc::new(ToServer(Rc::clone(&server)));
        let opened = NbdDisk::connect(connector, Rc::new(clock.clone()), memory.clone(), "x");
        let (disk, driver) = crate::fake::finish(opened).unwrap();
        Bench {
            server,
            clock,
            memory,
            disk,
            driver: RefCell::new(Some(driver)),
        }
    }

    /// Polls the driver and `future`; time passes. `None`: not ready after `ms`.
    fn run_for<T>(&self, ms: u64, future: impl Future<Output = T>) -> Option<T> {
        let mut future = core::pin::pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..ms / 10 {
            let mut driver = self.driver.borrow_mut();
            if let Some(running) = driver.as_mut()
                && running.as_mut().poll(&mut context).is_ready()
            {
                *driver = None;
            }
            drop(driver);
            if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                return Some(value);
            }
            self.clock.0.set(self.clock.0.get() + 10);
        }
        None
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.run_for(1_000_000, future).expect("it hangs")
    }

    async fn write(&self, block: u64, byte: u8, bytes: usize) -> Result<(), DiskError> {
        let address = self.memory.allocate(bytes).unwrap();
        self.memory.write(address, &vec![byte; bytes]);
        let span = Span {
            address,
            bytes: bytes as u32,
        };
        let done = self.disk.write(block, &[span]).await;
        self.memory.release(address, bytes);
        done
    }

    async fn read(&self, block: u64, bytes: usize) -> Vec<u8> {
        let address = self.memory.allocate(bytes).unwrap();
        // Two spans, the first of an odd length.
        let spans = [(address, 100), (address + 100, bytes as u32 - 100)];
        let spans = spans.map(|(address, bytes)| Span { address, bytes });
        self.disk.read(block, &spans).await.unwrap();
        let mut out = vec![0; bytes];
        self.memory.read(address, &mut out);
        self.memory.release(address, bytes);
        out
    }
}

/// Whatever request the server dies at, and though it forgets what was not flushed: everything
/// that was answered is there, and nothing fails.
#[test]
fn a_crash_at_any_request_loses_nothing() {
    for lives in 0..14 {
        let bench = Bench::new();
        bench.server.borrow_mut().lives = Some(lives);
        bench.run(async {
            for step in 0..3 {
                bench.write(step, 0x10 + step as u8, 512).await.unwrap();
                bench.write(8, 0x20 + step as u8, 1024).await.unwrap();
                if step == 1 {
                    bench.disk.flush().await.unwrap();
                }
                bench.disk.write_zeroes(9, 1, true).await.unwrap();
                assert_eq!(bench.read(8, 512).await, vec![0x20 + step as u8; 512]);
            }
        });
        // The second crash: what was answered is in no cache but the client's.
        bench.server.borrow_mut().crash();
        let found = bench.run(bench.read(0, 10 * 512));
        for step in 0..3 {
            assert_eq!(found[step * 512], 0x10 + step as u8, "lives {lives}");
        }
        assert_eq!((found[8 * 512], found[9 * 512]), (0x22, 0), "lives {lives}");
        bench.run(bench.disk.flush()).unwrap();
        bench.server.borrow_mut().crash();
        let durable = bench.server.borrow().durable.clone();
        assert_eq!(
            (durable[0], durable[8 * 512], durable[9 * 512]),
            (0x10, 0x22, 0)
        );
    }
}

#[test]
fn what_was_flushed_is_not_written_again() {
    let bench = Bench::new();
    bench.run(bench.write(0, 1, 512)).unwrap();
    bench.run(bench.disk.flush()).unwrap();
    bench.run(bench.write(1, 2, 512)).unwrap();
    bench.server.borrow_mut().crash();
    bench.server.borrow_mut().log.clear();
    bench.run(bench.read(0, 512));
    assert_eq!(bench.server.borrow().log, [WRITE, FLUSH, READ]);
}

#[test]
fn silence_is_waited_out_and_visible() {
    let bench = Bench::new();
    bench.server.borrow_mut().silent = true;
    let mut write = core::pin::pin!(bench.write(0, 7, 512));
    assert!(bench.run_for(SILENCE_MS / 2, write.as_mut()).is_none());
    assert_eq!(bench.disk.link(), Link::Ready);
    assert!(bench.run_for(SILENCE_MS * 2, write.as_mut()).is_none());
    assert!(matches!(bench.disk.link(), Link::Waiting { .. }));
    assert_eq!(bench.disk.outstanding(), 1);
    bench.server.borrow_mut().silent = false;
    bench.run(write.as_mut()).unwrap();
    assert_eq!(bench.disk.link(), Link::Ready);
}

#[test]
fn a_dead_connection_is_made_anew() {
    let bench = Bench::new();
    bench.server.borrow_mut().silent = true;
    bench.server.borrow_mut().refuses = true;
    let mut write = core::pin::pin!(bench.write(0, 7, 512));
    assert!(bench.run_for(DEAD_MS + 10_000, write.as_mut()).is_none());
    let Link::Lost { why, attempts, .. } = bench.disk.link() else {
        panic!("{:?}", bench.disk.link());
    };
    assert!(
        why == "connection refused" && attempts > 2,
        "{why} {attempts}"
    );
    bench.server.borrow_mut().silent = false;
    bench.server.borrow_mut().refuses = false;
    bench.run(write.as_mut()).unwrap();
    assert_eq!(bench.server.borrow().cache[0], 7);
}

#[test]
fn another_export_is_not_taken_for_the_old_one() {
    let bench = Bench::new();
    bench.run(bench.write(0, 1, 512)).unwrap();
    bench.server.borrow_mut().crash();
    bench.server.borrow_mut().cache.truncate(4096);
    let mut write = core::pin::pin!(bench.write(1, 1, 512));
    assert!(bench.run_for(10_000, write.as_mut()).is_none());
    let Link::Lost { why, .. } = bench.disk.link() else {
        panic!("{:?}", bench.disk.link());
    };
    assert!(why.contains("size"), "{why}");
}

#[test]
fn what_is_kept_for_replay_has_a_limit() {
    let bench = Bench::new();
    for _ in 0..WRITE_BYTES_MAX / (256 << 10) + 8 {
        bench.run(bench.write(0, 1, 256 << 10)).unwrap();
    }
    let flushes = |log: &[u16]| log.iter().filter(|command| **command == FLUSH).count();
    let made = flushes(&bench.server.borrow().log);
    assert!(made >= 1, "writes were kept beyond the limit");
}

#[test]
fn a_closed_disk_says_so() {
    let bench = Bench::new();
    bench.run(bench.write(0, 1, 512)).unwrap();
    bench.disk.close();
    let refused = bench.run(bench.write(0, 2, 512));
    assert_eq!(refused, Err(DiskError::Gone("it was closed".into())));
    bench.run_for(100, core::future::pending::<()>());
    assert_eq!(bench.disk.link(), Link::Closed);
    assert_eq!(bench.server.borrow().log.last(), Some(&DISCONNECT));
}

#[test]
fn the_farewell_is_not_lost() {
    let bench = Bench::new();
    bench.server.borrow_mut().silent = true;
    bench.disk.close();
    // The connection is kept until the server has hung up, but not for ever.
    bench.run_for(FAREWELL_MS / 2, core::future::pending::<()>());
    assert!(bench.driver.borrow().is_some());
    bench.run_for(FAREWELL_MS * 2, core::future::pending::<()>());
    assert!(bench.driver.borrow().is_none());
    assert_eq!(bench.disk.link(), Link::Closed);
}
