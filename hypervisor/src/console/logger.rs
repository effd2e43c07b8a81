//! The `log` crate's back end: every line into the log ring (`xl dmesg`), lines up to the chosen
//! level to the serial line as well.

use core::fmt::{self, Write};

use godwit_abi::ring::{ByteRing, OutOfRing};
use log::{LevelFilter, Log, Metadata, Record};
use spin::mutex::TicketMutex;
use spin::once::Once;

/// Bytes of log kept.
const RING_BYTES: usize = 64 << 10;

static RING: TicketMutex<ByteRing<RING_BYTES>> = TicketMutex::new(ByteRing::new());
static SERIAL_LEVEL: Once<LevelFilter> = Once::new();

struct Logger;
static LOGGER: Logger = Logger;

/// Starts logging: `serial` is the most talkative level that reaches the serial line.
pub(crate) fn init(serial: LevelFilter) {
    SERIAL_LEVEL.call_once(|| serial);
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(LevelFilter::Debug.max(serial));
    }
}

/// Reads the ring from an absolute offset.
pub(crate) fn log_read(offset: u64, out: &mut [u8]) -> Result<usize, OutOfRing> {
    RING.lock().read(offset, out)
}

/// The oldest offset in the ring.
pub(crate) fn log_start() -> u64 {
    RING.lock().start()
}

/// Writers hold their lock for a whole line, so that lines of two CPUs do not mix. What a record
/// formats takes no lock of its own.
struct RingWriter<'a>(&'a mut ByteRing<RING_BYTES>);

impl Write for RingWriter<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend(text.as_bytes());
        Ok(())
    }
}

struct SerialWriter<'a>(&'a mut super::Serial);

impl Write for SerialWriter<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write_waiting(text.as_bytes());
        Ok(())
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        let (seconds, micros) = crate::platform::clock::since_boot_for_log();
        let level = match record.level() {
            log::Level::Error => "error: ",
            log::Level::Warn => "warning: ",
            log::Level::Info | log::Level::Debug | log::Level::Trace => "",
        };
        let _ = writeln!(
            RingWriter(&mut RING.lock()),
            "[{seconds:5}.{micros:06}] {level}{}",
            record.args()
        );
        if SERIAL_LEVEL
            .get()
            .is_some_and(|limit| record.level() <= *limit)
        {
            super::SERIAL.lock().write_line(|serial| {
                let _ = write!(
                    SerialWriter(serial),
                    "(godwit) {level}{}\r\n",
                    record.args()
                );
            });
        }
    }

    fn flush(&self) {}
}
