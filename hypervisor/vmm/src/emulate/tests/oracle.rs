//! Decoding against iced-x86: what is decoded here is decoded the same there.

extern crate std;

use std::collections::BTreeMap;
use std::format;
use std::string::String;
use std::vec::Vec;

use iced_x86::{InstructionInfoFactory, Mnemonic, OpAccess, OpKind};
use proptest::prelude::*;

use super::reference::{Guest, iced, is_memory};
use super::{MODES, Memory, Noise, gprs, set_gprs, vcpu};
use crate::emulate::flags::{Unary, mask};
use crate::emulate::instruction::{BitChange, Extension, Operand, Operation, Register, StringKind};
use crate::emulate::{Instruction, Kind, Mode, Undecodable, decode};
use crate::hardware::{Gpr, VcpuHardware};

fn width_letter(bytes: u8) -> char {
    match bytes {
        1 => 'b',
        2 => 'w',
        4 => 'd',
        _ => 'q',
    }
}

/// The names it may have there, in lower case.
fn names(instruction: &Instruction) -> Vec<String> {
    let narrow = |to: Register| to.bytes > instruction.bytes;
    let names: &[&str] = match instruction.operation {
        Operation::Load { swap: true, .. } | Operation::Store { swap: true, .. } => &["movbe"],
        Operation::Load {
            to,
            extension: Extension::Zero,
            ..
        } if narrow(to) => &["movzx"],
        Operation::Load {
            to,
            extension: Extension::Sign,
            ..
        } if narrow(to) => &["movsx", "movsxd"],
        Operation::Load {
            extension: Extension::Zero,
            ..
        } => &["mov", "movzx"],
        Operation::Load {
            extension: Extension::Sign,
            ..
        } => &["movsx", "movsxd"],
        Operation::Store { .. } => &["mov", "movnti"],
        Operation::ToMemory(arithmetic, _) | Operation::ToRegister(arithmetic, _) => {
            return [format!("{arithmetic:?}").to_lowercase()].into();
        }
        Operation::Unary(Unary::Increment) => &["inc"],
        Operation::Unary(Unary::Decrement) => &["dec"],
        Operation::Unary(Unary::Not) => &["not"],
        Operation::Unary(Unary::Negate) => &["neg"],
        Operation::Exchange(_) => &["xchg"],
        Operation::ExchangeAdd(_) => &["xadd"],
        Operation::CompareExchange(_) => &["cmpxchg"],
        Operation::BitTest {
            change: BitChange::None,
            ..
        } => &["bt"],
        Operation::BitTest {
            change: BitChange::Set,
            ..
        } => &["bts"],
        Operation::BitTest {
            change: BitChange::Reset,
            ..
        } => &["btr"],
        Operation::BitTest {
            change: BitChange::Complement,
            ..
        } => &["btc"],
        Operation::SetCondition(code) => &[[
            "seto", "setno", "setb", "setae", "sete", "setne", "setbe", "seta", "sets", "setns",
            "setp", "setnp", "setl", "setge", "setle", "setg",
        ][usize::from(code)]],
        Operation::String(kind, _) => {
            let stem = match kind {
                StringKind::Move => "movs",
                StringKind::Store => "stos",
                StringKind::Load => "lods",
                StringKind::Scan => "scas",
                StringKind::Compare => "cmps",
            };
            return [format!("{stem}{}", width_letter(instruction.bytes))].into();
        }
    };
    names.iter().map(|name| String::from(*name)).collect()
}

fn name_of(mnemonic: Mnemonic) -> String {
    format!("{mnemonic:?}").to_lowercase()
}

/// The operand that is not memory.
fn other(operation: Operation) -> Option<Operand> {
    match operation {
        Operation::Load { to: register, .. }
        | Operation::ToRegister(_, register)
        | Operation::Exchange(register)
        | Operation::ExchangeAdd(register)
        | Operation::CompareExchange(register) => Some(Operand::Register(register)),
        Operation::Store { from: operand, .. }
        | Operation::ToMemory(_, operand)
        | Operation::BitTest { by: operand, .. } => Some(operand),
        Operation::Unary(_) | Operation::SetCondition(_) | Operation::String(..) => None,
    }
}

fn agree(code: &[u8], instruction: &Instruction, noise: &mut Noise) {
    let mode = instruction.mode;
    let mut vcpu = vcpu(mode);
    set_gprs(&mut vcpu, core::array::from_fn(|_| noise.number()));
    // Something to do for REP.
    vcpu.gprs_mut()[Gpr::Rcx as usize] = 1 + noise.below(0xffff);
    let rip = noise.next() & 0x7fff_ffff;
    vcpu.set_rip(rip);
    let theirs = iced(code, mode, rip);
    let context = format!("{code:02x?} {mode:?}\n{theirs:?}\n{instruction:?}");
    assert!(!theirs.is_invalid(), "{context}");
    assert_eq!(usize::from(instruction.length()), theirs.len(), "{context}");
    assert!(
        names(instruction).contains(&name_of(theirs.mnemonic())),
        "{context}"
    );
    assert_eq!(
        usize::from(instruction.bytes),
        theirs.memory_size().size(),
        "{context}"
    );
    let memory: Vec<u32> = (0..theirs.op_count())
        .filter(|op| is_memory(theirs.op_kind(*op)))
        .collect();
    if let Operation::String(..) = instruction.operation {
        let repeats = theirs.has_rep_prefix() || theirs.has_repne_prefix();
        assert_eq!(instruction.repeats(), repeats, "{context}");
    } else {
        let rest: Vec<u32> = (0..theirs.op_count())
            .filter(|op| !memory.contains(op))
            .collect();
        match (other(instruction.operation), &rest[..]) {
            (None, []) => {}
            (Some(Operand::Register(register)), [op]) => {
                assert_eq!(theirs.op_kind(*op), OpKind::Register, "{context}");
                let name = theirs.op_register(*op);
                let high = register.high;
                let number = if high {
                    register.index + 4
                } else {
                    name.full_register().number() as u8
                };
                assert_eq!(usize::from(register.bytes), name.size(), "{context}");
                let expected = if high {
                    name.number() as u8
                } else {
                    register.index
                };
                assert_eq!(number, expected, "{context}");
                let is_high = "AH CH DH BH".contains(&format!("{name:?}"));
                assert_eq!(high, is_high, "{context}");
            }
            (Some(Operand::Immediate(value)), [op]) => {
                let bytes = match instruction.operation {
                    // A number of a bit, not of the operand's width.
                    Operation::BitTest { .. } => 1,
                    _ => instruction.bytes,
                };
                let theirs = theirs.immediate(*op);
                assert_eq!(value & mask(bytes), theirs & mask(bytes), "{context}");
            }
            (ours, theirs) => panic!("{ours:?} but {theirs:?}: {context}"),
        }
        assert_eq!(rest.len() + 1, theirs.op_count() as usize, "{context}");
    }
    accesses_agree(instruction, &vcpu, &theirs, &memory, &context);
}

/// How far a bit number in a register leads away from the operand.
fn beyond(instruction: &Instruction, vcpu: &crate::fake::FakeVcpu) -> i128 {
    match instruction.operation {
        Operation::BitTest {
            by: Operand::Register(register),
            ..
        } => {
            let bits = 8 * i128::from(register.bytes);
            let number = i128::from(register.read(vcpu));
            let number = if number >> (bits - 1) != 0 {
                number - (1 << bits)
            } else {
                number
            };
            number.div_euclid(bits) * i128::from(register.bytes)
        }
        _ => 0,
    }
}

fn accesses_agree(
    instruction: &Instruction,
    vcpu: &crate::fake::FakeVcpu,
    theirs: &iced_x86::Instruction,
    memory: &[u32],
    context: &str,
) {
    let guest = Guest {
        mode: instruction.mode,
        gprs: gprs(vcpu),
        rflags: 2,
        memory: Memory::default(),
    };
    let mut info = InstructionInfoFactory::new();
    let info = info.info(theirs);
    let mut expected = Vec::new();
    for &op in memory {
        let extra = beyond(instruction, vcpu);
        let first = guest.place(theirs, op, extra).map(|places| places[0]);
        let (reads, writes) = match info.op_access(op) {
            OpAccess::Read | OpAccess::CondRead => (true, false),
            OpAccess::Write | OpAccess::CondWrite => (false, true),
            OpAccess::ReadWrite | OpAccess::ReadCondWrite => (true, true),
            OpAccess::None | OpAccess::NoMemAccess => panic!("{context}"),
        };
        if reads {
            expected.push((
                if writes {
                    Kind::ReadForWrite
                } else {
                    Kind::Read
                },
                first,
            ));
        }
        if writes {
            expected.push((Kind::Write, first));
        }
    }
    // MOVS names its write first; it is done last.
    expected.sort_by_key(|(kind, _)| *kind == Kind::Write);
    match instruction.plan(vcpu) {
        Err(fault) => {
            let theirs = expected.iter().find_map(|(_, place)| place.err());
            assert_eq!(Some(fault), theirs, "{context}");
        }
        Ok(plan) => {
            let ours: Vec<_> = plan.reads.into_iter().flatten().chain(plan.write).collect();
            for access in &ours {
                assert_eq!(access.bytes, instruction.bytes);
                assert_eq!(access.wide, instruction.mode == Mode::Code64);
            }
            let ours: Vec<_> = ours
                .iter()
                .map(|access| (access.kind, Ok(access.linear)))
                .collect();
            assert_eq!(ours, expected, "{context}");
        }
    }
}

/// What is refused or not may differ in one direction only.
fn judge(code: &[u8], mode: Mode, noise: &mut Noise, seen: &mut BTreeMap<String, u32>) {
    let answer = decode(code, mode);
    let theirs = iced(&code[..code.len().min(15)], mode, 0x1000);
    let context = format!("{code:02x?} {mode:?}: {answer:?}, {theirs:?}");
    let has_memory = (0..theirs.op_count()).any(|op| is_memory(theirs.op_kind(op)));
    let name = name_of(theirs.mnemonic());
    match answer {
        Ok(instruction) => {
            agree(code, &instruction, noise);
            for end in 0..usize::from(instruction.length()) {
                assert_eq!(
                    decode(&code[..end], mode),
                    Err(Undecodable::Truncated),
                    "{context}"
                );
            }
            *seen.entry(names(&instruction)[0].clone()).or_default() += 1;
        }
        // Which of them is asked for first does not matter: more bytes, or an opcode that exists.
        Err(Undecodable::Truncated) => assert!(theirs.is_invalid(), "{context}"),
        // That the sixteenth byte is missing: it was given 15.
        Err(Undecodable::TooLong) => assert!(theirs.is_invalid(), "{context}"),
        Err(Undecodable::Invalid) => assert!(theirs.is_invalid(), "{context}"),
        Err(Undecodable::NoMemory) => assert!(
            theirs.is_invalid()
                || !has_memory
                || name == "lea"
                || name.ends_with("nop")
                || name.contains("prefetch"),
            "{context}"
        ),
        Err(Undecodable::Unsupported(reason)) => {
            assert!(!reason.is_empty());
            let listed = !theirs.is_invalid() && has_memory && seen.contains_key(&name);
            let known = reason == "a load of RSP"
                || reason == "MOVSXD to a 16-bit register"
                // MOVSD and CMPSD are names of SSE instructions too.
                || reason.contains("SSE") && (name == "movsd" || name == "cmpsd")
                || reason == "MOV of a segment register" && name == "mov";
            assert!(!listed || known, "{context}");
        }
    }
    if !answer.is_err_and(|error| error == Undecodable::Truncated) && code.len() < 15 {
        // More bytes behind it change nothing.
        let mut longer = code.to_vec();
        longer.resize(15, 0xcc);
        assert_eq!(decode(&longer, mode), answer, "{context}");
    }
}

#[test]
fn generated_instructions_agree() {
    let mut noise = Noise(1);
    let mut seen = BTreeMap::new();
    for _ in 0..60_000 {
        for mode in MODES {
            let code = noise.code(mode);
            let length = if noise.below(4) == 0 {
                noise.below(16) as usize
            } else {
                15
            };
            judge(&code[..length], mode, &mut noise, &mut seen);
        }
    }
    // 9 + 4 unary + xchg, xadd, cmpxchg + 4 bit tests + 16 SETcc + mov, movzx, movsx, movbe + 5 strings of
    // 4 widths.
    assert_eq!(seen.len(), 9 + 4 + 3 + 4 + 16 + 4 + 20, "{seen:?}");
    assert!(seen.values().all(|times| *times > 40), "{seen:?}");
}

/// Every opcode of both tables, with every ModRM byte.
#[test]
fn every_opcode_agrees() {
    let mut noise = Noise(2);
    let mut seen = BTreeMap::new();
    for mode in MODES {
        for opcode in 0..0x200u32 {
            for modrm in 0..=255u8 {
                for prefix in [&[][..], &[0x66], &[0x67], &[0x48], &[0xf3], &[0xf0]] {
                    let mut code: Vec<u8> = prefix.to_vec();
                    if opcode >= 0x100 {
                        code.push(0x0f);
                    }
                    code.extend([opcode as u8, modrm]);
                    while code.len() < 15 {
                        code.push(noise.next() as u8);
                    }
                    judge(&code, mode, &mut noise, &mut seen);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]
    #[test]
    fn any_bytes_agree(code in proptest::collection::vec(any::<u8>(), 0..20), mode in 0usize..3, seed: u64) {
        judge(&code, MODES[mode], &mut Noise(seed), &mut BTreeMap::new());
    }
}
