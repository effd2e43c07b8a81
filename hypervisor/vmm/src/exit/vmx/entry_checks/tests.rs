//! Sound states pass, and each way to spoil one is named; so are the bits of CR0 and CR4.

extern crate std;

use std::vec::Vec;

use godwit_records::{Segment, VcpuState};

use super::*;
use crate::exit::vmx::access_rights::of_segment;
use crate::exit::vmx::control::*;
use crate::hardware::SegmentName;

/// As Bochs's corei7_skylake_x has them.
const FIXED: FixedBits = FixedBits {
    cr0_ones: 0x8000_0021,
    cr0_allowed: 0xffff_ffff,
    cr4_ones: 0x2000,
    cr4_allowed: 0x0037_27ff,
};

#[test]
fn guests_read_back_what_they_wrote_to_cr0_and_cr4() {
    for value in [0x6000_0010, 0x11, 0x8005_0033, 0xe000_0011] {
        let cr0 = FIXED.cr0(value);
        let mask = FIXED.cr0_mask();
        assert_eq!(cr0.real & !mask | cr0.shadow & mask, value);
        assert_eq!(cr0.real & (CR0_CD | CR0_NW | 0x20), 0x20);
    }
    for value in [0, 0x20, 0x0037_07f0] {
        let cr4 = FIXED.cr4(value);
        let mask = FIXED.cr4_mask();
        assert_eq!(cr4.real & !mask | cr4.shadow & mask, value);
        assert_eq!(cr4.real & CR4_VMXE, CR4_VMXE);
    }
    // PKE, LA57, VMXE, SMXE and what the CPU lacks belong to the hypervisor.
    assert_eq!(FIXED.cr4_mask() & 0xffff_ffff, !0x0037_07ff & 0xffff_ffff);
}

#[test]
fn mov_to_cr0_is_retried_unless_it_must_fault() {
    assert_eq!(
        cr0_write(0xc005_0033),
        Cr0Write::Retry {
            shadow: 0xc005_0033
        }
    );
    assert_eq!(
        cr0_write(0xe005_0033),
        Cr0Write::Retry {
            shadow: 0xe005_0033
        }
    );
    assert_eq!(cr0_write(0xa005_0033), Cr0Write::Refuse);
    assert_eq!(cr0_write(0x1_8005_0033), Cr0Write::Refuse);
}

/// The guest area of a record, as the back end would fill it.
fn area(state: &VcpuState) -> GuestArea {
    let names = [
        (SegmentName::Es, state.es),
        (SegmentName::Cs, state.cs),
        (SegmentName::Ss, state.ss),
        (SegmentName::Ds, state.ds),
        (SegmentName::Fs, state.fs),
        (SegmentName::Gs, state.gs),
        (SegmentName::Ldtr, state.ldtr),
        (SegmentName::Tr, state.tr),
    ];
    GuestArea {
        fixed: FIXED,
        physical_bits: 40,
        cr0: FIXED.cr0(state.cr0).real,
        cr3: state.cr3,
        cr4: FIXED.cr4(state.cr4).real,
        dr7: state.dr7,
        rip: state.rip,
        rflags: state.rflags,
        efer: state.efer,
        pat: state.pat,
        sysenter_esp: state.sysenter_esp,
        sysenter_eip: state.sysenter_eip,
        segments: names.map(|(name, segment)| SegmentFields {
            selector: segment.selector,
            base: segment.base,
            limit: segment.limit,
            rights: of_segment(name, segment),
        }),
        gdtr_base: state.gdtr_base,
        gdtr_limit: state.gdtr_limit.into(),
        idtr_base: state.idtr_base,
        idtr_limit: state.idtr_limit.into(),
        pdptes: [0; 4],
        activity: 0,
        interruptibility: 0,
        pending_debug: 0,
        link_pointer: u64::MAX,
        entry_controls: if state.efer & EFER_LMA != 0 {
            1 << 9
        } else {
            0
        },
        entry_interruption: 0,
        entry_error_code: 0,
    }
}

fn violations(area: &GuestArea) -> Vec<&'static str> {
    let mut found = Vec::new();
    area.violations(&mut |rule| found.push(rule));
    found
}

fn long_mode() -> VcpuState {
    let mut state = VcpuState::reset();
    let flat = Segment::new(0x10, 0, 0xffff_ffff, 0xc093);
    state.cs = Segment::new(8, 0, 0xffff_ffff, 0xa09b);
    (state.ds, state.es, state.fs, state.gs, state.ss) = (flat, flat, flat, flat, flat);
    (state.cr0, state.cr4, state.efer) = (0x8000_0011, 0x20, EFER_LMA | EFER_LME);
    state
}

#[test]
fn sound_states_violate_nothing() {
    assert_eq!(violations(&area(&VcpuState::reset())), [""; 0]);
    assert_eq!(violations(&area(&long_mode())), [""; 0]);
}

/// One way to spoil a state.
type Spoil = fn(&mut GuestArea);

#[test]
fn each_violation_is_named() {
    let spoilt: [(Spoil, &str); 14] = [
        (|area| area.cr4 &= !CR4_VMXE, "CR4: a bit fixed to 1 is 0"),
        (|area| area.cr4 |= 1 << 22, "CR4: a bit fixed to 0 is 1"),
        (
            |area| area.cr3 = 1 << 40,
            "CR3: beyond the physical-address width",
        ),
        (|area| area.rip = 1 << 47, "RIP not canonical"),
        (|area| area.rflags = 0, "RFLAGS: bit 1 is 0"),
        (
            |area| area.segments[1].rights |= 1 << 14,
            "CS: L and D/B both 1",
        ),
        (
            |area| area.segments[3].limit = 0xffff_f000,
            "a segment's G and limit disagree, or a reserved bit is 1",
        ),
        (|area| area.segments[7].rights = 0x89, "TR: not a busy TSS"),
        (
            |area| area.link_pointer = 0,
            "VMCS link pointer is not all ones",
        ),
        (
            |area| area.interruptibility = 1,
            "interruptibility: STI shadow with IF 0",
        ),
        (
            |area| area.entry_interruption = 0x8000_0031,
            "injected interrupt with IF 0",
        ),
        (
            |area| area.entry_interruption = 0x8000_030d,
            "injected exception: error code missing or surplus",
        ),
        (
            |area| area.efer = 1 << 8,
            "IA32_EFER.LMA differs from IA-32e mode guest",
        ),
        (|area| area.pat = 2, "IA32_PAT: not a memory type"),
    ];
    for (spoil, rule) in spoilt {
        let mut area = area(&long_mode());
        spoil(&mut area);
        assert!(violations(&area).contains(&rule), "{rule}");
    }
}

#[test]
fn unset_page_directory_pointers_of_pae_paging_are_noticed() {
    let mut area = area(&long_mode());
    (area.efer, area.entry_controls, area.segments[1].rights) = (0, 0, 0xc09b);
    area.pdptes = [u64::MAX; 4];
    let rule = "a page-directory-pointer entry of PAE paging has a reserved bit set";
    assert_eq!(violations(&area), [rule]);
}
