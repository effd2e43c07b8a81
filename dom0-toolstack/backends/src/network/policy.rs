//! What the owner of a port may send.

use super::bucket::Rate;
use super::headers::{self, ETHERNET_BYTES, PROTOCOL_UDP, TYPE_ARP, TYPE_IPV4, TYPE_RARP, word};
use super::mac::MacAddress;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

/// Which source addresses a port may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sources {
    /// Any that is not of another port of this host: the card and whoever may spoof.
    Any,
    /// One hardware address, with any IP addresses.
    Mac(MacAddress),
    /// One hardware address, and of IP only these addresses; of other protocols only ARP.
    Pinned(MacAddress, Vec<Ipv4Addr>),
    /// The hardware address of another port of the same owner, who receives there. Nothing is
    /// delivered here.
    Alias(MacAddress),
}

/// Limits of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How fast the owner may send; `None` for as fast as it can.
    pub rate: Option<Rate>,
    /// Bytes that wait for the owner at most.
    pub queue_bytes: usize,
}

/// Bytes that wait for a guest unless said otherwise.
pub const QUEUE_BYTES: usize = 1 << 20;

impl Default for Limits {
    fn default() -> Self {
        Limits {
            rate: None,
            queue_bytes: QUEUE_BYTES,
        }
    }
}

/// The source of a frame as judged by [`Sources::judge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To be forwarded.
    Passes,
    /// No Ethernet frame of a station.
    Malformed,
    /// Not an address of the sender's.
    Spoofed,
}

impl Sources {
    /// The one hardware address whose station is here, if it is fixed.
    pub fn mac(&self) -> Option<MacAddress> {
        match self {
            Sources::Any | Sources::Alias(_) => None,
            Sources::Mac(mac) | Sources::Pinned(mac, _) => Some(*mac),
        }
    }

    /// Whether a frame for all, or for an unknown station, is delivered.
    pub fn wants(&self, is_group: bool) -> bool {
        match self {
            Sources::Any => true,
            Sources::Mac(_) | Sources::Pinned(_, _) => is_group,
            Sources::Alias(_) => false,
        }
    }

    /// Judges a frame.
    pub fn judge(&self, frame: &[u8]) -> Verdict {
        let source = headers::source(frame).filter(|source| source.is_station());
        let (Some(source), Some(kind)) = (source, headers::ethertype(frame)) else {
            return Verdict::Malformed;
        };
        let is_own = match self {
            Sources::Any => true,
            Sources::Mac(mac) | Sources::Alias(mac) => source == *mac,
            Sources::Pinned(mac, addresses) => {
                source == *mac && is_pinned(frame, kind, *mac, addresses)
            }
        };
        if is_own {
            Verdict::Passes
        } else {
            Verdict::Spoofed
        }
    }
}

fn address(frame: &[u8], at: usize) -> Option<Ipv4Addr> {
    let bytes: [u8; 4] = frame.get(at..at + 4)?.try_into().ok()?;
    Some(bytes.into())
}

fn is_pinned(frame: &[u8], kind: u16, mac: MacAddress, addresses: &[Ipv4Addr]) -> bool {
    let allowed = |address: Option<Ipv4Addr>| {
        address.is_some_and(|address| address.is_unspecified() || addresses.contains(&address))
    };
    match kind {
        TYPE_ARP => {
            // Sender of an ARP packet for Ethernet and IPv4 (RFC 826); unspecified: a probe
            // (RFC 5227).
            let says = frame.get(ETHERNET_BYTES + 8..ETHERNET_BYTES + 14);
            says == Some(&mac.0[..]) && allowed(address(frame, ETHERNET_BYTES + 14))
        }
        TYPE_IPV4 => {
            let source = address(frame, ETHERNET_BYTES + 12);
            match source {
                // Without an address only for one: to the DHCP server.
                Some(source) if source.is_unspecified() => is_for_dhcp(frame),
                source => allowed(source),
            }
        }
        TYPE_RARP => frame.get(ETHERNET_BYTES + 8..ETHERNET_BYTES + 14) == Some(&mac.0[..]),
        _ => false,
    }
}

fn is_for_dhcp(frame: &[u8]) -> bool {
    const SERVER: u16 = 67;
    headers::Headers::find(frame).is_some_and(|found| {
        found.protocol == PROTOCOL_UDP && word(frame, found.transport + 2) == Some(SERVER)
    })
}
