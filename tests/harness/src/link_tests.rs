//! The link over real sockets: two stations ping each other through it.

use super::*;
use crate::peer::Peer;

const A: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const C: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);
const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(300);

fn pair(kind: PortKind) -> (Link, Peer, Peer) {
    let link = Link::start(&[PortKind::Prompt, kind], 1).unwrap();
    let a = Peer::start(link.port(0), A).unwrap();
    let b = Peer::start(link.port(1), B).unwrap();
    (link, a, b)
}

#[test]
fn stations_ping_both_ways_and_the_counters_agree() {
    let (link, a, b) = pair(PortKind::Polled);
    for _ in 0..20 {
        a.ping(B, LONG).unwrap();
        b.ping(A, LONG).unwrap();
    }
    let report = link.report();
    for (this, other) in [(0, 1), (1, 0)] {
        // 20 requests, 20 answers, and ARP.
        assert!(report[this].sent_frames >= 41);
        assert_eq!(
            report[this].sent_frames,
            report[other].towards.delivered_frames
        );
    }
}

#[test]
fn delay_is_felt_once_in_each_direction() {
    let (link, a, _b) = pair(PortKind::Prompt);
    a.ping(B, LONG).unwrap();
    link.configure(|settings| settings.delay = Duration::from_millis(40));
    let round_trip = a.ping(B, LONG).unwrap();
    assert!(round_trip >= Duration::from_millis(80), "{round_trip:?}");
    link.configure_towards(1, |settings| settings.delay = Duration::ZERO)
        .unwrap();
    let round_trip = a.ping(B, LONG).unwrap();
    assert!(round_trip >= Duration::from_millis(40), "{round_trip:?}");
    assert!(link.configure_towards(2, |_| ()).is_err());
}

#[test]
fn a_rate_stretches_a_ping() {
    let (link, a, _b) = pair(PortKind::Prompt);
    a.ping(B, LONG).unwrap();
    // 98 octets of ping and 24 of wire at 16 kbit/s: 61 ms each way.
    link.configure(|settings| settings.rate_bps = Some(16_000));
    let round_trip = a.ping(B, LONG).unwrap();
    assert!(round_trip >= Duration::from_millis(122), "{round_trip:?}");
}

#[test]
fn a_cut_link_carries_nothing_until_restored() {
    let (link, a, _b) = pair(PortKind::Prompt);
    a.ping(B, LONG).unwrap();
    link.cut();
    a.ping(B, SHORT).unwrap_err();
    assert!(link.report()[1].towards.cut_frames >= 1);
    link.restore();
    a.ping(B, LONG).unwrap();
}

#[test]
fn a_third_port_sees_broadcasts_but_not_what_is_for_others() {
    let link = Link::start(&[PortKind::Prompt; 3], 1).unwrap();
    let a = Peer::start(link.port(0), A).unwrap();
    let _b = Peer::start(link.port(1), B).unwrap();
    let _c = Peer::start(link.port(2), C).unwrap();
    a.ping(B, LONG).unwrap();
    let flooded = link.report()[2].towards.offered_frames;
    assert!(flooded >= 1, "the ARP request is a broadcast");
    for _ in 0..10 {
        a.ping(B, LONG).unwrap();
    }
    assert_eq!(link.report()[2].towards.offered_frames, flooded);
}

#[test]
fn a_polled_port_is_not_sent_more_than_it_fetches() {
    let link = Link::start(&[PortKind::Prompt, PortKind::Polled], 1).unwrap();
    let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, link.port(0).host_udp)).unwrap();
    let poller = UdpSocket::bind((Ipv4Addr::LOCALHOST, link.port(1).host_udp)).unwrap();
    poller.set_read_timeout(Some(LONG)).unwrap();
    let mut frame = [0xff; 1514];
    frame[6..12].copy_from_slice(&[2; 6]);
    // More than a receive buffer of the kernel holds, but less than the link's own queue.
    const FRAMES: u16 = 1_000;
    for number in 0..FRAMES {
        frame[100..102].copy_from_slice(&number.to_be_bytes());
        sender
            .send_to(&frame, (Ipv4Addr::LOCALHOST, link.port(0).link_udp))
            .unwrap();
        std::thread::sleep(Duration::from_micros(50));
    }
    std::thread::sleep(Duration::from_millis(100));
    for number in 0..FRAMES {
        let mut got = [0; 2048];
        poller.recv(&mut got).unwrap();
        assert_eq!(got[100..102], number.to_be_bytes(), "frames are missing");
    }
}

#[test]
fn a_capture_holds_every_frame() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("link.pcap");
    let (link, a, _b) = pair(PortKind::Prompt);
    link.capture(Some(&file)).unwrap();
    a.ping(B, LONG).unwrap();
    link.capture(None).unwrap();
    // Header, ARP request and reply of 60 octets, echo request and reply of 98.
    assert_eq!(
        std::fs::metadata(&file).unwrap().len(),
        24 + 4 * 16 + 2 * 60 + 2 * 98
    );
}

#[test]
fn the_kernels_table_is_read_right() {
    let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n \
                 511: 0100007F:4E20 0100007F:4E21 01 00000000:00000A00 00:00000000 00000000\n";
    assert_eq!(backlog_bytes(table, 0x4e20), Some(0xa00));
    assert_eq!(backlog_bytes(table, 0x4e21), None);
}

#[test]
fn a_cable_is_pulled_at_the_frame_that_is_waited_for() {
    let link = Link::start(&[PortKind::Prompt; 3], 1).unwrap();
    let a = Peer::start(link.port(0), A).unwrap();
    let b = Peer::start(link.port(1), B).unwrap();
    let _c = Peer::start(link.port(2), C).unwrap();
    a.ping(B, LONG).unwrap();
    a.ping(C, LONG).unwrap();
    // Ping by ping, the last octet of the data grows.
    link.unplug_at(1, |frame| frame.ends_with(&[4; 8]));
    for _ in 2..4 {
        a.ping(B, LONG).unwrap();
    }
    assert!(!link.is_unplugged(1));
    assert!(a.ping(B, SHORT).is_err());
    assert!(link.is_unplugged(1));
    assert!(b.ping(A, SHORT).is_err());
    a.ping(C, LONG).unwrap();
    link.plug(1);
    b.ping(A, LONG).unwrap();
}
