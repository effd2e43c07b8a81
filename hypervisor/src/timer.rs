//! The one timer each CPU has: armed for the nearest thing the CPU must wake for. Arming it costs
//! an APIC write, so the deadline in force is remembered and the same one is not armed twice.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::cpu::{CPUS_MAX, this};
use crate::platform::apic;

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
