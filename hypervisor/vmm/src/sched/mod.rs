//! The scheduler: which vCPU runs on which CPU, and until when.
//!
//! Pure: time is an argument (nanoseconds since boot, from the TSC), nothing here locks or signals. The hypervisor keeps one
//! [`Scheduler`] behind a lock and does what comes back: kicks CPUs (an IPI, after which they call [`Scheduler::pick`]), arms a timer
//! for `until`, switches.
//!
//! **Fairness** is by virtual time: running costs a vCPU virtual time at a rate inverse to its domain's weight and proportional to how
//! many vCPUs of the domain want to run, so a weight is that of the whole domain however many vCPUs it has. The vCPU with the least
//! virtual time runs next, for at most [`SLICE_NS`]. Each CPU has a queue, sorted; a CPU about to choose also looks at the heads of the
//! others' queues, so that N vCPUs share M CPUs, with some reluctance to move a vCPU.
//!
//! **The control domain** never starves: while it has used less than [`CONTROL_RESERVE_PERCENT`] of one CPU in the current period it
//! goes before everybody and preempts at once; beyond that it competes by weight. So one of its vCPUs that wakes runs within
//! [`CONTROL_WAKE_NS_MAX`], and a control domain gone wild leaves the guests half a CPU and all the others.
//!
//! **Caps** are budgets per [`PERIOD_NS`]; overrun is owed to the next periods, so the long-run average is exact.
//!
//! ```text
//!             add                  wake, unpause, refill              pick
//!  (nothing) -----> Off ---------------------------------> Queued ----------> Running
//!                    ^  ^            pause, cap                |                  | pick of another vCPU
//!                    |  +--------------------------------------+                  v
//!                    +------------------------------------------------------- Leaving
//!                                finish_switch (back to Queued at once when it can run)
//! ```
//!
//! Off is "blocked", "paused" or "over its cap": see [`VcpuState`]. A vCPU is on a CPU from the `pick` that chose it to the
//! `finish_switch` after its registers have been saved, and no other CPU can choose it in between.
//!
//! Invariants: a vCPU is in a queue exactly while `Queued`; it can run then, and the queue's CPU is in its affinity; queues are sorted by
//! virtual time; once every kicked CPU has picked, no CPU idles while a vCPU that may run there is queued.

mod account;
mod budget;
mod control;
mod cpu_set;
mod entity;
mod hand_off;
mod pick;
mod queue;
#[cfg(test)]
mod tests;
mod view;
mod wake;

pub use cpu_set::{CpuIndex, CpuSet};
pub use entity::{DomainKind, VcpuKey};
pub use pick::Decision;
pub use view::{CpuView, VcpuState, VcpuView};

use alloc::vec::Vec;
use entity::{Cpu, Domain, Vcpu};

/// Most CPUs of a host.
pub const MAX_CPUS: usize = 64;
/// Most vCPUs of a host, all domains together.
pub const MAX_VCPUS: usize = 4096;
/// Longest time a vCPU runs without the scheduler being asked again.
pub const SLICE_NS: u64 = 5_000_000;
/// Shortest time a vCPU runs before one of the same class takes its place.
pub const MIN_RUN_NS: u64 = 500_000;
/// Period of caps and of the control domain's reserve.
pub const PERIOD_NS: u64 = 10_000_000;
/// Part of one CPU that the control domain gets before anybody else.
pub const CONTROL_RESERVE_PERCENT: u32 = 50;
/// Longest time from waking a vCPU of the control domain to its being chosen, given that kicks and deadlines are honoured at once and
/// that it has no more vCPUs than there are CPUs: it waits at worst for its next reserve.
pub const CONTROL_WAKE_NS_MAX: u64 = PERIOD_NS;
/// Weights.
pub const WEIGHT_MIN: u32 = 1;
/// See [`WEIGHT_MIN`].
pub const WEIGHT_MAX: u32 = 65_535;
/// Weight of a domain for which nobody chose one; the weight at which virtual time passes like time.
pub const WEIGHT_DEFAULT: u32 = 256;
/// Highest cap: all CPUs of the largest host.
pub const CAP_PERCENT_MAX: u32 = 100 * MAX_CPUS as u32;

/// How far a waking vCPU may be behind the clock, in time of its own: what sleepers get for being considerate.
const WAKE_CREDIT_NS: u64 = 2_500_000;
/// How far a vCPU must be behind another to preempt it within its slice, in time of its own.
const PREEMPT_MARGIN_NS: u64 = 250_000;
/// How far a vCPU in another CPU's queue must be behind to be taken before one's own, in time of its own.
const MIGRATE_MARGIN_NS: u64 = 500_000;
/// Every so often, vCPUs further behind the clock than [`LAG_NS_MAX`] are brought up to there: who could not use its share (fewer vCPUs
/// than its weight is worth, pinned) must not save it up against those who come later.
const FAIR_PERIOD_NS: u64 = 100_000_000;
/// See [`FAIR_PERIOD_NS`]; in time of the heaviest domain that wants to run, the same virtual time for all.
const LAG_NS_MAX: u64 = 20_000_000;
/// How far the control domain may be ahead of the clock, in time of its own: its reserve counts against its share by weight, but not
/// for ever.
const CONTROL_DEBT_NS: u64 = 100_000_000;
/// Shortest deadline set on account of a cap: overrun is owed, so it need not be shorter.
const CAP_SLICE_NS_MIN: u64 = 100_000;

/// Why a call was refused. The caller is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchedError {
    /// No such domain.
    UnknownDomain,
    /// The domain is there already.
    DomainExists,
    /// The domain still has vCPUs.
    DomainHasVcpus,
    /// No such vCPU (any more).
    UnknownVcpu,
    /// Weight outside [`WEIGHT_MIN`]`..=`[`WEIGHT_MAX`].
    WeightOutOfRange,
    /// Cap above [`CAP_PERCENT_MAX`].
    CapOutOfRange,
    /// The control domain cannot be capped: every guest waits for it.
    ControlDomainUncapped,
    /// No CPU of this host in the affinity mask.
    EmptyAffinity,
    /// [`MAX_VCPUS`] reached.
    TooManyVcpus,
    /// The vCPU is on this CPU: pause it, kick the CPU, and try again when it is off.
    OnCpu(CpuIndex),
    /// Unpaused more often than paused, or paused too often.
    PauseCount,
}

/// The scheduler of one host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scheduler {
    cpus: Vec<Cpu>,
    /// By slot; `None` is free.
    vcpus: Vec<Option<Vcpu>>,
    /// By slot; `None` is free.
    domains: Vec<Option<Domain>>,
    /// Waiting vCPUs of the control domain: on no CPU's queue, as any may have to take them.
    control_queue: Vec<u16>,
    /// CPUs whose queues are not empty.
    waiting: CpuSet,
    /// CPUs whose last pick found nothing.
    idle: CpuSet,
    /// CPUs that were kicked and have not picked since.
    kicked: CpuSet,
    /// Virtual time of the latest choice by virtual time; where newcomers begin.
    clock: u128,
    /// Domains over their cap now.
    throttled: u32,
    next_fair_ns: u64,
    next_generation: u32,
}

impl Scheduler {
    /// A scheduler for CPUs 0..`cpus`, all idle and none having picked yet.
    ///
    /// # Panics
    /// Unless `cpus` is 1..=[`MAX_CPUS`].
    pub fn new(cpus: usize, now_ns: u64) -> Scheduler {
        assert!(
            (1..=MAX_CPUS).contains(&cpus),
            "a host has 1 to {MAX_CPUS} CPUs, not {cpus}"
        );
        Scheduler {
            cpus: (0..cpus).map(|_| Cpu::new(now_ns)).collect(),
            vcpus: Vec::new(),
            domains: Vec::new(),
            control_queue: Vec::new(),
            waiting: CpuSet::EMPTY,
            idle: CpuSet::first(cpus),
            kicked: CpuSet::EMPTY,
            clock: 0,
            throttled: 0,
            next_fair_ns: now_ns + FAIR_PERIOD_NS,
            next_generation: 0,
        }
    }

    /// CPUs of the host.
    pub fn cpu_count(&self) -> usize {
        self.cpus.len()
    }

    /// Slot of a vCPU that is there.
    fn slot_of(&self, key: VcpuKey) -> Option<u16> {
        let vcpu = self.vcpus.get(usize::from(key.slot()))?.as_ref()?;
        (vcpu.key == key).then_some(key.slot())
    }

    /// The vCPU in a slot that our own tables name.
    fn vcpu(&self, slot: u16) -> &Vcpu {
        self.vcpus[usize::from(slot)]
            .as_ref()
            .expect("slot of a vCPU that is gone")
    }

    /// Virtual time that so much time costs a vCPU.
    fn cost(&self, slot: u16, ns: u64) -> u128 {
        self.domain(self.vcpu(slot).domain).cost(ns)
    }

    fn vcpu_mut(&mut self, slot: u16) -> &mut Vcpu {
        self.vcpus[usize::from(slot)]
            .as_mut()
            .expect("slot of a vCPU that is gone")
    }

    fn domain(&self, slot: u16) -> &Domain {
        self.domains[usize::from(slot)]
            .as_ref()
            .expect("slot of a domain that is gone")
    }

    fn domain_mut(&mut self, slot: u16) -> &mut Domain {
        self.domains[usize::from(slot)]
            .as_mut()
            .expect("slot of a domain that is gone")
    }
}
