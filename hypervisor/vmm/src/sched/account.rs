//! Accounting: who ran how long, what that costs in virtual time and budget, and keeping virtual times together.

use super::entity::{DomainKind, Place};
use super::{CONTROL_DEBT_NS, CpuIndex, CpuSet, FAIR_PERIOD_NS, LAG_NS_MAX, Scheduler};

impl Scheduler {
    /// Brings the accounts of a CPU's vCPU up to now. Called by every pick; call it besides to read exact totals.
    pub fn charge(&mut self, cpu: CpuIndex, now_ns: u64) {
        let state = &mut self.cpus[cpu.index()];
        let ran_ns = now_ns.saturating_sub(state.charged_ns);
        state.charged_ns += ran_ns;
        let Some(slot) = state.current else {
            state.idle_ns += ran_ns;
            return;
        };
        if ran_ns == 0 {
            return;
        }
        let clock = self.clock;
        let vcpu = self.vcpus[usize::from(slot)]
            .as_mut()
            .expect("a vCPU that is gone runs");
        let domain_slot = vcpu.domain;
        let domain = self.domains[usize::from(domain_slot)]
            .as_mut()
            .expect("a vCPU of no domain runs");
        vcpu.ran_ns += ran_ns;
        vcpu.vtime += domain.cost(ran_ns);
        let Some(budget) = &mut domain.budget else {
            return;
        };
        match domain.kind {
            DomainKind::Control => {
                budget.spend_without_debt(ran_ns, now_ns);
                vcpu.vtime = vcpu.vtime.min(clock + domain.cost(CONTROL_DEBT_NS));
            }
            DomainKind::Guest => {
                budget.spend(ran_ns, now_ns);
                if budget.left_ns() == 0 {
                    self.throttle(domain_slot, cpu);
                }
            }
        }
    }

    /// A domain has used up its cap: its waiting vCPUs leave the queues, its running ones are replaced when their CPUs pick.
    pub(super) fn throttle(&mut self, domain: u16, cpu: CpuIndex) {
        let state = self.domain_mut(domain);
        if state.throttled {
            return;
        }
        state.throttled = true;
        state.refill_cpu = cpu;
        self.throttled += 1;
        for slot in 0..self.vcpus.len() as u16 {
            if self.queued_of(slot, domain) {
                self.dequeue(slot);
            }
        }
    }

    fn queued_of(&self, slot: u16, domain: u16) -> bool {
        let vcpu = self.vcpus[usize::from(slot)].as_ref();
        vcpu.is_some_and(|vcpu| vcpu.domain == domain && matches!(vcpu.place, Place::Queued(_)))
    }

    /// Brings the reserve of a waiting control domain up to now, and lets domains run whose caps allow it again. Returns CPUs to kick.
    pub(super) fn refill(&mut self, now_ns: u64) -> CpuSet {
        let mut kicks = CpuSet::EMPTY;
        for waiting in 0..self.control_queue.len() {
            let domain = self.vcpu(self.control_queue[waiting]).domain;
            if let Some(reserve) = &mut self.domain_mut(domain).budget {
                reserve.refill(now_ns);
            }
        }
        if self.throttled == 0 {
            return kicks;
        }
        for domain in 0..self.domains.len() as u16 {
            let Some(state) = self.domains[usize::from(domain)].as_mut() else {
                continue;
            };
            let Some(budget) = state.budget.as_mut().filter(|_| state.throttled) else {
                continue;
            };
            budget.refill(now_ns);
            if budget.left_ns() > 0 {
                self.unthrottle(domain, now_ns, &mut kicks);
            }
        }
        kicks
    }

    /// Lifts the throttle; vCPUs that want to run are queued.
    pub(super) fn unthrottle(&mut self, domain: u16, now_ns: u64, kicks: &mut CpuSet) {
        if !core::mem::take(&mut self.domain_mut(domain).throttled) {
            return;
        }
        self.throttled -= 1;
        for slot in 0..self.vcpus.len() as u16 {
            if self.vcpus[usize::from(slot)]
                .as_ref()
                .is_some_and(|vcpu| vcpu.domain == domain)
                && let Some(cpu) = self.settle(slot, now_ns)
            {
                kicks.insert(cpu);
            }
        }
    }

    /// Every [`FAIR_PERIOD_NS`]: nobody stays further behind the clock than [`LAG_NS_MAX`]. Raising all to one bound keeps queues sorted.
    pub(super) fn bound_lag(&mut self, now_ns: u64) {
        if now_ns < self.next_fair_ns {
            return;
        }
        self.next_fair_ns = now_ns + FAIR_PERIOD_NS;
        let active = self
            .domains
            .iter()
            .flatten()
            .filter(|domain| domain.active > 0);
        let Some(lag) = active.map(|domain| domain.cost(LAG_NS_MAX)).min() else {
            return;
        };
        let bound = self.clock.saturating_sub(lag);
        for vcpu in self.vcpus.iter_mut().flatten() {
            vcpu.vtime = vcpu.vtime.max(bound);
        }
    }

    /// Virtual time that a CPU's vCPU has by now.
    pub(super) fn vtime_now(&self, cpu: CpuIndex, slot: u16, now_ns: u64) -> u128 {
        let vcpu = self.vcpu(slot);
        let since_ns = now_ns.saturating_sub(self.cpus[cpu.index()].charged_ns);
        vcpu.vtime + self.domain(vcpu.domain).cost(since_ns)
    }
}
