//! A segment register with its hidden part, in the architecture's form and no vendor's.
//!
//! Attributes are the upper word of a descriptor, bits 23:8, with the limit's bits left out (SDM 3A
//! 3.4.5): the access byte in bits 7:0, bits 11:8 zero, AVL, L, D/B and G in bits 15:12. A VMCS
//! keeps them in the same places; a VMCB moves bits 15:12 to 11:8. A segment is unusable when it
//! is not present.

use crate::structure;

structure! {
    /// A segment register, LDTR or TR.
    pub struct Segment {
        /// The visible part.
        selector: u16,
        /// Linear address of byte 0.
        base: u64,
        /// The last byte's offset, in bytes whatever G says (a 4 GiB segment has `0xffff_ffff`).
        limit: u32,
        /// Access byte in bits 7:0; AVL, L, D/B, G in bits 15:12; bits 11:8 are zero.
        attributes: u16,
    }
}

impl Segment {
    /// Mask of the descriptor type in the attributes.
    pub const TYPE: u16 = 0xf;
    /// S: a code or data segment, not a system one.
    pub const CODE_OR_DATA: u16 = 1 << 4;
    /// P: present. Clear is unusable.
    pub const PRESENT: u16 = 1 << 7;
    /// Bits 11:8, always zero.
    pub const RESERVED: u16 = 0xf00;
    /// AVL: for software.
    pub const AVAILABLE: u16 = 1 << 12;
    /// L: 64-bit code.
    pub const LONG: u16 = 1 << 13;
    /// D/B: 32-bit default operand size, or 32-bit stack.
    pub const BIG: u16 = 1 << 14;
    /// G: the descriptor counts its limit in 4 KiB units.
    pub const GRANULARITY: u16 = 1 << 15;

    /// From its parts.
    pub const fn new(selector: u16, base: u64, limit: u32, attributes: u16) -> Self {
        Self {
            selector,
            base,
            limit,
            attributes,
        }
    }

    /// The descriptor type, attributes bits 3:0 (SDM 3A tables 3-1 and 3-2).
    pub const fn kind(self) -> u16 {
        self.attributes & Self::TYPE
    }

    /// The descriptor privilege level. That of SS is the CPL, even when SS is unusable.
    pub const fn dpl(self) -> u8 {
        (self.attributes >> 5) as u8 & 3
    }

    /// Whether the segment can be used: P is set.
    pub const fn usable(self) -> bool {
        self.attributes & Self::PRESENT != 0
    }

    /// The same segment with G as the limit needs it. CPUs that do not keep G (AMD) leave it to
    /// whoever saves the state; software cannot see the difference.
    pub const fn with_derived_granularity(mut self) -> Self {
        if self.limit > 0xf_ffff {
            self.attributes |= Self::GRANULARITY;
        } else {
            self.attributes &= !Self::GRANULARITY;
        }
        self
    }
}
