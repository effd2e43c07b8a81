//! The table as bytes, for whoever keeps them while dom0 is built anew: connections that guests opened.
//! Those through forwarded ports make themselves known again with their next packet.
//!
//! ```text
//! "GWNAT" version(u8) count(u16), then for each connection 20 bytes, numbers big endian:
//! protocol(u8) stage(u8) what was seen(u8: packets out, in, FIN out, in) 0
//! port of the host(u16), port of the guest(u16), of the other(u16)
//! address of the guest(4), of the other(4), seconds since the last packet(u16)
//! ```
//!
//! Whoever wrote them may have died of a mistake of its own: [`Connections::restore`] believes no byte,
//! and takes only what could have come about.

use super::{Connection, Connections, Flow, Mapping, PORTS, Stage};
use crate::network::nat::packet::{Endpoint, Protocol};
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::task::{Context, Poll};

const MAGIC: [u8; 6] = *b"GWNAT\x01";
const HEAD_BYTES: usize = MAGIC.len() + 2;
const ROW_BYTES: usize = 20;
/// Connections that are kept at most: those that had a packet last.
pub const KEPT_MAX: usize = 3000;
/// Bytes of a kept table at most.
pub const KEPT_BYTES_MAX: usize = HEAD_BYTES + KEPT_MAX * ROW_BYTES;
const SECOND_US: u64 = 1_000_000;

impl Connections {
    /// Notes that what [`Connections::keep`] gives is another now.
    pub(super) fn note_change(&mut self) {
        self.is_changed = true;
        if let Some(watcher) = self.watcher.take() {
            watcher.wake();
        }
    }

    /// Ready once something has changed that is worth keeping, since [`Connections::keep`]. One watches.
    pub fn poll_changed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.is_changed {
            return Poll::Ready(());
        }
        self.watcher = Some(context.waker().clone());
        Poll::Pending
    }

    /// The table as bytes, at most [`KEPT_BYTES_MAX`].
    pub fn keep(&mut self, now_us: u64) -> Vec<u8> {
        self.is_changed = false;
        let lasting = |(flow, known): &(&Flow, &Connection)| {
            PORTS.contains(&known.external) && !known.is_over(flow.protocol, now_us)
        };
        let mut rows: Vec<_> = self.connections.iter().filter(lasting).collect();
        rows.sort_by_key(|(_, known)| core::cmp::Reverse(known.seen_us));
        rows.truncate(KEPT_MAX);
        let mut out = Vec::with_capacity(HEAD_BYTES + rows.len() * ROW_BYTES);
        out.extend(MAGIC);
        out.extend((rows.len() as u16).to_be_bytes());
        for (flow, known) in rows {
            out.extend(row(flow, known, now_us));
        }
        out
    }

    /// Takes in what [`Connections::keep`] gave, into a table without connections. Returns how many were taken;
    /// rows that make no sense, or not with those before them, are passed over.
    pub fn restore(&mut self, bytes: &[u8], now_us: u64) -> usize {
        let Some((head, rows)) = bytes.split_at_checked(HEAD_BYTES) else {
            return 0;
        };
        if head[..MAGIC.len()] != MAGIC {
            return 0;
        }
        let count = u16::from_be_bytes([head[6], head[7]]).into();
        let (rows, _) = rows.as_chunks::<ROW_BYTES>();
        let rows = rows.iter().take(KEPT_MAX.min(count));
        let read = rows.filter_map(|bytes| read_row(bytes, now_us));
        read.filter(|(flow, known)| self.take_back(*flow, *known))
            .count()
    }

    fn take_back(&mut self, flow: Flow, known: Connection) -> bool {
        let port = (flow.protocol, known.external);
        let owner = self.externals.get(&port);
        let mapping = self.mappings.get(&(flow.protocol, flow.inside));
        let fits = owner.is_none_or(|owner| *owner == flow.inside)
            && mapping.is_none_or(|mapping| mapping.external == known.external)
            && self.has_room(&flow)
            && !self.connections.contains_key(&flow);
        if fits {
            let mapping = Mapping {
                external: known.external,
                connections: 0,
            };
            let key = (flow.protocol, flow.inside);
            self.mappings.entry(key).or_insert(mapping).connections += 1;
            self.externals.insert(port, flow.inside);
            self.insert(flow, known);
        }
        fits
    }

    /// Forgets the connections of guests that are not there.
    pub fn forget_absent(&mut self, is_there: impl Fn(Ipv4Addr) -> bool) {
        self.remove(|flow, _| !is_there(flow.inside.address));
    }
}

fn row(flow: &Flow, known: &Connection, now_us: u64) -> [u8; ROW_BYTES] {
    let [packets_out, packets_in] = known.packets;
    let [fin_out, fin_in] = known.fins;
    let seen = [packets_out, packets_in, fin_out, fin_in];
    let seen = (0..).zip(seen).map(|(bit, is)| u8::from(is) << bit).sum();
    let idle_s = now_us.saturating_sub(known.seen_us) / SECOND_US;
    let idle_s = u16::try_from(idle_s).unwrap_or(u16::MAX);
    let mut row = [0; ROW_BYTES];
    row[0] = protocol_number(flow.protocol);
    row[1] = stage_number(known.stage);
    row[2] = seen;
    row[4..6].copy_from_slice(&known.external.to_be_bytes());
    row[6..8].copy_from_slice(&flow.inside.port.to_be_bytes());
    row[8..10].copy_from_slice(&flow.remote.port.to_be_bytes());
    row[10..14].copy_from_slice(&flow.inside.address.octets());
    row[14..18].copy_from_slice(&flow.remote.address.octets());
    row[18..].copy_from_slice(&idle_s.to_be_bytes());
    row
}

/// `None`: it makes no sense, or is over by now.
fn read_row(row: &[u8; ROW_BYTES], now_us: u64) -> Option<(Flow, Connection)> {
    let number = |at: usize| u16::from_be_bytes([row[at], row[at + 1]]);
    let address = |at: usize| Ipv4Addr::new(row[at], row[at + 1], row[at + 2], row[at + 3]);
    let endpoint = |at, port| Endpoint {
        address: address(at),
        port: number(port),
    };
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Echo];
    let stages = [Stage::Opening, Stage::Open, Stage::Closing];
    let flow = Flow {
        protocol: *protocols
            .iter()
            .find(|it| protocol_number(**it) == row[0])?,
        inside: endpoint(10, 6),
        remote: endpoint(14, 8),
    };
    let seen = |bit: u8| row[2] >> bit & 1 != 0;
    let known = Connection {
        external: number(4),
        stage: *stages.iter().find(|it| stage_number(**it) == row[1])?,
        packets: [seen(0), seen(1)],
        fins: [seen(2), seen(3)],
        seen_us: now_us.saturating_sub(u64::from(number(18)) * SECOND_US),
    };
    let lasts = PORTS.contains(&known.external) && !known.is_over(flow.protocol, now_us);
    (row[2] < 16 && row[3] == 0 && lasts).then_some((flow, known))
}

const fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Echo => 1,
    }
}

const fn stage_number(stage: Stage) -> u8 {
    match stage {
        Stage::Opening => 0,
        Stage::Open => 1,
        Stage::Closing => 2,
    }
}
