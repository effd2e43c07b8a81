//! The interrupt shadow across an exit.
//!
//! An exit between STI and the next instruction reports the shadow, and VMRUN restores it (APM 2,
//! 15.21.5). QEMU's TCG reports it and does not restore it: a virtual interrupt, requested to find the
//! window, would come before that instruction. For `sti; hlt` this is a lost wake-up. So while the
//! shadow lasts no window is asked for, the entry is kept short, and the shadow is believed until
//! the instruction has been executed.
//!
//! TCG has a second trap for whoever asks for a window (QEMU 7.2, `helper_vmrun` and `cpu_handle_interrupt`). VMRUN
//! notes the virtual interrupt without the lock that other threads hold who set pending interrupts of this CPU, so
//! one of theirs may get lost; and it leaves the vector of an injected interrupt behind as an exception to be raised when the
//! CPU is next asked to leave its loop. Both together deliver the injected interrupt a second time, at any place,
//! interrupts disabled or not, which no guest survives. So there an entry never does both: the window waits for the next one.

use super::vcpu::SvmVcpu;
use super::vmcb::{event, intercept_1, virtual_interrupt};
use crate::platform::clock;

const SHADOW: u64 = 1;
/// How long the guest runs before the window is looked for again.
const ENTRY_TICKS: u64 = 200_000;
/// A jump to itself never moves RIP: after so many exits there the shadow is no longer believed.
const EXITS_MAX: u32 = 8;

/// What became of the request for a window at an entry.
pub(super) enum Shadow {
    /// It stands, or there is none.
    Asked,
    /// Taken back: the instruction at this RIP is in the shadow.
    Behind(u64),
    /// Taken back: something is injected.
    Injecting,
}

/// To be called before an entry: takes the request for a window back where it would do harm.
#[inline]
pub(super) fn before_entry(vcpu: &mut SvmVcpu, is_tcg: bool) -> Shadow {
    let vmcb = vcpu.vmcb_mut();
    let shadow = if vmcb.interrupt_shadow & SHADOW != 0 {
        Shadow::Behind(vmcb.rip)
    } else if is_tcg
        && vmcb.event_injection & event::VALID != 0
        && vmcb.virtual_interrupt & virtual_interrupt::IRQ != 0
    {
        Shadow::Injecting
    } else {
        return Shadow::Asked;
    };
    vmcb.virtual_interrupt &= !virtual_interrupt::IRQ;
    shadow
}

impl Shadow {
    /// The deadline for this entry.
    #[inline]
    pub(super) fn deadline(&self, deadline_tsc: u64) -> u64 {
        match self {
            Self::Asked => deadline_tsc,
            Self::Behind(_) | Self::Injecting => {
                deadline_tsc.min(clock::tsc().saturating_add(ENTRY_TICKS))
            }
        }
    }

    /// To be called after the exit.
    #[inline]
    pub(super) fn after_exit(self, vcpu: &mut SvmVcpu) {
        match self {
            Self::Asked => {}
            Self::Behind(rip) => keep(vcpu, rip),
            Self::Injecting => ask_again(vcpu),
        }
    }
}

/// Requests the window that the entry did without.
fn ask_again(vcpu: &mut SvmVcpu) {
    let vmcb = vcpu.vmcb_mut();
    if vmcb.intercept_1 & intercept_1::VINTR != 0 {
        vmcb.virtual_interrupt |= virtual_interrupt::IRQ;
    }
}

#[cold]
fn keep(vcpu: &mut SvmVcpu, rip: u64) {
    let believed = vcpu.shadow_exits < EXITS_MAX;
    ask_again(vcpu);
    let vmcb = vcpu.vmcb_mut();
    let stays = vmcb.rip == rip;
    if stays && believed {
        vmcb.interrupt_shadow |= SHADOW;
    }
    vcpu.shadow_exits = if stays { vcpu.shadow_exits + 1 } else { 0 };
}
