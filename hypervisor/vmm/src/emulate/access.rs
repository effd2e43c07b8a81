//! Which accesses an instruction makes, at which linear addresses, after the checks of
//! segmentation and of canonical addresses (SDM 3A, 5.3, 5.5 and 1, 3.3.7.1).
//!
//! Paging is the caller's, and so is alignment checking (#AC), which is not done.

use godwit_records::Segment;

use super::flags::{mask, sign_extend};
use super::instruction::{Instruction, Operand, Operation, Register, StringKind};
use super::mode::Mode;
use crate::hardware::{Control, Event, Gpr, SegmentName, VcpuHardware, vector};

const CR0_PE: u64 = 1;
const CR4_LA57: u64 = 1 << 12;
const RFLAGS_VM: u64 = 1 << 17;
const STACK_FAULT: u8 = 12;
const PAGE_BYTES: u64 = 4096;
const TYPE_CODE: u16 = 1 << 3;
/// Of a data segment: its limit is its lower end.
const TYPE_EXPAND_DOWN: u16 = 1 << 2;
/// Of a data segment: writable. Of a code segment: readable.
const TYPE_PERMITS: u16 = 1 << 1;

/// What an access does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A read.
    Read,
    /// A read whose value, changed, is written back: it faults where a write would.
    ReadForWrite,
    /// A write.
    Write,
}

/// One access to memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Linear address of the first byte.
    pub linear: u64,
    /// 1, 2, 4 or 8. It may cross a page: see [`Access::parts`].
    pub bytes: u8,
    /// What it does.
    pub kind: Kind,
    /// Linear addresses are 64 bits wide, not 32.
    pub wide: bool,
}

impl Access {
    /// The linear address and number of bytes in its first page, and in its second if it has one.
    pub fn parts(&self) -> (u64, u8, Option<(u64, u8)>) {
        let in_first = (PAGE_BYTES - self.linear % PAGE_BYTES).min(self.bytes.into()) as u8;
        let next =
            self.linear.wrapping_add(in_first.into()) & if self.wide { u64::MAX } else { mask(4) };
        let rest = self.bytes - in_first;
        (self.linear, in_first, (rest > 0).then_some((next, rest)))
    }
}

/// The accesses of an instruction, or of one element of a repeated one: reads in their order, then
/// the write. None at all: a repeated instruction with a count of 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryOperation {
    /// The second is CMPS's.
    pub reads: [Option<Access>; 2],
    /// To the address of the read, except for MOVS.
    pub write: Option<Access>,
}

impl MemoryOperation {
    /// All of them, in their order.
    pub fn accesses(&self) -> impl Iterator<Item = Access> {
        let all = [self.reads[0], self.reads[1], self.write];
        all.into_iter().flatten()
    }

    /// Whether they lie in more than one page.
    pub fn touches_several_pages(&self) -> bool {
        let mut pages = self.accesses().flat_map(|access| {
            let (first, _, rest) = access.parts();
            [first, rest.map_or(first, |(second, _)| second)].map(|linear| linear / PAGE_BYTES)
        });
        let first = pages.next();
        pages.any(|page| Some(page) != first)
    }
}

/// An access that the guest's segments or canonical form forbid; nothing has been done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// #GP(0).
    GeneralProtection,
    /// #SS(0).
    Stack,
}

impl Fault {
    /// To inject.
    pub fn event(self) -> Event {
        match self {
            Fault::GeneralProtection => Event::Exception(vector::GENERAL_PROTECTION, Some(0)),
            Fault::Stack => Event::Exception(STACK_FAULT, Some(0)),
        }
    }
}

impl Instruction {
    /// What it accesses, with the registers as they are. For a repeated instruction: the next element.
    pub fn plan<H: VcpuHardware>(&self, hw: &H) -> Result<MemoryOperation, Fault> {
        if let Operation::String(kind, repeat) = self.operation {
            if repeat.is_some() && self.pointer(Gpr::Rcx).read(hw) == 0 {
                return Ok(MemoryOperation {
                    reads: [None; 2],
                    write: None,
                });
            }
            return self.plan_string(hw, kind);
        }
        let offset = self.address.offset(hw, self.length, self.beyond(hw));
        let at = |kind| {
            self.access(hw, self.address.segment, offset, kind)
                .map(Some)
        };
        Ok(match self.operation.directions() {
            (true, true) => MemoryOperation {
                reads: [at(Kind::ReadForWrite)?, None],
                write: at(Kind::Write)?,
            },
            (true, false) => MemoryOperation {
                reads: [at(Kind::Read)?, None],
                write: None,
            },
            (false, _) => MemoryOperation {
                reads: [None; 2],
                write: at(Kind::Write)?,
            },
        })
    }

    fn plan_string<H: VcpuHardware>(
        &self,
        hw: &H,
        kind: StringKind,
    ) -> Result<MemoryOperation, Fault> {
        let source = || {
            let offset = self.pointer(Gpr::Rsi).read(hw);
            self.access(hw, self.address.segment, offset, Kind::Read)
                .map(Some)
        };
        let destination = |kind| {
            let offset = self.pointer(Gpr::Rdi).read(hw);
            self.access(hw, SegmentName::Es, offset, kind).map(Some)
        };
        let (reads, write) = match kind {
            StringKind::Move => ([source()?, None], destination(Kind::Write)?),
            StringKind::Store => ([None; 2], destination(Kind::Write)?),
            StringKind::Load => ([source()?, None], None),
            StringKind::Scan => ([destination(Kind::Read)?, None], None),
            StringKind::Compare => ([source()?, destination(Kind::Read)?], None),
        };
        Ok(MemoryOperation { reads, write })
    }

    /// RSI, RDI or RCX as wide as addresses are.
    pub(super) fn pointer(&self, register: Gpr) -> Register {
        Register::low(register, self.address.bytes)
    }

    /// How many bytes a bit number in a register leads away from the operand (SDM 2A, 3.1.1.9).
    fn beyond<H: VcpuHardware>(&self, hw: &H) -> u64 {
        match self.operation {
            Operation::BitTest {
                by: by @ Operand::Register(_),
                ..
            } => {
                let bit = sign_extend(self.bytes, by.value(hw)) as i64;
                let operands = bit >> (3 + self.bytes.trailing_zeros());
                (operands as u64).wrapping_mul(self.bytes.into())
            }
            Operation::BitTest {
                by: Operand::Immediate(_),
                ..
            }
            | Operation::Load { .. }
            | Operation::Store { .. }
            | Operation::ToMemory(..)
            | Operation::ToRegister(..)
            | Operation::Unary(_)
            | Operation::Exchange(_)
            | Operation::ExchangeAdd(_)
            | Operation::CompareExchange(_)
            | Operation::SetCondition(_)
            | Operation::String(..) => 0,
        }
    }

    fn access<H: VcpuHardware>(
        &self,
        hw: &H,
        name: SegmentName,
        offset: u64,
        kind: Kind,
    ) -> Result<Access, Fault> {
        let fault = if name == SegmentName::Ss {
            Fault::Stack
        } else {
            Fault::GeneralProtection
        };
        let segment = hw.segment(name);
        let wide = self.mode == Mode::Code64;
        let linear = if wide {
            let based = matches!(name, SegmentName::Fs | SegmentName::Gs);
            let linear = offset.wrapping_add(if based { segment.base } else { 0 });
            let last = linear.wrapping_add(u64::from(self.bytes) - 1);
            let five_levels = hw.control(Control::Cr4) & CR4_LA57 != 0;
            if !is_canonical(linear, five_levels) || !is_canonical(last, five_levels) {
                return Err(fault);
            }
            linear
        } else {
            let protected = hw.control(Control::Cr0) & CR0_PE != 0 && hw.rflags() & RFLAGS_VM == 0;
            if protected && !permits(&segment, kind) || !reaches(&segment, offset, self.bytes) {
                return Err(fault);
            }
            segment.base.wrapping_add(offset) & mask(4)
        };
        Ok(Access {
            linear,
            bytes: self.bytes,
            kind,
            wide,
        })
    }
}

fn is_canonical(address: u64, five_levels: bool) -> bool {
    let unused = if five_levels { 7 } else { 16 };
    (address as i64) << unused >> unused == address as i64
}

/// Whether a segment is there and its type allows the access.
fn permits(segment: &Segment, kind: Kind) -> bool {
    let code = segment.attributes & TYPE_CODE != 0;
    let permitted = segment.attributes & TYPE_PERMITS != 0;
    segment.attributes & Segment::PRESENT != 0
        && match kind {
            Kind::Read => !code || permitted,
            Kind::ReadForWrite | Kind::Write => !code && permitted,
        }
}

/// Whether all bytes are within the limit.
fn reaches(segment: &Segment, offset: u64, bytes: u8) -> bool {
    let last = offset + u64::from(bytes) - 1;
    let limit = u64::from(segment.limit);
    if segment.attributes & (TYPE_CODE | TYPE_EXPAND_DOWN) == TYPE_EXPAND_DOWN {
        let top = if segment.attributes & Segment::BIG != 0 {
            mask(4)
        } else {
            mask(2)
        };
        offset > limit && last <= top
    } else {
        last <= limit
    }
}
