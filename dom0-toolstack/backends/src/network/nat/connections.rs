//! Which packets belong to which guest.
//!
//! A *mapping* gives a guest's endpoint one port of the host, whomever it talks to (RFC 4787, 4.1);
//! a *connection* is such an endpoint with one remote one, and only remote endpoints with a
//! connection get in (5). A *forward* lets anybody in to one endpoint.
//!
//! ```text
//! Opening --both sides have sent--> Open --FIN from both, or RST--> Closing
//!    ^------------------------------- SYN -----------------------------'
//! ```
//!
//! Invariants: a port of the host belongs to one mapping of a protocol; a mapping has at least one
//! connection; ports given away are in [`PORTS`] and none that the host was seen to use.

mod kept;

pub use kept::{KEPT_BYTES_MAX, KEPT_MAX};

use super::packet::{Endpoint, Protocol};
use alloc::collections::BTreeMap;
use core::net::Ipv4Addr;
use core::ops::RangeInclusive;
use core::task::Waker;

/// Ports (and echo identifiers) of the host that guests' connections use. Nothing on the host may
/// listen on them.
pub const PORTS: RangeInclusive<u16> = 32768..=60999;
/// Connections in all.
pub const CONNECTIONS_MAX: usize = 32_768;
/// Connections of one guest.
pub const CONNECTIONS_PER_GUEST_MAX: usize = 8192;
/// Ports forwarded.
pub const FORWARDS_MAX: usize = 1024;

const SECOND_US: u64 = 1_000_000;
/// An established TCP connection (RFC 5382, REQ-5).
pub const TCP_OPEN_US: u64 = 7440 * SECOND_US;
/// A TCP connection that opens or closes.
pub const TCP_TRANSITORY_US: u64 = 240 * SECOND_US;
/// UDP (RFC 4787, REQ-5).
pub const UDP_US: u64 = 300 * SECOND_US;
/// ICMP echo (RFC 5508, REQ-2).
pub const ECHO_US: u64 = 60 * SECOND_US;
/// How long a port that the host itself used is kept from guests.
const HOST_PORT_US: u64 = 600 * SECOND_US;
/// How often the whole table is looked through at most.
const SWEEP_US: u64 = SECOND_US;

/// Ports looked at for a free one, so that a shortage costs no more than that.
const PORT_SEARCH_MAX: u16 = 2048;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;

/// A guest's endpoint and whom it talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// Protocol.
    pub protocol: Protocol,
    /// The guest's.
    pub inside: Endpoint,
    /// The other.
    pub remote: Endpoint,
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the guest.
    Out,
    /// To the guest.
    In,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Opening,
    Open,
    Closing,
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    external: u16,
    stage: Stage,
    /// Seen: packets out, packets in; FIN out, FIN in.
    packets: [bool; 2],
    fins: [bool; 2],
    seen_us: u64,
}

#[derive(Clone, Copy, Debug)]
struct Mapping {
    external: u16,
    connections: usize,
}

/// Why a packet has no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Too many connections, of all or of the guest.
    Full,
    /// No port of the host is left.
    NoPort,
}

/// Why a port cannot be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardError {
    /// It is forwarded already.
    InUse(Protocol, u16),
    /// It is zero, or in [`PORTS`].
    Range(u16),
    /// There are [`FORWARDS_MAX`].
    Full,
}

/// The table.
#[derive(Default)]
pub struct Connections {
    connections: BTreeMap<Flow, Connection>,
    mappings: BTreeMap<(Protocol, Endpoint), Mapping>,
    externals: BTreeMap<(Protocol, u16), Endpoint>,
    forwards: BTreeMap<(Protocol, u16), Endpoint>,
    guests: BTreeMap<Ipv4Addr, usize>,
    /// Ports in [`PORTS`] that the host sends from, and when it last did.
    host: BTreeMap<(Protocol, u16), u64>,
    next: u16,
    swept_us: u64,
    /// What is worth keeping is not as it was kept last, and who waits for that.
    is_changed: bool,
    watcher: Option<Waker>,
}

impl Connection {
    fn is_over(&self, protocol: Protocol, now_us: u64) -> bool {
        let limit_us = match (protocol, self.stage) {
            (Protocol::Tcp, Stage::Open) => TCP_OPEN_US,
            (Protocol::Tcp, Stage::Opening | Stage::Closing) => TCP_TRANSITORY_US,
            (Protocol::Udp, _) => UDP_US,
            (Protocol::Echo, _) => ECHO_US,
        };
        now_us.saturating_sub(self.seen_us) > limit_us
    }

    fn saw(&mut self, direction: Direction, tcp_flags: u8, now_us: u64) {
        self.seen_us = now_us;
        let side = match direction {
            Direction::Out => 0,
            Direction::In => 1,
        };
        if self.stage == Stage::Closing && tcp_flags & (SYN | RST) == SYN {
            *self = Connection {
                stage: Stage::Opening,
                packets: [false; 2],
                fins: [false; 2],
                ..*self
            };
        }
        self.packets[side] = true;
        self.fins[side] |= tcp_flags & FIN != 0;
        if tcp_flags & RST != 0 || self.fins == [true; 2] {
            self.stage = Stage::Closing;
        } else if self.stage == Stage::Opening && self.packets == [true; 2] {
            self.stage = Stage::Open;
        }
    }
}

impl Connections {
    /// A packet goes out: the port of the host it is to come from.
    pub fn outward(&mut self, flow: Flow, tcp_flags: u8, now_us: u64) -> Result<u16, Refused> {
        if let Some(external) = self.touch(&flow, Direction::Out, tcp_flags, now_us) {
            return Ok(external);
        }
        self.make_room(&flow, now_us)?;
        // What a forward leads to answers from the forwarded port, also when the table has been lost since.
        if let Some(external) = self.forwarded_to(&flow) {
            self.add(flow, external, Direction::Out, tcp_flags, now_us);
            return Ok(external);
        }
        let key = (flow.protocol, flow.inside);
        let external = match self.mappings.get_mut(&key) {
            Some(mapping) => {
                mapping.connections += 1;
                mapping.external
            }
            None => {
                let external = self.free_port(flow, now_us).ok_or(Refused::NoPort)?;
                let mapping = Mapping {
                    external,
                    connections: 1,
                };
                self.mappings.insert(key, mapping);
                self.externals
                    .insert((flow.protocol, external), flow.inside);
                external
            }
        };
        self.add(flow, external, Direction::Out, tcp_flags, now_us);
        Ok(external)
    }

    /// The port of the host that is forwarded to where a flow comes from.
    fn forwarded_to(&self, flow: &Flow) -> Option<u16> {
        let mut all = self.forwards.iter();
        all.find(|((protocol, _), inside)| *protocol == flow.protocol && **inside == flow.inside)
            .map(|((_, port), _)| *port)
    }

    /// A packet has come to port `external` of the host from `remote`: whose it is. `None`: not a
    /// guest's.
    pub fn inward(
        &mut self,
        protocol: Protocol,
        external: u16,
        remote: Endpoint,
        tcp_flags: u8,
        now_us: u64,
    ) -> Option<Endpoint> {
        let key = (protocol, external);
        let forwarded = self.forwards.get(&key).copied();
        let inside = forwarded.or_else(|| self.externals.get(&key).copied())?;
        let flow = Flow {
            protocol,
            inside,
            remote,
        };
        // Known by another port of the host: an answer would seem to come from that one.
        let known = self
            .connections
            .get(&flow)
            .filter(|known| !known.is_over(protocol, now_us));
        if known.is_some_and(|known| known.external != external) {
            return None;
        }
        if self
            .touch(&flow, Direction::In, tcp_flags, now_us)
            .is_some()
        {
            return Some(inside);
        }
        forwarded?;
        self.make_room(&flow, now_us).ok()?;
        self.add(flow, external, Direction::In, tcp_flags, now_us);
        Some(inside)
    }

    /// Whose packet an ICMP error from outside is about: it went from `external` to `remote`.
    pub fn quoted_out(
        &self,
        protocol: Protocol,
        external: u16,
        remote: Endpoint,
    ) -> Option<Endpoint> {
        let key = (protocol, external);
        let inside = self
            .forwards
            .get(&key)
            .or_else(|| self.externals.get(&key))
            .copied()?;
        let flow = Flow {
            protocol,
            inside,
            remote,
        };
        (self.connections.get(&flow)?.external == external).then_some(inside)
    }

    /// The port of the host to which a packet went that a guest sends an ICMP error about.
    pub fn quoted_in(&self, flow: &Flow) -> Option<u16> {
        self.connections.get(flow).map(|known| known.external)
    }

    /// Lets everybody in by `port` of the host to `inside`.
    pub fn forward(
        &mut self,
        protocol: Protocol,
        port: u16,
        inside: Endpoint,
    ) -> Result<(), ForwardError> {
        if port == 0 || PORTS.contains(&port) {
            return Err(ForwardError::Range(port));
        }
        if self.forwards.contains_key(&(protocol, port)) {
            return Err(ForwardError::InUse(protocol, port));
        }
        if self.forwards.len() >= FORWARDS_MAX {
            return Err(ForwardError::Full);
        }
        self.forwards.insert((protocol, port), inside);
        Ok(())
    }

    /// Forgets all of a guest: connections and forwards.
    pub fn forget(&mut self, guest: Ipv4Addr) {
        self.forwards.retain(|_, inside| inside.address != guest);
        self.remove(|flow, _| flow.inside.address == guest);
    }

    /// The host sends from `port` itself.
    pub fn host_uses(&mut self, protocol: Protocol, port: u16, now_us: u64) {
        if PORTS.contains(&port) {
            self.host.insert((protocol, port), now_us);
        }
    }

    /// Connections there are, some perhaps over.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// The port of a connection that is not over, which has seen a packet now.
    fn touch(
        &mut self,
        flow: &Flow,
        direction: Direction,
        tcp_flags: u8,
        now_us: u64,
    ) -> Option<u16> {
        let known = self.connections.get_mut(flow)?;
        if known.is_over(flow.protocol, now_us) {
            self.remove_one(flow);
            return None;
        }
        let stage = known.stage;
        known.saw(direction, tcp_flags, now_us);
        let (external, is_other) = (known.external, known.stage != stage);
        if is_other {
            self.note_change();
        }
        Some(external)
    }

    fn make_room(&mut self, flow: &Flow, now_us: u64) -> Result<(), Refused> {
        if !self.has_room(flow) && now_us >= self.swept_us.saturating_add(SWEEP_US) {
            self.swept_us = now_us;
            self.remove(|flow, known| known.is_over(flow.protocol, now_us));
        }
        if self.has_room(flow) {
            Ok(())
        } else {
            Err(Refused::Full)
        }
    }

    fn has_room(&self, flow: &Flow) -> bool {
        let of_guest = self.guests.get(&flow.inside.address).copied().unwrap_or(0);
        self.connections.len() < CONNECTIONS_MAX && of_guest < CONNECTIONS_PER_GUEST_MAX
    }

    /// The guest's own port if possible, so that a connection survives a restart of the table; else
    /// the next free one.
    fn free_port(&mut self, flow: Flow, now_us: u64) -> Option<u16> {
        let count = PORTS.end() - PORTS.start() + 1;
        let is_free = |port: &u16| {
            let key = (flow.protocol, *port);
            let by_host = self.host.get(&key);
            let is_hosts = by_host.is_some_and(|used| now_us.saturating_sub(*used) < HOST_PORT_US);
            !is_hosts && !self.externals.contains_key(&key)
        };
        let own = Some(flow.inside.port).filter(|port| PORTS.contains(port) && is_free(port));
        let next = self.next % count;
        let port = own.or_else(|| {
            (0..count.min(PORT_SEARCH_MAX))
                .map(|step| PORTS.start() + (next + step) % count)
                .find(is_free)
        })?;
        self.next = (port - PORTS.start() + 1) % count;
        Some(port)
    }

    fn add(&mut self, flow: Flow, external: u16, direction: Direction, tcp_flags: u8, now_us: u64) {
        let mut connection = Connection {
            external,
            stage: Stage::Opening,
            packets: [false; 2],
            fins: [false; 2],
            seen_us: now_us,
        };
        connection.saw(direction, tcp_flags, now_us);
        self.insert(flow, connection);
    }

    fn insert(&mut self, flow: Flow, connection: Connection) {
        self.note_change();
        self.connections.insert(flow, connection);
        *self.guests.entry(flow.inside.address).or_default() += 1;
    }

    fn remove(&mut self, is_to_go: impl Fn(&Flow, &Connection) -> bool) {
        let of = |(flow, known): (&Flow, &Connection)| is_to_go(flow, known).then_some(*flow);
        let gone: alloc::vec::Vec<Flow> = self.connections.iter().filter_map(of).collect();
        for flow in &gone {
            self.remove_one(flow);
        }
    }

    fn remove_one(&mut self, flow: &Flow) {
        let Some(gone) = self.connections.remove(flow) else {
            return;
        };
        self.note_change();
        if let Some(count) = self.guests.get_mut(&flow.inside.address) {
            *count -= 1;
            if *count == 0 {
                self.guests.remove(&flow.inside.address);
            }
        }
        let key = (flow.protocol, flow.inside);
        // A connection that came by a forward has no part in the mapping.
        if let Some(mapping) = self.mappings.get_mut(&key)
            && mapping.external == gone.external
        {
            mapping.connections -= 1;
            if mapping.connections == 0 {
                self.mappings.remove(&key);
                self.externals.remove(&(flow.protocol, gone.external));
            }
        }
    }
}
