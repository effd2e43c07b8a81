//! `triple` and `reset`: ends of the machine that the tool stack must see.

use crate::command_line::Arguments;
use crate::report::Verdict;
use crate::start_info::StartInfo;
use crate::{cpu, fail, say};
use core::arch::asm;

pub(crate) fn triple_fault(_: &StartInfo, _: &Arguments) -> Verdict {
    say!("MICRO triple EXPECT-CRASH");
    let empty = [0u16; 5];
    // SAFETY: with an IDT of no entries the #UD cannot be delivered, nor the double fault after it: the CPU
    // shuts down, which is what this test is for.
    unsafe { asm!("lidt [{}]", "ud2", in(reg) &empty, options(nostack)) }
    fail!("survived")
}

pub(crate) fn reset(_: &StartInfo, _: &Arguments) -> Verdict {
    say!("MICRO reset EXPECT-REBOOT");
    // Reset control register: full reset selected, then requested (0 to 1 of bit 2).
    cpu::out8(0xcf9, 0x02);
    cpu::out8(0xcf9, 0x06);
    fail!("survived")
}
