//! `device`: a virtio function that dom0 serves, by every way to its registers. Every access waits for dom0, but a doorbell.

use crate::command_line::Arguments;
use crate::cpu::{in8, in16, in32, out8, out32};
use crate::report::Verdict;
use crate::start_info::StartInfo;
use crate::{check, say, skip};

/// The memory balloon, which every guest has unless its configuration says otherwise: red-hat, 0x1040 + 5.
pub(crate) const BALLOON: u32 = 0x1045_1af4;
const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
const SLOTS: u32 = 32;
/// Where its BARs are put: memory, MSI-X table, ports.
pub(crate) const MEMORY: u64 = 0xd000_0000;
pub(crate) const TABLE: u32 = 0xd001_0000;
const PORTS: u16 = 0xc000;
/// Offsets in the memory BAR.
const FEATURE_SELECT: u64 = 0;
const FEATURES: u64 = 4;
const QUEUES: u64 = 0x12;
pub(crate) const STATUS: u64 = 0x14;
const CONFIGURATION: u64 = 0x2000;
pub(crate) const DOORBELLS: u64 = 0x3000;
/// Bytes of the balloon's configuration: pages wanted and pages given.
const CONFIGURATION_BYTES: usize = 8;
/// Where in it the pages given stand, which the driver writes.
const GIVEN: u16 = 4;

fn config_address(slot: u32, register: u32) -> u32 {
    1 << 31 | slot << 11 | register
}

pub(crate) fn config(slot: u32, register: u32) -> u32 {
    out32(ADDRESS, config_address(slot, register));
    in32(DATA)
}

pub(crate) fn set_config(slot: u32, register: u32, value: u32) {
    out32(ADDRESS, config_address(slot, register));
    out32(DATA, value);
}

/// The slot of the function with these ids.
pub(crate) fn find(ids: u32) -> Option<u32> {
    (1..SLOTS).find(|slot| config(*slot, 0) == ids)
}

/// Finds the function and lets it answer. Returns its first port.
pub(crate) fn enable() -> Option<u16> {
    place(find(BALLOON)?);
    Some(PORTS)
}

/// Puts a function's BARs at their places and lets it answer.
pub(crate) fn place(slot: u32) {
    for (register, value) in [
        (0x10, MEMORY as u32),
        (0x14, 0),
        (0x18, TABLE),
        (0x1c, PORTS.into()),
        (4, 3),
    ] {
        set_config(slot, register, value);
    }
}

pub(crate) fn read<T>(offset: u64) -> T {
    // SAFETY: the device's memory, mapped to itself by entry.rs; reading its registers changes no memory of ours.
    unsafe { ((MEMORY + offset) as *const T).read_volatile() }
}

pub(crate) fn write<T>(offset: u64, value: T) {
    // SAFETY: as for `read`; the device reads and writes no memory of ours, for no queue is set up.
    unsafe { ((MEMORY + offset) as *mut T).write_volatile(value) }
}

pub(crate) fn run(_: &StartInfo, _: &Arguments) -> Verdict {
    if enable().is_none() {
        skip!("no virtio balloon");
    }
    write::<u8>(STATUS, 0);
    check!(read::<u8>(STATUS) == 0, "status after a reset");
    for status in [1, 3] {
        write::<u8>(STATUS, status);
        let now = read::<u8>(STATUS);
        check!(now == status, "status {status} reads {now}");
    }
    let queues = read::<u16>(QUEUES);
    check!((2..64).contains(&queues), "{queues} queues");
    write::<u32>(FEATURE_SELECT, 1);
    let features = read::<u32>(FEATURES);
    check!(
        features & 1 != 0,
        "features {features:#x} without version 1"
    );
    configuration()?;
    // Answered by the hypervisor, whether anybody listens or not.
    for _ in 0..100 {
        write::<u16>(DOORBELLS + 4, 1);
    }
    write::<u8>(STATUS, 0);
    check!(read::<u8>(STATUS) == 0, "status after the second reset");
    Ok(())
}

/// Keeps dom0 busy without end: each access waits for it.
pub(crate) fn flood(_: &StartInfo, _: &Arguments) -> Verdict {
    let Some(port) = enable() else {
        skip!("no virtio balloon");
    };
    say!("MICRO device-flood ENDLESS");
    loop {
        core::hint::black_box(in8(port));
        write::<u16>(DOORBELLS, 0);
    }
}

/// Memory and ports are two views of the same bytes, at each width and by string instructions.
fn configuration() -> Verdict {
    const VALUE: u32 = 0x8765_4321;
    write::<u32>(CONFIGURATION + u64::from(GIVEN), VALUE);
    let seen = (in8(PORTS + GIVEN), in16(PORTS + GIVEN), in32(PORTS + GIVEN));
    check!(seen == (0x21, 0x4321, VALUE), "the ports read {seen:x?}");
    out8(PORTS + GIVEN, 0x99);
    let seen = read::<u32>(CONFIGURATION + u64::from(GIVEN));
    say!("configuration after a byte written: {seen:#x}");
    let mut bytes = [0u8; CONFIGURATION_BYTES];
    // SAFETY: REP MOVSB from the device's registers into `bytes`, no more than it has.
    unsafe {
        core::arch::asm!(
            "rep movsb",
            inout("rsi") MEMORY + CONFIGURATION => _,
            inout("rdi") bytes.as_mut_ptr() => _,
            inout("rcx") bytes.len() => _,
            options(nostack, preserves_flags)
        );
    }
    let ports: [u8; CONFIGURATION_BYTES] = core::array::from_fn(|at| in8(PORTS + at as u16));
    check!(
        bytes == ports,
        "a string reads {bytes:x?}, the ports {ports:x?}"
    );
    Ok(())
}
