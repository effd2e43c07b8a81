//! A hypervisor in memory, for tests: what the real one promises in `godwit-abi`, with deliberately
//! small steps, and able to refuse the n-th call so that every error path can be walked.

extern crate std;

use super::{COPY_BYTES_MAX, Hypervisor};
use godwit_abi::{
    CpuInfo, DomainConfig, DomainId, DomainInfo, DomainState, HostFeatures, HostInfo,
    PAGE_SIZE_BYTES, PowerAction, Status, VENDOR_AMD, VcpuIndex, VcpuInfo, VcpuRunState, field,
};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::vec::Vec;
use zerocopy::FromZeros;

/// `memory_populate` does at most so many pages a call: odd, so that callers must repeat.
pub const POPULATE_STEP_PAGES: u64 = 37;
/// Most domains the fake holds.
pub const SLOTS_MAX: usize = 16;

/// One domain of the fake.
pub struct FakeDomain {
    /// Its id.
    pub id: DomainId,
    /// What `domain_info` answers.
    pub info: DomainInfo,
    /// Pages it has, by guest page number.
    pub pages: BTreeMap<u64, Vec<u8>>,
    /// Encoded states that were set, by vCPU.
    pub vcpu_states: BTreeMap<u16, Vec<u8>>,
    /// Its debug console.
    pub console: Vec<u8>,
}

/// State behind the `&self` methods.
pub struct FakeState {
    /// What `host_info` answers.
    pub host: HostInfo,
    /// What `cpu_info` answers.
    pub cpus: Vec<CpuInfo>,
    /// Domains by slot.
    pub slots: Vec<Option<FakeDomain>>,
    /// Generation of the next occupant of each slot.
    pub generations: Vec<u16>,
    /// The hypervisor's log.
    pub log: Vec<u8>,
    /// Debug keys pressed.
    pub keys: Vec<u8>,
    /// Power actions asked for.
    pub power: Vec<PowerAction>,
    /// The clock.
    pub now_tsc: u64,
    /// Calls made so far.
    pub calls: usize,
    /// Refuse the call with this number (counted from 0) and no other.
    pub fail: Option<(usize, Status)>,
}

/// The fake.
pub struct FakeHypervisor {
    /// Open to tests.
    pub state: RefCell<FakeState>,
}

impl Default for FakeHypervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeHypervisor {
    /// A host of 2 CPUs and 512 MiB that runs only the control domain.
    pub fn new() -> Self {
        let mut host = HostInfo::new_zeroed();
        host.abi_version = godwit_abi::ABI_VERSION;
        host.vendor = VENDOR_AMD;
        (host.cpus, host.cpus_present) = (2, 2);
        host.memory_bytes = 512 << 20;
        host.free_bytes = 300 << 20;
        host.hypervisor_bytes = 9 << 20;
        host.image_bytes = 700 << 10;
        host.tsc_hz = 1_000_000_000;
        host.boot_tsc = 1000;
        host.dom0_entry_tsc = 150_001_000;
        host.features = (HostFeatures::NESTED_PAGING | HostFeatures::TAGGED_TLB).bits();
        host.cpu_signature = 0x0080_0f12;
        host.cpu_name = field("Fake CPU @ 1.00GHz");
        host.version = field("0.1.0-fake");
        host.cmdline = field("loglvl=info");
        let mut cpu = CpuInfo::new_zeroed();
        (cpu.online, cpu.domain) = (1, u32::MAX);
        let fake = Self {
            state: RefCell::new(FakeState {
                host,
                cpus: std::vec![cpu; 2],
                slots: Vec::new(),
                generations: std::vec![0; SLOTS_MAX],
                log: Vec::new(),
                keys: Vec::new(),
                power: Vec::new(),
                now_tsc: 2_000_001_000,
                calls: 0,
                fail: None,
            }),
        };
        let control = fake.add_domain("Domain-0", 64);
        assert_eq!(control, DomainId::CONTROL);
        fake.with(control, |domain| domain.info.running = 1)
            .unwrap();
        fake
    }

    /// Adds a running domain of one vCPU and `memory_mib` MiB, without counting a call.
    pub fn add_domain(&self, name: &str, memory_mib: u64) -> DomainId {
        let mut config = DomainConfig::new_zeroed();
        config.name = field(name);
        (config.vcpus, config.weight) = (1, 256);
        config.memory_pages_max = memory_mib << 8;
        let id = self.insert(&config).expect("the fake has a free slot");
        self.with(id, |domain| {
            domain.info.state = DomainState::Running as u32;
            domain.info.pauses = 0;
            domain.info.memory_pages = memory_mib << 8;
        })
        .unwrap();
        id
    }

    /// From now on the `nth` call (0: the next one) answers `status`.
    pub fn fail_call(&self, nth: usize, status: Status) {
        let mut state = self.state.borrow_mut();
        state.fail = Some((state.calls + nth, status));
    }

    /// Looks at or changes a domain.
    pub fn with<T>(
        &self,
        id: DomainId,
        look: impl FnOnce(&mut FakeDomain) -> T,
    ) -> Result<T, Status> {
        let mut state = self.state.borrow_mut();
        let slot = state.slots.get_mut(usize::from(id.slot()));
        match slot.and_then(Option::as_mut) {
            Some(domain) if domain.id == id => Ok(look(domain)),
            Some(_) | None => Err(Status::NoDomain),
        }
    }

    fn count(&self) -> Result<(), Status> {
        let mut state = self.state.borrow_mut();
        let call = state.calls;
        state.calls += 1;
        match state.fail {
            Some((nth, status)) if nth == call => Err(status),
            Some(_) | None => Ok(()),
        }
    }

    fn insert(&self, config: &DomainConfig) -> Result<DomainId, Status> {
        let mut state = self.state.borrow_mut();
        if config.vcpus == 0 || config.vcpus > 32 || config.weight == 0 || config.weight > 65535 {
            return Err(Status::BadArgument);
        }
        let free = state.slots.iter().position(Option::is_none);
        let slot = free.unwrap_or(state.slots.len());
        if slot == SLOTS_MAX {
            return Err(Status::Full);
        }
        let id = DomainId::new(slot as u16, state.generations[slot]);
        state.generations[slot] += 1;
        let mut info = DomainInfo::new_zeroed();
        info.domain = id.raw();
        (info.name, info.uuid) = (config.name, config.uuid);
        (info.vcpus, info.weight) = (config.vcpus, config.weight);
        info.cap_percent = config.cap_percent;
        info.memory_pages_max = config.memory_pages_max;
        (info.state, info.pauses) = (DomainState::Building as u32, 1);
        let domain = FakeDomain {
            id,
            info,
            pages: BTreeMap::new(),
            vcpu_states: BTreeMap::new(),
            console: Vec::new(),
        };
        if slot == state.slots.len() {
            state.slots.push(None);
        }
        state.slots[slot] = Some(domain);
        Ok(id)
    }
}

fn read_stream(stream: &[u8], offset: u64, out: &mut [u8]) -> Result<usize, Status> {
    let offset = usize::try_from(offset).map_err(|_| Status::NotFound)?;
    let rest = stream.get(offset..).ok_or(Status::NotFound)?;
    let count = rest.len().min(out.len());
    out[..count].copy_from_slice(&rest[..count]);
    Ok(count)
}

/// Visits the pieces of `length` bytes from `address` on, page by page: page number, offset in the
/// page, range in the buffer. BadAddress when a page is missing; nothing is visited then.
fn visit(
    domain: &mut FakeDomain,
    address: u64,
    length: usize,
    mut piece: impl FnMut(&mut [u8], core::ops::Range<usize>),
) -> Result<(), Status> {
    if length > COPY_BYTES_MAX {
        return Err(Status::BadArgument);
    }
    let end = address
        .checked_add(length as u64)
        .ok_or(Status::BadAddress)?;
    for page in address / PAGE_SIZE_BYTES..end.div_ceil(PAGE_SIZE_BYTES) {
        if !domain.pages.contains_key(&page) {
            return Err(Status::BadAddress);
        }
    }
    let mut done = 0;
    while done < length {
        let at = address + done as u64;
        let offset = (at % PAGE_SIZE_BYTES) as usize;
        let count = (PAGE_SIZE_BYTES as usize - offset).min(length - done);
        let page = domain.pages.get_mut(&(at / PAGE_SIZE_BYTES)).unwrap();
        piece(&mut page[offset..offset + count], done..done + count);
        done += count;
    }
    Ok(())
}

impl Hypervisor for FakeHypervisor {
    fn now_tsc(&self) -> u64 {
        self.state.borrow().now_tsc
    }

    fn host_info(&self) -> Result<HostInfo, Status> {
        self.count()?;
        let state = self.state.borrow();
        let mut host = state.host;
        host.domains = state.slots.iter().flatten().count() as u32;
        Ok(host)
    }

    fn cpu_info(&self, cpu: u32) -> Result<CpuInfo, Status> {
        self.count()?;
        let state = self.state.borrow();
        state
            .cpus
            .get(cpu as usize)
            .copied()
            .ok_or(Status::NotFound)
    }

    fn domain_at(&self, slot: u16) -> Result<DomainId, Status> {
        self.count()?;
        let state = self.state.borrow();
        let rest = state.slots.get(usize::from(slot)..).unwrap_or(&[]);
        let first = rest.iter().flatten().next();
        first.map(|domain| domain.id).ok_or(Status::NotFound)
    }

    fn domain_info(&self, domain: DomainId) -> Result<DomainInfo, Status> {
        self.count()?;
        self.with(domain, |domain| {
            domain.info.console_end = domain.console.len() as u64;
            domain.info
        })
    }

    fn vcpu_info(&self, domain: DomainId, vcpu: VcpuIndex) -> Result<VcpuInfo, Status> {
        self.count()?;
        self.with(domain, |domain| {
            if u32::from(vcpu.0) >= domain.info.vcpus {
                return Err(Status::NoVcpu);
            }
            let mut info = VcpuInfo::new_zeroed();
            info.state = VcpuRunState::Blocked as u32;
            info.cpu = u32::from(vcpu.0) % 2;
            info.affinity = 0b11;
            info.cpu_ns = domain.info.cpu_ns / u64::from(domain.info.vcpus);
            Ok(info)
        })?
    }

    fn domain_create(&self, config: &DomainConfig) -> Result<DomainId, Status> {
        self.count()?;
        self.insert(config)
    }

    fn domain_destroy(&self, domain: DomainId) -> Result<(), Status> {
        self.count()?;
        if domain == DomainId::CONTROL {
            return Err(Status::Denied);
        }
        self.with(domain, |_| ())?;
        self.state.borrow_mut().slots[usize::from(domain.slot())] = None;
        Ok(())
    }

    fn domain_pause(&self, domain: DomainId) -> Result<(), Status> {
        self.count()?;
        self.with(domain, |domain| {
            domain.info.pauses += 1;
            domain.info.state = DomainState::Paused as u32;
        })
    }

    fn domain_unpause(&self, domain: DomainId) -> Result<(), Status> {
        self.count()?;
        self.with(domain, |domain| {
            if domain.info.pauses == 0 {
                return Err(Status::BadState);
            }
            domain.info.pauses -= 1;
            if domain.info.pauses == 0 {
                domain.info.state = DomainState::Running as u32;
            }
            Ok(())
        })?
    }

    fn memory_populate(&self, domain: DomainId, page: u64, pages: u64) -> Result<u64, Status> {
        self.count()?;
        let free = self.state.borrow().host.free_bytes / PAGE_SIZE_BYTES;
        let done = self.with(domain, |domain| {
            let room = domain.info.memory_pages_max - domain.info.memory_pages;
            let done = pages.min(POPULATE_STEP_PAGES).min(room).min(free);
            if done == 0 && pages > 0 {
                return Err(Status::NoMemory);
            }
            for page in page..page + done {
                let zeroes = std::vec![0; PAGE_SIZE_BYTES as usize];
                if domain.pages.insert(page, zeroes).is_some() {
                    return Err(Status::Exists);
                }
            }
            domain.info.memory_pages += done;
            Ok(done)
        })??;
        self.state.borrow_mut().host.free_bytes -= done * PAGE_SIZE_BYTES;
        Ok(done)
    }

    fn memory_write(&self, domain: DomainId, target: u64, bytes: &[u8]) -> Result<(), Status> {
        self.count()?;
        self.with(domain, |domain| {
            visit(domain, target, bytes.len(), |page, range| {
                page.copy_from_slice(&bytes[range]);
            })
        })?
    }

    fn memory_read(&self, domain: DomainId, source: u64, out: &mut [u8]) -> Result<(), Status> {
        self.count()?;
        self.with(domain, |domain| {
            visit(domain, source, out.len(), |page, range| {
                out[range].copy_from_slice(page);
            })
        })?
    }

    fn vcpu_state_set(
        &self,
        domain: DomainId,
        vcpu: VcpuIndex,
        record: &[u8],
    ) -> Result<(), Status> {
        self.count()?;
        self.with(domain, |domain| {
            if domain.info.pauses == 0 {
                return Err(Status::BadState);
            }
            if u32::from(vcpu.0) >= domain.info.vcpus {
                return Err(Status::NoVcpu);
            }
            domain.vcpu_states.insert(vcpu.0, record.to_vec());
            Ok(())
        })?
    }

    fn vcpu_state_read(
        &self,
        domain: DomainId,
        vcpu: VcpuIndex,
        out: &mut [u8],
    ) -> Result<usize, Status> {
        self.count()?;
        self.with(domain, |domain| {
            let state = domain.vcpu_states.get(&vcpu.0).ok_or(Status::NoVcpu)?;
            let target = out.get_mut(..state.len()).ok_or(Status::BadArgument)?;
            target.copy_from_slice(state);
            Ok(state.len())
        })?
    }

    fn guest_console_read(
        &self,
        domain: DomainId,
        offset: u64,
        out: &mut [u8],
    ) -> Result<usize, Status> {
        self.count()?;
        self.with(domain, |domain| read_stream(&domain.console, offset, out))?
    }

    fn guest_console_start(&self, domain: DomainId) -> Result<u64, Status> {
        self.count()?;
        self.with(domain, |_| 0)
    }

    fn log_read(&self, offset: u64, out: &mut [u8]) -> Result<usize, Status> {
        self.count()?;
        read_stream(&self.state.borrow().log, offset, out)
    }

    fn log_start(&self) -> Result<u64, Status> {
        self.count()?;
        Ok(0)
    }

    fn scheduler_set(&self, domain: DomainId, weight: u32, cap_percent: u32) -> Result<(), Status> {
        self.count()?;
        self.with(domain, |domain| {
            if weight == 0 || weight > 65535 {
                return Err(Status::BadArgument);
            }
            (domain.info.weight, domain.info.cap_percent) = (weight, cap_percent);
            Ok(())
        })?
    }

    fn debug_key(&self, key: u8) -> Result<(), Status> {
        self.count()?;
        self.state.borrow_mut().keys.push(key);
        Ok(())
    }

    fn power(&self, action: PowerAction) -> Result<(), Status> {
        self.count()?;
        self.state.borrow_mut().power.push(action);
        Ok(())
    }
}
