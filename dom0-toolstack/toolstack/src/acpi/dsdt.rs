//! The DSDT: devices that nobody could find otherwise, and how they are wired.
//!
//! There is no code in it, only data: nothing for a guest's interpreter to run but lookups.

use super::aml::{Segment, device, eisa_id, integer, name, package, root_scope, string};
use super::resource::{bus_window, irq, memory, memory_window, port_window, ports, template};
use super::{
    COM1_IRQ, COM1_PORT, PCI_CONFIGURATION_BYTES, PCI_CONFIGURATION_START, PCI_MEMORY_BYTES,
    PCI_MEMORY_START, PCI_SLOTS, fixed, pci_gsi,
};
use alloc::format;
use alloc::vec::Vec;

/// Ports of configuration mechanism 1, which the host bridge takes itself.
const CONFIGURATION_PORTS: (u16, u8) = (0xcf8, 8);
const RTC_PORTS: (u16, u8) = (0x70, 2);
const RTC_IRQ: u8 = 8;
const COM1_PORTS: u8 = 8;
/// SLP_TYP of soft-off, as the hypervisor's PM1 control register knows it.
const SLEEP_TYPE_S5: u64 = 0;

/// The table without its header.
pub(super) fn body(vcpus: u32) -> Vec<u8> {
    let sleep_type = integer(SLEEP_TYPE_S5);
    let s5 = [sleep_type.clone(), sleep_type, integer(0), integer(0)];
    let mut system = Vec::new();
    for id in 0..vcpus {
        system.extend(processor(id));
    }
    system.extend(device(b"PCI0", &host_bridge()));
    let board = [
        memory(PCI_CONFIGURATION_START, PCI_CONFIGURATION_BYTES),
        ports(fixed::PM_PORTS.0, fixed::PM_PORTS.1),
    ];
    system.extend(plug_and_play(b"BORD", b"PNP0C02", 0, &board));
    let com1 = [ports(COM1_PORT, COM1_PORTS), irq(COM1_IRQ)];
    system.extend(plug_and_play(b"COM1", b"PNP0501", 1, &com1));
    let clock = [ports(RTC_PORTS.0, RTC_PORTS.1), irq(RTC_IRQ)];
    system.extend(plug_and_play(b"RTC_", b"PNP0B00", 0, &clock));
    [name(b"_S5_", &package(&s5)), root_scope(b"_SB_", &system)].concat()
}

/// `C000` and so on: a processor whose `_UID` is that of the MADT.
fn processor(id: u32) -> Vec<u8> {
    let segment = format!("C{id:03X}");
    let segment: &Segment = segment
        .as_bytes()
        .first_chunk()
        .expect("a name segment has four letters");
    let body = [
        name(b"_HID", &string("ACPI0007")),
        name(b"_UID", &integer(id.into())),
    ];
    device(segment, &body.concat())
}

/// A device that is known by its id and its resources.
fn plug_and_play(segment: &Segment, id: &[u8; 7], unit: u64, resources: &[Vec<u8>]) -> Vec<u8> {
    let body = [
        name(b"_HID", &eisa_id(id)),
        name(b"_UID", &integer(unit)),
        name(b"_CRS", &template(resources)),
    ];
    device(segment, &body.concat())
}

fn host_bridge() -> Vec<u8> {
    let (first, count) = CONFIGURATION_PORTS;
    let behind = first + u16::from(count);
    let resources = [
        bus_window(0, 1),
        ports(first, count),
        port_window(0, first),
        port_window(behind, 0u16.wrapping_sub(behind)),
        memory_window(PCI_MEMORY_START, PCI_MEMORY_BYTES),
    ];
    let body = [
        name(b"_HID", &eisa_id(b"PNP0A08")),
        name(b"_CID", &eisa_id(b"PNP0A03")),
        name(b"_UID", &integer(0)),
        name(b"_SEG", &integer(0)),
        name(b"_BBN", &integer(0)),
        name(b"_CRS", &template(&resources)),
        name(b"_PRT", &package(&routing())),
    ];
    body.concat()
}

/// Which I/O APIC input each pin of each device drives, behind the host bridge in slot 0.
fn routing() -> Vec<Vec<u8>> {
    const PINS: u32 = 4;
    const ANY_FUNCTION: u64 = 0xffff;
    let pins = (1..PCI_SLOTS).flat_map(|slot| (0..PINS).map(move |pin| (slot, pin)));
    let route = |(slot, pin): (u32, u32)| {
        package(&[
            integer(u64::from(slot) << 16 | ANY_FUNCTION),
            integer(pin.into()),
            // No link device: the number that follows is the input itself.
            integer(0),
            integer(pci_gsi(slot, pin).into()),
        ])
    };
    pins.map(route).collect()
}
