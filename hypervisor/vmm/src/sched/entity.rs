//! What the scheduler knows of a vCPU, a domain and a CPU.

use super::budget::Budget;
use super::{CONTROL_RESERVE_PERCENT, CpuIndex, CpuSet, WEIGHT_DEFAULT};
use alloc::vec::Vec;
use godwit_abi::{DomainId, VcpuIndex};

/// Binary places of a virtual nanosecond: exact enough for the heaviest domain.
pub(super) const VTIME_SHIFT: u32 = 24;

/// A vCPU of this scheduler. Says nothing any more once the vCPU has been removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VcpuKey {
    slot: u16,
    generation: u32,
}

impl VcpuKey {
    pub(super) fn new(slot: u16, generation: u32) -> VcpuKey {
        VcpuKey { slot, generation }
    }

    /// Small number that no other vCPU has at the same time, for the caller's tables: less than [`super::MAX_VCPUS`].
    pub fn slot(self) -> u16 {
        self.slot
    }
}

/// Where a vCPU is: see the drawing in the module head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Off,
    /// In this CPU's queue, or in the control domain's.
    Queued(CpuIndex),
    Running(CpuIndex),
    /// Another was chosen; the registers may still be on this CPU.
    Leaving(CpuIndex),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Vcpu {
    pub(super) key: VcpuKey,
    pub(super) id: VcpuIndex,
    /// Slot of its domain.
    pub(super) domain: u16,
    pub(super) place: Place,
    /// Said that it has nothing to do, and nobody woke it since.
    pub(super) asleep: bool,
    /// Was woken while awake: the next block does not count.
    pub(super) wake_pending: bool,
    /// Gives way at the next pick.
    pub(super) yields: bool,
    pub(super) pauses: u16,
    pub(super) affinity: CpuSet,
    pub(super) last_cpu: CpuIndex,
    pub(super) vtime: u128,
    pub(super) ran_ns: u64,
}

impl Vcpu {
    /// Does it want to run, whatever its domain's budget says?
    pub(super) fn is_active(&self) -> bool {
        !self.asleep && self.pauses == 0
    }
}

/// How a domain is scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DomainKind {
    /// The control domain: has a reserve, no cap.
    Control,
    /// Any other.
    Guest,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Domain {
    pub(super) id: DomainId,
    pub(super) kind: DomainKind,
    pub(super) weight: u32,
    /// Units of virtual time a nanosecond costs while one vCPU of the domain is active.
    pub(super) rate: u64,
    /// 0 for none.
    pub(super) cap_percent: u32,
    /// Reserve of the control domain; cap of a guest that has one.
    pub(super) budget: Option<Budget>,
    /// Over its cap: none of its vCPUs is queued.
    pub(super) throttled: bool,
    /// CPU that picks when the cap allows more.
    pub(super) refill_cpu: CpuIndex,
    /// vCPUs there are, and those that want to run.
    pub(super) vcpus: u32,
    pub(super) active: u32,
}

impl Domain {
    pub(super) fn new(id: DomainId, kind: DomainKind, weight: u32, now_ns: u64) -> Domain {
        let budget = match kind {
            DomainKind::Control => Some(Budget::new(CONTROL_RESERVE_PERCENT, now_ns)),
            DomainKind::Guest => None,
        };
        Domain {
            id,
            kind,
            weight,
            rate: Self::rate_of(weight),
            cap_percent: 0,
            budget,
            throttled: false,
            refill_cpu: CpuIndex(0),
            vcpus: 0,
            active: 0,
        }
    }

    pub(super) fn rate_of(weight: u32) -> u64 {
        (u64::from(WEIGHT_DEFAULT) << VTIME_SHIFT) / u64::from(weight)
    }

    /// Virtual time that running costs one vCPU of the domain.
    #[inline]
    pub(super) fn cost(&self, ran_ns: u64) -> u128 {
        u128::from(ran_ns) * u128::from(self.rate) * u128::from(self.active.max(1))
    }

    /// Does it go before all others now?
    #[inline]
    pub(super) fn is_urgent(&self, now_ns: u64) -> bool {
        match (self.kind, &self.budget) {
            (DomainKind::Control, Some(reserve)) => reserve.has_left(now_ns),
            (DomainKind::Control, None) | (DomainKind::Guest, _) => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Cpu {
    /// The vCPU chosen last.
    pub(super) current: Option<u16>,
    /// The vCPU chosen before, until its registers are saved.
    pub(super) leaving: Option<u16>,
    /// Slots of waiting vCPUs, least virtual time first.
    pub(super) queue: Vec<u16>,
    /// Up to when `current` (or idling) has been accounted for.
    pub(super) charged_ns: u64,
    /// When the slice of `current` began.
    pub(super) slice_start_ns: u64,
    pub(super) idle_ns: u64,
}

impl Cpu {
    pub(super) fn new(now_ns: u64) -> Cpu {
        Cpu {
            current: None,
            leaving: None,
            queue: Vec::new(),
            charged_ns: now_ns,
            slice_start_ns: now_ns,
            idle_ns: 0,
        }
    }
}
