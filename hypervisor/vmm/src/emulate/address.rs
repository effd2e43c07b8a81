//! The memory operand: ModRM, SIB and displacement (SDM 2A, 2.1.3 to 2.1.5), and the offset they
//! make of the registers.

use super::Undecodable;
use super::flags::mask;
use super::instruction::{Register, whole};
use super::mode::Mode;
use super::prefixes::{Cursor, Prefixes};
use crate::hardware::{Gpr, SegmentName, VcpuHardware};

/// What an offset starts from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Base {
    /// The displacement is the address.
    None,
    /// A general register, in encoding order.
    Register(u8),
    /// The next instruction.
    NextRip,
}

/// An effective address, before the registers are known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Address {
    /// The segment: an override, or what the base implies.
    pub(super) segment: SegmentName,
    pub(super) base: Base,
    /// A register and the power of two it is multiplied by.
    pub(super) index: Option<(u8, u8)>,
    /// Sign-extended.
    pub(super) displacement: u64,
    /// Address size in bytes: 2, 4 or 8.
    pub(super) bytes: u8,
}

impl Address {
    /// One without registers.
    pub(super) fn absolute(prefixes: &Prefixes, displacement: u64, bytes: u8) -> Self {
        Self {
            segment: prefixes.segment.unwrap_or(SegmentName::Ds),
            base: Base::None,
            index: None,
            displacement,
            bytes,
        }
    }

    /// The offset in its segment, for an instruction of `length` bytes at RIP, moved by `extra`.
    pub(super) fn offset<H: VcpuHardware>(&self, hw: &H, length: u8, extra: u64) -> u64 {
        let base = match self.base {
            Base::None => 0,
            Base::Register(register) => whole(hw, register),
            Base::NextRip => hw.rip().wrapping_add(length.into()),
        };
        let index = self
            .index
            .map_or(0, |(register, scale)| whole(hw, register) << scale);
        base.wrapping_add(index)
            .wrapping_add(self.displacement)
            .wrapping_add(extra)
            & mask(self.bytes)
    }
}

/// A ModRM byte with all that belongs to it.
pub(super) struct ModRm {
    /// Bits 5:3, without REX.R: an opcode extension.
    pub(super) number: u8,
    register: u8,
    any_rex: bool,
    memory: Option<Address>,
}

impl ModRm {
    pub(super) fn read(
        cursor: &mut Cursor<'_>,
        prefixes: &Prefixes,
        mode: Mode,
    ) -> Result<Self, Undecodable> {
        let byte = cursor.byte()?;
        let bytes = mode.address_bytes(prefixes.address_size);
        let memory = match (byte >> 6, bytes) {
            (3, _) => None,
            (form, 2) => Some(short(cursor, prefixes, form, byte & 7)?),
            (form, _) => Some(long(cursor, prefixes, mode, form, byte & 7, bytes)?),
        };
        let number = byte >> 3 & 7;
        Ok(Self {
            number,
            register: number | u8::from(prefixes.rex_bit(4)) << 3,
            any_rex: prefixes.rex.is_some(),
            memory,
        })
    }

    /// The register of bits 5:3. Without a REX prefix, byte registers 4 to 7 are AH to BH.
    pub(super) fn register(&self, bytes: u8) -> Register {
        let high = bytes == 1 && !self.any_rex && self.register >= 4;
        Register {
            index: if high {
                self.register - 4
            } else {
                self.register
            },
            bytes,
            high,
        }
    }

    /// The memory operand.
    pub(super) fn memory(&self) -> Result<Address, Undecodable> {
        self.memory.ok_or(Undecodable::NoMemory)
    }
}

/// 16-bit addressing (SDM 2A, table 2-1).
fn short(
    cursor: &mut Cursor<'_>,
    prefixes: &Prefixes,
    form: u8,
    rm: u8,
) -> Result<Address, Undecodable> {
    use Gpr::{Rbp, Rbx, Rdi, Rsi};
    let (base, index) = match rm {
        0 => (Rbx, Some(Rsi)),
        1 => (Rbx, Some(Rdi)),
        2 => (Rbp, Some(Rsi)),
        3 => (Rbp, Some(Rdi)),
        4 => (Rsi, None),
        5 => (Rdi, None),
        6 => (Rbp, None),
        _ => (Rbx, None),
    };
    if form == 0 && rm == 6 {
        return Ok(Address::absolute(prefixes, cursor.signed(2)?, 2));
    }
    let implied = if base == Rbp {
        SegmentName::Ss
    } else {
        SegmentName::Ds
    };
    Ok(Address {
        segment: prefixes.segment.unwrap_or(implied),
        base: Base::Register(base as u8),
        index: index.map(|index| (index as u8, 0)),
        displacement: match form {
            0 => 0,
            bytes => cursor.signed(bytes)?,
        },
        bytes: 2,
    })
}

/// 32-bit and 64-bit addressing (SDM 2A, tables 2-2 and 2-3, 2.2.1.6 for RIP).
fn long(
    cursor: &mut Cursor<'_>,
    prefixes: &Prefixes,
    mode: Mode,
    form: u8,
    rm: u8,
    bytes: u8,
) -> Result<Address, Undecodable> {
    let high = |bit| u8::from(prefixes.rex_bit(bit)) << 3;
    let (mut base, mut index) = (Base::Register(rm | high(1)), None);
    let mut low_base = rm;
    if rm == 4 {
        let sib = cursor.byte()?;
        let register = sib >> 3 & 7 | high(2);
        index = (register != Gpr::Rsp as u8).then_some((register, sib >> 6));
        low_base = sib & 7;
        base = Base::Register(low_base | high(1));
    }
    let displacement = match form {
        // No base: RIP in 64-bit code, unless a SIB byte says there is none.
        0 if low_base == 5 => {
            base = if mode == Mode::Code64 && rm == 5 {
                Base::NextRip
            } else {
                Base::None
            };
            cursor.signed(4)?
        }
        0 => 0,
        1 => cursor.signed(1)?,
        _ => cursor.signed(4)?,
    };
    let on_stack = base == Base::Register(Gpr::Rsp as u8) || base == Base::Register(Gpr::Rbp as u8);
    Ok(Address {
        segment: prefixes.segment.unwrap_or(if on_stack {
            SegmentName::Ss
        } else {
            SegmentName::Ds
        }),
        base,
        index,
        displacement,
        bytes,
    })
}
