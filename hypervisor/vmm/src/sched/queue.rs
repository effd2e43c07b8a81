//! The run queues: one a CPU, sorted by virtual time, and one for the control domain.

use super::entity::{DomainKind, Place};
use super::{CpuIndex, MIGRATE_MARGIN_NS, Scheduler};

impl Scheduler {
    /// Puts a vCPU that is off into `cpu`'s queue (one of the control domain into the common one).
    pub(super) fn enqueue(&mut self, slot: u16, cpu: CpuIndex) {
        let (vtime, domain) = (self.vcpu(slot).vtime, self.vcpu(slot).domain);
        match self.domain(domain).kind {
            DomainKind::Control => self.control_queue.push(slot),
            DomainKind::Guest => {
                let vcpus = &self.vcpus;
                let behind = |&other: &u16| {
                    vcpus[usize::from(other)]
                        .as_ref()
                        .is_some_and(|other| other.vtime <= vtime)
                };
                let queue = &mut self.cpus[cpu.index()].queue;
                let position = queue
                    .iter()
                    .position(|other| !behind(other))
                    .unwrap_or(queue.len());
                queue.insert(position, slot);
                self.waiting.insert(cpu);
            }
        }
        self.vcpu_mut(slot).place = Place::Queued(cpu);
    }

    /// Takes a queued vCPU out; it is off then.
    pub(super) fn dequeue(&mut self, slot: u16) {
        let (place, domain) = (self.vcpu(slot).place, self.vcpu(slot).domain);
        let Place::Queued(cpu) = place else {
            unreachable!("vCPU in slot {slot} is {place:?}, not queued")
        };
        match self.domain(domain).kind {
            DomainKind::Control => self.control_queue.retain(|&other| other != slot),
            DomainKind::Guest => {
                let queue = &mut self.cpus[cpu.index()].queue;
                queue.retain(|&other| other != slot);
                if queue.is_empty() {
                    self.waiting.remove(cpu);
                }
            }
        }
        self.vcpu_mut(slot).place = Place::Off;
    }

    /// The waiting vCPU that `cpu` should run, if any: an urgent one of the control domain, else the one with the least virtual time,
    /// where those of other CPUs' queues must be behind by a margin.
    pub(super) fn best_waiting(&self, cpu: CpuIndex, now_ns: u64) -> Option<u16> {
        let mut best: Option<(u128, u16)> = self.cpus[cpu.index()]
            .queue
            .first()
            .map(|&slot| (self.vcpu(slot).vtime, slot));
        for other in self.waiting {
            if other == cpu {
                continue;
            }
            let queue = &self.cpus[other.index()].queue;
            let Some(&slot) = queue
                .iter()
                .find(|&&slot| self.vcpu(slot).affinity.contains(cpu))
            else {
                continue;
            };
            // Behind by the margin of our own; by nothing of another stranger, the margin being in both already.
            let vtime = self.vcpu(slot).vtime + self.cost(slot, MIGRATE_MARGIN_NS);
            if best.is_none_or(|(least, _)| vtime < least) {
                best = Some((vtime, slot));
            }
        }
        for &slot in &self.control_queue {
            let vcpu = self.vcpu(slot);
            if !vcpu.affinity.contains(cpu) {
                continue;
            }
            if self.domain(vcpu.domain).is_urgent(now_ns) {
                return Some(slot);
            }
            if best.is_none_or(|(least, _)| vcpu.vtime < least) {
                best = Some((vcpu.vtime, slot));
            }
        }
        best.map(|(_, slot)| slot)
    }
}
