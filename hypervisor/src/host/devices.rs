//! Devices of guests that dom0 serves, on the way between the two: accesses that wait for dom0's answer, doorbells
//! that do not, interrupts.
//!
//! What is told to dom0 is told once: an event is raised by the first to ask or ring, and again only after dom0 has
//! begun to take. Whoever takes lowers the mark first and looks afterwards, so what comes meanwhile raises it anew.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use godwit_abi::{
    DeviceDefinition, DeviceRequest, Doorbell, EventSource, Refusal, Status, VcpuIndex,
};
use godwit_vmm::devices::pci::{FunctionDefinition, SLOTS};
use zerocopy::{FromBytes, IntoBytes};

use super::caller::Caller;
use super::domain::Domain;
use super::{Host, Hosted};

/// `device_interrupt`: the INTx pin, whatever the guest has switched on.
const VECTOR_INTX: u16 = u16::MAX;

/// What a domain's guest wants of its devices in dom0.
pub(super) struct Wants {
    /// vCPUs that ask, a bit each.
    asking: AtomicU32,
    /// Slots with doorbells rung.
    rung: AtomicU32,
    /// Doorbells rung, by slot.
    doorbells: [AtomicU64; SLOTS],
}

impl Wants {
    pub(super) const fn new() -> Self {
        Self {
            asking: AtomicU32::new(0),
            rung: AtomicU32::new(0),
            doorbells: [const { AtomicU64::new(0) }; SLOTS],
        }
    }

    /// Returns whether the doorbell was silent.
    fn ring(&self, slot: u8, bits: u64) -> bool {
        let Some(word) = self.doorbells.get(usize::from(slot)) else {
            return false;
        };
        let before = word.fetch_or(bits, Ordering::AcqRel);
        self.rung.fetch_or(1 << slot, Ordering::AcqRel);
        before & bits != bits
    }
}

/// What dom0 has been told.
pub(super) struct Told {
    requests: AtomicBool,
    doorbells: AtomicBool,
}

impl Told {
    pub(super) const fn new() -> Self {
        Self {
            requests: AtomicBool::new(false),
            doorbells: AtomicBool::new(false),
        }
    }
}

impl<B: Hosted> Host<B> {
    fn tell(&self, told: &AtomicBool, source: EventSource) {
        if !told.swap(true, Ordering::AcqRel) {
            self.raise(source);
        }
    }

    /// A vCPU has asked.
    pub(super) fn tell_request(&self, domain: &Domain<B>, vcpu: VcpuIndex) {
        domain.wants.asking.fetch_or(1 << vcpu.0, Ordering::AcqRel);
        self.tell(&self.told.requests, EventSource::DeviceRequest);
    }

    /// A guest has rung.
    pub(super) fn tell_doorbell(&self, domain: &Domain<B>, slot: u8, doorbell: u8) {
        if domain.wants.ring(slot, 1 << doorbell) {
            self.tell(&self.told.doorbells, EventSource::Doorbell);
        }
    }

    /// A new dom0 knows of nothing: what the old one took is asked again, and every doorbell is rung.
    pub(super) fn want_again(&self) {
        for domain in self.domains.read().iter() {
            for vcpu in domain.vcpus() {
                if vcpu.exchange.put_back() {
                    self.tell_request(domain, vcpu.index);
                }
            }
            let platform = domain.platform.lock();
            for slot in 0..SLOTS as u8 {
                let function = platform.pci.function(slot);
                if let Some(bells) = function.and_then(|f| f.definition().doorbells) {
                    domain.wants.ring(slot, bells.all());
                }
            }
        }
        // Told or not: there is nobody yet who was.
        for told in [&self.told.requests, &self.told.doorbells] {
            told.store(false, Ordering::Release);
        }
    }

    pub(super) fn complete_request(
        &self,
        domain: &Domain<B>,
        vcpu: VcpuIndex,
        value: u64,
    ) -> Result<(), Status> {
        let vcpu = domain
            .vcpus()
            .get(usize::from(vcpu.0))
            .ok_or(Status::NoVcpu)?;
        if !vcpu.exchange.complete(value) {
            return Err(Status::NotFound);
        }
        self.wake(vcpu.key);
        Ok(())
    }

    fn add_device(&self, domain: &Domain<B>, device: &DeviceDefinition) -> Result<u32, Status> {
        let bad = |error| {
            log::warn!("domain {}: device refused: {error}", domain.id);
            Status::BadArgument
        };
        let definition = FunctionDefinition::from_abi(device).map_err(bad)?;
        let mut platform = domain.platform.lock();
        let slot = match device.slot {
            godwit_abi::DEVICE_SLOT_ANY => platform.pci.free_slot().ok_or(Status::Full)?,
            slot => u8::try_from(slot).map_err(|_| Status::BadArgument)?,
        };
        platform.pci.insert(slot, definition).map_err(bad)?;
        Ok(slot.into())
    }

    pub(super) fn remove_device(&self, domain: &Domain<B>, device: u32) -> Result<(), Status> {
        let slot = u8::try_from(device).map_err(|_| Status::NotFound)?;
        let removed = self.touch_platform(domain, |platform, _| platform.remove_function(slot));
        if !removed {
            return Err(Status::NotFound);
        }
        let word = domain.wants.doorbells.get(usize::from(slot));
        word.ok_or(Status::NotFound)?.store(0, Ordering::Release);
        // No access can come any more; those under way end.
        for vcpu in domain.vcpus() {
            if vcpu.exchange.abandon(slot) {
                self.wake(vcpu.key);
            }
        }
        Ok(())
    }

    pub(super) fn interrupt_guest(
        &self,
        domain: &Domain<B>,
        device: u32,
        vector: u16,
    ) -> Result<(), Status> {
        let slot = u8::try_from(device).map_err(|_| Status::NotFound)?;
        let message = {
            let pci = &mut domain.platform.lock().pci;
            pci.function(slot).ok_or(Status::NotFound)?;
            // A message concerns no line and no timer, so nobody need look at the platform for it.
            (vector != VECTOR_INTX && pci.uses_msix(slot)).then(|| pci.signal(slot, vector))
        };
        match message {
            Some(None) => {}
            Some(Some(message)) => {
                if let Some(ipi) = message.as_ipi() {
                    self.send(domain, ipi, message.trigger, None);
                }
            }
            None => self.touch_platform(domain, |platform, _| platform.set_intx(slot, true)),
        }
        Ok(())
    }

    pub(super) fn clear_guest_interrupt(
        &self,
        domain: &Domain<B>,
        device: u32,
    ) -> Result<(), Status> {
        let slot = u8::try_from(device).map_err(|_| Status::NotFound)?;
        self.touch_platform(domain, |platform, _| {
            platform.pci.function(slot).ok_or(Status::NotFound)?;
            platform.set_intx(slot, false);
            Ok(())
        })
    }
}

impl<B: Hosted> Caller<'_, B> {
    pub(super) fn define_device(
        &self,
        domain: &Domain<B>,
        address: u64,
        length: u64,
    ) -> Result<u32, Refusal> {
        let mut bytes = [0; DeviceDefinition::SIZE_BYTES];
        if domain.is_control() || length != bytes.len() as u64 {
            return Err(Status::BadArgument.into());
        }
        if !self.domain.memory.read(address, &mut bytes) {
            return Err(Status::BadAddress.into());
        }
        let device = DeviceDefinition::read_from_bytes(&bytes).map_err(|_| Status::BadArgument)?;
        Ok(self.host.add_device(domain, &device)?)
    }

    /// Writes one structure of several to the caller.
    fn put_nth(&self, address: u64, index: u64, bytes: &[u8]) -> Result<(), Refusal> {
        let length = bytes.len() as u64;
        let at = index
            .checked_mul(length)
            .and_then(|offset| address.checked_add(offset));
        self.put(at.ok_or(Status::BadAddress)?, length, bytes)
    }

    pub(super) fn take_requests(&self, address: u64, capacity: u64) -> Result<u64, Refusal> {
        if capacity == 0 {
            return Err(Status::BadArgument.into());
        }
        let told = &self.host.told.requests;
        told.swap(false, Ordering::AcqRel);
        let mut count = 0;
        for domain in self.host.domains.read().iter() {
            let asking = &domain.wants.asking;
            let mut bits = asking.load(Ordering::Acquire);
            while bits != 0 {
                if count == capacity {
                    self.host.tell(told, EventSource::DeviceRequest);
                    return Ok(count);
                }
                let index = bits.trailing_zeros();
                bits &= bits - 1;
                asking.fetch_and(!(1 << index), Ordering::AcqRel);
                let vcpu = &domain.vcpus()[index as usize];
                let Some(request) = vcpu.exchange.take() else {
                    continue;
                };
                // Asked as the device went away.
                if domain.platform.lock().pci.function(request.slot).is_none() {
                    if vcpu.exchange.abandon(request.slot) {
                        self.host.wake(vcpu.key);
                    }
                    continue;
                }
                let told = DeviceRequest {
                    domain: domain.id.raw(),
                    vcpu: index as u16,
                    device: request.slot.into(),
                    bar: request.bar,
                    width: request.width,
                    write: request.write.is_some().into(),
                    reserved: 0,
                    reserved_word: 0,
                    offset: request.offset,
                    value: request.write.unwrap_or(0),
                    reserved_end: 0,
                };
                if let Err(refusal) = self.put_nth(address, count, told.as_bytes()) {
                    // Not lost: it is taken with the next call.
                    vcpu.exchange.put_back();
                    self.host.tell_request(domain, vcpu.index);
                    return Err(refusal);
                }
                count += 1;
            }
        }
        Ok(count)
    }

    pub(super) fn take_doorbells(&self, address: u64, capacity: u64) -> Result<u64, Refusal> {
        if capacity == 0 {
            return Err(Status::BadArgument.into());
        }
        let told = &self.host.told.doorbells;
        told.swap(false, Ordering::AcqRel);
        let mut count = 0;
        for domain in self.host.domains.read().iter() {
            let mut slots = domain.wants.rung.load(Ordering::Acquire);
            while slots != 0 {
                if count == capacity {
                    self.host.tell(told, EventSource::Doorbell);
                    return Ok(count);
                }
                let slot = slots.trailing_zeros();
                slots &= slots - 1;
                domain.wants.rung.fetch_and(!(1 << slot), Ordering::AcqRel);
                let bits = domain.wants.doorbells[slot as usize].swap(0, Ordering::AcqRel);
                if bits == 0 {
                    continue;
                }
                let rung = Doorbell {
                    domain: domain.id.raw(),
                    device: slot,
                    bits,
                };
                if let Err(refusal) = self.put_nth(address, count, rung.as_bytes()) {
                    domain.wants.ring(slot as u8, bits);
                    self.host.tell(told, EventSource::Doorbell);
                    return Err(refusal);
                }
                count += 1;
            }
        }
        Ok(count)
    }
}
