//! A hypervisor in memory, for tests: what the real one promises in `godwit-abi`, with deliberately
//! small steps, and able to refuse the n-th call so that every error path can be walked.

extern crate std;

mod absent;
mod calls;

use super::COPY_BYTES_MAX;
use godwit_abi::{
    CpuInfo, DomainConfig, DomainId, DomainInfo, DomainState, HostFeatures, HostInfo,
    PAGE_SIZE_BYTES, PowerAction, ShutdownReason, Status, VENDOR_AMD, field, text,
};
use godwit_records::{CpuPolicyState, CpuidEntry};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;
use zerocopy::FromZeros;

/// `memory_populate` does at most so many pages a call: odd, so that callers must repeat.
pub const POPULATE_STEP_PAGES: u64 = 37;
/// Bytes of typing that a domain's serial port takes.
pub const INPUT_BYTES_MAX: usize = 16;
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
    /// Encoded extended states that were set, by vCPU.
    pub xsave_states: BTreeMap<u16, Vec<u8>>,
    /// The records of its devices.
    pub platform: Vec<u8>,
    /// What its CPUs answer to CPUID.
    pub cpu_policy: CpuPolicyState,
    /// Its debug console.
    pub console: Vec<u8>,
    /// What was typed and not read yet.
    pub input: Vec<u8>,
    /// How often its power button was pressed.
    pub buttons: u32,
    /// What its clock was set to.
    pub clock_ns: Option<u64>,
    /// CPUs its vCPUs may run on, where that was set.
    pub affinity: BTreeMap<u16, u64>,
    /// Pages written to, while that is noted.
    pub dirty: Option<BTreeSet<u64>>,
    /// Its write quota, pages a second.
    pub write_quota: u64,
    /// Pages whose contents have not come.
    pub absent: BTreeSet<u64>,
    /// Those of them that its vCPUs wait for. Tests write here.
    pub wanted: BTreeSet<u64>,
    /// How often each page was filled.
    pub fills: BTreeMap<u64, u32>,
    /// What is kept for the control domain.
    pub blobs: BTreeMap<u32, Vec<u8>>,
}

impl FakeDomain {
    fn has_ended(&self) -> bool {
        let state = self.info.state;
        state == DomainState::Shutdown as u32 || state == DomainState::Crashed as u32
    }

    /// One that has ended stays so.
    fn pause(&mut self) {
        self.info.pauses += 1;
        if !self.has_ended() {
            self.info.state = DomainState::Paused as u32;
        }
    }

    fn unpause(&mut self) -> Result<(), Status> {
        self.info.pauses = self.info.pauses.checked_sub(1).ok_or(Status::BadState)?;
        if self.info.pauses == 0 && !self.has_ended() {
            self.info.state = DomainState::Running as u32;
        }
        Ok(())
    }
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
    /// What the CPUs of its domains answer to CPUID.
    pub cpu: CpuPolicyState,
    /// The hypervisor's log.
    pub log: Vec<u8>,
    /// Debug keys pressed.
    pub keys: Vec<u8>,
    /// Power actions asked for.
    pub power: Vec<PowerAction>,
    /// The clock.
    pub now_tsc: u64,
    /// What `wall_clock` answers.
    pub wall_clock: Result<u64, Status>,
    /// Calls made so far.
    pub calls: usize,
    /// Refuse the call with this number (counted from 0) and no other.
    pub fail: Option<(usize, Status)>,
    /// Broken on purpose: blobs of this key are not kept.
    pub ignored_blob: Option<u32>,
    /// Broken on purpose: writes to pages whose number this divides are not noted.
    pub forgotten_writes: Option<u64>,
}

/// The answers of a CPU that has leaf 1 with these features in ECX, and nothing else.
pub fn cpu_with(ecx: u32) -> CpuPolicyState {
    let entry = |leaf, registers| CpuidEntry {
        leaf,
        subleaf: 0,
        registers,
    };
    let entries = [entry(0, [1, 0, 0, 0]), entry(1, [0, 0, ecx, 0])];
    CpuPolicyState::new(entries.into_iter()).expect("two are few")
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
                cpu: cpu_with(0),
                log: Vec::new(),
                keys: Vec::new(),
                power: Vec::new(),
                now_tsc: 2_000_001_000,
                wall_clock: Ok(1_700_000_000_000_000_000),
                calls: 0,
                fail: None,
                ignored_blob: None,
                forgotten_writes: None,
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

    /// A domain ends by itself.
    pub fn end(&self, id: DomainId, reason: ShutdownReason) {
        let state = match reason {
            ShutdownReason::PowerOff | ShutdownReason::Reboot => DomainState::Shutdown,
            ShutdownReason::None
            | ShutdownReason::TripleFault
            | ShutdownReason::BadMemory
            | ShutdownReason::EntryFailed
            | ShutdownReason::UnknownExit
            | ShutdownReason::BadInstruction
            | ShutdownReason::Fault => DomainState::Crashed,
        };
        self.with(id, |domain| {
            domain.info.state = state as u32;
            domain.info.reason = reason as u32;
        })
        .expect("the domain is there");
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

    fn take_name(&self, domain: DomainId, name: &str) -> Result<(), Status> {
        if domain == DomainId::CONTROL {
            return Err(Status::Denied);
        }
        let mut state = self.state.borrow_mut();
        let mut others = state.slots.iter().flatten();
        if others.any(|other| other.id != domain && text(&other.info.name) == name) {
            return Err(Status::Exists);
        }
        let mut all = state.slots.iter_mut().flatten();
        let found = all.find(|it| it.id == domain).ok_or(Status::NoDomain)?;
        found.info.name = field(name);
        Ok(())
    }

    fn remove(&self, domain: DomainId) -> Result<(), Status> {
        if domain == DomainId::CONTROL {
            return Err(Status::Denied);
        }
        let pages = self.with(domain, |domain| domain.pages.len() as u64)?;
        let mut state = self.state.borrow_mut();
        state.slots[usize::from(domain.slot())] = None;
        state.host.free_bytes += pages * PAGE_SIZE_BYTES;
        Ok(())
    }

    fn exchange(&self, domain: DomainId, other: DomainId) -> Result<(), Status> {
        if domain == other {
            return Err(Status::BadArgument);
        }
        if domain == DomainId::CONTROL || other == DomainId::CONTROL {
            return Err(Status::Denied);
        }
        let one = self.with(domain, |it| it.info)?;
        let two = self.with(other, |it| it.info)?;
        if one.pauses == 0 || two.pauses == 0 {
            return Err(Status::BadState);
        }
        let set = |id, from: DomainInfo| {
            self.with(id, |it| {
                (it.info.name, it.info.uuid) = (from.name, from.uuid);
            })
        };
        set(domain, two)?;
        set(other, one)
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
            xsave_states: BTreeMap::new(),
            platform: b"as after power-up".to_vec(),
            cpu_policy: state.cpu.clone(),
            console: Vec::new(),
            input: Vec::new(),
            buttons: 0,
            clock_ns: None,
            affinity: BTreeMap::new(),
            dirty: None,
            write_quota: 0,
            absent: BTreeSet::new(),
            wanted: BTreeSet::new(),
            fills: BTreeMap::new(),
            blobs: BTreeMap::new(),
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
        if domain.absent.contains(&page) {
            return Err(Status::BadState);
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
