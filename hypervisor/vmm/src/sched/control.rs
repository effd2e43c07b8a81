//! Domains and vCPUs come, go and are tuned: what the control domain asks for, none of it on a fast path.

use super::budget::Budget;
use super::entity::{Domain, DomainKind, Place, Vcpu, VcpuKey};
use super::{
    CAP_PERCENT_MAX, CpuIndex, CpuSet, MAX_VCPUS, SchedError, Scheduler, WEIGHT_MAX, WEIGHT_MIN,
};
use godwit_abi::{DomainId, VcpuIndex};

impl Scheduler {
    /// Makes a domain known; it has no vCPUs and no cap yet.
    pub fn add_domain(
        &mut self,
        id: DomainId,
        kind: DomainKind,
        weight: u32,
        now_ns: u64,
    ) -> Result<(), SchedError> {
        Self::check_weight(weight)?;
        if self.domain_slot(id).is_ok() {
            return Err(SchedError::DomainExists);
        }
        let domain = Some(Domain::new(id, kind, weight, now_ns));
        match self.domains.iter().position(Option::is_none) {
            Some(free) => self.domains[free] = domain,
            None if self.domains.len() == MAX_VCPUS => return Err(SchedError::TooManyVcpus),
            None => self.domains.push(domain),
        }
        Ok(())
    }

    /// Forgets a domain without vCPUs.
    pub fn remove_domain(&mut self, id: DomainId) -> Result<(), SchedError> {
        let slot = self.domain_slot(id)?;
        let domain = self.domain(slot);
        if domain.vcpus > 0 {
            return Err(SchedError::DomainHasVcpus);
        }
        if domain.throttled {
            self.throttled -= 1;
        }
        self.domains[usize::from(slot)] = None;
        Ok(())
    }

    /// Adds a vCPU to a domain, asleep: [`Scheduler::wake`] starts it. Allocates, so that picking and waking need not.
    pub fn add(
        &mut self,
        domain: DomainId,
        vcpu: VcpuIndex,
        affinity: CpuSet,
    ) -> Result<VcpuKey, SchedError> {
        let domain = self.domain_slot(domain)?;
        let last_cpu = self.check_affinity(affinity)?;
        let slot = match self.vcpus.iter().position(Option::is_none) {
            Some(free) => free,
            None if self.vcpus.len() == MAX_VCPUS => return Err(SchedError::TooManyVcpus),
            None => {
                self.vcpus.push(None);
                self.vcpus.len() - 1
            }
        };
        let most = self.vcpus.len();
        for queue in self
            .cpus
            .iter_mut()
            .map(|cpu| &mut cpu.queue)
            .chain([&mut self.control_queue])
        {
            queue.reserve(most - queue.len());
        }
        let key = VcpuKey::new(slot as u16, self.next_generation);
        self.next_generation = self.next_generation.wrapping_add(1);
        self.vcpus[slot] = Some(Vcpu {
            key,
            id: vcpu,
            domain,
            place: Place::Off,
            asleep: true,
            wake_pending: false,
            yields: false,
            pauses: 0,
            affinity,
            last_cpu,
            vtime: self.clock,
            ran_ns: 0,
        });
        self.domain_mut(domain).vcpus += 1;
        Ok(key)
    }

    /// Removes a vCPU that is on no CPU.
    pub fn remove(&mut self, key: VcpuKey) -> Result<(), SchedError> {
        let slot = self.slot_of(key).ok_or(SchedError::UnknownVcpu)?;
        match self.vcpu(slot).place {
            Place::Running(cpu) | Place::Leaving(cpu) => return Err(SchedError::OnCpu(cpu)),
            Place::Queued(_) => self.dequeue(slot),
            Place::Off => {}
        }
        self.change(slot, |vcpu| vcpu.asleep = true);
        let domain = self.vcpu(slot).domain;
        self.domain_mut(domain).vcpus -= 1;
        self.vcpus[usize::from(slot)] = None;
        Ok(())
    }

    /// Sets a domain's weight, from now on.
    pub fn set_weight(&mut self, id: DomainId, weight: u32) -> Result<(), SchedError> {
        Self::check_weight(weight)?;
        let slot = self.domain_slot(id)?;
        let domain = self.domain_mut(slot);
        domain.weight = weight;
        domain.rate = Domain::rate_of(weight);
        Ok(())
    }

    /// Sets a domain's cap in percent of one CPU, 0 for none; begins with a full budget. Returns CPUs to kick.
    pub fn set_cap(
        &mut self,
        id: DomainId,
        percent: u32,
        now_ns: u64,
    ) -> Result<CpuSet, SchedError> {
        let slot = self.domain_slot(id)?;
        let domain = self.domain_mut(slot);
        match domain.kind {
            DomainKind::Control if percent == 0 => return Ok(CpuSet::EMPTY),
            DomainKind::Control => return Err(SchedError::ControlDomainUncapped),
            DomainKind::Guest if percent > CAP_PERCENT_MAX => {
                return Err(SchedError::CapOutOfRange);
            }
            DomainKind::Guest => {}
        }
        domain.cap_percent = percent;
        domain.budget = (percent != 0).then(|| Budget::new(percent, now_ns));
        let mut kicks = CpuSet::EMPTY;
        self.unthrottle(slot, now_ns, &mut kicks);
        // CPUs that run it learn of the new deadline.
        for cpu in (0..self.cpus.len()).map(CpuIndex::of) {
            let runs = self.cpus[cpu.index()]
                .current
                .is_some_and(|vcpu| self.vcpu(vcpu).domain == slot);
            if runs {
                self.kicked.insert(cpu);
                kicks.insert(cpu);
            }
        }
        Ok(kicks)
    }

    /// Restricts a vCPU to some CPUs. Returns a CPU to kick.
    pub fn set_affinity(
        &mut self,
        key: VcpuKey,
        affinity: CpuSet,
        now_ns: u64,
    ) -> Result<Option<CpuIndex>, SchedError> {
        let slot = self.slot_of(key).ok_or(SchedError::UnknownVcpu)?;
        self.check_affinity(affinity)?;
        self.vcpu_mut(slot).affinity = affinity;
        match self.vcpu(slot).place {
            Place::Off | Place::Leaving(_) => Ok(None),
            Place::Queued(_) => {
                self.dequeue(slot);
                Ok(self.settle(slot, now_ns))
            }
            Place::Running(cpu) if affinity.contains(cpu) => Ok(None),
            Place::Running(cpu) => {
                self.kicked.insert(cpu);
                Ok(Some(cpu))
            }
        }
    }

    fn check_weight(weight: u32) -> Result<(), SchedError> {
        if (WEIGHT_MIN..=WEIGHT_MAX).contains(&weight) {
            Ok(())
        } else {
            Err(SchedError::WeightOutOfRange)
        }
    }

    /// The lowest CPU of this host in the mask.
    fn check_affinity(&self, affinity: CpuSet) -> Result<CpuIndex, SchedError> {
        affinity
            .and(CpuSet::first(self.cpus.len()))
            .lowest()
            .ok_or(SchedError::EmptyAffinity)
    }

    pub(super) fn domain_slot(&self, id: DomainId) -> Result<u16, SchedError> {
        let found = self
            .domains
            .iter()
            .position(|domain| domain.as_ref().is_some_and(|domain| domain.id == id));
        // At most MAX_VCPUS of them.
        found
            .map(|slot| slot as u16)
            .ok_or(SchedError::UnknownDomain)
    }
}
