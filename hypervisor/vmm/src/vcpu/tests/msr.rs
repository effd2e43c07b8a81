//! MSRs by policy.

use super::*;
use crate::cpuid::{Leaf, Policy};
use crate::fake::everything;
use crate::hardware::{Control, SwitchedMsr};
use crate::vcpu::Refused;

const CANONICAL: u64 = 0xffff_8000_1234_5678;
const NOT_CANONICAL: u64 = 0x0000_8000_0000_0000;
const FIXED_MTRRS: [u32; 11] = [
    0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f,
];

#[test]
fn kept_values_come_back_and_invalid_ones_fault_once() {
    // Index, value after reset, values that are taken, values that are not.
    let mut table: Vec<(u32, u64, &[u64], &[u64])> = alloc::vec![
        (0x174, 0, &[0x10, 0xffff_ffff], &[1 << 32]),
        (0x175, 0, &[CANONICAL], &[NOT_CANONICAL]),
        (0x176, 0, &[CANONICAL], &[NOT_CANONICAL]),
        (
            0x277,
            0x0007_0406_0007_0406,
            &[0, 0x0707_0605_0401_0006],
            &[2, 3 << 56, 8 << 8]
        ),
        (
            0x2ff,
            0xc06,
            &[0, 0x806, 0xc01],
            &[0xc02, 0xc07, 1 << 12, 0x100]
        ),
        (0xc000_0080, 0, &[1, 0x100, 0x901], &[2, 1 << 12, 1 << 63]),
        (0xc000_0081, 0, &[u64::MAX], &[]),
        (0xc000_0082, 0, &[CANONICAL], &[NOT_CANONICAL]),
        (0xc000_0083, 0, &[CANONICAL], &[NOT_CANONICAL]),
        (0xc000_0084, 0, &[0xffff_ffff], &[1 << 32]),
        (0xc000_0100, 0, &[CANONICAL], &[NOT_CANONICAL]),
        (0xc000_0101, 0, &[CANONICAL], &[NOT_CANONICAL]),
        (0xc000_0102, 0, &[CANONICAL], &[NOT_CANONICAL]),
        (0xc000_0103, 0, &[0xffff_ffff], &[1 << 32]),
        (0x10, 0, &[u64::MAX >> 1], &[]),
        (0x3b, 0, &[1 << 40], &[]),
        // Read only.
        (0xfe, 1 << 8, &[], &[0, 1 << 8]),
        (0x3a, 1, &[], &[0, 1, 5]),
        (0x179, 0, &[], &[0]),
    ];
    table.extend(FIXED_MTRRS.map(|index| {
        (
            index,
            0x0606_0606_0606_0606,
            &[0x0005_0401_0006_0000][..],
            &[2, 7 << 48][..],
        )
    }));
    for (index, reset, good, bad) in table {
        let mut machine = machine();
        assert_eq!(rdmsr(&mut machine, index), Ok(reset), "{index:#x}");
        let mut kept = reset;
        for value in good {
            let rip = machine.hardware.rip();
            assert_eq!(
                wrmsr(&mut machine, index, *value),
                None,
                "{index:#x} = {value:#x}"
            );
            assert_eq!(machine.hardware.rip(), rip + 2);
            assert_eq!(rdmsr(&mut machine, index), Ok(*value), "{index:#x}");
            kept = *value;
        }
        for value in bad {
            let rip = machine.hardware.rip();
            machine.world.refusals.clear();
            assert_eq!(
                wrmsr(&mut machine, index, *value),
                Some(GP),
                "{index:#x} = {value:#x}"
            );
            assert_eq!(machine.hardware.rip(), rip, "a fault leaves RIP");
            assert_eq!(machine.world.refusals, [Refused::WriteMsr(index, *value)]);
            assert_eq!(rdmsr(&mut machine, index), Ok(kept), "{index:#x}");
        }
    }
}

use alloc::vec::Vec;

#[test]
fn unknown_registers_fault_by_name() {
    for index in [
        0,
        0x17,
        0xe1,
        0x122,
        0x200,
        0x480,
        0x600,
        0x7ff,
        0xda0,
        0xc000_0104,
        0xc001_0114,
        0x4000_0000,
        u32::MAX,
    ] {
        let mut machine = machine();
        let rip = machine.hardware.rip();
        assert_eq!(rdmsr(&mut machine, index), Err(GP), "{index:#x}");
        assert_eq!(wrmsr(&mut machine, index, 7), Some(GP), "{index:#x}");
        assert_eq!(
            machine.world.refusals,
            [Refused::ReadMsr(index), Refused::WriteMsr(index, 7)]
        );
        assert_eq!(machine.hardware.rip(), rip);
    }
}

#[test]
fn registers_of_features_the_guest_lacks_do_not_exist() {
    let mut machine = machine();
    machine.world.policy = Policy::new(1, 1, |leaf, subleaf| match leaf {
        0x8000_0001 => Leaf {
            edx: !(1 << 27),
            ..everything(leaf, subleaf)
        },
        _ => everything(leaf, subleaf),
    });
    assert_eq!(rdmsr(&mut machine, 0xc000_0103), Err(GP));
    assert_eq!(wrmsr(&mut machine, 0xc000_0103, 1), Some(GP));
    assert_eq!(machine.hardware.msr(SwitchedMsr::TscAux), 0);
}

#[test]
fn immunities_are_read_where_there_are_any_and_never_written() {
    const ITS_NO: u64 = 1 << 62;
    let mut machine = machine();
    assert_eq!(rdmsr(&mut machine, 0x10a), Err(GP));
    machine.world.policy = Policy::new(1, 1, everything).with_immunities(Some(ITS_NO));
    assert_eq!(rdmsr(&mut machine, 0x10a), Ok(ITS_NO));
    assert_eq!(wrmsr(&mut machine, 0x10a, ITS_NO), Some(GP));
}

#[test]
fn guests_are_told_whether_strings_are_fast() {
    let mut machine = machine();
    assert_eq!(rdmsr(&mut machine, 0x1a0), Ok(0x1801));
    machine.world.policy = Policy::new(1, 1, |leaf, subleaf| match leaf {
        7 => Leaf {
            ebx: !(1 << 9),
            ..everything(leaf, subleaf)
        },
        _ => everything(leaf, subleaf),
    });
    assert_eq!(rdmsr(&mut machine, 0x1a0), Ok(0x1800));
}

#[test]
fn tsc_and_adjust_move_together() {
    let mut machine = machine();
    machine.world.host_tsc.set(1_000_000);
    machine.vcpu.tsc_offset = 500;
    assert_eq!(rdmsr(&mut machine, 0x10), Ok(1_000_500));
    assert_eq!(wrmsr(&mut machine, 0x10, 2_000_000), None);
    assert_eq!(rdmsr(&mut machine, 0x3b), Ok(999_500));
    machine.world.host_tsc.set(1_000_010);
    assert_eq!(rdmsr(&mut machine, 0x10), Ok(2_000_010));
    assert_eq!(wrmsr(&mut machine, 0x3b, 0), None);
    assert_eq!(rdmsr(&mut machine, 0x10), Ok(1_000_510));
    assert_eq!(machine.hardware.tsc_offset, 500);
    // Backwards, below zero of the host.
    assert_eq!(
        wrmsr(&mut machine, 0x3b, 0u64.wrapping_sub(1_000_000)),
        None
    );
    assert_eq!(rdmsr(&mut machine, 0x10), Ok(510));
    assert_eq!(machine.hardware.tsc_offset, 500u64.wrapping_sub(1_000_000));
}

#[test]
fn efer_keeps_to_the_rules_of_paging() {
    const EFER: u32 = 0xc000_0080;
    let mut machine = machine();
    assert_eq!(wrmsr(&mut machine, EFER, 0x500), None);
    assert_eq!(
        rdmsr(&mut machine, EFER),
        Ok(0x100),
        "LMA is not for software to set"
    );
    machine.hardware.set_control(Control::Cr0, 0x8000_0011);
    machine.hardware.set_msr(SwitchedMsr::Efer, 0x500);
    assert_eq!(
        wrmsr(&mut machine, EFER, 0x400),
        Some(GP),
        "LME cannot change while paging is on"
    );
    assert_eq!(wrmsr(&mut machine, EFER, 0x901), None);
    assert_eq!(rdmsr(&mut machine, EFER), Ok(0xd01), "LMA stays");
}

#[test]
fn x2apic_registers_reach_the_apic() {
    let mut machine = machine();
    assert_eq!(rdmsr(&mut machine, 0x802), Ok(0));
    assert_eq!(rdmsr(&mut machine, 0x1b), Ok(0xfee0_0d00));
    assert_eq!(wrmsr(&mut machine, 0x808, 0x35), None);
    assert_eq!(rdmsr(&mut machine, 0x808), Ok(0x35));
    assert_eq!(wrmsr(&mut machine, 0x808, 0x100), Some(GP));
    assert_eq!(
        wrmsr(&mut machine, 0x802, 1),
        Some(GP),
        "the ID is read-only"
    );
    assert_eq!(rdmsr(&mut machine, 0x80b), Err(GP), "EOI is write-only");
    assert_eq!(
        wrmsr(&mut machine, 0x1b, 0xfee0_0900),
        Some(GP),
        "x2APIC mode is not left for xAPIC mode"
    );
    assert_eq!(wrmsr(&mut machine, 0x83f, 0x40), None);
    assert_eq!(rdmsr(&mut machine, 0x822), Ok(1), "a self-IPI requests");
}
