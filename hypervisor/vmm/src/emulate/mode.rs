//! The kind of code the bytes are: what sizes operands and addresses have without a prefix.

use godwit_records::Segment;

use crate::hardware::{SegmentName, SwitchedMsr, VcpuHardware};

const EFER_LMA: u64 = 1 << 10;

/// The default sizes of code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// 16-bit operands and addresses: real mode, virtual-8086 mode, segments with D clear.
    Code16,
    /// 32-bit operands and addresses.
    Code32,
    /// 32-bit operands, 64-bit addresses, REX prefixes.
    Code64,
}

impl Mode {
    /// Of the code at CS:RIP.
    pub fn of<H: VcpuHardware>(hw: &H) -> Self {
        let attributes = hw.segment(SegmentName::Cs).attributes;
        if hw.msr(SwitchedMsr::Efer) & EFER_LMA != 0 && attributes & Segment::LONG != 0 {
            Mode::Code64
        } else if attributes & Segment::BIG != 0 {
            Mode::Code32
        } else {
            Mode::Code16
        }
    }

    /// Bytes of an address. `prefix`: a 67 is there.
    pub(super) fn address_bytes(self, prefix: bool) -> u8 {
        match (self, prefix) {
            (Mode::Code64, false) => 8,
            (Mode::Code64, true) | (Mode::Code32, false) | (Mode::Code16, true) => 4,
            (Mode::Code32, true) | (Mode::Code16, false) => 2,
        }
    }

    /// Bytes of an operand. `prefix`: a 66 is there; `wide`: REX.W, which beats it.
    pub(super) fn operand_bytes(self, prefix: bool, wide: bool) -> u8 {
        match (self, prefix) {
            (Mode::Code64, _) if wide => 8,
            (Mode::Code16, true) | (Mode::Code32 | Mode::Code64, false) => 4,
            (Mode::Code16, false) | (Mode::Code32 | Mode::Code64, true) => 2,
        }
    }
}
