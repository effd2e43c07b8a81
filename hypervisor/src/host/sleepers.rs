//! vCPUs that sleep until a time: found by any CPU, and in force before its CPU picks again ([`super::run`]). An entry of one
//! that was woken otherwise stays, and wakes it once for nothing.

use core::sync::atomic::Ordering;

use godwit_vmm::sched::VcpuKey;

use super::{Host, Hosted};
use crate::platform::clock;

impl<B: Hosted> Host<B> {
    /// Has a vCPU that sleeps woken at a host TSC; all ones for never.
    pub(super) fn sleep_until(&self, key: VcpuKey, deadline: u64) {
        if deadline == u64::MAX {
            return;
        }
        let mut sleepers = self.sleepers.lock();
        match sleepers.iter_mut().find(|(_, sleeper)| *sleeper == key) {
            // Woken otherwise the last time.
            Some((before, _)) if *before == deadline => return,
            Some((before, _)) => *before = deadline,
            None => sleepers.push((deadline, key)),
        }
        self.note_next_sleeper(&sleepers);
    }

    /// The host TSC at which the first sleeper wakes, all ones for never.
    #[inline]
    pub(super) fn next_sleeper(&self) -> u64 {
        self.next_sleep.load(Ordering::Acquire)
    }

    pub(super) fn sleeper_is_due(&self) -> bool {
        self.next_sleeper() <= clock::tsc()
    }

    pub(super) fn wake_sleepers(&self) {
        if !self.sleeper_is_due() {
            return;
        }
        loop {
            let now = clock::tsc();
            let due = {
                let mut sleepers = self.sleepers.lock();
                let found = sleepers.iter().position(|(deadline, _)| *deadline <= now);
                let due = found.map(|at| sleepers.swap_remove(at).1);
                self.note_next_sleeper(&sleepers);
                due
            };
            match due {
                Some(key) => self.wake(key),
                None => return,
            }
        }
    }

    fn note_next_sleeper(&self, sleepers: &[(u64, VcpuKey)]) {
        let next = sleepers
            .iter()
            .map(|(deadline, _)| *deadline)
            .min()
            .unwrap_or(u64::MAX);
        self.next_sleep.store(next, Ordering::Release);
    }
}
