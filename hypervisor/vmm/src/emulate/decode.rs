//! Bytes to [`Instruction`].
//!
//! Every opcode is one of: decoded, invalid on every CPU (`Invalid`), without access to memory
//! (`NoMemory`), or refused by name (`Unsupported`). What is not in these tables is refused, never
//! guessed.

use super::Undecodable;
use super::address::{Address, ModRm};
use super::flags::{Arithmetic, Unary};
use super::instruction::{
    BitChange, Extension, Instruction, Operand, Operation, Register, StringKind,
};
use super::mode::Mode;
use super::prefixes::{Cursor, Prefixes};
use crate::hardware::Gpr;

/// Decodes the instruction at the start of `bytes`, of which at most 15 are looked at. Give fewer
/// only where no more can be read.
pub fn decode(bytes: &[u8], mode: Mode) -> Result<Instruction, Undecodable> {
    let mut cursor = Cursor::new(bytes);
    let (prefixes, opcode) = Prefixes::read(&mut cursor, mode)?;
    let mut decoder = Decoder {
        cursor,
        prefixes,
        mode,
    };
    let (bytes, address, operation) = match opcode {
        0x0f => decoder.two_byte()?,
        opcode => decoder.one_byte(opcode)?,
    };
    if prefixes.lock && !operation.lockable() {
        return Err(Undecodable::Invalid);
    }
    // The back ends have no way to set RSP, and nobody loads a stack pointer from a device.
    if operation
        .destination()
        .is_some_and(|register| !register.high && register.is_stack_pointer())
    {
        return Err(Undecodable::Unsupported("a load of RSP"));
    }
    Ok(Instruction {
        mode,
        length: decoder.cursor.length(),
        bytes,
        address,
        operation,
    })
}

/// Width of the memory operand, where it is, what to do.
type Decoded = Result<(u8, Address, Operation), Undecodable>;

struct Decoder<'a> {
    cursor: Cursor<'a>,
    prefixes: Prefixes,
    mode: Mode,
}

impl Decoder<'_> {
    fn modrm(&mut self) -> Result<ModRm, Undecodable> {
        ModRm::read(&mut self.cursor, &self.prefixes, self.mode)
    }

    /// Bit 0 of most opcodes: a byte, or the operand size.
    fn width(&self, opcode: u8) -> u8 {
        if opcode & 1 == 0 {
            1
        } else {
            self.operand_bytes()
        }
    }

    fn operand_bytes(&self) -> u8 {
        self.mode
            .operand_bytes(self.prefixes.operand_size, self.prefixes.rex_bit(8))
    }

    /// An immediate of an operand's width; 64-bit operands have 32 bits of it.
    fn immediate(&mut self, bytes: u8) -> Result<Operand, Undecodable> {
        Ok(Operand::Immediate(self.cursor.signed(bytes.min(4))?))
    }

    /// An instruction of a ModRM memory operand and the register of the same width.
    fn with_register(&mut self, bytes: u8, operation: impl Fn(Register) -> Operation) -> Decoded {
        let modrm = self.modrm()?;
        Ok((bytes, modrm.memory()?, operation(modrm.register(bytes))))
    }

    fn one_byte(&mut self, opcode: u8) -> Decoded {
        let bytes = self.width(opcode);
        match opcode {
            0x00..=0x3f if opcode & 7 < 4 => {
                let arithmetic = Arithmetic::BY_NUMBER[usize::from(opcode >> 3)];
                self.with_register(bytes, |register| match opcode & 2 {
                    0 => Operation::ToMemory(arithmetic, Operand::Register(register)),
                    _ => Operation::ToRegister(arithmetic, register),
                })
            }
            0x62 => unsupported("EVEX or BOUND"),
            0x63 if self.mode == Mode::Code64 => self.movsxd(),
            0x69 | 0x6b => unsupported("IMUL"),
            0x6c..=0x6f => unsupported("INS or OUTS"),
            0x82 if self.mode == Mode::Code64 => Err(Undecodable::Invalid),
            0x80..=0x83 => self.group_1(opcode),
            0x84 | 0x85 => self.with_register(bytes, |register| {
                Operation::ToMemory(Arithmetic::Test, Operand::Register(register))
            }),
            0x86 | 0x87 => self.with_register(bytes, Operation::Exchange),
            0x88 | 0x89 => self.with_register(bytes, |register| Operation::Store {
                from: Operand::Register(register),
                swap: false,
            }),
            0x8a | 0x8b => self.with_register(bytes, load),
            0x8c | 0x8e => unsupported("MOV of a segment register"),
            0x8f => unsupported("POP to memory, or XOP"),
            0xa0..=0xa3 => self.moffs(opcode),
            0xa4 | 0xa5 => self.string(bytes, StringKind::Move),
            0xa6 | 0xa7 => self.string(bytes, StringKind::Compare),
            0xaa | 0xab => self.string(bytes, StringKind::Store),
            0xac | 0xad => self.string(bytes, StringKind::Load),
            0xae | 0xaf => self.string(bytes, StringKind::Scan),
            0xc0 | 0xc1 | 0xd0..=0xd3 => unsupported("a shift or rotate"),
            0xc4 | 0xc5 => unsupported("VEX, LES or LDS"),
            0xc6 | 0xc7 => self.move_immediate(bytes),
            0xd8..=0xdf => unsupported("x87"),
            0xf6 | 0xf7 => self.group_3(bytes),
            0xfe | 0xff => self.group_4_and_5(opcode),
            0x8d | 0x90..=0x99 | 0xa8 | 0xa9 | 0xb0..=0xbf => {
                // LEA, XCHG of registers, CBW, CWD, TEST and MOV of immediates to registers.
                Err(Undecodable::NoMemory)
            }
            _ => unsupported("a one-byte opcode not in the list"),
        }
    }

    fn movsxd(&mut self) -> Decoded {
        let bytes = self.operand_bytes();
        if bytes == 2 {
            // Intel reads 2 bytes, AMD 4.
            return unsupported("MOVSXD to a 16-bit register");
        }
        let modrm = self.modrm()?;
        let to = modrm.register(bytes);
        Ok((
            4,
            modrm.memory()?,
            Operation::Load {
                to,
                extension: Extension::Sign,
                swap: false,
            },
        ))
    }

    /// ADD to CMP with an immediate.
    fn group_1(&mut self, opcode: u8) -> Decoded {
        let bytes = self.width(opcode);
        let modrm = self.modrm()?;
        let immediate = self.immediate(if opcode == 0x83 { 1 } else { bytes })?;
        let arithmetic = Arithmetic::BY_NUMBER[usize::from(modrm.number)];
        Ok((
            bytes,
            modrm.memory()?,
            Operation::ToMemory(arithmetic, immediate),
        ))
    }

    /// MOV between the accumulator and an absolute address as wide as addresses are.
    fn moffs(&mut self, opcode: u8) -> Decoded {
        let address_bytes = self.mode.address_bytes(self.prefixes.address_size);
        let offset = self.cursor.signed(address_bytes)?;
        let bytes = self.width(opcode);
        let accumulator = Register::low(Gpr::Rax, bytes);
        let operation = match opcode & 2 {
            0 => load(accumulator),
            _ => Operation::Store {
                from: Operand::Register(accumulator),
                swap: false,
            },
        };
        Ok((
            bytes,
            Address::absolute(&self.prefixes, offset, address_bytes),
            operation,
        ))
    }

    fn string(&mut self, bytes: u8, kind: StringKind) -> Decoded {
        let address_bytes = self.mode.address_bytes(self.prefixes.address_size);
        let address = Address::absolute(&self.prefixes, 0, address_bytes);
        Ok((
            bytes,
            address,
            Operation::String(kind, self.prefixes.repeat),
        ))
    }

    fn move_immediate(&mut self, bytes: u8) -> Decoded {
        let modrm = self.modrm()?;
        let address = modrm.memory()?;
        if modrm.number != 0 {
            return Err(Undecodable::Invalid);
        }
        Ok((
            bytes,
            address,
            Operation::Store {
                from: self.immediate(bytes)?,
                swap: false,
            },
        ))
    }

    fn group_3(&mut self, bytes: u8) -> Decoded {
        let modrm = self.modrm()?;
        let operation = match modrm.number {
            // 1 is TEST too, on every CPU with 64-bit code, if not in every manual.
            0 | 1 => Operation::ToMemory(Arithmetic::Test, self.immediate(bytes)?),
            2 => Operation::Unary(Unary::Not),
            3 => Operation::Unary(Unary::Negate),
            _ => return unsupported("MUL, IMUL, DIV or IDIV"),
        };
        Ok((bytes, modrm.memory()?, operation))
    }

    fn group_4_and_5(&mut self, opcode: u8) -> Decoded {
        let modrm = self.modrm()?;
        let operation = match (modrm.number, opcode) {
            (0, _) => Operation::Unary(Unary::Increment),
            (1, _) => Operation::Unary(Unary::Decrement),
            (2..=5, 0xff) => return unsupported("a CALL or JMP through memory"),
            (6, 0xff) => return unsupported("PUSH of memory"),
            _ => return Err(Undecodable::Invalid),
        };
        Ok((self.width(opcode), modrm.memory()?, operation))
    }

    fn two_byte(&mut self) -> Decoded {
        let opcode = self.cursor.byte()?;
        let bytes = self.width(opcode);
        match opcode {
            // PREFETCHW, the hints and the long NOP touch no memory that could be a device.
            0x0d | 0x1f => Err(Undecodable::NoMemory),
            0x38 => self.three_byte(),
            0x40..=0x4f => unsupported("CMOVcc"),
            0x90..=0x9f => Ok((
                1,
                self.modrm()?.memory()?,
                Operation::SetCondition(opcode & 15),
            )),
            0xa3 => self.bit_test_register(BitChange::None),
            0xab => self.bit_test_register(BitChange::Set),
            0xb3 => self.bit_test_register(BitChange::Reset),
            0xbb => self.bit_test_register(BitChange::Complement),
            0xba => self.group_8(),
            0xb0 | 0xb1 => self.with_register(bytes, Operation::CompareExchange),
            0xb6 | 0xb7 => self.extending(opcode, Extension::Zero),
            0xbe | 0xbf => self.extending(opcode, Extension::Sign),
            0xc0 | 0xc1 => self.with_register(bytes, Operation::ExchangeAdd),
            0xc3 if !self.prefixes.selects() => {
                // MOVNTI knows no 16 bits, in 16-bit code neither.
                let bytes = if self.prefixes.rex_bit(8) { 8 } else { 4 };
                self.with_register(bytes, |register| Operation::Store {
                    from: Operand::Register(register),
                    swap: false,
                })
            }
            0xc7 => unsupported("CMPXCHG8B or another of group 9"),
            0xa4 | 0xa5 | 0xac | 0xad => unsupported("SHLD or SHRD"),
            0xaf => unsupported("IMUL"),
            0xae => unsupported("an access to extended state, or CLFLUSH"),
            0xb2 | 0xb4 | 0xb5 => unsupported("LSS, LFS or LGS"),
            0x10..=0x17 | 0x28..=0x2f | 0x50..=0x7f | 0xc2 | 0xc3..=0xc6 | 0xd0..=0xfe => {
                unsupported("an SSE or MMX instruction")
            }
            _ => unsupported("a two-byte opcode not in the list"),
        }
    }

    /// MOVBE is all that is decoded here. With F2 its opcodes are CRC32.
    fn three_byte(&mut self) -> Decoded {
        let opcode = self.cursor.byte()?;
        if !matches!(opcode, 0xf0 | 0xf1) || self.prefixes.repeat.is_some() {
            return unsupported("a three-byte opcode");
        }
        let bytes = self.operand_bytes();
        self.with_register(bytes, |register| match opcode {
            0xf0 => Operation::Load {
                to: register,
                extension: Extension::Zero,
                swap: true,
            },
            _ => Operation::Store {
                from: Operand::Register(register),
                swap: true,
            },
        })
    }

    fn bit_test_register(&mut self, change: BitChange) -> Decoded {
        let bytes = self.operand_bytes();
        self.with_register(bytes, |register| Operation::BitTest {
            change,
            by: Operand::Register(register),
        })
    }

    /// BT to BTC by an immediate.
    fn group_8(&mut self) -> Decoded {
        let modrm = self.modrm()?;
        let change = match modrm.number {
            4 => BitChange::None,
            5 => BitChange::Set,
            6 => BitChange::Reset,
            7 => BitChange::Complement,
            _ => return Err(Undecodable::Invalid),
        };
        let by = self.immediate(1)?;
        Ok((
            self.operand_bytes(),
            modrm.memory()?,
            Operation::BitTest { change, by },
        ))
    }

    /// MOVZX and MOVSX: bit 0 says how wide memory is.
    fn extending(&mut self, opcode: u8, extension: Extension) -> Decoded {
        let modrm = self.modrm()?;
        let to = modrm.register(self.operand_bytes());
        let bytes = if opcode & 1 == 0 { 1 } else { 2 };
        Ok((
            bytes,
            modrm.memory()?,
            Operation::Load {
                to,
                extension,
                swap: false,
            },
        ))
    }
}

fn load(to: Register) -> Operation {
    Operation::Load {
        to,
        extension: Extension::Zero,
        swap: false,
    }
}

fn unsupported(name: &'static str) -> Decoded {
    Err(Undecodable::Unsupported(name))
}
