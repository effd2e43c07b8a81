//! `msi`: plain MSI of a virtio function that dom0 serves. A ring that cannot be makes the device ask for an interrupt at once.

use crate::command_line::Arguments;
use crate::report::{Ending, Verdict};
use crate::start_info::StartInfo;
use crate::tests::device::{self, DOORBELLS, STATUS, read, set_config, write};
use crate::{apic, check, cpu, fail, say, skip, trap};

/// Capability id, and where message control, address and data are in the capability.
const CAPABILITY: u32 = 5;
const ADDRESS: u32 = 4;
const ADDRESS_HIGH: u32 = 8;
const DATA: u32 = 12;
/// In the capability's first dword.
const ENABLE: u32 = 1 << 16;
const TWO_MESSAGES: u32 = 1 << 20;
const ADDRESS_64: u32 = 1 << 23;
/// Status register, in the upper half of the command's dword: the device asserts its pin.
const PIN_ASSERTED: u32 = 1 << 19;
const VECTOR: u8 = 0x60;
/// Registers of the common configuration (virtio 1.2 section 4.1.4.3), and the ISR.
const FEATURE_SELECT: u64 = 0x08;
const FEATURES: u64 = 0x0c;
const CONFIG_VECTOR: u64 = 0x10;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_ADDRESSES: u64 = 0x20;
const ISR: u64 = 0x1000;
const ISR_CONFIG: u8 = 2;
const NEEDS_RESET: u8 = 64;
const ENTRIES: u16 = 16;
const PAGE_BYTES: u64 = 0x1000;
/// Rings, each at the beginning of a page.
const RINGS: u64 = 3;
const LOOKS_MAX: u32 = 100_000;

pub(crate) fn run(info: &StartInfo, _: &Arguments) -> Verdict {
    let Some(slot) = device::find(device::BALLOON) else {
        skip!("no virtio balloon");
    };
    let Some(free) = info.free_ram().max_by_key(|range| range.end - range.start) else {
        skip!("no free memory");
    };
    let rings = (free.end - RINGS * PAGE_BYTES) & !(PAGE_BYTES - 1);
    check!(rings >= free.start, "too little memory");
    device::place(slot);
    apic::enable();
    let at = capability(slot)?;
    let apic_id = match apic::is_x2apic() {
        true => apic::read(apic::ID),
        false => apic::read(apic::ID) >> 24,
    };
    set_config(slot, at + ADDRESS, 0xfee0_0000 | apic_id << 12);
    set_config(slot, at + ADDRESS_HIGH, 0);
    set_config(slot, at + DATA, VECTOR.into());
    // In place of the pin: the first message, and the interrupt status tells why.
    interrupted(slot, at, ENABLE, u16::MAX, rings, Some(VECTOR))?;
    // With two messages, the second by its number.
    interrupted(slot, at, ENABLE | TWO_MESSAGES, 1, rings, Some(VECTOR + 1))?;
    // Only one message given: both vectors are that.
    interrupted(slot, at, ENABLE, 1, rings, Some(VECTOR))?;
    interrupted(slot, at, 0, u16::MAX, rings, None)?;
    write::<u8>(STATUS, 0);
    Ok(())
}

/// Where the capability begins.
fn capability(slot: u32) -> Result<u32, Ending> {
    let mut at = device::config(slot, 0x34) & 0xfc;
    while at != 0 {
        let head = device::config(slot, at);
        if head & 0xff == CAPABILITY {
            say!("capability at {at:#x}: {head:#x}");
            check!(head & ADDRESS_64 != 0, "32-bit addresses: {head:#x}");
            return Ok(at);
        }
        at = head >> 8 & 0xfc;
    }
    fail!("no MSI capability");
}

/// Breaks a ring with this message control and this vector: exactly this interrupt comes, or the pin is asserted.
fn interrupted(
    slot: u32,
    at: u32,
    control: u32,
    vector: u16,
    rings: u64,
    expected: Option<u8>,
) -> Verdict {
    set_config(slot, at, control);
    trap::clear_log();
    break_ring(vector, rings);
    let mut looks = 0;
    while read::<u8>(STATUS) & NEEDS_RESET == 0 {
        looks += 1;
        check!(looks < LOOKS_MAX, "the device takes a ring that cannot be");
    }
    // What was sent, was sent before dom0 answered.
    for _ in 0..100 {
        cpu::open_interrupt_window();
    }
    let pin = device::config(slot, 4) & PIN_ASSERTED != 0;
    let reason = read::<u8>(ISR);
    let (count, first) = (trap::log_len(), trap::logged(0));
    say!("control {control:#x} vector {vector:#x}: {count}, {first:x?}, status {reason}");
    let pin_expected = vector == u16::MAX;
    check!(pin == pin_expected, "the status register says {pin}");
    let reason_expected = if pin_expected { ISR_CONFIG } else { 0 };
    check!(reason == reason_expected, "interrupt status {reason}");
    check!(
        (count, first) == (usize::from(expected.is_some()), expected.map(u64::from)),
        "{count} interrupts, the first {first:x?}, expected {expected:x?}"
    );
    Ok(())
}

/// Gives the device a first queue whose available index is ahead by more entries than there are.
fn break_ring(vector: u16, rings: u64) {
    for status in [0, 1, 3] {
        write::<u8>(STATUS, status);
    }
    write::<u32>(FEATURE_SELECT, 1);
    write::<u32>(FEATURES, 1);
    write::<u8>(STATUS, 11);
    write::<u16>(CONFIG_VECTOR, vector);
    for word in (rings..rings + RINGS * PAGE_BYTES).step_by(8) {
        let value = if word == rings + PAGE_BYTES {
            0x8000_0000
        } else {
            0u64
        };
        // SAFETY: the last pages of free memory, which entry.rs maps to itself and no object lies in.
        unsafe { (word as *mut u64).write_volatile(value) };
    }
    write::<u16>(QUEUE_SELECT, 0);
    write::<u16>(QUEUE_SIZE, ENTRIES);
    for ring in 0..RINGS {
        let address = rings + ring * PAGE_BYTES;
        write::<u32>(QUEUE_ADDRESSES + ring * 8, address as u32);
        write::<u32>(QUEUE_ADDRESSES + ring * 8 + 4, (address >> 32) as u32);
    }
    write::<u16>(QUEUE_ENABLE, 1);
    write::<u8>(STATUS, 15);
    write::<u16>(DOORBELLS, 0);
}
