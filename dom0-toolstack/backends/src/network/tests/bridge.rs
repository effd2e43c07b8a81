//! The bridge against a model, its limits, its policies.

use super::bench::{clock, is_ready, mac, options, plain, receive, receive_all};
use crate::frame::{Frame, FramePort};
use crate::network::Clock;
use crate::network::announce;
use crate::network::bridge::{Bridge, BridgePort, PlugError, UPLINK_SHARE_BYTES};
use crate::network::bucket::Rate;
use crate::network::mac::MacAddress;
use crate::network::offload::Takes;
use crate::network::policy::Sources;
use crate::network::table::AGE_US;
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::vec::Vec;

#[derive(Clone, Debug)]
enum Step {
    /// Port, source and destination address by number (255: broadcast).
    Send(usize, u8, u8),
    Receive(usize),
    Wait(u64),
    Replug(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let station = prop_oneof![0u8..8, Just(255u8)];
    prop_oneof![
        6 => (0usize..5, 0u8..8, station).prop_map(|(port, from, to)| Step::Send(port, from, to)),
        3 => (0usize..5).prop_map(Step::Receive),
        1 => (0..2 * AGE_US).prop_map(Step::Wait),
        1 => (1usize..5).prop_map(Step::Replug),
    ]
}

fn address(index: u8) -> MacAddress {
    if index == 255 {
        MacAddress::BROADCAST
    } else {
        mac(index)
    }
}

/// What the bridge should do, with lists for everything. Port 0 is the uplink, port 4 may spoof,
/// ports 1 to 3 have the station of their number.
#[derive(Default)]
struct Model {
    learnt: BTreeMap<u8, (usize, u64)>,
    /// What waits in front of a port, by the port it came from and how often that was plugged in.
    queues: [BTreeMap<(usize, u32), VecDeque<u32>>; 5],
    plugged: [u32; 5],
    now: u64,
}

impl Model {
    fn send(&mut self, port: usize, from: u8, to: u8, tag: u32) {
        let owner = (1..=3).contains(&from).then_some(usize::from(from));
        let may = match port {
            0 | 4 => owner.is_none(),
            port => owner == Some(port),
        };
        if !may {
            return;
        }
        if owner.is_none() {
            self.learnt.insert(from, (port, self.now));
        }
        let known = match to {
            1..=3 => Some(usize::from(to)),
            to => self
                .learnt
                .get(&to)
                .filter(|known| self.now - known.1 <= AGE_US)
                .map(|known| known.0),
        };
        let all: Vec<usize> = match known {
            Some(one) => [one].into(),
            None if to == 255 => (0..5).collect(),
            None => [0, 4].into(),
        };
        for to in all {
            if to != port {
                let from = (port, self.plugged[port]);
                self.queues[to].entry(from).or_default().push_back(tag);
            }
        }
    }

    /// Whether `got` is the oldest of any sender, or nothing is there for nothing.
    fn receive(&mut self, port: usize, got: Option<u32>) -> bool {
        let queues = &mut self.queues[port];
        match got {
            None => queues.values().all(VecDeque::is_empty),
            Some(tag) => queues
                .values_mut()
                .find(|queue| queue.front() == Some(&tag))
                .and_then(VecDeque::pop_front)
                .is_some(),
        }
    }
}

fn plug(bridge: &Bridge, port: usize) -> BridgePort {
    let fixed = (1..=3).contains(&port).then_some(port as u8);
    let mut options = options(fixed, Takes::ALL);
    options.is_uplink = port == 0;
    bridge.plug(options).expect("there is room")
}

proptest! {
    #[test]
    fn frames_go_where_the_model_says(steps in proptest::collection::vec(step(), 1..300)) {
        let clock = clock();
        let bridge = Bridge::new(clock.clone());
        let mut ports: Vec<_> = (0..5).map(|port| plug(&bridge, port)).collect();
        let mut model = Model::default();
        for (tag, step) in steps.into_iter().enumerate() {
            let tag = tag as u32;
            match step {
                Step::Send(port, from, to) => {
                    ports[port].send(plain(mac(from), address(to), tag));
                    model.send(port, from, to, tag);
                }
                Step::Receive(port) => {
                    let got = receive(&ports[port]);
                    let got = got.map(|frame| u32::from_be_bytes(frame.bytes[14..18].try_into().unwrap()));
                    prop_assert!(model.receive(port, got), "{:?}", got);
                }
                Step::Wait(us) => {
                    model.now += us;
                    clock.0.set(model.now);
                }
                Step::Replug(port) => {
                    ports[port].unplug();
                    ports[port] = plug(&bridge, port);
                    model.queues[port].clear();
                    model.plugged[port] += 1;
                    model.learnt.retain(|_, known| known.0 != port);
                }
            }
        }
        for (port, queue) in ports.iter().zip(&model.queues) {
            let count = queue.values().map(VecDeque::len).sum::<usize>();
            prop_assert_eq!(receive_all(port).len(), count);
        }
    }
}

#[test]
fn spoofed_frames_are_dropped_and_counted_unless_allowed() {
    let bridge = Bridge::new(clock());
    let uplink = bridge.plug(options(None, Takes::NOTHING)).unwrap();
    let guest = bridge.plug(options(Some(1), Takes::ALL)).unwrap();
    assert!(!guest.send(plain(mac(2), MacAddress::BROADCAST, 0)));
    assert!(!guest.send(plain(MacAddress::BROADCAST, mac(2), 0)));
    assert!(!guest.send(Frame::default()));
    // Nor may the network claim to be the guest.
    assert!(!uplink.send(plain(mac(1), MacAddress::BROADCAST, 0)));
    assert_eq!(
        (
            guest.statistics().tx_dropped_spoofed,
            guest.statistics().tx_dropped_malformed
        ),
        (1, 2)
    );
    assert_eq!(uplink.statistics().tx_dropped_spoofed, 1);
    assert_eq!(
        bridge.plug(options(Some(1), Takes::ALL)).err(),
        Some(PlugError::MacInUse(mac(1)))
    );
    guest.set_sources(Sources::Any).unwrap();
    assert!(guest.send(plain(mac(2), MacAddress::BROADCAST, 0)));
    assert!(receive(&uplink).is_some());
}

#[test]
fn a_pinned_port_has_only_its_ip_addresses() {
    let bridge = Bridge::new(clock());
    let guest = bridge.plug(options(Some(1), Takes::ALL)).unwrap();
    let [own, other] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
    guest
        .set_sources(Sources::Pinned(mac(1), [own].into()))
        .unwrap();
    let arp = |address| announce::frames(mac(1), &[address]).remove(1);
    assert!(guest.send(arp(own)));
    assert!(!guest.send(arp(other)));
    let mut lie = arp(own);
    lie.bytes[22] ^= 1;
    assert!(!guest.send(lie));
    let packet = |from, port| {
        let payload = super::bench::udp((from, 68), (other, port), b"x");
        super::bench::ipv4(
            (mac(1), mac(2)),
            (from, other),
            smoltcp::wire::IpProtocol::Udp,
            &payload,
        )
    };
    assert!(guest.send(packet(own, 9)));
    assert!(!guest.send(packet(other, 9)));
    assert!(guest.send(packet(Ipv4Addr::UNSPECIFIED, 67)));
    assert!(!guest.send(packet(Ipv4Addr::UNSPECIFIED, 9)));
    // Neither IPv6 nor a tag is a way around.
    assert!(!guest.send(plain(mac(1), mac(2), 0)));
}

#[test]
fn a_rate_limit_delays_keeps_the_order_and_drops_what_is_too_much() {
    let clock = clock();
    let bridge = Bridge::new(clock.clone());
    let uplink = bridge.plug(options(None, Takes::ALL)).unwrap();
    let mut limited = options(Some(1), Takes::ALL);
    let rate = Rate {
        bytes_per_second: 60_000,
        burst_bytes: 600,
    };
    limited.limits.rate = Some(rate);
    let guest = bridge.plug(limited).unwrap();
    for tag in 0..100 {
        assert!(guest.send(plain(mac(1), mac(9), tag)));
    }
    assert!(!is_ready(&guest));
    let mut got = receive_all(&uplink);
    assert_eq!(got.len(), 10);
    // A frame has 60 bytes: a millisecond each.
    while let Some(due) = bridge.release() {
        assert!(due > clock.now_us() && due <= clock.now_us() + 1000);
        clock.0.set(due);
        got.extend(receive_all(&uplink));
    }
    got.extend(receive_all(&uplink));
    assert!(
        is_ready(&guest) && (89_000..=90_001).contains(&clock.now_us()),
        "{}",
        clock.now_us()
    );
    let tags: Vec<_> = got.iter().map(|frame| frame.bytes[17]).collect();
    assert_eq!(tags, (0..100).collect::<Vec<u8>>());
    while guest.send(plain(mac(1), mac(9), 0)) {}
    assert_eq!(guest.statistics().tx_dropped_rate, 1);
}

#[test]
fn a_flood_to_the_card_leaves_others_their_share_and_is_asked_to_wait() {
    let bridge = Bridge::new(clock());
    let uplink = bridge.plug(options(None, Takes::ALL)).unwrap();
    let ports: Vec<_> = (1..=2)
        .map(|index| bridge.plug(options(Some(index), Takes::ALL)).unwrap())
        .collect();
    let big = |from: u8| {
        let mut frame = plain(mac(from), mac(9), 0);
        frame.bytes.resize(1514, 0);
        frame
    };
    let mut polite = 0;
    while is_ready(&ports[0]) {
        assert!(ports[0].send(big(1)));
        polite += 1514;
    }
    assert!(polite < UPLINK_SHARE_BYTES && is_ready(&ports[1]));
    while ports[0].send(big(1)) {}
    for _ in 0..100 {
        assert!(ports[1].send(big(2)));
    }
    assert!(ports[0].statistics().tx_dropped_full >= 100);
    assert_eq!(ports[1].statistics().tx_dropped_full, 0);
    // Half of what leaves first is the other's.
    let first: Vec<_> = (0..200).filter_map(|_| receive(&uplink)).collect();
    let others = first.iter().filter(|frame| frame.bytes[11] == 2).count();
    assert!((90..=100).contains(&others), "{others}");
    uplink.discard();
    assert!(is_ready(&ports[0]) && receive(&uplink).is_none());
}
