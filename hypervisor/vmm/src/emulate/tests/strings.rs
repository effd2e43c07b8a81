//! The reference's string instructions.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::arithmetic::by_definition;
use super::reference::{BUDGET, Guest, is_memory};
use crate::emulate::Fault;
use crate::emulate::flags::Arithmetic;

type Element = (bool, bool, Option<(u64, u64)>);

impl Guest {
    /// A string instruction, up to the budget. `true`: it is over.
    pub(super) fn string(&mut self, instruction: &Instruction) -> Result<bool, Fault> {
        let bytes = instruction.memory_size().size();
        let repeats = instruction.has_rep_prefix() || instruction.has_repne_prefix();
        let wide = (0..2)
            .map(|operand| instruction.op_kind(operand))
            .find(|kind| is_memory(*kind));
        let [counter, source, destination] = match wide.expect("a memory operand") {
            OpKind::MemorySegSI | OpKind::MemoryESDI => [Register::CX, Register::SI, Register::DI],
            OpKind::MemorySegESI | OpKind::MemoryESEDI => {
                [Register::ECX, Register::ESI, Register::EDI]
            }
            _ => [Register::RCX, Register::RSI, Register::RDI],
        };
        let accumulator =
            [Register::AL, Register::AX, Register::EAX, Register::RAX][bytes.ilog2() as usize];
        let step = if self.rflags & 0x400 != 0 {
            (bytes as u64).wrapping_neg()
        } else {
            bytes as u64
        };
        let mut done = 0;
        while !repeats || self.register(counter) != 0 {
            if done == BUDGET {
                return Ok(false);
            }
            done += 1;
            let (from, to, compared) = self.element(instruction, accumulator)?;
            for (moves, register) in [(from, source), (to, destination)] {
                if moves {
                    self.set_register(register, self.register(register).wrapping_add(step));
                }
            }
            if let Some((first, second)) = compared {
                self.flags(
                    0x8d5,
                    by_definition(Arithmetic::Sub, bytes as u8, first, second, 0).1,
                );
            }
            if !repeats {
                return Ok(true);
            }
            self.set_register(counter, self.register(counter) - 1);
            if let Some((first, second)) = compared
                && (first == second) == instruction.has_repne_prefix()
            {
                return Ok(true);
            }
        }
        Ok(true)
    }

    /// One element's accesses. Whether RSI and RDI move, and the values compared.
    fn element(
        &mut self,
        instruction: &Instruction,
        accumulator: Register,
    ) -> Result<Element, Fault> {
        use Mnemonic::*;
        let mut compared = None;
        let (from, to) = match instruction.mnemonic() {
            Movsb | Movsw | Movsd | Movsq => {
                let from = self.place(instruction, 1, 0)?;
                let to = self.place(instruction, 0, 0)?;
                self.write(&to, self.read(&from));
                (true, true)
            }
            Stosb | Stosw | Stosd | Stosq => {
                let to = self.place(instruction, 0, 0)?;
                self.write(&to, self.register(accumulator));
                (false, true)
            }
            Lodsb | Lodsw | Lodsd | Lodsq => {
                let value = self.read(&self.place(instruction, 1, 0)?);
                self.set_register(accumulator, value);
                (true, false)
            }
            Scasb | Scasw | Scasd | Scasq => {
                let value = self.read(&self.place(instruction, 1, 0)?);
                compared = Some((self.register(accumulator), value));
                (false, true)
            }
            Cmpsb | Cmpsw | Cmpsd | Cmpsq => {
                let first = self.read(&self.place(instruction, 0, 0)?);
                compared = Some((first, self.read(&self.place(instruction, 1, 0)?)));
                (true, true)
            }
            other => panic!("{other:?} is no string instruction"),
        };
        Ok((from, to, compared))
    }
}
