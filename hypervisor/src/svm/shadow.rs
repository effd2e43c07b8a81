//! The interrupt shadow across an exit.
//!
//! An exit between STI and the next instruction reports the shadow, and VMRUN restores it (APM 2,
//! 15.21.5). QEMU's TCG reports it and does not restore it: a virtual interrupt, requested to find the
//! window, would come before that instruction. For `sti; hlt` this is a lost wake-up. So while the
//! shadow lasts no window is asked for, the entry is kept short, and the shadow is believed until
//! the instruction has been executed.

use super::vcpu::SvmVcpu;
use super::vmcb::{intercept_1, virtual_interrupt};
use crate::platform::clock;

const SHADOW: u64 = 1;
/// How long the guest runs before the window is looked for again.
const ENTRY_TICKS: u64 = 200_000;
/// A jump to itself never moves RIP: after so many exits there the shadow is no longer believed.
const EXITS_MAX: u32 = 8;

/// What is known of the shadow at an entry.
pub(super) struct Shadow {
    /// RIP of the instruction in the shadow, when an interrupt waits behind it.
    rip: Option<u64>,
}

/// To be called before an entry: takes the request for a window back while there is a shadow.
#[inline]
pub(super) fn before_entry(vcpu: &mut SvmVcpu) -> Shadow {
    let vmcb = vcpu.vmcb_mut();
    if vmcb.interrupt_shadow & SHADOW == 0 {
        return Shadow { rip: None };
    }
    vmcb.virtual_interrupt &= !virtual_interrupt::IRQ;
    Shadow {
        rip: Some(vmcb.rip),
    }
}

impl Shadow {
    /// The deadline for this entry.
    #[inline]
    pub(super) fn deadline(&self, deadline_tsc: u64) -> u64 {
        match self.rip {
            None => deadline_tsc,
            Some(_) => deadline_tsc.min(clock::tsc().saturating_add(ENTRY_TICKS)),
        }
    }

    /// To be called after the exit.
    #[inline]
    pub(super) fn after_exit(self, vcpu: &mut SvmVcpu) {
        if let Some(rip) = self.rip {
            keep(vcpu, rip);
        }
    }
}

#[cold]
fn keep(vcpu: &mut SvmVcpu, rip: u64) {
    let believed = vcpu.shadow_exits < EXITS_MAX;
    let vmcb = vcpu.vmcb_mut();
    if vmcb.intercept_1 & intercept_1::VINTR != 0 {
        vmcb.virtual_interrupt |= virtual_interrupt::IRQ;
    }
    let stays = vmcb.rip == rip;
    if stays && believed {
        vmcb.interrupt_shadow |= SHADOW;
    }
    vcpu.shadow_exits = if stays { vcpu.shadow_exits + 1 } else { 0 };
}
