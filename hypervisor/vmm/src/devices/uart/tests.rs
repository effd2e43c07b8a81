//! Tests of the serial port: what drivers probe, interrupts and their priorities, FIFO behaviour, saved state.

extern crate std;

use super::*;
use crate::devices::debug_console::Cursor;
use proptest::prelude::*;
use std::vec::Vec;

/// One TSC tick a microsecond.
const RATE: TscRate = TscRate::from_hz(1_000_000).unwrap();
/// Four characters of 8N1 at 115200 baud, in microseconds.
const TIMEOUT: u64 = 348;

fn uart() -> Uart {
    let mut uart = Uart::new(RATE);
    for (offset, value) in [(3, 0x83), (0, 1), (1, 0), (3, 0x03), (4, 0x0B)] {
        uart.write(offset, value, 0);
    }
    uart
}

fn sent(uart: &Uart) -> Vec<u8> {
    let mut buffer = [0; 64];
    let copied = uart.output.read(Cursor(0), &mut buffer).copied;
    buffer[..copied].to_vec()
}

/// The steps of Linux' `autoconfig` and `autoconfig_16550a`.
#[test]
fn linux_finds_a_16550a() {
    let mut uart = Uart::new(RATE);
    uart.write(1, 0, 0);
    assert_eq!(uart.read(1, 0) & 0x0F, 0);
    uart.write(1, 0x0F, 0);
    assert_eq!(uart.read(1, 0), 0x0F);
    uart.write(1, 0, 0);
    // Loopback: RTS and OUT2 come back as CTS and DCD.
    uart.write(4, 0x1A, 0);
    assert_eq!(uart.read(6, 0) & 0xF0, 0x90);
    uart.write(4, 0, 0);
    uart.write(2, 1, 0);
    assert_eq!(uart.read(2, 0) >> 6, 3);
    // No enhanced features behind the divisor latch, no 64-byte FIFO, no XScale bits.
    uart.write(3, 0x80, 0);
    assert_ne!(uart.read(2, 0), 0);
    uart.write(2, 0x21, 0);
    assert_eq!(uart.read(2, 0) & 0x20, 0);
    uart.write(3, 0, 0);
    uart.write(1, 0x40, 0);
    assert_eq!(uart.read(1, 0), 0);
    for value in [0x55, 0xAA] {
        uart.write(7, value, 0);
        assert_eq!(uart.read(7, 0), value);
    }
}

/// What `size_fifo` measures in loopback: 256 bytes sent, those received counted.
#[test]
fn fifo_is_16_bytes_deep() {
    let mut uart = uart();
    uart.write(2, 7, 0);
    uart.write(4, 0x10, 0);
    for byte in 0..=255 {
        assert!(!uart.write(0, byte, 0));
    }
    assert_eq!(uart.read(5, 0), 0x63);
    assert_eq!(uart.read(5, 0), 0x61);
    let mut received = Vec::new();
    while uart.read(5, 0) & 1 != 0 {
        received.push(uart.read(0, 0));
    }
    assert_eq!(received, (0..16).collect::<Vec<u8>>());
    assert!(sent(&uart).is_empty());
}

#[test]
fn output_reaches_the_console_and_the_transmitter_interrupts() {
    let mut uart = uart();
    assert!(uart.write(0, b'h', 0));
    assert!(!uart.irq(0));
    uart.write(1, IER_TRANSMIT, 0);
    assert!(uart.irq(0));
    assert_eq!(uart.read(2, 0), 0x02);
    assert!(!uart.irq(0));
    assert_eq!(uart.read(2, 0), 0x01);
    assert!(uart.write(0, b'i', 0));
    assert!(uart.irq(0));
    assert_eq!(sent(&uart), b"hi");
    // Linux looks for a transmitter that does not interrupt anew when enabled anew.
    uart.read(2, 0);
    uart.write(1, 0, 0);
    uart.write(1, IER_TRANSMIT, 0);
    assert_eq!(uart.read(2, 0) & 1, 0);
    // OUT2 gates the line.
    uart.write(0, b'!', 0);
    assert!(uart.irq(0));
    uart.write(4, 0x03, 0);
    assert!(!uart.irq(0));
}

#[test]
fn receiver_interrupts_at_its_trigger_or_after_a_time() {
    let mut uart = uart();
    uart.write(2, 0x81, 0);
    uart.write(1, IER_RECEIVE, 0);
    assert_eq!(uart.push_input(b"1234567", 1000), 7);
    assert!(!uart.irq(1000 + TIMEOUT - 1));
    assert_eq!(uart.next_deadline(), Some(1000 + TIMEOUT));
    assert!(uart.irq(1000 + TIMEOUT));
    assert_eq!(uart.read(2, 1000 + TIMEOUT), 0xCC);
    // A read puts the time-out off.
    assert_eq!(uart.read(0, 1400), b'1');
    assert!(!uart.irq(1400));
    assert_eq!(uart.push_input(b"89", 1400), 2);
    assert_eq!(uart.read(2, 1400), 0xC4);
    assert_eq!(uart.next_deadline(), None);
    let rest: Vec<u8> = (0..8).map(|_| uart.read(0, 1400)).collect();
    assert_eq!(rest, b"23456789");
    assert_eq!(uart.read(5, 1400), 0x60);
    assert!(!uart.irq(10_000));
}

#[test]
fn input_waits_for_room_and_the_queue_is_bounded() {
    let mut uart = uart();
    uart.write(1, IER_RECEIVE, 0);
    let input: Vec<u8> = (0..=255).cycle().take(2 * INPUT_BYTES_MAX).collect();
    assert_eq!(uart.push_input(&input, 0), INPUT_BYTES_MAX);
    assert_eq!(
        uart.push_input(&input, 0),
        1,
        "one has gone into the receiver"
    );
    let received: Vec<u8> = (0..=INPUT_BYTES_MAX)
        .map(|_| {
            assert!(uart.irq(0));
            uart.read(0, 0)
        })
        .collect();
    assert_eq!(received[..INPUT_BYTES_MAX], input[..INPUT_BYTES_MAX]);
    assert!(!uart.irq(0));
    assert_eq!(uart.read(5, 0), 0x60, "never an overrun");
}

#[test]
fn sources_are_reported_by_priority() {
    let mut uart = uart();
    uart.write(2, 1, 0);
    uart.write(4, 0x10, 0);
    for byte in 0..17 {
        uart.write(0, byte, 0);
    }
    uart.write(1, 0x0F, 0);
    uart.write(4, 0x08, 0);
    assert_eq!(uart.read(2, 0), 0xC6);
    uart.read(5, 0);
    assert_eq!(uart.read(2, 0), 0xC4);
    uart.write(2, 3, 0);
    assert_eq!(uart.read(2, 0), 0xC2);
    assert_eq!(uart.read(2, 0), 0xC0);
    assert_eq!(uart.read(6, 0), 0xBB);
    assert_eq!(uart.read(2, 0), 0xC1);
}

#[test]
fn reset_keeps_what_is_outside() {
    let mut uart = uart();
    uart.write(0, b'x', 0);
    uart.push_input(b"ab", 0);
    uart.reset();
    assert_eq!(sent(&uart), b"x");
    assert_eq!(uart.read(4, 0), 0);
    assert_eq!(uart.input, [b'b']);
}

proptest! {
    /// Whatever is done: saved state can be restored and has the same future; the line is high at a deadline, and without one it stays.
    #[test]
    fn laws(ops in prop::collection::vec((0u8..4, 0u16..8, any::<u8>(), 0u64..500), 1..80)) {
        let mut uart = Uart::new(RATE);
        let mut now = 0;
        for (kind, offset, value, pause) in ops {
            now += pause;
            let mut twin = Uart::restore(&uart.save(), RATE).unwrap();
            match kind {
                0 | 1 => prop_assert_eq!(uart.write(offset, value, now), twin.write(offset, value, now)),
                2 => prop_assert_eq!(uart.read(offset, now), twin.read(offset, now)),
                _three => {
                    let bytes = [value; 3];
                    prop_assert_eq!(uart.push_input(&bytes, now), twin.push_input(&bytes, now));
                }
            }
            prop_assert_eq!(&twin, &uart);
            if let Some(due) = uart.next_deadline() {
                prop_assert!(uart.irq(due));
            } else {
                prop_assert_eq!(uart.irq(now), uart.irq(now + 1_000_000_000));
            }
        }
    }
}

#[test]
fn impossible_states_are_refused() {
    let good = uart().save();
    assert!(Uart::restore(&good, RATE).is_ok());
    for bad in [
        UartState {
            ier: 0x10,
            ..good.clone()
        },
        UartState {
            fcr: 0x80,
            ..good.clone()
        },
        UartState {
            mcr: 0x20,
            ..good.clone()
        },
        UartState {
            deltas: 0x10,
            ..good.clone()
        },
        UartState {
            fifo: [1, 2].into_iter().collect(),
            ..good.clone()
        },
        UartState {
            input: [1].to_vec(),
            ..good.clone()
        },
        UartState {
            input: std::vec![0; INPUT_BYTES_MAX + 1],
            ..good.clone()
        },
    ] {
        assert!(Uart::restore(&bad, RATE).is_err());
    }
}
