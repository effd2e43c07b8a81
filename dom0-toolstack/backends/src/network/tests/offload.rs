//! Offloads done in software, judged by another implementation.

use super::bench::{ipv4, mac, tcp, udp};
use crate::frame::{Frame, PartialChecksum, SegmentKind, Segmentation};
use crate::network::headers::FRAME_BYTES_MAX;
use crate::network::offload::{Malformed, Takes, adapt, complete, is_intact, leave_to_card};
use proptest::prelude::*;
use smoltcp::wire::{
    EthernetFrame, IpAddress, IpProtocol, Ipv4Packet, TcpControl, TcpPacket, UdpPacket,
};
use std::net::Ipv4Addr;
use std::vec::Vec;

const FROM: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 0, 0, 1), 4000);
const TO: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 0, 0, 2), 80);

fn frame(protocol: IpProtocol, payload: &[u8]) -> Frame {
    ipv4((mac(1), mac(2)), (FROM.0, TO.0), protocol, payload)
}

/// Sequence number, flags and payload, if all checksums are right.
fn judge(frame: &Frame) -> Option<(i32, bool, bool, Vec<u8>)> {
    let ethernet = EthernetFrame::new_checked(&frame.bytes[..]).ok()?;
    let packet = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
    assert!(packet.verify_checksum());
    let (from, to) = (
        IpAddress::Ipv4(packet.src_addr()),
        IpAddress::Ipv4(packet.dst_addr()),
    );
    let segment = TcpPacket::new_checked(packet.payload()).ok()?;
    let is_right = segment.verify_checksum(&from, &to);
    is_right.then(|| {
        (
            segment.seq_number().0,
            segment.psh(),
            segment.fin(),
            segment.payload().to_vec(),
        )
    })
}

fn long(payload: &[u8], step: u16) -> Frame {
    let mut long = frame(IpProtocol::Tcp, &tcp(FROM, TO, TcpControl::Psh, payload));
    long.bytes[34 + 13] |= 0x01; // FIN
    long.bytes[34 + 16] ^= 0x55; // what a sender leaves there does not matter
    long.checksum = Some(PartialChecksum {
        start: 34,
        offset: 16,
    });
    long.segmentation = Some(Segmentation {
        kind: SegmentKind::Tcp4,
        header_bytes: 54,
        payload_bytes: step,
        ecn: false,
    });
    long
}

fn adapted(frame: Frame, takes: Takes) -> Result<Vec<Frame>, Malformed> {
    let mut all = Vec::new();
    adapt(frame, takes, |piece| all.push(piece))?;
    Ok(all)
}

proptest! {
    #[test]
    fn pieces_make_the_whole_and_have_right_checksums(
        payload in proptest::collection::vec(any::<u8>(), 1..8_000),
        step in 48u16..1460,
    ) {
        let pieces = adapted(long(&payload, step), Takes::NOTHING).unwrap();
        let mut whole = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            prop_assert!(piece.bytes.len() <= FRAME_BYTES_MAX && is_intact(piece));
            let (sequence, psh, fin, part) = judge(piece).expect("right checksums");
            prop_assert_eq!(sequence as usize, 1000 + whole.len());
            let is_last = index + 1 == pieces.len();
            prop_assert_eq!((psh, fin), (is_last, is_last));
            prop_assert_eq!(part.len() == usize::from(step) || is_last, true);
            whole.extend(part);
        }
        prop_assert_eq!(whole, payload);
    }

    #[test]
    fn checksums_left_to_the_card_are_filled_in_right(payload: Vec<u8>, is_tcp: bool) {
        let (protocol, packet) = match is_tcp {
            true => (IpProtocol::Tcp, tcp(FROM, TO, TcpControl::None, &payload)),
            false => (IpProtocol::Udp, udp(FROM, TO, &payload)),
        };
        let good = frame(protocol, &packet);
        let mut left = good.clone();
        leave_to_card(&mut left);
        prop_assert!(left.checksum.is_some() && left.bytes != good.bytes);
        complete(&mut left).unwrap();
        prop_assert!(left.checked);
        left.checked = false;
        prop_assert!(is_intact(&left) && is_intact(&good));
        prop_assert_eq!(&left.bytes, &good.bytes);
        let mut bad = good.clone();
        let last = bad.bytes.len() - 1;
        bad.bytes[last] ^= 1;
        prop_assert!(!is_intact(&bad));
    }

    #[test]
    fn anything_may_come(
        bytes: Vec<u8>,
        ip_like: bool,
        start: u16,
        offset: u16,
        step: u16,
        v6: bool,
    ) {
        let mut bytes = bytes;
        if ip_like && bytes.len() > 24 {
            bytes[12..15].copy_from_slice(if v6 { &[0x86, 0xdd, 0x60] } else { &[8, 0, 0x45] });
            let total = (bytes.len() - 14) as u16;
            bytes[16..18].copy_from_slice(&total.to_be_bytes());
            bytes[23] = 6;
        }
        let kind = if v6 { SegmentKind::Tcp6 } else { SegmentKind::Tcp4 };
        let segmentation = Segmentation { kind, header_bytes: start, payload_bytes: step, ecn: false };
        let checksum = Some(PartialChecksum { start, offset });
        for segmentation in [None, Some(segmentation)] {
            let frame = Frame { bytes: bytes.clone(), checksum, segmentation, checked: false };
            leave_to_card(&mut frame.clone());
            is_intact(&frame);
            let _ = adapted(frame, Takes::NOTHING);
        }
    }
}

#[test]
fn udp_that_sums_up_to_zero_is_not_sent_as_none() {
    // Find a payload whose checksum is the zero that means "none".
    let found = (0..=u16::MAX).find_map(|word| {
        let mut left = frame(IpProtocol::Udp, &udp(FROM, TO, &word.to_be_bytes()));
        leave_to_card(&mut left);
        complete(&mut left).unwrap();
        (left.bytes[40..42] == [0xff, 0xff]).then_some(left)
    });
    let found = found.expect("one of them does");
    let packet = UdpPacket::new_checked(&found.bytes[34..]).unwrap();
    assert!(packet.verify_checksum(&IpAddress::Ipv4(FROM.0), &IpAddress::Ipv4(TO.0)));
}

#[test]
fn who_takes_offloads_gets_the_frame_as_it_is_and_limits_hold() {
    let frame = long(&[7; 5000], 1000);
    assert_eq!(
        adapted(frame.clone(), Takes::ALL),
        Ok([frame.clone()].into())
    );
    let without = Takes {
        segmentation: false,
        ..Takes::ALL
    };
    assert_eq!(adapted(frame.clone(), without).map(|all| all.len()), Ok(5));
    for step in [0, 47, 1461] {
        assert_eq!(
            adapted(long(&[7; 5000], step), Takes::NOTHING),
            Err(Malformed)
        );
    }
    let mut jumbo = frame;
    jumbo.segmentation = None;
    assert_eq!(adapted(jumbo, Takes::NOTHING), Err(Malformed));
}
