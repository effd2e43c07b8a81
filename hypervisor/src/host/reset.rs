//! Putting a domain back to where it was built: the guest's reboot, on dom0's behalf.
//!
//! Memory stays as it is; whoever resets loads it anew and sets the registers of the first vCPU. The
//! domain's TSC goes on, and with it the time of its clocks.

use alloc::boxed::Box;

use core::sync::atomic::Ordering;

use godwit_abi::Status;
use godwit_records::{Activity, VcpuState as VcpuRecord};
use godwit_vmm::lifecycle::Event;

use super::domain::{Domain, VcpuSlot};
use super::{Host, Hosted};
use crate::platform::clock;

impl<B: Hosted> Host<B> {
    pub(super) fn reset_domain(&self, domain: &Domain<B>) -> Result<(), Status> {
        if domain.life.lock().may_run() {
            return Err(Status::BadState);
        }
        self.wait_until_off(domain);
        // Only dom0, which is in this call, could let it run meanwhile.
        if !self.step_life(domain, Event::Reset) {
            return Err(Status::BadState);
        }
        domain.platform.lock().power_up();
        for vcpu in domain.vcpus() {
            vcpu.power_up(domain);
            // Awake, so that it runs when the domain does.
            self.sleepers.lock().retain(|(_, key)| *key != vcpu.key);
            let kick = self.scheduler.lock().wake(vcpu.key, clock::now_ns());
            debug_assert!(kick.is_none(), "a held vCPU needs no CPU");
        }
        *domain.ending.lock() = None;
        self.raise(godwit_abi::EventSource::DomainState);
        Ok(())
    }
}

impl<B: Hosted> VcpuSlot<B> {
    /// After power-up, but for its TSC. It is on no CPU and is held back.
    fn power_up(&self, domain: &Domain<B>) {
        self.inbox.forget();
        self.exchange.withdraw();
        let mut state = self.state.lock();
        let core = domain.new_core(self.index);
        self.apic_address
            .store(core.lapic.address().pack(), Ordering::Release);
        let bootstrap = core.lapic.is_bootstrap();
        let activity = if bootstrap {
            Activity::Running
        } else {
            Activity::WaitForSipi
        };
        state.core = core;
        state.xstate.reset();
        state.wait_deadline = u64::MAX;
        state.halted = !bootstrap;
        state.pending_state = Some(Box::new(VcpuRecord {
            activity,
            ..VcpuRecord::reset()
        }));
    }
}
