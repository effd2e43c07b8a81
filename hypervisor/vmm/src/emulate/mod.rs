//! Instructions that access memory-mapped devices: decoded and executed in software, because a
//! nested page fault says where and not what.
//!
//! Pure: bytes and registers in, plain values out. Guest memory, page tables and devices are the
//! caller's. From the exit on:
//!
//! 1. Fetch up to 15 bytes at CS:RIP; [`decode`] them in [`Mode::of`] the vCPU. The guest may have
//!    changed its code since the exit: nothing the exit said is relied on.
//!    [`Undecodable`] says what to do when that fails.
//! 2. [`Instruction::plan`] checks segments and gives the accesses: [`MemoryOperation`]. Each is
//!    split at page borders ([`Access::parts`]), translated with [`crate::walk`] (write intent for
//!    [`Kind::ReadForWrite`] and [`Kind::Write`]) and goes to RAM or to a device, whichever is
//!    there: MOVS and CMPS have two.
//! 3. [`Instruction::finish`] with the values read gives the [`Outcome`]; its `store` is written.
//! 4. [`Outcome::commit`] writes registers and flags. [`Step::Complete`]: RIP is advanced by
//!    [`Instruction::length`] and single-step traps are raised, by the caller, as for any instruction
//!    stepped over. [`Step::Again`]: back to 2, up to a budget of elements; RIP stays meanwhile.
//!
//! [`run`] does 2 to 4 over a [`Bus`]. Until `commit` no register has changed, so an access may end
//! it all (page fault) or put it off (a device in dom0 whose answer is awaited): the caller then
//! starts again at 1 with the answer in hand. Such a bus must keep the answers to an element's
//! accesses until it is committed, so that no device is asked twice.
//!
//! # What guests use
//!
//! Linux on its local APIC: `mov r32,[m]`, `mov [m],r32`, `mov [m],imm32`, and `xchg [m],r32` on old
//! CPUs' erratum path; IOAPIC: the same, 32-bit; ECAM: `mov al|ax|eax,[m]` and back, always the
//! accumulator; HPET: 32-bit and 64-bit `mov`; virtio and other PCI memory: `mov` and
//! `movzx`/`movsx` of 1, 2, 4 and 8 bytes; `memcpy_fromio`, `memcpy_toio` and `memset_io`: `rep movs`
//! and `rep stos` (or loops of `mov`). Compilers make `test`, `cmp`, `and`, `or` and `bt` with memory of
//! plain C accesses, as boot loaders and test kernels have them.
//!
//! # What is decoded
//!
//! MOV (also moffs), MOVNTI, MOVZX, MOVSX, MOVSXD, MOVBE; ADD, OR, ADC, SBB, AND, SUB, XOR, CMP,
//! TEST; INC, DEC, NOT, NEG; XCHG, XADD, CMPXCHG; BT, BTS, BTR, BTC; SETcc; MOVS, STOS, LODS, SCAS, CMPS
//! with REP. With 16-bit, 32-bit and 64-bit operands and addresses, in any mode.
//!
//! Refused by name: SSE, AVX and x87, PUSH and POP, CALL and JMP through memory, shifts, multiplication
//! and division, CMOVcc, segment registers, CMPXCHG8B and CMPXCHG16B, INS and OUTS (port accesses, which
//! exit for themselves), and loads of RSP.
//!
//! LOCK needs nothing: only one vCPU is in a device at a time, by the device's lock. Where memory turns
//! out to be RAM (a read-only page, the other side of MOVS), locked instructions are not atomic.

mod access;
mod address;
mod decode;
mod execute;
mod flags;
mod instruction;
mod mode;
mod prefixes;
mod run;
#[cfg(test)]
mod tests;

pub use access::{Access, Fault, Kind, MemoryOperation};
pub use decode::decode;
pub use execute::{Outcome, Step};
pub use instruction::Instruction;
pub use mode::Mode;
pub use run::{Bus, Ended, run};

/// Why bytes are not an [`Instruction`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Undecodable {
    /// The bytes end within it: the next page of code could not be read. Enter the guest again, which
    /// faults by itself if that is so.
    Truncated,
    /// It is longer than 15 bytes: #GP(0).
    TooLong,
    /// No CPU knows it: #UD. The guest has changed its code since the exit.
    Invalid,
    /// It accesses no memory: the guest has changed its code since the exit. Enter it again.
    NoMemory,
    /// It may be valid, but is not implemented here. What it is or may be.
    Unsupported(&'static str),
}

impl core::fmt::Display for Undecodable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Undecodable::Truncated => f.write_str("its bytes cannot all be read"),
            Undecodable::TooLong => f.write_str("it is longer than 15 bytes"),
            Undecodable::Invalid => f.write_str("no CPU knows it"),
            Undecodable::NoMemory => f.write_str("it accesses no memory"),
            Undecodable::Unsupported(name) => {
                write!(f, "not implemented on a device's memory: {name}")
            }
        }
    }
}
