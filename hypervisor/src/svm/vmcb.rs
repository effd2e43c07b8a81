//! The virtual machine control block (APM 2, appendix B), with its offsets asserted.

use core::mem::offset_of;

/// A segment register in the state-save area: attributes with the flags moved to bits 11:8.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct VmcbSegment {
    pub(super) selector: u16,
    pub(super) attributes: u16,
    pub(super) limit: u32,
    pub(super) base: u64,
}

/// The control area and the state-save area.
#[repr(C, align(4096))]
pub(super) struct Vmcb {
    pub(super) intercept_cr: u32,
    pub(super) intercept_dr: u32,
    pub(super) intercept_exceptions: u32,
    pub(super) intercept_1: u32,
    pub(super) intercept_2: u32,
    pub(super) intercept_3: u32,
    _reserved_18: [u8; 0x24],
    pub(super) pause_filter_threshold: u16,
    pub(super) pause_filter_count: u16,
    pub(super) iopm_base: u64,
    pub(super) msrpm_base: u64,
    pub(super) tsc_offset: u64,
    pub(super) asid: u32,
    pub(super) tlb_control: u8,
    _reserved_5d: [u8; 3],
    pub(super) virtual_interrupt: u64,
    pub(super) interrupt_shadow: u64,
    pub(super) exit_code: u64,
    pub(super) exit_info_1: u64,
    pub(super) exit_info_2: u64,
    pub(super) exit_interrupt_info: u64,
    pub(super) nested_control: u64,
    _reserved_98: [u8; 0x10],
    pub(super) event_injection: u64,
    pub(super) nested_cr3: u64,
    pub(super) lbr_control: u64,
    pub(super) clean: u64,
    pub(super) next_rip: u64,
    _reserved_d0: [u8; 0x330],
    pub(super) es: VmcbSegment,
    pub(super) cs: VmcbSegment,
    pub(super) ss: VmcbSegment,
    pub(super) ds: VmcbSegment,
    pub(super) fs: VmcbSegment,
    pub(super) gs: VmcbSegment,
    pub(super) gdtr: VmcbSegment,
    pub(super) ldtr: VmcbSegment,
    pub(super) idtr: VmcbSegment,
    pub(super) tr: VmcbSegment,
    _reserved_4a0: [u8; 0x2b],
    pub(super) cpl: u8,
    _reserved_4cc: [u8; 4],
    pub(super) efer: u64,
    _reserved_4d8: [u8; 0x70],
    pub(super) cr4: u64,
    pub(super) cr3: u64,
    pub(super) cr0: u64,
    pub(super) dr7: u64,
    pub(super) dr6: u64,
    pub(super) rflags: u64,
    pub(super) rip: u64,
    _reserved_580: [u8; 0x58],
    pub(super) rsp: u64,
    _reserved_5e0: [u8; 0x18],
    pub(super) rax: u64,
    pub(super) star: u64,
    pub(super) lstar: u64,
    pub(super) cstar: u64,
    pub(super) sfmask: u64,
    pub(super) kernel_gs_base: u64,
    pub(super) sysenter_cs: u64,
    pub(super) sysenter_esp: u64,
    pub(super) sysenter_eip: u64,
    pub(super) cr2: u64,
    _reserved_648: [u8; 0x20],
    pub(super) pat: u64,
    pub(super) debug_control: u64,
    _reserved_678: [u8; 0x988],
}

const _: () = {
    assert!(size_of::<Vmcb>() == 4096);
    assert!(offset_of!(Vmcb, pause_filter_threshold) == 0x3c);
    assert!(offset_of!(Vmcb, iopm_base) == 0x40);
    assert!(offset_of!(Vmcb, asid) == 0x58);
    assert!(offset_of!(Vmcb, virtual_interrupt) == 0x60);
    assert!(offset_of!(Vmcb, exit_code) == 0x70);
    assert!(offset_of!(Vmcb, nested_control) == 0x90);
    assert!(offset_of!(Vmcb, event_injection) == 0xa8);
    assert!(offset_of!(Vmcb, next_rip) == 0xc8);
    assert!(offset_of!(Vmcb, es) == 0x400);
    assert!(offset_of!(Vmcb, cpl) == 0x4cb);
    assert!(offset_of!(Vmcb, efer) == 0x4d0);
    assert!(offset_of!(Vmcb, cr4) == 0x548);
    assert!(offset_of!(Vmcb, rip) == 0x578);
    assert!(offset_of!(Vmcb, rsp) == 0x5d8);
    assert!(offset_of!(Vmcb, rax) == 0x5f8);
    assert!(offset_of!(Vmcb, cr2) == 0x640);
    assert!(offset_of!(Vmcb, pat) == 0x668);
};

/// Intercepts of MOV to CR4 and to CR8, in `intercept_cr`.
pub(super) const INTERCEPT_CR4_WRITE: u32 = 1 << 20;
/// As above.
pub(super) const INTERCEPT_CR8_WRITE: u32 = 1 << 24;

/// Intercept vector 3 (offset 00Ch).
pub(super) mod intercept_1 {
    pub(in crate::svm) const INTR: u32 = 1;
    pub(in crate::svm) const NMI: u32 = 1 << 1;
    pub(in crate::svm) const SMI: u32 = 1 << 2;
    pub(in crate::svm) const INIT: u32 = 1 << 3;
    pub(in crate::svm) const VINTR: u32 = 1 << 4;
    pub(in crate::svm) const RDPMC: u32 = 1 << 15;
    pub(in crate::svm) const CPUID: u32 = 1 << 18;
    pub(in crate::svm) const IRET: u32 = 1 << 20;
    pub(in crate::svm) const INVD: u32 = 1 << 22;
    pub(in crate::svm) const HLT: u32 = 1 << 24;
    pub(in crate::svm) const INVLPGA: u32 = 1 << 26;
    pub(in crate::svm) const IOIO: u32 = 1 << 27;
    pub(in crate::svm) const MSR: u32 = 1 << 28;
    pub(in crate::svm) const TASK_SWITCH: u32 = 1 << 29;
    pub(in crate::svm) const SHUTDOWN: u32 = 1 << 31;
}

/// Intercept vector 4 (offset 010h): VMRUN, VMMCALL, VMLOAD, VMSAVE, STGI, CLGI, SKINIT, WBINVD,
/// MONITOR, MWAIT, XSETBV.
pub(super) const INTERCEPT_2: u32 = 0x7f | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 13;

/// `virtual_interrupt` (offset 060h).
pub(super) mod virtual_interrupt {
    pub(in crate::svm) const TPR: u64 = 0xff;
    pub(in crate::svm) const IRQ: u64 = 1 << 8;
    pub(in crate::svm) const PRIORITY_HIGHEST: u64 = 15 << 16;
    pub(in crate::svm) const IGNORE_TPR: u64 = 1 << 20;
    pub(in crate::svm) const MASKING: u64 = 1 << 24;
}

/// `event_injection` and `exit_interrupt_info`.
pub(super) mod event {
    pub(in crate::svm) const VALID: u64 = 1 << 31;
    pub(in crate::svm) const ERROR_VALID: u64 = 1 << 11;
    pub(in crate::svm) const EXTERNAL: u64 = 0;
    pub(in crate::svm) const NMI: u64 = 2 << 8;
    pub(in crate::svm) const EXCEPTION: u64 = 3 << 8;
    pub(in crate::svm) const SOFTWARE: u64 = 4 << 8;
    pub(in crate::svm) const KIND: u64 = 7 << 8;
}

/// `tlb_control`: leave translations, drop all, drop this ASID's.
pub(super) const TLB_KEEP: u8 = 0;
/// As above.
pub(super) const TLB_FLUSH_ALL: u8 = 1;
/// As above; needs flush-by-ASID.
pub(super) const TLB_FLUSH_ASID: u8 = 3;
