//! The local APIC of the host's CPUs: x2APIC where there is one, else by memory (SDM 3A, 12).

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use x86_64::registers::model_specific::Msr;

use super::clock;
use crate::cpu::{features, vectors};
use crate::memory::tables::map_device;

const IA32_APIC_BASE: u32 = 0x1b;
const IA32_TSC_DEADLINE: u32 = 0x6e0;
const BASE_ENABLE: u64 = 1 << 11;
const BASE_X2APIC: u64 = 1 << 10;

/// Register numbers: offset in the xAPIC page divided by 16; MSR 800h + number in x2APIC mode.
const ID: u32 = 0x02;
const TPR: u32 = 0x08;
const EOI: u32 = 0x0b;
const SVR: u32 = 0x0f;
/// First of eight words of requested interrupts.
const IRR_FIRST: u32 = 0x20;
const ICR_LOW: u32 = 0x30;
const ICR_HIGH: u32 = 0x31;
const LVT_TIMER: u32 = 0x32;
const LVT_LINT0: u32 = 0x35;
const LVT_LINT1: u32 = 0x36;
const TIMER_INITIAL: u32 = 0x38;
const TIMER_CURRENT: u32 = 0x39;
const TIMER_DIVIDE: u32 = 0x3e;

const SVR_ENABLE: u32 = 1 << 8;
const LVT_MASKED: u32 = 1 << 16;
const LVT_NMI: u32 = 4 << 8;
const LVT_TSC_DEADLINE: u32 = 2 << 17;
const DIVIDE_BY_1: u32 = 0b1011;
const ICR_INIT: u32 = 5 << 8;
const ICR_STARTUP: u32 = 6 << 8;
const ICR_ASSERT: u32 = 1 << 14;
const ICR_PENDING: u32 = 1 << 12;
const ICR_ALL_BUT_SELF: u32 = 3 << 18;

static X2APIC: AtomicBool = AtomicBool::new(false);
static DEADLINE_MODE: AtomicBool = AtomicBool::new(false);
static PAGE: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
/// Timer ticks = TSC ticks * TIMER_RATIO >> 32, for CPUs without TSC-deadline mode.
static TIMER_RATIO: AtomicU64 = AtomicU64::new(0);
/// Set once the APIC may be touched at all (an epitaph may come before).
static READY: AtomicBool = AtomicBool::new(false);

fn read(register: u32) -> u32 {
    if X2APIC.load(Ordering::Relaxed) {
        // SAFETY: reading a local APIC register; all those used here exist.
        return unsafe { Msr::new(0x800 + register).read() as u32 };
    }
    let page = PAGE.load(Ordering::Relaxed);
    // SAFETY: PAGE is the mapped APIC page; registers are 32 bits wide, 16 bytes apart.
    unsafe {
        page.add(register as usize * 16)
            .cast::<u32>()
            .read_volatile()
    }
}

fn write(register: u32, value: u32) {
    if X2APIC.load(Ordering::Relaxed) {
        // SAFETY: as in `read`; the values written are valid for their registers.
        unsafe { Msr::new(0x800 + register).write(value.into()) };
        return;
    }
    let page = PAGE.load(Ordering::Relaxed);
    // SAFETY: as in `read`.
    unsafe {
        page.add(register as usize * 16)
            .cast::<u32>()
            .write_volatile(value)
    };
}

/// Whether x2APIC mode is in use.
pub(crate) fn is_x2apic() -> bool {
    X2APIC.load(Ordering::Relaxed)
}

/// Switches this CPU's APIC on.
pub(crate) fn enable() {
    let mut base = Msr::new(IA32_APIC_BASE);
    // SAFETY: the mode is raised only (disabled -> xAPIC -> x2APIC), which is always allowed; the
    // page stays where firmware put it.
    let page = unsafe {
        let mut value = base.read() | BASE_ENABLE;
        base.write(value);
        if features::has_x2apic() {
            value |= BASE_X2APIC;
            base.write(value);
            X2APIC.store(true, Ordering::Relaxed);
        }
        value & 0x000f_ffff_ffff_f000
    };
    if !X2APIC.load(Ordering::Relaxed) && PAGE.load(Ordering::Relaxed).is_null() {
        PAGE.store(map_device(page, 4096), Ordering::Relaxed);
    }
    DEADLINE_MODE.store(
        features::has_tsc_deadline() && deadline_waits(),
        Ordering::Relaxed,
    );
    write(TPR, 0);
    write(LVT_LINT0, LVT_MASKED);
    write(LVT_LINT1, LVT_NMI);
    write(SVR, SVR_ENABLE | u32::from(vectors::SPURIOUS));
    write(TIMER_DIVIDE, DIVIDE_BY_1);
    write(LVT_TIMER, timer_mode());
    READY.store(true, Ordering::Release);
}

/// Whether a deadline that is a million ticks away stays away for a moment. An emulator may compare it with a clock that a
/// reset does not set back, unlike the TSC: then every deadline fires at once, and the one-shot
/// timer is used instead. The interrupt that this leaves pending is taken as any timer's.
fn deadline_waits() -> bool {
    const AHEAD_TICKS: u64 = 1 << 20;
    const LOOKS: u32 = 64;
    let vector = u32::from(vectors::TIMER);
    write(SVR, SVR_ENABLE | u32::from(vectors::SPURIOUS));
    write(LVT_TIMER, vector | LVT_TSC_DEADLINE);
    let mut deadline = Msr::new(IA32_TSC_DEADLINE);
    // SAFETY: CPUID lists the register; 0 disarms.
    unsafe { deadline.write(clock::tsc().saturating_add(AHEAD_TICKS)) };
    let fired = (0..LOOKS).any(|_| read(IRR_FIRST + vector / 32) & 1 << (vector % 32) != 0);
    // SAFETY: as above.
    unsafe { deadline.write(0) };
    !fired
}

fn timer_mode() -> u32 {
    let mode = if DEADLINE_MODE.load(Ordering::Relaxed) {
        LVT_TSC_DEADLINE
    } else {
        0
    };
    u32::from(vectors::TIMER) | mode
}

/// This CPU's APIC id.
pub(crate) fn own_id() -> u32 {
    if !READY.load(Ordering::Acquire) {
        return 0;
    }
    let id = read(ID);
    if is_x2apic() { id } else { id >> 24 }
}

/// Measures TSC and APIC timer in one run; the timer only where it is needed.
pub(crate) fn calibrate() {
    write(LVT_TIMER, u32::from(vectors::TIMER) | LVT_MASKED);
    let (measured_ns, ticks) = clock::calibrate(
        || write(TIMER_INITIAL, u32::MAX),
        || u32::MAX - read(TIMER_CURRENT),
    );
    write(TIMER_INITIAL, 0);
    write(LVT_TIMER, timer_mode());
    let timer_hz = u128::from(ticks) * 1_000_000_000 / u128::from(measured_ns);
    TIMER_RATIO.store(
        ((timer_hz << 32) / u128::from(clock::tsc_hz())) as u64,
        Ordering::Relaxed,
    );
}

/// Asks for an interrupt on this CPU when the TSC reaches `deadline_tsc`; all ones for none.
pub(crate) fn arm_timer(deadline_tsc: u64) {
    if DEADLINE_MODE.load(Ordering::Relaxed) {
        let value = if deadline_tsc == u64::MAX {
            0
        } else {
            deadline_tsc.max(1)
        };
        // SAFETY: CPUID lists the register; 0 disarms.
        unsafe { Msr::new(IA32_TSC_DEADLINE).write(value) };
        return;
    }
    if deadline_tsc == u64::MAX {
        write(TIMER_INITIAL, 0);
        return;
    }
    let ahead = deadline_tsc.saturating_sub(clock::tsc());
    let ticks = (u128::from(ahead) * u128::from(TIMER_RATIO.load(Ordering::Relaxed))) >> 32;
    // A count that does not fit comes early and is armed again.
    write(TIMER_INITIAL, ticks.clamp(1, u32::MAX.into()) as u32);
}

/// The timer's interrupt has come: nothing is armed any more.
pub(crate) fn timer_fired() {
    crate::timer::forget();
}

/// Ends the interrupt in service.
pub(crate) fn end_of_interrupt() {
    write(EOI, 0);
}

fn send(apic_id: u32, command: u32) {
    if is_x2apic() {
        // SAFETY: ICR with a valid command; x2APIC mode takes destination and command at once.
        unsafe { Msr::new(0x800 + ICR_LOW).write(u64::from(apic_id) << 32 | u64::from(command)) };
        return;
    }
    write(ICR_HIGH, apic_id << 24);
    write(ICR_LOW, command);
    while read(ICR_LOW) & ICR_PENDING != 0 {
        core::hint::spin_loop();
    }
}

/// Makes another CPU look at its run queue.
pub(crate) fn kick(apic_id: u32) {
    send(apic_id, u32::from(vectors::KICK) | ICR_ASSERT);
}

/// Stops all other CPUs.
pub(crate) fn halt_others() {
    if READY.load(Ordering::Acquire) {
        send(0, u32::from(vectors::HALT) | ICR_ASSERT | ICR_ALL_BUT_SELF);
    }
}

/// INIT, for a CPU that is to be started (SDM 3A, 10.4.4).
pub(crate) fn send_init(apic_id: u32) {
    send(apic_id, ICR_INIT | ICR_ASSERT);
}

/// Start-up IPI: the CPU begins in real mode at `page` * 4096.
pub(crate) fn send_startup(apic_id: u32, page: u8) {
    send(apic_id, ICR_STARTUP | ICR_ASSERT | u32::from(page));
}
