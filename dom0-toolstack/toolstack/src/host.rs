//! What the toolstack asks of the hypervisor, as Rust types.
//!
//! [`Hypervisor`] is the border between what decides (this crate) and what touches the machine: the
//! dom0 binary implements it over hypercalls, tests over `fake::FakeHypervisor`. Every method is
//! synchronous and bounded; the methods take `&self` because the hypervisor, not the caller, owns
//! the state, so several tasks of dom0 may hold it at once. Statuses are passed on as they come.

use alloc::vec::Vec;
use godwit_abi::{
    CpuInfo, DomainConfig, DomainId, DomainInfo, HostInfo, PowerAction, Status, VcpuIndex, VcpuInfo,
};

#[cfg(any(test, feature = "fake"))]
pub mod fake;

/// The most bytes that one `memory_write` or `memory_read` hypercall copies.
pub const COPY_BYTES_MAX: usize = 1 << 20;

/// The hypervisor as the control domain sees it.
pub trait Hypervisor {
    /// The time stamp counter of the CPU dom0 runs on, in ticks.
    fn now_tsc(&self) -> u64;

    /// The host.
    fn host_info(&self) -> Result<HostInfo, Status>;

    /// The host CPU `cpu`. NotFound: no such CPU.
    fn cpu_info(&self, cpu: u32) -> Result<CpuInfo, Status>;

    /// The first domain in a slot from `slot` on. NotFound: no more.
    fn domain_at(&self, slot: u16) -> Result<DomainId, Status>;

    /// A domain. NoDomain: it is gone.
    fn domain_info(&self, domain: DomainId) -> Result<DomainInfo, Status>;

    /// A vCPU of a domain.
    fn vcpu_info(&self, domain: DomainId, vcpu: VcpuIndex) -> Result<VcpuInfo, Status>;

    /// Makes a domain, paused, without memory.
    fn domain_create(&self, config: &DomainConfig) -> Result<DomainId, Status>;

    /// Destroys a domain.
    fn domain_destroy(&self, domain: DomainId) -> Result<(), Status>;

    /// Pauses a domain; pauses count.
    fn domain_pause(&self, domain: DomainId) -> Result<(), Status>;

    /// Takes one pause back.
    fn domain_unpause(&self, domain: DomainId) -> Result<(), Status>;

    /// Gives a domain up to `pages` zeroed pages from guest page `page` on. Returns the pages
    /// done, which may be fewer; the caller repeats for the rest.
    fn memory_populate(&self, domain: DomainId, page: u64, pages: u64) -> Result<u64, Status>;

    /// Gives pages of a domain, by number, at most 4096, back to the host. Returns how many it had.
    fn memory_release(&self, domain: DomainId, pages: &[u64]) -> Result<u64, Status>;

    /// Copies `bytes`, at most [`COPY_BYTES_MAX`], to the guest-physical address `target`.
    fn memory_write(&self, domain: DomainId, target: u64, bytes: &[u8]) -> Result<(), Status>;

    /// Fills `out`, at most [`COPY_BYTES_MAX`], from the guest-physical address `source`.
    fn memory_read(&self, domain: DomainId, source: u64, out: &mut [u8]) -> Result<(), Status>;

    /// Sets a vCPU's state from an encoded `VcpuState` record.
    fn vcpu_state_set(
        &self,
        domain: DomainId,
        vcpu: VcpuIndex,
        record: &[u8],
    ) -> Result<(), Status>;

    /// Writes a vCPU's encoded `VcpuState` record to `out`. Returns its length in bytes.
    fn vcpu_state_read(
        &self,
        domain: DomainId,
        vcpu: VcpuIndex,
        out: &mut [u8],
    ) -> Result<usize, Status>;

    /// Reads a domain's debug console from the absolute byte `offset`. Returns the bytes read, 0
    /// at its end. NotFound: overwritten meanwhile, begin again at `guest_console_start`.
    fn guest_console_read(
        &self,
        domain: DomainId,
        offset: u64,
        out: &mut [u8],
    ) -> Result<usize, Status>;

    /// The absolute offset of the oldest byte kept of a domain's debug console.
    fn guest_console_start(&self, domain: DomainId) -> Result<u64, Status>;

    /// Reads the hypervisor's log. As `guest_console_read`.
    fn log_read(&self, offset: u64, out: &mut [u8]) -> Result<usize, Status>;

    /// The absolute offset of the oldest byte of the hypervisor's log.
    fn log_start(&self) -> Result<u64, Status>;

    /// Gives a domain another name, at most 63 bytes. Exists: another domain has it.
    fn domain_rename(&self, domain: DomainId, name: &str) -> Result<(), Status>;

    /// Gives a domain the name and uuid of another, and that one its own. BadState: one of them may
    /// run.
    fn domain_exchange_identity(&self, domain: DomainId, other: DomainId) -> Result<(), Status>;

    /// Sets a domain's scheduling weight and cap (percent of one CPU, 0 for none).
    fn scheduler_set(&self, domain: DomainId, weight: u32, cap_percent: u32) -> Result<(), Status>;

    /// Types bytes into a domain's serial port. Returns how many were taken; the rest when the guest
    /// has read some.
    fn guest_input(&self, domain: DomainId, bytes: &[u8]) -> Result<usize, Status>;

    /// Presses a domain's ACPI power button.
    fn power_button(&self, domain: DomainId) -> Result<(), Status>;

    /// Sets a domain's real-time clock to nanoseconds since 1970, UTC.
    fn domain_clock_set(&self, domain: DomainId, unix_ns: u64) -> Result<(), Status>;

    /// The CPUs a vCPU may run on, a bit each. BadArgument: none of them is there.
    fn vcpu_affinity_set(&self, domain: DomainId, vcpu: VcpuIndex, cpus: u64)
    -> Result<(), Status>;

    /// The host's time of day, nanoseconds since 1970, UTC. NotSupported: there is no clock.
    fn wall_clock(&self) -> Result<u64, Status>;

    /// Writes the records of a paused domain's devices to `out`. Returns their length in bytes.
    fn platform_state_read(&self, domain: DomainId, out: &mut [u8]) -> Result<usize, Status>;

    /// Sets the devices of a paused domain from records. BadRecord: nothing was changed.
    fn platform_state_set(&self, domain: DomainId, records: &[u8]) -> Result<(), Status>;
    /// The record of what a domain's CPUs answer to CPUID. Returns its length.
    fn cpu_policy_read(&self, domain: DomainId, out: &mut [u8]) -> Result<usize, Status>;
    /// Lets a domain that has not run yet answer CPUID as a record says.
    fn cpu_policy_set(&self, domain: DomainId, record: &[u8]) -> Result<(), Status>;

    /// As `vcpu_state_read`, for the `XsaveState` record.
    fn xsave_state_read(
        &self,
        domain: DomainId,
        vcpu: VcpuIndex,
        out: &mut [u8],
    ) -> Result<usize, Status>;

    /// As `vcpu_state_set`, for the `XsaveState` record.
    fn xsave_state_set(
        &self,
        domain: DomainId,
        vcpu: VcpuIndex,
        record: &[u8],
    ) -> Result<(), Status>;

    /// A step of starting to note the pages a domain writes to. Returns the guest-physical pages left: repeat until 0.
    fn dirty_arm(&self, domain: DomainId) -> Result<u64, Status>;

    /// Takes which of up to `pages` pages from `first_page` on were written to, a bit each, into `words`, which has room for them.
    /// Returns the pages looked at. BadState: writes are not noted.
    fn dirty_harvest(
        &self,
        domain: DomainId,
        first_page: u64,
        pages: u64,
        words: &mut [u64],
    ) -> Result<u64, Status>;

    /// Makes pages dirty, a bit each. As `dirty_harvest`.
    fn dirty_put_back(
        &self,
        domain: DomainId,
        first_page: u64,
        pages: u64,
        words: &[u64],
    ) -> Result<u64, Status>;

    /// A step of ending it. As `dirty_arm`.
    fn dirty_disarm(&self, domain: DomainId) -> Result<u64, Status>;

    /// Makes pages absent of a domain that does not run, a bit each: what is in them has yet to come. As `dirty_put_back`.
    fn absent_arm(
        &self,
        domain: DomainId,
        first_page: u64,
        pages: u64,
        words: &[u64],
    ) -> Result<u64, Status>;

    /// Tells which pages are absent. As `dirty_harvest`.
    fn absent_read(
        &self,
        domain: DomainId,
        first_page: u64,
        pages: u64,
        words: &mut [u64],
    ) -> Result<u64, Status>;

    /// The absent pages that vCPUs of a domain wait for now.
    fn absent_wanted(&self, domain: DomainId) -> Result<Vec<u64>, Status>;

    /// Puts contents into absent pages from `first_page` on, at most 64; those that are not absent are left alone. Returns how
    /// many were filled.
    fn absent_fill(
        &self,
        domain: DomainId,
        first_page: u64,
        contents: &[u8],
    ) -> Result<u64, Status>;

    /// Lets each vCPU of a tracked domain make so many pages dirty in a second, 0 for any.
    fn dirty_quota(&self, domain: DomainId, pages_per_s: u64) -> Result<(), Status>;

    /// Keeps bytes under `key` as long as the domain lives, over a restart of the control domain; no
    /// bytes remove them.
    fn blob_write(&self, domain: DomainId, key: u32, bytes: &[u8]) -> Result<(), Status>;

    /// What is kept under `key`. NotFound: nothing is.
    fn blob_read(&self, domain: DomainId, key: u32) -> Result<Vec<u8>, Status>;

    /// Does what the debug key `key` does on the hypervisor's console.
    fn debug_key(&self, key: u8) -> Result<(), Status>;

    /// Restarts or switches off the machine. Returns only when it cannot.
    fn power(&self, action: PowerAction) -> Result<(), Status>;

    /// Every domain, by slot. A domain that goes away while the list is read is left out.
    fn domains(&self) -> Domains<'_, Self>
    where
        Self: Sized,
    {
        Domains {
            hypervisor: self,
            slot: Some(0),
        }
    }

    /// Every host CPU, by number.
    fn cpus(&self) -> Cpus<'_, Self>
    where
        Self: Sized,
    {
        Cpus {
            hypervisor: self,
            cpu: Some(0),
        }
    }
}

/// Iterator over domains; see [`Hypervisor::domains`]. Ends after the first error.
pub struct Domains<'a, H: Hypervisor> {
    hypervisor: &'a H,
    /// The slot to look at next, `None` at the end.
    slot: Option<u16>,
}

impl<H: Hypervisor> Iterator for Domains<'_, H> {
    type Item = Result<DomainInfo, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        // Bounded: the slot grows with every turn.
        while let Some(slot) = self.slot {
            let domain = match self.hypervisor.domain_at(slot) {
                Ok(domain) if domain.slot() >= slot => domain,
                // An answer from before `slot` would have us go round for ever.
                Ok(_) => return self.end_with(Status::BadRecord),
                Err(Status::NotFound) => break,
                Err(status) => return self.end_with(status),
            };
            self.slot = domain.slot().checked_add(1);
            match self.hypervisor.domain_info(domain) {
                Ok(info) => return Some(Ok(info)),
                Err(Status::NoDomain) => {}
                Err(status) => return self.end_with(status),
            }
        }
        self.slot = None;
        None
    }
}

impl<H: Hypervisor> Domains<'_, H> {
    fn end_with(&mut self, status: Status) -> Option<Result<DomainInfo, Status>> {
        self.slot = None;
        Some(Err(status))
    }
}

/// Iterator over host CPUs; see [`Hypervisor::cpus`]. Ends after the first error.
pub struct Cpus<'a, H: Hypervisor> {
    hypervisor: &'a H,
    cpu: Option<u32>,
}

impl<H: Hypervisor> Iterator for Cpus<'_, H> {
    type Item = Result<CpuInfo, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        let cpu = self.cpu.take()?;
        match self.hypervisor.cpu_info(cpu) {
            Ok(info) => {
                self.cpu = cpu.checked_add(1);
                Some(Ok(info))
            }
            Err(Status::NotFound) => None,
            Err(status) => Some(Err(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::FakeHypervisor;
    use super::*;
    use godwit_abi::text;

    #[test]
    fn domains_come_by_slot_and_a_vanished_one_is_left_out() {
        let host = FakeHypervisor::new();
        host.add_domain("a", 64);
        let b = host.add_domain("b", 64);
        host.add_domain("c", 64);
        host.domain_destroy(b).unwrap();
        let names: std::vec::Vec<_> = host
            .domains()
            .map(|info| std::string::String::from(text(&info.unwrap().name)))
            .collect();
        assert_eq!(names, ["Domain-0", "a", "c"]);
    }

    #[test]
    fn a_refusal_ends_the_list() {
        let host = FakeHypervisor::new();
        host.fail_call(1, Status::Denied);
        let all: std::vec::Vec<_> = host.domains().collect();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0], Err(Status::Denied));
    }
}
