//! The two-way table between a [`VcpuState`] and a vCPU of the fake back end.

use godwit_records::VcpuState;

use super::bits;
use super::vcpu::{FakeVcpu, NOT_RSP, Word};
use crate::hardware::{Gpr, SegmentName, VcpuHardware};

pub(super) fn save(vcpu: &FakeVcpu) -> VcpuState {
    let mut gprs = vcpu.gprs;
    gprs[Gpr::Rsp as usize] = vcpu.rsp();
    VcpuState {
        gprs,
        rip: vcpu.rip(),
        rflags: vcpu.rflags(),
        cr0: vcpu.word(Word::Cr0),
        cr2: vcpu.word(Word::Cr2),
        cr3: vcpu.word(Word::Cr3),
        cr4: vcpu.word(Word::Cr4),
        cr8: vcpu.virtual_tpr.unwrap_or(0).into(),
        efer: vcpu.word(Word::Efer),
        cs: vcpu.segment(SegmentName::Cs),
        ds: vcpu.segment(SegmentName::Ds),
        es: vcpu.segment(SegmentName::Es),
        fs: vcpu.segment(SegmentName::Fs),
        gs: vcpu.segment(SegmentName::Gs),
        ss: vcpu.segment(SegmentName::Ss),
        tr: vcpu.segment(SegmentName::Tr),
        ldtr: vcpu.segment(SegmentName::Ldtr),
        gdtr_base: vcpu.word(Word::GdtrBase),
        gdtr_limit: vcpu.word(Word::GdtrLimit) as u16,
        idtr_base: vcpu.word(Word::IdtrBase),
        idtr_limit: vcpu.word(Word::IdtrLimit) as u16,
        dr0: vcpu.word(Word::Dr0),
        dr1: vcpu.word(Word::Dr1),
        dr2: vcpu.word(Word::Dr2),
        dr3: vcpu.word(Word::Dr3),
        dr6: vcpu.word(Word::Dr6),
        dr7: vcpu.word(Word::Dr7),
        star: vcpu.word(Word::Star),
        lstar: vcpu.word(Word::Lstar),
        cstar: vcpu.word(Word::Cstar),
        sfmask: vcpu.word(Word::Sfmask) as u32,
        kernel_gs_base: vcpu.word(Word::KernelGsBase),
        sysenter_cs: vcpu.word(Word::SysenterCs) as u32,
        sysenter_esp: vcpu.word(Word::SysenterEsp),
        sysenter_eip: vcpu.word(Word::SysenterEip),
        pat: vcpu.word(Word::Pat),
        tsc_aux: vcpu.word(Word::TscAux) as u32,
        interrupt_shadow: vcpu.shadow,
        nmi_blocked: vcpu.nmi_blocked,
        pending_event: vcpu.event(),
        activity: vcpu.activity,
        // XCR0 and the TSC are the caller's.
        ..VcpuState::reset()
    }
}

pub(super) fn load(vcpu: &mut FakeVcpu, state: &VcpuState) {
    vcpu.gprs = state.gprs;
    vcpu.gprs[Gpr::Rsp as usize] = NOT_RSP;
    for (word, value) in [
        (Word::Rsp, state.gprs[Gpr::Rsp as usize]),
        (Word::Rip, state.rip),
        (Word::Rflags, state.rflags),
        (Word::Cr0, state.cr0),
        (Word::Cr2, state.cr2),
        (Word::Cr3, state.cr3),
        (Word::Cr4, state.cr4),
        (Word::Efer, state.efer),
        (Word::GdtrBase, state.gdtr_base),
        (Word::GdtrLimit, state.gdtr_limit.into()),
        (Word::IdtrBase, state.idtr_base),
        (Word::IdtrLimit, state.idtr_limit.into()),
        (Word::Dr0, state.dr0),
        (Word::Dr1, state.dr1),
        (Word::Dr2, state.dr2),
        (Word::Dr3, state.dr3),
        (Word::Dr6, state.dr6),
        (Word::Dr7, state.dr7),
        (Word::Star, state.star),
        (Word::Lstar, state.lstar),
        (Word::Cstar, state.cstar),
        (Word::Sfmask, state.sfmask.into()),
        (Word::KernelGsBase, state.kernel_gs_base),
        (Word::SysenterCs, state.sysenter_cs.into()),
        (Word::SysenterEsp, state.sysenter_esp),
        (Word::SysenterEip, state.sysenter_eip),
        (Word::Pat, state.pat),
        (Word::TscAux, state.tsc_aux.into()),
    ] {
        vcpu.set_word(word, value);
    }
    for (name, segment) in [
        (SegmentName::Cs, state.cs),
        (SegmentName::Ds, state.ds),
        (SegmentName::Es, state.es),
        (SegmentName::Fs, state.fs),
        (SegmentName::Gs, state.gs),
        (SegmentName::Ss, state.ss),
        (SegmentName::Tr, state.tr),
        (SegmentName::Ldtr, state.ldtr),
    ] {
        vcpu.set_segment(name, segment);
    }
    vcpu.virtual_tpr = vcpu.virtual_tpr.map(|_| state.cr8 as u8);
    vcpu.event = state
        .pending_event
        .as_ref()
        .map(bits::encode)
        .unwrap_or_default();
    vcpu.shadow = state.interrupt_shadow;
    vcpu.nmi_blocked = state.nmi_blocked;
    vcpu.activity = state.activity;
}
