//! Everything a VMCS says, by the names of the manual, and which entry checks it violates.

use core::fmt::Write;

use godwit_vmm::exit::vmx::INSTRUCTION_BYTES_MAX;
use godwit_vmm::exit::vmx::entry_checks::{GuestArea, SegmentFields};
use godwit_vmm::hardware::VcpuHardware;

use super::fields::Field;
use super::instructions::try_vmread;
use super::vcpu::{Vcpu, read_cr2, read_debug};

/// General registers in encoding order.
const GPR_NAMES: [&str; 16] = [
    "RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", "R8", "R9", "R10", "R11", "R12", "R13",
    "R14", "R15",
];

/// VM-instruction errors an entry can have (SDM 3C 31.4).
const ENTRY_ERRORS: &[(u64, &str)] = &[
    (4, "VMLAUNCH with non-clear VMCS"),
    (5, "VMRESUME with non-launched VMCS"),
    (7, "VM entry with invalid control field(s)"),
    (8, "VM entry with invalid host-state field(s)"),
    (26, "VM entry with events blocked by MOV SS"),
];

impl Vcpu {
    pub(super) fn dump_fields(&self, out: &mut dyn Write) -> core::fmt::Result {
        for (name, value) in GPR_NAMES.iter().zip(self.gprs()) {
            // The slot of RSP is not kept; RSP is among the fields.
            if *name != "RSP" {
                writeln!(out, "{name} = {value:#x}")?;
            }
        }
        let (dr, dr6) = read_debug();
        writeln!(out, "CR2 = {:#x}", read_cr2())?;
        writeln!(
            out,
            "DR0..3 = {:#x} {:#x} {:#x} {:#x}, DR6 = {dr6:#x}",
            dr[0], dr[1], dr[2], dr[3]
        )?;
        for (field, name) in Field::NAMES {
            // SAFETY: a loaded vCPU means VMX operation, and its VMCS is current.
            if let Some(value) = unsafe { try_vmread(*field) } {
                writeln!(out, "{name} = {value:#x}")?;
            }
        }
        let error = self.field(Field::VM_INSTRUCTION_ERROR);
        if let Some((_, text)) = ENTRY_ERRORS.iter().find(|(number, _)| *number == error) {
            writeln!(out, "last VM-instruction error: {text}")?;
        }
        self.dump_violations(out)
    }

    fn dump_violations(&self, out: &mut dyn Write) -> core::fmt::Result {
        let mut written = Ok(());
        let mut report = |rule: &'static str| {
            if written.is_ok() {
                written = writeln!(out, "an entry would fail: {rule}");
            }
        };
        self.guest_area().violations(&mut report);
        let length = self.field(Field::ENTRY_INSTRUCTION_LENGTH);
        if self.pending && length > u64::from(INSTRUCTION_BYTES_MAX) {
            report("injected event: instruction length above 15");
        }
        written
    }

    fn guest_area(&self) -> GuestArea {
        let segment = |index| {
            let fields = Field::segment(index);
            SegmentFields {
                selector: self.field(fields.selector) as u16,
                base: self.field(fields.base),
                limit: self.field(fields.limit) as u32,
                rights: self.field(fields.rights) as u32,
            }
        };
        GuestArea {
            fixed: self.capability.fixed,
            physical_bits: self.capability.physical_bits,
            cr0: self.field(Field::GUEST_CR0),
            cr3: self.field(Field::GUEST_CR3),
            cr4: self.field(Field::GUEST_CR4),
            dr7: self.field(Field::GUEST_DR7),
            rip: self.field(Field::GUEST_RIP),
            rflags: self.field(Field::GUEST_RFLAGS),
            efer: self.field(Field::GUEST_EFER),
            pat: self.field(Field::GUEST_PAT),
            sysenter_esp: self.field(Field::GUEST_SYSENTER_ESP),
            sysenter_eip: self.field(Field::GUEST_SYSENTER_EIP),
            segments: [0, 1, 2, 3, 4, 5, 6, 7].map(segment),
            gdtr_base: self.field(Field::GUEST_GDTR_BASE),
            gdtr_limit: self.field(Field::GUEST_GDTR_LIMIT) as u32,
            idtr_base: self.field(Field::GUEST_IDTR_BASE),
            idtr_limit: self.field(Field::GUEST_IDTR_LIMIT) as u32,
            pdptes: [0, 1, 2, 3].map(|index| self.field(Field::pdpte(index))),
            activity: self.field(Field::GUEST_ACTIVITY) as u32,
            interruptibility: self.field(Field::GUEST_INTERRUPTIBILITY) as u32,
            pending_debug: self.field(Field::GUEST_PENDING_DEBUG),
            link_pointer: self.field(Field::LINK_POINTER),
            entry_controls: self.field(Field::ENTRY_CONTROLS) as u32,
            entry_interruption: self.field(Field::ENTRY_INTERRUPTION) as u32,
            entry_error_code: self.field(Field::ENTRY_EXCEPTION_ERROR) as u32,
        }
    }
}
