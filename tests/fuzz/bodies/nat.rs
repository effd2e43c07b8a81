//! Frames of any content from guests, the network and the host through the router: what leaves is
//! well-formed, comes from the host's address, and goes inside to nobody but guests.

use godwit_backends::frame::{Frame, PartialChecksum};
use godwit_backends::network::compose::Station;
use godwit_backends::network::headers::{TYPE_IPV4, destination, ethertype, source};
use godwit_backends::network::mac::MacAddress;
use godwit_backends::network::nat::packet::{Endpoint, Packet, Protocol};
use godwit_backends::network::nat::router::{GATEWAY_MAC, Mode, Output, Outside, Router};
use godwit_backends::network::segment::Segment;
use std::net::Ipv4Addr;

const GUEST: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const GUEST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const HOST: Station = Station {
    mac: MacAddress([2, 0, 0, 0, 0, 0xaa]),
    address: Ipv4Addr::new(192, 168, 1, 2),
};
/// The time between two frames: enough for some connections to end.
const STEP_US: u64 = 20_000_000;

fn router() -> Router {
    let mut router = Router::new(Segment::default());
    let outside = Outside {
        host: HOST,
        bits: 24,
        gateway: Some(Ipv4Addr::new(192, 168, 1, 1)),
    };
    router.set_outside(Some(outside), &[]);
    let added = router.add_guest(GUEST, Some(GUEST_ADDRESS), Mode::Translated);
    assert_eq!(added, Ok(GUEST_ADDRESS));
    let inside = Endpoint {
        address: GUEST_ADDRESS,
        port: 22,
    };
    router
        .forward(Protocol::Tcp, 2222, inside)
        .expect("the first");
    router
}

/// Frames one after the other: where it comes from (0 inside, 1 outside, 2 the host, with 4 its
/// checksum is left out), its bytes as a byte, and those. Returns whether any packet was translated.
pub(crate) fn judge(mut input: &[u8]) -> bool {
    let mut router = router();
    let (mut now_us, mut out) = (0, Vec::new());
    while let [kind, length, rest @ ..] = input {
        let (bytes, rest) = rest.split_at(rest.len().min((*length).into()));
        input = rest;
        let partial = PartialChecksum {
            start: 34,
            offset: 16,
        };
        let frame = Frame {
            bytes: bytes.to_vec(),
            checksum: (kind & 4 != 0).then_some(partial),
            ..Frame::default()
        };
        match kind & 3 {
            0 => router.from_inside(frame, now_us, &mut out),
            1 => router.from_outside(frame, now_us, &mut out),
            _ => router.from_host(frame, now_us, &mut out),
        }
        for output in out.drain(..) {
            check(output, kind & 3);
        }
        now_us += STEP_US;
    }
    let counted = router.statistics();
    counted.out + counted.into > 0
}

fn check(output: Output, from: u8) {
    match output {
        Output::Outside(mut frame) if from < 2 => {
            assert_eq!(source(&frame.bytes), Some(HOST.mac));
            if ethertype(&frame.bytes) == Some(TYPE_IPV4) {
                let packet = Packet::read(&mut frame).expect("a right packet");
                assert_eq!(packet.source, HOST.address);
                assert!(packet.hops > 0);
            }
        }
        Output::Inside(mut frame) => {
            assert_eq!(source(&frame.bytes), Some(GATEWAY_MAC));
            if ethertype(&frame.bytes) == Some(TYPE_IPV4) {
                let to = destination(&frame.bytes);
                assert!(to == Some(GUEST) || to == Some(MacAddress::BROADCAST));
                assert!(Packet::read(&mut frame).is_some());
            }
        }
        // The host's own stack looks for itself, and is looked after by nobody.
        Output::Outside(_) | Output::Host(_) => {}
    }
}
