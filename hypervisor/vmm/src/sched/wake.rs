//! Wake, block, yield, pause: what makes a vCPU able or unable to run, and which CPU has to hear of it.

use super::entity::{DomainKind, Place};
use super::{CpuIndex, CpuSet, PREEMPT_MARGIN_NS, SchedError, Scheduler, VcpuKey, WAKE_CREDIT_NS};

impl Scheduler {
    /// Something happened that this vCPU may be waiting for. Returns a CPU to kick; if that is the caller's own, it
    /// picks before it goes on. A vCPU that is awake remembers the wake: its next
    /// [`Scheduler::block`] does not count, so no wake is lost between its last look for work and its block. An unknown vCPU is
    /// ignored: it went away as the event was on its way.
    #[must_use]
    pub fn wake(&mut self, key: VcpuKey, now_ns: u64) -> Option<CpuIndex> {
        let slot = self.slot_of(key)?;
        if !self.vcpu(slot).asleep {
            self.vcpu_mut(slot).wake_pending = true;
            return None;
        }
        let earliest = self.clock.saturating_sub(self.cost(slot, WAKE_CREDIT_NS));
        let vcpu = self.vcpu_mut(slot);
        vcpu.vtime = vcpu.vtime.max(earliest);
        self.change(slot, |vcpu| vcpu.asleep = false);
        self.settle(slot, now_ns)
    }

    /// The vCPU, which runs on the calling CPU, has nothing to do until it is woken. False if it was woken meanwhile: look for work
    /// again. Otherwise the CPU picks next.
    pub fn block(&mut self, key: VcpuKey, now_ns: u64) -> Result<bool, SchedError> {
        let slot = self.slot_of(key).ok_or(SchedError::UnknownVcpu)?;
        let Place::Running(cpu) = self.vcpu(slot).place else {
            unreachable!(
                "vCPU in slot {slot} blocks without running: {:?}",
                self.vcpu(slot).place
            )
        };
        if core::mem::take(&mut self.vcpu_mut(slot).wake_pending) {
            return Ok(false);
        }
        self.charge(cpu, now_ns);
        self.change(slot, |vcpu| vcpu.asleep = true);
        Ok(true)
    }

    /// The vCPU gives way to the next one in line, once; its CPU picks next.
    pub fn yield_now(&mut self, key: VcpuKey) -> Result<(), SchedError> {
        let slot = self.slot_of(key).ok_or(SchedError::UnknownVcpu)?;
        self.vcpu_mut(slot).yields = true;
        Ok(())
    }

    /// Holds the vCPU until as many [`Scheduler::unpause`] calls. Returns the CPU it is on, to be kicked: it is off that once
    /// [`Scheduler::is_off_cpu`] says so.
    pub fn pause(&mut self, key: VcpuKey) -> Result<Option<CpuIndex>, SchedError> {
        let slot = self.slot_of(key).ok_or(SchedError::UnknownVcpu)?;
        let pauses = self
            .vcpu(slot)
            .pauses
            .checked_add(1)
            .ok_or(SchedError::PauseCount)?;
        self.change(slot, |vcpu| vcpu.pauses = pauses);
        match self.vcpu(slot).place {
            Place::Off | Place::Leaving(_) => Ok(None),
            Place::Queued(_) => {
                self.dequeue(slot);
                Ok(None)
            }
            Place::Running(cpu) => {
                self.kicked.insert(cpu);
                Ok(Some(cpu))
            }
        }
    }

    /// Takes back one [`Scheduler::pause`]. Returns a CPU to kick.
    pub fn unpause(&mut self, key: VcpuKey, now_ns: u64) -> Result<Option<CpuIndex>, SchedError> {
        let slot = self.slot_of(key).ok_or(SchedError::UnknownVcpu)?;
        let pauses = self
            .vcpu(slot)
            .pauses
            .checked_sub(1)
            .ok_or(SchedError::PauseCount)?;
        self.change(slot, |vcpu| vcpu.pauses = pauses);
        Ok(self.settle(slot, now_ns))
    }

    /// Is the vCPU on no CPU, so that its registers can be read and changed? It stays so while it is paused.
    pub fn is_off_cpu(&self, key: VcpuKey) -> Result<bool, SchedError> {
        let slot = self.slot_of(key).ok_or(SchedError::UnknownVcpu)?;
        match self.vcpu(slot).place {
            Place::Off | Place::Queued(_) => Ok(true),
            Place::Running(_) | Place::Leaving(_) => Ok(false),
        }
    }

    /// Changes what decides whether a vCPU wants to run, and keeps its domain's count of those.
    pub(super) fn change(&mut self, slot: u16, change: impl FnOnce(&mut super::entity::Vcpu)) {
        let vcpu = self.vcpu_mut(slot);
        let was_active = vcpu.is_active();
        change(vcpu);
        let (is_active, domain) = (vcpu.is_active(), vcpu.domain);
        let domain = self.domain_mut(domain);
        match (was_active, is_active) {
            (false, true) => domain.active += 1,
            (true, false) => domain.active -= 1,
            (false, false) | (true, true) => {}
        }
    }

    /// Queues a vCPU that is off and can run, and says whom to kick for it.
    pub(super) fn settle(&mut self, slot: u16, now_ns: u64) -> Option<CpuIndex> {
        let vcpu = self.vcpu(slot);
        if vcpu.place != Place::Off || !vcpu.is_active() || self.domain(vcpu.domain).throttled {
            return None;
        }
        let allowed = vcpu.affinity.and(CpuSet::first(self.cpus.len()));
        let home = if allowed.contains(vcpu.last_cpu) {
            Some(vcpu.last_cpu)
        } else {
            allowed.lowest()
        };
        let home = home.expect("affinity without a CPU of this host");
        let idle = self.idle.and(allowed).without(self.kicked);
        let kick = if idle.contains(home) {
            Some(home)
        } else {
            idle.lowest()
        };
        let kick = kick.or_else(|| self.victim(slot, allowed, now_ns));
        self.enqueue(slot, kick.unwrap_or(home));
        if let Some(cpu) = kick {
            self.kicked.insert(cpu);
        }
        kick
    }

    /// The busy CPU that the vCPU should take over: the one whose vCPU has run furthest ahead, if far enough.
    fn victim(&self, slot: u16, allowed: CpuSet, now_ns: u64) -> Option<CpuIndex> {
        let vcpu = self.vcpu(slot);
        let domain = self.domain(vcpu.domain);
        let mut furthest: Option<(u128, CpuIndex)> = None;
        for cpu in allowed.without(self.kicked) {
            let Some(running) = self.cpus[cpu.index()].current else {
                continue;
            };
            if self.domain(self.vcpu(running).domain).is_urgent(now_ns) {
                continue;
            }
            let vtime = self.vtime_now(cpu, running, now_ns);
            if furthest.is_none_or(|(most, _)| vtime > most) {
                furthest = Some((vtime, cpu));
            }
        }
        let (vtime, cpu) = furthest?;
        let preempts = match domain.kind {
            // Without reserve it may have to wait, but somebody must watch for its next one.
            DomainKind::Control => true,
            DomainKind::Guest => vcpu.vtime + domain.cost(PREEMPT_MARGIN_NS) < vtime,
        };
        preempts.then_some(cpu)
    }
}
