//! Shared by the tests: a vCPU in each mode, a memory of made-up contents, a generator of code.

extern crate std;

mod arithmetic;
mod oracle;
mod play;
mod reference;
mod segments;
mod strings;

use std::collections::BTreeMap;
use std::vec::Vec;

use godwit_records::Segment;

use super::{Access, Bus, Kind, Mode};
use crate::fake::FakeVcpu;
use crate::hardware::{Control, SegmentName, SwitchedMsr, VcpuHardware};

pub(super) const MODES: [Mode; 3] = [Mode::Code16, Mode::Code32, Mode::Code64];

const EFER_LONG: u64 = 1 << 8 | 1 << 10;

/// Deterministic noise (SplitMix64).
pub(super) struct Noise(pub(super) u64);

impl Noise {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(super) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// Numbers that are near edges more often than chance has it.
    pub(super) fn number(&mut self) -> u64 {
        match self.below(8) {
            0 => self.below(6),
            1..=3 => self.below(0x1_0000),
            4 => self.next() & 0xffff_ffff,
            5 => 0u64.wrapping_sub(self.below(0x1_0000)),
            6 => (1u64 << self.below(64)).wrapping_sub(self.below(3)),
            _ => self.next(),
        }
    }

    /// 15 bytes that often are an instruction of the list.
    pub(super) fn code(&mut self, mode: Mode) -> [u8; 15] {
        let mut code = [0u8; 15];
        for byte in &mut code {
            *byte = self.next() as u8;
        }
        if self.below(8) == 0 {
            return code;
        }
        let mut at = 0;
        let mut put = |code: &mut [u8; 15], byte| {
            code[at] = byte;
            at += 1;
        };
        for _ in 0..self.of(&[0, 0, 0, 0, 1, 1, 2, 3]) {
            let prefix = self.of(&[
                0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x66, 0x67, 0x67, 0xf0, 0xf2, 0xf3,
            ]);
            put(&mut code, prefix);
        }
        if mode == Mode::Code64 && self.below(2) == 0 {
            let rex = 0x40 | self.below(16) as u8;
            put(&mut code, rex);
        }
        if self.below(3) == 0 {
            put(&mut code, 0x0f);
            if self.below(12) == 0 {
                put(&mut code, 0x38);
                put(&mut code, 0xf0);
            } else {
                let opcode = self.of(&[
                    0x90, 0x90, 0xa3, 0xab, 0xb3, 0xbb, 0xba, 0xb0, 0xb1, 0xb6, 0xb7, 0xbe, 0xbf,
                    0xc0, 0xc1, 0xc3,
                ]);
                put(
                    &mut code,
                    opcode
                        | if opcode & 0xf0 == 0x90 {
                            self.below(16) as u8
                        } else {
                            0
                        },
                );
            }
        } else {
            let opcode = match self.below(4) {
                0 => self.below(0x40) as u8 & !4,
                1 => self.of(&[
                    0x63, 0x80, 0x81, 0x82, 0x83, 0xc6, 0xc7, 0xf6, 0xf7, 0xfe, 0xff,
                ]),
                2 => self.of(&[
                    0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8b, 0xa0, 0xa1, 0xa2, 0xa3,
                ]),
                _ => self.of(&[0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf]),
            };
            put(&mut code, opcode);
        }
        code
    }
}

/// A vCPU in `mode` with flat limits; every segment has a base of its own (in 64-bit code only FS
/// and GS count). Outside 64-bit code it is in real mode, which has no types of segments.
pub(super) fn vcpu(mode: Mode) -> FakeVcpu {
    let mut vcpu = FakeVcpu::new(false);
    let (attributes, efer) = match mode {
        Mode::Code16 => (0, 0),
        Mode::Code32 => (Segment::BIG, 0),
        Mode::Code64 => (Segment::LONG, EFER_LONG),
    };
    vcpu.set_msr(SwitchedMsr::Efer, efer);
    let cr0 = if mode == Mode::Code64 {
        0x8000_0011
    } else {
        0x10
    };
    vcpu.set_control(Control::Cr0, cr0);
    let present = Segment::PRESENT | Segment::CODE_OR_DATA;
    for name in SEGMENTS {
        let base = segment_base(name);
        let segment = Segment::new(8, base, 0xffff_ffff, present | Segment::BIG | 3);
        vcpu.set_segment(name, segment);
    }
    let code = Segment::new(
        8,
        segment_base(SegmentName::Cs),
        0xffff_ffff,
        present | attributes | 0xb,
    );
    vcpu.set_segment(SegmentName::Cs, code);
    assert_eq!(Mode::of(&vcpu), mode);
    vcpu
}

pub(super) const SEGMENTS: [SegmentName; 6] = [
    SegmentName::Es,
    SegmentName::Cs,
    SegmentName::Ss,
    SegmentName::Ds,
    SegmentName::Fs,
    SegmentName::Gs,
];

pub(super) fn segment_base(name: SegmentName) -> u64 {
    (0x1357_9000 * (name as u64 + 1)) & 0xffff_ffff
}

pub(super) fn set_gprs(vcpu: &mut FakeVcpu, gprs: [u64; 16]) {
    let not_rsp = vcpu.gprs()[4];
    *vcpu.gprs_mut() = gprs;
    vcpu.gprs_mut()[4] = not_rsp;
    vcpu.set_rsp(gprs[4]);
}

/// All general registers, with RSP.
pub(super) fn gprs(vcpu: &FakeVcpu) -> [u64; 16] {
    vcpu.save().gprs
}

/// Bytes at linear addresses, each something before it is written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Memory {
    pub(super) written: BTreeMap<u64, u8>,
}

impl Memory {
    pub(super) fn byte(&self, linear: u64) -> u8 {
        let noise = || (linear ^ linear >> 7).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        // Runs of equal bytes, so that comparisons are equal now and then.
        self.written
            .get(&linear)
            .copied()
            .unwrap_or_else(|| if linear & 0x40 == 0 { 0 } else { noise() as u8 })
    }
}

fn places(access: Access) -> Vec<u64> {
    let (first, count, second) = access.parts();
    let mut places: Vec<u64> = (0..count).map(|at| first + u64::from(at)).collect();
    if let Some((next, count)) = second {
        assert_eq!(next % 4096, 0);
        places.extend((0..count).map(|at| next + u64::from(at)));
    }
    assert_eq!(places.len(), usize::from(access.bytes));
    places
}

impl Bus for Memory {
    type Stop = core::convert::Infallible;

    fn read(&mut self, access: Access) -> Result<u64, Self::Stop> {
        assert_ne!(access.kind, Kind::Write);
        // Rubbish above the width: nobody may look at it.
        let rubbish = if access.bytes == 8 {
            0
        } else {
            u64::MAX << (8 * access.bytes)
        };
        let value = places(access)
            .into_iter()
            .enumerate()
            .fold(0, |value, (at, place)| {
                value | u64::from(self.byte(place)) << (8 * at)
            });
        Ok(value | rubbish)
    }

    fn write(&mut self, access: Access, value: u64) -> Result<(), Self::Stop> {
        assert_eq!(access.kind, Kind::Write);
        for (at, place) in places(access).into_iter().enumerate() {
            self.written.insert(place, (value >> (8 * at)) as u8);
        }
        Ok(())
    }
}
