//! Resource descriptors (ACPI 6.5 section 6.4) and templates of them.

use super::aml;
use alloc::vec::Vec;

/// A template of descriptors: a buffer that ends in an end tag.
pub(super) fn template(descriptors: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = descriptors.concat();
    // A checksum of 0 is not checked.
    bytes.extend([0x79, 0]);
    aml::buffer(&bytes)
}

/// Ports at a fixed place, 16 bits decoded.
pub(super) fn ports(first: u16, count: u8) -> Vec<u8> {
    let [low, high] = first.to_le_bytes();
    alloc::vec![0x47, 1, low, high, low, high, 1, count]
}

/// An ISA interrupt: edge, active high, exclusive.
pub(super) fn irq(line: u8) -> Vec<u8> {
    let [low, high] = (1u16 << line).to_le_bytes();
    alloc::vec![0x22, low, high]
}

/// Memory at a fixed place, writable.
pub(super) fn memory(start: u64, bytes: u64) -> Vec<u8> {
    let mut descriptor = alloc::vec![0x86, 9, 0, 1];
    for value in [start, bytes] {
        let value = u32::try_from(value).expect("fixed memory is below 4 GiB");
        descriptor.extend(value.to_le_bytes());
    }
    descriptor
}

/// What a bridge passes on to the bus behind it.
#[derive(Clone, Copy)]
enum Window {
    Memory = 0,
    Ports = 1,
    Buses = 2,
}

/// General flags: produced, decoded, lower and upper end fixed.
const PRODUCED: u8 = 0b1100;

/// Bus numbers that a bridge passes on.
pub(super) fn bus_window(first: u16, count: u16) -> Vec<u8> {
    word_window(Window::Buses, 0, first, count)
}

/// Ports that a bridge passes on.
pub(super) fn port_window(first: u16, count: u16) -> Vec<u8> {
    const ENTIRE_RANGE: u8 = 0b11;
    word_window(Window::Ports, ENTIRE_RANGE, first, count)
}

fn word_window(window: Window, flags: u8, first: u16, count: u16) -> Vec<u8> {
    let mut descriptor = alloc::vec![0x88, 13, 0, window as u8, PRODUCED, flags];
    for value in [0, first, first + (count - 1), 0, count] {
        descriptor.extend(value.to_le_bytes());
    }
    descriptor
}

/// Memory below 4 GiB that a bridge passes on: writable, not cached.
pub(super) fn memory_window(start: u64, bytes: u64) -> Vec<u8> {
    const WRITABLE: u8 = 1;
    let mut descriptor = alloc::vec![0x87, 23, 0, Window::Memory as u8, PRODUCED, WRITABLE];
    for value in [0, start, start + bytes - 1, 0, bytes] {
        let value = u32::try_from(value).expect("the window is below 4 GiB");
        descriptor.extend(value.to_le_bytes());
    }
    descriptor
}
