//! An IPv4 packet as the router sees it, and how its addresses and ports are changed.
//!
//! Checksums are corrected, not made anew (RFC 1624): damage stays visible to the receiver, and a
//! checksum left to the card stays left to it.

use crate::frame::Frame;
use crate::network::checksum;
use crate::network::headers::{
    Headers, IpVersion, PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP, word,
};
use crate::network::offload;
use core::fmt;
use core::net::Ipv4Addr;

/// ICMP types (RFC 792).
pub const ECHO_REPLY: u8 = 0;
/// Destination unreachable.
pub const UNREACHABLE: u8 = 3;
/// Echo request.
pub const ECHO_REQUEST: u8 = 8;
/// Time exceeded.
pub const TIME_EXCEEDED: u8 = 11;
/// Parameter problem.
pub const PARAMETER_PROBLEM: u8 = 12;

/// Protocols that are translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP echo; the identifier stands for the port.
    Echo,
}

/// An address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Address.
    pub address: Ipv4Addr,
    /// Port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.address, self.port)
    }
}

/// One end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// What a packet transports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Something with ports.
    Ports {
        /// Protocol.
        protocol: Protocol,
        /// Source; for an echo reply the port is 0.
        source: Endpoint,
        /// Destination; for an echo request the port is 0.
        destination: Endpoint,
        /// Flags of TCP, else 0.
        tcp_flags: u8,
    },
    /// An ICMP error about a packet of `protocol` that went from `source` to `destination`.
    Error {
        /// Protocol of the quoted packet.
        protocol: Protocol,
        /// Its source.
        source: Endpoint,
        /// Its destination.
        destination: Endpoint,
        /// Where it is.
        quoted: Region,
    },
    /// A fragment that is not the first.
    Fragment,
    /// Anything else.
    Other,
}

/// Where the headers of a packet, or of one quoted in an ICMP error, are in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    ip: usize,
    transport: usize,
    end: usize,
    protocol: u8,
}

/// A packet that is whole and whose header checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Where it is.
    pub region: Region,
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Hops left.
    pub hops: u8,
    /// Identification, which fragments share.
    pub ident: u16,
    /// It is the first of several fragments.
    pub is_first_fragment: bool,
    /// What is in it.
    pub content: Content,
}

fn address(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3])
}

impl Region {
    /// Offset of the IP header.
    pub fn ip(&self) -> usize {
        self.ip
    }

    /// Offset of what is transported.
    pub fn transport(&self) -> usize {
        self.transport
    }

    /// End of the packet.
    pub fn end(&self) -> usize {
        self.end
    }

    /// Protocol, source and destination; `None` without ports.
    fn ports(&self, bytes: &[u8]) -> Option<(Protocol, Endpoint, Endpoint)> {
        let at = self.transport;
        let is_there = |bytes: usize| at + bytes <= self.end;
        let (protocol, source, destination) = match self.protocol {
            PROTOCOL_TCP if is_there(8) => (Protocol::Tcp, word(bytes, at)?, word(bytes, at + 2)?),
            PROTOCOL_UDP if is_there(8) => (Protocol::Udp, word(bytes, at)?, word(bytes, at + 2)?),
            PROTOCOL_ICMP if is_there(8) => match bytes[at] {
                ECHO_REQUEST => (Protocol::Echo, word(bytes, at + 4)?, 0),
                ECHO_REPLY => (Protocol::Echo, 0, word(bytes, at + 4)?),
                _ => return None,
            },
            _ => return None,
        };
        let endpoint = |offset, port| Endpoint {
            address: address(bytes, self.ip + offset),
            port,
        };
        Some((protocol, endpoint(12, source), endpoint(16, destination)))
    }

    /// Sets one end; the port only where there is one (not in fragments after the first).
    /// `is_partial`: the checksum is left to the card.
    pub fn set(
        &self,
        bytes: &mut [u8],
        end: End,
        address: Ipv4Addr,
        port: Option<u16>,
        is_partial: bool,
    ) {
        let (at, port_at) = match (end, self.protocol) {
            (End::Source, PROTOCOL_ICMP) => (self.ip + 12, self.transport + 4),
            (End::Destination, PROTOCOL_ICMP) => (self.ip + 16, self.transport + 4),
            (End::Source, _) => (self.ip + 12, self.transport),
            (End::Destination, _) => (self.ip + 16, self.transport + 2),
        };
        let new = address.octets();
        let mut old = [0; 4];
        old.copy_from_slice(&bytes[at..at + 4]);
        bytes[at..at + 4].copy_from_slice(&new);
        correct(bytes, self.ip + 10, &old, &new, false);
        let Some(port) = port else {
            return;
        };
        let new_port = port.to_be_bytes();
        let old_port = [bytes[port_at], bytes[port_at + 1]];
        bytes[port_at..port_at + 2].copy_from_slice(&new_port);
        let field = match self.protocol {
            PROTOCOL_TCP => self.transport + 16,
            PROTOCOL_UDP => self.transport + 6,
            _ => self.transport + 2,
        };
        let is_absent =
            self.protocol == PROTOCOL_UDP && !is_partial && word(bytes, field) == Some(0);
        if field + 2 > self.end || is_absent {
            return;
        }
        if self.protocol != PROTOCOL_ICMP {
            correct(bytes, field, &old, &new, is_partial);
        }
        if !is_partial {
            correct(bytes, field, &old_port, &new_port, false);
        }
        if self.protocol == PROTOCOL_UDP && !is_partial && word(bytes, field) == Some(0) {
            bytes[field..field + 2].fill(0xff);
        }
    }
}

/// Corrects the checksum at `field`, or the sum there if it is partial.
fn correct(bytes: &mut [u8], field: usize, old: &[u8], new: &[u8], is_partial: bool) {
    let before = u16::from_be_bytes([bytes[field], bytes[field + 1]]);
    let after = if is_partial {
        checksum::replace(before, old, new)
    } else {
        !checksum::replace(!before, old, new)
    };
    bytes[field..field + 2].copy_from_slice(&after.to_be_bytes());
}

impl Packet {
    /// Reads the IPv4 packet in a frame. A checksum left to the card stays so only where the router
    /// can correct it; else it is filled in here. `None`: not a whole, undamaged IPv4 packet.
    pub fn read(frame: &mut Frame) -> Option<Packet> {
        let headers = Headers::find(&frame.bytes)?;
        // No VLAN tags here: the frame is routed on.
        if headers.version != IpVersion::V4 || headers.ip != crate::network::headers::ETHERNET_BYTES
        {
            return None;
        }
        let usual = headers
            .checksum_offset()
            .map(|offset| (headers.transport, offset));
        let given = frame
            .checksum
            .map(|partial| (usize::from(partial.start), usize::from(partial.offset)));
        if given.is_some() && (given != usual || headers.is_fragment) {
            if frame.segmentation.is_some() {
                return None;
            }
            offload::complete(frame).ok()?;
        }
        let bytes = &frame.bytes[..];
        if checksum::sum(&bytes[headers.ip..headers.transport]) != 0xffff {
            return None;
        }
        let fragment = word(bytes, headers.ip + 6)?;
        let region = Region {
            ip: headers.ip,
            transport: headers.transport,
            end: headers.end,
            protocol: headers.protocol,
        };
        Some(Packet {
            region,
            source: address(bytes, headers.ip + 12),
            destination: address(bytes, headers.ip + 16),
            hops: bytes[headers.ip + 8],
            ident: word(bytes, headers.ip + 4)?,
            is_first_fragment: fragment & 0x3fff == 0x2000,
            content: content(bytes, region, fragment & 0x1fff != 0),
        })
    }

    /// One hop less.
    pub fn count_hop(&self, frame: &mut Frame) {
        let at = self.region.ip + 8;
        let old = [frame.bytes[at], frame.bytes[at + 1]];
        let new = [old[0].saturating_sub(1), old[1]];
        frame.bytes[at] = new[0];
        correct(&mut frame.bytes, self.region.ip + 10, &old, &new, false);
    }

    /// Makes the checksum of an ICMP message anew, after a change of what it quotes.
    pub fn sum_icmp(&self, frame: &mut Frame) {
        let Region { transport, end, .. } = self.region;
        frame.bytes[transport + 2..transport + 4].fill(0);
        let value = !checksum::sum(&frame.bytes[transport..end]);
        frame.bytes[transport + 2..transport + 4].copy_from_slice(&value.to_be_bytes());
    }
}

fn content(bytes: &[u8], region: Region, is_later_fragment: bool) -> Content {
    if is_later_fragment {
        return Content::Fragment;
    }
    if let Some((protocol, source, destination)) = region.ports(bytes) {
        let is_tcp = protocol == Protocol::Tcp;
        // A TCP header without its checksum and flags is none.
        if is_tcp && region.transport + 20 > region.end {
            return Content::Other;
        }
        return Content::Ports {
            protocol,
            source,
            destination,
            tcp_flags: if is_tcp {
                bytes[region.transport + 13]
            } else {
                0
            },
        };
    }
    quoted(bytes, region).unwrap_or(Content::Other)
}

/// What an ICMP error is about. It must be right itself: the router makes its checksum anew.
fn quoted(bytes: &[u8], region: Region) -> Option<Content> {
    let is_error = region.protocol == PROTOCOL_ICMP
        && region.transport + 8 + 20 <= region.end
        && [UNREACHABLE, TIME_EXCEEDED, PARAMETER_PROBLEM].contains(&bytes[region.transport])
        && checksum::sum(&bytes[region.transport..region.end]) == 0xffff;
    let ip = region.transport + 8;
    if !is_error || bytes[ip] >> 4 != 4 || word(bytes, ip + 6)? & 0x1fff != 0 {
        return None;
    }
    let header_bytes = 4 * usize::from(bytes[ip] & 15);
    let total = usize::from(word(bytes, ip + 2)?);
    let inner = Region {
        ip,
        transport: ip + header_bytes,
        end: region.end.min(ip + total),
        protocol: bytes[ip + 9],
    };
    if header_bytes < 20 {
        return None;
    }
    let (protocol, source, destination) = inner.ports(bytes)?;
    Some(Content::Error {
        protocol,
        source,
        destination,
        quoted: inner,
    })
}
