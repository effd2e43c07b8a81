//! Hardware addresses.

use core::fmt;

/// A hardware address; prints as `52:54:00:12:34:56`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// To everybody.
    pub const BROADCAST: MacAddress = MacAddress([0xff; 6]);

    /// Whether a network card can have this address: not a group address and not all zeroes
    /// (IEEE 802.3, 3.2.3).
    pub fn is_station(self) -> bool {
        !self.is_group() && self.0 != [0; 6]
    }

    /// Whether it stands for several stations: broadcast or multicast.
    pub fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether bridges keep frames to it to themselves (IEEE 802.1D, 7.12.6).
    pub fn is_link_constrained(self) -> bool {
        self.0[..5] == [0x01, 0x80, 0xc2, 0, 0] && self.0[5] < 16
    }

    /// Reads `52:54:00:12:34:56`. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const WANTED: &str = "not a hardware address, write 00:16:3e:12:34:56";
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or(WANTED)?;
            if !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(WANTED);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| WANTED)?;
        }
        match parts.next() {
            None => Ok(MacAddress(bytes)),
            Some(_) => Err(WANTED),
        }
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn group_and_zero_addresses_are_no_stations() {
        assert!(MacAddress([0x52, 0x54, 0, 1, 2, 3]).is_station());
        assert!(!MacAddress::BROADCAST.is_station());
        assert!(!MacAddress([1, 0, 0x5e, 0, 0, 1]).is_station());
        assert!(!MacAddress([0; 6]).is_station());
        assert!(MacAddress([1, 0x80, 0xc2, 0, 0, 0xe]).is_link_constrained());
        assert!(!MacAddress([1, 0x80, 0xc2, 0, 0, 0x10]).is_link_constrained());
    }

    #[test]
    fn what_is_read_prints_alike() {
        let text = "00:16:3e:0a:bc:0f";
        assert_eq!(MacAddress::parse(text).unwrap().to_string(), text);
        for wrong in [
            "",
            "00:16:3e:0a:bc",
            "00:16:3e:0a:bc:0f:00",
            "0:16:3e:0a:bc:0f",
            "+0:16:3e:0a:bc:0f",
            "00-16-3e-0a-bc-0f",
            "0g:16:3e:0a:bc:0f",
        ] {
            assert!(MacAddress::parse(wrong).is_err(), "{wrong}");
        }
    }
}
