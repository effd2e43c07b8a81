//! What a CPU says when the hypervisor itself has failed: cause, registers, who called whom. Then
//! every CPU stops. Nothing here allocates or waits for a lock.

use core::fmt;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use rustc_demangle::demangle;

use super::symbols;
use super::vectors::Frame;
use crate::console::last_words;
use crate::memory::layout::{ImageBorders, STACK_BASE};
use crate::platform::apic;

/// Return addresses printed at most.
const BACKTRACE_MAX: usize = 24;

static DYING: AtomicBool = AtomicBool::new(false);

/// An address with the function it lies in.
struct Place(u64);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match symbols::find(self.0) {
            Some((name, offset)) => write!(f, "{:#018x} {:#}+{offset:#x}", self.0, demangle(name)),
            None => write!(f, "{:#018x}", self.0),
        }
    }
}

fn mnemonic(vector: u64) -> &'static str {
    const NAMES: [&str; 22] = [
        "divide error (#DE)",
        "debug (#DB)",
        "non-maskable interrupt",
        "breakpoint (#BP)",
        "overflow (#OF)",
        "bound range (#BR)",
        "invalid opcode (#UD)",
        "device not available (#NM)",
        "double fault (#DF)",
        "coprocessor segment",
        "invalid TSS (#TS)",
        "segment not present (#NP)",
        "stack fault (#SS)",
        "general protection (#GP)",
        "page fault (#PF)",
        "reserved",
        "x87 error (#MF)",
        "alignment check (#AC)",
        "machine check (#MC)",
        "SIMD error (#XM)",
        "virtualization (#VE)",
        "control protection (#CP)",
    ];
    NAMES
        .get(vector as usize)
        .copied()
        .unwrap_or("reserved exception")
}

/// Announces the end once; a second failure while the first is reported only stops its CPU.
fn begin() {
    if DYING.swap(true, Ordering::AcqRel) {
        super::halt_for_ever();
    }
    apic::halt_others();
}

/// An exception in the hypervisor's own code. Does not return.
pub(super) fn exception(frame: &Frame) -> ! {
    begin();
    let cr2 = x86_64::registers::control::Cr2::read_raw();
    let cr3 = x86_64::registers::control::Cr3::read_raw()
        .0
        .start_address()
        .as_u64();
    last_words(format_args!(
        "\n(godwit) FATAL: {} in the hypervisor, error code {:#x}, CR2 {cr2:#x}, CR3 {cr3:#x}\n\
         (godwit)   at {}\n\
         (godwit)   rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}\n\
         (godwit)   rsi {:016x} rdi {:016x} rbp {:016x} rsp {:016x}\n\
         (godwit)   r8  {:016x} r9  {:016x} r10 {:016x} r11 {:016x}\n\
         (godwit)   r12 {:016x} r13 {:016x} r14 {:016x} r15 {:016x}\n\
         (godwit)   cs {:04x} ss {:04x} rflags {:08x}\n",
        mnemonic(frame.vector),
        frame.error_code,
        Place(frame.rip),
        frame.rax,
        frame.rbx,
        frame.rcx,
        frame.rdx,
        frame.rsi,
        frame.rdi,
        frame.rbp,
        frame.rsp,
        frame.r8,
        frame.r9,
        frame.r10,
        frame.r11,
        frame.r12,
        frame.r13,
        frame.r14,
        frame.r15,
        frame.cs,
        frame.ss,
        frame.rflags,
    ));
    backtrace(frame.rbp);
    end()
}

/// A failed assertion of ours. Does not return.
pub(crate) fn panicked(info: &PanicInfo<'_>) -> ! {
    begin();
    let rbp: u64;
    // SAFETY: only reads a register.
    unsafe {
        core::arch::asm!("mov {}, rbp", out(reg) rbp, options(nomem, nostack, preserves_flags))
    };
    match info.location() {
        Some(location) => last_words(format_args!(
            "\n(godwit) FATAL: {} ({}:{})\n",
            info.message(),
            location.file(),
            location.line()
        )),
        None => last_words(format_args!("\n(godwit) FATAL: {}\n", info.message())),
    }
    backtrace(rbp);
    end()
}

fn backtrace(mut rbp: u64) {
    let borders = ImageBorders::here();
    for _ in 0..BACKTRACE_MAX {
        let on_stack = rbp.is_multiple_of(8)
            && ((borders.rodata_end..borders.end - 16).contains(&rbp)
                || (STACK_BASE..STACK_BASE + (1 << 40)).contains(&rbp));
        if !on_stack {
            break;
        }
        let pointer = rbp as *const u64;
        // SAFETY: checked to lie in the image's data or in the stack area; the code is compiled
        // with frame pointers, so both words are part of a frame. A damaged chain at worst faults
        // again, which `begin` turns into a halt.
        let (next, address) = unsafe { (pointer.read(), pointer.add(1).read()) };
        if !(borders.text_start..borders.text_end).contains(&address) {
            break;
        }
        last_words(format_args!("(godwit)   called from {}\n", Place(address)));
        if next <= rbp {
            break;
        }
        rbp = next;
    }
}

fn end() -> ! {
    let cpu = apic::own_id();
    last_words(format_args!(
        "(godwit) CPU with APIC id {cpu} has stopped the host. Reset the machine.\n"
    ));
    super::halt_for_ever()
}
