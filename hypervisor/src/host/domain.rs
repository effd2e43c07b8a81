//! A domain and its vCPUs.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Deref;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use godwit_abi::{Access, DomainId, ShutdownReason, Status, VcpuIndex};
use godwit_records::{CpuPolicyState, VcpuState as VcpuRecord};
use godwit_vmm::cpuid::{Leaf, Policy, PolicyName};
use godwit_vmm::devices::TscRate;
use godwit_vmm::devices::debug_console::Cursor;
use godwit_vmm::devices::lapic::{ApicMode, Lapic};
use godwit_vmm::devices::ports::Platform;
use godwit_vmm::lifecycle::Life;
use godwit_vmm::nested::{Method, PageSize};
use godwit_vmm::sched::VcpuKey;
use godwit_vmm::vcpu::{Ending, Exchange, Inbox, Vcpu};
use spin::mutex::TicketMutex;
use spin::once::Once;

use super::Hosted;
use super::blobs::Blobs;
use super::devices::Wants;
use super::memory::DomainMemory;
use super::xstate::Xstate;
use crate::backend::VcpuSetup;
use crate::cpu::features::{arch_capabilities, cpuid, has_fast_strings};
use crate::memory::OutOfMemory;
use crate::platform::{clock, wall};

/// What dom0 said a domain should be, checked.
pub(super) struct Shape {
    /// Changed only with the domain list locked; held for nothing but looking at it or a line of the log.
    pub(super) name: TicketMutex<String>,
    /// As the name.
    pub(super) uuid: TicketMutex<[u8; 16]>,
    pub(super) pages_max: u64,
    pub(super) vcpus: u16,
    pub(super) weight: u32,
    pub(super) cap_percent: u32,
    pub(super) access: Access,
    pub(super) policy: PolicyName,
}

/// A domain.
pub(super) struct Domain<B: Hosted> {
    pub(super) id: DomainId,
    pub(super) shape: Shape,
    pub(super) weight: AtomicU32,
    pub(super) cap_percent: AtomicU32,
    pub(super) memory: DomainMemory<B::Nested>,
    /// What its CPUs answer here by the name of its policy.
    made_policy: Policy,
    /// What they go on to answer if it comes from elsewhere.
    brought_policy: Once<Policy>,
    pub(super) platform: TicketMutex<Platform>,
    pub(super) life: TicketMutex<Life>,
    pub(super) vcpus: Once<Vec<Arc<VcpuSlot<B>>>>,
    pub(super) ending: TicketMutex<Option<Ending>>,
    pub(super) refused: AtomicU64,
    /// Added to the host's TSC: platform time, which begins at the domain's creation.
    pub(super) tsc_offset: AtomicU64,
    /// dom0 has been told that there is console output, and has not read it yet.
    pub(super) console_told: AtomicBool,
    /// Pages a second that each of its vCPUs may make dirty while it is tracked; 0 for any.
    pub(super) write_quota: AtomicU64,
    /// What dom0 keeps beside it.
    pub(super) blobs: Blobs,
    /// What its guest wants of dom0.
    pub(super) wants: Wants,
}

/// A vCPU of a domain. Whoever runs or inspects it holds `state`.
pub(super) struct VcpuSlot<B: Hosted> {
    pub(super) key: VcpuKey,
    pub(super) index: VcpuIndex,
    pub(super) state: TicketMutex<VcpuState<B>>,
    /// Messages from others.
    pub(super) inbox: Inbox,
    /// Where it asks dom0 for its devices' answers.
    pub(super) exchange: Exchange,
    /// `Address` of its local APIC, published for senders.
    pub(super) apic_address: AtomicU64,
    pub(super) exits: AtomicU64,
    pub(super) last_rip: AtomicU64,
    /// The absent page it came to last: its address, and bit 0; 0 for none.
    pub(super) starved: AtomicU64,
}

/// A vCPU with its domain: what a CPU runs. Only the host's table of vCPUs keeps these: a domain keeps
/// its vCPUs, and would live for ever if they kept it.
pub(super) struct Runnable<B: Hosted> {
    pub(super) vcpu: Arc<VcpuSlot<B>>,
    pub(super) domain: Arc<Domain<B>>,
}

impl<B: Hosted> Clone for Runnable<B> {
    fn clone(&self) -> Self {
        Self {
            vcpu: self.vcpu.clone(),
            domain: self.domain.clone(),
        }
    }
}

impl<B: Hosted> Deref for Runnable<B> {
    type Target = VcpuSlot<B>;

    fn deref(&self) -> &VcpuSlot<B> {
        &self.vcpu
    }
}

/// Registers and everything else that only its runner may touch.
pub(super) struct VcpuState<B: Hosted> {
    pub(super) hardware: B::Vcpu,
    pub(super) core: Vcpu,
    pub(super) xstate: Xstate,
    /// Host TSC until which dom0's `wait` sleeps at most.
    pub(super) wait_deadline: u64,
    /// Whom it has woken, and the run loop may go to.
    pub(super) hand_to: Option<VcpuKey>,
    /// It waits in HLT, or for its start-up IPI.
    pub(super) halted: bool,
    /// Registers to take on when it is loaded next.
    pub(super) pending_state: Option<alloc::boxed::Box<VcpuRecord>>,
}

/// What the host's CPUs answer, as the policy's input.
fn host_leaf(leaf: u32, subleaf: u32) -> Leaf {
    /// Leaf 7: enhanced REP MOVSB and STOSB (EBX), fast short REP MOVSB (EDX).
    const ERMS: u32 = 1 << 9;
    const FSRM: u32 = 1 << 4;
    let result = cpuid(leaf, subleaf);
    let mut answer = Leaf {
        eax: result.eax,
        ebx: result.ebx,
        ecx: result.ecx,
        edx: result.edx,
    };
    // Where the firmware switched them off, CPUID may go on to promise them.
    if (leaf, subleaf) == (7, 0) && !has_fast_strings() {
        answer.ebx &= !ERMS;
        answer.edx &= !FSRM;
    }
    answer
}

/// What the host's CPUs are immune to, as far as guests may know.
fn host_immunities() -> Option<u64> {
    godwit_vmm::cpuid::immunities(host_leaf, arch_capabilities())
}

/// The guests' TSC runs at the host's rate.
pub(super) fn tsc_rate() -> TscRate {
    TscRate::from_hz(clock::tsc_hz()).expect("the TSC has been calibrated")
}

impl<B: Hosted> Domain<B> {
    pub(super) fn new(
        id: DomainId,
        shape: Shape,
        largest: PageSize,
        method: Method,
    ) -> Result<Self, OutOfMemory> {
        // dom0 shares the host's clock: deadlines of its `wait` are host time.
        let tsc_offset = match shape.access {
            Access::Control => 0,
            Access::Any => clock::tsc().wrapping_neg(),
        };
        let mut platform = Platform::new(tsc_rate());
        if let Some(unix_ns) = wall::now_ns() {
            platform.set_clock(unix_ns, clock::tsc().wrapping_add(tsc_offset));
        }
        Ok(Self {
            id,
            memory: DomainMemory::new(id, shape.pages_max, largest, method)?,
            made_policy: Policy::named(
                shape.policy,
                shape.vcpus.into(),
                godwit_abi::ABI_VERSION,
                host_leaf,
            )
            .with_immunities(host_immunities()),
            brought_policy: Once::new(),
            platform: TicketMutex::new(platform),
            life: TicketMutex::new(Life::new()),
            vcpus: Once::new(),
            ending: TicketMutex::new(None),
            refused: AtomicU64::new(0),
            tsc_offset: AtomicU64::new(tsc_offset),
            console_told: AtomicBool::new(false),
            write_quota: AtomicU64::new(0),
            blobs: Blobs::new(),
            wants: Wants::new(),
            weight: AtomicU32::new(shape.weight),
            cap_percent: AtomicU32::new(shape.cap_percent),
            shape,
        })
    }

    /// What its CPUs answer to CPUID.
    #[inline]
    pub(super) fn policy(&self) -> &Policy {
        self.brought_policy.get().unwrap_or(&self.made_policy)
    }

    /// Takes the policy that it had elsewhere. It has not run.
    pub(super) fn replace_policy(&self, record: &CpuPolicyState) -> Result<(), Status> {
        let policy = self.made_policy.replaced_by(record).map_err(|error| {
            log::warn!("domain {}: its CPU is refused: {error}", self.id);
            Status::BadRecord
        })?;
        if self.brought_policy.is_completed() {
            return Err(Status::BadState);
        }
        let policy = self.brought_policy.call_once(|| policy);
        for vcpu in self.vcpus() {
            vcpu.state.lock().xstate.allow(policy.xcr0_allowed());
        }
        Ok(())
    }

    pub(super) fn is_control(&self) -> bool {
        self.shape.access == Access::Control
    }

    /// What decides for the vCPU of this number, as after power-up.
    pub(super) fn new_core(&self, index: VcpuIndex) -> Vcpu {
        let lapic =
            Lapic::after_firmware(index.0.into(), index.0 == 0, ApicMode::XApic, tsc_rate());
        let offset = self.tsc_offset.load(Ordering::Acquire);
        Vcpu::new(lapic, self.shape.access, offset)
    }

    /// Platform time at a host TSC.
    pub(super) fn platform_tsc(&self, host_tsc: u64) -> u64 {
        host_tsc.wrapping_add(self.tsc_offset.load(Ordering::Acquire))
    }

    pub(super) fn vcpus(&self) -> &[Arc<VcpuSlot<B>>] {
        self.vcpus.get().map_or(&[], Vec::as_slice)
    }

    /// Hypervisor memory used for this domain beyond its own pages, in bytes: tables and vCPU pages
    /// exactly, heap objects by their size.
    pub(super) fn overhead_bytes(&self) -> u64 {
        let vcpu_pages = match self.memory.method() {
            Method::WriteProtect => 2,
            Method::DirtyLog => 3,
        };
        let vcpus = self.vcpus().len() as u64;
        self.memory.table_pages() * 4096
            + vcpus * (vcpu_pages * 4096 + size_of::<VcpuSlot<B>>() as u64)
            + size_of::<Self>() as u64
            + self.blobs.bytes()
            + 16 * 1024
    }

    /// Absolute offset of the end of its debug console.
    pub(super) fn console_end(&self) -> u64 {
        self.platform.lock().console.end().0
    }

    /// The oldest byte kept of its debug console.
    pub(super) fn console_start(&self) -> u64 {
        self.platform.lock().console.oldest().0
    }

    /// Reads its debug console from an absolute offset.
    pub(super) fn read_console(&self, offset: u64, out: &mut [u8]) -> Result<usize, Status> {
        let platform = self.platform.lock();
        if offset < platform.console.oldest().0 || offset > platform.console.end().0 {
            return Err(Status::NotFound);
        }
        Ok(platform.console.read(Cursor(offset), out).copied)
    }

    /// Why it ended, in the interface's terms.
    pub(super) fn reason(&self) -> (ShutdownReason, u64) {
        self.ending
            .lock()
            .map_or((ShutdownReason::None, 0), |ending| {
                (ending.reason, ending.detail)
            })
    }
}

impl<B: Hosted> VcpuSlot<B> {
    pub(super) fn new(
        domain: &Domain<B>,
        index: VcpuIndex,
        key: VcpuKey,
    ) -> Result<Self, OutOfMemory> {
        let setup = VcpuSetup {
            nested_root: domain.memory.root(),
            tag: key.slot() + 1,
            dirty_log: domain.memory.method() == Method::DirtyLog,
        };
        let hardware = B::create(&setup)?;
        let core = domain.new_core(index);
        let (address, bootstrap) = (core.lapic.address().pack(), core.lapic.is_bootstrap());
        Ok(Self {
            key,
            index,
            inbox: Inbox::new(),
            exchange: Exchange::new(),
            apic_address: AtomicU64::new(address),
            state: TicketMutex::new(VcpuState {
                hardware,
                core,
                xstate: Xstate::new(domain.policy().xcr0_allowed())?,
                wait_deadline: u64::MAX,
                hand_to: None,
                halted: !bootstrap,
                pending_state: None,
            }),
            exits: AtomicU64::new(0),
            last_rip: AtomicU64::new(0),
            starved: AtomicU64::new(0),
        })
    }

    pub(super) fn count_exit(&self) {
        self.exits
            .store(self.exits.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}
