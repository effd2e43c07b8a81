//! A clock set by hand, frames and ports for the tests.

use crate::frame::{Frame, FramePort};
use crate::network::Clock;
use crate::network::bridge::PortOptions;
use crate::network::mac::MacAddress;
use crate::network::offload::Takes;
use crate::network::policy::{Limits, Sources};
use alloc::rc::Rc;
use core::cell::Cell;
use core::task::{Context, Poll, Waker};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr,
    TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr,
};
use std::net::Ipv4Addr;
use std::vec;
use std::vec::Vec;

#[derive(Default)]
pub(super) struct TestClock(pub(super) Cell<u64>);

impl Clock for TestClock {
    fn now_us(&self) -> u64 {
        self.0.get()
    }
}

pub(super) fn clock() -> Rc<TestClock> {
    Rc::new(TestClock::default())
}

pub(super) fn mac(index: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, index])
}

/// A port with the hardware address `mac(index)`, or with any.
pub(super) fn options(index: Option<u8>, takes: Takes) -> PortOptions {
    PortOptions {
        is_uplink: index.is_none(),
        sources: index.map_or(Sources::Any, |index| Sources::Mac(mac(index))),
        limits: Limits::default(),
        takes,
        is_trusted: true,
    }
}

pub(super) fn receive(port: &dyn FramePort) -> Option<Frame> {
    match port.poll_receive(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(frame) => Some(frame),
        Poll::Pending => None,
    }
}

pub(super) fn receive_all(port: &dyn FramePort) -> Vec<Frame> {
    core::iter::from_fn(|| receive(port)).collect()
}

pub(super) fn is_ready(port: &dyn FramePort) -> bool {
    port.poll_ready(&mut Context::from_waker(Waker::noop()))
        .is_ready()
}

/// A frame without IP, whose payload is `tag`.
pub(super) fn plain(from: MacAddress, to: MacAddress, tag: u32) -> Frame {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&to.0);
    bytes.extend_from_slice(&from.0);
    bytes.extend_from_slice(&[0x88, 0xb5]);
    bytes.extend_from_slice(&tag.to_be_bytes());
    bytes.resize(60, 0);
    Frame {
        bytes,
        ..Frame::default()
    }
}

/// An IPv4 frame made by smoltcp, with right checksums.
pub(super) fn ipv4(
    macs: (MacAddress, MacAddress),
    addresses: (Ipv4Addr, Ipv4Addr),
    protocol: IpProtocol,
    payload: &[u8],
) -> Frame {
    let repr = Ipv4Repr {
        src_addr: addresses.0,
        dst_addr: addresses.1,
        next_header: protocol,
        payload_len: payload.len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; 14 + repr.buffer_len() + payload.len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    frame.set_src_addr(EthernetAddress(macs.0.0));
    frame.set_dst_addr(EthernetAddress(macs.1.0));
    frame.set_ethertype(EthernetProtocol::Ipv4);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    repr.emit(&mut packet, &ChecksumCapabilities::default());
    packet.payload_mut().copy_from_slice(payload);
    Frame {
        bytes,
        ..Frame::default()
    }
}

pub(super) fn udp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let repr = UdpRepr {
        src_port: from.1,
        dst_port: to.1,
    };
    let mut bytes = vec![0; 8 + payload.len()];
    repr.emit(
        &mut UdpPacket::new_unchecked(&mut bytes[..]),
        &IpAddress::Ipv4(from.0),
        &IpAddress::Ipv4(to.0),
        payload.len(),
        |bytes| bytes.copy_from_slice(payload),
        &ChecksumCapabilities::default(),
    );
    bytes
}

pub(super) fn tcp(
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
    control: TcpControl,
    payload: &[u8],
) -> Vec<u8> {
    let repr = TcpRepr {
        src_port: from.1,
        dst_port: to.1,
        control,
        seq_number: TcpSeqNumber(1000),
        ack_number: (control != TcpControl::Syn).then_some(TcpSeqNumber(7)),
        window_len: 1000,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload,
    };
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(
        &mut TcpPacket::new_unchecked(&mut bytes[..]),
        &IpAddress::Ipv4(from.0),
        &IpAddress::Ipv4(to.0),
        &ChecksumCapabilities::default(),
    );
    bytes
}
