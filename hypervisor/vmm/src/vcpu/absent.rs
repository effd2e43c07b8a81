//! Pages whose contents are still on another host: the vCPU that touches one stands before its instruction until they come.
//!
//! The guest's own accesses exit ([`super::Contents`]). What the hypervisor does on its behalf (fetching and executing an
//! instruction, string I/O, publishing its clock) fails at such a page; nothing that the instruction changes has been changed
//! then, so that it is executed again afterwards. As with the write quota, the vCPU takes messages meanwhile and no interrupts.

use super::{Next, Vcpu};

impl Vcpu {
    /// Waits for the page noted by its world.
    #[cold]
    pub(super) fn starve(&mut self) -> Next {
        self.forwarded.restart();
        self.starved = true;
        Next::Wait
    }
}
