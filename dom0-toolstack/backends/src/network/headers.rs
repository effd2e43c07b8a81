//! Where the headers of a frame are. Total: anything may be in a frame.

use super::checksum;
use super::mac::MacAddress;

/// Bytes of an Ethernet header without a VLAN tag.
pub const ETHERNET_BYTES: usize = 14;
/// The largest Ethernet frame without its check sequence and without a VLAN tag.
pub const FRAME_BYTES_MAX: usize = 1514;

/// Ethertypes.
pub const TYPE_IPV4: u16 = 0x0800;
/// Address Resolution Protocol.
pub const TYPE_ARP: u16 = 0x0806;
/// Reverse ARP (RFC 903).
pub const TYPE_RARP: u16 = 0x8035;
/// A VLAN tag follows (IEEE 802.1Q).
pub const TYPE_VLAN: u16 = 0x8100;
/// IPv6.
pub const TYPE_IPV6: u16 = 0x86dd;

/// Internet protocol numbers.
pub const PROTOCOL_ICMP: u8 = 1;
/// TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// UDP.
pub const PROTOCOL_UDP: u8 = 17;

/// The two bytes at `at`, most significant first.
pub fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}

fn mac(bytes: &[u8], at: usize) -> Option<MacAddress> {
    let bytes = bytes.get(at..at + 6)?;
    bytes.try_into().ok().map(MacAddress)
}

/// Where a frame is to go.
pub fn destination(frame: &[u8]) -> Option<MacAddress> {
    mac(frame, 0)
}

/// Where a frame says it comes from.
pub fn source(frame: &[u8]) -> Option<MacAddress> {
    mac(frame, 6)
}

/// Its ethertype; a VLAN tag counts as one.
pub fn ethertype(frame: &[u8]) -> Option<u16> {
    word(frame, 12)
}

/// Which version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The headers of an IP packet in a frame; all of it is inside of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Version.
    pub version: IpVersion,
    /// Offset of the IP header.
    pub ip: usize,
    /// Protocol of what is transported; for IPv6 that of the header after the fixed one.
    pub protocol: u8,
    /// Offset of what is transported.
    pub transport: usize,
    /// The packet's end by its own account.
    pub end: usize,
    /// It is a fragment of a larger packet.
    pub is_fragment: bool,
}

impl Headers {
    /// Looks through up to one VLAN tag. `None`: no IP packet that is whole.
    pub fn find(frame: &[u8]) -> Option<Headers> {
        let (kind, ip) = match ethertype(frame)? {
            TYPE_VLAN => (word(frame, 16)?, 18),
            kind => (kind, ETHERNET_BYTES),
        };
        let first = *frame.get(ip)?;
        let headers = match (kind, first >> 4) {
            (TYPE_IPV4, 4) => Headers {
                version: IpVersion::V4,
                ip,
                protocol: *frame.get(ip + 9)?,
                transport: ip + 4 * usize::from(first & 15),
                end: ip + usize::from(word(frame, ip + 2)?),
                is_fragment: word(frame, ip + 6)? & 0x3fff != 0,
            },
            (TYPE_IPV6, 6) => Headers {
                version: IpVersion::V6,
                ip,
                protocol: *frame.get(ip + 6)?,
                transport: ip + 40,
                end: ip + 40 + usize::from(word(frame, ip + 4)?),
                is_fragment: false,
            },
            (_, _) => return None,
        };
        let is_whole = headers.transport >= ip + 20
            && headers.transport <= headers.end
            && headers.end <= frame.len();
        is_whole.then_some(headers)
    }

    /// Source and destination address as they lie in the header.
    pub fn addresses<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        match self.version {
            IpVersion::V4 => &frame[self.ip + 12..self.ip + 20],
            IpVersion::V6 => &frame[self.ip + 8..self.ip + 40],
        }
    }

    /// Sum of the pseudo header for `bytes` of what is transported.
    pub fn pseudo_sum(&self, frame: &[u8], bytes: usize) -> u16 {
        checksum::pseudo(self.addresses(frame), self.protocol, bytes)
    }

    /// Where TCP and UDP have their checksum, from the start of their header.
    pub fn checksum_offset(&self) -> Option<usize> {
        let offset = match self.protocol {
            PROTOCOL_TCP => 16,
            PROTOCOL_UDP => 6,
            _ => return None,
        };
        (self.transport + offset + 2 <= self.end).then_some(offset)
    }
}
