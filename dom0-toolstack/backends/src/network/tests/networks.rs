//! All of it together: attaching guests, the host's stack, what is refused.

use super::bench::{clock, ipv4, mac, plain, receive, receive_all, tcp, udp};
use crate::frame::{Frame, FramePort};
use crate::network::attachment::{Attachment, Forward, Kind};
use crate::network::compose::{self, Station};
use crate::network::mac::MacAddress;
use crate::network::nat::packet::Protocol;
use crate::network::nat::router::{GATEWAY_MAC, Outside};
use crate::network::networks::{AttachError, Card, Networks};
use crate::network::offload::{self, Takes};
use crate::network::segment::Segment;
use core::task::{Context, Waker};
use smoltcp::wire::{IpProtocol, TcpControl};
use std::net::Ipv4Addr;

const HOST: Station = Station {
    mac: MacAddress([2, 0, 0, 0, 0, 0xaa]),
    address: Ipv4Addr::new(192, 168, 1, 2),
};
const PEER: Station = Station {
    mac: MacAddress([2, 0, 0, 0, 0, 0xcc]),
    address: Ipv4Addr::new(192, 168, 1, 77),
};

fn networks(is_promiscuous: bool) -> Networks {
    let card = Card {
        mac: HOST.mac,
        is_promiscuous,
        takes: Takes::NOTHING,
    };
    let networks = Networks::new(
        clock(),
        Some(card),
        Segment::default(),
        &[(Protocol::Tcp, 7)],
    );
    let outside = Outside {
        host: HOST,
        bits: 24,
        gateway: None,
    };
    networks.set_outside(Some(outside), &[]);
    networks
}

fn forward(host: u16, guest: u16) -> Forward {
    Forward {
        protocol: Protocol::Tcp,
        host,
        guest,
    }
}

fn kind(kind: Kind) -> Attachment {
    Attachment {
        kind: Some(kind),
        ..Attachment::default()
    }
}

fn nat(address: Option<[u8; 4]>, forwards: &[Forward]) -> Attachment {
    Attachment {
        address: address.map(Ipv4Addr::from),
        forwards: forwards.to_vec(),
        ..kind(Kind::Nat)
    }
}

fn pump(networks: &Networks) {
    let pending = networks
        .gateway()
        .poll_pump(&mut Context::from_waker(Waker::noop()));
    assert!(pending.is_pending());
}

#[test]
fn the_host_talks_by_the_bridge_without_computing_checksums() {
    let networks = networks(true);
    let (uplink, host) = (networks.uplink().unwrap(), networks.gateway());
    let mut packet = ipv4(
        (HOST.mac, PEER.mac),
        (HOST.address, PEER.address),
        IpProtocol::Udp,
        &udp((HOST.address, 1), (PEER.address, 2), b"hello"),
    );
    let good = packet.clone();
    packet.bytes[40..42].fill(0);
    assert!(host.send(packet));
    assert_eq!(receive(&*uplink).unwrap().bytes, good.bytes);
    let answer = ipv4(
        (PEER.mac, HOST.mac),
        (PEER.address, HOST.address),
        IpProtocol::Udp,
        &udp((PEER.address, 2), (HOST.address, 1), b"hello"),
    );
    let mut damaged = answer.clone();
    damaged.bytes[45] ^= 1;
    assert!(uplink.send(damaged) && uplink.send(answer.clone()));
    pump(&networks);
    assert_eq!(receive_all(&*host), [answer]);
    assert_eq!(host.host_statistics().dropped_damaged, 1);
    assert!(
        uplink.send(plain(PEER.mac, mac(50), 0)),
        "for somebody else"
    );
    pump(&networks);
    assert!(receive(&*host).is_none());
}

#[test]
fn a_guest_behind_a_card_that_is_not_promiscuous_is_reached_by_a_forward() {
    let networks = networks(false);
    let uplink = networks.uplink().unwrap();
    assert_eq!(
        networks.attach(mac(1), &kind(Kind::Bridge)).err(),
        Some(AttachError::NotPromiscuous)
    );
    let by_forward = Attachment {
        forwards: [forward(2222, 22)].into(),
        ..Attachment::default()
    };
    let guest = networks.attach(mac(1), &by_forward).unwrap();
    assert_eq!(guest.kind(), Kind::Nat);
    let address = guest.address().unwrap();
    let syn = tcp(
        (PEER.address, 999),
        (HOST.address, 2222),
        TcpControl::Syn,
        b"",
    );
    assert!(uplink.send(ipv4(
        (PEER.mac, HOST.mac),
        (PEER.address, HOST.address),
        IpProtocol::Tcp,
        &syn
    )));
    pump(&networks);
    let got = receive(&*guest).unwrap();
    assert_eq!(
        (&got.bytes[..6], &got.bytes[6..12]),
        (&mac(1).0[..], &GATEWAY_MAC.0[..])
    );
    // The guest answers with a long segment that it left to be cut.
    let mut long = ipv4(
        (mac(1), GATEWAY_MAC),
        (address, PEER.address),
        IpProtocol::Tcp,
        &tcp(
            (address, 22),
            (PEER.address, 999),
            TcpControl::None,
            &[5; 4000],
        ),
    );
    offload::leave_to_card(&mut long);
    long.segmentation = Some(crate::frame::Segmentation {
        kind: crate::frame::SegmentKind::Tcp4,
        header_bytes: 54,
        payload_bytes: 1460,
        ecn: false,
    });
    assert!(guest.send(long));
    pump(&networks);
    let question = receive_all(&*uplink);
    assert!(compose::read_arp(&question[0].bytes).unwrap().is_request && question.len() == 1);
    assert!(uplink.send(compose::arp(false, PEER, HOST)));
    pump(&networks);
    let pieces = receive_all(&*uplink);
    assert_eq!(pieces.len(), 3);
    for mut piece in pieces {
        piece.checked = false;
        assert!(offload::is_intact(&piece) && piece.bytes[26..30] == HOST.address.octets());
        assert_eq!(piece.bytes[34..36], 2222u16.to_be_bytes());
    }
    networks.detach(&guest);
    assert!(!guest.send(plain(mac(1), GATEWAY_MAC, 0)));
    let again = networks.attach(mac(1), &by_forward).unwrap();
    drop(guest);
    assert!(
        again.send(plain_arp(address)),
        "the first one's end is not the second one's"
    );
}

fn plain_arp(address: Ipv4Addr) -> Frame {
    compose::arp(
        true,
        Station {
            mac: mac(1),
            address,
        },
        Station {
            mac: mac(0),
            address: Segment::default().gateway(),
        },
    )
}

#[test]
fn guests_on_the_bridge_are_stations_and_announce_themselves() {
    let networks = networks(true);
    let uplink = networks.uplink().unwrap();
    let fixed = Attachment {
        address: Some(Ipv4Addr::new(192, 168, 1, 50)),
        ..kind(Kind::Bridge)
    };
    let one = networks.attach(mac(1), &Attachment::default()).unwrap();
    let two = networks.attach(mac(2), &fixed).unwrap();
    let mut frame = plain(mac(1), mac(2), 3);
    frame.checked = true;
    assert!(one.send(frame.clone()));
    frame.checked = false;
    assert_eq!(receive(&*two), Some(frame), "a guest vouches for nothing");
    two.announce();
    assert_eq!(receive_all(&*uplink).len(), 2);
    assert_eq!(receive_all(&*one).len(), 2);
    assert_eq!(two.statistics().tx_frames, 2);
}

#[test]
fn what_cannot_be_is_refused_and_leaves_nothing_behind() {
    let networks = networks(true);
    let _one = networks
        .attach(mac(1), &nat(Some([10, 99, 0, 9]), &[forward(2222, 22)]))
        .unwrap();
    let refused =
        |index: u8, wanted: Attachment| networks.attach(mac(index), &wanted).err().unwrap();
    assert_eq!(refused(1, kind(Kind::Nat)), AttachError::MacInUse(mac(1)));
    assert_eq!(
        refused(0xaa, kind(Kind::Bridge)),
        AttachError::MacInUse(mac(0xaa))
    );
    assert_eq!(
        refused(2, nat(Some([10, 99, 0, 9]), &[])),
        AttachError::AddressInUse(Ipv4Addr::new(10, 99, 0, 9))
    );
    assert_eq!(
        refused(2, nat(None, &[forward(7, 7)])),
        AttachError::HostListens(Protocol::Tcp, 7)
    );
    assert!(matches!(
        refused(2, nat(None, &[forward(1, 1), forward(2222, 22)])),
        AttachError::Forward(_)
    ));
    assert!(matches!(
        refused(2, nat(None, &[forward(40000, 22)])),
        AttachError::Forward(_)
    ));
    assert!(matches!(
        refused(2, nat(Some([10, 0, 0, 1]), &[])),
        AttachError::Outside(..)
    ));
    assert_eq!(
        refused(
            2,
            Attachment {
                kind: Some(Kind::Bridge),
                ..nat(None, &[forward(1, 1)])
            }
        ),
        AttachError::ForwardOnBridge
    );
    assert_eq!(
        refused(
            2,
            Attachment {
                may_spoof: true,
                ..kind(Kind::Nat)
            }
        ),
        AttachError::SpoofingAndAddress
    );
    networks
        .attach(mac(2), &nat(None, &[forward(1, 1)]))
        .unwrap();
}
