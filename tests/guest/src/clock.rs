//! The guest's clocks. Where time is counted in instructions, a tick, a nanosecond and an
//! instruction are the same.

use crate::arguments::Arguments;
use std::time::Duration;

/// The time-stamp counter, in ticks; later loads and stores stay behind it.
pub(crate) fn ticks() -> u64 {
    // SAFETY: RDTSC and LFENCE exist on every x86-64 processor, and Linux lets user space use them.
    unsafe {
        std::arch::x86_64::_mm_lfence();
        let now = std::arch::x86_64::_rdtsc();
        std::arch::x86_64::_mm_lfence();
        now
    }
}

/// Prints it: in a guest, ticks since its machine was made.
pub(crate) fn print(_: &Arguments) -> Result<(), String> {
    println!("GUEST ticks={}", ticks());
    Ok(())
}

/// A clock of the kernel's.
fn clock(id: libc::clockid_t) -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` lives across the call, and the kernel writes one timespec there.
    let failed = unsafe { libc::clock_gettime(id, &raw mut time) };
    assert_eq!(failed, 0, "both clocks exist on every Linux");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Since the guest's boot, without what it slept.
pub(crate) fn monotonic() -> Duration {
    clock(libc::CLOCK_MONOTONIC)
}

/// Since the guest's boot, with what it slept.
pub(crate) fn boottime() -> Duration {
    clock(libc::CLOCK_BOOTTIME)
}
