//! Which bits of CR0 and CR4 the hypervisor keeps for itself, and what the guest sees instead (SDM 3C 25.6.6).
//!
//! A bit in the guest/host mask is ours: the guest reads the shadow, and a MOV that would change the shadow exits. NE and
//! VMXE have to be 1 in VMX operation (SDM 3C 24.8); CD and NW would switch off the host's caches; bits of CR4 that stand for
//! state we do not switch are not to be had.

/// CR0.PE.
pub const CR0_PE: u64 = 1;
/// CR0.NW.
pub const CR0_NW: u64 = 1 << 29;
/// CR0.CD.
pub const CR0_CD: u64 = 1 << 30;
/// CR0.PG.
pub const CR0_PG: u64 = 1 << 31;
/// CR4.PAE.
pub const CR4_PAE: u64 = 1 << 5;
/// CR4.VMXE.
pub const CR4_VMXE: u64 = 1 << 13;
/// EFER.LME.
pub const EFER_LME: u64 = 1 << 8;
/// EFER.LMA.
pub const EFER_LMA: u64 = 1 << 10;

/// CR4 bits a guest switches without asking: VME, PVI, TSD, DE, PSE, PAE, MCE, PGE, PCE, OSFXSR, OSXMMEXCPT, UMIP,
/// FSGSBASE, PCIDE, OSXSAVE, SMEP, SMAP.
pub const CR4_GUEST: u64 = 0x7ff | 1 << 11 | 1 << 16 | 1 << 17 | 1 << 18 | 1 << 20 | 1 << 21;

/// IA32_VMX_CR0_FIXED0/1 and IA32_VMX_CR4_FIXED0/1 (SDM 3D appendix A.7, A.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FixedBits {
    /// CR0 bits that must be 1.
    pub cr0_ones: u64,
    /// CR0 bits that may be 1.
    pub cr0_allowed: u64,
    /// CR4 bits that must be 1.
    pub cr4_ones: u64,
    /// CR4 bits that may be 1.
    pub cr4_allowed: u64,
}

/// A guest's control register as the processor gets it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shadowed {
    /// The guest's register field.
    pub real: u64,
    /// The read shadow.
    pub shadow: u64,
}

impl FixedBits {
    /// Bits of CR0 that must be 1 in a guest; an unrestricted one is free in PE and PG (SDM 3C 27.3.1.1).
    pub const fn cr0_guest_ones(&self) -> u64 {
        self.cr0_ones & !(CR0_PE | CR0_PG)
    }

    /// Guest/host mask of CR0.
    pub const fn cr0_mask(&self) -> u64 {
        self.cr0_guest_ones() | CR0_NW | CR0_CD
    }

    /// Guest/host mask of CR4.
    pub const fn cr4_mask(&self) -> u64 {
        !(CR4_GUEST & self.cr4_allowed) | self.cr4_ones
    }

    /// For a CR0 that the guest is to read as `value`.
    pub const fn cr0(&self, value: u64) -> Shadowed {
        Shadowed {
            real: (value & !(CR0_NW | CR0_CD) | self.cr0_guest_ones()) & self.cr0_allowed,
            shadow: value,
        }
    }

    /// For a CR4 that the guest is to read as `value`.
    pub const fn cr4(&self, value: u64) -> Shadowed {
        Shadowed {
            real: (value | self.cr4_ones) & self.cr4_allowed,
            shadow: value,
        }
    }
}

/// What to do about a MOV to CR0 that changes bits of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cr0Write {
    /// #GP(0): a combination the architecture refuses (SDM 3A 2.5).
    Refuse,
    /// Set this read shadow and execute the instruction again. It does not exit then, and the processor itself does what
    /// goes with the other bits: checks, long mode, loading of the page-directory pointers.
    Retry {
        /// The read shadow.
        shadow: u64,
    },
}

/// Decides about a MOV of `value` to CR0.
pub const fn cr0_write(value: u64) -> Cr0Write {
    if value >> 32 != 0 || value & CR0_NW != 0 && value & CR0_CD == 0 {
        return Cr0Write::Refuse;
    }
    Cr0Write::Retry { shadow: value }
}
