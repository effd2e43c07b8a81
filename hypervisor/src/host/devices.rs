//! Devices of guests that dom0 serves, on the way between the two: accesses that wait for dom0's answer, doorbells
//! that do not, interrupts.
//!
//! What is told to dom0 is told once: by the first to ask or ring, and again only after dom0 has begun to take.
//! Whoever takes lowers the mark first and looks afterwards, so what comes meanwhile raises it anew. Doorbells are an
//! event; an access is what `device_serve` waits for, and its caller is woken.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use alloc::sync::Arc;

use godwit_abi::{
    Answered, DeviceDefinition, DeviceRequest, DomainId, Doorbell, EventSource, Refusal,
    SERVED_PORTS_MAX, SERVED_REQUEST, Served, Status, VcpuIndex,
};
use godwit_vmm::devices::pci::{FunctionDefinition, SLOTS, Signal};
use zerocopy::{FromBytes, IntoBytes};

use super::caller::Caller;
use super::domain::{Domain, VcpuSlot};
use super::{Host, Hosted};

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

    /// A vCPU has asked. Returns whether dom0 is to be woken for it.
    pub(super) fn note_request(&self, domain: &Domain<B>, vcpu: VcpuIndex) -> bool {
        domain.wants.asking.fetch_or(1 << vcpu.0, Ordering::AcqRel);
        !self.told.requests.swap(true, Ordering::AcqRel)
    }

    /// Takes what the next vCPU asks.
    fn next_request(&self) -> Option<(Arc<VcpuSlot<B>>, DeviceRequest)> {
        self.told.requests.swap(false, Ordering::AcqRel);
        let mut taken = None;
        for domain in self.domains.read().iter() {
            let asking = &domain.wants.asking;
            let mut bits = asking.load(Ordering::Acquire);
            while bits != 0 {
                if taken.is_some() {
                    // dom0, which is in its call, comes again.
                    self.told.requests.store(true, Ordering::Release);
                    return taken;
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
                        self.wake(vcpu.key);
                    }
                    continue;
                }
                let request = DeviceRequest {
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
                taken = Some((Arc::clone(vcpu), request));
            }
        }
        taken
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
                    self.note_request(domain, vcpu.index);
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
        // Told or not: there is nobody yet who was. Who asks is looked up by whoever serves next.
        self.told.doorbells.store(false, Ordering::Release);
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
        // A message concerns no line and no timer, so nobody need look at the platform for it.
        let signal = domain.platform.lock().pci.signal(slot, vector);
        match signal.ok_or(Status::NotFound)? {
            Signal::Nothing => {}
            Signal::Message(message) => {
                if let Some(ipi) = message.as_ipi() {
                    self.send(domain, ipi, message.trigger, None);
                }
            }
            Signal::Pin => {
                self.touch_platform(domain, |platform, _| platform.set_intx(slot, true));
            }
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

    /// Answers an access, then waits for the next, or for events.
    pub(super) fn serve_devices(
        &mut self,
        deadline_tsc: u64,
        address: u64,
        answered: Answered,
        value: u64,
    ) -> Result<u64, Refusal> {
        if let Answered(Some((domain, vcpu))) = answered {
            // Whoever has waited may be gone; and a call that waits is made again, when it has been answered.
            let domain = self.host.domains.read().find(domain);
            let vcpu = domain
                .as_ref()
                .and_then(|domain| domain.vcpus().get(usize::from(vcpu.0)));
            if let Some(vcpu) = vcpu
                && vcpu.exchange.complete(value)
            {
                self.handing.wake(self.host, vcpu.key);
            }
        }
        let served = self.serve(deadline_tsc, address);
        if !matches!(served, Err(Refusal::Block))
            && let Some(key) = self.handing.take()
        {
            self.host.wake(key);
        }
        served
    }

    fn serve(&mut self, deadline_tsc: u64, address: u64) -> Result<u64, Refusal> {
        let asks = self.host.told.requests.load(Ordering::Acquire);
        let told = self.host.events.lock().any_pending();
        if !asks && !told {
            self.sleep_until(deadline_tsc)?;
        }
        let mut brought = 0;
        if asks && let Some((vcpu, request)) = self.host.next_request() {
            if let Err(refusal) = self.put(address, u64::MAX, request.as_bytes()) {
                // Not lost: it is taken with the next call.
                vcpu.exchange.put_back();
                let domain = self.find(DomainId::from_raw(request.domain))?;
                self.host.note_request(&domain, vcpu.index);
                return Err(refusal);
            }
            brought = SERVED_REQUEST;
        }
        if told {
            let ports = address.checked_add(core::mem::offset_of!(Served, ports) as u64);
            brought += self.put_ports(ports.ok_or(Status::BadAddress)?, SERVED_PORTS_MAX)?;
        }
        Ok(brought)
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
