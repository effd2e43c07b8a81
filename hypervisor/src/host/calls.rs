//! The hypercalls: dom0's requests, each checked against the state of the machine. Numbers, access
//! and argument ranges have been checked by the dispatcher before.

use core::sync::atomic::Ordering;

use godwit_abi::{
    ABI_VERSION, Answered, DomainId, EventSource, Handler, InterruptKind, PLATFORM_STATE_BYTES_MAX,
    PciAddress, Port, PowerAction, Refusal, Status, VcpuIndex,
};
use godwit_records::{CpuPolicyState, Record, XsaveState};
use zerocopy::IntoBytes;

use super::Hosted;
use super::caller::{Caller, PIECE};
use super::config_space::{config_access, owned_by_hypervisor};
use super::device_state::record_bytes;
use super::errand::Errand;
use super::events::Source;
use crate::console;
use crate::platform::{pci, wall};

/// What a hypercall comes to.
pub(super) type Answer<T> = Result<T, Refusal>;

impl<B: Hosted> Handler for Caller<'_, B> {
    #[inline]
    fn nop(&mut self) -> Answer<()> {
        Ok(())
    }

    fn abi_version(&mut self) -> Answer<u32> {
        Ok(ABI_VERSION)
    }

    fn console_write(&mut self, address: u64, length: u64) -> Answer<u64> {
        self.print(address, length)
    }

    fn console_read(&mut self, address: u64, length: u64) -> Answer<u64> {
        self.stream(address, length, |_, out| Ok(console::read(out)))
    }

    fn wait(&mut self, deadline_tsc: u64, address: u64, capacity: u64) -> Answer<u64> {
        self.take_ports(deadline_tsc, address, capacity)
    }

    fn port_bind(&mut self, source: EventSource) -> Answer<Port> {
        Ok(self.host.events.lock().bind(Source::Named(source))?)
    }

    fn port_close(&mut self, port: Port) -> Answer<()> {
        let closed = self.host.events.lock().close(port);
        match closed {
            Some(Source::Interrupt(vector)) => self.host.unbind_interrupt(vector),
            Some(Source::Named(_)) => {}
            None => return Err(Status::NotFound.into()),
        }
        Ok(())
    }

    fn log_read(&mut self, offset: u64, address: u64, length: u64) -> Answer<u64> {
        self.stream(address, length, |done, out| {
            console::log_read(offset + done, out).map_err(|_| Status::NotFound)
        })
    }

    fn log_start(&mut self) -> Answer<u64> {
        Ok(console::log_start())
    }

    fn host_info(&mut self, address: u64, length: u64) -> Answer<()> {
        self.put(address, length, self.host.info().as_bytes())
    }

    fn cpu_info(&mut self, index: u32, address: u64, length: u64) -> Answer<()> {
        self.put(address, length, self.host.cpu(index)?.as_bytes())
    }

    fn host_power(&mut self, action: PowerAction) -> Answer<()> {
        if action == PowerAction::PowerOff
            && (self.host.power.sleep_type.is_none() || self.host.power.pm1a_control.is_none())
        {
            return Err(Status::NotSupported.into());
        }
        // dom0 sleeps in this call; its CPU leaves the guest and does it.
        *self.host.errand.lock() = Errand::Power(action);
        Err(Refusal::Block)
    }

    fn domain_create(&mut self, address: u64, length: u64) -> Answer<DomainId> {
        let config = self.domain_config(address, length)?;
        Ok(self.host.create_domain(&config)?)
    }

    fn domain_rename(&mut self, domain: DomainId, address: u64, length: u64) -> Answer<()> {
        self.rename(domain, address, length)
    }

    fn domain_exchange_identity(&mut self, domain: DomainId, other: DomainId) -> Answer<()> {
        Ok(self.host.exchange_identity(domain, other)?)
    }

    fn domain_destroy(&mut self, domain: DomainId) -> Answer<()> {
        Ok(self.host.destroy_domain(domain)?)
    }

    fn domain_pause(&mut self, domain: DomainId) -> Answer<()> {
        let domain = self.find(domain)?;
        Ok(self.host.pause_domain(&domain)?)
    }

    fn domain_unpause(&mut self, domain: DomainId) -> Answer<()> {
        let domain = self.find(domain)?;
        Ok(self.host.unpause_domain(&domain)?)
    }

    fn domain_at(&mut self, slot: u16) -> Answer<DomainId> {
        let found = self.host.domains.read().from(slot).map(|domain| domain.id);
        found.ok_or(Status::NotFound.into())
    }

    fn domain_info(&mut self, domain: DomainId, address: u64, length: u64) -> Answer<()> {
        let domain = self.find(domain)?;
        self.put(address, length, self.host.domain_info(&domain).as_bytes())
    }

    fn vcpu_info(
        &mut self,
        domain: DomainId,
        vcpu: VcpuIndex,
        address: u64,
        length: u64,
    ) -> Answer<()> {
        let domain = self.find(domain)?;
        let info = self.host.vcpu_info(&domain, vcpu)?;
        self.put(address, length, info.as_bytes())
    }

    fn vcpu_state_set(
        &mut self,
        domain: DomainId,
        vcpu: VcpuIndex,
        address: u64,
        length: u64,
    ) -> Answer<()> {
        let domain = self.find(domain)?;
        self.take_vcpu_state(&domain, vcpu, address, length)
    }

    fn vcpu_state_read(
        &mut self,
        domain: DomainId,
        vcpu: VcpuIndex,
        address: u64,
        length: u64,
    ) -> Answer<u64> {
        let domain = self.find(domain)?;
        let mut bytes = [0; PIECE];
        let count = self.host.vcpu_state(&domain, vcpu, &mut bytes)?;
        self.put(address, length, &bytes[..count])?;
        Ok(count as u64)
    }

    fn memory_populate(&mut self, domain: DomainId, page: u64, pages: u64) -> Answer<u64> {
        let domain = self.find_guest(domain)?;
        self.populate(&domain, page, pages)
    }

    fn memory_write(
        &mut self,
        domain: DomainId,
        target: u64,
        address: u64,
        length: u64,
    ) -> Answer<()> {
        let domain = self.find(domain)?;
        self.copy_in(&domain, target, address, length)
    }

    fn memory_read(
        &mut self,
        domain: DomainId,
        source: u64,
        address: u64,
        length: u64,
    ) -> Answer<()> {
        let domain = self.find(domain)?;
        self.copy_out(&domain, source, address, length)
    }

    fn guest_console_read(
        &mut self,
        domain: DomainId,
        offset: u64,
        address: u64,
        length: u64,
    ) -> Answer<u64> {
        let domain = self.find(domain)?;
        domain.console_told.store(false, Ordering::Release);
        self.stream(address, length, |done, out| {
            domain.read_console(offset + done, out)
        })
    }

    fn guest_console_start(&mut self, domain: DomainId) -> Answer<u64> {
        Ok(self.find(domain)?.console_start())
    }

    fn pci_device(&mut self, index: u32, address: u64, length: u64) -> Answer<()> {
        let device = self
            .host
            .devices
            .get(index as usize)
            .ok_or(Status::NotFound)?;
        self.put(address, length, device.as_bytes())
    }

    fn pci_config_read(&mut self, device: PciAddress, offset: u16, width: u8) -> Answer<u32> {
        self.host.passed(device)?;
        config_access(offset, width)?;
        Ok(pci::read(device, offset, width))
    }

    fn pci_config_write(
        &mut self,
        device: PciAddress,
        offset: u16,
        width: u8,
        value: u32,
    ) -> Answer<()> {
        self.host.passed(device)?;
        config_access(offset, width)?;
        if owned_by_hypervisor(device, offset, width) {
            return Err(Status::Denied.into());
        }
        pci::write(device, offset, width, value);
        Ok(())
    }

    fn interrupt_bind(&mut self, device: PciAddress, kind: InterruptKind) -> Answer<Port> {
        Ok(self.host.bind_interrupt(device, kind)?)
    }

    fn interrupt_unmask(&mut self, port: Port) -> Answer<()> {
        Ok(self.host.unmask_interrupt(port)?)
    }

    fn scheduler_set(&mut self, domain: DomainId, weight: u32, cap_percent: u32) -> Answer<()> {
        let domain = self.find(domain)?;
        Ok(self.host.set_shares(&domain, weight, cap_percent)?)
    }

    fn debug_key(&mut self, key: u8) -> Answer<()> {
        if self.host.debug_key(key) {
            Ok(())
        } else {
            Err(Status::BadArgument.into())
        }
    }

    fn guest_input(&mut self, domain: DomainId, address: u64, length: u64) -> Answer<u64> {
        self.type_in(domain, address, length)
    }

    fn power_button(&mut self, domain: DomainId) -> Answer<()> {
        let domain = self.find_guest(domain)?;
        self.host.touch_platform(&domain, |platform, now_tsc| {
            platform.press_power_button(now_tsc)
        });
        Ok(())
    }

    fn domain_clock_set(&mut self, domain: DomainId, unix_ns: u64) -> Answer<()> {
        let domain = self.find_guest(domain)?;
        self.host.touch_platform(&domain, |platform, now_tsc| {
            platform.set_clock(unix_ns, now_tsc)
        });
        Ok(())
    }

    fn vcpu_affinity_set(&mut self, domain: DomainId, vcpu: VcpuIndex, cpus: u64) -> Answer<()> {
        let domain = self.find(domain)?;
        Ok(self.host.set_affinity(&domain, vcpu, cpus)?)
    }

    fn wall_clock(&mut self) -> Answer<u64> {
        wall::now_ns().ok_or(Status::NotSupported.into())
    }

    fn domain_reset(&mut self, domain: DomainId) -> Answer<()> {
        let domain = self.find_guest(domain)?;
        Ok(self.host.reset_domain(&domain)?)
    }

    fn platform_state_read(&mut self, domain: DomainId, address: u64, length: u64) -> Answer<u64> {
        let domain = self.find_guest(domain)?;
        let bytes = self.host.platform_state(&domain)?;
        self.put(address, length, &bytes)?;
        Ok(bytes.len() as u64)
    }

    fn platform_state_set(&mut self, domain: DomainId, address: u64, length: u64) -> Answer<()> {
        let domain = self.find_guest(domain)?;
        let bytes = self.bytes(address, length, PLATFORM_STATE_BYTES_MAX)?;
        Ok(self.host.set_platform_state(&domain, &bytes)?)
    }

    fn cpu_policy_read(&mut self, domain: DomainId, address: u64, length: u64) -> Answer<u64> {
        let domain = self.find_guest(domain)?;
        let bytes = record_bytes(&domain.policy().record());
        self.put(address, length, &bytes)?;
        Ok(bytes.len() as u64)
    }

    fn cpu_policy_set(&mut self, domain: DomainId, address: u64, length: u64) -> Answer<()> {
        let domain = self.find_guest(domain)?;
        let bytes = self.bytes(address, length, CpuPolicyState::MAX_BYTES as u64)?;
        Ok(self.host.set_cpu_policy(&domain, &bytes)?)
    }

    fn xsave_state_read(
        &mut self,
        domain: DomainId,
        vcpu: VcpuIndex,
        address: u64,
        length: u64,
    ) -> Answer<u64> {
        let domain = self.find_guest(domain)?;
        let bytes = self.host.xsave_state(&domain, vcpu)?;
        self.put(address, length, &bytes)?;
        Ok(bytes.len() as u64)
    }

    fn xsave_state_set(
        &mut self,
        domain: DomainId,
        vcpu: VcpuIndex,
        address: u64,
        length: u64,
    ) -> Answer<()> {
        let domain = self.find_guest(domain)?;
        let bytes = self.bytes(address, length, XsaveState::MAX_BYTES as u64)?;
        Ok(self.host.set_xsave_state(&domain, vcpu, &bytes)?)
    }

    fn memory_map(
        &mut self,
        domain: DomainId,
        page: u64,
        pages: u64,
        address: u64,
        capacity: u64,
    ) -> Answer<u64> {
        let domain = self.find(domain)?;
        self.map_guest(&domain, page, pages, address, capacity)
    }

    fn memory_unmap(&mut self, domain: DomainId, page: u64, pages: u64) -> Answer<u64> {
        let domain = self.find(domain)?;
        self.unmap_guest(&domain, page, pages)
    }

    fn memory_release(&mut self, domain: DomainId, address: u64, count: u64) -> Answer<u64> {
        let domain = self.find(domain)?;
        self.release_guest(&domain, address, count)
    }

    fn device_add(&mut self, domain: DomainId, address: u64, length: u64) -> Answer<u32> {
        let domain = self.find(domain)?;
        self.define_device(&domain, address, length)
    }

    fn device_remove(&mut self, domain: DomainId, device: u32) -> Answer<()> {
        let domain = self.find(domain)?;
        Ok(self.host.remove_device(&domain, device)?)
    }

    fn device_serve(
        &mut self,
        deadline_tsc: u64,
        address: u64,
        answered: Answered,
        value: u64,
    ) -> Answer<u64> {
        self.serve_devices(deadline_tsc, address, answered, value)
    }

    fn device_request_complete(
        &mut self,
        domain: DomainId,
        vcpu: VcpuIndex,
        value: u64,
    ) -> Answer<()> {
        let domain = self.find(domain)?;
        Ok(self.host.complete_request(&domain, vcpu, value)?)
    }

    fn doorbells_take(&mut self, address: u64, capacity: u64) -> Answer<u64> {
        self.take_doorbells(address, capacity)
    }

    fn device_interrupt(&mut self, domain: DomainId, device: u32, vector: u16) -> Answer<()> {
        let domain = self.find(domain)?;
        Ok(self.host.interrupt_guest(&domain, device, vector)?)
    }

    fn device_interrupt_clear(&mut self, domain: DomainId, device: u32) -> Answer<()> {
        let domain = self.find(domain)?;
        Ok(self.host.clear_guest_interrupt(&domain, device)?)
    }

    fn blob_write(&mut self, domain: DomainId, key: u32, address: u64, length: u64) -> Answer<()> {
        let domain = self.find(domain)?;
        self.write_blob(&domain.blobs, key, address, length)
    }

    fn blob_read(&mut self, domain: DomainId, key: u32, address: u64, length: u64) -> Answer<u64> {
        let domain = self.find(domain)?;
        self.read_blob(&domain.blobs, key, address, length)
    }

    fn dirty_arm(&mut self, domain: DomainId) -> Answer<u64> {
        let domain = self.find_guest(domain)?;
        self.arm_dirty(&domain)
    }

    fn dirty_harvest(
        &mut self,
        domain: DomainId,
        first_page: u64,
        pages: u64,
        address: u64,
    ) -> Answer<u64> {
        let domain = self.find_guest(domain)?;
        self.harvest_dirty(&domain, first_page, pages, address)
    }

    fn dirty_put_back(
        &mut self,
        domain: DomainId,
        first_page: u64,
        pages: u64,
        address: u64,
    ) -> Answer<u64> {
        let domain = self.find_guest(domain)?;
        self.put_back_dirty(&domain, first_page, pages, address)
    }

    fn dirty_disarm(&mut self, domain: DomainId) -> Answer<u64> {
        let domain = self.find_guest(domain)?;
        self.disarm_dirty(&domain)
    }

    fn absent_arm(
        &mut self,
        domain: DomainId,
        first_page: u64,
        pages: u64,
        address: u64,
    ) -> Answer<u64> {
        let domain = self.find_guest(domain)?;
        self.make_absent(&domain, first_page, pages, address)
    }

    fn absent_read(
        &mut self,
        domain: DomainId,
        first_page: u64,
        pages: u64,
        address: u64,
    ) -> Answer<u64> {
        let domain = self.find_guest(domain)?;
        self.read_absent(&domain, first_page, pages, address)
    }

    fn absent_wanted(&mut self, domain: DomainId, address: u64, capacity: u64) -> Answer<u64> {
        let domain = self.find_guest(domain)?;
        self.wanted(&domain, address, capacity)
    }

    fn absent_fill(
        &mut self,
        domain: DomainId,
        first_page: u64,
        pages: u64,
        address: u64,
    ) -> Answer<u64> {
        let domain = self.find_guest(domain)?;
        self.fill_absent(&domain, first_page, pages, address)
    }

    fn dirty_quota(&mut self, domain: DomainId, pages_per_s: u64) -> Answer<()> {
        let domain = self.find_guest(domain)?;
        self.limit_writes(&domain, pages_per_s);
        Ok(())
    }
}
