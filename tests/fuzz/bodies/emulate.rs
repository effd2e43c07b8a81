//! An instruction on a device's memory: decoding and executing any bytes with any registers is
//! total, and keeps the laws that the run loop builds on.

use godwit_records::Segment;
use godwit_vmm::emulate::{Access, Bus, Kind, Mode, Undecodable, decode, run};
use godwit_vmm::fake::FakeVcpu;
use godwit_vmm::hardware::{Control, SegmentName, SwitchedMsr, VcpuHardware};

const ELEMENTS_MAX: u32 = 8;
/// Accesses of one element at most: MOVS and CMPS have two.
const ACCESSES_MAX: usize = 2;

/// A bus that answers from the input and counts.
struct Noise<'a> {
    input: &'a [u8],
    accesses: usize,
}

impl Noise<'_> {
    fn check(&mut self, access: Access) -> Result<u64, ()> {
        self.accesses += 1;
        assert!(matches!(access.bytes, 1 | 2 | 4 | 8));
        let (first, count, second) = access.parts();
        assert_eq!(first, access.linear);
        assert_eq!(count + second.map_or(0, |(_, rest)| rest), access.bytes);
        assert!(access.wide || first >> 32 == 0);
        let value = word(self.input, self.accesses);
        if value.is_multiple_of(61) {
            Err(())
        } else {
            Ok(value)
        }
    }
}

impl Bus for Noise<'_> {
    type Stop = ();

    fn read(&mut self, access: Access) -> Result<u64, ()> {
        assert_ne!(access.kind, Kind::Write);
        self.check(access)
    }

    fn write(&mut self, access: Access, _value: u64) -> Result<(), ()> {
        assert_eq!(access.kind, Kind::Write);
        self.check(access).map(drop)
    }
}

/// Eight bytes from somewhere in the input.
fn word(input: &[u8], at: usize) -> u64 {
    (0..8).fold(0, |value, index| {
        value << 8 | u64::from(input[(at * 5 + index) % input.len()])
    })
}

fn vcpu(input: &[u8], mode: Mode) -> FakeVcpu {
    let mut vcpu = FakeVcpu::new(false);
    let (attributes, efer) = match mode {
        Mode::Code16 => (0, 0),
        Mode::Code32 => (Segment::BIG, 0),
        Mode::Code64 => (Segment::LONG, 1 << 8 | 1 << 10),
    };
    vcpu.set_msr(SwitchedMsr::Efer, efer);
    vcpu.set_control(Control::Cr0, word(input, 30) & 1);
    let names = [
        SegmentName::Es,
        SegmentName::Ss,
        SegmentName::Ds,
        SegmentName::Fs,
        SegmentName::Gs,
    ];
    for (index, name) in names.into_iter().enumerate() {
        let word = word(input, 20 + index);
        let segment = Segment::new(
            8,
            word >> 16 & 0xffff_ffff,
            (word >> 8) as u32,
            word as u16 & 0xf0ff,
        );
        vcpu.set_segment(name, segment);
    }
    let code = Segment::PRESENT | Segment::CODE_OR_DATA | attributes | 11;
    vcpu.set_segment(SegmentName::Cs, Segment::new(8, 0, 0xffff_ffff, code));
    for index in 0..16 {
        vcpu.gprs_mut()[index] = word(input, index);
    }
    vcpu.set_rsp(word(input, 16));
    vcpu.set_rip(word(input, 17));
    vcpu.set_rflags(word(input, 18) & 0x2_0dd5 | 2);
    vcpu
}

/// One input: the mode, then code, which is where all else is taken from too. Returns whether it
/// was decoded.
pub(crate) fn judge(input: &[u8]) -> bool {
    let Some((mode, code)) = input.split_first() else {
        return false;
    };
    let mode = [Mode::Code16, Mode::Code32, Mode::Code64][usize::from(mode % 3)];
    let instruction = match decode(code, mode) {
        Ok(instruction) => instruction,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!(error != Undecodable::Truncated || code.len() < 15);
            return false;
        }
    };
    let length = usize::from(instruction.length());
    assert!((1..=15).contains(&length) && length <= code.len());
    assert_eq!(decode(&code[..length], mode), Ok(instruction));
    assert_eq!(
        decode(&code[..length - 1], mode),
        Err(Undecodable::Truncated)
    );
    let mut vcpu = vcpu(input, mode);
    let (rip, rsp) = (vcpu.rip(), vcpu.rsp());
    let mut bus = Noise { input, accesses: 0 };
    run(&instruction, &mut vcpu, &mut bus, ELEMENTS_MAX);
    let elements = if instruction.repeats() {
        ELEMENTS_MAX as usize
    } else {
        1
    };
    assert!(bus.accesses <= elements * ACCESSES_MAX);
    assert_eq!((vcpu.rip(), vcpu.rsp()), (rip, rsp));
    true
}
