//! Making, pausing, inspecting and destroying domains, on dom0's behalf.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use godwit_abi::{
    Access, DomainConfig, DomainId, DomainInfo, DomainState, Refusal, Status, VcpuIndex, VcpuInfo,
    VcpuRunState, field,
};
use godwit_records::{Record, VcpuState};
use godwit_vmm::cpuid::PolicyName;
use godwit_vmm::lifecycle::{Event, Guest, Stage};
use godwit_vmm::nested::{Method, PageSize};
use godwit_vmm::sched::{
    CpuSet, DomainKind, SchedError, VcpuState as SchedState, WEIGHT_MAX, WEIGHT_MIN,
};
use spin::mutex::TicketMutex;
use zerocopy::FromBytes;

use super::caller::Caller;
use super::domain::{Domain, Runnable, Shape, VcpuSlot};
use super::errand::Errand;
use super::{Host, Hosted, rename};
use crate::cpu::features;
use crate::memory;
use crate::platform::clock;

/// The most memory a domain may have: what 4-level nested tables cover by far, in pages.
const PAGES_MAX: u64 = 1 << 30;
/// vCPUs a domain may have.
const VCPUS_MAX: u32 = 32;

impl<B: Hosted> Caller<'_, B> {
    pub(super) fn domain_config(&self, address: u64, length: u64) -> Result<DomainConfig, Refusal> {
        let mut bytes = [0; DomainConfig::SIZE_BYTES];
        if length != bytes.len() as u64 {
            return Err(Status::BadArgument.into());
        }
        if !self.domain.memory.read(address, &mut bytes) {
            return Err(Status::BadAddress.into());
        }
        DomainConfig::read_from_bytes(&bytes).map_err(|_| Status::BadArgument.into())
    }
}

fn shape(config: &DomainConfig) -> Result<Shape, Status> {
    let name = rename::name(&config.name)?;
    let sized = (1..=PAGES_MAX).contains(&config.memory_pages_max);
    let weighted = (WEIGHT_MIN..=WEIGHT_MAX).contains(&config.weight);
    if !sized
        || !weighted
        || !(1..=VCPUS_MAX).contains(&config.vcpus)
        || config.flags != 0
        || config.reserved_word != 0
        || config.reserved != 0
    {
        return Err(Status::BadArgument);
    }
    let policy = PolicyName::from_number(config.cpu_policy).ok_or(Status::BadArgument)?;
    Ok(Shape {
        policy,
        name: TicketMutex::new(name),
        uuid: TicketMutex::new(config.uuid),
        pages_max: config.memory_pages_max,
        vcpus: config.vcpus as u16,
        weight: config.weight,
        cap_percent: config.cap_percent,
        access: Access::Any,
    })
}

fn refused(error: SchedError) -> Status {
    match error {
        SchedError::TooManyVcpus => Status::Full,
        SchedError::WeightOutOfRange | SchedError::CapOutOfRange | SchedError::EmptyAffinity => {
            Status::BadArgument
        }
        SchedError::ControlDomainUncapped => Status::NotSupported,
        SchedError::DomainExists
        | SchedError::UnknownDomain
        | SchedError::DomainHasVcpus
        | SchedError::UnknownVcpu
        | SchedError::OnCpu(_)
        | SchedError::PauseCount => Status::BadState,
    }
}

impl<B: Hosted> Host<B> {
    /// The largest nested page this host's CPUs take.
    pub(super) fn largest_page(&self) -> PageSize {
        use godwit_abi::HostFeatures;
        if self.features.contains(HostFeatures::NESTED_1G) {
            PageSize::Huge1G
        } else if self.features.contains(HostFeatures::NESTED_2M) {
            PageSize::Large2M
        } else {
            PageSize::Small4K
        }
    }

    /// How a domain's writes are noticed. SVM has no log, and dirty bits alone would give a vCPU's quota nothing to count by.
    fn dirty_method(&self, access: Access) -> Method {
        use godwit_abi::HostFeatures;
        match access {
            Access::Any if self.features.contains(HostFeatures::PML) => Method::DirtyLog,
            // dom0 is never tracked.
            Access::Any | Access::Control => Method::WriteProtect,
        }
    }

    pub(super) fn create_domain(&self, config: &DomainConfig) -> Result<DomainId, Status> {
        let mut shape = shape(config)?;
        // Its heap objects come out of the reserve that guests' memory leaves.
        if memory::free_bytes() < memory::RESERVE_BYTES / 2 {
            return Err(Status::NoMemory);
        }
        let mut domains = self.domains.write();
        let clash = domains.iter().any(|domain| {
            *domain.shape.name.lock() == *shape.name.get_mut()
                || *domain.shape.uuid.lock() == *shape.uuid.get_mut()
        });
        if clash {
            return Err(Status::Exists);
        }
        let id = domains.next_id().ok_or(Status::Full)?;
        let domain = self.assemble(id, shape, DomainKind::Guest)?;
        domains.insert(domain);
        Ok(id)
    }

    /// Makes a domain with its vCPUs, held back, or nothing at all.
    pub(super) fn assemble(
        &self,
        id: DomainId,
        shape: Shape,
        kind: DomainKind,
    ) -> Result<Arc<Domain<B>>, Status> {
        let (weight, cap, vcpus) = (shape.weight, shape.cap_percent, shape.vcpus);
        let method = self.dirty_method(shape.access);
        let domain = Domain::new(id, shape, self.largest_page(), method);
        let domain = domain.map_err(|_| Status::NoMemory)?;
        let domain = Arc::new(domain);
        let now = clock::now_ns();
        let added = self.scheduler.lock().add_domain(id, kind, weight, now);
        let result = added.map_err(refused).and_then(|()| {
            if cap != 0 {
                let kicks = self
                    .scheduler
                    .lock()
                    .set_cap(id, cap, now)
                    .map_err(refused)?;
                self.kick(kicks);
            }
            let slots = (0..vcpus)
                .map(|index| self.add_vcpu(&domain, VcpuIndex(index)))
                .collect::<Result<Vec<_>, _>>()?;
            domain.vcpus.call_once(|| slots);
            Ok(())
        });
        match result {
            Ok(()) => Ok(domain),
            Err(status) => {
                self.forget(&domain);
                domain.memory.release();
                Err(status)
            }
        }
    }

    fn add_vcpu(
        &self,
        domain: &Arc<Domain<B>>,
        index: VcpuIndex,
    ) -> Result<Arc<VcpuSlot<B>>, Status> {
        let key = {
            let mut scheduler = self.scheduler.lock();
            let key = scheduler
                .add(domain.id, index, CpuSet::ALL)
                .map_err(refused)?;
            // Held until the domain is built and unpaused; awake, so that it runs then.
            scheduler.pause(key).map_err(refused)?;
            let kick = scheduler.wake(key, clock::now_ns());
            debug_assert!(kick.is_none(), "a paused vCPU needs no CPU");
            key
        };
        let slot = VcpuSlot::new(domain, index, key).map_err(|_| {
            let removed = self.scheduler.lock().remove(key);
            assert!(
                removed.is_ok(),
                "a vCPU just added cannot be removed: {removed:?}"
            );
            Status::NoMemory
        })?;
        let slot = Arc::new(slot);
        let mut table = self.vcpus.write();
        let at = usize::from(key.slot());
        if table.len() <= at {
            table.resize_with(at + 1, || None);
        }
        table[at] = Some(Runnable {
            vcpu: slot.clone(),
            domain: domain.clone(),
        });
        Ok(slot)
    }

    /// Takes a domain's vCPUs out of the scheduler. None of them runs.
    fn forget(&self, domain: &Domain<B>) {
        let mut table = self.vcpus.write();
        let mut scheduler = self.scheduler.lock();
        for entry in table.iter_mut() {
            if let Some(Runnable { vcpu, .. }) = entry.take_if(|entry| entry.domain.id == domain.id)
            {
                self.sleepers.lock().retain(|(_, key)| *key != vcpu.key);
                let removed = scheduler.remove(vcpu.key);
                assert!(
                    removed.is_ok(),
                    "a vCPU that is off its CPU cannot be removed: {removed:?}"
                );
            }
        }
        let removed = scheduler.remove_domain(domain.id);
        debug_assert!(removed.is_ok() || removed == Err(SchedError::UnknownDomain));
    }

    pub(super) fn destroy_domain(&self, id: DomainId) -> Result<(), Status> {
        if id == DomainId::CONTROL {
            return Err(Status::BadArgument);
        }
        let domain = self.domains.write().remove(id).ok_or(Status::NoDomain)?;
        let held_before = !domain.life.lock().may_run();
        self.step_life(&domain, Event::Destroy);
        debug_assert!(held_before || !domain.life.lock().may_run());
        self.wait_until_off(&domain);
        self.forget(&domain);
        let unmapped = self.unmap_from_control(&domain);
        assert!(
            unmapped.is_ok(),
            "whole leaves are unmapped without memory: {unmapped:?}"
        );
        domain.memory.release();
        self.step_life(&domain, Event::Released);
        self.raise(godwit_abi::EventSource::DomainState);
        Ok(())
    }

    /// Waits until no vCPU of a domain that may not run is on a CPU. The CPU was kicked; it leaves
    /// the guest within the time of one exit.
    pub(super) fn wait_until_off(&self, domain: &Domain<B>) {
        for vcpu in domain.vcpus() {
            while self.scheduler.lock().is_off_cpu(vcpu.key) == Ok(false) {
                core::hint::spin_loop();
            }
        }
    }

    pub(super) fn pause_domain(&self, domain: &Domain<B>) -> Result<(), Status> {
        if domain.is_control() {
            return Err(Status::BadArgument);
        }
        if !self.step_life(domain, Event::Pause) {
            return Err(Status::BadState);
        }
        self.wait_until_off(domain);
        self.raise(godwit_abi::EventSource::DomainState);
        Ok(())
    }

    pub(super) fn unpause_domain(&self, domain: &Domain<B>) -> Result<(), Status> {
        let building = domain.life.lock().stage() == Stage::Building;
        self.refresh_clock(domain);
        let event = if building {
            Event::Built
        } else {
            Event::Unpause
        };
        if !self.step_life(domain, event) {
            return Err(Status::BadState);
        }
        self.raise(godwit_abi::EventSource::DomainState);
        Ok(())
    }

    pub(super) fn set_shares(
        &self,
        domain: &Domain<B>,
        weight: u32,
        cap_percent: u32,
    ) -> Result<(), Status> {
        let kicks = {
            let mut scheduler = self.scheduler.lock();
            if cap_percent != 0 && domain.is_control() {
                return Err(Status::NotSupported);
            }
            scheduler.set_weight(domain.id, weight).map_err(refused)?;
            match domain.is_control() {
                true => CpuSet::EMPTY,
                false => scheduler
                    .set_cap(domain.id, cap_percent, clock::now_ns())
                    .map_err(refused)?,
            }
        };
        self.kick(kicks);
        domain.weight.store(weight, Ordering::Relaxed);
        domain.cap_percent.store(cap_percent, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn set_affinity(
        &self,
        domain: &Domain<B>,
        index: VcpuIndex,
        cpus: u64,
    ) -> Result<(), Status> {
        let vcpu = domain
            .vcpus()
            .get(usize::from(index.0))
            .ok_or(Status::NoVcpu)?;
        let changed = self
            .scheduler
            .lock()
            .set_affinity(vcpu.key, CpuSet(cpus), clock::now_ns());
        if let Some(target) = changed.map_err(refused)? {
            self.kick_one(target);
        }
        Ok(())
    }

    /// A vCPU that is held back, for reading or writing its registers.
    fn held_vcpu(
        &self,
        domain: &Arc<Domain<B>>,
        index: VcpuIndex,
    ) -> Result<Arc<VcpuSlot<B>>, Status> {
        let slot = domain
            .vcpus()
            .get(usize::from(index.0))
            .ok_or(Status::NoVcpu)?;
        if domain.life.lock().may_run() {
            return Err(Status::BadState);
        }
        self.wait_until_off(domain);
        Ok(slot.clone())
    }

    pub(super) fn set_vcpu_state(
        &self,
        domain: &Arc<Domain<B>>,
        index: VcpuIndex,
        bytes: &[u8],
    ) -> Result<(), Status> {
        let state = VcpuState::decode(bytes).map_err(|error| {
            log::warn!("vCPU record refused: {error:?}");
            Status::BadRecord
        })?;
        state
            .check(features::physical_address_bits())
            .map_err(|error| {
                log::warn!("vCPU state refused: {}: {}", error.field, error.why);
                Status::BadRecord
            })?;
        if domain.policy().xcr0_allowed() != 0 && !domain.policy().xcr0_valid(state.xcr0) {
            return Err(Status::BadRecord);
        }
        let slot = self.held_vcpu(domain, index)?;
        slot.state.lock().pending_state = Some(Box::new(state));
        Ok(())
    }

    /// Reads a vCPU's registers. They are in the back end, and only a CPU between two entries may
    /// load another vCPU: the first call asks for that and blocks, the repeated one finds the answer.
    pub(super) fn vcpu_state(
        &self,
        domain: &Arc<Domain<B>>,
        index: VcpuIndex,
        out: &mut [u8],
    ) -> Result<usize, Refusal> {
        let slot = self.held_vcpu(domain, index)?;
        let mut errand = self.errand.lock();
        match core::mem::replace(&mut *errand, Errand::None) {
            Errand::Saved(key, state) if key == slot.key => {
                state.encode(out).map_err(|_| Status::BadRecord.into())
            }
            Errand::None | Errand::Saved(..) | Errand::Save(_) => {
                *errand = Errand::Save(slot);
                Err(Refusal::Block)
            }
            power @ Errand::Power(_) => {
                *errand = power;
                Err(Status::Busy.into())
            }
        }
    }

    pub(super) fn domain_info(&self, domain: &Domain<B>) -> DomainInfo {
        let life = *domain.life.lock();
        let (reason, crash_detail) = domain.reason();
        let state = match life.stage() {
            Stage::Building => DomainState::Building,
            Stage::Alive(Guest::Running) if life.pauses() > 0 => DomainState::Paused,
            Stage::Alive(Guest::Running) => DomainState::Running,
            Stage::Alive(Guest::ShutDown(_)) => DomainState::Shutdown,
            Stage::Alive(Guest::Crashed) => DomainState::Crashed,
            Stage::Dying { .. } | Stage::Gone => DomainState::Dying,
        };
        let (mut cpu_ns, mut running, mut blocked, mut exits) = (0, 0, 0, 0);
        let now = clock::now_ns();
        for vcpu in domain.vcpus() {
            exits += vcpu.exits.load(Ordering::Relaxed);
            if let Some(view) = self.scheduler.lock().vcpu_view(vcpu.key, now) {
                cpu_ns += view.ran_ns;
                running += u32::from(matches!(view.state, SchedState::Running(_)));
                blocked += u32::from(view.state == SchedState::Blocked);
            }
        }
        DomainInfo {
            domain: domain.id.raw(),
            state: state as u32,
            reason: reason as u32,
            vcpus: domain.vcpus().len() as u32,
            name: field(&domain.shape.name.lock()),
            uuid: *domain.shape.uuid.lock(),
            memory_pages: domain.memory.pages(),
            memory_pages_max: domain.shape.pages_max,
            cpu_ns,
            exits,
            pauses: life.pauses(),
            weight: domain.weight.load(Ordering::Relaxed),
            cap_percent: domain.cap_percent.load(Ordering::Relaxed),
            running,
            blocked,
            table_pages: domain.memory.table_pages() as u32,
            refused: domain.refused.load(Ordering::Relaxed),
            crash_detail,
            console_end: domain.console_end(),
            overhead_bytes: domain.overhead_bytes(),
        }
    }

    pub(super) fn vcpu_info(
        &self,
        domain: &Domain<B>,
        index: VcpuIndex,
    ) -> Result<VcpuInfo, Status> {
        let vcpu = domain
            .vcpus()
            .get(usize::from(index.0))
            .ok_or(Status::NoVcpu)?;
        let view = self
            .scheduler
            .lock()
            .vcpu_view(vcpu.key, clock::now_ns())
            .ok_or(Status::NoVcpu)?;
        let ended = matches!(
            domain.life.lock().stage(),
            Stage::Alive(Guest::ShutDown(_) | Guest::Crashed)
        );
        let state = match view.state {
            _ if ended => VcpuRunState::Ended,
            SchedState::Running(_) => VcpuRunState::Running,
            SchedState::Leaving(_) | SchedState::Queued(_) | SchedState::Capped => {
                VcpuRunState::Runnable
            }
            SchedState::Blocked => VcpuRunState::Blocked,
            SchedState::Paused => VcpuRunState::Paused,
        };
        Ok(VcpuInfo {
            state: state as u32,
            cpu: if view.ran_ns == 0 {
                u32::MAX
            } else {
                view.last_cpu.0.into()
            },
            cpu_ns: view.ran_ns,
            exits: vcpu.exits.load(Ordering::Relaxed),
            affinity: view.affinity.0,
            rip: vcpu.last_rip.load(Ordering::Relaxed),
            reserved: 0,
        })
    }
}
