//! What dom0 asks for and only a CPU between two entries can do: load another vCPU to read its
//! registers, or switch the machine off. The hypercall leaves an errand and blocks; the run loop
//! carries it out before it would put dom0 to sleep; dom0 repeats the call and finds the result.

use alloc::boxed::Box;
use alloc::sync::Arc;

use godwit_abi::PowerAction;
use godwit_records::VcpuState;
use godwit_vmm::hardware::VcpuHardware;
use godwit_vmm::sched::VcpuKey;
use godwit_vmm::vcpu::Next;

use super::domain::VcpuSlot;
use super::{Host, Hosted};
use crate::platform::{clock, power};

/// At most one errand at a time: dom0 has one vCPU and waits for it.
pub(super) enum Errand<B: Hosted> {
    None,
    /// Read this vCPU's registers.
    Save(Arc<VcpuSlot<B>>),
    /// Here they are.
    Saved(VcpuKey, Box<VcpuState>),
    Power(PowerAction),
}

impl<B: Hosted> Host<B> {
    /// Carries out what waits. `dom0` is loaded on this CPU, before and after. Returns whether
    /// there was anything: then dom0 repeats its call at once.
    pub(super) fn run_errand(&'static self, cpu: &mut B::Cpu, dom0: &mut B::Vcpu) -> bool {
        let errand = core::mem::replace(&mut *self.errand.lock(), Errand::None);
        match errand {
            Errand::None => false,
            saved @ Errand::Saved(..) => {
                *self.errand.lock() = saved;
                false
            }
            Errand::Save(slot) => {
                B::unload(cpu, dom0);
                let saved = self.save_vcpu(cpu, &slot);
                B::load(cpu, dom0);
                *self.errand.lock() = Errand::Saved(slot.key, Box::new(saved));
                true
            }
            Errand::Power(action) => {
                B::unload(cpu, dom0);
                match action {
                    PowerAction::Reboot => self.stop_machine(cpu, |power| power::restart(power)),
                    PowerAction::PowerOff => self.stop_machine(cpu, power::off),
                }
                panic!("the machine does not switch off: do it by hand");
            }
        }
    }

    fn save_vcpu(&'static self, cpu: &mut B::Cpu, slot: &VcpuSlot<B>) -> VcpuState {
        let mut guard = slot.state.lock();
        let inner = &mut *guard;
        if let Some(pending) = &inner.pending_state {
            return VcpuState::clone(pending);
        }
        B::load(cpu, &mut inner.hardware);
        // An answer that has come belongs to the state; a question that stands does not, it is asked again.
        if inner.core.awaits_answer()
            && slot.exchange.is_answered()
            && let Some(runnable) = self.runnable(slot.key)
        {
            let mut world = self.world_of(&runnable);
            let next = inner.core.resume_access(&mut inner.hardware, &mut world);
            inner.halted = next == Next::Wait;
            if let Next::End(ending) = next {
                self.note_end(&runnable.domain, ending);
            }
        }
        let mut state = inner.hardware.save();
        B::unload(cpu, &mut inner.hardware);
        state.xcr0 = inner.xstate.saved_xcr0();
        state.tsc = inner.core.guest_tsc(clock::tsc());
        state.cr8 = inner.core.lapic.cr8();
        state.activity = inner.core.activity(inner.halted);
        state
    }
}
