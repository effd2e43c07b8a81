//! A domain's platform as it is reached from outside the domain's vCPUs: by hypercalls that press its
//! buttons, type on its serial line or raise its devices' interrupts.
//!
//! Rule: nobody but a vCPU's own exits takes `Domain::platform` to change anything; everybody else goes
//! through [`Host::touch_platform`], which polls it afterwards, sends its messages to whom they address and
//! tells the watching vCPU what only that one looks at (`godwit_vmm::vcpu::entry`).

use core::sync::atomic::Ordering;

use godwit_abi::{DomainId, Refusal, Status, VcpuIndex};
use godwit_vmm::devices::kvmclock;
use godwit_vmm::devices::lapic::{Address, Ipi, IpiMode, Trigger};
use godwit_vmm::devices::ports::Platform;
use godwit_vmm::nested::Wanted;
use godwit_vmm::vcpu::Message;
use godwit_vmm::walk::GuestMemory;

use super::caller::{Caller, PIECE};
use super::domain::Domain;
use super::{Host, Hosted};
use crate::platform::clock;

/// The sender of a message that is no vCPU's: no APIC id.
const NOBODY: u32 = u32::MAX;

/// A domain's memory, for whoever has no vCPU at hand.
struct Memory<'a, B: Hosted>(&'a Domain<B>);

impl<B: Hosted> GuestMemory for Memory<'_, B> {
    fn read(&self, gpa: u64, out: &mut [u8]) -> bool {
        self.0.memory.read(gpa, out)
    }

    fn write(&self, gpa: u64, bytes: &[u8]) -> bool {
        self.0.memory.write(gpa, bytes)
    }
}

impl<B: Hosted> Host<B> {
    /// Does `action` with the platform, at the platform's time, and whatever follows from it for the vCPUs.
    pub(super) fn touch_platform<R>(
        &self,
        domain: &Domain<B>,
        action: impl FnOnce(&mut Platform, u64) -> R,
    ) -> R {
        let now = domain.platform_tsc(clock::tsc());
        let result = action(&mut domain.platform.lock(), now);
        loop {
            let (messages, outlook) = {
                let mut platform = domain.platform.lock();
                (platform.poll(now), platform.outlook(now, false))
            };
            let complete = !messages.is_full();
            for message in messages {
                if let Some(ipi) = message.as_ipi() {
                    self.send(domain, ipi, message.trigger, None);
                }
            }
            if complete {
                if outlook.watcher_is_behind {
                    self.wake_watcher(domain);
                }
                return result;
            }
        }
    }

    /// The domain has stood still, or time counts otherwise for it than before: writes its clock pages anew. None of
    /// its vCPUs runs.
    pub(super) fn refresh_clock(&self, domain: &Domain<B>) {
        let pages = domain.platform.lock().kvmclock.pages(true);
        for (gpa, body) in pages {
            // A page that has gone away meanwhile is the guest's affair.
            let _written = kvmclock::publish(&Memory(domain), gpa, &body);
        }
    }

    /// Posts a message to those of a domain's vCPUs that it addresses, but its sender.
    pub(super) fn send(
        &self,
        domain: &Domain<B>,
        ipi: Ipi,
        trigger: Trigger,
        sender: Option<VcpuIndex>,
    ) {
        let id = sender.map_or(NOBODY, |index| u32::from(index.0));
        for vcpu in domain.vcpus() {
            if Some(vcpu.index) == sender {
                continue;
            }
            let address = Address::unpack(vcpu.apic_address.load(Ordering::Acquire));
            if address.is_addressed(ipi.destination, id) {
                vcpu.inbox.post_ipi(ipi, trigger);
                self.notify(vcpu);
                // Lowest priority means one of those addressed.
                if ipi.mode == IpiMode::LowestPriority {
                    return;
                }
            }
        }
    }

    /// The bootstrap vCPU is to look at the platform.
    pub(super) fn wake_watcher(&self, domain: &Domain<B>) {
        if let Some(vcpu) = domain.vcpus().first() {
            vcpu.inbox.post(Message::PlatformChanged);
            self.notify(vcpu);
        }
    }
}

impl<B: Hosted> Caller<'_, B> {
    /// Types bytes of the caller's on a domain's serial line. Returns how many there was room for.
    pub(super) fn type_in(
        &self,
        domain: DomainId,
        address: u64,
        length: u64,
    ) -> Result<u64, Refusal> {
        let domain = self.find_guest(domain)?;
        let bytes = self.check(address, length, Wanted::Read)?;
        let mut piece = [0; PIECE];
        let mut done = 0;
        while done < bytes {
            let piece = &mut piece[..PIECE.min(bytes - done)];
            if !self.domain.memory.read(address + done as u64, piece) {
                return Err(Status::BadAddress.into());
            }
            let taken = self.host.touch_platform(&domain, |platform, now_tsc| {
                platform.serial_input(piece, now_tsc)
            });
            done += taken;
            if taken < piece.len() {
                break;
            }
        }
        Ok(done as u64)
    }
}
