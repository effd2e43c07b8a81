//! The local APIC: x2APIC by MSRs; memory-mapped only where CPUID has no x2APIC (QEMU 7.2's TCG).

use crate::cpu;
use core::sync::atomic::{AtomicBool, Ordering};

/// Register numbers: MSR 0x800 + n in x2APIC mode, offset 16 n in xAPIC mode.
pub(crate) const ID: u32 = 0x02;
pub(crate) const TPR: u32 = 0x08;
pub(crate) const PPR: u32 = 0x0a;
const EOI: u32 = 0x0b;
const SPURIOUS: u32 = 0x0f;
pub(crate) const ISR: u32 = 0x10;
pub(crate) const IRR: u32 = 0x20;
const ICR: u32 = 0x30;
const LVT_TIMER: u32 = 0x32;
const LVT_LINT0: u32 = 0x35;
pub(crate) const TIMER_INITIAL: u32 = 0x38;
pub(crate) const TIMER_CURRENT: u32 = 0x39;
const TIMER_DIVIDE: u32 = 0x3e;
const SELF_IPI: u32 = 0x3f;

pub(crate) const MSR_APIC_BASE: u32 = 0x1b;
pub(crate) const MSR_TSC_DEADLINE: u32 = 0x6e0;
/// MSR of a register in x2APIC mode.
pub(crate) const X2APIC_MSR_BASE: u32 = 0x800;
const MMIO_BASE: u64 = 0xfee0_0000;
const LVT_MASKED: u32 = 1 << 16;

static X2APIC: AtomicBool = AtomicBool::new(false);

/// Timer modes, as LVT bits 18:17 give them.
#[derive(Clone, Copy)]
pub(crate) enum TimerMode {
    OneShot = 0,
    Periodic = 1,
    TscDeadline = 2,
}

/// Whether the APIC is in x2APIC mode.
pub(crate) fn is_x2apic() -> bool {
    X2APIC.load(Ordering::Relaxed)
}

/// Reads a register.
pub(crate) fn read(register: u32) -> u32 {
    if is_x2apic() {
        cpu::read_msr(X2APIC_MSR_BASE + register) as u32
    } else {
        // SAFETY: entry.rs maps this address to itself, uncached; APIC reads of the registers above have no side effect.
        unsafe { ((MMIO_BASE + u64::from(register) * 16) as *const u32).read_volatile() }
    }
}

/// Writes a register.
pub(crate) fn write(register: u32, value: u32) {
    // SAFETY: the APIC sends interrupts to this CPU only, on vectors for which the IDT has gates; its registers
    // are mapped as for `read`.
    unsafe {
        if is_x2apic() {
            cpu::write_msr(X2APIC_MSR_BASE + register, u64::from(value));
        } else {
            ((MMIO_BASE + u64::from(register) * 16) as *mut u32).write_volatile(value);
        }
    }
}

/// Turns the APIC on, timer masked, the legacy PICs masked; gives whether it is in x2APIC mode.
pub(crate) fn enable() -> bool {
    cpu::out8(0x21, 0xff);
    cpu::out8(0xa1, 0xff);
    let offered = cpu::cpuid(1, 0).ecx & 1 << 21 != 0;
    let base = cpu::read_msr(MSR_APIC_BASE) | 1 << 11;
    // SAFETY: enabling the APIC, then x2APIC mode (SDM 3A 11.12.5 has this order), changes no memory mapping.
    unsafe {
        cpu::write_msr(MSR_APIC_BASE, base);
        if offered {
            cpu::write_msr(MSR_APIC_BASE, base | 1 << 10);
        }
    }
    X2APIC.store(offered, Ordering::Relaxed);
    write(SPURIOUS, 0x1ff);
    write(LVT_LINT0, LVT_MASKED);
    stop_timer();
    write(TPR, 0);
    offered
}

/// Acknowledges the interrupt in service.
#[inline(always)]
pub(crate) fn end_of_interrupt() {
    write(EOI, 0);
}

/// Sends an interrupt to this CPU through the ICR (shorthand self, fixed).
pub(crate) fn send_self(vector: u8) {
    write(ICR, 0x4_0000 | u32::from(vector));
    // An xAPIC reports "pending" until the interrupt is accepted; x2APIC has no such bit.
    while !is_x2apic() && read(ICR) & 1 << 12 != 0 {
        core::hint::spin_loop();
    }
}

/// Sends an interrupt to this CPU through x2APIC's self-IPI register.
pub(crate) fn send_self_x2(vector: u8) {
    write(SELF_IPI, u32::from(vector));
}

/// Whether a bit of a 256-bit register set ([`ISR`] or [`IRR`]) is on.
pub(crate) fn vector_bit(set: u32, vector: u8) -> bool {
    read(set + u32::from(vector / 32)) & 1 << (vector % 32) != 0
}

/// Sets the timer's mode and vector, divider 1; it does not run yet.
pub(crate) fn prepare_timer(mode: TimerMode, vector: u8) {
    write(TIMER_DIVIDE, 0b1011);
    write(LVT_TIMER, (mode as u32) << 17 | u32::from(vector));
}

/// Arms the timer to fire at a time-stamp (TSC-deadline mode); 0 disarms.
pub(crate) fn write_deadline(deadline_tsc: u64) {
    // SAFETY: the timer's vector has a gate.
    unsafe { cpu::write_msr(MSR_TSC_DEADLINE, deadline_tsc) }
}

/// Stops and masks the timer.
pub(crate) fn stop_timer() {
    write(LVT_TIMER, LVT_MASKED | 0xff);
    write(TIMER_INITIAL, 0);
}

/// Timer ticks in about `spin_tsc` time-stamp ticks: gives (timer ticks, time-stamp ticks).
pub(crate) fn measure_timer(spin_tsc: u64) -> (u64, u64) {
    prepare_timer(TimerMode::OneShot, 0xff);
    write(LVT_TIMER, LVT_MASKED | 0xff);
    write(TIMER_INITIAL, u32::MAX);
    let (tsc_start, timer_start) = (cpu::tsc(), read(TIMER_CURRENT));
    while cpu::tsc() - tsc_start < spin_tsc {
        core::hint::spin_loop();
    }
    let (timer_end, tsc_end) = (read(TIMER_CURRENT), cpu::tsc());
    stop_timer();
    (u64::from(timer_start - timer_end), tsc_end - tsc_start)
}
