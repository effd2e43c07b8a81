//! Segments and exception gates. dom0 takes no interrupts; exceptions are its own mistakes, and
//! their gates exist for one purpose: to say what happened before the domain ends.
//!
//! Every gate switches to a stack of its own, so that a stack that ran into its guard page can
//! still be told about.

use crate::fault::{self, Frame};
use core::cell::UnsafeCell;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::{lidt, load_tss};
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;

/// Exceptions of the architecture (SDM 3A 6.3.1).
const EXCEPTIONS: usize = 32;
/// Bytes from one entry stub to the next.
const STUB_BYTES: u64 = 16;
const FAULT_STACK_BYTES: usize = 16 << 10;

/// Present interrupt gate of ring 0, on the first stack of the interrupt stack table.
const GATE: u64 = 0x8e01 << 32;

struct Tables {
    gdt: GlobalDescriptorTable,
    tss: TaskStateSegment,
    idt: [[u64; 2]; EXCEPTIONS],
}

#[repr(align(16))]
struct Static<T>(UnsafeCell<T>);

// SAFETY: one vCPU without interrupts; written by `install` alone, before anything can fault.
unsafe impl<T> Sync for Static<T> {}

static TABLES: Static<Tables> = Static(UnsafeCell::new(Tables {
    gdt: GlobalDescriptorTable::new(),
    tss: TaskStateSegment::new(),
    idt: [[0; 2]; EXCEPTIONS],
}));
static FAULT_STACK: Static<[u8; FAULT_STACK_BYTES]> =
    Static(UnsafeCell::new([0; FAULT_STACK_BYTES]));

// One stub per exception: a zero where the CPU pushes no error code, the number, the registers; then
// the handler, which does not return. Vectors with error code: SDM 3A table 6-1.
core::arch::global_asm!(
    ".section .text.exception_stubs,\"ax\",@progbits",
    ".balign 16",
    ".global exception_stubs",
    "exception_stubs:",
    ".set vector, 0",
    ".rept {count}",
    ".balign 16",
    ".if vector != 8 && (vector < 10 || vector > 14) && vector != 17 && vector != 21 && vector != 29 && vector != 30",
    "push 0",
    ".endif",
    "push vector",
    "jmp exception_common",
    ".set vector, vector + 1",
    ".endr",
    "exception_common:",
    "push rax",
    "push rcx",
    "push rdx",
    "push rbx",
    "push rbp",
    "push rsi",
    "push rdi",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {handler}",
    "ud2",
    count = const EXCEPTIONS,
    handler = sym exception,
);

unsafe extern "C" {
    static exception_stubs: u8;
}

extern "C" fn exception(frame: *const Frame) -> ! {
    // SAFETY: the stub above has just pushed it, in the order of the structure's fields.
    fault::exception(unsafe { &*frame })
}

/// Loads our own segments and gates. Called once, at the start.
pub(crate) fn install() {
    // SAFETY: called once, before anything else refers to the tables.
    let tables: &'static mut Tables = unsafe { &mut *TABLES.0.get() };
    let stack = FAULT_STACK.0.get() as u64 + FAULT_STACK_BYTES as u64;
    tables.tss.interrupt_stack_table[0] = VirtAddr::new(stack);
    let code = tables.gdt.append(Descriptor::kernel_code_segment());
    let data = tables.gdt.append(Descriptor::kernel_data_segment());
    // SAFETY: the task state segment is a static that nothing changes from here on.
    let task = tables
        .gdt
        .append(unsafe { Descriptor::tss_segment_unchecked(&raw const tables.tss) });
    let first = (&raw const exception_stubs) as u64;
    for (vector, gate) in tables.idt.iter_mut().enumerate() {
        *gate = gate_to(first + vector as u64 * STUB_BYTES, code);
    }
    let idt = DescriptorTablePointer {
        limit: (size_of_val(&tables.idt) - 1) as u16,
        base: VirtAddr::from_ptr(&raw const tables.idt),
    };
    // SAFETY: all of them are statics with the layout that the CPU wants, and the selectors are
    // those of flat segments like the ones in use.
    unsafe {
        tables.gdt.load_unsafe();
        CS::set_reg(code);
        SS::set_reg(data);
        DS::set_reg(data);
        ES::set_reg(data);
        load_tss(task);
        lidt(&idt);
    }
}

/// SDM 3A 6.14.1.
fn gate_to(address: u64, code: SegmentSelector) -> [u64; 2] {
    let low = (address & 0xffff) | u64::from(code.0) << 16 | GATE | (address >> 16 & 0xffff) << 48;
    [low, address >> 32]
}
