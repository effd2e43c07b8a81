//! Tells switches and neighbours behind which port a guest is now, after a migration.
//!
//! A RARP request is what hypervisors send for guests whose addresses they do not know (as QEMU
//! does): switches learn from its source. A gratuitous ARP also corrects neighbours' tables (RFC
//! 5227, 3). Frames get lost, so there are several rounds.

use super::headers::{TYPE_ARP, TYPE_RARP};
use super::mac::MacAddress;
use crate::frame::Frame;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

/// Pauses before the rounds, in milliseconds: the first goes at once, five in all.
pub const ROUND_PAUSES_MS: [u64; 5] = [0, 50, 150, 250, 350];

const REQUEST: u16 = 1;
const REQUEST_REVERSE: u16 = 3;
/// Shortest frame on Ethernet, without check sequence.
const PADDED_BYTES: usize = 60;

/// The frames of one round: a RARP request, and a gratuitous ARP for each address.
pub fn frames(mac: MacAddress, addresses: &[Ipv4Addr]) -> Vec<Frame> {
    let unspecified = Ipv4Addr::UNSPECIFIED;
    let reverse = packet(TYPE_RARP, REQUEST_REVERSE, mac, unspecified, mac);
    let gratuitous = addresses
        .iter()
        .map(|address| packet(TYPE_ARP, REQUEST, mac, *address, MacAddress([0; 6])));
    core::iter::once(reverse).chain(gratuitous).collect()
}

/// A broadcast packet of RFC 826 whose sender and target have the same protocol address.
fn packet(
    kind: u16,
    operation: u16,
    mac: MacAddress,
    address: Ipv4Addr,
    target: MacAddress,
) -> Frame {
    let mut bytes = Vec::with_capacity(PADDED_BYTES);
    bytes.extend_from_slice(&MacAddress::BROADCAST.0);
    bytes.extend_from_slice(&mac.0);
    bytes.extend_from_slice(&kind.to_be_bytes());
    // Ethernet, IPv4, lengths of their addresses.
    bytes.extend_from_slice(&[0, 1, 8, 0, 6, 4]);
    bytes.extend_from_slice(&operation.to_be_bytes());
    for (hardware, protocol) in [(mac, address), (target, address)] {
        bytes.extend_from_slice(&hardware.0);
        bytes.extend_from_slice(&protocol.octets());
    }
    bytes.resize(PADDED_BYTES, 0);
    Frame {
        bytes,
        ..Frame::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetFrame};

    #[test]
    fn a_gratuitous_arp_is_one_to_another_implementation() {
        let mac = MacAddress([2, 0, 0, 0, 0, 9]);
        let address = Ipv4Addr::new(10, 0, 0, 9);
        let all = frames(mac, &[address]);
        assert_eq!(all.len(), 2);
        let frame = EthernetFrame::new_checked(&all[1].bytes[..]).unwrap();
        assert!(frame.dst_addr().is_broadcast());
        let packet = ArpPacket::new_checked(frame.payload()).unwrap();
        let ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr,
            target_protocol_addr,
            ..
        } = ArpRepr::parse(&packet).unwrap()
        else {
            panic!("not Ethernet and IPv4");
        };
        assert_eq!(operation, ArpOperation::Request);
        assert_eq!(source_hardware_addr.0, mac.0);
        assert_eq!(
            (source_protocol_addr, target_protocol_addr),
            (address, address)
        );
        // RFC 903: opcode 3, both hardware addresses are the station's.
        assert_eq!(all[0].bytes[12..14], [0x80, 0x35]);
        assert_eq!(all[0].bytes[20..22], [0, 3]);
        assert_eq!(
            (&all[0].bytes[22..28], &all[0].bytes[32..38]),
            (&mac.0[..], &mac.0[..])
        );
    }
}
