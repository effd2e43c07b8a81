//! The paravirtual clock's MSRs, and the pages they name.

use super::{Vcpu, World};
use crate::devices::kvmclock::{self, MSR_SYSTEM_TIME, MSR_WALL_CLOCK};

impl Vcpu {
    #[cold]
    pub(super) fn clock_msr<W: World>(&self, world: &mut W, index: u32) -> Option<u64> {
        let id = self.lapic.id();
        world.platform(|platform| match index {
            MSR_WALL_CLOCK => Some(platform.kvmclock.wall_clock()),
            _system_time => platform.kvmclock.system_time(id),
        })
    }

    /// Writes an MSR of the clock. `None`: #GP, also where there is no memory.
    #[cold]
    pub(super) fn set_clock_msr<W: World>(
        &mut self,
        world: &mut W,
        index: u32,
        value: u64,
    ) -> Option<()> {
        let (id, adjust) = (self.lapic.id(), self.tsc_ahead());
        match index {
            MSR_WALL_CLOCK => {
                let body = world.platform(|platform| platform.kvmclock.set_wall_clock(value))?;
                kvmclock::publish(world, value, &body).then_some(())
            }
            MSR_SYSTEM_TIME => {
                let before = world.platform(|platform| {
                    let before = platform.kvmclock.system_time(id);
                    platform.kvmclock.set_system_time(id, value, adjust)?;
                    before
                })?;
                if publish_clock(world, false) {
                    return Some(());
                }
                world.platform(|platform| platform.kvmclock.set_system_time(id, before, adjust))?;
                None
            }
            _other => None,
        }
    }

    /// The guest's TSC less platform time.
    fn tsc_ahead(&self) -> u64 {
        self.tsc_offset.wrapping_sub(self.platform_offset)
    }

    /// This vCPU's TSC has been moved.
    #[cold]
    pub(super) fn clock_follows<W: World>(&mut self, world: &mut W) {
        let (id, adjust) = (self.lapic.id(), self.tsc_ahead());
        if world.platform(|platform| platform.kvmclock.tsc_moved(id, adjust)) {
            // Pages that have gone away meanwhile are the guest's affair.
            let _all_written = publish_clock(world, false);
        }
    }
}

/// Writes every vCPU's page. `false`: one of them is not in memory.
fn publish_clock<W: World>(world: &mut W, stopped: bool) -> bool {
    let pages = world.platform(|platform| platform.kvmclock.pages(stopped));
    pages.iter().fold(true, |all, (gpa, body)| {
        kvmclock::publish(world, *gpa, body) && all
    })
}
