//! The MADT (section 5.2.12): who may be interrupted and through what.

use super::{IO_APIC_ADDRESS, LOCAL_APIC_ADDRESS, SCI_GSI};
use alloc::vec::Vec;

/// There are 8259s as well.
const PCAT_COMPAT: u32 = 1 << 0;
/// Local APIC flags: usable.
const ENABLED: u32 = 1 << 0;
/// APIC ids up to this fit in a local APIC entry; 255 is the broadcast.
const APIC_ID_MAX: u32 = 254;
/// MPS INTI flags: as the bus has it.
const CONFORMING: u16 = 0;
/// MPS INTI flags: active high, level-triggered.
const HIGH_LEVEL: u16 = 0b11 << 2 | 0b01;
const NMI_PIN: u8 = 1;

/// The table without its header.
pub(super) fn body(vcpus: u32) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(LOCAL_APIC_ADDRESS.to_le_bytes());
    body.extend(PCAT_COMPAT.to_le_bytes());
    for id in 0..vcpus {
        if id <= APIC_ID_MAX {
            body.extend([0, 8, id as u8, id as u8]);
            body.extend(ENABLED.to_le_bytes());
        } else {
            body.extend([9, 16, 0, 0]);
            for word in [id, ENABLED, id] {
                body.extend(word.to_le_bytes());
            }
        }
    }
    // I/O APIC: id 0, inputs from 0 on.
    body.extend([1, 12, 0, 0]);
    body.extend(IO_APIC_ADDRESS.to_le_bytes());
    body.extend(0u32.to_le_bytes());
    for (irq, gsi, flags) in [(0, 2, CONFORMING), (SCI_GSI, SCI_GSI, HIGH_LEVEL)] {
        const ISA: u8 = 0;
        body.extend([2, 10, ISA, irq]);
        body.extend(u32::from(gsi).to_le_bytes());
        body.extend(flags.to_le_bytes());
    }
    // NMI at LINT1 of every processor, of the one kind and of the other.
    body.extend([4, 6, 0xff]);
    body.extend(CONFORMING.to_le_bytes());
    body.push(NMI_PIN);
    if vcpus > APIC_ID_MAX + 1 {
        body.extend([10, 12]);
        body.extend(CONFORMING.to_le_bytes());
        body.extend(u32::MAX.to_le_bytes());
        body.extend([NMI_PIN, 0, 0, 0]);
    }
    body
}
