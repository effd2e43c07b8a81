//! The table of connections over a dom0 that is built anew.

use super::bench::{mac, tcp};
use super::nat::{HOST, REMOTE, delivered, from_remote, into, out, router, sent};
use crate::frame::Frame;
use crate::network::nat::connections::{
    Connections, Flow, KEPT_BYTES_MAX, KEPT_MAX, PORTS, TCP_OPEN_US, UDP_US,
};
use crate::network::nat::packet::{Endpoint, Protocol};
use crate::network::nat::router::{GATEWAY_MAC, Mode, Output};
use godwit_abi::BLOB_BYTES_MAX;
use proptest::prelude::*;
use smoltcp::wire::{IpProtocol, TcpControl};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::vec::Vec;

const SYN: u8 = 2;
const ACK: u8 = 16;

const _: () = assert!(KEPT_BYTES_MAX as u64 <= BLOB_BYTES_MAX);

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

fn to_web(guest: Ipv4Addr, port: u16, control: TcpControl) -> Frame {
    let segment = tcp((guest, port), (REMOTE, 80), control, b"");
    super::bench::ipv4(
        (mac(1), GATEWAY_MAC),
        (guest, REMOTE),
        IpProtocol::Tcp,
        &segment,
    )
}

/// Two connections, one of which could not keep the guest's own port: the other end sends first.
#[test]
fn connections_to_the_outside_go_on_with_the_next_dom0() {
    let (mut before, guest) = router(Mode::Translated);
    let mut answers = Vec::new();
    for port in [40_000, 1000] {
        let (_, from, _) = sent(out(&mut before, to_web(guest, port, TcpControl::Syn), 0));
        assert_eq!(from.port == port, PORTS.contains(&port));
        let data = tcp(
            (REMOTE, 80),
            (HOST.address, from.port),
            TcpControl::None,
            b"x",
        );
        let data = from_remote(HOST.address, IpProtocol::Tcp, &data);
        delivered(into(&mut before, data.clone(), 0));
        answers.push((port, data));
    }
    let kept = before.table().keep(1_000_000);
    // The guest is attached again by its entry, which has its address.
    for restored in [false, true] {
        let (mut after, again) = router(Mode::Translated);
        assert_eq!(again, guest);
        after.hold(true);
        if restored {
            assert_eq!(after.table().restore(&kept, 5_000_000), 2);
        }
        after.hold(false);
        for (port, data) in &answers {
            let came = into(&mut after, data.clone(), 6_000_000);
            match restored {
                true => assert_eq!(delivered(came).2.port, *port),
                // The host's own stack would end it.
                false => assert_eq!(came, [Output::Host(data.clone())]),
            }
        }
    }
    // A guest that is not there any more leaves nothing, not even its ports.
    let (mut after, guest) = router(Mode::Translated);
    after.remove_guest(mac(1));
    after.add_guest(mac(2), None, Mode::Translated).unwrap();
    let elsewhere = after.add_guest(mac(1), Some(Ipv4Addr::new(10, 99, 0, 77)), Mode::Translated);
    assert_ne!(elsewhere, Ok(guest));
    let mut lonely = Connections::default();
    lonely
        .outward(flow(Protocol::Tcp, 200, 40_001, 80), SYN, 0)
        .unwrap();
    assert_eq!(after.table().restore(&lonely.keep(0), 0), 1);
    after.hold(false);
    assert!(after.table().is_empty());
}

#[test]
fn what_is_over_or_forwarded_is_not_kept_and_time_goes_on() {
    let mut table = Connections::default();
    let (web, dns) = (
        flow(Protocol::Tcp, 2, 1000, 80),
        flow(Protocol::Udp, 2, 1000, 53),
    );
    let server = flow(Protocol::Tcp, 2, 22, 4000);
    table.forward(Protocol::Tcp, 2222, server.inside).unwrap();
    let port = table.outward(web, SYN, 0).unwrap();
    table.inward(Protocol::Tcp, port, web.remote, SYN | ACK, 0);
    table.outward(dns, 0, 0).unwrap();
    table.inward(Protocol::Tcp, 2222, server.remote, SYN, UDP_US + 1);
    let kept = table.keep(UDP_US + 1);
    let mut next = Connections::default();
    assert_eq!(next.restore(&kept, UDP_US + 1), 1, "the open one alone");
    let idle_us = TCP_OPEN_US + 2_000_000;
    assert_eq!(
        next.inward(Protocol::Tcp, port, web.remote, ACK, idle_us),
        None
    );
    // Kept again and again, it does not grow younger.
    let mut last = Connections::default();
    assert_eq!(last.restore(&next.keep(idle_us), idle_us), 0);
}

#[test]
fn no_more_is_kept_than_fits_and_the_latest_first() {
    let mut table = Connections::default();
    for number in 0..KEPT_MAX as u16 + 500 {
        let flow = flow(Protocol::Udp, 2 + (number % 2) as u8, 40_000 + number, 53);
        table.outward(flow, 0, u64::from(number) * 1000).unwrap();
    }
    let now_us = 4_000_000;
    let kept = table.keep(now_us);
    assert_eq!(kept.len(), KEPT_BYTES_MAX);
    let mut next = Connections::default();
    assert_eq!(next.restore(&kept, now_us), KEPT_MAX);
    let has = |number: u16| {
        next.quoted_in(&flow(
            Protocol::Udp,
            2 + (number % 2) as u8,
            40_000 + number,
            53,
        ))
    };
    assert_eq!((has(499), has(500)), (None, Some(40_500)));
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_change_is_told_once_and_packets_alone_are_none() {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut context = Context::from_waker(&waker);
    let mut table = Connections::default();
    assert_eq!(table.poll_changed(&mut context), Poll::Pending);
    let web = flow(Protocol::Tcp, 2, 40_000, 80);
    table.outward(web, SYN, 0).unwrap();
    table.inward(Protocol::Tcp, 40_000, web.remote, SYN | ACK, 0);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert_eq!(table.poll_changed(&mut context), Poll::Ready(()));
    table.keep(0);
    assert_eq!(table.poll_changed(&mut context), Poll::Pending);
    table.outward(web, ACK, 1).unwrap();
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    table.forget(web.inside.address);
    assert_eq!(woken.0.load(Ordering::Relaxed), 2);
}

/// Rows that a mistake may have left: two owners of a port, two ports of an endpoint, anything at all.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let rows = (1usize..60).prop_map(|count| {
        let mut table = Connections::default();
        for number in 0..count as u16 {
            let flow = flow(Protocol::Tcp, 2, 40_000 + number / 2, 80 + number);
            table.outward(flow, SYN, 0).unwrap();
        }
        table.keep(0)
    });
    let bytes = (
        rows,
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40),
    );
    bytes.prop_map(|(mut bytes, changes)| {
        for (at, value) in changes {
            let at = 8 + at.index(bytes.len() - 8);
            bytes[at] = value;
        }
        bytes
    })
}

proptest! {
    #[test]
    fn no_bytes_make_a_table_that_could_not_be(
        bytes in prop_oneof![damaged(), prop::collection::vec(any::<u8>(), 0..200)],
    ) {
        let mut table = Connections::default();
        let taken = table.restore(&bytes, 0);
        prop_assert_eq!(table.len(), taken);
        // All of it holds together: kept and restored once more, all of it fits.
        let kept = table.keep(0);
        let mut again = Connections::default();
        prop_assert_eq!(again.restore(&kept, 0), taken);
        // Forgetting every guest gives every port back.
        again.forget_absent(|_| false);
        prop_assert!(again.is_empty());
        for port in [40_000, 40_001, 40_029] {
            let given = again.outward(flow(Protocol::Tcp, 3, port, 1), SYN, 0);
            prop_assert_eq!(given, Ok(port));
        }
    }
}
