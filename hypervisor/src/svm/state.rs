//! The two-way table between a [`VcpuState`] and a VMCB.

use godwit_records::{Activity, EventKind, PendingEvent, Segment, Shadow, VcpuState};
use godwit_vmm::hardware::{Gpr, SegmentName, SwitchedMsr, VcpuHardware};

use super::vcpu::SvmVcpu;
use super::vmcb::{VmcbSegment, event, virtual_interrupt};

/// From the VMCB: the flags move from bits 11:8 up to 15:12.
pub(super) fn segment(from: &VmcbSegment) -> Segment {
    Segment {
        selector: from.selector,
        base: from.base,
        limit: from.limit,
        attributes: from.attributes & 0xff | (from.attributes & 0xf00) << 4,
    }
}

fn vmcb_segment(from: &Segment) -> VmcbSegment {
    VmcbSegment {
        selector: from.selector,
        attributes: from.attributes & 0xff | (from.attributes & 0xf000) >> 4,
        limit: from.limit,
        base: from.base,
    }
}

fn pending(raw: u64) -> Option<PendingEvent> {
    if raw & event::VALID == 0 {
        return None;
    }
    let kind = match raw & event::KIND {
        event::EXTERNAL => EventKind::External,
        event::NMI => EventKind::Nmi,
        event::SOFTWARE => EventKind::SoftwareInterrupt,
        _ => EventKind::Exception,
    };
    let error_code = (raw & event::ERROR_VALID != 0).then_some((raw >> 32) as u32);
    Some(PendingEvent {
        kind,
        vector: raw as u8,
        error_code,
        instruction_length: 0,
    })
}

fn injection(from: Option<&PendingEvent>) -> u64 {
    let Some(from) = from else { return 0 };
    let kind = match from.kind {
        EventKind::External => event::EXTERNAL,
        EventKind::Nmi => event::NMI,
        EventKind::Exception
        | EventKind::PrivilegedSoftwareException
        | EventKind::SoftwareException => event::EXCEPTION,
        EventKind::SoftwareInterrupt => event::SOFTWARE,
    };
    let error = from
        .error_code
        .map_or(0, |code| event::ERROR_VALID | u64::from(code) << 32);
    event::VALID | kind | u64::from(from.vector) | error
}

/// The bit by which the type of a busy task-state segment differs from that of an available one.
const BUSY: u16 = 1 << 1;

/// The task register as architecture has it: LTR makes it busy. QEMU's emulation does not write that
/// into the VMCB, and lets no I/O permission map work with a busy one; processors look at neither
/// (APM 2 15.5.1), so the VMCB always has the available type and records the busy one.
fn task_register(from: Segment) -> Segment {
    Segment {
        attributes: from.attributes | BUSY,
        ..from
    }
}

fn vmcb_task_register(from: &Segment) -> VmcbSegment {
    let mut segment = vmcb_segment(from);
    segment.attributes &= !BUSY;
    segment
}

pub(super) fn save(vcpu: &SvmVcpu) -> VcpuState {
    let vmcb = vcpu.vmcb();
    let mut gprs = vcpu.gprs;
    gprs[Gpr::Rsp as usize] = vmcb.rsp;
    let [dr0, dr1, dr2, dr3] = vcpu.debug_addresses();
    VcpuState {
        gprs,
        rip: vmcb.rip,
        rflags: vmcb.rflags,
        cr0: vmcb.cr0,
        cr2: vmcb.cr2,
        cr3: vmcb.cr3,
        cr4: vmcb.cr4,
        cr8: vmcb.virtual_interrupt & 15,
        efer: vcpu.msr(SwitchedMsr::Efer),
        cs: vcpu.segment(SegmentName::Cs),
        ds: vcpu.segment(SegmentName::Ds),
        es: vcpu.segment(SegmentName::Es),
        fs: vcpu.segment(SegmentName::Fs),
        gs: vcpu.segment(SegmentName::Gs),
        ss: vcpu.segment(SegmentName::Ss),
        tr: task_register(vcpu.segment(SegmentName::Tr)),
        ldtr: vcpu.segment(SegmentName::Ldtr),
        gdtr_base: vmcb.gdtr.base,
        gdtr_limit: vmcb.gdtr.limit as u16,
        idtr_base: vmcb.idtr.base,
        idtr_limit: vmcb.idtr.limit as u16,
        dr0,
        dr1,
        dr2,
        dr3,
        dr6: vmcb.dr6,
        dr7: vmcb.dr7,
        star: vmcb.star,
        lstar: vmcb.lstar,
        cstar: vmcb.cstar,
        sfmask: vmcb.sfmask as u32,
        kernel_gs_base: vmcb.kernel_gs_base,
        sysenter_cs: vmcb.sysenter_cs as u32,
        sysenter_esp: vmcb.sysenter_esp,
        sysenter_eip: vmcb.sysenter_eip,
        pat: vmcb.pat,
        tsc_aux: vcpu.tsc_aux as u32,
        // Which of the two shadows it is the VMCB does not say; both end with the next instruction.
        interrupt_shadow: if vmcb.interrupt_shadow & 1 != 0 {
            Shadow::Sti
        } else {
            Shadow::None
        },
        nmi_blocked: vcpu.nmi_blocked,
        pending_event: pending(vmcb.event_injection),
        activity: Activity::Running,
        // XCR0 and the TSC are the caller's.
        ..VcpuState::reset()
    }
}

pub(super) fn load(vcpu: &mut SvmVcpu, new: &VcpuState) {
    vcpu.gprs = new.gprs;
    vcpu.debug_addresses = [new.dr0, new.dr1, new.dr2, new.dr3];
    vcpu.tsc_aux = new.tsc_aux.into();
    vcpu.nmi_blocked = new.nmi_blocked;
    vcpu.iret_rip = None;
    vcpu.flush = true;
    vcpu.set_msr(SwitchedMsr::Efer, new.efer);
    let vmcb = vcpu.vmcb_mut();
    vmcb.rsp = new.gprs[Gpr::Rsp as usize];
    vmcb.rip = new.rip;
    vmcb.rflags = new.rflags;
    vmcb.cr0 = new.cr0;
    vmcb.cr2 = new.cr2;
    vmcb.cr3 = new.cr3;
    vmcb.cr4 = new.cr4;
    vmcb.virtual_interrupt = vmcb.virtual_interrupt & !virtual_interrupt::TPR | new.cr8;
    vmcb.es = vmcb_segment(&new.es);
    vmcb.cs = vmcb_segment(&new.cs);
    vmcb.ss = vmcb_segment(&new.ss);
    vmcb.ds = vmcb_segment(&new.ds);
    vmcb.fs = vmcb_segment(&new.fs);
    vmcb.gs = vmcb_segment(&new.gs);
    vmcb.tr = vmcb_task_register(&new.tr);
    vmcb.ldtr = vmcb_segment(&new.ldtr);
    vmcb.cpl = new.cpl();
    vmcb.gdtr = VmcbSegment {
        selector: 0,
        attributes: 0,
        limit: new.gdtr_limit.into(),
        base: new.gdtr_base,
    };
    vmcb.idtr = VmcbSegment {
        selector: 0,
        attributes: 0,
        limit: new.idtr_limit.into(),
        base: new.idtr_base,
    };
    vmcb.dr6 = new.dr6;
    vmcb.dr7 = new.dr7;
    vmcb.star = new.star;
    vmcb.lstar = new.lstar;
    vmcb.cstar = new.cstar;
    vmcb.sfmask = new.sfmask.into();
    vmcb.kernel_gs_base = new.kernel_gs_base;
    vmcb.sysenter_cs = new.sysenter_cs.into();
    vmcb.sysenter_esp = new.sysenter_esp;
    vmcb.sysenter_eip = new.sysenter_eip;
    vmcb.pat = new.pat;
    vmcb.interrupt_shadow = u64::from(new.interrupt_shadow != Shadow::None);
    vmcb.event_injection = injection(new.pending_event.as_ref());
}
