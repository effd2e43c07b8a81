//! CPUID, and stepping over instructions.

use super::*;
use crate::hardware::{Control, SegmentName};
use crate::walk::GuestMemory;
use godwit_abi::ShutdownReason;
use godwit_records::{Segment, Shadow, VcpuState};
use proptest::prelude::*;

proptest! {
    #[test]
    fn cpuid_changes_four_registers_and_rip(gprs: [u64; 16], leaf in prop_oneof![0u32..0x20, 0x4000_0000u32..0x4000_0004, 0x8000_0000u32..0x8000_000a, any::<u32>()]) {
        let mut machine = machine();
        *machine.hardware.gprs_mut() = gprs;
        set(&mut machine, Gpr::Rax, gprs[0] & !0xffff_ffff | u64::from(leaf));
        let before = machine.hardware.save();
        prop_assert_eq!(machine.exit(Exit::Cpuid(bytes(2))), Next::Enter);
        let after = machine.hardware.save();
        for register in [Gpr::Rax, Gpr::Rbx, Gpr::Rcx, Gpr::Rdx] {
            prop_assert_eq!(gpr(&machine, register) >> 32, 0);
        }
        let mut expected = VcpuState { rip: before.rip + 2, ..before };
        expected.gprs[..4].copy_from_slice(&after.gprs[..4]);
        prop_assert_eq!(after, expected);
    }
}

#[test]
fn stepping_over_ends_the_shadow_and_traps_single_steps() {
    let mut machine = machine();
    machine.hardware.set_shadow(Shadow::MovSs);
    machine.exit(Exit::Cpuid(bytes(2)));
    assert!(!machine.hardware.in_shadow());
    assert_eq!(machine.hardware.step_traps, 0);
    machine.hardware.set_rflags(2 | 1 << 8);
    machine.exit(Exit::Cpuid(bytes(2)));
    assert_eq!(machine.hardware.step_traps, 1);
    // The trap ends HLT: the guest is not put to sleep.
    assert_eq!(machine.exit(Exit::Hlt(bytes(1))), Next::Enter);
    assert_eq!(machine.hardware.step_traps, 2);
}

/// Tables at 0x1000: linear 0x7fff_0000_0000 + two pages at physical 0x8000 and 0x5000, not neighbours.
fn paged(code_at: u64, code: &[u8]) -> (Machine, u64) {
    let mut machine = machine();
    machine.set_long_mode(0x1000);
    for (at, entry) in [
        (0x1000 + 255 * 8, 0x2003u64),
        (0x2000 + 508 * 8, 0x3003),
        (0x3000, 0x4003),
        (0x4000, 0x8003),
        (0x4008, 0x5003),
    ] {
        assert!(machine.world.write(at, &entry.to_le_bytes()));
    }
    let split = code.len().min(0x1000 - code_at as usize);
    assert!(machine.world.write(0x8000 + code_at, &code[..split]));
    assert!(machine.world.write(0x5000, &code[split..]));
    let rip = (255 << 39 | 508 << 30) + code_at;
    machine.hardware.set_rip(rip);
    (machine, rip)
}

#[test]
fn unknown_lengths_are_read_through_the_guests_tables() {
    for (code, exit, length) in [
        (&[0x0f, 0xa2][..], Exit::Cpuid(None), 2),
        (&[0x66, 0x48, 0x0f, 0xa2], Exit::Cpuid(None), 4),
        (&[0x2e, 0xf3, 0x90], Exit::Pause(None), 3),
        (&[0x0f, 0x08], Exit::CacheFlush(None), 2),
        (&[0x0f, 0x09], Exit::CacheFlush(None), 2),
        (&[0x0f, 0x01, 0xd9], Exit::Hypercall(None), 3),
        (&[0xf4], Exit::Hlt(None), 1),
    ] {
        // The last two begin in one page and end in the other.
        for at in [0x10, 0xfff, 0x1000 - code.len() as u64] {
            let (mut machine, rip) = paged(at, code);
            let next = machine.exit(exit);
            assert!(
                !matches!(next, Next::End(_)),
                "{exit:?} at {at:#x}: {next:?}"
            );
            assert_eq!(machine.hardware.rip(), rip + length, "{exit:?} at {at:#x}");
        }
    }
}

#[test]
fn what_cannot_be_decoded_ends_the_domain() {
    let ended = |machine: &mut Machine, exit| match machine.exit(exit) {
        Next::End(ending) => (ending.reason, ending.detail),
        other => panic!("{other:?}"),
    };
    // Other code is there.
    let (mut machine, rip) = paged(0, &[0x90, 0x90]);
    assert_eq!(
        ended(&mut machine, Exit::Cpuid(None)),
        (ShutdownReason::BadInstruction, rip)
    );
    // REX is no prefix outside 64-bit code.
    let (mut machine, rip) = paged(0, &[0x48, 0x0f, 0xa2]);
    machine
        .hardware
        .set_segment(SegmentName::Cs, Segment::new(8, rip, u32::MAX, 0xc09b));
    machine.hardware.set_rip(0);
    assert_eq!(
        ended(&mut machine, Exit::Cpuid(None)).0,
        ShutdownReason::BadInstruction
    );
    // The page is not mapped.
    let (mut machine, rip) = paged(0, &[0x0f, 0xa2]);
    machine.hardware.set_rip(rip + 0x4000);
    assert_eq!(
        ended(&mut machine, Exit::Cpuid(None)),
        (ShutdownReason::BadInstruction, rip + 0x4000)
    );
    // It is mapped to where there is no memory.
    let (mut machine, rip) = paged(0, &[0x0f, 0xa2]);
    assert!(machine.world.write(0x4000, &0xf_0000_0003u64.to_le_bytes()));
    assert_eq!(
        ended(&mut machine, Exit::Cpuid(None)),
        (ShutdownReason::BadInstruction, rip)
    );
}

#[test]
fn segment_base_and_code_wrap_at_32_bits() {
    let mut machine = machine();
    machine.hardware.set_segment(
        SegmentName::Cs,
        Segment::new(8, 0xffff_f000, u32::MAX, 0xc09b),
    );
    // Base plus RIP wraps to linear 0x800.
    machine.hardware.set_rip(0x1800);
    assert!(machine.world.write(0x800, &[0x0f, 0xa2]));
    assert_eq!(machine.exit(Exit::Cpuid(None)), Next::Enter);
    assert_eq!(machine.hardware.rip(), 0x1802);
    machine.hardware.set_rip(0xffff_ffff);
    assert_eq!(machine.exit(Exit::Cpuid(bytes(2))), Next::Enter);
    assert_eq!(
        machine.hardware.rip(),
        1,
        "RIP has 32 bits outside 64-bit code"
    );
    // 16-bit code: the CPU checks the limit when it fetches at 10000h, the hypervisor does not wrap.
    machine
        .hardware
        .set_segment(SegmentName::Cs, Segment::new(8, 0, 0xffff, 0x9b));
    machine.hardware.set_rip(0xffff);
    assert_eq!(machine.exit(Exit::Hlt(bytes(1))), Next::Wait);
    assert_eq!(machine.hardware.rip(), 0x1_0000);
}

#[test]
fn compatibility_mode_addresses_have_32_bits() {
    let mut machine = machine();
    machine.set_long_mode(0x1000);
    for (at, entry) in [(0x1000, 0x2003u64), (0x2000, 0x3003), (0x3000, 0x83)] {
        assert!(machine.world.write(at, &entry.to_le_bytes()));
    }
    machine.hardware.set_segment(
        SegmentName::Cs,
        Segment::new(8, 0xffff_f000, u32::MAX, 0xc09b),
    );
    machine.hardware.set_rip(0x1_8800 - 0x10000);
    assert!(machine.world.write(0x7800, &[0x0f, 0xa2]));
    assert_eq!(machine.exit(Exit::Cpuid(None)), Next::Enter);
    assert_eq!(machine.hardware.control(Control::Cr3), 0x1000);
}
