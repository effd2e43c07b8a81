//! Exits that end a domain, or give it a fault.

use super::*;
use crate::exit::NestedFault;
use crate::vcpu::Ending;
use godwit_abi::ShutdownReason;

#[test]
fn endings_have_a_reason_and_a_detail() {
    let fault = NestedFault {
        gpa: 0xfee0_0020,
        read: false,
        write: false,
        fetch: true,
        mapped: false,
    };
    for (exit, reason, detail) in [
        (Exit::TripleFault, ShutdownReason::TripleFault, 0x1000),
        (Exit::Nested(fault), ShutdownReason::BadMemory, 0xfee0_0020),
        (
            Exit::EntryFailed {
                code: 33,
                detail: 1,
            },
            ShutdownReason::EntryFailed,
            0x1000,
        ),
        (
            Exit::Unknown {
                code: 0x123,
                detail: 1,
            },
            ShutdownReason::UnknownExit,
            0x123,
        ),
        (Exit::TaskSwitch, ShutdownReason::BadInstruction, 0x1000),
    ] {
        assert_eq!(
            machine().exit(exit),
            Next::End(Ending { reason, detail }),
            "{exit:?}"
        );
    }
}

#[test]
fn forbidden_instructions_do_not_exist() {
    let mut machine = machine();
    assert_eq!(machine.exit(Exit::Forbidden), Next::Enter);
    assert_eq!(machine.hardware.take_event(), Some(UD));
    assert_eq!(machine.hardware.rip(), 0x1000);
}

#[test]
fn intercepted_exceptions_go_back_to_the_guest() {
    let mut machine = machine();
    assert_eq!(machine.exit(Exit::Exception(17, Some(0))), Next::Enter);
    let event = machine.hardware.take_event().expect("an exception");
    assert_eq!(
        (event.kind, event.vector, event.error_code),
        (EventKind::Exception, 17, Some(0))
    );
}

#[test]
fn an_event_on_its_way_is_not_overwritten() {
    let waiting = PendingEvent {
        kind: EventKind::External,
        vector: 0x55,
        error_code: None,
        instruction_length: 0,
    };
    for exit in [
        Exit::Forbidden,
        Exit::Exception(17, Some(0)),
        Exit::Rdmsr(bytes(2)),
        Exit::Wrmsr(bytes(2)),
        Exit::Xsetbv(bytes(3)),
    ] {
        let mut machine = machine();
        machine.hardware.delivery_interrupted(waiting);
        set(&mut machine, Gpr::Rcx, 0xdead);
        machine.vcpu.raise_nmi();
        let _ = machine
            .vcpu
            .lapic
            .accept(0xf0, crate::devices::lapic::Trigger::Edge);
        machine.hardware.set_rflags(2 | IF);
        assert_eq!(machine.exit(exit), Next::Enter);
        assert_eq!(machine.hardware.rip(), 0x1000, "{exit:?} is retried");
        assert_eq!(
            machine.enter(),
            crate::fake::Entered::Delivered(waiting),
            "{exit:?}"
        );
    }
}
