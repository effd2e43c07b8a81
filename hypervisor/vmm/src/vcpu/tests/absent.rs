//! Pages whose contents have not come: the vCPU stands before its instruction until they do.

use super::*;
use crate::devices::TscRate;
use crate::devices::lapic::{ApicMode, Lapic};
use crate::exit::{NestedFault, PortAccess, Width};
use crate::hardware::SegmentName;
use crate::walk::GuestMemory;
use godwit_records::{Activity, Segment};

const CODE: u64 = 0x4000;

fn touch(gpa: u64) -> Exit {
    Exit::Nested(NestedFault {
        gpa,
        read: true,
        write: false,
        fetch: true,
        mapped: false,
    })
}

/// It waits, whatever else happens, until the page has come.
fn waits_for(machine: &mut Machine, page: u64) {
    machine.vcpu.raise_nmi();
    assert!(!machine.vcpu.has_work(&mut machine.world));
    assert_eq!(machine.vcpu.activity(true), Activity::Running);
    assert!(
        machine.world.absent.remove(&page),
        "another page is waited for"
    );
    assert!(machine.vcpu.has_work(&mut machine.world));
    let Machine {
        vcpu,
        hardware,
        world,
        ..
    } = machine;
    vcpu.before_entry(hardware, world);
}

#[test]
fn a_touched_page_is_waited_for_and_one_that_has_come_is_touched_again() {
    let mut machine = machine();
    machine.world.absent.insert(0x42);
    assert_eq!(machine.exit(touch(0x42_080)), Next::Wait);
    assert_eq!(machine.hardware.rip(), 0x1000);
    waits_for(&mut machine, 0x42);
    // Another vCPU was waiting for it, too, and exits late.
    assert_eq!(machine.exit(touch(0x42_080)), Next::Enter);
}

#[test]
fn string_output_stands_before_the_element() {
    let mut machine = machine();
    machine
        .hardware
        .set_segment(SegmentName::Cs, Segment::new(8, 0, u32::MAX, 0xc09b));
    assert!(machine.world.write(0x5ffe, b"ab"));
    machine.world.absent.insert(6);
    set(&mut machine, Gpr::Rsi, 0x5ffe);
    set(&mut machine, Gpr::Rcx, 3);
    let access = PortAccess {
        port: 0xe9,
        width: Width::Byte,
        input: false,
        string: true,
        repeat: true,
        length: bytes(2),
    };
    assert_eq!(machine.exit(Exit::Port(access)), Next::Wait);
    assert_eq!(
        (gpr(&machine, Gpr::Rsi), gpr(&machine, Gpr::Rcx)),
        (0x6000, 1)
    );
    assert_eq!(machine.hardware.take_event(), None);
    waits_for(&mut machine, 6);
    machine.hardware.take_event();
    assert_eq!(machine.exit(Exit::Port(access)), Next::Enter);
    assert_eq!(gpr(&machine, Gpr::Rcx), 0);
}

#[test]
fn an_emulated_instruction_stands_where_it_was() {
    let mut machine = machine();
    machine
        .hardware
        .set_segment(SegmentName::Cs, Segment::new(8, 0, u32::MAX, 0xc09b));
    for name in [SegmentName::Ds, SegmentName::Es] {
        machine
            .hardware
            .set_segment(name, Segment::new(16, 0, u32::MAX, 0xc093));
    }
    let rate = TscRate::from_hz(1_000_000_000).expect("in range");
    machine.vcpu.lapic = Lapic::after_firmware(0, true, ApicMode::XApic, rate);
    // movsd from the APIC's version register to an absent page
    assert!(machine.world.write(CODE, &[0xa5]));
    machine.hardware.set_rip(CODE);
    set(&mut machine, Gpr::Rsi, 0xfee0_0030);
    set(&mut machine, Gpr::Rdi, 0x7000);
    machine.world.absent.insert(7);
    let fault = Exit::Nested(NestedFault {
        gpa: 0xfee0_0030,
        read: true,
        write: false,
        fetch: false,
        mapped: false,
    });
    assert_eq!(machine.exit(fault), Next::Wait);
    assert_eq!(
        (machine.hardware.rip(), gpr(&machine, Gpr::Rdi)),
        (CODE, 0x7000)
    );
    waits_for(&mut machine, 7);
    assert_eq!(machine.exit(fault), Next::Enter);
    assert_eq!(
        (machine.hardware.rip(), gpr(&machine, Gpr::Rdi)),
        (CODE + 1, 0x7004)
    );
    assert_eq!(machine.world.read_u32(0x7000), Some(0x0005_0014));
}

#[test]
fn the_clock_msr_waits_for_its_page_instead_of_faulting() {
    const SYSTEM_TIME: u64 = 0x4b56_4d01;
    let mut machine = machine();
    machine.world.absent.insert(5);
    set(&mut machine, Gpr::Rcx, SYSTEM_TIME);
    set(&mut machine, Gpr::Rax, 0x5001);
    set(&mut machine, Gpr::Rdx, 0);
    assert_eq!(machine.exit(Exit::Wrmsr(bytes(2))), Next::Wait);
    assert_eq!(machine.hardware.take_event(), None);
    waits_for(&mut machine, 5);
    machine.hardware.take_event();
    assert_eq!(machine.exit(Exit::Wrmsr(bytes(2))), Next::Enter);
    assert_eq!(machine.hardware.take_event(), None);
    assert!(machine.world.refusals.is_empty());
}
