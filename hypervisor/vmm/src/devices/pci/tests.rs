//! Tests of the PCI bus: header, BAR sizing, decoding, capabilities, MSI-X, saved state.

extern crate std;

mod msi;

use super::*;
use crate::devices::lapic::Destination;
use proptest::prelude::*;
use std::vec;

const SLOT: u8 = 5;
const AT: u64 = (SLOT as u64) << 15;

fn definition() -> FunctionDefinition {
    FunctionDefinition {
        vendor: 0x1AF4,
        device: 0x1041,
        revision: 1,
        class: 0x02_00_00,
        subsystem_vendor: 0x1AF4,
        subsystem: 1,
        bars: [
            Bar::Io { ports: 32 },
            Bar::Memory32 { size_bytes: 4096 },
            Bar::Memory64 {
                size_bytes: 1 << 32,
            },
            Bar::None,
            Bar::Memory32 {
                size_bytes: 0x8000_0000,
            },
            Bar::None,
        ],
        interrupt_pin: 1,
        capabilities: vec![
            Capability {
                id: 9,
                body: vec![16, 1, 2, 0, 0, 0, 7, 0, 0, 0, 0, 0x10, 0, 0],
            },
            Capability {
                id: 9,
                body: vec![5, 2, 2],
            },
        ],
        msix: Some((1, 3)),
        msi_messages: 4,
        doorbells: None,
    }
}

fn bus() -> Pci {
    let mut pci = Pci::new();
    pci.insert(SLOT, definition()).unwrap();
    pci
}

fn read(pci: &Pci, register: u64) -> u32 {
    pci.read_config(AT | register, Width::Dword)
}

fn write(pci: &mut Pci, register: u64, value: u32) {
    pci.write_config(AT | register, Width::Dword, value);
}

#[test]
fn header_is_as_defined_and_read_only() {
    let mut pci = bus();
    let before = (0..16).map(|i| read(&pci, i * 4)).collect::<Vec<_>>();
    assert_eq!(before[0], 0x1041_1AF4);
    assert_eq!(before[1], 0x0010_0000);
    assert_eq!(before[2], 0x0200_0001);
    assert_eq!(before[11], 0x0001_1AF4);
    assert_eq!(before[15], 0x0000_0100);
    for i in 0..16 {
        write(&mut pci, i * 4, u32::MAX);
    }
    assert_eq!(read(&pci, 4), 0x0010_0547);
    for i in [0, 2, 3, 11, 13] {
        assert_eq!(read(&pci, i * 4), before[i as usize]);
    }
    assert_eq!(read(&pci, 0x3C), 0x0000_01FF);
    assert_eq!(read(&pci, 0x100), u32::MAX, "no extended space");
    assert_eq!(
        pci.read_config(AT | 1 << 12, Width::Word),
        0xFFFF,
        "one function"
    );
    pci.reset();
    assert_eq!(
        (0..16).map(|i| read(&pci, i * 4)).collect::<Vec<_>>(),
        before
    );
}

#[test]
fn bars_tell_their_size_and_decode() {
    let mut pci = bus();
    for (register, expected) in [
        (0x10, 0xFFFF_FFE1),
        (0x14, 0xFFFF_F000),
        (0x18, 0x0000_000C),
        (0x1C, 0xFFFF_FFFF),
        (0x20, 0x8000_0000),
        (0x24, 0),
    ] {
        write(&mut pci, register, u32::MAX);
        assert_eq!(read(&pci, register), expected, "{register:#x}");
    }
    for (register, value) in [
        (0x10, 0xC000),
        (0x14, 0xC000_0000),
        (0x18, 0),
        (0x1C, 0x10),
        (0x20, 0),
    ] {
        write(&mut pci, register, value);
    }
    assert_eq!(pci.decode_io(0xC01F), None, "decoding is off");
    write(&mut pci, 4, 3);
    let target = |bar, offset| {
        Some(Target {
            slot: SLOT,
            bar,
            offset,
        })
    };
    assert_eq!(pci.decode_io(0xC01F), target(0, 0x1F));
    assert_eq!(pci.decode_io(0xC020), None);
    assert_eq!(pci.decode_memory(0xC000_0FFF), target(1, 0xFFF));
    assert_eq!(pci.decode_memory(0xC000_1000), None);
    assert_eq!(pci.decode_memory(0x10_1234_5678), target(2, 0x1234_5678));
    assert_eq!(pci.decode_memory(0x11_0000_0000), None);
    assert_eq!(pci.decode_memory(0x7FFF_FFFF), target(4, 0x7FFF_FFFF));
}

#[test]
fn capabilities_are_chained() {
    let pci = bus();
    let mut at = u64::from(pci.read_config(AT | 0x34, Width::Byte));
    let mut found = vec![];
    while at != 0 {
        found.push((at, pci.read_config(AT | at, Width::Byte)));
        at = pci.read_config(AT | (at + 1), Width::Byte).into();
    }
    assert_eq!(found, [(0x40, 9), (0x50, 9), (0x58, 0x11), (0x64, 5)]);
    assert_eq!(pci.read_config(AT | 0x52, Width::Byte), 5);
    assert_eq!(read(&pci, 0x58), 0x0002_6411);
    assert_eq!((read(&pci, 0x5C), read(&pci, 0x60)), (1, 0x801));
}

fn table(bar_offset: u64) -> Target {
    Target {
        slot: SLOT,
        bar: 1,
        offset: bar_offset,
    }
}

fn sent(pci: &mut Pci, vector: u16) -> Message {
    match pci.signal(SLOT, vector) {
        Some(Signal::Message(message)) => message,
        other => panic!("vector {vector}: {other:?}"),
    }
}

#[test]
fn msix_sends_or_pends() {
    let mut pci = bus();
    assert_eq!(pci.signal(SLOT, 1), Some(Signal::Pin), "not enabled");
    assert_eq!(pci.signal(9, 1), None, "no such function");
    write(&mut pci, 0x58, 0x8000_0000);
    for (offset, value) in [(0, 0xFEE0_1000), (4, 0), (8, 0x51), (12, 0)] {
        assert_eq!(
            pci.write_msix(table(16 + offset), Width::Dword, value),
            Some(())
        );
    }
    let message = sent(&mut pci, 1);
    assert_eq!(
        (message.vector, message.destination),
        (0x51, Destination::Physical(1))
    );
    // Masked as a whole.
    write(&mut pci, 0x58, 0xC000_0000);
    for vector in [1, 2] {
        assert_eq!(pci.signal(SLOT, vector), Some(Signal::Nothing));
    }
    let beyond = pci.signal(SLOT, 3);
    assert_eq!(beyond, Some(Signal::Nothing), "no such vector");
    assert_eq!(pci.read_msix(table(0x800), Width::Dword), Some(0b110));
    assert_eq!(pci.next_message(), None);
    let mut moved = Pci::restore(&pci.save()).unwrap();
    assert_eq!(moved, pci);
    for pci in [&mut pci, &mut moved] {
        write(pci, 0x58, 0x8000_0000);
        assert!(pci.has_message());
        assert_eq!(pci.next_message(), Some(message));
        assert_eq!(pci.next_message(), None, "vector 2 is masked itself");
        // Unmasked without an address it is gone.
        pci.write_msix(table(32 + 12), Width::Dword, 0).unwrap();
        assert_eq!(pci.next_message(), None);
        assert_eq!(pci.read_msix(table(0x800), Width::Dword), Some(0));
    }
    assert_eq!(
        pci.read_msix(
            Target {
                slot: SLOT,
                bar: 4,
                offset: 0
            },
            Width::Dword
        ),
        None
    );
    assert_eq!(pci.read_msix(table(16), Width::Byte), Some(0));
    assert_eq!(pci.read_msix(table(17), Width::Byte), Some(0x10));
}

#[test]
fn intx_follows_pin_slot_and_command() {
    let mut pci = bus();
    assert_eq!(pci.intx_lines(), 0);
    pci.set_intx(SLOT, true);
    pci.set_intx(9, true);
    assert_eq!(pci.intx_lines(), 1 << (SLOT % 4));
    assert_eq!(read(&pci, 4) >> 16 & 8, 8);
    write(&mut pci, 4, 1 << 10);
    assert_eq!(pci.intx_lines(), 0);
    assert_eq!(read(&pci, 4) >> 16 & 8, 8);
}

#[test]
fn what_cannot_be_is_refused() {
    let mut pci = bus();
    assert_eq!(pci.insert(SLOT, definition()), Err(BadFunction::SlotTaken));
    assert_eq!(pci.insert(32, definition()), Err(BadFunction::SlotTaken));
    let mut refuse = |change: fn(&mut FunctionDefinition), error| {
        let mut bad = definition();
        change(&mut bad);
        assert_eq!(pci.insert(6, bad), Err(error));
    };
    refuse(|d| d.bars[0] = Bar::Io { ports: 24 }, BadFunction::Bar);
    refuse(
        |d| d.bars[4] = Bar::Memory32 { size_bytes: 8 },
        BadFunction::Bar,
    );
    refuse(
        |d| d.bars[5] = Bar::Memory64 { size_bytes: 4096 },
        BadFunction::Bar,
    );
    refuse(|d| d.msix = Some((4, 3)), BadFunction::Msix);
    refuse(|d| d.msix = Some((1, 65)), BadFunction::Msix);
    refuse(|d| d.msi_messages = 3, BadFunction::Msi);
    refuse(|d| d.msi_messages = 64, BadFunction::Msi);
    refuse(|d| d.interrupt_pin = 5, BadFunction::Header);
    refuse(
        |d| d.capabilities[0].body = vec![0; 180],
        BadFunction::Capabilities,
    );
}

#[test]
fn impossible_states_are_refused() {
    let good = bus().save();
    assert_eq!(Pci::restore(&good), Ok(bus()));
    let refuse = |change: fn(&mut PciState), field| {
        let mut bad = good.clone();
        change(&mut bad);
        assert_eq!(Pci::restore(&bad).unwrap_err().field, field);
    };
    refuse(|s| s.address = 1, "pci.address");
    refuse(|s| s.functions.truncate(0), "pci.bridge");
    refuse(|s| s.functions[0].1.definition.vendor = 1, "pci.bridge");
    refuse(|s| s.functions[1].0 = 0, "pci.bridge");
    refuse(|s| s.functions[1].0 = 32, "pci.slot");
    refuse(|s| s.functions[1].1.config[0] = 0, "pci.config");
    refuse(
        |s| s.functions[1].1.definition.bars[0] = Bar::Io { ports: 3 },
        "pci.definition",
    );
    refuse(|s| s.functions[1].1.msix = None, "pci.msix");
    refuse(
        |s| s.functions[1].1.msix.as_mut().unwrap().pending = 8,
        "pci.msix.pending",
    );
}

proptest! {
    /// Whatever a guest writes anywhere, the bus can be moved and answers alike.
    #[test]
    fn moved_bus_answers_alike(
        ops in prop::collection::vec((0u8..4, 0u64..0x110, any::<u32>()), 1..60),
    ) {
        let mut pci = bus();
        for (kind, register, value) in ops {
            match kind {
                0 => write(&mut pci, register & !3, value),
                1 => pci.write_config(AT | register, Width::Byte, value & 0xFF),
                2 => {
                    pci.write_msix(table(register & !3), Width::Dword, value | 0xFEE0_0000);
                }
                _three => {
                    let _signal = pci.signal(SLOT, value as u16 & 3);
                    pci.set_intx(SLOT, value & 4 != 0);
                }
            }
            let moved = Pci::restore(&pci.save());
            prop_assert_eq!(moved.as_ref(), Ok(&pci));
            pci.next_message();
        }
    }
}

#[test]
fn doorbells_are_told_from_registers() {
    let with = |bar, offset, stride, count| FunctionDefinition {
        doorbells: Some(Doorbells {
            bar,
            offset,
            stride,
            count,
        }),
        ..definition()
    };
    for (bar, offset, stride, count) in [
        (0, 0, 0, 1),
        (0, 0, 4, 0),
        (0, 4, 4, 8),
        (3, 0, 4, 1),
        (6, 0, 4, 1),
        (4, 0, 4, 65),
    ] {
        let refused = Pci::new().insert(SLOT, with(bar, offset, stride, count));
        assert_eq!(refused, Err(BadFunction::Doorbells));
    }
    let mut pci = Pci::new();
    pci.insert(SLOT, with(4, 0x100, 8, 64)).unwrap();
    let route = |bar, offset| {
        let target = Target {
            slot: SLOT,
            bar,
            offset,
        };
        pci.route(target)
    };
    assert!(matches!(
        route(4, 0x100),
        Some(Route::Doorbell { doorbell: 0, .. })
    ));
    assert!(matches!(
        route(4, 0x2fc),
        Some(Route::Doorbell { doorbell: 63, .. })
    ));
    for (bar, offset) in [(4, 0xff), (4, 0x300), (2, 0x100)] {
        assert!(matches!(route(bar, offset), Some(Route::Device(_))));
    }
    assert_eq!(route(1, 0x100), None, "the MSI-X table is ours");
    let bells = pci.function(SLOT).unwrap().definition().doorbells;
    assert_eq!(bells.map(|bells| bells.all()), Some(u64::MAX));
}

#[test]
fn a_removed_function_claims_nothing() {
    let mut pci = bus();
    assert_eq!(pci.free_slot(), Some(1));
    write(&mut pci, 0x10, 0xC000);
    write(&mut pci, 4, 3);
    assert_eq!(pci.decode_io(0xC01F).map(|target| target.slot), Some(SLOT));
    assert!(pci.remove(SLOT));
    assert_eq!(pci.decode_io(0xC01F), None);
    assert_eq!(read(&pci, 0), u32::MAX);
    assert!(!pci.remove(SLOT) && !pci.remove(0) && !pci.remove(40));
}

#[test]
fn what_dom0_describes_is_what_is_made() {
    use godwit_abi::{
        DEVICE_BAR_MEMORY32, DEVICE_BAR_MEMORY64, DEVICE_BAR_PORTS, DeviceBar, DeviceDefinition,
    };
    let mut capabilities = [0; godwit_abi::CAPABILITY_BYTES];
    let listed = definition().capabilities;
    let mut at = 0;
    for capability in &listed {
        let end = at + 2 + capability.body.len();
        capabilities[at] = capability.id;
        capabilities[at + 1] = capability.body.len() as u8;
        capabilities[at + 2..end].copy_from_slice(&capability.body);
        at = end;
    }
    let bar = |kind, size| DeviceBar {
        kind,
        reserved: 0,
        size,
    };
    let described = DeviceDefinition {
        slot: SLOT.into(),
        class: 0x02_00_00,
        vendor: 0x1AF4,
        device: 0x1041,
        subsystem_vendor: 0x1AF4,
        subsystem: 1,
        revision: 1,
        interrupt_pin: 1,
        msix_vectors: 3,
        msix_bar: 1,
        doorbell_bar: 2,
        doorbells: 2,
        doorbell_offset: 0x3000,
        doorbell_stride: 4,
        capability_bytes: at as u32,
        msi_messages: 4,
        bars: [
            bar(DEVICE_BAR_PORTS, 32),
            bar(DEVICE_BAR_MEMORY32, 4096),
            bar(DEVICE_BAR_MEMORY64, 1 << 32),
            bar(0, 0),
            bar(DEVICE_BAR_MEMORY32, 0x8000_0000),
            bar(0, 0),
        ],
        capabilities,
        reserved_end: 0,
    };
    let made = FunctionDefinition {
        doorbells: Some(Doorbells {
            bar: 2,
            offset: 0x3000,
            stride: 4,
            count: 2,
        }),
        ..definition()
    };
    assert_eq!(FunctionDefinition::from_abi(&described), Ok(made));
    // A capability that says it is longer than what there is; half a capability; an unknown kind of BAR.
    for capability_bytes in [at as u32 - 1, at as u32 + 1, 193] {
        let cut = DeviceDefinition {
            capability_bytes,
            ..described
        };
        let refused = FunctionDefinition::from_abi(&cut);
        assert_eq!(refused, Err(BadFunction::Capabilities));
    }
    let mut unknown = described;
    unknown.bars[5] = bar(4, 16);
    let refused = FunctionDefinition::from_abi(&unknown);
    assert_eq!(refused, Err(BadFunction::Bar));
}
