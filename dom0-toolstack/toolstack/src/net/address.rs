//! Addresses as people write them.

use core::fmt;
use core::net::Ipv4Addr;

pub use godwit_backends::network::mac::MacAddress;

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
}
