//! Packets that the gateway itself sends.

use super::headers::ETHERNET_BYTES;
use super::mac::MacAddress;
use crate::frame::Frame;
use alloc::vec;
use core::net::Ipv4Addr;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress,
    IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};

/// Hops a packet of ours may make.
const HOPS: u8 = 64;
/// Bytes of the offending packet that an ICMP error quotes beyond its header (RFC 792).
const QUOTED_BYTES: usize = 8;

/// A hardware and an IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// Hardware address.
    pub mac: MacAddress,
    /// IPv4 address.
    pub address: Ipv4Addr,
}

fn ethernet(from: MacAddress, to: MacAddress, kind: EthernetProtocol, payload: usize) -> Frame {
    let mut bytes = vec![0; ETHERNET_BYTES + payload];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    frame.set_src_addr(EthernetAddress(from.0));
    frame.set_dst_addr(EthernetAddress(to.0));
    frame.set_ethertype(kind);
    Frame {
        bytes,
        checked: true,
        ..Frame::default()
    }
}

fn ipv4(from: Station, to: Station, protocol: IpProtocol, payload: usize) -> Frame {
    let repr = Ipv4Repr {
        src_addr: from.address,
        dst_addr: to.address,
        next_header: protocol,
        payload_len: payload,
        hop_limit: HOPS,
    };
    let bytes = repr.buffer_len() + payload;
    let mut frame = ethernet(from.mac, to.mac, EthernetProtocol::Ipv4, bytes);
    let mut packet = Ipv4Packet::new_unchecked(&mut frame.bytes[ETHERNET_BYTES..]);
    repr.emit(&mut packet, &ChecksumCapabilities::default());
    frame
}

/// A UDP packet.
pub fn udp(from: Station, to: Station, ports: (u16, u16), payload: &[u8]) -> Frame {
    let repr = UdpRepr {
        src_port: ports.0,
        dst_port: ports.1,
    };
    let mut frame = ipv4(from, to, IpProtocol::Udp, repr.header_len() + payload.len());
    repr.emit(
        &mut UdpPacket::new_unchecked(&mut frame.bytes[ETHERNET_BYTES + 20..]),
        &IpAddress::Ipv4(from.address),
        &IpAddress::Ipv4(to.address),
        payload.len(),
        |bytes| bytes.copy_from_slice(payload),
        &ChecksumCapabilities::default(),
    );
    frame
}

/// An ICMP message: type, code, the word after the checksum, and what follows.
pub fn icmp(from: Station, to: Station, kind: (u8, u8), word: [u8; 4], data: &[u8]) -> Frame {
    let mut frame = ipv4(from, to, IpProtocol::Icmp, 8 + data.len());
    let message = &mut frame.bytes[ETHERNET_BYTES + 20..];
    message[..2].copy_from_slice(&[kind.0, kind.1]);
    message[4..8].copy_from_slice(&word);
    message[8..].copy_from_slice(data);
    let value = !super::checksum::sum(message);
    message[2..4].copy_from_slice(&value.to_be_bytes());
    frame
}

/// An ICMP error about `packet`, an IPv4 packet with a header of `header_bytes`.
pub fn icmp_error(
    from: Station,
    to: Station,
    kind: (u8, u8),
    packet: &[u8],
    header_bytes: usize,
) -> Frame {
    let quoted = packet.len().min(header_bytes + QUOTED_BYTES);
    icmp(from, to, kind, [0; 4], &packet[..quoted])
}

/// An ARP request or reply (RFC 826) from `from`; a request is sent to everybody.
pub fn arp(is_request: bool, from: Station, to: Station) -> Frame {
    let (operation, target, receiver) = if is_request {
        let nobody = MacAddress([0; 6]);
        (ArpOperation::Request, nobody, MacAddress::BROADCAST)
    } else {
        (ArpOperation::Reply, to.mac, to.mac)
    };
    let repr = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(from.mac.0),
        source_protocol_addr: from.address,
        target_hardware_addr: EthernetAddress(target.0),
        target_protocol_addr: to.address,
    };
    let mut frame = ethernet(from.mac, receiver, EthernetProtocol::Arp, repr.buffer_len());
    repr.emit(&mut ArpPacket::new_unchecked(
        &mut frame.bytes[ETHERNET_BYTES..],
    ));
    frame
}

/// What an ARP packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// It asks for somebody.
    pub is_request: bool,
    /// Who sent it.
    pub sender: Station,
    /// Whose hardware address it asks for, or whom it answers.
    pub target: Ipv4Addr,
}

/// Reads an ARP packet of IPv4 on Ethernet.
pub fn read_arp(frame: &[u8]) -> Option<Arp> {
    let packet = ArpPacket::new_checked(frame.get(ETHERNET_BYTES..)?).ok()?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = ArpRepr::parse(&packet).ok()?
    else {
        return None;
    };
    Some(Arp {
        is_request: match operation {
            ArpOperation::Request => true,
            ArpOperation::Reply => false,
            ArpOperation::Unknown(_) => return None,
        },
        sender: Station {
            mac: MacAddress(source_hardware_addr.0),
            address: source_protocol_addr,
        },
        target: target_protocol_addr,
    })
}
