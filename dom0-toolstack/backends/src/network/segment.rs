//! The network that guests behind the gateway are in.

use core::fmt;
use core::net::Ipv4Addr;

/// An IPv4 network and the gateway's address in it; prints as `10.99.0.1/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    gateway: Ipv4Addr,
    bits: u8,
}

impl Default for Segment {
    fn default() -> Self {
        Segment {
            gateway: Ipv4Addr::new(10, 99, 0, 1),
            bits: 24,
        }
    }
}

impl Segment {
    /// Longest and shortest prefix: at least one guest, and at most 65,533.
    pub const BITS: core::ops::RangeInclusive<u8> = 16..=30;

    /// `None`: a prefix length outside of [`Self::BITS`], or an address that no host can have there.
    pub fn new(gateway: Ipv4Addr, bits: u8) -> Option<Self> {
        let segment = Segment { gateway, bits };
        let is_usual = !(gateway.is_multicast() || gateway.is_loopback());
        (Self::BITS.contains(&bits) && is_usual && segment.is_host(gateway)).then_some(segment)
    }

    /// The gateway's own address.
    pub fn gateway(self) -> Ipv4Addr {
        self.gateway
    }

    /// Bits of the network part.
    pub fn bits(self) -> u8 {
        self.bits
    }

    /// The mask.
    pub fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from(!self.host_mask())
    }

    /// Whether an address is in the network, its first and last one included.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        let difference = u32::from(address) ^ u32::from(self.gateway);
        difference & !self.host_mask() == 0
    }

    /// Whether a host of the network can have an address: neither the first nor the last.
    pub fn is_host(self, address: Ipv4Addr) -> bool {
        let host = u32::from(address) & self.host_mask();
        self.contains(address) && host != 0 && host != self.host_mask()
    }

    /// Addresses that hosts can have.
    pub fn hosts(self) -> u32 {
        self.host_mask() - 1
    }

    /// The host address with `index` below [`Self::hosts`].
    pub fn host(self, index: u32) -> Ipv4Addr {
        let network = u32::from(self.gateway) & !self.host_mask();
        Ipv4Addr::from(network | (index % self.hosts() + 1))
    }

    fn host_mask(self) -> u32 {
        u32::MAX >> self.bits
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.gateway, self.bits)
    }
}
