//! What the scheduler shows of itself: to the debug keys, `xl vcpu-list` and `xl top`.

use super::entity::{DomainKind, Place};
use super::{CpuIndex, CpuSet, Scheduler, VcpuKey};
use godwit_abi::{DomainId, VcpuIndex};

/// State of a vCPU, as shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VcpuState {
    /// On this CPU.
    Running(CpuIndex),
    /// Its registers are being saved on this CPU.
    Leaving(CpuIndex),
    /// Waits for a CPU, in this one's queue.
    Queued(CpuIndex),
    /// Has nothing to do.
    Blocked,
    /// Held by the operator or the toolstack.
    Paused,
    /// Its domain has used up its cap for now.
    Capped,
}

/// One vCPU, as shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuView {
    /// Key in the scheduler.
    pub key: VcpuKey,
    /// Its domain.
    pub domain: DomainId,
    /// Its number there.
    pub vcpu: VcpuIndex,
    /// State.
    pub state: VcpuState,
    /// Weight of the domain.
    pub weight: u32,
    /// Cap of the domain in percent of one CPU, 0 for none.
    pub cap_percent: u32,
    /// CPUs it may run on.
    pub affinity: CpuSet,
    /// CPU it ran on last.
    pub last_cpu: CpuIndex,
    /// Time it has run, including now.
    pub ran_ns: u64,
    /// Virtual time ahead of (or, below zero, behind) the clock.
    pub ahead_ns: i64,
}

/// One CPU, as shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuView {
    /// The CPU.
    pub cpu: CpuIndex,
    /// What it runs.
    pub current: Option<VcpuKey>,
    /// vCPUs in its queue.
    pub waiting: usize,
    /// Time it had nothing to run, including now.
    pub idle_ns: u64,
}

impl Scheduler {
    /// All vCPUs.
    pub fn dump(&self, now_ns: u64) -> impl Iterator<Item = VcpuView> + '_ {
        (0..self.vcpus.len() as u16).filter_map(move |slot| self.view(slot, now_ns))
    }

    /// One vCPU.
    pub fn vcpu_view(&self, key: VcpuKey, now_ns: u64) -> Option<VcpuView> {
        self.view(self.slot_of(key)?, now_ns)
    }

    fn view(&self, slot: u16, now_ns: u64) -> Option<VcpuView> {
        let vcpu = self.vcpus[usize::from(slot)].as_ref()?;
        let domain = self.domain(vcpu.domain);
        let (state, since_ns) = match vcpu.place {
            Place::Running(cpu) => (
                VcpuState::Running(cpu),
                now_ns.saturating_sub(self.cpus[cpu.index()].charged_ns),
            ),
            Place::Leaving(cpu) => (VcpuState::Leaving(cpu), 0),
            Place::Queued(cpu) => (VcpuState::Queued(cpu), 0),
            Place::Off if vcpu.pauses > 0 => (VcpuState::Paused, 0),
            Place::Off if vcpu.asleep => (VcpuState::Blocked, 0),
            Place::Off => (VcpuState::Capped, 0),
        };
        let ahead = (vcpu.vtime as i128 - self.clock as i128) >> super::entity::VTIME_SHIFT;
        Some(VcpuView {
            key: vcpu.key,
            domain: domain.id,
            vcpu: vcpu.id,
            state,
            weight: domain.weight,
            cap_percent: domain.cap_percent,
            affinity: vcpu.affinity,
            last_cpu: vcpu.last_cpu,
            ran_ns: vcpu.ran_ns + since_ns,
            ahead_ns: i64::try_from(ahead).unwrap_or(if ahead < 0 { i64::MIN } else { i64::MAX }),
        })
    }

    /// All CPUs.
    pub fn dump_cpus(&self, now_ns: u64) -> impl Iterator<Item = CpuView> + '_ {
        self.cpus.iter().enumerate().map(move |(index, cpu)| {
            let idle_since_ns = if cpu.current.is_none() {
                now_ns.saturating_sub(cpu.charged_ns)
            } else {
                0
            };
            CpuView {
                cpu: CpuIndex::of(index),
                current: cpu.current.map(|slot| self.vcpu(slot).key),
                waiting: cpu.queue.len(),
                idle_ns: cpu.idle_ns + idle_since_ns,
            }
        })
    }

    /// Is the domain the control domain, and does it go before all others now?
    pub fn control_is_urgent(&self, now_ns: u64) -> bool {
        self.domains
            .iter()
            .flatten()
            .any(|domain| domain.kind == DomainKind::Control && domain.is_urgent(now_ns))
    }
}
