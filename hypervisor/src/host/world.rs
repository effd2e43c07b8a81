//! What a vCPU's exits reach: its domain's memory and devices, hypercalls, the clock.

use core::cell::Cell;
use core::sync::atomic::Ordering;

use godwit_abi::{Access, Answer, EventSource, MAX_ARGUMENTS};
use godwit_vmm::cpuid::Policy;
use godwit_vmm::devices::lapic::{Address, Ipi, Trigger};
use godwit_vmm::devices::ports::Platform;
use godwit_vmm::sched::VcpuKey;
use godwit_vmm::vcpu::{Contents, Exchange, Quota, Refused, World};
use godwit_vmm::walk::GuestMemory;

use super::caller::Caller;
use super::domain::{Domain, VcpuSlot};
use super::{Host, Hosted, xstate};
use crate::platform::clock;

/// Refusals of one domain that are named in the log; the rest are only counted.
const REFUSALS_LOGGED: u64 = 16;

/// The surroundings of one exit.
pub(super) struct Surroundings<'a, B: Hosted> {
    pub(super) host: &'static Host<B>,
    pub(super) domain: &'a Domain<B>,
    pub(super) vcpu: &'a VcpuSlot<B>,
    /// Set by dom0's `wait`: the host TSC until which it sleeps at most.
    pub(super) wait_deadline: u64,
    pub(super) handing: Handing,
    /// An access of ours has come to an absent page.
    pub(super) missed: Cell<bool>,
}

/// Whom a vCPU wakes that is about to wait: the run loop may go to it directly (`Scheduler::hand_off`).
#[derive(Default)]
pub(super) struct Handing {
    /// The run loop asks for it, and sees to it that it is woken.
    pub(super) defers: bool,
    to: Option<VcpuKey>,
}

impl Handing {
    /// Wakes it, or leaves that to the run loop.
    pub(super) fn wake<B: Hosted>(&mut self, host: &Host<B>, key: VcpuKey) {
        if self.defers && self.to.is_none() {
            self.to = Some(key);
        } else {
            host.wake(key);
        }
    }

    /// Whoever is still to be woken.
    pub(super) fn take(&mut self) -> Option<VcpuKey> {
        self.to.take()
    }
}

impl<B: Hosted> GuestMemory for Surroundings<'_, B> {
    fn read(&self, gpa: u64, out: &mut [u8]) -> bool {
        self.domain.memory.read(gpa, out) || self.note_missed(gpa, out.len())
    }

    fn write(&self, gpa: u64, bytes: &[u8]) -> bool {
        self.domain.memory.write(gpa, bytes) || self.note_missed(gpa, bytes.len())
    }

    fn read_u64(&self, gpa: u64) -> Option<u64> {
        self.domain.memory.read_word(gpa).or_else(|| {
            let mut bytes = [0; 8];
            self.read(gpa, &mut bytes)
                .then(|| u64::from_le_bytes(bytes))
        })
    }
}

impl<B: Hosted> World for Surroundings<'_, B> {
    #[inline]
    fn host_tsc(&self) -> u64 {
        clock::tsc()
    }

    #[inline]
    fn platform<R>(&mut self, action: impl FnOnce(&mut Platform) -> R) -> R {
        action(&mut self.domain.platform.lock())
    }

    #[inline]
    fn policy(&self) -> &Policy {
        self.domain.policy()
    }

    #[inline]
    fn hypercall(
        &mut self,
        access: Access,
        number: u64,
        arguments: [u64; MAX_ARGUMENTS],
    ) -> Answer {
        let mut caller = Caller {
            host: self.host,
            domain: self.domain,
            wait_deadline: &mut self.wait_deadline,
            handing: &mut self.handing,
        };
        godwit_abi::dispatch(&mut caller, access, number, arguments)
    }

    fn send_ipi(&mut self, ipi: Ipi, trigger: Trigger) {
        self.host
            .send(self.domain, ipi, trigger, Some(self.vcpu.index));
    }

    fn wake_watcher(&mut self) {
        self.host.wake_watcher(self.domain);
    }

    fn apic_moved(&mut self, address: Address) {
        self.vcpu
            .apic_address
            .store(address.pack(), Ordering::Release);
    }

    #[inline]
    fn write_fault(&mut self, gpa: u64) -> bool {
        self.domain.memory.write_fault(gpa)
    }

    fn contents(&mut self, gpa: u64) -> Contents {
        self.contents_at(gpa)
    }

    fn missed(&mut self) -> bool {
        self.missed.take()
    }

    fn has_come(&self) -> bool {
        let noted = self.vcpu.starved.load(Ordering::Acquire);
        !self.domain.memory.is_absent(noted)
    }

    fn logged_write(&mut self, gpa: u64) {
        self.domain.memory.logged(gpa);
    }

    #[inline]
    fn write_quota(&self) -> Option<Quota> {
        match self.domain.write_quota.load(Ordering::Acquire) {
            0 => None,
            pages_per_s => Quota::new(pages_per_s, clock::tsc_hz()),
        }
    }

    fn exchange(&self) -> &Exchange {
        &self.vcpu.exchange
    }

    fn asked(&mut self) {
        if self.host.note_request(self.domain, self.vcpu.index)
            && let Some(dom0) = self.host.control_key()
        {
            self.handing.wake(self.host, dom0);
        }
    }

    fn ring(&mut self, slot: u8, doorbell: u8) {
        self.host.tell_doorbell(self.domain, slot, doorbell);
    }

    #[inline]
    fn xcr0(&self) -> u64 {
        xstate::xcr0()
    }

    fn set_xcr0(&mut self, value: u64) {
        xstate::set_xcr0(value);
    }

    fn console_output(&mut self) {
        if !self.domain.console_told.swap(true, Ordering::AcqRel) {
            self.host.raise(EventSource::GuestConsole);
        }
    }

    fn refused(&mut self, what: Refused) {
        self.host.refused.fetch_add(1, Ordering::Relaxed);
        let before = self.domain.refused.fetch_add(1, Ordering::Relaxed);
        if before < REFUSALS_LOGGED {
            log::debug!("{:?}: refused {what:?}", self.domain.id);
        }
    }
}
