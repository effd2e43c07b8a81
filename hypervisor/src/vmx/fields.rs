//! The fields of a VMCS that the hypervisor uses, by encoding (SDM 3D appendix B).

/// A VMCS field encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Field(pub(super) u32);

macro_rules! fields {
    ($($NAME:ident = $encoding:literal $text:literal,)+) => {
        #[allow(missing_docs)]
        impl Field {
            $(pub(super) const $NAME: Field = Field($encoding);)+

            /// Every field with its name in the manual, in the order of a dump.
            pub(super) const NAMES: &[(Field, &str)] = &[$((Field::$NAME, $text)),+];
        }
    };
}

fields! {
    EXIT_REASON = 0x4402 "Exit reason",
    EXIT_QUALIFICATION = 0x6400 "Exit qualification",
    VM_INSTRUCTION_ERROR = 0x4400 "VM-instruction error",
    EXIT_INTERRUPTION = 0x4404 "VM-exit interruption information",
    EXIT_INTERRUPTION_ERROR = 0x4406 "VM-exit interruption error code",
    IDT_VECTORING = 0x4408 "IDT-vectoring information",
    IDT_VECTORING_ERROR = 0x440a "IDT-vectoring error code",
    EXIT_INSTRUCTION_LENGTH = 0x440c "VM-exit instruction length",
    EXIT_INSTRUCTION_INFORMATION = 0x440e "VM-exit instruction information",
    GUEST_PHYSICAL_ADDRESS = 0x2400 "Guest-physical address",
    GUEST_LINEAR_ADDRESS = 0x640a "Guest-linear address",

    GUEST_RIP = 0x681e "Guest RIP",
    GUEST_RSP = 0x681c "Guest RSP",
    GUEST_RFLAGS = 0x6820 "Guest RFLAGS",
    GUEST_CR0 = 0x6800 "Guest CR0",
    GUEST_CR3 = 0x6802 "Guest CR3",
    GUEST_CR4 = 0x6804 "Guest CR4",
    GUEST_DR7 = 0x681a "Guest DR7",
    GUEST_EFER = 0x2806 "Guest IA32_EFER",
    GUEST_PAT = 0x2804 "Guest IA32_PAT",
    GUEST_DEBUGCTL = 0x2802 "Guest IA32_DEBUGCTL",
    GUEST_SYSENTER_CS = 0x482a "Guest IA32_SYSENTER_CS",
    GUEST_SYSENTER_ESP = 0x6824 "Guest IA32_SYSENTER_ESP",
    GUEST_SYSENTER_EIP = 0x6826 "Guest IA32_SYSENTER_EIP",
    GUEST_ES_SELECTOR = 0x0800 "Guest ES selector",
    GUEST_CS_SELECTOR = 0x0802 "Guest CS selector",
    GUEST_SS_SELECTOR = 0x0804 "Guest SS selector",
    GUEST_DS_SELECTOR = 0x0806 "Guest DS selector",
    GUEST_FS_SELECTOR = 0x0808 "Guest FS selector",
    GUEST_GS_SELECTOR = 0x080a "Guest GS selector",
    GUEST_LDTR_SELECTOR = 0x080c "Guest LDTR selector",
    GUEST_TR_SELECTOR = 0x080e "Guest TR selector",
    GUEST_ES_BASE = 0x6806 "Guest ES base",
    GUEST_CS_BASE = 0x6808 "Guest CS base",
    GUEST_SS_BASE = 0x680a "Guest SS base",
    GUEST_DS_BASE = 0x680c "Guest DS base",
    GUEST_FS_BASE = 0x680e "Guest FS base",
    GUEST_GS_BASE = 0x6810 "Guest GS base",
    GUEST_LDTR_BASE = 0x6812 "Guest LDTR base",
    GUEST_TR_BASE = 0x6814 "Guest TR base",
    GUEST_ES_LIMIT = 0x4800 "Guest ES limit",
    GUEST_CS_LIMIT = 0x4802 "Guest CS limit",
    GUEST_SS_LIMIT = 0x4804 "Guest SS limit",
    GUEST_DS_LIMIT = 0x4806 "Guest DS limit",
    GUEST_FS_LIMIT = 0x4808 "Guest FS limit",
    GUEST_GS_LIMIT = 0x480a "Guest GS limit",
    GUEST_LDTR_LIMIT = 0x480c "Guest LDTR limit",
    GUEST_TR_LIMIT = 0x480e "Guest TR limit",
    GUEST_ES_RIGHTS = 0x4814 "Guest ES access rights",
    GUEST_CS_RIGHTS = 0x4816 "Guest CS access rights",
    GUEST_SS_RIGHTS = 0x4818 "Guest SS access rights",
    GUEST_DS_RIGHTS = 0x481a "Guest DS access rights",
    GUEST_FS_RIGHTS = 0x481c "Guest FS access rights",
    GUEST_GS_RIGHTS = 0x481e "Guest GS access rights",
    GUEST_LDTR_RIGHTS = 0x4820 "Guest LDTR access rights",
    GUEST_TR_RIGHTS = 0x4822 "Guest TR access rights",
    GUEST_GDTR_BASE = 0x6816 "Guest GDTR base",
    GUEST_GDTR_LIMIT = 0x4810 "Guest GDTR limit",
    GUEST_IDTR_BASE = 0x6818 "Guest IDTR base",
    GUEST_IDTR_LIMIT = 0x4812 "Guest IDTR limit",
    GUEST_PDPTE0 = 0x280a "Guest PDPTE0",
    GUEST_PDPTE1 = 0x280c "Guest PDPTE1",
    GUEST_PDPTE2 = 0x280e "Guest PDPTE2",
    GUEST_PDPTE3 = 0x2810 "Guest PDPTE3",
    GUEST_ACTIVITY = 0x4826 "Guest activity state",
    GUEST_INTERRUPTIBILITY = 0x4824 "Guest interruptibility state",
    GUEST_PENDING_DEBUG = 0x6822 "Guest pending debug exceptions",
    LINK_POINTER = 0x2800 "VMCS link pointer",
    PREEMPTION_TIMER = 0x482e "VMX-preemption timer value",
    PML_INDEX = 0x0812 "PML index",

    PIN_CONTROLS = 0x4000 "Pin-based VM-execution controls",
    PRIMARY_CONTROLS = 0x4002 "Primary processor-based VM-execution controls",
    SECONDARY_CONTROLS = 0x401e "Secondary processor-based VM-execution controls",
    EXIT_CONTROLS = 0x400c "VM-exit controls",
    ENTRY_CONTROLS = 0x4012 "VM-entry controls",
    EXCEPTION_BITMAP = 0x4004 "Exception bitmap",
    PAGE_FAULT_MASK = 0x4006 "Page-fault error-code mask",
    PAGE_FAULT_MATCH = 0x4008 "Page-fault error-code match",
    CR3_TARGET_COUNT = 0x400a "CR3-target count",
    EXIT_MSR_STORE_COUNT = 0x400e "VM-exit MSR-store count",
    EXIT_MSR_LOAD_COUNT = 0x4010 "VM-exit MSR-load count",
    ENTRY_MSR_LOAD_COUNT = 0x4014 "VM-entry MSR-load count",
    ENTRY_INTERRUPTION = 0x4016 "VM-entry interruption information",
    ENTRY_EXCEPTION_ERROR = 0x4018 "VM-entry exception error code",
    ENTRY_INSTRUCTION_LENGTH = 0x401a "VM-entry instruction length",
    PAUSE_GAP = 0x4020 "PLE_Gap",
    PAUSE_WINDOW = 0x4022 "PLE_Window",
    CR0_MASK = 0x6000 "CR0 guest/host mask",
    CR4_MASK = 0x6002 "CR4 guest/host mask",
    CR0_SHADOW = 0x6004 "CR0 read shadow",
    CR4_SHADOW = 0x6006 "CR4 read shadow",
    VPID = 0x0000 "Virtual-processor identifier",
    EPT_POINTER = 0x201a "EPT pointer",
    IO_BITMAP_A = 0x2000 "Address of I/O bitmap A",
    IO_BITMAP_B = 0x2002 "Address of I/O bitmap B",
    MSR_BITMAP = 0x2004 "Address of MSR bitmaps",
    TSC_OFFSET = 0x2010 "TSC offset",
    PML_ADDRESS = 0x200e "PML address",
    XSS_EXITING = 0x202c "XSS-exiting bitmap",
    ENCLS_EXITING = 0x202e "ENCLS-exiting bitmap",

    HOST_CR0 = 0x6c00 "Host CR0",
    HOST_CR3 = 0x6c02 "Host CR3",
    HOST_CR4 = 0x6c04 "Host CR4",
    HOST_RSP = 0x6c14 "Host RSP",
    HOST_RIP = 0x6c16 "Host RIP",
    HOST_ES_SELECTOR = 0x0c00 "Host ES selector",
    HOST_CS_SELECTOR = 0x0c02 "Host CS selector",
    HOST_SS_SELECTOR = 0x0c04 "Host SS selector",
    HOST_DS_SELECTOR = 0x0c06 "Host DS selector",
    HOST_FS_SELECTOR = 0x0c08 "Host FS selector",
    HOST_GS_SELECTOR = 0x0c0a "Host GS selector",
    HOST_TR_SELECTOR = 0x0c0c "Host TR selector",
    HOST_FS_BASE = 0x6c06 "Host FS base",
    HOST_GS_BASE = 0x6c08 "Host GS base",
    HOST_TR_BASE = 0x6c0a "Host TR base",
    HOST_GDTR_BASE = 0x6c0c "Host GDTR base",
    HOST_IDTR_BASE = 0x6c0e "Host IDTR base",
    HOST_SYSENTER_CS = 0x4c00 "Host IA32_SYSENTER_CS",
    HOST_SYSENTER_ESP = 0x6c10 "Host IA32_SYSENTER_ESP",
    HOST_SYSENTER_EIP = 0x6c12 "Host IA32_SYSENTER_EIP",
    HOST_EFER = 0x2c02 "Host IA32_EFER",
    HOST_PAT = 0x2c00 "Host IA32_PAT",
}

/// The four fields of a guest segment.
#[derive(Clone, Copy)]
pub(super) struct SegmentFields {
    pub(super) selector: Field,
    pub(super) base: Field,
    pub(super) limit: Field,
    pub(super) rights: Field,
}

impl Field {
    /// Guest segment fields lie two encodings apart, in the order of `SegmentName`.
    pub(super) const fn segment(index: u32) -> SegmentFields {
        assert!(index < 8);
        SegmentFields {
            selector: Field(Field::GUEST_ES_SELECTOR.0 + 2 * index),
            base: Field(Field::GUEST_ES_BASE.0 + 2 * index),
            limit: Field(Field::GUEST_ES_LIMIT.0 + 2 * index),
            rights: Field(Field::GUEST_ES_RIGHTS.0 + 2 * index),
        }
    }

    /// One of the four page-directory-pointer entries.
    pub(super) const fn pdpte(index: u32) -> Field {
        assert!(index < 4);
        Field(Field::GUEST_PDPTE0.0 + 2 * index)
    }
}

const _: () = {
    assert!(Field::segment(7).selector.0 == Field::GUEST_TR_SELECTOR.0);
    assert!(Field::segment(7).base.0 == Field::GUEST_TR_BASE.0);
    assert!(Field::segment(7).limit.0 == Field::GUEST_TR_LIMIT.0);
    assert!(Field::segment(7).rights.0 == Field::GUEST_TR_RIGHTS.0);
    assert!(Field::pdpte(3).0 == Field::GUEST_PDPTE3.0);
};
