//! Writes that dirty tracking stops: the page is noted, and the instruction runs again. The fast path of a tracked guest.
//!
//! A quota slows the writers down: each page that a vCPU makes dirty costs it its share of a second, and a vCPU that has
//! spent more than [`BURST_NS`] of it sleeps until it has caught up, its interrupts with it. Others run on.

use super::{Next, Vcpu, World};
use crate::exit::NestedFault;
use crate::hardware::VcpuHardware;

/// What a vCPU may write ahead of its quota.
pub const BURST_NS: u64 = 2_000_000;

/// A domain's write quota in host TSC ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Ticks that one page costs.
    pub ticks_per_page: u64,
    /// Ticks it may be ahead.
    pub burst_ticks: u64,
}

impl Quota {
    /// For so many pages a second on a TSC of `tsc_hz`; 0 pages mean no quota.
    pub fn new(pages_per_s: u64, tsc_hz: u64) -> Option<Quota> {
        Some(Quota {
            ticks_per_page: (tsc_hz.checked_div(pages_per_s)?).max(1),
            burst_ticks: (u128::from(tsc_hz) * u128::from(BURST_NS) / 1_000_000_000) as u64,
        })
    }
}

impl Vcpu {
    /// A nested page fault: a write to a tracked page, or a device's.
    #[inline]
    pub(super) fn nested_fault<H: VcpuHardware, W: World>(
        &mut self,
        hw: &mut H,
        world: &mut W,
        fault: NestedFault,
    ) -> Next {
        if fault.write && fault.mapped && world.write_fault(fault.gpa) {
            return self.charge(world, 1);
        }
        self.nested(hw, world, fault)
    }

    /// The processor's log of dirty pages is full.
    #[cold]
    pub(super) fn log_full<H: VcpuHardware, W: World>(
        &mut self,
        hw: &mut H,
        world: &mut W,
    ) -> Next {
        let pages = self.drain_log(hw, world);
        self.charge(world, pages)
    }

    /// Hands what the processor has logged to the domain. Returns the pages. Before translations are flushed, too.
    pub(super) fn drain_log<H: VcpuHardware, W: World>(
        &mut self,
        hw: &mut H,
        world: &mut W,
    ) -> u64 {
        let mut pages = 0;
        hw.drain_dirty_log(|gpa| {
            world.logged_write(gpa);
            pages += 1;
        });
        pages
    }

    /// Counts dirtied pages against the quota.
    fn charge<W: World>(&mut self, world: &mut W, pages: u64) -> Next {
        let Some(quota) = world.write_quota() else {
            self.paid_until = 0;
            return Next::Enter;
        };
        let now = world.host_tsc();
        let earliest = now.saturating_sub(quota.burst_ticks);
        let cost = quota.ticks_per_page.saturating_mul(pages);
        self.paid_until = self.paid_until.max(earliest).saturating_add(cost);
        if self.paid_until <= now {
            return Next::Enter;
        }
        self.stalled = true;
        Next::Wait
    }

    /// Whether a vCPU that sleeps for its quota has slept enough, or the quota has been lifted. It runs then: it did not wait
    /// for an interrupt.
    pub(super) fn has_paid<W: World>(&self, world: &W) -> bool {
        self.paid_until <= world.host_tsc() || world.write_quota().is_none()
    }
}
