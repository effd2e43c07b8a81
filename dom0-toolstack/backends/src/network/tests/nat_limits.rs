//! The router's limits, time-outs, fragments, and anything that may come.

use super::bench::{ipv4, mac, tcp, udp};
use super::nat::{HOST, NEXT, REMOTE, delivered, from_remote, into, out, router, sent, udp_frame};
use crate::frame::Frame;
use crate::network::nat::connections::{
    CONNECTIONS_PER_GUEST_MAX, Connections, Flow, PORTS, Refused, TCP_OPEN_US, TCP_TRANSITORY_US,
    UDP_US,
};
use crate::network::nat::neighbours::{Neighbours, WAITING_MAX};
use crate::network::nat::packet::{Endpoint, Protocol};
use crate::network::nat::router::{GATEWAY_MAC, Mode, Output};
use proptest::prelude::*;
use smoltcp::wire::{IpProtocol, TcpControl};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::vec::Vec;

fn flow(protocol: Protocol, guest: u8, port: u16, remote: u16) -> Flow {
    Flow {
        protocol,
        inside: Endpoint {
            address: Ipv4Addr::new(10, 99, 0, guest),
            port,
        },
        remote: Endpoint {
            address: REMOTE,
            port: remote,
        },
    }
}

const SYN: u8 = 2;
const ACK: u8 = 16;
const FIN: u8 = 1;

#[test]
fn connections_end_by_time_and_by_tcp() {
    let mut table = Connections::default();
    let web = flow(Protocol::Tcp, 2, 1000, 80);
    let port = table.outward(web, SYN, 0).unwrap();
    let inward = |table: &mut Connections, flags, now| {
        table.inward(Protocol::Tcp, port, web.remote, flags, now)
    };
    assert_eq!(
        inward(&mut table, SYN | ACK, TCP_TRANSITORY_US),
        Some(web.inside)
    );
    let idle = TCP_TRANSITORY_US + TCP_OPEN_US;
    assert_eq!(
        inward(&mut table, ACK, idle),
        Some(web.inside),
        "open ones last"
    );
    table.outward(web, FIN | ACK, idle).unwrap();
    assert_eq!(inward(&mut table, FIN | ACK, idle), Some(web.inside));
    assert_eq!(inward(&mut table, ACK, idle + TCP_TRANSITORY_US + 1), None);
    assert!(table.is_empty());
    let dns = flow(Protocol::Udp, 2, 1000, 53);
    let port = table.outward(dns, 0, 0).unwrap();
    assert_eq!(
        table.inward(Protocol::Udp, port, dns.remote, 0, UDP_US),
        Some(dns.inside)
    );
    assert_eq!(
        table.inward(Protocol::Udp, port, dns.remote, 0, 2 * UDP_US + 1),
        None
    );
}

#[test]
fn a_guest_at_its_limit_stands_in_nobodys_way() {
    let mut table = Connections::default();
    for index in 0..CONNECTIONS_PER_GUEST_MAX {
        table
            .outward(flow(Protocol::Udp, 2, 1, index as u16), 0, 0)
            .unwrap();
    }
    assert_eq!(
        table.outward(flow(Protocol::Udp, 2, 1, 60_000), 0, 1),
        Err(Refused::Full)
    );
    table.outward(flow(Protocol::Udp, 3, 1, 1), 0, 1).unwrap();
    table
        .outward(flow(Protocol::Udp, 2, 1, 60_000), 0, UDP_US + 2)
        .unwrap();
    assert_eq!(table.len(), 1, "what is over has made room");
}

proptest! {
    /// Ports are never shared, never the host's, and the same for an endpoint whomever it talks to.
    #[test]
    fn ports_are_of_one_endpoint_each(
        packets in proptest::collection::vec((2u8..6, 0u16..40, 0u16..20, 0u64..400), 1..400),
        hosts in proptest::collection::vec(PORTS, 0..20),
    ) {
        let mut table = Connections::default();
        for port in &hosts {
            table.host_uses(Protocol::Udp, *port, 0);
        }
        let mut now = 0;
        let mut seen: BTreeMap<u16, (Endpoint, u64)> = BTreeMap::new();
        for (guest, port, remote, pause) in packets {
            now += pause * 1_000;
            let flow = flow(Protocol::Udp, guest, 40_000 + port, remote);
            let external = table.outward(flow, 0, now).unwrap();
            prop_assert!(PORTS.contains(&external) && !hosts.contains(&external));
            if let Some((owner, last)) = seen.insert(external, (flow.inside, now)) {
                prop_assert!(owner == flow.inside || now - last > UDP_US);
            }
            prop_assert_eq!(table.inward(Protocol::Udp, external, flow.remote, 0, now), Some(flow.inside));
        }
    }

    #[test]
    fn anything_may_come_from_anywhere(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        is_ip: bool,
        protocol in prop_oneof![Just(1u8), Just(6), Just(17)],
        is_to_host: bool,
    ) {
        let (mut router, guest) = router(Mode::Translated);
        if is_ip && bytes.len() >= 34 {
            let to = if is_to_host { HOST.mac } else { GATEWAY_MAC };
            bytes[..6].copy_from_slice(&to.0);
            bytes[6..12].copy_from_slice(&mac(1).0);
            bytes[12..15].copy_from_slice(&[8, 0, 0x45]);
            let total = (bytes.len() - 14) as u16;
            bytes[16..18].copy_from_slice(&total.to_be_bytes());
            bytes[22] |= 2;
            bytes[23] = protocol;
            bytes[26..30].copy_from_slice(&guest.octets());
            if is_to_host {
                bytes[30..34].copy_from_slice(&HOST.address.octets());
            }
            bytes[24..26].fill(0);
            let value = !crate::network::checksum::sum(&bytes[14..34]);
            bytes[24..26].copy_from_slice(&value.to_be_bytes());
        }
        let frame = Frame { bytes, ..Frame::default() };
        for output in out(&mut router, frame.clone(), 0) {
            if let Output::Outside(frame) = output {
                // Nothing leaves with an inside address as its source.
                prop_assert!(frame.bytes[12..14] != [8, 0] || frame.bytes[26..30] == HOST.address.octets());
            }
        }
        into(&mut router, frame.clone(), 0);
        router.from_host(frame, 0, &mut Vec::new());
    }
}

#[test]
fn later_fragments_follow_the_first() {
    let (mut router, guest) = router(Mode::Translated);
    let (_, source, _) = sent(out(&mut router, udp_frame((guest, 1234), (REMOTE, 7)), 0));
    let payload = udp((REMOTE, 7), (HOST.address, source.port), &[9; 64]);
    let fragment = |offset: usize, more: bool, part: &[u8]| {
        let mut frame = from_remote(HOST.address, IpProtocol::Udp, part);
        let word = (offset / 8) as u16 | u16::from(more) << 13;
        frame.bytes[18..20].copy_from_slice(&77u16.to_be_bytes());
        frame.bytes[20..22].copy_from_slice(&word.to_be_bytes());
        frame.bytes[24..26].fill(0);
        let value = !crate::network::checksum::sum(&frame.bytes[14..34]);
        frame.bytes[24..26].copy_from_slice(&value.to_be_bytes());
        frame
    };
    let late = fragment(40, false, &payload[40..]);
    assert!(matches!(
        into(&mut router, late.clone(), 0)[..],
        [Output::Host(_)]
    ));
    let (first, ..) = delivered(into(&mut router, fragment(0, true, &payload[..40]), 0));
    let outputs = into(&mut router, late, 0);
    let [Output::Inside(second)] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!(second.bytes[30..34], guest.octets());
    // Put together the checksum is right.
    let whole = [&first.bytes[34..], &second.bytes[34..]].concat();
    let whole = ipv4((NEXT, mac(1)), (REMOTE, guest), IpProtocol::Udp, &whole);
    assert!(crate::network::offload::is_intact(&whole));
}

#[test]
fn a_packet_without_hops_left_is_answered() {
    let (mut router, guest) = router(Mode::Translated);
    let mut frame = udp_frame((guest, 1), (REMOTE, 33434));
    frame.bytes[22] = 1;
    frame.bytes[24..26].fill(0);
    let value = !crate::network::checksum::sum(&frame.bytes[14..34]);
    frame.bytes[24..26].copy_from_slice(&value.to_be_bytes());
    let outputs = out(&mut router, frame, 0);
    let [Output::Inside(error)] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!((error.bytes[23], error.bytes[34]), (1, 11));
    assert_eq!(error.bytes[26..30], router.segment().gateway().octets());
}

#[test]
fn a_guest_with_a_foreign_address_gets_nowhere() {
    let (mut router, _) = router(Mode::Translated);
    let foreign = Ipv4Addr::new(10, 99, 0, 250);
    let payload = tcp((foreign, 1), (REMOTE, 2), TcpControl::Syn, b"");
    let frame = ipv4(
        (mac(1), GATEWAY_MAC),
        (foreign, REMOTE),
        IpProtocol::Tcp,
        &payload,
    );
    assert_eq!(out(&mut router, frame, 0), []);
    assert_eq!(router.statistics().dropped_malformed, 1);
}

#[test]
fn packets_wait_for_a_neighbour_in_order_and_not_without_end() {
    let mut neighbours = Neighbours::default();
    let to = Ipv4Addr::new(192, 168, 1, 9);
    let frame = |tag: u8| Frame {
        bytes: [tag].into(),
        ..Frame::default()
    };
    for tag in 0..20 {
        let next = neighbours.send(to, frame(tag), u64::from(tag) * 100_000);
        assert_eq!((next.ask, next.send), (tag % 10 == 0, None));
    }
    assert!(
        neighbours
            .learn(Ipv4Addr::new(192, 168, 1, 8), mac(9), 0)
            .is_empty()
    );
    let tags: Vec<_> = neighbours
        .learn(to, mac(9), 0)
        .iter()
        .map(|frame| frame.bytes[0])
        .collect();
    assert_eq!(tags, (4..20).collect::<Vec<u8>>());
    assert_eq!(tags.len(), WAITING_MAX);
    let later = neighbours.send(to, frame(1), 200_000_000);
    assert!(
        later.ask && later.send.is_some(),
        "used and asked for again"
    );
    assert!(neighbours.send(to, frame(1), 301_000_000).send.is_none());
}
