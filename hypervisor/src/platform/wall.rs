//! The host's time of day: its CMOS clock, read once at boot, and the TSC from there on.

use core::sync::atomic::{AtomicU64, Ordering};

use godwit_vmm::devices::rtc::{DATA_PORT, INDEX_PORT, wall_clock_seconds};
use x86_64::instructions::port::Port;

use super::clock;

const SECOND_NS: u64 = 1_000_000_000;

/// Nanoseconds since 1970 at the hand-over; 0: there is no clock.
static AT_BOOT: AtomicU64 = AtomicU64::new(0);

/// Reads the clock. `century`: the register that keeps the century, 0 for none (FADT).
pub(crate) fn init(century: u8) {
    let read = |register: u8| {
        // SAFETY: the index and data ports of the CMOS clock; reading the registers asked for has no
        // side effects. The index is written with bit 7 clear, which leaves NMIs on. Nobody else
        // uses the ports: only the first CPU has been started.
        unsafe {
            Port::<u8>::new(INDEX_PORT).write(register);
            Port::<u8>::new(DATA_PORT).read()
        }
    };
    let century = (century != 0).then_some(century & 0x7f);
    match wall_clock_seconds(century, read) {
        Some(seconds) => {
            let since_boot = clock::now_ns();
            AT_BOOT.store(
                (seconds * SECOND_NS).saturating_sub(since_boot).max(1),
                Ordering::Relaxed,
            );
        }
        None => log::warn!("no CMOS clock, or it is not set: the time of day is unknown"),
    }
}

/// Nanoseconds since 1970.
pub(crate) fn now_ns() -> Option<u64> {
    match AT_BOOT.load(Ordering::Relaxed) {
        0 => None,
        at_boot => Some(at_boot + clock::now_ns()),
    }
}
