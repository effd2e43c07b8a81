//! Interrupt messages on the bus between devices and local APICs: what an I/O APIC pin or an MSI sends.

use super::lapic::{ApicMode, BROADCAST, Delivery, Destination, Ipi, IpiMode, Lapic, Trigger};

/// What a message does at its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageMode {
    /// Delivers the vector to each CPU addressed.
    Fixed,
    /// Delivers the vector to one CPU of those addressed; the caller chooses.
    LowestPriority,
    /// System-management interrupt. Guests have no SMM here: the caller drops it by name.
    Smi,
    /// Non-maskable interrupt; the vector does not count.
    Nmi,
    /// Resets the CPU.
    Init,
    /// The CPU asks the PIC for the vector. No PIC is behind the devices here: dropped.
    ExtInt,
}

impl MessageMode {
    /// The delivery mode in bits 10:8 of a redirection entry or of MSI data; `None` for the reserved ones.
    pub(super) const fn from_bits(bits: u8) -> Option<MessageMode> {
        match bits & 7 {
            0 => Some(MessageMode::Fixed),
            1 => Some(MessageMode::LowestPriority),
            2 => Some(MessageMode::Smi),
            4 => Some(MessageMode::Nmi),
            5 => Some(MessageMode::Init),
            7 => Some(MessageMode::ExtInt),
            _reserved => None,
        }
    }

    /// Does the vector matter, and can such a message be level-triggered?
    pub(super) const fn carries_vector(self) -> bool {
        match self {
            MessageMode::Fixed | MessageMode::LowestPriority => true,
            MessageMode::Smi | MessageMode::Nmi | MessageMode::Init | MessageMode::ExtInt => false,
        }
    }
}

/// One message. Which CPUs it addresses: [`Lapic::is_addressed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Vector, where the mode has one.
    pub vector: u8,
    /// Who gets it: physical or logical, never a shorthand.
    pub destination: Destination,
    /// What it does there.
    pub mode: MessageMode,
    /// A level-triggered interrupt is answered by its end: see [`Ioapic::end_of_interrupt`](super::ioapic::Ioapic::end_of_interrupt).
    pub trigger: Trigger,
}

/// Address bits 31:20 of an MSI.
const MSI_WINDOW: u64 = 0xFEE;

impl Message {
    /// A destination of 8 bits, as redirection entries and MSI addresses have it.
    pub(super) fn destination(id: u8, logical: bool) -> Destination {
        match (logical, id) {
            (true, id) => Destination::Logical(id.into()),
            (false, u8::MAX) => Destination::Physical(BROADCAST),
            (false, id) => Destination::Physical(id.into()),
        }
    }

    /// The message that a write of `data` to `address` is (SDM 3A 11.11); `None` if the address is none of an MSI, the delivery mode
    /// is reserved, or a level is withdrawn.
    pub fn from_msi(address: u64, data: u32) -> Option<Message> {
        if address >> 20 != MSI_WINDOW {
            return None;
        }
        let (level_triggered, asserted) = (data & 1 << 15 != 0, data & 1 << 14 != 0);
        if level_triggered && !asserted {
            return None;
        }
        let mode = MessageMode::from_bits((data >> 8) as u8)?;
        Some(Message {
            vector: data as u8,
            destination: Message::destination((address >> 12) as u8, address & 1 << 2 != 0),
            mode,
            trigger: if level_triggered && mode.carries_vector() {
                Trigger::Level
            } else {
                Trigger::Edge
            },
        })
    }

    /// The message as an inter-processor interrupt, for a way that carries those; its trigger mode travels beside it. `None` for
    /// [`MessageMode::ExtInt`].
    pub fn as_ipi(self) -> Option<Ipi> {
        let mode = match self.mode {
            MessageMode::Fixed => IpiMode::Fixed,
            MessageMode::LowestPriority => IpiMode::LowestPriority,
            MessageMode::Smi => IpiMode::Smi,
            MessageMode::Nmi => IpiMode::Nmi,
            MessageMode::Init => IpiMode::Init,
            MessageMode::ExtInt => return None,
        };
        Some(Ipi {
            destination: self.destination,
            mode,
            vector: self.vector,
        })
    }

    /// Hands the message to a local APIC that it addresses.
    pub fn deliver(self, lapic: &mut Lapic) -> Delivery {
        let off = lapic.mode() == ApicMode::Disabled;
        match self.mode {
            MessageMode::Fixed | MessageMode::LowestPriority => {
                lapic.accept(self.vector, self.trigger)
            }
            MessageMode::Nmi => Delivery::Nmi,
            MessageMode::Init => Delivery::Init,
            MessageMode::Smi if off => Delivery::Dropped,
            MessageMode::Smi => Delivery::Smi,
            // The PIC is wired to LINT0, not to a device that sends messages: nobody would answer the acknowledge cycle.
            MessageMode::ExtInt => Delivery::Dropped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::TscRate;

    #[test]
    fn msi_is_decoded() {
        let message = Message::from_msi(0xFEE0_3004, 0x0141).unwrap();
        assert_eq!(message.vector, 0x41);
        assert_eq!(message.destination, Destination::Logical(3));
        assert_eq!(message.mode, MessageMode::LowestPriority);
        assert_eq!(message.trigger, Trigger::Edge);
        let all = Message::from_msi(0xFEEF_F000, 0xC041).unwrap();
        assert_eq!(all.destination, Destination::Physical(BROADCAST));
        assert_eq!(all.trigger, Trigger::Level);
        for (address, data) in [
            (0xFED0_0000, 0x41),
            (0x1_FEE0_0000, 0x41),
            (0xFEE0_0000, 0x341),
            (0xFEE0_0000, 0x8041),
        ] {
            assert_eq!(
                Message::from_msi(address, data),
                None,
                "{address:#x} {data:#x}"
            );
        }
    }

    #[test]
    fn level_message_is_reported_at_its_end() {
        let rate = TscRate::from_hz(2_000_000_000).unwrap();
        let mut lapic = Lapic::after_firmware(0, true, ApicMode::X2Apic, rate);
        let message = Message::from_msi(0xFEE0_0000, 0xC041).unwrap();
        assert!(lapic.is_addressed(message.destination, u32::MAX));
        assert_eq!(
            message.deliver(&mut lapic),
            Delivery::Accepted {
                newly_pending: true
            }
        );
        assert_eq!(lapic.acknowledge(), 0x41);
        assert_eq!(
            lapic.write_msr(0x80B, 0, 0),
            Ok(crate::devices::lapic::Effect::EndOfLevel(0x41))
        );
    }
}
