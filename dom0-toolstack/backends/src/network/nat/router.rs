//! Decides where each frame goes: inside, outside, or to the host's own stack.

use super::connections::{Connections, ForwardError};
use super::neighbours::Neighbours;
use super::packet::{
    Content, ECHO_REQUEST, Endpoint, Packet, Protocol, TIME_EXCEEDED, UNREACHABLE,
};
use crate::frame::Frame;
use crate::network::compose::{self, Station};
use crate::network::dhcp::{self, ReserveError, Server};
use crate::network::headers::{self, TYPE_ARP, TYPE_IPV4, TYPE_IPV6};
use crate::network::mac::MacAddress;
use crate::network::segment::Segment;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::Ipv4Addr;

/// The gateway's hardware address on the inside: the same on every host, so that a guest that
/// migrates need not learn another. Locally administered.
pub const GATEWAY_MAC: MacAddress = MacAddress([0x02, 0x47, 0x4f, 0x44, 0x00, 0x01]);
/// Fragmented packets whose later fragments are remembered.
pub const FRAGMENTED_MAX: usize = 256;
pub(super) const FRAGMENT_US: u64 = 15_000_000;

/// ICMP codes: network unreachable, host unreachable; hops ran out.
const NETWORK_UNREACHABLE: (u8, u8) = (UNREACHABLE, 0);
const HOST_UNREACHABLE: (u8, u8) = (UNREACHABLE, 1);
const HOPS_EXCEEDED: (u8, u8) = (TIME_EXCEEDED, 0);

/// The host's place on its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outside {
    /// The host's own addresses.
    pub host: Station,
    /// Bits of the network part of its address.
    pub bits: u8,
    /// Its default gateway.
    pub gateway: Option<Ipv4Addr>,
}

impl Outside {
    fn is_on_link(&self, address: Ipv4Addr) -> bool {
        let difference = u32::from(address) ^ u32::from(self.host.address);
        self.bits == 0 || difference >> (32 - u32::from(self.bits.min(32))) == 0
    }

    fn next_hop(&self, address: Ipv4Addr) -> Option<Ipv4Addr> {
        if self.is_on_link(address) {
            Some(address)
        } else {
            self.gateway
        }
    }
}

/// A frame and where it is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To the guests.
    Inside(Frame),
    /// To the host's network.
    Outside(Frame),
    /// To the host's own stack.
    Host(Frame),
}

/// Counters of the router.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouterStatistics {
    /// Packets from guests sent on.
    pub out: u64,
    /// Packets to guests sent on.
    pub into: u64,
    /// Packets dropped because they are malformed, or of a kind that is not routed.
    pub dropped_malformed: u64,
    /// Packets dropped for want of room or ports.
    pub dropped_full: u64,
    /// Packets from guests dropped because there is no way to where they are to go.
    pub dropped_no_route: u64,
    /// Packets from outside dropped because guests are not to be reached that way.
    pub dropped_refused: u64,
}

/// How a guest is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Its address is translated to the host's.
    Translated,
    /// Its address is known outside: others have a route to it by this host.
    Routed,
}

const SYN: u8 = 0x02;

/// The router.
pub struct Router {
    pub(super) segment: Segment,
    pub(super) server: Server,
    pub(super) outside: Option<Outside>,
    pub(super) routed: BTreeSet<Ipv4Addr>,
    pub(super) connections: Connections,
    neighbours: Neighbours,
    /// Later fragments from outside: (source, protocol's identification) to the guest.
    pub(super) fragments: BTreeMap<(Ipv4Addr, u16), (Ipv4Addr, u64)>,
    pub(super) statistics: RouterStatistics,
    /// While forwards are still to come: TCP ports that the host itself sends from.
    held: Option<BTreeSet<u16>>,
}

impl Router {
    /// Without guests and without a network.
    pub fn new(segment: Segment) -> Self {
        Router {
            segment,
            server: Server::new(segment),
            outside: None,
            routed: BTreeSet::new(),
            connections: Connections::default(),
            neighbours: Neighbours::default(),
            fragments: BTreeMap::new(),
            statistics: RouterStatistics::default(),
            held: None,
        }
    }

    /// Guests of a host that was built anew come back one after the other. Until all are there, segments of connections that the
    /// host knows nothing of are lost rather than refused: its own stack would end connections through forwarded ports.
    /// What was taken back of the table and belongs to no guest then is forgotten.
    pub fn hold(&mut self, is_held: bool) {
        self.held = is_held.then(BTreeSet::new);
        if !is_held {
            let server = &self.server;
            self.connections
                .forget_absent(|address| server.mac_of(address).is_some());
        }
    }

    /// The table of connections, to be kept elsewhere and restored from there: see
    /// [`Connections::poll_changed`], [`Connections::keep`] and [`Connections::restore`].
    pub fn table(&mut self) -> &mut Connections {
        &mut self.connections
    }

    /// The host's own stack sends a frame while segments are lost: those that answer it are not.
    pub(in crate::network) fn host_sends(&mut self, frame: &mut Frame) {
        if let Some(ports) = &mut self.held
            && let Some((source, _, _)) = segment(frame)
        {
            ports.insert(source);
        }
    }

    /// Whether a frame from outside is to be lost now.
    pub(in crate::network) fn loses(&self, frame: &mut Frame) -> bool {
        let Some(ports) = &self.held else {
            return false;
        };
        segment(frame).is_some_and(|(_, to, flags)| flags & SYN == 0 && !ports.contains(&to))
    }

    /// Where the host is on its network, `None` without an address, and the name servers it knows.
    pub fn set_outside(&mut self, outside: Option<Outside>, dns: &[Ipv4Addr]) {
        self.server.set_dns(dns);
        if self.outside != outside {
            self.neighbours.clear();
            self.outside = outside;
        }
    }

    /// Adds a guest: its address, from now on answered to its DHCP client.
    pub fn add_guest(
        &mut self,
        mac: MacAddress,
        wanted: Option<Ipv4Addr>,
        mode: Mode,
    ) -> Result<Ipv4Addr, ReserveError> {
        let address = self.server.reserve(mac, wanted)?;
        if mode == Mode::Routed {
            self.routed.insert(address);
        }
        Ok(address)
    }

    /// Forwards a port of the host to a guest.
    pub fn forward(
        &mut self,
        protocol: Protocol,
        port: u16,
        inside: Endpoint,
    ) -> Result<(), ForwardError> {
        self.connections.forward(protocol, port, inside)
    }

    /// Removes a guest with its connections and forwards.
    pub fn remove_guest(&mut self, mac: MacAddress) {
        if let Some(address) = self.server.release(mac) {
            self.routed.remove(&address);
            self.connections.forget(address);
            self.fragments.retain(|_, to| to.0 != address);
        }
    }

    /// Whether there are no guests: then all frames are the host's.
    pub fn is_idle(&self) -> bool {
        self.server.is_empty()
    }

    /// Guests there are.
    pub fn guests(&self) -> usize {
        self.server.guests()
    }

    /// The segment.
    pub fn segment(&self) -> Segment {
        self.segment
    }

    /// What it has counted.
    pub fn statistics(&self) -> RouterStatistics {
        self.statistics
    }

    /// Connections in the table.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn gateway(&self) -> Station {
        Station {
            mac: GATEWAY_MAC,
            address: self.segment.gateway(),
        }
    }

    /// A frame has come from a guest.
    pub fn from_inside(&mut self, frame: Frame, now_us: u64, out: &mut Vec<Output>) {
        match headers::ethertype(&frame.bytes) {
            Some(TYPE_ARP) => self.answer_arp(&frame, out),
            Some(TYPE_IPV4) => self.packet_from_inside(frame, now_us, out),
            // Guests try; that is not worth a number.
            Some(TYPE_IPV6) => {}
            Some(_) | None => self.statistics.dropped_malformed += 1,
        }
    }

    fn answer_arp(&mut self, frame: &Frame, out: &mut Vec<Output>) {
        let asked = compose::read_arp(&frame.bytes)
            .filter(|arp| arp.is_request && arp.target == self.segment.gateway());
        if let Some(arp) = asked {
            out.push(Output::Inside(compose::arp(
                false,
                self.gateway(),
                arp.sender,
            )));
        }
    }

    fn packet_from_inside(&mut self, mut frame: Frame, now_us: u64, out: &mut Vec<Output>) {
        let from = headers::source(&frame.bytes);
        let (Some(packet), Some(from)) = (Packet::read(&mut frame), from) else {
            self.statistics.dropped_malformed += 1;
            return;
        };
        if self.is_for_dhcp(&packet) {
            let message = &frame.bytes[packet.region.transport() + 8..packet.region.end()];
            if let Some(answer) = self.server.answer(from, message) {
                let to = Station {
                    mac: answer.mac,
                    address: answer.address,
                };
                let ports = (dhcp::SERVER_PORT, dhcp::CLIENT_PORT);
                let frame = compose::udp(self.gateway(), to, ports, &answer.message);
                out.push(Output::Inside(frame));
            }
            return;
        }
        let to = packet.destination;
        if headers::destination(&frame.bytes) != Some(GATEWAY_MAC) {
            // Broadcasts and the like end here.
            return;
        }
        // Only from an address that was given to it; answers would go to another.
        if self.server.mac_of(packet.source) != Some(from) {
            self.statistics.dropped_malformed += 1;
            return;
        }
        let sender = Station {
            mac: from,
            address: packet.source,
        };
        if to == self.segment.gateway() {
            self.answer_echo(&frame, &packet, sender, out);
        } else if self.segment.contains(to) || to.is_multicast() || to.is_broadcast() {
            self.statistics.dropped_no_route += 1;
        } else if packet.hops <= 1 {
            self.refuse(&frame, &packet, sender, HOPS_EXCEEDED, out);
        } else {
            self.send_out(frame, packet, sender, now_us, out);
        }
    }

    fn is_for_dhcp(&self, packet: &Packet) -> bool {
        let is_here =
            packet.destination.is_broadcast() || packet.destination == self.segment.gateway();
        match packet.content {
            Content::Ports {
                protocol: Protocol::Udp,
                destination,
                ..
            } => is_here && destination.port == dhcp::SERVER_PORT,
            Content::Ports { .. } | Content::Error { .. } | Content::Fragment | Content::Other => {
                false
            }
        }
    }

    fn answer_echo(&mut self, frame: &Frame, packet: &Packet, to: Station, out: &mut Vec<Output>) {
        let message = &frame.bytes[packet.region.transport()..packet.region.end()];
        let is_echo = matches!(
            packet.content,
            Content::Ports {
                protocol: Protocol::Echo,
                ..
            }
        );
        if is_echo && !packet.is_first_fragment && message[0] == ECHO_REQUEST {
            let word = [message[4], message[5], message[6], message[7]];
            let reply = compose::icmp(self.gateway(), to, (0, 0), word, &message[8..]);
            out.push(Output::Inside(reply));
        }
    }

    /// Tells a guest why its packet does not go on; never about an ICMP error (RFC 1122, 3.2.2).
    fn refuse(
        &mut self,
        frame: &Frame,
        packet: &Packet,
        to: Station,
        kind: (u8, u8),
        out: &mut Vec<Output>,
    ) {
        self.statistics.dropped_no_route += 1;
        if let Content::Ports { .. } = packet.content {
            let region = packet.region;
            let bytes = &frame.bytes[region.ip()..region.end()];
            let header_bytes = region.transport() - region.ip();
            let error = compose::icmp_error(self.gateway(), to, kind, bytes, header_bytes);
            out.push(Output::Inside(error));
        }
    }

    fn send_out(
        &mut self,
        mut frame: Frame,
        packet: Packet,
        sender: Station,
        now_us: u64,
        out: &mut Vec<Output>,
    ) {
        let Some(outside) = self.outside.clone() else {
            self.refuse(&frame, &packet, sender, NETWORK_UNREACHABLE, out);
            return;
        };
        if packet.destination == outside.host.address {
            frame.bytes[..6].copy_from_slice(&outside.host.mac.0);
            out.push(Output::Host(frame));
            return;
        }
        let Some(next) = outside.next_hop(packet.destination) else {
            self.refuse(&frame, &packet, sender, HOST_UNREACHABLE, out);
            return;
        };
        let is_routed = self.routed.contains(&packet.source);
        if !is_routed && !self.translate_out(&mut frame, &packet, outside.host.address, now_us) {
            return;
        }
        packet.count_hop(&mut frame);
        frame.bytes[6..12].copy_from_slice(&outside.host.mac.0);
        self.statistics.out += 1;
        let next_hop = self.neighbours.send(next, frame, now_us);
        if next_hop.ask {
            let to = Station {
                mac: MacAddress::BROADCAST,
                address: next,
            };
            out.push(Output::Outside(compose::arp(true, outside.host, to)));
        }
        if let Some((mac, frame)) = next_hop.send {
            out.push(Output::Outside(addressed(frame, mac)));
        }
    }

    /// A frame has come from the host's network.
    pub fn from_outside(&mut self, mut frame: Frame, now_us: u64, out: &mut Vec<Output>) {
        let kind = headers::ethertype(&frame.bytes);
        if kind == Some(TYPE_ARP) {
            if let Some(arp) = compose::read_arp(&frame.bytes) {
                let waiting = self
                    .neighbours
                    .learn(arp.sender.address, arp.sender.mac, now_us);
                let waiting = waiting
                    .into_iter()
                    .map(|frame| addressed(frame, arp.sender.mac));
                out.extend(waiting.map(Output::Outside));
            }
            out.push(Output::Host(frame));
            return;
        }
        let outside = self.outside.clone().filter(|outside| {
            kind == Some(TYPE_IPV4) && headers::destination(&frame.bytes) == Some(outside.host.mac)
        });
        let (Some(outside), Some(packet)) = (outside, Packet::read(&mut frame)) else {
            out.push(Output::Host(frame));
            return;
        };
        let to = packet.destination;
        let inside = if to == outside.host.address {
            self.translate_in(&mut frame, &packet, now_us)
        } else if self.segment.contains(to) {
            let may = self.routed.contains(&to) && !self.segment.contains(packet.source);
            if !may {
                self.statistics.dropped_refused += 1;
                return;
            }
            Some(to)
        } else {
            None
        };
        match inside.and_then(|inside| self.server.mac_of(inside)) {
            Some(_) if packet.hops <= 1 => self.statistics.dropped_refused += 1,
            Some(mac) => {
                packet.count_hop(&mut frame);
                self.send_in(frame, mac, out);
            }
            None => out.push(Output::Host(frame)),
        }
    }

    /// The host's own stack sends a frame.
    pub fn from_host(&mut self, mut frame: Frame, now_us: u64, out: &mut Vec<Output>) {
        if headers::ethertype(&frame.bytes) == Some(TYPE_IPV4)
            && let Some(packet) = Packet::read(&mut frame)
        {
            if let Some(mac) = self.server.mac_of(packet.destination) {
                self.send_in(frame, mac, out);
                return;
            }
            if let Content::Ports {
                protocol, source, ..
            } = packet.content
            {
                self.connections.host_uses(protocol, source.port, now_us);
            }
        }
        out.push(Output::Outside(frame));
    }

    fn send_in(&mut self, mut frame: Frame, mac: MacAddress, out: &mut Vec<Output>) {
        frame.bytes[6..12].copy_from_slice(&GATEWAY_MAC.0);
        self.statistics.into += 1;
        out.push(Output::Inside(addressed(frame, mac)));
    }
}

fn addressed(mut frame: Frame, to: MacAddress) -> Frame {
    frame.bytes[..6].copy_from_slice(&to.0);
    frame
}

/// Ports and flags of a TCP segment. `None`: it is none.
fn segment(frame: &mut Frame) -> Option<(u16, u16, u8)> {
    if headers::ethertype(&frame.bytes) != Some(TYPE_IPV4) {
        return None;
    }
    match Packet::read(frame)?.content {
        Content::Ports {
            protocol: Protocol::Tcp,
            source,
            destination,
            tcp_flags,
        } => Some((source.port, destination.port, tcp_flags)),
        Content::Ports { .. } | Content::Error { .. } | Content::Fragment | Content::Other => None,
    }
}
