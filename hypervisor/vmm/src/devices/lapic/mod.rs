//! Local APIC of a vCPU (SDM 3A chapter 11), driven by MSRs in x2APIC mode and by register offsets in xAPIC mode, over one
//! register file.
//!
//! The model holds interrupts and the timer; it delivers nothing by itself. The run loop calls [`Lapic::expire`] with the time and
//! then [`Lapic::pending`] before each entry, injects, and says [`Lapic::acknowledge`]. What concerns others (an IPI, an end of
//! interrupt for the I/O APIC, a new timer deadline) comes back as an [`Effect`].
//!
//! Invariants: `isr_highest` is the highest vector of `isr`; IRR and ISR hold no vector below 16; in x2APIC mode the logical ID
//! follows from the APIC ID; while the APIC is software-disabled every LVT entry is masked.

mod access;
mod address;
mod delivery;
mod ipi;
#[cfg(test)]
mod laws;
mod saved;
#[cfg(test)]
mod tests;
mod timer;
mod vectors;

pub use address::Address;
pub use delivery::{Delivery, LocalSource, Trigger};
pub use ipi::{BROADCAST, Destination, Ipi, IpiMode};
pub use saved::LapicState;
pub use timer::{BUS_HZ, Countdown, TimerMode};
pub use vectors::VectorSet;

use super::TscRate;
use timer::Timer;

/// MSR of the APIC's base address and mode.
pub const IA32_APIC_BASE: u32 = 0x1B;
/// MSR of the TSC-deadline timer.
pub const IA32_TSC_DEADLINE: u32 = 0x6E0;
/// First and last MSR of the x2APIC register space.
pub const X2APIC_MSR_FIRST: u32 = 0x800;
/// See [`X2APIC_MSR_FIRST`].
pub const X2APIC_MSR_LAST: u32 = 0x8FF;
/// Where the xAPIC registers lie after reset (guest-physical).
pub const APIC_BASE_DEFAULT: u64 = 0xFEE0_0000;

/// Integrated APIC with six LVT entries (no CMCI), no EOI-broadcast suppression.
const VERSION: u32 = 0x0005_0014;
const LVT_MASKED: u32 = 1 << 16;
const LVT_COUNT: usize = 6;
const SVR_ENABLE: u32 = 1 << 8;
const SVR_RESET: u32 = 0xFF;

/// How the APIC is switched on (IA32_APIC_BASE bits 11 and 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApicMode {
    /// Off: interrupts reach the CPU from the PIC alone.
    Disabled,
    /// Registers in memory, 8-bit IDs.
    XApic,
    /// Registers in MSRs, 32-bit IDs.
    X2Apic,
}

/// What a register write asks of the rest of the hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Effect {
    /// Nothing.
    None,
    /// [`Lapic::pending`] may answer differently now.
    PendingChanged,
    /// [`Lapic::next_deadline`] may answer differently now.
    TimerChanged,
    /// Send this to the other vCPUs (and to this one where addressed).
    Ipi(Ipi),
    /// A level-triggered interrupt ended: tell the I/O APIC. Implies `PendingChanged`.
    EndOfLevel(u8),
    /// Mode, base address or logical id changed: where the registers appear, who is addressed by
    /// what, and with it `pending`.
    ModeChanged,
}

/// One local APIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lapic {
    rate: TscRate,
    id: u32,
    bootstrap: bool,
    mode: ApicMode,
    base: u64,
    tpr: u32,
    /// 0 for none.
    isr_highest: u8,
    isr: VectorSet,
    irr: VectorSet,
    tmr: VectorSet,
    svr: u32,
    /// LDR and DFR of xAPIC mode.
    ldr: u32,
    dfr: u32,
    esr: u32,
    /// Errors since the last ESR write, which that write makes readable.
    esr_gathering: u32,
    icr: u64,
    /// Timer, thermal, performance, LINT0, LINT1, error: registers 0x32..=0x37.
    lvt: [u32; LVT_COUNT],
    timer: Timer,
}

impl Lapic {
    /// An APIC after power-up (SDM 3A 11.4.7.1), in xAPIC mode. `rate` is that of the guest's TSC.
    pub fn new(id: u32, bootstrap: bool, rate: TscRate) -> Lapic {
        Lapic {
            rate,
            id,
            bootstrap,
            mode: ApicMode::XApic,
            base: APIC_BASE_DEFAULT,
            tpr: 0,
            isr_highest: 0,
            isr: VectorSet::default(),
            irr: VectorSet::default(),
            tmr: VectorSet::default(),
            svr: SVR_RESET,
            ldr: 0,
            dfr: u32::MAX,
            esr: 0,
            esr_gathering: 0,
            icr: 0,
            lvt: [LVT_MASKED; LVT_COUNT],
            timer: Timer::RESET,
        }
    }

    /// An APIC as firmware hands it to an operating system: enabled, and on the bootstrap CPU in virtual-wire mode (LINT0 passes
    /// the PIC through, LINT1 is NMI; MultiProcessor Specification 3.6.2.2). Guests that are loaded without firmware get this.
    pub fn after_firmware(id: u32, bootstrap: bool, mode: ApicMode, rate: TscRate) -> Lapic {
        let mut lapic = Lapic {
            mode,
            ..Lapic::new(id, bootstrap, rate)
        };
        lapic.svr |= SVR_ENABLE;
        lapic.lvt[4] = 0x400;
        if bootstrap {
            lapic.lvt[3] = 0x700;
        }
        lapic
    }

    /// INIT: everything but ID, mode and base goes back to its reset value (SDM 3A 11.4.7.3).
    pub fn init(&mut self) {
        *self = Lapic {
            mode: self.mode,
            base: self.base,
            ..Lapic::new(self.id, self.bootstrap, self.rate)
        };
    }

    /// APIC ID, 32 bits wide in either mode.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Whether this is the bootstrap processor's APIC.
    pub fn is_bootstrap(&self) -> bool {
        self.bootstrap
    }

    /// How the APIC is switched on.
    pub fn mode(&self) -> ApicMode {
        self.mode
    }

    /// Guest-physical address of the xAPIC registers.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Processor-priority register (SDM 3A 11.8.3.1).
    #[inline]
    fn ppr(&self) -> u32 {
        let in_service = u32::from(self.isr_highest);
        if self.tpr >> 4 >= in_service >> 4 {
            self.tpr
        } else {
            in_service & 0xF0
        }
    }

    /// The task-priority class (TPR bits 7:4), which is CR8.
    #[inline]
    pub fn cr8(&self) -> u64 {
        u64::from(self.tpr >> 4)
    }

    /// MOV to CR8. The caller has refused values above 15.
    #[inline]
    pub fn set_cr8(&mut self, class: u64) {
        self.tpr = (class as u32 & 0xF) << 4;
    }

    /// Guest TSC at which [`Lapic::expire`] will have something to do; `None` when the timer is off or masked.
    #[inline]
    pub fn next_deadline(&self) -> Option<u64> {
        if self.lvt[0] & LVT_MASKED != 0 || self.mode == ApicMode::Disabled {
            return None;
        }
        self.timer.due_tsc()
    }

    /// The guest writes its TSC, which was `old_tsc` and is `new_tsc` from now on.
    pub fn tsc_moved(&mut self, old_tsc: u64, new_tsc: u64) {
        self.expire(old_tsc);
        self.timer.tsc_moved(old_tsc, new_tsc, self.rate);
    }

    /// Lets the timer catch up with the guest TSC; true if it made an interrupt pending.
    #[inline]
    pub fn expire(&mut self, now_tsc: u64) -> bool {
        self.timer.expire(now_tsc, self.rate)
            && matches!(
                self.signal(LocalSource::Timer),
                Delivery::Accepted {
                    newly_pending: true
                }
            )
    }
}
