//! The client against real servers on loopback: qemu-nbd (package qemu-utils), nbdkit and
//! nbd-server, of the packages of those names.

use super::wire::ProtocolError;
use super::{Connecting, Connector, Link, NbdDisk, Stream, Timer, haggle};
use crate::disk::{Disk, DiskError};
use crate::fake::{Arena, finish};
use crate::memory::Memory;
use crate::storage::blocks::Blocks;
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
const SLOW: Duration = Duration::from_secs(60);

impl Stream for TcpStream {
    fn poll_read(&mut self, _: &mut Context<'_>, out: &mut [u8]) -> Poll<Result<usize, String>> {
        ready(self.read(out))
    }

    fn poll_write(&mut self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, String>> {
        ready(self.write(bytes))
    }
}

fn ready(result: std::io::Result<usize>) -> Poll<Result<usize, String>> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result.map_err(|error| error.to_string())),
    }
}

struct Loopback(u16);

impl Connector for Loopback {
    fn connect(&self) -> Connecting<'_> {
        Box::pin(async {
            let stream = TcpStream::connect(("127.0.0.1", self.0)).map_err(|e| e.to_string())?;
            stream.set_nonblocking(true).map_err(|e| e.to_string())?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

struct WallClock(Instant);

impl Timer for WallClock {
    fn now_ms(&self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }

    fn sleep(&self, ms: u64) -> Pin<Box<dyn Future<Output = ()>>> {
        let until = Instant::now() + Duration::from_millis(ms);
        Box::pin(poll_fn(move |_| match Instant::now() >= until {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }))
    }
}

/// A server process, ended when dropped.
struct Server {
    process: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Server {
    /// Starts one; `PORT` in an argument is its port.
    fn spawn(program: &str, arguments: &[&str], port: u16) -> Server {
        let number = port.to_string();
        let arguments = arguments.iter().map(|one| one.replace("PORT", &number));
        let process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        let process = process.unwrap_or_else(|error| panic!("{program}: {error}"));
        Server { process, port }
    }

    /// The same, and returns once it accepts connections.
    fn start(program: &str, arguments: &[&str], port: u16) -> Server {
        let server = Server::spawn(program, arguments, port);
        let deadline = Instant::now() + SLOW;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "{program} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        let done = Command::new("kill").args([name, &id]).status();
        assert!(done.unwrap().success());
    }
}

struct Bench {
    disk: Rc<NbdDisk>,
    driver: super::disk::Driver,
    memory: Rc<Arena>,
}

/// Polls until ready.
fn wait<T>(mut driver: Option<&mut super::disk::Driver>, future: impl Future<Output = T>) -> T {
    let mut future = core::pin::pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    let deadline = Instant::now() + SLOW;
    loop {
        if let Some(driver) = driver.as_mut() {
            assert!(driver.as_mut().poll(&mut context).is_pending());
        }
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        assert!(Instant::now() < deadline, "it hangs");
        std::thread::sleep(Duration::from_micros(100));
    }
}

impl Bench {
    fn open(port: u16, export: &str) -> Result<Bench, ProtocolError> {
        let memory = Arena::new(8 << 20);
        let clock = Rc::new(WallClock(Instant::now()));
        let opened = NbdDisk::connect(Rc::new(Loopback(port)), clock, memory.clone(), export);
        let (disk, driver) = wait(None, opened)?;
        Ok(Bench {
            disk,
            driver,
            memory,
        })
    }

    fn blocks(&self) -> Blocks {
        Blocks::new(self.disk.clone(), self.memory.clone())
    }

    fn run<T>(&mut self, future: impl Future<Output = T>) -> T {
        wait(Some(&mut self.driver), future)
    }
}

fn pattern(bytes: usize, seed: usize) -> Vec<u8> {
    (0..bytes)
        .map(|at| ((at / 512 + at) * 31 + seed) as u8)
        .collect()
}

/// Reads, writes, zeroes, trims and flushes; what must be there is there.
fn exercise(port: u16, export: &str) {
    exercise_opened(Bench::open(port, export).unwrap());
}

fn exercise_opened(mut bench: Bench) {
    let geometry = bench.disk.geometry();
    assert_eq!((geometry.bytes(), geometry.read_only), (16 << 20, false));
    let size = geometry.block_bytes as usize;
    let blocks = bench.blocks();
    let data = pattern(3 * MIB, 1);
    bench.run(blocks.write(8, &data)).unwrap();
    bench.run(blocks.flush()).unwrap();
    let mut found = vec![0; data.len()];
    bench.run(blocks.read(8, &mut found)).unwrap();
    assert!(found == data, "what was written is not what is read");
    if geometry.can_write_zeroes {
        for may_discard in [true, false] {
            let zeroes = bench.disk.clone();
            bench.run(zeroes.write_zeroes(16, 4, may_discard)).unwrap();
        }
        let mut found = vec![1; 6 * size];
        bench.run(blocks.read(15, &mut found)).unwrap();
        assert!(found[..size] == data[7 * size..8 * size]);
        assert!(found[size..5 * size].iter().all(|byte| *byte == 0));
        assert!(found[5 * size..] == data[12 * size..13 * size]);
    }
    let disk = bench.disk.clone();
    bench.run(disk.discard(100, 4)).unwrap();
    // Many at once, answered in any order.
    let mut context = Context::from_waker(Waker::noop());
    let address = bench.memory.allocate(64 * size).unwrap();
    let spans: Vec<_> = (0..64)
        .map(|index| {
            [crate::memory::Span {
                address: address + (index * size) as u64,
                bytes: size as u32,
            }]
        })
        .collect();
    let reads = spans.iter().enumerate();
    let mut reads: Vec<_> = reads
        .map(|(index, span)| Some(disk.read(200 + index as u64, span)))
        .collect();
    let all = poll_fn(|_| {
        for read in &mut reads {
            if let Some(running) = read
                && let Poll::Ready(result) = running.as_mut().poll(&mut context)
            {
                result.unwrap();
                *read = None;
            }
        }
        match reads.iter().all(Option::is_none) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    });
    wait(Some(&mut bench.driver), all);
    let mut found = vec![0; 64 * size];
    bench.memory.read(address, &mut found);
    assert!(found == data[192 * size..256 * size]);
    assert_eq!(
        finish(disk.read(geometry.blocks, &spans[0])),
        Err(DiskError::OutOfRange)
    );
}

const NBDKIT: [&str; 5] = ["-f", "-i", "127.0.0.1", "-p", "PORT"];

fn nbdkit(arguments: &[&str]) -> Server {
    let all: Vec<&str> = NBDKIT.iter().chain(arguments).copied().collect();
    Server::start("nbdkit", &all, free_port())
}

fn image(bytes: usize) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(bytes as u64).unwrap();
    file
}

fn qemu_nbd(file: &std::path::Path, port: u16) -> Server {
    let file = file.to_str().unwrap();
    let arguments = [
        "-t",
        "-f",
        "raw",
        "-b",
        "127.0.0.1",
        "-p",
        "PORT",
        "-x",
        "disk one",
        "-D",
        "the first",
        "--discard=unmap",
        "-e",
        "4",
        file,
    ];
    Server::start("qemu-nbd", &arguments, port)
}

#[test]
fn qemu_nbd_serves() {
    let file = image(16 * MIB);
    let server = qemu_nbd(file.path(), free_port());
    exercise(server.port, "disk one");
    let on_file = std::fs::read(file.path()).unwrap();
    assert_eq!(on_file[4096..8 * 512 + 8 * 512], pattern(4096, 1));

    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let listed = wait(None, haggle::list(&mut stream)).unwrap();
    assert_eq!(listed[0].name, "disk one");
    assert_eq!(listed[0].description, "the first");
    let refused = Bench::open(server.port, "no such").err();
    let Some(ProtocolError::Refused { code: 6, .. }) = refused else {
        panic!("{refused:?}");
    };
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let export = wait(None, haggle::info(&mut stream, "disk one")).unwrap();
    assert_eq!(export.bytes, 16 << 20);
}

#[test]
fn nbdkit_serves() {
    exercise(nbdkit(&["memory", "16M"]).port, "");
    // Simple replies only, and a server that can do little else than read and write.
    exercise(
        nbdkit(&["--no-sr", "--filter=nozero", "memory", "16M"]).port,
        "",
    );
    let blocks = [
        "--filter=blocksize-policy",
        "memory",
        "16M",
        "blocksize-minimum=4096",
        "blocksize-error-policy=error",
    ];
    let server = nbdkit(&blocks);
    let bench = Bench::open(server.port, "").unwrap();
    assert_eq!(bench.disk.geometry().block_bytes, 4096);
    exercise(server.port, "");
}

#[test]
fn nbd_server_serves() {
    let (work, file) = (tempfile::tempdir().unwrap(), image(16 * MIB));
    let port = free_port();
    let text = alloc::format!(
        "[generic]\nlistenaddr = 127.0.0.1\nport = {port}\nallowlist = true\n\
         [vol]\nexportname = {}\nflush = true\ntrim = true\n",
        file.path().display()
    );
    let config = work.path().join("config");
    std::fs::write(&config, text).unwrap();
    // With -d it stays our child, but serves one connection and ends.
    let server = Server::spawn("nbd-server", &["-d", "-C", config.to_str().unwrap()], port);
    let deadline = Instant::now() + SLOW;
    let bench = loop {
        match Bench::open(server.port, "vol") {
            Ok(bench) => break bench,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    exercise_opened(bench);
}

#[test]
fn errors_of_the_server_are_told() {
    let server = nbdkit(&[
        "--filter=error",
        "memory",
        "16M",
        "error-pread=ENOSPC",
        "error-pread-rate=100%",
    ]);
    let mut bench = Bench::open(server.port, "").unwrap();
    let blocks = bench.blocks();
    let refused = bench.run(blocks.read(0, &mut [0; 512]));
    assert_eq!(refused, Err(DiskError::NoSpace));
    bench.run(blocks.write(0, &[1; 512])).unwrap();

    let server = nbdkit(&["-r", "memory", "16M"]);
    let mut bench = Bench::open(server.port, "").unwrap();
    assert!(bench.disk.geometry().read_only);
    let blocks = bench.blocks();
    let refused = bench.run(blocks.write(0, &[1; 512]));
    assert_eq!(refused, Err(DiskError::ReadOnly));
}

#[test]
fn a_killed_server_may_come_back() {
    let file = image(16 * MIB);
    let port = free_port();
    let mut server = qemu_nbd(file.path(), port);
    let mut bench = Bench::open(port, "disk one").unwrap();
    let blocks = bench.blocks();
    for round in 0..3 {
        let data = pattern(MIB, round);
        bench.run(blocks.write(0, &data)).unwrap();
        server.signal("-KILL");
        server.process.wait().unwrap();
        // Nobody is there; the write waits until somebody is.
        let more = pattern(MIB, round + 100);
        let mut write = Box::pin(blocks.write(4096, &more));
        let mut started = None;
        let restarted = poll_fn(|context| {
            if started.is_none() && matches!(bench.disk.link(), Link::Lost { .. }) {
                started = Some(qemu_nbd(file.path(), port));
            }
            write.as_mut().poll(context)
        });
        wait(Some(&mut bench.driver), restarted).unwrap();
        drop(write);
        server = started.expect("the loss was seen");
        let mut found = vec![0; MIB];
        bench.run(blocks.read(0, &mut found)).unwrap();
        assert!(found == data);
        bench.run(blocks.read(4096, &mut found)).unwrap();
        assert!(found == more);
    }
}

#[test]
fn a_stopped_server_is_waited_for() {
    let server = nbdkit(&["memory", "16M"]);
    let mut bench = Bench::open(server.port, "").unwrap();
    let blocks = bench.blocks();
    bench.run(blocks.write(0, &[5; 512])).unwrap();
    server.signal("-STOP");
    let mut found = [0; 512];
    let mut read = Box::pin(blocks.read(0, &mut found));
    let disk = bench.disk.clone();
    let seen = poll_fn(|context| {
        assert!(read.as_mut().poll(context).is_pending());
        match disk.link() {
            Link::Waiting { .. } => Poll::Ready(()),
            Link::Ready => Poll::Pending,
            other => panic!("{other}"),
        }
    });
    wait(Some(&mut bench.driver), seen);
    server.signal("-CONT");
    wait(Some(&mut bench.driver), read).unwrap();
    assert_eq!((found, disk.link()), ([5; 512], Link::Ready));
}
