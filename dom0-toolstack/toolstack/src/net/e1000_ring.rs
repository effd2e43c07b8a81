//! The legacy descriptor rings of the 8254x and 82574 network controllers (82540EM Software
//! Developer's Manual, 3.2.3 and 3.3.3): what a descriptor says, and which one is next.
//!
//! [`Ring`] invariant: the descriptors `[clean, fill)`, cyclically, belong to the card, the others
//! to the driver; one is always left over, because equal head and tail registers mean "empty"
//! (3.2.6).

/// Bytes of a descriptor of either kind.
pub const DESCRIPTOR_BYTES: usize = 16;
/// Descriptors of each ring; the registers take multiples of 8.
pub const RING_DESCRIPTORS: u16 = 256;

/// Which descriptors of a ring are the card's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ring {
    size: u16,
    /// The oldest descriptor of the card's.
    clean: u16,
    /// The next descriptor to give to it: the tail register.
    fill: u16,
}

impl Ring {
    /// A ring of `size` descriptors, all the driver's. `size` is at least 2.
    pub const fn new(size: u16) -> Self {
        assert!(size >= 2);
        Self {
            size,
            clean: 0,
            fill: 0,
        }
    }

    /// Descriptors that are the card's.
    pub const fn posted(&self) -> u16 {
        if self.fill >= self.clean {
            self.fill - self.clean
        } else {
            self.size - self.clean + self.fill
        }
    }

    /// The descriptor to fill next, if one is free.
    pub const fn next_fill(&self) -> Option<u16> {
        if self.posted() == self.size - 1 {
            None
        } else {
            Some(self.fill)
        }
    }

    /// The oldest descriptor of the card's, if it has any.
    pub const fn next_clean(&self) -> Option<u16> {
        if self.posted() == 0 {
            None
        } else {
            Some(self.clean)
        }
    }

    /// Gives the descriptor `next_fill` to the card; returns the new value of the tail register.
    pub fn fill(&mut self) -> u16 {
        assert!(self.next_fill().is_some(), "descriptor ring overfilled");
        self.fill = self.after(self.fill);
        self.fill
    }

    /// Takes the descriptor `next_clean` back from the card.
    pub fn clean(&mut self) {
        assert!(self.next_clean().is_some(), "descriptor ring overcleaned");
        self.clean = self.after(self.clean);
    }

    const fn after(&self, index: u16) -> u16 {
        if index + 1 == self.size { 0 } else { index + 1 }
    }
}

/// Receive status: the card is done with the descriptor (3.2.3.1).
const RX_DONE: u8 = 1 << 0;
/// Receive status: this is the end of the frame.
const RX_END_OF_PACKET: u8 = 1 << 1;
/// Receive errors that make a frame useless: CRC or alignment, symbol, sequence, carrier extension,
/// data (3.2.3.2). The checksum errors (bits 5 and 6) are the network stack's business.
const RX_USELESS: u8 = 0b1001_0111;

/// What a receive descriptor says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// The card still has it.
    NotYet,
    /// A whole frame of this many bytes, without its CRC.
    Frame(u16),
    /// Something to count and to drop: an error, an empty frame, or a piece of a frame that is
    /// larger than a buffer.
    Useless,
}

impl Received {
    /// Whether a descriptor whose last 8 bytes are `word` has been written by the card.
    pub const fn is_done(word: u64) -> bool {
        (word >> 32) as u8 & RX_DONE != 0
    }

    /// From the last 8 bytes of a descriptor; `buffer_bytes` bounds what the card may claim.
    pub const fn decode(word: u64, buffer_bytes: u16) -> Self {
        let length = word as u16;
        let status = (word >> 32) as u8;
        let errors = (word >> 40) as u8;
        if status & RX_DONE == 0 {
            Received::NotYet
        } else if status & RX_END_OF_PACKET == 0
            || errors & RX_USELESS != 0
            || length == 0
            || length > buffer_bytes
        {
            Received::Useless
        } else {
            Received::Frame(length)
        }
    }
}

/// Transmit command: end of packet, insert the CRC, report status (3.3.3.1).
const TX_WHOLE_FRAME: u64 = 0b1011;
/// Transmit status: done, in the last 8 bytes.
const TX_DONE: u64 = 1 << 32;

/// The last 8 bytes of a transmit descriptor for a whole frame of `length` bytes.
pub const fn transmit_word(length: u16) -> u64 {
    length as u64 | TX_WHOLE_FRAME << 24
}

/// Whether the card has sent the frame of a descriptor whose last 8 bytes are `word`.
pub const fn transmitted(word: u64) -> bool {
    word & TX_DONE != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Against a queue: every index comes in order, nothing is given twice, one stays over.
    #[test]
    fn a_ring_is_a_queue_with_one_place_less() {
        let mut ring = Ring::new(8);
        let mut card = VecDeque::new();
        let mut next = 0;
        let mut seed = 1u32;
        for _ in 0..10_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if seed >> 31 == 0 {
                match ring.next_fill() {
                    Some(index) => {
                        assert_eq!(index, next);
                        next = (next + 1) % 8;
                        assert_eq!(ring.fill(), next);
                        card.push_back(index);
                    }
                    None => assert_eq!(card.len(), 7),
                }
            } else {
                assert_eq!(ring.next_clean(), card.pop_front());
                if ring.next_clean().is_some() {
                    ring.clean();
                }
            }
            assert_eq!(usize::from(ring.posted()), card.len());
        }
    }

    fn word(length: u16, status: u8, errors: u8) -> u64 {
        u64::from(length) | u64::from(status) << 32 | u64::from(errors) << 40
    }

    #[test]
    fn receive_descriptors_are_judged() {
        assert_eq!(Received::decode(0, 2048), Received::NotYet);
        assert_eq!(Received::decode(word(60, 3, 0), 2048), Received::Frame(60));
        assert_eq!(
            Received::decode(word(60, 7, 0b0110_0000), 2048),
            Received::Frame(60),
            "checksum errors are the stack's"
        );
        for useless in [
            word(60, 1, 0),
            word(60, 3, 1),
            word(60, 3, 0x80),
            word(0, 3, 0),
            word(2049, 3, 0),
        ] {
            assert_eq!(Received::decode(useless, 2048), Received::Useless);
        }
    }

    #[test]
    fn transmit_descriptor_layout() {
        assert_eq!(transmit_word(1514), 0x0b00_05ea);
        assert!(!transmitted(transmit_word(1514)));
        assert!(transmitted(transmit_word(1514) | 1 << 32));
    }
}
