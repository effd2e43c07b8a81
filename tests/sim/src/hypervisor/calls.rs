//! The calls: those that `vmm` decides go to both, the others to the fake alone. A call that the script lets fail fails before
//! `vmm` hears of it.

use super::SimHypervisor;
use godwit_abi::{
    CpuInfo, DomainConfig, DomainId, DomainInfo, HostInfo, PowerAction, Status, VcpuIndex, VcpuInfo,
};
use godwit_toolstack::host::Hypervisor;
use godwit_vmm::lifecycle::{Event, Stage};

/// Calls that the fake answers alone.
macro_rules! delegated {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        $(fn $name(&self, $($arg: $type),*) -> $result {
            self.fake.$name($($arg),*)
        })*
    };
}

impl Hypervisor for SimHypervisor {
    delegated! {
        now_tsc() -> u64;
        host_info() -> Result<HostInfo, Status>;
        cpu_info(cpu: u32) -> Result<CpuInfo, Status>;
        domain_at(slot: u16) -> Result<DomainId, Status>;
        domain_info(domain: DomainId) -> Result<DomainInfo, Status>;
        vcpu_info(domain: DomainId, vcpu: VcpuIndex) -> Result<VcpuInfo, Status>;
        vcpu_state_set(domain: DomainId, vcpu: VcpuIndex, record: &[u8]) -> Result<(), Status>;
        vcpu_state_read(domain: DomainId, vcpu: VcpuIndex, out: &mut [u8]) -> Result<usize, Status>;
        guest_console_read(domain: DomainId, offset: u64, out: &mut [u8]) -> Result<usize, Status>;
        guest_console_start(domain: DomainId) -> Result<u64, Status>;
        log_read(offset: u64, out: &mut [u8]) -> Result<usize, Status>;
        log_start() -> Result<u64, Status>;
        domain_rename(domain: DomainId, name: &str) -> Result<(), Status>;
        domain_exchange_identity(domain: DomainId, other: DomainId) -> Result<(), Status>;
        scheduler_set(domain: DomainId, weight: u32, cap_percent: u32) -> Result<(), Status>;
        guest_input(domain: DomainId, bytes: &[u8]) -> Result<usize, Status>;
        power_button(domain: DomainId) -> Result<(), Status>;
        domain_clock_set(domain: DomainId, unix_ns: u64) -> Result<(), Status>;
        vcpu_affinity_set(domain: DomainId, vcpu: VcpuIndex, cpus: u64) -> Result<(), Status>;
        wall_clock() -> Result<u64, Status>;
        platform_state_read(domain: DomainId, out: &mut [u8]) -> Result<usize, Status>;
        platform_state_set(domain: DomainId, records: &[u8]) -> Result<(), Status>;
        cpu_policy_read(domain: DomainId, out: &mut [u8]) -> Result<usize, Status>;
        cpu_policy_set(domain: DomainId, record: &[u8]) -> Result<(), Status>;
        xsave_state_read(domain: DomainId, vcpu: VcpuIndex, out: &mut [u8]) -> Result<usize, Status>;
        xsave_state_set(domain: DomainId, vcpu: VcpuIndex, record: &[u8]) -> Result<(), Status>;
        absent_wanted(domain: DomainId) -> Result<Vec<u64>, Status>;
        dirty_quota(domain: DomainId, pages_per_s: u64) -> Result<(), Status>;
        blob_write(domain: DomainId, key: u32, bytes: &[u8]) -> Result<(), Status>;
        blob_read(domain: DomainId, key: u32) -> Result<Vec<u8>, Status>;
        debug_key(key: u8) -> Result<(), Status>;
        power(action: PowerAction) -> Result<(), Status>;
    }

    fn domain_create(&self, config: &DomainConfig) -> Result<DomainId, Status> {
        let id = self.fake.domain_create(config)?;
        self.add(id);
        Ok(id)
    }

    fn domain_destroy(&self, domain: DomainId) -> Result<(), Status> {
        self.fake.domain_destroy(domain)?;
        self.remove(domain);
        Ok(())
    }

    fn domain_pause(&self, domain: DomainId) -> Result<(), Status> {
        self.fake.domain_pause(domain)?;
        self.live(domain, Event::Pause);
        Ok(())
    }

    fn domain_unpause(&self, domain: DomainId) -> Result<(), Status> {
        self.fake.domain_unpause(domain)?;
        let stage = self.on(domain, |domain, _| domain.life.stage());
        let event = match stage {
            Some(Stage::Building) => Event::Built,
            Some(Stage::Alive(_) | Stage::Dying { .. } | Stage::Gone) | None => Event::Unpause,
        };
        self.live(domain, event);
        Ok(())
    }

    fn memory_populate(&self, domain: DomainId, page: u64, pages: u64) -> Result<u64, Status> {
        let done = self.fake.memory_populate(domain, page, pages)?;
        self.populated(domain, page, done);
        Ok(done)
    }

    fn memory_release(&self, domain: DomainId, pages: &[u64]) -> Result<u64, Status> {
        let done = self.fake.memory_release(domain, pages)?;
        self.released(domain, pages);
        Ok(done)
    }

    fn memory_write(&self, domain: DomainId, target: u64, bytes: &[u8]) -> Result<(), Status> {
        self.fake.memory_write(domain, target, bytes)?;
        self.accessed(domain, target, bytes.len(), true);
        Ok(())
    }

    fn memory_read(&self, domain: DomainId, source: u64, out: &mut [u8]) -> Result<(), Status> {
        self.fake.memory_read(domain, source, out)?;
        self.accessed(domain, source, out.len(), false);
        Ok(())
    }

    fn dirty_arm(&self, domain: DomainId) -> Result<u64, Status> {
        self.fake.dirty_arm(domain)?;
        let left = self.on(domain, |domain, machine| domain.space.sweep(machine, true));
        Ok(left.unwrap_or(0))
    }

    fn dirty_harvest(
        &self,
        domain: DomainId,
        first_page: u64,
        pages: u64,
        words: &mut [u64],
    ) -> Result<u64, Status> {
        // It is counted, and may be refused; what there is to be harvested is left.
        self.fake.dirty_harvest(domain, first_page, 0, &mut [])?;
        self.harvested(domain, first_page, pages, words)
    }

    fn dirty_put_back(
        &self,
        domain: DomainId,
        first_page: u64,
        pages: u64,
        words: &[u64],
    ) -> Result<u64, Status> {
        let done = self.fake.dirty_put_back(domain, first_page, pages, words)?;
        self.on(domain, |domain, machine| {
            let mut words = words.to_vec();
            domain.space.put_back(machine, first_page, &mut words);
        });
        Ok(done)
    }

    fn dirty_disarm(&self, domain: DomainId) -> Result<u64, Status> {
        self.fake.dirty_disarm(domain)?;
        let left = self.on(domain, |domain, machine| domain.space.sweep(machine, false));
        Ok(left.unwrap_or(0))
    }

    fn absent_arm(&self, id: DomainId, first: u64, count: u64, set: &[u64]) -> Result<u64, Status> {
        let done = self.fake.absent_arm(id, first, count, set)?;
        self.on(id, |domain, machine| {
            let is_set = |n: &u64| set[(*n / 64) as usize] >> (*n % 64) & 1 == 1;
            for n in (0..done).filter(is_set) {
                domain.space.make_absent(machine, first + n);
            }
        });
        Ok(done)
    }

    fn absent_read(
        &self,
        id: DomainId,
        first: u64,
        count: u64,
        out: &mut [u64],
    ) -> Result<u64, Status> {
        let done = self.fake.absent_read(id, first, count, out)?;
        self.on(id, |domain, machine| {
            for n in 0..done {
                let known = out[(n / 64) as usize] >> (n % 64) & 1 == 1;
                let there = domain.space.is_absent(machine, first + n);
                assert_eq!(there, known, "page {:#x} is absent", first + n);
            }
        });
        Ok(done)
    }

    fn absent_fill(&self, id: DomainId, first: u64, contents: &[u8]) -> Result<u64, Status> {
        let filled = self.fake.absent_fill(id, first, contents)?;
        let made = self.on(id, |domain, machine| {
            let pages = first..first + contents.len() as u64 / 4096;
            let mut made = 0;
            for page in pages {
                made += u64::from(domain.space.make_present(machine, page));
            }
            made
        });
        assert!(made.is_none_or(|made| made == filled), "{made:?}, {filled}");
        Ok(filled)
    }
}
