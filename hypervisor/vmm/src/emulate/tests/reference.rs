//! Execution against a second implementation that knows only what iced-x86 says of an
//! instruction, and computes in wide integers.

extern crate std;

use std::vec::Vec;

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

use super::arithmetic::by_definition;
use super::{MODES, Memory, Noise, gprs, segment_base, set_gprs, vcpu};
use crate::emulate::flags::Arithmetic;
use crate::emulate::{Ended, Fault, Mode, Undecodable, decode, run};
use crate::hardware::{SegmentName, VcpuHardware};

/// Elements executed at most.
pub(super) const BUDGET: u32 = 5;

pub(super) fn iced(code: &[u8], mode: Mode, rip: u64) -> Instruction {
    let bits = match mode {
        Mode::Code16 => 16,
        Mode::Code32 => 32,
        Mode::Code64 => 64,
    };
    Decoder::with_ip(bits, code, rip, DecoderOptions::NONE).decode()
}

pub(super) fn base_in(mode: Mode, segment: Register) -> u64 {
    let name = match segment {
        Register::ES => SegmentName::Es,
        Register::CS => SegmentName::Cs,
        Register::SS => SegmentName::Ss,
        Register::DS => SegmentName::Ds,
        Register::FS => SegmentName::Fs,
        Register::GS => SegmentName::Gs,
        other => panic!("{other:?} is no segment"),
    };
    let flat = mode == Mode::Code64 && !matches!(name, SegmentName::Fs | SegmentName::Gs);
    if flat { 0 } else { segment_base(name) }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Guest {
    pub(super) mode: Mode,
    pub(super) gprs: [u64; 16],
    pub(super) rflags: u64,
    pub(super) memory: Memory,
}

fn low(bytes: usize) -> u64 {
    (0..bytes).fold(0, |bits, _| bits << 8 | 0xff)
}

impl Guest {
    pub(super) fn register(&self, register: Register) -> u64 {
        let whole = self.gprs[register.full_register().number()];
        let high = matches!(
            register,
            Register::AH | Register::CH | Register::DH | Register::BH
        );
        (if high {
            self.gprs[register.number() - 4] >> 8
        } else {
            whole
        }) & low(register.size())
    }

    pub(super) fn set_register(&mut self, register: Register, value: u64) {
        let high = matches!(
            register,
            Register::AH | Register::CH | Register::DH | Register::BH
        );
        let number = if high {
            register.number() - 4
        } else {
            register.full_register().number()
        };
        let slot = &mut self.gprs[number];
        let value = value & low(register.size());
        *slot = match register.size() {
            1 if high => *slot & !0xff00 | value << 8,
            1 => *slot & !0xff | value,
            2 => *slot & !0xffff | value,
            _ => value,
        };
    }

    /// The linear addresses of a memory operand's bytes, moved by `extra` within the address size.
    pub(super) fn place(
        &self,
        instruction: &Instruction,
        operand: u32,
        extra: i128,
    ) -> Result<Vec<u64>, Fault> {
        let destination = matches!(
            instruction.op_kind(operand),
            OpKind::MemoryESDI | OpKind::MemoryESEDI | OpKind::MemoryESRDI
        );
        let segment = if destination {
            Register::ES
        } else {
            instruction.memory_segment()
        };
        let base = base_in(self.mode, segment);
        let linear = instruction
            .virtual_address(operand, 0, |register, _, _| {
                Some(if register.is_segment_register() {
                    base
                } else {
                    self.register(register)
                })
            })
            .expect("an address");
        let size = match instruction.op_kind(operand) {
            OpKind::MemoryESDI | OpKind::MemorySegSI => 2,
            OpKind::MemoryESEDI | OpKind::MemorySegESI => 4,
            OpKind::MemoryESRDI | OpKind::MemorySegRSI => 8,
            _ => match (instruction.memory_base(), instruction.memory_index()) {
                (Register::None, Register::None) => instruction.memory_displ_size() as usize,
                (Register::None, index) => index.size(),
                (base, _) => base.size(),
            },
        };
        let offset =
            (i128::from(linear.wrapping_sub(base)) + extra).rem_euclid(1 << (8 * size)) as u64;
        let stack = match (self.mode, segment, instruction.op_kind(operand)) {
            // Overrides other than FS and GS are as if not there, which is not what iced says.
            (Mode::Code64, Register::FS | Register::GS, _) => false,
            (Mode::Code64, _, kind) => {
                let base = instruction.memory_base().full_register();
                kind == OpKind::Memory && matches!(base, Register::RSP | Register::RBP)
            }
            (_, segment, _) => segment == Register::SS,
        };
        let fault = if stack {
            Fault::Stack
        } else {
            Fault::GeneralProtection
        };
        let bytes = instruction.memory_size().size() as u64;
        let linear = base.wrapping_add(offset);
        let (allowed, top) = match self.mode {
            Mode::Code64 => {
                let ends = [linear, linear.wrapping_add(bytes - 1)];
                (
                    ends.iter().all(|at| matches!(at >> 47, 0 | 0x1_ffff)),
                    u64::MAX,
                )
            }
            Mode::Code16 | Mode::Code32 => (offset + bytes - 1 <= 0xffff_ffff, 0xffff_ffff),
        };
        if !allowed {
            return Err(fault);
        }
        Ok((0..bytes).map(|at| linear.wrapping_add(at) & top).collect())
    }

    pub(super) fn read(&self, places: &[u64]) -> u64 {
        places.iter().rev().fold(0, |value, place| {
            value << 8 | u64::from(self.memory.byte(*place))
        })
    }

    pub(super) fn write(&mut self, places: &[u64], value: u64) {
        for (place, byte) in places.iter().zip(value.to_le_bytes()) {
            self.memory.written.insert(*place, byte);
        }
    }

    pub(super) fn flags(&mut self, which: u64, value: u64) {
        self.rflags = self.rflags & !which | value & which;
    }

    /// One instruction that is no string instruction.
    fn step(&mut self, instruction: &Instruction) -> Result<(), Fault> {
        use Mnemonic::*;
        let bytes = instruction.memory_size().size();
        let width = low(bytes);
        let memory = (0..instruction.op_count())
            .find(|operand| is_memory(instruction.op_kind(*operand)))
            .expect("memory");
        let other = (0..instruction.op_count()).find(|operand| *operand != memory);
        let register = other.filter(|other| instruction.op_kind(*other) == OpKind::Register);
        let register = register.map(|other| instruction.op_register(other));
        let value = match (other, register) {
            (_, Some(register)) => self.register(register),
            (Some(other), None) => instruction.immediate(other),
            (None, None) => 0,
        };
        let bit_size = 8 * bytes as i128;
        let mut extra = 0;
        if matches!(instruction.mnemonic(), Bt | Bts | Btr | Btc) && register.is_some() {
            let bit = i128::from(value)
                - if value >> (bit_size - 1) != 0 {
                    1 << bit_size
                } else {
                    0
                };
            extra = bit.div_euclid(bit_size) * bytes as i128;
        }
        let places = self.place(instruction, memory, extra)?;
        let old = self.read(&places);
        let first = memory == 0;
        let (a, b) = if first {
            (old, value & width)
        } else {
            (value, old)
        };
        let arithmetic = match instruction.mnemonic() {
            Add => Some(Arithmetic::Add),
            Adc => Some(Arithmetic::Adc),
            Sub => Some(Arithmetic::Sub),
            Sbb => Some(Arithmetic::Sbb),
            And => Some(Arithmetic::And),
            Or => Some(Arithmetic::Or),
            Mnemonic::Xor => Some(Arithmetic::Xor),
            Cmp => Some(Arithmetic::Cmp),
            Test => Some(Arithmetic::Test),
            _ => None,
        };
        if let Some(arithmetic) = arithmetic {
            let (result, flags) = by_definition(arithmetic, bytes as u8, a, b, self.rflags);
            self.flags(0x8d5, flags);
            if !matches!(instruction.mnemonic(), Cmp | Test) {
                match first {
                    true => self.write(&places, result),
                    false => self.set_register(register.expect("a register"), result),
                }
            }
            return Ok(());
        }
        self.finish(instruction, &places, old, value, register);
        Ok(())
    }

    /// What is no arithmetic. `old` is what memory holds, `value` the other operand.
    fn finish(
        &mut self,
        instruction: &Instruction,
        places: &[u64],
        old: u64,
        value: u64,
        register: Option<Register>,
    ) {
        use Mnemonic::*;
        let bytes = places.len();
        let width = low(bytes);
        let first = is_memory(instruction.op_kind(0));
        let sign = |value: u64| {
            if value >> (8 * bytes - 1) != 0 {
                value | !width
            } else {
                value
            }
        };
        let reversed = |value: u64| {
            (0..bytes).fold(0, |sum, at| {
                sum | (value >> (8 * at) & 0xff) << (8 * (bytes - 1 - at))
            })
        };
        let bit = value.rem_euclid(8 * bytes as u64);
        match instruction.mnemonic() {
            Mov | Movnti if first => self.write(places, value),
            Mov | Movzx => self.set_register(register.expect("a register"), old),
            Movsx | Movsxd => self.set_register(register.expect("a register"), sign(old)),
            Movbe if first => self.write(places, reversed(value)),
            Movbe => self.set_register(register.expect("a register"), reversed(old)),
            Inc | Dec => {
                let kind = if instruction.mnemonic() == Inc {
                    Arithmetic::Add
                } else {
                    Arithmetic::Sub
                };
                let (result, flags) = by_definition(kind, bytes as u8, old, 1, 0);
                self.flags(0x8d4, flags);
                self.write(places, result);
            }
            Not => self.write(places, !old),
            Neg => {
                let (result, flags) = by_definition(Arithmetic::Sub, bytes as u8, 0, old, 0);
                self.flags(0x8d5, flags);
                self.write(places, result);
            }
            Xchg => {
                self.write(places, value);
                self.set_register(register.expect("a register"), old);
            }
            Xadd => {
                let (sum, flags) = by_definition(Arithmetic::Add, bytes as u8, old, value, 0);
                self.write(places, sum);
                self.set_register(register.expect("a register"), old);
                self.flags(0x8d5, flags);
            }
            Cmpxchg => self.compare_exchange(places, old, value),
            Bt | Bts | Btr | Btc => {
                self.flags(1, old >> bit & 1);
                match instruction.mnemonic() {
                    Bts => self.write(places, old | 1 << bit),
                    Btr => self.write(places, old & !(1 << bit)),
                    Btc => self.write(places, old ^ 1 << bit),
                    _ => {}
                }
            }
            Seto | Setno | Setb | Setae | Sete | Setne | Setbe | Seta | Sets | Setns | Setp
            | Setnp | Setl | Setge | Setle | Setg => {
                self.write(places, self.holds(instruction.mnemonic()).into())
            }
            other => panic!("{other:?} is not in the reference"),
        }
    }

    fn compare_exchange(&mut self, places: &[u64], old: u64, value: u64) {
        let bytes = places.len();

        let accumulator = [Register::AL, Register::AX, Register::EAX, Register::RAX];
        let accumulator = accumulator[bytes.ilog2() as usize];
        let expected = self.register(accumulator);
        self.flags(
            0x8d5,
            by_definition(Arithmetic::Sub, bytes as u8, expected, old, 0).1,
        );
        if expected == old {
            self.write(places, value);
        } else {
            self.write(places, old);
            self.set_register(accumulator, old);
        }
    }

    fn holds(&self, set: Mnemonic) -> bool {
        let [carry, parity, zero, sign, overflow] =
            [0, 2, 6, 7, 11].map(|bit| self.rflags >> bit & 1 == 1);
        match set {
            Mnemonic::Seto => overflow,
            Mnemonic::Setno => !overflow,
            Mnemonic::Setb => carry,
            Mnemonic::Setae => !carry,
            Mnemonic::Sete => zero,
            Mnemonic::Setne => !zero,
            Mnemonic::Setbe => carry || zero,
            Mnemonic::Seta => !carry && !zero,
            Mnemonic::Sets => sign,
            Mnemonic::Setns => !sign,
            Mnemonic::Setp => parity,
            Mnemonic::Setnp => !parity,
            Mnemonic::Setl => sign != overflow,
            Mnemonic::Setge => sign == overflow,
            Mnemonic::Setle => zero || sign != overflow,
            Mnemonic::Setg => !zero && sign == overflow,
            other => panic!("{other:?} is no SETcc"),
        }
    }
}

pub(super) fn is_memory(kind: OpKind) -> bool {
    use OpKind::*;
    matches!(
        kind,
        Memory | MemorySegSI | MemorySegESI | MemorySegRSI | MemoryESDI | MemoryESEDI | MemoryESRDI
    )
}

#[test]
fn execution_agrees_with_the_reference() {
    let mut noise = Noise(3);
    let (mut complete, mut repeats, mut faults) = (0, 0, 0);
    for mode in MODES {
        let mut tried = 0;
        while tried < 40_000 {
            let code = noise.code(mode);
            let instruction = match decode(&code, mode) {
                Ok(instruction) => instruction,
                Err(Undecodable::Truncated) => panic!("15 bytes are no end"),
                Err(_) => continue,
            };
            tried += 1;
            let rip = noise.next() & 0x7fff_ffff;
            let mut guest = Guest {
                mode,
                gprs: core::array::from_fn(|_| noise.number()),
                rflags: noise.next() & 0xcd5 | 2,
                memory: Memory::default(),
            };
            if noise.below(2) == 0 {
                guest.gprs[1] = noise.below(8);
            }
            let mut vcpu = vcpu(mode);
            set_gprs(&mut vcpu, guest.gprs);
            vcpu.set_rip(rip);
            vcpu.set_rflags(guest.rflags);
            let mut memory = Memory::default();
            let ended = run(&instruction, &mut vcpu, &mut memory, BUDGET);
            let theirs = iced(&code, mode, rip);
            let expected = if theirs.is_string_instruction() {
                guest.string(&theirs)
            } else {
                guest.step(&theirs).map(|()| true)
            };
            let expected = match expected {
                Ok(true) => Ended::Complete,
                Ok(false) => Ended::Repeats,
                Err(fault) => Ended::Fault(fault),
            };
            match ended {
                Ended::Complete => complete += 1,
                Ended::Repeats => repeats += 1,
                Ended::Fault(_) => faults += 1,
                Ended::Stopped(never) => match never {},
            }
            let ours = Guest {
                mode,
                gprs: gprs(&vcpu),
                rflags: vcpu.rflags(),
                memory,
            };
            assert_eq!(
                (ended, &ours),
                (expected, &guest),
                "{theirs:?} {instruction:?} {code:02x?}"
            );
            assert_eq!(vcpu.rip(), rip, "RIP is the caller's");
        }
    }
    assert!(
        complete > 50_000 && repeats > 500 && faults > 1_000,
        "{complete} {repeats} {faults}"
    );
}
