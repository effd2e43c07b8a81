//! HLT and what ends it, the PIC's way in, NMIs, messages to oneself, and how deadlines are counted.

use super::*;
use crate::devices::TscRate;
use crate::devices::lapic::{ApicMode, Destination, Ipi, IpiMode, Lapic, Trigger};
use crate::devices::pic::Irq;
use crate::devices::ports::Width;
use crate::exit::PortAccess;
use crate::fake::Entered;
use crate::vcpu::{Ending, Refused};
use godwit_abi::ShutdownReason;
use godwit_records::Shadow;

const ICR: u32 = 0x830;
const LVT_TIMER: u32 = 0x832;
const LVT_LINT0: u32 = 0x835;
const INITIAL_COUNT: u32 = 0x838;
const TSC_DEADLINE: u32 = 0x6e0;
const RATE: TscRate = TscRate::from_hz(2_000_000_000).unwrap();

fn external(vector: u8) -> PendingEvent {
    PendingEvent {
        kind: EventKind::External,
        vector,
        error_code: None,
        instruction_length: 0,
    }
}

const NMI: PendingEvent = PendingEvent {
    kind: EventKind::Nmi,
    vector: 2,
    error_code: None,
    instruction_length: 0,
};

fn out(machine: &mut Machine, port: u16, value: u64) {
    set(machine, Gpr::Rax, value);
    let access = PortAccess {
        port,
        width: Width::Byte,
        input: false,
        string: false,
        repeat: false,
        length: bytes(2),
    };
    assert_eq!(machine.exit(Exit::Port(access)), Next::Enter);
}

/// Initialises the PIC pair: vectors 30h and 38h, nothing masked.
fn with_pic() -> Machine {
    let mut machine = machine();
    for (port, value) in [
        (0x20, 0x11),
        (0x21, 0x30),
        (0x21, 4),
        (0x21, 1),
        (0xa0, 0x11),
        (0xa1, 0x38),
        (0xa1, 2),
        (0xa1, 1),
        (0x21, 0),
        (0xa1, 0),
    ] {
        out(&mut machine, port, value);
    }
    machine.hardware.set_rflags(2 | IF);
    machine
}

fn raise(machine: &mut Machine, irq: u8) {
    machine
        .world
        .platform
        .pic
        .raise(Irq::new(irq).expect("a line"));
    machine.vcpu.platform_changed();
}

#[test]
fn hlt_waits_and_the_timer_ends_it() {
    let mut machine = machine();
    assert_eq!(wrmsr(&mut machine, LVT_TIMER, 0x40), None);
    assert_eq!(wrmsr(&mut machine, INITIAL_COUNT, 1000), None);
    machine.hardware.set_rflags(2 | IF);
    machine.hardware.set_shadow(Shadow::Sti);
    assert_eq!(machine.enter(), Entered::Runs);
    assert_eq!(machine.exit(Exit::Hlt(bytes(1))), Next::Wait);
    // 1000 counts of two bus ticks of two TSC ticks.
    assert!(!machine.wait_until(3999));
    assert!(machine.wait_until(5000));
    assert_eq!(machine.world.host_tsc.get(), 4000);
    assert_eq!(machine.enter(), Entered::Delivered(external(0x40)));
}

#[test]
fn hlt_with_interrupts_disabled_ends_with_an_nmi_only() {
    let mut machine = machine();
    assert_eq!(wrmsr(&mut machine, LVT_TIMER, 1 << 17 | 0x40), None);
    assert_eq!(wrmsr(&mut machine, INITIAL_COUNT, 1000), None);
    assert_eq!(machine.enter(), Entered::Runs);
    assert_eq!(machine.exit(Exit::Hlt(bytes(1))), Next::Wait);
    assert!(!machine.wait_until(100_000));
    assert_eq!(
        machine.vcpu.sleep_deadline(),
        u64::MAX,
        "nothing to wake for"
    );
    machine.vcpu.raise_nmi();
    assert!(machine.wait_until(200_000));
    assert_eq!(machine.enter(), Entered::Delivered(NMI));
    machine.hardware.set_rflags(2 | IF);
    assert_eq!(
        machine.enter(),
        Entered::Delivered(external(0x40)),
        "the timer's has been kept"
    );
}

#[test]
fn a_second_nmi_waits_for_the_end_of_the_first() {
    let mut machine = machine();
    machine.hardware.set_shadow(Shadow::MovSs);
    machine.vcpu.raise_nmi();
    assert_eq!(machine.enter(), Entered::Runs, "not in a shadow");
    machine.hardware.set_shadow(Shadow::None);
    assert_eq!(machine.enter(), Entered::Delivered(NMI));
    machine.vcpu.raise_nmi();
    machine.vcpu.raise_nmi();
    assert_eq!(machine.enter(), Entered::Runs);
    assert!(machine.hardware.nmi_window());
    machine.hardware.iret();
    assert_eq!(machine.enter(), Entered::Delivered(NMI));
    machine.hardware.iret();
    machine.settle(|_, event| panic!("two pending NMIs are one: {event:?}"));
}

#[test]
fn the_pic_is_delivered_through_lint0() {
    let mut machine = with_pic();
    raise(&mut machine, 4);
    // Task priority does not hold it.
    assert_eq!(wrmsr(&mut machine, 0x808, 0xf0), None);
    assert_eq!(machine.enter(), Entered::Delivered(external(0x34)));
    assert_eq!(machine.enter(), Entered::Runs, "once");
    // In service: a lower one waits for its end.
    machine.hardware.set_rflags(2 | IF);
    raise(&mut machine, 12);
    raise(&mut machine, 5);
    assert_eq!(
        machine.enter(),
        Entered::Delivered(external(0x3c)),
        "the slave is at input 2"
    );
    machine.hardware.set_rflags(2 | IF);
    out(&mut machine, 0xa0, 0x20);
    assert_eq!(machine.enter(), Entered::Runs);
    out(&mut machine, 0x20, 0x20);
    out(&mut machine, 0x20, 0x20);
    assert_eq!(machine.enter(), Entered::Delivered(external(0x35)));
}

#[test]
fn a_masked_pin_holds_the_pic_and_a_window_is_asked_for() {
    let mut machine = with_pic();
    assert_eq!(wrmsr(&mut machine, LVT_LINT0, 1 << 16 | 0x700), None);
    raise(&mut machine, 4);
    assert_eq!(machine.enter(), Entered::Runs);
    assert!(!machine.hardware.interrupt_window());
    machine.hardware.set_rflags(2);
    assert_eq!(wrmsr(&mut machine, LVT_LINT0, 0x700), None);
    assert_eq!(machine.enter(), Entered::Runs);
    assert!(machine.hardware.interrupt_window());
    // Masked while the request is known, it holds again.
    assert_eq!(wrmsr(&mut machine, LVT_LINT0, 1 << 16 | 0x700), None);
    machine.hardware.set_rflags(2 | IF);
    assert_eq!(machine.enter(), Entered::Runs);
    assert!(!machine.hardware.interrupt_window());
    machine.hardware.set_rflags(2);
    assert_eq!(wrmsr(&mut machine, LVT_LINT0, 0x700), None);
    assert_eq!(machine.enter(), Entered::Runs);
    assert!(machine.hardware.interrupt_window());
    // The request goes away; so does the wish.
    out(&mut machine, 0x21, 0xff);
    assert_eq!(machine.enter(), Entered::Runs);
    assert!(!machine.hardware.interrupt_window());
    out(&mut machine, 0x21, 0);
    assert_eq!(machine.enter(), Entered::Runs);
    machine.hardware.set_rflags(2 | IF);
    assert_eq!(machine.enter(), Entered::Delivered(external(0x34)));
}

#[test]
fn exits_that_do_not_touch_the_platform_do_not_lock_it() {
    let mut machine = with_pic();
    assert_eq!(machine.enter(), Entered::Runs);
    let locks = machine.world.platform_locks;
    machine.hardware.set_rflags(2);
    raise(&mut machine, 4);
    for _ in 0..10 {
        assert_eq!(machine.exit(Exit::Cpuid(bytes(2))), Next::Enter);
        assert_eq!(machine.enter(), Entered::Runs);
        assert_eq!(machine.exit(Exit::HostInterrupt), Next::Interrupted);
        assert_eq!(machine.enter(), Entered::Runs);
    }
    assert_eq!(
        machine.world.platform_locks,
        locks + 1,
        "only to learn of the request"
    );
}

#[test]
fn the_power_management_timer_wakes_through_the_pic() {
    let mut machine = with_pic();
    out(&mut machine, 0x602, 1);
    assert_eq!(machine.enter(), Entered::Runs);
    assert_eq!(machine.exit(Exit::Hlt(bytes(1))), Next::Wait);
    assert!(machine.wait_until(u64::MAX - 1));
    // Bit 23 of the timer changes after 2^23 ticks.
    let due = RATE.tsc_until(1 << 23, 3_579_545);
    assert_eq!(machine.world.host_tsc.get(), due);
    assert_eq!(machine.enter(), Entered::Delivered(external(0x39)));
    // Not acknowledged at the source it stays, without a deadline in the past.
    machine.run_for(1 << 20, |_, event| panic!("{event:?}"));
}

#[test]
fn messages_to_oneself_arrive_and_others_get_theirs() {
    const SHORTHAND_ALL: u64 = 2 << 18;
    const SHORTHAND_OTHERS: u64 = 3 << 18;
    const LOGICAL: u64 = 1 << 11;
    let ipi = |destination, mode| Ipi {
        destination,
        mode,
        vector: 0x51,
    };
    for (icr, own, others) in [
        (0x51, true, None),
        (
            LOGICAL | 1 << 32 | 0x51,
            true,
            Some(ipi(Destination::Logical(1), IpiMode::Fixed)),
        ),
        (LOGICAL | 1 << 32 | 0x151, true, None),
        (
            LOGICAL | 2 << 32 | 0x51,
            false,
            Some(ipi(Destination::Logical(2), IpiMode::Fixed)),
        ),
        (
            SHORTHAND_ALL | 0x51,
            true,
            Some(ipi(Destination::AllIncludingSelf, IpiMode::Fixed)),
        ),
        (
            SHORTHAND_OTHERS | 0x51,
            false,
            Some(ipi(Destination::AllExcludingSelf, IpiMode::Fixed)),
        ),
        (
            3 << 32 | 0x51,
            false,
            Some(ipi(Destination::Physical(3), IpiMode::Fixed)),
        ),
        (
            0xffff_ffff << 32 | 0x51,
            true,
            Some(ipi(Destination::Physical(u32::MAX), IpiMode::Fixed)),
        ),
    ] {
        let mut machine = machine();
        machine.hardware.set_rflags(2 | IF);
        assert_eq!(wrmsr(&mut machine, ICR, icr), None);
        let expected = if own {
            Entered::Delivered(external(0x51))
        } else {
            Entered::Runs
        };
        assert_eq!(machine.enter(), expected, "{icr:#x}");
        assert_eq!(
            machine.world.ipis,
            others
                .into_iter()
                .map(|ipi| (ipi, Trigger::Edge))
                .collect::<alloc::vec::Vec<_>>(),
            "{icr:#x}"
        );
    }
}

#[test]
fn nmi_smi_and_init_to_oneself() {
    let mut machine = machine();
    assert_eq!(wrmsr(&mut machine, ICR, 0x400), None);
    assert_eq!(machine.enter(), Entered::Delivered(NMI));
    assert_eq!(wrmsr(&mut machine, ICR, 0x200), None);
    assert_eq!(machine.world.refusals, [Refused::Smi]);
    // A start-up IPI to a CPU that runs is ignored.
    assert_eq!(wrmsr(&mut machine, ICR, 0x612), None);
    assert_eq!(machine.enter(), Entered::Runs);
    assert!(machine.world.ipis.is_empty());
    set(&mut machine, Gpr::Rcx, ICR.into());
    set(&mut machine, Gpr::Rdx, 0);
    set(&mut machine, Gpr::Rax, 0x500);
    let rebooted = Ending {
        reason: ShutdownReason::Reboot,
        detail: 0,
    };
    assert_eq!(
        machine.exit(Exit::Wrmsr(bytes(2))),
        Next::End(rebooted),
        "no firmware at the reset vector"
    );
}

#[test]
fn another_processor_waits_for_its_start_up_ipi() {
    let mut machine = machine();
    machine.vcpu.lapic = Lapic::after_firmware(1, false, ApicMode::X2Apic, RATE);
    assert_eq!(wrmsr(&mut machine, 0x808, 0x20), None);
    let startup = |page| Ipi {
        destination: Destination::Physical(1),
        mode: IpiMode::Startup,
        vector: page,
    };
    set(&mut machine, Gpr::Rcx, ICR.into());
    set(&mut machine, Gpr::Rdx, 1);
    set(&mut machine, Gpr::Rax, 0x500);
    assert_eq!(machine.exit(Exit::Wrmsr(bytes(2))), Next::Wait);
    machine.vcpu.raise_nmi();
    assert!(!machine.wait_until(1000), "an NMI does not start it");
    assert_eq!(machine.vcpu.lapic.cr8(), 0, "the APIC is reset, too");
    machine.vcpu.receive(&mut machine.world, startup(0x9a));
    machine.vcpu.receive(&mut machine.world, startup(0x33));
    assert!(machine.wait_until(2000));
    machine
        .vcpu
        .before_entry(&mut machine.hardware, &mut machine.world);
    let state = machine.hardware.save();
    assert_eq!(
        (state.cs.selector, state.cs.base, state.rip),
        (0x9a00, 0x9_a000, 0)
    );
    assert_eq!(
        (state.cr0, state.rflags, state.gprs[2]),
        (0x10, 2, 0xffff_ffff),
        "RDX is the signature"
    );
}

#[test]
fn a_deadline_that_never_comes_is_not_one_that_has_passed() {
    for offset in [0u64, 5000, 0u64.wrapping_sub(5000)] {
        let mut machine = machine();
        machine.world.host_tsc.set(10_000);
        machine.vcpu.tsc_offset = offset;
        assert_eq!(wrmsr(&mut machine, LVT_TIMER, 2 << 17 | 0x40), None);
        assert_eq!(wrmsr(&mut machine, TSC_DEADLINE, u64::MAX - 1), None);
        assert_eq!(machine.enter(), Entered::Runs);
        assert!(
            machine.vcpu.timer_deadline() > 1 << 63,
            "offset {offset:#x}"
        );
        let soon = machine.vcpu.guest_tsc(10_100);
        assert_eq!(wrmsr(&mut machine, TSC_DEADLINE, soon), None);
        assert_eq!(machine.enter(), Entered::Runs);
        assert_eq!(machine.vcpu.timer_deadline(), 10_100, "offset {offset:#x}");
    }
}

#[test]
fn what_the_priority_holds_back_comes_when_it_is_lowered() {
    use crate::exit::ControlAccess;
    for keeps_tpr in [false, true] {
        let mut machine = Machine::new(Access::Any, keeps_tpr);
        machine.hardware.set_rflags(2 | IF);
        assert_eq!(wrmsr(&mut machine, 0x808, 0x50), None);
        let _ = machine.vcpu.lapic.accept(0x5f, Trigger::Edge);
        assert_eq!(machine.enter(), Entered::Runs);
        assert!(!machine.hardware.interrupt_window());
        assert!(!machine.hardware.write_virtual_tpr(4), "the write exits");
        set(&mut machine, Gpr::Rbx, 4);
        assert_eq!(
            machine.exit(Exit::Control(ControlAccess::WriteCr8(3), bytes(4))),
            Next::Enter
        );
        assert_eq!(machine.enter(), Entered::Delivered(external(0x5f)));
        assert_eq!(
            machine.hardware.write_virtual_tpr(0),
            keeps_tpr,
            "nothing waits any more"
        );
    }
}
