//! `bench`: what an exit costs. `EB <name> iters=N ticks=T`: T time-stamp ticks for N times, least of five runs.
//!
//! Nothing is subtracted; the empty loop is a line of its own.

use crate::apic::{self, TimerMode};
use crate::command_line::Arguments;
use crate::console::DEBUG_PORT;
use crate::cpu::{self, Host, cpuid};
use crate::report::Verdict;
use crate::start_info::StartInfo;
use crate::tests::{device, hypercall, port};
use crate::{check, say};

/// Iterations unless `iters=` says otherwise.
const ITERS_DEFAULT: u64 = 1000;
const RUNS: u64 = 5;
const PAGE_BYTES: u64 = 4096;
const TIMER_VECTOR: u8 = 0x50;
/// How far ahead a wake is set.
const WAKE_TSC: u64 = 200_000;
/// Most accesses to a device in dom0 a run measures.
const DEVICE_ACCESSES_MAX: u64 = 500;
/// Most wakes a run measures: each takes at least [`WAKE_TSC`].
const WAKES_MAX: u64 = 200;

/// Time-stamp ticks of `iters` times `work`, least of [`RUNS`].
#[inline(always)]
fn measure(name: &str, iters: u64, mut work: impl FnMut()) {
    let mut least = u64::MAX;
    for _ in 0..RUNS {
        let start = cpu::tsc();
        for _ in 0..iters {
            // An empty statement the compiler must keep, so that the empty loop is a loop.
            // SAFETY: no instruction at all.
            unsafe { core::arch::asm!("", options(nomem, nostack, preserves_flags)) }
            work();
        }
        least = least.min(cpu::tsc() - start);
    }
    say!("EB {name} iters={iters} ticks={least}");
}

pub(crate) fn run(info: &StartInfo, arguments: &Arguments) -> Verdict {
    let iters = arguments.iters.unwrap_or(ITERS_DEFAULT);
    check!(iters > 0, "iters must be at least 1");
    let x2apic = apic::enable();
    measure("empty", iters, || {});
    measure("rdtsc", iters, || {
        // SAFETY: RDTSC at CPL 0.
        unsafe { core::arch::x86_64::_rdtsc() };
    });
    measure("cpuid", iters, || {
        core::hint::black_box(cpuid(0, 0));
    });
    measure("port-pic", iters, || {
        cpu::in8(0x21);
    });
    measure("port-debug", iters, || {
        cpu::in8(DEBUG_PORT);
    });
    measure("port-out-80", iters, || cpu::out8(0x80, 0));
    measure("port-unused", iters, || {
        cpu::in8(port::UNUSED_PORT);
    });
    measure("pm-timer", iters, || {
        cpu::in32(port::PM_TIMER);
    });
    match device::enable() {
        Some(port) => measure("port-device", iters.min(DEVICE_ACCESSES_MAX), || {
            cpu::in8(port);
        }),
        None => say!("skip: port-device, no device in dom0"),
    }
    let base = cpu::read_msr(apic::MSR_APIC_BASE);
    measure("rdmsr-apic-base", iters, || {
        cpu::read_msr(apic::MSR_APIC_BASE);
    });
    // SAFETY: the value it has.
    measure("wrmsr-apic-base", iters, || unsafe {
        cpu::write_msr(apic::MSR_APIC_BASE, base)
    });
    if x2apic {
        measure("rdmsr-tpr", iters, || {
            apic::read(apic::TPR);
        });
        measure("wrmsr-tpr", iters, || apic::write(apic::TPR, 0));
    } else {
        say!("skip: rdmsr-tpr and wrmsr-tpr, no x2APIC");
    }
    if cpu::host() == Host::Godwit {
        let vendor = cpu::vendor();
        measure("hypercall-nop", iters, || {
            hypercall::nop(vendor);
        });
    } else {
        say!("skip: hypercall-nop, not under Godwit");
    }
    wakes(iters.min(WAKES_MAX));
    first_touch(info, iters);
    Ok(())
}

/// From the deadline to the first instruction after HLT; without TSC deadlines, the whole halt of a timer
/// set [`WAKE_TSC`] ahead.
fn wakes(iters: u64) {
    let deadline = cpuid(1, 0).ecx & 1 << 24 != 0;
    let (timer_ticks, tsc_ticks) = apic::measure_timer(WAKE_TSC * 10);
    let count = (WAKE_TSC * timer_ticks / tsc_ticks).max(1) as u32;
    apic::prepare_timer(
        if deadline {
            TimerMode::TscDeadline
        } else {
            TimerMode::OneShot
        },
        TIMER_VECTOR,
    );
    let mut least = u64::MAX;
    for _ in 0..RUNS {
        let mut total = 0;
        for _ in 0..iters {
            let start = if deadline {
                let due = cpu::tsc() + WAKE_TSC;
                apic::write_deadline(due);
                due
            } else {
                apic::write(apic::TIMER_INITIAL, count);
                cpu::tsc()
            };
            cpu::halt_once();
            total += cpu::tsc().saturating_sub(start);
        }
        least = least.min(total);
    }
    apic::stop_timer();
    let name = if deadline {
        "hlt-wake-latency"
    } else {
        "hlt-wake-whole"
    };
    say!("EB {name} iters={iters} ticks={least}");
}

/// First write to pages nothing has touched yet: each run takes new ones, from the top of RAM down.
fn first_touch(info: &StartInfo, iters: u64) {
    let Some(region) = info
        .free_ram()
        .max_by_key(|region| region.end - region.start)
    else {
        say!("skip: first-touch, no free RAM");
        return;
    };
    let pages = iters.min((region.end - region.start) / PAGE_BYTES / RUNS);
    let mut page = region.end;
    let mut least = u64::MAX;
    for _ in 0..RUNS {
        let start = cpu::tsc();
        for _ in 0..pages {
            page -= PAGE_BYTES;
            // SAFETY: free RAM, mapped to itself, holding no Rust object.
            unsafe { (page as *mut u64).write_volatile(1) }
        }
        least = least.min(cpu::tsc() - start);
    }
    say!("EB first-touch iters={pages} ticks={least}");
}
