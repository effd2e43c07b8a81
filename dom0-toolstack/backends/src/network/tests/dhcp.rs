//! DHCP: a whole exchange as smoltcp's client side would have it, and refusals.

use super::bench::mac;
use crate::network::dhcp::{Answer, LEASE_SECONDS, ReserveError, Server};
use crate::network::mac::MacAddress;
use crate::network::segment::Segment;
use smoltcp::wire::{DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress};
use std::net::Ipv4Addr;
use std::vec;
use std::vec::Vec;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

fn message(
    kind: DhcpMessageType,
    from: MacAddress,
    edit: impl FnOnce(&mut DhcpRepr<'_>),
) -> Vec<u8> {
    let identifier = [DhcpOption {
        kind: 61,
        data: &[0xff, 1, 2, 3, 4, 5, 6, 7, 8],
    }];
    let mut repr = DhcpRepr {
        message_type: kind,
        transaction_id: 0x1234_5678,
        secs: 0,
        client_hardware_address: EthernetAddress(from.0),
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: false,
        requested_ip: None,
        client_identifier: None,
        server_identifier: None,
        parameter_request_list: Some(&[1, 3, 6]),
        dns_servers: None,
        max_size: Some(1500),
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &identifier,
    };
    edit(&mut repr);
    let mut bytes = vec![0; 400];
    repr.emit(&mut DhcpPacket::new_unchecked(&mut bytes[..]))
        .unwrap();
    bytes
}

fn with_answer<R>(answer: &Answer, look: impl FnOnce(DhcpRepr<'_>) -> R) -> R {
    let packet = DhcpPacket::new_checked(&answer.message[..]).unwrap();
    let echoed = packet.options().find(|option| option.kind == 61).unwrap();
    assert_eq!(echoed.data, [0xff, 1, 2, 3, 4, 5, 6, 7, 8]);
    look(DhcpRepr::parse(&packet).unwrap())
}

#[test]
fn a_client_gets_its_address_and_keeps_it() {
    let mut server = Server::new(Segment::default());
    let dns = [Ipv4Addr::new(9, 9, 9, 9), Ipv4Addr::new(8, 8, 8, 8)];
    server.set_dns(&dns);
    let address = server.reserve(mac(1), None).unwrap();
    let offer = server
        .answer(mac(1), &message(DhcpMessageType::Discover, mac(1), |_| {}))
        .unwrap();
    assert_eq!((offer.address, offer.mac), (address, mac(1)));
    with_answer(&offer, |offer| {
        assert_eq!(offer.message_type, DhcpMessageType::Offer);
        assert_eq!(
            (offer.your_ip, offer.transaction_id),
            (address, 0x1234_5678)
        );
    });
    let request = message(DhcpMessageType::Request, mac(1), |request| {
        request.requested_ip = Some(address);
        request.server_identifier = Some(GATEWAY);
        request.broadcast = true;
    });
    let ack = server.answer(mac(1), &request).unwrap();
    assert_eq!(
        (ack.address, ack.mac),
        (Ipv4Addr::BROADCAST, MacAddress::BROADCAST)
    );
    with_answer(&ack, |ack| {
        assert_eq!(ack.message_type, DhcpMessageType::Ack);
        assert_eq!((ack.your_ip, ack.router), (address, Some(GATEWAY)));
        assert_eq!(ack.subnet_mask, Some(Ipv4Addr::new(255, 255, 255, 0)));
        assert_eq!(ack.dns_servers.as_deref(), Some(&dns[..]));
        assert_eq!(ack.lease_duration, Some(LEASE_SECONDS));
    });
    let renewal = message(DhcpMessageType::Request, mac(1), |request| {
        request.client_ip = address
    });
    let renewed = server.answer(mac(1), &renewal).unwrap();
    assert_eq!((renewed.address, renewed.mac), (address, mac(1)));
    with_answer(&renewed, |ack| {
        assert_eq!(ack.message_type, DhcpMessageType::Ack)
    });
}

#[test]
fn wrong_addresses_are_refused_and_strangers_get_no_answer() {
    let mut server = Server::new(Segment::default());
    server.reserve(mac(1), None).unwrap();
    let wrong = message(DhcpMessageType::Request, mac(1), |request| {
        request.requested_ip = Some(Ipv4Addr::new(192, 168, 1, 5));
    });
    let nak = server.answer(mac(1), &wrong).unwrap();
    assert_eq!(nak.address, Ipv4Addr::BROADCAST);
    with_answer(&nak, |nak| {
        assert_eq!(nak.message_type, DhcpMessageType::Nak);
        assert_eq!((nak.your_ip, nak.router), (Ipv4Addr::UNSPECIFIED, None));
    });
    let other_server = message(DhcpMessageType::Request, mac(1), |request| {
        request.server_identifier = Some(Ipv4Addr::new(10, 99, 0, 200));
    });
    assert_eq!(server.answer(mac(1), &other_server), None);
    let discover = message(DhcpMessageType::Discover, mac(2), |_| {});
    assert_eq!(server.answer(mac(2), &discover), None);
    assert_eq!(
        server.answer(mac(1), &discover),
        None,
        "not its own hardware address"
    );
    let release = message(DhcpMessageType::Release, mac(1), |_| {});
    assert_eq!(server.answer(mac(1), &release), None);
}

#[test]
fn addresses_follow_from_the_hardware_address_and_are_used_up_last() {
    let segment = Segment::new(Ipv4Addr::new(10, 1, 0, 1), 28).unwrap();
    let mut server = Server::new(segment);
    let mut given: Vec<_> = (0..13)
        .map(|index| server.reserve(mac(index), None).unwrap())
        .collect();
    assert_eq!(server.reserve(mac(99), None), Err(ReserveError::Full));
    let alone = Server::new(segment).reserve(mac(0), None).unwrap();
    assert_eq!(alone, given[0]);
    given.sort();
    given.dedup();
    assert_eq!(given.len(), 13);
    assert!(
        given
            .iter()
            .all(|address| segment.is_host(*address) && *address != segment.gateway())
    );
    server.release(mac(3)).unwrap();
    for wrong in [[10, 1, 0, 0], [10, 1, 0, 15], [10, 2, 0, 3]].map(Ipv4Addr::from) {
        assert_eq!(
            server.reserve(mac(3), Some(wrong)),
            Err(ReserveError::Outside(wrong))
        );
    }
    let gateway = segment.gateway();
    assert_eq!(
        server.reserve(mac(3), Some(gateway)),
        Err(ReserveError::InUse(gateway))
    );
}
