//! A vCPU's whole state to and from its record: the two-way table of this back end.
//!
//! Not from here: CR8 (the local APIC's), XCR0 (the extended state's), the TSC, and whether the vCPU runs or waits: entries
//! always start an active processor, and a HLT has exited before it halts.

use godwit_records::{Activity, PendingEvent, Shadow, VcpuState};
use godwit_vmm::exit::vmx::access_rights;
use godwit_vmm::exit::vmx::control::{CR0_PG, CR4_PAE, EFER_LMA};
use godwit_vmm::exit::vmx::event::Injection;
use godwit_vmm::hardware::{Control, Event, Gpr, SegmentName, SwitchedMsr, VcpuHardware, vector};

use super::fields::Field;
use super::hardware::{BLOCKED_BY_NMI, PENDING_STEP, SHADOW_MOV_SS, SHADOW_STI};
use super::vcpu::{Cached, STALE_LINEAR, STALE_NESTED, Vcpu, read_debug, write_debug};

/// DR6 and DR7 have 32 bits; bit 10 of DR7 is always 1.
const DEBUG_REGISTER: u64 = 0xffff_ffff;
const DR7_ONE: u64 = 1 << 10;
/// Pending debug exceptions: breakpoint conditions met, and "enabled breakpoint".
const PENDING_CONDITIONS: u64 = 0xf;
const PENDING_BREAKPOINT: u64 = 1 << 12;
/// A page-directory-pointer entry that no entry accepts: present, reserved bits set.
const INVALID_PDPTE: u64 = 0x1e7;
const ACTIVE: u64 = 0;
const NO_LINK: u64 = u64::MAX;

impl Vcpu {
    pub(super) fn save_state(&self) -> VcpuState {
        let mut gprs = self.gprs;
        gprs[Gpr::Rsp as usize] = self.rsp();
        let ([dr0, dr1, dr2, dr3], dr6) = read_debug();
        let (pending_event, conditions) = self.save_event();
        let interruptibility = self.cached(Cached::Interruptibility);
        VcpuState {
            gprs,
            rip: self.rip(),
            rflags: self.rflags(),
            cr0: self.control(Control::Cr0),
            cr2: self.control(Control::Cr2),
            cr3: self.control(Control::Cr3),
            cr4: self.control(Control::Cr4),
            efer: self.msr(SwitchedMsr::Efer),
            cs: self.segment(SegmentName::Cs),
            ds: self.segment(SegmentName::Ds),
            es: self.segment(SegmentName::Es),
            fs: self.segment(SegmentName::Fs),
            gs: self.segment(SegmentName::Gs),
            ss: self.segment(SegmentName::Ss),
            tr: self.segment(SegmentName::Tr),
            ldtr: self.segment(SegmentName::Ldtr),
            gdtr_base: self.field(Field::GUEST_GDTR_BASE),
            gdtr_limit: self.field(Field::GUEST_GDTR_LIMIT) as u16,
            idtr_base: self.field(Field::GUEST_IDTR_BASE),
            idtr_limit: self.field(Field::GUEST_IDTR_LIMIT) as u16,
            dr0,
            dr1,
            dr2,
            dr3,
            dr6: dr6 | conditions,
            dr7: self.field(Field::GUEST_DR7),
            star: self.msr(SwitchedMsr::Star),
            lstar: self.msr(SwitchedMsr::Lstar),
            cstar: self.msr(SwitchedMsr::Cstar),
            sfmask: self.msr(SwitchedMsr::Sfmask) as u32,
            kernel_gs_base: self.msr(SwitchedMsr::KernelGsBase),
            sysenter_cs: self.msr(SwitchedMsr::SysenterCs) as u32,
            sysenter_esp: self.msr(SwitchedMsr::SysenterEsp),
            sysenter_eip: self.msr(SwitchedMsr::SysenterEip),
            pat: self.msr(SwitchedMsr::Pat),
            tsc_aux: self.msr(SwitchedMsr::TscAux) as u32,
            interrupt_shadow: match interruptibility & (SHADOW_STI | SHADOW_MOV_SS) {
                0 => Shadow::None,
                SHADOW_STI => Shadow::Sti,
                _ => Shadow::MovSs,
            },
            nmi_blocked: interruptibility & BLOCKED_BY_NMI != 0,
            pending_event,
            activity: Activity::Running,
            ..VcpuState::reset()
        }
    }

    /// The event of the next entry, and what its delivery adds to DR6. A debug trap that is pending only in VT-x's own way
    /// becomes a #DB; next to another event it is dropped, as VT-x itself does.
    fn save_event(&self) -> (Option<PendingEvent>, u64) {
        if self.pending {
            let injection = Injection {
                information: self.field(Field::ENTRY_INTERRUPTION) as u32,
                error_code: self.field(Field::ENTRY_EXCEPTION_ERROR) as u32,
                instruction_length: self.field(Field::ENTRY_INSTRUCTION_LENGTH) as u32,
            };
            return (injection.to_record(), 0);
        }
        let debug = self.field(Field::GUEST_PENDING_DEBUG);
        if debug & (PENDING_STEP | PENDING_BREAKPOINT) == 0 {
            return (None, 0);
        }
        let event = Injection::of_event(Event::Exception(vector::DEBUG, None), true);
        (
            event.to_record(),
            debug & (PENDING_STEP | PENDING_CONDITIONS),
        )
    }

    pub(super) fn load_state(&mut self, state: &VcpuState) {
        self.gprs = state.gprs;
        self.set_field(Field::GUEST_RSP, state.gprs[Gpr::Rsp as usize]);
        self.set_cached(Cached::Rip, state.rip);
        self.set_cached(Cached::Rflags, state.rflags);
        self.set_control(Control::Cr0, state.cr0);
        self.set_control(Control::Cr2, state.cr2);
        self.set_control(Control::Cr3, state.cr3);
        self.set_control(Control::Cr4, state.cr4);
        self.set_efer(state.efer);
        self.load_segments(state);
        self.load_debug(state);
        self.load_msrs(state);
        let pae = state.cr0 & CR0_PG != 0 && state.cr4 & CR4_PAE != 0 && state.efer & EFER_LMA == 0;
        for index in 0..4 {
            self.set_field(Field::pdpte(index), if pae { INVALID_PDPTE } else { 0 });
        }
        self.load_event(state);
        self.stale = STALE_LINEAR | STALE_NESTED;
    }

    fn load_segments(&mut self, state: &VcpuState) {
        let segments = [
            (SegmentName::Es, state.es),
            (SegmentName::Cs, state.cs),
            (SegmentName::Ss, state.ss),
            (SegmentName::Ds, state.ds),
            (SegmentName::Fs, state.fs),
            (SegmentName::Gs, state.gs),
            (SegmentName::Ldtr, state.ldtr),
            (SegmentName::Tr, state.tr),
        ];
        for (name, segment) in segments {
            let fields = Field::segment(name as u32);
            self.set_field(fields.selector, u64::from(segment.selector));
            self.set_field(fields.base, segment.base);
            self.set_field(fields.limit, u64::from(segment.limit));
            self.set_field(
                fields.rights,
                u64::from(access_rights::of_segment(name, segment)),
            );
        }
        self.set_field(Field::GUEST_GDTR_BASE, state.gdtr_base);
        self.set_field(Field::GUEST_GDTR_LIMIT, u64::from(state.gdtr_limit));
        self.set_field(Field::GUEST_IDTR_BASE, state.idtr_base);
        self.set_field(Field::GUEST_IDTR_LIMIT, u64::from(state.idtr_limit));
    }

    fn load_debug(&mut self, state: &VcpuState) {
        self.set_field(Field::GUEST_DR7, state.dr7 & DEBUG_REGISTER | DR7_ONE);
        self.set_field(Field::GUEST_DEBUGCTL, 0);
        self.set_field(Field::GUEST_PENDING_DEBUG, 0);
        // SAFETY: the vCPU is loaded, so these registers are its own; the host's DR7 is off; the upper half of DR6 is 0.
        unsafe {
            write_debug(
                [state.dr0, state.dr1, state.dr2, state.dr3],
                state.dr6 & DEBUG_REGISTER,
            )
        };
    }

    fn load_msrs(&mut self, state: &VcpuState) {
        let msrs = [
            (SwitchedMsr::Star, state.star),
            (SwitchedMsr::Lstar, state.lstar),
            (SwitchedMsr::Cstar, state.cstar),
            (SwitchedMsr::Sfmask, u64::from(state.sfmask)),
            (SwitchedMsr::KernelGsBase, state.kernel_gs_base),
            (SwitchedMsr::SysenterCs, u64::from(state.sysenter_cs)),
            (SwitchedMsr::SysenterEsp, state.sysenter_esp),
            (SwitchedMsr::SysenterEip, state.sysenter_eip),
            (SwitchedMsr::Pat, state.pat),
            (SwitchedMsr::TscAux, u64::from(state.tsc_aux)),
        ];
        for (msr, value) in msrs {
            self.set_msr(msr, value);
        }
    }

    /// The event due, and what holds others back.
    fn load_event(&mut self, state: &VcpuState) {
        let shadow = match state.interrupt_shadow {
            Shadow::None => 0,
            Shadow::Sti => SHADOW_STI,
            Shadow::MovSs => SHADOW_MOV_SS,
        };
        let blocked = if state.nmi_blocked { BLOCKED_BY_NMI } else { 0 };
        self.set_field(Field::GUEST_ACTIVITY, ACTIVE);
        self.set_field(Field::LINK_POINTER, NO_LINK);
        self.set_cached(Cached::Interruptibility, shadow | blocked);
        self.set_field(Field::ENTRY_INTERRUPTION, 0);
        self.pending = false;
        self.reflected = None;
        let Some(event) = &state.pending_event else {
            return;
        };
        let injection = Injection::of_record(event, self.protected());
        if injection.is_nmi() {
            self.set_nmi_blocked(false);
        }
        // An event that is due ends a shadow, and entries refuse the two together for interrupts and NMIs.
        self.clear_interrupt_shadow();
        self.deliver(injection);
    }
}
