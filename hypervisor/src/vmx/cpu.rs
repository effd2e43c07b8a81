//! VMX operation of one CPU (SDM 3C 24.7), and the host state its exits return to (SDM 3C 25.5).

use core::arch::asm;

use x86_64::instructions::tables::{sgdt, sidt};
use x86_64::registers::control::{Cr0, Cr0Flags, Cr3, Cr4, Cr4Flags};
use x86_64::registers::model_specific::Msr;
use x86_64::registers::segmentation::{CS, DS, ES, FS, GS, SS, Segment};

use super::capability::{self, Capability};
use super::entry;
use super::fields::Field;
use super::instructions::{vmwrite, vmxoff, vmxon};
use crate::backend::Missing;
use crate::memory::Page;

const IA32_PAT: u32 = 0x277;
const IA32_EFER: u32 = 0xc000_0080;
const IA32_FS_BASE: u32 = 0xc000_0100;
const IA32_GS_BASE: u32 = 0xc000_0101;

/// A CPU in VMX operation.
pub(crate) struct Cpu {
    /// The VMXON region: the processor's as long as `on`.
    region: Page,
    on: bool,
}

impl Cpu {
    /// Enters VMX operation.
    pub(super) fn enable() -> Result<Cpu, Missing> {
        let capability = Capability::machine()?;
        if *capability != Capability::read()? {
            return Err(Missing(
                "this CPU's VT-x differs from the first CPU's: all CPUs must be of one model",
            ));
        }
        let region =
            Page::zeroed().map_err(|_| Missing("no memory is left for the VMXON region"))?;
        // SAFETY: the page is ours, 4 KiB long and aligned.
        unsafe { region.pointer().cast::<u32>().write(capability.revision) };
        // SAFETY: the host runs in protected mode with paging; NE and VMXE change nothing for it. The MSR exists. After that
        // CR0, CR4 and IA32_FEATURE_CONTROL allow VMXON, and the page is not touched until VMXOFF.
        let entered = unsafe {
            capability::unlock();
            Cr0::update(|cr0| cr0.insert(Cr0Flags::NUMERIC_ERROR));
            Cr4::update(|cr4| cr4.insert(Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS));
            vmxon(region.physical())
        };
        if entered.is_err() {
            return Err(Missing(
                "VMXON failed although the CPU offers VT-x: update the firmware",
            ));
        }
        Ok(Cpu { region, on: true })
    }

    /// Leaves VMX operation.
    pub(super) fn disable(&mut self) {
        assert!(core::mem::take(&mut self.on), "VMX operation left twice");
        // SAFETY: `on` was set, so this CPU is in VMX operation; the caller has taken every vCPU off it.
        unsafe {
            vmxoff();
            Cr4::update(|cr4| cr4.remove(Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS));
        }
    }

    /// A number no other CPU has, not 0.
    pub(super) fn id(&self) -> u64 {
        self.region.physical()
    }
}

impl Drop for Cpu {
    fn drop(&mut self) {
        assert!(!self.on, "the VMXON region is freed in VMX operation");
    }
}

/// Base of the task state segment, from its 16-byte descriptor (SDM 3A 8.2.3).
fn task_base(gdt_base: u64, selector: u16) -> u64 {
    let descriptor = (gdt_base + u64::from(selector & !7)) as *const [u64; 2];
    // SAFETY: TR was loaded from this entry of this CPU's GDT, which stays where it is.
    let [low, high] = unsafe { descriptor.read_unaligned() };
    high << 32 | low >> 32 & 0xff00_0000 | low >> 16 & 0x00ff_ffff
}

/// Writes the host state area: this CPU, as it is now. HOST_RSP is written at entry.
///
/// # Safety
/// A VMCS that is the caller's is current.
pub(super) unsafe fn write_host_state() {
    let (gdt, idt) = (sgdt(), sidt());
    let task: u16;
    // SAFETY: STR only reads TR.
    unsafe { asm!("str {:x}", out(reg) task, options(nomem, nostack, preserves_flags)) };
    // SAFETY: these MSRs exist on every 64-bit CPU.
    let msr = |index| unsafe { Msr::new(index).read() };
    let gdt_base = gdt.base.as_u64();
    let values = [
        (Field::HOST_CR0, Cr0::read_raw()),
        (Field::HOST_CR3, Cr3::read_raw().0.start_address().as_u64()),
        (Field::HOST_CR4, Cr4::read_raw()),
        (Field::HOST_RIP, entry::exit_address()),
        (Field::HOST_ES_SELECTOR, selector(ES::get_reg().0)),
        (Field::HOST_CS_SELECTOR, selector(CS::get_reg().0)),
        (Field::HOST_SS_SELECTOR, selector(SS::get_reg().0)),
        (Field::HOST_DS_SELECTOR, selector(DS::get_reg().0)),
        (Field::HOST_FS_SELECTOR, selector(FS::get_reg().0)),
        (Field::HOST_GS_SELECTOR, selector(GS::get_reg().0)),
        (Field::HOST_TR_SELECTOR, selector(task)),
        (Field::HOST_FS_BASE, msr(IA32_FS_BASE)),
        (Field::HOST_GS_BASE, msr(IA32_GS_BASE)),
        (Field::HOST_TR_BASE, task_base(gdt_base, task)),
        (Field::HOST_GDTR_BASE, gdt_base),
        (Field::HOST_IDTR_BASE, idt.base.as_u64()),
        (Field::HOST_SYSENTER_CS, 0),
        (Field::HOST_SYSENTER_ESP, 0),
        (Field::HOST_SYSENTER_EIP, 0),
        (Field::HOST_EFER, msr(IA32_EFER)),
        (Field::HOST_PAT, msr(IA32_PAT)),
    ];
    for (field, value) in values {
        // SAFETY: the caller's contract; an exit returns to the state the host is in.
        unsafe { vmwrite(field, value) };
    }
}

/// Host selectors have no RPL and are in the GDT (SDM 3C 27.2.3).
fn selector(value: u16) -> u64 {
    assert!(
        value & 7 == 0,
        "host selector {value:#x} has an RPL or is in an LDT"
    );
    u64::from(value)
}
