//! Accesses to devices that dom0 serves: the vCPU stands still until dom0 has answered, then the instruction is executed
//! again with the answer.
//!
//! An instruction may make several such accesses (a string instruction, one that crosses a page, CMPS). They are asked one
//! after the other; the answers are kept until the element of the instruction that made them is committed, so that dom0 is
//! asked once for each. Registers change only at the commit, so a vCPU that waits stands before the instruction, or before
//! an element of it: saved there and restored elsewhere, it simply executes it again.
//!
//! While it waits, the vCPU takes messages but no interrupts: those come after the instruction, or between the elements of
//! a string instruction. An INIT ends the wait.

use arrayvec::ArrayVec;

use super::exchange::Request;
use super::{Next, Vcpu, World};
use crate::devices::pci::Target;
use crate::exit::Exit;
use crate::hardware::VcpuHardware;

/// Accesses of one element at most: two reads and a write, each in two parts of up to three.
const ANSWERS_MAX: usize = 3 * 2 * 3;

/// What is known of the accesses of the instruction in hand.
#[derive(Debug, Default)]
pub(super) struct Forwarded {
    /// The exit whose instruction waits, and for what.
    awaited: Option<(Exit, Request)>,
    /// Accesses of the element in hand that dom0 has answered, in order.
    answers: ArrayVec<(Request, u64), ANSWERS_MAX>,
    /// Those that this execution has used.
    used: usize,
}

impl Forwarded {
    /// The answer to the next access, if it is known.
    pub(super) fn answer(&mut self, request: &Request) -> Option<u64> {
        match self.answers.get(self.used) {
            Some((asked, value)) if asked == request => {
                self.used += 1;
                Some(*value)
            }
            Some(_) => {
                // Another vCPU has changed code or page tables meanwhile: it is another instruction.
                self.answers.truncate(self.used);
                None
            }
            None => None,
        }
    }

    /// Nobody is there for this access. Returns whether somebody was, when it was made first.
    pub(super) fn skip(&mut self) -> bool {
        self.used += 1;
        self.used <= self.answers.len()
    }

    /// The instruction is executed again, from its start or its present element on: the answers are kept.
    pub(super) fn restart(&mut self) {
        self.used = 0;
    }

    /// The element is committed. Returns whether dom0 had a part in it.
    pub(super) fn commit(&mut self) -> bool {
        self.used = 0;
        let took_part = !self.answers.is_empty();
        self.answers.clear();
        took_part
    }
}

impl Request {
    pub(super) fn new(target: Target, width: u8, write: Option<u64>) -> Request {
        Request {
            slot: target.slot,
            bar: target.bar,
            width,
            offset: target.offset,
            write,
        }
    }
}

impl Vcpu {
    /// Whether it waits for dom0.
    #[inline]
    pub fn awaits_answer(&self) -> bool {
        self.forwarded.awaited.is_some()
    }

    /// Asks dom0 and waits. `exit` is handled again when the answer has come.
    #[cold]
    pub(super) fn await_answer<W: World>(
        &mut self,
        world: &mut W,
        exit: Exit,
        request: Request,
    ) -> Next {
        self.forwarded.used = 0;
        self.forwarded.awaited = Some((exit, request));
        world.exchange().ask(&request);
        world.asked();
        Next::Wait
    }

    /// Goes on with the instruction after `has_work` has said so. The guest is entered only after that: the CPU must not
    /// take an interrupt before.
    pub fn resume_access<H: VcpuHardware, W: World>(&mut self, hw: &mut H, world: &mut W) -> Next {
        let Some(answer) = world.exchange().collect() else {
            return Next::Wait;
        };
        let Some((exit, request)) = self.forwarded.awaited.take() else {
            return Next::Enter;
        };
        if let Exit::Port(access) = exit
            && !access.string
        {
            return self.port_answered(hw, access, answer);
        }
        self.forwarded.answers.push((request, answer));
        match exit {
            Exit::Port(access) => self.port(hw, world, access),
            Exit::Nested(fault) => self.nested(hw, world, fault),
            other => unreachable!("no device is reached by {other:?}"),
        }
    }

    /// It is put into another state: what it waited for is of no interest any more.
    pub fn forget_access<W: World>(&mut self, world: &W) {
        self.forwarded = Forwarded::default();
        world.exchange().withdraw();
    }
}
