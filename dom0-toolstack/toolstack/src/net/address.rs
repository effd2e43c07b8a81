//! Addresses as people write them.

use core::fmt;
use core::net::Ipv4Addr;

/// A hardware address; prints as `52:54:00:12:34:56`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Whether a network card can have this address: not a group address and not all zeroes
    /// (IEEE 802.3, 3.2.3).
    pub fn is_station(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// An IPv4 address and the length of its network prefix; prints as `10.77.0.1/24`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv4Prefix {
    /// The host's own address.
    pub address: Ipv4Addr,
    /// Bits of the network part, 1 to 32.
    pub bits: u8,
}

impl Ipv4Prefix {
    /// Reads `A.B.C.D/len`. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (address, bits) = text
            .split_once('/')
            .ok_or("the prefix length is missing, write A.B.C.D/24")?;
        let address: Ipv4Addr = address
            .parse()
            .map_err(|_| "not an IPv4 address, write A.B.C.D/24")?;
        let bits = match bits.parse::<u8>() {
            Ok(bits @ 1..=32) => bits,
            Ok(_) | Err(_) => return Err("the prefix length is not 1 to 32"),
        };
        if address.is_unspecified() || address.is_multicast() || address.is_broadcast() {
            return Err("not an address a host can have");
        }
        Ok(Self { address, bits })
    }

    /// Whether `other` is in this network.
    pub fn contains(self, other: Ipv4Addr) -> bool {
        let shift = 32 - u32::from(self.bits);
        u32::from(self.address) >> shift == u32::from(other) >> shift
    }
}

impl fmt::Display for Ipv4Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn prefixes_read_and_print_alike() {
        for text in ["10.77.0.1/24", "192.168.1.9/32", "10.0.0.1/1"] {
            assert_eq!(Ipv4Prefix::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_no_host_can_have_is_refused() {
        for text in [
            "10.77.0.1",
            "10.77.0/24",
            "10.77.0.1/0",
            "10.77.0.1/33",
            "10.77.0.1/",
            "0.0.0.0/8",
            "224.0.0.1/4",
            "255.255.255.255/32",
            "a/b",
            "",
        ] {
            assert!(Ipv4Prefix::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn membership_follows_the_prefix() {
        let net = Ipv4Prefix::parse("10.77.0.1/24").unwrap();
        assert!(net.contains(Ipv4Addr::new(10, 77, 0, 254)));
        assert!(!net.contains(Ipv4Addr::new(10, 77, 1, 1)));
        let all = Ipv4Prefix::parse("10.77.0.1/32").unwrap();
        assert!(!all.contains(Ipv4Addr::new(10, 77, 0, 2)));
    }

    #[test]
    fn group_and_zero_hardware_addresses_are_no_stations() {
        assert!(MacAddress([0x52, 0x54, 0, 1, 2, 3]).is_station());
        assert!(!MacAddress([0xff; 6]).is_station());
        assert!(!MacAddress([1, 0, 0x5e, 0, 0, 1]).is_station());
        assert!(!MacAddress([0; 6]).is_station());
        assert_eq!(
            MacAddress([0x52, 0x54, 0, 1, 2, 0xf]).to_string(),
            "52:54:00:01:02:0f"
        );
    }
}
