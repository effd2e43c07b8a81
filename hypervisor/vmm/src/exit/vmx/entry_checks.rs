//! The checks an entry makes on the guest state (SDM 3C 27.3.1), to name what a failed entry does not: the processor says
//! no more than "invalid guest state".
//!
//! Assumed are the controls the VT-x back end sets: unrestricted guest, EPT, "load debug controls", "load IA32_EFER",
//! "load IA32_PAT", virtual NMIs; and no SMM.

#[cfg(test)]
mod tests;

use super::access_rights::UNUSABLE;
use super::control::{CR0_CD, CR0_NW, CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, EFER_LME, FixedBits};
use super::event::{Interruption, Kind};

const CR4_PCIDE: u64 = 1 << 17;
const RFLAGS_TF: u64 = 1 << 8;
const RFLAGS_IF: u64 = 1 << 9;
const RFLAGS_VM: u64 = 1 << 17;
/// Bits 63:22, 15, 5 and 3.
const RFLAGS_ZEROES: u64 = 0xffff_ffff_ffc0_8028;
const ENTRY_IA32E: u32 = 1 << 9;
const TYPE: u32 = 0xf;
const CODE_OR_DATA: u32 = 1 << 4;
const PRESENT: u32 = 1 << 7;
const LONG: u32 = 1 << 13;
const BIG: u32 = 1 << 14;
const GRANULARITY: u32 = 1 << 15;
const RIGHTS_ZEROES: u32 = 0xfffe_0f00;
const TYPE_DATA_WRITE: u32 = 3;
const SHADOW_STI: u32 = 1;
const SHADOW_MOV_SS: u32 = 2;
const BLOCKED_BY_NMI: u32 = 8;
const PENDING_STEP: u64 = 1 << 14;
const LINK_NONE: u64 = u64::MAX;
const CS: usize = 1;
const SS: usize = 2;
const LDTR: usize = 6;
const TR: usize = 7;

/// A segment's four fields.
#[derive(Clone, Copy, Default, Debug)]
#[allow(missing_docs)]
pub struct SegmentFields {
    pub selector: u16,
    pub base: u64,
    pub limit: u32,
    pub rights: u32,
}

impl SegmentFields {
    fn kind(self) -> u32 {
        self.rights & TYPE
    }

    fn dpl(self) -> u32 {
        self.rights >> 5 & 3
    }

    fn usable(self) -> bool {
        self.rights & UNUSABLE == 0
    }

    /// Reserved bits and granularity.
    fn well_formed(self) -> bool {
        let fits = if self.rights & GRANULARITY != 0 {
            self.limit & 0xfff == 0xfff
        } else {
            self.limit >> 20 == 0
        };
        fits && self.rights & RIGHTS_ZEROES == 0
    }
}

/// The fields the checks look at, by their names in the manual.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct GuestArea {
    pub fixed: FixedBits,
    pub physical_bits: u32,
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub dr7: u64,
    pub rip: u64,
    pub rflags: u64,
    pub efer: u64,
    pub pat: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    /// In the order of `SegmentName`: ES, CS, SS, DS, FS, GS, LDTR, TR.
    pub segments: [SegmentFields; 8],
    pub gdtr_base: u64,
    pub gdtr_limit: u32,
    pub idtr_base: u64,
    pub idtr_limit: u32,
    pub pdptes: [u64; 4],
    pub activity: u32,
    pub interruptibility: u32,
    pub pending_debug: u64,
    pub link_pointer: u64,
    pub entry_controls: u32,
    pub entry_interruption: u32,
    pub entry_error_code: u32,
}

fn canonical(address: u64) -> bool {
    (address as i64) << 16 >> 16 == address as i64
}

impl GuestArea {
    fn long_mode(&self) -> bool {
        self.entry_controls & ENTRY_IA32E != 0
    }

    fn virtual_8086(&self) -> bool {
        self.rflags & RFLAGS_VM != 0
    }

    /// Calls `report` with each rule the state violates.
    pub fn violations(&self, report: &mut dyn FnMut(&'static str)) {
        let mut check = |holds: bool, rule: &'static str| {
            if !holds {
                report(rule);
            }
        };
        self.check_control(&mut check);
        self.check_code(&mut check);
        self.check_stack(&mut check);
        self.check_data(&mut check);
        self.check_system_segments(&mut check);
        self.check_flags(&mut check);
        self.check_activity(&mut check);
        self.check_event(&mut check);
        self.check_pointers(&mut check);
    }

    /// SDM 3C 27.3.1.1.
    fn check_control(&self, check: &mut dyn FnMut(bool, &'static str)) {
        let long = self.long_mode();
        let paging = self.cr0 & CR0_PG != 0;
        let ones = self.fixed.cr0_guest_ones();
        let cache_bits = CR0_CD | CR0_NW;
        check(self.cr0 & ones == ones, "CR0: a bit fixed to 1 is 0");
        check(
            self.cr0 & !cache_bits & !self.fixed.cr0_allowed == 0,
            "CR0: a bit fixed to 0 is 1",
        );
        check(!paging || self.cr0 & CR0_PE != 0, "CR0: PG without PE");
        check(
            self.cr4 & self.fixed.cr4_ones == self.fixed.cr4_ones,
            "CR4: a bit fixed to 1 is 0",
        );
        check(
            self.cr4 & !self.fixed.cr4_allowed == 0,
            "CR4: a bit fixed to 0 is 1",
        );
        check(!long || paging, "IA-32e mode guest without CR0.PG");
        check(
            !long || self.cr4 & CR4_PAE != 0,
            "IA-32e mode guest without CR4.PAE",
        );
        check(
            long || self.cr4 & CR4_PCIDE == 0,
            "CR4.PCIDE outside IA-32e mode",
        );
        check(
            self.cr3 >> self.physical_bits == 0,
            "CR3: beyond the physical-address width",
        );
        check(self.dr7 >> 32 == 0, "DR7: bits 63:32 not 0");
        check(
            canonical(self.sysenter_esp),
            "IA32_SYSENTER_ESP not canonical",
        );
        check(
            canonical(self.sysenter_eip),
            "IA32_SYSENTER_EIP not canonical",
        );
        let pat_valid = self
            .pat
            .to_le_bytes()
            .iter()
            .all(|kind| matches!(kind, 0 | 1 | 4..=7));
        check(pat_valid, "IA32_PAT: not a memory type");
        check(
            (self.efer & EFER_LMA != 0) == long,
            "IA32_EFER.LMA differs from IA-32e mode guest",
        );
        let agree = (self.efer & EFER_LMA != 0) == (self.efer & EFER_LME != 0);
        check(
            !paging || agree,
            "IA32_EFER: LMA differs from LME with paging on",
        );
    }

    /// CS: SDM 3C 27.3.1.2.
    fn check_code(&self, check: &mut dyn FnMut(bool, &'static str)) {
        let cs = self.segments[CS];
        if self.virtual_8086() {
            return;
        }
        check(cs.usable(), "CS: unusable");
        check(
            matches!(cs.kind(), TYPE_DATA_WRITE | 9 | 11 | 13 | 15),
            "CS: type",
        );
        check(
            cs.kind() != TYPE_DATA_WRITE || cs.dpl() == 0,
            "CS: data type with DPL not 0",
        );
        let stack_dpl = self.segments[SS].dpl();
        check(
            !matches!(cs.kind(), 9 | 11) || cs.dpl() == stack_dpl,
            "CS: DPL differs from SS.DPL",
        );
        check(
            !matches!(cs.kind(), 13 | 15) || cs.dpl() <= stack_dpl,
            "CS: DPL above SS.DPL",
        );
        let both = self.long_mode() && cs.rights & LONG != 0 && cs.rights & BIG != 0;
        check(!both, "CS: L and D/B both 1");
    }

    /// SS: SDM 3C 27.3.1.2.
    fn check_stack(&self, check: &mut dyn FnMut(bool, &'static str)) {
        let (cs, ss) = (self.segments[CS], self.segments[SS]);
        if self.virtual_8086() {
            return;
        }
        check(!ss.usable() || matches!(ss.kind(), 3 | 7), "SS: type");
        let zero = cs.kind() == TYPE_DATA_WRITE || self.cr0 & CR0_PE == 0;
        check(!zero || ss.dpl() == 0, "SS: DPL not 0 in real mode");
    }

    /// What ES, CS, SS, DS, FS and GS have in common: SDM 3C 27.3.1.2.
    fn check_data(&self, check: &mut dyn FnMut(bool, &'static str)) {
        for (index, segment) in self.segments[..LDTR].iter().copied().enumerate() {
            if self.virtual_8086() {
                let shifted = segment.base == u64::from(segment.selector) << 4;
                check(shifted, "virtual-8086: a base is not 16 times the selector");
                check(segment.limit == 0xffff, "virtual-8086: a limit is not ffff");
                check(
                    segment.rights == 0xf3,
                    "virtual-8086: access rights are not f3",
                );
                continue;
            }
            if index <= 3 {
                let low = segment.base >> 32 == 0 || !segment.usable();
                check(low, "ES, CS, SS or DS: base above 4 GiB");
            } else {
                check(canonical(segment.base), "FS or GS: base not canonical");
            }
            if !segment.usable() {
                continue;
            }
            check(segment.kind() & 1 != 0, "a segment is not accessed");
            let readable = segment.kind() & 0b1010 != 0b1000 || index == CS;
            check(readable, "a data segment register holds unreadable code");
            check(
                segment.rights & CODE_OR_DATA != 0,
                "a segment is a system segment (S is 0)",
            );
            check(segment.rights & PRESENT != 0, "a segment is not present");
            check(
                segment.well_formed(),
                "a segment's G and limit disagree, or a reserved bit is 1",
            );
        }
    }

    /// TR and LDTR: SDM 3C 27.3.1.2.
    fn check_system_segments(&self, check: &mut dyn FnMut(bool, &'static str)) {
        let (tr, ldtr) = (self.segments[TR], self.segments[LDTR]);
        check(tr.usable(), "TR: unusable");
        check(
            tr.kind() == 11 || tr.kind() == 3 && !self.long_mode(),
            "TR: not a busy TSS",
        );
        check(tr.selector & 4 == 0, "TR: selector in the LDT");
        check(canonical(tr.base), "TR: base not canonical");
        check(tr.rights & CODE_OR_DATA == 0, "TR: S is 1");
        check(tr.rights & PRESENT != 0, "TR: not present");
        check(
            tr.well_formed(),
            "TR: G and limit disagree, or a reserved bit is 1",
        );
        if !ldtr.usable() {
            return;
        }
        check(ldtr.kind() == 2, "LDTR: not an LDT");
        check(ldtr.selector & 4 == 0, "LDTR: selector in the LDT");
        check(canonical(ldtr.base), "LDTR: base not canonical");
        check(ldtr.rights & CODE_OR_DATA == 0, "LDTR: S is 1");
        check(ldtr.rights & PRESENT != 0, "LDTR: not present");
        check(
            ldtr.well_formed(),
            "LDTR: G and limit disagree, or a reserved bit is 1",
        );
    }

    /// Descriptor tables, RIP and RFLAGS: SDM 3C 27.3.1.3 and 27.3.1.4.
    fn check_flags(&self, check: &mut dyn FnMut(bool, &'static str)) {
        check(canonical(self.gdtr_base), "GDTR: base not canonical");
        check(canonical(self.idtr_base), "IDTR: base not canonical");
        check(self.gdtr_limit >> 16 == 0, "GDTR: limit above ffff");
        check(self.idtr_limit >> 16 == 0, "IDTR: limit above ffff");
        if self.long_mode() && self.segments[CS].rights & LONG != 0 {
            check(canonical(self.rip), "RIP not canonical");
        } else {
            check(self.rip >> 32 == 0, "RIP above 4 GiB outside 64-bit mode");
        }
        check(
            self.rflags & RFLAGS_ZEROES == 0,
            "RFLAGS: a bit fixed to 0 is 1",
        );
        check(self.rflags & 2 != 0, "RFLAGS: bit 1 is 0");
        let no_v86 = self.long_mode() || self.cr0 & CR0_PE == 0;
        check(
            !no_v86 || !self.virtual_8086(),
            "RFLAGS.VM in IA-32e or real mode",
        );
    }

    /// Activity and interruptibility: SDM 3C 27.3.1.5.
    fn check_activity(&self, check: &mut dyn FnMut(bool, &'static str)) {
        let shadow = self.interruptibility & (SHADOW_STI | SHADOW_MOV_SS);
        check(self.activity <= 3, "activity state: unknown");
        let halted = self.activity == 1;
        check(
            !halted || self.segments[SS].dpl() == 0,
            "activity state: HLT with CPL not 0",
        );
        check(
            shadow == 0 || self.activity == 0,
            "activity state: not active in an STI or MOV SS shadow",
        );
        check(
            self.interruptibility & !0xf == 0,
            "interruptibility: a reserved bit is 1",
        );
        check(
            shadow != SHADOW_STI | SHADOW_MOV_SS,
            "interruptibility: both STI and MOV SS",
        );
        let sti_allowed = self.rflags & RFLAGS_IF != 0;
        check(
            shadow & SHADOW_STI == 0 || sti_allowed,
            "interruptibility: STI shadow with IF 0",
        );
        let debug_zeroes = self.pending_debug & 0xffff_ffff_fffe_aff0;
        check(
            debug_zeroes == 0,
            "pending debug exceptions: a reserved bit is 1",
        );
        if shadow != 0 || halted {
            // IA32_DEBUGCTL.BTF is always 0 here.
            let step = self.pending_debug & PENDING_STEP != 0;
            let trap = self.rflags & RFLAGS_TF != 0;
            check(
                step == trap,
                "pending debug exceptions: BS differs from RFLAGS.TF",
            );
        }
    }

    /// The event to inject, against the state: SDM 3C 27.2.1.3 and 27.3.1.5.
    fn check_event(&self, check: &mut dyn FnMut(bool, &'static str)) {
        let event = Interruption(self.entry_interruption);
        if !event.is_valid() {
            return;
        }
        let shadow = self.interruptibility & (SHADOW_STI | SHADOW_MOV_SS) != 0;
        check(
            event.0 & 0x7fff_f000 == 0,
            "injected event: a reserved bit is 1",
        );
        match event.kind() {
            None => check(false, "injected event: reserved type"),
            Some(Kind::External) => {
                check(self.rflags & RFLAGS_IF != 0, "injected interrupt with IF 0");
                check(!shadow, "injected interrupt in an STI or MOV SS shadow");
            }
            Some(Kind::Nmi) => {
                check(event.vector() == 2, "injected NMI: vector not 2");
                check(!shadow, "injected NMI in an STI or MOV SS shadow");
                let blocked = self.interruptibility & BLOCKED_BY_NMI != 0;
                check(!blocked, "injected NMI while NMIs are blocked");
            }
            Some(Kind::HardwareException) => {
                check(event.vector() < 32, "injected exception: vector above 31");
                let pushes = matches!(event.vector(), 8 | 10..=14 | 17);
                let expected = pushes && self.cr0 & CR0_PE != 0;
                check(
                    expected == event.has_error_code(),
                    "injected exception: error code missing or surplus",
                );
                let fits = !event.has_error_code() || self.entry_error_code >> 16 == 0;
                check(fits, "injected exception: error code above ffff");
            }
            Some(
                Kind::SoftwareInterrupt
                | Kind::PrivilegedSoftwareException
                | Kind::SoftwareException,
            ) => {}
        }
    }

    /// VMCS link pointer and page-directory pointers: SDM 3C 27.3.1.5 and 27.3.1.6.
    fn check_pointers(&self, check: &mut dyn FnMut(bool, &'static str)) {
        check(
            self.link_pointer == LINK_NONE,
            "VMCS link pointer is not all ones",
        );
        let pae = self.cr0 & CR0_PG != 0 && self.cr4 & CR4_PAE != 0 && !self.long_mode();
        let beyond = !0 << self.physical_bits;
        let valid = self
            .pdptes
            .iter()
            .all(|entry| entry & 1 == 0 || entry & (0x1e6 | beyond) == 0);
        check(
            !pae || valid,
            "a page-directory-pointer entry of PAE paging has a reserved bit set",
        );
    }
}
