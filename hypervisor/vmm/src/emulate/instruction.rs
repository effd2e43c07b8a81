//! What the decoder makes of an instruction's bytes.

use super::address::Address;
use super::flags::{Arithmetic, Unary, mask};
use super::mode::Mode;
use crate::hardware::{Gpr, VcpuHardware};

/// A decoded instruction that accesses memory. A plain value: it holds nothing of the vCPU's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instruction {
    pub(super) mode: Mode,
    pub(super) length: u8,
    /// Bytes of the memory operand, of an element for strings: 1, 2, 4 or 8.
    pub(super) bytes: u8,
    /// For strings only its segment and size count.
    pub(super) address: Address,
    pub(super) operation: Operation,
}

impl Instruction {
    /// Its length in bytes, 1 to 15.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Whether it has a REP prefix that counts: it is executed element by element.
    pub fn repeats(&self) -> bool {
        match self.operation {
            Operation::String(_, repeat) => repeat.is_some(),
            Operation::Load { .. }
            | Operation::Store { .. }
            | Operation::ToMemory(..)
            | Operation::ToRegister(..)
            | Operation::Unary(_)
            | Operation::Exchange(_)
            | Operation::ExchangeAdd(_)
            | Operation::CompareExchange(_)
            | Operation::BitTest { .. }
            | Operation::SetCondition(_) => false,
        }
    }
}

/// What is done with the memory operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation {
    /// MOV, MOVZX, MOVSX, MOVSXD and MOVBE to a register.
    Load {
        to: Register,
        extension: Extension,
        swap: bool,
    },
    /// MOV, MOVNTI and MOVBE to memory.
    Store { from: Operand, swap: bool },
    /// Memory is the first operand.
    ToMemory(Arithmetic, Operand),
    /// The register is the first operand.
    ToRegister(Arithmetic, Register),
    /// INC, DEC, NOT, NEG.
    Unary(Unary),
    /// XCHG.
    Exchange(Register),
    /// XADD.
    ExchangeAdd(Register),
    /// CMPXCHG: what to write if memory equals the accumulator.
    CompareExchange(Register),
    /// BT, BTS, BTR, BTC. A register goes beyond the operand: memory is a string of bits then.
    BitTest { change: BitChange, by: Operand },
    /// SETcc.
    SetCondition(u8),
    /// One element, or as many as RCX says.
    String(StringKind, Option<Repeat>),
}

impl Operation {
    /// Whether a LOCK prefix is allowed (SDM 2A, LOCK).
    pub(super) fn lockable(self) -> bool {
        match self {
            Operation::ToMemory(arithmetic, _) => arithmetic.writes(),
            Operation::Unary(_)
            | Operation::Exchange(_)
            | Operation::ExchangeAdd(_)
            | Operation::CompareExchange(_) => true,
            Operation::BitTest { change, .. } => change != BitChange::None,
            Operation::Load { .. }
            | Operation::Store { .. }
            | Operation::ToRegister(..)
            | Operation::SetCondition(_)
            | Operation::String(..) => false,
        }
    }

    /// Memory is read, and memory is written. Not for strings.
    pub(super) fn directions(self) -> (bool, bool) {
        match self {
            Operation::Load { .. } | Operation::ToRegister(..) => (true, false),
            Operation::Store { .. } | Operation::SetCondition(_) => (false, true),
            Operation::ToMemory(arithmetic, _) => (true, arithmetic.writes()),
            Operation::BitTest { change, .. } => (true, change != BitChange::None),
            Operation::Unary(_)
            | Operation::Exchange(_)
            | Operation::ExchangeAdd(_)
            | Operation::CompareExchange(_) => (true, true),
            Operation::String(..) => unreachable!("strings have their own plan"),
        }
    }

    /// The register it writes that the bytes name. The accumulator and the counters are not RSP.
    pub(super) fn destination(self) -> Option<Register> {
        match self {
            Operation::Load { to, .. } => Some(to),
            Operation::ToRegister(arithmetic, to) => arithmetic.writes().then_some(to),
            Operation::Exchange(register) | Operation::ExchangeAdd(register) => Some(register),
            Operation::Store { .. }
            | Operation::ToMemory(..)
            | Operation::Unary(_)
            | Operation::CompareExchange(_)
            | Operation::BitTest { .. }
            | Operation::SetCondition(_)
            | Operation::String(..) => None,
        }
    }
}

/// How a narrow value fills a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Extension {
    Zero,
    Sign,
}

/// What becomes of the tested bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BitChange {
    None,
    Set,
    Reset,
    Complement,
}

/// String instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StringKind {
    Move,
    Store,
    Load,
    Scan,
    Compare,
}

/// REP prefixes. For MOVS, STOS and LODS both mean REP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Repeat {
    /// F3: REP, or REPE.
    WhileEqual,
    /// F2: REPNE.
    WhileNotEqual,
}

/// The operand that is not memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operand {
    Register(Register),
    /// Sign-extended to 64 bits.
    Immediate(u64),
}

impl Operand {
    /// Its value, of the register's width or the immediate's sign extension.
    pub(super) fn value<H: VcpuHardware>(self, hw: &H) -> u64 {
        match self {
            Operand::Register(register) => register.read(hw),
            Operand::Immediate(value) => value,
        }
    }
}

/// A general register, or part of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Register {
    /// In encoding order.
    pub(super) index: u8,
    /// 1, 2, 4 or 8.
    pub(super) bytes: u8,
    /// AH, CH, DH or BH.
    pub(super) high: bool,
}

impl Register {
    /// The low bytes of a register.
    pub(super) fn low(index: Gpr, bytes: u8) -> Self {
        Self {
            index: index as u8,
            bytes,
            high: false,
        }
    }

    pub(super) fn is_stack_pointer(self) -> bool {
        self.index == Gpr::Rsp as u8
    }

    pub(super) fn read<H: VcpuHardware>(self, hw: &H) -> u64 {
        let whole = whole(hw, self.index);
        (if self.high { whole >> 8 } else { whole }) & mask(self.bytes)
    }

    /// The whole register after the write: 32 bits clear the upper half, fewer leave the rest.
    pub(super) fn written<H: VcpuHardware>(self, hw: &H, value: u64) -> (u8, u64) {
        let old = whole(hw, self.index);
        let value = value & mask(self.bytes);
        let new = match (self.bytes, self.high) {
            (4 | 8, _) => value,
            (_, true) => old & !0xff00 | value << 8,
            (bytes, false) => old & !mask(bytes) | value,
        };
        (self.index, new)
    }
}

/// A whole register; RSP is not kept with the others.
pub(super) fn whole<H: VcpuHardware>(hw: &H, index: u8) -> u64 {
    if index == Gpr::Rsp as u8 {
        hw.rsp()
    } else {
        hw.gprs()[usize::from(index & 15)]
    }
}
