//! Message control, address and data of plain MSI (PCI 3.0, 6.8.1): 64-bit address, no masking of single vectors.
//!
//! All of it stands in configuration space, so there is no further state: nothing can be masked, so nothing pends.

use super::definition::CONFIG_BYTES;
use crate::devices::message::Message;

/// Messages of a function at most.
pub const MSI_MESSAGES_MAX: u8 = 32;
pub(super) const CAPABILITY_MSI: u8 = 0x05;
/// Length of the capability, less its two common bytes.
pub(super) const MSI_CAPABILITY_BYTES: usize = 12;

/// Offsets in the capability.
const CONTROL: usize = 2;
const ADDRESS: usize = 4;
const DATA: usize = 12;
/// Lower byte of message control; the upper one is reserved.
const ENABLE: u8 = 1 << 0;
const CAPABLE_SHIFT: u32 = 1;
const ENABLED_SHIFT: u32 = 4;
const ADDRESS_64: u8 = 1 << 7;

/// Behind the capability's link: what it holds after power-up, and the bits a guest can write. `messages` is a power of two.
pub(super) fn lay_out(messages: u8) -> [(u8, u8); MSI_CAPABILITY_BYTES] {
    let mut bytes = [(0, 0xFF); MSI_CAPABILITY_BYTES];
    bytes[0] = (
        ADDRESS_64 | (messages.trailing_zeros() << CAPABLE_SHIFT) as u8,
        ENABLE | 7 << ENABLED_SHIFT,
    );
    bytes[1] = (0, 0);
    bytes[ADDRESS - CONTROL] = (0, 0xFC);
    bytes
}

/// Has the guest enabled the capability that begins at `at`?
pub(super) fn enabled(config: &[u8; CONFIG_BYTES], at: usize) -> bool {
    config[at + CONTROL] & ENABLE != 0
}

/// The message for a vector: its number in the low bits that the guest has given the function for that. A guest that enabled fewer
/// messages than there are vectors gets several vectors as one; one that enabled more than the function asked for, no more than that.
pub(super) fn message(config: &[u8; CONFIG_BYTES], at: usize, vector: u16) -> Option<Message> {
    let control = config[at + CONTROL];
    let shift = (control >> ENABLED_SHIFT & 7).min(control >> CAPABLE_SHIFT & 7);
    let numbers = (1u16 << shift) - 1;
    let mut address = [0; 8];
    address.copy_from_slice(&config[at + ADDRESS..at + DATA]);
    let data = u16::from_le_bytes([config[at + DATA], config[at + DATA + 1]]);
    let data = data & !numbers | vector & numbers;
    Message::from_msi(u64::from_le_bytes(address), data.into())
}
