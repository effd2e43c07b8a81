//! The one timer each CPU has: armed for the nearest thing the CPU must wake for. Arming it costs
//! an APIC write, so the deadline in force is remembered and the same one is not armed twice.
//!
//! # Interrupts that get lost
//!
//! QEMU's TCG clears a bit of a CPU's mask of pending interrupts at each #VMEXIT without the lock that those hold who set
//! others (`do_vmexit` in its `svm_helper.c`, 7.2): an interrupt that comes in that moment stays in the local APIC
//! and does not reach the CPU before another one comes. A guest that computes then keeps its CPU for ever; one or two a
//! second were lost with four busy vCPUs on two CPUs. So there, and there alone, the old interval timer interrupts the
//! first CPU periodically, and that CPU looks after the others' timers.

use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::instructions::port::Port;

use crate::cpu::features::is_tcg;
use crate::cpu::{self, CPUS_MAX, this, vectors};
use crate::platform::{apic, clock, ioapic};

/// How late a timer is that has been lost.
const LATE_NS: u64 = 10_000_000;
/// The interval timer's divisor: 50 Hz.
const HEARTBEAT_PIT_TICKS: u16 = 23864;
/// The interval timer's interrupt on the ISA bus.
const PIT_IRQ: u8 = 0;

static ARMED: [AtomicU64; CPUS_MAX] = [const { AtomicU64::new(u64::MAX) }; CPUS_MAX];

/// Asks for an interrupt on this CPU when the TSC reaches `deadline_tsc`; all ones for none.
pub(crate) fn arm(deadline_tsc: u64) {
    let slot = &ARMED[this().index as usize];
    if slot.load(Ordering::Relaxed) != deadline_tsc {
        slot.store(deadline_tsc, Ordering::Relaxed);
        apic::arm_timer(deadline_tsc);
    }
}

/// The timer has fired (or was programmed short): the next `arm` programs it again.
pub(crate) fn forget() {
    ARMED[this().index as usize].store(u64::MAX, Ordering::Relaxed);
}

/// Lets the interval timer interrupt the first CPU, where interrupts get lost.
pub(crate) fn start_heartbeat(first_apic_id: u32) {
    if !is_tcg() || !ioapic::route(ioapic::isa_line(PIT_IRQ), vectors::HEARTBEAT, first_apic_id) {
        return;
    }
    // SAFETY: the interval timer's channel 0 is the hypervisor's: no domain is let through to it. Mode 2 counts for ever.
    unsafe {
        Port::<u8>::new(0x43).write(0b0011_0100);
        let mut channel = Port::<u8>::new(0x40);
        channel.write(HEARTBEAT_PIT_TICKS as u8);
        channel.write((HEARTBEAT_PIT_TICKS >> 8) as u8);
    }
}

/// The interval timer has interrupted: kicks the CPUs whose own timer is long overdue.
pub(crate) fn heartbeat() {
    let oldest = clock::tsc_at_ns(clock::now_ns().saturating_sub(LATE_NS));
    for other in cpu::online().filter(|other| other.index != this().index) {
        if ARMED[other.index as usize].load(Ordering::Relaxed) < oldest {
            log::debug!("the timer interrupt of CPU {} was lost", other.index);
            other.kicked.store(true, Ordering::Release);
            apic::kick(other.apic_id);
        }
    }
}
