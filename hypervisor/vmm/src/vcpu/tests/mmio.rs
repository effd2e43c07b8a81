//! The local APIC by memory, in xAPIC mode.

use super::*;
use crate::devices::TscRate;
use crate::devices::lapic::{ApicMode, Lapic};
use crate::exit::NestedFault;
use crate::hardware::SegmentName;
use crate::walk::GuestMemory;
use godwit_abi::ShutdownReason;
use godwit_records::Segment;

const APIC: u64 = 0xfee0_0000;
const CODE: u64 = 0x4000;

/// Runs one instruction that faults on `gpa`: flat code without paging.
fn faults(machine: &mut Machine, code: &[u8], gpa: u64) -> Next {
    assert!(machine.world.write(CODE, code));
    machine.hardware.set_rip(CODE);
    let fault = NestedFault {
        gpa,
        read: true,
        write: false,
        fetch: false,
        mapped: false,
    };
    machine.exit(Exit::Nested(fault))
}

fn flat() -> Machine {
    let mut machine = machine();
    machine
        .hardware
        .set_segment(SegmentName::Cs, Segment::new(8, 0, u32::MAX, 0xc09b));
    let rate = TscRate::from_hz(1_000_000_000).expect("in range");
    machine.vcpu.lapic = Lapic::after_firmware(0, true, ApicMode::XApic, rate);
    machine
}

#[test]
fn registers_are_read_and_written_by_memory() {
    let mut machine = flat();
    // mov eax, [0xfee00030]: version
    assert_eq!(
        faults(&mut machine, &[0xa1, 0x30, 0, 0xe0, 0xfe], APIC + 0x30),
        Next::Enter
    );
    assert_eq!(gpr(&machine, Gpr::Rax), 0x0005_0014);
    assert_eq!(machine.hardware.rip(), CODE + 5);
    // mov dword [0xfee00080], 0x70: task priority
    let code = [0xc7, 0x05, 0x80, 0, 0xe0, 0xfe, 0x70, 0, 0, 0];
    assert_eq!(faults(&mut machine, &code, APIC + 0x80), Next::Enter);
    assert_eq!(machine.vcpu.lapic.cr8(), 7);
    assert_eq!(machine.hardware.rip(), CODE + 10);
}

#[test]
fn an_ipi_by_memory_reaches_the_world_and_a_new_logical_id_is_published() {
    let mut machine = flat();
    set(&mut machine, Gpr::Rax, 0x0200_0000);
    // mov [0xfee000d0], eax: LDR
    assert_eq!(
        faults(&mut machine, &[0xa3, 0xd0, 0, 0xe0, 0xfe], APIC + 0xd0),
        Next::Enter
    );
    assert_eq!(
        machine.world.apic_address.map(|address| address.logical),
        Some(2)
    );
    set(&mut machine, Gpr::Rax, 0x000c_4041);
    // mov [0xfee00300], eax: all but self, vector 41h
    assert_eq!(
        faults(&mut machine, &[0xa3, 0, 3, 0xe0, 0xfe], APIC + 0x300),
        Next::Enter
    );
    assert_eq!(machine.world.ipis.len(), 1);
}

#[test]
fn what_is_not_there_ends_the_domain() {
    let mut machine = flat();
    let Next::End(ending) = faults(&mut machine, &[0xa1, 0, 0, 0, 0xd0], 0xd000_0000) else {
        panic!("goes on")
    };
    assert_eq!(
        (ending.reason, ending.detail),
        (ShutdownReason::BadMemory, 0xd000_0000)
    );
    // An instruction that is not implemented: fld dword [0xfee00030].
    let Next::End(ending) = faults(
        &mut machine,
        &[0xd9, 0x05, 0x30, 0, 0xe0, 0xfe],
        APIC + 0x30,
    ) else {
        panic!("goes on")
    };
    assert_eq!(
        (ending.reason, ending.detail),
        (ShutdownReason::BadInstruction, CODE)
    );
}

#[test]
fn code_changed_since_the_exit_is_run_by_the_cpu() {
    let mut machine = flat();
    assert_eq!(
        faults(&mut machine, &[0x90, 0x90], APIC + 0x30),
        Next::Enter
    );
    assert_eq!(machine.hardware.rip(), CODE);
}
