//! Tests of the platform as a whole: who answers where, wiring of interrupts, saved state.

extern crate std;

use super::*;
use crate::devices::lapic::{Destination, Trigger};
use crate::devices::message::MessageMode;
use crate::devices::pci::{Bar, FunctionDefinition};
use crate::devices::pic::Irq;
use alloc::vec;
use proptest::prelude::*;

const RATE: TscRate = TscRate::from_hz(2_000_000_000).unwrap();

fn ports() -> impl Strategy<Value = u16> {
    prop_oneof![
        4 => prop::sample::select(vec![0x20, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1, 0xE9, 0x64, 0xCF8, 0xCF9, 0xCFC, 0xCFE, 0x70, 0x71, 0x61, 0xFFFF]),
        2 => 0x5FEu16..0x60E,
        2 => 0x40u16..0x44,
        3 => 0x3F8u16..0x400,
        1 => any::<u16>(),
    ]
}

fn widths() -> impl Strategy<Value = Width> {
    prop::sample::select(vec![Width::Byte, Width::Word, Width::Dword])
}

proptest! {
    /// Saved and restored at any moment, the platform answers every later access as the original does.
    #[test]
    fn restored_platform_has_the_same_future(
        ops in prop::collection::vec((ports(), widths(), any::<u32>(), 0u8..3, 0u64..1 << 34), 1..60),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut platform = Platform::new(RATE);
        let (mut twin, mut now) = (None, 0);
        let cut = cut.index(ops.len());
        for (index, (port, width, value, kind, pause)) in ops.into_iter().enumerate() {
            if index == cut {
                twin = Some(Platform::restore(&platform.save(), RATE).unwrap());
            }
            now += pause;
            let act = |p: &mut Platform| {
                let read = if kind == 0 { Some(p.read(port, width, now)) } else { None };
                let effect = if kind == 1 { Some(p.write(port, width, value, now)) } else { None };
                let vector = if kind == 2 { p.pic.raise(Irq::new((value % 2 + 5) as u8).unwrap()); Some(p.pic.acknowledge()) } else { None };
                (read, effect, vector, p.poll(now), p.pic.pending(), p.next_deadline(now))
            };
            let answer = act(&mut platform);
            if let Some(read) = answer.0 {
                prop_assert_eq!(read.value & !width.all_ones(), 0);
            }
            if let Some(twin) = &mut twin {
                prop_assert_eq!(act(twin), answer);
                prop_assert_eq!(twin.save(), platform.save());
            }
        }
    }
}

#[test]
fn unclaimed_ports_read_ones_and_are_counted() {
    let mut platform = Platform::new(RATE);
    for (width, ones) in [
        (Width::Byte, 0xFF),
        (Width::Word, 0xFFFF),
        (Width::Dword, u32::MAX),
    ] {
        assert_eq!(
            platform.read(0x2F8, width, 0),
            PortResult {
                value: ones,
                effect: Effect::Unclaimed
            }
        );
    }
    assert_eq!(platform.write(0x2F8, Width::Byte, 1, 0), Effect::Unclaimed);
    assert_eq!(
        platform.unclaimed(),
        Unclaimed {
            reads: 7,
            writes: 1,
            last_port: Some(0x2F8)
        }
    );
    assert_eq!(platform.read(0xFFFF, Width::Dword, 0).value, u32::MAX);
}

#[test]
fn wide_accesses_reach_consecutive_ports() {
    let mut platform = Platform::new(RATE);
    assert_eq!(
        platform.read(0xE9, Width::Word, 0),
        PortResult {
            value: 0xFFE9,
            effect: Effect::None
        }
    );
    assert_eq!(
        platform.write(0x4D0, Width::Word, 0x0E08, 0),
        Effect::InterruptChanged
    );
    assert_eq!(platform.read(0x4D0, Width::Word, 0).value, 0x0E08);
    assert_eq!(
        platform.write(0x604, Width::Word, 0x2000, 0),
        Effect::PowerOff
    );
    assert_eq!(
        platform.read(0x608, Width::Dword, 2_000_000_000).value,
        3_579_545
    );
    // A PCI configuration address whose second byte has the reset bit is no reset.
    assert_eq!(
        platform.write(0xCF8, Width::Dword, 0x8000_0600, 0),
        Effect::None
    );
    assert_eq!(
        platform.read(0xCF8, Width::Dword, 0),
        PortResult {
            value: 0x8000_0600,
            effect: Effect::None
        }
    );
}

#[test]
fn both_reset_ports_reset_and_nothing_else_does() {
    let mut platform = Platform::new(RATE);
    assert_eq!(platform.write(0xCF9, Width::Byte, 0x02, 0), Effect::None);
    assert_eq!(platform.read(0xCF9, Width::Byte, 0).value, 0x02);
    assert_eq!(platform.write(0xCF9, Width::Byte, 0x06, 0), Effect::Reset);
    assert_eq!(platform.write(0x64, Width::Byte, 0xD1, 0), Effect::None);
    assert_eq!(platform.read(0x64, Width::Byte, 0).value, 0xFF);
    assert_eq!(platform.write(0x64, Width::Byte, 0xFE, 0), Effect::Reset);
}

#[test]
fn power_button_interrupts_through_the_pic() {
    let mut platform = Platform::new(RATE);
    for (port, value) in [
        (0x20, 0x11),
        (0x21, 0x30),
        (0x21, 4),
        (0x21, 1),
        (0xA0, 0x11),
        (0xA1, 0x38),
        (0xA1, 2),
        (0xA1, 1),
    ] {
        assert_eq!(
            platform.write(port, Width::Byte, value, 0),
            Effect::InterruptChanged
        );
    }
    assert_eq!(
        platform.write(0x602, Width::Word, 1 << 8, 0),
        Effect::InterruptChanged
    );
    assert!(!platform.pic.pending());
    platform.press_power_button(0);
    assert!(platform.pic.pending());
    assert_eq!(
        platform.write(0x600, Width::Word, 1 << 8, 0),
        Effect::InterruptChanged
    );
    assert!(!platform.pic.pending());
}

#[test]
fn console_outlives_a_reset() {
    let mut platform = Platform::new(RATE);
    assert_eq!(
        platform.write(0xE9, Width::Byte, u32::from(b'a'), 0),
        Effect::ConsoleOutput
    );
    platform.power_up();
    let mut buffer = [0; 4];
    assert_eq!(
        platform
            .console
            .read(debug_console::Cursor(0), &mut buffer)
            .copied,
        1
    );
    assert_eq!(buffer[0], b'a');
}

/// Writes a redirection entry: physical destination 0.
fn redirect(platform: &mut Platform, pin: u8, low: u32) {
    for (register, value) in [
        (0x11 + 2 * u32::from(pin), 0),
        (0x10 + 2 * u32::from(pin), low),
    ] {
        for (offset, value) in [(0, register), (0x10, value)] {
            let effect = platform.mmio_write(0xFEC0_0000 + offset, Width::Dword, value, 0);
            assert!(effect.is_some());
        }
    }
}

fn write_all(platform: &mut Platform, writes: &[(u16, u32)], now: u64) {
    for &(port, value) in writes {
        let _which = platform.write(port, Width::Byte, value, now);
    }
}

#[test]
fn timer_ticks_reach_the_pic_and_pin_2() {
    let mut platform = Platform::new(RATE);
    write_all(
        &mut platform,
        &[
            (0x20, 0x11),
            (0x21, 0x30),
            (0x21, 4),
            (0x21, 1),
            (0x43, 0x34),
            (0x40, 0xA9),
            (0x40, 0x04),
        ],
        0,
    );
    redirect(&mut platform, 2, 0x31);
    let due = platform.next_deadline(0).unwrap();
    assert!(platform.poll(due - 1).is_empty());
    assert!(!platform.pic.pending());
    let messages = platform.poll(due);
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].vector, 0x31);
    assert_eq!(messages[0].destination, Destination::Physical(0));
    assert_eq!(messages[0].mode, MessageMode::Fixed);
    assert_eq!(platform.pic.acknowledge(), 0x30);
    let next = platform.next_deadline(due).unwrap();
    let millisecond = RATE.hz() / 1000;
    assert!(
        (millisecond - 1_000..millisecond).contains(&(next - due)),
        "1193 clocks"
    );
    assert_eq!(platform.poll(next + 10_000_000).len(), 1);
    assert_eq!(platform.pit.missed(), 5);
}

#[test]
fn serial_port_interrupts_and_has_output() {
    let mut platform = Platform::new(RATE);
    redirect(&mut platform, 4, 0x34);
    write_all(&mut platform, &[(0x3FC, 0x0B), (0x3F9, 2)], 0);
    assert_eq!(platform.poll(0).len(), 1);
    assert_eq!(
        platform.read(0x3FA, Width::Byte, 0),
        PortResult {
            value: 2,
            effect: Effect::InterruptChanged
        }
    );
    assert_eq!(
        platform.write(0x3F8, Width::Byte, 0x41, 0),
        Effect::SerialOutput
    );
    assert_eq!(platform.poll(0).len(), 1);
    write_all(&mut platform, &[(0x3FA, 0x81), (0x3F9, 1)], 0);
    assert_eq!(platform.serial_input(b"x", 1000), 1);
    let due = platform.next_deadline(1000).unwrap();
    assert!(platform.poll(due - 1).is_empty());
    assert_eq!(platform.poll(due).len(), 1);
    assert_eq!(platform.next_deadline(due), None);
    assert_eq!(
        platform.read(0x3F8, Width::Byte, due).value,
        u32::from(b'x')
    );
    assert!(!platform.ioapic.line(4));
}

#[test]
fn clock_interrupts_until_register_c_is_read() {
    let mut platform = Platform::new(RATE);
    redirect(&mut platform, 8, 0x38);
    write_all(
        &mut platform,
        &[(0x70, 0x0B), (0x71, 0x12), (0x70, 0x0C)],
        0,
    );
    let due = platform.next_deadline(0).unwrap();
    assert_eq!(due, RATE.hz());
    assert_eq!(platform.poll(due).len(), 1);
    assert_eq!(platform.next_deadline(due), None);
    assert_eq!(platform.read(0x71, Width::Byte, due).value & 0x90, 0x90);
    assert_eq!(platform.poll(2 * due).len(), 1);
}

#[test]
fn control_interrupt_is_level_through_pin_9() {
    let mut platform = Platform::new(RATE);
    redirect(&mut platform, 9, 0x8039);
    let _changed = platform.write(0x602, Width::Word, 1 << 8, 0);
    platform.press_power_button(0);
    let messages = platform.poll(0);
    assert_eq!(messages[0].trigger, Trigger::Level);
    assert!(platform.poll(0).is_empty());
    platform.end_of_interrupt(0x39);
    assert_eq!(platform.poll(0).len(), 1, "not acknowledged at its source");
    let _changed = platform.write(0x600, Width::Word, 1 << 8, 0);
    platform.end_of_interrupt(0x39);
    assert!(platform.poll(0).is_empty());
}

#[test]
fn configuration_space_is_reached_both_ways() {
    let mut platform = Platform::new(RATE);
    platform.pci.insert(3, with_interrupt()).unwrap();
    for (slot, id) in [(0u32, 0x0008_1B36), (3, 0x1042_1AF4), (4, u32::MAX)] {
        let _none = platform.write(0xCF8, Width::Dword, 1 << 31 | slot << 11, 0);
        assert_eq!(platform.read(0xCFC, Width::Dword, 0).value, id);
        assert_eq!(platform.read(0xCFE, Width::Word, 0).value, id >> 16);
        let gpa = 0xE000_0000 + (u64::from(slot) << 15);
        assert_eq!(platform.mmio_read(gpa, Width::Dword, 0), Some(id));
    }
    let _none = platform.write(0xCF8, Width::Dword, 0, 0);
    assert_eq!(
        platform.read(0xCFC, Width::Dword, 0).value,
        u32::MAX,
        "not enabled"
    );
    assert_eq!(platform.mmio_read(0xE010_0000, Width::Dword, 0), None);
    assert_eq!(platform.mmio_read(0xFEC0_1000, Width::Dword, 0), None);
}

fn with_interrupt() -> FunctionDefinition {
    FunctionDefinition {
        vendor: 0x1AF4,
        device: 0x1042,
        revision: 1,
        class: 0x01_80_00,
        subsystem_vendor: 0x1AF4,
        subsystem: 2,
        bars: [Bar::None; 6],
        interrupt_pin: 1,
        capabilities: vec![],
        msix: None,
        msi_messages: 0,
        doorbells: None,
    }
}

#[test]
fn shared_pci_lines_stay_up_until_the_last_releases() {
    let mut platform = Platform::new(RATE);
    for slot in [3, 7] {
        platform.pci.insert(slot, with_interrupt()).unwrap();
    }
    platform.set_intx(3, true);
    platform.set_intx(7, true);
    platform.set_intx(3, false);
    assert!(platform.ioapic.line(INTX_FIRST_PIN + 3) && platform.ioapic.line(11));
    assert_eq!(platform.save().pic.slave.irr, 1 << 3);
    // The guest disables the pin by the command register.
    assert_eq!(
        platform.mmio_write(0xE003_8004, Width::Word, 1 << 10, 0),
        Some(Effect::None)
    );
    assert!(!platform.ioapic.line(INTX_FIRST_PIN + 3) && !platform.ioapic.line(11));
    assert_eq!(platform.save().pic.slave.irr, 0);
}

#[test]
fn edge_before_a_mask_is_not_lost() {
    let mut platform = Platform::new(RATE);
    redirect(&mut platform, 2, 0x31);
    write_all(&mut platform, &[(0x43, 0x30), (0x40, 0x10), (0x40, 0)], 0);
    let due = platform.next_deadline(0).unwrap();
    // The entry is written anew after the edge and before anybody polled.
    let effect = platform.mmio_write(0xFEC0_0010, Width::Dword, 0x32, due);
    assert_eq!(effect, Some(Effect::InterruptChanged));
    assert_eq!(platform.poll(due)[0].vector, 0x32);
}
