//! What an instruction does to registers, flags and memory, once memory has been read.

use arrayvec::ArrayVec;

use super::flags::{Arithmetic, CARRY, STATUS, ZERO, condition, mask, sign_extend};
use super::instruction::{
    BitChange, Extension, Instruction, Operation, Register, Repeat, StringKind,
};
use crate::hardware::{Gpr, VcpuHardware};

const RFLAGS_DF: u64 = 1 << 10;
/// LODS with REP: RAX, RSI and RCX; MOVS: RSI, RDI and RCX.
const REGISTERS_MAX: usize = 3;

/// What is left to do after [`Instruction::finish`]: to store, then to commit. A plain value.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "nothing has been written yet"]
pub struct Outcome {
    /// The value of [`MemoryOperation::write`](super::MemoryOperation), if there is one.
    pub store: Option<u64>,
    registers: ArrayVec<(u8, u64), REGISTERS_MAX>,
    rflags: u64,
    again: bool,
}

/// Whether an instruction is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Step over it.
    Complete,
    /// It has elements left: plan it again, now or after the guest has been entered.
    Again,
}

impl Outcome {
    fn new<H: VcpuHardware>(hw: &H) -> Self {
        Self {
            store: None,
            registers: ArrayVec::new(),
            rflags: hw.rflags(),
            again: false,
        }
    }

    fn set<H: VcpuHardware>(&mut self, hw: &H, register: Register, value: u64) {
        self.registers.push(register.written(hw, value));
    }

    fn set_status(&mut self, status: u64) {
        self.rflags = self.rflags & !STATUS | status;
    }

    /// Writes registers and flags, not RIP. Only after the store has been made.
    pub fn commit<H: VcpuHardware>(self, hw: &mut H) -> Step {
        for (index, value) in self.registers {
            hw.gprs_mut()[usize::from(index)] = value;
        }
        if self.rflags != hw.rflags() {
            hw.set_rflags(self.rflags);
        }
        if self.again {
            Step::Again
        } else {
            Step::Complete
        }
    }
}

impl Instruction {
    /// Computes the outcome from the values that the reads of the plan gave, in their order; bits
    /// above their width do not count, nor do values of reads that are not in the plan.
    pub fn finish<H: VcpuHardware>(&self, values: [u64; 2], hw: &H) -> Outcome {
        let width = mask(self.bytes);
        let value = values[0] & width;
        let rflags = hw.rflags();
        let mut outcome = Outcome::new(hw);
        match self.operation {
            Operation::Load {
                to,
                extension,
                swap,
            } => {
                outcome.set(hw, to, self.extended(value, extension, swap));
            }
            Operation::Store { from, swap } => {
                let value = from.value(hw) & width;
                outcome.store = Some(if swap { self.swapped(value) } else { value });
            }
            Operation::ToMemory(arithmetic, from) => {
                let (result, status) =
                    arithmetic.apply(self.bytes, value, from.value(hw) & width, rflags);
                outcome.store = arithmetic.writes().then_some(result);
                outcome.set_status(status);
            }
            Operation::ToRegister(arithmetic, to) => {
                let (result, status) = arithmetic.apply(self.bytes, to.read(hw), value, rflags);
                if arithmetic.writes() {
                    outcome.set(hw, to, result);
                }
                outcome.set_status(status);
            }
            Operation::Unary(unary) => {
                let (result, status) = unary.apply(self.bytes, value, rflags);
                outcome.store = Some(result);
                outcome.set_status(status);
            }
            Operation::Exchange(register) => {
                outcome.store = Some(register.read(hw));
                outcome.set(hw, register, value);
            }
            Operation::ExchangeAdd(register) => {
                let (sum, status) =
                    Arithmetic::Add.apply(self.bytes, value, register.read(hw), rflags);
                outcome.store = Some(sum);
                outcome.set(hw, register, value);
                outcome.set_status(status);
            }
            Operation::CompareExchange(register) => {
                self.compare_exchange(hw, value, register, &mut outcome);
            }
            Operation::BitTest { change, by } => {
                self.bit_test(value, by.value(hw), change, &mut outcome);
            }
            Operation::SetCondition(code) => {
                outcome.store = Some(condition(code, rflags).into());
            }
            Operation::String(kind, repeat) => {
                self.element(hw, kind, repeat, [value, values[1] & width], &mut outcome);
            }
        }
        outcome
    }

    fn extended(&self, value: u64, extension: Extension, swap: bool) -> u64 {
        match extension {
            Extension::Sign => sign_extend(self.bytes, value),
            Extension::Zero if swap => self.swapped(value),
            Extension::Zero => value,
        }
    }

    fn swapped(&self, value: u64) -> u64 {
        value.swap_bytes() >> (64 - 8 * u32::from(self.bytes))
    }

    fn bit_test(&self, value: u64, number: u64, change: BitChange, outcome: &mut Outcome) {
        let bit = 1 << (number & (8 * u64::from(self.bytes) - 1));
        outcome.store = match change {
            BitChange::None => None,
            BitChange::Set => Some(value | bit),
            BitChange::Reset => Some(value & !bit),
            BitChange::Complement => Some(value ^ bit),
        };
        // The other flags are undefined or unchanged: the CPUs leave them.
        let carry = if value & bit != 0 { CARRY } else { 0 };
        outcome.rflags = outcome.rflags & !CARRY | carry;
    }

    /// Writes memory in any case, as the CPUs do (SDM 2A, CMPXCHG).
    fn compare_exchange<H: VcpuHardware>(
        &self,
        hw: &H,
        value: u64,
        register: Register,
        outcome: &mut Outcome,
    ) {
        let accumulator = Register::low(Gpr::Rax, self.bytes);
        let expected = accumulator.read(hw);
        outcome.set_status(
            Arithmetic::Cmp
                .apply(self.bytes, expected, value, hw.rflags())
                .1,
        );
        if expected == value {
            outcome.store = Some(register.read(hw));
        } else {
            outcome.store = Some(value);
            outcome.set(hw, accumulator, value);
        }
    }

    /// One element of a string instruction.
    fn element<H: VcpuHardware>(
        &self,
        hw: &H,
        kind: StringKind,
        repeat: Option<Repeat>,
        values: [u64; 2],
        outcome: &mut Outcome,
    ) {
        let counter = self.pointer(Gpr::Rcx);
        let count = counter.read(hw);
        if repeat.is_some() && count == 0 {
            return;
        }
        let accumulator = Register::low(Gpr::Rax, self.bytes);
        match kind {
            StringKind::Move => outcome.store = Some(values[0]),
            StringKind::Store => outcome.store = Some(accumulator.read(hw)),
            StringKind::Load => outcome.set(hw, accumulator, values[0]),
            StringKind::Scan | StringKind::Compare => {
                let (first, second) = match kind {
                    StringKind::Scan => (accumulator.read(hw), values[0]),
                    _ => (values[0], values[1]),
                };
                let (_, status) = Arithmetic::Cmp.apply(self.bytes, first, second, hw.rflags());
                outcome.set_status(status);
            }
        }
        let bytes = u64::from(self.bytes);
        let step = if hw.rflags() & RFLAGS_DF != 0 {
            bytes.wrapping_neg()
        } else {
            bytes
        };
        let (source, destination, compares) = match kind {
            StringKind::Move => (true, true, false),
            StringKind::Store => (false, true, false),
            StringKind::Load => (true, false, false),
            StringKind::Scan => (false, true, true),
            StringKind::Compare => (true, true, true),
        };
        for (moves, pointer) in [(source, Gpr::Rsi), (destination, Gpr::Rdi)] {
            if moves {
                let pointer = self.pointer(pointer);
                outcome.set(hw, pointer, pointer.read(hw).wrapping_add(step));
            }
        }
        let Some(repeat) = repeat else { return };
        outcome.set(hw, counter, count - 1);
        let equal = outcome.rflags & ZERO != 0;
        let goes_on = match repeat {
            Repeat::WhileEqual => equal,
            Repeat::WhileNotEqual => !equal,
        };
        outcome.again = count > 1 && (!compares || goes_on);
    }
}
