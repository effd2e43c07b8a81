//! The choice: what a CPU runs next, and until when.

use super::entity::{DomainKind, Place};
use super::{
    CAP_SLICE_NS_MIN, CpuIndex, CpuSet, MIN_RUN_NS, PREEMPT_MARGIN_NS, SLICE_NS, Scheduler, VcpuKey,
};

/// What a CPU is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Decision {
    /// The vCPU to run, `None` to halt until kicked or `until`.
    pub run: Option<VcpuKey>,
    /// Time at which to pick again at the latest. Always there with a vCPU to run.
    pub until_ns: Option<u64>,
    /// The vCPU that ran before and no longer does: save its registers, then call [`Scheduler::finish_switch`] (and before the next
    /// pick). `None` when nothing changes.
    pub leaving: Option<VcpuKey>,
    /// Other CPUs to kick.
    pub kick: CpuSet,
}

impl Scheduler {
    /// Chooses what `cpu` runs from now on. Called by that CPU when it was kicked, when `until` has come, and when its vCPU blocked,
    /// yielded or was paused.
    ///
    /// # Panics
    /// If the CPU still owes a [`Scheduler::finish_switch`].
    pub fn pick(&mut self, cpu: CpuIndex, now_ns: u64) -> Decision {
        assert!(
            self.cpus[cpu.index()].leaving.is_none(),
            "CPU {} picks in the middle of a switch",
            cpu.0
        );
        self.kicked.remove(cpu);
        self.charge(cpu, now_ns);
        let mut kick = self.refill(now_ns);
        // We are picking already.
        kick.remove(cpu);
        self.kicked.remove(cpu);
        self.bound_lag(now_ns);

        let current = self.cpus[cpu.index()].current;
        let stays = current.filter(|&slot| self.may_run(slot, cpu));
        let best = self.best_waiting(cpu, now_ns);
        let next = match (stays, best) {
            (Some(slot), Some(other)) if self.supplants(other, slot, cpu, now_ns) => {
                self.give_way(slot, other);
                Some(other)
            }
            (Some(slot), _) => Some(slot),
            (None, best) => best,
        };
        if let Some(slot) = stays {
            self.vcpu_mut(slot).yields = false;
        }
        let held_back = stays.is_some()
            && next == stays
            && best.is_some_and(|other| self.is_behind(other, next, PREEMPT_MARGIN_NS));
        let leaving = current.filter(|_| current != next);
        if let Some(slot) = leaving {
            self.vcpu_mut(slot).place = Place::Leaving(cpu);
            self.cpus[cpu.index()].leaving = leaving;
        }
        self.occupy(cpu, next, now_ns);
        self.rouse(&mut kick);
        Decision {
            run: next.map(|slot| self.vcpu(slot).key),
            until_ns: self.until(cpu, next, held_back, now_ns),
            leaving: leaving.map(|slot| self.vcpu(slot).key),
            kick,
        }
    }

    /// The registers of the vCPU that left are saved: it may run elsewhere. Returns a CPU to kick. Does nothing when none left.
    #[must_use]
    pub fn finish_switch(&mut self, cpu: CpuIndex, now_ns: u64) -> Option<CpuIndex> {
        let slot = self.cpus[cpu.index()].leaving.take()?;
        self.vcpu_mut(slot).place = Place::Off;
        self.settle(slot, now_ns)
    }

    /// May this vCPU run here, now?
    fn may_run(&self, slot: u16, cpu: CpuIndex) -> bool {
        let vcpu = self.vcpu(slot);
        vcpu.is_active() && !self.domain(vcpu.domain).throttled && vcpu.affinity.contains(cpu)
    }

    /// Should the waiting vCPU run instead of the one that could go on?
    fn supplants(&self, waiting: u16, running: u16, cpu: CpuIndex, now_ns: u64) -> bool {
        let (other, own) = (self.vcpu(waiting), self.vcpu(running));
        let other_urgent = self.domain(other.domain).is_urgent(now_ns);
        let own_urgent = self.domain(own.domain).is_urgent(now_ns);
        if own.yields || other_urgent != own_urgent {
            return own.yields || other_urgent;
        }
        let ran_ns = now_ns.saturating_sub(self.cpus[cpu.index()].slice_start_ns);
        let margin_ns = if ran_ns >= SLICE_NS {
            0
        } else {
            PREEMPT_MARGIN_NS
        };
        ran_ns >= MIN_RUN_NS && self.is_behind(waiting, Some(running), margin_ns)
    }

    /// Is the waiting vCPU behind the running one by more than the margin of virtual time?
    fn is_behind(&self, waiting: u16, running: Option<u16>, margin_ns: u64) -> bool {
        running.is_some_and(|running| {
            self.vcpu(waiting).vtime + self.cost(waiting, margin_ns) < self.vcpu(running).vtime
        })
    }

    /// A vCPU that yielded lines up behind the one it lets go first.
    fn give_way(&mut self, slot: u16, other: u16) {
        if self.vcpu(slot).yields {
            let behind = self.vcpu(other).vtime + 1;
            let vcpu = self.vcpu_mut(slot);
            vcpu.vtime = vcpu.vtime.max(behind);
        }
    }

    /// Puts the chosen vCPU on the CPU and begins or goes on with its slice.
    fn occupy(&mut self, cpu: CpuIndex, next: Option<u16>, now_ns: u64) {
        let Some(slot) = next else {
            self.cpus[cpu.index()].current = None;
            self.idle.insert(cpu);
            return;
        };
        self.idle.remove(cpu);
        if self.vcpu(slot).place != Place::Running(cpu) {
            self.dequeue(slot);
            let vcpu = self.vcpu_mut(slot);
            vcpu.place = Place::Running(cpu);
            vcpu.last_cpu = cpu;
        }
        let (vtime, domain) = (self.vcpu(slot).vtime, self.vcpu(slot).domain);
        if let Some(budget) = &mut self.domain_mut(domain).budget {
            budget.refill(now_ns);
        }
        if !self.domain(domain).is_urgent(now_ns) {
            self.clock = self.clock.max(vtime);
        }
        let state = &mut self.cpus[cpu.index()];
        if state.current != next || now_ns.saturating_sub(state.slice_start_ns) >= SLICE_NS {
            state.slice_start_ns = now_ns;
        }
        state.current = next;
    }

    /// Kicks idle CPUs for vCPUs that still wait and may run there: the CPU that was to take one may have found a better one.
    fn rouse(&mut self, kick: &mut CpuSet) {
        let mut idle = self.idle.without(self.kicked);
        if idle.is_empty() || (self.waiting.is_empty() && self.control_queue.is_empty()) {
            return;
        }
        let queues = self
            .waiting
            .map(|cpu| &self.cpus[cpu.index()].queue)
            .chain([&self.control_queue]);
        for &slot in queues.flatten() {
            if let Some(cpu) = idle.and(self.vcpu(slot).affinity).lowest() {
                idle.remove(cpu);
                kick.insert(cpu);
            }
        }
        self.kicked.0 |= kick.0;
    }

    /// When this CPU must pick again. `held_back`: somebody waits for the end of the shortest run.
    pub(super) fn until(
        &self,
        cpu: CpuIndex,
        next: Option<u16>,
        held_back: bool,
        now_ns: u64,
    ) -> Option<u64> {
        let mut until_ns = u64::MAX;
        if let Some(slot) = next {
            let slice_start_ns = self.cpus[cpu.index()].slice_start_ns;
            let protected_until_ns = slice_start_ns + MIN_RUN_NS;
            let slice_ns = if held_back && protected_until_ns > now_ns {
                MIN_RUN_NS
            } else {
                SLICE_NS
            };
            until_ns = slice_start_ns + slice_ns;
            let domain = self.domain(self.vcpu(slot).domain);
            if let Some(budget) = &domain.budget {
                until_ns = until_ns.min(self.budget_end(
                    domain.kind,
                    domain.active,
                    budget.left_ns(),
                    now_ns,
                ));
            }
        }
        for &waiting in &self.control_queue {
            let vcpu = self.vcpu(waiting);
            if let Some(reserve) = self
                .domain(vcpu.domain)
                .budget
                .filter(|_| vcpu.affinity.contains(cpu))
            {
                until_ns = until_ns.min(reserve.available_ns());
            }
        }
        if self.throttled > 0 {
            for domain in self
                .domains
                .iter()
                .flatten()
                .filter(|domain| domain.throttled && domain.refill_cpu == cpu)
            {
                until_ns = until_ns.min(
                    domain
                        .budget
                        .map_or(u64::MAX, |budget| budget.available_ns()),
                );
            }
        }
        // A deadline never lies in the past: time passes between picks.
        (until_ns != u64::MAX).then_some(until_ns.max(now_ns + 1))
    }

    /// When a budget of `left_ns` ends if all its domain's active vCPUs run.
    fn budget_end(&self, kind: DomainKind, active: u32, left_ns: u64, now_ns: u64) -> u64 {
        let running = u64::from(active.max(1)).min(self.cpus.len() as u64);
        match kind {
            // An empty reserve is no limit; its vCPU competes by weight.
            DomainKind::Control if left_ns == 0 => u64::MAX,
            DomainKind::Control | DomainKind::Guest => {
                now_ns + (left_ns / running).max(CAP_SLICE_NS_MIN)
            }
        }
    }
}
