//! The host's serial console, as dom0 sees it: bytes out with nothing lost, bytes in as they come,
//! and the log.
//!
//! The hypervisor takes what its buffer has room for. The rest waits here, in order, and a task
//! hands it on; who writes much waits in [`flush`].

use crate::executor::EventPort;
use crate::hypercall::{HYPERCALLS, bounded, input, output};
use alloc::collections::VecDeque;
use core::cell::RefCell;
use critical_section::Mutex;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::signal::Signal;
use embassy_time::{Duration, Timer};
use godwit_abi::Status;
use godwit_abi::ids::EventSource;
use godwit_toolstack::net::options::LogLevel;

/// How long to wait for room in the hypervisor's buffer: about 11 characters at 115200 baud.
const RETRY: Duration = Duration::from_millis(1);
/// The most bytes that wait here; more are dropped, and that is said.
const WAITING_BYTES_MAX: usize = 1 << 20;

struct Waiting {
    bytes: VecDeque<u8>,
    dropped: u64,
}

static WAITING: Mutex<RefCell<Waiting>> = Mutex::new(RefCell::new(Waiting {
    bytes: VecDeque::new(),
    dropped: 0,
}));
static MORE: Signal<CriticalSectionRawMutex, ()> = Signal::new();

/// Writes text; `\n` becomes `\r\n` unless it is that already.
pub(crate) fn write(bytes: &[u8]) {
    critical_section::with(|cs| {
        let waiting = &mut *WAITING.borrow_ref_mut(cs);
        if waiting.bytes.len() + bytes.len() > WAITING_BYTES_MAX {
            waiting.dropped += bytes.len() as u64;
            return;
        }
        let mut before = 0;
        for byte in bytes {
            if *byte == b'\n' && before != b'\r' {
                waiting.bytes.push_back(b'\r');
            }
            waiting.bytes.push_back(*byte);
            before = *byte;
        }
    });
    if !drain() {
        MORE.signal(());
    }
}

/// Hands on what the hypervisor takes now. True: nothing is left.
fn drain() -> bool {
    critical_section::with(|cs| {
        let waiting = &mut *WAITING.borrow_ref_mut(cs);
        loop {
            let (first, _) = waiting.bytes.as_slices();
            if first.is_empty() && waiting.dropped == 0 {
                return true;
            }
            if first.is_empty() {
                let text = alloc::format!("[{} bytes dropped]\r\n", waiting.dropped);
                waiting.dropped = 0;
                waiting.bytes.extend(text.as_bytes());
                continue;
            }
            let (address, length) = input(first);
            // A refusal is no reason to end; what cannot be written is gone.
            let taken = match bounded(HYPERCALLS.console_write(address, length), first) {
                Ok(0) => return false,
                Ok(taken) => taken,
                Err(_) => first.len(),
            };
            waiting.bytes.drain(..taken);
        }
    })
}

/// Waits until everything written so far is with the hypervisor.
pub(crate) async fn flush() {
    while !drain() {
        Timer::after(RETRY).await;
    }
}

/// Hands on what was left over.
#[embassy_executor::task]
pub(crate) async fn writer() {
    loop {
        MORE.wait().await;
        flush().await;
    }
}

/// The longest that [`write_last`] tries, microseconds.
const LAST_WORDS_US: u64 = 2_000_000;

/// Writes without executor and heap, for last words: what waits, then `text`.
pub(crate) fn write_last(text: &str) {
    let deadline_tsc = crate::clock::tsc_after(LAST_WORDS_US);
    while !drain() && crate::clock::tsc() < deadline_tsc {
        core::hint::spin_loop();
    }
    for line in text.split_inclusive('\n') {
        match line.strip_suffix('\n') {
            Some(line) => {
                write_now(line.as_bytes(), deadline_tsc);
                write_now(b"\r\n", deadline_tsc);
            }
            None => write_now(line.as_bytes(), deadline_tsc),
        }
    }
}

fn write_now(mut bytes: &[u8], deadline_tsc: u64) {
    while !bytes.is_empty() && crate::clock::tsc() < deadline_tsc {
        let (address, length) = input(bytes);
        match bounded(HYPERCALLS.console_write(address, length), bytes) {
            Ok(taken) => bytes = &bytes[taken..],
            Err(_) => return,
        }
    }
}

/// What is typed.
pub(crate) struct Keyboard {
    event: EventPort,
}

impl Keyboard {
    /// Binds the console's event. There is only one.
    pub(crate) fn new() -> Result<Self, Status> {
        let port = HYPERCALLS.port_bind(EventSource::ConsoleInput)?;
        let event = EventPort::new(port)?;
        Ok(Self { event })
    }

    /// Waits for bytes; returns how many of `buffer` were filled, at least one.
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> usize {
        loop {
            let (address, length) = output(buffer);
            match bounded(HYPERCALLS.console_read(address, length), buffer) {
                Ok(0) => {}
                Ok(count) => return count,
                Err(status) => log::error!("read the console: {status}"),
            }
            self.event.wait().await;
        }
    }
}

struct Logger;
static LOGGER: Logger = Logger;

/// Makes the console the log.
pub(crate) fn start(level: LogLevel) {
    let level = match level {
        LogLevel::Error => log::LevelFilter::Error,
        LogLevel::Warn => log::LevelFilter::Warn,
        LogLevel::Info => log::LevelFilter::Info,
        LogLevel::Debug => log::LevelFilter::Debug,
    };
    // Called once, so no logger can be there already.
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(level);
    }
}

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let level = match record.level() {
            log::Level::Error => "error",
            log::Level::Warn => "warning",
            log::Level::Info => "info",
            log::Level::Debug => "debug",
            log::Level::Trace => "trace",
        };
        write(alloc::format!("dom0: {level}: {}\n", record.args()).as_bytes());
    }

    fn flush(&self) {}
}
