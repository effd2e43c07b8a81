//! Tests of the I/O APIC: single behaviours by the data sheet, and laws over random programs.

extern crate std;

use super::*;
use crate::devices::lapic::Destination;
use proptest::prelude::*;
use std::vec::Vec;

fn program(ioapic: &mut Ioapic, pin: u8, entry: u64) {
    for (half, value) in [(1, (entry >> 32) as u32), (0, entry as u32)] {
        ioapic.mmio_write(SELECT, Width::Dword, u32::from(ENTRIES + 2 * pin + half));
        ioapic.mmio_write(WINDOW, Width::Dword, value);
    }
}

fn read(ioapic: &mut Ioapic, register: u8) -> u32 {
    ioapic.mmio_write(SELECT, Width::Byte, register.into());
    ioapic.mmio_read(WINDOW, Width::Dword)
}

#[test]
fn version_and_id_are_read() {
    let mut ioapic = Ioapic::new();
    assert_eq!(read(&mut ioapic, VERSION), 0x0017_0020);
    ioapic.mmio_write(SELECT, Width::Dword, 0);
    ioapic.mmio_write(WINDOW, Width::Dword, 0xF500_0000);
    assert_eq!(read(&mut ioapic, ID), 0x0500_0000);
    assert_eq!(ioapic.mmio_read(SELECT, Width::Dword), 0);
    assert_eq!(read(&mut ioapic, ENTRIES), MASKED as u32);
    assert_eq!(read(&mut ioapic, 0xFF), 0);
}

#[test]
fn edge_pin_sends_once_for_each_rise() {
    let mut ioapic = Ioapic::new();
    ioapic.set_line(2, true);
    ioapic.set_line(2, false);
    program(&mut ioapic, 2, 0x0100_0000_0000_0830);
    assert_eq!(ioapic.next_message(), None, "edges while masked are lost");
    ioapic.set_line(2, true);
    ioapic.set_line(2, true);
    assert_eq!(
        ioapic.next_message(),
        Some(Message {
            vector: 0x30,
            destination: Destination::Logical(1),
            mode: MessageMode::Fixed,
            trigger: Trigger::Edge
        })
    );
    assert_eq!(ioapic.next_message(), None);
    ioapic.set_line(2, false);
    assert!(!ioapic.has_message());
    ioapic.set_line(2, true);
    assert!(ioapic.has_message());
}

#[test]
fn level_pin_waits_for_the_end() {
    let mut ioapic = Ioapic::new();
    ioapic.set_line(9, true);
    program(&mut ioapic, 9, 0xFF00_0000_0000_8059);
    let message = ioapic.next_message().unwrap();
    assert_eq!(message.trigger, Trigger::Level);
    assert_eq!(message.destination, Message::destination(0xFF, false));
    assert_eq!(read(&mut ioapic, ENTRIES + 18), 0xC059);
    ioapic.set_line(9, false);
    ioapic.set_line(9, true);
    assert_eq!(ioapic.next_message(), None);
    ioapic.end_of_interrupt(0x58);
    assert_eq!(ioapic.next_message(), None);
    ioapic.mmio_write(EOI, Width::Dword, 0x59);
    assert_eq!(ioapic.next_message(), Some(message));
    ioapic.set_line(9, false);
    ioapic.end_of_interrupt(0x59);
    assert_eq!(ioapic.next_message(), None);
    assert_eq!(read(&mut ioapic, ENTRIES + 18), 0x8059);
}

#[test]
fn switching_to_edge_and_back_ends_a_level_interrupt() {
    let mut ioapic = Ioapic::new();
    program(&mut ioapic, 9, 0x8059);
    ioapic.set_line(9, true);
    assert!(ioapic.next_message().is_some());
    program(&mut ioapic, 9, MASKED | 0x59);
    program(&mut ioapic, 9, 0x8059);
    assert!(ioapic.next_message().is_some());
}

#[test]
fn level_bit_means_nothing_to_an_nmi_and_reserved_modes_send_nothing() {
    let mut ioapic = Ioapic::new();
    program(&mut ioapic, 3, 0x8400);
    ioapic.set_line(3, true);
    let nmi = ioapic.next_message().unwrap();
    assert_eq!((nmi.mode, nmi.trigger), (MessageMode::Nmi, Trigger::Edge));
    program(&mut ioapic, 4, 0x0341);
    ioapic.set_line(4, true);
    assert_eq!(ioapic.next_message(), None);
}

proptest! {
    /// Whatever happens: every state can be restored and goes on alike; a raised, unmasked level pin has sent or does; nothing is
    /// sent from a masked pin.
    #[test]
    fn laws(ops in prop::collection::vec((0u8..5, 0u8..24, any::<u64>(), any::<bool>()), 1..80)) {
        let mut ioapic = Ioapic::new();
        let mut sent = Vec::new();
        for (kind, pin, value, raised) in ops {
            match kind {
                0 | 1 => ioapic.set_line(pin, raised),
                2 => program(&mut ioapic, pin, value & !(6 << 8)),
                3 => ioapic.end_of_interrupt(value as u8 & 0x3F),
                _four => {
                    let masked = ioapic.entries.iter().filter(|&&e| e & MASKED != 0).map(|&e| e as u8).collect::<Vec<_>>();
                    let open = ioapic.entries.iter().filter(|&&e| e & MASKED == 0).map(|&e| e as u8).collect::<Vec<_>>();
                    while let Some(message) = ioapic.next_message() {
                        prop_assert!(open.contains(&message.vector) || !masked.contains(&message.vector));
                        sent.push(message);
                    }
                    for (pin, &entry) in ioapic.entries.iter().enumerate() {
                        if is_level(entry) && entry & MASKED == 0 && ioapic.line(pin as u8) {
                            prop_assert!(entry & REMOTE_IRR != 0);
                        }
                    }
                }
            }
            let moved = Ioapic::restore(&ioapic.save());
            prop_assert_eq!(moved.as_ref(), Ok(&ioapic));
        }
    }
}

#[test]
fn impossible_states_are_refused() {
    let good = Ioapic::new().save();
    for bad in [
        IoapicState { id: 16, ..good },
        IoapicState {
            lines: 1 << 24,
            ..good
        },
        IoapicState {
            requested: 1,
            ..good
        },
        IoapicState {
            entries: [MASKED | REMOTE_IRR; PINS],
            ..good
        },
        IoapicState {
            entries: [LEVEL; PINS],
            lines: 1,
            ..good
        },
        IoapicState {
            entries: [1 << 20; PINS],
            ..good
        },
    ] {
        assert!(Ioapic::restore(&bad).is_err());
    }
}
