//! Writes that dirty tracking stops: the page is noted, and the instruction runs again. The fast path of a tracked guest.
//!
//! A quota slows the writers down: each page that a vCPU makes dirty costs it its share of a second, and a vCPU that has
//! spent more than [`BURST_NS`] of it sleeps until it has caught up, its interrupts with it. Others run on. A processor that logs
//! pages by itself is given a log as short as the burst, so that it comes back as often as the quota needs.

use super::{Contents, Next, Vcpu, World};
use crate::exit::NestedFault;
use crate::hardware::VcpuHardware;
use crate::nested::PageSize;

/// What a vCPU may write ahead of its quota.
pub const BURST_NS: u64 = 2_000_000;

/// Pages that a processor's log has room for.
const LOG_PAGES_MAX: u16 = 512;

/// What one directory entry of the nested tables stands for: all that is kept of a logged write.
const LOGGED_STRETCH_BYTES: u64 = PageSize::Large2M.bytes();

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

    /// Pages that a processor may log before it has to come back.
    fn log_pages(&self) -> u16 {
        let pages = (self.burst_ticks / self.ticks_per_page).max(1);
        u16::try_from(pages).map_or(LOG_PAGES_MAX, |pages| pages.min(LOG_PAGES_MAX))
    }
}

impl Vcpu {
    /// A nested page fault: a write to a tracked page, an absent page, or a device's.
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
        if !fault.mapped {
            match world.contents(fault.gpa) {
                Contents::Absent => return self.starve(),
                Contents::Here => return Next::Enter,
                Contents::Nothing => {}
            }
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
        self.drain_log(hw, world);
        self.charge(world, 0)
    }

    /// Hands what the processor has logged to the domain: when its log is full, before translations are flushed, and before the
    /// vCPU is taken off its CPU. It counts against the quota.
    pub fn drain_log<H: VcpuHardware, W: World>(&mut self, hw: &mut H, world: &mut W) {
        let quota = world.write_quota();
        let room = quota.map_or(LOG_PAGES_MAX, |quota| quota.log_pages());
        let mut pages = 0;
        let mut told = None;
        hw.drain_dirty_log(room, |gpa| {
            pages += 1;
            // The dirty bits of all that is logged are set: a harvest that comes between finds every page of a stretch that
            // has been told.
            let stretch = gpa / LOGGED_STRETCH_BYTES;
            if told.replace(stretch) != Some(stretch) {
                world.logged_write(gpa);
            }
        });
        if let Some(quota) = quota
            && pages > 0
        {
            self.owe(quota, world.host_tsc(), pages);
        }
    }

    fn owe(&mut self, quota: Quota, now: u64, pages: u64) {
        let earliest = now.saturating_sub(quota.burst_ticks);
        let cost = quota.ticks_per_page.saturating_mul(pages);
        self.paid_until = self.paid_until.max(earliest).saturating_add(cost);
    }

    /// Counts dirtied pages against the quota.
    fn charge<W: World>(&mut self, world: &mut W, pages: u64) -> Next {
        let Some(quota) = world.write_quota() else {
            self.paid_until = 0;
            return Next::Enter;
        };
        let now = world.host_tsc();
        self.owe(quota, now, pages);
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
