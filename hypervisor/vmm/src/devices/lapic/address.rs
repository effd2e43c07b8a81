//! Who is meant by an interrupt message: the few facts of a local APIC that decide it, small enough
//! to be published in one word, so that a sender need not lock the receiver.

use super::{ApicMode, BROADCAST, Destination};

/// The addressing state of a local APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// APIC id.
    pub id: u32,
    /// Its mode.
    pub mode: ApicMode,
    /// Logical id of xAPIC mode: LDR bits 31:24.
    pub logical: u8,
    /// Flat model of xAPIC mode: DFR bits 31:28 all ones.
    pub flat: bool,
}

const MODE_SHIFT: u32 = 41;
const FLAT: u64 = 1 << 40;
const LOGICAL_SHIFT: u32 = 32;

impl Address {
    /// In one word: id in bits 31:0, logical id 39:32, flat 40, mode 42:41.
    pub const fn pack(self) -> u64 {
        let mode = match self.mode {
            ApicMode::Disabled => 0,
            ApicMode::XApic => 1,
            ApicMode::X2Apic => 2,
        };
        self.id as u64
            | (self.logical as u64) << LOGICAL_SHIFT
            | if self.flat { FLAT } else { 0 }
            | mode << MODE_SHIFT
    }

    /// From the word; values that `pack` never makes read as a disabled APIC.
    pub const fn unpack(word: u64) -> Self {
        Self {
            id: word as u32,
            mode: match word >> MODE_SHIFT {
                1 => ApicMode::XApic,
                2 => ApicMode::X2Apic,
                _ => ApicMode::Disabled,
            },
            logical: (word >> LOGICAL_SHIFT) as u8,
            flat: word & FLAT != 0,
        }
    }

    /// Is this APIC among the destinations of a message that APIC `sender` sent?
    pub fn is_addressed(self, destination: Destination, sender: u32) -> bool {
        match destination {
            Destination::AllIncludingSelf => true,
            Destination::AllExcludingSelf => self.id != sender,
            Destination::Physical(id) => id == BROADCAST || id == self.id,
            Destination::Logical(address) => match self.mode {
                ApicMode::Disabled => false,
                ApicMode::X2Apic => {
                    let logical = self.x2apic_logical_id();
                    address == BROADCAST
                        || (address >> 16 == logical >> 16 && address & logical & 0xFFFF != 0)
                }
                ApicMode::XApic => self.matches_xapic_logical(address),
            },
        }
    }

    /// SDM 3A 11.6.2.2: flat model or cluster model.
    fn matches_xapic_logical(self, address: u32) -> bool {
        let logical = u32::from(self.logical);
        if self.flat {
            address & logical != 0
        } else {
            (address >> 4 == logical >> 4 || address >> 4 == 0xF) && address & logical & 0xF != 0
        }
    }

    /// Logical ID of x2APIC mode: cluster and bit, from the APIC ID (SDM 3A 11.12.10.2).
    pub(super) const fn x2apic_logical_id(self) -> u32 {
        (self.id >> 4) << 16 | 1 << (self.id & 0xF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn one_word_says_it_all(id: u32, logical: u8, flat: bool, mode in 0..3usize) {
            let mode = [ApicMode::Disabled, ApicMode::XApic, ApicMode::X2Apic][mode];
            let address = Address { id, mode, logical, flat };
            prop_assert_eq!(Address::unpack(address.pack()), address);
        }
    }
}
