//! I/O APIC (Intel 82093AA; version 0x20 with an EOI register, as chipsets since the ICH2 have it) with 24 pins.
//!
//! A pin's line is raised and lowered by its device; what follows is a [`Message`] for local APICs, which the caller takes by
//! [`Ioapic::next_message`]. Lines are logical: raised means asserted in whatever polarity the firmware tables declare, and the
//! polarity bit is kept for the guest to read. An edge on a masked pin is lost, as the data sheet says.
//!
//! Invariants: a level-triggered pin is in `requested` exactly while its line is raised, it is unmasked and its remote IRR is clear; a
//! masked pin is never in `requested`; the remote IRR is set on level-triggered pins only.

#[cfg(test)]
mod tests;

use super::BadState;
use super::lapic::Trigger;
use super::message::{Message, MessageMode};
use super::ports::Width;

/// Guest-physical address of the registers.
pub const BASE: u64 = 0xFEC0_0000;
/// Bytes decoded from [`BASE`] on.
pub const SIZE: u64 = 0x1000;
/// Interrupt pins.
pub const PINS: usize = 24;

const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;
const EOI: u64 = 0x40;

const ID: u8 = 0;
const VERSION: u8 = 1;
const ARBITRATION: u8 = 2;
const ENTRIES: u8 = 0x10;
const VERSION_VALUE: u32 = 0x20 | (PINS as u32 - 1) << 16;

/// Bits of a redirection entry.
const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
/// Vector, delivery mode, destination mode, polarity, trigger, mask, destination. The delivery status (12) reads as idle: messages
/// are taken before the guest can look.
const WRITABLE: u64 = 0xFF00_0000_0001_AFFF;

/// One I/O APIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ioapic {
    id: u8,
    select: u8,
    entries: [u64; PINS],
    /// Lines that are raised, by pin.
    lines: u32,
    /// Pins with a message to send.
    requested: u32,
}

/// Saved state of [`Ioapic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoapicState {
    /// APIC ID, 4 bits.
    pub id: u8,
    /// Register selected.
    pub select: u8,
    /// Redirection table, with remote IRR.
    pub entries: [u64; PINS],
    /// Lines that are raised, by pin.
    pub lines: u32,
    /// Pins with a message to send.
    pub requested: u32,
}

impl Default for Ioapic {
    fn default() -> Ioapic {
        Ioapic::new()
    }
}

fn is_level(entry: u64) -> bool {
    // Only interrupts with a vector have an end to wait for.
    entry & LEVEL != 0
        && MessageMode::from_bits((entry >> 8) as u8).is_some_and(MessageMode::carries_vector)
}

impl Ioapic {
    /// The controller after power-up: all pins masked.
    pub const fn new() -> Ioapic {
        Ioapic {
            id: 0,
            select: 0,
            entries: [MASKED; PINS],
            lines: 0,
            requested: 0,
        }
    }

    /// Is the line of `pin` raised?
    #[inline]
    pub fn line(&self, pin: u8) -> bool {
        self.lines & 1 << pin != 0
    }

    /// Raises or lowers the line of `pin`, which is below [`PINS`].
    #[inline]
    pub fn set_line(&mut self, pin: u8, raised: bool) {
        let bit = 1 << pin;
        let rises = raised && self.lines & bit == 0;
        self.lines = if raised {
            self.lines | bit
        } else {
            self.lines & !bit
        };
        let entry = self.entries[usize::from(pin)];
        if is_level(entry) {
            self.follow_level(pin);
        } else if rises && entry & MASKED == 0 {
            self.requested |= bit;
        }
    }

    /// Lets a level-triggered pin request what it has to.
    fn follow_level(&mut self, pin: u8) {
        let bit = 1 << pin;
        let entry = self.entries[usize::from(pin)];
        self.requested &= !bit;
        if self.lines & bit != 0 && entry & (MASKED | REMOTE_IRR) == 0 {
            self.requested |= bit;
        }
    }

    /// Takes a message that is to be sent; `None` when there is no more.
    #[inline]
    pub fn next_message(&mut self) -> Option<Message> {
        while self.requested != 0 {
            let pin = self.requested.trailing_zeros();
            self.requested &= !(1 << pin);
            let entry = &mut self.entries[pin as usize];
            let level = is_level(*entry);
            if level {
                *entry |= REMOTE_IRR;
            }
            // A reserved delivery mode sends nothing.
            if let Some(mode) = MessageMode::from_bits((*entry >> 8) as u8) {
                return Some(Message {
                    vector: *entry as u8,
                    destination: Message::destination((*entry >> 56) as u8, *entry & 1 << 11 != 0),
                    mode,
                    trigger: if level { Trigger::Level } else { Trigger::Edge },
                });
            }
        }
        None
    }

    /// Is there a message to take?
    #[inline]
    pub fn has_message(&self) -> bool {
        self.requested != 0
    }

    /// A CPU has ended a level-triggered interrupt: pins with this vector whose line is still raised request again.
    pub fn end_of_interrupt(&mut self, vector: u8) {
        for pin in 0..PINS as u8 {
            let entry = &mut self.entries[usize::from(pin)];
            if *entry & REMOTE_IRR != 0 && *entry as u8 == vector {
                *entry &= !REMOTE_IRR;
                self.follow_level(pin);
            }
        }
    }

    fn register(&self) -> u32 {
        match self.select {
            ID | ARBITRATION => u32::from(self.id) << 24,
            VERSION => VERSION_VALUE,
            _entry_or_reserved => match self.selected_entry() {
                Some((pin, false)) => self.entries[pin] as u32,
                Some((pin, true)) => (self.entries[pin] >> 32) as u32,
                None => 0,
            },
        }
    }

    /// Pin and half (true: the upper) of the redirection entry selected.
    fn selected_entry(&self) -> Option<(usize, bool)> {
        let index = self.select.checked_sub(ENTRIES)?;
        let pin = usize::from(index / 2);
        (pin < PINS).then_some((pin, index & 1 != 0))
    }

    fn set_register(&mut self, value: u32) {
        if self.select == ID {
            self.id = (value >> 24 & 0xF) as u8;
        }
        let Some((pin, upper)) = self.selected_entry() else {
            return;
        };
        let old = self.entries[pin];
        let kept = old & REMOTE_IRR;
        let written = if upper {
            old & 0xFFFF_FFFF | u64::from(value) << 32
        } else {
            old & !0xFFFF_FFFF | u64::from(value)
        };
        let mut entry = written & WRITABLE | kept;
        let level = is_level(entry);
        if !level {
            // Systems without an EOI register acknowledge so.
            entry &= !REMOTE_IRR;
        }
        self.entries[pin] = entry;
        if level {
            self.follow_level(pin as u8);
        } else if entry & MASKED != 0 || is_level(old) {
            self.requested &= !(1 << pin);
        }
    }

    /// Reads at `offset` below [`SIZE`]. Registers are 32 bits wide at multiples of 16; a narrower read gives its part.
    pub fn mmio_read(&self, offset: u64, width: Width) -> u32 {
        let register = match offset & !3 {
            SELECT => u32::from(self.select),
            WINDOW => self.register(),
            _reserved => 0,
        };
        register >> (8 * (offset & 3)) & width.all_ones()
    }

    /// Writes at `offset` below [`SIZE`]. The register number may be written at any width, the others take 32 bits only.
    pub fn mmio_write(&mut self, offset: u64, width: Width, value: u32) {
        match (offset, width) {
            (SELECT, Width::Byte | Width::Word | Width::Dword) => self.select = value as u8,
            (WINDOW, Width::Dword) => self.set_register(value),
            (EOI, Width::Dword) => self.end_of_interrupt(value as u8),
            _reserved => {}
        }
    }

    /// The state to move.
    pub fn save(&self) -> IoapicState {
        let &Ioapic {
            id,
            select,
            entries,
            lines,
            requested,
        } = self;
        IoapicState {
            id,
            select,
            entries,
            lines,
            requested,
        }
    }

    /// The controller with this state. Refuses what it cannot be in.
    pub fn restore(state: &IoapicState) -> Result<Ioapic, BadState> {
        let &IoapicState {
            id,
            select,
            entries,
            lines,
            requested,
        } = state;
        BadState::unless(id < 16, "ioapic.id")?;
        BadState::unless(lines >> PINS == 0, "ioapic.lines")?;
        BadState::unless(requested >> PINS == 0, "ioapic.requested")?;
        for (pin, &entry) in entries.iter().enumerate() {
            let (raised, asks) = (lines & 1 << pin != 0, requested & 1 << pin != 0);
            let level = is_level(entry);
            BadState::unless(
                entry & !(WRITABLE | REMOTE_IRR) == 0 && (level || entry & REMOTE_IRR == 0),
                "ioapic.entries",
            )?;
            let free = entry & (MASKED | REMOTE_IRR) == 0;
            let consistent = if level {
                asks == (raised && free)
            } else {
                !asks || free
            };
            BadState::unless(consistent, "ioapic.requested")?;
        }
        Ok(Ioapic {
            id,
            select,
            entries,
            lines,
            requested,
        })
    }
}
