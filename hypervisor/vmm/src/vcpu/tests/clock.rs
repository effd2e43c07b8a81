//! The paravirtual clock as a guest finds and uses it.

use super::*;
use crate::cpuid::{KVM_FIRST, KVM_SIGNATURE};
use crate::walk::GuestMemory;

const WALL_CLOCK: u32 = 0x4b56_4d00;
const SYSTEM_TIME: u32 = 0x4b56_4d01;
const TSC: u32 = 0x10;
const HZ: u64 = 2_000_000_000;
const STABLE: u8 = 1;

/// Version, TSC of the reference, time of the reference, flags.
fn page(machine: &Machine, gpa: u64) -> (u32, u64, u64, u8) {
    let mut bytes = [0; 32];
    assert!(machine.world.read(gpa, &mut bytes));
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    // Half a nanosecond a tick.
    assert_eq!(bytes[24..29], [0, 0, 0, 0x80, 0], "multiplier and shift");
    (word(0) as u32, word(8), word(16), bytes[29])
}

#[test]
fn a_guest_finds_it_by_cpuid() {
    let mut machine = machine();
    let mut ask = |leaf: u32| {
        set(&mut machine, Gpr::Rax, leaf.into());
        assert_eq!(machine.exit(Exit::Cpuid(bytes(2))), Next::Enter);
        [Gpr::Rax, Gpr::Rbx, Gpr::Rcx, Gpr::Rdx].map(|register| gpr(&machine, register) as u32)
    };
    let [last, words @ ..] = ask(KVM_FIRST);
    assert_eq!(words.map(u32::to_le_bytes).as_flattened(), KVM_SIGNATURE);
    assert_eq!(last, KVM_FIRST + 1);
    let [features, hints @ ..] = ask(KVM_FIRST + 1);
    assert_eq!(
        features,
        1 << 1 | 1 << 3 | 1 << 24,
        "nothing else is offered"
    );
    assert_eq!(hints, [0; 3]);
}

#[test]
fn the_page_is_there_when_the_msr_is_written() {
    let mut machine = machine();
    machine.world.host_tsc.set(5 * HZ);
    assert_eq!(wrmsr(&mut machine, SYSTEM_TIME, 0x5000 | 1), None);
    assert_eq!(rdmsr(&mut machine, SYSTEM_TIME), Ok(0x5001));
    assert_eq!(page(&machine, 0x5000), (2, 0, 0, STABLE));
    // The guest moves its TSC ten seconds on: the time is what it was.
    assert_eq!(wrmsr(&mut machine, TSC, 15 * HZ), None);
    assert_eq!(page(&machine, 0x5000), (4, 10 * HZ, 0, STABLE));
    // Off: nobody writes any more.
    assert_eq!(wrmsr(&mut machine, SYSTEM_TIME, 0x5000), None);
    assert_eq!(wrmsr(&mut machine, TSC, 0), None);
    assert_eq!(page(&machine, 0x5000), (4, 10 * HZ, 0, STABLE));
}

#[test]
fn the_wall_clock_is_written_once() {
    let mut machine = machine();
    machine.world.platform.set_clock(7_000_000_003, 2 * HZ);
    assert_eq!(wrmsr(&mut machine, WALL_CLOCK, 0x6004), None);
    assert_eq!(rdmsr(&mut machine, WALL_CLOCK), Ok(0x6004));
    let mut bytes = [0; 12];
    assert!(machine.world.read(0x6004, &mut bytes));
    assert_eq!(bytes, [2, 0, 0, 0, 5, 0, 0, 0, 3, 0, 0, 0]);
}

#[test]
fn addresses_without_memory_are_refused() {
    let mut machine = machine();
    let nowhere = machine.world.ram_bytes;
    assert_eq!(wrmsr(&mut machine, SYSTEM_TIME, nowhere | 1), Some(GP));
    assert_eq!(rdmsr(&mut machine, SYSTEM_TIME), Ok(0), "as before");
    assert_eq!(wrmsr(&mut machine, WALL_CLOCK, nowhere), Some(GP));
    assert_eq!(wrmsr(&mut machine, WALL_CLOCK, 0x1001), Some(GP));
    assert_eq!(wrmsr(&mut machine, SYSTEM_TIME, 0x1003), Some(GP));
}
