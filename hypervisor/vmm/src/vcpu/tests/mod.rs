//! A vCPU end to end, over the fake back end.

mod absent;
mod clock;
mod control;
mod dirty;
mod endings;
mod forward;
mod fuzz;
mod interleave;
mod interrupts;
mod mmio;
mod msr;
mod port;
mod saved;
mod smp;
mod step;

use core::num::NonZeroU8;

use godwit_abi::Access;
use godwit_records::{EventKind, PendingEvent};

use crate::exit::{Exit, Length};
use crate::fake::Machine;
use crate::hardware::{Gpr, VcpuHardware};
use crate::vcpu::Next;

const IF: u64 = 1 << 9;
const GP: PendingEvent = PendingEvent {
    kind: EventKind::Exception,
    vector: 13,
    error_code: Some(0),
    instruction_length: 0,
};
const UD: PendingEvent = PendingEvent {
    kind: EventKind::Exception,
    vector: 6,
    error_code: None,
    instruction_length: 0,
};

fn bytes(length: u8) -> Length {
    NonZeroU8::new(length)
}

fn machine() -> Machine {
    Machine::new(Access::Any, false)
}

fn set(machine: &mut Machine, register: Gpr, value: u64) {
    machine.hardware.gprs_mut()[register as usize] = value;
}

fn gpr(machine: &Machine, register: Gpr) -> u64 {
    machine.hardware.gprs()[register as usize]
}

/// WRMSR; the event it leads to.
fn wrmsr(machine: &mut Machine, index: u32, value: u64) -> Option<PendingEvent> {
    set(machine, Gpr::Rcx, u64::from(index) | 0xffff << 32);
    set(machine, Gpr::Rax, value & 0xffff_ffff | 0xaaaa << 32);
    set(machine, Gpr::Rdx, value >> 32 | 0xbbbb << 32);
    assert_eq!(machine.exit(Exit::Wrmsr(bytes(2))), Next::Enter);
    machine.hardware.take_event()
}

/// RDMSR; the value or the event.
fn rdmsr(machine: &mut Machine, index: u32) -> Result<u64, PendingEvent> {
    set(machine, Gpr::Rcx, index.into());
    set(machine, Gpr::Rax, u64::MAX);
    set(machine, Gpr::Rdx, u64::MAX);
    assert_eq!(machine.exit(Exit::Rdmsr(bytes(2))), Next::Enter);
    match machine.hardware.take_event() {
        Some(event) => Err(event),
        None => {
            assert_eq!(
                gpr(machine, Gpr::Rdx) >> 32 | gpr(machine, Gpr::Rax) >> 32,
                0
            );
            Ok(gpr(machine, Gpr::Rdx) << 32 | gpr(machine, Gpr::Rax))
        }
    }
}
