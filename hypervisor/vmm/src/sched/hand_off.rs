//! The short way from a vCPU to the one it waits for: a guest asks the control domain, the control domain answers.
//!
//! Same accounts and same outcome as waking the other, blocking and picking, where that would choose the other on this CPU; but
//! nothing is queued, searched or compared. Where it might not, nothing changes and the caller goes the long way.

use super::entity::Place;
use super::{CpuIndex, CpuSet, Decision, Scheduler, VcpuKey, WAKE_CREDIT_NS};

impl Scheduler {
    /// Blocks the vCPU that runs on `cpu`, wakes another and runs it here. `None`: not possible at once; only accounts were
    /// brought up to now.
    ///
    /// The other goes before all who wait: it is urgent, or nobody waits. CPUs that idle could take it only later.
    pub fn hand_off(&mut self, cpu: CpuIndex, to: VcpuKey, now_ns: u64) -> Option<Decision> {
        let to = self.slot_of(to)?;
        self.charge(cpu, now_ns);
        let state = &self.cpus[cpu.index()];
        let from = state.current.filter(|_| state.leaving.is_none())?;
        let busy = self.throttled > 0
            || !self.control_queue.is_empty()
            || self.kicked.contains(cpu)
            || now_ns >= self.next_fair_ns;
        let (giver, taker) = (self.vcpu(from), self.vcpu(to));
        let gives = giver.is_active() && !giver.wake_pending;
        let takes = taker.asleep
            && taker.pauses == 0
            && taker.place == Place::Off
            && taker.affinity.contains(cpu);
        let (giver, taker) = (giver.domain, taker.domain);
        if busy || !gives || !takes {
            return None;
        }
        let urgent = self.domain(taker).is_urgent(now_ns);
        if !urgent && !self.waiting.is_empty() {
            return None;
        }

        if let Some(budget) = &mut self.domain_mut(taker).budget {
            budget.refill(now_ns);
        }
        let earliest = self.clock.saturating_sub(self.cost(to, WAKE_CREDIT_NS));
        let vcpu = self.vcpu_mut(to);
        vcpu.vtime = vcpu.vtime.max(earliest);
        let vtime = vcpu.vtime;
        vcpu.asleep = false;
        vcpu.place = Place::Running(cpu);
        vcpu.last_cpu = cpu;
        let vcpu = self.vcpu_mut(from);
        vcpu.asleep = true;
        vcpu.place = Place::Leaving(cpu);
        self.domain_mut(taker).active += 1;
        self.domain_mut(giver).active -= 1;
        if !urgent {
            self.clock = self.clock.max(vtime);
        }
        let state = &mut self.cpus[cpu.index()];
        state.leaving = Some(from);
        state.current = Some(to);
        state.slice_start_ns = now_ns;
        Some(Decision {
            run: Some(self.vcpu(to).key),
            until_ns: self.until(cpu, Some(to), false, now_ns),
            leaving: Some(self.vcpu(from).key),
            kick: CpuSet::EMPTY,
        })
    }
}
