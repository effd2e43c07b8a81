//! The common tail: what is done before every entry, whatever the exit was.

use super::{Vcpu, World};
use crate::hardware::{Event, VcpuHardware};

impl Vcpu {
    /// Lets the timer expire, injects the most urgent interrupt the guest can take, or asks for an
    /// exit when it can. Cheap when nothing is pending.
    #[inline]
    pub fn before_entry<H: VcpuHardware, W: World>(&mut self, hw: &mut H, world: &mut W) {
        if self.lapic.next_deadline().is_some() {
            let now = self.guest_tsc(world.host_tsc());
            self.lapic.expire(now);
        }
        if self.nmi_pending {
            self.deliver_nmi(hw);
        }
        hw.set_virtual_tpr(self.lapic.cr8() as u8);
        if self.lapic.pending().is_some() {
            self.deliver_interrupt(hw);
        } else if self.window_open {
            self.window_open = false;
            hw.set_interrupt_window(false);
        }
    }

    /// Whether a waiting vCPU has something to wake for.
    pub fn has_work<W: World>(&mut self, world: &W) -> bool {
        if self.lapic.next_deadline().is_some() {
            let now = self.guest_tsc(world.host_tsc());
            self.lapic.expire(now);
        }
        self.nmi_pending || self.lapic.pending().is_some()
    }

    /// An NMI for the guest; a second one before it is taken is the same NMI (SDM 3A, 6.7.1).
    pub fn raise_nmi(&mut self) {
        self.nmi_pending = true;
    }

    fn deliver_nmi<H: VcpuHardware>(&mut self, hw: &mut H) {
        if hw.nmi_allowed() && !hw.event_pending() {
            self.nmi_pending = false;
            hw.inject(Event::Nmi);
        } else {
            hw.set_nmi_window(true);
        }
    }

    fn deliver_interrupt<H: VcpuHardware>(&mut self, hw: &mut H) {
        if hw.interrupt_allowed() && !hw.event_pending() {
            let vector = self.lapic.acknowledge();
            hw.inject(Event::External(vector));
        }
        // Another may be behind it.
        let wanted = self.lapic.pending().is_some();
        if wanted != self.window_open {
            self.window_open = wanted;
            hw.set_interrupt_window(wanted);
        }
    }
}
