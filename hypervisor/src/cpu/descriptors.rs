//! GDT, TSS and IDT of a CPU. One GDT and TSS each, because a TSS holds the stacks.
//!
//! Three faults get stacks of their own (IST): a double fault, because it is what a stack overflow
//! into a guard page becomes; NMI and machine check, because they come at any moment.

use alloc::boxed::Box;

use x86_64::VirtAddr;
use x86_64::instructions::tables::load_tss;
use x86_64::registers::segmentation::{CS, DS, ES, FS, GS, SS, Segment, SegmentSelector};
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::idt::InterruptDescriptorTable;
use x86_64::structures::tss::TaskStateSegment;

use spin::once::Once;

use super::vectors::{VECTOR_COUNT, stub_address};
use crate::memory::OutOfMemory;
use crate::memory::tables::new_stack;

const IST_DOUBLE_FAULT: u16 = 0;
const IST_NMI: u16 = 1;
const IST_MACHINE_CHECK: u16 = 2;

static IDT: Once<InterruptDescriptorTable> = Once::new();
static EARLY_IDT: Once<InterruptDescriptorTable> = Once::new();

/// Handlers on the stack in use.
fn build_idt() -> InterruptDescriptorTable {
    let mut idt = InterruptDescriptorTable::new();
    // SAFETY: each stub saves every register, hands over to
    // `vectors::interrupt_entry` and returns with IRETQ, popping the error code where the CPU
    // pushes one.
    unsafe {
        idt.divide_error.set_handler_addr(stub_address(0));
        idt.debug.set_handler_addr(stub_address(1));
        idt.non_maskable_interrupt.set_handler_addr(stub_address(2));
        idt.breakpoint.set_handler_addr(stub_address(3));
        idt.overflow.set_handler_addr(stub_address(4));
        idt.bound_range_exceeded.set_handler_addr(stub_address(5));
        idt.invalid_opcode.set_handler_addr(stub_address(6));
        idt.device_not_available.set_handler_addr(stub_address(7));
        idt.double_fault.set_handler_addr(stub_address(8));
        idt.invalid_tss.set_handler_addr(stub_address(10));
        idt.segment_not_present.set_handler_addr(stub_address(11));
        idt.stack_segment_fault.set_handler_addr(stub_address(12));
        idt.general_protection_fault
            .set_handler_addr(stub_address(13));
        idt.page_fault.set_handler_addr(stub_address(14));
        idt.x87_floating_point.set_handler_addr(stub_address(16));
        idt.alignment_check.set_handler_addr(stub_address(17));
        idt.machine_check.set_handler_addr(stub_address(18));
        idt.simd_floating_point.set_handler_addr(stub_address(19));
        idt.virtualization.set_handler_addr(stub_address(20));
        idt.cp_protection_exception
            .set_handler_addr(stub_address(21));
        idt.hv_injection_exception
            .set_handler_addr(stub_address(28));
        idt.vmm_communication_exception
            .set_handler_addr(stub_address(29));
        idt.security_exception.set_handler_addr(stub_address(30));
        for vector in 32..VECTOR_COUNT {
            idt[vector as u8].set_handler_addr(stub_address(vector));
        }
    }
    idt
}

fn build_idt_with_stacks() -> InterruptDescriptorTable {
    let mut idt = build_idt();
    // SAFETY: the stubs are those set before, and the indices those of the TSS that `install` loads.
    unsafe {
        idt.non_maskable_interrupt
            .set_handler_addr(stub_address(2))
            .set_stack_index(IST_NMI);
        idt.double_fault
            .set_handler_addr(stub_address(8))
            .set_stack_index(IST_DOUBLE_FAULT);
        idt.machine_check
            .set_handler_addr(stub_address(18))
            .set_stack_index(IST_MACHINE_CHECK);
    }
    idt
}

/// A table for the first CPU's way up to `install`: faults there have an epitaph, on the boot stack.
pub(crate) fn install_early() {
    EARLY_IDT.call_once(build_idt).load();
}

/// Gives this CPU its tables and stacks. They live as long as the machine runs.
pub(super) fn install() -> Result<(), OutOfMemory> {
    let mut tss = TaskStateSegment::new();
    for index in [IST_DOUBLE_FAULT, IST_NMI, IST_MACHINE_CHECK] {
        tss.interrupt_stack_table[usize::from(index)] = VirtAddr::new(new_stack()?);
    }
    let tss: &'static TaskStateSegment = Box::leak(Box::new(tss));
    let gdt: &'static mut GlobalDescriptorTable = Box::leak(Box::new(GlobalDescriptorTable::new()));
    let code = gdt.append(Descriptor::kernel_code_segment());
    let data = gdt.append(Descriptor::kernel_data_segment());
    let task = gdt.append(Descriptor::tss_segment(tss));
    gdt.load();
    // SAFETY: the selectors are those of the table just loaded; FS and GS bases are set later
    // (GS by `percpu::install`, FS is not used).
    unsafe {
        CS::set_reg(code);
        SS::set_reg(data);
        DS::set_reg(data);
        ES::set_reg(data);
        FS::set_reg(SegmentSelector::NULL);
        GS::set_reg(SegmentSelector::NULL);
        load_tss(task);
    }
    IDT.call_once(build_idt_with_stacks).load();
    Ok(())
}
