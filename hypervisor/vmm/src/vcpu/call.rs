//! A guest's hypercall: registers to arguments, the answer to registers, and the calls that wait.

use godwit_abi::{Access, Answer, Status};

use super::{Next, Refused, Vcpu, World};
use crate::code::Opcode;
use crate::exit::Length;
use crate::hardware::{Event, Gpr, SegmentName, VcpuHardware};

/// Length of VMCALL and VMMCALL without prefixes.
const BARE_BYTES: Length = core::num::NonZeroU8::new(3);

impl Vcpu {
    #[inline]
    pub(super) fn hypercall<H: VcpuHardware, W: World>(
        &mut self,
        hw: &mut H,
        world: &mut W,
        length: Length,
    ) -> Next {
        // Only the guest's kernel speaks for the guest.
        if hw.segment(SegmentName::Ss).dpl() != 0 {
            return self.inject(hw, Event::INVALID_OPCODE);
        }
        let gprs = hw.gprs();
        let number = gprs[Gpr::Rax as usize];
        let arguments = [
            gprs[Gpr::Rdi as usize],
            gprs[Gpr::Rsi as usize],
            gprs[Gpr::Rdx as usize],
            gprs[Gpr::R10 as usize],
            gprs[Gpr::R8 as usize],
        ];
        match world.hypercall(self.access, number, arguments) {
            Answer::Return(status, value) => {
                if status == Status::UnknownCall || status == Status::Denied {
                    world.refused(Refused::Hypercall(number));
                }
                let gprs = hw.gprs_mut();
                gprs[Gpr::Rax as usize] = status.0;
                gprs[Gpr::Rdx as usize] = value;
                let length = match self.access {
                    Access::Any => length,
                    // Its instruction has no prefixes: nothing to read where the hardware does not say.
                    Access::Control => length.or(BARE_BYTES),
                };
                self.step_over(hw, world, length, Opcode::Vmmcall)
            }
            Answer::Block => {
                self.blocked_call = Some(length);
                Next::Wait
            }
        }
    }

    /// Makes a hypercall that waits once more: it may be answered now. Cheaper than letting the guest do it, which
    /// stands before its instruction.
    #[inline]
    pub fn retry_call<H: VcpuHardware, W: World>(
        &mut self,
        hw: &mut H,
        world: &mut W,
    ) -> Option<Next> {
        let length = self.blocked_call.take()?;
        Some(self.hypercall(hw, world, length))
    }
}
