//! The bytes of an instruction one by one, and the prefixes at its start (SDM 2A, 2.1.1 and 2.2.1).

use super::Undecodable;
use super::instruction::Repeat;
use super::mode::Mode;
use crate::code::INSTRUCTION_BYTES_MAX;
use crate::hardware::SegmentName;

/// A place in an instruction's bytes.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes: &bytes[..bytes.len().min(INSTRUCTION_BYTES_MAX)],
            at: 0,
        }
    }

    /// Bytes taken, at most 15.
    pub(super) fn length(&self) -> u8 {
        self.at as u8
    }

    /// The next byte.
    pub(super) fn byte(&mut self) -> Result<u8, Undecodable> {
        match self.bytes.get(self.at) {
            Some(byte) => {
                self.at += 1;
                Ok(*byte)
            }
            None if self.at >= INSTRUCTION_BYTES_MAX => Err(Undecodable::TooLong),
            None => Err(Undecodable::Truncated),
        }
    }

    /// The next `bytes` bytes, sign-extended.
    pub(super) fn signed(&mut self, bytes: u8) -> Result<u64, Undecodable> {
        let mut value = 0;
        for index in 0..bytes {
            value |= u64::from(self.byte()?) << (8 * index);
        }
        Ok(super::flags::sign_extend(bytes, value))
    }
}

/// What stands before the opcode.
#[derive(Clone, Copy, Default)]
pub(super) struct Prefixes {
    /// An override that counts: in 64-bit code only FS and GS do.
    pub(super) segment: Option<SegmentName>,
    /// 66.
    pub(super) operand_size: bool,
    /// 67.
    pub(super) address_size: bool,
    /// F0.
    pub(super) lock: bool,
    /// The last of F2 and F3.
    pub(super) repeat: Option<Repeat>,
    /// The REX byte, if it stands immediately before the opcode.
    pub(super) rex: Option<u8>,
}

impl Prefixes {
    /// Takes them, and the first opcode byte.
    pub(super) fn read(cursor: &mut Cursor<'_>, mode: Mode) -> Result<(Self, u8), Undecodable> {
        let mut prefixes = Self::default();
        loop {
            let byte = cursor.byte()?;
            let rex = mode == Mode::Code64 && byte & 0xf0 == 0x40;
            if !rex && !prefixes.take(byte, mode) {
                return Ok((prefixes, byte));
            }
            // A legacy prefix after a REX cancels it.
            prefixes.rex = rex.then_some(byte);
        }
    }

    fn take(&mut self, byte: u8, mode: Mode) -> bool {
        let flat = |name| {
            if mode == Mode::Code64 {
                None
            } else {
                Some(name)
            }
        };
        match byte {
            0x26 => self.segment = flat(SegmentName::Es).or(self.segment),
            0x2e => self.segment = flat(SegmentName::Cs).or(self.segment),
            0x36 => self.segment = flat(SegmentName::Ss).or(self.segment),
            0x3e => self.segment = flat(SegmentName::Ds).or(self.segment),
            0x64 => self.segment = Some(SegmentName::Fs),
            0x65 => self.segment = Some(SegmentName::Gs),
            0x66 => self.operand_size = true,
            0x67 => self.address_size = true,
            0xf0 => self.lock = true,
            0xf2 => self.repeat = Some(Repeat::WhileNotEqual),
            0xf3 => self.repeat = Some(Repeat::WhileEqual),
            _ => return false,
        }
        true
    }

    /// REX.W, R, X and B by their bit: 8, 4, 2, 1.
    pub(super) fn rex_bit(&self, bit: u8) -> bool {
        self.rex.unwrap_or(0) & bit != 0
    }

    /// Whether a prefix stands there that selects among the opcodes of a table (66, F2, F3).
    pub(super) fn selects(&self) -> bool {
        self.operand_size || self.repeat.is_some()
    }
}
