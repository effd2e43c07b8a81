//! The length of an instruction that is to be stepped over, where the hardware does not say (SVM
//! without next-RIP saving): its prefixes, then the opcode the exit says it must be.

use core::num::NonZeroU8;

/// An x86 instruction is at most this long (SDM 2A, 2.3.11).
pub const INSTRUCTION_BYTES_MAX: usize = 15;

/// Instructions whose length is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opcode {
    /// `0F A2`.
    Cpuid,
    /// `0F 32`.
    Rdmsr,
    /// `0F 30`.
    Wrmsr,
    /// `F4`.
    Hlt,
    /// `0F 01 D9`.
    Vmmcall,
    /// `0F 01 D1`.
    Xsetbv,
    /// `0F 08`.
    Invd,
    /// `0F 09`.
    Wbinvd,
    /// `F3 90`; the F3 is eaten as a prefix.
    Pause,
}

impl Opcode {
    const fn bytes(self) -> &'static [u8] {
        match self {
            Opcode::Cpuid => &[0x0f, 0xa2],
            Opcode::Rdmsr => &[0x0f, 0x32],
            Opcode::Wrmsr => &[0x0f, 0x30],
            Opcode::Hlt => &[0xf4],
            Opcode::Vmmcall => &[0x0f, 0x01, 0xd9],
            Opcode::Xsetbv => &[0x0f, 0x01, 0xd1],
            Opcode::Invd => &[0x0f, 0x08],
            Opcode::Wbinvd => &[0x0f, 0x09],
            Opcode::Pause => &[0x90],
        }
    }
}

/// A MOV to a control register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MovToControl {
    /// Number of the control register.
    pub control: u8,
    /// Number of the general register.
    pub register: u8,
    /// Length of the instruction.
    pub length: NonZeroU8,
}

/// A MOV to a control register at the start of `code`: `0F 22 /r`, with CR8 spelt by REX.R or by LOCK
/// (for code that is not 64-bit; APM 3, MOV CRn).
pub fn mov_to_control(code: &[u8], long_mode: bool) -> Option<MovToControl> {
    let code = &code[..code.len().min(INSTRUCTION_BYTES_MAX)];
    let mut at = 0;
    let mut lock = false;
    while let Some(prefix @ (0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3)) =
        code.get(at)
    {
        lock |= *prefix == 0xf0;
        at += 1;
    }
    let rex = match code.get(at) {
        Some(byte @ 0x40..=0x4f) if long_mode => {
            at += 1;
            *byte
        }
        _ => 0,
    };
    let [0x0f, 0x22, modrm] = *code.get(at..at + 3)? else {
        return None;
    };
    let high = rex & 4 != 0 || lock;
    Some(MovToControl {
        control: modrm >> 3 & 7 | if high { 8 } else { 0 },
        register: modrm & 7 | (rex & 1) << 3,
        length: NonZeroU8::new(at as u8 + 3)?,
    })
}

/// The length of `opcode` at the start of `code`, prefixes included. `None`: something else is
/// there (the guest has changed its code since, or the bytes end).
pub fn length(code: &[u8], opcode: Opcode, long_mode: bool) -> Option<NonZeroU8> {
    let code = &code[..code.len().min(INSTRUCTION_BYTES_MAX)];
    let prefixes = code
        .iter()
        .take_while(|byte| {
            matches!(
                **byte,
                0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x66 | 0x67 | 0xf0 | 0xf2 | 0xf3
            ) || (long_mode && matches!(**byte, 0x40..=0x4f))
        })
        .count();
    let rest = &code[prefixes..];
    let bytes = opcode.bytes();
    if !rest.starts_with(bytes) {
        return None;
    }
    NonZeroU8::new((prefixes + bytes.len()) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_to_control_registers_in_all_spellings() {
        let of = |code: &[u8], long| {
            mov_to_control(code, long)
                .map(|found| (found.control, found.register, found.length.get()))
        };
        assert_eq!(of(&[0x44, 0x0f, 0x22, 0xc0], true), Some((8, 0, 4)));
        assert_eq!(of(&[0x45, 0x0f, 0x22, 0xc1], true), Some((8, 9, 4)));
        assert_eq!(of(&[0xf0, 0x0f, 0x22, 0xc3], false), Some((8, 3, 4)));
        assert_eq!(of(&[0x0f, 0x22, 0xe0], true), Some((4, 0, 3)));
        assert_eq!(of(&[0x41, 0x0f, 0x22, 0xe7], true), Some((4, 15, 4)));
        assert_eq!(of(&[0x0f, 0x20, 0xe0], true), None, "MOV from CR4");
        assert_eq!(of(&[0x44, 0x0f], true), None);
    }

    #[test]
    fn prefixes_count_and_other_code_is_not_guessed() {
        let of = |code: &[u8], opcode, long| length(code, opcode, long).map(NonZeroU8::get);
        assert_eq!(of(&[0x0f, 0xa2, 0x90], Opcode::Cpuid, true), Some(2));
        assert_eq!(of(&[0x66, 0x48, 0x0f, 0xa2], Opcode::Cpuid, true), Some(4));
        assert_eq!(of(&[0x48, 0x0f, 0xa2], Opcode::Cpuid, false), None);
        assert_eq!(of(&[0xf3, 0x90], Opcode::Pause, true), Some(2));
        assert_eq!(of(&[0x0f], Opcode::Cpuid, true), None);
        assert_eq!(of(&[0x66; 20], Opcode::Hlt, true), None);
        assert_eq!(of(&[0x0f, 0x01, 0xd9], Opcode::Vmmcall, true), Some(3));
    }
}
