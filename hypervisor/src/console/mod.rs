//! The serial line and the log ring.
//!
//! The line is shared: dom0's console, the hypervisor's own lines (`(godwit) ...`), and debug keys.
//! Sending never waits for the line: bytes go into a ring that the transmitter-empty interrupt
//! empties, because at 115200 baud one character costs as much time as 87,000 instructions.
//! Only a full ring and an epitaph wait.

mod keys;
mod logger;
mod serial;

pub(crate) use keys::take_debug_key;
pub(crate) use logger::{init as init_log, log_read, log_start};

use core::fmt;
use spin::mutex::TicketMutex;

use serial::Serial;

static SERIAL: TicketMutex<Serial> = TicketMutex::new(Serial::new());

/// Opens COM1. Without one the host runs silently: everything still reaches the log ring.
pub(crate) fn init() {
    SERIAL.lock().open();
}

/// Lets the line work by interrupts from now on.
pub(crate) fn start_interrupts() {
    SERIAL.lock().enable_interrupts();
}

/// Bytes from dom0 to the line. Takes as many as there is room for, at once.
pub(crate) fn write(bytes: &[u8]) -> usize {
    SERIAL.lock().write(bytes)
}

/// Typed bytes for dom0.
pub(crate) fn read(out: &mut [u8]) -> usize {
    SERIAL.lock().read(out)
}

/// Serves the UART: called by its interrupt. Returns whether there is something new for dom0.
pub(crate) fn serve() -> bool {
    SERIAL.lock().serve()
}

/// Writes to the line and waits until it is out: for the last words of a CPU. Breaks the lock when
/// its holder is the one that died.
pub(crate) fn last_words(arguments: fmt::Arguments<'_>) {
    struct Out<'a>(&'a mut Serial);
    impl fmt::Write for Out<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for line in text.split_inclusive('\n') {
                match line.strip_suffix('\n') {
                    Some(line) => {
                        self.0.write_waiting(line.as_bytes());
                        self.0.write_waiting(b"\r\n");
                    }
                    None => self.0.write_waiting(line.as_bytes()),
                }
            }
            Ok(())
        }
    }
    const PATIENCE: u32 = 1_000_000;
    for _ in 0..PATIENCE {
        if let Some(mut serial) = SERIAL.try_lock() {
            let _ = fmt::Write::write_fmt(&mut Out(&mut serial), arguments);
            serial.drain();
            return;
        }
        core::hint::spin_loop();
    }
    // SAFETY: the holder has had a million turns and will not come back, or is this very CPU below
    // the fault; nothing but these last lines will use the line again.
    let serial = unsafe { &mut *SERIAL.as_mut_ptr() };
    let _ = fmt::Write::write_fmt(&mut Out(serial), arguments);
    serial.drain();
}
