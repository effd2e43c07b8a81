//! Changes packets between a guest's address and the host's.

use super::connections::{Flow, Refused};
use super::packet::{Content, End, Endpoint, Packet, Protocol};
use super::router::{FRAGMENT_US, FRAGMENTED_MAX, Router};
use crate::frame::Frame;
use core::net::Ipv4Addr;

impl Router {
    /// Makes a guest's packet one of the host's. `false`: dropped and counted.
    pub(super) fn translate_out(
        &mut self,
        frame: &mut Frame,
        packet: &Packet,
        host: Ipv4Addr,
        now_us: u64,
    ) -> bool {
        let is_partial = frame.checksum.is_some();
        let bytes = &mut frame.bytes[..];
        match packet.content {
            // The answer to a request from outside, which is never passed in.
            Content::Ports {
                protocol: Protocol::Echo,
                destination,
                ..
            } if destination.port != 0 => {}
            Content::Ports {
                protocol,
                source,
                destination,
                tcp_flags,
            } => {
                let flow = Flow {
                    protocol,
                    inside: source,
                    remote: destination,
                };
                match self.connections.outward(flow, tcp_flags, now_us) {
                    Ok(port) => {
                        packet
                            .region
                            .set(bytes, End::Source, host, Some(port), is_partial);
                        return true;
                    }
                    Err(Refused::Full | Refused::NoPort) => {
                        self.statistics.dropped_full += 1;
                        return false;
                    }
                }
            }
            Content::Error {
                protocol,
                source,
                destination,
                quoted,
            } => {
                let flow = Flow {
                    protocol,
                    inside: destination,
                    remote: source,
                };
                if let Some(port) = self.connections.quoted_in(&flow) {
                    quoted.set(bytes, End::Destination, host, Some(port), false);
                    packet.sum_icmp(frame);
                    packet
                        .region
                        .set(&mut frame.bytes, End::Source, host, None, false);
                    return true;
                }
            }
            Content::Fragment => {
                packet.region.set(bytes, End::Source, host, None, false);
                return true;
            }
            Content::Other => {}
        }
        self.statistics.dropped_malformed += 1;
        false
    }

    /// Makes a packet to the host one to a guest, and gives that guest's address. `None`: it is the
    /// host's, and unchanged.
    pub(super) fn translate_in(
        &mut self,
        frame: &mut Frame,
        packet: &Packet,
        now_us: u64,
    ) -> Option<Ipv4Addr> {
        let is_partial = frame.checksum.is_some();
        match packet.content {
            Content::Ports {
                protocol,
                source,
                destination,
                tcp_flags,
            } => {
                // For an echo request from outside the port is 0, which nothing is mapped to.
                let port = destination.port;
                let inside = self
                    .connections
                    .inward(protocol, port, source, tcp_flags, now_us)?;
                self.note_fragments(packet, inside, now_us);
                packet.region.set(
                    &mut frame.bytes,
                    End::Destination,
                    inside.address,
                    Some(inside.port),
                    is_partial,
                );
                Some(inside.address)
            }
            Content::Error {
                protocol,
                source,
                destination,
                quoted,
            } => {
                let host = self.outside.as_ref()?.host.address;
                if source.address != host {
                    return None;
                }
                let inside = self
                    .connections
                    .quoted_out(protocol, source.port, destination)?;
                let bytes = &mut frame.bytes[..];
                quoted.set(bytes, End::Source, inside.address, Some(inside.port), false);
                packet.sum_icmp(frame);
                let bytes = &mut frame.bytes[..];
                packet
                    .region
                    .set(bytes, End::Destination, inside.address, None, false);
                Some(inside.address)
            }
            Content::Fragment => {
                let (inside, until_us) = *self.fragments.get(&(packet.source, packet.ident))?;
                if until_us < now_us {
                    return None;
                }
                packet
                    .region
                    .set(&mut frame.bytes, End::Destination, inside, None, false);
                Some(inside)
            }
            Content::Other => None,
        }
    }

    /// Remembers whom the later fragments of a packet are for.
    fn note_fragments(&mut self, packet: &Packet, inside: Endpoint, now_us: u64) {
        if !packet.is_first_fragment {
            return;
        }
        if self.fragments.len() >= FRAGMENTED_MAX {
            self.fragments.retain(|_, entry| entry.1 >= now_us);
        }
        if self.fragments.len() < FRAGMENTED_MAX {
            let entry = (inside.address, now_us.saturating_add(FRAGMENT_US));
            self.fragments.insert((packet.source, packet.ident), entry);
        }
    }
}
