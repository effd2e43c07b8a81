//! Feature masks: what may be passed on where the host has it. A policy is known by its name, which a domain keeps wherever it
//! goes; what a host lacks of it is missing there, so that whoever moves a domain compares.

/// Which features a domain's CPUs have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyName {
    /// What CPUs of both vendors have had for years: up to AVX2, without what is laid out differently (protection keys, AVX-512) and
    /// without promises about the TSC that another host does not keep.
    Portable,
    /// Everything of this host that its guests can use.
    Host,
}

/// The masks of a policy. What is not in them is hidden, so that a feature nobody has thought about is never passed on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Masks {
    pub(super) leaf1_ecx: u32,
    pub(super) leaf7_ebx: u32,
    pub(super) leaf7_ecx: u32,
    pub(super) leaf7_edx: u32,
    pub(super) extended1_ecx: u32,
    pub(super) extended1_edx: u32,
    pub(super) xsave_eax: u32,
    pub(super) extended7_edx: u32,
    /// Components of the extended state.
    pub(super) xcr0: u64,
}

/// Leaf 1 ECX: x2APIC, TSC deadline, hypervisor present.
pub(super) const LEAF1_ECX_ALWAYS: u32 = 1 << 21 | 1 << 24 | 1 << 31;
/// OSXSAVE mirrors CR4.
pub(super) const LEAF1_ECX_OSXSAVE: u32 = 1 << 27;
/// Leaf 1 EDX: FPU, VME, DE, PSE, TSC, MSR, PAE, MCE, CX8, APIC, SEP, MTRR, PGE, MCA, CMOV, PAT,
/// PSE36, CLFSH, MMX, FXSR, SSE, SSE2, SS. Not PSN, DS, ACPI thermal, HTT, TM, PBE.
pub(super) const LEAF1_EDX: u32 = 0x0f8b_fbff;
/// OSPKE mirrors CR4.
pub(super) const LEAF7_ECX_OSPKE: u32 = 1 << 4;
/// Leaf 0Dh subleaf 1 EAX: XSAVEC.
pub(super) const XSAVEC: u32 = 1 << 1;
/// Leaf 7 EBX: ERMS.
pub(super) const ERMS: u32 = 1 << 9;
/// Leaf 7 EBX: SMAP.
pub(super) const SMAP: u32 = 1 << 20;
/// Leaf 8000_0001 EDX: RDTSCP.
pub(super) const RDTSCP: u32 = 1 << 27;
/// CR4.OSXSAVE.
pub(super) const CR4_OSXSAVE: u64 = 1 << 18;
/// CR4.PKE.
pub(super) const CR4_PKE: u64 = 1 << 22;

const fn bits(list: &[u32]) -> u32 {
    let (mut mask, mut index) = (0, 0);
    while index < list.len() {
        mask |= 1 << list[index];
        index += 1;
    }
    mask
}

const HOST: Masks = Masks {
    // SSE3, PCLMUL, SSSE3, FMA, CX16, PCID, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, XSAVE, AVX, F16C, RDRAND. Not MONITOR, DS, VMX, SMX,
    // EST, TM2, PDCM, xTPR, DCA.
    leaf1_ecx: bits(&[0, 1, 9, 12, 13, 17, 19, 20, 22, 23, 25, 26, 28, 29, 30]),
    // FSGSBASE, BMI1, AVX2, SMEP, BMI2, ERMS, INVPCID, AVX-512 F and DQ, RDSEED, ADX, SMAP, AVX-512 IFMA, CLFLUSHOPT, CLWB, AVX-512 CD,
    // SHA, AVX-512 BW and VL.
    leaf7_ebx: bits(&[
        0, 3, 5, 7, 8, 9, 10, 16, 17, 18, 19, 20, 21, 23, 24, 28, 29, 30, 31,
    ]),
    // AVX512_VBMI, UMIP, PKU, VBMI2, GFNI, VAES, VPCLMULQDQ, VNNI, BITALG, VPOPCNTDQ, RDPID.
    leaf7_ecx: bits(&[1, 2, 3, 6, 8, 9, 10, 11, 12, 14, 22]),
    // FSRM, MD_CLEAR.
    leaf7_edx: bits(&[4, 10]),
    // LAHF, the long-mode CR8 alias, ABM, SSE4A, misaligned SSE, PREFETCHW.
    extended1_ecx: bits(&[0, 4, 5, 6, 7, 8]),
    // The copies of leaf 1 that AMD keeps, SYSCALL, NX, MMXEXT, 1 GiB pages, RDTSCP, long mode.
    extended1_edx: 0x0183_f3ff | bits(&[11, 20, 22, 26, 27, 29]),
    // XSAVEOPT, XSAVEC, XGETBV(1). Not XSAVES (it would need IA32_XSS).
    xsave_eax: bits(&[0, 1, 2]),
    // Invariant TSC.
    extended7_edx: bits(&[8]),
    // x87, SSE, AVX, AVX-512 (three), PKRU. Not MPX, PT, CET, AMX.
    xcr0: 0b10_1110_0111,
};

const PORTABLE: Masks = Masks {
    // Without PCID.
    leaf1_ecx: HOST.leaf1_ecx & !bits(&[17]),
    // Without ERMS (firmware can take it away, and AMD's CPUs got it late), INVPCID, AVX-512, CLWB, SHA.
    leaf7_ebx: bits(&[0, 3, 5, 7, 8, 18, 19, 20, 23]),
    leaf7_ecx: 0,
    // MD_CLEAR: a mitigation that is there is not hidden.
    leaf7_edx: bits(&[10]),
    // Without the CR8 alias, SSE4A and misaligned SSE, which Intel's CPUs lack.
    extended1_ecx: bits(&[0, 5, 8]),
    // Without MMXEXT.
    extended1_edx: HOST.extended1_edx & !bits(&[22]),
    // XSAVEOPT.
    xsave_eax: bits(&[0]),
    extended7_edx: 0,
    // x87, SSE, AVX.
    xcr0: 0b111,
};

impl PolicyName {
    pub(super) const fn masks(self) -> &'static Masks {
        match self {
            PolicyName::Portable => &PORTABLE,
            PolicyName::Host => &HOST,
        }
    }

    /// By its number in a `DomainConfig`; `None`: there is no such policy.
    pub const fn from_number(number: u32) -> Option<PolicyName> {
        match number {
            godwit_abi::CPU_POLICY_PORTABLE => Some(PolicyName::Portable),
            godwit_abi::CPU_POLICY_HOST => Some(PolicyName::Host),
            _unknown => None,
        }
    }
}
