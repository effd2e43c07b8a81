//! Control registers, XSETBV, hypercalls.

use super::*;
use crate::exit::ControlAccess;
use crate::hardware::{Control, SegmentName, SwitchedMsr};
use crate::vcpu::Refused;
use godwit_abi::{Answer, Status};
use godwit_records::Segment;

const PE: u64 = 1;
const PG: u64 = 1 << 31;
const LONG_CODE: u16 = 0xa09b;
const CODE_32: u16 = 0xc09b;

/// The event that comes of an access, RIP having moved exactly when there is none.
fn control(machine: &mut Machine, access: ControlAccess) -> Option<PendingEvent> {
    let rip = machine.hardware.rip();
    assert_eq!(machine.exit(Exit::Control(access, bytes(3))), Next::Enter);
    let event = machine.hardware.take_event();
    assert_eq!(
        machine.hardware.rip(),
        rip + if event.is_none() { 3 } else { 0 }
    );
    event
}

fn write(
    machine: &mut Machine,
    access: fn(u8) -> ControlAccess,
    value: u64,
) -> Option<PendingEvent> {
    set(machine, Gpr::R9, value);
    control(machine, access(9))
}

#[test]
fn cr0_rules() {
    let mut machine = machine();
    let cr0 = |machine: &Machine| machine.hardware.control(Control::Cr0);
    for bad in [1 << 32, PG, 1 << 29 | PE] {
        assert_eq!(
            write(&mut machine, ControlAccess::WriteCr0, bad),
            Some(GP),
            "{bad:#x}"
        );
        assert_eq!(cr0(&machine), 0x11);
    }
    assert_eq!(
        write(&mut machine, ControlAccess::WriteCr0, PE | 1 << 16 | 1 << 7),
        None
    );
    assert_eq!(
        cr0(&machine),
        PE | 1 << 16 | 1 << 4,
        "ET is always 1, reserved bits stay 0"
    );
    // RSP as the source, which is not in the general registers.
    machine.hardware.set_rsp(PE | 1 << 5);
    assert_eq!(control(&mut machine, ControlAccess::WriteCr0(4)), None);
    assert_eq!(cr0(&machine), PE | 1 << 5 | 1 << 4);
}

#[test]
fn paging_switches_long_mode() {
    let mut machine = machine();
    let code = |machine: &mut Machine, attributes| {
        machine
            .hardware
            .set_segment(SegmentName::Cs, Segment::new(8, 0, u32::MAX, attributes));
    };
    let efer = |machine: &Machine| machine.hardware.msr(SwitchedMsr::Efer);
    machine.hardware.set_msr(SwitchedMsr::Efer, 0x100);
    code(&mut machine, CODE_32);
    assert_eq!(
        write(&mut machine, ControlAccess::WriteCr0, PG | PE),
        Some(GP),
        "without PAE"
    );
    machine.hardware.set_control(Control::Cr4, 1 << 5);
    code(&mut machine, LONG_CODE);
    assert_eq!(
        write(&mut machine, ControlAccess::WriteCr0, PG | PE),
        Some(GP),
        "from 64-bit code"
    );
    code(&mut machine, CODE_32);
    let flushes = machine.hardware.flushes;
    assert_eq!(write(&mut machine, ControlAccess::WriteCr0, PG | PE), None);
    assert_eq!(efer(&machine), 0x500);
    assert!(machine.hardware.flushes > flushes);
    assert_eq!(
        write(&mut machine, ControlAccess::WriteCr4, 0),
        Some(GP),
        "PAE in long mode"
    );
    assert_eq!(
        write(&mut machine, ControlAccess::WriteCr4, 1 << 5 | 1 << 17),
        None
    );
    assert_eq!(
        write(&mut machine, ControlAccess::WriteCr0, PE),
        Some(GP),
        "with PCIDs"
    );
    assert_eq!(write(&mut machine, ControlAccess::WriteCr4, 1 << 5), None);
    code(&mut machine, LONG_CODE);
    assert_eq!(
        write(&mut machine, ControlAccess::WriteCr0, PE),
        Some(GP),
        "from 64-bit code"
    );
    code(&mut machine, CODE_32);
    assert_eq!(write(&mut machine, ControlAccess::WriteCr0, PE), None);
    assert_eq!(efer(&machine), 0x100);
}

#[test]
fn cr4_rules() {
    let mut machine = machine();
    for bad in [1 << 13, 1 << 14, 1 << 12, 1 << 23, 1 << 40, 1 << 17] {
        assert_eq!(
            write(&mut machine, ControlAccess::WriteCr4, bad),
            Some(GP),
            "{bad:#x}"
        );
    }
    assert_eq!(
        write(
            &mut machine,
            ControlAccess::WriteCr4,
            0x0070_06f0 & !(1 << 17) | 1 << 18
        ),
        None
    );
    machine.set_long_mode(0x1018);
    assert_eq!(
        write(&mut machine, ControlAccess::WriteCr4, 1 << 5 | 1 << 17),
        Some(GP),
        "a PCID in CR3"
    );
}

#[test]
fn clts_and_lmsw() {
    let mut machine = machine();
    machine.hardware.set_control(Control::Cr0, PG | 0x19);
    assert_eq!(control(&mut machine, ControlAccess::Clts), None);
    assert_eq!(machine.hardware.control(Control::Cr0), PG | 0x11);
    assert_eq!(control(&mut machine, ControlAccess::Lmsw(0xfff6)), None);
    assert_eq!(
        machine.hardware.control(Control::Cr0),
        PG | 0x17,
        "PE stays, no more than four bits count"
    );
    assert_eq!(control(&mut machine, ControlAccess::Lmsw(0)), None);
    assert_eq!(machine.hardware.control(Control::Cr0), PG | 0x11);
}

#[test]
fn cr8_is_the_task_priority() {
    let mut machine = machine();
    assert_eq!(write(&mut machine, ControlAccess::WriteCr8, 16), Some(GP));
    assert_eq!(write(&mut machine, ControlAccess::WriteCr8, 15), None);
    assert_eq!(rdmsr(&mut machine, 0x808), Ok(0xf0));
    assert_eq!(wrmsr(&mut machine, 0x808, 0x35), None);
    assert_eq!(control(&mut machine, ControlAccess::ReadCr8(12)), None);
    assert_eq!(gpr(&machine, Gpr::R12), 3);
}

#[test]
fn xsetbv_rules() {
    let xsetbv = |index: u64, value: u64, attributes: u16| {
        let mut machine = machine();
        machine
            .hardware
            .set_segment(SegmentName::Ss, Segment::new(16, 0, u32::MAX, attributes));
        set(&mut machine, Gpr::Rcx, index | 5 << 32);
        set(&mut machine, Gpr::Rax, value & 0xffff_ffff | 1 << 40);
        set(&mut machine, Gpr::Rdx, value >> 32);
        assert_eq!(machine.exit(Exit::Xsetbv(bytes(3))), Next::Enter);
        (machine.hardware.take_event(), machine.world.xcr0)
    };
    assert_eq!(xsetbv(0, 0xe7, 0xc093), (None, 0xe7));
    assert_eq!(xsetbv(0, 0xe7, 0xc0f3), (Some(GP), 1), "CPL 3");
    assert_eq!(xsetbv(1, 0xe7, 0xc093), (Some(GP), 1), "no such register");
    for bad in [0, 5, 0x27, 1 << 8 | 1, 1 << 62 | 1] {
        assert_eq!(xsetbv(0, bad, 0xc093), (Some(GP), 1), "{bad:#x}");
    }
}

fn call(machine: &mut Machine, number: u64) -> Next {
    for (value, register) in (10..).zip([Gpr::Rdi, Gpr::Rsi, Gpr::Rdx, Gpr::R10, Gpr::R8]) {
        set(machine, register, value);
    }
    set(machine, Gpr::Rax, number);
    machine.exit(Exit::Hypercall(bytes(3)))
}

#[test]
fn hypercalls_are_for_kernels_and_by_access() {
    const CONSOLE_WRITE: u64 = 2;
    const UNKNOWN: u64 = 0xffff_ffff_0000_0000;
    let mut machine = machine();
    machine
        .hardware
        .set_segment(SegmentName::Ss, Segment::new(16, 0, u32::MAX, 0xc0f3));
    assert_eq!(call(&mut machine, 0), Next::Enter);
    assert_eq!(machine.hardware.take_event(), Some(UD), "from CPL 3");
    assert!(machine.world.hypercalls.is_empty());
    machine
        .hardware
        .set_segment(SegmentName::Ss, Segment::new(16, 0, u32::MAX, 0xc093));
    let rip = machine.hardware.rip();
    for (number, status) in [
        (0, Status::Ok),
        (CONSOLE_WRITE, Status::Denied),
        (UNKNOWN, Status::UnknownCall),
    ] {
        assert_eq!(call(&mut machine, number), Next::Enter);
        assert_eq!(gpr(&machine, Gpr::Rax), status.0);
        assert_eq!(gpr(&machine, Gpr::Rdx), 0);
        assert_eq!(
            machine.world.hypercalls.last(),
            Some(&(Access::Any, number, [10, 11, 12, 13, 14]))
        );
    }
    assert_eq!(machine.hardware.rip(), rip + 9);
    assert_eq!(
        machine.world.refusals,
        [
            Refused::Hypercall(CONSOLE_WRITE),
            Refused::Hypercall(UNKNOWN)
        ]
    );
}

#[test]
fn the_control_domain_gets_through_and_blocking_repeats() {
    let mut machine = Machine::new(Access::Control, false);
    machine.world.answers.extend([
        Answer::Return(Status::Ok, 77),
        Answer::Block,
        Answer::Return(Status::NotFound, 0),
    ]);
    assert_eq!(call(&mut machine, 2), Next::Enter);
    assert_eq!((gpr(&machine, Gpr::Rax), gpr(&machine, Gpr::Rdx)), (0, 77));
    let before = (*machine.hardware.gprs(), machine.hardware.rip());
    set(&mut machine, Gpr::Rdx, 12);
    assert_eq!(call(&mut machine, 4), Next::Wait);
    assert_eq!(
        (gpr(&machine, Gpr::Rax), machine.hardware.rip()),
        (4, before.1),
        "made again after the wait"
    );
    let Machine {
        vcpu,
        hardware,
        world,
        ..
    } = &mut machine;
    let next = vcpu.retry_call(hardware, world);
    assert_eq!(next, Some(Next::Enter));
    assert_eq!(vcpu.retry_call(hardware, world), None, "it is over");
    assert_eq!(gpr(&machine, Gpr::Rax), Status::NotFound.0);
    assert_eq!(machine.hardware.rip(), before.1 + 3);
    assert!(machine.world.refusals.is_empty(), "an answer is no refusal");
}
