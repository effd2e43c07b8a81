//! The router: both directions, forwards, errors, routed guests.

use super::bench::{ipv4, mac, tcp, udp};
use crate::frame::{Frame, PartialChecksum};
use crate::network::compose::{self, Station};
use crate::network::mac::MacAddress;
use crate::network::nat::connections::PORTS;
use crate::network::nat::packet::{Content, Endpoint, Packet, Protocol};
use crate::network::nat::router::{GATEWAY_MAC, Mode, Output, Outside, Router};
use crate::network::offload;
use crate::network::segment::Segment;
use smoltcp::wire::{IpProtocol, TcpControl};
use std::net::Ipv4Addr;
use std::vec::Vec;

pub(super) const HOST: Station = Station {
    mac: MacAddress([2, 0, 0, 0, 0, 0xaa]),
    address: Ipv4Addr::new(192, 168, 1, 2),
};
pub(super) const NEXT: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xbb]);
pub(super) const REMOTE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const NEXT_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

/// A router with a guest at `mac(1)`, whose next hop is known.
pub(super) fn router(mode: Mode) -> (Router, Ipv4Addr) {
    let mut router = Router::new(Segment::default());
    let outside = Outside {
        host: HOST,
        bits: 24,
        gateway: Some(NEXT_ADDRESS),
    };
    router.set_outside(Some(outside), &[]);
    let guest = router.add_guest(mac(1), None, mode).unwrap();
    let first = out(&mut router, udp_frame((guest, 5), (REMOTE, 5)), 0);
    assert_eq!(first.len(), 1, "a question and nothing else");
    let Output::Outside(question) = &first[0] else {
        panic!("{first:?}")
    };
    let arp = compose::read_arp(&question.bytes).unwrap();
    assert!(arp.is_request && arp.target == NEXT_ADDRESS && arp.sender == HOST);
    let reply = compose::arp(
        false,
        Station {
            mac: NEXT,
            address: NEXT_ADDRESS,
        },
        HOST,
    );
    let answers = into(&mut router, reply.clone(), 0);
    assert_eq!(
        answers.len(),
        2,
        "the packet that waited, and the reply for the host too"
    );
    assert_eq!(answers[1], Output::Host(reply));
    (router, guest)
}

pub(super) fn out(router: &mut Router, frame: Frame, now_us: u64) -> Vec<Output> {
    let mut all = Vec::new();
    router.from_inside(frame, now_us, &mut all);
    all
}

pub(super) fn into(router: &mut Router, frame: Frame, now_us: u64) -> Vec<Output> {
    let mut all = Vec::new();
    router.from_outside(frame, now_us, &mut all);
    all
}

fn from_guest(to: Ipv4Addr, from: Ipv4Addr, protocol: IpProtocol, payload: &[u8]) -> Frame {
    ipv4((mac(1), GATEWAY_MAC), (from, to), protocol, payload)
}

pub(super) fn udp_frame(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> Frame {
    from_guest(to.0, from.0, IpProtocol::Udp, &udp(from, to, b"hello"))
}

pub(super) fn from_remote(to: Ipv4Addr, protocol: IpProtocol, payload: &[u8]) -> Frame {
    ipv4((NEXT, HOST.mac), (REMOTE, to), protocol, payload)
}

/// The one packet sent outside: its frame and its ends.
pub(super) fn sent(outputs: Vec<Output>) -> (Frame, Endpoint, Endpoint) {
    let [Output::Outside(frame)] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!(
        (&frame.bytes[..6], &frame.bytes[6..12]),
        (&NEXT.0[..], &HOST.mac.0[..])
    );
    ends(frame.clone())
}

/// The one packet sent inside.
pub(super) fn delivered(outputs: Vec<Output>) -> (Frame, Endpoint, Endpoint) {
    let [Output::Inside(frame)] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!(
        (&frame.bytes[..6], &frame.bytes[6..12]),
        (&mac(1).0[..], &GATEWAY_MAC.0[..])
    );
    ends(frame.clone())
}

fn ends(mut frame: Frame) -> (Frame, Endpoint, Endpoint) {
    assert!(offload::is_intact(&frame));
    let packet = Packet::read(&mut frame).expect("a right header checksum");
    let Content::Ports {
        source,
        destination,
        ..
    } = packet.content
    else {
        panic!("{packet:?}")
    };
    (frame, source, destination)
}

fn at(address: Ipv4Addr, port: u16) -> Endpoint {
    Endpoint { address, port }
}

#[test]
fn tcp_and_udp_go_out_and_answers_come_back() {
    let (mut router, guest) = router(Mode::Translated);
    for (protocol, number) in [(IpProtocol::Tcp, 80), (IpProtocol::Udp, 53)] {
        let make = |from, to| match protocol {
            IpProtocol::Tcp => tcp(from, to, TcpControl::None, b"data"),
            _ => udp(from, to, b"data"),
        };
        let request = make((guest, 1234), (REMOTE, number));
        let (frame, source, destination) = sent(out(
            &mut router,
            from_guest(REMOTE, guest, protocol, &request),
            0,
        ));
        assert_eq!(
            (source.address, destination),
            (HOST.address, at(REMOTE, number))
        );
        assert!(PORTS.contains(&source.port));
        assert_eq!(frame.bytes[22], 63, "a hop less");
        let answer = make((REMOTE, number), (HOST.address, source.port));
        let (_, from, to) = delivered(into(
            &mut router,
            from_remote(HOST.address, protocol, &answer),
            0,
        ));
        assert_eq!((from, to), (at(REMOTE, number), at(guest, 1234)));
        // From another port of the same machine: not let in.
        let stranger = make((REMOTE, number + 1), (HOST.address, source.port));
        let frame = from_remote(HOST.address, protocol, &stranger);
        assert_eq!(into(&mut router, frame.clone(), 0), [Output::Host(frame)]);
    }
}

#[test]
fn checksums_left_to_the_card_stay_so_and_end_right() {
    let (mut router, guest) = router(Mode::Translated);
    let good = from_guest(
        REMOTE,
        guest,
        IpProtocol::Tcp,
        &tcp((guest, 40_000), (REMOTE, 80), TcpControl::None, b"data"),
    );
    let (plain, ..) = sent(out(&mut router, good.clone(), 0));
    let mut left = good;
    offload::leave_to_card(&mut left);
    let (mut translated, source, _) = sent(out(&mut router, left, 0));
    assert_eq!(source.port, 40_000, "its own port, for nobody else has it");
    assert_eq!(
        translated.checksum,
        Some(PartialChecksum {
            start: 34,
            offset: 16
        })
    );
    offload::complete(&mut translated).unwrap();
    assert_eq!(translated.bytes, plain.bytes);
}

#[test]
fn pings_go_both_ways() {
    let (mut router, guest) = router(Mode::Translated);
    let to_gateway = compose::icmp(
        Station {
            mac: mac(1),
            address: guest,
        },
        Station {
            mac: GATEWAY_MAC,
            address: router.segment().gateway(),
        },
        (8, 0),
        [0, 7, 0, 1],
        b"ping",
    );
    let (reply, from, to) = delivered(out(&mut router, to_gateway, 0));
    assert_eq!(
        (from.address, to),
        (router.segment().gateway(), at(guest, 7))
    );
    assert_eq!(&reply.bytes[42..46], b"ping");
    let request = compose::icmp(
        Station {
            mac: mac(1),
            address: guest,
        },
        Station {
            mac: GATEWAY_MAC,
            address: REMOTE,
        },
        (8, 0),
        [0, 7, 0, 1],
        b"ping",
    );
    let (_, source, _) = sent(out(&mut router, request, 0));
    let [high, low] = source.port.to_be_bytes();
    let reply = compose::icmp(
        Station {
            mac: NEXT,
            address: REMOTE,
        },
        HOST,
        (0, 0),
        [high, low, 0, 1],
        b"ping",
    );
    let (_, from, to) = delivered(into(&mut router, reply, 0));
    assert_eq!((from.address, to), (REMOTE, at(guest, 7)));
    // Who pings the host gets the host.
    let request = compose::icmp(
        Station {
            mac: NEXT,
            address: REMOTE,
        },
        HOST,
        (8, 0),
        [0, 7, 0, 1],
        b"ping",
    );
    assert_eq!(
        into(&mut router, request.clone(), 0),
        [Output::Host(request)]
    );
}

#[test]
fn a_forwarded_port_is_open_to_all_and_answers_come_from_it() {
    let (mut router, guest) = router(Mode::Translated);
    router.forward(Protocol::Tcp, 2222, at(guest, 22)).unwrap();
    let syn = tcp((REMOTE, 999), (HOST.address, 2222), TcpControl::Syn, b"");
    let (_, from, to) = delivered(into(
        &mut router,
        from_remote(HOST.address, IpProtocol::Tcp, &syn),
        0,
    ));
    assert_eq!((from, to), (at(REMOTE, 999), at(guest, 22)));
    let answer = tcp((guest, 22), (REMOTE, 999), TcpControl::None, b"SSH");
    let (_, source, _) = sent(out(
        &mut router,
        from_guest(REMOTE, guest, IpProtocol::Tcp, &answer),
        0,
    ));
    assert_eq!(source, at(HOST.address, 2222));
    router.remove_guest(mac(1));
    let frame = from_remote(HOST.address, IpProtocol::Tcp, &syn);
    assert_eq!(into(&mut router, frame.clone(), 0), [Output::Host(frame)]);
}

/// The next dom0 knows no connection: those through forwarded ports go on, whoever sends first.
#[test]
fn a_lost_table_ends_no_connection_through_a_forwarded_port() {
    let (mut router, guest) = router(Mode::Translated);
    let data = tcp((REMOTE, 999), (HOST.address, 2222), TcpControl::None, b"x");
    let mut data = from_remote(HOST.address, IpProtocol::Tcp, &data);
    assert!(!router.loses(&mut data));
    router.hold(true);
    assert!(router.loses(&mut data), "the host would refuse it");
    let syn = tcp((REMOTE, 998), (HOST.address, 2222), TcpControl::Syn, b"");
    assert!(!router.loses(&mut from_remote(HOST.address, IpProtocol::Tcp, &syn)));
    // The host's own connections go on.
    let own = tcp((HOST.address, 2222), (REMOTE, 999), TcpControl::Syn, b"");
    router.host_sends(&mut from_remote(REMOTE, IpProtocol::Tcp, &own));
    assert!(!router.loses(&mut data));
    router.hold(false);
    router.forward(Protocol::Tcp, 2222, at(guest, 22)).unwrap();
    let answer = tcp((guest, 22), (REMOTE, 999), TcpControl::None, b"SSH");
    let answer = from_guest(REMOTE, guest, IpProtocol::Tcp, &answer);
    let (_, source, _) = sent(out(&mut router, answer, 0));
    assert_eq!(source, at(HOST.address, 2222));
    let (_, _, to) = delivered(into(&mut router, data, 0));
    assert_eq!(to, at(guest, 22));
}

/// An ICMP error of `from` to `to` about a packet, of which it quotes header and eight bytes.
fn unreachable(from: Station, to: Station, about: &Frame) -> Frame {
    compose::icmp_error(from, to, (3, 3), &about.bytes[14..], 20)
}

#[test]
fn icmp_errors_reach_whom_they_concern() {
    let (mut router, guest) = router(Mode::Translated);
    let (mut asked, source, _) = sent(out(
        &mut router,
        udp_frame((guest, 1234), (REMOTE, 33434)),
        0,
    ));
    let hop = Station {
        mac: NEXT,
        address: Ipv4Addr::new(198, 51, 100, 1),
    };
    let outputs = into(&mut router, unreachable(hop, HOST, &asked), 0);
    let [Output::Inside(error)] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    let packet = Packet::read(&mut error.clone()).unwrap();
    assert_eq!((packet.source, packet.destination), (hop.address, guest));
    // Reading it again checks the ICMP checksum; the quoted packet is the guest's own.
    let Content::Error {
        source: inner,
        destination,
        quoted,
        ..
    } = packet.content
    else {
        panic!("{packet:?}")
    };
    assert_eq!((inner, destination), (at(guest, 1234), at(REMOTE, 33434)));
    assert_eq!(
        crate::network::checksum::sum(&error.bytes[quoted.ip()..quoted.transport()]),
        0xffff
    );
    // About a packet nobody sent: the host's.
    asked.bytes[36] ^= 1;
    let stray = unreachable(hop, HOST, &asked);
    assert_eq!(into(&mut router, stray.clone(), 0), [Output::Host(stray)]);
    // And the other way: the guest refuses an answer.
    let answer = from_remote(
        HOST.address,
        IpProtocol::Udp,
        &udp((REMOTE, 33434), (HOST.address, source.port), b"x"),
    );
    let (answer, ..) = delivered(into(&mut router, answer, 0));
    let refusal = unreachable(
        Station {
            mac: mac(1),
            address: guest,
        },
        Station {
            mac: GATEWAY_MAC,
            address: REMOTE,
        },
        &answer,
    );
    let outputs = out(&mut router, refusal, 0);
    let [Output::Outside(error)] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    let packet = Packet::read(&mut error.clone()).unwrap();
    let Content::Error {
        source: inner,
        destination,
        ..
    } = packet.content
    else {
        panic!("{packet:?}")
    };
    assert_eq!((packet.source, packet.destination), (HOST.address, REMOTE));
    assert_eq!(
        (inner, destination),
        (at(REMOTE, 33434), at(HOST.address, source.port))
    );
}

#[test]
fn routed_guests_keep_their_address_and_translated_ones_are_out_of_reach() {
    let (mut router, routed) = router(Mode::Routed);
    let (_, source, _) = sent(out(&mut router, udp_frame((routed, 1234), (REMOTE, 7)), 0));
    assert_eq!(source, at(routed, 1234));
    let packet = |to| from_remote(to, IpProtocol::Udp, &udp((REMOTE, 7), (to, 1234), b"x"));
    let (_, _, to) = delivered(into(&mut router, packet(routed), 0));
    assert_eq!(to, at(routed, 1234));
    let hidden = router.add_guest(mac(2), None, Mode::Translated).unwrap();
    assert_eq!(into(&mut router, packet(hidden), 0), []);
    assert_eq!(router.statistics().dropped_refused, 1);
}

#[test]
fn the_host_reaches_guests_and_guests_the_host() {
    let (mut router, guest) = router(Mode::Translated);
    let mut all = Vec::new();
    let packet = udp((HOST.address, 1), (guest, 2), b"x");
    router.from_host(
        ipv4(
            (HOST.mac, NEXT),
            (HOST.address, guest),
            IpProtocol::Udp,
            &packet,
        ),
        0,
        &mut all,
    );
    let (_, from, to) = delivered(all);
    assert_eq!((from, to), (at(HOST.address, 1), at(guest, 2)));
    let outputs = out(&mut router, udp_frame((guest, 2), (HOST.address, 1)), 0);
    assert!(matches!(&outputs[..], [Output::Host(frame)] if frame.bytes[..6] == HOST.mac.0));
}
