//! CPUs of the host by number, and sets of them.

use super::MAX_CPUS;

/// A CPU of the host, counted from 0 in the order in which they were started; less than [`MAX_CPUS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuIndex(pub u8);

impl CpuIndex {
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }

    pub(super) fn of(index: usize) -> CpuIndex {
        CpuIndex(u8::try_from(index).expect("CPU number beyond MAX_CPUS"))
    }
}

/// A set of CPUs: an affinity mask, or those to kick. Bit n is CPU n.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
#[must_use]
pub struct CpuSet(pub u64);

impl CpuSet {
    /// No CPU.
    pub const EMPTY: CpuSet = CpuSet(0);
    /// Any CPU: the affinity of a vCPU that is not pinned.
    pub const ALL: CpuSet = CpuSet(u64::MAX);

    /// CPUs 0..`count`.
    pub fn first(count: usize) -> CpuSet {
        if count >= MAX_CPUS {
            CpuSet::ALL
        } else {
            CpuSet((1 << count) - 1)
        }
    }

    /// One CPU.
    pub fn only(cpu: CpuIndex) -> CpuSet {
        CpuSet(1 << cpu.0)
    }

    /// Is the set empty?
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Is the CPU in the set?
    pub fn contains(self, cpu: CpuIndex) -> bool {
        self.0 >> cpu.0 & 1 != 0
    }

    /// CPUs in both.
    pub fn and(self, other: CpuSet) -> CpuSet {
        CpuSet(self.0 & other.0)
    }

    /// CPUs of this set that are not in the other.
    pub fn without(self, other: CpuSet) -> CpuSet {
        CpuSet(self.0 & !other.0)
    }

    /// Adds a CPU.
    pub fn insert(&mut self, cpu: CpuIndex) {
        self.0 |= 1 << cpu.0;
    }

    /// Takes a CPU out.
    pub fn remove(&mut self, cpu: CpuIndex) {
        self.0 &= !(1 << cpu.0);
    }

    /// The lowest CPU of the set.
    pub fn lowest(self) -> Option<CpuIndex> {
        // At most 63.
        (self.0 != 0).then(|| CpuIndex(self.0.trailing_zeros() as u8))
    }
}

/// In rising order.
impl Iterator for CpuSet {
    type Item = CpuIndex;

    fn next(&mut self) -> Option<CpuIndex> {
        let cpu = self.lowest()?;
        self.0 &= self.0 - 1;
        Some(cpu)
    }
}
