//! Time: the TSC, calibrated once against the PIT, because CPUID's own figures cannot be trusted
//! (an emulator may claim a real CPU's crystal).

use core::arch::x86_64::_rdtsc;
use core::sync::atomic::{AtomicU64, Ordering};

use godwit_vmm::calibration::{Run, Runs};
use godwit_vmm::time_scale::TimeScale;
use x86_64::instructions::port::Port;

static TSC_HZ: AtomicU64 = AtomicU64::new(0);
static BOOT_TSC: AtomicU64 = AtomicU64::new(0);
/// [`TimeScale::words`]; zeroes before calibration.
static SCALE: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// The PIT's input clock (Intel 8254).
const PIT_HZ: u64 = 1_193_182;
/// How long is measured: 10 ms keeps the error of one PIT tick below 0.01 %.
const MEASURE_PIT_TICKS: u64 = PIT_HZ / 100;
/// Looks at the PIT before it is given up: each takes about a microsecond of bus time.
const MEASURE_LOOKS_MAX: u32 = 10_000_000;

/// The TSC now.
#[inline]
pub(crate) fn tsc() -> u64 {
    // SAFETY: RDTSC reads a counter; CR4.TSD does not matter at CPL 0.
    unsafe { _rdtsc() }
}

/// TSC ticks a second.
pub(crate) fn tsc_hz() -> u64 {
    TSC_HZ.load(Ordering::Relaxed)
}

/// The TSC when the boot loader entered the image.
pub(crate) fn boot_tsc() -> u64 {
    BOOT_TSC.load(Ordering::Relaxed)
}

/// Notes when the machine was handed over.
pub(crate) fn set_boot_tsc(tsc: u64) {
    BOOT_TSC.store(tsc, Ordering::Relaxed);
}

#[inline]
fn scale() -> TimeScale {
    TimeScale::from_words([
        SCALE[0].load(Ordering::Relaxed),
        SCALE[1].load(Ordering::Relaxed),
    ])
}

/// TSC ticks as nanoseconds; zero before calibration.
#[inline]
pub(crate) fn ticks_to_ns(ticks: u64) -> u64 {
    scale().nanoseconds(ticks)
}

/// Nanoseconds since the hand-over.
pub(crate) fn now_ns() -> u64 {
    ticks_to_ns(tsc().wrapping_sub(boot_tsc()))
}

/// The TSC value at `ns` nanoseconds after the hand-over.
pub(crate) fn tsc_at_ns(ns: u64) -> u64 {
    boot_tsc().saturating_add(scale().ticks(ns))
}

/// Seconds and microseconds since the hand-over; zero before calibration.
pub(crate) fn since_boot_for_log() -> (u64, u64) {
    let micros = now_ns() / 1000;
    (micros / 1_000_000, micros % 1_000_000)
}

/// Waits without sleeping.
pub(crate) fn spin_ns(ns: u64) {
    let end = tsc().saturating_add(scale().ticks(ns));
    while tsc() < end {
        core::hint::spin_loop();
    }
}

/// Measures the TSC against PIT channel 2, and with it a second counter, which `start_second` starts
/// and `read_second` reads at the borders of the measured time. Returns that time in nanoseconds, and
/// what the second counter has counted in it.
pub(crate) fn calibrate(
    mut start_second: impl FnMut(),
    mut read_second: impl FnMut() -> u32,
) -> (u64, u32) {
    let mut runs = Runs::default();
    let best = loop {
        if let Some(best) = runs.take(measure(&mut start_second, &mut read_second)) {
            break best;
        }
    };
    if best.is_doubtful() {
        log::warn!(
            "this machine was never quiet while its TSC was measured: the rate may be wrong by {} of {} ticks",
            best.doubt_ticks,
            best.ticks
        );
    }
    let hz = best.ticks * PIT_HZ / MEASURE_PIT_TICKS;
    let Some(scale) = TimeScale::new(hz) else {
        panic!("the TSC runs at {hz} Hz: this machine's PIT or TSC does not work")
    };
    TSC_HZ.store(hz, Ordering::Relaxed);
    for (word, value) in SCALE.iter().zip(scale.words()) {
        word.store(value, Ordering::Relaxed);
    }
    (MEASURE_PIT_TICKS * 1_000_000_000 / PIT_HZ, best.second)
}

/// Counts in [`MEASURE_PIT_TICKS`] of the PIT.
fn measure(start_second: &mut impl FnMut(), read_second: &mut impl FnMut() -> u32) -> Run {
    let mut gate = Port::<u8>::new(0x61);
    let mut command = Port::<u8>::new(0x43);
    let mut channel = Port::<u8>::new(0x42);
    const GATE: u8 = 1;
    const SPEAKER: u8 = 2;
    const OUTPUT: u8 = 1 << 5;
    // SAFETY: the PIT's second channel drives only the speaker, which is switched off here. Mode 0
    // (interrupt on terminal count): OUT rises when the count is over.
    unsafe {
        let before = gate.read() & !(GATE | SPEAKER);
        gate.write(before);
        command.write(0b1011_0000);
        channel.write(MEASURE_PIT_TICKS as u8);
        // An 8254 counts from the opening of the gate, QEMU's in this mode from here.
        let before_start = tsc();
        channel.write((MEASURE_PIT_TICKS >> 8) as u8);
        start_second();
        gate.write(before | GATE);
        let start = tsc();
        let mut looks = 0;
        // When the last look that did not find the end began: what it saw may be old when it is known.
        let mut before_end = start;
        loop {
            let look = tsc();
            if gate.read() & OUTPUT != 0 {
                break;
            }
            before_end = look;
            looks += 1;
            assert!(
                looks < MEASURE_LOOKS_MAX,
                "this machine's PIT (8254) does not count: switch its clock on in the firmware setup"
            );
            core::hint::spin_loop();
        }
        let end = tsc();
        let second = read_second();
        let doubt_ticks = (start - before_start) + (tsc() - before_end);
        gate.write(before);
        Run {
            ticks: end - start,
            doubt_ticks,
            second,
        }
    }
}
