//! A vCPU in words: every field that matters when an entry fails, by its name in the manual.

use core::fmt::{Result, Write};

use super::vcpu::SvmVcpu;
use super::vmcb::VmcbSegment;
use godwit_vmm::hardware::VcpuHardware;

fn line(out: &mut dyn Write, name: &str, segment: &VmcbSegment) -> Result {
    writeln!(
        out,
        "  {name:<5} selector {:04x} attributes {:03x} limit {:08x} base {:016x}",
        segment.selector, segment.attributes, segment.limit, segment.base
    )
}

pub(super) fn dump(vcpu: &SvmVcpu, out: &mut dyn Write) -> Result {
    let vmcb = vcpu.vmcb();
    writeln!(
        out,
        "  EXITCODE {:#x} EXITINFO1 {:#x} EXITINFO2 {:#x} EXITINTINFO {:#x}",
        vmcb.exit_code, vmcb.exit_info_1, vmcb.exit_info_2, vmcb.exit_interrupt_info
    )?;
    writeln!(
        out,
        "  RIP {:016x} RSP {:016x} RFLAGS {:08x} CPL {}",
        vmcb.rip, vmcb.rsp, vmcb.rflags, vmcb.cpl
    )?;
    writeln!(
        out,
        "  CR0 {:016x} CR2 {:016x} CR3 {:016x} CR4 {:016x}",
        vmcb.cr0, vmcb.cr2, vmcb.cr3, vmcb.cr4
    )?;
    writeln!(
        out,
        "  EFER {:x} PAT {:016x} DR6 {:x} DR7 {:x}",
        vmcb.efer, vmcb.pat, vmcb.dr6, vmcb.dr7
    )?;
    for (name, segment) in [
        ("CS", &vmcb.cs),
        ("DS", &vmcb.ds),
        ("ES", &vmcb.es),
        ("FS", &vmcb.fs),
        ("GS", &vmcb.gs),
        ("SS", &vmcb.ss),
        ("TR", &vmcb.tr),
        ("LDTR", &vmcb.ldtr),
        ("GDTR", &vmcb.gdtr),
        ("IDTR", &vmcb.idtr),
    ] {
        line(out, name, segment)?;
    }
    dump_control(vcpu, out)
}

/// The control area, the MSRs and the general registers.
fn dump_control(vcpu: &SvmVcpu, out: &mut dyn Write) -> Result {
    let vmcb = vcpu.vmcb();
    writeln!(
        out,
        "  EVENTINJ {:#x} interrupt control {:#x} INTERRUPT_SHADOW {:#x}",
        vmcb.event_injection, vmcb.virtual_interrupt, vmcb.interrupt_shadow
    )?;
    writeln!(
        out,
        "  intercepts CR {:x} DR {:x} exceptions {:x} {:x} {:x} {:x}",
        vmcb.intercept_cr,
        vmcb.intercept_dr,
        vmcb.intercept_exceptions,
        vmcb.intercept_1,
        vmcb.intercept_2,
        vmcb.intercept_3
    )?;
    writeln!(
        out,
        "  ASID {} TLB_CONTROL {} NP_ENABLE {:#x} nCR3 {:#x} TSC_OFFSET {:#x}",
        vmcb.asid, vmcb.tlb_control, vmcb.nested_control, vmcb.nested_cr3, vmcb.tsc_offset
    )?;
    writeln!(
        out,
        "  IOPM {:#x} MSRPM {:#x} clean {:#x} nRIP {:#x}",
        vmcb.iopm_base, vmcb.msrpm_base, vmcb.clean, vmcb.next_rip
    )?;
    writeln!(
        out,
        "  STAR {:x} LSTAR {:x} CSTAR {:x} SFMASK {:x} KernelGsBase {:x}",
        vmcb.star, vmcb.lstar, vmcb.cstar, vmcb.sfmask, vmcb.kernel_gs_base
    )?;
    writeln!(
        out,
        "  SYSENTER_CS {:x} ESP {:x} EIP {:x} DBGCTL {:x} LBR {:x}",
        vmcb.sysenter_cs,
        vmcb.sysenter_esp,
        vmcb.sysenter_eip,
        vmcb.debug_control,
        vmcb.lbr_control
    )?;
    let gprs = vcpu.gprs();
    for (index, name) in ["rax", "rcx", "rdx", "rbx", "", "rbp", "rsi", "rdi"]
        .iter()
        .enumerate()
    {
        if !name.is_empty() {
            write!(out, "  {name} {:x}", gprs[index])?;
        }
    }
    for (index, value) in gprs.iter().enumerate().skip(8) {
        write!(out, "  r{index} {value:x}")?;
    }
    writeln!(out)
}
