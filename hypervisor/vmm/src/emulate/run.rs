//! An instruction from plan to end, for a caller that answers accesses at once.

use super::access::{Access, Fault};
use super::execute::Step;
use super::instruction::Instruction;
use crate::hardware::VcpuHardware;

const RFLAGS_TF: u64 = 1 << 8;

/// What is at the other end of an access: RAM or a device, behind the guest's page tables.
pub trait Bus {
    /// Why an access is not made: a page fault to inject, a device's answer to wait for, the end of
    /// the domain.
    type Stop;
    /// Whether an access could be made now, without making it. Asked of all accesses of an element that touches several pages,
    /// before any of them is made: a device that has been read may have forgotten what it gave.
    fn reach(&mut self, _access: Access) -> Result<(), Self::Stop> {
        Ok(())
    }
    /// The value read, in its low bytes.
    fn read(&mut self, access: Access) -> Result<u64, Self::Stop>;
    /// Writes the low bytes of `value`.
    fn write(&mut self, access: Access, value: u64) -> Result<(), Self::Stop>;
    /// The accesses made since the last call, or since the start, were those of an element that is committed now. Returns
    /// whether the next may follow at once; otherwise [`run`] ends with [`Ended::Repeats`].
    fn committed(&mut self) -> bool {
        true
    }
}

/// Where [`run`] ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended<S> {
    /// Done: step over [`Instruction::length`] bytes.
    Complete,
    /// The budget is used up, the bus wants a pause, or RFLAGS.TF asks for a trap after every element. RIP stays; enter the
    /// guest, which comes back for the rest, with a trap pending if TF is set.
    Repeats,
    /// Inject the fault. What elements before it did remains done.
    Fault(Fault),
    /// The bus stopped; the element it was in has changed no register.
    Stopped(S),
}

/// Executes up to `budget` elements (at least one; other instructions have one).
pub fn run<H: VcpuHardware, B: Bus>(
    instruction: &Instruction,
    hw: &mut H,
    bus: &mut B,
    budget: u32,
) -> Ended<B::Stop> {
    let budget = if hw.rflags() & RFLAGS_TF != 0 {
        1
    } else {
        budget.max(1)
    };
    for _ in 0..budget {
        let plan = match instruction.plan(hw) {
            Ok(plan) => plan,
            Err(fault) => return Ended::Fault(fault),
        };
        if plan.touches_several_pages() {
            for access in plan.accesses() {
                if let Err(stop) = bus.reach(access) {
                    return Ended::Stopped(stop);
                }
            }
        }
        let mut values = [0; 2];
        for (value, access) in values.iter_mut().zip(plan.reads) {
            if let Some(access) = access {
                match bus.read(access) {
                    Ok(read) => *value = read,
                    Err(stop) => return Ended::Stopped(stop),
                }
            }
        }
        let outcome = instruction.finish(values, hw);
        assert_eq!(
            plan.write.is_some(),
            outcome.store.is_some(),
            "{instruction:?}"
        );
        if let (Some(access), Some(value)) = (plan.write, outcome.store)
            && let Err(stop) = bus.write(access, value)
        {
            return Ended::Stopped(stop);
        }
        let step = outcome.commit(hw);
        let goes_on = bus.committed();
        match step {
            Step::Complete => return Ended::Complete,
            Step::Again if goes_on => {}
            Step::Again => return Ended::Repeats,
        }
    }
    Ended::Repeats
}
